"""Decisions and checks before the first epoch, and the error of a training that has diverged."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.data.labels import ZERO_ONE, Labels, is_zero_one, listed, of_two_numbers
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

    Targets that are all 0 or 1, and both, are labels, and so are -1 and 1, and texts; others are
    numbers.
    """
    if config.predictor_type is not None or data.y is None or not data.y.size:
        return config
    if init is not None:
        return replace(config, predictor_type=init.task.name)
    if data.labels is not None and not is_zero_one(data.labels):
        logger.info(
            "the targets are %s: predictor_type is %s, which predicts the probability of %r; %s",
            listed(data.labels), CLASSIFIER, data.labels[1],
            Advice("say {positive} for the other", positive=data.labels[0]),
        )  # fmt: skip
        return replace(config, predictor_type=CLASSIFIER)
    found = of_two_numbers(data.y)
    if found in (ZERO_ONE, (-1, 1)):
        logger.info(
            "all targets are %d or 1: predictor_type is %s, which predicts the probability of 1; "
            "%s",
            found[0], CLASSIFIER,
            Advice("say {predictor_type} for numbers", predictor_type=REGRESSOR),
        )  # fmt: skip
        return replace(config, predictor_type=CLASSIFIER)
    if found is not None:
        logger.warning(
            "the targets are only %g and %g, and predictor_type is %s; %s",
            *found, REGRESSOR,
            Advice("say {predictor_type} for probabilities", predictor_type=CLASSIFIER),
        )  # fmt: skip
    return replace(config, predictor_type=REGRESSOR)


def with_labels(data: Dataset, config: TrainConfig, known: Labels | None = None) -> Dataset:
    """Return data whose targets are 0 and 1, if the task has labels.

    Parameters
    ----------
    data : Dataset
    config : TrainConfig
        With a task.
    known : tuple of two, optional
        The labels of the training data, or of the model to go on from.

    Raises
    ------
    DataError
        If the targets are two labels and the task needs numbers, or if a label is not known.
    """
    if data.y is None or config.task.ranks:
        return data
    if config.task.labels:
        return data.labelled(known)
    if not is_zero_one(data.labels):
        raise DataError(
            f"{data.source}: a {config.task.noun} expects {config.task.expects} as target, found "
            f"the labels {listed(data.labels or ())}",
            Advice("say {predictor_type}", predictor_type=CLASSIFIER),
        )
    return data


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


def check_targets(data: Dataset, config: TrainConfig) -> None:
    """Refuse rows that the task can neither learn from nor be measured on."""
    data.targets  # noqa: B018  raises DataError if there are none
    for count, what in ((data.num_rows, "rows"), (data.num_features, "features")):
        if not count:
            raise DataError(f"{data.source}: no {what}; expected at least one")
    if data.weight is not None and not data.weight.any():
        raise DataError(f"{data.source}: all weights are 0; nothing to train on")
    check_labels(data, config)


def check_labels(data: Dataset, config: TrainConfig) -> None:
    """Refuse targets that the task cannot use."""
    row = config.task.first_wrong_target(data.targets)
    if row is not None:
        place = f"{data.source} row {row + 1}"
        raise config.task.wrong_target(place, float(data.targets[row]))


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
    check_targets(validation, config)
    return validation


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
