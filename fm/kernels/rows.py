"""The compiled kernels: training row by row, scoring, shuffling.

Symbols::

    B         float64 (1 + bias states,)      w0, then the optimizer's state for it
    W         float32 (n * (1 + S),)          per feature: w, then S states
    P         float32 (n * (1 + S) * kp,)     per feature: V's row, zeros up to kp, then S states
    order     int32   (rows,)                 the rows to visit, in this order
    indptr, indices, values                   the CSR matrix; values is not read if one-hot
    s         sum_i v_i x_i  (a vector of kp lanes);  q = sum_i (v_i x_i)^2, lane by lane
    p, g      score of the row; derivative of its loss by p

The formula is Rendle's (2010, eq. 3 and lemma 3.1)::

    p = w0 + sum_i w_i x_i + 1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ]

Kernels trust their input: every index was checked by ``fm.data.dataset``. They allocate nothing in
a loop and draw no random numbers.

How they get their speed: s and q live in registers (``fm.kernels.simd``); the number of entries per
row is a compile-time constant where it is the same in all rows; one-hot rows have no values to
read; the rows of P that a later row needs are prefetched, so a random order costs hardly more than
a sequential one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fm.kernels.jit import SOURCE_VERSION, jit
from fm.kernels.optimizers import by_type, row_scale, step_bias, step_factors, step_linear
from fm.kernels.simd import (
    clamp,
    fma,
    index,
    load,
    prefetch,
    prefetch_span,
    store,
    vadd,
    vaxpy,
    vfma,
    vload,
    vmul,
    vscale,
    vsplat,
    vstore,
    vsub,
    vsum,
)

f4 = np.float32

# How many rows ahead: parameters (they must arrive before the row does, and stay in the first
# cache until then) and the row's own data (from memory, so earlier). Flat optima, measured.
_AHEAD = 2
_DATA_AHEAD = 16


class Squared(NamedTuple):
    """Half the squared error."""


class Logistic(NamedTuple):
    """Log loss of labels 0 and 1."""


class Clipped(NamedTuple):
    """Another loss whose derivative is bounded by +-`clip`, then multiplied by `rescale`."""

    loss: Squared | Logistic
    clip: float
    rescale: float


def loss_terms(loss, p, y):
    """Return (g, a, f): the derivative by the score, and the loss as a + log(f).

    The kernel multiplies the f of many rows before it takes one logarithm.
    """
    raise NotImplementedError("compiled code only")


def _squared_terms(loss, p, y):
    g = p - y
    return g, np.float64(f4(0.5) * g * g), 1.0


def _logistic_terms(loss, p, y):
    e = f4(math.exp(-abs(p)))  # never overflows
    sigmoid = f4(1.0) / (f4(1.0) + e)
    if p < f4(0.0):
        sigmoid = e * sigmoid
    return sigmoid - y, np.float64(clamp(p, f4(0.0), p) - y * p), 1.0 + np.float64(e)


def _clipped_terms(loss, p, y):
    g, addend, factor = loss_terms(loss.loss, p, y)
    return loss.rescale * clamp(g, -loss.clip, loss.clip), addend, factor


by_type(loss_terms, {Squared: _squared_terms, Logistic: _logistic_terms, Clipped: _clipped_terms})


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


@cache
def training_kernel(
    width: int,
    chunks: int,
    entries: int,
    onehot: bool,
    weighted: bool,
    states: int,
    keep_scores: bool = True,
) -> Callable[..., Any]:
    """Return the compiled loop over rows for one shape of the problem.

    Parameters
    ----------
    width, chunks : int
        Of :func:`layout`.
    entries : int
        Entries per row if all rows have the same number, else 0.
    onehot, weighted : bool
        Whether all values are 1; whether there are sample weights.
    states : int
        The optimizer's number of states per parameter.
    keep_scores : bool
        Whether to write the scores to `margins`; not so, a tenth faster where all else is cached.

    Returns
    -------
    callable
        ``epoch(order, begin, stop, indptr, indices, values, y, weight, loss, opt, scratch,
        margins, B, W, P)`` -> sum of the (weighted) losses of the rows ``order[begin:stop]``, each
        before its own step. Updates B, W and P in place and writes the score of row ``order[t]``
        to ``margins[t]``. `order` ends with padding (:func:`padded_order`). `loss` and `opt` are
        values of this module's and fm.kernels.optimizers' classes; their types choose the code.
    """
    gap = width * chunks
    stride = (1 + states) * gap
    wide = 1 + states
    version = SOURCE_VERSION

    def epoch(
        order, begin, stop, indptr, indices, values, y, weight, loss, opt, scratch, margins, B, W, P
    ):
        total = 0.0
        product = 1.0
        b = f4(B[0])
        one = f4(1.0)
        version  # noqa: B018  a part of the cache key
        for t in range(begin, stop):
            # Ask for what later rows need: their data first, then the parameters they name.
            r = index(order, t + _DATA_AHEAD)
            prefetch(y, r)
            if weighted:
                prefetch(weight, r)
            if entries:
                prefetch_span(indices, r * entries, entries)
                if not onehot:
                    prefetch_span(values, r * entries, entries)
            else:
                prefetch(indptr, index(order, t + 2 * _DATA_AHEAD))
                for j in range(index(indptr, r), index(indptr, r + 1), 16):
                    prefetch(indices, j)
                    if not onehot:
                        prefetch(values, j)
            r = index(order, t + _AHEAD)
            if entries:
                a = r * entries
                end = a + entries
            else:
                a = index(indptr, r)
                end = index(indptr, r + 1)
            for j in range(a, end):
                c = index(indices, j)
                prefetch(W, c * wide)
                prefetch_span(P, c * stride, stride)

            r = index(order, t)
            if entries:
                a = r * entries
                m = entries
            else:
                a = index(indptr, r)
                m = index(indptr, r + 1) - a

            # Forward.
            linear = f4(0.0)
            squares = f4(0.0)  # sum of x^2
            interaction = f4(0.0)
            length = f4(0.0)  # sum over features of |d p / d v|^2
            s = vsplat(f4(0.0), width)
            for chunk in range(chunks):
                s = vsplat(f4(0.0), width)
                q = vsplat(f4(0.0), width)
                q2 = vsplat(f4(0.0), width)
                q3 = vsplat(f4(0.0), width)
                for j in range(a, a + m):
                    c = index(indices, j)
                    v = vload(P, c * stride + chunk * width, width)
                    if onehot:
                        if chunk == 0:
                            linear += load(W, c * wide)
                        s = vadd(s, v)
                        q = vfma(v, v, q)
                    else:
                        x = load(values, j)
                        if chunk == 0:
                            linear += x * load(W, c * wide)
                            squares += x * x
                        v = vscale(v, x)
                        s = vadd(s, v)
                        q = vfma(v, v, q)
                        q2 = vaxpy(x * x, vmul(v, v), q2)
                        q3 = vaxpy(x * x, v, q3)
                ss = vsum(vmul(s, s))
                qq = vsum(q)
                interaction += ss - qq
                if onehot:
                    length += f4(m - 2) * ss + qq
                else:  # sum_i |x_i (s - x_i v_i)|^2, multiplied out
                    length += squares * ss - f4(2.0) * vsum(vmul(s, q3)) + vsum(q2)
                if chunks > 1:
                    vstore(scratch, chunk * width, s)
            if onehot:
                squares = f4(m)

            # b last: the chain from one row's step to the next row's score is shortest so.
            p = fma(f4(0.5), interaction, linear) + b
            if keep_scores:
                store(margins, t, p)
            g, addend, factor = loss_terms(loss, p, load(y, r))
            if weighted:
                sample_weight = load(weight, r)
                total += sample_weight * (addend + math.log(factor))
            else:
                sample_weight = one
                total += addend
                product *= factor
                if product > 1e100:
                    total += math.log(product)
                    product = 1.0

            # Backward.
            scale = row_scale(opt, B, sample_weight, squares, abs(length))
            b = step_bias(opt, B, b, g, sample_weight, scale)
            for chunk in range(chunks):
                if chunks > 1:
                    s = vload(scratch, chunk * width, width)
                for j in range(a, a + m):
                    c = index(indices, j)
                    x = one
                    if not onehot:
                        x = load(values, j)
                    if chunk == 0:
                        step_linear(opt, W, c * wide, g * x, sample_weight, scale)
                    at = c * stride + chunk * width
                    v = vload(P, at, width)
                    step_factors(opt, P, at, gap, v, s, g * x, x, sample_weight, scale)
        B[0] = b
        return total + math.log(product)

    return jit(epoch)


@cache
def _scoring_kernel(width: int, chunks: int, entries: int, onehot: bool) -> Callable[..., Any]:
    stride = width * chunks
    version = SOURCE_VERSION

    def score(order, rows, indptr, indices, values, b, W, P, wide, block, out):
        version  # noqa: B018  a part of the cache key
        for t in range(rows):
            r = index(order, t + _DATA_AHEAD)
            if entries:
                prefetch_span(indices, r * entries, entries)
                if not onehot:
                    prefetch_span(values, r * entries, entries)
            else:
                prefetch(indptr, index(order, t + 2 * _DATA_AHEAD))
                for j in range(index(indptr, r), index(indptr, r + 1), 16):
                    prefetch(indices, j)
                    if not onehot:
                        prefetch(values, j)
            r = index(order, t + _AHEAD)
            if entries:
                a = r * entries
                end = a + entries
            else:
                a = index(indptr, r)
                end = index(indptr, r + 1)
            for j in range(a, end):
                c = index(indices, j)
                prefetch(W, c * wide)
                prefetch_span(P, c * block, stride)

            r = index(order, t)
            if entries:
                a = r * entries
                end = a + entries
            else:
                a = index(indptr, r)
                end = index(indptr, r + 1)
            linear = f4(0.0)
            interaction = f4(0.0)
            for chunk in range(chunks):
                s = vsplat(f4(0.0), width)
                q = vsplat(f4(0.0), width)
                for j in range(a, end):
                    c = index(indices, j)
                    v = vload(P, c * block + chunk * width, width)
                    if onehot:
                        if chunk == 0:
                            linear += load(W, c * wide)
                    else:
                        x = load(values, j)
                        if chunk == 0:
                            linear += x * load(W, c * wide)
                        v = vscale(v, x)
                    s = vadd(s, v)
                    q = vfma(v, v, q)
                interaction += vsum(vsub(vmul(s, s), q))
            store(out, t, fma(f4(0.5), interaction, linear) + b)

    return jit(score)


def score_rows(
    rows: np.ndarray,
    csr: CsrArrays,
    w0: float,
    W: np.ndarray,
    P: np.ndarray,
    lanes: Layout,
    states: int = 0,
) -> np.ndarray:
    """Return the float32 scores of the given rows.

    Parameters
    ----------
    rows : ndarray of int32
        Row numbers in any order, with padding (:func:`padded_order`).
    csr : CsrArrays
        The matrix.
    w0, W, P : float, ndarray, ndarray
        Parameters as in the module's docstring, with `states` optimizer states between them.
    lanes : Layout
        How V's rows lie in P.
    """
    count = rows.size - PADDING
    out = np.empty(count, np.float32)
    kernel = _scoring_kernel(lanes.width, lanes.chunks, csr.entries, csr.onehot)
    wide = 1 + states
    kernel(
        rows, count, csr.indptr, csr.indices, csr.values, f4(w0), W, P,
        wide, wide * lanes.padded, out,
    )  # fmt: skip
    return out


def predict_scores(
    X: Any, w0: float, w: np.ndarray, V: np.ndarray, onehot: bool, entries_per_row: int
) -> np.ndarray:
    """Return the float32 scores of all rows of X (checked CSR) for V as it is, shape (n, k).

    `onehot` and `entries_per_row` are Dataset's properties of the same names.
    """
    k = V.shape[1]
    lanes = Layout(k, 1) if k <= 128 else layout(k)
    if lanes.padded != k:
        V = np.pad(V, ((0, 0), (0, lanes.padded - k)))
    csr = csr_arrays(X, onehot, entries_per_row)
    rows = padded_order(np.arange(X.shape[0], dtype=np.int32))
    return score_rows(rows, csr, w0, plain(w), plain(V).reshape(-1), lanes)


PADDING = 2 * _DATA_AHEAD


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

    numba compiles read-only arrays (memory maps, arrays from other processes) apart, which would
    double the compile time. The alias made here is only ever read.
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
