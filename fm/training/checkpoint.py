"""Checkpoints: everything that a training needs to go on, in one file.

Decided here: what is in the file, and which training may go on from it: one with the same data, the
same held-out data, the same hyperparameters and the same model to start from. Not decided here:
what a solver needs (its ``arrays``), how a file is written whole or not at all
(``fm.formats.storage``).
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from fm.config import TrainConfig
from fm.errors import Advice, ConfigError, ModelFileError
from fm.formats.storage import from_json, read_metadata, read_tensors, to_json, write_tensors
from fm.training.progress import timer
from fm.training.run import Run
from fm.training.solvers.solver import Solver

logger = logging.getLogger("fm")

_KIND = {"format": "fm-checkpoint", "format_version": "5"}
SECONDS_BETWEEN = 30.0
# What may differ between the run that wrote a checkpoint and the one that goes on from it.
_MAY_CHANGE = frozenset({"epochs", "patience"})
_ADVICE = Advice("delete the file or start without resuming")


@dataclasses.dataclass(frozen=True)
class Marks:
    """What identifies a training: fingerprints of what it was given; empty for nothing.

    Attributes
    ----------
    data, validation : str
        Of the rows.
    init : str
        Of the parameters of the model that it started from.
    """

    data: str
    validation: str
    init: str


class Checkpoint:
    """The file of one training.

    Parameters
    ----------
    path : path
    config : TrainConfig
        Resolved.
    marks : Marks
        Of this training; a file with other marks is refused.
    must_match_init : bool
        Whether a training without a model to start from refuses the file of one that had one. A
        file of a training that started from another model is always refused.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: TrainConfig, marks: Marks, must_match_init: bool
    ) -> None:
        self.path, self._config, self._marks = Path(path), config, marks
        self._must_match_init = must_match_init
        self._saved = timer()

    def save(self, solver: Solver, run: Run, *, now: bool = True) -> None:
        """Write the file: now, or only if the last time was half a minute ago.

        A full disk is a warning: it must not end the training that the file protects.
        """
        if not now and timer() - self._saved <= SECONDS_BETWEEN:
            return
        meta = {
            "config": _essence(self._config),
            "marks": dataclasses.asdict(self._marks),
            **dataclasses.asdict(run),
        }
        about = {**_KIND, "state": to_json(meta).decode()}
        try:
            write_tensors(self.path, solver.arrays(), about)
        except OSError as err:
            logger.warning(
                "the checkpoint %s could not be written (%s); training goes on", self.path, err
            )
        self._saved = timer()

    def load(self, solver: Solver) -> Run:
        """Restore a solver from the file, and return how far its training was.

        Raises
        ------
        ModelFileError
            If the file is damaged, or belongs to another configuration or other data.
        ConfigError
            If it belongs to a training that started from another model.
        """
        try:
            tensors, about = read_tensors(
                self.path, solver.types, format=_KIND["format"], version=_KIND["format_version"],
                source=os.fspath(self.path),
            )  # fmt: skip
            meta = from_json(about["state"], "state", os.fspath(self.path))
            self._check(Marks(**meta.pop("marks")), meta.pop("config"))
            solver.restore(tensors)
            run = Run.from_dict(meta)
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            if isinstance(err, ModelFileError) and err.advice is _ADVICE:
                raise
            raise ModelFileError(f"{self.path}: damaged checkpoint ({err})", _ADVICE) from err
        return run

    def _check(self, marks: Marks, config: dict[str, Any]) -> None:
        """Refuse the file of another training."""
        if marks.data != self._marks.data:
            raise ModelFileError(
                f"{self.path}: the checkpoint was written for other training data", _ADVICE
            )
        essence = _essence(self._config)
        names = essence.keys() | config.keys()
        differ = sorted(name for name in names if essence.get(name) != config.get(name))
        if differ:
            name = differ[0]
            raise ModelFileError(
                f"{self.path}: the checkpoint was written with other hyperparameters "
                f"({', '.join(differ)}; {name}: {config.get(name)} there, {essence.get(name)} "
                "here)",
                _ADVICE,
            )
        if marks.validation != self._marks.validation:
            raise ModelFileError(
                f"{self.path}: the checkpoint was written with other validation data, which decide "
                "the best epoch",
                _ADVICE,
            )
        mine = self._marks.init
        if marks.init != mine and (mine or self._must_match_init):
            what = f"the model that the training in {self.path} started from"
            if not marks.init:
                what = f"nothing, because the training in {self.path} started from no model"
            found = "nothing" if not mine else "a model" if not marks.init else "another"
            raise ConfigError(
                f"init: expected {what}, found {found}; its parameters, items and users are "
                "needed again: pass what was passed then"
            )


def _essence(config: TrainConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _MAY_CHANGE}


def checked_path(path: str | os.PathLike[str], *, resume: bool) -> Path:
    """Return the path of a checkpoint; refuse an unusable one before hours of training.

    Raises
    ------
    ConfigError
        If it cannot be written, or is another kind of file, which would be lost.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(f"checkpoint: the directory of {path} cannot be made ({err})") from err
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"checkpoint: expected a file that can be written, found {path}")
    if not resume and path.exists() and not is_checkpoint(path):
        raise ConfigError(
            f"checkpoint: {path}: expected a checkpoint or no file, found another file, which "
            "would be overwritten; name another path"
        )
    return path


def config_in(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the hyperparameters of the training that wrote a file; none if it is damaged."""
    try:
        return dict(from_json(read_metadata(path)["state"], "state", os.fspath(path))["config"])
    except (ModelFileError, KeyError, TypeError, ValueError):
        return {}


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether the header of a file says that it is one; it may be cut off or damaged."""
    return read_metadata(path).get("format") == _KIND["format"]
