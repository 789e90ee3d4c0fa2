"""Tables: CSV, Parquet and frames -> columns (``pyarrow.Table``), and columns -> files. Floor 1.

Decided here: how delimited text is cut into cells, and what its columns are called. Not decided
here: what a cell means (``fm.encoder``). Cells of a text file therefore stay texts: what
``007`` is does not depend on what else is in its column, or on where a batch of rows begins. An
empty cell is missing. Parquet and frames keep their types.

**Delimiter**, unless given: the first of ``::``, tab, comma, semicolon, ``|`` and space that cuts
the first row, and 9 of 10 rows of the beginning of the file, into the same number of cells, at
least 2. If none does: the one that comes closest, so that the odd rows can be named; if none comes
close, the file has one column. Cells may be quoted (``"a ""quoted"", cell"``, new lines included),
except between ``::``.

**Header**, unless given: the first row is a header if it holds a name that is expected (columns of
the encoder, the target, ...); else it is not if one of its cells is a number; else it is if some
column has nothing but numbers below it, or digits in each cell below it and none in it. Otherwise
it cannot be told, and the reader asks. Columns without a name are called by their position, "0",
"1", ...

**A directory** is one table: its files in the order of their paths, subdirectories included,
without empty files and those whose name begins with "." or "_" (``_SUCCESS``). The first file
decides about delimiter, header and columns; the others must agree.

A table remembers where its rows come from, so that a message about row 17 can name the file.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import itertools
import json
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fm.errors import ConfigError, DataError, UnsupportedFormatError
from fm.formats.files import content_of, gunzip, looks_like

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = ("::", "\t", ",", ";", "|", " ")
BATCH_ROWS = 65536

#: A number as it is written: ``-1.5e3``, ``.5``, ``+7``.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

#: Texts, in lower case, that mean "no number" where numbers are expected.
MISSING_NUMBERS = frozenset(
    ["", "na", "n/a", "#n/a", "<na>", "nan", "+nan", "-nan", "null", "none", "?", "\\n"]
)

_SAMPLE = 1 << 18  # bytes that are looked at to find delimiter, header and encoding
_BLOCK = 1 << 22  # bytes that are parsed at a time; no row may be longer
_ONE_BYTE = "\x1f"  # stands in for "::", because the parser wants one byte: "unit separator"
_PLACES = b"fm.places"
_DIGIT = re.compile(r"[0-9]")
_GZIP = b"\x1f\x8b"


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
        Format of a file; the default goes by its first bytes and name.
    delimiter : str, optional
        What separates cells: one character, or ``"::"``. None: found out (see the module).
    header : bool or sequence of str, optional
        Whether the first row is a header, or the names of the columns of a file without one (where
        a first row that repeats the names is no data). None: found out (see the module).
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
    options = _Options(format, delimiter, header, (*expect, *(columns or ())), encoding)
    if _is_file(source):
        tables, first = [], None
        for file in _files(source):
            first, part = _read_file(file, options, first, columns)
            tables.append(part)
        table = tables[0] if len(tables) == 1 else _concatenated(tables)
    else:
        table = _from_frame(source)
    return table if columns is None else _select(table, columns)


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
        As in :func:`read_table`, when the batch is reached that is wrong.

    Examples
    --------
    >>> [batch.num_rows for batch in iter_batches({"user": [1, 2, 3]}, batch_rows=2)]
    [2, 1]
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows: expected an integer >= 1, found {batch_rows!r}")
    options = _Options(format, delimiter, header, (*expect, *(columns or ())), encoding)
    if not _is_file(source):
        table = _from_frame(source)
        parts = (table.slice(i, batch_rows) for i in range(0, table.num_rows, batch_rows))
        yield from _placed(parts, source_of(table), columns)
        return
    first: _Layout | None = None
    for file in _files(source):
        first, batches = _stream_file(file, options, first, columns, batch_rows)
        yield from _placed(batches, file.name, columns)


def _placed(
    batches: Iterable[pa.Table], name: str, columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    row = 0
    for batch in batches:
        batch = _with_place(batch, name, row)
        yield batch if columns is None else _select(batch, columns)
        row += batch.num_rows


def _select(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    return table.select(_there(columns, table.column_names, source_of(table)))


def data_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a directory in the order of their paths, or a file itself.

    Left out are empty files and those whose name, or whose folder's, begins with "." or "_".

    Raises
    ------
    DataError
        If there is no such file, or the directory has no data.
    """
    root = Path(path)
    if not root.is_dir():
        if not root.exists():
            raise DataError(f"{root}: no such file or directory; check the path")
        return [root]
    files = [
        file
        for file in sorted(root.rglob("*"))
        if not any(part.startswith((".", "_")) for part in file.relative_to(root).parts)
        and file.is_file()
        and file.stat().st_size
    ]
    if not files:
        raise DataError(f"{root}: expected data files, found none that is not empty or hidden")
    return files


def head_of(source: Any) -> tuple[str, bytes]:
    """Return the name and the first bytes, decompressed, of a file or a directory's first file."""
    file = _files(source)[0]
    return file.name, file.head()


def is_parquet(name: str, head: bytes) -> bool:
    """Return whether the first bytes of a file, or its name, say Parquet."""
    return head.startswith(b"PAR1") or name.lower().endswith((".parquet", ".pq"))


class _Options(NamedTuple):
    """What the caller said of the files."""

    format: str | None
    delimiter: str | None
    header: bool | Sequence[str] | None
    expect: tuple[str, ...]
    encoding: str | None


class _File(NamedTuple):
    """A file, or bytes in its place."""

    name: str
    content: bytes | Path

    def read(self) -> memoryview:
        if isinstance(self.content, bytes) and self.content.startswith(_GZIP):
            return memoryview(gunzip(self.content, source=self.name))
        return content_of(self.content, self.name, self.name)[0]

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open for reading in pieces, decompressed."""
        try:
            path = self.content
            raw = path.open("rb") if isinstance(path, Path) else io.BytesIO(path)
        except OSError as err:
            raise DataError(f"{self.name}: cannot be read ({err.strerror}); check it") from err
        with raw:
            zipped = raw.read(2) == _GZIP
            raw.seek(0)
            try:
                yield gzip.GzipFile(fileobj=raw) if zipped else raw
            except (EOFError, gzip.BadGzipFile, zlib.error) as err:
                raise DataError(
                    f"{self.name}: the gzip data are damaged or truncated ({err}); fetch the file "
                    "again"
                ) from err

    def head(self) -> bytes:
        with self.open() as file:
            head: bytes = file.read(_SAMPLE)
        return head


def _is_file(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview))


def _files(source: Any) -> list[_File]:
    if isinstance(source, (str, os.PathLike)):
        return [_File(str(path), path) for path in data_files(source)]
    return [_File("data", bytes(source))]


class _Layout(NamedTuple):
    """How a text file is laid out."""

    delimiter: str
    names: tuple[str, ...]
    skip: int  # rows before the first one with data: the header and blank lines
    has_header: bool
    encoding: str


def _read_file(
    file: _File, options: _Options, first: _Layout | None, columns: Sequence[str] | None
) -> tuple[_Layout | None, pa.Table]:
    """Return a whole file, and the layout the next file of the directory must have."""
    content = file.read()
    head = bytes(content[:_SAMPLE])
    if _as_parquet(file, options, head):
        with _parquet(file.name, content) as data:
            table = data.read(_there(columns, data.schema_arrow.names, file.name))
        return first, _with_place(_plain(table), file.name, 0)
    layout = _layout(file.name, head, len(content) <= _SAMPLE, options, first)
    try:
        table = _read_text(file, content, layout, columns)
    except UnicodeDecodeError:
        if options.encoding is not None or layout.encoding != "utf-8":
            raise _bad_encoding(file.name, layout.encoding) from None
        layout = layout._replace(encoding=_fallback(file.name))
        table = _read_text(file, content, layout, columns)
    return first or layout, _with_place(table, file.name, 0)


def _stream_file(
    file: _File,
    options: _Options,
    first: _Layout | None,
    columns: Sequence[str] | None,
    batch_rows: int,
) -> tuple[_Layout | None, Iterator[pa.Table]]:
    head = file.head()
    if _as_parquet(file, options, head):
        return first, _stream_parquet(file, columns, batch_rows)
    layout = _layout(file.name, head, len(head) < _SAMPLE, options, first)
    return first or layout, _stream_text(file, layout, columns, batch_rows)


def _as_parquet(file: _File, options: _Options, head: bytes) -> bool:
    if options.format not in (None, "csv", "tsv", "parquet"):
        raise ConfigError(f"format: expected csv, tsv or parquet, found {options.format!r}")
    return options.format == "parquet" or options.format is None and is_parquet(file.name, head)


def _there(columns: Sequence[str] | None, names: Sequence[str], source: str) -> list[str] | None:
    if columns is None:
        return None
    for name in columns:
        if name not in names:
            raise no_column(name, names, source)
    return list(columns)


# -- text: how it is laid out ----------------------------------------------------------------------


def _layout(
    name: str, head: bytes, whole: bool, options: _Options, first: _Layout | None
) -> _Layout:
    """Find out how a text file is laid out from its beginning; `whole`: that is all of it."""
    if not head:
        raise DataError(f"{name}: the file is empty; expected rows of cells")
    encoding = _encoding(name, head, whole, options.encoding)
    sample = codecs.getincrementaldecoder(encoding)("replace").decode(head, whole)
    if "\0" in sample:
        raise UnsupportedFormatError(
            f"{name}: expected delimited text, found {looks_like(head)}; say which format it is "
            "with format="
        )
    sample = sample.removeprefix("\ufeff")
    lines = list(io.StringIO(sample, newline=""))  # not at the other ends that splitlines knows
    if not whole and len(lines) > 1:
        lines.pop()  # it may be cut off
    if not any(line.strip("\r\n") for line in lines):
        raise DataError(f"{name}: the file has only blank lines; expected rows of cells")
    blank = sum(1 for _ in itertools.takewhile(lambda line: not line.strip("\r\n"), lines))
    delimiter = _delimiter(name, lines, options, first)
    rows = [row for row in _cells(lines, delimiter) if row]
    if isinstance(options.header, (str, bytes)):
        raise ConfigError(f"header: expected true, false or names, found {options.header!r}")
    if isinstance(options.header, Sequence):
        names = [str(n) for n in options.header]
        if len(names) != len(rows[0]):
            raise DataError(
                f"{name}: header names {len(names)} columns, but the first row has "
                f"{len(rows[0])} cells separated by {_shown(delimiter)}"
            )
        has_header = rows[0] == names
    else:
        has_header = first.has_header if first else _has_header(name, rows, options)
        named = rows[0] if has_header else [""] * len(rows[0])
        names = [cell or str(i) for i, cell in enumerate(named)]
    _check_names(name, names)
    if first and sorted(names) != sorted(first.names):
        raise DataError(
            f"{name}: expected the columns of the first file, {', '.join(first.names)}, found "
            f"{', '.join(names)}"
        )
    return _Layout(delimiter, tuple(names), blank + has_header, has_header, encoding)


def _encoding(name: str, head: bytes, whole: bool, given: str | None) -> str:
    if given is not None:
        try:
            return codecs.lookup(given).name
        except LookupError as err:
            raise ConfigError(f"encoding: {given!r} is not known to Python") from err
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, whole)
    except UnicodeDecodeError:
        if b"\0" not in head:
            return _fallback(name)
    return "utf-8"


def _fallback(name: str) -> str:
    warnings.warn(
        f"{name}: not valid UTF-8, read as latin-1; say encoding='latin-1', or the right encoding",
        stacklevel=2,
    )
    return "latin-1"


def _bad_encoding(name: str, encoding: str) -> DataError:
    return DataError(
        f"{name}: expected text in {encoding}, found bytes that are not; pass the right encoding=, "
        "for example encoding='latin-1'"
    )


def _cells(lines: Iterable[str], delimiter: str, strict: bool = False) -> Iterator[list[str]]:
    if delimiter == "::":
        lines = (line.replace("::", _ONE_BYTE) for line in lines)
        return csv.reader(lines, delimiter=_ONE_BYTE, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=strict)


def _delimiter(name: str, lines: list[str], options: _Options, first: _Layout | None) -> str:
    given = options.delimiter or ("\t" if options.format == "tsv" else None)
    if given is not None:
        if given != "::" and (len(given) != 1 or ord(given) > 127 or given in '"\r\n\0'):
            raise ConfigError(
                f"delimiter: expected one ASCII character or '::', found {options.delimiter!r}"
            )
        return given
    if first:
        return first.delimiter
    best, most = ",", 0.5
    for delimiter in DELIMITERS:
        counts = [len(row) for row in _cells(lines, delimiter) if row]
        usual, times = Counter(counts).most_common(1)[0]
        share = times / len(counts)
        if usual > 1 and counts[0] == usual and share >= 0.9:
            return delimiter
        if usual > 1 and share > most:
            best, most = delimiter, share
    return best


def _has_header(name: str, rows: list[list[str]], options: _Options) -> bool:
    """Apply the rule of the module's text."""
    if options.header is not None:
        return bool(options.header)
    head, below = rows[0], rows[1:]
    if any(cell in options.expect and not cell.isdigit() for cell in head):
        return True
    if any(NUMBER.fullmatch(cell.strip()) for cell in head):
        return False
    for i, title in enumerate(head):
        cells = [row[i].strip() for row in below if i < len(row)]
        cells = [cell for cell in cells if cell.lower() not in MISSING_NUMBERS]
        if cells and all(map(NUMBER.fullmatch, cells)):
            return True
        if cells and not _DIGIT.search(title) and all(_DIGIT.search(cell) for cell in cells):
            return True
    if not below:
        return True  # and there is no row below it, which is reported as such
    raise DataError(
        f"{name}: cannot tell whether the first row ({', '.join(head[:4])}"
        f"{', ...' if len(head) > 4 else ''}) is a header, as no column has only numbers below it; "
        "pass header=True or header=False"
    )


def _check_names(source: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{source}: the column name {twice[0]!r} occurs twice; name the columns apart"
        )


# -- text: parsing ---------------------------------------------------------------------------------


class _Utf8(io.RawIOBase):
    """Bytes of a text file as the parser wants them: UTF-8, cells separated by one byte.

    Also counts lines and remembers quotes: a quote that is never closed swallows the lines after
    it, and the parser does not mind.
    """

    def __init__(self, name: str, raw: Any, layout: _Layout) -> None:
        self._name = name
        self.lines = 0
        self.quotes = False
        self._raw = raw
        self._split = layout.delimiter == "::"
        self._rest = b""
        self._decoder = None
        if layout.encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(layout.encoding)()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            raw = self._raw.read(size)
            block: bytes = raw
            if self._decoder:
                block = self._decoder.decode(raw, not raw).encode()
            if self._split:
                block = self._separated(block, not raw)
            if block or not raw:
                self.lines += block.count(b"\n")
                self.quotes = self.quotes or b'"' in block
                return block

    def _separated(self, block: bytes, last: bool) -> bytes:
        if _ONE_BYTE.encode() in block:
            raise DataError(
                f"{self._name}: the text holds the control character 0x1f, which cannot be read "
                "between ::; remove it"
            )
        block = (self._rest + block).replace(b"::", _ONE_BYTE.encode())
        self._rest = b""
        if not last and block.endswith(b":"):  # its other half may begin the next block
            block, self._rest = block[:-1], b":"
        return block


def _parser_options(layout: _Layout, columns: Sequence[str] | None) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    split = layout.delimiter == "::"
    return {
        "read_options": pacsv.ReadOptions(
            column_names=layout.names, skip_rows_after_names=layout.skip, block_size=_BLOCK
        ),
        "parse_options": pacsv.ParseOptions(
            delimiter=_ONE_BYTE if split else layout.delimiter,
            quote_char=False if split else '"',
            newlines_in_values=not split,
        ),
        "convert_options": pacsv.ConvertOptions(
            column_types=dict.fromkeys(layout.names, pa.string()),
            include_columns=columns,
            strings_can_be_null=True,
            null_values=[""],
        ),
    }


def _read_text(
    file: _File, content: memoryview, layout: _Layout, columns: Sequence[str] | None
) -> pa.Table:
    """Return the rows of a text; UnicodeDecodeError if it is not in the encoding."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    options = _parser_options(layout, _there(columns, layout.names, file.name))
    text = _Utf8(file.name, pa.BufferReader(content), layout)
    with _parse_errors(file, layout):
        table = pacsv.read_csv(text, **options)
    _check_lines(file, layout, text, table.num_rows)
    return table


def _stream_text(
    file: _File, layout: _Layout, columns: Sequence[str] | None, batch_rows: int
) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    options = _parser_options(layout, _there(columns, layout.names, file.name))
    rows, waiting, count = 0, [], 0
    try:
        with file.open() as raw, _parse_errors(file, layout):
            text = _Utf8(file.name, raw, layout)
            for batch in pacsv.open_csv(text, **options):
                waiting.append(pa.Table.from_batches([batch]))
                count += batch.num_rows
                rows += batch.num_rows
                if count >= batch_rows:
                    table, done = pa.concat_tables(waiting), count - count % batch_rows
                    for start in range(0, done, batch_rows):
                        yield table.slice(start, batch_rows)
                    waiting, count = [table.slice(done)], count - done
    except UnicodeDecodeError:
        raise _bad_encoding(file.name, layout.encoding) from None
    _check_lines(file, layout, text, rows)
    if count:
        yield pa.concat_tables(waiting)


@contextmanager
def _parse_errors(file: _File, layout: _Layout) -> Iterator[None]:
    """Turn the parser's errors into ours, which name the line."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as err:
        if "UTF8" in str(err):
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "invalid") from err
        _check_rows(file, layout)
        raise DataError(f"{file.name}: cannot be read as delimited text ({err})") from err


def _check_lines(file: _File, layout: _Layout, text: _Utf8, rows: int) -> None:
    if rows == 0:
        below = " below the header; if the first row is data, pass header=False"
        raise DataError(f"{file.name}: the file has no rows{below if layout.has_header else ''}")
    if text.quotes and text.lines - rows - layout.skip not in (-1, 0):
        _check_rows(file, layout)  # some cell has several lines, or a line is blank


def _check_rows(file: _File, layout: _Layout) -> None:
    """Read a text once more, slowly, and raise a DataError for the first line that is wrong."""
    encoding = "utf-8-sig" if layout.encoding == "utf-8" else layout.encoding
    with file.open() as raw, io.TextIOWrapper(raw, encoding, "replace", newline="") as lines:
        rows: Any = _cells(lines, layout.delimiter, strict=True)
        expected, start = len(layout.names), 1
        try:
            for row in rows:
                if row and len(row) != expected:
                    raise DataError(
                        f"{file.name} line {start}: expected {expected} cells separated by "
                        f"{_shown(layout.delimiter)}, found {len(row)}"
                        f"{_other_delimiter(row, layout)}; correct the line"
                    )
                start = rows.line_num + 1
        except csv.Error as err:
            if "field larger" in str(err):
                return  # Python's limit, not a fault of the file
            raise DataError(
                f"{file.name} line {start}: a quoted cell that begins here is not closed as it "
                f"should be ({err}); close it, or write a quote inside it twice"
            ) from err


def _other_delimiter(row: list[str], layout: _Layout) -> str:
    line = layout.delimiter.join(row)
    for other in DELIMITERS:
        if other != layout.delimiter:
            cells = next(_cells([line], other), [])
            if len(cells) == len(layout.names) > 1:
                return f", and {len(cells)} separated by {_shown(other)} (mixed delimiters?)"
    return ""


def _shown(delimiter: str) -> str:
    return {"\t": "tab", " ": "space"}.get(delimiter, repr(delimiter))


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
            _check_names(name, file.schema_arrow.names)
            yield file
    except (pa.ArrowException, OSError) as err:
        reason = str(err).splitlines()[0]
        raise DataError(
            f"{name}: not a Parquet file that can be read ({reason}); it may be damaged or "
            "truncated, fetch it again"
        ) from err


def _stream_parquet(
    file: _File, columns: Sequence[str] | None, batch_rows: int
) -> Iterator[pa.Table]:
    import pyarrow as pa

    with _parquet(file.name, file.content) as data:
        names = _there(columns, data.schema_arrow.names, file.name)
        for batch in data.iter_batches(batch_rows, columns=names):
            yield _plain(pa.Table.from_batches([batch]))


# -- frames ----------------------------------------------------------------------------------------


def _from_frame(source: Any) -> pa.Table:
    import pyarrow as pa

    name = type(source).__module__.split(".")[0] + " frame"
    if isinstance(source, pa.Table):
        if _PLACES in (source.schema.metadata or {}):
            return source  # one of ours
        name, table = "table", source
    elif isinstance(source, pa.RecordBatch):
        name, table = "table", pa.Table.from_batches([source])
    elif isinstance(source, Mapping):
        name, table = "columns", _from_columns(list(source.items()))
    elif hasattr(source, "iloc") and hasattr(source, "columns"):  # pandas; mixed columns are usual
        table = _from_columns([(c, source.iloc[:, i]) for i, c in enumerate(source.columns)])
    elif hasattr(source, "__arrow_c_stream__") and not hasattr(source, "name"):  # no Series
        table = pa.table(source)
    elif hasattr(source, "to_arrow") and hasattr(source, "columns"):  # polars before 1.3
        table = source.to_arrow()
    elif hasattr(source, "__dataframe__"):
        from pyarrow.interchange import from_dataframe

        table = from_dataframe(source)
    else:
        raise UnsupportedFormatError(
            "expected a path, a frame (pandas, polars, Arrow) or a dict of columns, found "
            f"{type(source).__name__}"
        )
    _check_names(name, table.column_names)
    return _with_place(_plain(table), name, 0)


def _from_columns(columns: list[tuple[Any, Any]]) -> pa.Table:
    import pyarrow as pa

    arrays = [_array(name, values) for name, values in columns]
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        found = ", ".join(f"{name}: {len(a)}" for (name, _), a in zip(columns, arrays, strict=True))
        raise DataError(f"columns: expected the same number of values in each, found {found}")
    return pa.Table.from_arrays(arrays, names=[str(name) for name, _ in columns])


def _array(name: Any, values: Any) -> Any:
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise DataError(f"column {name!r}: expected a list or an array, found {values!r}")
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    except (pa.ArrowException, TypeError, ValueError) as err:
        raise DataError(f"column {name!r}: cannot be read as one column ({err})") from err
    else:
        return array
    # Values of several types: a value is its text, whatever the others are.
    mixed = [None if v is None or v != v else v for v in values]
    if any(isinstance(v, (list, tuple, set, Mapping)) for v in mixed):
        raise DataError(f"column {name!r}: expected either lists or single values, found both")
    return pa.array([None if v is None else str(v) for v in mixed], pa.string())


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with the types that Arrow's functions know best."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        kind = _plain_type(field.type)
        if kind != field.type:
            column = table.column(i)
            if isinstance(field.type, pa.BaseExtensionType):
                column = pa.chunked_array(
                    [c.storage for c in column.chunks], field.type.storage_type
                )
            table = table.set_column(i, field.name, column.cast(kind))
    return table


def _plain_type(kind: Any) -> Any:
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain_type(kind.value_type), kind.ordered)
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    return kind


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of all files, columns in the order of the first one's."""
    import pyarrow as pa

    names = tables[0].column_names
    for table in tables[1:]:
        if sorted(table.column_names) != sorted(names):
            raise DataError(
                f"{source_of(table)}: expected the columns of the first file, {', '.join(names)}, "
                f"found {', '.join(table.column_names)}"
            )
    places, row = [], 0
    for table in tables:
        places.append([source_of(table), row, 0])
        row += table.num_rows
    try:
        whole = pa.concat_tables(
            [table.select(names).replace_schema_metadata() for table in tables],
            promote_options="permissive",
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        raise DataError(f"{places[0][0]}: the files differ in their types ({err})") from err
    return whole.replace_schema_metadata({_PLACES: json.dumps(places)})


# -- names and places, for messages ----------------------------------------------------------------


def _with_place(table: pa.Table, name: str, row: int) -> pa.Table:
    """Note that the table's first row is row `row` (from 0) of `name`."""
    return table.replace_schema_metadata({_PLACES: json.dumps([[name, 0, row]])})


def _places(table: pa.Table) -> list[tuple[str, int, int]]:
    """Return (name, first row in the table, its row number there) of each file."""
    noted = (table.schema.metadata or {}).get(_PLACES)
    return [tuple(place) for place in json.loads(noted)] if noted else [("table", 0, 0)]


def source_of(table: pa.Table) -> str:
    """Return what a table was read from, for messages: the first file of several."""
    return _places(table)[0][0]


def place(table: pa.Table, row: int) -> str:
    """Return where a row (counted from 0) of a table comes from: ``"train.csv row 17"``.

    Rows of a file are counted from 1, below the header.
    """
    name, start, first = [p for p in _places(table) if p[1] <= row][-1]
    return f"{name} row {first + row - start + 1}"


def column_name(table: pa.Table, ref: str | int) -> str:
    """Return the name of a column given by name or position.

    Raises
    ------
    DataError
        If there is no such column.
    """
    names: list[str] = table.column_names
    if isinstance(ref, int) and not isinstance(ref, bool) and str(ref) not in names:
        if -len(names) <= ref < len(names):
            return names[ref]
    elif str(ref) in names:
        return str(ref)
    raise no_column(str(ref), names, source_of(table))


def no_column(name: str, names: Sequence[str], source: str) -> DataError:
    """Return the error for a column that does not exist: which do, and which may be meant."""
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    if not close and all(n.isdigit() for n in names):
        meant = "; if the first row is a header, pass header=True"
    shown = ", ".join(names[:30]) + (f", ... ({len(names)} in all)" if len(names) > 30 else "")
    return DataError(f"{source}: there is no column {name!r}; the columns are {shown}{meant}")


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
