"""The file of a model: the parts of a model -> one file, and back.

Decided here: what is in the file. Not decided here: which other files are models
(``fm.model.load``).

A model is one file of :mod:`fm.formats.storage`: a safetensors file, of format ``fm`` and version
``1``, which a few lines in any language can read. Nothing in it is a time, a host or a path, so
that the same model gives the same bytes.

==================  ==========  ==============================================================
tensor              type        meaning
==================  ==========  ==============================================================
``w0``              F32 [1]     the bias
``w``               F32 [n]     one weight per feature
``V``               F32 [n, k]  one vector of factors per feature
``fields``          I32 [n]     field of each feature, -1: none; left out if no feature has one
``encoder_json``    U8 [bytes]  the encoder as JSON in UTF-8; left out if there is none
``item_rows``,      I32, I32,   the catalogue (``fm.catalogue.catalogue``), if there is one: the
item side ``item_features``,  F32         of each item as a CSR matrix of features
``item_values``
``user_rows``,      as above    the features of each user's own columns
``user_features``,
``user_values``
``seen_users``,     I32, I32    which items each user met in training, a CSR matrix of items
``seen_items``
==================  ==========  ==============================================================

===================  =========================================================================
metadata             meaning (every value is a text)
===================  =========================================================================
``task``             ``regressor`` or ``binary_classifier``: the probability is sigmoid(score)
``config``           JSON object: the hyperparameters
``field_names``      JSON list: the names of the fields, by field number
``metrics``          JSON object: what was measured on the held-out rows
``history``          JSON list of objects: the metrics of each epoch, and its number, from 1
``fingerprint``      a fingerprint of the training data
``catalogue``        JSON object: columns: ``item``, ``user``, ``item_columns``, ``user_columns``
``zero_based``       ``true`` or ``false``: whether the libsvm file trained on calls its first
                     feature 0; ``null`` for other data
``labels``           JSON list of the two labels that a classifier's 0 and 1 stand for; left out
                     if they are 0 and 1
``library_version``  the version of fm that wrote the file
===================  =========================================================================
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fm.config import IGNORED, TrainConfig, parameters
from fm.data.labels import Labels, is_plain
from fm.errors import FMError, ModelFileError
from fm.formats.storage import from_json, read_tensors, to_json, write_tensors
from fm.scoring.machine import FactorizationMachine
from fm.version import __version__

if TYPE_CHECKING:
    from fm.encoding.encoder import Encoder

FILE_NAME = "model.safetensors"
FORMAT_VERSION = "1"

log = logging.getLogger("fm")


def write_parts(path: str | os.PathLike[str], parts: Mapping[str, Any]) -> Path:
    """Write the parts of a model, by the names of its fields; see :meth:`fm.Model.save`."""
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    config, encoder, catalogue = parts["config"], parts["encoder"], parts["catalogue"]
    tensors = {"V": parts["V"], "w": parts["w"], "w0": np.array([parts["w0"]], dtype=np.float32)}
    if parts["fields"] is not None:
        tensors["fields"] = parts["fields"]
    if encoder is not None:
        tensors["encoder_json"] = np.frombuffer(to_json(encoder.to_dict()), dtype=np.uint8)
    if catalogue is not None:
        from fm.catalogue.tensors import to_notes, to_tensors

        tensors |= to_tensors(catalogue)
    metadata = {
        "format": "fm",
        "format_version": FORMAT_VERSION,
        "task": config.predictor_type,
        "config": to_json(config.to_dict()).decode(),
        "field_names": to_json(list(parts["field_names"])).decode(),
        "metrics": to_json(parts["metrics"]).decode(),
        "history": to_json(parts["history"]).decode(),
        "fingerprint": parts["fingerprint"],
        "zero_based": to_json(parts["zero_based"]).decode(),
        "catalogue": to_json(catalogue and to_notes(catalogue)).decode(),
        "library_version": __version__,
    }
    if not is_plain(parts["labels"]):
        metadata["labels"] = to_json(list(parts["labels"])).decode()
    write_tensors(path, tensors, metadata)
    return path


def read_parts(path: str | os.PathLike[str], source: str | None = None) -> dict[str, Any]:
    """Return what :func:`write_parts` wrote; the file is called `source` in messages.

    Raises
    ------
    ModelFileError
        If the file is damaged or is not a model.
    """
    source = source or str(path)
    tensors, metadata = read_tensors(
        path, _TENSOR_TYPES, format="fm", version=FORMAT_VERSION, source=source
    )
    missing = [name for name in ("w0", "w", "V") if name not in tensors]
    if missing:
        raise ModelFileError(
            f"{source}: expected tensors w0, w and V, found no {' and no '.join(missing)}"
        )
    try:
        return _from_tensors(tensors, metadata)
    except FMError as err:
        raise ModelFileError(f"{source}: {err}") from err


_TENSOR_TYPES = {
    "w0": "F32", "w": "F32", "V": "F32", "fields": "I32", "encoder_json": "U8",
    "item_rows": "I32", "item_features": "I32", "item_values": "F32",
    "seen_users": "I32", "seen_items": "I32",
    "user_rows": "I32", "user_features": "I32", "user_values": "F32",
}  # fmt: skip


def _from_tensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, Any]:
    values = {
        name: from_json(metadata.get(name, ""), name)
        for name in ("config", "field_names", "metrics", "history")
    }
    for name, kind in (
        ("config", dict),
        ("metrics", dict),
        ("field_names", list),
        ("history", list),
    ):
        if not isinstance(values[name], kind):
            found = type(values[name]).__name__
            raise ModelFileError(f"{name}: expected a JSON {kind.__name__}, found {found}")
    if tensors["w0"].shape != (1,):
        raise ModelFileError(f"tensor w0: expected shape (1,), found {tensors['w0'].shape}")
    config = _config(values["config"])
    if metadata.get("task") != config.predictor_type:
        raise ModelFileError(
            f"task: expected {config.predictor_type!r} as in config, found {metadata.get('task')!r}"
        )
    known: dict[str, Any] = {
        "w0": float(tensors["w0"][0]),
        "w": tensors["w"],
        "V": tensors["V"],
        "config": config,
        "encoder": _encoder(tensors.get("encoder_json")),
        "fields": tensors.get("fields"),
        "field_names": tuple(map(str, values["field_names"])),
        "metrics": values["metrics"],
        "zero_based": {"true": True, "false": False}.get(metadata.get("zero_based", "")),
    }
    if "labels" in metadata:
        known["labels"] = _labels(from_json(metadata["labels"], "labels"))
    notes = from_json(metadata.get("catalogue", "null"), "catalogue")
    if notes is not None:
        from fm.catalogue.tensors import from_file

        known["catalogue"] = from_file(tensors, notes, FactorizationMachine(**known))
    fingerprint = metadata.get("fingerprint", "")
    return {**known, "history": values["history"], "fingerprint": fingerprint}


def _config(values: dict[str, Any]) -> TrainConfig:
    """Make the config of a file; hyperparameters of a later release do not change a score."""
    known = {parameter.name for parameter in parameters()}
    unknown = sorted(set(values) - known - IGNORED)
    if unknown:
        log.warning("the model has hyperparameters unknown here: %s", ", ".join(unknown))
    return TrainConfig(**{name: value for name, value in values.items() if name in known})


def _labels(found: Any) -> Labels:
    pair = isinstance(found, list) and len(found) == 2 and found[0] != found[1]
    if not pair or not all(isinstance(label, (str, int, float)) for label in found):
        raise ModelFileError(f"labels: expected two different texts or numbers, found {found!r}")
    return found[0], found[1]


def _encoder(data: np.ndarray | None) -> Encoder | None:
    if data is None:
        return None
    from fm.encoding.encoder import Encoder

    return Encoder.from_dict(from_json(data.tobytes(), "encoder_json"))
