"""Training: the loop over epochs, and all that surrounds the kernels.

Decided here: which kernel runs, in what order rows are visited, what is held out, when to stop,
which epoch is kept, what is written to a checkpoint. Everything random comes from ``config.seed``
and the number of the epoch, so a resumed run continues exactly as the uninterrupted one would.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fm.config import CLASSIFIER, METRICS, RANKER, REGRESSOR, TrainConfig
from fm.data.dataset import Dataset, all_finite, blocks
from fm.errors import ConfigError, DataError, DivergenceError, ModelFileError
from fm.kernels.minibatch import LazyAdam, minibatch_kernel, workspace
from fm.kernels.optimizers import OPTIMIZERS
from fm.kernels.rows import (
    Clipped,
    CsrArrays,
    Logistic,
    Squared,
    csr_arrays,
    padded_order,
    plain,
    score_rows,
    shuffle,
    training_kernel,
)
from fm.measures.losses import LOSSES, first_wrong_label
from fm.measures.predictions import is_better, log_odds, metrics_of
from fm.training.progress import Progress, timer
from fm.training.state import TrainState, is_checkpoint, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from fm.model.model import Model

logger = logging.getLogger("fm")

_MIN_ROWS_TO_HOLD_OUT = 1000
_MAX_ROWS_TO_REFIT = 1_000_000
_SECONDS_BETWEEN_CHECKPOINTS = 30.0
_BLOCK = 1 << 16  # bytes
_FAR: Any = np.float32(
    1e6
)  # bound of the loss's derivative: never met in a sane run, keeps sums finite


@dataclass
class Epoch:
    """What callbacks are told after each epoch.

    Attributes
    ----------
    number : int
        From 0.
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


def fit(
    data: Dataset,
    config: TrainConfig | None = None,
    *,
    validation: Dataset | None = None,
    init: Model | None = None,
    callbacks: Sequence[Callable[[Epoch], None]] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Model:
    """Train a factorization machine and return it.

    Parameters
    ----------
    data : Dataset
        Training rows with targets (see :func:`fm.read`).
    config : TrainConfig, optional
        Hyperparameters; what is not set takes the default of the optimizer.
    validation : Dataset, optional
        Rows that early stopping watches; without it, `config.validation_fraction` of `data` is
        held out. The best epoch's parameters are returned.
    init : Model, optional
        Start from this model's parameters (warm start) instead of random ones. Its catalogue goes
        on, too: see :func:`fm.catalogue.finding.continued`.
    callbacks : sequence of callable
        Called with an :class:`Epoch` after each epoch. A KeyboardInterrupt raised in one, like
        Ctrl-C, ends the training and keeps the best model so far.
    checkpoint : path, optional
        File to write parameters and optimizer state to, every half a minute and at the end.
    resume : bool
        Go on from `checkpoint` if that file exists; the result is that of an uninterrupted run,
        bit for bit.
    progress : bool, optional
        Show a progress bar; not set: if standard error is a terminal.

    Raises
    ------
    DataError
        If the data have no targets, or targets that do not suit the predictor type.
    DivergenceError
        If the loss leaves the finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fm import Dataset, TrainConfig, fit
    >>> users, films = np.eye(3)[[0, 0, 1, 2]], np.eye(2)[[0, 1, 0, 1]]
    >>> data = Dataset.from_arrays(np.hstack([users, films]), [5.0, 1.0, 4.0, 2.0])
    >>> model = fit(data, TrainConfig(num_factors=2, linear_lr=0.2, factors_lr=0.2))
    >>> model.predict(data).round().tolist()
    [5.0, 1.0, 4.0, 2.0]
    """
    given = config or TrainConfig()
    for value, name, kind in (
        (data, "data", Dataset), (given, "config", TrainConfig), (validation, "validation", Dataset)
    ):  # fmt: skip
        if value is not None and not isinstance(value, kind):
            made = "fm.read(...)" if kind is Dataset else "fm.TrainConfig(...)"
            raise ConfigError(
                f"{name}: expected a {kind.__name__}, found {type(value).__name__}; make one with "
                f"{made}"
            )
    data = _widened(data, given.feature_dim)
    started = ""
    if init is not None:
        started = _checksums(np.float64(init.w0), init.w, init.V)
        if data.encoder is not None and init.encoder is not None and data.encoder != init.encoder:
            raise ConfigError(
                f"init: expected a model of the encoder that {data.source} was read with, because "
                "feature numbers mean something else in another; read the data with "
                "encoder=init.encoder"
            )
    if init is not None and init.catalogue is not None:
        from fm.catalogue.finding import continued

        data = continued(init.catalogue, data)
    make: type[_Trainer] = _Trainer
    if given.predictor_type == RANKER:
        from fm.training.ranker import RankTrainer, interactions

        make, data = RankTrainer, interactions(data)
        validation = None if validation is None else interactions(validation, data)
    _check_targets(data, given)
    config = _suited(given, data)
    validation = _checked_validation(data, validation, config)
    trainer = make(data, config, validation, hold_out=True, init=init)
    path = _checked_path(checkpoint)
    if resume and path is None:
        raise ConfigError("resume: expected a checkpoint to go on from; name its file")
    if path is not None and not resume and path.exists() and not is_checkpoint(path):
        raise ConfigError(
            f"checkpoint: {path}: expected a checkpoint or no file, found another file, which "
            "would be overwritten; name another path"
        )
    mark = fingerprint(data) if path is not None else ""
    if given.predictor_type == RANKER and data.catalogue is not None:
        sides = data.catalogue
        mark += f":{sides.item}:{sides.user}:{','.join(sides.item_columns)}"
    held = fingerprint(validation) if path is not None and validation is not None else ""
    if resume and path is not None and path.exists():
        state = load_checkpoint(path, config, mark)
        if state.validation != held:
            raise ModelFileError(
                f"{path}: the checkpoint was written with other validation data, which decide the "
                "best epoch; delete the file or start without resuming"
            )
        logger.info("resumed from %s after epoch %d", path, state.epoch)
    else:
        state = TrainState(config, data.num_features, init=started, validation=held)
        trainer.start(state, init)
    named = data.encoder is not None or data.catalogue is not None
    if state.init != started and (init is not None or trainer.would_refit or named):
        what = "the model that the training in {} started from"
        if not state.init:
            what = "nothing, because the training in {} started from no model"
        found = "nothing" if init is None else "a model" if not state.init else "another"
        raise ConfigError(
            f"init: expected {what.format(path)}, found {found}; its parameters and what it knows "
            "of items and users are needed again: pass what was passed then"
        )
    epochs = config.epochs
    try:
        trainer.run(state, epochs, callbacks, progress, path, mark)
        if trainer.would_refit and state.snapshot is not None:
            epochs = state.best_epoch + 1
            logger.info("training again on all %d rows for %d epochs", data.num_rows, epochs)
            trainer = make(data, config, None, refit=True, init=init)
            trainer.start(state, init)
            state.epoch, state.finished = 0, False
            trainer.run(state, epochs, callbacks, progress, None, mark)
            state.snapshot = None
    except KeyboardInterrupt:
        logger.warning("interrupted in epoch %d; keeping the best model so far", state.epoch + 1)
        if path is not None and not trainer.refit and not trainer.within_epoch:
            _save(path, state, mark)  # else the last one saved is the one to go on from
    return trainer.model(state)


def fit_pass(
    data: Dataset, config: TrainConfig | None = None, state: TrainState | None = None
) -> tuple[Model, TrainState]:
    """Train one epoch on `data` and return the model so far, and the state to go on from.

    For data that arrive piece by piece. Unlike ``fit(..., init=model)``, the optimizer's own state
    (AdaGrad's sums, Adam's moments) is carried from piece to piece; learning rates do not decay.

    Parameters
    ----------
    data : Dataset
        One piece: rows with targets.
    config : TrainConfig, optional
        Hyperparameters; read for the first piece only.
    state : TrainState, optional
        What the last call returned; without it, training begins.

    Raises
    ------
    DataError, DivergenceError
        As :func:`fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from fm import Dataset, TrainConfig
    >>> state = None
    >>> config = TrainConfig(num_factors=1, optimizer="adagrad", linear_lr=0.5)
    >>> for piece in range(200):
    ...     rows = Dataset.from_arrays(np.eye(2), [1.0, 3.0])
    ...     model, state = fit_pass(rows, config, state)
    >>> model.predict(np.eye(2)).round().tolist()
    [1.0, 3.0]
    """
    if config is not None and config.predictor_type == RANKER:
        raise ConfigError(
            "predictor_type: expected regressor or binary_classifier, because a ranker draws from "
            "all items and cannot be trained piece by piece, found 'ranker'; use fit"
        )
    if state is None:
        given = replace(config or TrainConfig(), lr_decay=0.0, validation_fraction=0.0)
        data = _widened(data, given.feature_dim)
        _check_targets(data, given)
        state = TrainState(_suited(given, data), data.num_features)
        trainer = _Trainer(data, state.config, None)
        trainer.start(state, None, more=True)
    else:
        data = _widened(data, state.num_features)
        _check_targets(data, state.config)
        trainer = _Trainer(data, state.config, None)
    trainer.run(state, state.epoch + 1, (), False, None, "")
    return trainer.model(state, more=True), state


class _Trainer:
    """What stays the same through all epochs: the rows, their order's seed, the kernel."""

    usual_fraction = 0.1  # of the rows, to hold out

    def __init__(
        self,
        data: Dataset,
        config: TrainConfig,
        validation: Dataset | None,
        *,
        hold_out: bool = False,
        refit: bool = False,
        init: Model | None = None,
    ) -> None:
        self.data, self.config, self.validation, self.init = data, config, validation, init
        self.refit = refit  # whether this is the second training, on all rows
        self.within_epoch = False
        self.padding = (0, 0.0)
        self.csr = csr_arrays(data.X, data.onehot, data.entries_per_row)
        fraction = config.validation_fraction
        if fraction is None:
            enough = config.patience and data.num_rows >= _MIN_ROWS_TO_HOLD_OUT
            fraction = self.usual_fraction if enough else 0.0
        if not hold_out or validation is not None:
            fraction = 0.0
        self.rows, self.held_out = self._split(fraction)
        self.judged = self._rows_to_judge()
        self.weight = None if data.weight is None else plain(data.weight)
        # A loss a million times that of predicting 0: nothing to wait for the infinite.
        moment = float(np.mean(np.square(data.targets, dtype=np.float64)))
        self.absurd = 1e6 * max(moment if config.predictor_type == REGRESSOR else 1.0, 1e-6)
        self.metric = config.metric
        if self.metric == "auto":
            self.metric = METRICS[config.predictor_type][0]

    def _split(self, fraction: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows to train on, and those held out, if any; int32, ascending."""
        count, rows = self.data.num_rows, np.arange(self.data.num_rows, dtype=np.int32)
        if not fraction:
            return rows, None
        held = min(max(1, round(fraction * count)), count - 1)
        if not held:
            return rows, None
        mixed = np.random.default_rng([self.config.seed, 1]).permutation(rows)
        return np.sort(mixed[held:]), np.sort(mixed[:held])

    def _rows_to_judge(self) -> tuple[Dataset, CsrArrays, np.ndarray, np.ndarray] | None:
        """Return what early stopping watches: data, its arrays, rows, and these as kernels want."""
        data, csr, rows = self.data, self.csr, self.held_out
        if self.validation is not None:
            data, rows = self.validation, np.arange(self.validation.num_rows, dtype=np.int32)
            csr = csr_arrays(data.X, data.onehot, data.entries_per_row)
        return None if rows is None else (data, csr, rows, padded_order(rows))

    # --- before the first epoch -------------------------------------------------------------------
    def start(self, state: TrainState, init: Model | None, *, more: bool = False) -> None:
        """Bring `state` to where it is before the first epoch; `more`: more rows will follow."""
        config, data = self.config, self.data
        weight = None if data.weight is None else data.weight[self.rows]
        if weight is not None and not weight.sum() > 0:
            raise DataError(f"{data.source}: all sample weights are 0; nothing to train on")
        y = data.targets[self.rows]
        mean = float(np.average(y.astype(np.float64), weights=weight))
        if config.scale_target and config.predictor_type == REGRESSOR and config.use_bias:
            spread = np.average((y.astype(np.float64) - mean) ** 2, weights=weight)
            state.center, state.scale = mean, float(np.sqrt(spread)) or 1.0
        if init is None:
            rng = np.random.default_rng([config.seed, 0])
            start = self._start_of_bias(mean)
            # A feature that training never meets would keep its random factors, which make noise
            # of new values; the built-in algorithm does keep them.
            seen = None
            if not more and config.optimizer != "sagemaker":
                seen = _seen(data, self.rows)
            state.initialise(rng, start, seen)
            return
        if init.V.shape != (data.num_features, config.num_factors):
            raise ConfigError(
                f"init: expected a model of {data.num_features} features x {config.num_factors} "
                f"factors, found {init.V.shape[0]} x {init.V.shape[1]}; train with the model's "
                "encoder and num_factors"
            )
        state.start_from(init.w0, init.w, init.V)

    def _start_of_bias(self, mean: float) -> float:
        """Return where w0 starts, given the mean of the targets."""
        return mean if self.config.predictor_type == REGRESSOR else log_odds(mean)

    # --- the epochs -------------------------------------------------------------------------------
    def run(
        self,
        state: TrainState,
        epochs: int,
        callbacks: Sequence[Callable[[Epoch], None]],
        show: bool | None,
        path: Path | None,
        mark: str,
    ) -> None:
        """Train until the last epoch or early stopping."""
        config = self.config
        bar = Progress(epochs, self.rows.size, first=state.epoch, show=show)
        count = self.rows.size
        keep = bool(callbacks) or config.optimizer == "sagemaker"
        margins = np.empty(count if keep else 0, np.float32)
        step = self._step(state, keep_scores=keep)
        saved = timer()
        order = padded_order(self.rows)
        try:
            while state.epoch < epochs and not state.finished:
                begun = timer()
                self.within_epoch = True
                if config.shuffle:
                    order[:count] = self.rows
                    shuffle(order, count, _seed(config.seed, state.epoch))
                loss = step(order, margins, bar)
                if loss > self.absurd:
                    raise self._diverged(state, f"the loss is {loss:.3g}")
                seconds = timer() - begun
                epoch = self._judge(state, loss, seconds, margins, order[:count])
                self.within_epoch = False
                bar.epoch(epoch.number, {"loss": loss, **epoch.validation}, epoch.best, seconds)
                for callback in callbacks:
                    callback(epoch)
                if path is not None and timer() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    _save(path, state, mark)
                    saved = timer()
        finally:
            bar.close()
        if path is not None:
            _save(path, state, mark)

    @property
    def would_refit(self) -> bool:
        """Whether to train again on all rows for the number of epochs that proved best."""
        wanted = self.config.refit
        if wanted is None:
            wanted = self.data.num_rows <= _MAX_ROWS_TO_REFIT
        return bool(wanted and self.held_out is not None and self.config.patience)

    def _judge(
        self, state: TrainState, loss: float, seconds: float, margins: np.ndarray, order: np.ndarray
    ) -> Epoch:
        """Measure on the validation data, remember the best epoch, decide whether to go on."""
        validation = self._validate(state)
        again = {"refit": True} if self.refit else {}
        state.history.append({"epoch": state.epoch, "loss": loss, **validation, **again})
        number, best = state.epoch, False
        state.epoch += 1
        if validation:
            value, patience = validation[self.metric], self.config.patience
            if not np.isfinite(value) and self.metric != "auc":
                raise self._diverged(state)
            best = state.best_epoch < 0 or is_better(self.metric, value, state.best_value)
            if best:
                state.best_epoch, state.best_value = number, value
                if patience:
                    state.keep_best()
            elif patience and number - state.best_epoch >= patience:
                state.finished = True
        scores = margins
        if margins.size and (state.scale != 1 or state.center):
            scores = margins * np.float32(state.scale) + np.float32(state.center)
        return Epoch(
            number, loss, validation, best, seconds, scores, order, self.refit, self.padding
        )

    def _validate(self, state: TrainState) -> dict[str, float]:
        if self.judged is None:
            return {}
        data, csr, rows, order = self.judged
        scores = score_rows(
            order, csr, float(state.B[0]), state.W, state.P, state.lanes, state.states
        )
        if self.config.predictor_type == REGRESSOR:
            scores = state.center + state.scale * scores.astype(np.float64)
        weight = None if data.weight is None else data.weight[rows]
        return metrics_of(self.config.predictor_type, scores, data.targets[rows], weight)

    def _step(
        self, state: TrainState, *, keep_scores: bool
    ) -> Callable[[np.ndarray, np.ndarray, Progress], float]:
        """Return the function that trains one epoch and returns its mean loss."""
        config, data, csr = self.config, self.data, self.csr
        y = plain(data.targets)
        if state.scale != 1 or state.center:
            y = (y - np.float32(state.center)) / np.float32(state.scale)
        weighted = self.weight is not None
        weight = self.weight if self.weight is not None else np.zeros(1, np.float32)
        total_weight = (
            float(weight[self.rows].sum(dtype=np.float64)) if weighted else self.rows.size
        )
        scale = state.scale**2 if config.predictor_type == REGRESSOR else 1.0
        lanes, count = state.lanes, self.rows.size
        block = self._rows_per_call(lanes.padded)

        if config.optimizer == "sagemaker":
            return self._minibatch_step(state, y, weight, scale)

        kernel = training_kernel(
            lanes.width, lanes.chunks, csr.entries, csr.onehot, weighted, state.states, keep_scores
        )
        scratch = np.empty(lanes.padded, np.float32)
        loss = _loss(config, state.scale)

        def step(order: np.ndarray, margins: np.ndarray, bar: Progress) -> float:
            opt = _optimizer(config, state.epoch)
            total = 0.0
            for start in range(0, count, block):
                stop = min(start + block, count)
                total += kernel(
                    order, start, stop, csr.indptr, csr.indices, csr.values, y, weight,
                    loss, opt, scratch, margins, state.B, state.W, state.P,
                )  # fmt: skip
                if not np.isfinite(total):
                    raise self._diverged(state)
                bar.rows(stop - start)
            return total * scale / total_weight

        return step

    def _minibatch_step(
        self, state: TrainState, y: np.ndarray, weight: np.ndarray, scale: float
    ) -> Callable[[np.ndarray, np.ndarray, Progress], float]:
        config, data, count = self.config, self.data, self.rows.size
        indptr = plain(data.X.indptr)
        csr = csr_arrays(data.X, data.onehot, 0)
        lanes, batch = state.lanes, min(config.mini_batch_size, self.rows.size)
        longest = int(np.diff(indptr).max(initial=0))
        space = workspace(batch, min(batch * longest, data.X.nnz), data.num_features, lanes.padded)
        kernel = minibatch_kernel(lanes.width, lanes.chunks, csr.onehot, self.weight is not None)
        loss = Squared() if config.predictor_type == REGRESSOR else Logistic()
        rescale = config.rescale_grad
        numbers: dict[str, Any] = {
            "eps": np.float32(max(config.eps or 0.0, 1e-12)),
            "rescale": np.float32(1.0 / config.mini_batch_size if rescale is None else rescale),
            "clip": np.float32(np.inf if config.clip_gradient is None else config.clip_gradient),
        }
        # The kernel fills the last batch up to config.mini_batch_size, whatever batch it was given.
        block = max(1, self._rows_per_call(lanes.padded) // batch) * batch

        def step(order: np.ndarray, margins: np.ndarray, bar: Progress) -> float:
            opt = LazyAdam(**_rates(config, state.epoch), **numbers)
            for start in range(0, count, block):
                stop = min(start + block, count)
                score = kernel(
                    order, start, stop, indptr, csr.indices, csr.values, y, weight, loss, opt,
                    config.mini_batch_size, config.pad_last_batch, space, margins,
                    state.B, state.W, state.P,
                )  # fmt: skip
                bar.rows(stop - start)
            if config.pad_last_batch and count % config.mini_batch_size:
                self.padding = (-count % config.mini_batch_size, float(score))
            rows = order[:count]
            values = LOSSES[config.predictor_type].value(margins, y[rows])
            mean = float(np.average(values, weights=None if self.weight is None else weight[rows]))
            if not np.isfinite(mean):
                raise self._diverged(state)
            return mean * scale

        return step

    def _rows_per_call(self, padded: int) -> int:
        """Rows per call of a kernel: some tenths of a second, so that Ctrl-C is answered."""
        entries = max(1, int(self.data.X.nnz) // max(1, self.data.num_rows))
        return max(1024, (1 << 29) // (entries * padded))

    def _diverged(
        self, state: TrainState, what: str = "the loss is no longer a finite number"
    ) -> DivergenceError:
        """Return the error for a loss that has blown up, naming the likely cause."""
        cause = ""
        if self.data.X.nnz:
            name, value = _largest(self.data)
            if abs(value) > 100:
                cause = (
                    f"likely cause: {name} is not scaled (it reaches {value:g}); standardise that "
                    "column or divide it"
                )
        if not cause:
            rates = ", ".join(
                f"{part}_lr {getattr(self.config, part + '_lr'):g}"
                for part in ("bias", "linear", "factors")
            )
            cause = f"likely cause: the step size ({rates}); divide the learning rates by 10"
        return DivergenceError(
            f"{self.data.source}: training diverged in epoch {state.epoch + 1} ({what}); {cause}"
        )

    # --- after the last epoch ---------------------------------------------------------------------
    def model(self, state: TrainState, *, more: bool = False) -> Model:
        """Return the model: the best epoch's parameters, or the last one's.

        `more`: the state will be trained further, so the parameters are copied out of it.
        """
        from fm.model.model import Model

        data, config = self.data, self.config
        refitted = self.refit and state.snapshot is None
        best = state.best_epoch if refitted or state.snapshot is not None else -1
        metrics = dict(state.history[best]) if state.history else {}
        if refitted:
            metrics["refit"] = True
        w0, w, V = state.copy() if more else state.finish()
        if not (np.isfinite(w0) and all_finite(w) and all_finite(V)):
            raise self._diverged(state)
        return Model(
            w0=w0,
            w=w,
            V=V,
            config=replace(config, feature_dim=data.num_features),
            encoder=data.encoder,
            fields=data.fields,
            field_names=data.field_names,
            metrics=metrics,
            history=list(state.history),
            fingerprint=fingerprint(data),
            zero_based=data.zero_based,
            catalogue=data.catalogue,
        )


def _checked_path(checkpoint: str | Path | None) -> Path | None:
    """Return the path; refuse, before hours of training, one that cannot be written."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(f"checkpoint: the directory of {path} cannot be made ({err})") from err
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"checkpoint: expected a file that can be written, found {path}")
    return path


def _save(path: Path, state: TrainState, mark: str) -> None:
    """Write the checkpoint; a full disk must not cost the training that it was to protect."""
    try:
        save_checkpoint(path, state, mark)
    except OSError as err:
        logger.warning("the checkpoint %s could not be written (%s); training goes on", path, err)


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


def _largest(data: Dataset) -> tuple[str, float]:
    """Return the feature with the entry of the largest size, and that entry."""
    at = int(np.argmax(np.abs(data.X.data)))
    return data.feature_name(int(data.X.indices[at])), float(data.X.data[at])


def _suited(given: TrainConfig, data: Dataset) -> TrainConfig:
    """Return the config with everything set; rates nobody set are suited to the length of rows.

    The recipe's rates suit rows of two ones. The gradient by w and V grows with the squared norm
    of a row, so longer rows get smaller rates: on numeric tables and click logs of 8 to 39 entries
    this lowered the loss on held-out rows by 1% to 5%.
    """
    config = given.resolved()
    if config.optimizer != "sgd":
        return config
    squares = float(data.X.data.size)
    if not data.onehot:
        squares = sum(float(np.dot(part, part)) for part in blocks(data.X.data, np.float64))
    norm = squares / data.num_rows
    # No further down than for rows of 100 ones: one unscaled column must not stop all others.
    factor = min(1.0, 2.0 / min(max(norm, 1.0), 100.0))
    if norm > 1e4:
        name, value = _largest(data)
        logger.warning(
            "%s: %s reaches %g; numbers that large make training slow or unstable, so standardise "
            "the column (standardize=True) or divide it",
            data.source, name, value,
        )  # fmt: skip
    names = ("bias_lr", "linear_lr", "factors_lr")
    unset = {name: getattr(config, name) * factor for name in names if getattr(given, name) is None}
    return replace(config, **unset)


def _rates(config: TrainConfig, epoch: int) -> dict[str, Any]:
    """Return the learning rates and penalties of an epoch, under the names all optimizers share."""
    decay = 1.0 + (config.lr_decay or 0.0) * epoch
    rates: dict[str, Any] = {}
    for part, used in (("bias", config.use_bias), ("linear", config.use_linear), ("factors", True)):
        rates[f"{part}_lr"] = np.float32(getattr(config, f"{part}_lr") / decay if used else 0.0)
        rates[f"{part}_wd"] = np.float32(getattr(config, f"{part}_wd"))
    return rates


def _optimizer(config: TrainConfig, epoch: int) -> Any:
    """Return the optimizer as the value the kernel takes."""
    more: dict[str, np.float32] = {}
    if config.optimizer in ("adagrad", "adam"):
        more["eps2"] = np.float32(
            max(config.eps or 0.0, 1e-12) ** 2
        )  # inside the root; never 0 / 0
    if config.optimizer == "ftrl":
        more["linear_l1"] = np.float32(config.linear_l1)
        more["factors_l1"] = np.float32(config.factors_l1)
    return OPTIMIZERS[config.used_optimizer].make(**_rates(config, epoch), **more)


def _loss(config: TrainConfig, scale: float) -> Any:
    """Return the loss as the value the kernel takes, for targets divided by `scale`."""
    loss: Any = Squared() if config.predictor_type == REGRESSOR else Logistic()
    if config.optimizer == "sgd" and config.clip_gradient is None and config.rescale_grad is None:
        return loss  # its normalised step needs no bound
    clip: Any = _FAR
    if config.clip_gradient is not None:
        clip = np.float32(config.clip_gradient / scale)
    rescale = 1.0 if config.rescale_grad is None else config.rescale_grad
    factor: Any = np.float32(rescale)
    return Clipped(loss, clip, factor)


def _seed(seed: int, epoch: int) -> np.uint64:
    """Return the state the shuffle of one epoch starts from; never 0 (see kernels.shuffle)."""
    return np.uint64(np.random.SeedSequence([seed, 2, epoch]).generate_state(1, np.uint64)[0] | 1)


def fingerprint(data: Dataset) -> str:
    """Return a short text that tells data apart: shape, entries, and checksums of the arrays.

    Of a large array, 64 blocks spread over it are summed up: all of it would take as long as an
    epoch of training.
    """
    sums = _checksums(data.X.indptr, data.X.indices, data.X.data, data.y, data.weight)
    return f"{data.num_rows}x{data.num_features}:{data.X.nnz}:{sums}"


def _checksums(*arrays: np.ndarray | np.floating | None) -> str:
    sums = []
    for array in arrays:
        total = 0
        if array is not None:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            step = max(_BLOCK, raw.size // 64)
            for start in range(0, raw.size, step):
                total = zlib.crc32(raw[start : start + _BLOCK].data, total)
        sums.append(f"{total:08x}")
    return "".join(sums)


def _widened(data: Dataset, feature_dim: int | None) -> Dataset:
    """Return data with feature_dim columns; refuse data with more."""
    if feature_dim is None or feature_dim == data.num_features:
        return data
    if feature_dim < data.num_features:
        raise DataError(
            f"{data.source}: {data.num_features} features, but feature_dim is {feature_dim}; "
            "raise feature_dim or leave it out"
        )
    if data.encoder is not None:
        raise DataError(
            f"{data.source}: {data.num_features} features, one for each value of its columns, but "
            f"feature_dim is {feature_dim}; leave it out"
        )
    X = data.X
    wide = type(X)((X.shape[0], feature_dim), dtype=np.float32)
    wide.data, wide.indices, wide.indptr = X.data, X.indices, X.indptr
    wide.has_canonical_format = True
    fields = data.fields
    if fields is not None:
        fields = np.pad(fields, (0, feature_dim - fields.size), mode="edge")
    catalogue = data.catalogue and data.catalogue.widened(feature_dim)
    return replace(data, X=wide, fields=fields, catalogue=catalogue)


def _check_targets(data: Dataset, config: TrainConfig) -> None:
    data.targets  # noqa: B018  raises DataError if there are none
    for count, what in ((data.num_rows, "rows"), (data.num_features, "features")):
        if not count:
            raise DataError(f"{data.source}: no {what}; expected at least one")
    if data.weight is not None and not data.weight.any():
        raise DataError(f"{data.source}: all sample weights are 0; nothing to train on")
    if config.predictor_type == CLASSIFIER:
        check_labels(data)


def check_labels(data: Dataset) -> None:
    """Refuse rows that a classifier can neither learn nor be measured on."""
    row = first_wrong_label(data.targets)
    if row is not None:
        raise DataError(
            f"{data.source} row {row + 1}: label {data.targets[row]:g}, but a binary classifier "
            "expects 0 or 1; convert the labels or use predictor_type=regressor"
        )


def _checked_validation(
    data: Dataset, validation: Dataset | None, config: TrainConfig
) -> Dataset | None:
    if validation is None:
        return None
    one, other = validation.encoder, data.encoder
    if one is not None and other is not None and one != other:
        raise DataError(
            f"{validation.source}: the rows were encoded by another encoder than those of "
            f"{data.source}, so their feature numbers mean something else; read them with "
            "encoder=data.encoder"
        )
    validation = _widened(validation, data.num_features)
    _check_targets(validation, config)
    return validation
