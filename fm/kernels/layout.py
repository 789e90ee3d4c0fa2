"""How parameters and rows lie in memory for the kernels, and the order in which rows are visited.

Decided here: the padding of V's rows, what of a CSR matrix is handed over, the shuffle. Kernels
trust what they get: every index was checked where the rows came in (``fm.data``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fm.kernels.jit import jit
from fm.kernels.simd import load, store

# How many rows ahead a kernel asks for: parameters (they must arrive before the row does, and stay
# in the first cache until then) and the row's own data (from memory, so earlier). Flat optima,
# measured.
AHEAD = 2
DATA_AHEAD = 16
PADDING = 2 * DATA_AHEAD


class Layout(NamedTuple):
    """How V's rows lie in P: `chunks` vectors of `width` lanes each; kp = width * chunks."""

    width: int
    chunks: int

    @property
    def padded(self) -> int:
        """The padded number of factors, kp."""
        return self.width * self.chunks


def layout(num_factors: int) -> Layout:
    """Return the layout for k factors: up to 128 lanes in registers, longer rows in chunks.

    Odd widths straddle cache lines and are slow, so k is padded to 4, 8, or a multiple of 16.
    """
    if num_factors <= 8:
        return Layout(4 if num_factors <= 4 else 8, 1)
    padded = -(-num_factors // 16) * 16
    if padded <= 128:
        return Layout(padded, 1)
    return Layout(32, -(-num_factors // 32))


def padded_order(rows: np.ndarray) -> np.ndarray:
    """Return `rows` followed by copies of its last item: the kernels look ahead without a test."""
    return np.pad(rows, (0, PADDING), mode="edge") if rows.size else np.zeros(PADDING, np.int32)


class CsrArrays(NamedTuple):
    """A CSR matrix as the kernels take it."""

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    entries: int
    onehot: bool


def csr_arrays(X: Any, onehot: bool, entries_per_row: int) -> CsrArrays:
    """Return the arrays of X (checked CSR); what the kernels will not read is left empty."""
    nothing = np.zeros(1, np.int32)
    indptr = nothing if entries_per_row else plain(X.indptr)
    values = np.zeros(1, np.float32) if onehot else plain(X.data)
    return CsrArrays(indptr, plain(X.indices), values, entries_per_row, onehot)


def plain(array: np.ndarray) -> np.ndarray:
    """Return a contiguous array that numba takes for the one type all kernels are compiled for.

    numba compiles a second version for read-only arrays (memory maps, arrays from other processes),
    which would double the compile time. The alias made here is never written to.
    """
    array = np.ascontiguousarray(array)
    if array.flags.writeable:
        return array
    return np.asarray(_WritableAlias(array))


class _WritableAlias:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # keeps the memory alive
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


@jit
def shuffle(order, count, state):
    """Permute ``order[:count]`` in place (Fisher-Yates); `state` is a uint64 seed other than 0.

    A kernel of its own because numpy's permutation costs as much as training on the rows does.
    Marsaglia's xorshift64; the multiply-shift maps 32 random bits to [0, i]. The padding behind
    the rows (:func:`padded_order`) is brought in line with the new last row.
    """
    x = np.uint64(state)
    for i in range(count - 1, 0, -1):
        x ^= x << np.uint64(13)
        x ^= x >> np.uint64(7)
        x ^= x << np.uint64(17)
        j = np.int64(((x >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        t = load(order, i)
        store(order, i, load(order, j))
        store(order, j, t)
    for i in range(count, order.size):
        store(order, i, load(order, count - 1))
