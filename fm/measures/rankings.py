"""The figures by which ranked lists are judged, in plain numpy.

Decided here: what each figure means. Not decided here: which items stand in a list, and what counts
as relevant (``fm.evaluating.rankings``).

With R the relevant items of a list, ``rel(r)`` 1 if the item at rank r (from 1) is relevant, else
0, and k the length of the list:

=============  =====================================================================================
precision@k    sum of rel(r) / k; a list that ends early is not easier
recall@k       sum of rel(r) / abs(R); less than 1 by necessity where abs(R) > k
hit_rate@k     1 if any rel(r) is 1
mrr@k          1 / rank of the first relevant item; 0 if none is in the list
map@k          sum of rel(r) precision@r / min(k, abs(R))
ndcg@k         sum of rel(r) / log2(r + 1), over the same of a list that begins with all of R
auc            chance that a relevant item scores above one of the others; ties count half
coverage@k     share of the items that stand in at least one list
novelty@k      mean of -log2(share of the users who met the item) over the items in the lists
=============  =====================================================================================

The denominators are the common ones: all relevant items in recall (the textbook's, as in RecBole
and TREC), the reachable ones in map and ndcg (as in RecBole and Kaggle), so that a perfect list has
1 in these two. Other programs may differ: some divide recall by min(k, abs(R)).

References
----------
Manning, Raghavan & Schütze (2008), Introduction to Information Retrieval, sections 8.3 and 8.4.
Järvelin & Kekäläinen (2002), Cumulated gain-based evaluation of IR techniques.
Rendle et al. (2009), BPR, section 4.1.1: the AUC per user.
Zhou et al. (2010), Solving the apparent diversity-accuracy dilemma: surprisal, here novelty.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_FEW = 32  # relevant items up to which comparing all scores with each is cheaper than sorting


def best_of(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the numbers of the k highest scores of each row, int32; -1 behind the last.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, num_items)
        -inf: not to be listed. Equal scores are listed by rising number.

    Examples
    --------
    >>> best_of(np.array([[1.0, 3.0, 3.0], [2.0, -np.inf, -np.inf]]), 2).tolist()
    [[1, 2], [0, -1]]
    """
    numbers = np.full((len(scores), k), -1, np.int32)
    count = min(k, scores.shape[1])
    if not count:
        return numbers
    least = np.partition(scores, -count, axis=1)[:, -count]
    rows, items = np.nonzero((scores >= least[:, None]) & (scores > -np.inf))
    found = scores[rows, items]
    tied = found == least[rows]
    above = np.bincount(rows[~tied], minlength=len(scores))
    # Of those that share the last place, the first ones in each row.
    before = np.cumsum(tied) - tied
    first = np.searchsorted(rows, np.arange(len(scores)))
    begins = np.append(before, 0)[first]
    keep = ~tied | (before - begins[rows] < count - above[rows])
    rows, items, found = rows[keep], items[keep], found[keep]
    order = np.lexsort((items, -found, rows))
    place = np.arange(rows.size) - np.searchsorted(rows, rows)
    numbers[rows, place] = items[order]
    return numbers


def ranking_metrics(
    recommended: np.ndarray, indptr: np.ndarray, relevant: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the figures at k of each list, float64: precision, recall, hit_rate, mrr, map, ndcg.

    Parameters
    ----------
    recommended : ndarray of int, shape (n, k)
        Numbers of items, best first, each once in a list; -1 behind the last.
    indptr : ndarray of int, shape (n + 1,)
    relevant : ndarray of int
        The relevant items of list i are ``relevant[indptr[i]:indptr[i + 1]]``, each once. A list
        without any has NaN.

    Examples
    --------
    >>> found = ranking_metrics(np.array([[7, 3, 5]]), np.array([0, 2]), np.array([5, 3]))
    >>> {name: round(float(values[0]), 4) for name, values in found.items()}
    {'precision': 0.6667, 'recall': 1.0, 'hit_rate': 1.0, 'mrr': 0.5, 'map': 0.5833, 'ndcg': 0.6934}
    """
    n, k = recommended.shape
    sizes = np.diff(indptr)
    width = int(max(recommended.max(initial=0), relevant.max(initial=0))) + 1
    wanted = np.repeat(np.arange(n), sizes) * width + relevant
    listed = np.arange(n)[:, None] * width + recommended
    hit = np.isin(listed, wanted) & (recommended >= 0)
    ranks = np.arange(1, k + 1)
    hits = hit.cumsum(axis=1)
    total = hits[:, -1]
    discount = 1 / np.log2(ranks + 1)
    ideal = np.concatenate([[np.nan], discount.cumsum()])
    # A list without relevant items has no figures, rather than bad ones.
    many = np.where(sizes > 0, sizes, np.nan)
    reachable = np.minimum(sizes, k)
    return {
        "precision": total / k * (many / many),
        "recall": total / many,
        "hit_rate": (total > 0) * (many / many),
        "mrr": np.where(total > 0, 1 / (hit.argmax(axis=1) + 1), 0.0) * (many / many),
        "map": (hit * hits / ranks).sum(axis=1) / np.minimum(many, k),
        "ndcg": hit @ discount / ideal[reachable],
    }


def others_above(
    scores: np.ndarray, indptr: np.ndarray, relevant: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many other items score above each relevant one, and how many others there are.

    Others are the items of a row that are not relevant and whose score is not -inf.

    Parameters
    ----------
    scores : ndarray, shape (n, num_items)
        -inf: left out.
    indptr, relevant : ndarray of int
        As in :func:`ranking_metrics`. A number of num_items or more is of an item without a score:
        all others are above it.

    Returns
    -------
    above : ndarray of float64, shape (len(relevant),)
        Ties count half.
    others : ndarray of int64, shape (n,)

    Examples
    --------
    >>> above, others = others_above(np.array([[3.0, 1.0, 1.0, -np.inf]]), [0, 2], np.array([1, 9]))
    >>> above.tolist(), others.tolist()
    ([1.5, 2.0], [2])
    """
    above = np.empty(len(relevant))
    others = np.empty(len(scores), np.int64)
    for row, (begin, end) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
        own = relevant[begin:end]
        known = own < scores.shape[1]
        rest = scores[row].copy()
        rest[own[known]] = -np.inf
        others[row] = np.count_nonzero(rest > -np.inf)
        above[begin:end] = others[row]
        above[begin:end][known] = _above(rest, scores[row, own[known]])
    return above, others


def _above(rest: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return, for each score in `own`, how many of `rest` are higher; ties count half."""
    if own.size <= _FEW:
        above = [np.count_nonzero(rest > s) + np.count_nonzero(rest >= s) for s in own]
        return np.array(above, np.float64) / 2
    rest = np.sort(rest)
    ends = np.searchsorted(rest, own, side="left") + np.searchsorted(rest, own, side="right")
    return rest.size - ends / 2


def auc(above: np.ndarray, indptr: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the AUC of each list from what :func:`others_above` gives; NaN if it has none.

    Examples
    --------
    >>> auc(np.array([1.5, 2.0]), np.array([0, 2]), np.array([2])).tolist()
    [0.125]
    """
    sums = np.concatenate([[0.0], np.cumsum(above)])
    sums = sums[indptr[1:]] - sums[indptr[:-1]]
    pairs = np.diff(indptr) * others
    return np.asarray(1 - sums / np.where(pairs > 0, pairs, np.nan))


def coverage(recommended: np.ndarray, num_items: int) -> float:
    """Return the share of the items that are in at least one list (numbers, -1: none).

    Examples
    --------
    >>> coverage(np.array([[0, 1], [1, -1]]), 4)
    0.5
    """
    return float(np.unique(recommended[recommended >= 0]).size / num_items)


def novelty(recommended: np.ndarray, counts: np.ndarray, num_users: int) -> float:
    """Return the mean of -log2(counts / num_users) over the items in all lists; NaN if none.

    Parameters
    ----------
    recommended : ndarray of int
        Numbers of items; -1: none.
    counts : ndarray of int, shape (num_items,)
        How many users met each item; one nobody met counts as met by one.
    num_users : int

    Examples
    --------
    >>> novelty(np.array([[0, 1], [1, -1]]), np.array([8, 1]), 8)
    2.0
    """
    items = recommended[recommended >= 0]
    if not items.size:
        return float("nan")
    return float(np.mean(np.log2(num_users) - np.log2(np.maximum(counts[items], 1))))


def means(figures: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean of each figure over the lists that have one (not NaN); NaN if none has.

    Examples
    --------
    >>> means({"auc": np.array([0.5, np.nan, 1.0])})
    {'auc': 0.75}
    """
    kept = {name: values[~np.isnan(values)] for name, values in figures.items()}
    return {name: float(v.mean()) if v.size else float("nan") for name, v in kept.items()}
