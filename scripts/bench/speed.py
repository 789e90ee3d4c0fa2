"""Speed of training and scoring on one core, as ratios measured in one run.

Every figure is CPU time of this thread (of the process for peers with their own threads, which are
told to use one), taken in interleaved rounds: A B C A B C ...; medians of the rounds' ratios are
printed, so that a machine whose speed drifts does not favour anyone.

What is compared, per row and epoch:

fit        fm.fit with everything it does: initial values, shuffling, the kernel, the model
kernel     the training kernel alone, rows in random order
plain      the same algorithm as the obvious @njit loops
modern-fm  FMRegressor.fit of the package modern-fm, if installed (its dtype is float32, its
           arithmetic float64)
floor      the same parameter rows read and written once each, no arithmetic: what the memory
           system alone takes (a practical comparator, not a proven bound)
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numba import njit

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.kernels.jit import jit
from fm.kernels.layout import csr_arrays, layout, padded_order
from fm.kernels.rows import training_kernel
from fm.kernels.simd import index, prefetch, vadd, vload, vsplat, vstore
from fm.kernels.steps import optimizer_class
from fm.measures.losses import Squared
from fm.training.fit import fit
from fm.training.parameters import aligned_zeros

f4 = np.float32


class Shape(NamedTuple):
    """A benchmark's data: rows of `fields` ones each, one in every field."""

    name: str
    rows: int
    fields: tuple[int, ...]
    factors: int
    zipf: float
    epochs: int


SHAPES = {
    "a64": Shape("MovieLens 100K: 90,570 x 2 of 2,625, k=64", 90_570, (943, 1682), 64, 0.0, 20),
    "b16": Shape("1M x 6 of 9,980, k=16", 1_000_000, (6040, 3706, 100, 60, 50, 24), 16, 0.0, 3),
    "c8": Shape("1M x 39 of 1M, Zipf, k=8", 1_000_000, (25_641,) * 39, 8, 1.1, 1),
    "c16": Shape("1M x 39 of 1M, Zipf, k=16", 1_000_000, (25_641,) * 39, 16, 1.1, 1),
}


def make(shape: Shape) -> Dataset:
    """Draw the data of a shape; the target follows a planted linear model with noise."""
    rng = np.random.default_rng(0)
    columns, start = [], 0
    for size in shape.fields:
        if shape.zipf:
            weights = np.arange(1, size + 1) ** -shape.zipf
            picked = rng.choice(size, shape.rows, p=weights / weights.sum())
            picked = rng.permutation(size)[picked]
        else:
            picked = rng.integers(0, size, shape.rows)
        columns.append(start + picked)
        start += size
    columns = np.stack(columns, axis=1).astype(np.int32)
    effect = rng.normal(size=start).astype(f4)
    y = effect[columns].sum(1) / np.sqrt(len(shape.fields)) + rng.normal(size=shape.rows)
    m = len(shape.fields)
    X = sp.csr_matrix(
        (np.ones(columns.size, f4), columns.ravel(), np.arange(shape.rows + 1) * m),
        shape=(shape.rows, start),
    )
    return Dataset.from_arrays(X, y.astype(f4))


def touch_kernel(width: int, entries: int, states: int) -> Callable[..., None]:
    """Return a kernel that reads and writes what a training step reads and writes."""
    stride = width * (1 + states)

    def touch(order, count, indices, y, W, P):  # type: ignore[no-untyped-def]
        one = vsplat(f4(1e-20), width)
        for t in range(count):
            r = index(order, t + 16)
            prefetch(y, r)
            for j in range(r * entries, r * entries + entries, 16):
                prefetch(indices, j)
            r = index(order, t + 2)
            for j in range(r * entries, r * entries + entries):
                c = index(indices, j)
                prefetch(W, c * (1 + states))
                for line in range(0, stride, 16):
                    prefetch(P, c * stride + line)
            r = index(order, t)
            for j in range(r * entries, r * entries + entries):
                c = index(indices, j)
                for part in range(0, stride, width):
                    vstore(P, c * stride + part, vadd(vload(P, c * stride + part, width), one))
                W[c * (1 + states)] += y[r] * f4(1e-20)

    return jit(touch)


@njit
def plain_sgd(order, indptr, indices, values, y, w0, w, V, lr, wd):  # type: ignore[no-untyped-def]
    """One epoch of SGD, written as one would write it first."""
    k = V.shape[1]
    s = np.zeros(k, np.float32)
    total = 0.0
    for t in range(order.size):
        r = order[t]
        p = w0[0]
        for f in range(k):
            s[f] = 0.0
        q = 0.0
        for j in range(indptr[r], indptr[r + 1]):
            c, x = indices[j], values[j]
            p += w[c] * x
            for f in range(k):
                d = V[c, f] * x
                s[f] += d
                q += d * d
        for f in range(k):
            p += 0.5 * s[f] * s[f]
        p -= 0.5 * q
        g = p - y[r]
        total += g * g
        w0[0] -= lr * g
        for j in range(indptr[r], indptr[r + 1]):
            c, x = indices[j], values[j]
            w[c] -= lr * (g * x + wd * w[c])
            for f in range(k):
                V[c, f] -= lr * (g * x * (s[f] - x * V[c, f]) + wd * V[c, f])
    return total


def cpu(function: Callable[[], object]) -> float:
    """Return the CPU seconds of a call, all threads of the process."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


def contestants(
    data: Dataset, shape: Shape, optimizer: str, with_modern: bool
) -> dict[str, tuple[Callable[[], object], int]]:
    """Return name -> (what to time, epochs it does)."""
    rows, m, n, k = data.num_rows, len(shape.fields), data.num_features, shape.factors
    config = TrainConfig(
        optimizer=optimizer, num_factors=k, epochs=shape.epochs, validation_fraction=0,
        bias_lr=0.01, linear_lr=0.01, factors_lr=0.01, linear_wd=1e-4, factors_wd=1e-4,
    )  # fmt: skip
    lanes = layout(k)
    recipe = optimizer_class(optimizer)
    states = recipe.num_states
    csr = csr_arrays(data.X, True, m)
    rates = dict.fromkeys(("bias_lr", "linear_lr", "factors_lr"), f4(0.01))
    rates |= dict.fromkeys(("bias_wd", "linear_wd", "factors_wd"), f4(1e-4))
    opt = recipe(**rates, **({"eps2": f4(1e-16)} if optimizer != "sgd" else {}))
    kernel = training_kernel(lanes.width, lanes.chunks, m, True, False, states, False)
    rng = np.random.default_rng(1)
    P = aligned_zeros(n * lanes.padded * (1 + states))
    P.reshape(n, -1)[:, :k] = rng.standard_normal((n, k), f4) * f4(0.01)
    W = aligned_zeros(n * (1 + states))
    B = np.zeros(2)
    order = padded_order(rng.permutation(rows).astype(np.int32))
    margins, scratch = np.empty(0, f4), np.empty(lanes.padded, f4)
    nothing = np.zeros(1, f4)
    touch = touch_kernel(lanes.padded, m, states)
    loss = Squared()
    found: dict[str, tuple[Callable[[], object], int]] = {
        "fit": (lambda: fit(data, config, progress=False), shape.epochs),
        "kernel": (
            lambda: kernel(
                order, 0, rows, csr.indptr, csr.indices, csr.values, data.y, nothing,
                loss, opt, scratch, margins, B, W, P,
            ),
            1,
        ),
        "floor": (lambda: touch(order, rows, csr.indices, data.y, W, P), 1),
    }  # fmt: skip
    if optimizer == "sgd":
        few = order[: min(rows, 100_000)].copy()
        V = np.zeros((n, k), f4)
        w, w0 = np.zeros(n, f4), np.zeros(1, f4)
        found["plain"] = (
            lambda: plain_sgd(
                few, data.X.indptr, data.X.indices, data.X.data, data.y, w0, w, V,
                f4(0.01), f4(1e-4),
            ),
            few.size / rows,
        )  # fmt: skip
    if with_modern:
        from modern_fm import FMRegressor

        epochs = min(shape.epochs, 5)
        X, y = data.X, data.y.astype(np.float64)
        found["modern-fm"] = (
            lambda: FMRegressor(
                n_factors=k, optimizer=optimizer, learning_rate=0.01, max_iter=epochs,
                l2_linear=1e-4, l2_factors=1e-4, n_jobs=1, random_state=0,
            ).fit(X, y),
            epochs,
        )  # fmt: skip
    return found


def measure(shape: Shape, optimizer: str, rounds: int, with_modern: bool) -> None:
    """Time one shape and print its line."""
    data = make(shape)
    field = contestants(data, shape, optimizer, with_modern)
    for name, (function, _) in field.items():
        if name != "modern-fm":
            function()  # compiled and warm
    times: dict[str, list[float]] = {name: [] for name in field}
    for _ in range(rounds):
        for name, (function, epochs) in field.items():
            times[name].append(cpu(function) / (epochs * data.num_rows) * 1e9)
    middle = {name: float(np.median(values)) for name, values in times.items()}

    def ratio(a: str, b: str) -> str:
        if a not in times or b not in times:
            return "-"
        return f"{np.median(np.array(times[a]) / np.array(times[b])):.2f}"

    print(
        f"| {shape.name} | {optimizer} | "
        + " | ".join(
            f"{middle[name]:.1f}" if name in middle else "-"
            for name in ("fit", "kernel", "floor", "plain", "modern-fm")
        )
        + f" | {ratio('modern-fm', 'fit')} | {ratio('plain', 'kernel')} "
        + f"| {ratio('floor', 'kernel')} |",
        flush=True,
    )


def scoring(rounds: int) -> None:
    """Time scoring a batch and a single row."""
    from fm.model.model import Model

    shape = SHAPES["c16"]._replace(rows=200_000)
    data = make(shape)
    rng = np.random.default_rng(2)
    n = data.num_features
    model = Model(
        0.0,
        rng.standard_normal(n, f4),
        rng.standard_normal((n, 16), f4),
        TrainConfig(num_factors=16),
    )
    row = data.X.indices[:39].copy()
    model.scores(data, engine="compiled")
    compiled, scipy_ = [], []
    for _ in range(rounds):
        compiled.append(data.num_rows / cpu(lambda: model.scores(data, engine="compiled")))
        scipy_.append(data.num_rows / cpu(lambda: model.scores(data, engine="scipy")))
    print(
        f"scoring 200k x 39, k=16: {np.median(compiled) / 1e6:.2f} M rows/s compiled, "
        f"{np.median(scipy_) / 1e6:.2f} M rows/s scipy"
    )
    singles = []
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(500):
            model.score_row(row)
        singles.append((time.perf_counter() - begun) / 500 * 1e6)
    print(f"scoring one row of 39, k=16, from Python: {np.median(singles):.2f} us")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shapes", default=",".join(SHAPES), help="of " + ",".join(SHAPES))
    parser.add_argument("--optimizers", default="sgd,adagrad")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="leave modern-fm out")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    try:
        import modern_fm  # noqa: F401
    except ImportError:
        args.no_peers = True
    print("ns per row and epoch, one thread, medians; rows in random order\n")
    print(
        "| data | optimizer | fit | kernel | floor | plain numba | modern-fm fit "
        "| modern-fm / fit | plain / kernel | floor / kernel |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in args.shapes.split(","):
        for optimizer in args.optimizers.split(","):
            measure(SHAPES[name], optimizer, args.rounds, not args.no_peers)
    scoring(args.rounds)


if __name__ == "__main__":
    main()
