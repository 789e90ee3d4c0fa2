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
from typing import Any

import numpy as np

from fm.kernels.formula import ask_ahead, forward, span
from fm.kernels.jit import jit
from fm.kernels.layout import DATA_AHEAD
from fm.kernels.losses import terms
from fm.kernels.simd import (
    fma,
    index,
    load,
    prefetch,
    store,
    vload,
)
from fm.kernels.steps import row_scale, step_bias, step_factors, step_linear

f4 = np.float32


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
        Whether to write the scores to `margins`; without, a tenth faster where all else is cached.

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

    def epoch(
        order, begin, stop, indptr, indices, values, y, weight, loss, opt, scratch, margins, B, W, P
    ):
        total = 0.0
        product = 1.0
        b = f4(B[0])
        one = f4(1.0)
        for t in range(begin, stop):
            prefetch(y, index(order, t + DATA_AHEAD))
            if weighted:
                prefetch(weight, index(order, t + DATA_AHEAD))
            ask_ahead(
                order, t, indptr, indices, values, entries, onehot, W, wide, P, stride, stride
            )
            r = index(order, t)
            a, end = span(r, indptr, entries)
            m = entries if entries else end - a
            linear, interaction, squares, length, s = forward(
                a, m, indices, values, onehot, W, wide, P, stride, width, chunks, True, chunks > 1,
                scratch, 0,
            )  # fmt: skip

            # b last: the chain from one row's step to the next row's score is shortest so.
            p = fma(f4(0.5), interaction, linear) + b
            if keep_scores:
                store(margins, t, p)
            g, addend, factor = terms(loss, p, load(y, r))
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
