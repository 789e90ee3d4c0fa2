"""The parameters while they are trained: memory, initial values, the copy of the best epoch."""

import mmap

import naive
import numpy as np
import pytest

import fm.training.parameters
from fm.config import TrainConfig
from fm.training.parameters import (
    Parameters,
    Snapshot,
    aligned_zeros,
    give_back_tail,
)

OPTIMIZERS = ("sgd", "adagrad", "adam", "ftrl", "sagemaker")
BY_HAND = pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="no madvise here")


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Both ways memory is managed, on arrays of any size."""
    if request.param == "large":
        monkeypatch.setattr(fm.training.parameters, "LARGE_BYTES", 64)
    return request.param


def filled(optimizer="adagrad", n=50, k=3, **more):
    """A state full of random numbers, states and all; only the padding is 0."""
    given = {"linear_l1": 0.01, "factors_l1": 0.02} if optimizer == "ftrl" else {}
    config = TrainConfig(optimizer=optimizer, num_factors=k, **given, **more).resolved()
    state, rng = Parameters(config, n), np.random.default_rng(3)
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
    monkeypatch.setattr(fm.training.parameters, "LARGE_BYTES", 64)
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
    monkeypatch.setattr(fm.training.parameters, "LARGE_BYTES", 64)
    state = Parameters(TrainConfig(optimizer="adagrad", num_factors=k).resolved(), 300_000)
    state.V[:] = np.arange(300_000, dtype=np.float32)[:, None] + np.arange(k, dtype=np.float32) / 8
    expected = state.V.copy()
    np.testing.assert_array_equal(state.finish()[2], expected)


# --- initial values -------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_initialise_wipes_what_an_earlier_training_left(optimizer):
    used, fresh = filled(optimizer), Parameters(filled(optimizer).config, 50)
    for state in (used, fresh):
        state.initialise(np.random.default_rng(5), 0.25)
    for name in ("B", "W", "P"):
        np.testing.assert_array_equal(getattr(used, name), getattr(fresh, name))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_start_from_wipes_what_an_earlier_training_left(optimizer):
    used, fresh = filled(optimizer), Parameters(filled(optimizer).config, 50)
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
