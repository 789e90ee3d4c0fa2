"""Frames: tables in memory -> ``pyarrow.Table``, their names and their places. Floor 1.

Decided here: which frames are accepted, which Arrow types a table has, and what a message calls its
columns and rows. A table remembers where its rows come from, so that a message about row 17 can
name the file. Not decided here: how files are read (``fm.formats.tables``).
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fm.errors import DataError, UnsupportedFormatError

if TYPE_CHECKING:
    import pyarrow as pa

_PLACES = b"fm.places"


def from_frame(source: Any) -> pa.Table:
    """Return a frame, or a mapping of column names to values, as a table.

    Raises
    ------
    DataError
        If a name occurs twice, or values cannot be made into a column.
    UnsupportedFormatError
        If it is of another kind.
    """
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
    check_names(name, table.column_names)
    return with_place(plain(table), name, 0)


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
    # Values of several types: each becomes a text, whatever the others are.
    mixed = [None if v is None or v != v else v for v in values]
    if any(isinstance(v, (list, tuple, set, Mapping)) for v in mixed):
        raise DataError(f"column {name!r}: expected either lists or single values, found both")
    return pa.array([None if v is None else str(v) for v in mixed], pa.string())


def plain(table: pa.Table) -> pa.Table:
    """Return the table with the types that most of Arrow's functions accept."""
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


def concatenated(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of all files, with the columns in the order of the first file."""
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


# -- names of columns ------------------------------------------------------------------------------


def check_names(source: str, names: Sequence[str]) -> None:
    """Refuse a name that occurs twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{source}: the column name {twice[0]!r} occurs twice; name the columns apart"
        )


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


def existing(columns: Sequence[str] | None, names: Sequence[str], source: str) -> list[str] | None:
    """Return the columns given, or None; refuse one that is not in `names`."""
    if columns is None:
        return None
    for name in columns:
        if name not in names:
            raise no_column(name, names, source)
    return list(columns)


def select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return the table with these columns only; None: all."""
    names = existing(columns, table.column_names, source_of(table))
    return table if names is None else table.select(names)


def no_column(name: str, names: Sequence[str], source: str) -> DataError:
    """Return the error for a column that does not exist: it names those that do."""
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    if not close and all(n.isdigit() for n in names):
        meant = "; if the first row is a header, pass header=True"
    shown = ", ".join(names[:30]) + (f", ... ({len(names)} in all)" if len(names) > 30 else "")
    return DataError(f"{source}: there is no column {name!r}; the columns are {shown}{meant}")


# -- places of rows --------------------------------------------------------------------------------


def with_place(table: pa.Table, name: str, row: int) -> pa.Table:
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
