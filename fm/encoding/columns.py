"""Columns: what the cells of one column become, and back.

Decided here: the features of each kind of column (the table in ``fm.encoding.encoder``) but dates
(``fm.encoding.dates``), and what a model keeps of a column. Not decided here: what a cell means
(``fm.formats.cells``), which columns of a table are used, and of which kind
(``fm.encoding.choosing``), what may stand in a file (``fm.encoding.stored``).

**Hashing.** With `hash_dim` a column keeps no list of values: a value goes to bucket
``mix(FNV-1a(UTF-8 bytes of the text)) % hash_dim``, in 64-bit arithmetic, `mix` being the
finaliser of MurmurHash3. The buckets follow the unknown feature, which only missing values use;
`min_count` does not apply.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from fm.formats.cells import Cells, number_of, parts_of, text_of
from fm.formats.files import ragged

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN = "<unknown>"
SEPARATOR = "|"
MAX_FEATURES = 2**31 - 1

_LARGEST = float(np.finfo(np.float32).max)
_FNV_BASIS, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1
_MIX = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53


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


# -- the kinds -------------------------------------------------------------------------------------


class Entries(NamedTuple):
    """What a column contributes to all rows: entries row after row, features ascending."""

    indices: np.ndarray  # within the field
    values: np.ndarray | None = None  # None: all 1
    counts: np.ndarray | int = 1  # entries of each row, or of every row


@dataclass(frozen=True)
class Categorical:
    """A column with one value in each row."""

    kind: ClassVar[str] = "categorical"
    unknown: ClassVar[int] = 0  # the feature of missing and new values, within the field
    name: str
    values: Vocabulary | Buckets

    @property
    def width(self) -> int:
        """Number of features of the field."""
        return self.values.width

    @property
    def about(self) -> str:
        """The kind."""
        return self.kind

    @property
    def pads(self) -> bool:
        """Whether a missing value has entries of value 0 beside that of unknown."""
        return False

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        codes, texts = cells.coded
        return Entries(np.append(self.values.find_all(texts), np.int32(0))[codes])

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        return [(self.find(value), 1.0)]

    def find(self, value: Any) -> int:
        """Return the feature of one value within the field; that of unknown for new values."""
        text = text_of(value)
        return 0 if text is None else self.values.find(text)

    def decode(self, entries: list[tuple[int, float]]) -> str | None:
        """Return the value that has these entries; None for unknown."""
        return self.values.value(entries[0][0]) if entries else None

    def value(self, i: int) -> str | None:
        """Return the value that feature i of the field stands for; None for unknown."""
        return self.values.value(i)

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
        indices, counts = self._found(cells)
        return Entries(indices, counts=counts)

    def _found(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        parts = cells.parts(self.separator)
        found = self.values.find_all(parts.texts)[parts.codes]
        # A cell without any value is unknown; so is, once, a cell with values not known.
        bare = np.flatnonzero(np.bincount(parts.cells, minlength=parts.num_cells) == 0)
        keys = np.concatenate([parts.cells * self.width + found, bare * self.width])
        keys = sorted_unique(keys)
        indices = (keys % self.width).astype(np.int32)
        counts = np.bincount(keys // self.width, minlength=parts.num_cells)
        if parts.rows is not None:  # from different cells back to one cell for each row
            begins = (np.cumsum(counts) - counts)[parts.rows]
            counts = counts[parts.rows]
            indices = indices[ragged(begins, counts)]
        return indices, counts

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        found = {self.values.find(text) for text in parts_of(value, self.separator)} or {0}
        return [(i, 1.0) for i in sorted(found)]

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

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        indices, counts = self._found(cells)
        return Entries(indices, np.repeat((1 / np.sqrt(counts)).astype(np.float32), counts), counts)

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        entries = super().encode_value(value)
        weight = 1 / math.sqrt(len(entries))
        return [(i, weight) for i, _ in entries]


@dataclass(frozen=True)
class Numeric:
    """A column of numbers, whose effect may bend at some knots.

    Feature 0 has the value ``(x - mean) / std``, 1 is unknown, 2 + j is knot j: a number between
    two knots has, beside its value, an entry for each of the two, which add up to 1 and are the
    nearer the larger. So a model is linear between knots, and may bend at each. Below the first
    knot and above the last one, these entries are as there.

    **Missing** is unknown with the value 1, and entries of value 0 for the number and for a knot:
    as the mean of the column would be, if it is standardised. They change no score, and keep the
    number of entries the same in every row, for which training is faster.
    """

    kind: ClassVar[str] = "numeric"
    unknown: ClassVar[int] = 1
    name: str
    mean: float = 0.0
    std: float = 1.0
    knots: tuple[float, ...] = ()  # none, or two and more, ascending

    @property
    def width(self) -> int:
        """Number of features of the field."""
        return 2 + len(self.knots)

    @property
    def about(self) -> str:
        """The kind, and how finely it bends."""
        return f"{self.kind}, {len(self.knots) - 1} bins" if self.knots else self.kind

    @property
    def pads(self) -> bool:
        """Whether a missing value has entries of value 0 beside that of unknown."""
        return bool(self.knots)

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        return self.encode_numbers(cells.numbers, cells.bad_cell)

    def encode_numbers(self, numbers: np.ndarray, bad_cell: Callable[[int], Exception]) -> Entries:
        """Return the entries of numbers, NaN where missing; `bad_cell` makes the error of a row."""
        scaled = (numbers - self.mean) / self.std
        missing = np.isnan(numbers)
        large = np.abs(scaled) > _LARGEST
        if large.any():
            raise bad_cell(int(np.argmax(large)))
        if not self.knots:
            scaled[missing] = 1.0
            return Entries(missing.astype(np.int32), scaled.astype(np.float32))
        knots = np.array(self.knots)
        inside = np.clip(numbers, knots[0], knots[-1])
        at = np.minimum(np.searchsorted(knots, inside, side="right") - 1, knots.size - 2)
        share = (inside - knots[at]) / np.diff(knots)[at]
        indices = np.empty((numbers.size, 3), np.int32)
        indices[:, 0] = 0
        indices[:, 1] = at + 2
        indices[:, 2] = at + 3
        values = np.empty((numbers.size, 3), np.float32)
        values[:, 0] = scaled
        values[:, 1] = 1 - share
        values[:, 2] = share
        indices[missing] = _MISSING[0]
        values[missing] = _MISSING[1]
        return Entries(indices.ravel(), values.ravel(), 3)

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        return self.encode_number(number_of(value))

    def encode_number(self, number: float | None) -> list[tuple[int, float]]:
        """Return the entries of a number; None where it is missing."""
        if number is None:
            return list(zip(*_MISSING, strict=True)) if self.knots else [(1, 1.0)]
        if abs(number - self.mean) / self.std > _LARGEST:
            raise ValueError(number)
        return self._entries(number)

    def _entries(self, number: float) -> list[tuple[int, float]]:
        scaled = (number - self.mean) / self.std
        if not self.knots:
            return [(0, scaled)]
        knots = self.knots
        inside = min(max(number, knots[0]), knots[-1])
        at = min(bisect_right(knots, inside) - 1, len(knots) - 2)
        share = (inside - knots[at]) / (knots[at + 1] - knots[at])
        return [(0, scaled), (at + 2, 1 - share), (at + 3, share)]

    def find(self, value: Any) -> int:
        """Return the first feature of a number within the field; that of unknown if it is none."""
        return int(number_of(value) is None)

    def decode(self, entries: list[tuple[int, float]]) -> float | None:
        """Return the number that has these entries; None if it is missing.

        Of the numbers that have the same entries as float32, it is that of the fewest decimals.
        """
        found = dict(entries)
        if 0 not in found or 1 in found:
            return None
        value = np.float32(found[0])
        number = float(value) * self.std + self.mean
        wanted = [(i, np.float32(share)) for i, share in sorted(entries)]
        first = -math.floor(math.log10(self.std))
        for decimals in range(first, first + 10):
            short = round(number, decimals)
            if [(i, np.float32(share)) for i, share in self._entries(short)] == wanted:
                return short + 0.0  # no -0.0
        return number

    def value(self, i: int) -> str | None:
        """Return the number that feature i of the field stands for; None if it is not a knot."""
        return None if i < 2 else self._spelled[i - 2]

    @cached_property
    def _spelled(self) -> list[str]:
        """The knots as texts, with few digits where that tells them apart."""
        for digits in (4, 8, 17):
            texts = [f"{knot:.{digits}g}" for knot in self.knots]
            if len(set(texts)) == len(texts):
                break
        return texts

    def feature_name(self, i: int) -> str:
        """Return the name of feature i of the field."""
        if i < 2:
            return f"{self.name}={UNKNOWN}" if i else self.name
        return f"{self.name}~{self.value(i)}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        knots = {"knots": list(self.knots)} if self.knots else {}
        return {"name": self.name, "kind": self.kind, "mean": self.mean, "std": self.std, **knots}


# The entries of a missing number where there are knots: feature and value.
_MISSING = (0, 1, 2), (0.0, 1.0, 0.0)


def column_of_values(
    name: str, kind: str, values: Vocabulary | Buckets, separator: str
) -> Categorical:
    """Return a column of a kind other than numeric."""
    if kind == "categorical":
        return Categorical(name, values)
    return (ValueSet if kind == "multi" else History)(name, values, separator)


def sorted_unique(keys: np.ndarray) -> np.ndarray:
    """Return np.unique(keys); since it hashes (numpy 2.3) that takes up to 30 times as long."""
    keys = np.sort(keys)
    return keys[np.append(True, keys[1:] != keys[:-1])] if keys.size else keys
