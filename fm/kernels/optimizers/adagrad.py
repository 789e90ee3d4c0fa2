"""AdaGrad: Duchi, Hazan & Singer (2011), section 1.3, diagonal form."""

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
    vfma,
    vload_like,
    vscale,
    vsqrt,
    vstore,
    vsub,
)
from fm.kernels.steps import rates, squared_eps

f4 = np.float32


class AdaGrad(NamedTuple):
    """Steps divided by the root of the sum of squared gradients; state: that sum."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float
    eps2: float

    num_states = 1
    bias_states = 1
    bounded = False

    @classmethod
    def of(cls, config: Any, epoch: int) -> AdaGrad:
        """Return the numbers of an epoch; eps is inside the root, so it is squared."""
        return cls(**rates(config, epoch), eps2=squared_eps(config))

    @staticmethod
    def row_scale(opt, B, weight, linear_norm, factors_norm):
        return f4(1.0)

    @staticmethod
    def step_bias(opt, B, b, g, weight, scale):
        d = weight * (g + opt.bias_wd * b)
        B[1] += d * d
        return b - opt.bias_lr * d / f4(math.sqrt(f4(B[1]) + opt.eps2))

    @staticmethod
    def step_linear(opt, W, at, gx, weight, scale):
        w = load(W, at)
        d = weight * (gx + opt.linear_wd * w)
        total = load(W, at + 1) + d * d
        store(W, at + 1, total)
        store(W, at, w - opt.linear_lr * d / math.sqrt(total + opt.eps2))

    @staticmethod
    def step_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
        d = vaxpy(weight * gx, vsub(s, vscale(v, x)), vscale(v, weight * opt.factors_wd))
        total = vfma(d, d, vload_like(P, at + gap, v))
        vstore(P, at + gap, total)
        root = vsqrt(vadd(total, vfill_like(v, opt.eps2)))
        vstore(P, at, vsub(v, vdiv(vscale(d, opt.factors_lr), root)))
