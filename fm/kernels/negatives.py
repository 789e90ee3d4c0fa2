"""Negatives for implicit feedback: drawing items that a user is not known to have met, as rows.

Decided here: how a negative is drawn, how pairs (user, item) are looked up, how rows of a context
and an item are put together. Not decided here: what is learnt from them (``fm.kernels.rows``,
``fm.kernels.pairs``), which pairs are known and where the randomness starts
(``fm.training.solvers.negatives``).

Known pairs are a CSR matrix's `indptr` and `indices` (ascending in each row), and a filter: a field
of bits in which each known pair sets one. A pair whose bit is not set is not known, which is one
look into memory; only where the bit is set does a search decide. So the answer is always exact.

References
----------
Walker (1974) and Vose (1991), the alias method: one draw from any distribution in constant time.
Marsaglia (2003), Xorshift RNGs. Mikolov et al. (2013), section 2.2: counts to the power of 3/4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fm.kernels.jit import jit
from fm.kernels.simd import index, load, store

_BITS_PER_PAIR = 16  # of the filter: about one unknown pair in 16 needs the search
_TRIES = 64  # draws before the items are tried one after another
POWER = 0.75  # of the items' counts, for negative_sampling=popularity


class Known(NamedTuple):
    """The pairs (user, item) that are never negatives."""

    indptr: np.ndarray  # int64 (num_users + 1,)
    indices: np.ndarray  # int32: items, ascending for each user
    bits: np.ndarray  # uint64: the filter
    shift: int  # a pair's bit is the upper part of its hash


class Alias(NamedTuple):
    """A distribution over items; of size 0: each is as likely as any other."""

    keep: np.ndarray  # uint32: item j is taken if 32 random bits are below, else alias[j]
    alias: np.ndarray  # int32


def known_pairs(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> Known:
    """Return the pairs of users and items (int32, one per row; user -1: no pair), ready to look up.

    Examples
    --------
    >>> known = known_pairs(np.array([1, 0, 1]), np.array([2, 0, 1]), 2, 3)
    >>> known.indptr.tolist(), known.indices.tolist()
    ([0, 1, 3], [0, 1, 2])
    """
    keep = users >= 0
    pairs = np.unique(users[keep].astype(np.int64) * num_items + items[keep])
    owners = pairs // max(num_items, 1)
    indptr = np.zeros(num_users + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=num_users), out=indptr[1:])
    indices = (pairs % max(num_items, 1)).astype(np.int32)
    size = max(6, int(pairs.size * _BITS_PER_PAIR - 1).bit_length())
    bits = np.zeros(1 << (size - 6), np.uint64)
    known = Known(indptr, indices, bits, 64 - size)
    _fill_filter(indptr, indices, bits, known.shift)
    return known


def alias_table(weights: np.ndarray | None) -> Alias:
    """Return the table from which items are drawn in proportion to `weights`; None: uniformly."""
    if weights is None:
        return Alias(np.zeros(0, np.uint32), np.zeros(0, np.int32))
    scaled = np.asarray(weights, np.float64) * (len(weights) / np.sum(weights, dtype=np.float64))
    alias = np.arange(len(weights), dtype=np.int32)
    small = np.flatnonzero(scaled < 1)
    large = np.flatnonzero(scaled >= 1)
    _pair_up(scaled, alias, small, large, small.size, large.size)
    keep = np.minimum(scaled * 2.0**32, 2.0**32 - 1).astype(np.uint32)
    return Alias(keep, alias)


@jit
def _pair_up(scaled, alias, small, large, num_small, num_large):
    """Vose's method: each item that is too light is filled up by one that is too heavy."""
    many = scaled.size
    stack = np.empty(many, np.int64)  # the light ones, of which there will be more
    for i in range(num_small):
        stack[i] = small[i]
    light, heavy = num_small, 0
    while light and heavy < num_large:
        light -= 1
        i, j = stack[light], large[heavy]
        alias[i] = j
        scaled[j] -= 1.0 - scaled[i]
        if scaled[j] < 1.0:
            stack[light] = j
            light += 1
            heavy += 1
    while light:  # left over by rounding only
        light -= 1
        scaled[stack[light]] = 1.0


@jit
def _bit(user, item, shift):
    """Return the place of a pair in the filter: multiply, fold, multiply (as splitmix64 does)."""
    x = (np.uint64(user) << np.uint64(32)) ^ np.uint64(item)
    x *= np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x >> np.uint64(shift)


@jit
def _fill_filter(indptr, indices, bits, shift):
    for user in range(indptr.size - 1):
        for at in range(indptr[user], indptr[user + 1]):
            place = _bit(user, indices[at], shift)
            bits[np.int64(place >> np.uint64(6))] |= np.uint64(1) << (place & np.uint64(63))


@jit
def is_known(user, item, indptr, indices, bits, shift):
    """Return whether a pair is known (see :class:`Known`)."""
    place = _bit(user, item, shift)
    word = load(bits, np.int64(place >> np.uint64(6)))
    if not (word >> (place & np.uint64(63))) & np.uint64(1):
        return False
    low, high = index(indptr, user), index(indptr, user + 1)
    while low < high:
        middle = (low + high) >> 1
        if index(indices, middle) < item:
            low = middle + 1
        else:
            high = middle
    return low < index(indptr, user + 1) and index(indices, low) == item


@jit
def draw_negatives(rows, begin, stop, each, users, items, num_items, known, alias, state, out):
    """Draw `each` negatives for each of ``rows[begin:stop]``, with replacement.

    A negative is an item other than the row's own, and not one that is known of the row's user.
    After many failed draws, the items are tried one after another, from a random one on.

    Parameters
    ----------
    rows : ndarray of int32
        Row numbers.
    users, items : ndarray of int32
        Of each row; user -1: none, so that only the row's own item is excluded.
    known, alias : Known, Alias
    state : uint64
        The state of the random numbers, not 0.
    out : ndarray of int32, at least ((stop - begin) * each,)
        Written: the items; -1 where no item is left.

    Returns
    -------
    uint64
        The state to go on from.
    """
    x = np.uint64(state)
    drawn = alias.keep.size > 0
    at = 0
    for t in range(begin, stop):
        r = index(rows, t)
        user, own = index(users, r), index(items, r)
        for _ in range(each):
            found = np.int64(-1)
            for _ in range(_TRIES):
                x ^= x << np.uint64(13)
                x ^= x >> np.uint64(7)
                x ^= x << np.uint64(17)
                item = np.int64(((x >> np.uint64(32)) * np.uint64(num_items)) >> np.uint64(32))
                if drawn and (x & np.uint64(0xFFFFFFFF)) >= np.uint64(load(alias.keep, item)):
                    item = index(alias.alias, item)
                if item == own or (
                    user >= 0
                    and is_known(user, item, known.indptr, known.indices, known.bits, known.shift)
                ):
                    continue
                found = item
                break
            if found < 0:
                item = np.int64(((x >> np.uint64(32)) * np.uint64(num_items)) >> np.uint64(32))
                for _ in range(num_items):
                    item = item + 1 if item + 1 < num_items else 0
                    if item != own and not (
                        user >= 0
                        and is_known(
                            user, item, known.indptr, known.indices, known.bits, known.shift
                        )
                    ):
                        found = item
                        break
            store(out, at, found)
            at += 1
    return x


class Rows(NamedTuple):
    """Space for rows as the training kernels take them: CSR arrays, labels and weights."""

    indptr: np.ndarray  # int64 (rows + 1,)
    indices: np.ndarray  # int32
    values: np.ndarray  # float32; left alone if all values are 1
    y: np.ndarray  # float32 (rows,)
    weight: np.ndarray  # float32 (rows,); left alone without weights


@jit
def fill_rows(
    rows, begin, stop, each, items, negatives, context, side, weight, weighted, onehot, out
):
    """Write each of ``rows[begin:stop]`` as a row of label 1, then its negatives with label 0.

    Parameters
    ----------
    rows : ndarray of int32
        Row numbers.
    each : int
        Negatives per row.
    items : ndarray of int32
        The item of each row.
    negatives : ndarray of int32
        As written by :func:`draw_negatives`; a -1 makes no row.
    context, side : tuples (indptr, indices, values)
        CSR arrays of the rows without their items, and of the items.
    weight : ndarray of float32
        Of each row; its negatives share it. Read if `weighted`.
    onehot : bool
        Whether all values are 1 and none are written.
    out : Rows
        Written.

    Returns
    -------
    int
        How many rows were written.
    """
    filled, end = 0, 0
    out.indptr[0] = 0
    for t in range(begin, stop):
        r = index(rows, t)
        first, last = index(context[0], r), index(context[0], r + 1)
        for n in range(each + 1):
            item = index(items, r)
            if n:
                item = index(negatives, (t - begin) * each + n - 1)
                if item < 0:
                    continue
            for j in range(first, last):
                store(out.indices, end, index(context[1], j))
                if not onehot:
                    store(out.values, end, load(context[2], j))
                end += 1
            for j in range(index(side[0], item), index(side[0], item + 1)):
                store(out.indices, end, index(side[1], j))
                if not onehot:
                    store(out.values, end, load(side[2], j))
                end += 1
            store(out.y, filled, np.float32(0.0) if n else np.float32(1.0))
            if weighted:
                store(out.weight, filled, load(weight, r))
            filled += 1
            store(out.indptr, filled, end)
    return filled
