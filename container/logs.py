"""What a training job writes to its log: the same lines as the built-in algorithm.

SageMaker finds metrics in a log by regular expressions. Those of the built-in algorithm match these
lines, so tuning jobs and dashboards made for it go on working. An image of one's own has to name
its expressions: pass :data:`METRIC_DEFINITIONS` to the Estimator or tuner.

Decided here: names, order and punctuation of the lines (those of published logs of the built-in),
and what is measured on training rows: their scores before the step they cause, as the built-in
does; for a ranker, the mean loss of an epoch. Lines about the validation channel are ours. Epochs
count from 0 in these lines, as the built-in's do, and from 1 everywhere else. Not decided here: how
rows are scored.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from container.hyperparameters import as_hyperparameter
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import spelled_record
from fm.formats.storage import read_metadata
from fm.sparse import blocks
from fm.tasks import TASKS, Task

if TYPE_CHECKING:
    from fm.training.loop import Epoch


def _definitions() -> list[dict[str, str]]:
    host, value = r"#quality_metric: host=\S+, ", r"=(\S+)"
    found = {}
    for task in TASKS.values():
        for shown, name, rows in task.log.values():
            shown = shown.replace("1.000", r"\S+")
            if "test" in rows:
                found[f"test:{name}"] = f"{host}test {shown}{value}"
            if "train" in rows and not task.ranks:
                found[f"train:{name}"] = rf"{host}epoch=\S+, batch=\S+ train {shown}{value}"
                found[f"train:{name}:epoch"] = rf"{host}epoch=\S+, train {shown}{value}"
            if "validation" in rows:
                found[f"validation:{name}"] = f"{host}validation {shown}{value}"
            if "validation" in rows and not task.ranks:
                found[f"validation:{name}:epoch"] = rf"{host}epoch=\S+, validation {shown}{value}"
    # With these two they are 40, as many as the platform takes.
    found["validation:ndcg:epoch"] = rf"{host}epoch=\S+, validation ndcg_10 <score>{value}"
    found["train:ranking_loss:epoch"] = rf"{host}epoch=\S+, train ranking_loss <loss>{value}"
    found["train:progress"] = r"#progress_metric: host=\S+, completed (\S+) %"
    found["train:throughput"] = (
        r"#throughput_metric: host=\S+, train throughput=(\S+) records/second"
    )
    return [{"Name": name, "Regex": regex} for name, regex in found.items()]


#: The metrics of a job, as ``metric_definitions`` of an Estimator or a tuner takes them.
METRIC_DEFINITIONS = _definitions()

log = logging.getLogger("fm.container")


# -- lines -----------------------------------------------------------------------------------------


def start_logging(stream: IO[str] | None = None) -> None:
    """Send what fm says to a stream (standard output); every line is flushed."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_Formatter())
    # The lines of this module show the progress of epochs.
    handler.addFilter(lambda record: record.module != "progress")
    logger = logging.getLogger("fm")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    logger.propagate = False


class _Formatter(logging.Formatter):
    """``[04/21/2023 14:26:45 INFO 139893122135872] text``; a line marked as bare is only text."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s %(levelname)s %(thread)d] %(message)s", "%m/%d/%Y %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        if getattr(record, "bare", False):
            return record.getMessage()
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        record.message = spelled_record(record, as_hyperparameter)
        return super().formatMessage(record)


def bare(text: str) -> None:
    """Write a line without date and level."""
    log.info("%s", text, extra={"bare": True})


# -- what is measured ------------------------------------------------------------------------------


def sums(task: Task, scores: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Return sums over rows of which ``task.of_sums`` makes metrics; those of parts add up.

    Parameters
    ----------
    task : Task
    scores, y : ndarray, shape (rows,)
        Raw scores and targets.
    weight : ndarray, shape (rows,), optional
        The weight of each row.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> task = TASKS["regressor"]
    >>> task.of_sums(*sums(task, np.array([1.0, 3.0]), np.array([1.0, 1.0]), None).tolist())
    {'rmse': 1.4142135623730951, 'mse': 2.0, 'mae': 1.0}
    """
    total: Any = 0.0
    parts = (blocks(scores, np.float64), blocks(y, np.float64))
    weights = None if weight is None else blocks(weight, np.float64)
    for z, t in zip(*parts, strict=True):
        terms = task.row_terms(z, t)
        if weights is not None:
            w = next(weights)
            terms = [w * term for term in terms]
        # np.sum, not a dot product: BLAS would sum in an order that the number of cores decides.
        total = total + np.array([np.sum(term, dtype=np.float64) for term in terms])
    return np.asarray(total)


def epochs_done(checkpoint: Path) -> int:
    """Return how many epochs the training in a checkpoint has done; 0 if it cannot be read."""
    try:
        return int(json.loads(read_metadata(checkpoint)["state"])["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # a number in a log is not worth a failed job


# -- the log of a training -------------------------------------------------------------------------


class TrainingLog:
    """The lines of one job; an instance is a callback of :func:`fm.fit`.

    Parameters
    ----------
    host : str
        The host's name.
    config : TrainConfig
        With epochs, task and the size of batches.
    data : Dataset
        The training rows.
    batch_interval : int
        Batches from one line of batch metrics to the next.
    checkpoint : path, optional
        The file with the state of the first training, for a job that is restarted after it.
    """

    def __init__(
        self,
        host: str,
        config: TrainConfig,
        data: Dataset,
        batch_interval: int,
        checkpoint: Path | None = None,
    ) -> None:
        self.host, self.config, self.data = host, config, data
        self._batch_interval, self._checkpoint = batch_interval, checkpoint
        self.task = config.task
        self._y, self._weight = data.y, data.weight
        self._begun = self._since = time.time()
        self._records = self._batches = self._epochs = self._first_training = 0
        self._progress = 0.0
        self._train: dict[int, dict[str, float]] = {}
        self._final = False

    def begin(self, since: float) -> None:
        """Write that the preparations, which began at `since`, are over."""
        self._begun = since
        self.metrics(since, {"initialize.time": 1000 * (time.time() - since)})
        self._since = time.time()

    def __call__(self, epoch: Epoch) -> None:
        """Write the lines of an epoch."""
        first = not self._epochs
        # The second training, on all rows, goes on counting where the first one ended. If the first
        # one was over before a restart, its last checkpoint says where.
        if epoch.refit and not self._first_training and self._checkpoint is not None:
            self._first_training = epochs_done(self._checkpoint)
        number = epoch.number - 1 + (self._first_training if epoch.refit else 0)
        if not epoch.refit:
            self._first_training = number + 1
        rows, size = epoch.rows, self.config.mini_batch_size
        count = -(-rows.size // size)
        if self.task.ranks:  # a row has no target to compare its score with
            train = {"loss": epoch.loss}
        else:
            for batch in range(0, count, self._batch_interval):
                values = self._measured(epoch, batch * size, (batch + 1) * size)
                self._quality(f"epoch={number}, batch={batch} train", values)
            train = self._measured(epoch, 0, rows.size)
        self._train[number] = train
        self._quality(f"epoch={number}, train", train)
        self._quality(f"epoch={number}, validation", epoch.validation)
        if epoch.number == self.config.epochs and not epoch.validation and not epoch.refit:
            self._end_of_training(train)  # for sure: nothing can have been held out
        now = time.time()
        more = {"epochs": float(self.config.epochs)} if first else {}
        self.metrics(self._since, {**more, "update.time": 1000 * (now - self._since)})
        if not epoch.refit:
            self._completed(100.0 * (number + 1) / self.config.epochs)
        self._records += rows.size
        self._batches += count
        self._epochs += 1
        self._iterator("training_data_iter", rows.size, count, epoch=number)
        log.info(
            "#throughput_metric: host=%s, train throughput=%r records/second",
            self.host, rows.size / max(now - self._since, 1e-9),
        )  # fmt: skip
        self._since = now

    def end(self, metrics: Mapping[str, Any], interrupted: bool) -> None:
        """Write that training is over.

        Parameters
        ----------
        metrics : mapping
            Those of the model that was kept (Model.metrics).
        interrupted : bool
            Whether training was cut short.
        """
        last = max(self._train, default=-1)
        kept = last if metrics.get("refit") else metrics.get("epoch", last + 1) - 1
        if not self._final:
            # Of an epoch before a restart only a ranker's loss is known, which the model notes;
            # the figures of another epoch would mislead.
            unseen = metrics if self.task.ranks else {}
            self._end_of_training(self._train.get(kept, unseen))
        self._quality("validation", metrics)
        if not interrupted and self._progress < 100:  # stopped early
            self._completed(100.0)

    def test(self, data: Dataset, values: Mapping[str, float]) -> None:
        """Write how good the model is on the test channel."""
        since = time.time()
        count = -(-data.num_rows // self.config.mini_batch_size)
        self._records, self._batches, self._epochs = data.num_rows, count, 0
        self._iterator("test_data_iter", data.num_rows, count, since=since)
        for name, value in values.items():
            shown = self.task.log[name].shown.partition(" ")[0]
            log.info("#test_score (%s) : (%r, %r)", self.host, shown, value)
        self._quality("test", values)

    def saved(self, path: Path, since: float) -> None:
        """Write that the model is in a file, which took the time since `since`."""
        self.metrics(since, {"finalize.time": 1000 * (time.time() - since)})
        log.info('Saved model to "%s"', path)

    def done(self) -> None:
        """Write the last line."""
        now = time.time()
        self.metrics(self._begun, {"setuptime": 0.0, "totaltime": 1000 * (now - self._begun)})

    # -- parts -----------------------------------------------------------------------------------

    def metrics(self, since: float, values: Mapping[str, float], **more: Any) -> None:
        """Write a line of figures about the job itself, in JSON."""
        about = {"Algorithm": "factorization-machines", "Host": self.host, "Operation": "training"}
        content = {
            "StartTime": since,
            "EndTime": time.time(),
            "Dimensions": {**about, **more},
            "Metrics": {
                name: {"sum": float(value), "count": 1, "min": value, "max": value}
                for name, value in values.items()
            },
        }
        bare(f"#metrics {json.dumps(content)}")

    def _iterator(
        self, what: str, rows: int, batches: int, *, since: float | None = None, **more: Any
    ) -> None:
        values = {
            "Total Records Seen": self._records,
            "Total Batches Seen": self._batches,
            "Max Records Seen Between Resets": rows,
            "Max Batches Seen Between Resets": batches,
            "Reset Count": max(self._epochs, 1),
            "Number of Records Since Last Reset": rows,
            "Number of Batches Since Last Reset": batches,
        }
        self.metrics(self._since if since is None else since, values, **more, Meta=what)

    def _measured(self, epoch: Epoch, start: int, stop: int) -> dict[str, float]:
        rows = epoch.rows[start:stop]
        assert self._y is not None  # only a ranker has none
        weight = None if self._weight is None else self._weight[rows]
        total = sums(self.task, epoch.scores[start:stop], self._y[rows], weight)
        count, score = epoch.padding
        if count and stop >= epoch.rows.size:  # the built-in counts them, too
            total += count * sums(self.task, np.array([score]), np.zeros(1), None)
        return self.task.of_sums(*total.tolist())

    def _quality(self, where: str, values: Mapping[str, float]) -> None:
        kind = where.split()[-1]  # of rows
        for name, (shown, _, rows) in self.task.log.items():
            value = values.get(name) if kind in rows else None
            if value is not None and np.isfinite(value):  # an AUC of one label only is none
                log.info(
                    "#quality_metric: host=%s, %s %s=%r", self.host, where, shown, float(value)
                )

    def _end_of_training(self, values: Mapping[str, float]) -> None:
        self._quality("train", values)
        self._final = True

    def _completed(self, percent: float) -> None:
        self._progress = percent
        log.info("#progress_metric: host=%s, completed %r %% of epochs", self.host, percent)
