"""Lazy Adam, one step per row.

References
----------
Kingma & Ba (2015), algorithm 1; rows that do not occur in a step are left alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fm.kernels.simd import (
    load,
    store,
    vadd,
    vaxpy,
    vdiv,
    vfill_like,
    vload_like,
    vmul,
    vscale,
    vsqrt,
    vstore,
    vsub,
)
from fm.kernels.steps import rates, squared_eps

f4 = np.float32


BETA1, BETA2 = f4(0.9), f4(0.999)  # as in the paper and in the built-in algorithm


class Adam(NamedTuple):
    """Lazy Adam, one step per row; states: the two moments, of the bias also beta1^t, beta2^t."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float
    eps2: float

    num_states = 2
    bias_states = 4
    bounded = False

    @classmethod
    def of(cls, config: Any, epoch: int) -> Adam:
        """Return the numbers of an epoch; eps is inside the root, so it is squared."""
        return cls(**rates(config, epoch), eps2=squared_eps(config))

    @staticmethod
    def start(parameters: Any, config: Any, *, trained: bool) -> None:
        """Set beta1^0 and beta2^0."""
        parameters.B[3:] = 1.0

    @staticmethod
    def row_scale(opt, B, weight, linear_norm, factors_norm):
        # B[3], B[4] are beta1^t, beta2^t; tiny ones become 0 before they turn denormal (slow).
        power1 = B[3] * BETA1
        power2 = B[4] * BETA2
        B[3] = power1 if power1 > 1e-30 else 0.0
        B[4] = power2 if power2 > 1e-30 else 0.0
        return f4(math.sqrt(1.0 - B[4]) / (1.0 - B[3]))

    @staticmethod
    def step_bias(opt, B, b, g, weight, scale):
        d = weight * (g + opt.bias_wd * b)
        B[1] = BETA1 * B[1] + (f4(1.0) - BETA1) * d
        B[2] = BETA2 * B[2] + (f4(1.0) - BETA2) * d * d
        return b - opt.bias_lr * scale * f4(B[1]) / f4(math.sqrt(f4(B[2]) + opt.eps2))

    @staticmethod
    def step_linear(opt, W, at, gx, weight, scale):
        w = load(W, at)
        d = weight * (gx + opt.linear_wd * w)
        m = BETA1 * load(W, at + 1) + (f4(1.0) - BETA1) * d
        u = BETA2 * load(W, at + 2) + (f4(1.0) - BETA2) * d * d
        store(W, at + 1, m)
        store(W, at + 2, u)
        store(W, at, w - opt.linear_lr * scale * m / math.sqrt(u + opt.eps2))

    @staticmethod
    def step_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
        d = vaxpy(weight * gx, vsub(s, vscale(v, x)), vscale(v, weight * opt.factors_wd))
        m = vaxpy(f4(1.0) - BETA1, d, vscale(vload_like(P, at + gap, v), BETA1))
        u = vaxpy(f4(1.0) - BETA2, vmul(d, d), vscale(vload_like(P, at + 2 * gap, v), BETA2))
        vstore(P, at + gap, m)
        vstore(P, at + 2 * gap, u)
        root = vsqrt(vadd(u, vfill_like(v, opt.eps2)))
        vstore(P, at, vsub(v, vdiv(vscale(m, opt.factors_lr * scale), root)))
