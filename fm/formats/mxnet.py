"""MXNet: a list of named arrays <-> bytes, as the built-in algorithm keeps its parameters.

The layout, little endian (MXNet 1.x, ``src/ndarray/ndarray.cc``)::

    u64 0x112, u64 0, u64 n, n arrays, u64 n, n names (u64 length, bytes: "arg:v")
    array    u32 magic, then for V2 and V3: i32 storage type, [shape of the stored rows,] shape
             then i32 device, i32 its number, i32 dtype, [i32 dtype and shape of the row numbers,]
             the items, [the row numbers]
    shape    u32 ndim (V3: i32), i64 each; before V1: the magic is ndim, then u32 each
    storage  0 dense, 1 row_sparse: only the rows listed are stored, the others are zero
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

import numpy as np

from fm.errors import ModelFileError

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DENSE, _ROW_SPARSE = 0, 1
_DTYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "?"}


def read_arrays(data: bytes, most: int) -> dict[str, np.ndarray]:
    """Return name -> array of the bytes of ``params``; ``arg:`` is not part of a name.

    Parameters
    ----------
    data : bytes
    most : int
        Bytes that an array may have: the zeros that a row_sparse one leaves out cost nothing in the
        file.

    Raises
    ------
    ModelFileError
        If the bytes are not such a list.

    Examples
    --------
    >>> read_arrays(write_arrays({"v": np.eye(2)}), most=1000)["v"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    stream = _Bytes(data)
    magic, _, count = (stream.number("Q") for _ in range(3))
    if magic != _LIST_MAGIC:
        raise ModelFileError(f"params: expected magic number 0x112, found {magic:#x}")
    if count > 1000:
        raise ModelFileError(f"params: expected a handful of arrays, found {count}")
    arrays = [_read_array(stream, most) for _ in range(count)]
    if (found := stream.number("Q")) != count:
        raise ModelFileError(f"params: expected {count} names of arrays, found {found}")
    names = []
    for _ in range(count):
        name = stream.items(3, (stream.number("Q"),)).tobytes().decode("utf-8", "replace")
        names.append(name.removeprefix("arg:"))
    if stream.at != len(data):
        raise ModelFileError(
            f"params: expected the end at byte {stream.at}, found {len(data)} bytes"
        )
    return dict(zip(names, arrays, strict=True))


def write_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of ``params``: matrices as row_sparse arrays of all their rows."""
    parts = [struct.pack("<QQQ", _LIST_MAGIC, 0, len(arrays))]
    for array in arrays.values():
        shape = struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
        cpu_float32 = struct.pack("<iii", 1, 0, 0)
        items = np.ascontiguousarray(array, "<f4").tobytes()
        if array.ndim == 1:
            parts += [struct.pack("<Ii", _V2, _DENSE), shape, cpu_float32, items]
        else:
            rows = struct.pack("<iIq", 6, 1, len(array))
            parts += [struct.pack("<Ii", _V2, _ROW_SPARSE), shape, shape, cpu_float32, rows, items]
            parts.append(np.arange(len(array), dtype="<i8").tobytes())
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        parts += [struct.pack("<Q", len(name) + 4), f"arg:{name}".encode()]
    return b"".join(parts)


class _Bytes:
    """The bytes of ``params``, read from front to back within their bounds."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, kind: str) -> int:
        size = struct.calcsize(f"<{kind}")
        if size > len(self.data) - self.at:
            raise ModelFileError(
                f"params: ends at byte {len(self.data)}, in the middle of a number"
            )
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += size
        return int(value)

    def items(self, dtype: int, shape: tuple[int, ...]) -> np.ndarray:
        if dtype not in _DTYPES:
            raise ModelFileError(f"params byte {self.at}: expected a dtype 0 to 7, found {dtype}")
        kind, count = np.dtype(_DTYPES[dtype]), math.prod(shape)
        if count * kind.itemsize > len(self.data) - self.at:
            raise ModelFileError(
                f"params byte {self.at}: expected {count} numbers of {kind.itemsize} bytes, found "
                f"{len(self.data) - self.at} bytes; the file is cut off"
            )
        array = np.frombuffer(self.data, kind, count, self.at).reshape(shape)
        self.at += array.nbytes
        return array

    def shape(self, magic: int) -> tuple[int, ...] | None:
        """Return a shape, or None for an array that was never filled."""
        legacy = magic not in (_V1, _V2, _V3)
        ndim = magic if legacy else self.number("i" if magic == _V3 else "I")
        if ndim == (-1 if magic == _V3 else 0):
            return None
        if not 0 <= ndim <= 8:
            raise ModelFileError(
                f"params byte {self.at}: not an array of MXNet ({ndim} dimensions)"
            )
        shape = tuple(self.number("I" if legacy else "q") for _ in range(ndim))
        if min(shape, default=0) < 0:
            raise ModelFileError(f"params byte {self.at}: expected a shape, found {shape}")
        return shape


def _read_array(stream: _Bytes, most: int) -> np.ndarray:
    magic = stream.number("I")
    storage = stream.number("i") if magic in (_V2, _V3) else _DENSE
    if storage not in (_DENSE, _ROW_SPARSE):
        raise ModelFileError(
            f"params byte {stream.at}: expected storage 0 (dense) or 1 (rows), found {storage}"
        )
    stored = stream.shape(magic) if storage == _ROW_SPARSE else None
    shape = stream.shape(magic)
    if shape is None:
        return np.zeros(0, np.float32)
    stream.number("q")  # where it was: device and its number
    dtype = stream.number("i")
    if storage == _DENSE:
        return stream.items(dtype, shape)
    row_dtype, rows_shape = stream.number("i"), stream.shape(magic)
    values = stream.items(dtype, stored or ())
    rows = stream.items(row_dtype, rows_shape or ())
    return _expanded(values, rows, shape, most)


def _expanded(
    values: np.ndarray, rows: np.ndarray, shape: tuple[int, ...], most: int
) -> np.ndarray:
    """Return a row_sparse array with its zeros."""
    if values.shape != (rows.size, *shape[1:]) or rows.ndim != 1 or rows.dtype.kind != "i":
        raise ModelFileError(
            f"params: a row_sparse array of shape {shape} does not fit its stored rows "
            f"{values.shape} and row numbers {rows.shape}"
        )
    if rows.size and (rows.min() < 0 or rows.max() >= shape[0] or np.diff(rows).min(initial=1) < 1):
        raise ModelFileError(
            f"params: the row numbers of a row_sparse array of shape {shape} are "
            "not ascending in its range"
        )
    if values.itemsize * math.prod(shape) > most:
        raise ModelFileError(
            f"params: an array of shape {shape} unpacks to more than 100 times the size of the file"
        )
    array = np.zeros(shape, values.dtype)
    array[rows] = values
    return array
