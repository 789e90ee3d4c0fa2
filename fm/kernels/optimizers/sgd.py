"""Stochastic gradient descent with normalised steps.

References
----------
SGD and FM gradients: Rendle (2010), Factorization Machines, eq. 4.
The normalised step: Kulis & Bartlett (2010), Implicit Online Learning, eq. 6 (first order).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fm.kernels.simd import (
    fma,
    load,
    store,
    vaxpy,
    vscale,
    vstore,
)
from fm.kernels.steps import rates

f4 = np.float32


class Sgd(NamedTuple):
    """Stochastic gradient descent with normalised steps; no state."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float

    num_states = 0
    bias_states = 0
    bounded = True  # its normalised step needs no bound on the loss's derivative

    @classmethod
    def of(cls, config: Any, epoch: int) -> Sgd:
        """Return the numbers of an epoch."""
        return cls(**rates(config, epoch))

    @staticmethod
    def row_scale(opt, B, weight, linear_norm, factors_norm):
        # A step of size lr changes the score by -lr g |d score|^2. To divide it by
        # 1 + lr |d score|^2 is what an implicit step does to first order: it never overshoots,
        # however large lr is.
        # The sum is grouped so that factors_norm, which is ready last, has the shortest way.
        known = f4(1.0) + weight * (opt.bias_lr + opt.linear_lr * linear_norm)
        return weight / fma(weight * opt.factors_lr, factors_norm, known)

    @staticmethod
    def step_bias(opt, B, b, g, weight, scale):
        # b - h (g + wd b) with h = lr * scale; scale is ready last, so it enters last
        keep = fma(scale, -opt.bias_lr * opt.bias_wd, f4(1.0))
        return fma(b, keep, -(opt.bias_lr * g) * scale)

    @staticmethod
    def step_linear(opt, W, at, gx, weight, scale):
        keep = fma(scale, -opt.linear_lr * opt.linear_wd, f4(1.0))
        store(W, at, fma(load(W, at), keep, -(opt.linear_lr * gx) * scale))

    @staticmethod
    def step_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
        # v - h (gx (s - x v) + wd v) with h = lr * scale: one product, one fused addition
        pull = opt.factors_lr * gx
        keep = fma(scale, pull * x - opt.factors_lr * opt.factors_wd, f4(1.0))
        vstore(P, at, vaxpy(-pull * scale, s, vscale(v, keep)))
