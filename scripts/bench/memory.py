"""Peak memory of a training, against what it must hold: data, parameters, optimizer state.

Each case runs in a process of its own: the resident memory before fm.fit (interpreter, compiled
kernels, data) is subtracted from the peak during it, and the data added back.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import numpy as np
import scipy.sparse as sp

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.training.fit import fit

CASES = [
    # rows, entries per row, features, factors, optimizer, validation fraction
    (1_000_000, 39, 1_000_000, 16, "sgd", 0.0),
    (1_000_000, 39, 1_000_000, 16, "adagrad", 0.1),
    (200_000, 6, 2_000_000, 64, "sgd", 0.1),
    (200_000, 6, 2_000_000, 20, "adagrad", 0.1),
    (1_000_000, 6, 1_000_000, 32, "adam", 0.1),
    (1_000_000, 6, 1_000_000, 32, "sagemaker", 0.0),
]


def status(field: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise LookupError(field)


def one(rows: int, m: int, n: int, k: int, optimizer: str, fraction: float) -> None:
    """Train once and print a line of the table."""
    rng = np.random.default_rng(0)
    indices = rng.integers(0, n // m, (rows, m), dtype=np.int32)
    indices += np.arange(m, dtype=np.int32) * (n // m)
    X = sp.csr_matrix((rows, n), dtype=np.float32)
    X.data = np.ones(rows * m, np.float32)
    X.indices, X.indptr = indices.reshape(-1), np.arange(rows + 1, dtype=np.int32) * m
    data = Dataset.from_arrays(X, rng.standard_normal(rows, np.float32))
    held = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes + data.y.nbytes
    config = TrainConfig(optimizer=optimizer, num_factors=k, epochs=2, validation_fraction=fraction)
    small = Dataset.from_arrays(X[:2000].copy(), data.y[:2000])
    small_config = TrainConfig(
        optimizer=optimizer, num_factors=k, epochs=1, validation_fraction=fraction, feature_dim=n
    )
    fit(small, small_config, progress=False)  # compile
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = status("VmRSS")
    model = fit(data, config, progress=False)
    peak = status("VmHWM") - before + held
    states = {"sgd": 0, "adagrad": 1}.get(optimizer, 2)
    parameters = 4 * n * (k + 1)
    need = held + parameters * (1 + states)
    print(
        f"| {rows:,} x {m}, {n:,} features, k={k} | {optimizer}"
        f"{', held-out rows' if fraction else ''} | {held >> 20} | {parameters >> 20} | "
        f"{parameters * states >> 20} | {peak >> 20} | {peak / need - 1:+.0%} |",
        flush=True,
    )
    del model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, help="run one case in this process")
    args = parser.parse_args()
    if args.case is not None:
        one(*CASES[args.case])
        return
    print("| training | optimizer | data MB | parameters MB | state MB | peak MB | over |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for case in range(len(CASES)):
        subprocess.run([sys.executable, __file__, "--case", str(case)], check=True)


if __name__ == "__main__":
    main()
