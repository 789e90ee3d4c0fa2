"""The losses: gradients by central differences, extreme scores, and their compiled twins."""

import numba
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, mean_squared_error

from fm.kernels.losses import Clipped, terms
from fm.measures.losses import Logistic, Squared
from fm.tasks import CLASSIFIER, REGRESSOR, TASKS

f4 = np.float32
SQUARED, LOGISTIC = Squared(), Logistic()
LOSSES = {task.name: task.loss for task in TASKS.values()}


@numba.njit
def compiled(loss, p, y):
    return terms(loss, p, y)


def targets(task, rng, size):
    y = rng.normal(0, 3, size) if task == REGRESSOR else rng.integers(0, 2, size).astype(float)
    assert np.unique(y).size > 1  # a constant would test half of the formula
    return y


@pytest.mark.parametrize("task", LOSSES)
def test_gradient_equals_central_differences(task, rng):
    scores, y, h = rng.normal(0, 4, 500), targets(task, rng, 500), 1e-6
    loss = LOSSES[task]
    numeric = (loss.value(scores + h, y) - loss.value(scores - h, y)) / (2 * h)
    np.testing.assert_allclose(loss.gradient(scores, y), numeric, atol=1e-8, rtol=1e-7)


def test_values_equal_scikit_learn(rng):
    scores, y = rng.normal(0, 4, 500), targets(REGRESSOR, rng, 500)
    assert 2 * SQUARED.value(scores, y).mean() == pytest.approx(mean_squared_error(y, scores))
    y = targets(CLASSIFIER, rng, 500)
    assert LOGISTIC.value(scores, y).mean() == pytest.approx(log_loss(y, expit(scores)))


def test_links(rng):
    scores = np.concatenate([rng.normal(0, 4, 50), [0.0, 1e4, -1e4, 800.0, -800.0]])
    assert SQUARED.link(scores) is scores
    np.testing.assert_allclose(LOGISTIC.link(scores), expit(scores), rtol=1e-15)
    single = LOGISTIC.link(scores.astype(f4))
    assert single.dtype == f4
    np.testing.assert_allclose(single, expit(scores), rtol=1e-6, atol=1e-38)


def test_extreme_scores_neither_overflow_nor_lose_the_loss():
    far = np.array([-1e4, 1e4, -800.0, 800.0, 0.0])
    np.testing.assert_allclose(LOGISTIC.value(far, np.zeros(5)), [0, 1e4, 0, 800, np.log(2)])
    np.testing.assert_allclose(LOGISTIC.value(far, np.ones(5)), [1e4, 0, 800, 0, np.log(2)])
    np.testing.assert_array_equal(LOGISTIC.gradient(far, np.zeros(5)), [0, 1, 0, 1, 0.5])
    np.testing.assert_array_equal(SQUARED.value(far[:2], np.zeros(2)), [5e7, 5e7])


def test_float32_input_is_computed_in_float64():
    scores, y = np.array([1e4], f4), np.array([1e-3], f4)
    for loss in LOSSES.values():
        assert loss.value(scores, y).dtype == loss.gradient(scores, y).dtype == np.float64
    assert SQUARED.gradient(scores, y)[0] == 1e4 - np.float64(f4(1e-3))


@pytest.mark.parametrize("task", LOSSES)
def test_the_compiled_loss_equals_the_plain_one(task, rng):
    scores = np.concatenate([rng.normal(0, 5, 200), [0.0, 1e4, -1e4, 90.0, -90.0]]).astype(f4)
    y = targets(task, rng, scores.size).astype(f4)
    for p, target in zip(scores, y, strict=True):
        g, addend, factor = compiled(LOSSES[task], p, target)
        assert g == pytest.approx(LOSSES[task].gradient(p, target), rel=1e-6, abs=2e-7)
        value = LOSSES[task].value(p, target)
        assert addend + np.log(factor) == pytest.approx(value, rel=1e-6, abs=2e-7)
        assert 1 <= factor <= 2  # the kernel multiplies hundreds before it takes a logarithm


@pytest.mark.parametrize("task", LOSSES)
def test_a_compiled_derivative_is_clipped_then_rescaled(task):
    loss = Clipped(LOSSES[task], f4(0.25), f4(3))
    assert compiled(loss, f4(100), f4(0))[0] == f4(0.75)
    assert compiled(loss, f4(-100), f4(1))[0] == f4(-0.75)
    inside, *value = compiled(loss, f4(0.4), f4(0.5))
    assert inside == pytest.approx(3 * LOSSES[task].gradient(0.4, 0.5), rel=1e-6)
    assert value == list(compiled(LOSSES[task], f4(0.4), f4(0.5))[1:])  # the loss is not


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("p", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_shows_in_the_loss(task, p, clip):
    """Fast arithmetic must not delete it: the trainer looks for it in the sum of the losses."""
    for y in (0, 1):
        loss = Clipped(LOSSES[task], f4(1e6), f4(1)) if clip else LOSSES[task]
        _, addend, factor = compiled(loss, f4(p), f4(y))
        right = task != REGRESSOR and p == (np.inf if y else -np.inf)
        assert right or not np.isfinite(addend + np.log(factor))
