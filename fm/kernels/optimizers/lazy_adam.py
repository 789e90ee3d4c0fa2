"""The built-in algorithm's optimizer: lazy Adam, one step per mini-batch (optimizer=sagemaker).

What was found out about Amazon's built-in algorithm (its published logs agree to the third digit):

1. the gradient of a batch, summed over its rows, is multiplied by rescale_grad, by default
   1 / mini_batch_size, also for a short last batch;
2. plus wd * parameter (L2 as a part of the gradient, not AdamW's decay);
3. clipped to +- clip_gradient, if that is set;
4. Adam with beta1 = 0.9, beta2 = 0.999, eps outside the root, and the bias correction of a global
   step count t;
5. lazy: of w and V only the rows whose features occur in the batch take part.

References
----------
Kingma & Ba (2015), algorithm 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fm.kernels.optimizers.adam import BETA1, BETA2
from fm.kernels.simd import (
    clamp,
    load,
    store,
    vadd,
    vaxpy,
    vdiv,
    vfill_like,
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


class LazyAdam(NamedTuple):
    """Adam on the summed gradient of a batch; states as Adam's. `clip` is infinite for none."""

    bias_lr: float
    linear_lr: float
    factors_lr: float
    bias_wd: float
    linear_wd: float
    factors_wd: float
    eps: float
    rescale: float
    clip: float

    num_states = 2
    bias_states = 4
    bounded = False

    @classmethod
    def of(cls, config: Any, epoch: int) -> LazyAdam:
        """Return the numbers of an epoch."""
        rescale, clip = config.rescale_grad, config.clip_gradient
        return cls(
            **rates(config, epoch),
            eps=f4(max(config.eps or 0.0, 1e-12)),
            rescale=f4(1.0 / config.mini_batch_size if rescale is None else rescale),
            clip=f4(np.inf if clip is None else clip),
        )

    @staticmethod
    def start(parameters: Any, config: Any, *, trained: bool) -> None:
        """Set beta1^0 and beta2^0."""
        parameters.B[3:] = 1.0

    @staticmethod
    def row_scale(opt, B, weight, linear_norm, factors_norm):
        B[3] *= np.float64(BETA1)
        B[4] *= np.float64(BETA2)
        return f4(math.sqrt(1.0 - B[4]) / (1.0 - B[3]))

    @staticmethod
    def step_bias(opt, B, b, g, weight, scale):
        d = g * opt.rescale + opt.bias_wd * b
        d = clamp(d, -opt.clip, opt.clip)
        B[1] = BETA1 * B[1] + (f4(1.0) - BETA1) * d
        B[2] = BETA2 * B[2] + (f4(1.0) - BETA2) * d * d
        # w0 itself is float64 here; b is it, rounded
        return B[0] - opt.bias_lr * scale * f4(B[1]) / (f4(math.sqrt(B[2])) + opt.eps)

    @staticmethod
    def step_linear(opt, W, at, gx, weight, scale):
        w = load(W, at)
        d = gx * opt.rescale + opt.linear_wd * w
        d = clamp(d, -opt.clip, opt.clip)
        m = BETA1 * load(W, at + 1) + (f4(1.0) - BETA1) * d
        n = BETA2 * load(W, at + 2) + (f4(1.0) - BETA2) * d * d
        store(W, at + 1, m)
        store(W, at + 2, n)
        store(W, at, w - opt.linear_lr * scale * m / (math.sqrt(n) + opt.eps))

    @staticmethod
    def step_factors(opt, P, at, gap, v, s, gx, x, weight, scale):
        # s = sum over the batch's rows of g x s_row, x = sum of g x^2, gx = 1
        clip = vfill_like(v, opt.clip)
        d = vaxpy(opt.rescale, s, vscale(v, opt.factors_wd - opt.rescale * x))
        d = vmax(vmin(d, clip), vscale(clip, f4(-1.0)))
        m = vaxpy(f4(1.0) - BETA1, d, vscale(vload_like(P, at + gap, v), BETA1))
        n = vaxpy(f4(1.0) - BETA2, vmul(d, d), vscale(vload_like(P, at + 2 * gap, v), BETA2))
        vstore(P, at + gap, m)
        vstore(P, at + 2 * gap, n)
        below = vadd(vsqrt(n), vfill_like(v, opt.eps))
        vstore(P, at, vsub(v, vdiv(vscale(m, opt.factors_lr * scale), below)))
