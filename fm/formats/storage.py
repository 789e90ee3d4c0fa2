"""Files of fm's own: written whole or not at all, and checked bit by bit when read.

Decided here: how arrays lie in a file, and that a changed byte is noticed. Not decided here: what
the arrays mean (``fm.model.file``).

The file is a `safetensors <https://github.com/huggingface/safetensors>`_ file::

    u64 little endian   length of the header
    header              JSON: {"__metadata__": {text: text},
                               name: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
    data                the tensors, little endian, C order; offsets count from here

Three entries of its metadata are ours: ``format`` (what the tensors mean), ``format_version``, and
``sha256``: a JSON object with the SHA-256 of each tensor's bytes in hexadecimal and, as
``__metadata__``, that of the other metadata as JSON in UTF-8 with sorted keys and without spaces.

The same content always gives the same bytes: keys are sorted. The safetensors package shuffles the
metadata, so the header is written here; reading is left to the package, which has been reviewed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from fm.errors import ModelFileError

_TYPES = {"<f8": "F64", "<f4": "F32", "<i4": "I32", "|u1": "U8"}
_LONGEST_HEADER = 1 << 24  # bytes; that of a checkpoint holds the history


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays and texts to a file, which appears when it is complete.

    Parameters
    ----------
    path : path
        Its directory is made if there is none.
    tensors : mapping of name to ndarray of float64, float32, int32 or uint8
        Written one after the other, without a copy of them all.
    metadata : mapping of str to str
        With ``format`` and ``format_version``.
    """
    arrays = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in tensors.items()
    }
    digests = to_json(_digests(arrays, metadata)).decode()
    header: dict[str, Any] = {"__metadata__": {**metadata, "sha256": digests}}
    offset = 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        kind, shape = _TYPES[array.dtype.str], list(array.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = to_json(header)
    text += b" " * (-len(text) % 8)  # aligns the tensors
    with atomic_output(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.data)


def read_tensors(
    path: str | os.PathLike[str],
    kinds: Mapping[str, str],
    *,
    format: str,
    version: str,
    source: str,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return (tensors, metadata) of a file of :func:`write_tensors`.

    Parameters
    ----------
    path : path
    kinds : mapping of str to str
        The names that tensors may have, and their types: ``F64``, ``F32``, ``I32`` or ``U8``.
    format, version : str
        The values that ``format`` and ``format_version`` must have.
    source : str
        Name used in messages.

    Raises
    ------
    ModelFileError
        If the file is of another kind or version, is damaged, or was changed.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            _check_format(metadata, format, version, source)
            tensors = {name: _tensor(file, name, kinds, source) for name in file.keys()}
    except SafetensorError as err:
        raise ModelFileError(
            f"{source}: expected a safetensors file of fm, found something else or a damaged file "
            f"({err}); copy or train it again"
        ) from err
    except OSError as err:
        raise ModelFileError(f"{source}: cannot be read ({err})") from err
    noted = from_json(metadata.pop("sha256", ""), "sha256", source)
    for name, digest in _digests(tensors, metadata).items():
        if not isinstance(noted, dict) or noted.get(name) != digest:
            raise ModelFileError(
                f"{source}: {name} was changed after the file was written (its SHA-256 is not the "
                "noted one); copy or train it again"
            )
    return tensors, metadata


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the metadata of a file of :func:`write_tensors`, or ``{}`` of any other file.

    Only the header is read, so the rest may be cut off or damaged.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(f"{folder}/a", {"x": np.zeros(3)}, {"format": "example"})
    ...     read_metadata(f"{folder}/a")["format"]
    'example'
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(min(size, _LONGEST_HEADER))
    try:
        return dict(orjson.loads(text)["__metadata__"])
    except (ValueError, KeyError, TypeError):
        return {}


def _check_format(metadata: Mapping[str, str], format: str, version: str, source: str) -> None:
    if metadata.get("format") != format:
        raise ModelFileError(
            f"{source}: a safetensors file, but not one of fm's: expected format {format!r} in its "
            f"metadata, found {metadata.get('format')!r}"
        )
    if metadata.get("format_version") != version:
        raise ModelFileError(
            f"{source}: expected format_version {version}, found "
            f"{metadata.get('format_version')!r} (written by fm "
            f"{metadata.get('library_version', 'of unknown version')}); upgrade fm"
        )


def _tensor(file: Any, name: str, kinds: Mapping[str, str], source: str) -> np.ndarray:
    if name not in kinds:
        raise ModelFileError(f"{source}: expected the tensors {', '.join(kinds)}, found {name!r}")
    kind = file.get_slice(name).get_dtype()
    if kind != kinds[name]:
        raise ModelFileError(f"{source}: tensor {name}: expected type {kinds[name]}, found {kind}")
    return np.asarray(file.get_tensor(name))


def _digests(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, str]:
    digests = {name: hashlib.sha256(array.data).hexdigest() for name, array in tensors.items()}
    digests["__metadata__"] = hashlib.sha256(to_json(metadata)).hexdigest()
    return digests


def to_json(value: Any) -> bytes:
    """Return JSON with sorted keys; numpy numbers are written as numbers, NaN as null."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def from_json(text: str | bytes, name: str, source: str | None = None) -> Any:
    """Return what JSON says; `name` and `source` are where it comes from.

    Raises
    ------
    ModelFileError
        If the text is not JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError as err:
        where = f"{source}: {name}" if source else name
        raise ModelFileError(f"{where}: expected JSON, found {text[:40]!r}") from err


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    Bytes go to a hidden file in the same directory, to the disk, and then under the name in one
    step; on an error the hidden file is removed and the old file stays. What is not an ordinary
    file (a pipe, a terminal) is written directly.
    """
    path = Path(os.path.realpath(path))  # replace what a symbolic link names, not the link
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # SageMaker copies a job's directories away as they are, but never a file of this ending.
    unique = f"{os.getpid()}-{os.urandom(4).hex()}"
    hidden = path.with_name(f".{path.name}.{unique}.sagemaker-ignore")
    try:
        with hidden.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            hidden.unlink()
        raise
    if os.name == "posix":  # the new name survives a power failure too
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
