"""Files and their bytes for the format readers, and the array helpers these share.

Decided here: which files of a directory are data, that a gzip file is known by its first bytes (not
by its name), how far it may expand, and what a message calls unknown bytes. Not decided here: what
the bytes mean.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fm.errors import DataError, UnsupportedFormatError

# Beyond this size, content that was compressed more than RATIO-fold counts as a decompression bomb
# (deflate can reach 1032:1; one-hot rows, the densest data we know, stay under 100:1).
FREE_EXPANSION = 256 << 20
RATIO = 250

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_SIGNATURES = (
    (_GZIP, "gzip-compressed data"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x93NUMPY", "a numpy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"BZh", "bzip2-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"\x0a\x23\xd7\xce", "RecordIO-protobuf"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
)


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> bytes:
    """Return the content of a file, decompressed if it begins like a gzip file.

    Parameters
    ----------
    path : str or path
        A file; a named pipe will do.
    max_bytes : int, optional
        The most that is returned. Without it a file may have any size, but a gzip file is refused
        if it expands both beyond 256 MB and more than 250-fold.

    Raises
    ------
    DataError
        If the file cannot be read, is larger than `max_bytes`, or its gzip data are damaged,
        truncated or expand too far.

    Examples
    --------
    >>> import gzip, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "rows.libsvm.gz")
    ...     _ = path.write_bytes(gzip.compress(b"1 3:1"))
    ...     read_bytes(path)
    b'1 3:1'
    """
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            content = file.read() if max_bytes is None else file.read(max_bytes + 1)
    except OSError as err:
        reason = err.strerror or str(err)
        raise DataError(f"{source}: cannot be read ({reason}); check the path") from err
    except ValueError as err:  # a path with a NUL character
        raise DataError(f"{source!r}: cannot be read ({err}); check the path") from err
    if max_bytes is not None and len(content) > max_bytes:
        raise DataError(f"{source}: expected at most {max_bytes} bytes, found more")
    if content.startswith(_GZIP):
        return gunzip(content, source=source, max_bytes=max_bytes)
    return content


def gunzip(content: bytes, *, source: str = "data", max_bytes: int | None = None) -> bytes:
    """Return gzip data decompressed, or refuse them before they fill the memory.

    Parameters
    ----------
    content : bytes
        One or more gzip members.
    source : str
        Name used in messages.
    max_bytes : int, optional
        As in :func:`read_bytes`.

    Raises
    ------
    DataError
        If the data are damaged, truncated or expand too far.

    Examples
    --------
    >>> gunzip(gzip.compress(b"1 3:1"))
    b'1 3:1'
    """
    limit = max(FREE_EXPANSION, RATIO * len(content)) if max_bytes is None else max_bytes
    result = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
            while part := unpacked.read(_CHUNK):
                if result.tell() + len(part) > limit:
                    raise DataError(
                        f"{source}: expected at most {limit} bytes after decompression, found more "
                        f"in {len(content)} bytes of gzip; if the file is sound, decompress it "
                        "first (gunzip)"
                    )
                result.write(part)
    except EOFError as err:
        raise DataError(
            f"{source}: the gzip data end too early, after {result.tell()} decompressed bytes; "
            "the file is truncated, fetch it again"
        ) from err
    except (OSError, zlib.error) as err:
        raise DataError(
            f"{source}: the gzip data are damaged after {result.tell()} decompressed bytes "
            f"({err}); fetch the file again"
        ) from err
    return result.getvalue()


class File(NamedTuple):
    """A file, or bytes in its place."""

    name: str
    content: bytes | Path

    def read(self) -> memoryview:
        """Return the whole content, decompressed."""
        if isinstance(self.content, Path):
            return memoryview(read_bytes(self.content))
        zipped = self.content.startswith(_GZIP)
        return memoryview(gunzip(self.content, source=self.name) if zipped else self.content)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open for reading in pieces, decompressed."""
        try:
            path = self.content
            raw = path.open("rb") if isinstance(path, Path) else io.BytesIO(path)
            zipped = raw.read(2) == _GZIP
            raw.seek(0)
        except OSError as err:
            raise DataError(f"{self.name}: cannot be read ({err.strerror}); check it") from err
        with raw:
            try:
                yield gzip.GzipFile(fileobj=raw) if zipped else raw
            except (EOFError, gzip.BadGzipFile, zlib.error) as err:
                raise DataError(
                    f"{self.name}: the gzip data are damaged or truncated ({err}); fetch the file "
                    "again"
                ) from err

    def head(self, size: int = 1 << 18) -> bytes:
        """Return the first bytes, decompressed."""
        with self.open() as file:
            head: bytes = file.read(size)
        return head


def is_file(source: Any) -> bool:
    """Return whether a source of data is a path or the content of a file."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview))


def files_of(source: Any) -> list[File]:
    """Return the files behind a path, as :func:`data_files` does, or bytes as the only one."""
    if isinstance(source, (str, os.PathLike)):
        return [File(str(path), path) for path in data_files(source)]
    return [File("data", bytes(source))]


def data_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a directory in the order of their paths, or a file itself.

    Left out are empty files, files whose name or folder's name begins with "." or "_", and lists of
    other files (``*.manifest``).

    Raises
    ------
    DataError
        If there is no such file, or the directory has no data.
    """
    root = Path(path)
    try:
        is_folder, exists = root.is_dir(), root.exists()
    except OSError as err:  # the name is too long, for example
        raise DataError(f"{root}: cannot be read ({err.strerror}); check the path") from err
    if not is_folder:
        if not exists:
            raise DataError(f"{root}: no such file or directory; check the path")
        return [root]
    files = [
        file
        for file in sorted(root.rglob("*"))
        if not any(part.startswith((".", "_")) for part in file.relative_to(root).parts)
        and file.suffix != ".manifest"
        and file.is_file()
        and file.stat().st_size
    ]
    if not files:
        raise DataError(f"{root}: expected data files, found none that is not empty or hidden")
    return files


def head_of(source: Any) -> tuple[str, bytes]:
    """Return the name and the first bytes, decompressed, of a file or a directory's first file."""
    file = files_of(source)[0]
    return file.name, file.head()


def content_of(data: Any, source: str | None, default: str) -> tuple[memoryview, str]:
    """Return the bytes behind what a reader was given, and the name to use in messages.

    Parameters
    ----------
    data : path, bytes-like object, or file opened for reading bytes
        A path may lead to a gzip file.
    source : str or None
        The name; None: the path, or the name of the open file, or `default`.
    default : str
        The name of data that have no other.

    Raises
    ------
    DataError
        If the file cannot be read.
    UnsupportedFormatError
        If `data` is none of these.
    """
    if isinstance(data, (str, os.PathLike)):
        return memoryview(read_bytes(data)), source or os.fspath(data)
    named = getattr(data, "name", None)
    source = source or (named if isinstance(named, str) else default)
    content = data
    if not _is_bytes(content) and hasattr(data, "read"):  # a mapped file is both: take it as bytes
        content = data.read()
    if not _is_bytes(content):
        raise UnsupportedFormatError(
            f"{source}: expected a path, bytes, or a file opened for reading bytes ('rb'), "
            f"found {type(content).__name__}"
        )
    return memoryview(content), source


def _is_bytes(data: Any) -> bool:
    try:
        view = memoryview(data)
    except TypeError:
        return False
    return view.format == "B" and view.ndim == 1 and view.c_contiguous


def looks_like(head: bytes) -> str:
    r"""Describe the first bytes of a file, for a message.

    Examples
    --------
    >>> looks_like(b"PAR1..."), looks_like(b"user,item\n"), looks_like(b"\x00\x01")
    ('a Parquet file', "text: 'user,item'", 'the bytes 00 01')
    """
    head = head[:64]
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    lines = head[:40].splitlines()
    if lines and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"text: {lines[0].decode('ascii')!r}"
    return f"the bytes {head[:8].hex(' ')}" if head else "nothing"


def ragged(start: np.ndarray, count: np.ndarray, step: int = 1) -> np.ndarray:
    """Return ``start[i] + step * j`` for each i and each j in ``range(count[i])``.

    Parameters
    ----------
    start, count : ndarray of int64, shape (n,)
        Counts are not negative.
    step : int
        Distance between the positions of one i.

    Returns
    -------
    ndarray of int64, shape (count.sum(),)

    Examples
    --------
    >>> ragged(np.array([10, 50]), np.array([3, 2]))
    array([10, 11, 12, 50, 51])
    """
    # the plain form: np.concatenate([np.arange(s, s + step * n, step) for s, n in zip(...)])
    before = np.cumsum(count) - count
    total = int(count.sum())
    positions = np.repeat(start - step * before, count)
    positions += np.arange(0, step * total, step)
    return positions


class Growing:
    """A one-dimensional array that grows, in little more memory than its content needs.

    A list of chunks that is concatenated at the end would hold everything twice. Here the final
    size is predicted from the share of the input that has been read, so that there are few
    reallocations and little memory is unused. The input itself is never asked how large it is.
    """

    def __init__(self, dtype: np.typing.DTypeLike) -> None:
        self._array = np.empty(0, dtype)
        self._used = 0

    def append(self, part: np.ndarray, done: float) -> None:
        """Append `part`, with which the share `done` of the input, in (0, 1], has been read."""
        used = self._used + part.size
        if used > self._array.size:
            expected = int(used / max(done, 1e-3) * 1.01)
            # at most doubled: the prediction may be wrong where the parts of the input differ
            self._array.resize(max(used, min(expected, 2 * used)), refcheck=False)
        self._array[self._used : used] = part
        self._used = used

    def array(self) -> np.ndarray:
        """Return what was appended; nothing can be appended any more."""
        self._array.resize(self._used, refcheck=False)
        return self._array


def column_of(values: Sequence[float] | np.ndarray, rows: int, what: str) -> np.ndarray:
    """Return labels or the like as a vector, checked to have one number per row.

    Raises
    ------
    DataError
        If the shape is not (rows,) or the values are not numbers.
    """
    vector = np.asarray(values)
    if vector.dtype.kind not in "fiub":
        raise DataError(f"{what}: expected numbers, found an array of {vector.dtype}")
    if vector.shape != (rows,):
        raise DataError(
            f"{what}: expected one number per row, shape ({rows},), found shape {vector.shape}"
        )
    return vector
