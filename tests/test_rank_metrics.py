"""The figures of ranked lists against their definitions, list by list, and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from fm.measures.rankings import (
    auc,
    best_of,
    coverage,
    means,
    novelty,
    others_above,
    ranking_metrics,
)

INF = float("inf")


def csr(lists):
    return np.cumsum([0, *map(len, lists)]), np.array([i for part in lists for i in part], int)


def figures_by_hand(listed, wanted):
    """The definitions, one item after the other."""
    k, listed, wanted = len(listed), [i for i in listed if i >= 0], set(wanted)
    ranks = [r for r, item in enumerate(listed, 1) if item in wanted]
    precisions = [len([q for q in ranks if q <= r]) / r for r in ranks]
    best = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(wanted)) + 1))
    return {
        "precision": len(ranks) / k,
        "recall": len(ranks) / len(wanted),
        "hit_rate": float(bool(ranks)),
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "map": sum(precisions) / min(k, len(wanted)),
        "ndcg": sum(1 / math.log2(r + 1) for r in ranks) / best,
    }


@st.composite
def ranked(draw):
    num_items, k = draw(st.integers(1, 9)), draw(st.integers(1, 11))
    items = st.permutations(range(num_items))
    listed, wanted = [], []
    for _ in range(draw(st.integers(1, 5))):
        found = draw(items)[: draw(st.integers(0, k))][:k]
        listed.append(found + [-1] * (k - len(found)))
        wanted.append(draw(items)[: draw(st.integers(1, num_items))])
    return listed, wanted


@given(ranked())
@settings(max_examples=150, deadline=None)
def test_the_figures_are_as_defined(case):
    listed, wanted = case
    found = ranking_metrics(np.array(listed), *csr(wanted))
    for i, expected in enumerate(map(figures_by_hand, listed, wanted)):
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected)
        assert all(0 <= values[i] <= 1 + 1e-12 for values in found.values())


def test_ndcg_and_map_equal_scikit_learn(rng):
    scores = rng.normal(size=(50, 30))
    truth = rng.random((50, 30)) < 0.2
    truth[:, 0] = True
    wanted = csr([np.flatnonzero(row) for row in truth])
    for k in (1, 5, 30, 40):
        found = ranking_metrics(best_of(scores, k), *wanted)
        for i in range(50):
            assert found["ndcg"][i] == pytest.approx(
                ndcg_score(truth[i : i + 1], scores[i : i + 1], k=k)
            )
    whole = ranking_metrics(best_of(scores, 30), *wanted)["map"]
    assert whole == pytest.approx(
        [average_precision_score(*both) for both in zip(truth, scores, strict=True)]
    )


def test_a_perfect_list_has_1_and_a_list_without_relevant_items_has_nothing():
    found = ranking_metrics(
        np.array([[2, 5], [0, 1], [-1, -1]]), np.array([0, 3, 3, 4]), np.array([5, 2, 9, 7])
    )
    assert found["map"][0] == found["ndcg"][0] == found["precision"][0] == 1
    assert found["recall"][0] == pytest.approx(2 / 3)
    assert all(np.isnan(values[1]) for values in found.values())
    assert all(values[2] == 0 for values in found.values())
    assert means(found)["ndcg"] == 0.5


scores_with_ties = st.lists(
    st.lists(st.sampled_from([-INF, -1.0, -0.0, 0.0, 2.0, 3.5]), min_size=7, max_size=7), max_size=5
)


@given(scores_with_ties, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_best_of_is_a_sort(rows, k):
    found = best_of(np.array(rows, np.float32).reshape(-1, 7), k)
    assert found.shape == (len(rows), k) and found.dtype == np.int32
    for listed, row in zip(found.tolist(), rows, strict=True):
        best = sorted((-score, i) for i, score in enumerate(row) if score > -INF)[:k]
        assert listed == [i for _, i in best] + [-1] * (k - len(best))


def test_best_of_no_items():
    assert best_of(np.zeros((2, 0)), 3).tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize("count", [1, 5, 40])  # few are compared, many are sorted
def test_auc_equals_scikit_learn_where_some_are_left_out(count, rng):
    scores = np.round(rng.normal(size=(20, 90)), 1)
    assert np.unique(scores).size < 90
    scores[:, 80:] = -np.inf
    wanted = [rng.choice(80, count, replace=False) for _ in scores]
    indptr, relevant = csr(wanted)
    before = scores.copy()
    above, others = others_above(scores, indptr, relevant)
    assert (scores == before).all() and (others == 80 - count).all()
    found = auc(above, indptr, others)
    for i, part in enumerate(wanted):
        truth = np.isin(np.arange(80), part)
        assert found[i] == pytest.approx(roc_auc_score(truth, scores[i, :80]))


def test_an_item_without_a_score_is_below_all_others():
    scores = np.array([[1.0, 2.0, 3.0], [5.0, -np.inf, -np.inf]])
    above, others = others_above(scores, np.array([0, 2, 3]), np.array([2, 3, 0]))
    assert above.tolist() == [0, 2, 0] and others.tolist() == [2, 0]
    found = auc(above, np.array([0, 2, 3]), others)
    assert found[0] == 0.5 and np.isnan(found[1])  # of no others, nothing can be said


def test_coverage_and_novelty():
    lists = np.array([[0, 2], [2, -1]])
    assert coverage(lists, 8) == 0.25
    assert novelty(lists, np.array([4, 9, 0]), 4) == pytest.approx((0 + 2 + 2) / 3)
    assert (
        math.isnan(novelty(np.array([[-1]]), np.array([1]), 1)) and coverage(lists * 0 - 1, 5) == 0
    )


def test_means_leave_out_what_is_not_there():
    found = means({"a": np.array([1.0, np.nan]), "b": np.array([np.nan])})
    assert found["a"] == 1 and math.isnan(found["b"])
