"""Text of sparse rows: libsvm (svmlight) and libffm.

A line is a row: a label, then entries, separated by spaces or tabs::

    label index:value index:value ...                   libsvm
    label field:index:value field:index:value ...       libffm

``#`` begins a comment; lines without anything else are skipped; ``qid:7`` after a libsvm label (the
query of a ranking problem) is ignored.

Decided here: which lines are errors, and how rows are written. Blocks of lines are parsed at once
(``fm.formats.svmlight_block``). A block that is not plain, or holds a number that needs a closer
look, is parsed again line by line: the block parser never raises an error, and the line parser
names the line. So both agree on what is valid.
"""

from __future__ import annotations

import codecs
import io
import itertools
import re
from typing import Any, BinaryIO, Literal

import numpy as np
import orjson
import scipy.sparse as sp

from fm.errors import Advice, ConfigError, DataError, UnsupportedFormatError
from fm.formats.files import Growing, column_of, content_of, looks_like
from fm.formats.svmlight_block import (
    COMMENT,
    FIELD_INDEX_VALUE,
    INDEX_VALUE,
    MAX_INDEX,
    Rows,
    parse_block,
    rows_of,
)
from fm.sparse import checked_csr

CHUNK_ROWS = 1 << 14  # written at a time
BLOCK_BYTES = 1 << 20  # parsed at a time: fits the second-level cache

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NOT_FINITE = (b"nan", b"inf", b"infinity")
_QUERY_TOKEN = re.compile(rb"qid:\d+")


def read_libsvm(
    file: Any,
    *,
    num_features: int | None = None,
    zero_based: bool | Literal["auto"] = "auto",
    source: str | None = None,
) -> tuple[sp.csr_matrix, np.ndarray]:
    r"""Return the rows of a libsvm (svmlight) file as a CSR matrix, and the labels.

    Parameters
    ----------
    file : path, bytes-like object, or file opened for reading bytes
        The text. A path may lead to a gzip file.
    num_features : int, optional
        Width of the matrix; the default is what the largest index needs.
    zero_based : bool or "auto"
        Whether the first feature is called 0 (True) or 1 (False). "auto", as in scikit-learn: 1 if
        no index is 0. A part of a data set may lack feature 0 by chance, so say which it is for
        every file but the training file.
    source : str, optional
        Name used in messages; the default is the name of the file.

    Returns
    -------
    X : scipy.sparse.csr_matrix of float32, shape (num_rows, num_features)
        In fm's layout (see Dataset.X); indices count from 0 whatever the file does.
    y : ndarray of float32, shape (num_rows,)
        The labels, as they are written.

    Raises
    ------
    DataError
        If a line is not of this form, an index occurs twice in a line or is out of range, or a
        number is not finite; the message names the line.
    UnsupportedFormatError
        If the first bytes are those of another format.

    Examples
    --------
    >>> X, y = read_libsvm(b"1 1:0.5 4:1\n-1 2:1\n")
    >>> X.toarray(), y
    (array([[0.5, 0. , 0. , 1. ],
           [0. , 1. , 0. , 0. ]], dtype=float32), array([ 1., -1.], dtype=float32))
    """
    if zero_based not in (True, False, "auto"):
        raise ConfigError(f"zero_based: expected True, False or 'auto', found {zero_based!r}")
    data, source = content_of(file, source, "libsvm data")
    text = _Text(data, source, INDEX_VALUE)
    rows = text.read()
    if zero_based == "auto":
        zero_based = not rows.indices.size or int(rows.indices.min()) == 0
    first = 0 if zero_based else 1
    width = text.width(rows, first, num_features)
    indices = rows.indices.copy()  # a repeated index is looked for in those of the file
    indices -= first
    X = sp.csr_matrix((rows.values, indices, rows.indptr), shape=(rows.labels.size, width))
    X.sort_indices()
    repeated = X.indices[1:] == X.indices[:-1]
    begin = X.indptr[1:-1]
    repeated[begin[(begin > 0) & (begin < X.nnz)] - 1] = False  # one in each of two rows
    if repeated.any():
        at = int(np.argmax(repeated))
        raise text.error_at(
            rows, at, f"feature index {X.indices[at] + first} occurs twice; merge the two"
        )
    return checked_csr(X, source=source), rows.labels


def read_libffm(
    file: Any, *, num_features: int | None = None, source: str | None = None
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    r"""Return the rows of a libffm file as a CSR matrix, the labels, and the features' fields.

    Parameters
    ----------
    file : path, bytes-like object, or file opened for reading bytes
        The text. A path may lead to a gzip file.
    num_features : int, optional
        Width of the matrix; the default is what the largest index needs.
    source : str, optional
        Name used in messages; the default is the name of the file.

    Returns
    -------
    X : scipy.sparse.csr_matrix of float32, shape (num_rows, num_features)
        In fm's layout (see Dataset.X). A feature may occur several times in a line, as hashed
        features that collide do: the values are summed.
    y : ndarray of float32, shape (num_rows,)
        The labels, as they are written.
    fields : ndarray of int32, shape (num_features,)
        The field of each feature; -1 for features that do not occur. If a file gives a feature
        several fields, it is the first (which matters to a field-aware model only).

    Raises
    ------
    DataError
        If a line is not of this form, an index is out of range, or a number is not finite; the
        message names the line.
    UnsupportedFormatError
        If the first bytes are those of another format.

    Examples
    --------
    >>> X, y, fields = read_libffm(b"1 0:0:1 1:3:0.5\n0 0:1:1 1:3:2\n")
    >>> X.toarray()
    array([[1. , 0. , 0. , 0.5],
           [0. , 1. , 0. , 2. ]], dtype=float32)
    >>> fields
    array([ 0,  0, -1,  1], dtype=int32)
    """
    data, source = content_of(file, source, "libffm data")
    text = _Text(data, source, FIELD_INDEX_VALUE)
    rows = text.read()
    width = text.width(rows, 0, num_features)
    if num_features is None and width > max(1 << 24, 64 * rows.indices.size):
        # one mistyped index must not allocate gigabytes
        raise text.error_at(
            rows,
            int(np.argmax(rows.indices)),
            f"feature index {width - 1} is far beyond the number of entries",
            Advice("check it, or give {num_features}", num_features=width),
        )
    fields = np.full(width, -1, np.int32)
    fields[rows.indices[::-1]] = rows.fields[::-1]  # so that the first of several stays
    X = sp.csr_matrix((rows.values, rows.indices, rows.indptr), shape=(rows.labels.size, width))
    X.sum_duplicates()
    if not np.isfinite(X.data).all():
        at = int(np.argmax(~np.isfinite(X.data)))
        raise text.error_at(
            rows._replace(indptr=X.indptr),
            at,
            f"the values of feature {X.indices[at]} add up to more than a float32 number holds",
        )
    return checked_csr(X, source=source), rows.labels, fields


def write_libsvm(file: BinaryIO, X: Any, y: Any, *, zero_based: bool = False) -> None:
    r"""Write rows as libsvm text.

    Parameters
    ----------
    file : file opened for writing bytes
    X : array or sparse matrix, shape (num_rows, num_features)
    y : array, shape (num_rows,)
        The labels.
    zero_based : bool
        Whether the first feature is called 0. The default is 1, the convention of libsvm, which
        :func:`read_libsvm` recognises.

    Raises
    ------
    DataError
        If a number is not finite or there is not one label per row.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_libsvm(file, [[0.5, 0, 1]], [-1])
    >>> file.getvalue()
    b'-1 1:0.5 3:1\n'
    """
    X = checked_csr(X)
    _write(file, X, y, [X.indices if zero_based else X.indices + 1])


def write_libffm(file: BinaryIO, X: Any, y: Any, fields: Any) -> None:
    r"""Write rows as libffm text, counting features from 0.

    Parameters
    ----------
    file : file opened for writing bytes
    X : array or sparse matrix, shape (num_rows, num_features)
    y : array, shape (num_rows,)
        The labels.
    fields : array of int, shape (num_features,)
        The field of each feature; not negative for those that occur.

    Raises
    ------
    DataError
        If a number is not finite, there is not one label per row, or a feature has no field.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> write_libffm(file, [[0.5, 0, 1]], [1], [0, 0, 1])
    >>> file.getvalue()
    b'1 0:0:0.5 1:2:1\n'
    """
    X = checked_csr(X)
    fields = column_of(fields, X.shape[1], "fields").astype(np.int64)[X.indices]
    if fields.size and fields.min() < 0:
        raise DataError(f"fields: feature {X.indices[np.argmin(fields)]} occurs but has no field")
    _write(file, X, y, [fields, X.indices])


def _write(file: BinaryIO, X: sp.csr_matrix, y: Any, columns: list[np.ndarray]) -> None:
    with np.errstate(over="ignore"):
        labels = column_of(y, X.shape[0], "labels").astype(np.float32)
    if not np.isfinite(labels).all():
        raise DataError(f"labels: row {int(np.argmin(np.isfinite(labels))) + 1} is not finite")
    for start in range(0, X.shape[0], CHUNK_ROWS):
        indptr = X.indptr[start : start + CHUNK_ROWS + 1]
        part = slice(int(indptr[0]), int(indptr[-1]))
        parts = [_texts(column[part]) for column in (*columns, X.data)]
        entries = [b":".join(numbers) for numbers in zip(*parts, strict=True)]
        begin = (indptr - indptr[0]).tolist()
        rows = zip(_texts(labels[start : start + CHUNK_ROWS]), begin[:-1], begin[1:], strict=True)
        file.write(b"".join(b" ".join((y, *entries[a:b])) + b"\n" for y, a, b in rows))


def _texts(numbers: np.ndarray) -> list[bytes]:
    """Return each number with the fewest digits that give the same float32 or integer again."""
    texts = orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY)
    return [text.removesuffix(b".0") for text in texts[1:-1].split(b",")] if numbers.size else []


class _Wrong(Exception):  # noqa: N818
    """What is wrong with one line; the caller knows its number."""


class _Text:
    """The lines of a file."""

    def __init__(self, data: memoryview, source: str, parts: int) -> None:
        self.data = data
        self.source = source
        self.parts = parts

    def read(self) -> Rows:
        """Return all rows, or raise DataError."""
        data, at, line, size = self.data, 0, 1, BLOCK_BYTES
        head = bytes(data[:64])
        if any(byte < 32 and byte not in b"\t\n\v\f\r" for byte in head[:8]):
            raise UnsupportedFormatError(
                f"{self.source}: expected text, found {looks_like(head)}; convert the data, or "
                "name their format"
            )
        if head.startswith(codecs.BOM_UTF8):
            at = len(codecs.BOM_UTF8)
        dtypes = np.float32, np.int64, np.int32, np.float32, np.int32
        columns = [Growing(dtype) for dtype in dtypes]
        while at < len(data):
            text = bytes(data[at : at + size])
            if at + size < len(data):
                text = text[: text.rfind(b"\n") + 1]
                if not text:  # a line longer than a block
                    size *= 2
                    continue
            at, size = at + len(text), BLOCK_BYTES
            rows = parse_block(text, self.parts)
            if rows is None:
                rows = self._parse_lines(text, line)
            line += text.count(b"\n")
            for column, part in zip(columns, rows, strict=True):
                column.append(part, at / len(data))
        labels, counts, *entries = (column.array() for column in columns)
        if not labels.size:
            raise DataError(f"{self.source}: expected at least one row, found an empty file")
        return Rows(labels, np.concatenate(([0], np.cumsum(counts))), *entries)

    def _parse_lines(self, text: bytes, first: int) -> Rows:
        labels, counts, entries = [], [], []
        for number, line in enumerate(text.split(b"\n"), first):
            try:
                row = _parse_line(line, self.parts)
            except _Wrong as wrong:
                raise DataError(f"{self.source} line {number}: {wrong}") from None
            if row is not None:
                labels.append(row[0])
                counts.append(len(row[1]))
                entries += row[1]
        columns = np.array(entries, np.float64).reshape(-1, self.parts).T
        return rows_of(np.array(labels, np.float64), np.array(counts, np.int64), *columns)

    def width(self, rows: Rows, first: int, num_features: int | None) -> int:
        """Return the number of features, or raise DataError if an index is out of range."""
        if not rows.indices.size:
            return num_features or 0
        low, high = int(rows.indices.min()), int(rows.indices.max())
        if low < first:
            at = int(np.argmin(rows.indices))
            message = "feature index 0, but indices count from 1"
            advice = Advice("give {zero_based} or check the file", zero_based=True)
            raise self.error_at(rows, at, message, advice)
        if num_features is not None and high - first >= num_features:
            at = int(np.argmax(rows.indices - first >= num_features))
            raise self.error_at(
                rows,
                at,
                f"feature index {rows.indices[at]} is outside [{first}, {num_features + first})",
                Advice("check the file, or give {num_features}", num_features=high - first + 1),
            )
        return high - first + 1 if num_features is None else num_features

    def error_at(
        self, rows: Rows, entry: int, message: str, advice: Advice | None = None
    ) -> DataError:
        """Return an error that names the line of an entry."""
        row = int(np.searchsorted(rows.indptr, entry, side="right")) - 1
        lines = (
            number
            for number, line in enumerate(io.BytesIO(self.data), 1)
            if COMMENT.sub(b"", line).removeprefix(codecs.BOM_UTF8).strip()
        )
        number = next(itertools.islice(lines, row, None))
        return DataError(f"{self.source} line {number}: {message}", advice)


# -- line by line ---------------------------------------------------------------------------------


def _parse_line(line: bytes, parts: int) -> tuple[float, list[tuple[float, ...]]] | None:
    """Return label and entries of a line, None if it is blank, or raise _Wrong."""
    tokens = COMMENT.sub(b"", line).split()
    if not tokens:
        return None
    form = "index:value" if parts == INDEX_VALUE else "field:index:value"
    if any(b"," in token for token in tokens):
        raise _Wrong(
            f"expected a label and {form} entries separated by spaces or tabs, found a comma: "
            f"{_shown(line)}"
        )
    if b":" in tokens[0]:
        raise _Wrong(f"expected a label at the beginning of the line, found {_shown(tokens[0])}")
    label = _float(tokens[0], "a label")
    if parts == INDEX_VALUE and len(tokens) > 1 and _QUERY_TOKEN.fullmatch(tokens[1]):
        del tokens[1]
    entries = []
    for token in tokens[1:]:
        numbers = token.split(b":")
        if len(numbers) != parts:
            other = {FIELD_INDEX_VALUE: "libffm", INDEX_VALUE: "libsvm"}.get(len(numbers))
            hint = f"; is the file in {other} format?" if other else ""
            raise _Wrong(f"expected {form}, found {_shown(token)}{hint}")
        whole = [_whole(number, token) for number in numbers[:-1]]
        entries.append((*whole, _float(numbers[-1], f"a value in {_shown(token)}")))
    return label, entries


def _whole(number: bytes, token: bytes) -> int:
    if not number.isdigit():
        what = "a negative one" if number.startswith(b"-") else _shown(number)
        raise _Wrong(f"expected a whole number as index, found {what} in {_shown(token)}")
    digits = number.lstrip(b"0")
    if len(digits) > 10 or int(digits or b"0") > MAX_INDEX:
        raise _Wrong(f"the index in {_shown(token)} is too large; at most {MAX_INDEX} is supported")
    return int(digits or b"0")


def _float(number: bytes, what: str) -> float:
    if not _NUMBER.fullmatch(number) and number.lower().lstrip(b"+-") not in _NOT_FINITE:
        raise _Wrong(f"expected a number as {what}, found {_shown(number)}")
    value = float(number)
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.float32(value))
    if not finite:
        raise _Wrong(
            f"expected a finite float32 number as {what}, found {_shown(number)}; clean the data"
        )
    return value


def _shown(text: bytes) -> str:
    shown = text.strip().decode("utf-8", "replace")
    return repr(shown if len(shown) <= 40 else shown[:40] + "...")
