"""Ranking from implicit feedback: training for ``predictor_type=ranker``.

Each row of the data is an interaction. The catalogue says which of its entries describe the item;
the others are its context. The model is a full factorization machine of both sides, and learns to
score the row's own item above others in the same context.

Decided here:

- Negatives: the same context with the side of another item, drawn anew in each epoch, and never an
  item that the row's user meets in a row that is trained on, or met in the training that this one
  goes on from. Where users meet the same items again
  and again (a tenth of the rows), only those met in this very context are spared: what somebody
  uses in the evening is a negative of the morning. Rows that are held out count as not
  yet met: a model that never sees them as negatives could tell them by that, and early stopping
  would reward it (MovieLens 1M, 50 epochs: NDCG 0.162 of held-out rows instead of 0.135).
- A row's item is described as in the catalogue, alike as a positive and as a negative.
- The weight of a row is that of all its comparisons: 2 is as if the row were there twice.
- Early stopping watches NDCG at 10 of one random row of each user who has two (without a column of
  users: of a tenth of the rows), up to so many rows that judging costs less than training. All
  items are ranked; those the user met in training are left out, unless the data repeat themselves
  (a tenth of the rows to judge are of an item that their user has met).

Not decided here: the steps (``fm.kernels.rows``, ``fm.kernels.pairs``), the loop over epochs
(``fm.training.fit``), how negatives are drawn (``fm.kernels.negatives``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.kernels.negatives import (
    POWER,
    Known,
    Rows,
    alias_table,
    draw_negatives,
    fill_rows,
    known_pairs,
)
from fm.kernels.pairs import Bpr, Warp, pair_kernel
from fm.kernels.rows import PADDING, csr_arrays, training_kernel
from fm.measures.predictions import log_odds
from fm.reading.finding_items import catalogue_of
from fm.scoring.formula import side_terms
from fm.sparse import compacted
from fm.training.fit import _FAR, _loss, _optimizer, _Trainer
from fm.training.progress import Progress
from fm.training.state import TrainState

_TOP = 10  # of NDCG and hit rate
_JUDGED = 1 << 26  # scores that judging one epoch may take
_CHUNK = 1 << 20  # rows written at a time
_CHUNK_ENTRIES = 1 << 24
_REPEATS = 0.1  # from this part of known pairs on, known items stay in the ranking


def interactions(data: Dataset, like: Dataset | None = None) -> Dataset:
    """Return data as the ranker takes them: with a catalogue, and with 1 for every target.

    Parameters
    ----------
    data : Dataset
        Rows; targets may be missing.
    like : Dataset, optional
        The training data whose catalogue holds for these rows too.

    Raises
    ------
    ConfigError
        If it is not known which column is the item.
    DataError
        If there is a target that is not above 0.

    Examples
    --------
    >>> from fm.reading.read import read
    >>> data = interactions(read({"user": ["ann", "bob"], "item": ["tea", "rum"]}))
    >>> data.y.tolist(), data.catalogue
    ([1.0, 1.0], Catalogue(2 items (item), 2 users (user), 2 pairs seen))
    """
    if data.y is not None and (wrong := ~(data.y > 0)).any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{data.source} row {row + 1}: expected an interaction, that is no target or one above "
            f"0, because predictor_type is ranker, found {data.y[row]:g}; leave such rows out: "
            "negatives are drawn from the other items"
        )
    catalogue = data.catalogue if like is None else like.catalogue
    if catalogue is None:
        catalogue = catalogue_of(data)
    if catalogue is None:
        known = ", ".join(data.field_names) or "no column has a name: give a range of features"
        raise ConfigError(
            f"item: expected the column of the items, because predictor_type is ranker, found none "
            f"({known}); name it, as in fm.read(..., item='film', user='person')"
        )
    return replace(data, y=np.ones(data.num_rows, np.float32), catalogue=catalogue)


class RankTrainer(_Trainer):
    """The trainer of ``fm.training.fit``, with negatives and with ranks to judge by."""

    usual_fraction = 1.0
    judged: Any

    def _split(self, fraction: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows to train on, and one held out for each user, if any are."""
        data, config = self.data, self.config
        catalogue: Any = data.catalogue  # there is one: see interactions
        self.catalogue = catalogue
        self.users, self.items = catalogue.rows_of_keys(data.X)
        rows = np.flatnonzero(self.items >= 0).astype(np.int32)
        if not rows.size:
            raise DataError(
                f"{data.source}: expected rows with an item ({catalogue.item}), found none"
            )
        held = None
        if fraction:
            mixed = np.random.default_rng([config.seed, 1]).permutation(rows)
            held = _to_hold_out(mixed, self.users, fraction, _JUDGED // catalogue.num_items)
            rows = rows if held is None else np.setdiff1d(rows, held)
        self.known = known_pairs(
            self.users[rows], self.items[rows], catalogue.num_users, catalogue.num_items
        )
        repeated = _repeat_themselves(self.known, self.users, rows)
        met = self._met_before(held)
        if met is not None:
            self.known = known_pairs(
                np.concatenate([self.users[rows], met[0]]),
                np.concatenate([self.items[rows], met[1]]),
                catalogue.num_users,
                catalogue.num_items,
            )
        self.groups, self.taken = self.users, self.known
        if repeated:
            self.groups = _alike(catalogue.contexts(data.X))
            self.groups[self.users < 0] = -1
            number = int(self.groups.max(initial=-1)) + 1
            self.taken = known_pairs(
                self.groups[rows], self.items[rows], number, catalogue.num_items
            )
        return rows, held

    def _met_before(self, held: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the pairs met in the training that this one goes on from, but for those held."""
        if self.init is None or self.init.catalogue is None:
            return None
        seen, count = self.init.catalogue.seen, self.catalogue.num_items
        if seen is None or seen.shape != (self.catalogue.num_users, count):
            return None
        users, items = seen.nonzero()
        if held is None:
            return users, items
        asked = self.users[held].astype(np.int64) * count + self.items[held]
        keep = ~np.isin(users.astype(np.int64) * count + items, asked)
        return users[keep], items[keep]

    def _rows_to_judge(self) -> Any:
        """Return the ranking that early stopping watches, or None."""
        if self.validation is not None:
            users, items = self.catalogue.rows_of_keys(self.validation.X)
            rows = np.flatnonzero(items >= 0)
            if not rows.size:
                raise DataError(
                    f"{self.validation.source}: expected rows with an item of the training data "
                    f"({self.catalogue.item}), found none"
                )
            most = max(1, _JUDGED // self.catalogue.num_items)
            if rows.size > most:
                rng = np.random.default_rng([self.config.seed, 1])
                rows = np.sort(rng.choice(rows, most, replace=False))
            X = self.validation.X[rows]
            return Judge(self.catalogue, X, users[rows], items[rows], self.known)
        if self.held_out is None:
            return None
        rows = self.held_out
        return Judge(
            self.catalogue, self.data.X[rows], self.users[rows], self.items[rows], self.known
        )

    def _start_of_bias(self, mean: float) -> float:
        if self.config.ranking_loss != "logistic":
            return 0.0  # never moved: it is in both scores of a pair
        return log_odds(1 / (1 + (self.config.num_negatives or 1)))

    def _validate(self, state: TrainState) -> dict[str, float]:
        judge: Judge | None = self.judged
        return {} if judge is None else judge.metrics(state.w, state.V)

    # --- an epoch ---------------------------------------------------------------------------------
    def _step(
        self, state: TrainState, *, keep_scores: bool
    ) -> Callable[[np.ndarray, np.ndarray, Progress], float]:
        """Return the function that trains one epoch and returns its mean loss."""
        config, catalogue = self.config, self.catalogue
        each = int(config.num_negatives or 1)
        weights = None
        if config.negative_sampling == "popularity":
            counts = np.bincount(self.items[self.rows], minlength=catalogue.num_items)
            weights = np.maximum(counts, 1) ** POWER
        alias = alias_table(weights)
        total = float(self.rows.size)
        if self.weight is not None:
            total = float(self.weight[self.rows].sum(dtype=np.float64))
        pairs = config.ranking_loss != "logistic"
        train, size = (self._pairs if pairs else self._logistic)(state, each)
        comparisons = {"logistic": each + 1, "bpr": each, "warp": 1}[config.ranking_loss]
        drawn = np.empty(size * each, np.int32)

        def step(order: np.ndarray, margins: np.ndarray, bar: Progress) -> float:
            opt = _optimizer(config, state.epoch)
            if pairs:  # w0 takes no step, so it must not shorten those of the others
                opt = opt._replace(bias_lr=np.float32(0))
            random = _state_of(config.seed, state.epoch)
            loss = 0.0
            for start in range(0, self.rows.size, size):
                stop = min(start + size, self.rows.size)
                random = np.uint64(
                    draw_negatives(
                        order, start, stop, each, self.groups, self.items, catalogue.num_items,
                        self.taken, alias, random, drawn,
                    )
                )  # fmt: skip
                loss += train(order, start, stop, drawn, opt, margins)
                if not np.isfinite(loss):
                    raise self._diverged(state)
                bar.rows(stop - start)
            return loss / (total * comparisons)

        return step

    def _logistic(self, state: TrainState, each: int) -> tuple[Callable[..., float], int]:
        """Return what trains on some rows and their negatives as labels 1 and 0, and how many."""
        sides = self._sides()
        context, side, entries, onehot = sides.context, sides.side, sides.entries, sides.onehot
        weighted, lanes = self.weight is not None, state.lanes
        longest = sides.longest
        room = max(
            each + 1, min(_CHUNK, _CHUNK_ENTRIES // longest, self._rows_per_call(lanes.padded))
        )
        size = min(room // (each + 1), self.rows.size)
        room = size * (each + 1)
        weight = self.weight if self.weight is not None else np.zeros(1, np.float32)
        out = Rows(
            np.empty(room + 1, np.int64),
            np.empty(room * longest, np.int32),
            np.empty(1 if onehot else room * longest, np.float32),
            np.empty(room, np.float32),
            np.empty(room if weighted else 1, np.float32),
        )
        kernels = {
            keep: training_kernel(
                lanes.width, lanes.chunks, entries, onehot, weighted, state.states, keep
            )
            for keep in (False, True)
        }
        loss = _loss(self.config, 1.0)
        scratch, scores = np.empty(lanes.padded, np.float32), np.empty(room, np.float32)
        # The positives are in random order, each followed by its negatives: what they share is
        # still in the cache. Mixing them too gave the same quality for a fifth more time.
        order = np.arange(room + PADDING, dtype=np.int32)

        def train(
            rows: np.ndarray,
            start: int,
            stop: int,
            drawn: np.ndarray,
            opt: Any,
            margins: np.ndarray,
        ) -> float:
            count = fill_rows(
                rows, start, stop, each, self.items, drawn, context, side, weight, weighted,
                onehot, out,
            )  # fmt: skip
            order[count : count + PADDING] = count - 1
            keep = bool(margins.size)
            total = kernels[keep](
                order, 0, count, out.indptr, out.indices, out.values, out.y, out.weight, loss, opt,
                scratch, scores, state.B, state.W, state.P,
            )  # fmt: skip
            order[count : count + PADDING] = np.arange(count, count + PADDING)[: order.size - count]
            if keep:
                margins[start:stop] = scores[:count][out.y[:count] > 0]
            return float(total)

        return train, size

    def _pairs(self, state: TrainState, each: int) -> tuple[Callable[..., float], int]:
        """Return what trains on pairs of some rows and their negatives, and how many rows."""
        config, sides, lanes = self.config, self._sides(values=True), state.lanes
        weighted = self.weight is not None
        weight = self.weight if self.weight is not None else np.zeros(1, np.float32)
        clip: Any = _FAR if config.clip_gradient is None else np.float32(config.clip_gradient)
        rescale: Any = np.float32(1.0 if config.rescale_grad is None else config.rescale_grad)
        items: Any = np.float32(self.catalogue.num_items)
        loss: Any = Bpr(clip, rescale)
        if config.ranking_loss == "warp":
            loss = Warp(clip, rescale, items)
        kernel = pair_kernel(lanes.width, lanes.chunks, weighted, state.states)
        scratch = np.empty(3 * lanes.padded, np.float32)
        size = min(_CHUNK, self._rows_per_call(lanes.padded)) // each
        size = max(1, min(size, self.rows.size))

        def train(
            rows: np.ndarray,
            start: int,
            stop: int,
            drawn: np.ndarray,
            opt: Any,
            margins: np.ndarray,
        ) -> float:
            return float(
                kernel(
                    rows, start, stop, each, self.items, drawn, sides.context, sides.side, weight,
                    loss, opt, scratch, margins, state.B, state.W, state.P,
                )
            )  # fmt: skip

        return train, size

    def _sides(self, *, values: bool = False) -> Sides:
        """Return both sides as the kernels take them; `values`: even where all of them are 1."""
        context, items = self.catalogue.contexts(self.data.X), self.catalogue.items
        lengths = [np.diff(X.indptr) for X in (context, items)]
        onehot = not values and all(bool((X.data == 1).all()) for X in (context, items))
        same = all(bool((length == length[0]).all()) for length in lengths)
        entries = int(sum(length[0] for length in lengths)) if same else 0
        parts = []
        for X in (context, items):
            csr = csr_arrays(X, onehot, 0)
            parts.append((csr.indptr.astype(np.int64), csr.indices, csr.values))
        longest = max(1, int(sum(length.max() for length in lengths)))
        return Sides(parts[0], parts[1], entries if entries <= 64 else 0, onehot, longest)


class Sides(NamedTuple):
    """Contexts (one for each row) and items as CSR arrays: indptr, indices, values."""

    context: tuple[np.ndarray, np.ndarray, np.ndarray]
    side: tuple[np.ndarray, np.ndarray, np.ndarray]
    entries: int  # of a row of both together, if it is the same for all; else 0
    onehot: bool
    longest: int  # entries of a row at most


def _to_hold_out(
    mixed: np.ndarray, users: np.ndarray, fraction: float, most: int
) -> np.ndarray | None:
    """Return the rows to hold out, of rows in random order; ascending."""
    owners = users[mixed]
    if (owners >= 0).any():
        mixed, owners = mixed[owners >= 0], owners[owners >= 0]
        twice = np.bincount(owners) > 1
        _, first = np.unique(owners, return_index=True)
        chosen = mixed[np.sort(first)]  # one of each user, the users in random order
        chosen = chosen[twice[users[chosen]]]
        count = round(fraction * chosen.size)
    else:
        chosen = mixed
        count = round((fraction if fraction < 1 else 0.1) * mixed.size)
    count = min(max(count, 1), max(most, 1), chosen.size)
    return np.sort(chosen[:count]) if count else None


def _repeat_themselves(known: Known, users: np.ndarray, rows: np.ndarray) -> bool:
    """Whether users meet the same items again: a tenth of the rows are of a pair met before."""
    of_users = int((users[rows] >= 0).sum())
    return of_users - known.indices.size > _REPEATS * of_users


def _alike(X: sp.csr_matrix) -> np.ndarray:
    """Return a number for each row, int32, the same for equal rows.

    Rows are compared by sums of random numbers, one for each feature.
    """
    marks = np.random.default_rng(0).random(X.shape[1])
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    sums = np.bincount(rows, marks[X.indices] * X.data, X.shape[0])
    return np.unique(sums, return_inverse=True)[1].reshape(-1).astype(np.int32)


def _state_of(seed: int, epoch: int) -> np.uint64:
    """Return the state the negatives of an epoch are drawn from; never 0."""
    return np.uint64(np.random.SeedSequence([seed, 3, epoch]).generate_state(1, np.uint64)[0] | 1)


class Judge:
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
        self._met = [none] * len(met) if np.mean(again) > _REPEATS else met

    def metrics(self, w: np.ndarray, V: np.ndarray) -> dict[str, float]:
        """Return ndcg and hit_rate at 10 of the model with these parameters."""
        ranks = self.ranks(w, V)
        hit = ranks < _TOP
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
