"""How good a model is after an epoch: what early stopping watches.

Predictions are judged by the metrics of their task, on the rows held out or on the validation data.
A ranker ranks the item of each row among all items, and is judged by NDCG and hit rate at 10. Items
that the user met in training are left out, unless users meet the same items again and again (in a
tenth of the rows to judge).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.data.dataset import Dataset
from fm.errors import DataError
from fm.kernels.negatives import Known
from fm.scoring.formula import side_terms
from fm.sparse import compacted
from fm.training.interactions import MOST_SCORES, REPEATS, Interactions
from fm.training.solvers.solver import Solver

TOP = 10  # of NDCG and hit rate
Judge = Callable[[], dict[str, float]]


def make_judge(solver: Solver, validation: Dataset | None) -> Judge | None:
    """Return a function that measures the solver's current parameters; None: no rows to judge by.

    Parameters
    ----------
    solver : Solver
        With the rows held out in its split.
    validation : Dataset, optional
        Rows to use instead of held-out ones.
    """
    data, rows = solver.data, solver.split.held_out
    if validation is not None:
        data, rows = validation, np.arange(validation.num_rows, dtype=np.int32)
    if rows is None:
        return None
    met = solver.split.met
    if met is None:
        return _prediction_judge(solver, data, rows)
    lists = _list_judge(met, data, rows, solver.config.seed, validation is None)

    def judge() -> dict[str, float]:
        _, w, V = solver.parameters()
        return lists.metrics(w, V)

    return judge


def _prediction_judge(solver: Solver, data: Dataset, rows: np.ndarray) -> Judge:
    scores, y = solver.scorer(data, rows), data.targets[rows]
    weight = None if data.weight is None else data.weight[rows]
    return lambda: solver.task.measure(scores(), y, weight)


def _list_judge(
    met: Interactions, data: Dataset, rows: np.ndarray, seed: int, own: bool
) -> ListJudge:
    """Return the judge of lists; `own`: the rows are some of those that `met` knows."""
    if own:
        users, items = met.users[rows], met.items[rows]
        return ListJudge(met.catalogue, data.X[rows], users, items, met.known)
    users, items = met.catalogue.rows_of_keys(data.X)
    rows = np.flatnonzero(items >= 0)
    if not rows.size:
        raise DataError(
            f"{data.source}: expected rows with an item of the training data "
            f"({met.catalogue.item}), found none"
        )
    most = max(1, MOST_SCORES // met.catalogue.num_items)
    if rows.size > most:
        rng = np.random.default_rng([seed, 1])
        rows = np.sort(rng.choice(rows, most, replace=False))
    return ListJudge(met.catalogue, data.X[rows], users[rows], items[rows], met.known)


class ListJudge:
    """Rows whose item is ranked among all items, given their context.

    Parameters
    ----------
    catalogue : Catalogue
    X : csr_matrix
        The rows.
    users, items : ndarray of int32
        The user of each row (-1: none), and its item.
    known : Known
        The pairs that training met.
    """

    def __init__(
        self, catalogue: Catalogue, X: sp.csr_matrix, users: np.ndarray, items: np.ndarray,
        known: Known,
    ) -> None:  # fmt: skip
        # Over the features that occur, so that no others' parameters are copied in each epoch.
        self._items, self._targets = compacted(catalogue.items), items
        self._contexts = compacted(catalogue.contexts(X))
        none = np.zeros(0, np.int32)
        met = [
            known.indices[known.indptr[user] : known.indptr[user + 1]] if user >= 0 else none
            for user in users
        ]
        again = [bool(np.isin(item, part)) for item, part in zip(items, met, strict=True)]
        self._met = [none] * len(met) if np.mean(again) > REPEATS else met

    def metrics(self, w: np.ndarray, V: np.ndarray) -> dict[str, float]:
        """Return ndcg and hit_rate at 10 of the model with these parameters."""
        ranks = self.ranks(w, V)
        hit = ranks < TOP
        gain = np.where(hit, 1 / np.log2(ranks + 2), 0.0)
        return {"ndcg": float(gain.mean()), "hit_rate": float(hit.mean())}

    def ranks(self, w: np.ndarray, V: np.ndarray) -> np.ndarray:
        """Return the rank of each row's item, from 0; items of equal scores share their mean."""
        used, X = self._items
        vectors, linear = side_terms(X, w[used], V[used])
        used, X = self._contexts
        contexts = X @ V[used]
        ranks = np.empty(self._targets.size)
        block = max(1, (1 << 22) // len(vectors))
        for start in range(0, ranks.size, block):
            targets = self._targets[start : start + block]
            scores = contexts[start : start + block] @ vectors.T + linear
            place = np.arange(targets.size)
            own = scores[place, targets]
            for row, met in enumerate(self._met[start : start + block]):
                scores[row, met] = -np.inf
            scores[place, targets] = own
            above = (scores > own[:, None]).sum(axis=1)
            ranks[start : start + block] = above + ((scores == own[:, None]).sum(axis=1) - 1) / 2
        return ranks
