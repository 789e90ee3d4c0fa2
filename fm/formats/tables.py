"""Tables: files and frames -> columns (``pyarrow.Table``), and columns -> files.

Decided here: what the files of a directory share, and how Parquet is read. Not decided here: how
text is cut into cells (``fm.formats.delimited``), which frames are accepted
(``fm.formats.frames``), what a cell means (``fm.formats.cells``). Cells of a text file are texts;
Parquet and frames keep their types.

**A directory** is one table: its files in the order of their paths, subdirectories included,
without empty files and those whose name begins with "." or "_" (``_SUCCESS``). The first file
decides about delimiter, header and columns; the others must agree.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm.errors import ConfigError, DataError
from fm.formats.delimited import Layout, Options, read_text, stream_text
from fm.formats.files import File, files_of, is_file
from fm.formats.frames import (
    check_names,
    concatenated,
    existing,
    from_frame,
    plain,
    select,
    source_of,
    with_place,
)
from fm.formats.guess import is_parquet

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 65536


# -- reading ---------------------------------------------------------------------------------------


def read_table(
    source: Any,
    *,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    expect: Sequence[str] = (),
    encoding: str | None = None,
) -> pa.Table:
    r"""Return a file, a directory of files, or a frame as a pyarrow.Table.

    Parameters
    ----------
    source : path, bytes, pandas / polars / Arrow frame, or mapping of column names to values
        Text may be gzip-compressed. Anything with ``__arrow_c_stream__`` or ``__dataframe__`` is a
        frame.
    format : {"csv", "tsv", "parquet"}, optional
        Format of a file. None: told by its first bytes and its name.
    delimiter : str, optional
        What separates cells: one character, or ``"::"``. None: found out (see
        :mod:`fm.formats.delimited`).
    header : bool or sequence of str, optional
        Whether the first row is a header, or the names of the columns of a file without one (a
        first row with just these names is then skipped). None: found out, as well.
    columns : sequence of str, optional
        The columns to return; None: all.
    expect : sequence of str
        Names that a header would hold.
    encoding : str, optional
        Encoding of text, as Python calls it. None: UTF-8, or, with a warning, latin-1.

    Raises
    ------
    DataError
        If the source cannot be read, has no rows, or its rows differ in their number of cells.
    UnsupportedFormatError
        If the source is of another kind.

    Examples
    --------
    >>> read_table(b"user;film\n1;Alien\n2;\n").to_pydict()
    {'user': ['1', '2'], 'film': ['Alien', None]}
    """
    options = Options(format, delimiter, header, (*expect, *(columns or ())), encoding)
    if is_file(source):
        tables, first = [], None
        for file in files_of(source):
            first, part = _read_file(file, options, first, columns)
            tables.append(part)
        table = tables[0] if len(tables) == 1 else concatenated(tables)
    else:
        table = from_frame(source)
    return select(table, columns)


def iter_batches(
    source: Any,
    *,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    expect: Sequence[str] = (),
    encoding: str | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.Table]:
    """Yield a table in batches of rows; a file may be larger than the memory.

    Parameters
    ----------
    source, format, delimiter, header, columns, expect, encoding
        As in :func:`read_table`.
    batch_rows : int
        Rows of a batch; the last one of a file may be smaller.

    Raises
    ------
    DataError, UnsupportedFormatError
        As in :func:`read_table`, when the wrong batch is reached.

    Examples
    --------
    >>> [batch.num_rows for batch in iter_batches({"user": [1, 2, 3]}, batch_rows=2)]
    [2, 1]
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows: expected an integer >= 1, found {batch_rows!r}")
    options = Options(format, delimiter, header, (*expect, *(columns or ())), encoding)
    if not is_file(source):
        table = from_frame(source)
        parts = (table.slice(i, batch_rows) for i in range(0, table.num_rows, batch_rows))
        yield from _placed(parts, source_of(table), columns)
        return
    first: Layout | None = None
    for file in files_of(source):
        first, batches = _stream_file(file, options, first, columns, batch_rows)
        yield from _placed(batches, file.name, columns)


def _placed(
    batches: Iterable[pa.Table], name: str, columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    row = 0
    for batch in batches:
        yield select(with_place(batch, name, row), columns)
        row += batch.num_rows


def _read_file(
    file: File, options: Options, first: Layout | None, columns: Sequence[str] | None
) -> tuple[Layout | None, pa.Table]:
    """Return a whole file, and the layout that the next file of the directory must have."""
    content = file.read()
    if _as_parquet(file, options, bytes(content[:4])):
        with _parquet(file.name, content) as data:
            table = data.read(existing(columns, data.schema_arrow.names, file.name))
        return first, with_place(plain(table), file.name, 0)
    layout, table = read_text(file, content, options, first, columns)
    return first or layout, with_place(table, file.name, 0)


def _stream_file(
    file: File,
    options: Options,
    first: Layout | None,
    columns: Sequence[str] | None,
    batch_rows: int,
) -> tuple[Layout | None, Iterator[pa.Table]]:
    if _as_parquet(file, options, file.head()):
        return first, _stream_parquet(file, columns, batch_rows)
    layout, batches = stream_text(file, options, first, columns, batch_rows)
    return first or layout, batches


def _as_parquet(file: File, options: Options, head: bytes) -> bool:
    if options.format not in (None, "csv", "tsv", "parquet"):
        raise ConfigError(f"format: expected csv, tsv or parquet, found {options.format!r}")
    return options.format == "parquet" or options.format is None and is_parquet(file.name, head)


# -- Parquet ---------------------------------------------------------------------------------------


@contextmanager
def _parquet(name: str, content: Any) -> Iterator[Any]:
    """Open a Parquet file; turn the reader's errors into ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = content if isinstance(content, Path) else pa.BufferReader(content)
        with pq.ParquetFile(source) as file:
            if not file.metadata.num_rows:
                raise DataError(f"{name}: the file has no rows")
            check_names(name, file.schema_arrow.names)
            yield file
    except (pa.ArrowException, OSError, UnicodeError) as err:
        reason = str(err).splitlines()[0]
        raise DataError(
            f"{name}: not a Parquet file that can be read ({reason}); it may be damaged or "
            "truncated, fetch it again"
        ) from err


def _stream_parquet(
    file: File, columns: Sequence[str] | None, batch_rows: int
) -> Iterator[pa.Table]:
    import pyarrow as pa

    with _parquet(file.name, file.content) as data:
        names = existing(columns, data.schema_arrow.names, file.name)
        for batch in data.iter_batches(batch_rows, columns=names):
            yield plain(pa.Table.from_batches([batch]))


# -- writing ---------------------------------------------------------------------------------------


def write_table(
    table: pa.Table, path: str | os.PathLike[str], *, delimiter: str | None = None
) -> None:
    """Write a table to a file: Parquet, or text with a header, as the name says.

    Parameters
    ----------
    table : pyarrow.Table
        Lists are written to text as ``a|b``.
    path : path
        ``.parquet``; ``.csv``, ``.tsv`` or anything else is text, compressed if it ends in ``.gz``.
    delimiter : str, optional
        What separates cells; the default is tab for ``.tsv``, else a comma.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    name = os.fspath(path).lower()
    table = table.replace_schema_metadata()
    try:
        if is_parquet(name, b""):
            pq.write_table(table, path)
            return
        tab = name.removesuffix(".gz").endswith((".tsv", ".tab"))
        options = pacsv.WriteOptions(delimiter=delimiter or ("\t" if tab else ","))
        with pa.output_stream(path, compression="gzip" if name.endswith(".gz") else None) as file:
            pacsv.write_csv(_as_text(table), file, options)
    except OSError as err:
        raise DataError(f"{path}: cannot be written ({err})") from err


def _as_text(table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, field in enumerate(table.schema):
        column = table.column(i)
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, column.cast(field.type.value_type))
        elif pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            texts = column.cast(pa.list_(pa.string()))
            table = table.set_column(i, field.name, pc.binary_join(texts, "|"))
    return table
