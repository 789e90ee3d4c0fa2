"""The figures by which a model is judged, in plain numpy.

Early stopping needs them after every epoch, and an epoch on a small data set takes a millisecond:
importing scikit-learn alone would cost more than the whole training. Tests hold each of them
against scikit-learn's.
"""

from __future__ import annotations

import numpy as np

from fm.measures.losses import Logistic


def regression_metrics(
    scores: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float]:
    """Return rmse, mse and mae of predictions `scores` of the targets y, all shape (rows,).

    Examples
    --------
    >>> regression_metrics(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    {'rmse': 1.4142135623730951, 'mse': 2.0, 'mae': 1.0}
    """
    error = np.asarray(scores, np.float64) - y
    mse = _mean(error * error, weight)
    return {"rmse": float(np.sqrt(mse)), "mse": mse, "mae": _mean(np.abs(error), weight)}


def classification_metrics(
    scores: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float]:
    """Return log_loss, accuracy, f1 and auc of raw scores (before the sigmoid) and labels 0/1.

    A row counts as predicted 1 if its probability is at least 0.5. `auc` is NaN where y holds one
    label only; `f1` is 0 where no label 1 was found.

    Examples
    --------
    >>> metrics = classification_metrics(np.array([-1.0, 2.0, 1.0]), np.array([0, 1, 0]))
    >>> round(metrics["log_loss"], 4), metrics["auc"]
    (0.5845, 1.0)
    """
    scores = np.asarray(scores, np.float64)
    positive = np.asarray(y) > 0.5
    predicted = scores >= 0
    if weight is None:
        both, either = np.sum(predicted & positive), np.sum(predicted) + np.sum(positive)
    else:
        weight = weight.astype(np.float64)
        both = np.sum(weight[predicted & positive])
        either = np.sum(weight[predicted]) + np.sum(weight[positive])
    return {
        "log_loss": _mean(Logistic.value(scores, y), weight),
        "accuracy": _mean((predicted == positive).astype(np.float64), weight),
        "f1": float(2 * both / either) if either > 0 else 0.0,
        "auc": _auc(scores, positive, weight),
    }


def regression_terms(scores: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Return what the metrics of a regression sum up, for each row: 1, squared, absolute error."""
    error = scores - y
    return [np.ones(scores.size), error * error, np.abs(error)]


def regression_of_sums(count: float, squared: float, absolute: float) -> dict[str, float]:
    """Return rmse, mse and mae, given the sums of :func:`regression_terms` over all rows.

    Examples
    --------
    >>> regression_of_sums(2, 4.0, 2.0)
    {'rmse': 1.4142135623730951, 'mse': 2.0, 'mae': 1.0}
    """
    mse = squared / count
    return {"rmse": mse**0.5, "mse": mse, "mae": absolute / count}


def classification_terms(scores: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Return for each row: 1, log loss, whether it is a hit, both are 1, how many are 1."""
    one, guess = y > 0.5, scores >= 0
    loss = Logistic.value(scores, y)
    return [np.ones(scores.size), loss, one == guess, one & guess, one + guess.astype(int)]


def classification_of_sums(
    count: float, loss: float, hits: float, both: float, either: float
) -> dict[str, float]:
    """Return accuracy, log_loss and f1, given the sums of :func:`classification_terms`."""
    f1 = 2 * both / either if either else 0.0
    return {"accuracy": hits / count, "log_loss": loss / count, "f1": f1}


def log_odds(rate: float) -> float:
    """Return the score whose probability is `rate`, kept finite at 0 and 1."""
    rate = min(max(rate, 1e-6), 1 - 1e-6)
    return float(np.log(rate / (1 - rate)))


def _mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    if weight is None:
        return float(np.mean(values, dtype=np.float64))
    return float(np.average(values, weights=weight.astype(np.float64)))


def _auc(scores: np.ndarray, positive: np.ndarray, weight: np.ndarray | None) -> float:
    """Area under the ROC curve: the chance that a positive scores higher, ties counting half."""
    weight = np.ones(len(scores)) if weight is None else weight.astype(np.float64)
    order = np.argsort(scores, kind="stable")
    scores, positive, weight = scores[order], positive[order], weight[order]
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # last row of each tied group
    ones = np.diff(np.cumsum(weight * positive)[ends], prepend=0.0)
    zeros = np.diff(np.cumsum(weight * ~positive)[ends], prepend=0.0)
    below = np.cumsum(zeros) - zeros
    pairs = ones.sum() * zeros.sum()
    return float(np.sum(ones * (below + 0.5 * zeros)) / pairs) if pairs > 0 else float("nan")
