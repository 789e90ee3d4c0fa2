"""Read and write the model artefact of Amazon SageMaker's built-in Factorization Machines.

``model.tar.gz`` holds one file ``model_algo-1``, a ZIP of three: ``meta.json`` (hyperparameters as
texts), ``symbol.json`` (an MXNet graph; its last node tells the task) and ``params`` (the arrays).
No MXNet is needed; nothing is unpacked to the disk and nothing in the file is executed.

Decided here: what is in the archive, and what its arrays are. Not decided here: the bytes of
``params`` (``fm.formats.mxnet``).

Two sets of names are known: ``w0_weight (1,), w1_weight (N, 1), v (N, k)`` of the sparse network,
and ``Linear_Plus_Bias_bias (1,), Linear_Plus_Bias_weight (1, N), v (k, N)`` of the dense one.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import orjson

from fm.config import TrainConfig, parameters
from fm.errors import ConfigError, FMError, ModelFileError
from fm.formats.mxnet import read_arrays, write_arrays
from fm.formats.storage import atomic_output
from fm.model.file import FILE_NAME, read_parts
from fm.scoring.machine import FactorizationMachine
from fm.tasks import CLASSIFIER, REGRESSOR

log = logging.getLogger("fm")

_OUTPUTS = {"LinearRegressionOutput": REGRESSOR, "LogisticRegressionOutput": CLASSIFIER}
_ARTIFACT_NAME = "model_algo-1"
# What damaged or hostile bytes make gzip, tarfile, zipfile and struct raise.
_DAMAGED = (
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_artifact(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the parts of the model in ``model.tar.gz``, or in the ``model_algo-1`` that it holds.

    A ``model.tar.gz`` that holds our own ``model.safetensors`` is read too. Hyperparameters that
    mean nothing here are left out, with a warning in the log.

    Raises
    ------
    ModelFileError
        If the file is damaged, would unpack to far more than its size, or holds no model.

    Examples
    --------
    >>> from fm import Model
    >>> model = Model(1.0, [0.5, 0.25], [[2.0], [1.0]], TrainConfig(num_factors=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_artifact(model, Path(folder, "model.tar.gz"))
    ...     read_artifact(file)["w"].tolist()
    [0.5, 0.25]
    """
    source = str(path)
    try:
        with open(path, "rb") as file:
            most = _most(os.fstat(file.fileno()).st_size)
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return _read_tar(_Bounded(gzip.open(file), most)) if packed else _read_zip(file, most)
    except FMError as err:
        raise ModelFileError(f"{source}: {err}") from err
    except _DAMAGED as err:
        raise ModelFileError(
            f"{source}: expected an artefact of the built-in algorithm (model.tar.gz or "
            f"model_algo-1), found a damaged or another file ({err}); download it again"
        ) from err


def write_artifact(model: FactorizationMachine, path: str | os.PathLike[str]) -> Path:
    """Write the model as the built-in algorithm would, and return the path.

    A path that ends in ``.gz`` becomes the archive, any other the ``model_algo-1`` itself. The
    artefact has no place for an encoder, fields or metrics: they stay behind.

    Raises
    ------
    ConfigError
        If the model is of a task that the built-in algorithm does not have.

    Examples
    --------
    >>> from fm import Model
    >>> model = Model(1.0, [0.5, 0.25], [[2.0], [1.0]], TrainConfig(num_factors=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_artifact(model, Path(folder, "model_algo-1")).stat().st_size > 0
    True
    """
    path = Path(path)
    if model.config.predictor_type not in _OUTPUTS.values():
        raise ConfigError(
            f"predictor_type: expected {' or '.join(_OUTPUTS.values())}, as the built-in algorithm "
            f"has them, found {model.config.predictor_type}; keep the model in fm's own file"
        )
    w0, w = np.array([model.w0]), model.w.reshape(-1, 1)
    arrays = {"w0_weight": w0, "w1_weight": w, "v": model.V}
    members = {
        "meta.json": orjson.dumps(_meta(model)),
        "symbol.json": orjson.dumps(_symbol(model), option=orjson.OPT_INDENT_2),
        "params": write_arrays(arrays),
    }
    with atomic_output(path) as file:
        if path.suffix != ".gz":
            _write_zip(file, members)
            return path
        inner = io.BytesIO()
        _write_zip(inner, members)
        entry = tarfile.TarInfo(_ARTIFACT_NAME)
        entry.size = inner.tell()
        inner.seek(0)
        # mtime=0: the same model gives the same bytes
        with (
            gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|") as archive,
        ):
            archive.addfile(entry, inner)
    return path


# -- containers ----------------------------------------------------------------------------------


def _most(size: int) -> int:
    """Return what a file of `size` bytes may unpack to: weights hardly compress, bombs do."""
    return max(256 << 20, 100 * size)


class _Bounded:
    """A stream that refuses to deliver more than `left` bytes."""

    def __init__(self, file: Any, left: int) -> None:
        self.file, self.left = file, left

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise ModelFileError("unpacks to more than 100 times its size; not a model")
        return bytes(self.file.read(size))


def _read_tar(stream: _Bounded) -> dict[str, Any]:
    """Read the first model of a tar stream; names in it are compared, never used as paths."""
    found = []
    with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            found.append(name)
            if not member.isreg() or not re.fullmatch(rf"model_algo-\d+|{FILE_NAME}", name):
                continue
            if member.size > stream.left:
                raise ModelFileError(f"{name} says it unpacks to {member.size} bytes; not a model")
            content = cast(BinaryIO, archive.extractfile(member)).read()
            if name != FILE_NAME:
                return _read_zip(io.BytesIO(content), _most(len(content)))
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, FILE_NAME)
                file.write_bytes(content)
                return read_parts(file, source=FILE_NAME)
    raise ModelFileError(
        f"expected {_ARTIFACT_NAME} or {FILE_NAME} in the archive, found "
        f"{', '.join(found[:5]) or 'nothing'}"
    )


def _read_zip(file: BinaryIO, most: int) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if "params" not in members:
            raise ModelFileError(
                f"expected meta.json, symbol.json and params in {_ARTIFACT_NAME}, found "
                f"{', '.join(list(members)[:5]) or 'nothing'}"
            )
        content = {}
        for name in {"meta.json", "symbol.json", "params"} & members.keys():
            most -= members[name].file_size
            if most < 0:
                raise ModelFileError(f"{name} unpacks to more than 100 times its size")
            content[name] = archive.read(members[name])
    meta = _json_object(content.get("meta.json", b"{}"), "meta.json")
    symbol = _json_object(content.get("symbol.json", b"{}"), "symbol.json")
    given = meta.get("training_parameters", {})
    if not isinstance(given, dict):
        raise ModelFileError("meta.json: expected an object under training_parameters")
    params = content["params"]
    return _to_parts(read_arrays(params, _most(len(params))), _config(given, symbol))


def _write_zip(file: BinaryIO, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def _json_object(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError as err:
        raise ModelFileError(f"{name}: expected JSON ({err})") from err
    if not isinstance(value, dict):
        raise ModelFileError(f"{name}: expected a JSON object, found {text[:40]!r}")
    return value


# -- hyperparameters -----------------------------------------------------------------------------


def _config(given: Mapping[str, Any], symbol: Mapping[str, Any]) -> TrainConfig:
    """Make the config of an artefact, without the values that mean nothing here."""
    known = {parameter.name: parameter for parameter in parameters()}
    kept: dict[str, Any] = {"optimizer": "sagemaker"}
    for name, value in given.items():
        try:
            if name in known:
                kept[name] = known[name].parse(value)
            elif name in ("_learning_rate", "_wd"):
                TrainConfig.from_strings({name: value})
                kept[name] = value
        except ConfigError as err:
            log.warning("meta.json: left out %s", err)
    if "predictor_type" not in kept:
        kept["predictor_type"] = _task_of(symbol)
    try:
        return TrainConfig.from_strings(kept)
    except ConfigError as err:  # values that do not belong together
        log.warning("meta.json: left out all but the shape of the model: %s", err)
        shape = ("predictor_type", "num_factors", "feature_dim", "optimizer")
        return TrainConfig(**{name: kept[name] for name in shape if name in kept})


def _task_of(symbol: Mapping[str, Any]) -> str:
    """Return the task that the output of the graph tells."""
    nodes = symbol.get("nodes")
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict) and node.get("op") in _OUTPUTS:
            return _OUTPUTS[node["op"]]
    raise ModelFileError(
        "expected predictor_type in meta.json or an output of regression in symbol.json, found none"
    )


def _meta(model: FactorizationMachine) -> dict[str, Any]:
    values = {**model.config.to_dict(), "feature_dim": model.num_features}
    values["num_factors"] = model.num_factors
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }
    return {
        "version": 1,
        "epoch_number": 1,
        "training_parameters": texts,
        "label_names": ["out_label"],
    }


# -- arrays --------------------------------------------------------------------------------------


def _to_parts(arrays: Mapping[str, np.ndarray], config: TrainConfig) -> dict[str, Any]:
    def first(*names: str) -> np.ndarray | None:
        return next((arrays[name].ravel() for name in names if name in arrays), None)

    w = first("w1_weight", "Linear_Plus_Bias_weight")
    w0 = first("w0_weight", "Linear_Plus_Bias_bias")
    V = _factors(arrays, config.feature_dim, w)
    if w0 is not None and w0.size != 1:
        raise ModelFileError(f"params: expected one bias, found {w0.size} numbers")
    return {
        "w0": 0.0 if w0 is None else float(w0[0]),  # use_bias=false, use_linear=false
        "w": np.zeros(len(V), np.float32) if w is None else w,
        "V": V,
        "config": config,
    }


def _factors(
    arrays: Mapping[str, np.ndarray], num_features: int | None, w: np.ndarray | None
) -> np.ndarray:
    """Return the factors, one row for each feature, after checking that the shapes fit."""
    V = arrays.get("v")
    if V is None or V.ndim != 2 or V.size == 0:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ModelFileError(f"params: expected a matrix v, found {found or 'nothing'}")
    # The dense network's factors are (k, N); where k = N only the names tell.
    dense = any(name.startswith("Linear_Plus_Bias") for name in arrays)
    if num_features is None:
        num_features = w.size if w is not None else V.shape[1 if dense else 0]
    if V.shape[0] != num_features or (dense and V.shape[1] == num_features):
        V = V.T
    if V.shape[0] != num_features or (w is not None and w.size != num_features):
        raise ModelFileError(
            f"params: expected factors and weights of {num_features} features, found v of shape "
            f"{arrays['v'].shape} and weights of shape {None if w is None else w.shape}"
        )
    return V


def _symbol(model: FactorizationMachine) -> dict[str, Any]:
    """Return the graph of the score as MXNet writes it: (operator, name, attributes, inputs)."""
    n, k = model.num_features, model.num_factors
    output = next(op for op, task in _OUTPUTS.items() if task == model.config.predictor_type)
    row_sum = {"axis": "1", "keepdims": "True"}
    nodes: list[tuple[str, str, dict[str, str], tuple[int, ...]]] = [
        ("null", "data", {"__storage_type__": "2"}, ()),
        ("null", "w1_weight", {"__shape__": f"({n}, 1)", "__storage_type__": "1"}, ()),
        ("dot", "linear", {}, (0, 1)),
        ("null", "w0_weight", {"__shape__": "(1,)"}, ()),
        ("broadcast_add", "linear_and_bias", {}, (2, 3)),
        ("null", "v", {"__shape__": f"({n}, {k})", "__storage_type__": "1"}, ()),
        ("dot", "sums", {}, (0, 5)),
        ("square", "squared_sums", {}, (6,)),
        ("sum", "all_pairs", row_sum, (7,)),
        ("square", "squared_data", {}, (0,)),
        ("_square_sum", "squared_norms", row_sum, (5,)),
        ("dot", "own_pairs", {}, (9, 10)),
        ("elemwise_sub", "pairs", {}, (8, 11)),
        ("_mul_scalar", "half_pairs", {"scalar": "0.5"}, (12,)),
        ("elemwise_add", "score", {}, (4, 13)),
        ("null", "out_label", {}, ()),
        (output, "out", {}, (14, 15)),
    ]
    return {
        "nodes": [
            {
                "op": op,
                "name": name,
                **({"attrs": attributes} if attributes else {}),
                "inputs": [[i, 0, 0] for i in inputs],
            }
            for op, name, attributes, inputs in nodes
        ],
        "arg_nodes": [i for i, node in enumerate(nodes) if node[0] == "null"],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": [[len(nodes) - 1, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10301]},
    }
