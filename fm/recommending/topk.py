"""Top-k: for each vector, the items of highest inner product plus bias; exact.

Decided here: how the best of many scores are found fast, in bounded memory. Not decided here: what
the vectors are (``fm.recommending.recommender``).

Items are ordered by falling score, and equal scores by rising number, as in
``lexsort((number, -score))``. Three ideas make this fast:

* **Blocks.** Scores are made a few hundred rows and a few thousand items at a time, by one matrix
  product.
* **A floor.** Take the maximum of each of many disjoint groups of items. The `count` best maxima
  are `count` scores of the row, so the `count` best scores are not below the lowest of these
  maxima. Few scores reach this floor, and maxima of groups are computed fast (contiguous,
  vectorised). From the second block of items on, the worst score kept so far is a floor too.
* **Keys.** A score and the number of its item make one int64 that sorts in the wanted order, ties
  included. Only scores that reach the floor become keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fm.errors import ConfigError, DataError

SCORES_AT_ONCE = 2**21  # scores made at a time: 8 MB
_ROWS = 512  # rows of a block
_GROUPS = 256  # groups of a row: at least so many, and eight for each wanted item

_EMPTY = np.iinfo(np.int64).max  # a key that stands for no item: number -1, score nan
_LOWEST = np.finfo(np.float32).min  # every finite score reaches it; excluded items are -inf
_HALF = np.int64(32)
_SIGN = np.int32(0x7FFFFFFF)


class TopK(NamedTuple):
    """The best items of each row, best first.

    Attributes
    ----------
    numbers : ndarray of int32, shape (num_rows, count)
        Positions in `items`; -1 where a row has no more items.
    scores : ndarray of float32, shape (num_rows, count)
        Their scores; nan where there is no item.
    """

    numbers: np.ndarray
    scores: np.ndarray


def top_k(
    vectors: np.ndarray,
    items: np.ndarray,
    bias: np.ndarray,
    count: int,
    *,
    exclude: tuple[np.ndarray, np.ndarray] | None = None,
) -> TopK:
    """Return, for each vector, the items with the highest ``items @ vector + bias``.

    Parameters
    ----------
    vectors : ndarray of float32, shape (num_rows, k)
    items : ndarray of float32, shape (num_items, k)
        Fast if it is C-contiguous.
    bias : ndarray of float32, shape (num_items,)
    count : int
        Number of items for each row, at least 1.
    exclude : (indptr, indices), optional
        Items to leave out of each row, as in a CSR matrix: those of row i are
        ``indices[indptr[i]:indptr[i + 1]]``, in any order.

    Raises
    ------
    ConfigError
        If `count` is less than 1.
    DataError
        If a score is not a finite number.

    Examples
    --------
    >>> items = np.array([[1], [3], [3], [2]], np.float32)
    >>> best = top_k(np.array([[1]], np.float32), items, np.zeros(4, np.float32), 3)
    >>> best.numbers.tolist(), best.scores.tolist()
    ([[1, 2, 3]], [[3.0, 3.0, 2.0]])
    """
    if count < 1:
        raise ConfigError(f"k: expected at least 1, found {count}")
    num_rows, num_items = len(vectors), len(items)
    kept = min(count, num_items)
    numbers = np.full((num_rows, count), -1, np.int32)
    scores = np.full((num_rows, count), np.nan, np.float32)
    if not kept:
        return TopK(numbers, scores)
    height = max(1, min(num_rows, _ROWS, SCORES_AT_ONCE // kept))
    width = min(num_items, SCORES_AT_ONCE // height)
    buffer = np.empty(height * width, np.float32)
    for begin in range(0, num_rows, height):
        rows = slice(begin, begin + height)
        part = vectors[rows]
        left_out = None if exclude is None else _entries(*exclude, begin, begin + len(part))
        best = np.full((len(part), kept), _EMPTY)
        for first, block in _score_blocks(part, items, bias, width, buffer):
            if left_out is not None:
                at_rows, at_items = left_out
                here = (at_items >= first) & (at_items < first + block.shape[1])
                block[at_rows[here], at_items[here] - first] = -np.inf
            best = _merged(best, block, first)
        numbers[rows, :kept] = _number_of(best)
        scores[rows, :kept] = _score_of(best)
    return TopK(numbers, scores)


def _entries(
    indptr: np.ndarray, indices: np.ndarray, begin: int, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (row, item) of all entries in some rows, as two arrays; rows count from begin."""
    counts = np.diff(indptr[begin : end + 1])
    return np.repeat(np.arange(end - begin), counts), indices[indptr[begin] : indptr[end]]


def _score_blocks(
    vectors: np.ndarray, items: np.ndarray, bias: np.ndarray, width: int, buffer: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of its first item, scores) for each block of items."""
    for first in range(0, len(items), width):
        part = items[first : first + width]
        block = buffer[: len(vectors) * len(part)].reshape(len(vectors), len(part))
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            if len(vectors) == 1:
                np.dot(part, vectors[0], out=block[0])
            else:
                np.matmul(vectors, part.T, out=block)
            block += bias[first : first + width]
            if not (block.min() > -np.inf and block.max() < np.inf):  # false for nan, too
                row, item = np.argwhere(~np.isfinite(block))[0].tolist()
                raise DataError(
                    f"scores: expected finite numbers, found {block[row, item]} for item number "
                    f"{first + item}; the model's parameters or the row's values are too large"
                )
        yield first, block


def _merged(best: np.ndarray, block: np.ndarray, first: int) -> np.ndarray:
    """Return the best keys among those kept so far and those of a block of scores."""
    num_rows, count = best.shape
    floor = np.full(num_rows, _LOWEST)
    if first:
        worst = _score_of(best[:, -1])
        # An equal score of a later item comes after the one that is kept.
        np.fmax(floor, np.nextafter(worst, np.float32(np.inf)), out=floor)
    reached = block >= floor[:, None] if first else None
    if reached is None or np.count_nonzero(reached) > 4 * best.size:
        reached = block >= np.maximum(floor, _group_floor(block, count))[:, None]
    at = np.flatnonzero(reached)
    if not at.size:
        return best
    row = at // block.shape[1]
    keys = _keys(block.reshape(-1)[at], at - row * block.shape[1] + first)
    counts = np.bincount(row, minlength=num_rows)
    begins = np.cumsum(counts) - counts
    candidates = np.full((num_rows, count + int(counts.max())), _EMPTY)
    candidates[:, :count] = best
    candidates[row, np.arange(at.size) + (count - begins)[row]] = keys
    if candidates.shape[1] > 4 * count:
        candidates.partition(count - 1, axis=1)
    candidates = candidates[:, : 4 * count]
    candidates.sort(axis=1)
    return candidates[:, :count]


def _group_floor(block: np.ndarray, count: int) -> np.ndarray:
    """Return a floor for each row: a number that at least its `count` best scores reach.

    Excluded items are -inf. If too few items are left, the floor is the lowest finite number.
    """
    groups = max(_GROUPS, 8 * count)
    size = block.shape[1] // groups
    if block.shape[1] < count:
        return np.full(len(block), _LOWEST)
    if size < 2:
        maxima = block.copy()
    else:  # the few items after the last group are in no maximum: the floor is right, if lower
        groups = block.shape[1] // size
        maxima = block[:, : size * groups].reshape(len(block), size, groups).max(axis=1)
    place = maxima.shape[1] - count
    maxima.partition(place, axis=1)
    floor: np.ndarray = np.maximum(maxima[:, place], _LOWEST)
    return floor


def _keys(scores: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return int64 keys that rise as the score falls and, for equal scores, the number rises.

    The bits of floats >= 0 rise with the number they mean, those of negative ones fall.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # -0 becomes 0
    rising = np.where(bits < 0, bits ^ _SIGN, bits)
    keys: np.ndarray = (~rising).astype(np.int64) << _HALF | numbers
    return keys


def _number_of(keys: np.ndarray) -> np.ndarray:
    return keys.astype(np.int32)  # the lower half


def _score_of(keys: np.ndarray) -> np.ndarray:
    rising = ~(keys >> _HALF).astype(np.int32)
    return np.where(rising < 0, rising ^ _SIGN, rising).view(np.float32)
