"""How the kernels compile a loss of a row's score (``fm.measures.losses``)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fm.kernels.simd import clamp
from fm.kernels.steps import by_type

# Bound of a loss's derivative where none is set: far from what normal runs reach, but finite.
FAR: Any = np.float32(1e6)


@by_type
def terms(loss, p, y):
    """Return (g, a, f): the derivative by the score p, and the loss as a + log(f).

    The kernel multiplies the f of many rows before it takes one logarithm.
    """
    raise NotImplementedError("compiled code only")


class Clipped(NamedTuple):
    """Another loss whose derivative is bounded by +-`clip`, then multiplied by `rescale`."""

    loss: Any
    clip: float
    rescale: float

    @staticmethod
    def terms(loss, p, y):
        g, addend, factor = terms(loss.loss, p, y)
        return loss.rescale * clamp(g, -loss.clip, loss.clip), addend, factor


def clipped(loss: Any, config: Any, scale: float) -> Any:
    """Return a loss with the config's bounds, for targets divided by `scale`."""
    clip = FAR if config.clip_gradient is None else np.float32(config.clip_gradient / scale)
    rescale = 1.0 if config.rescale_grad is None else config.rescale_grad
    return Clipped(loss, clip, np.float32(rescale))
