"""Writers of RecordIO-protobuf, under the names of the SageMaker SDK and with its bytes.

Decided here: which numpy types become which tensors. Many records are written at a time: numpy
computes their lengths from the inside out, then puts every byte in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.errors import DataError, UnsupportedFormatError
from fm.formats.files import column_of, ragged
from fm.formats.protobuf import FLOAT32, FLOAT64, INT32, KEY_FIELD, LENGTH, SCALARS, as_float32

MAGIC = 0xCED7230A
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
MAX_LENGTH = (1 << 29) - 1  # bytes of a payload

CHUNK_ENTRIES, CHUNK_ROWS = 1 << 17, 1 << 14  # written at a time


def write_spmatrix_to_sparse_tensor(
    file: BinaryIO, array: Any, labels: Sequence[float] | np.ndarray | None = None
) -> None:
    """Write the rows of a sparse matrix as records, byte for byte as the SDK does.

    Parameters
    ----------
    file : file opened for writing bytes
    array : scipy sparse matrix or array, shape (num_records, num_features)
        float32 and float64 keep their type, integers become int32 tensors, bool and float16 (which
        the SDK refuses) float32. The built-in algorithm trains on float32 only. Rows are written
        as they are stored: unsorted keys and duplicates stay.
    labels : array, shape (num_records,), optional
        One number per record, converted likewise.

    Raises
    ------
    DataError
        If the number of labels differs from the number of rows, an integer needs more than 32
        bits, or a column number is negative.
    UnsupportedFormatError
        If `array` is not sparse, not two-dimensional, or not of real numbers.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_spmatrix_to_sparse_tensor(file, sp.csr_matrix([[0.0, 2.5]]), labels=[1.0])
    >>> file.getvalue()[:8].hex(" ")
    '0a 23 d7 ce 36 00 00 00'
    """
    if not sp.issparse(array):
        raise UnsupportedFormatError(
            f"write_spmatrix_to_sparse_tensor: expected a scipy sparse matrix, found "
            f"{type(array).__name__}; use write_numpy_to_dense_tensor for dense rows"
        )
    if array.ndim != 2:
        raise UnsupportedFormatError(
            f"write_spmatrix_to_sparse_tensor: expected 2 dimensions, found {array.ndim}"
        )
    X = array.tocsr()
    if X.nnz and X.indices.min() < 0:
        raise DataError("write_spmatrix_to_sparse_tensor: a column number is negative")
    _write(file, X.data, X.indptr, labels, X.indices, X.shape[1])


def write_numpy_to_dense_tensor(
    file: BinaryIO, array: Any, labels: Sequence[float] | np.ndarray | None = None
) -> None:
    """Write the rows of an array as dense records, byte for byte as the SDK does.

    Parameters
    ----------
    file : file opened for writing bytes
    array : array, shape (num_records, num_features)
        Types as in :func:`write_spmatrix_to_sparse_tensor`.
    labels : array, shape (num_records,), optional
        One number per record, converted likewise.

    Raises
    ------
    DataError
        If the number of labels differs from the number of rows or an integer needs more than 32
        bits.
    UnsupportedFormatError
        If `array` is not two-dimensional or not of real numbers.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_numpy_to_dense_tensor(file, np.ones((1, 2), "float32"))
    >>> len(file.getvalue())
    32
    """
    array = np.asarray(array)
    if array.ndim != 2:
        raise UnsupportedFormatError(
            "write_numpy_to_dense_tensor: expected 2 dimensions (records x features), found "
            f"{array.ndim}"
        )
    rows, columns = array.shape
    _write(file, array.ravel(), np.arange(rows + 1, dtype=np.int64) * columns, labels)


def write_predictions(
    file: BinaryIO,
    scores: Sequence[float] | np.ndarray,
    labels: Sequence[float] | np.ndarray | None = None,
) -> None:
    """Write predictions as the built-in algorithm answers: label "score", and "predicted_label".

    Parameters
    ----------
    file : file opened for writing bytes
    scores : array, shape (num_records,)
        Probability of label 1, or the prediction of a regressor.
    labels : array, shape (num_records,), optional
        Predicted labels of a classifier.

    Raises
    ------
    DataError
        If the lengths differ.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_predictions(file, [0.75], [1])
    >>> len(file.getvalue())
    56
    """
    rows = np.size(scores)
    columns = {b"score": column_of(scores, rows, "scores")}
    if labels is not None:
        columns[b"predicted_label"] = column_of(labels, rows, "predicted labels")
    # the records differ in their numbers only: fill them into a template
    payload, places = bytearray(), []
    for name in columns:
        payload += bytes([0x12, len(name) + 12, 0x0A, len(name)]) + name
        payload += b"\x12\x08\x12\x06\x0a\x04"
        places.append(8 + len(payload))
        payload += bytes(4)
    frame = MAGIC_BYTES + len(payload).to_bytes(4, "little") + payload + bytes(-len(payload) % 4)
    records = np.tile(np.frombuffer(frame, np.uint8), (rows, 1))
    for place, column in zip(places, columns.values(), strict=True):
        numbers = as_float32(column).astype("<f4")
        records[:, place : place + 4] = numbers.view(np.uint8).reshape(-1, 4)
    file.write(records.tobytes())


class _Encoded(NamedTuple):
    """Packed numbers of several rows."""

    data: np.ndarray  # uint8, all of them
    length: np.ndarray  # int64, bytes of each row


def _write(
    file: BinaryIO,
    values: np.ndarray,
    indptr: np.ndarray,
    labels: Sequence[float] | np.ndarray | None,
    indices: np.ndarray | None = None,
    columns: int = 0,
) -> None:
    """Write CSR rows; without indices, dense ones."""
    values, kind = _writable(values, "features")
    rows = indptr.size - 1
    label_kind, targets = 0, None
    if labels is not None:
        targets, label_kind = _writable(column_of(labels, rows, "labels"), "labels")
    start = 0
    while start < rows:
        stop = int(np.searchsorted(indptr, indptr[start] + CHUNK_ENTRIES, side="right")) - 1
        stop = min(max(stop, start + 1), start + CHUNK_ROWS, rows)
        entries = slice(int(indptr[start]), int(indptr[stop]))
        counts = np.diff(indptr[start : stop + 1]).astype(np.int64)
        none = _Encoded(np.empty(0, np.uint8), np.zeros(counts.size, np.int64))
        tensor = [_encoded(values[entries], counts, kind), none, none]
        if indices is not None:
            tensor[1] = _encoded(indices[entries].astype(np.uint64), counts, 0)
            ones = np.ones(counts.size, np.int64)
            tensor[2] = _encoded(np.full(counts.size, columns, np.uint64), ones, 0)
        entries_of_record = [(0x0A, kind, tensor)]
        if targets is not None:
            ones = np.ones(counts.size, np.int64)
            label = _encoded(targets[start:stop], ones, label_kind)
            entries_of_record.append((0x12, label_kind, [label, none, none]))
        file.write(_frames(entries_of_record).data)
        start = stop


def _writable(values: np.ndarray, what: str) -> tuple[np.ndarray, int]:
    """Return numbers in a type of the format, and the member of Value for it."""
    dtype = values.dtype.newbyteorder("=")
    if dtype.kind in "iu":
        if dtype.itemsize >= 4 and values.size:
            low, high = int(values.min()), int(values.max())
            if low < -(2**31) or high >= 2**31:
                raise DataError(
                    f"{what}: {low if low < -(2**31) else high} does not fit the format's 32-bit "
                    "integers; convert to float32 or float64"
                )
        return values.astype(np.int64), INT32
    if dtype.kind == "b" or dtype == np.float16 or dtype == np.float32:
        return values.astype("<f4", copy=False), FLOAT32
    if dtype == np.float64:
        return values.astype("<f8", copy=False), FLOAT64
    raise UnsupportedFormatError(
        f"{what}: expected real numbers of at most 64 bits, found {dtype}; convert to float32"
    )


def _encoded(values: np.ndarray, counts: np.ndarray, kind: int) -> _Encoded:
    if kind in SCALARS:
        return _Encoded(np.ascontiguousarray(values).view(np.uint8), counts * values.itemsize)
    numbers = values.astype(np.uint64)  # negative int32: as 64 bits, 10 bytes long
    size = _varint_size(numbers)
    data = np.empty(int(size.sum()), np.uint8)
    _put_varints(data, np.cumsum(size) - size, numbers, size)
    before = np.zeros(size.size + 1, np.int64)
    np.cumsum(size, out=before[1:])
    end = np.cumsum(counts)
    return _Encoded(data, before[end] - before[end - counts])


def _frames(entries: list[tuple[int, int, list[_Encoded]]]) -> np.ndarray:
    """Return the frames of records that consist of map entries (tag, kind, tensor)."""
    nested = []  # lengths from the inside out, then bytes from the outside in
    payload = np.zeros(entries[0][2][0].length.size, np.int64)
    for _, _, tensor in entries:
        body = np.sum([_field_size(part.length, optional=True) for part in tensor], axis=0)
        value = _field_size(body)
        entry = len(KEY_FIELD) + _field_size(value)
        nested.append((entry, value, body))
        payload = payload + _field_size(entry)
    if int(payload.max()) > MAX_LENGTH:
        raise DataError(
            f"a record of {int(payload.max())} bytes: the format holds at most {MAX_LENGTH} bytes "
            "a record; use a sparse matrix"
        )
    size = 8 + (payload + 3 & ~3)
    at = np.cumsum(size) - size
    out = np.zeros(int(size.sum()), np.uint8)
    words = out.view("<u4")
    words[at >> 2] = MAGIC
    words[(at >> 2) + 1] = payload
    at = at + 8
    for (tag, kind, tensor), (entry, value, body) in zip(entries, nested, strict=True):
        at = _put_field(out, at, tag, entry)
        for i, byte in enumerate(KEY_FIELD):
            out[at + i] = byte
        at = _put_field(out, at + len(KEY_FIELD), 0x12, value)
        at = _put_field(out, at, kind << 3 | LENGTH, body)
        for number, part in enumerate(tensor, start=1):
            at = _put_field(out, at, number << 3 | LENGTH, part.length, optional=True)
            _put(out, at, part)
            at = at + part.length
    return out


def _field_size(length: np.ndarray, optional: bool = False) -> np.ndarray:
    size = 1 + _varint_size(length) + length
    return np.where(length > 0, size, 0) if optional else size


def _put_field(
    out: np.ndarray, at: np.ndarray, tag: int, length: np.ndarray, optional: bool = False
) -> np.ndarray:
    """Write tag and length, unless it is empty and optional; return where the content goes."""
    size = _varint_size(length)
    content: np.ndarray = at + 1 + size
    if optional and not length.all():
        content = np.where(length > 0, content, at)
        at, length, size = at[length > 0], length[length > 0], size[length > 0]
    out[at] = tag
    _put_varints(out, at + 1, length, size)
    return content


def _put(out: np.ndarray, at: np.ndarray, part: _Encoded) -> None:
    length = part.length
    if (length % 4 | np.where(length > 0, at, 0) % 4).any():
        out[ragged(at, length)] = part.data
    else:  # float32 numbers in short records stand at multiples of 4
        out.view("<u4")[ragged(at // 4, length // 4)] = part.data.view("<u4")


def _varint_size(numbers: np.ndarray) -> np.ndarray:
    size = np.ones(numbers.size, np.int64)
    most = int(numbers.max(initial=0))
    for shift in range(7, 64, 7):
        if most >> shift == 0:
            break
        size += numbers >= 1 << shift
    return size


def _put_varints(out: np.ndarray, at: np.ndarray, numbers: np.ndarray, size: np.ndarray) -> None:
    for i in range(int(size.max(initial=0))):
        if i:
            longer = size > i
            at, numbers, size = at[longer], numbers[longer], size[longer]
        more = (size > i + 1) * np.uint8(0x80)
        out[at + i] = (numbers >> (7 * i) & 0x7F).astype(np.uint8) | more
