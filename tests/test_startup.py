"""What a fresh process pays: the import, the first fit, and a cache that has no place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fm

ROOT = Path(fm.__file__).parents[1]

FIRST_FIT = """
import resource
import numpy as np
import fm
data = fm.Dataset.from_arrays(np.eye(4), [1.0, 2.0, 3.0, 4.0])
model = fm.fit(data, fm.TrainConfig(num_factors=8, epochs=2))
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime, model.w0)
"""


def fresh(code, tmp_path, **env):
    """Run code in a new interpreter without HOME or a compiler cache."""
    gone = ("HOME", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    inherited = {name: value for name, value in os.environ.items() if name not in gone}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**inherited, "PYTHONPATH": str(ROOT), **env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_importing_fm_loads_nothing_large(tmp_path):
    code = "import sys, fm; print(*{name.partition('.')[0] for name in sys.modules})"
    heavy = {"numpy", "scipy", "numba", "pyarrow", "sklearn", "pandas", "flask", "matplotlib"}
    assert not heavy & set(fresh(code, tmp_path))


COMPILE_A_LOOP = """
import resource
import numba, numpy as np
@numba.njit
def total(x):
    found = 0.0
    for i in range(x.size):
        found += x[i]
    return found
print(total(np.ones(3)) and resource.getrusage(resource.RUSAGE_SELF).ru_utime)
"""


def test_the_first_fit_of_a_machine_is_quick(tmp_path):
    """Imports, compilation of the race's kernels and all, with an empty cache."""
    caches = iter(tmp_path / f"cache{i}" for i in range(4))
    seconds = [
        [float(fresh(code, tmp_path, NUMBA_CACHE_DIR=str(next(caches)))[0]) for _ in range(2)]
        for code in (COMPILE_A_LOOP, FIRST_FIT)
    ]
    assert min(seconds[1]) < 5.5 * max(seconds[0])


def test_a_read_only_installation_trains(tmp_path):
    """Where numba finds no directory for its cache it raises when a kernel is declared."""
    shutil.copytree(ROOT / "fm", tmp_path / "fm", ignore=shutil.ignore_patterns("__pycache__"))
    no_locator = """
import sys
sys.dont_write_bytecode = True
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
import numba
try:
    numba.njit(cache=True)(lambda: 0)
except RuntimeError as err:
    assert "no locator available" in str(err)
else:
    raise SystemExit("the cache has found a place after all")
"""
    _, w0 = fresh(no_locator + FIRST_FIT, tmp_path, PYTHONPATH=str(tmp_path))
    assert float(w0) == pytest.approx(2.5, abs=0.01)
    assert not list((tmp_path / "fm").rglob("*.nb[ci]"))


COMPILE = """
import numpy as np
from fm.kernels.layout import padded_order, shuffle
shuffle(padded_order(np.arange(4, dtype=np.int32)), 4, np.uint64(1))
"""


def test_a_process_waits_while_another_uses_the_cache(tmp_path):
    """Two that compile at once could otherwise get each other's code from numba's cache."""
    fcntl = pytest.importorskip("fcntl")
    cache = tmp_path / "cache"
    fresh(COMPILE, tmp_path, NUMBA_CACHE_DIR=str(cache))
    (lock,) = cache.rglob("fm.lock")
    command = [sys.executable, "-W", "error", "-c", COMPILE]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = subprocess.Popen(command, env=env, cwd=tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(4)
    assert waiting.wait(30) == 0
