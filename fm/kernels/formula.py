"""The score formula as kernels compute it, and how they ask for rows ahead. Each stands here once.

The formula is Rendle's (2010, eq. 3 and lemma 3.1)::

    p = w0 + sum_i w_i x_i + 1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ]

Symbols as in ``fm.kernels.rows``. These functions are compiled into the kernels that call them, and
what a kernel does not use of their results is not computed.
"""

from __future__ import annotations

import numpy as np

from fm.kernels.jit import inlined
from fm.kernels.layout import AHEAD, DATA_AHEAD
from fm.kernels.simd import (
    index,
    load,
    prefetch,
    prefetch_span,
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


@inlined
def span(r, indptr, entries):
    """Return where the entries of row r begin and end; `entries` of each row, or 0: it varies."""
    if entries:
        return r * entries, r * entries + entries
    return index(indptr, r), index(indptr, r + 1)


@inlined
def ask_ahead(order, t, indptr, indices, values, entries, onehot, W, wide, P, stride, block):
    """Ask for what later rows of `order` need: their data first, then the parameters they name.

    `block` numbers of P for each feature, which are `stride` apart.
    """
    r = index(order, t + DATA_AHEAD)
    if entries:
        prefetch_span(indices, r * entries, entries)
        if not onehot:
            prefetch_span(values, r * entries, entries)
    else:
        prefetch(indptr, index(order, t + 2 * DATA_AHEAD))
        for j in range(index(indptr, r), index(indptr, r + 1), 16):
            prefetch(indices, j)
            if not onehot:
                prefetch(values, j)
    a, end = span(index(order, t + AHEAD), indptr, entries)
    for j in range(a, end):
        c = index(indices, j)
        prefetch(W, c * wide)
        prefetch_span(P, c * stride, block)


@inlined
def forward(
    a, m, indices, values, onehot, W, wide, P, stride, width, chunks, lengths, keep, sums, at
):
    """Return (linear, interaction, squares, length, s) of the row with the m entries from a on.

    linear is sum_i w_i x_i; interaction is twice the sum over pairs; squares is sum_i x_i^2;
    length is the sum over features of |d p / d v|^2; s is sum_i v_i x_i, of the last chunk if there
    are several. squares and length are right only with `lengths`. With `keep`, s of each chunk is
    written to ``sums[at:]``.
    """
    linear = f4(0.0)
    squares = f4(0.0)
    interaction = f4(0.0)
    length = f4(0.0)
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
        if lengths:
            ss = vsum(vmul(s, s))
            qq = vsum(q)
            interaction += ss - qq
            if onehot:
                length += f4(m - 2) * ss + qq
            else:  # sum_i |x_i (s - x_i v_i)|^2, multiplied out
                length += squares * ss - f4(2.0) * vsum(vmul(s, q3)) + vsum(q2)
        else:
            interaction += vsum(vsub(vmul(s, s), q))
        if keep:
            vstore(sums, at + chunk * width, s)
    if onehot:
        squares = f4(m)
    return linear, interaction, squares, length, s
