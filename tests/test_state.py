"""The state of a training run: its memory, the copy of the best epoch, and checkpoints."""

import mmap
import subprocess
import sys

import naive
import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file, save_file

import fm.training.state
from fm.config import TrainConfig
from fm.errors import ModelFileError
from fm.training.state import (
    Snapshot,
    TrainState,
    aligned_zeros,
    give_back_tail,
    load_checkpoint,
    save_checkpoint,
)

OPTIMIZERS = ("sgd", "adagrad", "adam", "ftrl", "sagemaker")
BY_HAND = pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="no madvise here")


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Both ways memory is managed, on arrays of any size."""
    if request.param == "large":
        monkeypatch.setattr(fm.training.state, "_LARGE", 64)
    return request.param


def filled(optimizer="adagrad", n=50, k=3, **more):
    """A state full of random numbers, states and all; only the padding is 0."""
    given = {"linear_l1": 0.01, "factors_l1": 0.02} if optimizer == "ftrl" else {}
    config = TrainConfig(optimizer=optimizer, num_factors=k, **given, **more).resolved()
    state, rng = TrainState(config, n), np.random.default_rng(3)
    state.initialise(rng, 0.5)
    state.B[:] = rng.normal(size=state.B.size)
    state.W[:] = rng.normal(size=state.W.size)
    rows = state.P.reshape(n, 1 + state.states, -1)
    rows[:, :, :k] = rng.normal(size=(n, 1 + state.states, k))
    return state


# --- memory ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 17, 5000])
def test_arrays_start_at_a_cache_line_and_are_zero(count, size):
    array = aligned_zeros(count)
    assert array.size == count and array.dtype == np.float32 and not array.any()
    assert array.ctypes.data % 64 == 0
    array[:] = 1


@BY_HAND
def test_the_tail_that_is_given_back_is_free_memory_again(monkeypatch):
    """Private pages read as zeros once the system has them back; shared ones never leave."""
    monkeypatch.setattr(fm.training.state, "_LARGE", 64)
    page = mmap.PAGESIZE // 4
    array = aligned_zeros(10 * page)
    array[:] = 7
    give_back_tail(array[:page], 2 * page + 1)
    assert (array[: 3 * page] == 7).all()
    assert not array[3 * page :].any()


def test_arrays_without_a_map_have_no_tail_to_give_back():
    array = aligned_zeros(5000)
    array[:] = 7
    give_back_tail(array, 10)
    assert (array == 7).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("k", [3, 16, 20])
def test_finish_returns_the_parameters_in_the_unit_of_the_target(k, optimizer, size):
    state = filled(optimizer, k=k)
    state.center, state.scale = 3.0, 4.0
    bias, w, V = state.B[0], state.w.copy(), state.V.copy()
    w0, w_out, V_out = state.finish()
    assert w0 == 3 + 4 * bias
    np.testing.assert_array_equal(w_out, 4 * w)  # w scales as the target does, V as its root
    np.testing.assert_array_equal(V_out, 2 * V)
    assert V_out.flags.c_contiguous and V_out.shape == (50, k)


@pytest.mark.parametrize("k", [5, 16])
def test_packing_moves_many_blocks_front_to_back(k, monkeypatch):
    monkeypatch.setattr(fm.training.state, "_LARGE", 64)
    state = TrainState(TrainConfig(optimizer="adagrad", num_factors=k).resolved(), 300_000)
    state.V[:] = np.arange(300_000, dtype=np.float32)[:, None] + np.arange(k, dtype=np.float32) / 8
    expected = state.V.copy()
    np.testing.assert_array_equal(state.finish()[2], expected)


# --- initial values -------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_initialise_wipes_what_an_earlier_training_left(optimizer):
    used, fresh = filled(optimizer), TrainState(filled(optimizer).config, 50)
    for state in (used, fresh):
        state.initialise(np.random.default_rng(5), 0.25)
    for name in ("B", "W", "P"):
        np.testing.assert_array_equal(getattr(used, name), getattr(fresh, name))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_start_from_wipes_what_an_earlier_training_left(optimizer):
    used, fresh = filled(optimizer), TrainState(filled(optimizer).config, 50)
    w, V = used.w.copy(), used.V.copy()
    for state in (used, fresh):
        state.scale = 4.0
        state.start_from(2.0, w, V)
    assert fresh.B[0] == 0.5
    np.testing.assert_array_equal(fresh.w, w / 4)
    np.testing.assert_array_equal(fresh.V, V / 2)
    for name in ("B", "W", "P"):
        np.testing.assert_array_equal(getattr(used, name), getattr(fresh, name))


def test_the_z_of_a_warm_start_gives_back_the_same_weights():
    """FTRL keeps z, not weights: its closed form must agree with what was taken over."""
    state = filled("ftrl")
    config, w, V = state.config, state.w.copy(), state.V.copy()
    state.start_from(0.75, w, V)
    s = naive.Settings(
        **{
            kind: {part: getattr(config, f"{part}_{kind}", 0.0) for part in naive.PARTS}
            for kind in ("lr", "wd", "l1")
        }
    )
    P, W = state.P.reshape(50, 3, 4), state.W.reshape(50, 3)
    assert not W[:, 2].any() and not P[:, 2].any()
    np.testing.assert_allclose(naive.ftrl_weight("factors", P[:, 1, :3], 0, s), V, atol=1e-6)
    np.testing.assert_allclose(naive.ftrl_weight("linear", W[:, 1], 0, s), w, atol=1e-6)
    assert naive.ftrl_weight("bias", state.B[1], 0, s) == pytest.approx(0.75)
    assert not P[:, :, 3:].any()


# --- the copy of the best epoch -------------------------------------------------------------------
def test_the_best_epoch_comes_back_whatever_happened_since(size):
    state = filled(k=20)
    state.center, state.scale = 1.0, 2.0
    best = state.B[0], state.w.copy(), state.V.copy()
    state.keep_best()
    state.B[:], state.W[:], state.P[:], state.center = 0, 0, 0, 9.0
    again = Snapshot.of(state, state.snapshot.arrays(state))
    for snapshot in (state.snapshot, again, state.snapshot):
        state.W[:], state.P[:] = -1, -1
        snapshot.restore(state)
        assert (state.B[0], state.center, state.scale) == (best[0], 1.0, 2.0)
        np.testing.assert_array_equal(state.w, best[1])
        np.testing.assert_array_equal(state.V, best[2])


def test_a_later_best_epoch_replaces_the_earlier_one(size):
    state = filled(k=20)
    state.keep_best()
    state.V[:] = 5
    state.keep_best()
    state.V[:] = 0
    state.snapshot.restore(state)
    assert (state.V == 5).all()


# --- checkpoints ----------------------------------------------------------------------------------
def saved(path, optimizer="adagrad", best=True):
    state = filled(optimizer)
    state.epoch, state.history = 2, [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.25}]
    state.center, state.scale = 1 / 3, 2 / 3
    if best:
        state.best_epoch, state.best_value = 1, 0.1
        state.keep_best()
    save_checkpoint(path, state, "mark")
    return state


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_brings_everything_back(optimizer, best, size, tmp_path):
    path = tmp_path / "folder" / "state.ckpt"
    state = saved(path, optimizer, best)
    again = load_checkpoint(path, state.config, "mark")
    for name in ("B", "W", "P"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
    names = ("center", "scale", "epoch", "history", "best_epoch", "best_value", "finished")
    for name in names:
        np.testing.assert_equal(getattr(again, name), getattr(state, name))
    assert (again.snapshot is not None) == best
    if best:
        state.V[:] = again.V[:] = 0
        np.testing.assert_array_equal(again.finish()[2], state.finish()[2])
    assert [file.name for file in path.parent.iterdir()] == ["state.ckpt"]


def test_a_checkpoint_is_a_safetensors_file(tmp_path):
    state = saved(tmp_path / "state")
    tensors = load_file(tmp_path / "state")
    assert tensors.keys() == {"B", "W", "P", "best_scalars", "best_w", "best_V"}
    np.testing.assert_array_equal(tensors["W"], state.W)


def test_figures_that_are_not_numbers_survive(tmp_path):
    """The AUC of one label is NaN, which JSON does not know."""
    state = filled()
    state.history, state.best_value = [{"epoch": 0, "loss": 0.5, "auc": float("nan")}], np.nan
    save_checkpoint(tmp_path / "state", state, "mark")
    again = load_checkpoint(tmp_path / "state", state.config, "mark")
    np.testing.assert_equal(again.history, state.history)
    assert np.isnan(again.best_value)


def test_a_checkpoint_of_other_data_or_settings_is_refused(tmp_path):
    path = tmp_path / "state"
    config = saved(path).config
    with pytest.raises(ModelFileError, match="state: .*other training data; delete the file"):
        load_checkpoint(path, config, "other")
    changed = TrainConfig(**{**config.to_dict(), "num_factors": 4, "seed": 9})
    with pytest.raises(
        ModelFileError, match=r"other hyperparameters \(num_factors, seed; num_factors: 3 there, 4"
    ):
        load_checkpoint(path, changed, "mark")
    longer = TrainConfig(**{**config.to_dict(), "epochs": 500, "patience": 50})
    assert load_checkpoint(path, longer, "mark").epoch == 2


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    path, config = tmp_path / "state", filled().config
    with pytest.raises(ModelFileError, match="damaged checkpoint"):
        load_checkpoint(path, config, "mark")  # absent
    for content in (b"", b"user,item\n1,2\n", b"\0" * 100, b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="state: damaged checkpoint .*delete the file"):
            load_checkpoint(path, config, "mark")
    save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(ModelFileError, match="expected format 'fm-checkpoint'"):
        load_checkpoint(path, config, "mark")


def test_a_cut_checkpoint_is_refused(tmp_path):
    path = tmp_path / "state"
    config = saved(path).config
    whole = path.read_bytes()
    for length in (*range(0, 64, 7), *range(64, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="damaged checkpoint"):
            load_checkpoint(path, config, "mark")


def test_a_checkpoint_with_flipped_bits_is_refused_or_harmless(tmp_path, rng):
    path = tmp_path / "state"
    config = saved(path).config
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.integers(header)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path, config, "mark")
        except ModelFileError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("name", ["num_features", "config", "best_epoch"])
@pytest.mark.parametrize("value", [None, [], "x", {}])
def test_a_checkpoint_whose_header_says_something_odd_is_refused(name, value, tmp_path):
    path = tmp_path / "state"
    config = saved(path).config
    tensors = load_file(path)
    raw = path.read_bytes()
    header = orjson.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    state = orjson.loads(header["state"])
    if isinstance(value, type(state[name])):
        pytest.skip("that would not be odd")
    header["state"] = orjson.dumps({**state, name: value}).decode()
    save_file(tensors, path, header)
    with pytest.raises(ModelFileError):
        load_checkpoint(path, config, "mark")


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from fm.config import TrainConfig
from fm.training.state import TrainState, load_checkpoint, save_checkpoint

path = Path(sys.argv[1])
config = TrainConfig(optimizer="adagrad", num_factors=16).resolved()
state = TrainState(config, 20_000)
halves = seen = 0
for kill in range(15):
    child = os.fork()
    if not child:
        while True:
            state.epoch += 1
            state.W[:], state.P[:] = state.epoch, state.epoch
            save_checkpoint(path, state, "mark")
    random.seed(kill)
    time.sleep(random.uniform(0.01, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    halves += any(path.parent.glob(".state.*.sagemaker-ignore"))
    if path.exists():
        found = load_checkpoint(path, config, "mark")
        assert found.epoch > 0
        assert (found.W == found.epoch).all() and (found.P == found.epoch).all()
        seen += 1
print(halves > 0, seen > 0)
"""


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="needs fork")
def test_a_kill_while_writing_leaves_the_checkpoint_before_it(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "state")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["True", "True"]  # some kills came in the middle of a file
