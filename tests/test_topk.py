"""Top-k against sorting all scores: ties, exclusions, blocks of every size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fm.recommending.topk
from fm.errors import ConfigError, DataError
from fm.recommending.topk import top_k

f4 = np.float32


def sorted_all(vectors, items, bias, count, excluded=None):
    """The slow twin: every score, then one sort of each row."""
    scores = vectors.astype(np.float64) @ items.T.astype(np.float64) + bias
    numbers = np.full((len(vectors), count), -1)
    best = np.full((len(vectors), count), np.nan, f4)
    for row, of_row in enumerate(scores):
        left = [i for i in range(len(items)) if excluded is None or i not in excluded[row]]
        left.sort(key=lambda i: (-of_row[i], i))
        for place, i in enumerate(left[:count]):
            numbers[row, place], best[row, place] = i, of_row[i]
    return numbers, best


def csr(lists):
    indptr = np.concatenate([[0], np.cumsum([len(part) for part in lists])])
    return indptr, np.array([i for part in lists for i in part], np.int32)


@st.composite
def problems(draw):
    """Small integers, so that all arithmetic is exact and ties abound."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, count = draw(st.integers(0, 9)), draw(st.integers(1, 12))
    num_items, k = draw(st.integers(0, 90)), draw(st.integers(1, 4))
    size = draw(st.sampled_from([0, 1, 5, 1000]))
    vectors = rng.integers(-size, size + 1, (rows, k)).astype(f4)
    items = rng.integers(-size, size + 1, (num_items, k)).astype(f4)
    bias = rng.integers(-size, size + 1, num_items).astype(f4)
    share = draw(st.sampled_from([None, 0.0, 0.3, 1.0]))
    excluded = None
    if share is not None:
        excluded = [rng.permutation(np.flatnonzero(rng.random(num_items) < share)) for _ in vectors]
    sizes = draw(st.sampled_from([(2**21, 512, 256), (64, 4, 4), (16, 2, 2), (200, 3, 16)]))
    return vectors, items, bias, count, excluded, sizes


@settings(max_examples=200, deadline=None)
@given(problems())
def test_equals_sorting_everything(problem):
    vectors, items, bias, count, excluded, (block, rows, groups) = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fm.recommending.topk, "SCORES_AT_ONCE", block)
        patch.setattr(fm.recommending.topk, "_ROWS", rows)
        patch.setattr(fm.recommending.topk, "_GROUPS", groups)
        best = top_k(
            vectors, items, bias, count, exclude=None if excluded is None else csr(excluded)
        )
    numbers, scores = sorted_all(vectors, items, bias, count, excluded)
    np.testing.assert_array_equal(best.numbers, numbers)
    np.testing.assert_array_equal(best.scores, scores)
    assert best.numbers.dtype == np.int32 and best.scores.dtype == f4


@pytest.mark.parametrize("rows", [1, 3, 600])
@pytest.mark.parametrize("count", [1, 10, 300])
def test_large_enough_for_groups_and_several_blocks(rows, count, rng):
    vectors = rng.integers(-9, 10, (rows, 3)).astype(f4)
    items, bias = rng.integers(-9, 10, (9000, 3)).astype(f4), rng.integers(-9, 10, 9000).astype(f4)
    excluded = [rng.choice(9000, 30, replace=False) for _ in range(rows)]
    best = top_k(vectors, items, bias, count, exclude=csr(excluded))
    scores = vectors @ items.T + bias
    for row, numbers in enumerate(excluded):
        scores[row, numbers] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(best.numbers, expected)
    np.testing.assert_array_equal(best.scores, np.take_along_axis(scores, expected, axis=1))


@pytest.mark.parametrize("order", [1, -1])
def test_items_in_the_order_of_their_scores(order, monkeypatch):
    """Rising scores: each block of items replaces all that was kept."""
    monkeypatch.setattr(fm.recommending.topk, "SCORES_AT_ONCE", 2**12)
    bias = np.arange(50_000, dtype=f4)[::order].copy()
    best = top_k(np.zeros((2, 1), f4), np.zeros((50_000, 1), f4), bias, 3)
    expected = [49_999, 49_998, 49_997] if order == 1 else [0, 1, 2]
    assert best.numbers.tolist() == [expected] * 2


def test_zero_and_minus_zero_are_equal():
    best = top_k(np.ones((1, 1), f4), np.array([[-0.0], [0.0], [-0.0]], f4), np.zeros(3, f4), 3)
    assert best.numbers.tolist() == [[0, 1, 2]]


def test_extreme_finite_scores():
    far = np.finfo(f4).max
    items = np.array([[-far], [far], [0], [np.finfo(f4).tiny]], f4)
    best = top_k(np.ones((1, 1), f4), items, np.zeros(4, f4), 4)
    assert best.numbers.tolist() == [[1, 3, 2, 0]]
    assert best.scores.tolist() == [[far, np.finfo(f4).tiny, 0, -far]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(wrong):
    items = np.array([[1], [wrong]], f4)
    with pytest.raises(DataError, match="expected finite numbers, found .* for item number 1"):
        top_k(np.ones((2, 1), f4), items, np.zeros(2, f4), 1)
    with pytest.raises(DataError, match="expected finite numbers"):  # it overflows
        top_k(np.full((1, 1), 1e30, f4), np.full((3, 1), 1e30, f4), np.zeros(3, f4), 1)


def test_count_must_be_positive():
    with pytest.raises(ConfigError, match="k: expected at least 1, found 0"):
        top_k(np.ones((1, 1), f4), np.ones((1, 1), f4), np.zeros(1, f4), 0)


def test_inputs_stay_as_they_are(rng):
    arrays = [rng.normal(size=s).astype(f4) for s in [(5, 3), (40, 3), 40]]
    copies = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    first = top_k(*arrays, 4, exclude=csr([[1, 2]] * 5))
    second = top_k(*copies, 4, exclude=csr([[2, 1]] * 5))
    np.testing.assert_array_equal(first.numbers, second.numbers)
    np.testing.assert_array_equal(arrays[0], copies[0])
