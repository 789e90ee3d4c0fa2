"""The parameters while they are trained, with the optimizer's state.

Layout (see ``fm.kernels.rows``): per feature one row ``[v padded to kp, state 1, state 2, ...]`` in
P and ``[w, state 1, ...]`` in W; B holds w0 and its states. Large arrays are anonymous memory maps:
the part that a finished model does not need is given back without a copy.
"""

from __future__ import annotations

import contextlib
import mmap
import tempfile
import weakref
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from fm.config import TrainConfig
from fm.kernels.layout import Layout, layout
from fm.kernels.steps import optimizer_class

Values = tuple[float, np.ndarray, np.ndarray]  # w0, w, V

LARGE_BYTES = 1 << 25  # bytes from which memory is worth managing by hand
# Flags of a map whose pages can be given back (those of a shared one, the default, cannot).
_PRIVATE: int | None = None
if hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS"):
    _PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def aligned_zeros(size: int) -> np.ndarray:
    """Return `size` float32 zeros that start at a cache line, so that rows of 16 fill one each."""
    if size * 4 >= LARGE_BYTES and _PRIVATE is not None:
        memory = mmap.mmap(-1, size * 4, flags=_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):
                # Fewer address translations: 8-18% of the time of an epoch on a large table.
                memory.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(memory, np.float32)
    raw = np.zeros(size + 16, np.float32)
    start = -raw.ctypes.data % 64 // 4
    return raw[start : start + size]


def give_back_tail(array: np.ndarray, used: int) -> None:
    """Give the memory behind the first `used` items of an aligned_zeros array back."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    memory = getattr(base, "obj", base)
    if isinstance(memory, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        start = -(-used * 4 // mmap.PAGESIZE) * mmap.PAGESIZE
        if start < len(memory):
            memory.madvise(mmap.MADV_DONTNEED, start)


class Parameters:
    """w0, w and V with the state of the optimizer, as the kernels of gradient steps take them.

    Parameters
    ----------
    config : TrainConfig
        Resolved.
    num_features : int
        n.

    Attributes
    ----------
    B, W, P : ndarray
        See ``fm.kernels.rows``.
    lanes : Layout
        How V's rows lie in P.
    states : int
        The optimizer's number of states per parameter.
    center, scale : float
        The kernel trains on (y - center) / scale.
    snapshot : Snapshot or None
        The best parameters so far.
    """

    def __init__(self, config: TrainConfig, num_features: int) -> None:
        self.config, self.num_features = config, num_features
        self.optimizer = optimizer_class(config.used_optimizer)
        self.lanes: Layout = layout(config.num_factors)
        self.states: int = self.optimizer.num_states
        self.center, self.scale = 0.0, 1.0
        wide = 1 + self.states
        self.B = np.zeros(1 + self.optimizer.bias_states, np.float64)
        self.W = aligned_zeros(num_features * wide)
        self.P = aligned_zeros(num_features * wide * self.lanes.padded)
        self.snapshot: Snapshot | None = None

    @property
    def w(self) -> np.ndarray:
        """View of the linear weights, shape (n,)."""
        return self.W.reshape(self.num_features, 1 + self.states)[:, 0]

    @property
    def V(self) -> np.ndarray:  # noqa: N802  the field's name
        """View of the factors, shape (n, k)."""
        rows = self.P.reshape(self.num_features, -1)
        return rows[:, : self.config.num_factors]

    def initialise(
        self, rng: np.random.Generator, mean: float, seen: np.ndarray | None = None
    ) -> None:
        """Draw the initial values.

        Parameters
        ----------
        rng : numpy.random.Generator
        mean : float
            Start of the bias where the config names none, in the target's unit.
        seen : ndarray of bool, shape (n,), optional
            Features to draw factors for; those of the others are 0.
        """
        config = self.config
        self.B[:], self.W[:], self.P[:] = 0.0, 0.0, 0.0
        if config.use_bias:
            drawn = _draw(rng, config, "bias", 1)
            start = mean if drawn is None else float(drawn[0])
            self.B[0] = (start - self.center) / self.scale
        if config.use_linear:
            self._draw_into(rng, "linear", self.w[:, None])
        self._draw_into(rng, "factors", self.V)
        if seen is not None:
            self.V[~seen] = 0.0
        self._start_optimizer(trained=False)

    def _draw_into(self, rng: np.random.Generator, part: str, view: np.ndarray) -> None:
        block = max(1, (1 << 20) // view.shape[1])
        for start in range(0, len(view), block):
            rows = view[start : start + block]
            drawn = _draw(rng, self.config, part, rows.size)
            if drawn is not None:
                rows[:] = drawn.reshape(rows.shape)

    def start_from(self, w0: float, w: np.ndarray, V: np.ndarray) -> None:
        """Take over the parameters of a finished model; the optimizer's state starts afresh."""
        self.B[:], self.W[:], self.P[:] = 0.0, 0.0, 0.0
        self.B[0] = (w0 - self.center) / self.scale
        self.w[:] = w / self.scale
        self.V[:] = V / np.sqrt(np.float32(self.scale))
        self._start_optimizer(trained=True)

    def _start_optimizer(self, *, trained: bool) -> None:
        start = getattr(self.optimizer, "start", None)
        if start is not None:
            start(self, self.config, trained=trained)

    def keep_best(self) -> None:
        """Remember the present parameters as the best."""
        # An interruption while the copy is made leaves none: the parameters are the best then.
        snapshot, self.snapshot = self.snapshot or Snapshot(self), None
        snapshot.take(self)
        self.snapshot = snapshot

    def in_unit(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return (w0, w, V) in the target's unit: views where that is the unit of training."""
        w0, scale = float(self.center + self.scale * self.B[0]), np.float32(self.scale)
        if scale == 1:
            return w0, self.w, self.V
        return w0, self.w * scale, self.V * np.sqrt(scale)

    def finish(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return (w0, w, V) in the target's unit; the state cannot be trained further.

        V is packed to the front of P's memory and the rest is given back.
        """
        n, k = self.num_features, self.config.num_factors
        if self.snapshot is not None:
            self.snapshot.restore(self)
        w = self.w * np.float32(self.scale)
        rows = self.P.reshape(n, -1)
        if rows.shape[1] != k:
            packed = self.P[: n * k].reshape(n, k)
            block = max(1, (1 << 20) // rows.shape[1])
            for start in range(0, n, block):  # front to back: never overwrites what is yet to move
                packed[start : start + block] = rows[start : start + block, :k].copy()
            if self.P.nbytes < LARGE_BYTES:
                packed = packed.copy()
            else:
                give_back_tail(self.P, n * k)
            rows = packed
        rows *= np.sqrt(np.float32(self.scale))
        return float(self.center + self.scale * self.B[0]), w, rows


def _draw(rng: np.random.Generator, config: TrainConfig, part: str, size: int) -> np.ndarray | None:
    """Return initial values of a part, or None where the config leaves them to the data."""
    method = getattr(config, f"{part}_init_method")
    if method is None:
        return None
    if method == "constant":
        return np.full(size, getattr(config, f"{part}_init_value"), np.float32)
    if method == "uniform":
        half = np.float32(getattr(config, f"{part}_init_scale"))
        return (rng.random(size, np.float32) * 2 - 1) * half
    sigma = getattr(config, f"{part}_init_sigma")
    if not sigma:
        return np.zeros(size, np.float32)
    return rng.standard_normal(size, np.float32) * np.float32(sigma)


class Snapshot:
    """A copy of the parameters (not of the optimizer's state); on disk where they are large."""

    def __init__(self, parameters: Parameters) -> None:
        self._scalars = (0.0, 0.0, 1.0)
        n, k = parameters.V.shape
        self._file: IO[bytes] | None = None
        if n * k * 4 >= LARGE_BYTES:
            self._file = tempfile.TemporaryFile(prefix="fm-best-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        else:
            self._w = np.empty(n, np.float32)
            self._V = np.empty((n, k), np.float32)

    def take(self, parameters: Parameters) -> None:
        """Copy the parameters of `parameters`."""
        self._scalars = (float(parameters.B[0]), parameters.center, parameters.scale)
        if self._file is None:
            self._w[:] = parameters.w
            self._V[:] = parameters.V
            return
        self._file.seek(0)
        for block in _blocks(parameters):
            self._file.write(np.ascontiguousarray(block).data)

    def restore(self, parameters: Parameters) -> None:
        """Write the copy back to `parameters`."""
        parameters.B[0], parameters.center, parameters.scale = self._scalars
        if self._file is None:
            parameters.w[:] = self._w
            parameters.V[:] = self._V
            return
        self._file.seek(0)
        for block in _blocks(parameters):
            raw = self._file.read(block.size * 4)
            block[:] = np.frombuffer(raw, np.float32).reshape(block.shape)

    def arrays(self, parameters: Parameters) -> dict[str, np.ndarray]:
        """Return the copy as named arrays, for a checkpoint."""
        if self._file is None:
            w, V = self._w, self._V
        else:
            self._file.seek(0)
            n, k = parameters.V.shape
            w = np.frombuffer(self._file.read(n * 4), np.float32)
            V = np.frombuffer(self._file.read(n * k * 4), np.float32).reshape(n, k)
        return {"best_scalars": np.array(self._scalars), "best_w": w, "best_V": V}

    @classmethod
    def of(cls, parameters: Parameters, arrays: Mapping[str, np.ndarray]) -> Snapshot:
        """Return the snapshot that a checkpoint holds."""
        snapshot = cls(parameters)
        w0, center, scale = (float(value) for value in arrays["best_scalars"])
        snapshot._scalars = (w0, center, scale)
        for name, like in (("best_w", parameters.w), ("best_V", parameters.V)):
            if arrays[name].shape != like.shape:
                raise ValueError(f"{name}: expected {like.shape}, found {arrays[name].shape}")
        if snapshot._file is None:
            snapshot._w[:] = arrays["best_w"]
            snapshot._V[:] = arrays["best_V"]
        else:
            snapshot._file.write(np.ascontiguousarray(arrays["best_w"]).data)
            snapshot._file.write(np.ascontiguousarray(arrays["best_V"]).data)
        return snapshot


def _blocks(parameters: Parameters) -> list[np.ndarray]:
    """Return views that cover w and V, a few megabytes each."""
    n, k = parameters.V.shape
    step = max(1, (1 << 20) // k)
    return [parameters.w, *(parameters.V[i : i + step] for i in range(0, n, step))]
