"""The compiled kernel that trains batch by batch, as the built-in algorithm does.

1. The gradient of a batch is the sum over its rows of (prediction - y) * d score / d parameter;
   no factor 2 for the squared loss.
2. The optimizer takes one step with it (``fm.kernels.optimizers.lazy_adam``): of w0, and of w and V
   for the features that occur in the batch.
3. A short last batch may be filled up with empty rows of label 0, which pull at w0 alone.

Instead of scattering each row's gradient into a table, the batch is turned on its side: the
entries are grouped by feature, so that each touched feature is read and written once.
Symbols as in ``fm.kernels.rows``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from fm.kernels.formula import forward
from fm.kernels.jit import jit
from fm.kernels.losses import terms
from fm.kernels.simd import (
    index,
    load,
    store,
    vaxpy,
    vload,
    vsplat,
)
from fm.kernels.steps import row_scale, step_bias, step_factors, step_linear

f4 = np.float32


@cache
def minibatch_kernel(
    width: int, chunks: int, onehot: bool, weighted: bool, states: int
) -> Callable[..., float]:
    """Return the compiled loop over the batches of one epoch.

    Parameters
    ----------
    width, chunks : int
        Of ``fm.kernels.rows.layout``.
    onehot, weighted : bool
        Whether all values are 1; whether there are sample weights.
    states : int
        The optimizer's number of states per parameter.

    Returns
    -------
    callable
        ``epoch(order, start, stop, indptr, indices, values, y, weight, loss, opt, batch, pad,
        space, margins, B, W, P)`` trains on the rows ``order[start:stop]``, in batches, and
        returns the score of the rows that filled up the last one. `batch` is the number of
        rows per step, `pad` whether to fill up the last batch, `space` a :class:`Workspace`.
        Updates B, W and P in place; writes each row's score,
        before its batch's step, to margins.
    """
    gap = width * chunks
    wide = 1 + states
    stride = wide * gap

    def epoch(
        order, start, stop, indptr, indices, values, y, weight, loss, opt, batch, pad, space,
        margins, B, W, P,
    ):  # fmt: skip
        sums, gradients, slot, touched, first, entry_row, entry_value = space
        one = f4(1.0)
        pad_score = f4(B[0])
        for begin in range(start, stop, batch):
            rows = min(batch, stop - begin)
            b = f4(B[0])
            bias_gradient = 0.0
            features = 0

            # Forward: scores, derivatives, and which features occur how often.
            for i in range(rows):
                r = index(order, begin + i)
                a, end = index(indptr, r), index(indptr, r + 1)
                linear, interaction, _, _, _ = forward(
                    a, end - a, indices, values, onehot, W, wide, P, stride, width, chunks, False,
                    True, sums, i * gap,
                )  # fmt: skip
                p = linear + f4(0.5) * interaction + b
                store(margins, begin + i, p)
                g, _, _ = terms(loss, p, load(y, r))
                if weighted:
                    g *= load(weight, r)
                store(gradients, i, g)
                bias_gradient += g
                for j in range(a, end):
                    c = index(indices, j)
                    u = index(slot, c)
                    if u < 0:
                        u = features
                        features += 1
                        store(slot, c, u)
                        store(touched, u, c)
                        store(first, u, 0)
                    store(first, u, load(first, u) + 1)
            if pad and rows < batch:
                pad_score = b
                g, _, _ = terms(loss, b, f4(0.0))
                bias_gradient += np.float64(g) * (batch - rows)

            # Group the entries by feature: first[u] becomes the place after u's last entry ...
            filled = 0
            for u in range(features):
                filled += load(first, u)
                store(first, u, filled)
            # ... and, filled from the back, the place of its first one (rows stay in order).
            for i in range(rows - 1, -1, -1):
                r = index(order, begin + i)
                for j in range(index(indptr, r), index(indptr, r + 1)):
                    u = index(slot, index(indices, j))
                    at = load(first, u) - 1
                    store(first, u, at)
                    store(entry_row, at, i)
                    if not onehot:
                        store(entry_value, at, load(values, j))

            # One step: of w0, then of each feature in the batch.
            scale = row_scale(opt, B, one, f4(0.0), f4(0.0))
            B[0] = step_bias(opt, B, b, f4(bias_gradient), one, scale)
            for u in range(features):
                c = index(touched, u)
                store(slot, c, -1)
                begin_entry = index(first, u)
                end_entry = filled
                if u + 1 < features:
                    end_entry = index(first, u + 1)
                for chunk in range(chunks):
                    at = c * stride + chunk * width
                    v = vload(P, at, width)
                    total = vsplat(f4(0.0), width)
                    gx = f4(0.0)
                    gxx = f4(0.0)
                    for e in range(begin_entry, end_entry):
                        i = index(entry_row, e)
                        h = load(gradients, i)
                        x = one
                        if not onehot:
                            x = load(entry_value, e)
                        h *= x
                        gx += h
                        gxx += h * x
                        total = vaxpy(h, vload(sums, i * gap + chunk * width, width), total)
                    if chunk == 0:
                        step_linear(opt, W, c * wide, gx, one, scale)
                    step_factors(opt, P, at, gap, v, total, one, gxx, one, scale)
        return pad_score

    return jit(epoch)


class Workspace(NamedTuple):
    """Scratch arrays of one run of the kernel; `slot` is all -1 between batches."""

    sums: np.ndarray
    gradients: np.ndarray
    slot: np.ndarray
    touched: np.ndarray
    first: np.ndarray
    entry_row: np.ndarray
    entry_value: np.ndarray


def workspace(batch: int, entries: int, num_features: int, padded: int) -> Workspace:
    """Allocate the scratch arrays for batches of `batch` rows with at most `entries` entries."""
    return Workspace(
        sums=np.empty(batch * padded, np.float32),
        gradients=np.empty(batch, np.float32),
        slot=np.full(num_features, -1, np.int32),
        touched=np.empty(min(entries, num_features), np.int32),
        first=np.empty(min(entries, num_features), np.int64),
        entry_row=np.empty(entries, np.int32),
        entry_value=np.empty(entries, np.float32),
    )
