"""Encoder: the columns of a table <-> sparse features. It is part of a model.

Decided here: which feature numbers a cell becomes, and back. Not decided here: how bytes become
columns (``fm.formats.tables``), which column is the target (``fm.read``). Floor 1.

Every column is one **field**, and the features of a field are consecutive:

===========  =======================  ============================================================
kind         features                 entries of a row
===========  =======================  ============================================================
categorical  unknown, then one for    one, of value 1
             each value
numeric      the number, unknown      one: the number (standardised if asked), or unknown with
                                      value 1 where it is missing
multi        unknown, then one for    one of value 1 for each different value of the cell:
             each value               a list, or a text such as ``"Action|Comedy"``
history      as multi                 as multi, but of value 1/sqrt(n), n the entries of the row in
                                      this field: a long history weighs no more than a short one
===========  =======================  ============================================================

Values are numbered by falling count, so that the rows of the model which are used most lie
together; equal counts keep the order in which the values first appear.

**What a value is.** Categories are texts. A number has one spelling wherever it comes from, so
that a model trained on a file understands a frame or a JSON request: the integer 42, the text
``"42"``, 42.0 from a column of floats (pandas makes one of integers with gaps) and the text
``"42.0"`` are all ``"42"``; true, ``"True"`` and ``"TRUE"`` are ``"true"``. Nothing else is
changed: ``"007"`` stays ``"007"``, ``"1.50"`` stays ``"1.50"``, blanks stay. The rule looks at one
value at a time, so it cannot depend on what else a file holds.

**Missing.** None, NaN, an empty cell and an empty text are missing, in every kind. Among numbers
the usual spellings are too (``MISSING_NUMBERS`` of
``fm.formats.tables``); among categories they are not, because
``"NA"`` is Namibia.

**Unknown.** Missing values and values that training did not see share the unknown feature of
their field. It is trained by missing values and by values seen in fewer than `min_count` rows. With
the default of 1 and no gaps in the data nothing trains it: it then keeps its initial parameters,
and ``min_count=2`` (what was seen once is unknown) is the way to train it.

**Hashing.** With `hash_dim` a column keeps no list of values: a value goes to bucket
``mix(FNV-1a(UTF-8 bytes of the text)) % hash_dim``, in 64-bit arithmetic, `mix` being the
finaliser of MurmurHash3. The buckets follow the unknown feature, which only missing values use;
`min_count` does not apply.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, overload

import numpy as np
import scipy.sparse as sp

from fm.errors import ConfigError, DataError, FMError, ModelFileError
from fm.formats.files import ragged
from fm.formats.tables import (
    MISSING_NUMBERS,
    NUMBER,
    column_name,
    no_column,
    place,
    read_table,
    source_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
UNKNOWN = "<unknown>"
SEPARATOR = "|"
MAX_FEATURES = 2**31 - 1

_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_WHOLE = re.compile(r"-?[0-9]+\.0")
_DECIMAL = r"^[ \t]*[+-]?([0-9]+\.|\.[0-9]|[0-9]+[eE])"  # a number, and not written as an integer
_BLANKS = " \t\n\r\x0b\x0c"  # what Arrow's ascii_trim_whitespace removes
_NO_VALUE = ("NAType", "NaTType")  # of pandas, which need not be installed
_LARGEST = float(np.finfo(np.float32).max)

# A column chosen by default that looks like an identifier of the row, or a time, is pointed out.
_ROWS_TO_JUDGE = 1000
_NEARLY_ALL = 0.9
_UNIX_SECONDS = (631_152_000, 2_524_608_000)  # the years 1990 to 2050


# -- what one cell means: each rule once for a Python value, once for an Arrow array ---------------


def text_of(value: Any) -> str | None:
    """Return the text of a category (see the module), or None if it is missing.

    Raises
    ------
    ValueError
        If the value is a list, a mapping, or another thing that is not one value.
    """
    if isinstance(value, str):
        return _canonical(value) if value else None
    if value is None or type(value).__name__ in _NO_VALUE:
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


def _canonical(text: str) -> str:
    if text.endswith(".0") and _WHOLE.fullmatch(text):
        return text[:-2]
    return _TRUTH.get(text, text)


def _texts(values: pa.Array) -> pa.Array:
    """Return the texts of an Arrow array as :func:`text_of` defines them; null where missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    if not _is_text(kind):
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            values = values.cast(pa.timestamp("us", kind.tz), safe=False)
        found = values.to_numpy(zero_copy_only=False) if pa.types.is_floating(kind) else values
        if pa.types.is_floating(kind):
            return pa.array([text_of(v) for v in found], pa.string())
        return pa.array([text_of(v) for v in found.to_pylist()], pa.string())
    texts = values.cast(pa.string())
    if pc.any(pc.ends_with(texts, ".0")).as_py():
        texts = pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0$", r"\1")
    spelled = pc.index_in(texts, pa.array(list(_TRUTH)))
    if spelled.null_count < len(spelled):
        texts = pc.coalesce(pc.take(pa.array(list(_TRUTH.values())), spelled), texts)
    empty = pc.equal(texts, "")
    if pc.any(empty).as_py():
        texts = pc.if_else(empty, pa.scalar(None, pa.string()), texts)
    return texts


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


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
    elif value is None or type(value).__name__ in _NO_VALUE:
        return None
    elif isinstance(value, (Real, Decimal, np.bool_)):
        try:
            number = float(value)
        except OverflowError as err:
            raise ValueError(value) from err
    else:
        raise ValueError(value)
    if math.isinf(number):
        raise ValueError(value)
    return None if math.isnan(number) else number


class BadCell(Exception):  # noqa: N818  (not an error yet: its place is added later)
    """A cell that is not what its column needs: its row, counted from 0, and the value."""

    def __init__(self, row: int, value: Any) -> None:
        super().__init__(row, value)
        self.row = row
        self.value = value


class Cells:
    """A column of a table, and what its cells mean; worked out once, when it is asked for.

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

    @cached_property
    def coded(self) -> tuple[np.ndarray, pa.Array]:
        """(codes, texts): row i has ``texts[codes[i]]``; code -1, or text null, where missing.

        What is done with the texts costs per different value, not per row.
        """
        import pyarrow as pa

        encoded = self._encoded
        codes = encoded.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        try:
            return codes, _texts(encoded.dictionary)
        except pa.ArrowInvalid as err:  # bytes that are not UTF-8
            raise self.bad_cell() from err

    @cached_property
    def numbers(self) -> np.ndarray:
        """The cells as float64 numbers, NaN where missing, as :func:`number_of` has it."""
        return self._numbers()

    def _numbers(self) -> np.ndarray:
        import pyarrow as pa

        column = self.column
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_temporal(column.type):
            raise self.bad_cell()
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
    def decimal(self) -> bool:
        """Whether all cells are numbers, and some are not written as integers."""
        import pyarrow.compute as pc

        try:
            numbers = self._numbers()  # not kept, as most columns of texts are not numeric
        except BadCell:
            return False
        if (numbers % 1 > 0).any():
            return True
        written = self._encoded.dictionary  # 42.0, where coded has 42
        return bool(pc.any(pc.match_substring_regex(written, _DECIMAL)).as_py())

    def parts(self, separator: str) -> Parts:
        """Return the values in each cell: those of a list, or of a text that is split."""
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
            codes, texts = Cells(pa.chunked_array([values])).coded
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
        return BadCell(row, self.column[row].as_py())


class Parts(NamedTuple):
    """The values in the cells of a column, without those that are missing."""

    rows: np.ndarray | None  # the cell of each row; None: cell i is that of row i
    num_cells: int
    cells: np.ndarray  # the cell of each value
    codes: np.ndarray  # the text of each value, as a position in texts
    texts: pa.Array


def _sorted_unique(keys: np.ndarray) -> np.ndarray:
    keys = np.sort(keys)
    return keys[np.append(True, keys[1:] != keys[:-1])] if keys.size else keys


# -- the values of a field -------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """The values of a field in the order of their features; 0 is unknown, ``values[0]`` is 1."""

    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of features, unknown included."""
        return len(self.values) + 1

    @cached_property
    def index(self) -> dict[str, int]:
        """The feature of each value, within the field."""
        return {value: i for i, value in enumerate(self.values, 1)}

    @cached_property
    def _arrow(self) -> pa.Array:
        import pyarrow as pa

        return pa.array(self.values, pa.string())

    def find(self, text: str) -> int:
        """Return the feature of a value within the field; 0 if it is not known."""
        return self.index.get(text, 0)

    def find_all(self, texts: pa.Array) -> np.ndarray:
        """Return :meth:`find` of each text, int32; 0 for null."""
        if 4 * len(texts) < len(self.values):  # a hash table of all values would cost more
            find = self.index.get
            return np.array([find(text, 0) for text in texts.to_pylist()], dtype=np.int32)
        import pyarrow.compute as pc

        found = pc.index_in(texts, self._arrow).fill_null(-1).to_numpy(zero_copy_only=False)
        known: np.ndarray = (found + 1).astype(np.int32, copy=False)
        if texts.null_count:
            known[texts.is_null().to_numpy(zero_copy_only=False)] = 0
        return known

    def value(self, i: int) -> str | None:
        """Return the value of feature i of the field; None for unknown."""
        return self.values[i - 1] if i else None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {"values": list(self.values)}


@dataclass(frozen=True)
class Buckets:
    """A fixed number of features that values are hashed to; 0 is unknown (missing)."""

    hash_dim: int

    @property
    def width(self) -> int:
        """Number of features, unknown included."""
        return self.hash_dim + 1

    def find(self, text: str) -> int:
        """Return the feature of a value within the field."""
        h = _FNV_BASIS
        for byte in text.encode("utf-8", "surrogatepass"):
            h = (h ^ byte) * _FNV_PRIME & _MASK
        return _mix(h) % self.hash_dim + 1

    def find_all(self, texts: pa.Array) -> np.ndarray:
        """Return :meth:`find` of each text, int32; 0 for null."""
        found = (_hash_all(texts) % np.uint64(self.hash_dim)).astype(np.int32) + 1
        if texts.null_count:
            found[texts.is_null().to_numpy(zero_copy_only=False)] = 0
        return found

    def value(self, i: int) -> str | None:
        """Return a name for feature i of the field; None for unknown."""
        return f"<bucket {i - 1}>" if i else None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {"hash_dim": self.hash_dim}


_FNV_BASIS, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1
_MIX = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53


def _mix(h: int) -> int:
    for factor in _MIX:
        h = (h ^ h >> 33) * factor & _MASK
    return h ^ h >> 33


def _hash_all(texts: pa.Array) -> np.ndarray:
    """Return the 64-bit hash of each text, a byte position of all texts at a time."""
    import pyarrow as pa

    count = len(texts)
    texts = texts.cast(pa.large_string())
    _, offsets, content = texts.buffers()
    offsets = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + count + 1]
    content = np.frombuffer(content or b"", np.uint8)
    lengths = np.diff(offsets)
    order = np.argsort(-lengths)  # longest first: those still read are always a prefix
    starts, lengths = offsets[:-1][order], lengths[order]
    h = np.full(count, _FNV_BASIS, np.uint64)
    position, prime = 0, np.uint64(_FNV_PRIME)
    while (active := int(np.searchsorted(-lengths, -position))) > 32:
        h[:active] = (h[:active] ^ content[starts[:active] + position]) * prime
        position += 1
    for i in range(active):  # a few very long texts: numpy would cost more per byte
        rest = int(h[i])
        for byte in content[starts[i] + position : starts[i] + lengths[i]].tobytes():
            rest = (rest ^ byte) * _FNV_PRIME & _MASK
        h[i] = rest
    for factor in _MIX:
        h = (h ^ h >> np.uint64(33)) * np.uint64(factor)
    hashed = np.empty_like(h)
    hashed[order] = h ^ h >> np.uint64(33)
    return hashed


# -- columns ---------------------------------------------------------------------------------------


class Entries(NamedTuple):
    """What a column contributes to all rows: entries row after row, features ascending."""

    indices: np.ndarray  # within the field
    values: np.ndarray | None = None  # None: all 1
    counts: np.ndarray | None = None  # entries of each row; None: one each


@dataclass(frozen=True)
class Categorical:
    """A column with one value in each row."""

    kind: ClassVar[str] = "categorical"
    name: str
    values: Vocabulary | Buckets

    @property
    def width(self) -> int:
        """Number of features of the field."""
        return self.values.width

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        codes, texts = cells.coded
        return Entries(np.append(self.values.find_all(texts), np.int32(0))[codes])

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        text = text_of(value)
        return [(0 if text is None else self.values.find(text), 1.0)]

    def decode(self, entries: list[tuple[int, float]]) -> str | None:
        """Return the value that has these entries; None for unknown."""
        return self.values.value(entries[0][0]) if entries else None

    def feature_name(self, i: int) -> str:
        """Return the name of feature i of the field."""
        value = self.values.value(i)
        return f"{self.name}={UNKNOWN if value is None else value}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {"name": self.name, "kind": self.kind, **self.values.to_dict()}


@dataclass(frozen=True)
class ValueSet(Categorical):
    """A column with a set of values in each row, all of value 1 ("multi")."""

    kind: ClassVar[str] = "multi"
    separator: str = SEPARATOR

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        parts = cells.parts(self.separator)
        found = self.values.find_all(parts.texts)[parts.codes]
        # A cell without any value is unknown; so is, once, a cell with values not known.
        bare = np.flatnonzero(np.bincount(parts.cells, minlength=parts.num_cells) == 0)
        keys = np.concatenate([parts.cells * self.width + found, bare * self.width])
        keys = _sorted_unique(keys)
        indices = (keys % self.width).astype(np.int32)
        counts = np.bincount(keys // self.width, minlength=parts.num_cells)
        if parts.rows is not None:  # from different cells back to one cell for each row
            begins = (np.cumsum(counts) - counts)[parts.rows]
            counts = counts[parts.rows]
            indices = indices[ragged(begins, counts)]
        return Entries(indices, self._weights(counts), counts)

    def _weights(self, counts: np.ndarray) -> np.ndarray | None:
        return None

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
            texts: Iterable[str | None] = map(text_of, value)
        else:
            cell = text_of(value) or ""
            texts = (text_of(part.strip(_BLANKS)) for part in cell.split(self.separator))
        found = {self.values.find(text) for text in texts if text is not None} or {0}
        weight = self._weight(len(found))
        return [(i, weight) for i in sorted(found)]

    def _weight(self, count: int) -> float:
        return 1.0

    def decode(self, entries: list[tuple[int, float]]) -> Any:
        """Return the list of values (None for unknown ones), or None if all are unknown."""
        values = [self.values.value(i) for i, _ in entries]
        return None if values in ([], [None]) else values

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {**super().to_dict(), "separator": self.separator}


@dataclass(frozen=True)
class History(ValueSet):
    """A column with a set of values in each row, each of value 1/sqrt(how many).

    References
    ----------
    The weight is that of SVD++: Koren, "Factorization meets the neighborhood", KDD 2008, eq. 15.
    """

    kind: ClassVar[str] = "history"

    def _weights(self, counts: np.ndarray) -> np.ndarray | None:
        return np.repeat((1 / np.sqrt(counts)).astype(np.float32), counts)

    def _weight(self, count: int) -> float:
        return 1 / math.sqrt(count)


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: feature 0 has the value ``(x - mean) / std``, 1 is unknown."""

    kind: ClassVar[str] = "numeric"
    name: str
    mean: float = 0.0
    std: float = 1.0
    width: ClassVar[int] = 2

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        numbers = (cells.numbers - self.mean) / self.std
        missing = np.isnan(numbers)
        large = np.abs(numbers) > _LARGEST
        if large.any():
            raise cells.bad_cell(int(np.argmax(large)))
        numbers[missing] = 1.0
        return Entries(missing.astype(np.int32), numbers.astype(np.float32))

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        number = number_of(value)
        if number is None:
            return [(1, 1.0)]
        number = (number - self.mean) / self.std
        if abs(number) > _LARGEST:
            raise ValueError(value)
        return [(0, number)]

    def decode(self, entries: list[tuple[int, float]]) -> float | None:
        """Return the number that has these entries; None if it is missing."""
        if not entries or entries[0][0] == 1:
            return None
        return float(entries[0][1]) * self.std + self.mean

    def feature_name(self, i: int) -> str:
        """Return the name of feature i of the field."""
        return f"{self.name}={UNKNOWN}" if i else self.name

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        return {"name": self.name, "kind": self.kind, "mean": self.mean, "std": self.std}


Column = Categorical | Numeric  # and the subclasses of Categorical

KINDS: dict[str, type[Column]] = {c.kind: c for c in (Categorical, Numeric, ValueSet, History)}


# -- the encoder -----------------------------------------------------------------------------------


class FeatureNames(Sequence[str]):
    """The names of all features of an encoder, made when asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __len__(self) -> int:
        return self._encoder.num_features

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._encoder.feature_name(i) for i in range(*index.indices(len(self)))]
        return self._encoder.feature_name(range(len(self))[index])

    def __repr__(self) -> str:
        return f"<names of {len(self)} features>"


class Encoder:
    """Turns columns into features and back; :meth:`fit` makes one.

    Parameters
    ----------
    columns : sequence of Categorical, ValueSet, History or Numeric
        In the order of their features.

    Attributes
    ----------
    columns : tuple
        As given.
    num_features : int
        Number of features.
    field_names : tuple of str
        The names of the columns; field i is column i.
    fields : ndarray of int32, shape (num_features,)
        The field of each feature.

    Examples
    --------
    >>> from fm.encoder import Encoder
    >>> data = {"user": [7, 7, 8], "genres": ["Action|Comedy", "Comedy", None], "age": [.5, 2., 1.]}
    >>> encoder = Encoder.fit(data, categorical=["user"], numeric=["age"], multi=["genres"])
    >>> list(encoder.feature_names)
    ['user=<unknown>', 'user=7', 'user=8', 'genres=<unknown>', 'genres=Comedy', 'genres=Action', \
'age', 'age=<unknown>']
    >>> encoder.encode_rows([{"user": "8", "genres": "Comedy", "age": 3}]).toarray()
    array([[0., 0., 1., 0., 1., 0., 3., 0.]], dtype=float32)
    >>> encoder.feature_index("genres", "Western") == encoder.feature_index("genres", None)
    True
    """

    def __init__(self, columns: Iterable[Column]) -> None:
        self.columns = tuple(columns)
        self.field_names = tuple(column.name for column in self.columns)
        widths = [column.width for column in self.columns]
        self._offsets = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
        self.num_features = int(self._offsets[-1])
        if self.num_features > MAX_FEATURES:
            raise ConfigError(
                f"encoder: {self.num_features} features, but at most {MAX_FEATURES} are supported; "
                "raise min_count or set hash_dim"
            )
        self._by_name = dict(zip(self.field_names, self._rows_of_columns(), strict=True))
        if len(self._by_name) < len(self.columns):
            raise ConfigError(f"encoder: a column name occurs twice: {list(self.field_names)}")

    def _rows_of_columns(self) -> Iterator[tuple[int, Column]]:
        return zip(self._offsets[:-1].tolist(), self.columns, strict=True)

    @cached_property
    def fields(self) -> np.ndarray:
        """The field of each feature, int32."""
        return np.repeat(np.arange(len(self.columns), dtype=np.int32), np.diff(self._offsets))

    @property
    def feature_names(self) -> Sequence[str]:
        """The name of each feature; a sequence that makes a name when asked for it."""
        return FeatureNames(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoder) and self.columns == other.columns

    def __hash__(self) -> int:
        return hash((self.field_names, self.num_features))

    def __repr__(self) -> str:
        kinds = ", ".join(f"{c.name!r}: {c.kind} {c.width}" for c in self.columns)
        return f"<Encoder of {self.num_features} features: {kinds}>"

    # -- fitting ---------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        data: Any,
        *,
        categorical: Any = (),
        numeric: Any = (),
        multi: Any = (),
        history: Any = (),
        ignore: Any = (),
        standardize: bool = False,
        min_count: int = 1,
        hash_dim: int | Mapping[str, int] | None = None,
    ) -> Encoder:
        """Return an encoder for a table.

        Columns that are named are used as is said, and no others. If none is named in
        `categorical`, `numeric`, `multi` and `history`, all are used, except those in `ignore`:
        floats and texts that are all numbers, not all of them integers, as numeric; lists as multi;
        all else as categorical.

        Parameters
        ----------
        data : table, frame, dict of columns, or path
            What :func:`fm.formats.tables.read_table` reads.
        categorical, numeric, ignore : name, position, or sequence of them
            Columns of a kind.
        multi, history : name, position, sequence of them, or mapping of name to separator
            Columns with a set of values: lists, or texts cut at the separator (default ``"|"``).
        standardize : bool
            Whether numeric columns get mean 0 and standard deviation 1.
        min_count : int
            Values in fewer rows train the unknown feature of the field instead of their own.
        hash_dim : int or mapping of name to int, optional
            Number of buckets, for all columns with values or for those named.

        Raises
        ------
        DataError
            If there are no rows, a column does not exist or cannot be of its kind.
        ConfigError
            If an option is wrong, or a column is named twice.
        """
        table = CellTable.of(data)
        if table.num_rows == 0:
            raise DataError(f"{table.source}: no rows to learn the columns from")
        if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 1:
            raise ConfigError(f"min_count: expected an integer >= 1, found {min_count!r}")
        given = {"categorical": categorical, "numeric": numeric, "multi": multi, "history": history}
        chosen = _choose(table, given, set(table.resolve(ignore)))
        sizes = _hash_sizes(hash_dim, chosen)
        columns: list[Column] = []
        for name in table.names:  # in this order whatever the order of the arguments
            if name not in chosen:
                continue
            kind, separator = chosen[name]
            with table.column(name, kind) as cells:
                if kind == "numeric":
                    columns.append(_fit_numeric(name, cells, standardize))
                    continue
                values: Vocabulary | Buckets
                if name in sizes:
                    values = Buckets(sizes[name])
                else:
                    values = _fit_values(cells, kind, separator, min_count)
            if kind == "categorical":
                columns.append(Categorical(name, values))
            else:
                columns.append((ValueSet if kind == "multi" else History)(name, values, separator))
        return cls(columns)

    # -- encoding --------------------------------------------------------------------------------

    def transform(self, data: Any) -> sp.csr_matrix:
        """Return the rows of a table as features; columns that are not needed are ignored.

        Parameters
        ----------
        data : table, frame, dict of columns, or path
            What :func:`fm.formats.tables.read_table` reads.

        Returns
        -------
        csr_matrix of float32, shape (num_rows, num_features)
            int32 column numbers, sorted; each column contributes at least one entry to a row.

        Raises
        ------
        DataError
            If a column is missing or a cell is not of its column's kind.
        """
        table = CellTable.of(data)
        parts = []
        for column in self.columns:
            with table.column(column.name, column.kind) as cells:
                parts.append(column.encode(cells))
        return self._csr(table.num_rows, parts)

    def _csr(self, num_rows: int, parts: list[Entries]) -> sp.csr_matrix:
        if all(part.counts is None for part in parts):
            total = num_rows * len(parts)
            indptr = np.arange(0, total + 1, len(parts) or 1)
        else:
            counts = sum(1 if part.counts is None else part.counts for part in parts)
            indptr = np.concatenate([[0], np.cumsum(counts)])
            total = int(indptr[-1])
        indices = np.empty(total, np.int32)
        data = np.ones(total, np.float32)
        at = indptr[:-1].copy()  # where the next column's first entry of each row goes
        for part, offset in zip(parts, self._offsets.tolist()[:-1], strict=True):
            place = at
            if part.counts is not None:
                place = ragged(at, part.counts)
            indices[place] = part.indices + np.int32(offset)
            if part.values is not None:
                data[place] = part.values
            at += 1 if part.counts is None else part.counts
        return _raw_csr(num_rows, self.num_features, data, indices, indptr)

    def encode_rows(self, rows: Iterable[Mapping[str, Any]]) -> sp.csr_matrix:
        """Return rows given as mappings, such as JSON objects, as features.

        The same features as :meth:`transform` of a table with these rows, without Arrow. A column
        that a row does not have is missing in it.

        Parameters
        ----------
        rows : iterable of mappings
            Column name to value.

        Returns
        -------
        csr_matrix of float32, shape (num_rows, num_features)

        Raises
        ------
        DataError
            If a row has a column that the encoder does not know, or a value of the wrong kind.
        """
        indices: list[int] = []
        values: list[float] = []
        indptr = [0]
        for number, row in enumerate(rows, 1):
            self._encode_row(row, number, indices, values)
            indptr.append(len(indices))
        return _raw_csr(
            len(indptr) - 1,
            self.num_features,
            np.array(values, np.float32),
            np.array(indices, np.int32),
            np.array(indptr, np.int64),
        )

    def encode_row(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return one row as (feature numbers int32, values float32); see :meth:`encode_rows`."""
        indices: list[int] = []
        values: list[float] = []
        self._encode_row(row, 1, indices, values)
        return np.array(indices, np.int32), np.array(values, np.float32)

    def _encode_row(
        self, row: Mapping[str, Any], number: int, indices: list[int], values: list[float]
    ) -> None:
        if not isinstance(row, Mapping):
            raise DataError(
                f"row {number}: expected an object with the columns "
                f"{', '.join(self.field_names)}, found {type(row).__name__}"
            )
        if not row.keys() <= self._by_name.keys():
            extra = next(name for name in row if name not in self._by_name)
            raise no_column(extra, self.field_names, f"row {number}")
        for offset, column in self._by_name.values():
            value = row.get(column.name)
            try:
                entries = column.encode_value(value)
            except (ValueError, OverflowError) as err:
                raise _wrong_cell(f"row {number}", column.name, column.kind, value) from err
            for index, entry in entries:
                indices.append(index + offset)
                values.append(entry)

    # -- and back --------------------------------------------------------------------------------

    def feature_name(self, index: int) -> str:
        """Return the name of a feature: ``"user=42"``, ``"age"``, ``"user=<unknown>"``."""
        offset, column = self._column_of(index)
        return column.feature_name(index - offset)

    def feature_index(self, column: str, value: Any = None) -> int:
        """Return the feature that a value of a column becomes; that of unknown for new values.

        Parameters
        ----------
        column : str
            Name of the column.
        value : str, number or bool, optional
            One value; None is the unknown feature. For a numeric column any number will do.

        Raises
        ------
        DataError
            If there is no such column.
        """
        if column not in self._by_name:
            raise no_column(column, self.field_names, "encoder")
        offset, found = self._by_name[column]
        try:
            if isinstance(found, Numeric):
                return offset + found.encode_value(value)[0][0]
            text = text_of(value)
        except ValueError as err:
            raise _wrong_cell("encoder", column, "categorical", value) from err
        return offset + (0 if text is None else found.values.find(text))

    def decode_row(self, indices: Any, values: Any = None) -> dict[str, Any]:
        """Return the values of the columns that a row of features stands for.

        Parameters
        ----------
        indices : sparse matrix of one row, or sequence of int
            The row, or its feature numbers.
        values : sequence of float, optional
            The values of these features; the default is 1 each.

        Returns
        -------
        dict
            Column name to text, number, or list of texts; None where missing or unknown.

        Raises
        ------
        DataError
            If a feature number is outside the encoder, or there is more than one row.
        """
        if sp.issparse(indices):
            if indices.shape[0] != 1:
                raise DataError(f"decode_row: expected one row, found {indices.shape[0]}")
            row = indices.tocsr()
            indices, values = row.indices, row.data
        indices = np.asarray(indices).tolist()
        values = [1.0] * len(indices) if values is None else np.asarray(values).tolist()
        entries: dict[str, list[tuple[int, float]]] = {name: [] for name in self.field_names}
        for index, value in zip(indices, values, strict=True):
            offset, column = self._column_of(index)
            entries[column.name].append((index - offset, value))
        return {column.name: column.decode(entries[column.name]) for column in self.columns}

    def _column_of(self, index: int) -> tuple[int, Column]:
        if not 0 <= index < self.num_features:
            raise DataError(f"encoder: feature {index} is outside [0, {self.num_features})")
        at = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return int(self._offsets[at]), self.columns[at]

    # -- in a model file -------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as what JSON can hold; :meth:`from_dict` reads it."""
        return {"version": FORMAT_VERSION, "columns": [column.to_dict() for column in self.columns]}

    @classmethod
    def from_dict(cls, data: Any) -> Encoder:
        """Return the encoder that :meth:`to_dict` wrote; anything else is refused.

        Raises
        ------
        ModelFileError
            If the dict is not an encoder, or of a later version.
        """
        if not isinstance(data, dict) or not isinstance(data.get("columns"), list):
            raise ModelFileError("encoder: expected an object with a list of columns")
        if data.get("version") != FORMAT_VERSION:
            raise ModelFileError(
                f"encoder: expected version {FORMAT_VERSION}, found {data.get('version')!r}; "
                "use the version of fm that wrote the model"
            )
        columns = [_column_from(i, column) for i, column in enumerate(data["columns"], 1)]
        try:
            return cls(columns)
        except FMError as err:
            raise ModelFileError(str(err)) from err


def _raw_csr(
    num_rows: int, width: int, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray
) -> sp.csr_matrix:
    """Return a CSR matrix of arrays known to be right; scipy's checks cost more than a request."""
    X = sp.csr_matrix((num_rows, width), dtype=np.float32)
    fits = indices.size <= np.iinfo(np.int32).max  # scipy wants one type of index
    X.data, X.indices, X.indptr = data, indices, indptr.astype(np.int32) if fits else indptr
    X.has_canonical_format = True
    return X


# -- choosing and fitting columns ------------------------------------------------------------------


class CellTable:
    """A table whose cells are worked out once, however often they are asked for.

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

    @classmethod
    def of(cls, data: Any) -> CellTable:
        """Return a table, frame, dict of columns or path as a CellTable."""
        return data if isinstance(data, CellTable) else cls(read_table(data))

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
            raise _wrong_cell(place(self.table, err.row), name, kind, err.value) from None

    def resolve(self, refs: Any) -> list[str]:
        """Return the names of columns given by name or position."""
        refs = [refs] if isinstance(refs, (str, int)) else refs
        return [column_name(self.table, ref) for ref in refs]


def _choose(
    table: CellTable, given: Mapping[str, Any], ignored: set[str]
) -> dict[str, tuple[str, str]]:
    """Return {name: (kind, separator)} of the columns to use."""
    chosen: dict[str, tuple[str, str]] = {}
    for kind, refs in given.items():
        names = table.resolve(refs)
        separators = refs.values() if isinstance(refs, Mapping) else [SEPARATOR] * len(names)
        for name, separator in zip(names, separators, strict=True):
            if name in chosen or name in ignored:
                other = chosen[name][0] if name in chosen else "target, weight or to be ignored"
                raise ConfigError(f"{kind}: column {name!r} is also named as {other}")
            if not isinstance(separator, str) or not separator:
                raise ConfigError(
                    f"{kind}: expected a text as the separator of {name!r}, found {separator!r}"
                )
            chosen[name] = kind, separator
    if not chosen:
        for name in table.names:
            if name not in ignored:
                chosen[name] = _default_kind(table, name), SEPARATOR
    if not chosen:
        raise DataError(f"{table.source}: no columns are left to learn from")
    return chosen


def _default_kind(table: CellTable, name: str) -> str:
    import pyarrow.types as types

    kind = table.table.schema.field(name).type
    with table.column(name, "categorical") as cells:
        if cells.is_list:
            return "multi"
        if types.is_floating(kind) or types.is_decimal(kind):
            return "numeric"
        if types.is_nested(kind):
            raise DataError(
                f"{table.source}: column {name!r} holds values of type {kind}, which cannot become "
                f"features; leave it out with ignore=[{name!r}]"
            )
        if _is_text(kind) and cells.decimal:
            return "numeric"
        _, texts = cells.coded
    few = len(texts) <= _ROWS_TO_JUDGE
    if not few and len(texts) > _NEARLY_ALL * table.num_rows:
        what = f"has {len(texts)} different values in {table.num_rows} rows"
    elif not few and _looks_like_time(texts):
        what = "looks like a time in Unix seconds"
    else:
        return "categorical"
    warnings.warn(
        f"{table.source}: column {name!r} {what}, and each becomes a feature that little is "
        f"learnt about; leave it out with ignore=[{name!r}], or name the columns to use with "
        "categorical=[...] and numeric=[...]",
        stacklevel=2,
    )
    return "categorical"


def _looks_like_time(texts: pa.Array) -> bool:
    low, high = _UNIX_SECONDS
    try:
        return all(low <= int(text) < high for text in texts.to_pylist() if text)
    except ValueError:
        return False


def _hash_sizes(
    hash_dim: int | Mapping[str, int] | None, chosen: Mapping[str, tuple[str, str]]
) -> dict[str, int]:
    if hash_dim is None:
        return {}
    hashable = [name for name, (kind, _) in chosen.items() if kind != "numeric"]
    sizes = dict(hash_dim) if isinstance(hash_dim, Mapping) else dict.fromkeys(hashable, hash_dim)
    for name, size in sizes.items():
        if name not in hashable:
            raise ConfigError(
                f"hash_dim: {name!r} is not a categorical, multi or history column; those are "
                f"{', '.join(hashable) or 'none'}"
            )
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size < MAX_FEATURES:
            raise ConfigError(
                f"hash_dim: expected an integer from 1 to {MAX_FEATURES - 1}, found {size!r}"
            )
    return sizes


def _fit_numeric(name: str, cells: Cells, standardize: bool) -> Numeric:
    numbers = cells.numbers
    if not standardize or np.isnan(numbers).all():
        return Numeric(name)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(np.nanmean(numbers)), float(np.nanstd(numbers))
    if not math.isfinite(mean) or not math.isfinite(std):
        raise cells.bad_cell(int(np.nanargmax(np.abs(numbers))))
    return Numeric(name, mean, std or 1.0)


def _fit_values(cells: Cells, kind: str, separator: str, min_count: int) -> Vocabulary:
    """Return the values that are in at least `min_count` rows, the most frequent first."""
    if kind == "categorical":
        codes, texts = cells.coded
        counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    else:
        parts = cells.parts(separator)
        texts, width = parts.texts, max(len(parts.texts), 1)
        pairs = _sorted_unique(parts.cells * width + parts.codes)  # count once in a cell
        rows = np.ones(parts.num_cells, int)
        if parts.rows is not None:
            rows = np.bincount(parts.rows, minlength=parts.num_cells)
        counts = np.bincount(pairs % width, rows[pairs // width], minlength=len(texts))
    # Different cells can be one value, 42.0 and "42"; add up their counts.
    merged = texts.dictionary_encode()
    codes = merged.indices.fill_null(len(merged.dictionary)).to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, counts, minlength=len(merged.dictionary))
    counts = counts[: len(merged.dictionary)]  # without what is missing
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= min_count]
    return Vocabulary(tuple(merged.dictionary.take(order).to_pylist()))


# -- messages and hostile dicts --------------------------------------------------------------------


_EXPECTED = {
    "target": ("a number", "correct the cell; for two classes write 0 and 1"),
    "weight": ("a number", "correct the cell"),
    "categorical": ("one value", "for lists name the column in multi= or history="),
    "multi": ("a list of values, or a text", "see the column kinds of fm.encoder"),
    "history": ("a list of values, or a text", "see the column kinds of fm.encoder"),
    "numeric": (
        "a finite number",
        "correct the cell, empty it if the number is missing, or use the column as categorical",
    ),
}


def _wrong_cell(where: str, column: str, kind: str, value: Any) -> DataError:
    expected, advice = _EXPECTED[kind]
    found = repr(value)
    found = found if len(found) <= 60 else found[:57] + "..."
    return DataError(f"{where}, column {column!r}: expected {expected}, found {found}; {advice}")


def _column_from(number: int, data: Any) -> Column:
    def wrong(what: str) -> ModelFileError:
        return ModelFileError(f"encoder: column {number}: {what}")

    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise wrong("expected an object with a name")
    name, kind = data["name"], data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise wrong(f"expected a kind out of {', '.join(KINDS)}, found {kind!r}")
    keys = set(data) - {"name", "kind"}
    if kind == "numeric":
        if keys != {"mean", "std"}:
            raise wrong(f"expected mean and std, found {sorted(keys)}")
        mean, std = data["mean"], data["std"]
        for value in (mean, std):
            if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
                raise wrong(f"expected a finite mean and std, found {value!r}")
        if not std > 0:
            raise wrong(f"expected a std > 0, found {std!r}")
        return Numeric(name, float(mean), float(std))
    extra = set() if kind == "categorical" else {"separator"}
    if keys - extra not in ({"values"}, {"hash_dim"}) or not extra <= keys:
        raise wrong(
            f"expected values or hash_dim{' and separator' * len(extra)}, found {sorted(keys)}"
        )
    separator = data.get("separator", SEPARATOR)
    if not isinstance(separator, str) or not separator:
        raise wrong(f"expected a text as separator, found {separator!r}")
    values: Vocabulary | Buckets
    if "hash_dim" in keys:
        size = data["hash_dim"]
        if type(size) is not int or not 1 <= size < MAX_FEATURES:
            raise wrong(f"expected a hash_dim from 1 to {MAX_FEATURES - 1}, found {size!r}")
        values = Buckets(size)
    else:
        listed = data["values"]
        if not isinstance(listed, list) or not all(type(v) is str and v for v in listed):
            raise wrong("expected a list of texts that are not empty as values")
        if len(set(listed)) != len(listed):
            raise wrong("a value occurs twice")
        try:
            "".join(listed).encode()
        except UnicodeEncodeError as err:
            raise wrong("a value is not valid Unicode") from err
        values = Vocabulary(tuple(listed))
    if kind == "categorical":
        return Categorical(name, values)
    return (ValueSet if kind == "multi" else History)(name, values, separator)
