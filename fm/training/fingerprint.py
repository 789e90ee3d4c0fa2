"""Short texts that tell data and models apart."""

from __future__ import annotations

import zlib

import numpy as np

from fm.data.dataset import Dataset
from fm.model.model import Model

_BLOCK = 1 << 16  # bytes


def of_data(data: Dataset) -> str:
    """Return the fingerprint of data: shape, entries, and checksums of the arrays.

    Of a large array, 64 blocks spread over it are summed up: the whole array would take as long as
    an epoch of training.
    """
    sums = _checksums(data.X.indptr, data.X.indices, data.X.data, data.y, data.weight)
    return f"{data.num_rows}x{data.num_features}:{data.X.nnz}:{sums}"


def of_model(model: Model | None) -> str:
    """Return the fingerprint of a model's parameters; empty for none."""
    return "" if model is None else _checksums(np.float64(model.w0), model.w, model.V)


def _checksums(*arrays: np.ndarray | np.floating | None) -> str:
    sums = []
    for array in arrays:
        total = 0
        if array is not None:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            step = max(_BLOCK, raw.size // 64)
            for start in range(0, raw.size, step):
                total = zlib.crc32(raw[start : start + _BLOCK].data, total)
        sums.append(f"{total:08x}")
    return "".join(sums)
