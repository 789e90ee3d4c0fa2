"""Sparse rows: the one layout that all of fm computes with, and work on raw CSR arrays.

Decided here: the layout (CSR, float32 values, int32 column numbers, sorted and without duplicates
in each row), and how any matrix is checked and converted to it. Kernels check nothing: whatever
reaches them went through :func:`checked_csr`. Not decided here: what the columns mean.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from fm.errors import Advice, DataError


def checked_csr(X: Any, num_features: int | None = None, *, source: str = "data") -> sp.csr_matrix:
    """Return X as a CSR matrix in the layout of fm; nothing is copied that has it already.

    Raises
    ------
    DataError
        If X is not two-dimensional, a value is not a finite number or a column number is
        outside ``[0, num_features)``.
    """
    given = X
    if not sp.issparse(X):
        X = _checked_matrix(X, source)
    else:
        refuse_complex(X.dtype, source)
        _check_places(X, source)
    if X.dtype == np.float16:  # scipy.sparse knows no half precision
        X = X.astype(np.float32)
    try:
        X = sp.csr_matrix(X)  # does not copy a CSR matrix
    except (TypeError, ValueError) as err:
        raise DataError(f"{source}: cannot be made a CSR matrix ({err})") from err
    rows, columns = X.shape
    width = columns if num_features is None else int(num_features)
    if width > 2**31 - 1:
        raise DataError(f"{source}: {width} features, but at most {2**31 - 1} are supported")
    if X.nnz:
        low, high = int(X.indices.min()), int(X.indices.max())
        if low < 0 or high >= width:
            at, row, feature = _first_entry(X, (X.indices < 0) | (X.indices >= width))
            raise DataError(
                f"{source} row {row}: feature index {feature} is outside [0, {width})",
                Advice("check the data, or raise {num_features}", num_features=...),
            )
    with np.errstate(over="ignore"):  # reported below, with its place
        data = np.ascontiguousarray(X.data, dtype=np.float32)
    if not all_finite(data):
        at, row, feature = _first_entry(X, ~np.isfinite(data))
        raise DataError(
            f"{source} row {row}, feature {feature}: the value {X.data[at]} is not a "
            "finite float32 number; clean or leave out the value"
        )
    indices = np.ascontiguousarray(X.indices, dtype=np.int32)
    result = sp.csr_matrix((rows, width), dtype=np.float32)
    result.data, result.indices, result.indptr = data, indices, X.indptr
    if not X.has_canonical_format:
        if sp.issparse(given) and given.format == "csr":
            result = result.copy()  # sorting and summing work in place, and X is the caller's
        result.has_canonical_format = False
        result.sum_duplicates()
        if not all_finite(result.data):
            at, row, feature = _first_entry(result, ~np.isfinite(result.data))
            raise DataError(
                f"{source} row {row}, feature {feature}: the sum of its repeated "
                "entries is not a finite float32 number; check the values"
            )
    else:
        result.has_canonical_format = True
    return result


def _first_entry(X: sp.csr_matrix, wrong: np.ndarray) -> tuple[int, int, int]:
    """Return (position, row from 1, feature) of the first entry that is `wrong`, for a message."""
    at = int(np.argmax(wrong))
    return at, int(np.searchsorted(X.indptr, at, side="right")), int(X.indices[at])


def _checked_matrix(given: Any, source: str) -> np.ndarray:
    """Return an input that is not sparse as a two-dimensional array of numbers."""
    try:
        X: np.ndarray = np.asarray(given)
    except ValueError as err:
        raise DataError(f"{source}: rows of different lengths; expected a matrix") from err
    refuse_complex(X.dtype, source)
    if X.ndim != 2:
        raise DataError(
            f"{source}: expected a matrix (rows x features), found {X.ndim} dimension(s); "
            "reshape a single row with X.reshape(1, -1)"
        )
    if X.dtype.kind not in "fiub":
        raise DataError(
            f"{source}: expected numbers, found an array of {X.dtype}; name the columns and "
            "pass a frame to have strings encoded"
        )
    return X


def _check_places(X: Any, source: str) -> None:
    """Refuse a sparse matrix whose arrays do not fit together: scipy's loops do not check them."""
    if X.ndim != 2:
        raise DataError(
            f"{source}: expected a matrix (rows x features), found {X.ndim} dimension(s)"
        )
    sound = _SOUND.get(X.format, lambda X: True)(X)
    if not sound:
        what = "row pointers (indptr)" if X.format == "csr" else "indices or pointers"
        raise DataError(
            f"{source}: the {what} of the sparse matrix are damaged; build it again from its parts"
        )


def _sound_csr(X: Any) -> bool:
    """Whether the row pointers fit the arrays; columns are checked later, with the row named."""
    pointers, entries = np.asarray(X.indptr), min(X.indices.size, X.data.size)
    return bool(
        X.indices.size == X.data.size
        and pointers.size == X.shape[0] + 1
        and pointers[0] == 0
        and pointers[-1] <= entries
        and not (np.diff(pointers) < 0).any()
    )


def _sound_coo(X: Any) -> bool:
    return all(
        part.size == X.data.size and (not part.size or (part.min() >= 0 and part.max() < size))
        for part, size in zip((X.row, X.col), X.shape, strict=True)
    )


def _sound_by_scipy(X: Any) -> bool:
    try:
        X.check_format(full_check=True)
    except (ValueError, IndexError):
        return False
    return True


_SOUND = {"csr": _sound_csr, "coo": _sound_coo, "csc": _sound_by_scipy, "bsr": _sound_by_scipy}


def refuse_complex(dtype: np.dtype, source: str) -> None:
    """Raise DataError for complex numbers, which numpy would cut to their real parts."""
    if dtype.kind == "c":
        raise DataError(f"{source}: Complex data not supported; expected real numbers")


def sparse_row(indices: Any, values: Any, num_features: int, *, expected: str) -> sp.csr_matrix:
    """Return features and their values (None: 1 each) as one row; checked_csr sorts it later.

    Raises
    ------
    DataError
        If they are not numbers of the right kind, differ in length, or a feature does not exist;
        `expected` begins the message.
    """
    features = np.asarray(indices)
    if features.size == 0:
        features = features.astype(np.int64)
    x = np.ones(features.shape) if values is None else np.asarray(values)
    kinds = features.dtype.kind in "iu" and (x.size == 0 or x.dtype.kind in "fiub")
    if features.ndim != 1 or features.shape != x.shape or not kinds:
        raise DataError(
            f"{expected}, found {features.dtype} of shape {features.shape} and {x.dtype} of shape "
            f"{x.shape}"
        )
    outside = features[(features < 0) | (features >= num_features)]
    if outside.size:
        where = expected.partition(":")[0]
        raise DataError(f"{where}: feature {outside[0]} is outside [0, {num_features})")
    row = sp.csr_matrix((1, num_features))
    row.indices, row.data = features.astype(np.int64), x.astype(np.float64)
    row.indptr = np.array([0, features.size])
    row.has_canonical_format = False  # repeated features are summed later
    return row


def csr(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]
) -> sp.csr_matrix:
    """Return the matrix of these arrays as they are; columns must be ascending in each row."""
    if shape[0] == 1:  # a request: scipy's constructor would take most of its time
        matrix = copy.copy(_one_row(shape[1], data.dtype))
    else:
        matrix = sp.csr_matrix(shape, dtype=data.dtype)
    fits = indices.size <= np.iinfo(np.int32).max
    matrix.data, matrix.indices = data, indices
    matrix.indptr = indptr.astype(np.int32) if fits else indptr
    matrix.has_canonical_format = True
    return matrix


@lru_cache(maxsize=16)
def _one_row(width: int, dtype: np.dtype) -> sp.csr_matrix:
    return sp.csr_matrix((1, width), dtype=dtype)


def csr_of_entries(
    rows: np.ndarray, indices: np.ndarray, data: np.ndarray, shape: tuple[int, int]
) -> sp.csr_matrix:
    """Return the matrix of entries in any order; no two may be in the same place."""
    order = np.lexsort((indices, rows))
    indptr = np.searchsorted(rows[order], np.arange(shape[0] + 1))
    return csr(data[order], indices[order], indptr, shape)


def without(X: sp.csr_matrix, features: np.ndarray) -> sp.csr_matrix:
    """Return X without the entries of some features (a mask)."""
    keep = ~features[X.indices]
    indptr = np.concatenate([[0], np.cumsum(keep)])[X.indptr].astype(X.indptr.dtype)
    result = sp.csr_matrix(X.shape, dtype=X.dtype)
    result.data, result.indices, result.indptr = X.data[keep], X.indices[keep], indptr
    result.has_canonical_format = X.has_canonical_format
    return result


def compacted(X: sp.csr_matrix) -> tuple[np.ndarray, sp.csr_matrix]:
    """Return the columns that occur in X, ascending, and X with these columns only.

    Examples
    --------
    >>> columns, narrow = compacted(sp.csr_matrix(np.array([[0, 5, 0, 6], [0, 7, 0, 0]])))
    >>> columns.tolist(), narrow.toarray().tolist()
    ([1, 3], [[5, 6], [7, 0]])
    """
    columns, indices = np.unique(X.indices, return_inverse=True)
    parts = X.data, indices.reshape(-1).astype(np.int32), X.indptr
    return columns, sp.csr_matrix(parts, shape=(X.shape[0], len(columns)))


def with_values(X: sp.csr_matrix, values: np.ndarray) -> sp.csr_matrix:
    """Return X with other values in the same places; both share the arrays of the places."""
    result = copy.copy(X)  # a fifth of the time that the constructor takes
    result.data = values
    return result


def rows_of(X: sp.csr_matrix, start: int, stop: int) -> sp.csr_matrix:
    """Return rows of X that share its memory (X[start:stop] copies)."""
    begin, end = X.indptr[start], X.indptr[stop]
    indptr = (X.indptr[start : stop + 1] - begin).astype(np.int32, copy=False)
    parts = X.data[begin:end], X.indices[begin:end], indptr
    return sp.csr_matrix(parts, shape=(stop - start, X.shape[1]), copy=False)


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; block by block, so that no large mask is made."""
    return all(bool(np.isfinite(part).all()) for part in blocks(values))


def all_ones(values: np.ndarray) -> bool:
    """Whether all values are 1; for most other data the first block tells."""
    return all(bool((part == 1).all()) for part in blocks(values))


def blocks(values: np.ndarray, dtype: Any = None, size: int = 1 << 20) -> Iterator[np.ndarray]:
    """Iterate over an array piece by piece, so that no large temporary is made of it."""
    flat = values.reshape(-1)
    return (
        flat[start : start + size].astype(dtype or flat.dtype, copy=False)
        for start in range(0, flat.size, size)
    )
