"""How fm compiles: the one decorator of all kernels, and where compiled code is kept.

Compiled kernels are cached on disk where that is possible. A read-only installation without a
home directory has no place for a cache; there the kernels are compiled in each process instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import overload

# fastmath stays off: it would delete the tests for NaN; the fast flags sit on the operations of
# fm.kernels.simd. error_model="numpy": Python's test for division by zero blocks vectorisation.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": False,
}

# numba's cache notices a change of a kernel's own file only, but kernels are made of each other,
# of the optimizers and of the losses. So the cache is stamped with all of these files.
_HERE = Path(__file__).parent
SOURCES = (*sorted(_HERE.rglob("*.py")), _HERE.parent / "measures" / "losses.py")
SOURCE_STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel on its first call; cached on disk if any directory for it is writable."""
    compiled: Any = numba.njit(function, **_OPTIONS)
    with contextlib.suppress(RuntimeError):  # "cannot cache function: no locator available"
        compiled._cache = _LockedCache(function)
    result: Callable[..., Any] = compiled
    return result


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let kernels call a function as if its lines stood in them.

    Whatever numba's own heuristics say; and numbers that are constants in the kernel are constants
    in the function, too, as some operations of ``fm.kernels.simd`` need them.
    """

    def choose(*args: Any) -> Callable[..., Any]:
        return function

    choose.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    options = {"forceinline": True, "error_model": "numpy"}
    overload(function, jit_options=options, strict=False, prefer_literal=True)(choose)
    return function


class _LockedCache(FunctionCache):
    """numba's cache on disk, for one process at a time.

    numba names the files of a function's compiled forms by counting, and writes the index before
    the code: two processes that compile at the same time could get each other's code.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # The stamp in place of the time at which the function's own file was changed.
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=SOURCE_STAMP,
        )

    def load_overload(self, *args: Any) -> Any:
        with self._alone():
            return super().load_overload(*args)

    def save_overload(self, *args: Any) -> Any:
        with self._alone():
            return super().save_overload(*args)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            import fcntl

            folder = Path(self.cache_path)
            folder.mkdir(parents=True, exist_ok=True)
            lock = open(folder / "fm.lock", "a")  # noqa: SIM115  closed below
        except (ImportError, OSError):  # no such locks here, or a read-only cache
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
