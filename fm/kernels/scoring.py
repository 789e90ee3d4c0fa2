"""The compiled kernel that scores rows. Symbols and formula as in ``fm.kernels.rows``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fm.kernels.jit import jit
from fm.kernels.layout import (
    AHEAD,
    DATA_AHEAD,
    PADDING,
    CsrArrays,
    Layout,
    csr_arrays,
    layout,
    padded_order,
    plain,
)
from fm.kernels.simd import (
    fma,
    index,
    load,
    prefetch,
    prefetch_span,
    store,
    vadd,
    vfma,
    vload,
    vmul,
    vscale,
    vsplat,
    vsub,
    vsum,
)

f4 = np.float32


@cache
def _scoring_kernel(width: int, chunks: int, entries: int, onehot: bool) -> Callable[..., Any]:
    stride = width * chunks

    def score(order, rows, indptr, indices, values, b, W, P, wide, block, out):
        for t in range(rows):
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
            r = index(order, t + AHEAD)
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
