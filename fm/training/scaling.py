"""Scaling: training sees features of size one, whatever their unit; the model is in the user's.

Decided here: the scale of each feature, and how a model of scaled features becomes one of the
features as they are. Not decided here: what a column becomes (``fm.encoding``), whose numbers are
standardised already.

The term of a pair shrinks with the square of the values' scale, and neither learning rates nor
weight decay know of it. So training runs on x' = a x + b, feature by feature:

=====================================  ========================================================
stored values of a feature             what is done
=====================================  ========================================================
all alike (flags, ids)                 divided by their size, so that they are 1
in at least half of the rows           mean 0 and standard deviation 1, absent values being 0
others                                 divided by their root mean square
=====================================  ========================================================

A factorization machine of x' is one of x (expand Rendle 2010, equation 1, with t = sum_i b_i v'_i):

    v_i = a_i v'_i
    w_i = a_i (w'_i + <v'_i, t> - b_i |v'_i|^2)
    w0  = w0' + sum_i b_i w'_i + 1/2 (|t|^2 - sum_i b_i^2 |v'_i|^2)

so the model and its file stay plain, and sparse features stay sparse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.model.model import Model
from fm.recipes import OPTIMIZERS
from fm.sparse import csr
from fm.training.parameters import Values, aligned_zeros

_DENSE = 0.5  # of the rows
# The term of a pair grows with the square of mean / standard deviation, and then little is left of
# the digits of float32. So a mean further than this from 0 counts as a larger standard deviation.
_FAR = 100.0


@dataclass(frozen=True, eq=False)
class View:
    """Rows as training sees them, and the way back to the user's features.

    Attributes
    ----------
    rows : Dataset
        Of features x' = a x + b; the given rows themselves if nothing is scaled.
    a, b : ndarray of float64, shape (num_features,), or None
        None: nothing is scaled.
    """

    rows: Dataset
    a: np.ndarray | None = None
    b: np.ndarray | None = None

    @classmethod
    def of(cls, data: Dataset, config: TrainConfig) -> View:
        """Return the view that suits some rows."""
        optimizer = OPTIMIZERS[config.used_optimizer]
        if not config.scale_features or not optimizer.scales or config.task.ranks:
            return cls(data)
        if data.onehot or not data.X.nnz:
            return cls(data)
        a, b = _found(data.X)
        if data.encoder is not None:  # sets of values have the weight they are meant to have
            kept = ~data.encoder.raw_numbers
            a[kept], b[kept] = 1.0, 0.0
        if (a == 1).all() and not b.any():
            return cls(data)
        return cls(_scaled(data, a, b), a, b)

    def of_rows(self, data: Dataset | None) -> Dataset | None:
        """Return other rows as training sees them."""
        if data is None or self.a is None or self.b is None:
            return data
        return _scaled(data, self.a, self.b)

    def of_more(self, data: Dataset) -> View:
        """Return the view of a further piece of the data; features new in it get their scale."""
        if self.a is None or self.b is None:
            return replace(self, rows=data)
        a, b = _found(data.X)
        new = (self.a == 1) & (self.b == 0)
        a, b = np.where(new, a, self.a), np.where(new, 0.0, self.b)
        return View(_scaled(data, a, b), a, b)

    def plain(self, values: Values) -> Values:
        """Return w0, w and V of the user's features."""
        if self.a is None or self.b is None:
            return values
        w0, w, V = values
        U, w = V.astype(np.float64), w.astype(np.float64)
        t, squares = self.b @ U, np.einsum("ij,ij->i", U, U)
        w0 = w0 + float(self.b @ w + (t @ t - self.b**2 @ squares) / 2)
        w = self.a * (w + U @ t - self.b * squares)
        scaled = aligned_zeros(U.size).reshape(U.shape)  # on large pages, as those of training
        scaled[:] = self.a[:, None] * U
        return w0, w.astype(np.float32), scaled

    def start(self, model: Model | None) -> Model | None:
        """Return a model of the features as training sees them: the reverse of :meth:`plain`."""
        a, b = self.a, self.b
        if model is None or a is None or b is None or len(model.V) != len(a):
            return model
        U = model.V / a[:, None]
        t, squares = b @ U, np.einsum("ij,ij->i", U, U)
        w = model.w / a - U @ t + b * squares
        w0 = model.w0 - float(b @ w + (t @ t - b**2 @ squares) / 2)
        return replace(model, w0=w0, w=w.astype(np.float32), V=U.astype(np.float32))


def _scaled(data: Dataset, a: np.ndarray, b: np.ndarray) -> Dataset:
    """Return rows of a x + b."""
    X = data.X
    X = csr((X.data * a[X.indices]).astype(np.float32), X.indices, X.indptr, X.shape)
    moved = np.flatnonzero(b).astype(np.int32)
    if moved.size:
        rows = X.shape[0]
        shift = csr(
            np.tile(b[moved].astype(np.float32), rows),
            np.tile(moved, rows),
            np.arange(rows + 1, dtype=np.int64) * moved.size,
            X.shape,
        )
        X = X + shift
        X = csr(X.data, X.indices.astype(np.int32, copy=False), X.indptr, X.shape)
    return replace(data, X=X, _cache={})


def _found(X: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return a and b for the columns of a matrix."""
    rows, n = X.shape
    values = X.data.astype(np.float64)
    count = np.bincount(X.indices, minlength=n)
    total = np.bincount(X.indices, values, n)
    squares = np.bincount(X.indices, values * values, n)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, X.indices, values)
    np.maximum.at(high, X.indices, values)
    a, b = np.ones(n), np.zeros(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(squares / count)
    some = (count > 0) & (root > 0)
    a[some] = 1 / root[some]
    dense = some & (low < high) & (count >= _DENSE * rows)
    mean = total[dense] / rows
    centred = values - (total / rows)[X.indices]  # second pass: the first would cancel
    spread = np.bincount(X.indices, centred * centred, n)[dense] + (rows - count[dense]) * mean**2
    std = np.maximum(np.sqrt(spread / rows), np.abs(mean) / _FAR)
    a[dense], b[dense] = 1 / std, -mean / std
    return a, b
