"""Steps row by row: the solver of sgd, adagrad, adam and ftrl for numbers and labels."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

from fm.kernels.losses import clipped
from fm.kernels.rows import training_kernel
from fm.training.solvers.gradient import GradientSolver
from fm.training.solvers.solver import Visit


class ByRow(GradientSolver):
    """One step of the optimizer after each row."""

    @cached_property
    def loss(self) -> Any:
        """The loss as the value a kernel takes."""
        config, loss = self.config, self.task.loss
        if self.optimizer.bounded and config.clip_gradient is None and config.rescale_grad is None:
            return loss
        return clipped(loss, config, self.values.scale)

    def epoch(self, visit: Visit) -> float:
        """Train on each row once, in the order of the visit."""
        values, csr = self.values, self.csr
        kernel = training_kernel(
            values.lanes.width, values.lanes.chunks, csr.entries, csr.onehot,
            self.weight is not None, values.states, bool(visit.scores.size),
        )  # fmt: skip
        opt, count, block = self.steps(visit.number), self.split.rows.size, self.rows_per_call()
        total = 0.0
        for start in range(0, count, block):
            stop = min(start + block, count)
            total += kernel(
                visit.order, start, stop, csr.indptr, csr.indices, csr.values, self.targets,
                self.weight_or_none, self.loss, opt, self.scratch, visit.scores,
                values.B, values.W, values.P,
            )  # fmt: skip
            if not math.isfinite(total):
                break
            visit.done(stop - start)
        return total * values.scale**2 / self.total_weight
