"""What the user asked for: hyperparameters.json -> TrainConfig, and options for reading tables.

Decided here: that the task must be named, and which options of ``fm train`` besides hyperparameters
a job may set. Every problem is reported at once. Not decided here: what hyperparameters there are,
and how the strings of the various SDKs are read (``fm.config``).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

from fm.cli.messages import listed
from fm.cli.options import bins, data_options, names
from fm.config import TrainConfig
from fm.errors import ConfigError
from fm.parameter import Parameter
from fm.tasks import REGRESSOR, TASKS

_LISTS = ("categorical", "numeric", "multi", "history", "date", "ignore", "names", "item_columns")
_KINDS: dict[type, tuple[str, ...]] = {
    str: (
        *_LISTS,
        "target",
        "weight",
        "positive",
        "bins",
        "separator",
        "delimiter",
        "user",
        "item",
    ),
    bool: ("header", "zero_based", "standardize", "keep_seen"),
    int: ("min_count", "hash_dim"),
}
# How a channel is read; as the options of `fm train`. Lists are separated by commas.
DATA_OPTIONS = {
    name: Parameter(name, kind, None, "", "", low=1 if kind is int else None)
    for kind, group in _KINDS.items()
    for name in group
}
# A hyperparameter of the built-in, but of its log only: no model depends on it.
_BATCH_INTERVAL = Parameter("batch_metrics_publish_interval", int, 500, "", "", low=1)


class Hyperparameters(NamedTuple):
    """What a job was told.

    Attributes
    ----------
    config : TrainConfig
        How to train.
    reading : dict
        Keyword arguments of :func:`fm.read`.
    batch_interval : int
        Batches from one line of batch metrics in the log to the next.
    """

    config: TrainConfig
    reading: dict[str, Any]
    batch_interval: int


def parse(given: Mapping[str, Any]) -> Hyperparameters:
    """Return the hyperparameters of a job.

    Parameters
    ----------
    given : mapping of str to str
        As in hyperparameters.json.

    Raises
    ------
    ConfigError
        One error that names everything that is wrong.

    Examples
    --------
    >>> asked = parse({"predictor_type": "regressor", "epochs": "3", "categorical": "user,film"})
    >>> asked.config.epochs, asked.reading
    (3, {'categorical': ['user', 'film']})
    """
    problems, names = [], list(TASKS)
    if _missing(given.get("predictor_type")):
        problems.append(
            "predictor_type: missing required hyperparameter; set "
            f"{', '.join(names[:-1])} or {names[-1]}"
        )
    config, reading = TrainConfig(), {}
    try:
        config = TrainConfig.from_strings(
            {name: value for name, value in given.items() if name not in DATA_OPTIONS}
        )
    except ConfigError as err:
        problems.append(str(err))
    interval = _BATCH_INTERVAL.default
    try:
        if not _missing(given.get(_BATCH_INTERVAL.name)):
            interval = _BATCH_INTERVAL.parse(given[_BATCH_INTERVAL.name])
    except ConfigError as err:
        problems.append(str(err))
    values: dict[str, Any] = {}
    for name in (name for name in DATA_OPTIONS if name in given):
        try:
            values[name] = None if _missing(given[name]) else _option(name, given[name])
        except (ConfigError, argparse.ArgumentTypeError) as err:
            problems.append(str(err) if str(err).startswith(name) else f"{name}: {err}")
    try:
        reading = data_options(argparse.Namespace(**values))
    except ConfigError as err:
        problems.append(err.spelled(as_hyperparameter))
    if problems:
        raise ConfigError("; ".join(problems))
    return Hyperparameters(config, reading, interval)


def as_hyperparameter(name: str, value: Any) -> str:
    """Return how a job's hyperparameters spell an argument; the value ``...`` stands for any.

    Examples
    --------
    >>> as_hyperparameter("target", ...), as_hyperparameter("ignore", ["a", "b"])
    ('target', 'ignore=a,b')
    >>> as_hyperparameter("num_features", 9), as_hyperparameter("header", True)
    ('feature_dim=9', 'header=true')
    """
    name = "feature_dim" if name == "num_features" else name
    if value is ...:
        return name
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    return f"{name}={listed(value) if isinstance(value, list) else value}"


def wrong_names(given: Mapping[str, Any]) -> list[str]:
    """Return the names of the hyperparameters that are wrong, for a message without the reasons.

    Examples
    --------
    >>> wrong_names({"predictor_type": "regressor", "epochs": "0", "k": "8"})
    ['epochs', 'k']
    """
    found = [] if not _missing(given.get("predictor_type")) else ["predictor_type"]
    for name, value in given.items():
        needed = {"predictor_type": REGRESSOR}
        if name == "separator" and {"multi", "history"} & given.keys():
            needed["multi"] = "x"  # without either of them, separator itself would be wrong
        try:
            parse({**needed, name: value})
        except ConfigError:
            found.append(name)
    return list(dict.fromkeys(found))


def _option(name: str, value: Any) -> Any:
    if name == "bins":
        return bins(str(value).strip())
    parsed = DATA_OPTIONS[name].parse(value)
    return names(parsed) if name in _LISTS else parsed


def _missing(value: Any) -> bool:
    return value is None or isinstance(value, str) and value.strip() in ("", '""', "None", "null")
