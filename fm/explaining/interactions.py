"""Interactions: which pairs of features, and of fields, move the scores of some rows most.

Decided here: which pairs come first, and that only pairs count that occur together in a row: of all
pairs of a million features nobody could see any, and most of them never meet. Not decided here: the
terms of one score (``fm.explaining.terms``), pictures (``fm.explaining.pictures``).

The term of a pair in a row is ``<v_i, v_j> x_i x_j`` (Rendle 2010, equation 1). The pairs are found
by sparse products ``X' X``, a part of the features at a time: memory stays bounded, however many
pairs there are, and the result is exact.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.errors import ConfigError, DataError
from fm.explaining.terms import one_line
from fm.scoring.formula import inner
from fm.sparse import with_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fm.scoring.machine import FactorizationMachine

_PAIRS = 1 << 22  # pairs that are looked at together: some 100 MB
_FLOATS = 1 << 22  # floats of the vectors that are multiplied together


class Interaction(NamedTuple):
    """A pair of features that occurs in some row.

    Attributes
    ----------
    first, second : str
        Names of the features.
    product : float
        Inner product of their factors: what the pair adds to a score where both are 1.
    rows : int
        How many rows have both.
    contribution : float
        What it adds on average to the scores of these rows.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(0, [0, 0], [[2.0], [0.5]], TrainConfig(num_factors=1))
    >>> model.interactions([[1, 1], [3, 1]])
    [Interaction(first='feature 0', second='feature 1', product=1.0, rows=2, contribution=2.0)]
    """

    first: str
    second: str
    product: float
    rows: int
    contribution: float


class FieldInteractions(NamedTuple):
    """How much the pairs of fields move the scores.

    Attributes
    ----------
    names : list of str
        The fields.
    strength : ndarray of float64, shape (num_fields, num_fields)
        Mean over the rows of the summed sizes of all pairs of two fields; symmetric. On the
        diagonal: the pairs within the field.
    linear : ndarray of float64, shape (num_fields,)
        The same of the fields' linear terms.

    Examples
    --------
    >>> from fm import Model, TrainConfig, field_interactions
    >>> model = Model(0, [1, 2], [[2.0], [0.5]], TrainConfig(num_factors=1),
    ...               fields=[0, 1], field_names=("user", "film"))
    >>> found = field_interactions(model, [[1, 1]])
    >>> float(found.strength[0, 1]), found.linear.tolist()
    (1.0, [1.0, 2.0])
    """

    names: list[str]
    strength: np.ndarray
    linear: np.ndarray

    def plot(self, save: str | os.PathLike[str] | None = None) -> Figure:
        """Draw a heat map and return the matplotlib figure; see :meth:`Explanation.plot`."""
        from fm.explaining.pictures import heat_map

        names = [one_line(name, 40) for name in self.names]
        title = "mean size of what pairs of fields add to a score"
        return heat_map(names, self.strength, self.linear, title, save)


def interactions(
    model: FactorizationMachine, data: Any, k: int = 20, *, min_count: int = 1
) -> list[Interaction]:
    """Return the `k` pairs of features that matter most in some rows.

    Pairs are ordered by ``|contribution| sqrt(rows)``: the mean contribution over the error that a
    mean of so many rows has. By the mean alone, pairs of a single row would come first: the factors
    of what occurs once have the largest errors.

    Parameters
    ----------
    model : FactorizationMachine
    data : anything that ``Model.as_dataset`` takes
        The rows in which pairs are looked for.
    k : int
        How many pairs.
    min_count : int
        Only pairs that occur in at least so many rows.

    Raises
    ------
    ConfigError
        If `k` or `min_count` is not an integer of at least 1.
    DataError
        If the rows do not fit the model.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(0, [0, 0, 0], [[2.0], [0.5], [-3.0]], TrainConfig(num_factors=1))
    >>> interactions(model, [[1, 1, 0], [1, 1, 0], [1, 0, 1]], 1)
    [Interaction(first='feature 0', second='feature 2', product=-6.0, rows=1, contribution=-6.0)]
    >>> interactions(model, [[1, 1, 0]] * 50 + [[1, 0, 1]], 1)[0].second  # 1 and 50 times
    'feature 1'
    """
    for name, value in (("k", k), ("min_count", min_count)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ConfigError(f"{name}: expected an integer of at least 1, found {value!r}")
    best: list[tuple[np.ndarray, ...]] = []
    for first, second, count, sums, _ in _blocks(_rows(model, data)):
        enough = count >= min_count
        first, second, count, sums = first[enough], second[enough], count[enough], sums[enough]
        product = _products(model.V, first, second)
        best.append((first, second, product, count, product * sums / count))
        best = [_strongest(int(k), [np.concatenate(c) for c in zip(*best, strict=True)])]
    if not best:
        return []
    return [
        Interaction(model.feature_name(i), model.feature_name(j), product, count, mean)
        for i, j, product, count, mean in zip(*(c.tolist() for c in best[0]), strict=True)
    ]


def field_interactions(model: FactorizationMachine, data: Any) -> FieldInteractions:
    """Return how much each pair of fields, and each field alone, moves the scores of some rows.

    Parameters are those of :func:`interactions`.

    Raises
    ------
    ConfigError
        If the model knows no fields.
    DataError
        If there are no rows, or they do not fit the model.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(0, [1, 2, 3], [[2.0], [0.5], [-3.0]], TrainConfig(num_factors=1),
    ...               fields=[0, 1, 1], field_names=("user", "film"))
    >>> names, strength, linear = field_interactions(model, [[1, 1, 0], [1, 0, 1]])
    >>> names, strength.tolist(), linear.tolist()
    (['user', 'film'], [[0.0, 3.5], [3.5, 0.0]], [1.0, 2.5])
    """
    if model.fields is None or not model.field_names:
        raise ConfigError(
            "field_interactions: the model knows no fields; train it on a table or on libffm"
        )
    X = _rows(model, data)
    if not X.shape[0]:
        raise DataError("data: expected at least one row, found none")
    names = list(model.field_names)
    fields = model.fields.astype(np.int64)
    if (fields < 0).any():
        names.append("other")
        fields = np.where(fields < 0, len(names) - 1, fields)
    count = len(names)
    strength = np.zeros(count * count)
    for first, second, _, _, sizes in _blocks(X):
        size = np.abs(_products(model.V, first, second)) * sizes
        strength += np.bincount(fields[first] * count + fields[second], size, count * count)
    matrix = strength.reshape(count, count) / X.shape[0]
    matrix = matrix + matrix.T
    matrix[np.diag_indices(count)] /= 2
    terms = np.abs(model.w[X.indices].astype(np.float64) * X.data)
    linear = np.bincount(fields[X.indices], terms, count) / X.shape[0]
    return FieldInteractions(names, matrix, linear)


def _rows(model: FactorizationMachine, data: Any) -> sp.csr_matrix:
    X = model.as_dataset(data).X
    return with_values(X, X.data.astype(np.float64))


def _blocks(X: sp.csr_matrix) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the pairs of features i < j that occur: i, j, rows, sum of x_i x_j, sum of |x_i x_j|.

    On a terminal a bar shows the progress, if it takes more than a second.
    """
    from tqdm import tqdm

    lengths = np.diff(X.indptr)
    columns = X.tocsc()
    plain = with_values(X, np.ones_like(X.data))
    signed, all_one = bool((X.data < 0).any()), bool((X.data == 1).all())
    # The most pairs that each feature can have: the entries of the rows that it is in.
    most = np.add.reduceat(
        np.append(lengths[columns.indices], 0), columns.indptr[:-1], dtype=np.int64
    )
    most[np.diff(columns.indptr) == 0] = 0
    block = np.cumsum(most) // _PAIRS
    edges = np.concatenate([[0], np.flatnonzero(np.diff(block)) + 1, [X.shape[1]]])
    hidden = sys.stderr is None or not sys.stderr.isatty()
    with tqdm(
        total=int(most.sum()), unit="pair", unit_scale=True, desc="pairs", delay=1.0, disable=hidden
    ) as bar:
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            part = columns[:, begin:end].tocsr()
            if not part.nnz:
                continue
            pattern = with_values(part, np.ones_like(part.data)).T.tocsr() @ plain
            first = np.repeat(
                np.arange(begin, end, dtype=pattern.indices.dtype), np.diff(pattern.indptr)
            )
            keep = first < pattern.indices
            counts = pattern.data[keep]
            # If all values are 1, or none is negative, these sums are known already.
            sums = counts if all_one else _values(part.T.tocsr() @ X, pattern)[keep]
            sizes = _values(abs(part).T.tocsr() @ abs(X), pattern)[keep] if signed else sums
            yield first[keep], pattern.indices[keep], np.rint(counts).astype(np.int64), sums, sizes
            bar.update(int(most[begin:end].sum()))


def _values(product: sp.csr_matrix, pattern: sp.csr_matrix) -> np.ndarray:
    """Return the values of a product at the entries of another, in their order.

    If the factors of two products have entries in the same places, so have the products, in the
    same order; but scipy leaves out sums that cancel to 0. (Indexing by these places would be slow:
    scipy searches the whole row for each.)
    """
    if np.array_equal(product.indices, pattern.indices):
        values: np.ndarray = product.data
        return values
    product.sort_indices()
    places = pattern.copy()
    places.data = np.arange(pattern.nnz)
    places.sort_indices()
    found, wanted = (
        np.repeat(np.arange(m.shape[0]), np.diff(m.indptr)) * m.shape[1] + m.indices
        for m in (product, places)
    )
    values = np.zeros(pattern.nnz)
    values[places.data[np.searchsorted(wanted, found)]] = product.data
    return values


def _products(V: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the inner products of pairs of rows of V, float64."""
    result = np.empty(len(first))
    step = max(1, _FLOATS // V.shape[1])
    for start in range(0, len(first), step):
        a, b = (V[of[start : start + step]].astype(np.float64) for of in (first, second))
        result[start : start + step] = inner(a, b)
    return result


def _strongest(k: int, columns: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    sizes = np.abs(columns[4]) * np.sqrt(columns[3])
    if sizes.size > k:  # sort only what can be among them, ties included
        likely = sizes >= np.partition(sizes, -k)[-k]
        columns, sizes = [column[likely] for column in columns], sizes[likely]
    order = np.lexsort((columns[1], columns[0], -sizes))[:k]
    return tuple(column[order] for column in columns)
