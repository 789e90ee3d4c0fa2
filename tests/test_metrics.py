"""The metrics against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from sklearn import metrics as theirs

from fm.measures.predictions import (
    classification_metrics,
    log_odds,
    regression_metrics,
)
from fm.tasks import CLASSIFIER, REGRESSOR, TASKS


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_equals_scikit_learn(weighted, rng):
    y, scores = rng.normal(3, 2, 300), rng.normal(3, 2, 300).astype(np.float32)
    weight = rng.uniform(0, 2, 300).astype(np.float32) if weighted else None
    found = regression_metrics(scores, y, weight)
    assert found["rmse"] == pytest.approx(
        theirs.root_mean_squared_error(y, scores, sample_weight=weight)
    )
    assert found["mse"] == pytest.approx(theirs.mean_squared_error(y, scores, sample_weight=weight))
    assert found["mae"] == pytest.approx(
        theirs.mean_absolute_error(y, scores, sample_weight=weight)
    )


def expected_classification(scores, y, weight):
    probability = expit(scores)
    more = {"sample_weight": weight}
    return {
        "log_loss": theirs.log_loss(y, probability, labels=[0, 1], **more),
        "accuracy": theirs.accuracy_score(y, probability >= 0.5, **more),
        "f1": theirs.f1_score(y, probability >= 0.5, zero_division=0, **more),
        "auc": theirs.roc_auc_score(y, scores, **more),
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_classification_equals_scikit_learn(weighted, ties, rng):
    y = rng.integers(0, 2, 400).astype(np.float32)
    scores = rng.normal(y, 2)
    if ties:
        scores = np.round(scores)
        assert np.unique(scores).size < 30 and (scores == 0).any()
    weight = rng.uniform(0, 2, 400).astype(np.float32) if weighted else None
    found = classification_metrics(scores, y, weight)
    assert found == pytest.approx(expected_classification(scores, y, weight), rel=1e-9)


@given(
    arrays(np.float64, 12, elements=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0])),
    arrays(np.bool_, 12),
    arrays(np.float32, 12, elements=st.sampled_from([0.0, 0.5, 1.0, 3.0])),
)
def test_any_classification_equals_scikit_learn(scores, y, weight):
    if weight[y].sum() == 0 or weight[~y].sum() == 0:
        return  # scikit-learn has no area there; see the next test
    found = classification_metrics(scores, y, weight)
    assert found == pytest.approx(expected_classification(scores, y, weight), abs=1e-12)


def test_one_label_has_no_area_and_f1_of_nothing_is_zero():
    scores = np.array([1.0, 2.0])
    assert np.isnan(classification_metrics(scores, np.ones(2))["auc"])
    assert classification_metrics(-scores, np.zeros(2))["f1"] == 0
    assert classification_metrics(scores, np.ones(2))["f1"] == 1


def test_weights_count_as_repetitions(rng):
    scores, y, weight = rng.normal(size=50), rng.integers(0, 2, 50), rng.integers(0, 4, 50)
    repeated = classification_metrics(np.repeat(scores, weight), np.repeat(y, weight))
    assert classification_metrics(scores, y, weight) == pytest.approx(repeated)
    repeated = regression_metrics(np.repeat(scores, weight), np.repeat(y, weight))
    assert regression_metrics(scores, y, weight) == pytest.approx(repeated)


def test_far_scores_keep_a_finite_log_loss():
    found = classification_metrics(np.array([1e4, -1e4]), np.array([0, 1]))
    assert found["log_loss"] == 1e4 and found["accuracy"] == 0 and found["auc"] == 0


def test_float32_scores_are_summed_in_float64():
    scores = np.full(100_000, 4096.1, np.float32)
    error = float(np.float32(4096.1)) - 1.0
    assert regression_metrics(scores, np.ones(100_000))["mse"] == pytest.approx(error**2, rel=1e-12)


def baseline(task, y):
    return TASKS[task].baseline(TASKS[task].constant(y), y)


def test_the_constant_baseline_is_the_best_constant(rng):
    y = rng.normal(3, 2, 500)
    assert baseline(REGRESSOR, y)["rmse"] == pytest.approx(y.std())
    label = (rng.random(500) < 0.3).astype(float)
    best = baseline(CLASSIFIER, label)["log_loss"]
    assert best == pytest.approx(theirs.log_loss(label, np.full(500, label.mean())))
    measure = TASKS[CLASSIFIER].measure
    worse = [measure(np.full(500, s), label)["log_loss"] for s in (-1.5, 0.0, 1.0)]
    assert best < min(worse)


def test_log_odds_is_the_inverse_of_the_sigmoid_and_finite_at_the_ends():
    assert expit(log_odds(0.2)) == pytest.approx(0.2)
    assert -15 < log_odds(0.0) < -13 < 13 < log_odds(1.0)


def test_which_direction_is_better():
    lower = {"rmse", "mae", "log_loss"}
    for task in TASKS.values():
        for metric in task.watched:
            better, worse = (1.0, 2.0) if metric in lower else (2.0, 1.0)
            assert task.is_better(metric, better, worse)
            assert not task.is_better(metric, worse, better)
            assert not task.is_better(metric, 1.0, 1.0)
            assert not task.is_better(metric, float("nan"), 1.0)
