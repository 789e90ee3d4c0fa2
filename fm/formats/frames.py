"""Frames: tables in memory -> ``pyarrow.Table``, their names and their places.

Decided here: which frames are accepted, which Arrow types a table has, and what a message calls its
columns and rows. A table remembers where its rows come from, so that a message about row 17 can
name the file. Not decided here: how files are read (``fm.formats.tables``).
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fm.errors import Advice, DataError, UnsupportedFormatError

if TYPE_CHECKING:
    import pyarrow as pa

_PLACES = b"fm.places"
_NO_VALUE = ("NAType", "NaTType")  # of pandas, which need not be installed


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

    frame = type(source).__module__.split(".")[0] + " frame"
    name = "columns" if isinstance(source, Mapping) else frame
    try:
        name, table = _as_table(name, source)
    except (pa.ArrowException, UnicodeError) as err:
        reason = str(err).splitlines()[0]
        raise DataError(f"{name}: cannot be read as columns ({reason}); convert them") from err
    if _PLACES in (table.schema.metadata or {}):
        return table  # one of ours
    check_names(name, table.column_names)
    return with_place(plain(table), name, 0)


def _as_table(name: str, source: Any) -> tuple[str, pa.Table]:
    """Return a frame as a table, and what messages call it."""
    import pyarrow as pa

    if isinstance(source, pa.Table):
        return "table", source
    if isinstance(source, pa.RecordBatch):
        return "table", pa.Table.from_batches([source])
    if isinstance(source, Mapping):
        return name, _from_columns(list(source.items()))
    if hasattr(source, "iloc") and hasattr(source, "columns"):  # pandas; mixed columns are usual
        columns = [(c, source.iloc[:, i]) for i, c in enumerate(source.columns)]
        return name, _from_columns(columns)
    if hasattr(source, "get_columns"):  # polars
        return name, _from_columns([(column.name, column) for column in source.get_columns()])
    if hasattr(source, "__arrow_c_stream__") and not hasattr(source, "name"):  # no Series
        return name, pa.table(source)
    if hasattr(source, "__dataframe__"):
        from pyarrow.interchange import from_dataframe

        return name, from_dataframe(source)
    raise UnsupportedFormatError(
        "expected a path, a frame (pandas, polars, Arrow) or a dict of columns, found "
        f"{type(source).__name__}"
    )


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

    if hasattr(values, "to_arrow"):
        values = _of_polars(values)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    listlike = hasattr(values, "__len__") and not isinstance(values, (str, bytes))
    if not listlike or hasattr(values, "columns") or getattr(values, "ndim", 1) != 1:
        raise DataError(
            f"column {name!r}: expected a list or an array of one dimension, found {_shown(values)}"
        )
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # 2**64, for example
        pass
    except (pa.ArrowException, TypeError, ValueError) as err:
        raise DataError(f"column {name!r}: cannot be read as one column ({err})") from err
    else:
        return array
    # Values of several types: a value is its text, whatever the others are.
    texts = [_text(f"row {row}, column {name!r}", value) for row, value in enumerate(values, 1)]
    kinds = {type(text) for text in texts if text is not None}
    if len(kinds) > 1:
        raise DataError(f"column {name!r}: expected either lists or single values, found both")
    return pa.array(texts, pa.list_(pa.string()) if kinds == {list} else pa.string())


def _of_polars(column: Any) -> Any:
    """Return a column of polars as an array, or as a list if Arrow does not know its values."""
    import pyarrow as pa

    if str(column.dtype) != "Object":  # of which Arrow would get the addresses
        try:
            return column.to_arrow()
        except pa.ArrowException:  # integers of 128 bits
            pass
    return column.to_list()


def _text(place: str, value: Any) -> str | list[Any] | None:
    """Return the text of a value, or the texts in a list; None for a value that is missing."""
    if isinstance(value, (list, tuple, set, frozenset)) or getattr(value, "ndim", 0) == 1:
        parts = [_text(place, part) for part in value]
        if not any(isinstance(part, list) for part in parts):
            return parts
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        raise DataError(f"{place}: expected a value or a list of values, found {_shown(value)}")
    if no_value(value) or _is_nan(value):
        return None
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as err:
        raise DataError(f"{place}: expected text in UTF-8, found {_shown(value)}") from err


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:60]


def no_value(value: Any) -> bool:
    """Return whether a value is one of those that stand for none, apart from NaN."""
    return value is None or type(value).__name__ in _NO_VALUE


def _is_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except (TypeError, ValueError, ArithmeticError):  # of a kind that has no NaN
        return False


def plain(table: pa.Table) -> pa.Table:
    """Return the table with the types that most of Arrow's functions accept."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        kind = _plain_type(field.type)
        if kind != field.type:
            column = table.column(i)
            if isinstance(field.type, _uuid()):
                column = pa.chunked_array([[v and str(v) for v in column.to_pylist()]], kind)
            elif isinstance(field.type, pa.BaseExtensionType):
                column = pa.chunked_array(
                    [c.storage for c in column.chunks], field.type.storage_type
                )
            table = table.set_column(i, field.name, column.cast(kind))
    return table


def _uuid() -> Any:
    import pyarrow as pa

    return getattr(pa, "UuidType", ())  # pyarrow 17 has none


def _plain_type(kind: Any) -> Any:
    import pyarrow as pa

    if isinstance(kind, _uuid()):
        return pa.string()  # as a UUID in a row is spelled
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


class Columns(list[str]):
    """Columns to read, of which a table may lack those in `optional`."""

    optional: frozenset[str] = frozenset()


def existing(columns: Sequence[str] | None, names: Sequence[str], source: str) -> list[str] | None:
    """Return the columns given, or None; refuse one that is not in `names`."""
    if columns is None:
        return None
    optional = getattr(columns, "optional", ())
    for name in columns:
        if name not in names and name not in optional:
            raise no_column(name, names, source)
    return [name for name in columns if name in names]


def select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return the table with these columns only; None: all."""
    names = existing(columns, table.column_names, source_of(table))
    return table if names is None else table.select(names)


def misspelt(
    names: Collection[str], wanted: Sequence[str], known: Collection[str] = ()
) -> tuple[str, str] | None:
    """Return a name that is not known and close to a wanted one that is missing, and that one.

    Other names that are not known may stay: rows may have further columns.

    Parameters
    ----------
    names : collection of str
        The names of a row or a table.
    wanted : sequence of str
        The names to look for.
    known : collection of str
        Further names that are right.

    Examples
    --------
    >>> misspelt(["flim", "time"], ["user", "film"])
    ('flim', 'film')
    >>> misspelt(["flim", "film", "user"], ["user", "film"])
    """
    others = [n for n in names if isinstance(n, str) and n not in known and n not in wanted]
    lowered = {name.lower(): name for name in others[:_MOST_NAMES]}
    for name in wanted if lowered else ():
        if name in names:
            continue
        close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=_SLIP)
        if close:
            return lowered[close[0]], name
    return None


_SLIP = 0.7  # share of letters in common: flim and film, movie and movie_id
_MOST_NAMES = 50  # that are looked at: requests may be hostile, and each takes microseconds


def no_column(name: str, names: Sequence[str], source: str, meant: str | None = None) -> DataError:
    """Return the error for a column that does not exist: which do, and which may be meant."""
    if meant is None:
        meant = next(iter(difflib.get_close_matches(name, names, n=1)), None)
    hint = "" if meant is None else f"; did you mean {meant!r}?"
    advice = None
    if meant is None and all(n.isdigit() for n in names):
        advice = Advice("if the first row is a header, pass {header}", header=True)
    shown = ", ".join(names[:30]) + (f", ... ({len(names)} in all)" if len(names) > 30 else "")
    return DataError(
        f"{source}: there is no column {name!r}; the columns are {shown}{hint}", advice
    )


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
