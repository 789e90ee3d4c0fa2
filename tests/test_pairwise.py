"""The kernel of pairs against a slow twin in float64, and its derivatives against differences."""

import math

import naive
import numpy as np
import pytest
import scipy.sparse as sp
from test_kernels import OPTIMIZERS, RTOL, assert_close, numbers, random_theta, start

from fm.kernels.layout import layout, padded_order
from fm.kernels.pairs import Bpr, Warp, pair_kernel
from fm.kernels.steps import optimizer_class

f4 = np.float32
ROWS, ITEMS, CONTEXT, SIDE = 40, 9, 7, 12  # features 0 to 6 are of contexts, 7 to 18 of items


def random_csr(rng, rows, first, count, valued, most=4):
    lists = [np.sort(rng.choice(count, rng.integers(0, most), replace=False)) for _ in range(rows)]
    lists[0] = np.arange(min(3, count))
    indices = np.concatenate(lists) + first
    values = rng.normal(0, 0.8, indices.size) if valued else np.ones(indices.size)
    indptr = np.cumsum([0, *map(len, lists)])
    return sp.csr_matrix((values.astype(f4), indices, indptr), shape=(rows, CONTEXT + SIDE))


def arrays(X):
    return X.indptr.astype(np.int64), X.indices.astype(np.int32), X.data.astype(f4)


class Problem:
    """Random contexts, items (each feature of several items), negatives, weights."""

    def __init__(self, rng, valued=True, each=3, weighted=False):
        self.context = random_csr(rng, ROWS, 0, CONTEXT, valued)
        self.side = random_csr(rng, ITEMS, CONTEXT, SIDE, valued, most=5)
        self.items = rng.integers(0, ITEMS, ROWS).astype(np.int32)
        self.negatives = rng.integers(-1, ITEMS, (ROWS, each)).astype(np.int32)
        self.negatives[self.negatives == self.items[:, None]] = -1
        self.weight = rng.uniform(0.2, 3, ROWS).astype(f4) if weighted else None
        self.order = rng.permutation(ROWS).astype(np.int32)

    def rows(self, r, item):
        return naive.rows_of(self.context)[r] + naive.rows_of(self.side)[item]


def without_bias(optimizer, s):
    """What the trainer passes: w0 takes no part, so it must not shorten sgd's steps."""
    return numbers(optimizer, s)._replace(bias_lr=f4(0))


def fast(problem, kind, optimizer, theta, s, epochs=3, blocks=1, clip=1e6, rescale=1.0):
    B, W, P = start(None, optimizer, theta, s)
    lanes = layout(theta["factors"].shape[1])
    weighted = problem.weight is not None
    kernel = pair_kernel(lanes.width, lanes.chunks, weighted, optimizer_class(optimizer).num_states)
    loss = Bpr(f4(clip), f4(rescale)) if kind == "bpr" else Warp(f4(clip), f4(rescale), f4(ITEMS))
    weight = problem.weight if weighted else np.zeros(1, f4)
    each, cuts = problem.negatives.shape[1], np.linspace(0, ROWS, blocks + 1).astype(int)
    totals, margins = [], np.full(ROWS, np.nan, f4)
    for _ in range(epochs):
        total = 0.0
        for begin, stop in zip(cuts[:-1], cuts[1:], strict=True):
            drawn = problem.negatives[problem.order[begin:stop]].ravel()
            total += kernel(
                padded_order(problem.order), begin, stop, each, problem.items, drawn,
                arrays(problem.context), arrays(problem.side), weight, loss,
                without_bias(optimizer, s), np.empty(3 * lanes.padded, f4), margins,
                B, W.reshape(-1), P.reshape(-1),
            )  # fmt: skip
        totals.append(total)
    return B, W, P, totals, margins


def pair_slopes(own, other, theta):
    """d score(own) - d score(other) by each parameter that either row uses; w0 cancels."""
    total = {}
    for sign, row in ((1, own), (-1, other)):
        for part, at, slope in naive.slopes(row, theta):
            total[part, at] = total.get((part, at), 0.0) + sign * slope
    context = {i for i, _ in own if i < CONTEXT}
    return [
        (part, at, slope)
        for (part, at), slope in total.items()
        if part != "bias" and not (part == "linear" and at in context)
    ]


def terms(kind, d, trial):
    """(loss, derivative by d, whether the row is done with)."""
    if kind == "bpr":
        return np.logaddexp(0, -d), -1 / (1 + np.exp(d)), False
    if d >= 1:
        return 0.0, 0.0, False
    weight = math.log(1 + (ITEMS - 1) / trial) / math.log(ITEMS)
    return weight * (1 - d), -weight, True


def slow(problem, kind, optimizer, theta, s, epochs=3, clip=1e6, rescale=1.0):
    memory, totals = naive.no_memory(theta, "n", "m", "v", "z"), []
    if optimizer == "ftrl":
        memory["z"] = {part: naive.ftrl_start(part, value, s) for part, value in theta.items()}
    for _ in range(epochs):
        total = 0.0
        for r in problem.order:
            weight = 1.0 if problem.weight is None else float(problem.weight[r])
            own = problem.rows(r, problem.items[r])
            for trial, item in enumerate(problem.negatives[r], 1):
                if item < 0:
                    continue
                other = problem.rows(r, item)
                d = naive.score(own, theta) - naive.score(other, theta)
                value, g, done = terms(kind, d, trial)
                total += weight * value
                if not g:
                    continue
                g = rescale * np.clip(g, -clip, clip)
                step = pair_slopes(own, other, theta)
                naive.OPTIMIZERS[optimizer](theta, step, g, weight, s, memory)
                if done:
                    break
        totals.append(total)
    return totals


def compare(problem, kind, optimizer, k, rng, **more):
    s = naive.Settings()
    theta = random_theta(CONTEXT + SIDE, k, rng)
    bias = theta["bias"][0]
    B, W, P, totals, _ = fast(problem, kind, optimizer, theta, s, **more)
    more.pop("blocks", None)
    expected = slow(problem, kind, optimizer, theta, s, **more)
    assert totals == pytest.approx(expected, rel=RTOL[optimizer])
    assert_close(W[:, 0], theta["linear"], "w", RTOL[optimizer])
    assert_close(P[:, 0, :k], theta["factors"], "V", RTOL[optimizer])
    assert not P[:, :, k:].any(), "padded lanes left 0"
    assert B[0] == bias, "w0 is in both scores"


@pytest.mark.parametrize("kind", ["bpr", "warp"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_equals_the_slow_twin(kind, optimizer, rng):
    compare(Problem(rng), kind, optimizer, 5, rng)


@pytest.mark.parametrize("kind", ["bpr", "warp"])
@pytest.mark.parametrize(("k", "valued", "weighted"), [(1, False, True), (20, True, True)])
def test_other_shapes(kind, k, valued, weighted, rng):
    compare(Problem(rng, valued=valued, weighted=weighted), kind, "sgd", k, rng)


@pytest.mark.parametrize("kind", ["bpr", "warp"])
def test_factors_in_several_chunks(kind, rng):
    compare(Problem(rng), kind, "adagrad", 130, rng, epochs=2)


def test_clipping_and_rescaling(rng):
    compare(Problem(rng), "bpr", "sgd", 4, rng, clip=0.4, rescale=0.5)


def test_the_calls_an_epoch_is_cut_into_change_nothing(rng):
    problem, theta, ends = Problem(rng), random_theta(CONTEXT + SIDE, 4, rng), []
    for blocks in (1, 3):
        ends.append(fast(problem, "warp", "adam", theta, naive.Settings(), blocks=blocks))
    for one, other in zip(*ends, strict=True):
        assert np.allclose(one, other, rtol=1e-12, equal_nan=True)


def test_margins_are_those_before_the_step(rng):
    problem, theta = Problem(rng), random_theta(CONTEXT + SIDE, 4, rng)
    problem.negatives[:, 0] = (problem.items + 1) % ITEMS
    s = naive.Settings(lr=dict.fromkeys(naive.PARTS, 0.0))
    *_, margins = fast(problem, "bpr", "sgd", theta, s, epochs=1)
    for t, r in enumerate(problem.order):
        own, other = (problem.rows(r, i) for i in (problem.items[r], problem.negatives[r, 0]))
        d = naive.score(own, theta) - naive.score(other, theta)
        assert margins[t] == pytest.approx(d, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["bpr", "warp"])
def test_gradient_equals_central_differences(kind, rng):
    """A plain tiny step of the kernel moves each parameter by -lr times the loss's difference."""
    problem, lr, h = Problem(rng, each=1), 1e-3, 1e-5
    problem.negatives[:, 0] = (problem.items + 1) % ITEMS
    s = naive.Settings(lr=dict.fromkeys(naive.PARTS, lr), wd=dict.fromkeys(naive.PARTS, 0.0))
    checked = 0
    for r in range(6):
        problem.order = np.full(ROWS, r, np.int32)
        theta = random_theta(CONTEXT + SIDE, 3, rng)
        own, other = (problem.rows(r, i) for i in (problem.items[r], problem.negatives[r, 0]))

        def loss_of(part, at, change, own=own, other=other, theta=theta):
            moved = {name: value.copy() for name, value in theta.items()}
            moved[part][at] += change
            return terms(kind, naive.score(own, moved) - naive.score(other, moved), 1)[0]

        B, W, P = start(None, "sgd", theta, s)
        lanes = layout(3)
        loss = Bpr(f4(1e6), f4(1)) if kind == "bpr" else Warp(f4(1e6), f4(1), f4(ITEMS))
        pair_kernel(lanes.width, lanes.chunks, False, 0)(
            padded_order(problem.order), 0, 1, 1, problem.items, problem.negatives[r],
            arrays(problem.context), arrays(problem.side), np.zeros(1, f4), loss,
            without_bias("sgd", s), np.empty(3 * lanes.padded, f4), np.zeros(0, f4),
            B, W.reshape(-1), P.reshape(-1),
        )  # fmt: skip
        d = naive.score(own, theta) - naive.score(other, theta)
        reach = sum(lr * np.sum(np.square(slope)) for _, _, slope in pair_slopes(own, other, theta))
        for part, fast_value, slow_value in (
            ("linear", W[:, 0], theta["linear"]), ("factors", P[:, 0, :3], theta["factors"]),
        ):  # fmt: skip
            for at in np.ndindex(slow_value.shape):
                by = (loss_of(part, at, h) - loss_of(part, at, -h)) / (2 * h)
                moved = (slow_value[at] - float(fast_value[at])) * (1 + reach) / lr
                assert moved == pytest.approx(by, abs=2e-3), (d, part, at)
                checked += by != 0
    assert checked > 20


def test_extreme_scores_stay_finite(rng):
    problem, theta = Problem(rng), random_theta(CONTEXT + SIDE, 4, rng)
    theta["linear"] *= 1e4
    for kind in ("bpr", "warp"):
        _, W, P, totals, _ = fast(problem, kind, "sgd", theta, naive.Settings())
        assert np.isfinite(W).all() and np.isfinite(P).all() and np.isfinite(totals).all()


def test_warp_stops_at_the_first_negative_that_comes_too_close(rng):
    """The weight tells how many were tried: log(1 + (items - 1) / trials) / log(items)."""
    theta = {"bias": np.zeros(1), "linear": np.zeros(19), "factors": np.zeros((19, 2))}
    problem = Problem(rng, valued=False)
    problem.side = sp.csr_matrix(
        (np.ones(ITEMS, f4), np.arange(ITEMS) + CONTEXT, np.arange(ITEMS + 1)), shape=(ITEMS, 19)
    )
    theta["linear"][CONTEXT : CONTEXT + 4] = (5, 0, 4.5, 4.8)
    problem.items[:], problem.negatives[:] = 0, (1, 2, 3)
    s = naive.Settings(lr=dict.fromkeys(naive.PARTS, 0.0))
    *_, totals, _ = fast(problem, "warp", "sgd", theta, s, epochs=1)
    assert totals[0] == pytest.approx(ROWS * 0.5 * math.log(1 + 8 / 2) / math.log(9), rel=1e-5)
