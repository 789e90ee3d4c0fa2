"""What a training kernel asks of an optimizer, and how an optimizer's code gets into the kernel.

An optimizer is a named tuple of numbers that a kernel takes as an argument. Its *type* decides,
when the kernel is compiled, which update that means. So a kernel holds no test for the optimizer,
and numba caches one machine code per optimizer.

A class in ``fm.kernels.optimizers`` has the numbers as its fields, and::

    num_states, bias_states   states kept for each parameter, and for w0
    bounded                   whether its steps stay small however large the loss's derivative is
    of(config, epoch)         -> the numbers of an epoch (from 0)
    start(parameters, config, trained=...)
                              sets what is not 0 in the states; may be left out. `trained`: the
                              parameters are those of a model, not random ones

and four functions that are compiled, in the order a row meets them::

    row_scale(opt, B, weight, linear_norm, factors_norm)   -> scale of this row's step
    step_bias(opt, B, b, g, weight, scale)                 -> new w0; state in B[1:]
    step_linear(opt, W, at, gx, weight, scale)             updates W[at], state in W[at + 1 ...]
    step_factors(opt, P, at, gap, v, s, gx, x, weight, scale)
                                                           updates P[at : at + len(v)],
                                                           state at at + gap, at + 2 * gap

with g the derivative of the loss by the score, x the feature's value, gx = g * x,
v the feature's factors and s = sum_i v_i x_i; then d score / d v = x (s - x v).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from fm.recipes import OPTIMIZERS


def optimizer_class(name: str) -> Any:
    """Return the class of an optimizer, by its name in the config."""
    module, _, name = OPTIMIZERS[name].home.partition(":")
    return getattr(importlib.import_module(f"fm.kernels.optimizers.{module}"), name)


def rates(config: Any, epoch: int) -> dict[str, Any]:
    """Return the learning rates and penalties of an epoch, under the names all optimizers share."""
    decay = 1.0 + (config.lr_decay or 0.0) * epoch
    found: dict[str, Any] = {}
    for part, used in (("bias", config.use_bias), ("linear", config.use_linear), ("factors", True)):
        found[f"{part}_lr"] = np.float32(getattr(config, f"{part}_lr") / decay if used else 0.0)
        found[f"{part}_wd"] = np.float32(getattr(config, f"{part}_wd"))
    return found


def squared_eps(config: Any) -> Any:
    """Return eps^2, for optimizers that add it inside the root; above 0 to avoid 0 / 0."""
    return np.float32(max(config.eps or 0.0, 1e-12) ** 2)


def by_type(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled code call `stub`: the class of the first argument has the implementation.

    It is the static method of the stub's name. Inlined, whatever numba's own heuristics say.
    """

    def choose(value: Any, *args: Any) -> Callable[..., Any] | None:
        return getattr(getattr(value, "instance_class", None), stub.__name__, None)

    choose.__signature__ = inspect.signature(stub)  # type: ignore[attr-defined]
    overload(stub, jit_options={"forceinline": True, "error_model": "numpy"}, strict=False)(choose)
    return stub


@by_type
def row_scale(opt, B, weight, linear_norm, factors_norm):  # noqa: D103
    raise NotImplementedError("compiled code only")


@by_type
def step_bias(opt, B, b, g, weight, scale):  # noqa: D103
    raise NotImplementedError("compiled code only")


@by_type
def step_linear(opt, W, at, gx, weight, scale):  # noqa: D103
    raise NotImplementedError("compiled code only")


@by_type
def step_factors(opt, P, at, gap, v, s, gx, x, weight, scale):  # noqa: D103
    raise NotImplementedError("compiled code only")
