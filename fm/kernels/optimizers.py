"""The optimizers as values: each is a named tuple of numbers, and four small functions of it.

A training kernel takes an optimizer as an argument. Which update that means is decided by the
tuple's *type* when the kernel is compiled, so a kernel holds no test for the optimizer, and numba
caches one machine code per optimizer.

The four functions, in the order a row meets them::

    row_scale(opt, B, weight, linear_norm, factors_norm)   -> scale of this row's step
    step_bias(opt, B, b, g, weight, scale)                 -> new w0; state in B[1:]
    step_linear(opt, W, at, gx, weight, scale)             updates W[at], state in W[at + 1 ...]
    step_factors(opt, P, at, gap, v, s, gx, x, weight, scale)
                                                           updates P[at : at + len(v)],
                                                           state at at + gap, at + 2 * gap

with g the derivative of the loss by the score, x the feature's value, gx = g * x,
v the feature's factors and s = sum_i v_i x_i; then d score / d v = x (s - x v).

To add one: a NamedTuple with `num_states`, four functions, an entry in OPTIMIZERS.

References
----------
SGD and FM gradients: Rendle (2010), Factorization Machines, eq. 4.
The normalised step: Kulis & Bartlett (2010), Implicit Online Learning, eq. 6 (first order).
AdaGrad: Duchi, Hazan & Singer (2011), section 1.3, diagonal form.
Adam: Kingma & Ba (2015), algorithm 1; rows that do not occur in a step are left alone.
FTRL-proximal: McMahan et al. (2013), Ad Click Prediction, algorithm 1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from fm.kernels.simd import (
    clamp,
    fma,
    load,
    store,
    vadd,
    vaxpy,
    vdiv,
    vfill_like,
    vfma,
    vload_like,
    vmax,
    vmin,
    vmul,
    vscale,
    vsqrt,
    vstore,
    vsub,
)

f4 = np.float32


class Sgd(NamedTuple):
    """Stochastic gradient descent with normalised steps; no state."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float


class AdaGrad(NamedTuple):
    """Steps divided by the root of the sum of squared gradients; state: that sum."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float
    eps2: float


class Adam(NamedTuple):
    """Lazy Adam, one step per row; states: the two moments."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float
    eps2: float


class Ftrl(NamedTuple):
    """FTRL-proximal; states: z and the sum of squared gradients n."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float
    linear_l1: float
    factors_l1: float


BETA1, BETA2 = f4(0.9), f4(0.999)  # Adam's, as in the paper and in the built-in algorithm
FTRL_BETA = f4(1.0)


class Recipe(NamedTuple):
    """What the trainer must know of an optimizer besides its updates."""

    make: type
    num_states: int
    bias_states: int


OPTIMIZERS = {
    "sgd": Recipe(Sgd, 0, 0),
    "adagrad": Recipe(AdaGrad, 1, 1),
    "adam": Recipe(Adam, 2, 4),
    "ftrl": Recipe(Ftrl, 2, 2),
}


def by_type(stub: Callable[..., Any], table: dict[type, Callable[..., Any]]) -> None:
    """Let compiled code call `stub`; the first argument's type picks the implementation."""

    def choose(opt: Any, *args: Any) -> Callable[..., Any] | None:
        return table.get(getattr(opt, "instance_class", None))  # type: ignore[arg-type]

    choose.__signature__ = inspect.signature(stub)  # type: ignore[attr-defined]
    overload(stub, jit_options={"forceinline": True, "error_model": "numpy"}, strict=False)(choose)


# --- row_scale ------------------------------------------------------------------------------------
def row_scale(opt, B, weight, linear_norm, factors_norm):  # noqa: D103
    raise NotImplementedError("compiled code only")


def _sgd_row_scale(opt, B, weight, linear_norm, factors_norm):
    # A step of size lr changes the score by -lr g |d score|^2. Dividing it by 1 + lr |d score|^2
    # is what an implicit step does to first order: it never overshoots, however large lr is.
    # The sum is grouped so that factors_norm, which is ready last, has the shortest way.
    known = f4(1.0) + weight * (opt.bias_lr + opt.linear_lr * linear_norm)
    return weight / fma(weight * opt.factors_lr, factors_norm, known)


def _plain_row_scale(opt, B, weight, linear_norm, factors_norm):
    return f4(1.0)


def _adam_row_scale(opt, B, weight, linear_norm, factors_norm):
    # B[3] and B[4] hold beta1^t and beta2^t; tiny ones become 0 before they turn denormal (slow).
    power1 = B[3] * BETA1
    power2 = B[4] * BETA2
    B[3] = power1 if power1 > 1e-30 else 0.0
    B[4] = power2 if power2 > 1e-30 else 0.0
    return f4(math.sqrt(1.0 - B[4]) / (1.0 - B[3]))


# --- step_bias ------------------------------------------------------------------------------------
def step_bias(opt, B, b, g, weight, scale):  # noqa: D103
    raise NotImplementedError("compiled code only")


def _sgd_bias(opt, B, b, g, weight, scale):
    # b - h (g + wd b) with h = lr * scale; scale is ready last, so it enters last
    keep = fma(scale, -opt.bias_lr * opt.bias_wd, f4(1.0))
    return fma(b, keep, -(opt.bias_lr * g) * scale)


def _adagrad_bias(opt, B, b, g, weight, scale):
    d = weight * (g + opt.bias_wd * b)
    B[1] += d * d
    return b - opt.bias_lr * d / f4(math.sqrt(f4(B[1]) + opt.eps2))


def _adam_bias(opt, B, b, g, weight, scale):
    d = weight * (g + opt.bias_wd * b)
    B[1] = BETA1 * B[1] + (f4(1.0) - BETA1) * d
    B[2] = BETA2 * B[2] + (f4(1.0) - BETA2) * d * d
    return b - opt.bias_lr * scale * f4(B[1]) / f4(math.sqrt(f4(B[2]) + opt.eps2))


def _ftrl_bias(opt, B, b, g, weight, scale):
    if opt.bias_lr == f4(0.0):
        return b
    d = weight * g
    root = math.sqrt(B[2])
    B[2] += d * d
    new_root = math.sqrt(B[2])
    B[1] += d - (new_root - root) / opt.bias_lr * b
    return f4(-B[1] / ((FTRL_BETA + new_root) / opt.bias_lr + opt.bias_wd))


# --- step_linear ----------------------------------------------------------------------------------
def step_linear(opt, W, at, gx, weight, scale):  # noqa: D103
    raise NotImplementedError("compiled code only")


def _sgd_linear(opt, W, at, gx, weight, scale):
    keep = fma(scale, -opt.linear_lr * opt.linear_wd, f4(1.0))
    store(W, at, fma(load(W, at), keep, -(opt.linear_lr * gx) * scale))


def _adagrad_linear(opt, W, at, gx, weight, scale):
    w = load(W, at)
    d = weight * (gx + opt.linear_wd * w)
    total = load(W, at + 1) + d * d
    store(W, at + 1, total)
    store(W, at, w - opt.linear_lr * d / math.sqrt(total + opt.eps2))


def _adam_linear(opt, W, at, gx, weight, scale):
    w = load(W, at)
    d = weight * (gx + opt.linear_wd * w)
    m = BETA1 * load(W, at + 1) + (f4(1.0) - BETA1) * d
    u = BETA2 * load(W, at + 2) + (f4(1.0) - BETA2) * d * d
    store(W, at + 1, m)
    store(W, at + 2, u)
    store(W, at, w - opt.linear_lr * scale * m / math.sqrt(u + opt.eps2))


def _ftrl_linear(opt, W, at, gx, weight, scale):
    if opt.linear_lr == f4(0.0):
        return
    w = load(W, at)
    d = weight * gx
    n = load(W, at + 2)
    total = n + d * d
    root = math.sqrt(total)
    z = load(W, at + 1) + d - (root - math.sqrt(n)) / opt.linear_lr * w
    store(W, at + 1, z)
    store(W, at + 2, total)
    shrunk = z - clamp(z, -opt.linear_l1, opt.linear_l1)  # 0 exactly where |z| <= l1
    store(W, at, -shrunk / ((FTRL_BETA + root) / opt.linear_lr + opt.linear_wd))


# --- step_factors ---------------------------------------------------------------------------------
def step_factors(opt, P, at, gap, v, s, gx, x, weight, scale):  # noqa: D103
    raise NotImplementedError("compiled code only")


def _sgd_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
    # v - h (gx (s - x v) + wd v) with h = lr * scale: one product and one fused addition a lane
    pull = opt.factors_lr * gx
    keep = fma(scale, pull * x - opt.factors_lr * opt.factors_wd, f4(1.0))
    vstore(P, at, vaxpy(-pull * scale, s, vscale(v, keep)))


def _adagrad_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
    d = vaxpy(weight * gx, vsub(s, vscale(v, x)), vscale(v, weight * opt.factors_wd))
    total = vfma(d, d, vload_like(P, at + gap, v))
    vstore(P, at + gap, total)
    root = vsqrt(vadd(total, vfill_like(v, opt.eps2)))
    vstore(P, at, vsub(v, vdiv(vscale(d, opt.factors_lr), root)))


def _adam_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
    d = vaxpy(weight * gx, vsub(s, vscale(v, x)), vscale(v, weight * opt.factors_wd))
    m = vaxpy(f4(1.0) - BETA1, d, vscale(vload_like(P, at + gap, v), BETA1))
    u = vaxpy(f4(1.0) - BETA2, vmul(d, d), vscale(vload_like(P, at + 2 * gap, v), BETA2))
    vstore(P, at + gap, m)
    vstore(P, at + 2 * gap, u)
    root = vsqrt(vadd(u, vfill_like(v, opt.eps2)))
    vstore(P, at, vsub(v, vdiv(vscale(m, opt.factors_lr * scale), root)))


def _ftrl_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
    if opt.factors_lr == f4(0.0):
        return
    inverse = f4(1.0) / opt.factors_lr
    d = vscale(vsub(s, vscale(v, x)), weight * gx)
    n = vload_like(P, at + 2 * gap, v)
    total = vfma(d, d, n)
    root = vsqrt(total)
    moved = vmul(vscale(vsub(root, vsqrt(n)), inverse), v)
    z = vsub(vadd(vload_like(P, at + gap, v), d), moved)
    vstore(P, at + gap, z)
    vstore(P, at + 2 * gap, total)
    l1 = vfill_like(v, opt.factors_l1)
    shrunk = vsub(z, vmax(vmin(z, l1), vscale(l1, f4(-1.0))))
    below = vaxpy(inverse, root, vfill_like(v, FTRL_BETA * inverse + opt.factors_wd))
    vstore(P, at, vdiv(vscale(shrunk, f4(-1.0)), below))


by_type(
    row_scale,
    {Sgd: _sgd_row_scale, AdaGrad: _plain_row_scale, Adam: _adam_row_scale, Ftrl: _plain_row_scale},
)
by_type(step_bias, {Sgd: _sgd_bias, AdaGrad: _adagrad_bias, Adam: _adam_bias, Ftrl: _ftrl_bias})
by_type(
    step_linear,
    {Sgd: _sgd_linear, AdaGrad: _adagrad_linear, Adam: _adam_linear, Ftrl: _ftrl_linear},
)
by_type(
    step_factors,
    {Sgd: _sgd_factors, AdaGrad: _adagrad_factors, Adam: _adam_factors, Ftrl: _ftrl_factors},
)
