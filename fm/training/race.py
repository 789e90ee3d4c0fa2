"""The race: which settings suit the data, found out on rows held out.

Decided here: which settings run where the optimizer is not named, on which rows, for how long, and
which one wins. Not decided here: what a setting means (``fm.recipes``), how the winner is trained
(``fm.training.fit``).

No one optimizer and no one strength of decay suits all data: on tables of ids sgd is best, on click
logs adagrad with a faster rate, on texts with few rows the linear model. So each setting of
:data:`SETTINGS` trains until it stops improving or is clearly behind the best one. (To compare all
after a few epochs, and go on with half of them, is cheaper and worse: sgd starts slowly and ends
well.) Values that the user has set stay. Settings of up to 10,000 rows are cross-validated; if
there are fewer than 1,000, this also tells for how many epochs to train.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import DivergenceError
from fm.training.judging import Judge, make_judge
from fm.training.loop import Loop
from fm.training.rates import suited
from fm.training.run import Run
from fm.training.solvers.solver import make_solver
from fm.training.split import MIN_ROWS_TO_HOLD_OUT, Split, divided

logger = logging.getLogger("fm")

MOST_EPOCHS, PATIENCE = 25, 3
# A setting gives up if after so many epochs it is so much worse than the best one was then.
EPOCHS_BEFORE_GIVING_UP, BEHIND = 5, 0.02
FOLDS = 4
# Rows to race on: all if there are few, else a sample. More rows tell the settings apart better,
# but then a single training takes seconds, and the race should cost no more than it.
MOST_ROWS, SHARE = 200_000, 0.2
FEW_ROWS = 10_000  # up to here settings are cross-validated
FEWEST_ROWS = 50  # fewer cannot tell settings apart
MOST_JUDGED = 20_000

#: The hyperparameters that a race sets.
FOUND = ("optimizer", "factors_init_sigma") + tuple(
    f"{part}_{what}" for part in ("bias", "linear", "factors") for what in ("lr", "wd")
)


class Setting(NamedTuple):
    """What may differ from the recipe of an optimizer: factors on what is not set."""

    optimizer: str
    rates: float = 1.0
    decay: float = 1.0
    linear: bool = False  # V stays 0

    def over(self, given: TrainConfig, data: Dataset) -> TrainConfig:
        """Return the config with this setting in place of what is not set."""
        config = suited(replace(given, optimizer=self.optimizer), data)
        changed: dict[str, Any] = {}
        for part in ("bias", "linear", "factors"):
            for name, factor in ((f"{part}_lr", self.rates), (f"{part}_wd", self.decay)):
                if getattr(given, name) is None:
                    changed[name] = getattr(config, name) * factor
        if self.linear:
            changed |= {"factors_lr": 0.0, "factors_init_sigma": 0.0}
        return replace(config, **changed)


SETTINGS = (
    Setting("sgd"),
    Setting("sgd", decay=0.1),
    Setting("sgd", decay=4.0),
    Setting("adagrad"),
    Setting("adagrad", decay=0.1),
    Setting("adagrad", decay=4.0),
    Setting("adagrad", rates=3.0),
    Setting("adagrad", linear=True),
)


@dataclass
class Entry:
    """A setting in the race.

    Attributes
    ----------
    config : TrainConfig
    value : float
        Of the metric that early stopping watches, the best so far; NaN: it diverged.
    epochs : int
        How many epochs were best.
    courses : list of list of float
        The metric after each epoch, for each of the parts.
    """

    config: TrainConfig
    value: float = float("nan")
    epochs: int = 0
    courses: list[list[float]] = field(default_factory=list)


class Settled(NamedTuple):
    """How to train.

    Attributes
    ----------
    config : TrainConfig
        With everything set.
    raced : bool
        Whether a race has set it.
    epochs : int
        For how many epochs, where no rows will tell when to stop; 0: as the config says.
    interrupted : bool
        Whether the user wants an end.
    """

    config: TrainConfig
    raced: bool = False
    epochs: int = 0
    interrupted: bool = False


def is_raced(given: TrainConfig, data: Dataset) -> bool:
    """Return whether the settings are left to a race."""
    rows = data.num_rows if data.weight is None else int(np.count_nonzero(data.weight))
    enough = rows >= FEWEST_ROWS
    return given.optimizer is None and not given.task.ranks and enough


def with_settings(given: TrainConfig, found: Mapping[str, Any]) -> TrainConfig:
    """Return the config with what a race found before, in place of what is not set."""
    if found.get("optimizer") not in {setting.optimizer for setting in SETTINGS}:
        return given
    unset = {name: found[name] for name in FOUND if getattr(given, name) is None and name in found}
    return replace(given, **unset)


def race(given: TrainConfig, data: Dataset, split: Split, validation: Dataset | None) -> Settled:
    """Race the settings and return the best one.

    After an interruption it is the best one so far, which is to pass over the rows once, so that
    there is a model.

    Parameters
    ----------
    given : TrainConfig
        What the user has set.
    data : Dataset
        Rows as training sees them.
    split : Split
        The rows to train on, and those held out.
    validation : Dataset, optional
        Rows to judge by, in place of those held out.
    """
    entries, parts = list(_entries(given, data)), _parts(data, given, split, validation)
    sign, leader = _sign(given), Entry(given)
    tiny = split.rows.size < MIN_ROWS_TO_HOLD_OUT
    try:
        for entry in entries:
            _run(entry, data, parts, validation, leader, given.epochs if tiny else MOST_EPOCHS)
            if entry.epochs and not sign * entry.value >= sign * leader.value:
                leader = entry  # the first one, too, as NaN is the value of none
    except KeyboardInterrupt:
        logger.warning("interrupted in the race of settings; training one epoch with the best one")
        best = leader if leader.epochs else entries[0]
        return Settled(best.config, raced=True, epochs=1, interrupted=True)
    entries.sort(key=lambda entry: np.nan_to_num(sign * entry.value, nan=np.inf))
    best = entries[0]
    _tell(best, entries, given)
    untold = tiny and validation is None and split.held_out is None
    return Settled(best.config, raced=True, epochs=best.epochs if untold else 0)


def _entries(given: TrainConfig, data: Dataset) -> Iterator[Entry]:
    """Yield the settings that differ in what the user has left open."""
    known = []
    for setting in SETTINGS:
        if setting.linear and (data.catalogue is not None or given.factors_lr is not None):
            continue  # lists are wanted, and a linear model has the same one for everybody
        config = setting.over(given, data)
        if config not in known:
            known.append(config)
            yield Entry(config)


def _parts(
    data: Dataset, given: TrainConfig, split: Split, validation: Dataset | None
) -> list[Split]:
    """Return the rows to train on and to judge by: one split, or several that take turns."""
    rng = np.random.default_rng([given.seed, 5])
    rows, held = split.rows, split.held_out
    if validation is None and (held is None or rows.size + held.size <= FEW_ROWS):
        rows = rows if held is None else np.sort(np.concatenate([rows, held]))
        rows = rows if data.weight is None else rows[data.weight[rows] > 0]
        if rows.size <= FEW_ROWS:
            mixed = rng.permutation(rows)
            of = np.arange(rows.size) % min(FOLDS, rows.size)
            return [
                Split(np.sort(mixed[of != fold]), np.sort(mixed[of == fold]))
                for fold in range(of.max() + 1)
            ]
        rows, held = divided(rows, rows.size // 10, rng)
    most = max(MOST_ROWS, round(SHARE * rows.size))
    if rows.size > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    if held is not None and held.size > MOST_JUDGED:
        held = np.sort(rng.choice(held, MOST_JUDGED, replace=False))
    return [Split(rows, held)]


def _run(
    entry: Entry,
    data: Dataset,
    splits: list[Split],
    validation: Dataset | None,
    leader: Entry,
    most: int,
) -> None:
    """Train a setting on each of the splits, and keep its mean value and number of epochs."""
    config = replace(entry.config, patience=0)  # so that no parameters are kept
    sign, metric = _sign(config), config.watched_metric
    epochs = min(config.epochs, most)
    for number, split in enumerate(splits):
        solver, run = make_solver(data, config, split), Run()
        course = leader.courses[number] if leader.courses else []
        judge = _impatient(make_judge(solver, validation), run, course, sign, metric)
        solver.start()
        try:
            Loop(solver, judge, log=False).run(run, epochs)
        except DivergenceError:
            return
        entry.courses.append([epoch[metric] for epoch in run.history])
    longest = max(map(len, entry.courses))
    padded = [np.pad(course, (0, longest - len(course)), "edge") for course in entry.courses]
    mean = np.mean(padded, axis=0)
    best = int(np.argmin(sign * mean))
    entry.value, entry.epochs = float(mean[best]), best + 1


def _impatient(
    judge: Judge | None, run: Run, course: list[float], sign: int, metric: str
) -> Judge | None:
    """Return a judge that ends a run which no longer improves, or is clearly behind the leader."""
    if judge is None:
        return None

    def judged() -> dict[str, float]:
        values, then = judge(), course[: run.epoch + 1]
        improved = run.best_epoch < 0 or sign * values[metric] < sign * run.best_value
        run.finished = not improved and run.epoch - run.best_epoch >= PATIENCE
        if then and run.epoch + 1 >= EPOCHS_BEFORE_GIVING_UP:
            best = min(then, key=lambda value: sign * value)
            own = values[metric] if improved else run.best_value
            run.finished |= sign * (own - best) > BEHIND * abs(best)
        return values

    return judged


def _sign(config: TrainConfig) -> int:
    """Return 1 if lower values of the watched metric are better, else -1."""
    return 1 if config.task.is_better(config.watched_metric, 0.0, 1.0) else -1


def _tell(best: Entry, entries: list[Entry], given: TrainConfig) -> None:
    config = best.config
    about = "linear model, " if config.factors_lr == 0 and given.factors_lr is None else ""
    logger.info(
        "race of %d settings: %s%s, factors_lr %.3g, linear_wd %.3g, factors_wd %.3g "
        "(%s %.5f on rows held out; the last one %.5f)",
        len(entries), about, config.optimizer, config.factors_lr, config.linear_wd,
        config.factors_wd, config.watched_metric, best.value, entries[-1].value,
    )  # fmt: skip
