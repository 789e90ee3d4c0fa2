"""Steps batch by batch, as the built-in algorithm takes them (optimizer=sagemaker)."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fm.kernels.layout import csr_arrays, plain
from fm.kernels.minibatch import Workspace, minibatch_kernel, workspace
from fm.training.solvers.gradient import GradientSolver
from fm.training.solvers.solver import Visit


class MiniBatches(GradientSolver):
    """One step of the optimizer after each mini_batch_size rows."""

    keeps_unseen = True

    @property
    def _batch(self) -> int:
        return min(self.config.mini_batch_size, self.split.rows.size)

    @cached_property
    def _space(self) -> Workspace:
        X, batch = self.data.X, self._batch
        longest = int(np.diff(X.indptr).max(initial=0))
        entries = min(batch * longest, X.nnz)
        return workspace(batch, entries, self.data.num_features, self.values.lanes.padded)

    @cached_property
    def _scores(self) -> np.ndarray:
        return np.empty(self.split.rows.size, np.float32)

    def epoch(self, visit: Visit) -> float:
        """Train on each row once, in the order of the visit."""
        config, values, count = self.config, self.values, self.split.rows.size
        csr = csr_arrays(self.data.X, self.data.onehot, 0)
        weighted = self.weight is not None
        kernel = minibatch_kernel(
            values.lanes.width, values.lanes.chunks, csr.onehot, weighted, values.states
        )
        scores = visit.scores if visit.scores.size else self._scores
        # The kernel fills the last batch up to config.mini_batch_size, whatever it was given.
        block = max(1, self.rows_per_call() // self._batch) * self._batch
        opt = self.steps(visit.number)
        for start in range(0, count, block):
            stop = min(start + block, count)
            of_padding = kernel(
                visit.order, start, stop, plain(self.data.X.indptr), csr.indices, csr.values,
                self.targets, self.weight_or_none, self.task.loss, opt, config.mini_batch_size,
                config.pad_last_batch, self._space, scores, values.B, values.W, values.P,
            )  # fmt: skip
            visit.done(stop - start)
        if config.pad_last_batch and count % config.mini_batch_size:
            self.padding = (-count % config.mini_batch_size, float(of_padding))
        rows = visit.order[:count]
        losses = self.task.loss.value(scores, self.targets[rows])
        weights = None if self.weight is None else self.weight[rows]
        return float(np.average(losses, weights=weights)) * values.scale**2
