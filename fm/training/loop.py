"""The loop over epochs. It knows no parameters: those are the solver's.

Decided here: in what order rows are visited, when an epoch is judged, which one is kept, when to
stop. Everything random comes from ``config.seed`` and the number of the epoch, so a resumed run
continues exactly as the uninterrupted one would.

The loop and the solvers know an epoch by the number of epochs before it: 0 is the first. What
people read (:class:`Epoch`, histories, messages) counts from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fm.kernels.layout import padded_order, shuffle
from fm.training.checkpoint import Checkpoint
from fm.training.checks import diverged
from fm.training.judging import Judge
from fm.training.progress import Progress, timer
from fm.training.run import Run
from fm.training.solvers.solver import Solver, Visit


@dataclass
class Epoch:
    """What callbacks get after each epoch.

    Attributes
    ----------
    number : int
        Of the epoch, from 1; a second training, on all rows, begins at 1 again.
    loss : float
        Mean loss of the training rows, each taken before its own step.
    validation : dict
        Metrics on the validation data; empty where there is none.
    best : bool
        Whether this epoch's model is the best so far.
    seconds : float
        Duration of the training part.
    scores, rows : ndarray
        The score of each training row before its step, and the row's number, in the order visited.
        Buffers that the next epoch overwrites: copy what is to be kept.
    refit : bool
        Whether this is an epoch of the second training, on all rows (``config.refit``).
    padding : tuple of int and float
        How many empty rows of label 0 filled up the last batch, and their score
        (``config.pad_last_batch``).

    Examples
    --------
    >>> import fm
    >>> data = fm.Dataset.from_arrays(np.eye(4), [1.0, 2.0, 3.0, 4.0])
    >>> losses = []
    >>> model = fm.fit(data, callbacks=[lambda epoch: losses.append(epoch.loss)])
    >>> losses[0] > losses[-1]
    True
    """

    number: int
    loss: float
    validation: dict[str, float]
    best: bool
    seconds: float
    scores: np.ndarray = field(repr=False)
    rows: np.ndarray = field(repr=False)
    refit: bool = False
    padding: tuple[int, float] = (0, 0.0)


class Loop:
    """A loop over the epochs of one solver.

    Parameters
    ----------
    solver : Solver
        Started or restored.
    judge : callable, optional
        Measures the solver's current parameters on rows it is not trained on.
    callbacks : sequence of callable
        Each is called with every :class:`Epoch`.
    progress : bool, optional
        See :class:`fm.training.progress.Progress`.
    checkpoint : Checkpoint, optional
        Written every half a minute and at the end.
    refit : bool
        Whether this is the second training, on all rows.
    log : bool
        Whether epochs are told in the log.

    Attributes
    ----------
    within_epoch : bool
        Whether an epoch is under way: the parameters are neither those before nor those after it.
    """

    def __init__(
        self,
        solver: Solver,
        judge: Judge | None = None,
        *,
        callbacks: Sequence[Callable[[Epoch], None]] = (),
        progress: bool | None = False,
        checkpoint: Checkpoint | None = None,
        refit: bool = False,
        log: bool = True,
    ) -> None:
        self.solver, self.config = solver, solver.config
        self.refit, self.within_epoch = refit, False
        self._judge, self._callbacks, self._show = judge, callbacks, progress
        self._checkpoint, self._log = checkpoint, log
        # A loss a million times that of predicting 0 has diverged: no need to wait for infinity.
        y = solver.data.targets
        self._absurd = 1e6 * max(float(np.mean(solver.task.loss.value(np.zeros(1), y))), 1e-6)

    def run(self, run: Run, epochs: int) -> None:
        """Go on with a run until `epochs` epochs are done or early stopping ends it."""
        solver, rows = self.solver, self.solver.split.rows
        bar = Progress(epochs, rows.size, first=run.epoch, show=self._show, log=self._log)
        order = padded_order(rows)
        scores = np.empty(rows.size if self._callbacks else 0, np.float32)
        try:
            while run.epoch < epochs and not run.finished:
                begun = timer()
                self.within_epoch = True
                if self.config.shuffle:
                    order[: rows.size] = rows
                    shuffle(order, rows.size, _seed(self.config.seed, run.epoch))
                loss = solver.epoch(Visit(run.epoch, order, scores, bar.rows))
                self._check(run, loss)
                seconds = timer() - begun
                validation = self._judge() if self._judge is not None else {}
                epoch = Epoch(
                    run.epoch + 1, loss, validation, self._remember(run, loss, validation),
                    seconds, self._in_unit(scores), order[: rows.size], self.refit, solver.padding,
                )  # fmt: skip
                self.within_epoch = False
                bar.epoch(epoch.number, {"loss": loss, **validation}, epoch.best, seconds)
                for callback in self._callbacks:
                    callback(epoch)
                if self._checkpoint is not None:
                    self._checkpoint.save(solver, run, now=False)
        finally:
            bar.close()
        if self._checkpoint is not None:
            self._checkpoint.save(solver, run)

    def _check(self, run: Run, loss: float) -> None:
        solver = self.solver
        if not np.isfinite(loss):
            raise diverged(solver.data, solver.config, run.epoch + 1)
        if loss > self._absurd:
            raise diverged(solver.data, solver.config, run.epoch + 1, f"the loss is {loss:.3g}")

    def _remember(self, run: Run, loss: float, validation: dict[str, float]) -> bool:
        """Add the epoch to the history; keep the best; return whether this is the best so far."""
        again = {"refit": True} if self.refit else {}
        run.history.append({"epoch": run.epoch + 1, "loss": loss, **validation, **again})
        number, patience = run.epoch, self.config.patience
        run.epoch += 1
        if not validation:
            return False
        metric = self.config.watched_metric
        value = validation[metric]
        if not np.isfinite(value) and metric != "auc":
            raise diverged(self.solver.data, self.config, run.epoch)
        best = run.best_epoch < 0 or self.config.task.is_better(metric, value, run.best_value)
        if best:
            run.best_epoch, run.best_value = number, value
            if patience:
                self.solver.keep()
        elif patience and number - run.best_epoch >= patience:
            run.finished = True
        return best

    def _in_unit(self, scores: np.ndarray) -> np.ndarray:
        solver = self.solver
        if scores.size and (solver.scale != 1 or solver.center):
            return scores * np.float32(solver.scale) + np.float32(solver.center)
        return scores


def _seed(seed: int, epoch: int) -> np.uint64:
    """Return the state the shuffle of one epoch starts from; never 0 (see layout.shuffle)."""
    return np.uint64(np.random.SeedSequence([seed, 2, epoch]).generate_state(1, np.uint64)[0] | 1)
