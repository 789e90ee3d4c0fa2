"""The parameters while they are trained, with the optimizer's state; checkpoints of both.

Layout (see ``fm.kernels.rows``): per feature one row ``[v padded to kp, state 1, state 2, ...]`` in
P and ``[w, state 1, ...]`` in W; B holds w0 and its states. Large arrays live in anonymous memory
maps, so that the part that a finished model does not need can be given back without a copy.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from fm.config import TrainConfig
from fm.errors import ModelFileError
from fm.formats.storage import from_json, read_tensors, to_json, write_tensors
from fm.kernels.optimizers import FTRL_BETA, OPTIMIZERS
from fm.kernels.rows import Layout, layout

_KIND = {"format": "fm-checkpoint", "format_version": "2"}
_TENSORS = {
    "B": "F64", "W": "F32", "P": "F32", "best_scalars": "F64", "best_w": "F32", "best_V": "F32",
}  # fmt: skip
_PROGRESS = (
    "center", "scale", "epoch", "history", "best_epoch", "best_value", "finished", "init",
    "validation",
)  # fmt: skip
_LONGEST_HEADER = 1 << 24  # bytes of a checkpoint's, which holds the history
_LARGE = 1 << 25  # bytes from which memory is worth managing by hand
# Flags of a map whose pages can be given back (those of a shared one, the default, cannot).
_PRIVATE: int | None = None
if hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS"):
    _PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def aligned_zeros(size: int) -> np.ndarray:
    """Return `size` float32 zeros that start at a cache line, so that rows of 16 fill one each."""
    if size * 4 >= _LARGE and _PRIVATE is not None:
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


@dataclass
class TrainState:
    """Parameters, optimizer state and the memory of early stopping.

    Attributes
    ----------
    config : TrainConfig
        Resolved.
    num_features : int
        n.
    center, scale : float
        The kernel trains on (y - center) / scale.
    epoch : int
        Epochs done.
    history : list of dict
        One entry per epoch done.
    best_epoch, best_value : int, float
        Of the metric that early stopping watches; -1 and NaN before there is one.
    finished : bool
        Whether early stopping has ended the training.
    init : str
        Fingerprint of the parameters that training started from, if those of a model.
    validation : str
        Fingerprint of the validation data, if there are any.
    """

    config: TrainConfig
    num_features: int
    center: float = 0.0
    scale: float = 1.0
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_value: float = float("nan")
    finished: bool = False
    init: str = ""
    validation: str = ""

    def __post_init__(self) -> None:
        self.lanes: Layout = layout(self.config.num_factors)
        if self.config.optimizer == "sagemaker":
            self.states, bias_states = 2, 4
        else:
            recipe = OPTIMIZERS[self.config.used_optimizer]
            self.states, bias_states = recipe.num_states, recipe.bias_states
        wide = 1 + self.states
        self.B = np.zeros(1 + bias_states, np.float64)
        self.W = aligned_zeros(self.num_features * wide)
        self.P = aligned_zeros(self.num_features * wide * self.lanes.padded)
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
        self.B[3:] = 1.0  # Adam's beta1^0 and beta2^0
        if config.use_bias:
            drawn = _draw(rng, config, "bias", 1)
            start = mean if drawn is None else float(drawn[0])
            self.B[0] = (start - self.center) / self.scale
        if config.use_linear:
            self._draw_into(rng, "linear", self.w[:, None])
        self._draw_into(rng, "factors", self.V)
        if seen is not None:
            self.V[~seen] = 0.0
        self._prepare(l1=False)

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
        self.B[3:] = 1.0
        self.B[0] = (w0 - self.center) / self.scale
        self.w[:] = w / self.scale
        self.V[:] = V / np.sqrt(np.float32(self.scale))
        self._prepare(l1=True)

    def _prepare(self, *, l1: bool) -> None:
        """Bring states that determine the parameters (FTRL's z) in line with them.

        `l1`: whether the parameters are those of a model, which the L1 penalty has shrunk before;
        random ones have yet to prove that they are worth more than it.
        """
        if self.config.optimizer != "ftrl":
            return
        config = self.config
        W = self.W.reshape(-1, 3)
        P = self.P.reshape(self.num_features, 3, -1)
        for value, z, lr, wd, penalty in (
            (self.B[0:1], self.B[1:2], config.bias_lr, config.bias_wd, 0.0),
            (W[:, 0], W[:, 1], config.linear_lr, config.linear_wd, config.linear_l1),
            (P[:, 0], P[:, 1], config.factors_lr, config.factors_wd, config.factors_l1),
        ):
            if lr:  # the z from which FTRL's closed form gives back this value
                z[...] = -value * (float(FTRL_BETA) / lr + (wd or 0.0)) - np.sign(value) * (
                    penalty if l1 else 0.0
                )

    def keep_best(self) -> None:
        """Remember the present parameters as the best."""
        # An interruption while the copy is made leaves none: the parameters are the best then.
        snapshot, self.snapshot = self.snapshot or Snapshot(self), None
        snapshot.take(self)
        self.snapshot = snapshot

    def copy(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return copies of (w0, w, V) in the target's unit."""
        scale = np.float32(self.scale)
        return float(self.center + self.scale * self.B[0]), self.w * scale, self.V * np.sqrt(scale)

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
            if self.P.nbytes < _LARGE:
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

    def __init__(self, state: TrainState) -> None:
        self._scalars = (0.0, 0.0, 1.0)
        n, k = state.V.shape
        self._file: IO[bytes] | None = None
        if n * k * 4 >= _LARGE:
            self._file = tempfile.TemporaryFile(prefix="fm-best-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        else:
            self._w = np.empty(n, np.float32)
            self._V = np.empty((n, k), np.float32)

    def take(self, state: TrainState) -> None:
        """Copy the parameters of `state`."""
        self._scalars = (float(state.B[0]), state.center, state.scale)
        if self._file is None:
            self._w[:] = state.w
            self._V[:] = state.V
            return
        self._file.seek(0)
        for block in _blocks(state):
            self._file.write(np.ascontiguousarray(block).data)

    def restore(self, state: TrainState) -> None:
        """Write the copy back to `state`."""
        state.B[0], state.center, state.scale = self._scalars
        if self._file is None:
            state.w[:] = self._w
            state.V[:] = self._V
            return
        self._file.seek(0)
        for block in _blocks(state):
            raw = self._file.read(block.size * 4)
            block[:] = np.frombuffer(raw, np.float32).reshape(block.shape)

    def arrays(self, state: TrainState) -> dict[str, np.ndarray]:
        """Return the copy as named arrays, for a checkpoint."""
        if self._file is None:
            w, V = self._w, self._V
        else:
            self._file.seek(0)
            n, k = state.V.shape
            w = np.frombuffer(self._file.read(n * 4), np.float32)
            V = np.frombuffer(self._file.read(n * k * 4), np.float32).reshape(n, k)
        return {"best_scalars": np.array(self._scalars), "best_w": w, "best_V": V}

    @classmethod
    def of(cls, state: TrainState, arrays: Mapping[str, np.ndarray]) -> Snapshot:
        """Return the snapshot that a checkpoint holds."""
        snapshot = cls(state)
        snapshot._scalars = tuple(float(value) for value in arrays["best_scalars"])  # type: ignore
        if snapshot._file is None:
            snapshot._w[:] = arrays["best_w"]
            snapshot._V[:] = arrays["best_V"]
        else:
            snapshot._file.write(np.ascontiguousarray(arrays["best_w"]).data)
            snapshot._file.write(np.ascontiguousarray(arrays["best_V"]).data)
        return snapshot


def _blocks(state: TrainState) -> list[np.ndarray]:
    """Return views that cover w and V, a few megabytes each."""
    step = max(1, (1 << 20) // state.V.shape[1])
    return [state.w, *(state.V[i : i + step] for i in range(0, state.num_features, step))]


# What may differ between the run that wrote a checkpoint and the one that goes on from it.
_MAY_CHANGE = frozenset({"epochs", "patience", "batch_metrics_publish_interval"})


def _essence(config: TrainConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _MAY_CHANGE}


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether the header of a file says that it is one; it may be cut off or damaged."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")  # see fm.formats.storage
        return b'"format":"fm-checkpoint"' in file.read(min(size, _LONGEST_HEADER))


def save_checkpoint(path: Path, state: TrainState, fingerprint: str) -> None:
    """Write everything that training needs to go on, in one file that is whole or absent."""
    tensors = {"B": state.B, "W": state.W, "P": state.P}
    if state.snapshot is not None:
        tensors |= state.snapshot.arrays(state)
    meta = {
        "config": _essence(state.config),
        "fingerprint": fingerprint,
        "num_features": state.num_features,
        **{name: getattr(state, name) for name in _PROGRESS},
    }
    about = {**_KIND, "state": to_json(meta).decode()}
    write_tensors(path, tensors, about)


def load_checkpoint(path: Path, config: TrainConfig, fingerprint: str) -> TrainState:
    """Return the state in a checkpoint file, ready to go on with `config` (resolved).

    Raises
    ------
    ModelFileError
        If the file is damaged, or belongs to another configuration or other data.
    """
    advice = "delete the file or start without resuming"
    try:
        tensors, about = read_tensors(
            path, _TENSORS, format=_KIND["format"], version=_KIND["format_version"],
            source=os.fspath(path),
        )  # fmt: skip
        meta = from_json(about["state"], "state", os.fspath(path))
        if meta["fingerprint"] != fingerprint:
            raise ModelFileError(
                f"{path}: the checkpoint was written for other training data; {advice}"
            )
        essence = _essence(config)
        differ = sorted(
            name
            for name in essence.keys() | meta["config"].keys()
            if essence.get(name) != meta["config"].get(name)
        )
        if differ:
            name = differ[0]
            raise ModelFileError(
                f"{path}: the checkpoint was written with other hyperparameters "
                f"({', '.join(differ)}; {name}: {meta['config'].get(name)} there, "
                f"{essence.get(name)} here); {advice}"
            )
        state = TrainState(config, int(meta["num_features"]))
        for name in _PROGRESS:
            setattr(state, name, meta[name])
        for name in ("B", "W", "P"):
            getattr(state, name)[:] = tensors.pop(name)
        if state.best_epoch >= 0 and "best_w" in tensors:
            state.snapshot = Snapshot.of(state, tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        if isinstance(err, ModelFileError) and advice in str(err):
            raise
        raise ModelFileError(f"{path}: damaged checkpoint ({err}); {advice}") from err
    for values in [state.__dict__, *state.history]:  # JSON knows no NaN
        for name, value in values.items():
            if value is None and name != "snapshot":
                values[name] = float("nan")
    return state
