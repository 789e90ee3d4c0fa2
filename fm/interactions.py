"""Interactions: which pairs of features, and of fields, a model combines in given rows.

Decided here: what the strength of a pair is. Not decided here: the terms of a single row
(``fm.explaining``), how fields are drawn (``fm.plots``). Floor 2.

Only pairs that occur are looked at, never all pairs of features. The entries of the rows are sorted
by feature, so that all occurrences of a pair are met together, and a pair is done with before the
next features are looked at. The result is exact, in the memory of twice the data and a constant,
however many different pairs there are. Time grows with the pairs of all rows: m (m - 1) / 2 for a
row of m entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.explaining import MAX_FIELDS, check_integer, field_keys, field_name, largest
from fm.formats.files import ragged

if TYPE_CHECKING:
    from fm.model import Model

_PAIRS = 2**22  # occurrences of pairs that are counted together: about 200 MB
_BLOCK = 2**20  # floats of a temporary matrix: 8 MB


# -- pairs of features -----------------------------------------------------------------------------


class Interaction(NamedTuple):
    """A pair of features that occurs in rows.

    Attributes
    ----------
    first, second : str
        The names of the features.
    strength : float
        ``<v_i, v_j>``: what the pair adds to a score where both values are 1.
    count : int
        In how many rows both occur.
    contribution : float
        The mean over these rows of the magnitude of ``<v_i, v_j> x_i x_j``.
    """

    first: str
    second: str
    strength: float
    count: int
    contribution: float


class _Counted(NamedTuple):
    """Pairs, each once: code (i * num_features + j, i < j), rows, sum of abs(x_i x_j)."""

    codes: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray


def interactions(model: Model, data: Any, k: int = 20, *, min_count: int = 1) -> list[Interaction]:
    """Return the strongest pairs of features among those that occur together in rows.

    Parameters
    ----------
    model : Model
    data : anything that ``Model.as_dataset`` takes
        The rows; an entry that is stored with the value 0 occurs. Weights are not used.
    k : int
        How many pairs.
    min_count : int
        Pairs in fewer rows are left out. The strongest pairs of all are often met only once.

    Returns
    -------
    list of Interaction
        The largest mean contribution first; fewer than `k` if fewer pairs occur.

    Raises
    ------
    DataError
        If the rows do not fit the model.
    ConfigError
        If `k` or `min_count` is no integer >= 1.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(0, [0, 0, 0], [[1], [2], [-3]], TrainConfig(num_factors=1))
    >>> interactions(model, [[1, 1, 0], [1, 0, 0.5], [1, 1, 0]], k=1)
    [Interaction(first='feature 0', second='feature 1', strength=2.0, count=2, contribution=2.0)]
    """
    check_integer("k", k, 1)
    check_integer("min_count", min_count, 1)
    rows = model.as_dataset(data)
    n = model.num_features
    norms = np.sqrt(np.einsum("ij,ij->i", model.V, model.V, dtype=np.float64))
    step = max(1, _BLOCK // model.num_factors)
    # contribution, then what it belongs to: codes, strengths, counts
    best: Any = (np.zeros(0), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    for counted in _pairs_that_occur(rows):
        for start in range(0, counted.codes.size, step):
            codes, counts, sizes = (column[start : start + step] for column in counted)
            i, j, mean = codes // n, codes % n, sizes / counts
            # a product is at most that of the norms: most pairs need no product at all
            least = best[0].min() * (1 - 1e-12) if best[0].size == k else 0.0
            near = np.flatnonzero((counts >= min_count) & (norms[i] * norms[j] * mean >= least))
            strengths = np.einsum("ij,ij->i", model.V[i[near]], model.V[j[near]], dtype=np.float64)
            found = np.abs(strengths) * mean[near], codes[near], strengths, counts[near]
            best = largest(k, tuple(np.concatenate(b) for b in zip(best, found, strict=True)))
    order = np.lexsort((best[1], -best[0])).tolist()
    contributions, codes, strengths, counts = (column[order].tolist() for column in best)
    return [
        Interaction(model.feature_name(code // n), model.feature_name(code % n), *rest)
        for code, *rest in zip(codes, strengths, counts, contributions, strict=True)
    ]


def _pairs_that_occur(rows: Dataset) -> Iterator[_Counted]:
    """Yield the different pairs of the rows, those of the lowest first features first."""
    X = rows.X
    positions = np.arange(X.nnz, dtype=np.int64)
    sorted_entries = sp.csr_matrix((positions, X.indices, X.indptr), shape=X.shape).tocsc()
    places, row = sorted_entries.data, sorted_entries.indices
    # how many entries follow each one in its row, its partners; entries sorted by feature
    partners = X.indptr[row + 1].astype(np.int64) - places - 1
    before = np.concatenate([[0], np.cumsum(partners)])
    bounds = sorted_entries.indptr
    for begin, end in _cut(before[bounds], _PAIRS):
        counted = None
        # One range of features unless a single feature has too many pairs: then piece by piece,
        # and what is kept of the pieces has at most num_features pairs.
        begin, end = int(bounds[begin]), int(bounds[end])
        for first, last in _cut(before[begin : end + 1], _PAIRS):
            here = slice(begin + first, begin + last)
            piece = _counted(rows, places[here], partners[here])
            counted = piece if counted is None else _merged(counted, piece)
        if counted is not None:
            yield counted


def _cut(sums: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of things whose sums are at most `limit`, or one thing; ``sums[0]`` is none."""
    start, end = 0, sums.size - 1
    while start < end:
        stop = int(np.searchsorted(sums, sums[start] + limit, side="right")) - 1
        stop = max(stop, start + 1)
        yield start, stop
        start = stop


def _counted(rows: Dataset, places: np.ndarray, partners: np.ndarray) -> _Counted:
    """Count the pairs of entries at some places with those that follow in their rows."""
    X = rows.X
    others = ragged(places + 1, partners)
    codes = np.repeat(X.indices[places].astype(np.int64) * X.shape[1], partners)
    codes += X.indices[others]
    if rows.onehot:
        codes.sort()
        starts = _starts(codes)
        counts = np.diff(starts, append=codes.size)
        return _Counted(codes[starts], counts, counts.astype(np.float64))
    sizes = np.abs(np.repeat(X.data[places].astype(np.float64), partners) * X.data[others])
    return _summed(codes, np.ones(codes.size, np.int64), sizes)


def _merged(a: _Counted, b: _Counted) -> _Counted:
    return _summed(*(np.concatenate(both) for both in zip(a, b, strict=True)))


def _summed(codes: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> _Counted:
    """Return each code once, with the sums of what belongs to it."""
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = _starts(codes)
    if not starts.size:
        return _Counted(codes, counts, sizes)
    sums = (np.add.reduceat(column[order], starts) for column in (counts, sizes))
    return _Counted(codes[starts], *sums)


def _starts(ordered: np.ndarray) -> np.ndarray:
    """Return where each run of equal values begins."""
    return np.flatnonzero(np.diff(ordered, prepend=-1))


# -- pairs of fields -------------------------------------------------------------------------------


class FieldInteractions(NamedTuple):
    """What pairs of fields contribute to the scores of rows.

    The matrices are those of Explanation.by_field for each row, over all rows: the upper triangle
    belongs to the pairs between two fields, the diagonal to what a field does alone (its linear
    terms and the pairs within it); the lower triangle is 0.

    Attributes
    ----------
    field_names : tuple of str
        A feature without a field is one of its own, called as the feature.
    mean : ndarray of float64, shape (num_fields, num_fields)
        The mean contribution.
    magnitude : ndarray of float64, shape (num_fields, num_fields)
        The mean magnitude of the contribution.
    share : ndarray of float64, shape (num_fields, num_fields)
        The share in the variance of the scores: the covariance of the contribution with the score,
        by the variance of the score. They sum to 1; a pair that works against the others has a
        negative share. All 0 if all scores are alike.
    """

    field_names: tuple[str, ...]
    mean: np.ndarray
    magnitude: np.ndarray
    share: np.ndarray


def field_interactions(model: Model, data: Any) -> FieldInteractions:
    """Return what pairs of fields contribute to the scores of rows.

    Parameters
    ----------
    model : Model
        Of at most 200 fields.
    data : anything that ``Model.as_dataset`` takes
        Weights are not used.

    Raises
    ------
    DataError
        If the rows do not fit the model, or there are none.
    ConfigError
        If the model has too many fields; features without a field count as one each.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(0, [1, 1, 0], [[0], [1], [2]], TrainConfig(num_factors=1),
    ...               fields=[0, 0, 1], field_names=("user", "film"))
    >>> field_interactions(model, [[1, 0, 1], [0, 1, 1]]).mean.tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    keys, group = np.unique(field_keys(model, np.arange(model.num_features)), return_inverse=True)
    if keys.size > MAX_FIELDS:
        raise ConfigError(
            f"field_interactions: expected a model of at most {MAX_FIELDS} fields, found "
            f"{keys.size:,} (a feature without a field counts as one); use interactions, for pairs "
            "of features"
        )
    X = model.as_dataset(data).X
    num_rows, f = X.shape[0], keys.size
    if not num_rows:
        raise DataError("field_interactions: expected at least one row, found none")
    # the first block's means: shifts keep the covariance of large contributions exact
    shift: np.ndarray | None = None
    total, magnitude, cross, squares = np.zeros((f, f)), np.zeros((f, f)), np.zeros((f, f)), 0.0
    sum_scores = 0.0
    step = max(1, _BLOCK // (f * max(f, model.num_factors)))
    for start in range(0, num_rows, step):
        parts = _contributions(model, X[start : start + step], group, f)
        magnitude += np.abs(parts).sum(0)
        shift = parts.mean(0) if shift is None else shift
        parts -= shift
        scores = parts.sum((1, 2))
        total += parts.sum(0)
        cross += np.tensordot(scores, parts, 1)
        squares += float(scores @ scores)
        sum_scores += float(scores.sum())
    variance = squares - sum_scores**2 / num_rows
    covariance = cross - total * sum_scores / num_rows
    # below the rounding of the sums, a variance is none
    varies = variance > 1e-12 * (magnitude.sum() ** 2) / num_rows
    share = covariance / variance if varies else np.zeros((f, f))
    names = tuple(field_name(model, key) for key in keys.tolist())
    return FieldInteractions(names, shift + total / num_rows, magnitude / num_rows, share)


def _contributions(
    model: Model, X: sp.csr_matrix, group: np.ndarray, num_groups: int
) -> np.ndarray:
    """Return Explanation.by_field of each row, shape (num_rows, num_groups, num_groups)."""
    num_rows = X.shape[0]
    # each row is cut into one row for each field
    place = np.repeat(np.arange(num_rows) * num_groups, np.diff(X.indptr)) + group[X.indices]
    shape = (num_rows * num_groups, X.shape[1])
    cut = sp.csr_matrix((X.data.astype(np.float64), (place, X.indices)), shape=shape)
    sums = (cut @ model.V.astype(np.float64)).reshape(num_rows, num_groups, -1)
    products = sums @ sums.transpose(0, 2, 1)
    alone = cut @ model.w
    cut.data **= 2
    alone -= 0.5 * (cut @ np.einsum("ij,ij->i", model.V, model.V, dtype=np.float64))
    result = np.triu(products, 1)
    diagonal = np.arange(num_groups)
    result[:, diagonal, diagonal] = 0.5 * products[:, diagonal, diagonal] + alone.reshape(
        num_rows, num_groups
    )
    return result
