"""How fm compiles: the one decorator of all kernels, and where compiled code is kept.

Compiled kernels are cached on disk where that is possible. A read-only installation without a
home directory has no place for a cache; there the kernels are compiled in each process instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

# fastmath stays off: it would delete the tests for NaN; the fast flags sit on the operations of
# fm.simd. error_model="numpy": Python's test for division by zero blocks vectorisation.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": False,
}

# numba's cache notices a change of a kernel's own file only. Kernels capture this number, so that
# a change of anything they are made of gives them another key.
_HERE = Path(__file__).parent
SOURCE_VERSION = int.from_bytes(
    hashlib.sha256(
        b"".join(
            (_HERE / name).read_bytes()
            for name in ("simd.py", "optimizers.py", "kernels.py", "minibatch.py")
        )
    ).digest()[:4],
    "big",
)


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel on its first call; cached on disk if any directory for it is writable."""
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(function, cache=True, **_OPTIONS)
    except RuntimeError:  # "cannot cache function: no locator available"
        compiled = numba.njit(function, **_OPTIONS)
    return compiled
