"""The compiled kernels against their twins in tests/naive.py, and what they promise beyond."""

import itertools
import math

import naive
import numpy as np
import pytest
import scipy.sparse as sp

from fm.data.dataset import Dataset
from fm.kernels.layout import Layout, csr_arrays, layout, padded_order, plain, shuffle
from fm.kernels.losses import Clipped
from fm.kernels.rows import training_kernel
from fm.kernels.scoring import predict_scores, score_rows
from fm.kernels.steps import optimizer_class
from fm.measures.losses import Logistic, Squared
from fm.tasks import CLASSIFIER, REGRESSOR

f4 = np.float32
OPTIMIZERS = ("sgd", "adagrad", "adam", "ftrl")  # that step after each row
# AdaGrad and Adam divide a gradient by its own size, so they keep a small one's rounding error.
RTOL = {"sgd": 2e-5, "adagrad": 1e-4, "adam": 1e-4, "ftrl": 2e-5}
KS = (1, 2, 3, 4, 7, 8, 16, 20, 64, 128, 130, 200)
KINDS = ("onehot", "valued", "onehot ragged", "valued ragged")
TASKS = (REGRESSOR, CLASSIFIER)
FEATURES = 14


def make_data(kind, task, rng, rows=40, weighted=False, fields=(5, 6, 3)):
    """Rows of one entry per field, or (ragged) of 0 to 6 entries: the first empty, then one."""
    n = sum(fields)
    starts = np.cumsum((0, *fields[:-1]))
    lists = []
    for i in range(rows):
        if "ragged" in kind:
            lists.append(np.sort(rng.choice(n, i if i < 2 else rng.integers(0, 7), replace=False)))
        else:
            lists.append(starts + rng.integers(0, fields))
    indptr = np.cumsum([0, *map(len, lists)])
    indices = np.concatenate(lists).astype(np.int32)
    values = rng.normal(0, 0.8, indices.size) if "valued" in kind else np.ones(indices.size)
    y = rng.normal(1, 1, rows) if task == REGRESSOR else rng.integers(0, 2, rows)
    X = sp.csr_matrix((values.astype(f4), indices, indptr), shape=(rows, n))
    return Dataset.from_arrays(X, y, rng.uniform(0.2, 3, rows) if weighted else None)


def random_theta(n, k, rng, scale=0.3):
    """Parameters that float32 holds exactly, in float64."""
    draw = lambda *shape: rng.normal(0, scale, shape).astype(f4).astype(np.float64)  # noqa: E731
    return {"bias": draw(1), "linear": draw(n), "factors": draw(n, k) / max(1, k // 16)}


def start(data, optimizer, theta, s):
    """The kernel's arrays B, W (n, 1 + states), P (n, 1 + states, padded) for `theta`."""
    recipe, (n, k) = optimizer_class(optimizer), theta["factors"].shape
    B = np.zeros(1 + recipe.bias_states)
    W = np.zeros((n, 1 + recipe.num_states), f4)
    P = np.zeros((n, 1 + recipe.num_states, layout(k).padded), f4)
    B[0], W[:, 0], P[:, 0, :k] = theta["bias"][0], theta["linear"], theta["factors"]
    if optimizer == "adam":
        B[3:] = 1  # beta1^0, beta2^0
    if optimizer == "ftrl":
        B[1] = naive.ftrl_start("bias", B[0], s)
        W[:, 1] = naive.ftrl_start("linear", W[:, 0], s)
        P[:, 1] = naive.ftrl_start("factors", P[:, 0], s)
    return B, W, P


def numbers(optimizer, s):
    """The optimizer as the value that the kernel takes."""
    given = {f"{part}_lr": s.lr[part] for part in naive.PARTS}
    given |= {f"{part}_wd": s.wd[part] for part in naive.PARTS}
    given |= {"eps2": s.eps**2, "linear_l1": s.l1["linear"], "factors_l1": s.l1["factors"]}
    make = optimizer_class(optimizer)
    return make(*(f4(given[name]) for name in make._fields))


def run_kernel(data, task, optimizer, theta, s, orders):
    """Train with the compiled kernel; return (B, W, P, [(scores, loss) of each epoch])."""
    B, W, P = start(data, optimizer, theta, s)
    lanes = layout(theta["factors"].shape[1])
    csr = csr_arrays(data.X, data.onehot, data.entries_per_row)
    weighted = data.weight is not None
    states = optimizer_class(optimizer).num_states
    kernel = training_kernel(lanes.width, lanes.chunks, csr.entries, csr.onehot, weighted, states)
    loss = Squared() if task == REGRESSOR else Logistic()
    if optimizer != "sgd" or s.clip < np.inf or s.rescale != 1:  # as fm.training.fit does
        loss = Clipped(loss, f4(min(s.clip, 1e6)), f4(s.rescale))
    weight = data.weight if weighted else np.zeros(1, f4)
    scratch, history = np.empty(lanes.padded, f4), []
    for epoch, order in enumerate(orders):
        scores = np.empty(order.size, f4)
        total = kernel(
            padded_order(order), 0, order.size, csr.indptr, csr.indices, csr.values,
            data.y, weight, loss, numbers(optimizer, s.decayed(epoch)), scratch, scores,
            B, W.reshape(-1), P.reshape(-1),
        )  # fmt: skip
        history.append((scores, total))
    return B, W, P, history


def assert_close(fast, slow, what, rtol):
    """Equal to rtol of the largest value: float32 rounds relative to what it adds up."""
    scale = max(float(np.abs(slow).max(initial=0.0)), 1e-3)
    worst = float(np.abs(np.asarray(fast, np.float64) - slow).max(initial=0.0))
    assert worst <= rtol * scale, f"{what}: differs by {worst:.3g}, scale {scale:.3g}"


def compare(data, task, optimizer, k, rng, s=None, theta=None, epochs=3):
    """Train both ways on the same shuffled orders; everything must agree, padding must be 0."""
    rtol = RTOL[optimizer]
    s = s or naive.Settings()
    theta = theta or random_theta(data.num_features, k, rng)
    rows = np.arange(data.num_rows, dtype=np.int32)
    orders = [rng.permutation(rows) for _ in range(epochs)]
    B, W, P, fast = run_kernel(data, task, optimizer, theta, s, orders)
    weight = np.ones(data.num_rows) if data.weight is None else data.weight.astype(float)
    y = data.y.astype(float)
    slow = naive.train(optimizer, task, naive.rows_of(data.X), y, weight, theta, s, orders)
    for epoch, ((scores, total), (expected, expected_total)) in enumerate(
        zip(fast, slow, strict=True)
    ):
        assert_close(scores, expected, f"scores of epoch {epoch}", rtol)
        assert total == pytest.approx(expected_total, rel=rtol)
    assert_close(B[0], theta["bias"][0], "w0", rtol)
    assert_close(W[:, 0], theta["linear"], "w", rtol)
    assert_close(P[:, 0, :k], theta["factors"], "V", rtol)
    assert not P[:, :, k:].any(), "padded lanes left 0"
    return B, W, P


# Every optimizer with every number of factors; the other properties take turns.
CASES = [
    (optimizer, k, KINDS[(i + j) % 4], TASKS[(i + j // 2) % 2], bool((i // 2 + j) % 2))
    for i, optimizer in enumerate(OPTIMIZERS)
    for j, k in enumerate(KS)
]


def test_the_cases_meet_in_every_pair():
    optimizers, _, kinds, tasks, weighted = map(set, zip(*CASES, strict=True))
    for a, b in itertools.combinations((0, 2, 3, 4), 2):
        values = {0: optimizers, 2: kinds, 3: tasks, 4: weighted}
        met = {(case[a], case[b]) for case in CASES}
        assert met == set(itertools.product(values[a], values[b]))


@pytest.mark.parametrize(("optimizer", "k", "kind", "task", "weighted"), CASES)
def test_training_equals_the_naive_twin(optimizer, k, kind, task, weighted, rng):
    data = make_data(kind, task, rng, weighted=weighted)
    assert data.onehot == ("onehot" in kind)
    assert data.entries_per_row == (0 if "ragged" in kind else 3)
    compare(data, task, optimizer, k, rng)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_separate_rates_clip_rescale_and_l1_equal_the_naive_twin(optimizer, rng):
    data = make_data("valued ragged", REGRESSOR, rng)
    s = naive.Settings(
        lr={"bias": 0.01, "linear": 0.2, "factors": 0.05},
        wd={"bias": 0.3, "linear": 0.0, "factors": 0.1},
        l1={"bias": 0.0, "linear": 0.3, "factors": 0.1},
        eps=1e-3,
        clip=0.7,
        rescale=1.5,
        lr_decay=0.5,
    )
    compare(data, REGRESSOR, optimizer, 3, rng, s)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_scores_of_ten_thousand(optimizer, task, rng):
    data = make_data("valued ragged", task, rng)
    theta = random_theta(FEATURES, 3, rng)
    theta["linear"][::2], theta["linear"][1::2] = 1e4, -1e4
    compare(data, task, optimizer, 3, rng, theta=theta)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_zero_targets(optimizer, rng):
    data = make_data("valued ragged", REGRESSOR, rng)
    data.y[:] = 0
    _, W, P = compare(data, REGRESSOR, optimizer, 3, rng)
    assert np.isfinite(W).all() and np.isfinite(P).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_zero_parameters_stay_finite(optimizer, rng):
    """0 / 0 lurks in AdaGrad and Adam (no gradient yet), sqrt(0) in FTRL."""
    data = make_data("onehot ragged", REGRESSOR, rng)
    theta = {"bias": np.zeros(1), "linear": np.zeros(FEATURES), "factors": np.zeros((FEATURES, 3))}
    s = naive.Settings(eps=1e-12, wd=dict.fromkeys(naive.PARTS, 0.0))
    _, W, P = compare(data, REGRESSOR, optimizer, 3, rng, s, theta)
    assert not P.any()  # V = 0 is a stationary point


@pytest.mark.parametrize("kind", ["onehot ragged", "valued ragged"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rows_of_one_entry_leave_the_factors_alone(optimizer, kind, rng):
    """The score of such a row does not depend on V: without weight decay V must not move."""
    indptr = np.array([0, *range(31)])  # and an empty row
    X = sp.csr_matrix((np.ones(30, f4), rng.integers(0, 8, 30), indptr), shape=(31, 8))
    if kind == "valued ragged":
        X.data[:] = rng.normal(size=30)
    data = Dataset.from_arrays(X, rng.normal(size=31))
    theta = random_theta(8, 3, rng)
    s = naive.Settings(wd=dict.fromkeys(naive.PARTS, 0.0))
    compare(data, REGRESSOR, optimizer, 3, rng, s, theta, epochs=5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_features_that_do_not_occur_are_left_alone(optimizer, rng):
    data = make_data("onehot ragged", REGRESSOR, rng)
    rows = np.flatnonzero((data.X[:, [2]].toarray() == 0).ravel()).astype(np.int32)
    theta = random_theta(FEATURES, 4, rng)
    s = naive.Settings()
    _, W0, P0 = start(data, optimizer, theta, s)
    _, W, P, _ = run_kernel(data, REGRESSOR, optimizer, theta, s, [rows])
    assert np.array_equal(W[2], W0[2]) and np.array_equal(P[2], P0[2])
    assert not np.array_equal(W[3], W0[3])


@pytest.mark.parametrize(("kind", "task"), [*zip(KINDS, (*TASKS, *TASKS[::-1]), strict=True)])
def test_sgd_moves_along_the_numeric_gradient_of_the_pairwise_score(kind, task, rng):
    """With lr -> 0 and lr * rescale = 0.01 a step is 0.01 times the gradient of the loss."""
    k, h = 3, 1e-5
    data = make_data(kind, task, rng, rows=12)
    s = naive.Settings(lr=dict.fromkeys(naive.PARTS, 1e-8), rescale=1e6)
    s.wd = dict.fromkeys(naive.PARTS, 0.0)
    theta = random_theta(FEATURES, k, rng)
    for r, row in enumerate(naive.rows_of(data.X)):
        B, W, P, _ = run_kernel(data, task, "sgd", theta, s, [np.array([r], np.int32)])
        moved = {"bias": B[:1], "linear": W[:, 0], "factors": P[:, 0, :k]}
        expected = {part: np.zeros_like(value) for part, value in theta.items()}
        for part, value in theta.items():
            for at in np.ndindex(value.shape):
                sides = []
                for sign in (1, -1):
                    value[at] += sign * h
                    sides.append(naive.loss_value(task, naive.score(row, theta), data.y[r]))
                    value[at] -= sign * h
                expected[part][at] = (sides[0] - sides[1]) / (2 * h)
        scale = max(np.abs(value).max() for value in expected.values())
        for part, value in theta.items():
            gradient = (value - moved[part].astype(np.float64)) / 0.01
            assert np.abs(gradient - expected[part]).max() <= 2e-5 * max(scale, 1), part


@pytest.mark.parametrize(
    ("kind", "k"),
    [*((kind, 3) for kind in KINDS), ("valued", 1), ("onehot", 16), ("onehot ragged", 20),
     ("valued ragged", 128), ("onehot", 130), ("valued ragged", 130)],
)  # fmt: skip
def test_scores_equal_the_sum_over_pairs(kind, k, rng):
    data = make_data(kind, REGRESSOR, rng)
    theta = random_theta(FEATURES, k, rng)
    expected = np.array([naive.score(row, theta) for row in naive.rows_of(data.X)])
    w, V = theta["linear"].astype(f4), theta["factors"].astype(f4)
    w0 = float(theta["bias"][0])
    fast = predict_scores(data.X, w0, w, V, data.onehot, data.entries_per_row)
    assert fast.dtype == np.float32
    assert_close(fast, expected, "scores", 1e-6)

    # Optimizer states between the parameters are stepped over, whatever is in them.
    csr = csr_arrays(data.X, data.onehot, data.entries_per_row)
    W = np.full((FEATURES, 3), np.nan, f4)
    P = np.full((FEATURES, 3, layout(k).padded), np.nan, f4)
    W[:, 0], P[:, 0], P[:, 0, :k] = w, 0, V
    some = rng.permutation(data.num_rows)[:17].astype(np.int32)
    part = score_rows(padded_order(some), csr, w0, W.reshape(-1), P.reshape(-1), layout(k), 2)
    assert_close(part, expected[some], "scores", 1e-6)


def test_a_row_scores_the_same_wherever_it_stands(rng):
    data = make_data("valued ragged", REGRESSOR, rng)
    theta = random_theta(FEATURES, 7, rng)
    w, V = theta["linear"].astype(f4), theta["factors"].astype(f4)
    order = rng.permutation(data.num_rows)
    straight = predict_scores(data.X, 0.5, w, V, False, 0)
    mixed = predict_scores(data.X[order], 0.5, w, V, False, 0)
    assert np.array_equal(straight[order], mixed)


def test_layout_holds_k_factors_in_whole_vectors():
    for k in range(1, 1001):
        lanes = layout(k)
        assert lanes.padded == lanes.width * lanes.chunks >= k
        assert lanes.width in (4, 8) or lanes.width % 16 == 0
        assert lanes.width <= 128 and (lanes.chunks == 1 or k > 128)
        assert lanes.padded - k < (4 if k <= 4 else 16 if k <= 128 else 32)
    assert layout(1000) == Layout(32, 32)


def test_shuffle_permutes_evenly_and_repeatably():
    counts = {}
    for seed in range(1, 6001):
        order = np.arange(3, dtype=np.int32)
        shuffle(order, 3, np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64))
        counts[tuple(order.tolist())] = counts.get(tuple(order.tolist()), 0) + 1
    assert set(counts) == set(itertools.permutations(range(3)))
    assert all(abs(count - 1000) < 5 * math.sqrt(1000) for count in counts.values())

    first, again, other = (padded_order(np.arange(1000, dtype=np.int32)) for _ in range(3))
    shuffle(first, 1000, np.uint64(7))
    shuffle(again, 1000, np.uint64(7))
    shuffle(other, 1000, np.uint64(8))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(np.sort(first[:1000]), np.arange(1000))
    assert (first[1000:] == first[999]).all()  # what the kernels look ahead to names a row


def test_plain_arrays_are_one_type_for_numba():
    array = np.arange(5, dtype=f4)
    assert plain(array) is array
    array.flags.writeable = False
    alias = plain(array)
    assert alias.flags.writeable and alias.ctypes.data == array.ctypes.data
    del array
    assert alias.tolist() == [0, 1, 2, 3, 4]  # the alias keeps the memory
    assert plain(np.arange(10)[::2]).flags.c_contiguous


def test_csr_arrays_leave_out_what_the_kernel_does_not_read(rng):
    onehot = make_data("onehot", REGRESSOR, rng)
    csr = csr_arrays(onehot.X, True, 3)
    assert csr.indptr.size == 1 and csr.values.size == 1 and csr.indices.size == onehot.X.nnz
    ragged = make_data("valued ragged", REGRESSOR, rng)
    csr = csr_arrays(ragged.X, False, 0)
    assert csr.values is ragged.X.data and csr.indptr is ragged.X.indptr


def test_a_second_call_compiles_nothing(rng):
    data = make_data("valued ragged", REGRESSOR, rng)
    kernel = training_kernel(4, 1, 0, False, False, 0)
    theta = random_theta(FEATURES, 3, rng)
    order = np.arange(data.num_rows, dtype=np.int32)
    run_kernel(data, REGRESSOR, "sgd", theta, naive.Settings(), [order])
    before = len(kernel.signatures)
    frozen = make_data("valued ragged", REGRESSOR, rng)
    frozen.X.data.flags.writeable = frozen.X.indices.flags.writeable = False
    frozen.X.indptr.flags.writeable = False
    for other in (data, frozen):  # arrays from a memory map or another process are read-only
        run_kernel(other, REGRESSOR, "sgd", theta, naive.Settings(), [order[:9], order])
    assert len(kernel.signatures) == before
    assert training_kernel(4, 1, 0, False, False, 0) is kernel
