"""features: files of feature numbers (libsvm, libffm, RecordIO) -> Dataset.

Decided here: what the files of a directory share: whether features are counted from 0 or from 1,
how many there are, and their fields. Not decided here: how bytes are read (``fm.formats.svmlight``,
``fm.formats.recordio``).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.data.dataset import Dataset
from fm.errors import DataError
from fm.formats.files import File, files_of


class _Options(NamedTuple):
    num_features: int | None
    zero_based: bool | Literal["auto"]
    require_target: bool


class _Part(NamedTuple):
    """What is in one file."""

    name: str
    X: sp.csr_matrix
    y: np.ndarray | None = None
    fields: np.ndarray | None = None
    zero_based: bool | None = None


def read_features(
    source: Any,
    form: str,
    *,
    num_features: int | None = None,
    zero_based: bool | Literal["auto"] = "auto",
    require_target: bool = False,
) -> Dataset:
    """Return a file, or the files of a directory, as one Dataset.

    Parameters
    ----------
    source : path or bytes
        Files, gzip-compressed or not.
    form : str
        A key of :data:`READERS`.
    num_features, zero_based, require_target
        As in :func:`fm.reading.read.read`.

    Raises
    ------
    DataError
        If a file cannot be read or breaks a rule, or some files have targets and others do not.

    Examples
    --------
    >>> data = read_features(b"1 1:0.5 3:1", "libsvm")
    >>> data.X.toarray(), data.zero_based
    (array([[0.5, 0. , 1. ]], dtype=float32), False)
    """
    files = files_of(source)
    parts = READERS[form](files, _Options(num_features, zero_based, require_target))
    width = num_features
    if width is None:
        width = max(part.X.shape[1] for part in parts)
    sets = [Dataset.from_arrays(p.X, p.y, num_features=width, source=p.name) for p in parts]
    fields, field_names = _fields(parts, width)
    if len(sets) == 1:
        return dataclasses.replace(
            sets[0],
            fields=fields,
            field_names=field_names,
            zero_based=parts[0].zero_based,
            _cache={},
        )
    lacking = [part.source for part in sets if part.y is None]
    if lacking and len(lacking) < len(sets):
        raise DataError(f"{lacking[0]}: expected targets, as other files have them, found none")
    return Dataset.from_arrays(
        sp.vstack([part.X for part in sets], format="csr"),
        None if lacking else np.concatenate([part.y for part in sets]),
        source=os.fspath(source),
        fields=fields,
        field_names=field_names,
        zero_based=parts[0].zero_based,
    )


def _libsvm(files: list[File], options: _Options) -> list[_Part]:
    from fm.formats.svmlight import read_libsvm

    def parts_of(zero_based: bool, n: int | None) -> list[_Part]:
        parts = []
        for file in files:
            X, y = read_libsvm(file.read(), num_features=n, zero_based=zero_based, source=file.name)
            parts.append(_Part(file.name, X, y, zero_based=zero_based))
        return parts

    n, zero_based, _ = options
    if zero_based == "auto":
        # All files decide together: one of several may happen to lack the first feature.
        parts = parts_of(True, None)
        lowest = [int(part.X.indices.min()) for part in parts if part.X.nnz]
        zero_based = min(lowest, default=0) == 0
        first = 0 if zero_based else 1
        if n is None or all(part.X.shape[1] - first <= n for part in parts):
            return [
                part._replace(X=_renumbered(part.X, first, n), zero_based=zero_based)
                for part in parts
            ]
        # Too wide: what follows raises the error that names the line.
    return parts_of(zero_based, n)


def _renumbered(X: sp.csr_matrix, first: int, num_features: int | None) -> sp.csr_matrix:
    """Return X with the column that is called `first` as its first; X is used up."""
    X.indices -= first
    width = X.shape[1] - first if num_features is None else num_features
    return sp.csr_matrix((X.data, X.indices, X.indptr), shape=(X.shape[0], max(width, 0)))


def _libffm(files: list[File], options: _Options) -> list[_Part]:
    from fm.formats.svmlight import read_libffm

    n = options.num_features
    return [
        _Part(file.name, *read_libffm(file.read(), num_features=n, source=file.name))
        for file in files
    ]


def _recordio(files: list[File], options: _Options) -> list[_Part]:
    from fm.formats.recordio import read_csr

    n, labels = options.num_features, options.require_target
    return [
        _Part(
            file.name,
            *read_csr(file.read(), num_features=n, source=file.name, require_label=labels),
        )
        for file in files
    ]


#: The formats of files that hold features, not columns.
READERS: dict[str, Callable[[list[File], _Options], list[_Part]]] = {
    "libsvm": _libsvm,
    "libffm": _libffm,
    "recordio": _recordio,
}


def _fields(parts: list[_Part], width: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the field of each feature by the first file that says it, and names of the fields."""
    if any(part.fields is None for part in parts):
        return None, ()
    fields = np.full(width, -1, np.int32)
    for part in reversed(parts):
        known = np.flatnonzero(part.fields >= 0)
        fields[known] = part.fields[known]
    names = [str(i) for i in range(int(fields.max(initial=-1)) + 1)]
    if (fields < 0).any():  # features that do not occur are a field of their own
        fields[fields < 0] = len(names)
        names.append("no field")
    return fields, tuple(names)
