"""FTRL-proximal: McMahan et al. (2013), Ad Click Prediction, algorithm 1."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fm.kernels.simd import (
    clamp,
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
from fm.kernels.steps import rates

f4 = np.float32


FTRL_BETA = f4(1.0)


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

    num_states = 2
    bias_states = 2
    bounded = False

    @classmethod
    def of(cls, config: Any, epoch: int) -> Ftrl:
        """Return the numbers of an epoch."""
        l1 = {name: f4(getattr(config, name)) for name in ("linear_l1", "factors_l1")}
        return cls(**rates(config, epoch), **l1)

    @staticmethod
    def start(parameters: Any, config: Any, *, trained: bool) -> None:
        """Set each z so that FTRL's closed form gives back the parameter's present value.

        Trained parameters have been shrunk by the L1 penalty before, so z lies that much further
        out. Random ones have not: they vanish unless their gradients exceed the penalty.
        """
        W = parameters.W.reshape(-1, 3)
        P = parameters.P.reshape(len(W), 3, -1)
        for value, z, lr, wd, l1 in (
            (parameters.B[0:1], parameters.B[1:2], config.bias_lr, config.bias_wd, 0.0),
            (W[:, 0], W[:, 1], config.linear_lr, config.linear_wd, config.linear_l1),
            (P[:, 0], P[:, 1], config.factors_lr, config.factors_wd, config.factors_l1),
        ):
            if lr:
                z[...] = -value * (float(FTRL_BETA) / lr + (wd or 0.0))
                if trained:
                    z[...] -= np.sign(value) * l1

    @staticmethod
    def row_scale(opt, B, weight, linear_norm, factors_norm):
        return f4(1.0)

    @staticmethod
    def step_bias(opt, B, b, g, weight, scale):
        if opt.bias_lr == f4(0.0):
            return b
        d = weight * g
        root = math.sqrt(B[2])
        B[2] += d * d
        new_root = math.sqrt(B[2])
        B[1] += d - (new_root - root) / opt.bias_lr * b
        return f4(-B[1] / ((FTRL_BETA + new_root) / opt.bias_lr + opt.bias_wd))

    @staticmethod
    def step_linear(opt, W, at, gx, weight, scale):
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

    @staticmethod
    def step_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
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
