"""The losses, each one record: value, derivatives, link, and what the kernels compile of it.

A loss is a named tuple, so that a training kernel can take it as an argument: its *type* chooses
the code when the kernel is compiled (see ``fm.kernels.losses``). Everything here is plain numpy;
nothing loads the compiler. ``terms`` is the one function that is compiled: it takes single float32
numbers and may use ``math``, ``abs`` and numpy's types. Tests hold it against ``value`` and
``gradient``, and these against finite differences, for every loss in ``fm.tasks``.

To add one: a class here, and a task in ``fm.tasks`` that uses it.

References
----------
Rendle, S. (2010). Factorization Machines. ICDM, section III-C.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray
f4 = np.float32


class Loss(Protocol):
    """What a loss offers."""

    @staticmethod
    def is_quadratic() -> bool:
        """Whether one step of Newton's method reaches the minimum."""

    @staticmethod
    def value(scores: Array, y: Array) -> Array:
        """Return the loss of each row, float64."""

    @staticmethod
    def gradient(scores: Array, y: Array) -> Array:
        """Return the derivative of each row's loss by its score, float64."""

    @staticmethod
    def curvature(scores: Array) -> Array:
        """Return the second derivative of each row's loss by its score, float64."""

    @staticmethod
    def link(scores: Array) -> Array:
        """Return what the scores predict: the expected target."""

    @staticmethod
    def terms(loss: Any, p: Any, y: Any) -> Any:
        """Return (g, a, f) of one row: the derivative by the score p; the loss is a + log(f).

        Compiled. The kernel multiplies the f of many rows before it takes one logarithm.
        """


def sigmoid(scores: Array) -> Array:
    """Return 1 / (1 + exp(-scores)) without overflow, in the dtype of `scores`.

    Written out because scipy.special would take a tenth of the time of a first training to import.
    """
    e = np.exp(-np.abs(scores))
    result: Array = np.where(np.asarray(scores) >= 0, 1 / (1 + e), e / (1 + e))
    return result


def _f64(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64)


class Squared(NamedTuple):
    """Half the squared error, so that its gradient is prediction - target, as the built-in's is."""

    @staticmethod
    def is_quadratic() -> bool:
        """Return True."""
        return True

    @staticmethod
    def value(scores: Array, y: Array) -> Array:
        """Return (score - y)^2 / 2."""
        return np.asarray(0.5 * (_f64(scores) - _f64(y)) ** 2)

    @staticmethod
    def gradient(scores: Array, y: Array) -> Array:
        """Return score - y."""
        return np.asarray(_f64(scores) - _f64(y))

    @staticmethod
    def curvature(scores: Array) -> Array:
        """Return 1."""
        return np.ones(np.shape(scores))

    @staticmethod
    def link(scores: Array) -> Array:
        """Return the scores themselves."""
        return scores

    @staticmethod
    def terms(loss: Any, p: Any, y: Any) -> Any:
        """Return the derivative, the loss, and 1."""
        g = p - y
        return g, np.float64(f4(0.5) * g * g), 1.0


class Logistic(NamedTuple):
    """Log loss of labels 0 and 1: -y log(q) - (1 - y) log(1 - q) with q = sigmoid(score)."""

    @staticmethod
    def is_quadratic() -> bool:
        """Return False."""
        return False

    @staticmethod
    def value(scores: Array, y: Array) -> Array:
        """Return log(1 + exp(score)) - y score, which is the log loss in a stable form."""
        scores = _f64(scores)
        return np.asarray(np.logaddexp(0.0, scores) - _f64(y) * scores)

    @staticmethod
    def gradient(scores: Array, y: Array) -> Array:
        """Return sigmoid(score) - y."""
        return np.asarray(sigmoid(_f64(scores)) - _f64(y))

    @staticmethod
    def curvature(scores: Array) -> Array:
        """Return q (1 - q)."""
        q = sigmoid(scores)
        return np.asarray(q * (1 - q))

    @staticmethod
    def link(scores: Array) -> Array:
        """Return the probability of label 1."""
        return sigmoid(scores)

    @staticmethod
    def terms(loss: Any, p: Any, y: Any) -> Any:
        """Return the derivative, max(p, 0) - y p, and 1 + exp(-|p|)."""
        e = f4(math.exp(-abs(p)))  # never overflows
        q = f4(1.0) / (f4(1.0) + e)
        positive = p  # max(p, 0), and NaN for NaN
        if p < f4(0.0):
            q = e * q
            positive = f4(0.0)
        return q - y, np.float64(positive - y * p), 1.0 + np.float64(e)
