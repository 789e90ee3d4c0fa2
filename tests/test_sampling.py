"""Negatives: never a known item, in the right proportions; rows put together as they should be."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fm.kernels.negatives import (
    Rows,
    alias_table,
    draw_negatives,
    fill_rows,
    is_known,
    known_pairs,
)

f4 = np.float32
STATE = np.uint64(88172645463325252)


def draw(users, items, num_users, num_items, each, alias=None, state=STATE, rows=None):
    users, items = (np.ascontiguousarray(part, np.int32) for part in (users, items))
    rows = np.arange(users.size, dtype=np.int32) if rows is None else rows
    known = known_pairs(users, items, num_users, num_items)
    out = np.full(rows.size * each, -7, np.int32)
    alias = alias_table(None) if alias is None else alias
    draw_negatives(rows, 0, rows.size, each, users, items, num_items, known, alias, state, out)
    return out.reshape(-1, each)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_pair_is_known_if_and_only_if_it_was_given(data):
    num_users, num_items = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 30))
    pair = st.tuples(st.integers(-1, num_users - 1), st.integers(0, num_items - 1))
    pairs = data.draw(st.lists(pair, max_size=60))
    users, items = np.array(pairs, np.int32).reshape(-1, 2).T
    known = known_pairs(users, items, num_users, num_items)
    for user in range(num_users):
        for item in range(num_items):
            found = is_known(user, item, known.indptr, known.indices, known.bits, known.shift)
            assert found == ((user, item) in pairs)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_negative_is_an_item_the_user_has_not_met(data):
    num_users, num_items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12))
    pair = st.tuples(st.integers(-1, num_users - 1), st.integers(0, num_items - 1))
    pairs = data.draw(st.lists(pair, min_size=1, max_size=50))
    users, items = np.array(pairs, np.int32).T
    alias = data.draw(st.sampled_from([None, alias_table(1.0 + np.arange(num_items) ** 3)]))
    negatives = draw(users, items, num_users, num_items, 5, alias)
    for user, own, found in zip(users, items, negatives.tolist(), strict=True):
        met = {i for u, i in pairs if u == user} if user >= 0 else {own}
        assert all((item == -1) == (len(met) == num_items) for item in found)
        assert not met & set(found)


def test_uniform_draws_are_uniform_over_the_items_not_met():
    users, items = np.zeros(3, np.int32), np.array([2, 5, 7], np.int32)
    found = draw(users, items, 1, 10, 20_000)
    counts = np.bincount(found.ravel(), minlength=10)
    assert set(np.flatnonzero(counts)) == {0, 1, 3, 4, 6, 8, 9}
    assert counts[counts > 0] / found.size == pytest.approx(1 / 7, rel=0.05)


def test_draws_follow_the_weights_of_the_items():
    weights = np.array([1.0, 5.0, 0.0, 2.0, 8.0])
    found = draw([-1], [2], 0, 5, 100_000, alias_table(weights))
    shares = np.bincount(found.ravel(), minlength=5) / found.size
    assert shares == pytest.approx(weights / 16, abs=0.006)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_the_alias_table_holds_the_distribution(size, rng):
    weights = rng.pareto(1, size) + 1e-3
    table = alias_table(weights)
    kept = (table.keep + 1.0) / 2**32
    shares = kept.copy()
    np.add.at(shares, table.alias, 1 - kept)
    assert shares / size == pytest.approx(weights / weights.sum(), rel=1e-5, abs=1e-9)


def test_a_user_with_one_item_left_gets_it():
    """Drawing would hardly ever find it: the items are gone through."""
    items = np.delete(np.arange(20_000), 12_345)
    found = draw(np.zeros(items.size), items, 1, 20_000, 2, rows=np.arange(5, dtype=np.int32))
    assert (found == 12_345).all()


def test_a_user_who_met_everything_has_no_negatives():
    assert draw(np.zeros(3), [0, 1, 2], 1, 3, 4).tolist() == [[-1] * 4] * 3


def test_the_same_state_draws_the_same_and_goes_on():
    users, items = np.zeros(4, np.int32), np.arange(4, dtype=np.int32)
    known, alias = known_pairs(users, items, 1, 500), alias_table(None)
    rows, whole, parts = np.arange(4, dtype=np.int32), np.empty(40, np.int32), []
    draw_negatives(rows, 0, 4, 10, users, items, 500, known, alias, STATE, whole)
    state = STATE
    for begin, stop in ((0, 1), (1, 4)):
        out = np.empty((stop - begin) * 10, np.int32)
        state = np.uint64(
            draw_negatives(rows, begin, stop, 10, users, items, 500, known, alias, state, out)
        )
        parts.append(out)
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.unique(whole).size > 30


def random_csr(rng, rows, width, valued):
    X = sp.random(rows, width, 0.3, format="csr", dtype=f4, random_state=rng)
    if not valued:
        X.data[:] = 1
    return X, (X.indptr.astype(np.int64), X.indices.astype(np.int32), X.data)


@pytest.mark.parametrize("valued", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_rows_are_a_context_beside_an_item(valued, weighted, rng):
    contexts, context = random_csr(rng, 7, 10, valued)
    sides, side = random_csr(rng, 5, 10, valued)
    items = rng.integers(0, 5, 7).astype(np.int32)
    negatives = rng.integers(-1, 5, (4, 3)).astype(np.int32)
    weight = rng.uniform(0, 2, 7).astype(f4)
    rows = np.array([6, 6, 0, 3, 5], np.int32)  # the first is not asked for
    out = Rows(
        np.full(17, -1, np.int64), np.full(400, -1, np.int32), np.full(400, 9, f4),
        np.full(16, -1, f4), np.full(16, -1, f4),
    )  # fmt: skip
    count = fill_rows(
        rows, 1, 5, 3, items, negatives.ravel(), context, side, weight, weighted, not valued, out
    )
    expected, labels, weights = [], [], []
    for r, others in zip(rows[1:], negatives, strict=True):
        for item, label in [(items[r], 1), *((item, 0) for item in others if item >= 0)]:
            expected.append((contexts[r] + sides[item]).toarray()[0])
            labels.append(label)
            weights.append(weight[r])
    assert count == len(expected)
    end = out.indptr[count]
    values = out.values[:end] if valued else np.ones(end, f4)
    got = sp.csr_matrix((values, out.indices[:end], out.indptr[: count + 1]), shape=(count, 10))
    assert np.allclose(got.toarray(), expected)
    assert out.y[:count].tolist() == labels
    if weighted:
        assert out.weight[:count].tolist() == weights
    else:
        assert (out.weight == -1).all()
    assert valued or (out.values == 9).all()
