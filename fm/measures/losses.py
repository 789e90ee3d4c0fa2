"""The two losses, in plain numpy: value, gradient by the score, link, and valid targets.

The compiled twins that the training kernels call are in ``fm.kernels.rows``; tests compare both.

References
----------
Rendle, S. (2010). Factorization Machines. ICDM, section III-C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

REGRESSOR = "regressor"
CLASSIFIER = "binary_classifier"
RANKER = "ranker"  # its losses are those of fm.kernels.rows.Logistic and of fm.kernels.pairs


@dataclass(frozen=True)
class Loss:
    """A loss as a value.

    Attributes
    ----------
    name : str
        Name in messages.
    value : callable
        (scores, y) -> loss of each row, float64.
    gradient : callable
        (scores, y) -> derivative of each row's loss by its score, float64.
    link : callable
        scores -> predictions: the identity, or the probability of label 1.
    """

    name: str
    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    link: Callable[[Array], Array]


def sigmoid(scores: Array) -> Array:
    """Return 1 / (1 + exp(-scores)) without overflow, in the dtype of `scores`.

    Written out because scipy.special would take a tenth of the time of a first training to import.
    """
    e = np.exp(-np.abs(scores))
    result: Array = np.where(np.asarray(scores) >= 0, 1 / (1 + e), e / (1 + e))
    return result


def _f64(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64)


def _log_loss(scores: Array, y: Array) -> Array:
    scores = _f64(scores)
    loss: Array = np.logaddexp(0.0, scores) - _f64(y) * scores
    return loss  # -y log(p) - (1 - y) log(1 - p), but stable


def first_wrong_label(y: Array) -> int | None:
    """Return the position of the first target that log loss cannot use (not 0 or 1), if any."""
    wrong = (y != 0) & (y != 1)
    return int(np.argmax(wrong)) if wrong.any() else None


# Half the squared error, so that its gradient is prediction - target, as the built-in's is.
SQUARED = Loss(
    "squared loss",
    value=lambda scores, y: 0.5 * (_f64(scores) - _f64(y)) ** 2,
    gradient=lambda scores, y: _f64(scores) - _f64(y),
    link=lambda scores: scores,
)
LOGISTIC = Loss(
    "log loss",
    value=_log_loss,
    gradient=lambda scores, y: sigmoid(_f64(scores)) - _f64(y),
    link=sigmoid,
)
LOSSES = {REGRESSOR: SQUARED, CLASSIFIER: LOGISTIC}
