"""load: any file that is a model -> Model.

Decided here: which files are models. Not decided here: what is in them (``fm.model.file``,
``fm.model.builtin``).
"""

from __future__ import annotations

import os
from pathlib import Path

from fm.errors import FMError, ModelFileError
from fm.model.file import FILE_NAME, read_parts
from fm.model.model import Model


def load(path: str | os.PathLike[str]) -> Model:
    """Return the model in a file or directory.

    Parameters
    ----------
    path : path
        A file written by :meth:`fm.Model.save`; an artefact of Amazon's built-in algorithm
        (``model.tar.gz`` or the ``model_algo-1`` in it); a ``model.tar.gz`` that holds our file;
        or a directory with one of these.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or not a model. Nothing in it is ever executed.

    Examples
    --------
    >>> import tempfile
    >>> from fm.config import TrainConfig
    >>> model = Model(1.0, [0.0], [[2.0]], TrainConfig(num_factors=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(model.save(folder)) == model
    True
    """
    path = Path(path)
    if path.is_dir():
        names = (FILE_NAME, "model_algo-1", "model.tar.gz")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise ModelFileError(f"{path}: expected one of {', '.join(names)} in it, found none")
        path = found[0]
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as err:
        raise ModelFileError(f"{path}: no such file; expected a model file or directory") from err
    except OSError as err:
        raise ModelFileError(f"{path}: cannot be read ({err.strerror})") from err
    if start[:2] == b"\x1f\x8b" or start == b"PK\x03\x04":
        from fm.model.builtin import read_artifact

        parts = read_artifact(path)
    else:
        parts = read_parts(path)
    try:
        return Model(**parts)
    except FMError as err:
        raise ModelFileError(f"{path}: {err}") from err
