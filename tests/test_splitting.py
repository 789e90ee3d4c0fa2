"""Splits: every row once, and the right ones kept."""

from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm.errors import ConfigError, DataError
from fm.evaluating.splits import split_by_time, split_by_user, split_leave_one_out

small = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), max_size=30)


def is_split(split, num_rows):
    train, test = map(list, split)
    assert train == sorted(train) and test == sorted(test)
    return sorted(train + test) == list(range(num_rows))


@given(small)
@settings(max_examples=150, deadline=None)
def test_leave_one_out_keeps_the_last_row_of_who_has_two(rows):
    users, times = [u for u, _ in rows], [t for _, t in rows]
    split = split_leave_one_out(users, times)
    assert is_split(split, len(rows))
    expected = [
        max((i for i in range(len(rows)) if users[i] == user), key=lambda i: (times[i], i))
        for user in set(users)
        if users.count(user) > 1
    ]
    assert split.test.tolist() == sorted(expected)


@given(small, st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_leave_one_out_at_random_keeps_one_of_each(rows, seed):
    users = [u for u, _ in rows]
    split = split_leave_one_out(users, seed=seed)
    assert is_split(split, len(rows))
    assert sorted(users[i] for i in split.test) == sorted({u for u in users if users.count(u) > 1})
    assert (split_leave_one_out(users, seed=seed).test == split.test).all()


def test_the_row_at_random_is_any_of_them():
    users = [0] * 10
    assert {int(split_leave_one_out(users, seed=seed).test[0]) for seed in range(200)} == set(
        range(10)
    )


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.floats(0.01, 0.99))
@settings(max_examples=150, deadline=None)
def test_by_time_cuts_between_two_times(times, fraction):
    if len(set(times)) < 2:
        with pytest.raises(DataError, match="times: expected at least two different ones, found 1"):
            split_by_time(times, fraction)
        return
    split = split_by_time(times, fraction)
    assert is_split(split, len(times))
    assert max(times[i] for i in split.train) < min(times[i] for i in split.test)
    sizes = [sum(t >= begin for t in times) for begin in sorted(set(times))[1:]]
    best = min(abs(size - fraction * len(times)) for size in sizes)
    assert abs(split.test.size - fraction * len(times)) == pytest.approx(best)


def test_by_time_has_the_size_asked_for(rng):
    assert split_by_time(rng.permutation(1000), 0.2).test.size == 200


@given(small, st.floats(0.01, 0.99), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_by_user_keeps_whole_users(rows, fraction, seed):
    users = [u for u, _ in rows]
    count = len(set(users))
    if count < 2:
        with pytest.raises(DataError, match=f"users: expected at least two .* found {count}"):
            split_by_user(users, fraction, seed=seed)
        return
    split = split_by_user(users, fraction, seed=seed)
    assert is_split(split, len(rows))
    kept = {users[i] for i in split.test}
    assert not kept & {users[i] for i in split.train}
    assert len(kept) == min(max(1, round(fraction * count)), count - 1)
    assert (split_by_user(users, fraction, seed=seed).test == split.test).all()


def test_another_seed_keeps_other_users():
    users = np.arange(100)
    assert (split_by_user(users, seed=0).test != split_by_user(users, seed=1).test).any()


@pytest.mark.parametrize(
    "times",
    [
        [date(2024, 1, 3), date(2024, 1, 1), date(2024, 1, 2)],
        [datetime(2024, 1, 3), datetime(2024, 1, 1), datetime(2024, 1, 2)],
        pa.array([3, 1, 2]),
        pa.chunked_array([[3.5], [1.0, 2.0]]),
        pa.array([date(2024, 1, 3), date(2024, 1, 1), date(2024, 1, 2)]),
        pd.Series(pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02"])),
        np.array([3, 1, 2], np.uint8),
    ],
    ids=["date", "datetime", "arrow", "chunks", "arrow dates", "pandas", "numpy"],
)
@pytest.mark.parametrize("users", [["a"] * 3, pa.array(["a"] * 3), pd.Series(["a"] * 3), [7] * 3])
def test_columns_of_any_kind(times, users):
    assert split_leave_one_out(users, times).test.tolist() == [0]
    assert split_by_time(times, 0.3).test.tolist() == [0]


def test_users_of_mixed_types_are_told_apart():
    assert split_leave_one_out(np.array(["1", 1, 1], object), [1, 2, 3]).test.tolist() == [2]


def test_no_rows():
    assert [part.size for part in split_leave_one_out([], [])] == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_leave_one_out(["a", None], [1, 2]), "users: row 2 has none"),
        (lambda: split_leave_one_out([1.0, np.nan]), "users: row 2 has none"),
        (
            lambda: split_leave_one_out(pd.Series(["a", None], dtype="string")),
            "users: row 2 has none",
        ),
        (
            lambda: split_leave_one_out([1, 1], pd.Series([1, None], dtype="Int64")),
            "times: row 2 has no",
        ),
        (lambda: split_leave_one_out([1, 1], [1, None]), "times: row 2 has none"),
        (lambda: split_by_time(pa.array([1, None])), "times: row 2 has none"),
        (lambda: split_by_time(np.array(["2024", "NaT"], "M8[D]")), "times: row 2 has none"),
        (
            lambda: split_leave_one_out([1, 1], [1]),
            "times: expected one for each of 2 rows, found 1",
        ),
        (lambda: split_by_time(["x", "y"]), "times: expected a number or date.*such as .*x"),
        (lambda: split_by_time(np.array(["x", "y"], object)), "times: expected a number or date"),
        (
            lambda: split_by_user([[1, 2]]),
            r"users: expected one value for each row, found shape \(1, 2\)",
        ),
    ],
)
def test_wrong_columns(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan"), "0.2"])
@pytest.mark.parametrize("split", [split_by_time, split_by_user])
def test_wrong_fractions(split, fraction):
    with pytest.raises(ConfigError, match="fraction: expected a number between 0 and 1, found"):
        split([1, 2, 3], fraction)
