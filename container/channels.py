"""The channels of a job: inputdataconfig.json and /opt/ml/input/data -> data sets.

Decided here: which channels there are, what a ContentType means, that data which are plainly of
another format are refused, and what Pipe mode is: the first epoch's pipe is read into memory, and
the later ones are not opened. Not decided here: how a format is read (``fm.reading.read``).

The target of a table without a header is its first column, as in SageMaker's CSV. Otherwise it is
the column that `target` names, or the one called rating, label, target, y or click. For a ranker
each row is an interaction, so no target is needed and the first column is like the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container.paths import Paths
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.data.labels import is_zero_one
from fm.errors import ConfigError, DataError, FMError
from fm.formats.files import data_files, head_of, looks_like
from fm.formats.guess import guess_format
from fm.formats.tables import iter_batches
from fm.reading.options import column_names
from fm.reading.read import TABLES, TARGETS, read

TRAIN, TEST, VALIDATION = "train", "test", "validation"
FORMATS = {
    "application/x-recordio-protobuf": "recordio",
    "application/x-recordio": "recordio",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/libsvm": "libsvm",
    "text/x-libsvm": "libsvm",
    "application/x-libsvm": "libsvm",
    "text/libffm": "libffm",
    "text/x-libffm": "libffm",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
    "application/vnd.apache.parquet": "parquet",
}
MODES = ("File", "FastFile", "Pipe")
SECONDS_FOR_PIPE = 300.0  # that the platform may take to make it

log = logging.getLogger("fm.container")


@dataclass(frozen=True)
class Channel:
    """One channel of the job.

    Attributes
    ----------
    name : str
        Such as ``train``.
    place : Path
        The folder (or file) of the data; in Pipe mode the first pipe.
    pipe : bool
        Whether it is in Pipe mode.
    format : str or None
        The format of the data, as :func:`fm.read` calls it; None: to be found out.
    sharded : bool
        Whether each host sees a part of it.
    """

    name: str
    place: Path
    pipe: bool = False
    format: str | None = None
    sharded: bool = False

    def content(self) -> Path | bytes:
        """Return the folder; in Pipe mode, wait for the pipe and return its bytes."""
        if not self.pipe:
            if not self.place.exists():
                raise DataError(f"{self.place}: no such folder; the channel has no data")
            return self.place
        end = time.monotonic() + SECONDS_FOR_PIPE
        while not self.place.exists():
            if time.monotonic() > end:
                raise DataError(
                    f"{self.place}: expected a pipe, found none after {SECONDS_FOR_PIPE:.0f} s"
                )
            time.sleep(0.05)
        content = self.place.read_bytes()
        log.info("%s: %.1f MB read, kept in memory for all epochs", self.place, len(content) / 1e6)
        if not content:
            raise DataError(f"{self.place}: expected data, found none")
        return content


def channels(paths: Paths) -> dict[str, Channel]:
    """Return the channels of a job by name.

    Without inputdataconfig.json each folder of the data is a channel in File mode.

    Raises
    ------
    ConfigError
        If there is no train channel, or a channel is of an unknown mode or type.
    """
    config: Mapping[str, Any] = paths.read("inputdataconfig.json")
    if not config and paths.data.is_dir():
        config = {path.name: {} for path in sorted(paths.data.iterdir()) if path.is_dir()}
    found, problems = {}, []
    for name, options in config.items():
        # the SDK's fit("s3://...") calls the only channel "training"
        known = TRAIN if name == "training" and TRAIN not in config else name
        if known not in (TRAIN, TEST, VALIDATION):
            log.warning(
                "channel %s is not used; channels are %s, %s and %s", name, TRAIN, TEST, VALIDATION
            )
            continue
        try:
            found[known] = _channel(name, options or {}, paths)
        except ConfigError as err:
            problems.append(f"channel {name}: {err}")
    if TRAIN not in found and not problems:
        problems.append(
            f"channel {TRAIN}: missing; expected data in {paths.data / TRAIN}, found "
            f"{', '.join(config) or 'no channel'}"
        )
    if problems:
        raise ConfigError("; ".join(problems))
    return found


def _channel(name: str, options: Mapping[str, Any], paths: Paths) -> Channel:
    mode = str(options.get("TrainingInputMode") or "File")
    if mode not in MODES:
        raise ConfigError(f"TrainingInputMode: expected one of {', '.join(MODES)}, found {mode!r}")
    given = str(options.get("ContentType") or "")
    kind = given.partition(";")[0].strip().lower()
    if kind and kind not in FORMATS:
        raise ConfigError(f"ContentType: expected one of {', '.join(FORMATS)}, found {given!r}")
    pipe = mode == "Pipe"
    if pipe and options.get("RecordWrapperType") == "RecordIO":
        raise ConfigError(
            "RecordWrapperType: expected None, found RecordIO, which would wrap each file in one "
            "record; leave it out, also for RecordIO-protobuf"
        )
    place = paths.data / (f"{name}_0" if pipe else name)
    sharded = options.get("S3DistributionType") == "ShardedByS3Key"
    return Channel(name, place, pipe, FORMATS.get(kind), sharded)


# -- reading ---------------------------------------------------------------------------------------


def read_all(
    found: Mapping[str, Channel], config: TrainConfig, options: Mapping[str, Any]
) -> dict[str, Dataset]:
    """Return the data of each channel, all with the features of the train channel.

    Parameters
    ----------
    found : mapping of str to Channel
        With a train channel.
    config : TrainConfig
        For feature_dim and the labels.
    options : mapping
        Keyword arguments of :func:`fm.read`.

    Raises
    ------
    FMError
        If data are missing or wrong; the message names channel, file and row or record.
    """
    data: dict[str, Dataset] = {}
    ranker = config.task.ranks
    like: dict[str, Any] = {}
    for name in sorted(found, key=lambda name: (name != TRAIN, name)):
        channel = found[name]
        try:
            content = channel.content()
            form = _checked_format(channel, content)
            if name == TRAIN:
                reading = _reading_options(content, form, options, ranker)
                if form not in TABLES:
                    reading["num_features"] = config.feature_dim
            else:
                reading = _like(like, data[TRAIN], form, config)
            data[name] = read(content, format=form, require_target=not ranker, **reading)
            if config.task.labels and data[name].y is not None:
                data[name] = data[name].labelled(None if name == TRAIN else data[TRAIN].labels)
            _check_labels(channel, content, data[name], form, reading, config)
        except FMError as err:
            raise type(err)(f"channel {channel.name}: {err.message}", err.advice) from err
        if name == TRAIN:
            like = reading
        rows = data[name]
        log.info("channel %s: %d rows, %d features", channel.name, rows.num_rows, rows.num_features)
    return data


def _checked_format(channel: Channel, content: Path | bytes) -> str:
    """Return the format of a channel; refuse data that are plainly not of their ContentType."""
    if channel.format is None:
        return guess_format(content)
    name, head = head_of(content)
    looks = guess_format(head)
    fits = {channel.format}
    if channel.format in ("libsvm", "libffm", "tsv"):
        fits.add("csv")  # the first bytes of a text may fit several of them
    if looks not in fits:
        what = f"{looks} data" if looks not in ("csv", "tsv") else looks_like(head)
        raise DataError(
            f"{name}: the channel's ContentType says {channel.format}, but the data look like "
            f"{what}; correct the ContentType, or leave it out"
        )
    return channel.format


def _reading_options(
    content: Path | bytes, form: str, options: Mapping[str, Any], ranker: bool
) -> dict[str, Any]:
    """Return the options for the train channel, with the target of a table without a header."""
    reading = dict(options)
    if form not in ("csv", "tsv") or {"target", "header"} & reading.keys() == {"target", "header"}:
        return reading
    look = {name: reading[name] for name in ("delimiter", "header") if name in reading}
    expect = [*(name for name in TARGETS if name != "y"), *column_names(reading)]
    columns = next(iter_batches(content, format=form, expect=expect, batch_rows=1, **look))
    names = columns.column_names
    if names == [str(i) for i in range(len(names))]:
        reading["header"] = False
        if not ranker:
            reading.setdefault("target", 0)
        target = reading.get("target")
        what = "it has no target" if target is None else f"its target is column {target}"
        log.info("%s has no header: %s", form, what)
    return reading


def _like(
    reading: Mapping[str, Any], train: Dataset, form: str, config: TrainConfig
) -> dict[str, Any]:
    """Return the options for a further channel: its features are those of the train channel."""
    table = form in TABLES
    known = {} if is_zero_one(train.labels) else {"labels": train.labels}
    if table != (train.encoder is not None):
        mine, other = ("a table", "features") if table else ("features", "a table")
        raise DataError(
            f"expected {other}, as in channel {TRAIN}, found {mine} ({form}); bring both into one "
            "format"
        )
    if not table:
        width = max(train.num_features, config.feature_dim or 0)
        more = {} if train.zero_based is None else {"zero_based": train.zero_based}
        return {**known, "num_features": width, **(more if form == "libsvm" else {})}
    text = ("delimiter", "header") if form in ("csv", "tsv") else ()
    names = ("target", "weight", *text)
    further = {name: reading[name] for name in names if name in reading}
    return {**known, **further, "encoder": train.encoder}


def _check_labels(
    channel: Channel,
    content: Path | bytes,
    data: Dataset,
    form: str,
    reading: dict[str, Any],
    config: TrainConfig,
) -> None:
    """Refuse labels that a classifier cannot learn, and name the file and the row."""
    if config.task.ranks:
        return
    y = data.targets
    first = config.task.first_wrong_target(y)
    if first is None:
        return
    row, place = first, str(channel.place)
    if isinstance(content, Path):
        for file in data_files(content):  # read again, to find the file with this row
            place = str(file)
            options = {**reading, "encoder": data.encoder} if data.encoder else reading
            options = {k: v for k, v in options.items() if k in _FOR_ONE_FILE}
            rows = read(file, format=form, require_target=True, **options).num_rows
            if row < rows:
                break
            row -= rows
    what = "record" if form == "recordio" else "row"
    raise config.task.wrong_target(f"{place} {what} {row + 1}", float(y[first]))


_FOR_ONE_FILE = frozenset(
    ("num_features", "zero_based", "encoder", "delimiter", "header", "target", "weight")
)
