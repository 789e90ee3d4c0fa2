"""The training job: hyperparameters and channels in, a model out.

Decided here: the order of the work, what is checked before it, what becomes of a checkpoint that
does not fit, and what is left when the job is stopped. Not decided here: anything about training
itself (``fm.training.fit``); the model is that of ``fm train`` with the same data and
hyperparameters, bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from container import failure, hyperparameters, logs
from container.channels import TEST, TRAIN, VALIDATION, Channel, channels, read_all
from container.hosts import Hosts
from container.hyperparameters import Hyperparameters
from container.logs import TrainingLog
from container.paths import Paths
from container.stopping import Stop
from fm.cli.options import naming
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import ConfigError, ModelFileError
from fm.model.file import FILE_NAME
from fm.model.model import Model

RANKED_SCORES = 1 << 29  # scores that are computed to test a ranker; takes some seconds

log = logging.getLogger("fm.container")


def run(paths: Paths, stop: Stop) -> int:
    """Do a job and return its exit code.

    Raises
    ------
    FMError
        If something is wrong with what the job was given.
    """
    logs.start_logging()
    begun = time.time()
    logs.bare("Docker entrypoint called with argument(s): train")
    with contextlib.suppress(OSError):
        paths.failure.unlink()  # left by an earlier job in the same folder
    hosts = Hosts.of(paths.read("resourceconfig.json"))
    asked = _hyperparameters(paths)
    found = channels(paths)
    _check_hosts(hosts, found)
    if not hosts.trains:
        return _stand_by(hosts)
    hosts.open()
    _prepare_folder(paths.model, FILE_NAME)
    _train(paths, stop, hosts.first, asked, found, begun)
    hosts.release(stop)
    return 0


def _train(
    paths: Paths,
    stop: Stop,
    host: str,
    asked: Hyperparameters,
    found: Mapping[str, Channel],
    begun: float,
) -> None:
    data = read_all(found, asked.config, asked.reading)
    config = _suited(asked.config, data[TRAIN])
    from fm.training.fit import (
        fit,  # not earlier: its compiler takes longer to load than most errors
    )

    checkpoint = _checkpoint(paths, host)
    told = TrainingLog(host, config.resolved(), data[TRAIN], asked.batch_interval, checkpoint)
    told.begin(begun)
    stop.check()
    stop.after_the_epoch()
    options: dict[str, Any] = {
        "validation": data.get(VALIDATION),
        "callbacks": [told, lambda epoch: stop.check()],
        "checkpoint": checkpoint,
        "resume": checkpoint is not None,
        "progress": False,
    }
    try:
        model = fit(data[TRAIN], config, **options)
    except ModelFileError as err:
        if checkpoint is None or not checkpoint.exists():
            raise
        aside = checkpoint.with_name(f"{checkpoint.name}.ignored")
        log.warning("checkpoint ignored, and moved to %s: %s", aside, err)
        os.replace(checkpoint, aside)
        model = fit(data[TRAIN], config, **options)
    stop.no_more_interrupts()
    since = time.time()
    with naming(str(paths.model / FILE_NAME)):
        path = model.save(paths.model / FILE_NAME)
    told.end(model.metrics, stop.requested)
    told.saved(path, since)
    test = None
    if TEST in data:
        test = _measured(model, data[TRAIN], data[TEST])
        told.test(data[TEST], test)
    told.done()
    _report(paths, model, test, stop.requested, time.time() - begun)


def _measured(model: Model, train: Dataset, test: Dataset) -> dict[str, float]:
    """Return how good a model is on the test channel."""
    task = model.task
    if not task.ranks:
        total = logs.sums(task, model.scores(test), test.targets, test.weight)
        return task.of_sums(*total.tolist())
    from fm.kernels.negatives import known_pairs
    from fm.training.judging import ListJudge

    catalogue = model.catalogue
    assert catalogue is not None  # a ranker has one
    users, items = catalogue.rows_of_keys(train.X)
    met = items >= 0
    known = known_pairs(users[met], items[met], catalogue.num_users, catalogue.num_items)
    users, items = catalogue.rows_of_keys(test.X)
    rows = np.flatnonzero(items >= 0)
    if not rows.size:
        log.warning("channel %s: no row has an item of channel %s", TEST, TRAIN)
        return {}
    most = max(1, RANKED_SCORES // catalogue.num_items)
    if rows.size > most:
        log.info("channel %s: %d rows are ranked, drawn from %d", TEST, most, rows.size)
        rng = np.random.default_rng(model.config.seed)
        rows = np.sort(rng.choice(rows, most, replace=False))
    return ListJudge(catalogue, test.X[rows], users[rows], items[rows], known).metrics(
        model.w, model.V
    )


def _hyperparameters(paths: Paths) -> Hyperparameters:
    given = paths.read("hyperparameters.json")
    file = paths.config / "hyperparameters.json"
    log.info("Reading default configuration from fm.config: %s", TrainConfig().to_dict())
    log.info("Merging with provided configuration from %s: %s", file, given)
    try:
        asked = hyperparameters.parse(given)
    except ConfigError as err:
        if len(str(err)) < failure.LIMIT - 100:
            raise
        names = ", ".join(hyperparameters.wrong_names(given))
        raise ConfigError(f"wrong hyperparameters: {names}; {err}") from err
    shown = asked.config.resolved().to_dict()
    shown["batch_metrics_publish_interval"] = asked.batch_interval
    log.info("Final configuration: %s", {**shown, **asked.reading})
    return asked


def _check_hosts(hosts: Hosts, found: Mapping[str, Channel]) -> None:
    sharded = [name for name, channel in found.items() if channel.sharded]
    if hosts.others and sharded:
        raise ConfigError(
            f"channel {', '.join(sharded)}: S3DistributionType ShardedByS3Key would train on a "
            f"part of the data, because only one of the {1 + len(hosts.others)} hosts trains; use "
            "FullyReplicated, or one host"
        )


def _stand_by(hosts: Hosts) -> int:
    log.info("host %s trains; host %s waits for its end", hosts.first, hosts.current)
    try:
        hosts.wait()
    except KeyboardInterrupt:
        log.info("host %s was stopped", hosts.current)
    return 0


def _prepare_folder(folder: Path, name: str) -> None:
    """Check, before hours of work, that a file can be written; remove what a killed job left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(f"{folder}: cannot be made ({err.strerror}); mount it") from err
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot be written to; mount it writable for this user")
    for left in folder.glob(f".{name}.*.sagemaker-ignore"):
        with contextlib.suppress(OSError):
            left.unlink()


def _suited(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Return the config for the data: the columns of a table decide how many features there are."""
    if data.encoder is None or config.feature_dim in (None, data.num_features):
        return config
    log.warning(
        "feature_dim %s is not used: the columns of the table make %d features",
        config.feature_dim, data.num_features,
    )  # fmt: skip
    return dataclasses.replace(config, feature_dim=None)


def _checkpoint(paths: Paths, host: str) -> Path | None:
    checkpoint = paths.checkpoint(host)
    if checkpoint is None:
        log.info("Checkpoint loading and saving are disabled.")
        return None
    _prepare_folder(checkpoint.parent, checkpoint.name)
    log.info("Checkpoints are loaded from and saved to %s.", checkpoint)
    return checkpoint


def _report(
    paths: Paths, model: Model, test: dict[str, float] | None, interrupted: bool, seconds: float
) -> None:
    """Write the metrics to output.tar.gz; a failure to do so does not fail the job."""
    content = {
        "metrics": model.metrics,
        "test": test,
        "history": model.history,
        "config": model.config.to_dict(),
        "interrupted": interrupted,
        "seconds": seconds,
    }
    path = paths.output / "metrics.json"
    try:
        paths.output.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    except OSError as err:
        log.warning("%s: cannot be written (%s)", path, err.strerror)
