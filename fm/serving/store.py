"""Models by name: what a SageMaker multi-model endpoint loads, lists and unloads.

Decided here: which paths may be opened (those in one directory), which models are loaded at the
start, how much memory they may take, and that a process that replaces another one knows the same
models. One process holds all models, so its list of them is always right.

At the start, the models directly in the directory are loaded: ``NAME.safetensors``,
``NAME.tar.gz``, and ``NAME/`` with a model file in it. SageMaker puts its models one level deeper,
into ``NAME/model/``, and loads each of them by a request.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from fm.errors import ConfigError, FMError
from fm.formats.storage import atomic_output
from fm.model.load import load
from fm.model.model import Model
from fm.serving import lists as recommending
from fm.serving.limits import memory
from fm.serving.media import Refusal

MAX_NAME = 1024
_SHARE = 0.7  # of the memory there is
_ENDINGS = (".safetensors", ".tar.gz", "model_algo-1")  # of the names of model files

log = logging.getLogger("fm.serving")


class _Entry(NamedTuple):
    url: str
    size: int  # bytes of memory
    model: Model


class ModelStore:
    """Models that are loaded and unloaded while the server runs.

    Parameters
    ----------
    root : path
        The directory that every model is in.
    max_bytes : int, optional
        The memory that all models together may take; the default is 70% of what there is.
    warm_up : callable, optional
        Called with each model before it counts as loaded; raises an FMError if it cannot serve.
    record : path, optional
        A file with the names and paths of the models, for a process that replaces this one.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        warm_up: Callable[[Model], None] = lambda model: None,
        record: str | os.PathLike[str] | None = None,
    ) -> None:
        self.root = Path(os.path.realpath(root))
        if not self.root.is_dir():
            raise ConfigError(f"{root}: expected a directory that models are loaded from")
        self.max_bytes = int(_SHARE * memory()) if max_bytes is None else max_bytes
        self._warm_up = warm_up
        self._record = None if record is None else Path(record)
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}

    def discover(self) -> None:
        """Put the models in the directory into the record, for :meth:`restore` to load them."""
        found: dict[str, str] = {}
        for path in sorted(filter(_is_model, self.root.iterdir())):
            name = path.name if path.is_dir() else _without_ending(path.name)
            if name in found:
                log.warning("%s is left out: %s has the same name", path, found[name])
            found.setdefault(name, str(path))
        self._write(found)

    def restore(self, after_each: Callable[[], None] = lambda: None) -> None:
        """Load the models in the record. The log says which cannot be loaded, and why.

        Parameters
        ----------
        after_each : callable, optional
            Called after each model, which may take long.
        """
        if self._record is None or not self._record.exists():
            return
        with self._lock:
            for name, url in orjson.loads(self._record.read_bytes()).items():
                try:
                    self._load(name, url)
                except Refusal as refusal:
                    log.warning("%s is left out: %s", url, refusal.message)
                after_each()
            self._keep()
        log.info("models loaded: %s", ", ".join(self._entries) or "none")

    def close(self) -> None:
        """Remove the record."""
        if self._record is not None:
            self._record.unlink(missing_ok=True)

    def load(self, name: Any, url: Any) -> None:
        """Load a model under a name.

        Raises
        ------
        Refusal
            400 (name or model cannot be used), 404 (no such path), 409 (the name is taken) or 507
            (not enough memory).
        """
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise Refusal(400, f"model_name: expected a text of at most {MAX_NAME} characters")
        with self._lock:
            self._load(name, url)
            self._keep()

    def _load(self, name: str, url: Any) -> None:
        path = self._path(url)
        if name in self._entries:
            raise Refusal(409, f"model {name!r} is loaded already")
        used = sum(entry.size for entry in self._entries.values())
        try:
            if used + _size_on_disk(path) > self.max_bytes:
                raise self._full(used)
            model = load(path)
            self._warm_up(model)
        except (FMError, OSError) as err:
            raise Refusal(400, f"model {name!r} cannot be loaded: {err}") from None
        except MemoryError:
            raise self._full(used) from None
        size = model.V.nbytes + 3 * model.w.nbytes  # w, and two vectors of its size for scoring
        size += recommending.memory(model)
        if used + size > self.max_bytes:
            raise self._full(used)
        self._entries[name] = _Entry(url, size, model)

    def unload(self, name: str) -> None:
        """Forget a model; 404 if there is none of this name. Requests in flight are answered."""
        with self._lock:
            self._entry(name)
            del self._entries[name]
            self._keep()

    def get(self, name: str) -> Model:
        """Return the model of a name; 404 if there is none."""
        return self._entry(name).model

    def describe(self, name: str) -> dict[str, str]:
        """Return name and path in the form of the platform; 404 if there is no such model."""
        return {"modelName": name, "modelUrl": self._entry(name).url}

    def names(self) -> list[str]:
        """Return the names of all models, in the order they were loaded."""
        return list(self._entries)

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise Refusal(404, f"model {name[:80]!r} is not loaded")
        return entry

    def _path(self, url: Any) -> Path:
        if not isinstance(url, str) or not url or "\0" in url:
            raise Refusal(400, "url: expected the path of a model")
        path = Path(os.path.realpath(self.root / url))
        if not path.is_relative_to(self.root) or path == self.root:
            raise Refusal(400, f"url: expected a path inside {self.root}, found {url[:200]!r}")
        if not path.exists():
            raise Refusal(404, f"url: {url[:200]!r} does not exist")
        return path

    def _full(self, used: int) -> Refusal:
        return Refusal(
            507,
            f"not enough memory: models take {used} of {self.max_bytes} bytes; unload one first",
        )

    def _keep(self) -> None:
        self._write({name: entry.url for name, entry in self._entries.items()})

    def _write(self, urls: dict[str, str]) -> None:
        if self._record is not None:
            with atomic_output(self._record) as file:
                file.write(orjson.dumps(urls))


def _is_model(path: Path) -> bool:
    """Whether a path looks like a model: a file with the name of one, or a folder that has one."""
    if path.name.startswith("."):
        return False
    try:
        files = path.iterdir() if path.is_dir() else [path]
        return any(file.name.endswith(_ENDINGS) and file.is_file() for file in files)
    except OSError:
        return True  # the attempt to load it will say what is wrong


def _without_ending(name: str) -> str:
    return name.removesuffix(".safetensors").removesuffix(".tar.gz")


def _size_on_disk(path: Path) -> int:
    """Return the bytes of a model file, or of the largest file of a directory."""
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    return max((file.stat().st_size for file in files), default=0)
