"""Ranking under the protocol of Neural Collaborative Filtering: python scripts/bench/ncf.py FOLDER.

FOLDER holds ``ml-1m.train.rating``, ``ml-1m.test.rating`` and ``ml-1m.test.negative`` of that
paper's repository, gzipped or not. For each user, the last item and 99 others are ranked; HR@10 and
NDCG@10 are means over the users, as in its ``evaluate.py``. 156 users have the item itself among
the 99: it does not count there, here or in that script, so these flawed negatives are dropped.
Printed too: the same without these users, and the ranking among all items not met in training.

The settings below were chosen on one row per user held out of the training file (``--tune``), not
on the test file.

References
----------
He et al. (2017), Neural Collaborative Filtering, table 4. Rendle et al. (2020), Neural
Collaborative Filtering vs. Matrix Factorization Revisited, which the losses and numbers of
negatives follow.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import scipy.sparse as sp

from fm import Dataset, TrainConfig, fit
from fm.reading.finding_items import catalogue_of

SETTINGS: dict[str, Any] = {
    "optimizer": "sgd", "ranking_loss": "logistic", "num_negatives": 8, "epochs": 128,
    "lr_decay": 0.01,
    "bias_lr": 0.01, "linear_lr": 0.01, "factors_lr": 0.01, "linear_wd": 0.02, "factors_wd": 0.007,
    "factors_init_sigma": 0.1,
}  # fmt: skip


def rows(users: np.ndarray, items: np.ndarray, sizes: tuple[int, int]) -> sp.csr_matrix:
    """Return the one-hot rows: users, then items."""
    indices = np.stack([users, items + sizes[0]], axis=1).astype(np.int32).ravel()
    indptr = np.arange(users.size + 1) * 2
    shape = (users.size, sum(sizes))
    return sp.csr_matrix((np.ones(indices.size, np.float32), indices, indptr), shape=shape)


def load(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training pairs, test pairs, and each user's negatives (6040, 99)."""
    found = [
        datasets.find(folder, f"ml-1m.{part}")
        for part in ("train.rating", "test.rating", "test.negative")
    ]
    if None in found:
        raise SystemExit(f"{folder}: expected ml-1m.train.rating, .test.rating, .test.negative")
    train, test = (np.loadtxt(path, dtype=np.int64, usecols=(0, 1)) for path in found[:2])
    path = found[2]
    assert path is not None
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    with opened as lines:
        negatives = np.array([line.split("\t")[1:] for line in lines], dtype=np.int64)
    return train, test, negatives


def sampled(model: Any, test: np.ndarray, negatives: np.ndarray, sizes: tuple[int, int]) -> Any:
    """Return the rank (from 0) of each user's item among its negatives.

    ``evaluate.py`` collects the scores by item, so that a negative that is the item itself counts
    once: here it never ranks above it.
    """
    users = np.repeat(test[:, 0], negatives.shape[1])
    own = model.scores(rows(test[:, 0], test[:, 1], sizes))
    others = model.scores(rows(users, negatives.ravel(), sizes)).reshape(negatives.shape)
    same = negatives == test[:, 1:]
    return ((others >= own[:, None]) & ~same).sum(axis=1)


def full(model: Any, train: np.ndarray, test: np.ndarray, sizes: tuple[int, int]) -> np.ndarray:
    """Return the rank of each user's item among all items not met in training."""
    P, Q, b = model.V[: sizes[0]], model.V[sizes[0] :], model.w[sizes[0] :]
    met = sp.csr_matrix((np.ones(len(train)), train.T), shape=sizes)
    scores = P[test[:, 0]] @ Q.T + b
    own = scores[np.arange(len(test)), test[:, 1]]
    above = (scores >= own[:, None]) & ~met[test[:, 0]].astype(bool).toarray()
    above[np.arange(len(test)), test[:, 1]] = False
    result: np.ndarray = above.sum(axis=1)
    return result


def at_10(ranks: np.ndarray) -> np.ndarray:
    """Return (HR@10, NDCG@10)."""
    hit = ranks < 10
    return np.array([hit.mean(), np.where(hit, 1 / np.log2(ranks + 2), 0).mean()])


def data_of(train: np.ndarray, sizes: tuple[int, int]) -> Dataset:
    """Return the training pairs with their catalogue: all items, whether met or not."""
    data = Dataset.from_arrays(rows(train[:, 0], train[:, 1], sizes), source="ml-1m.train.rating")
    width = sum(sizes)
    catalogue = catalogue_of(data, user=f"0:{sizes[0]}", item=f"{sizes[0]}:{width}")
    return dataclasses.replace(data, catalogue=catalogue)


def main() -> None:
    """Train with each seed and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tune", action="store_true", help="hold out of the training file")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other hyperparameters"
    )
    args = parser.parse_args()
    train, test, negatives = load(args.folder)
    both = np.concatenate([train, test])
    sizes = (int(both[:, 0].max()) + 1, int(both[:, 1].max()) + 1)
    given = dict(pair.split("=", 1) for pair in args.set)
    settings = {**SETTINGS, **given, "predictor_type": "ranker", "num_factors": args.factors}
    data = data_of(train, sizes)
    if args.tune:
        config = TrainConfig(**{"refit": False, **settings})
        for entry in fit(data, config).history:
            print(f"epoch {entry['epoch']}: NDCG@10 {entry['ndcg']:.4f}", flush=True)
        return
    config = TrainConfig(**{"validation_fraction": 0, **settings})
    flawed = (negatives == test[:, 1:]).any(axis=1)
    print(f"{len(train):,} pairs, {sizes[0]:,} users, {sizes[1]:,} items; k={args.factors}")
    print(f"{'seed':<6}{'HR@10':>8}{'NDCG@10':>9}  {'without users':>16}  {'all items':>16}  time")
    found = []
    for seed in range(args.seeds):
        start = time.perf_counter()
        model = fit(data, dataclasses.replace(config, seed=seed))
        seconds = time.perf_counter() - start
        ranks = sampled(model, test, negatives, sizes)
        figures = [at_10(ranks), at_10(ranks[~flawed]), at_10(full(model, train, test, sizes))]
        found.append(figures)
        print(line(str(seed), figures) + f"  {seconds:.0f} s", flush=True)
    print(line("mean", np.mean(found, axis=0)))
    print(f"({flawed.sum()} users have flawed negatives)")


def line(name: str, figures: Any) -> str:
    """Return one line of the table."""
    (hit, gain), (hit_2, gain_2), (hit_3, gain_3) = figures
    return f"{name:<6}{hit:8.4f}{gain:9.4f}  {hit_2:8.4f}{gain_2:8.4f}  {hit_3:8.4f}{gain_3:8.4f}"


if __name__ == "__main__":
    main()
