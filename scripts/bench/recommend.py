"""Speed of recommending, against the package implicit, scoring, and reading the items once.

    python scripts/bench/recommend.py                 the tables (under a minute)
    python scripts/bench/recommend.py --rounds 21

Everybody gets the same factors, those of a factorization machine with 64 factors and random
parameters; implicit gets them with the bias folded in, as 65. Times are of the wall clock, taken in
interleaved rounds (A B C A B C ...); printed are medians, and the medians of the rounds' ratios.
Everybody may use all cores; what they found is compared before anything is timed. `implicit` has to
be installed.

Model.scores        every item scored by Model.scores, and one partial sort; timed on a sample of
                    the users and scaled to all
reading             the item matrix read once: the fastest of numpy's max and sum, on one thread and
                    on a thread for each core, and of BLAS' asum
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg.blas import sasum

from fm.catalogue.catalogue import Catalogue
from fm.catalogue.fields import FeatureIds
from fm.config import TrainConfig
from fm.model.model import Model
from fm.recommending.recommender import Recommender

FACTORS = 64
SAMPLE = 64  # users scored by Model.scores


def recommender(users: int, items: int, seen: int) -> Recommender:
    """Return a recommender of a model with random parameters; users met `seen` random items."""
    rng = np.random.default_rng(0)
    n = users + items
    keys = np.arange(users, n, dtype=np.int32)
    catalogue = Catalogue(
        sp.csr_matrix((np.ones(items, np.float32), keys, np.arange(items + 1)), shape=(items, n)),
        keys,
        FeatureIds(keys, None),
        np.arange(n) >= users,
        f"{users}:{n}",
        f"0:{users}",
        np.arange(users, dtype=np.int32),
        sp.random(users, items, seen / users / items, format="csr", dtype=bool, random_state=0),
    )
    V = rng.standard_normal((n, FACTORS), np.float32) * np.float32(0.1)
    w = rng.standard_normal(n, np.float32) * np.float32(0.1)
    made = Recommender(Model(3.5, w, V, TrainConfig(num_factors=FACTORS), catalogue=catalogue))
    made.item_sides  # noqa: B018  (made once, like implicit's factors)
    return made


def peer(ours: Recommender, users: int) -> Any:
    """Return implicit's model with the same factors."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=FACTORS + 1, use_gpu=False)
    model.item_factors = ours.item_vectors()
    model.user_factors = ours.context_vectors(np.arange(users))
    return model


def by_scores(ours: Recommender, users: int) -> np.ndarray:
    """Return the ten best items of the first users: all rows scored, and sorted."""
    items = ours.catalogue.items
    best = []
    for user in range(users):
        rows = items + sp.csr_matrix(
            (np.ones(items.shape[0], np.float32), np.full(items.shape[0], user), items.indptr),
            shape=items.shape,
        )
        scores = ours.model.scores(rows)
        top = np.argpartition(-scores, 10)[:10]
        best.append(top[np.argsort(-scores[top])])
    return np.array(best)


def measured(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds of each call in each round; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begun)
    return {name: np.array(of[1:]) for name, of in times.items()}


def show(title: str, times: dict[str, np.ndarray], ours: str, scale: dict[str, float]) -> None:
    """Print a table; the last column says how many times as long as ours it took."""
    print(f"\n{title}\n\n| what | median ms | best ms | times ours |\n|---|---|---|---|")
    for name, of in times.items():
        factor = scale.get(name, 1.0)
        ratio = np.median(of * factor / times[ours])
        middle, best = np.median(of) * factor * 1e3, of.min() * factor * 1e3
        print(f"| {name} | {middle:,.1f} | {best:,.1f} | {ratio:.2f} |")


def same(a: np.ndarray, b: np.ndarray) -> None:
    """Refuse results that differ in more than what rounding may exchange."""
    share = (np.sort(a, axis=-1) == np.sort(b, axis=-1)).mean()
    if share < 0.999:
        raise SystemExit(f"only {share:.1%} of the items found are the same")


def all_users(rounds: int) -> None:
    """Time the ten best of 3,706 items for 6,040 users."""
    users, items, seen = 6040, 3706, 1_000_000
    ours = recommender(users, items, seen)
    theirs, numbers = peer(ours, users), np.arange(users)
    liked = ours.catalogue.seen.astype(np.float32)

    def implicit(leave_out: bool) -> np.ndarray:
        found: np.ndarray = theirs.recommend(
            numbers, liked, N=10, filter_already_liked_items=leave_out
        )[0]
        return found

    def fm(exclude: Any) -> np.ndarray:
        blocks = [best.numbers for best in ours.recommend_all(10, exclude=exclude)]
        return np.concatenate(blocks)

    same(fm(None), implicit(False))
    same(fm("seen"), implicit(True))
    same(fm(None)[:SAMPLE], by_scores(ours, SAMPLE))
    times = measured(
        {
            "fm": lambda: fm(None),
            "implicit": lambda: implicit(False),
            "Model.scores, sample scaled": lambda: by_scores(ours, SAMPLE),
        },
        rounds,
    )
    title = f"Top 10 of {items:,} items for {users:,} users"
    show(title, times, "fm", {"Model.scores, sample scaled": users / SAMPLE})
    times = measured(
        {"fm, seen": lambda: fm("seen"), "implicit, liked": lambda: implicit(True)}, rounds
    )
    show(f"{title}, without the {seen:,} pairs seen", times, "fm, seen", {})


def one_user(rounds: int) -> None:
    """Time the ten best of a million items for one user."""
    ours = recommender(1, 1_000_000, 0)
    theirs = peer(ours, 1)
    matrix = ours.item_sides.vectors
    halves = np.array_split(matrix, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(len(halves))
    same(
        ours.recommend(0).numbers,
        theirs.recommend(0, None, N=10, filter_already_liked_items=False)[0],
    )
    times = measured(
        {
            "fm": lambda: ours.recommend(0),
            "implicit": lambda: theirs.recommend(0, None, N=10, filter_already_liked_items=False),
            "reading: max": lambda: matrix.max(),
            "reading: max, all cores": lambda: list(pool.map(np.max, halves)),
            "reading: sum, all cores": lambda: list(pool.map(np.sum, halves)),
            "reading: asum": lambda: sasum(matrix.reshape(-1)),
            "matrix @ vector": lambda: matrix @ ours.model.V[0],
        },
        rounds,
    )
    show("Top 10 of 1,000,000 items for 1 user", times, "fm", {})
    reading = np.min([of for name, of in times.items() if name.startswith("reading")], axis=0)
    ratio = np.median(times["fm"]) / np.median(reading)
    print(f"\nfm takes {ratio:.2f} times as long as the fastest reading (of each round).")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")  # implicit advises to turn off BLAS' threads
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "implicit"))
    print(f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores")
    all_users(rounds)
    one_user(rounds)


if __name__ == "__main__":
    main()
