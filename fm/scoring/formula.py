"""The score formula of a factorization machine, in numpy and scipy.

The score of a row x with features i, j is (Rendle 2010, equation 1 and lemma 3.1)

    w0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j

       = w0 + sum_i (w_i x_i - 1/2 |v_i|^2 x_i^2) + 1/2 |s|^2,    s = sum_i x_i v_i

The second form needs no pairs: its cost is linear in the entries of the row.

===========  =========================  =========================================================
name         symbol                     meaning
===========  =========================  =========================================================
``sums``     s                          the sum of a row's vectors, shape (num_rows, num_factors)
``squares``  ``|v_i|^2``                the squared length of each feature's vector
``plain``    ``w_i - 1/2 |v_i|^2``      what feature i adds without the others, where x_i = 1
===========  =========================  =========================================================

Decided here: the formula for whole rows, for one row, and for one side of a row. Not decided here:
what may be scored (``fm.scoring.machine``), the compiled form (``fm.kernels.rows``), single terms
(``fm.explaining.terms``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.sparse import rows_of, with_values

FLOATS_AT_ONCE = 2**20  # floats of a temporary matrix: 4 MB, large beside a call's overhead
_HALF = np.float32(0.5)


class Prepared(NamedTuple):
    """Parameters, and what the formula needs of them; :func:`prepared` makes it."""

    w0: float
    w: np.ndarray
    V: np.ndarray
    squares: np.ndarray
    plain: np.ndarray


def prepared(w0: float, w: np.ndarray, V: np.ndarray) -> Prepared:
    """Return parameters with what the formula needs of them, so that it is computed once."""
    squares = inner(V, V)
    return Prepared(w0, w, V, squares, w - _HALF * squares)


def inner(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return the inner product of each row of A with that row of B.

    Examples
    --------
    >>> inner(np.array([[1, 2], [3, 4]]), np.array([[1, 1], [0, 1]])).tolist()
    [3, 4]
    """
    products: np.ndarray = np.einsum("ij,ij->i", A, B)
    return products


def row_scores(X: sp.csr_matrix, model: Prepared, *, onehot: bool) -> np.ndarray:
    """Return the scores of rows by two or three sparse products per block of rows.

    Parameters
    ----------
    X : csr_matrix of float32, shape (num_rows, num_features)
    model : Prepared
    onehot : bool
        Whether all values of X are 1, which saves a product: x^2 = x.

    Returns
    -------
    ndarray of float32, shape (num_rows,)

    Examples
    --------
    >>> w, V = np.array([1, 2], np.float32), np.array([[1], [3]], np.float32)
    >>> X = sp.csr_matrix(np.array([[1, 1], [0, 2]], np.float32))
    >>> row_scores(X, prepared(0.5, w, V), onehot=False).tolist()
    [6.5, 4.5]
    """
    result = np.empty(X.shape[0], dtype=np.float32)
    entries = -(-X.nnz // max(1, X.shape[0]))
    step = max(1, FLOATS_AT_ONCE // max(model.V.shape[1], entries))
    for start in range(0, X.shape[0], step):
        block = rows_of(X, start, min(start + step, X.shape[0]))
        sums = block @ model.V
        pairs = _HALF * inner(sums, sums)
        if onehot:
            rest = block @ model.plain
        else:
            rest = block @ model.w
            block.data = np.square(block.data)
            rest -= _HALF * (block @ model.squares)
        result[start : start + step] = np.float32(model.w0) + rest + pairs
    return result


def score_of_row(features: np.ndarray, values: np.ndarray | None, model: Prepared) -> float:
    """Return the score of one row, in a few microseconds.

    Parameters
    ----------
    features : ndarray of int, shape (num_entries,)
        Without repetitions.
    values : ndarray of float32, shape (num_entries,), or None
        None: all 1.
    model : Prepared

    Examples
    --------
    >>> w, V = np.array([1, 2], np.float32), np.array([[1], [3]], np.float32)
    >>> score_of_row(np.array([0, 1]), None, prepared(0.5, w, V))
    6.5
    """
    vectors = model.V.take(features, 0)
    if values is None:
        sums = np.add.reduce(vectors, 0)
        rest = np.add.reduce(model.plain.take(features))
    else:
        sums = values @ vectors
        rest = values @ model.w.take(features)
        rest = rest - 0.5 * (values * values) @ model.squares.take(features)
    return model.w0 + float(rest) + 0.5 * float(sums @ sums)


def side_terms(X: sp.csr_matrix, w: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for one side of rows, its sums and all terms that need nothing of the other side.

    A row of two sides a and b, each a part of its entries, has the score

        w0 + t_a + t_b + <s_a, s_b>,    t = sum_i w_i x_i + 1/2 (|s|^2 - sum_i |v_i|^2 x_i^2)

    Parameters
    ----------
    X : csr_matrix of float32, shape (num_rows, num_features)
        One side.
    w, V : ndarray of float32
        The parameters of these features.

    Returns
    -------
    sums : ndarray of float32, shape (num_rows, num_factors)
        s. Where the numbers are too large they are infinite or nan, as in `terms`.
    terms : ndarray of float32, shape (num_rows,)
        t.

    Examples
    --------
    >>> w, V = np.array([1, 2], np.float32), np.array([[1], [3]], np.float32)
    >>> X = sp.csr_matrix(np.array([[1, 1], [0, 2]], np.float32))
    >>> [part.tolist() for part in side_terms(X, w, V)]
    [[[4.0], [6.0]], [6.0, 4.0]]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.ascontiguousarray(X @ V)
        squared = with_values(X, np.square(X.data))
        pairs = _HALF * (inner(sums, sums) - squared @ inner(V, V))
        return sums, np.asarray(X @ w + pairs, np.float32)
