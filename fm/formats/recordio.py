"""RecordIO-protobuf: the format of SageMaker's built-in algorithms, without the protobuf package.

A file is a sequence of records (dmlc RecordIO), each with one message (see fm.formats.protobuf)::

    uint32 magic 0xCED7230A | uint32 flag << 29 | length | payload | zeros up to a multiple of 4

Decided here: how records are found (by following their lengths), and that the file is decoded in
blocks, so that it takes little more memory than the bytes and the result. All records of a block
that have the usual layout are decoded at once (fm.formats.lockstep), the others one by one. A block
with an error is decoded one by one, too: the plain parser then names the record. So both ways agree
on what is valid, and all messages come from one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.errors import DataError, UnsupportedFormatError
from fm.formats.files import Growing, content_of, looks_like
from fm.formats.lockstep import PAD, decode_canonical
from fm.formats.protobuf import RecordError, Rows, parse_maps, parse_row
from fm.formats.recordio_writer import (
    MAGIC,
    MAGIC_BYTES,
    MAX_LENGTH,
    write_numpy_to_dense_tensor,
    write_predictions,
    write_spmatrix_to_sparse_tensor,
)
from fm.sparse import checked_csr

__all__ = [
    "read_csr",
    "write_numpy_to_dense_tensor",
    "write_predictions",
    "write_spmatrix_to_sparse_tensor",
]

BLOCK_BYTES = 1 << 20  # decoded at a time: fits the second-level cache


def read_csr(
    file: Any,
    *,
    num_features: int | None = None,
    source: str | None = None,
    require_label: bool = False,
    allow_bare: bool = False,
) -> tuple[sp.csr_matrix, np.ndarray | None]:
    """Return the features of all records as a CSR matrix, and the labels.

    Parameters
    ----------
    file : path, bytes-like object, or file opened for reading bytes
        RecordIO-protobuf. Zeros behind the last record are ignored.
    num_features : int, optional
        Width of the matrix, which every key must stay below (rows may be narrower). The default
        is what the data need: the largest key + 1, or the largest shape.
    source : str, optional
        Name used in messages; the default is the name of the file.
    require_label : bool
        Whether a record without a label is an error.
    allow_bare : bool
        Whether `file` may be a single record without a frame (as batch transform sends it).

    Returns
    -------
    X : scipy.sparse.csr_matrix of float32, shape (num_records, num_features)
        In fm's layout (see Dataset.X): keys of a record sorted, duplicates summed. Zeros of dense
        records are not stored.
    y : ndarray of float32, shape (num_records,), or None
        The labels; None unless every record has one.

    Raises
    ------
    DataError
        If a frame, a message or a number is wrong; the message names the record and its byte.
    UnsupportedFormatError
        If the first bytes are those of another format.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_spmatrix_to_sparse_tensor(file, sp.eye(3, 5, dtype="float32"), labels=[1, 0, 1])
    >>> X, y = read_csr(file.getvalue())
    >>> X.shape, X.indices, y
    ((3, 5), array([0, 1, 2], dtype=int32), array([1., 0., 1.], dtype=float32))
    """
    data, source = content_of(file, source, "RecordIO data")
    counts, indices = Growing(np.int64), Growing(np.int32)
    values, labels = Growing(np.float32), Growing(np.float32)
    width = 0
    for block in _blocks(data, source, allow_bare):
        rows = _decode(block, num_features, require_label, source)
        counts.append(rows.counts, block.done)
        indices.append(rows.indices, block.done)
        values.append(rows.values, block.done)
        labels.append(rows.labels, block.done)
        width = max(width, rows.width)
    lengths = counts.array()
    if not lengths.size:
        raise DataError(f"{source}: expected at least one record, found an empty file")
    indptr = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    shape = (lengths.size, width if num_features is None else num_features)
    X = sp.csr_matrix((values.array(), indices.array(), indptr), shape=shape)
    if not X.has_canonical_format:
        X.sum_duplicates()
        if not np.isfinite(X.data).all():
            at = int(np.argmax(~np.isfinite(X.data)))
            raise DataError(
                f"{source} record {int(np.searchsorted(X.indptr, at, side='right'))}: the sum of "
                f"the values given for key {X.indices[at]} is not a finite float32 number"
            )
    y = labels.array()
    return checked_csr(X, source=source), None if np.isnan(y).any() else y


def _decode(block: _Block, num_features: int | None, require_label: bool, source: str) -> Rows:
    """Decode a block: in lock-step where possible, the other records one by one."""
    fast = decode_canonical(block.bytes, block.start, block.end, num_features, require_label)
    chosen, rows = (np.zeros(block.start.size, bool), None) if fast is None else fast
    if rows is not None and chosen.all():
        return rows
    plain: list[Rows] = []
    for i in np.flatnonzero(~chosen).tolist():
        try:
            plain.append(parse_row(block.payload(i), num_features, require_label))
        except RecordError as problem:
            raise block.error(i, problem, source) from None
    others = Rows(
        np.concatenate([row.counts for row in plain]),
        np.concatenate([row.indices for row in plain]),
        np.concatenate([row.values for row in plain]),
        np.concatenate([row.labels for row in plain]),
        max(row.width for row in plain),
    )
    if rows is None:
        return others
    counts = np.empty(chosen.size, np.int64)
    labels = np.empty(chosen.size, np.float32)
    counts[chosen], counts[~chosen] = rows.counts, others.counts
    labels[chosen], labels[~chosen] = rows.labels, others.labels
    entry = np.repeat(chosen, counts)
    indices = np.empty(entry.size, np.int32)
    values = np.empty(entry.size, np.float32)
    indices[entry], indices[~entry] = rows.indices, others.indices
    values[entry], values[~entry] = rows.values, others.values
    return Rows(counts, indices, values, labels, max(rows.width, others.width))


class _Block(NamedTuple):
    """Whole records of the input, each a slice of `bytes`."""

    bytes: np.ndarray  # uint8, with PAD zeros at the end
    start: np.ndarray  # int64, where the payloads begin and end
    end: np.ndarray
    place: np.ndarray  # int64, where the frames begin in the input
    first: int  # number of the first record, from 1
    done: float  # share of the input up to the last record

    def payload(self, i: int) -> memoryview:
        return self.bytes.data[self.start[i] : self.end[i]]

    def error(self, i: int, problem: RecordError, source: str) -> DataError:
        where = f"{source} record {self.first + i} (byte {self.place[i]})"
        return DataError(f"{where}: {problem}", problem.advice)


def _blocks(data: memoryview, source: str, allow_bare: bool = False) -> Iterator[_Block]:
    """Yield the records block by block; a block holds whole records, at least one."""
    at, first, size = 0, 1, BLOCK_BYTES
    if allow_bare and len(data) and data[:4] != MAGIC_BYTES:
        yield _bare(data, source)
        return
    while at < len(data):
        window = np.frombuffer(data[at : at + size], np.uint8)
        content = np.zeros(window.size + PAD, np.uint8)  # aligned, whatever `data` is
        content[: window.size] = window
        begin, length, flag = _chain(content, window.size)
        if not begin.size:
            if not _any_nonzero(data[at:]):
                return  # some writers leave zeros of their last buffer behind the records
            raise _no_frame(data, at, first, source)
        _check_flags(flag, at + begin, first, source)
        # the last record may go on behind the block
        closing = (flag % 3 == 0) & (begin + 8 + length <= window.size)
        count = int(np.flatnonzero(closing)[-1]) + 1 if closing.any() else 0
        if not count:
            if at + size >= len(data):
                raise _truncated(data, at, first, source)
            size *= 2
            continue
        begin, length, flag = begin[:count], length[:count], flag[:count]
        stop = int(begin[-1] + 8 + (length[-1] + 3 & ~3))
        place = at + begin
        if flag.any():
            content, begin, length, place = _join(content, begin, length, flag, place)
        at, size = min(at + stop, len(data)), BLOCK_BYTES
        yield _Block(content, begin + 8, begin + 8 + length, place, first, at / len(data))
        first += begin.size


def _chain(content: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return begin, length and flag of the frames that follow each other from byte 0 on.

    The magic number may occur inside a payload. So it begins a frame only if the length of the
    frame before leads to it. The last frame may end behind the content.
    """
    words = content[: size // 4 * 4].view("<u4")
    at = np.flatnonzero(words[:-1] == MAGIC)
    if not at.size or at[0] != 0:
        return at[:0], at[:0], at[:0]
    header = words[at + 1]
    length = (header & MAX_LENGTH).astype(np.int64)
    following = at + 2 + (length + 3 >> 2)
    linked = following[:-1] == at[1:]
    if not linked.all():
        breaks = np.append(np.flatnonzero(~linked), at.size - 1)
        runs, i = [], 0
        while i < at.size:
            last = int(breaks[np.searchsorted(breaks, i)])
            runs.append(np.arange(i, last + 1))
            i = int(np.searchsorted(at, following[last]))
            if i < at.size and at[i] != following[last]:
                break
        chosen = np.concatenate(runs)
        at, length, header = at[chosen], length[chosen], header[chosen]
    return 4 * at, length, header >> 29


def _check_flags(flag: np.ndarray, place: np.ndarray, first: int, source: str) -> None:
    """Check that flags read 0 (a whole record) or 1 2* 3 (parts of one)."""
    if not flag.any():
        return
    within = np.concatenate(([False], (flag == 1) | (flag == 2)))  # a record is open before frame i
    wrong = (flag > 3) | (((flag == 2) | (flag == 3)) != within[:-1])
    if wrong.any():
        i = int(np.argmax(wrong))
        record = first + int((flag[:i] % 3 == 0).sum())
        expected = "2 or 3 (the next part of a split record)" if within[i] else "0 or 1"
        raise DataError(
            f"{source} record {record} (byte {place[i]}): expected a frame with flag {expected}, "
            f"found {flag[i]}; the file is damaged"
        )


def _join(
    content: np.ndarray, begin: np.ndarray, length: np.ndarray, flag: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Put the parts of split records together, behind the content.

    Writers of dmlc split a payload where it contains the magic number, and leave that out.
    """
    pieces, end = [content[:-PAD]], content.size - PAD
    begin, length = begin.copy(), length.copy()
    heads = np.flatnonzero(flag == 1)
    for head, tail in zip(heads, np.flatnonzero(flag == 3), strict=True):
        parts = [
            content[begin[i] + 8 : begin[i] + 8 + length[i]].tobytes()
            for i in range(head, tail + 1)
        ]
        payload = np.frombuffer(bytes(8) + MAGIC_BYTES.join(parts), np.uint8)
        pieces.append(payload)
        begin[head], length[head] = end, payload.size - 8
        end += payload.size
    pieces.append(np.zeros(PAD, np.uint8))
    whole = flag <= 1
    return np.concatenate(pieces), begin[whole], length[whole], place[whole]


def _bare(data: memoryview, source: str) -> _Block:
    """Return the bytes as a single record without a frame, or raise an error if they are none."""
    try:
        plausible = bool(parse_maps(data).features)
    except RecordError:
        plausible = False
    if not plausible:
        raise _no_frame(data, 0, 1, source)
    content = np.zeros(len(data) + PAD, np.uint8)
    content[: len(data)] = np.frombuffer(data, np.uint8)
    zero = np.zeros(1, np.int64)
    return _Block(content, zero, zero + len(data), zero, 1, 1.0)


def _any_nonzero(data: memoryview) -> bool:
    return any(
        np.frombuffer(data[i : i + BLOCK_BYTES], np.uint8).any()
        for i in range(0, len(data), BLOCK_BYTES)
    )


def _no_frame(
    data: memoryview, at: int, first: int, source: str
) -> DataError | UnsupportedFormatError:
    head = bytes(data[at : at + 64])
    if head[:4] == MAGIC_BYTES[: len(head)]:
        return _truncated(data, at, first, source)
    if at == 0:
        return UnsupportedFormatError(
            f"{source}: expected RecordIO-protobuf (first bytes {MAGIC_BYTES.hex(' ')}), found "
            f"{looks_like(head)}; convert the data, or name their format"
        )
    return DataError(
        f"{source} record {first} (byte {at}): expected a frame (bytes {MAGIC_BYTES.hex(' ')}), "
        f"found {head[:4].hex(' ')}; the file is damaged or was cut and joined"
    )


def _truncated(data: memoryview, at: int, first: int, source: str) -> DataError:
    left = len(data) - at
    length = int.from_bytes(data[at + 4 : at + 8], "little") & MAX_LENGTH if left >= 8 else 0
    if left < 8 + length:
        what = f"expected a frame of {8 + length} bytes, found {left} to the end of the data"
    else:
        what = "expected the last part of a split record, found the end of the data"
    return DataError(
        f"{source} record {first} (byte {at}): {what}; the file is truncated or damaged"
    )
