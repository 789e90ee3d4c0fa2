"""Splits: which rows to train on, and which to keep for the test.

Decided here: three usual ways to hold rows out for a test. Not decided here: how a model is
measured on them (``fm.evaluating.rankings``). The functions take one value for each row, a user or
a time, as a list, an array, or a column of a frame or Arrow table. They return numbers of rows,
ascending, for ``Dataset.take`` or ``table.take``.

* :func:`split_leave_one_out` holds out the last row of each user: is it predicted?
* :func:`split_by_time` holds out the last rows of all: nothing is learnt from the future.
* :func:`split_by_user` holds out all rows of some users: how well are new users served?
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fm.errors import ConfigError, DataError
from fm.formats.frames import no_value


class Split(NamedTuple):
    """Numbers of rows, int64, ascending; every row is in one of the two."""

    train: np.ndarray
    test: np.ndarray


def split_leave_one_out(users: Any, times: Any = None, *, seed: int = 0) -> Split:
    """Return a split that holds out one row of each user: the last by time, or a random one.

    A user with a single row stays in training, because otherwise the model would not know the user.
    Among rows with the same time, the one further down in the data is the later one.

    Parameters
    ----------
    users : sequence, length num_rows
        Ids or codes.
    times : sequence of numbers or dates, length num_rows, optional
        None: the row is drawn with `seed`.

    Raises
    ------
    DataError
        If a user or time is missing, or the lengths differ.

    Examples
    --------
    >>> split_leave_one_out(["ann", "bob", "ann", "eve", "bob"], [7, 5, 6, 1, 5])
    Split(train=array([1, 2, 3]), test=array([0, 4]))
    """
    codes = _codes(users)
    if times is None:
        keys = np.random.default_rng(seed).random(codes.size)
    else:
        keys = _times(times, codes.size)
    order = np.lexsort((keys, codes))  # stable: rows with the same time keep their order
    counts = np.bincount(codes)
    last = order[np.cumsum(counts) - 1]
    return _split(codes.size, last[counts > 1])


def split_by_time(times: Any, fraction: float = 0.2) -> Split:
    """Return a split that holds out the last rows by time.

    Rows of the same time stay together, so the part held out is as close to `fraction` as the times
    allow. Neither part is empty.

    Parameters
    ----------
    times : sequence of numbers or dates, length num_rows
    fraction : float
        Share of the rows to hold out, between 0 and 1.

    Raises
    ------
    DataError
        If a time is missing, or all are the same.
    ConfigError
        If `fraction` is not between 0 and 1.

    Examples
    --------
    >>> split_by_time([1, 2, 2, 9, 3], fraction=0.4)
    Split(train=array([0, 1, 2]), test=array([3, 4]))
    """
    _check_fraction(fraction)
    keys = _times(times)
    distinct, counts = np.unique(keys, return_counts=True)
    if distinct.size < 2:
        raise DataError(
            f"times: expected at least two different ones, found {distinct.size}; use "
            "split_leave_one_out or split_by_user"
        )
    sizes = keys.size - np.cumsum(counts)[:-1]  # of the test, if it begins after each time
    begin = distinct[1:][np.argmin(np.abs(sizes - fraction * keys.size))]
    return _split(keys.size, np.flatnonzero(keys >= begin))


def split_by_user(users: Any, fraction: float = 0.2, *, seed: int = 0) -> Split:
    """Return a split that holds out all rows of some users, drawn with `seed`.

    Parameters
    ----------
    users : sequence, length num_rows
        Ids or codes.
    fraction : float
        Share of the users to hold out, between 0 and 1; at least one, and not all.

    Raises
    ------
    DataError
        If a user is missing, or there are fewer than two.
    ConfigError
        If `fraction` is not between 0 and 1.

    Examples
    --------
    >>> train, test = split_by_user(["ann", "bob", "ann", "eve"], fraction=0.3)
    >>> train.tolist(), test.tolist()
    ([0, 1, 2], [3])
    """
    _check_fraction(fraction)
    codes = _codes(users)
    num_users = int(codes.max(initial=-1)) + 1
    if num_users < 2:
        raise DataError(f"users: expected at least two different ones, found {num_users}")
    count = min(max(1, round(fraction * num_users)), num_users - 1)
    chosen = np.zeros(num_users, bool)
    chosen[np.random.default_rng(seed).choice(num_users, count, replace=False)] = True
    return _split(codes.size, np.flatnonzero(chosen[codes]))


def _split(num_rows: int, test: np.ndarray) -> Split:
    kept = np.zeros(num_rows, bool)
    kept[test] = True
    return Split(np.flatnonzero(~kept), np.flatnonzero(kept))


def _codes(users: Any) -> np.ndarray:
    """Return a number from 0 for each row's user; equal users have equal numbers."""
    values = _column(users, "users")
    if values.dtype.kind == "O":
        numbers: dict[Any, int] = {}
        return np.array([numbers.setdefault(v, len(numbers)) for v in values.tolist()], np.int64)
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _times(times: Any, length: int | None = None) -> np.ndarray:
    values = _column(times, "times")
    if values.dtype.kind == "O":
        try:
            values = values.astype("datetime64[us]")
        except (TypeError, ValueError):
            values = values.astype(str)
    if values.dtype.kind not in "iufM":
        raise DataError(
            f"times: expected a number or date for each row, found {values.dtype}, such as "
            f"{values[0]!r}"
        )
    if length is not None and values.size != length:
        raise DataError(f"times: expected one for each of {length} rows, found {values.size}")
    return values


def _column(given: Any, name: str) -> np.ndarray:
    """Return the values of a column; refuse a missing one."""
    values = np.asarray(given)
    if values.ndim != 1:
        raise DataError(f"{name}: expected one value for each row, found shape {values.shape}")
    if values.dtype.kind == "O":
        missing = np.array([no_value(v) or v != v for v in values.tolist()], bool)
    elif values.dtype.kind in "fM":
        missing = np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)
    else:
        return values
    if missing.any():
        row = int(np.argmax(missing)) + 1
        raise DataError(f"{name}: row {row} has none; fill it in or leave out the row")
    return values


def _check_fraction(fraction: float) -> None:
    if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ConfigError(f"fraction: expected a number between 0 and 1, found {fraction!r}")
