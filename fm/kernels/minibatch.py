"""The compiled kernel of optimizer=sagemaker: lazy mini-batch Adam, as the built-in runs it.

What was found out about Amazon's built-in algorithm (its published logs agree to the third digit):

1. the gradient of a batch is the sum over its rows of (prediction - y) * d score / d parameter;
   no factor 2 for the squared loss;
2. times rescale_grad, by default 1 / mini_batch_size, also for a short last batch;
3. plus wd * parameter (L2 as a part of the gradient, not AdamW's decay);
4. clipped to +- clip_gradient, if that is set;
5. Adam with beta1 = 0.9, beta2 = 0.999, eps outside the root, and the bias correction of a global
   step count t;
6. lazy: of w and V only the rows whose features occur in the batch take part in 3 to 5;
7. a short last batch is filled up with empty rows of label 0, which pull at w0 alone.

Instead of scattering each row's gradient into a table, the batch is turned on its side: the
entries are grouped by feature, so that each touched feature is read and written once.
Symbols as in ``fm.kernels.rows``; P and W hold per feature the parameter and the two moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from fm.kernels.jit import SOURCE_VERSION, jit
from fm.kernels.optimizers import BETA1, BETA2
from fm.kernels.rows import loss_terms
from fm.kernels.simd import (
    clamp,
    index,
    load,
    store,
    vadd,
    vaxpy,
    vdiv,
    vfill_like,
    vfma,
    vload,
    vmax,
    vmin,
    vmul,
    vscale,
    vsplat,
    vsqrt,
    vstore,
    vsub,
    vsum,
)

f4 = np.float32


class LazyAdam(NamedTuple):
    """The numbers of the mini-batch optimizer; `clip` is infinite where nothing is clipped."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float
    eps: float
    rescale: float
    clip: float


@cache
def minibatch_kernel(width: int, chunks: int, onehot: bool, weighted: bool) -> Callable[..., float]:
    """Return the compiled loop over the batches of one epoch.

    Parameters
    ----------
    width, chunks : int
        Of ``fm.kernels.rows.layout``.
    onehot, weighted : bool
        Whether all values are 1; whether there are sample weights.

    Returns
    -------
    callable
        ``epoch(order, start, stop, indptr, indices, values, y, weight, loss, opt, batch, pad,
        space, margins, B, W, P)`` trains on the rows ``order[start:stop]``, in batches, and
        returns the score of the rows that filled up the last one. `batch` is the number of
        rows per step, `pad` whether to fill up the last batch, `space` a :class:`Workspace`.
        Updates B = [w0, m, v, beta1^t, beta2^t], W and P in place; writes each row's score,
        before its batch's step, to margins.
    """
    gap = width * chunks
    stride = 3 * gap
    version = SOURCE_VERSION

    def epoch(
        order,
        start,
        stop,
        indptr,
        indices,
        values,
        y,
        weight,
        loss,
        opt,
        batch,
        pad,
        space,
        margins,
        B,
        W,
        P,
    ):
        sums, gradients, slot, touched, first, entry_row, entry_value = space
        one = f4(1.0)
        pad_score = f4(B[0])
        version  # noqa: B018  a part of the cache key
        for begin in range(start, stop, batch):
            rows = min(batch, stop - begin)
            b = f4(B[0])
            bias_gradient = 0.0
            features = 0

            # Forward: scores, derivatives, and which features occur how often.
            for i in range(rows):
                r = index(order, begin + i)
                a = index(indptr, r)
                end = index(indptr, r + 1)
                linear = f4(0.0)
                interaction = f4(0.0)
                for chunk in range(chunks):
                    s = vsplat(f4(0.0), width)
                    q = vsplat(f4(0.0), width)
                    for j in range(a, end):
                        c = index(indices, j)
                        v = vload(P, c * stride + chunk * width, width)
                        x = one
                        if not onehot:
                            x = load(values, j)
                            v = vscale(v, x)
                        if chunk == 0:
                            linear += x * load(W, c * 3)
                        s = vadd(s, v)
                        q = vfma(v, v, q)
                    interaction += vsum(vsub(vmul(s, s), q))
                    vstore(sums, i * gap + chunk * width, s)
                p = linear + f4(0.5) * interaction + b
                store(margins, begin + i, p)
                g, _, _ = loss_terms(loss, p, load(y, r))
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
                g, _, _ = loss_terms(loss, b, f4(0.0))
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

            # One Adam step.
            B[3] *= np.float64(BETA1)
            B[4] *= np.float64(BETA2)
            correction = f4(math.sqrt(1.0 - B[4]) / (1.0 - B[3]))
            d = f4(bias_gradient) * opt.rescale + opt.bias_wd * b
            d = clamp(d, -opt.clip, opt.clip)
            B[1] = BETA1 * B[1] + (one - BETA1) * d
            B[2] = BETA2 * B[2] + (one - BETA2) * d * d
            B[0] -= opt.bias_lr * correction * f4(B[1]) / (f4(math.sqrt(B[2])) + opt.eps)
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
                        w = load(W, c * 3)
                        d = gx * opt.rescale + opt.linear_wd * w
                        d = clamp(d, -opt.clip, opt.clip)
                        m = BETA1 * load(W, c * 3 + 1) + (one - BETA1) * d
                        n = BETA2 * load(W, c * 3 + 2) + (one - BETA2) * d * d
                        store(W, c * 3 + 1, m)
                        store(W, c * 3 + 2, n)
                        step = opt.linear_lr * correction * m / (math.sqrt(n) + opt.eps)
                        store(W, c * 3, w - step)
                    clip = vfill_like(v, opt.clip)
                    dv = vaxpy(opt.rescale, total, vscale(v, opt.factors_wd - opt.rescale * gxx))
                    dv = vmax(vmin(dv, clip), vscale(clip, f4(-1.0)))
                    mv = vaxpy(one - BETA1, dv, vscale(vload(P, at + gap, width), BETA1))
                    nv = vaxpy(
                        one - BETA2, vmul(dv, dv), vscale(vload(P, at + 2 * gap, width), BETA2)
                    )
                    vstore(P, at + gap, mv)
                    vstore(P, at + 2 * gap, nv)
                    below = vadd(vsqrt(nv), vfill_like(v, opt.eps))
                    vstore(P, at, vsub(v, vdiv(vscale(mv, opt.factors_lr * correction), below)))
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
