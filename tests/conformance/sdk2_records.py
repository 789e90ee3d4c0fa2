"""Runs with SDK 2: write RecordIO files by its functions, or read ours and say what is in them.

python sdk2_records.py write|read FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sagemaker.amazon import common

KINDS = ("float32", "float64", "int64")


def write(folder: Path) -> None:
    array = np.array([[0, 1, 0, 3, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    for values in KINDS:
        for labels in KINDS:
            X, y = array.astype(values), np.array([1, 0, 1]).astype(labels)
            with (folder / f"sparse-{values}-{labels}.sdk").open("wb") as file:
                common.write_spmatrix_to_sparse_tensor(file, sp.csr_matrix(X), y)
            with (folder / f"dense-{values}-{labels}.sdk").open("wb") as file:
                common.write_numpy_to_dense_tensor(file, X, y)


def tensor(value):
    return getattr(value, value.WhichOneof("value"))


def read(folder: Path) -> None:
    found = {}
    for path in sorted(folder.glob("*.ours")):
        with path.open("rb") as file:
            found[path.stem] = [
                {
                    "values": list(tensor(record.features["values"]).values),
                    "keys": list(tensor(record.features["values"]).keys),
                    "shape": list(tensor(record.features["values"]).shape),
                    "label": list(tensor(record.label["values"]).values),
                }
                for record in common.read_records(file)
            ]
    (folder / "found.json").write_text(json.dumps(found))  # the SDK writes to stdout, too


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
