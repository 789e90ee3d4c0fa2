"""How well a model predicts targets, beside the best constant prediction.

Decided here: what is measured together, and that a table larger than the memory can be measured.
Not decided here: what a figure means (``fm.measures.predictions``), how lists are measured
(``fm.evaluating.rankings``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.model.model import Model


def evaluate_predictions(model: Model, test: Any, **options: Any) -> dict[str, Any]:
    """Return the metrics of a model on rows with targets, and those of the best constant.

    Parameters
    ----------
    model : Model
    test : path, frame, matrix, or anything else that :func:`fm.read` takes
        Read in batches: a table may be larger than the memory.
    **options
        Options of :func:`fm.reading.read.read_batches`, such as `target`.

    Returns
    -------
    dict
        ``rows``, ``predictor_type``, ``metrics`` and ``baseline``, the last two from name to value.

    Raises
    ------
    DataError
        If rows have no target, a classifier's is not 0 or 1, or all weights are 0.
    ConfigError
        If the model is a ranker, which predicts no target.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(1.0, [1.0, 2.0], [[0.0], [0.0]], TrainConfig(num_factors=1))
    >>> evaluate_predictions(model, (np.eye(2), [2.0, 4.0]))["metrics"]["mse"]
    0.5
    """
    from fm.reading.read import read_batches

    task = model.task
    if task.ranks:
        raise ConfigError(
            "evaluate: the model is a ranker, whose scores predict no target; measure its lists, "
            "with --ranking or fm.evaluate_ranking"
        )
    options = {**model.reading_options(test, options.get("format")), **options}
    scores, targets, weights = [], [], []
    first = 0
    for rows in read_batches(test, require_target=True, **options):
        if task.labels and rows.y is not None:
            rows = rows.labelled(model.labels)
        targets.append(_targets(model, rows, first))
        scores.append(model.scores(rows))
        if rows.weight is not None:
            weights.append(rows.weight)
        first += rows.num_rows
    y = np.concatenate(targets)
    weight = np.concatenate(weights) if weights else None
    if weight is not None and not weight.any():
        raise DataError(f"{rows.source}: expected a weight above 0, found all of them 0")
    return {
        "rows": first,
        "predictor_type": task.name,
        "metrics": task.measure(np.concatenate(scores), y, weight),
        "baseline": task.baseline(task.constant(y), y, weight),
    }


def _targets(model: Model, rows: Dataset, first: int) -> np.ndarray:
    if rows.y is None:
        raise DataError(f"{rows.source}: expected a target in each row; name it with target=")
    y = rows.y
    at = model.task.first_wrong_target(y)
    if at is not None:
        raise DataError(
            f"{rows.source} row {first + at + 1}: expected label 0 or 1, because the model is a "
            f"{model.task.noun}, found {y[at]:g}"
        )
    return y
