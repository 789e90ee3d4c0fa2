"""Cells: what one cell of a table means.

Decided here: which text or number a cell is. Each rule is written twice: for a Python value and for
an Arrow array. Not decided here: which features it becomes (``fm.encoding.columns``), or how bytes
become cells (``fm.formats.tables``).

**What a value is.** Categories are texts. A number has one spelling wherever it comes from, so
that a model trained on a file understands a frame or a JSON request: the integer 42, the text
``"42"``, 42.0 from a column of floats (pandas turns integers with gaps into one) and the text
``"42.0"`` are all ``"42"``; true, ``"True"`` and ``"TRUE"`` are ``"true"``. Nothing else is
changed: ``"007"`` stays ``"007"``, ``"1.50"`` stays ``"1.50"``, blanks stay. The rule looks at one
value at a time, so it cannot depend on what else a file holds.

**Missing.** None, NaN, an empty cell and an empty text are missing, in every kind of column. In
columns of numbers, so are the usual words for it (:data:`MISSING_NUMBERS`). In columns of
categories these are values, because ``"NA"`` is Namibia.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fm.errors import Advice, DataError
from fm.formats.frames import column_name, no_column, no_value, place, source_of

if TYPE_CHECKING:
    import pyarrow as pa

#: A number as it is written: ``-1.5e3``, ``.5``, ``+7``.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

#: Texts, in lower case, that mean "no number" where numbers are expected.
MISSING_NUMBERS = frozenset(
    ["", "na", "n/a", "#n/a", "<na>", "nan", "+nan", "-nan", "null", "none", "?", "\\n"]
)

_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_WHOLE = re.compile(r"-?[0-9]+\.0")
_DECIMAL = r"^[ \t]*[+-]?([0-9]+\.|\.[0-9]|[0-9]+[eE])"  # a number, and not written as an integer
_BLANKS = " \t\n\r\x0b\x0c"  # what Arrow's ascii_trim_whitespace removes


# -- a value ---------------------------------------------------------------------------------------


def text_of(value: Any) -> str | None:
    """Return the text of a category (see the module), or None if it is missing.

    Raises
    ------
    ValueError
        If the value is a list, a mapping, or anything else that is not a single value.
    """
    if isinstance(value, str):
        return _canonical(value) if value else None
    if type(value) is int or isinstance(value, np.integer):  # neither is a truth value
        return str(value)
    if no_value(value):
        return None
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return _canonical(str(value)) if value else "0"  # -0.0 too
    if isinstance(value, bytes):
        return text_of(value.decode())
    if isinstance(value, (Mapping, Sequence, set, frozenset, np.ndarray)):
        raise ValueError("one value")
    return _canonical(str(value))


def parts_of(value: Any, separator: str) -> list[str]:
    """Return the texts in a cell with a set of values, which is a list or a text to be split.

    Raises
    ------
    ValueError
        If the value is neither, or one in the list is not a single value.
    """
    array = isinstance(value, np.ndarray) and value.ndim > 0
    if array or isinstance(value, (list, tuple, set, frozenset)):
        texts = [text_of(part) for part in value]
    else:
        cell = text_of(value) or ""
        texts = [text_of(part.strip(_BLANKS)) for part in cell.split(separator)]
    return [text for text in texts if text is not None]


def _canonical(text: str) -> str:
    if text.endswith(".0") and _WHOLE.fullmatch(text):
        return text[:-2]
    return _TRUTH.get(text, text)


def number_of(value: Any) -> float | None:
    """Return a finite number, or None if it is missing.

    Raises
    ------
    ValueError
        If the value is not a number, or not a finite one.
    """
    if isinstance(value, str):
        text = value.strip(_BLANKS)
        if text.lower() in MISSING_NUMBERS:
            return None
        truth = _TRUTH.get(text, text)
        if truth in ("true", "false"):
            return float(truth == "true")
        if not NUMBER.fullmatch(text):
            raise ValueError(value)
        number = float(text)
    elif no_value(value):
        return None
    elif isinstance(value, (Real, Decimal, np.bool_)):
        try:
            number = float(value)
        except (OverflowError, TypeError) as err:  # TypeError: numpy's timedelta64
            raise ValueError(value) from err
    else:
        raise ValueError(value)
    if math.isinf(number):
        raise ValueError(value)
    return None if math.isnan(number) else number


# -- a column of them ------------------------------------------------------------------------------


class BadCell(Exception):  # noqa: N818  (not an error yet: its place is added later)
    """A cell that does not fit its column: its row, counted from 0, and its value."""

    def __init__(self, row: int, value: Any) -> None:
        super().__init__(row, value)
        self.row = row
        self.value = value


class Cells:
    """A column of a table, and what its cells mean; each property is computed once, on first use.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        The column.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    @property
    def is_list(self) -> bool:
        """Whether the cells are lists."""
        import pyarrow.types as types

        kind = self.column.type
        return bool(
            types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        )

    @cached_property
    def _encoded(self) -> pa.DictionaryArray:
        import pyarrow as pa

        column = self.column
        try:
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            return column.unify_dictionaries().combine_chunks()
        except pa.ArrowNotImplementedError as err:  # lists, structs, ...
            raise self.bad_cell() from err

    def by_appearance(self) -> Cells:
        """Return cells whose texts, in `coded`, are in the order in which they first occur.

        In a plain column they are. A dictionary (a category of pandas) has an order of its own.
        """
        import pyarrow as pa

        if not pa.types.is_dictionary(self.column.type):
            return self
        encoded = self._encoded
        codes = encoded.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        first = np.full(len(encoded.dictionary) + 1, codes.size)  # the last one is for code -1
        first[codes[::-1]] = np.arange(codes.size)[::-1]  # of repeated places, the last value stays
        order = np.argsort(first[:-1])
        places = np.empty(order.size + 1, np.int32)
        places[order] = np.arange(order.size)
        moved = pa.array(places[codes], mask=codes < 0)
        ordered = pa.DictionaryArray.from_arrays(moved, encoded.dictionary.take(pa.array(order)))
        return Cells(pa.chunked_array([ordered]))

    @cached_property
    def coded(self) -> tuple[np.ndarray, pa.Array]:
        """(codes, texts): row i has ``texts[codes[i]]``; code -1, or text null, where missing.

        Work on the texts is done once for each different value, not for each row.
        """
        import pyarrow as pa

        encoded = self._encoded
        codes = encoded.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        try:
            return codes, _texts(encoded.dictionary)
        except _NO_TEXT as err:
            bad = int(np.argmax(codes == _first_without_text(encoded.dictionary)))
            raise self.bad_cell(bad) from err

    @cached_property
    def numbers(self) -> np.ndarray:
        """The cells as float64 numbers, NaN where missing, by the rule of :func:`number_of`."""
        return self._numbers()

    def _numbers(self) -> np.ndarray:
        import pyarrow as pa

        column = self.column
        values = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_temporal(values) or pa.types.is_nested(values):
            raise self.bad_cell()
        if values != column.type:
            column = column.cast(values)
        try:
            numbers: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            numbers = self._spelled_numbers()  # such as "NA", " 7" or a text
        infinite = np.isinf(numbers)
        if infinite.any():
            raise self.bad_cell(int(np.argmax(infinite)))
        return numbers

    def _spelled_numbers(self) -> np.ndarray:
        codes, texts = self.coded
        known = np.full(len(texts) + 1, np.nan)  # the last one is for missing cells, code -1
        for i, text in enumerate(texts.to_pylist()):
            try:
                number = number_of(text)
            except ValueError:
                raise self.bad_cell(int(np.argmax(codes == i))) from None
            known[i] = np.nan if number is None else number
        numbers: np.ndarray = known[codes]
        return numbers

    @property
    def is_truth(self) -> bool:
        """Whether all cells are truth values."""
        import pyarrow as pa

        if pa.types.is_boolean(self.column.type):
            return True
        if str(self.column[0])[:1] not in ("t", "T", "f", "F"):
            return False  # at once, for columns of numbers
        return is_text(self.column.type) and set(self.coded[1].to_pylist()) <= {"true", "false"}

    @property
    def decimal(self) -> bool:
        """Whether all cells are numbers, and some are not written as integers."""
        import pyarrow.compute as pc

        try:
            numbers = self._numbers()  # not kept, because most columns of texts are not numeric
        except BadCell:
            return False
        if (numbers % 1 > 0).any():
            return True
        written = self._encoded.dictionary  # 42.0, where coded has 42
        return bool(pc.any(pc.match_substring_regex(written, _DECIMAL)).as_py())

    def parts(self, separator: str) -> Parts:
        """Return the values in each cell, which is a list or a text to be split."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.is_list:
            rows = None
            lists = pa.concat_arrays(self.column.chunks or [pa.array([], self.column.type)])
            values, num_cells = lists.flatten(), len(lists)
        else:
            codes, cells = self.coded
            lists = pc.split_pattern(cells, separator)
            values, num_cells = pc.ascii_trim_whitespace(lists.flatten()), len(lists) + 1
            rows = np.where(codes < 0, len(lists), codes)  # the last cell is for missing ones
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        try:
            codes, texts = Cells(pa.chunked_array([values])).by_appearance().coded
        except BadCell:  # lists of lists
            raise self.bad_cell() from None
        missing = np.append(texts.is_null().to_numpy(zero_copy_only=False), True)  # code -1 is too
        kept = ~missing[codes]
        cell = np.repeat(np.arange(len(lists)), lengths)[kept]
        return Parts(rows, num_cells, cell, codes[kept], texts)

    def bad_cell(self, row: int | None = None) -> BadCell:
        """Return the error for a row; by default for the first one that is not missing."""
        import pyarrow.compute as pc

        if row is None:
            row = max(pc.index(self.column.is_valid(), True).as_py(), 0)
        return BadCell(row, _python_value(self.column[row]))


class Parts(NamedTuple):
    """The values in the cells of a column; missing ones are left out."""

    rows: np.ndarray | None  # the cell of each row; None: cell i is that of row i
    num_cells: int
    cells: np.ndarray  # the cell of each value
    codes: np.ndarray  # the text of each value, as a position in texts
    texts: pa.Array


def _texts(values: pa.Array) -> pa.Array:
    """Return the texts of an Arrow array as :func:`text_of` defines them; null where missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    if not is_text(kind):
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            values = values.cast(pa.timestamp("us", kind.tz), safe=False)
        # Floats as numpy writes them: 0.1 as float32 is not 0.10000000149.
        floats = pa.types.is_floating(kind)
        cells = values.to_numpy(zero_copy_only=False) if floats else values.to_pylist()
        return pa.array([text_of(cell) for cell in cells], pa.string())
    texts = values.cast(pa.string())
    texts.validate(full=True)  # a file may hold texts that are not UTF-8
    if pc.any(pc.ends_with(texts, ".0")).as_py():
        texts = pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0$", r"\1")
    spelled = pc.index_in(texts, pa.array(list(_TRUTH)))
    if spelled.null_count < len(spelled):
        texts = pc.coalesce(pc.take(pa.array(list(_TRUTH.values())), spelled), texts)
    empty = pc.equal(texts, "")
    if pc.any(empty).as_py():
        texts = pc.if_else(empty, pa.scalar(None, pa.string()), texts)
    return texts


# What Arrow and Python raise for a value that has no text: a list, a date after the year 9999, or
# bytes that are not UTF-8. (UnicodeError and ArrowInvalid are ValueErrors.)
_NO_TEXT = (ValueError, OverflowError)


def _first_without_text(values: pa.Array) -> int:
    for i, value in enumerate(values):
        try:
            text_of(value.as_py())
        except _NO_TEXT:
            return i
    return 0


def _python_value(value: pa.Scalar) -> Any:
    """Return what a message shows of a value of Arrow's, which may be broken."""
    import pyarrow as pa

    try:
        return value.as_py()
    except UnicodeError:
        return value.cast(pa.binary()).as_py() if is_text(value.type) else f"a {value.type}"
    except _NO_TEXT:
        return f"a {value.type} that Python does not know"


def is_text(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is one of texts, or of bytes, which are read as texts."""
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


# -- a table of them -------------------------------------------------------------------------------


class CellTable:
    """A table that keeps the cells it has computed.

    Parameters
    ----------
    table : pyarrow.Table
        As :func:`fm.formats.tables.read_table` returns it.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.names: list[str] = table.column_names
        self.num_rows: int = table.num_rows
        self.source = source_of(table)
        self._cells: dict[str, Cells] = {}

    @contextmanager
    def column(self, name: str, kind: str) -> Iterator[Cells]:
        """Give the cells of a column; a BadCell becomes a DataError that names its place."""
        if name not in self._cells:
            if name not in self.names:
                raise no_column(name, self.names, self.source)
            self._cells[name] = Cells(self.table.column(name))
        try:
            yield self._cells[name]
        except BadCell as err:
            where = place(self.table, err.row)
            raise wrong_cell(where, name, kind, err.value, _ADVICE.get(kind)) from None

    def resolve(self, refs: Any) -> list[str]:
        """Return the names of columns given by name or position."""
        refs = [refs] if isinstance(refs, (str, int)) else refs
        return [column_name(self.table, ref) for ref in refs]


_EXPECTED = {
    "target": "a number",
    "weight": "a number",
    "categorical": "one value",
    "multi": "a list of values, or a text",
    "history": "a list of values, or a text",
    "numeric": "a finite number",
    "date": "a date such as 2024-05-01 or 2024-05-01 12:30",
}
_ADVICE = {
    "target": Advice("correct the cell; for two classes write two labels, such as 0 and 1"),
    "weight": Advice("correct the cell"),
    "categorical": Advice(
        "for lists name the column in {multi} or {history}", multi=..., history=...
    ),
    "numeric": Advice(
        "correct the cell, empty it if the number is missing, or name the column in {categorical}",
        categorical=...,
    ),
    "date": Advice(
        "correct the cell, empty it if the date is missing, or name the column in {categorical}",
        categorical=...,
    ),
}


def wrong_cell(
    where: str, column: str, kind: str, value: Any, advice: Advice | None = None
) -> DataError:
    """Return the error for a cell that is not what a column of its kind needs."""
    expected = _EXPECTED[kind]
    if isinstance(value, (bytes, bytearray)) and kind != "numeric":
        expected = "text in UTF-8"
        advice = Advice("write it as UTF-8, or leave the column out")
    found = " ".join(repr(value).split())
    found = found if len(found) <= 60 else found[:57] + "..."
    return DataError(f"{where}, column {column!r}: expected {expected}, found {found}", advice)
