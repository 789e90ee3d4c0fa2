"""Ranking with a loss of pairs (bpr, warp): an item that was met against one that was not."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from fm.kernels.pairs import pair_kernel, pair_loss
from fm.training.solvers.negatives import Negatives, Sides
from fm.training.solvers.solver import Visit


class ByPair(Negatives):
    """One step of the optimizer after each row and one of its negatives.

    With warp only the first negative that comes too close is stepped on.
    """

    @property
    def comparisons(self) -> int:  # type: ignore[override]
        """Pairs in the loss of a row."""
        return 1 if self.config.ranking_loss == "warp" else self.each

    def first_bias(self, mean: float) -> float:
        """Return 0: w0 is in both scores of a pair, so it does not move."""
        return 0.0

    def steps(self, epoch: int) -> Any:
        """Return the numbers of an epoch; the rate of w0 is 0, so that it shortens no step."""
        return super().steps(epoch)._replace(bias_lr=np.float32(0))

    @cached_property
    def _sides(self) -> Sides:
        return self.sides(values=True)

    @cached_property
    def _loss(self) -> Any:
        return pair_loss(self.config, self.met.catalogue.num_items)

    def rows_at_a_time(self) -> int:
        """Return how many rows get their negatives at a time."""
        size = min(self.chunk, self.rows_per_call()) // self.each
        return max(1, min(size, self.split.rows.size))

    def train(self, visit: Visit, start: int, stop: int, drawn: np.ndarray) -> float:
        """Train on ``visit.order[start:stop]`` with the negatives drawn; return their loss."""
        values, sides = self.values, self._sides
        kernel = pair_kernel(
            values.lanes.width, values.lanes.chunks, self.weight is not None, values.states
        )
        return float(
            kernel(
                visit.order, start, stop, self.each, self.met.items, drawn, sides.context,
                sides.side, self.weight_or_none, self._loss, self.steps(visit.number),
                self.scratch, visit.scores, values.B, values.W, values.P,
            )
        )  # fmt: skip
