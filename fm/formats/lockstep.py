"""Many RecordIO-protobuf records at once: one cursor per record, moved in lock-step by numpy.

Decided here: which layout is decoded this way, namely that of the SageMaker SDK and of protobuf's
own serializer (fields in the order of their numbers, numbers packed, one entry in each map). What
is valid is decided in fm.formats.protobuf alone: this module never raises, it only declines a
record or a block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fm.formats.files import ragged
from fm.formats.protobuf import (
    FLOAT32,
    FLOAT64,
    INT32,
    KEY_FIELD,
    LENGTH,
    MAX_FEATURES,
    SCALARS,
    Rows,
    as_float32,
    as_int32,
    decode_varints,
)

PAD = 64  # zeros behind a block: cursors may look this far past the last record

_KEY_WORD = int.from_bytes(KEY_FIELD, "little")  # compared as one number
_TENSOR = np.zeros(256, bool)  # tags that begin a tensor in Value
_TENSOR[[kind << 3 | LENGTH for kind in (FLOAT32, FLOAT64, INT32)]] = True


class _Span(NamedTuple):
    """A packed field in each record."""

    start: np.ndarray
    length: np.ndarray

    def take(self, rows: np.ndarray) -> _Span:
        return _Span(self.start[rows], self.length[rows])


class _Tensors(NamedTuple):
    """The tensor under "values" in each record."""

    tag: np.ndarray  # uint8: which member of Value
    values: _Span
    keys: _Span
    shape: _Span

    def take(self, rows: np.ndarray) -> _Tensors:
        return _Tensors(self.tag[rows], *(span.take(rows) for span in self[1:]))


class _Cursor:
    """One position per record, all moved together; `ok` says which still fit the layout.

    The position of a record that does not fit means nothing, but stays inside the block: less than
    PAD bytes behind the end of the record.
    """

    def __init__(self, block: np.ndarray, at: np.ndarray, stop: np.ndarray) -> None:
        self.block = block
        self.at = at
        self.stop = stop
        self.ok = np.ones(at.size, bool)

    def expect(self, byte: int) -> None:
        self.ok &= self.block[self.at] == byte
        self.at = self.at + 1

    def byte(self) -> np.ndarray:
        value: np.ndarray = self.block[self.at]
        self.at = self.at + 1
        return value

    def key(self) -> None:
        words = np.ndarray(self.block.size - 7, "<u8", self.block, strides=(1,))
        self.ok &= words[self.at] == _KEY_WORD
        self.at = self.at + 8

    def length(self) -> np.ndarray:
        """Read a number of at most 4 bytes."""
        byte = self.byte()
        value: np.ndarray = byte.astype(np.int64)
        more = byte >= 0x80
        if more.any():
            value &= 0x7F
            for shift in (7, 14, 21):
                byte = self.block[self.at] * more
                value |= (byte & 0x7F).astype(np.int64) << shift
                self.at = self.at + more
                more = byte >= 0x80
            self.ok &= ~more
        return value

    def span(self, tag: int, end: np.ndarray) -> _Span:
        """Read a field if it is the next one; else it is empty."""
        here = (self.block[self.at] == tag) & (self.at < end)
        before = self.at
        self.at = before + here
        if here.all():
            length = self.length()
        elif here.any():
            length = self.length() * here
            self.at = np.where(here, self.at, before)
        else:
            length = np.zeros(before.size, np.int64)
        start = self.at
        self.at = np.minimum(start + length, self.stop + 1)
        return _Span(start, length)

    def entry(self, tag: int) -> _Tensors:
        """Read a map entry with the key "values"."""
        self.expect(tag)
        length = self.length()
        end = self.at + length
        self.ok &= end <= self.stop
        self.key()
        self.expect(0x12)
        length = self.length()
        self.ok &= self.at + length == end
        member = self.byte()
        self.ok &= _TENSOR[member]
        length = self.length()
        self.ok &= self.at + length == end
        tensors = _Tensors(member, self.span(0x0A, end), self.span(0x12, end), self.span(0x1A, end))
        self.ok &= self.at == end
        return tensors


def decode_canonical(
    block: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    num_features: int | None = None,
    require_label: bool = False,
) -> tuple[np.ndarray, Rows] | None:
    """Return which records have the canonical layout, and the rows of these.

    Parameters
    ----------
    block : ndarray of uint8
        Bytes, with PAD zeros at the end.
    start, end : ndarray of int64, shape (num_records,)
        The records, slices of `block`.
    num_features, require_label
        As in :func:`fm.formats.recordio.read_csr`.

    Returns
    -------
    tuple of ndarray of bool and Rows, or None
        None: no record has that layout, or one that has it is wrong. Then the plain parser has to
        parse the whole block.
    """
    cursor = _Cursor(block, start, end)
    features, label = cursor.entry(0x0A), None
    ok = cursor.ok
    labelled = cursor.at < end
    if (labelled & ok).any():
        label = cursor.entry(0x12)
        ok &= labelled & (cursor.at == end)
        ok &= (label.values.length > 0) & (label.keys.length == 0) & (label.shape.length == 0)
    elif require_label:
        return None
    sparse = features.keys.length > 0
    if (sparse & ok).any():
        ok &= sparse | (features.values.length == 0)  # a dense record among sparse ones: not here
    if not ok.any():
        return None
    # one type per block: that of the first record
    first = int(np.argmax(ok))
    ok &= features.tag == features.tag[first]
    if label is not None:
        ok &= label.tag == label.tag[first]
    if not ok.all():
        features, label = features.take(ok), None if label is None else label.take(ok)
    rows = _rows(block, features, label, num_features)
    return None if rows is None else (ok, rows)


def _rows(
    block: np.ndarray, features: _Tensors, label: _Tensors | None, num_features: int | None
) -> Rows | None:
    numbers = _values(block, features)
    if numbers is None:
        return None
    counts, values = numbers
    keys = _varints(block, features.keys, counts * (features.keys.length > 0))
    shape = _varints(block, features.shape, (features.shape.length > 0).astype(np.int64))
    if keys is None or shape is None:
        return None
    sparse = keys.size > 0
    width = int(keys.max()) + 1 if sparse else int(counts.max())
    if num_features is None:
        width = max(width, int(shape.max(initial=0)))
    if width > (MAX_FEATURES if num_features is None else num_features):
        return None
    if sparse:
        indices = keys.astype(np.int32)
    else:
        stored = np.flatnonzero(values)
        row = np.repeat(np.arange(counts.size), counts)[stored]
        indices = ragged(np.zeros(counts.size, np.int64), counts)[stored].astype(np.int32)
        values, counts = values[stored], np.bincount(row, minlength=counts.size)
    labels = np.full(counts.size, np.nan, np.float32)
    if label is not None:
        given = _values(block, label)
        if given is None or (given[0] != 1).any():
            return None
        labels = given[1]
    return Rows(counts, indices, values, labels, width)


def _values(block: np.ndarray, tensors: _Tensors) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the number of values in each record, and all of them as finite float32 numbers.

    All tensors have the same type. None: one is damaged or not finite.
    """
    span = tensors.values
    scalar = SCALARS.get(int(tensors.tag[0]) >> 3)
    if scalar is None:
        raw = block[ragged(span.start, span.length)]
        end = np.cumsum(span.length)
        before = np.zeros(raw.size + 1, np.int64)  # numbers that end before a byte
        np.cumsum(raw < 0x80, out=before[1:])
        counts = before[end] - before[end - span.length]
        varints = _varints(block, span, counts)
        return None if varints is None else (counts, as_float32(as_int32(varints)))
    size = scalar.itemsize
    if (span.length % size).any():
        return None
    counts = span.length // size
    bits = f"<u{size}"
    if (span.start % size).any():  # numbers at odd places: through a view that steps by one byte
        words = np.ndarray(block.size - 7, bits, block, strides=(1,))
        at = ragged(span.start, counts, size)
    else:
        words = block[: block.size // size * size].view(bits)
        at = ragged(span.start // size, counts)
    values = as_float32(words[at].view(scalar))
    return (counts, values) if np.isfinite(values).all() else None


def _varints(block: np.ndarray, span: _Span, counts: np.ndarray) -> np.ndarray | None:
    """Return the packed numbers (uint64) of all records; None unless each has its count of them."""
    raw = block[ragged(span.start, span.length)]
    decoded = decode_varints(raw)
    if decoded is None or ((span.length > 0) != (counts > 0)).any():
        return None
    values, last = decoded
    if values.size != counts.sum():
        return None
    some = counts > 0
    if (last[np.cumsum(counts)[some] - 1] != np.cumsum(span.length)[some] - 1).any():
        return None  # the last number of a record would go on in the next
    return values
