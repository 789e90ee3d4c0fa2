"""Columns: what the cells of one column become, and back.

Decided here: the features of each kind of column (the table in ``fm.encoding.encoder``), and how a
column is kept in a model. Not decided here: what a cell means (``fm.formats.cells``), which columns
of a table are used, and of which kind (``fm.encoding.choosing``).

**Hashing.** With `hash_dim` a column keeps no list of values: a value goes to bucket
``mix(FNV-1a(UTF-8 bytes of the text)) % hash_dim``, in 64-bit arithmetic, `mix` being the
finaliser of MurmurHash3. The buckets follow the unknown feature, which only missing values use;
`min_count` does not apply.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from fm.errors import ModelFileError
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
    """A column of numbers: its value as a feature, and one feature for each interval of values.

    Feature 0 has the value ``(x - mean) / std``, feature 1 is unknown, and where there are `edges`
    feature 2 + i has the value 1 for numbers from ``edges[i - 1]`` up to ``edges[i]``. So a model
    can bend where the value alone would be a straight line. Every row has the same number of
    entries: with edges, a missing number is the value 0 and unknown.
    """

    kind: ClassVar[str] = "numeric"
    name: str
    mean: float = 0.0
    std: float = 1.0
    edges: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Number of features of the field."""
        return 2 + self.num_bins

    @property
    def num_bins(self) -> int:
        """Number of intervals; 0 if the value stands alone."""
        return len(self.edges) + 1 if self.edges else 0

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        plain = cells.numbers
        numbers = (plain - self.mean) / self.std
        missing = np.isnan(numbers)
        large = np.abs(numbers) > _LARGEST
        if large.any():
            raise cells.bad_cell(int(np.argmax(large)))
        if not self.edges:
            numbers[missing] = 1.0
            return Entries(missing.astype(np.int32), numbers.astype(np.float32))
        rows = len(numbers)
        indices, values = np.zeros((rows, 2), np.int32), np.ones((rows, 2), np.float32)
        indices[:, 1] = 2 + np.searchsorted(self.edges, plain, "right")
        indices[missing, 1] = 1
        numbers[missing] = 0.0
        values[:, 0] = numbers
        return Entries(indices.ravel(), values.ravel(), np.full(rows, 2))

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        number = number_of(value)
        if number is None:
            return [(0, 0.0), (1, 1.0)] if self.edges else [(1, 1.0)]
        scaled = (number - self.mean) / self.std
        if abs(scaled) > _LARGEST:
            raise ValueError(value)
        return [(0, scaled), (2 + bisect_right(self.edges, number), 1.0)][: 1 + bool(self.edges)]

    def decode(self, entries: list[tuple[int, float]]) -> float | None:
        """Return the number that has these entries; None if it is missing."""
        values = dict(entries)
        if not values or 1 in values:
            return None
        above = float(values.get(0, 0.0)) * self.std  # of which float32 has kept 7 digits
        if not above:
            return self.mean
        return round(above + self.mean, 6 - math.floor(math.log10(abs(above))))

    def feature_name(self, i: int) -> str:
        """Return the name of feature i of the field, such as ``age`` or ``age=18..25``."""
        if i < 2:
            return f"{self.name}={UNKNOWN}" if i else self.name
        ends = ["", *(f"{edge:.6g}" for edge in self.edges), ""]
        return f"{self.name}={ends[i - 2]}..{ends[i - 1]}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        edges = {"edges": list(self.edges)} if self.edges else {}
        return {
            "name": self.name, "kind": self.kind, "mean": self.mean, "std": self.std, **edges,
        }  # fmt: skip


Column = Categorical | Numeric  # and the subclasses of Categorical

KINDS: dict[str, type[Column]] = {c.kind: c for c in (Categorical, Numeric, ValueSet, History)}


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


# -- from a model file, which may be hostile -------------------------------------------------------


def column_from(number: int, data: Any) -> Column:
    """Return the column that ``to_dict`` wrote, the `number`-th of an encoder.

    Raises
    ------
    ModelFileError
        If it is anything else.
    """

    def wrong(what: str) -> ModelFileError:
        return ModelFileError(f"encoder: column {number}: {what}")

    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise wrong("expected an object with a name")
    name, kind = data["name"], data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise wrong(f"expected a kind out of {', '.join(KINDS)}, found {kind!r}")
    keys = set(data) - {"name", "kind"}
    if kind == "numeric":
        return _numeric_from(data, wrong)
    extra = set() if kind == "categorical" else {"separator"}
    if keys - extra not in ({"values"}, {"hash_dim"}) or not extra <= keys:
        raise wrong(
            f"expected values or hash_dim{' and separator' * len(extra)}, found {sorted(keys)}"
        )
    separator = data.get("separator", SEPARATOR)
    if not isinstance(separator, str) or not separator:
        raise wrong(f"expected a text as separator, found {separator!r}")
    return column_of_values(name, kind, _values_from(data, wrong), separator)


def _numeric_from(data: dict[str, Any], wrong: Callable[[str], ModelFileError]) -> Numeric:
    """Return a numeric column; `wrong` makes the error."""
    keys = set(data) - {"name", "kind"}
    if keys - {"edges"} != {"mean", "std"}:
        raise wrong(f"expected mean and std, found {sorted(keys)}")
    mean, std, edges = data["mean"], data["std"], data.get("edges", [])
    if not isinstance(edges, list):
        raise wrong(f"expected a list of edges, found {edges!r}")
    for value in (mean, std, *edges):
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise wrong(f"expected a finite mean, std and edges, found {value!r}")
    if not std > 0:
        raise wrong(f"expected a std > 0, found {std!r}")
    if any(low >= high for low, high in zip(edges, edges[1:], strict=False)):
        raise wrong("expected ascending edges")
    return Numeric(data["name"], float(mean), float(std), tuple(map(float, edges)))


def _values_from(
    data: dict[str, Any], wrong: Callable[[str], ModelFileError]
) -> Vocabulary | Buckets:
    """Return the values of a column; `wrong` makes the error."""
    if "hash_dim" in data:
        size = data["hash_dim"]
        if type(size) is not int or not 1 <= size < MAX_FEATURES:
            raise wrong(f"expected a hash_dim from 1 to {MAX_FEATURES - 1}, found {size!r}")
        return Buckets(size)
    listed = data["values"]
    if not isinstance(listed, list) or not all(type(v) is str and v for v in listed):
        raise wrong("expected a list of texts that are not empty as values")
    if len(set(listed)) != len(listed):
        raise wrong("a value occurs twice")
    try:
        "".join(listed).encode()
    except UnicodeEncodeError as err:
        raise wrong("a value is not valid Unicode") from err
    return Vocabulary(tuple(listed))
