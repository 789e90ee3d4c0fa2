"""Decisions and checks before the first epoch, and the error of a training that has diverged."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import Advice, ConfigError, DataError, DivergenceError
from fm.model.model import Model
from fm.tasks import CLASSIFIER, REGRESSOR

logger = logging.getLogger("fm")


def check_kinds(data: Any, config: Any, validation: Any) -> None:
    """Refuse arguments of :func:`fm.fit` of the wrong kind."""
    kinds = {"data": (data, Dataset), "config": (config, TrainConfig)}
    kinds["validation"] = (validation, Dataset)
    for name, (value, kind) in kinds.items():
        if value is not None and not isinstance(value, kind):
            made = "fm.read(...)" if kind is Dataset else "fm.TrainConfig(...)"
            raise ConfigError(
                f"{name}: expected a {kind.__name__}, found {type(value).__name__}; make one with "
                f"{made}"
            )


def with_task(config: TrainConfig, data: Dataset, init: Model | None = None) -> TrainConfig:
    """Return the config with a task: named, that of the model to start from, or as targets say.

    Targets that are all 0 or 1, and both, or all -1 or 1, are labels; others are numbers.
    """
    if config.predictor_type is not None or data.y is None or not data.y.size:
        return config
    if init is not None:
        return replace(config, predictor_type=init.task.name)
    low, high = data.y.min(), data.y.max()  # np.unique would take as long as an epoch
    two = low < high and bool(((data.y == low) | (data.y == high)).all())
    if two and (low, high) in ((0, 1), (-1, 1)):
        logger.info(
            "all targets are %g or 1: predictor_type is %s, which predicts the probability of 1; "
            "%s",
            low, CLASSIFIER, Advice("say {predictor_type} for numbers", predictor_type=REGRESSOR),
        )  # fmt: skip
        return replace(config, predictor_type=CLASSIFIER)
    if two:
        logger.warning(
            "the targets are only %g and %g, and predictor_type is %s; for probabilities make them "
            "0 and 1",
            low, high, REGRESSOR,
        )  # fmt: skip
    return replace(config, predictor_type=REGRESSOR)


def check_init(init: Model | None, data: Dataset) -> None:
    """Refuse a model to start from whose features are numbered by another encoder."""
    if init is None or data.encoder is None or init.encoder is None:
        return
    if data.encoder != init.encoder:
        raise ConfigError(
            f"init: expected a model of the encoder that {data.source} was read with, because "
            "feature numbers mean something else in another; read the data with "
            "encoder=init.encoder"
        )


def with_targets(data: Dataset, config: TrainConfig) -> Dataset:
    """Return rows with targets as the task takes them; refuse rows that it cannot learn from."""
    data.targets  # noqa: B018  raises DataError if there are none
    for count, what in ((data.num_rows, "rows"), (data.num_features, "features")):
        if not count:
            raise DataError(f"{data.source}: no {what}; expected at least one")
    if data.weight is not None and not data.weight.any():
        raise DataError(f"{data.source}: all weights are 0; nothing to train on")
    return labelled(data, config)


def converted(data: Dataset, config: TrainConfig) -> Dataset:
    """Return rows with targets as the task takes them, which may yet be wrong ones."""
    y = config.task.targets(data.targets)
    return data if y is data.targets else replace(data, y=y, _cache={})


def labelled(data: Dataset, config: TrainConfig) -> Dataset:
    """Return rows with targets as the task takes them; refuse those that it cannot use."""
    data = converted(data, config)
    row = config.task.first_wrong_target(data.targets)
    if row is not None:
        place = f"{data.source} row {row + 1}"
        raise config.task.wrong_target(place, float(data.targets[row]))
    return data


def checked_validation(
    validation: Dataset | None, data: Dataset, config: TrainConfig
) -> Dataset | None:
    """Return the validation rows with the features of the training rows."""
    if validation is None:
        return None
    one, other = validation.encoder, data.encoder
    if one is not None and other is not None and one != other:
        raise DataError(
            f"{validation.source}: the rows were encoded by another encoder than those of "
            f"{data.source}, so their feature numbers mean something else; read them with "
            "encoder=data.encoder"
        )
    validation = widened(validation, data.num_features)
    return with_targets(validation, config)


def widened(data: Dataset, feature_dim: int | None) -> Dataset:
    """Return data with as many features as the hyperparameter says; refuse data with more."""
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


def largest(data: Dataset) -> tuple[str, float]:
    """Return the feature with the entry of the largest size, and that entry."""
    at = int(np.argmax(np.abs(data.X.data)))
    return data.feature_name(int(data.X.indices[at])), float(data.X.data[at])


def diverged(
    data: Dataset,
    config: TrainConfig,
    epoch: int,
    what: str = "the loss is no longer a finite number",
) -> DivergenceError:
    """Return the error for a loss that has blown up in an epoch (from 1), with the likely cause."""
    cause = ""
    if data.X.nnz:
        name, value = largest(data)
        if abs(value) > 100:
            cause = (
                f"likely cause: {name} is not scaled (it reaches {value:g}); standardise that "
                "column or divide it"
            )
    if not cause:
        rates = ", ".join(
            f"{part}_lr {getattr(config, part + '_lr'):g}" for part in ("bias", "linear", "factors")
        )
        cause = f"likely cause: the step size ({rates}); divide the learning rates by 10"
    return DivergenceError(f"{data.source}: training diverged in epoch {epoch} ({what}); {cause}")
