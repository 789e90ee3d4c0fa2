"""How well a model ranks: its lists for test rows, beside those of two simple methods.

Decided here: which items are in a list, which of them are relevant, and what the model is compared
with. Not decided here: what a metric means (``fm.measures.rankings``), which rows are held out for
the test (``fm.evaluating.splits``).

**Lists.** Test rows with the same context (user, hour, ...: all columns but those of the item) have
one list together, and their items are the relevant ones. A row with an unknown user has a list of
its own, because it may be another user than that of the next row.

**Items of a list.** All items of the catalogue, without those that the user met in training; a
relevant item is never left out. With ``sampled=n`` each test row has a list of its own: its item
and n others, drawn from those that its user met neither in training nor in the test. This is the
protocol of He et al. (2017). Its metrics are much higher, depend on n, and may order models
differently (Krichene & Rendle 2020); the result names the protocol.

**Equal scores.** Items are shuffled once, with the seed, and items of equal score stay in that
order. The catalogue is ordered by popularity, which would help a model that knows nothing.

**Baselines**, from the pairs of the training data alone. *Most popular* orders items by the number
of users who met them. *Item kNN* orders them by the sum of their cosines with the items that the
user met, where an item counts for its 100 nearest items only (Deshpande & Karypis 2004); the
vectors are the items' columns of the users x items matrix. For an unknown user all items are equal.

References
----------
He et al. (2017), Neural collaborative filtering, section 4.1.
Krichene & Rendle (2020), On sampled metrics for item recommendation.
Deshpande & Karypis (2004), Item-based top-N recommendation algorithms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.data.dataset import Dataset
from fm.errors import Advice, ConfigError, DataError
from fm.measures.rankings import (
    auc,
    best_of,
    coverage,
    means,
    novelty,
    others_above,
    ranking_metrics,
)
from fm.model.model import Model
from fm.recommending.recommender import side_vectors

NEIGHBOURS = 100  # of each item, in item kNN
SCORES_AT_ONCE = 2**22  # scores made at a time: 16 MB, and as much again for their order

Scorer = Callable[[slice], np.ndarray]  # lists of a block -> scores float32 (n, num_items), its own


def evaluate_ranking(
    model: Model,
    test: Any,
    *,
    k: int = 10,
    exclude: str | None = "seen",
    threshold: float | None = None,
    sampled: int | None = None,
    lists: str = "context",
    seed: int = 0,
    baselines: bool = True,
    per_list: bool = False,
    catalogue: Catalogue | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Return how well a model ranks the items of test rows, and how well simple methods do.

    Parameters
    ----------
    model : Model
    test : Dataset, or anything that :func:`fm.read` takes
        Interactions that the model was not trained on. Targets are read only if they are needed
        (see `threshold`), unless it is a Dataset.
    k : int
        Length of the lists.
    exclude : "seen" or None
        Whether to leave out what a list's user met in training. Use None for data in which users
        come back to the same items.
    threshold : float, optional
        Rows are relevant if their target is at least this. None: all rows are; for a classifier,
        those with label 1, if the test has labels.
    sampled : int, optional
        Rank each test row's item among so many drawn ones, instead of all (see the module).
    lists : {"context", "row"}
        "row": each test row has a list of its own. So models with different context columns are
        measured on the same lists.
    seed : int
        For the items that are drawn and the order of equal scores.
    baselines : bool
        Whether to measure the baselines too; they need the pairs of the training data.
    per_list : bool
        Whether to return the metrics of each list, for tests of significance.
    catalogue : Catalogue, optional
        The items; the default is the model's own.
    progress : function of int, optional
        Called after each block, with the number of lists in it.

    Returns
    -------
    dict
        ``protocol``, ``k``, ``excluded``, counts (``rows``, ``contexts``, ``items``, ``relevant``,
        ``unknown_items``, ``unknown_users``, ``relevant_seen``), ``metrics``: for each method, from
        name to mean over the lists; ``notes``: sentences about the counts. With `per_list` also
        ``per_list``: the metrics as arrays. Without the training pairs there is no ``novelty``; in
        the sampled protocol there is neither ``novelty`` nor ``coverage``.

    Raises
    ------
    ConfigError
        If the model does not know its items, or an option is wrong.
    DataError
        If the rows cannot be read, none is relevant, or a score is not finite.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> model = Model(0, [0] * 6, [[1]] * 6, TrainConfig(num_factors=1), encoder=data.encoder,
    ...               catalogue=data.catalogue)
    >>> found = evaluate_ranking(model, {"user": [2], "film": ["A"]}, k=1)
    >>> found["protocol"], found["metrics"]["model"]["hit_rate@1"]  # they have met B
    ('full ranking', 1.0)
    """
    _check_options(k, exclude, threshold, sampled, lists)
    catalogue = model.catalogue if catalogue is None else catalogue
    if catalogue is None:
        raise ConfigError(
            "ranking: the model does not know which column is the item",
            Advice("train it on data read with {item}", item=...),
        )
    data = _read(model, test, threshold)
    asked = _lists(model, catalogue, data, threshold, sampled is not None or lists == "row")
    rng = np.random.default_rng(seed)
    asked, order = _shuffled(asked, rng.permutation(catalogue.num_items))
    seen = None if catalogue.seen is None else sp.csr_matrix(catalogue.seen[:, order])
    met = None if seen is None else _rows_of(seen, asked.users)
    left_out = met if exclude == "seen" else None
    drawn = None if sampled is None else _drawn(asked, left_out, catalogue.num_items, sampled, rng)
    scorers = {"model": _of_model(model, catalogue.items[order], asked.contexts)}
    if baselines:
        scorers |= _baselines(asked, met, seen)
    figures, metrics = {}, {}
    for name, scorer in scorers.items():
        listed, figures[name] = _measured(
            scorer, asked, catalogue.num_items, left_out, drawn, k, progress
        )
        metrics[name] = means(figures[name])
        if drawn is None:
            metrics[name] |= _of_all_lists(listed, catalogue, seen, k)
    result: dict[str, Any] = {
        "protocol": "full ranking" if sampled is None else f"1 against {sampled} sampled",
        "k": k,
        "excluded": "nothing" if left_out is None else "seen in training",
        "rows": data.num_rows,
        **_counts(asked, catalogue, met),
        "metrics": metrics,
    }
    result["notes"] = _notes(result, exclude, baselines, catalogue, drawn, sampled)
    if per_list:
        result["per_list"] = figures
    return result


def _counts(asked: _Lists, catalogue: Catalogue, met: sp.csr_matrix | None) -> dict[str, int]:
    """Return how many lists, items and relevant items there are."""
    known = asked.relevant < catalogue.num_items
    return {
        "contexts": len(asked.users),
        "items": catalogue.num_items,
        "relevant": len(asked.relevant),
        "unknown_items": int(np.count_nonzero(~known)),
        "unknown_users": asked.strangers,
        "relevant_seen": 0 if met is None else int(_is_entry(met, asked)[known].sum()),
    }


def _of_all_lists(
    listed: np.ndarray, catalogue: Catalogue, seen: sp.csr_matrix | None, k: int
) -> dict[str, float]:
    """Return the metrics that look at all lists together."""
    metrics = {f"coverage@{k}": coverage(listed, catalogue.num_items)}
    if seen is not None:
        counts = np.asarray(seen.sum(axis=0)).ravel()
        metrics[f"novelty@{k}"] = novelty(listed, counts, catalogue.num_users)
    return metrics


def _check_options(k: Any, exclude: Any, threshold: Any, sampled: Any, lists: Any) -> None:
    for name, value in (("k", k), ("sampled", 1 if sampled is None else sampled)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ConfigError(f"{name}: expected an integer of at least 1, found {value!r}")
    if exclude is not None and not (isinstance(exclude, str) and exclude == "seen"):
        raise ConfigError(f"exclude: expected 'seen' or None, found {exclude!r}")
    if threshold is not None and not (
        isinstance(threshold, (int, float, np.number)) and np.isfinite(threshold)
    ):
        raise ConfigError(f"threshold: expected a finite number, found {threshold!r}")
    if lists not in ("context", "row"):
        raise ConfigError(f"lists: expected 'context' or 'row', found {lists!r}")


def _notes(
    result: dict[str, Any],
    exclude: str | None,
    baselines: bool,
    catalogue: Catalogue,
    drawn: np.ndarray | None,
    sampled: int | None,
) -> list[str]:
    """Return what a reader of the metrics should know, one sentence each."""
    notes = []
    if result["unknown_items"]:
        notes.append(
            f"items unknown to the model: {result['unknown_items']:,} of {result['relevant']:,} "
            "relevant; they count as misses"
        )
    if result["unknown_users"]:
        notes.append(
            f"users unknown to the model: {result['unknown_users']:,} rows, each with a list of "
            "its own"
        )
    if result["relevant_seen"]:
        again = f"of the relevant items {result['relevant_seen']:,} were met in training"
        if result["excluded"] != "nothing":
            again += (
                "; they stay in the lists while other such items are left out, which helps them"
            )
        notes.append(again)
    if catalogue.seen is None and (exclude == "seen" or baselines):
        notes.append("no baselines, and nothing is left out: the model has no training pairs")
    few = 0 if drawn is None else int((drawn.min(axis=1) < 0).sum())
    if few:
        notes.append(
            f"fewer than {sampled} items to draw for {few:,} rows; they have all there are"
        )
    return notes


# -- the lists -------------------------------------------------------------------------------------


class _Lists(NamedTuple):
    """The lists to make. Unknown relevant items have the numbers from num_items on."""

    contexts: sp.csr_matrix
    users: np.ndarray  # -1: unknown
    indptr: np.ndarray
    relevant: np.ndarray
    strangers: int  # rows whose user is unknown


def _read(model: Model, test: Any, threshold: float | None) -> Dataset:
    if not isinstance(test, Dataset):
        from fm.reading.read import read

        needed = threshold is not None or model.task.has_probabilities
        test = read(test, require_target=needed, **model.reading_options(test))
    if threshold is not None and test.y is None:
        raise DataError(f"{test.source}: expected a target in each row to compare with threshold")
    data = model.as_dataset(test)
    if not data.num_rows:
        raise DataError(f"{data.source}: expected rows, found none")
    return data


def _relevant_rows(model: Model, data: Dataset, threshold: float | None) -> np.ndarray:
    if threshold is not None:
        rows = np.flatnonzero(data.targets >= threshold)
        if not rows.size:
            raise DataError(
                f"{data.source}: no target reaches the threshold of {threshold:g}; the highest is "
                f"{data.targets.max():g}"
            )
    elif model.task.has_probabilities and data.y is not None:
        data = data.labelled(model.labels)
        wrong = model.task.first_wrong_target(data.targets)
        if wrong is not None:
            raise DataError(
                f"{data.source} row {wrong + 1}: expected label 0 or 1, because the model is a "
                f"{model.task.noun}, found {data.targets[wrong]:g}",
                Advice("say with {threshold} what is relevant", threshold=...),
            )
        rows = np.flatnonzero(data.targets > 0.5)
        if not rows.size:
            raise DataError(f"{data.source}: expected rows with label 1, found none")
    else:
        rows = np.arange(data.num_rows)
    return rows


def _lists(
    model: Model, catalogue: Catalogue, data: Dataset, threshold: float | None, by_row: bool
) -> _Lists:
    rows = _relevant_rows(model, data, threshold)
    X = data.X if rows.size == data.num_rows else data.X[rows]
    users, items = catalogue.rows_of_keys(X)
    contexts = catalogue.contexts(X)
    stranger = users < 0 if catalogue.user else np.zeros(rows.size, bool)
    numbers: dict[Any, int] = {}
    of_row = np.empty(rows.size, np.int64)
    for row, (begin, end) in enumerate(zip(contexts.indptr[:-1], contexts.indptr[1:], strict=True)):
        key: Any = row
        if not (by_row or stranger[row]):
            key = contexts.indices[begin:end].tobytes(), contexts.data[begin:end].tobytes()
        of_row[row] = numbers.setdefault(key, len(numbers))
    _, first = np.unique(of_row, return_index=True)
    unknown = items < 0
    items = np.where(unknown, catalogue.num_items + np.arange(rows.size), items)
    width = catalogue.num_items + rows.size
    pairs = np.unique(of_row * width + items)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(pairs // width))])
    return _Lists(contexts[first], users[first], indptr, pairs % width, int(stranger.sum()))


def _shuffled(asked: _Lists, place: np.ndarray) -> tuple[_Lists, np.ndarray]:
    """Return the lists with the new places of the items, and the old place of each new one."""
    known = asked.relevant < place.size
    relevant = np.where(known, place[np.where(known, asked.relevant, 0)], asked.relevant)
    return asked._replace(relevant=relevant), np.argsort(place)


def _rows_of(seen: sp.csr_matrix, users: np.ndarray) -> sp.csr_matrix:
    """Return what each user met; nothing for -1."""
    nobody = sp.csr_matrix((1, seen.shape[1]), dtype=seen.dtype)
    return sp.vstack([seen, nobody], format="csr")[np.where(users < 0, seen.shape[0], users)]


def _is_entry(met: sp.csr_matrix, asked: _Lists) -> np.ndarray:
    """Return for each relevant item whether the list's user met it in training."""
    rows = np.repeat(np.arange(len(asked.users)), np.diff(asked.indptr))
    width = max(met.shape[1], int(asked.relevant.max(initial=0)) + 1)
    entries = np.repeat(np.arange(met.shape[0]), np.diff(met.indptr)) * width + met.indices
    return np.isin(rows * width + asked.relevant, entries)


def _drawn(
    asked: _Lists,
    left_out: sp.csr_matrix | None,
    num_items: int,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the items drawn for each list, which is of one row; -1 where there are too few."""
    in_test: dict[int, list[int]] = {}
    for user, item in zip(asked.users.tolist(), asked.relevant.tolist(), strict=True):
        if item < num_items:
            in_test.setdefault(user, []).append(item)
    drawn = np.full((len(asked.users), count), -1, np.int32)
    for row, user in enumerate(asked.users.tolist()):
        possible = np.ones(num_items, bool)
        if left_out is not None:
            possible[left_out.indices[left_out.indptr[row] : left_out.indptr[row + 1]]] = False
        if user >= 0:
            possible[in_test.get(user, [])] = False
        elif asked.relevant[row] < num_items:
            possible[asked.relevant[row]] = False
        pool = np.flatnonzero(possible)
        chosen = rng.choice(pool, min(count, pool.size), replace=False)
        drawn[row, : chosen.size] = chosen
    return drawn


# -- the methods -----------------------------------------------------------------------------------


def _of_model(model: Model, items: sp.csr_matrix, contexts: sp.csr_matrix) -> Scorer:
    vectors, bias = side_vectors(model, items)

    def scores(part: slice) -> np.ndarray:
        # The terms of the context alone are left out: they are equal for all items.
        with np.errstate(over="ignore", invalid="ignore"):  # reported by the caller
            return np.asarray(side_vectors(model, contexts[part]).vectors @ vectors.T + bias)

    return scores


def _baselines(
    asked: _Lists, met: sp.csr_matrix | None, seen: sp.csr_matrix | None
) -> dict[str, Scorer]:
    """Return the simple methods; none without the pairs of the training data."""
    if met is None or seen is None:
        return {}
    popular = np.asarray(seen.sum(axis=0), np.float32)
    return {
        "most popular": lambda part: np.tile(popular, (len(asked.users[part]), 1)),
        "item kNN": _of_neighbours(met, seen),
    }


def _of_neighbours(met: sp.csr_matrix, seen: sp.csr_matrix) -> Scorer:
    similar = _neighbours(seen, NEIGHBOURS)

    def scores(part: slice) -> np.ndarray:
        return np.asarray((met[part].astype(np.float32) @ similar).toarray())

    return scores


def _neighbours(seen: sp.csr_matrix, count: int) -> sp.csr_matrix:
    """Return, in the row of each item, the cosines of the `count` items most similar to it."""
    num_items = seen.shape[1]
    columns = seen.astype(np.float32).tocsc()
    lengths = np.sqrt(np.maximum(np.diff(columns.indptr), 1)).astype(np.float32)
    columns.data /= np.repeat(lengths, np.diff(columns.indptr))
    by_user = columns.tocsr()
    step = max(1, SCORES_AT_ONCE // max(1, num_items))
    parts = []
    for begin in range(0, num_items, step):
        block = (columns[:, begin : begin + step].T @ by_user).toarray()
        own = np.arange(len(block))
        block[own, begin + own] = 0
        near = best_of(block, count)
        cosine = np.take_along_axis(block, near, axis=1)
        rows, places = np.nonzero((near >= 0) & (cosine > 0))
        found = cosine[rows, places], (rows, near[rows, places])
        parts.append(sp.csr_matrix(found, shape=block.shape))
    return sp.vstack(parts, format="csr")


# -- measuring -------------------------------------------------------------------------------------


def _measured(
    scorer: Scorer,
    asked: _Lists,
    num_items: int,
    left_out: sp.csr_matrix | None,
    drawn: np.ndarray | None,
    k: int,
    progress: Callable[[int], object] | None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the lists that a scorer makes, and the metrics of each list."""
    listed, areas = [], []
    step = max(1, SCORES_AT_ONCE // num_items)
    for start in range(0, len(asked.users), step):
        part = slice(start, min(start + step, len(asked.users)))
        scores = scorer(part)
        if not (scores.min() > -np.inf and scores.max() < np.inf):  # false for nan, too
            raise DataError(
                "scores: expected finite numbers, found others; the model's parameters or the "
                "values of a row are too large"
            )
        indptr = asked.indptr[part.start : part.stop + 1]
        relevant = asked.relevant[indptr[0] : indptr[-1]]
        indptr = indptr - indptr[0]
        _leave_out(scores, indptr, relevant, left_out, drawn, part)
        listed.append(best_of(scores, k))
        above, others = others_above(scores, indptr, relevant)
        areas.append(auc(above, indptr, others))
        if progress is not None:
            progress(part.stop - part.start)
    numbers = np.concatenate(listed)
    at_k = ranking_metrics(numbers, asked.indptr, asked.relevant)
    figures = {f"{name}@{k}": values for name, values in at_k.items()}
    return numbers, {**figures, "auc": np.concatenate(areas)}


def _leave_out(
    scores: np.ndarray,
    indptr: np.ndarray,
    relevant: np.ndarray,
    left_out: sp.csr_matrix | None,
    drawn: np.ndarray | None,
    part: slice,
) -> None:
    """Set the scores of items that are not in a list to -inf; relevant items are in it."""
    rows = np.repeat(np.arange(len(scores)), np.diff(indptr))
    known = relevant < scores.shape[1]
    kept = rows[known], relevant[known]
    own = scores[kept]
    if drawn is not None:
        among = np.nonzero(drawn[part] >= 0)
        others = among[0], drawn[part][among]
        values = scores[others]
        scores[:] = -np.inf
        scores[others] = values
    elif left_out is not None:
        seen = left_out[part]
        scores[np.repeat(np.arange(len(scores)), np.diff(seen.indptr)), seen.indices] = -np.inf
    scores[kept] = own
