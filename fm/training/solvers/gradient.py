"""What the solvers that take gradient steps share: parameters, their start, scores, checkpoints.

Not decided here: what a step is made of (``rows``, ``minibatch``, ``negatives``, ``pairs``), how
large it is (``fm.kernels.optimizers``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.kernels.layout import CsrArrays, csr_arrays, padded_order, plain
from fm.kernels.scoring import score_rows
from fm.model.model import Model
from fm.training.parameters import Parameters, Snapshot
from fm.training.solvers.solver import Solver
from fm.training.split import Split


class GradientSolver(Solver):
    """A solver whose parameters are :class:`fm.training.parameters.Parameters`.

    Attributes
    ----------
    values : Parameters
    keeps_unseen : bool
        Whether features that occur in no row keep their random factors, as in the built-in
        algorithm. They add noise to the scores of rows with new values.
    """

    types = {
        "target": "F64", "B": "F64", "W": "F32", "P": "F32",
        "best_scalars": "F64", "best_w": "F32", "best_V": "F32",
    }  # fmt: skip
    keeps_unseen = False

    def __init__(
        self,
        data: Dataset,
        config: TrainConfig,
        split: Split,
        values: Parameters | None = None,
    ) -> None:
        super().__init__(data, config, split)
        self.values = Parameters(config, data.num_features) if values is None else values
        self.optimizer = self.values.optimizer

    # -- the start -------------------------------------------------------------------------------
    def start(self, init: Model | None = None, *, more: bool = False) -> None:
        """Set the parameters as they are before the first epoch; see the base class."""
        config, data, values = self.config, self.data, self.values
        weight = None if data.weight is None else data.weight[self.split.rows]
        if weight is not None and not weight.sum() > 0:
            raise DataError(f"{data.source}: all weights are 0; nothing to train on")
        y = data.targets[self.split.rows].astype(np.float64)
        mean = float(np.average(y, weights=weight))
        if config.scale_target and self.task.scales_target and config.use_bias:
            spread = np.average((y - mean) ** 2, weights=weight)
            values.center, values.scale = mean, float(np.sqrt(spread)) or 1.0
        if init is None:
            seen = None if more or self.keeps_unseen else _seen(data, self.split.rows)
            values.initialise(np.random.default_rng([config.seed, 0]), self.first_bias(mean), seen)
            return
        if init.V.shape != (data.num_features, config.num_factors):
            raise ConfigError(
                f"init: expected a model of {data.num_features} features x {config.num_factors} "
                f"factors, found {init.V.shape[0]} x {init.V.shape[1]}; train with the model's "
                "encoder and num_factors"
            )
        values.start_from(init.w0, init.w, init.V)

    def first_bias(self, mean: float) -> float:
        """Return where w0 starts, given the mean of the targets."""
        return self.task.start(mean)

    # -- parameters ------------------------------------------------------------------------------
    @property
    def center(self) -> float:  # type: ignore[override]
        """See the base class."""
        return self.values.center

    @property
    def scale(self) -> float:  # type: ignore[override]
        """See the base class."""
        return self.values.scale

    def scorer(self, data: Dataset, rows: np.ndarray) -> Callable[[], np.ndarray]:
        """Return a function that scores some rows with the current parameters."""
        csr = self.csr
        if data is not self.data:
            csr = csr_arrays(data.X, data.onehot, data.entries_per_row)
        order, values = padded_order(rows), self.values

        def scores() -> np.ndarray:
            w0 = float(values.B[0])
            found = score_rows(order, csr, w0, values.W, values.P, values.lanes, values.states)
            if values.scale == 1 and not values.center:
                return found
            return np.asarray(values.center + values.scale * found.astype(np.float64))

        return scores

    def parameters(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the current w0, w and V."""
        return self.values.in_unit()

    @property
    def kept(self) -> bool:
        """Whether parameters are kept as the best ones."""
        return self.values.snapshot is not None

    def keep(self) -> None:
        """Remember the present parameters as the best ones so far."""
        self.values.keep_best()

    def drop(self) -> None:
        """Forget what was kept."""
        self.values.snapshot = None

    def over(self, split: Split, data: Dataset | None = None) -> GradientSolver:
        """Return a solver of other rows that takes over the parameters."""
        return type(self)(self.data if data is None else data, self.config, split, self.values)

    def finish(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return w0, w and V: the best ones if some were kept."""
        return self.values.finish()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that :meth:`restore` needs."""
        values = self.values
        target = np.array([values.center, values.scale])
        best = {} if values.snapshot is None else values.snapshot.arrays(values)
        return {"target": target, "B": values.B, "W": values.W, "P": values.P, **best}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`arrays` returned."""
        values = self.values
        values.center, values.scale = (float(number) for number in arrays["target"])
        for name in ("B", "W", "P"):
            array, found = getattr(values, name), arrays.pop(name)
            if array.shape != found.shape:
                raise ValueError(f"{name}: expected shape {array.shape}, found {found.shape}")
            array[:] = found
        if "best_w" in arrays:
            values.snapshot = Snapshot.of(values, arrays)

    # -- for the epochs --------------------------------------------------------------------------
    @cached_property
    def csr(self) -> CsrArrays:
        """The rows as kernels take them."""
        return csr_arrays(self.data.X, self.data.onehot, self.data.entries_per_row)

    @cached_property
    def weight(self) -> np.ndarray | None:
        """The weight of each row."""
        return None if self.data.weight is None else plain(self.data.weight)

    @property
    def weight_or_none(self) -> np.ndarray:
        """The same, or an array that no kernel reads: kernels always take one."""
        return np.zeros(1, np.float32) if self.weight is None else self.weight

    @cached_property
    def total_weight(self) -> float:
        """The sum of the weights of the rows to train on."""
        rows = self.split.rows
        return float(rows.size if self.weight is None else self.weight[rows].sum(dtype=np.float64))

    @cached_property
    def targets(self) -> np.ndarray:
        """The targets in the unit of training."""
        y = plain(self.data.targets)
        if self.values.scale != 1 or self.values.center:
            y = (y - np.float32(self.values.center)) / np.float32(self.values.scale)
        return y

    @cached_property
    def scratch(self) -> np.ndarray:
        """Room for the sums of factors of three rows."""
        return np.empty(3 * self.values.lanes.padded, np.float32)

    def rows_per_call(self) -> int:
        """Return how many rows take some tenths of a second: Ctrl-C waits no longer than that."""
        entries = max(1, int(self.data.X.nnz) // max(1, self.data.num_rows))
        return max(1024, (1 << 29) // (entries * self.values.lanes.padded))

    def steps(self, epoch: int) -> Any:
        """Return the optimizer's numbers of an epoch, as a kernel takes them."""
        return self.optimizer.of(self.config, epoch)


def _seen(data: Dataset, rows: np.ndarray, block: int = 1 << 16) -> np.ndarray:
    """Return, for each feature, whether one of the rows has it."""
    seen = np.zeros(data.num_features, bool)
    chosen = np.zeros(data.num_rows, bool)
    chosen[rows] = True
    indptr, indices = data.X.indptr, data.X.indices
    for start in range(0, data.num_rows, block):
        part = indptr[start : start + block + 1]
        entries = indices[part[0] : part[-1]]
        here = chosen[start : start + block]
        seen[entries if here.all() else entries[np.repeat(here, np.diff(part))]] = True
    return seen
