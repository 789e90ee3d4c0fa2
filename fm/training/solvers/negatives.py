"""Ranking with log loss: each interaction is a row of label 1, drawn negatives rows of label 0.

A negative is the context of the row with another item, drawn anew in each epoch. An item is
described by its row of the catalogue, as a positive and as a negative. The weight of a row is that
of all its comparisons: 2 is as if the row were there twice.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fm.kernels.layout import PADDING, csr_arrays
from fm.kernels.negatives import (
    POWER,
    Alias,
    Rows,
    alias_table,
    draw_negatives,
    fill_rows,
)
from fm.kernels.rows import training_kernel
from fm.measures.predictions import log_odds
from fm.training.interactions import Interactions
from fm.training.solvers.rows import ByRow
from fm.training.solvers.solver import Visit

_CHUNK_ENTRIES = 1 << 24


class Sides(NamedTuple):
    """Contexts (one for each row) and items as CSR arrays: indptr, indices, values."""

    context: tuple[np.ndarray, np.ndarray, np.ndarray]
    side: tuple[np.ndarray, np.ndarray, np.ndarray]
    entries: int  # of a row of both together, if it is the same for all; else 0
    onehot: bool
    longest: int  # entries of a row at most


class Negatives(ByRow):
    """What all solvers of rankers share: who met what, and the drawing of negatives."""

    comparisons: int  # in the loss of a row
    chunk = 1 << 20  # rows at a time, at most

    @property
    def met(self) -> Interactions:
        """Who met what."""
        met = self.split.met
        assert met is not None  # a ranker's split has it
        return met

    @property
    def each(self) -> int:
        """How many negatives are drawn for a row."""
        return int(self.config.num_negatives or 1)

    @cached_property
    def alias(self) -> Alias:
        """The distribution that items are drawn from."""
        if self.config.negative_sampling != "popularity":
            return alias_table(None)
        items = self.met.items[self.split.rows]
        counts = np.bincount(items, minlength=self.met.catalogue.num_items)
        return alias_table(np.maximum(counts, 1) ** POWER)

    def sides(self, *, values: bool = False) -> Sides:
        """Return both sides as the kernels take them; `values`: even where all of them are 1."""
        context, items = self.met.catalogue.contexts(self.data.X), self.met.catalogue.items
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

    def rows_at_a_time(self) -> int:
        """Return how many rows get their negatives at a time."""
        raise NotImplementedError

    def train(self, visit: Visit, start: int, stop: int, drawn: np.ndarray) -> float:
        """Train on ``visit.order[start:stop]`` with the negatives drawn; return their loss."""
        raise NotImplementedError

    @cached_property
    def _drawn(self) -> np.ndarray:
        return np.empty(self.rows_at_a_time() * self.each, np.int32)

    def epoch(self, visit: Visit) -> float:
        """Draw negatives for some rows, train on them, go on with the next ones."""
        met, each, size = self.met, self.each, self.rows_at_a_time()
        random = _first_state(self.config.seed, visit.number)
        count, total = self.split.rows.size, 0.0
        for start in range(0, count, size):
            stop = min(start + size, count)
            random = np.uint64(
                draw_negatives(
                    visit.order, start, stop, each, met.groups, met.items,
                    met.catalogue.num_items, met.taken, self.alias, random, self._drawn,
                )
            )  # fmt: skip
            total += self.train(visit, start, stop, self._drawn)
            if not math.isfinite(total):
                break
            visit.done(stop - start)
        return total / (self.total_weight * self.comparisons)


class ByRowWithNegatives(Negatives):
    """Log loss, one step of the optimizer after each row and each of its negatives."""

    @property
    def comparisons(self) -> int:  # type: ignore[override]
        """The row itself and each negative."""
        return self.each + 1

    def first_bias(self, mean: float) -> float:
        """Return the log-odds of the rows of label 1."""
        return log_odds(1 / (1 + self.each))

    @cached_property
    def _sides(self) -> Sides:
        return self.sides()

    @cached_property
    def _room(self) -> int:
        most = min(self.chunk, _CHUNK_ENTRIES // self._sides.longest, self.rows_per_call())
        most = max(self.comparisons, most)
        return min(most // self.comparisons, self.split.rows.size) * self.comparisons

    def rows_at_a_time(self) -> int:
        """Return how many rows get their negatives at a time."""
        return self._room // self.comparisons

    @cached_property
    def _written(self) -> tuple[Rows, np.ndarray, np.ndarray]:
        """Room for rows, the order in which they are visited, and their scores."""
        room, longest = self._room, self._sides.longest
        rows = Rows(
            np.empty(room + 1, np.int64),
            np.empty(room * longest, np.int32),
            np.empty(1 if self._sides.onehot else room * longest, np.float32),
            np.empty(room, np.float32),
            np.empty(1 if self.weight is None else room, np.float32),
        )
        # The positives are in random order, each followed by its negatives: what they share is
        # still in the cache. Mixing them too gave the same quality for a fifth more time.
        order = np.arange(room + PADDING, dtype=np.int32)
        return rows, order, np.empty(room, np.float32)

    def train(self, visit: Visit, start: int, stop: int, drawn: np.ndarray) -> float:
        """Train on ``visit.order[start:stop]`` with the negatives drawn; return their loss."""
        values, sides, weighted = self.values, self._sides, self.weight is not None
        keep = bool(visit.scores.size)
        kernel = training_kernel(
            values.lanes.width, values.lanes.chunks, sides.entries, sides.onehot, weighted,
            values.states, keep,
        )  # fmt: skip
        out, order, scores = self._written
        count = fill_rows(
            visit.order, start, stop, self.each, self.met.items, drawn, sides.context, sides.side,
            self.weight_or_none, weighted, sides.onehot, out,
        )  # fmt: skip
        order[count : count + PADDING] = count - 1
        total = kernel(
            order, 0, count, out.indptr, out.indices, out.values, out.y, out.weight, self.loss,
            self.steps(visit.number), self.scratch, scores, values.B, values.W, values.P,
        )  # fmt: skip
        order[count : count + PADDING] = np.arange(count, count + PADDING)[: order.size - count]
        if keep:
            visit.scores[start:stop] = scores[:count][out.y[:count] > 0]
        return float(total)


def _first_state(seed: int, epoch: int) -> np.uint64:
    """Return the state the negatives of an epoch are drawn from; never 0."""
    return np.uint64(np.random.SeedSequence([seed, 3, epoch]).generate_state(1, np.uint64)[0] | 1)
