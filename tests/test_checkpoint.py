"""Checkpoints: what stands in one, whose it is, and files that are damaged or half written."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file, save_file

import fm.training.parameters
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import ModelFileError
from fm.training.checkpoint import Checkpoint, Marks
from fm.training.run import Run
from fm.training.solvers.solver import make_solver
from fm.training.split import Split

OPTIMIZERS = ("sgd", "adagrad", "adam", "ftrl", "sagemaker")


def solver_of(config):
    """A solver that has not been started, of any rows."""
    rows = Dataset.from_arrays(np.eye(50), np.arange(50) % 2)
    return make_solver(rows, config, Split(np.arange(50, dtype=np.int32)))


def file_of(path, config, data="mark", validation="", init=""):
    return Checkpoint(path, config, Marks(data, validation, init), True)


def load(path, config, data="mark", **marks):
    """The solver and the run of a checkpoint."""
    solver = solver_of(config)
    return solver, file_of(path, config, data, **marks).load(solver)


def filled(optimizer="adagrad"):
    """A solver full of random numbers, states and all; only the padding is 0."""
    l1 = {"linear_l1": 0.01, "factors_l1": 0.02} if optimizer == "ftrl" else {}
    solver = solver_of(TrainConfig(optimizer=optimizer, num_factors=3, **l1).resolved())
    solver.start()
    values, rng = solver.values, np.random.default_rng(3)
    values.B[:] = rng.normal(size=values.B.size)
    values.W[:] = rng.normal(size=values.W.size)
    rows = values.P.reshape(50, 1 + values.states, -1)
    rows[:, :, :3] = rng.normal(size=(50, 1 + values.states, 3))
    values.center, values.scale = 1 / 3, 2 / 3
    return solver


def saved(path, optimizer="adagrad", best=True):
    solver = filled(optimizer)
    run = Run(2, [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    if best:
        run.best_epoch, run.best_value = 1, 0.1
        solver.keep()
    file_of(path, solver.config).save(solver, run)
    return solver, run


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Both ways memory is managed, on arrays of any size."""
    if request.param == "large":
        monkeypatch.setattr(fm.training.parameters, "LARGE_BYTES", 64)
    return request.param


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_brings_everything_back(optimizer, best, size, tmp_path):
    path = tmp_path / "folder" / "state.ckpt"
    solver, run = saved(path, optimizer, best)
    again, run_again = load(path, solver.config)
    for name in ("B", "W", "P"):
        np.testing.assert_array_equal(getattr(again.values, name), getattr(solver.values, name))
    assert (again.center, again.scale) == (solver.center, solver.scale)
    np.testing.assert_equal(vars(run_again), vars(run))
    assert again.kept == best
    if best:
        solver.values.V[:] = again.values.V[:] = 0
        np.testing.assert_array_equal(again.finish()[2], solver.finish()[2])
    assert [file.name for file in path.parent.iterdir()] == ["state.ckpt"]


def test_a_checkpoint_is_a_safetensors_file(tmp_path):
    solver, _ = saved(tmp_path / "state")
    tensors = load_file(tmp_path / "state")
    assert tensors.keys() == {"target", "B", "W", "P", "best_scalars", "best_w", "best_V"}
    np.testing.assert_array_equal(tensors["W"], solver.values.W)


def test_figures_that_are_not_numbers_survive(tmp_path):
    """The AUC of one label is NaN, which JSON does not know."""
    solver = filled()
    run = Run(1, [{"epoch": 1, "loss": 0.5, "auc": float("nan")}], 0)
    file_of(tmp_path / "state", solver.config).save(solver, run)
    _, again = load(tmp_path / "state", solver.config)
    np.testing.assert_equal(again.history, run.history)
    assert np.isnan(again.best_value)


def test_a_checkpoint_of_other_data_or_settings_is_refused(tmp_path):
    path = tmp_path / "state"
    config = saved(path)[0].config
    with pytest.raises(ModelFileError, match="state: .*other training data; delete the file"):
        load(path, config, "other")
    changed = TrainConfig(**{**config.to_dict(), "num_factors": 4, "seed": 9})
    with pytest.raises(
        ModelFileError, match=r"other hyperparameters \(num_factors, seed; num_factors: 3 there, 4"
    ):
        load(path, changed)
    longer = TrainConfig(**{**config.to_dict(), "epochs": 500, "patience": 50})
    assert load(path, longer)[1].epoch == 2


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    path, config = tmp_path / "state", filled().config
    with pytest.raises(ModelFileError, match="damaged checkpoint"):
        load(path, config)  # absent
    for content in (b"", b"user,item\n1,2\n", b"\0" * 100, b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="state: damaged checkpoint .*delete the file"):
            load(path, config)
    save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(ModelFileError, match="expected format 'fm-checkpoint'"):
        load(path, config)


def test_a_cut_checkpoint_is_refused(tmp_path):
    path = tmp_path / "state"
    config = saved(path)[0].config
    whole = path.read_bytes()
    for length in (*range(0, 64, 7), *range(64, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="damaged checkpoint"):
            load(path, config)


def test_a_checkpoint_with_flipped_bits_is_refused_or_harmless(tmp_path, rng):
    path = tmp_path / "state"
    config = saved(path)[0].config
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.integers(header)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            load(path, config)
        except ModelFileError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("name", ["marks", "config", "best_epoch", "history"])
@pytest.mark.parametrize("value", [None, [], "x", {}])
def test_a_checkpoint_whose_header_says_something_odd_is_refused(name, value, tmp_path):
    path = tmp_path / "state"
    config = saved(path)[0].config
    tensors = load_file(path)
    raw = path.read_bytes()
    header = orjson.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    state = orjson.loads(header["state"])
    if isinstance(value, type(state[name])):
        pytest.skip("that would not be odd")
    header["state"] = orjson.dumps({**state, name: value}).decode()
    save_file(tensors, path, header)
    with pytest.raises(ModelFileError):
        load(path, config)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from test_checkpoint import file_of, load, solver_of
from fm.config import TrainConfig
from fm.training.run import Run

path = Path(sys.argv[1])
config = TrainConfig(optimizer="adagrad", num_factors=5000).resolved()
solver, run = solver_of(config), Run()
solver.start()
halves = seen = 0
for kill in range(15):
    child = os.fork()
    if not child:
        while True:
            run.epoch += 1
            solver.values.W[:], solver.values.P[:] = run.epoch, run.epoch
            file_of(path, config).save(solver, run)
    random.seed(kill)
    time.sleep(random.uniform(0.01, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    halves += any(path.parent.glob(".state.*.sagemaker-ignore"))
    if path.exists():
        found, at = load(path, config)
        assert at.epoch > 0
        assert (found.values.W == at.epoch).all() and (found.values.P == at.epoch).all()
        seen += 1
print(halves > 0, seen > 0)
"""


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="needs fork")
def test_a_kill_while_writing_leaves_the_checkpoint_before_it(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "state")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["True", "True"]  # some kills came in the middle of a file
