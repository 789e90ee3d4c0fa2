"""Where a training job finds and leaves its files: the tree that SageMaker mounts at /opt/ml.

Decided here: the names in that tree, and that another folder may take its place (the environment
variable SAGEMAKER_BASE_DIR), so that a job runs on a laptop without a container.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fm.errors import ConfigError

BASE = "/opt/ml"


@dataclass(frozen=True)
class Paths:
    """The tree below one folder.

    Attributes
    ----------
    base : Path
        The folder.
    """

    base: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Paths:
        """Return the tree that the environment names."""
        return cls(Path(environ.get("SAGEMAKER_BASE_DIR") or BASE))

    @property
    def config(self) -> Path:
        """Folder of the JSON files that describe the job."""
        return self.base / "input" / "config"

    @property
    def data(self) -> Path:
        """Folder of the channels."""
        return self.base / "input" / "data"

    @property
    def model(self) -> Path:
        """Folder that becomes model.tar.gz."""
        return self.base / "model"

    @property
    def output(self) -> Path:
        """Folder that becomes output.tar.gz."""
        return self.base / "output" / "data"

    @property
    def failure(self) -> Path:
        """File whose first 1,024 characters are the FailureReason of a failed job."""
        return self.base / "output" / "failure"

    def checkpoint(self, host: str) -> Path | None:
        """Return the file for a host's checkpoints; None if the job has no place for them.

        A job with a CheckpointConfig has such a folder, or a file that names another one. All
        hosts of a job share the place in S3, so the host is part of the file's name.
        """
        asked = self.read("checkpointconfig.json")
        folder = self._moved(asked.get("LocalPath") or f"{BASE}/checkpoints")
        return folder / f"fm-{host}.checkpoint" if asked or folder.is_dir() else None

    def _moved(self, path: str) -> Path:
        """Return a path below /opt/ml as one below the folder that takes its place."""
        inside = os.path.relpath(path, BASE)
        return Path(path) if inside.startswith("..") else self.base / inside

    def read(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file of the job, or ``{}`` if there is no such file.

        Raises
        ------
        ConfigError
            If the file is not a JSON object.
        """
        path = self.config / name
        try:
            content = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as err:
            raise ConfigError(f"{path}: expected JSON, found something else ({err})") from err
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: expected a JSON object, found {type(content).__name__}")
        return content
