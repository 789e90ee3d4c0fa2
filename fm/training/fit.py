"""Training: what :func:`fm.fit` does, step by step.

Decided here: the order of the steps, when training starts again on all rows, what the model
remembers. Not decided here: what is refused (``checks``), which rows are held out (``split``), how
parameters change (``solvers``), how epochs follow each other (``loop``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.data.labels import ZERO_ONE
from fm.errors import ConfigError
from fm.model.model import Model
from fm.reading.finding_items import continued
from fm.sparse import all_finite
from fm.training import fingerprint
from fm.training.checkpoint import Checkpoint, Marks, checked_path, config_in
from fm.training.checks import (
    check_init,
    check_kinds,
    check_targets,
    checked_validation,
    diverged,
    widened,
    with_labels,
    with_task,
)
from fm.training.interactions import interactions
from fm.training.judging import make_judge
from fm.training.loop import Epoch as Epoch
from fm.training.loop import Loop
from fm.training.parameters import Values
from fm.training.race import Settled, is_raced, race, with_settings
from fm.training.rates import suited
from fm.training.run import Run
from fm.training.scaling import View
from fm.training.solvers.solver import Solver, make_solver
from fm.training.split import Split, split_rows
from fm.training.starts import count_of, merged

logger = logging.getLogger("fm")

_MAX_ROWS_TO_REFIT = 1_000_000


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
        Hyperparameters; those not set have the defaults of the optimizer. If predictor_type is not
        set, targets of 0 and 1 make a classifier.
    validation : Dataset, optional
        Rows that early stopping watches; without it, `config.validation_fraction` of `data` is
        held out. The best epoch's parameters are returned.
    init : Model, optional
        Start from this model's parameters (warm start) instead of random ones. Its items and users
        are kept, too: see :func:`fm.reading.finding_items.continued`.
    callbacks : sequence of callable
        Called with an :class:`Epoch` after each epoch. A KeyboardInterrupt raised in one, like
        Ctrl-C, ends the training and keeps the best model so far.
    checkpoint : path, optional
        File to write parameters and optimizer state to, every half a minute and at the end.
    resume : bool
        Go on from `checkpoint` if that file exists; the result is that of an uninterrupted run,
        bit for bit.
    progress : bool, optional
        Show a progress bar; default: if standard error is a terminal.

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
    check_kinds(data, config, validation)
    data, validation, given = _prepared(data, validation, config or TrainConfig(), init)
    view = View.of(data, given)
    judged, start = view.of_rows(validation), view.start(init)
    split = split_rows(view.rows, given.resolved(), hold_out=validation is None, init=init)
    settled = _settled(given, view.rows, split, judged, init, resume and checkpoint)
    config, interrupted = settled.config, settled.interrupted
    solver = make_solver(view.rows, config, split)
    file = _checkpoint(checkpoint, resume, data, solver, validation, init)
    if interrupted:
        file = None  # nothing that the training could go on from
    if file is not None and resume and file.path.exists():
        run = file.load(solver)
        logger.info("resumed from %s after epoch %d", file.path, run.epoch)
    else:
        run = Run(planned=settled.epochs)
        solver.start(start)
    judge = make_judge(solver, judged)
    loop = Loop(solver, judge, callbacks=callbacks, progress=progress, checkpoint=file)
    try:
        loop.run(run, min(config.epochs, run.planned or config.epochs))
        if _would_refit(solver) and solver.kept and not interrupted:
            solver, loop = _again(solver, run, start, callbacks, progress)
            loop.run(run, run.best_epoch + 1)
            solver.drop()
    except KeyboardInterrupt:
        logger.warning("interrupted in epoch %d; keeping the best model so far", run.epoch + 1)
        if file is not None and not loop.refit and not loop.within_epoch:
            file.save(solver, run)  # else the last one saved is the one to go on from
        interrupted = True
    refitted = loop.refit and not solver.kept
    models = [solver.finish()]
    if not interrupted:
        models += _more_starts(solver, run, start, settled.raced, progress)
    model = _model(data, solver, run, view.plain(merged(models)), refitted=refitted)
    held = validation if split.held_out is None else data.take(split.held_out)
    if len(models) > 1 and held is not None and not refitted:
        model.metrics.update(model.task.measure(model.scores(held), held.targets, held.weight))
    return model


def _prepared(
    data: Dataset, validation: Dataset | None, given: TrainConfig, init: Model | None
) -> tuple[Dataset, Dataset | None, TrainConfig]:
    """Return the rows as the task needs them, and the config with its task."""
    given = with_task(given, data, init)
    data = with_labels(data, given, None if init is None else init.labels)
    if validation is not None:
        validation = with_labels(validation, given, data.labels or ZERO_ONE)
    data = widened(data, given.feature_dim)
    check_init(init, data)
    if init is not None and init.catalogue is not None:
        data = continued(init.catalogue, data)
    if given.task.ranks:
        data = interactions(data)
        validation = None if validation is None else interactions(validation, data)
    check_targets(data, given)
    return data, checked_validation(validation, data, given), given


def _settled(
    given: TrainConfig,
    rows: Dataset,
    split: Split,
    validation: Dataset | None,
    init: Model | None,
    going_on: str | Path | None | Literal[False],
) -> Settled:
    """Return the config with everything set: as given, as before, or by a race."""
    if not is_raced(given, rows):
        return Settled(suited(given, rows))
    if init is not None:  # as it was trained
        return Settled(suited(with_settings(given, init.config.to_dict()), rows))
    if going_on and Path(going_on).exists():
        return Settled(suited(with_settings(given, config_in(going_on)), rows), raced=True)
    return race(given, rows, split, validation)


def _more_starts(
    solver: Solver, run: Run, init: Model | None, raced: bool, progress: bool | None
) -> list[Values]:
    """Return w0, w and V of further trainings like the first one, from other seeds."""
    config, split, models = solver.config, solver.split, []
    epochs = run.best_epoch + 1 if run.best_epoch >= 0 and config.patience else run.epoch
    count = count_of(config, solver.data, epochs, raced=raced)
    try:
        for start in range(1, count):
            logger.info("start %d of %d: %d epochs", start + 1, count, epochs)
            seed = (config.seed + 7919 * start) % 2**32
            other = make_solver(solver.data, replace(config, seed=seed), split)
            other.start(init)
            Loop(other, progress=progress, log=False).run(Run(), epochs)
            models.append(other.finish())
    except KeyboardInterrupt:
        logger.warning("interrupted in start %d of %d; keeping the others", start + 1, count)
    return models


def _again(
    solver: Solver,
    run: Run,
    init: Model | None,
    callbacks: Sequence[Callable[[Epoch], None]],
    progress: bool | None,
) -> tuple[Solver, Loop]:
    """Return solver and loop of the second training, on all rows."""
    rows, epochs = solver.data, run.best_epoch + 1
    logger.info("training again on all %d rows for %d epochs", rows.num_rows, epochs)
    solver = solver.over(split_rows(rows, solver.config, init=init))
    solver.start(init)
    run.epoch, run.finished = 0, False
    return solver, Loop(solver, callbacks=callbacks, progress=progress, refit=True)


def _would_refit(solver: Solver) -> bool:
    """Whether to train again on all rows for the number of epochs that proved best."""
    wanted = solver.config.refit
    if wanted is None:
        wanted = solver.data.num_rows <= _MAX_ROWS_TO_REFIT
    return bool(wanted and solver.split.held_out is not None and solver.config.patience)


def _checkpoint(
    path: str | Path | None,
    resume: bool,
    data: Dataset,
    solver: Solver,
    validation: Dataset | None,
    init: Model | None,
) -> Checkpoint | None:
    """Return the checkpoint of the training, if one is wanted."""
    if path is None:
        if resume:
            raise ConfigError("resume: expected a checkpoint to go on from; name its file")
        return None
    path = checked_path(path, resume=resume)
    mark, sides = fingerprint.of_data(data), data.catalogue
    if solver.task.ranks and sides is not None:
        mark += f":{sides.item}:{sides.user}:{','.join(sides.item_columns)}"
    held = "" if validation is None else fingerprint.of_data(validation)
    needs_init = _would_refit(solver) or data.encoder is not None or data.catalogue is not None
    marks = Marks(mark, held, fingerprint.of_model(init))
    return Checkpoint(path, solver.config, marks, needs_init)


def _model(
    data: Dataset,
    solver: Solver,
    run: Run,
    parameters: Values,
    *,
    refitted: bool = False,
) -> Model:
    """Return the model of a run: with the metrics of the epoch that was kept, or the last one's."""
    w0, w, V = parameters
    best = run.best_epoch if refitted or solver.kept else -1
    metrics = dict(run.history[best]) if run.history else {}
    if refitted:
        metrics["refit"] = True
    if not (np.isfinite(w0) and all_finite(w) and all_finite(V)):
        raise diverged(data, solver.config, run.epoch)
    return Model(
        w0=w0,
        w=w,
        V=V,
        config=replace(solver.config, feature_dim=data.num_features),
        encoder=data.encoder,
        fields=data.fields,
        field_names=data.field_names,
        metrics=metrics,
        history=list(run.history),
        fingerprint=fingerprint.of_data(data),
        zero_based=data.zero_based,
        catalogue=data.catalogue,
        labels=data.labels or ZERO_ONE,
    )


@dataclass
class TrainState:
    """What :func:`fit_pass` goes on from: the solver of the last piece, and the epochs so far."""

    solver: Solver
    run: Run
    view: View


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
        Hyperparameters; read for the first piece only, whose targets say what is learnt if
        predictor_type is not set.
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
    if config is not None and config.task.ranks:
        raise ConfigError(
            "predictor_type: expected regressor or binary_classifier, because a ranker draws from "
            "all items and cannot be trained piece by piece, found 'ranker'; use fit"
        )
    if state is None:
        given = with_task(config or TrainConfig(), data)
        given = replace(given, lr_decay=0.0, validation_fraction=0.0)
        data = with_labels(data, given)
        data = widened(data, given.feature_dim)
        check_targets(data, given)
        view, run = View.of(data, given), Run()
        solver = make_solver(view.rows, suited(given, view.rows), _all_of(data))
        solver.start(more=True)
    else:
        known = state.solver.data
        data = with_labels(data, state.solver.config, known.labels or ZERO_ONE)
        data = widened(data, known.num_features)
        check_targets(data, state.solver.config)
        view, run = state.view.of_more(data), state.run
        solver = state.solver.over(_all_of(data), view.rows)
    Loop(solver).run(run, run.epoch + 1)
    w0, w, V = view.plain(solver.parameters())
    return _model(data, solver, run, (w0, w.copy(), V.copy())), TrainState(solver, run, view)


def _all_of(data: Dataset) -> Split:
    return Split(np.arange(data.num_rows, dtype=np.int32))
