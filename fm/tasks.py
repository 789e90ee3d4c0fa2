"""The tasks: what ``predictor_type`` may be, and all that depends on it, one record each.

Decided here: which loss a task has, which targets are valid, where the bias starts, what early
stopping may watch and in which direction it is better, what metrics are called in the log of a
training job. Nobody compares the name of a task: who needs to know something asks the record.

To add one: a loss in ``fm.measures.losses`` if it has none yet, an entry in :data:`TASKS`, and
default hyperparameters in ``fm.recipes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fm.errors import Advice, DataError
from fm.measures.losses import Logistic, Loss, Squared
from fm.measures.predictions import (
    classification_metrics,
    classification_of_sums,
    classification_terms,
    log_odds,
    regression_metrics,
    regression_of_sums,
    regression_terms,
)

REGRESSOR, CLASSIFIER, RANKER = "regressor", "binary_classifier", "ranker"
LOWER, HIGHER = "lower", "higher"  # is better


class LogName(NamedTuple):
    """What a metric is called in the log of a training job.

    Attributes
    ----------
    shown : str
        In the built-in algorithm's spelling.
    name : str
        In the names of SageMaker's metrics, such as ``validation:rmse``.
    rows : str
        The rows it is told of: some of train, validation and test.
    """

    shown: str
    name: str
    rows: str = "train validation test"


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes
    ----------
    name : str
        The value of ``predictor_type``.
    noun : str
        What a message calls its model.
    about : str
        What is learnt, for help texts.
    loss : Loss
        Of a row's score; a ranker's is that of drawn negatives as rows of label 0, and of folding
        in.
    start : callable
        The mean of the targets -> the best score if it is the same for all rows.
    measure : callable
        (scores, y, weight) -> name and value of each metric.
    row_terms, of_sums : callable
        The same metrics for rows that come in parts: (scores, y) -> what is summed up, for each
        row; and the sums -> metrics.
    watched : mapping of str to str
        What early stopping may watch, and whether lower or higher is better; the first is the
        default.
    training_loss : tuple of str and float
        The metric that is the training loss times a number.
    log : mapping of str to LogName
        The metrics in the log of a training job.
    labels : bool
        Whether targets are labels, 0 and 1.
    valid : callable, optional
        Targets -> whether the loss can use each; None: any number will do.
    expects : str
        What a valid target is, for messages.
    like : str
        The task whose default hyperparameters (``fm.recipes``) hold for this one, too; empty: it
        has its own.
    has_probabilities : bool
        Whether ``loss.link`` of a score is the probability of label 1.
    scales_target : bool
        Whether training may run on (y - mean) / std.
    ranks : bool
        Whether rows are interactions, and lists of items are what is judged.
    optimizer : str
        The optimizer if none is named.
    """

    name: str
    noun: str
    about: str
    loss: Loss
    start: Callable[[float], float]
    measure: Callable[..., dict[str, float]]
    row_terms: Callable[[np.ndarray, np.ndarray], list[np.ndarray]]
    of_sums: Callable[..., dict[str, float]]
    watched: Mapping[str, str]
    training_loss: tuple[str, float]
    log: Mapping[str, LogName] = field(default_factory=dict)
    labels: bool = False
    valid: Callable[[np.ndarray], np.ndarray] | None = None
    expects: str = "a number"
    like: str = ""
    has_probabilities: bool = False
    scales_target: bool = False
    ranks: bool = False
    optimizer: str = "sgd"

    @property
    def metric(self) -> str:
        """The metric that early stopping watches if none is named."""
        return next(iter(self.watched))

    def is_better(self, metric: str, a: float, b: float) -> bool:
        """Whether a is the better value of a metric; a NaN is never better."""
        return a > b if self.watched[metric] == HIGHER else a < b

    def first_wrong_target(self, y: np.ndarray) -> int | None:
        """Return the position of the first target that the loss cannot use, if any."""
        if self.valid is None:
            return None
        wrong = ~self.valid(y)
        return int(np.argmax(wrong)) if wrong.any() else None

    def wrong_target(self, place: str, y: float) -> DataError:
        """Return the error for a target that :meth:`first_wrong_target` found at a place."""
        what = "label" if self.labels else "target"
        return DataError(
            f"{place}: {what} {y:g}, but a {self.noun} expects {self.expects}",
            Advice("convert the labels or use {predictor_type}", predictor_type=REGRESSOR),
        )

    def predictions(self, scores: np.ndarray) -> np.ndarray:
        """Return what people expect of ``predict``: labels, int64, or the expected target."""
        if self.has_probabilities:
            return np.asarray(scores >= 0, dtype=np.int64)
        return scores if self.ranks else self.loss.link(scores)

    def constant(self, y: np.ndarray, weight: np.ndarray | None = None) -> float:
        """Return the best score if it has to be the same for all rows with these targets."""
        return self.start(float(np.average(y.astype(np.float64), weights=weight)))

    def baseline(self, score: float, y: np.ndarray, weight: Any = None) -> dict[str, float]:
        """Return the metrics of answering every row with the same score."""
        return self.measure(np.full(len(y), score), y, weight)


_REGRESSION_LOG = {
    "rmse": LogName("rmse <loss>", "rmse"),
    "mse": LogName("mse <loss>", "mse"),
    "mae": LogName("absolute_loss <loss>", "absolute_loss"),
}
_CLASSIFICATION_LOG = {
    "accuracy": LogName("binary_classification_accuracy <score>", "binary_classification_accuracy"),
    "log_loss": LogName(
        "binary_classification_cross_entropy <loss>", "binary_classification_cross_entropy"
    ),
    "f1": LogName("binary_f_1.000 <score>", "binary_f_beta"),
    "auc": LogName("roc_auc <score>", "roc_auc", "validation"),
}
_RANKING_LOG = {
    "loss": LogName("ranking_loss <loss>", "ranking_loss", "train"),
    "ndcg": LogName("ndcg_10 <score>", "ndcg", "validation test"),
    "hit_rate": LogName("hit_rate_10 <score>", "hit_rate", "validation test"),
}


def _is_label(y: np.ndarray) -> np.ndarray:
    return np.asarray((y == 0) | (y == 1))


_LABELS: dict[str, Any] = {"labels": True, "valid": _is_label, "expects": "0 or 1"}

TASKS = {
    task.name: task
    for task in (
        Task(
            name=REGRESSOR,
            noun="regressor",
            about="a number with squared loss",
            loss=Squared(),
            start=lambda mean: mean,
            measure=regression_metrics,
            row_terms=regression_terms,
            of_sums=regression_of_sums,
            watched={"rmse": LOWER, "mae": LOWER},
            training_loss=("mse", 2.0),
            log=_REGRESSION_LOG,
            scales_target=True,
        ),
        Task(
            name=CLASSIFIER,
            noun="binary classifier",
            about="a 0/1 label with log loss",
            loss=Logistic(),
            start=log_odds,
            measure=classification_metrics,
            row_terms=classification_terms,
            of_sums=classification_of_sums,
            watched={"log_loss": LOWER, "accuracy": HIGHER, "f1": HIGHER, "auc": HIGHER},
            training_loss=("log_loss", 1.0),
            log=_CLASSIFICATION_LOG,
            **_LABELS,
            has_probabilities=True,
        ),
        Task(
            name=RANKER,
            noun="ranker",
            about="or, of rows that are interactions, to score the items met above the others",
            loss=Logistic(),
            start=log_odds,
            measure=classification_metrics,
            row_terms=classification_terms,
            of_sums=classification_of_sums,
            watched={"ndcg": HIGHER, "hit_rate": HIGHER},
            training_loss=("log_loss", 1.0),
            log=_RANKING_LOG,
            **_LABELS,
            ranks=True,
            # A ranker's rows of context and negatives have features as common as the hour and as
            # rare as an app: rates of their own serve them better (frappe: NDCG at 10 of 0.34
            # instead of 0.23).
            optimizer="adagrad",
        ),
    )
}
