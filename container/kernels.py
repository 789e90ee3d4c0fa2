"""Kernels compiled in the image, so that most jobs have nothing to compile.

    python -m container.kernels FOLDER      compile them, for each kind that this processor is of

Decided here: for which processors (x86-64 with AVX2, and with AVX-512), for which jobs (the default
number of factors; all tasks; our default optimizer and the built-in's), and that a job takes a
copy of them where it may write: numba opens no cache in a read-only folder. Whatever is missing is
compiled in the job. The processor's kind is named to numba, instead of the processor itself, so
that the cache fits all processors of the kind; models are the same, bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path

FOLDER = Path("/usr/local/share/fm/kernels")
_AVX2 = frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe".split())
KINDS = {
    "x86-64-v4": _AVX2.union("avx512f avx512bw avx512cd avx512dq avx512vl".split()),
    "x86-64-v3": _AVX2,
}


def kinds(cpuinfo: str) -> list[str]:
    """Return the kinds that a processor is of, the best first.

    Examples
    --------
    >>> kinds("flags : avx avx2 bmi1 bmi2 f16c fma abm movbe sse")
    ['x86-64-v3']
    """
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            break
    return [kind for kind, needed in KINDS.items() if needed <= flags]


def use(environ: MutableMapping[str, str], folder: Path = FOLDER) -> None:
    """Let numba find the kernels, if there are any; it must not have been imported yet."""
    target = environ.get("NUMBA_CACHE_DIR")
    if not target or "NUMBA_CPU_NAME" in environ:
        return
    for kind in kinds(read_cpuinfo()):
        if (folder / kind).is_dir():
            environ.update(_settings(kind))
            with contextlib.suppress(OSError):  # not writable: everything is compiled then
                shutil.copytree(folder / kind, target, dirs_exist_ok=True)
            return


def _settings(kind: str) -> dict[str, str]:
    # With a name alone numba would still take the features of the machine that compiles.
    return {"NUMBA_CPU_NAME": kind, "NUMBA_CPU_FEATURES": ""}


def read_cpuinfo() -> str:
    """Return what the system says of its processors, or nothing."""
    try:
        return Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return ""


def main() -> None:
    """Compile the kernels into a folder per kind of processor."""
    if len(sys.argv) > 1:
        for kind in kinds(read_cpuinfo()):
            env = {**os.environ, **_settings(kind), "NUMBA_CACHE_DIR": f"{sys.argv[1]}/{kind}"}
            subprocess.run([sys.executable, "-m", "container.kernels"], env=env, check=True)
        return
    import numpy as np
    import scipy.sparse as sp

    from fm.config import TrainConfig
    from fm.data.dataset import Dataset
    from fm.reading.finding_items import catalogue_of
    from fm.tasks import CLASSIFIER, RANKER, REGRESSOR
    from fm.training.fit import fit

    pairs = np.tile(np.eye(4), (1, 2))  # users and items: two ones in each row
    ragged = np.tril(np.ones((4, 8)), 2)
    for X in (pairs, ragged, ragged * 0.5):
        data = Dataset.from_arrays(sp.csr_matrix(X), [0, 1, 0, 1])
        for task in (REGRESSOR, CLASSIFIER):
            for optimizer in ("sgd", "adagrad", "sagemaker"):
                config = TrainConfig(predictor_type=task, optimizer=optimizer, epochs=1)
                fit(data, config, validation=data, callbacks=[lambda epoch: None], progress=False)
                if optimizer != "sagemaker":  # in a race
                    fit(data, config, validation=data, progress=False)
    more = np.hstack([pairs, np.tril(np.ones((4, 4)))])  # with further columns, of any number
    for X in (pairs, more, more * 0.5):
        data = Dataset.from_arrays(sp.csr_matrix(X))
        data = replace(data, catalogue=catalogue_of(data, user="0:4", item="4:8"))
        config = TrainConfig(predictor_type=RANKER, epochs=1)
        fit(data, config, validation=data, callbacks=[lambda epoch: None], progress=False)


if __name__ == "__main__":
    main()
