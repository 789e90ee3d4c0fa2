"""The compiled kernel that scores rows. Symbols and formula as in ``fm.kernels.rows``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fm.kernels.formula import ask_ahead, forward, span
from fm.kernels.jit import jit
from fm.kernels.layout import (
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
    store,
)

f4 = np.float32


@cache
def _scoring_kernel(width: int, chunks: int, entries: int, onehot: bool) -> Callable[..., Any]:
    stride = width * chunks

    def score(order, rows, indptr, indices, values, b, W, P, wide, block, out):
        for t in range(rows):
            ask_ahead(order, t, indptr, indices, values, entries, onehot, W, wide, P, block, stride)
            a, end = span(index(order, t), indptr, entries)
            linear, interaction, _, _, _ = forward(
                a, end - a, indices, values, onehot, W, wide, P, block, width, chunks, False, False,
                W, 0,
            )  # fmt: skip
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
