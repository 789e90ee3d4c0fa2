"""The compiled kernel of pairs: an item that was met should score above one that was not.

Symbols (and those of ``fm.kernels.rows``)::

    context   CSR arrays (indptr, indices, values) of the rows without their items
    side      CSR arrays of the items, one row each; indices ascending
    c, p, n   the entries of a row's context, of its own item, of a negative item
    s         sum_j x_j v_j over one of these
    b         l + q of an item: sum_j w_j x_j + 1/2 (|s|^2 - sum_j x_j^2 |v_j|^2)
    d         score of the row less that of the negative: b_p - b_n + <s_c, s_p - s_n>

w0 and what the context contributes alone are in both scores, so d, and the losses, do not depend on
them. The derivatives of d are::

    by v_j of the context    x_j (s_p - s_n)
    by w_j of an item        x_j, negative for n's; of a feature of both: the difference
    by v_j of an item        x_j (s_c + s_p - x_j v_j), likewise

Decided here: the losses of d and the step. Not decided here: which negatives
(``fm.kernels.negatives``).

References
----------
Rendle et al. (2009), BPR: Bayesian Personalized Ranking from Implicit Feedback, section 4.
Weston, Bengio & Usunier (2011), WSABIE, algorithm 1: the first negative that comes too close is
stepped on, weighted by the rank that the number of trials suggests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fm.kernels.jit import inlined, jit
from fm.kernels.layout import AHEAD
from fm.kernels.losses import FAR
from fm.kernels.simd import (
    clamp,
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
from fm.kernels.steps import by_type, row_scale, step_factors, step_linear

f4 = np.float32
_END = 2**31  # behind every feature


@by_type
def pair_terms(loss, d, trial):
    """Return (derivative of the loss by d, the loss, whether the row is done with)."""
    raise NotImplementedError("compiled code only")


class Bpr(NamedTuple):
    """-log sigmoid(d), one step for each negative; g is clipped, then rescaled."""

    clip: float
    rescale: float

    @staticmethod
    def pair_terms(loss, d, trial):
        e = f4(math.exp(-abs(d)))  # never overflows
        share = f4(1.0) / (f4(1.0) + e)
        if d > f4(0.0):
            share = e * share
        value = math.log(1.0 + np.float64(e)) + np.float64(max(-d, f4(0.0)))
        return loss.rescale * clamp(-share, -loss.clip, loss.clip), value, False


class Warp(NamedTuple):
    """Weighted max(0, 1 - d) of the first negative above 0; then no more are tried.

    The weight is log(1 + (num_items - 1) / trials) / log(num_items), which is 1 at the first trial.
    """

    clip: float
    rescale: float
    num_items: float

    @staticmethod
    def pair_terms(loss, d, trial):
        if d >= f4(1.0):
            return f4(0.0), 0.0, False
        rank = (loss.num_items - f4(1.0)) / trial
        weight = f4(math.log(1.0 + rank) / math.log(max(loss.num_items, f4(2.0))))
        value = np.float64(weight) * np.float64(f4(1.0) - d)
        return loss.rescale * clamp(-weight, -loss.clip, loss.clip), value, True


def pair_loss(config: Any, num_items: int) -> Any:
    """Return the config's loss of pairs."""
    clip = FAR if config.clip_gradient is None else f4(config.clip_gradient)
    rescale = f4(1.0 if config.rescale_grad is None else config.rescale_grad)
    if config.ranking_loss == "warp":
        return Warp(clip, rescale, f4(num_items))
    return Bpr(clip, rescale)


@inlined
def item_part(side, item, W, wide, P, stride, width, chunks, scratch, at):
    """Return b + <s_c, s> of an item; its s is written to ``scratch[at:]``, s_c stands in front."""
    first, last = index(side[0], item), index(side[0], item + 1)
    part = f4(0.0)
    for j in range(first, last):
        part += load(side[2], j) * load(W, index(side[1], j) * wide)
    for chunk in range(chunks):
        context = vload(scratch, chunk * width, width)
        s = vsplat(f4(0.0), width)
        q = vsplat(f4(0.0), width)
        for j in range(first, last):
            v = vload(P, index(side[1], j) * stride + chunk * width, width)
            v = vscale(v, load(side[2], j))
            s = vadd(s, v)
            q = vfma(v, v, q)
        vstore(scratch, at + chunk * width, s)
        part += f4(0.5) * vsum(vsub(vmul(s, s), q)) + vsum(vmul(context, s))
    return part


@inlined
def next_feature(side, i, last_i, j, last_j):
    """Return (feature, x in the own item, x in the other, new i, new j): both merged by feature."""
    ci = index(side[1], i) if i < last_i else _END
    cj = index(side[1], j) if j < last_j else _END
    own = load(side[2], i) if ci <= cj else f4(0.0)
    other = load(side[2], j) if cj <= ci else f4(0.0)
    return min(ci, cj), own, other, i + (1 if ci <= cj else 0), j + (1 if cj <= ci else 0)


@inlined
def slope(s, own_s, own_x, other_s, other_x, v):
    """Return the derivative of d by the v of an item's feature, x (s_c + s_p - x v) of both."""
    own = vscale(vadd(s, vsub(own_s, vscale(v, own_x))), own_x)
    other = vscale(vadd(s, vsub(other_s, vscale(v, other_x))), other_x)
    return vsub(own, other)


@cache
def pair_kernel(width: int, chunks: int, weighted: bool, states: int) -> Callable[..., Any]:
    """Return the compiled loop over rows and their negatives for one shape of the problem.

    Parameters
    ----------
    width, chunks : int
        Of :func:`fm.kernels.rows.layout`.
    weighted : bool
        Whether there are weights of rows.
    states : int
        The optimizer's number of states per parameter.

    Returns
    -------
    callable
        ``epoch(order, begin, stop, each, items, negatives, context, side, weight, loss, opt,
        scratch, margins, B, W, P)`` -> sum of the (weighted) losses of the rows
        ``order[begin:stop]``. Row ``order[t]`` has the negatives from ``(t - begin) * each`` on;
        -1 is left out. `scratch` holds 3 kp numbers. Updates W and P in place (of B, Adam's
        count of steps alone), and writes d of each row's first negative to ``margins[t]`` if there
        is room. `loss` and `opt` are values of this module's and fm.kernels.optimizers' classes.
    """
    gap = width * chunks
    stride = (1 + states) * gap
    wide = 1 + states

    def epoch(
        order, begin, stop, each, items, negatives, context, side, weight, loss, opt, scratch,
        margins, B, W, P,
    ):  # fmt: skip
        total = 0.0
        one, zero = f4(1.0), f4(0.0)
        for t in range(begin, stop):
            if t + AHEAD < stop:
                r = index(order, t + AHEAD)
                for j in range(index(context[0], r), index(context[0], r + 1)):
                    prefetch_span(P, index(context[1], j) * stride, stride)
                for ahead in range(-1, min(each, 4)):
                    item = index(items, r)
                    if ahead >= 0:
                        item = max(0, index(negatives, (t + AHEAD - begin) * each + ahead))
                    for j in range(index(side[0], item), index(side[0], item + 1)):
                        c = index(side[1], j)
                        prefetch(W, c * wide)
                        prefetch_span(P, c * stride, stride)

            r = index(order, t)
            sample_weight = one
            if weighted:
                sample_weight = load(weight, r)
            c0, c1 = index(context[0], r), index(context[0], r + 1)
            own = index(items, r)
            p0, p1 = index(side[0], own), index(side[0], own + 1)
            moved = True  # whether the parameters have changed since own_part was computed
            own_part = zero  # b_p + <s_c, s_p>
            squares = zero  # sum of the context's x^2
            for trial in range(each):
                other = index(negatives, (t - begin) * each + trial)
                if other < 0:
                    continue
                n0, n1 = index(side[0], other), index(side[0], other + 1)

                # Forward: s_c, s_p, s_n lie in scratch, chunk by chunk.
                if moved:
                    moved = False
                    squares = zero
                    for j in range(c0, c1):
                        x = load(context[2], j)
                        squares += x * x
                    for chunk in range(chunks):
                        s = vsplat(zero, width)
                        for j in range(c0, c1):
                            at = index(context[1], j) * stride + chunk * width
                            s = vaxpy(load(context[2], j), vload(P, at, width), s)
                        vstore(scratch, chunk * width, s)
                    own_part = item_part(side, own, W, wide, P, stride, width, chunks, scratch, gap)
                other_part = item_part(
                    side, other, W, wide, P, stride, width, chunks, scratch, 2 * gap
                )
                d = own_part - other_part
                if trial == 0 and t < margins.size:
                    store(margins, t, d)
                g, value, done = pair_terms(loss, d, f4(trial + 1))
                total += sample_weight * value
                if g == zero:
                    continue
                moved = True

                # |derivatives of d|^2, which sgd's normalised step needs.
                linear_norm = zero
                factors_norm = zero
                for chunk in range(chunks):
                    s = vload(scratch, chunk * width, width)
                    sp = vload(scratch, gap + chunk * width, width)
                    sn = vload(scratch, 2 * gap + chunk * width, width)
                    u = vsub(sp, sn)
                    factors_norm += squares * vsum(vmul(u, u))
                    i, j = p0, n0
                    while i < p1 or j < n1:
                        c, xp, xn, i, j = next_feature(side, i, p1, j, n1)
                        v = vload(P, c * stride + chunk * width, width)
                        u = slope(s, sp, xp, sn, xn, v)
                        factors_norm += vsum(vmul(u, u))
                        if chunk == 0:
                            linear_norm += (xp - xn) * (xp - xn)
                scale = row_scale(opt, B, sample_weight, linear_norm, factors_norm)

                # Backward: the items first, whose derivatives need s_c only; then the context.
                for chunk in range(chunks):
                    s = vload(scratch, chunk * width, width)
                    sp = vload(scratch, gap + chunk * width, width)
                    sn = vload(scratch, 2 * gap + chunk * width, width)
                    i, j = p0, n0
                    while i < p1 or j < n1:
                        c, xp, xn, i, j = next_feature(side, i, p1, j, n1)
                        if chunk == 0:
                            step_linear(opt, W, c * wide, g * (xp - xn), sample_weight, scale)
                        at = c * stride + chunk * width
                        v = vload(P, at, width)
                        u = slope(s, sp, xp, sn, xn, v)
                        # gx (s - x v) with x = 0: u is the whole derivative of d already
                        step_factors(opt, P, at, gap, v, u, g, zero, sample_weight, scale)
                    u = vsub(sp, sn)
                    for j in range(c0, c1):
                        at = index(context[1], j) * stride + chunk * width
                        v = vload(P, at, width)
                        gx = g * load(context[2], j)
                        step_factors(opt, P, at, gap, v, u, gx, zero, sample_weight, scale)
                if done:
                    break
        return total

    return jit(epoch)
