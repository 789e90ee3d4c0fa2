"""Cold start: errors on ratings of people that training never saw, after 0 to 10 ratings of each.

    python scripts/bench/coldstart.py FOLDER

A fifth of the people is left out of training. Ten ratings of each, drawn at random, are what a
model may learn of them (the first 1, 3, 5 or all); their other ratings are the test, the same for
every line. People with ten ratings or fewer are left out of the test. Lines:

mean of all, mean of the item   of the training rows
unknown                         the model without the person: the unknown feature and the fields
fold-in                         fm.recommending.folding; 0 ratings: the mean of the prior
fold-in, isotropic prior        the same with one variance for w and one for all factors
retrained                       fm.fit on the training rows and the ratings of all new people

The error is the rmse; figures are means over seeds (split, training). The noise that folding in
needs comes from training's own held-out rows.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import find

from fm.config import TrainConfig
from fm.datasets.survey import load_survey
from fm.measures.predictions import regression_metrics
from fm.model.model import Model
from fm.reading.read import read
from fm.recommending.folding import Folding
from fm.training.fit import fit

LEFT_OUT = 0.2
COUNTS = (0, 1, 3, 5, 10)


class Task(NamedTuple):
    """A data set: columns user, the item's, the fields of a person, and rating."""

    name: str
    table: pa.Table
    item: str
    fields: list[str]


class Split(NamedTuple):
    """Row numbers: to train on; of each new person, to learn from (10) and to test on."""

    train: np.ndarray
    people: list[tuple[np.ndarray, np.ndarray]]

    @property
    def test(self) -> np.ndarray:
        """All rows to test on."""
        return np.concatenate([test for _, test in self.people])


def survey() -> Task:
    """Return the embedded survey of cuisines."""
    return Task(
        "food-world-cup", *(lambda table, fields: (table, "cuisine", fields))(*load_survey())
    )


def ml_100k(folder: Path) -> Task | None:
    """Return MovieLens 100K with age (by decades), gender and occupation."""
    ratings, people = find(folder, "ml-100k/u.data"), find(folder, "ml-100k/u.user")
    if ratings is None or people is None:
        return None
    numbers = np.loadtxt(ratings, dtype=np.int64)
    opened = gzip.open if people.suffix == ".gz" else open
    with opened(people, "rt", encoding="latin-1") as file:
        about = {line.split("|")[0]: line.strip().split("|") for line in file}
    users = numbers[:, 0].astype(str).tolist()
    table = pa.table(
        {
            "user": users,
            "film": numbers[:, 1].astype(str),
            "age": [f"{int(about[user][1]) // 10}0s" for user in users],
            "gender": [about[user][2] for user in users],
            "occupation": [about[user][3] for user in users],
            "rating": numbers[:, 2].astype(np.float64),
        }
    )
    return Task("MovieLens 100K", table, "film", ["age", "gender", "occupation"])


def split_of(task: Task, seed: int) -> Split:
    """Return who is new, and what is known of them."""
    _, users = np.unique(np.array(task.table["user"].to_pylist()), return_inverse=True)
    rng = np.random.default_rng(seed)
    everybody = rng.permutation(users.max() + 1)
    new = everybody[: round(LEFT_OUT * everybody.size)]
    people, most = [], max(COUNTS)
    for person in new:
        rows = rng.permutation(np.flatnonzero(users == person))
        if rows.size > most:
            people.append((rows[:most], rows[most:]))
    return Split(np.flatnonzero(~np.isin(users, new)), people)


def trained(task: Task, columns: list[str], rows: np.ndarray, config: TrainConfig) -> Model:
    """Return a model of some rows."""
    table = task.table.select([*columns, "rating"]).take(rows)
    return fit(read(table, target="rating", categorical=columns), config, progress=False)


def folded_scores(
    folding: Folding, X: object, y: np.ndarray, split: Split, count: int
) -> tuple[np.ndarray, list[float]]:
    """Return the scores of the test rows after `count` ratings, and milliseconds per person."""
    model, field = folding.model, np.zeros(folding.model.num_features, np.float32)
    field[model.feature_indices("user")] = 1
    scores, used = [], []
    for learn, test in split.people:
        rows, targets = X[learn[:count]], y[learn[:count]]
        begun = time.perf_counter()
        folded = folding.fold(rows, targets)
        used.append((time.perf_counter() - begun) * 1e3)
        rest = X[test].multiply(1 - field).tocsr()
        scores.append(model.scores(rest) + folded.w + rest @ model.V @ folded.v)
    return np.concatenate(scores), used


def isotropic(folding: Folding) -> Folding:
    """Return the folding with a prior of one variance for w and one for all factors."""
    plain, variances = copy.copy(folding), np.diag(folding.covariance)
    plain._root = np.diag(
        np.sqrt(np.r_[variances[0], np.full(len(variances) - 1, variances[1:].mean())])
    )
    return plain


def measured(task: Task, columns: list[str], factors: int, seed: int) -> tuple[dict, float]:
    """Return the errors of each line at each count, and the median milliseconds of 10 ratings."""
    split, config = split_of(task, seed), TrainConfig(num_factors=factors, seed=seed)
    y = task.table["rating"].cast("float64").to_numpy()
    test = split.test

    def error(scores: np.ndarray) -> float:
        return regression_metrics(scores, y[test])["rmse"]

    model = trained(task, columns, split.train, config)
    X = model.encoder.transform(task.table.select(columns))
    _, items = np.unique(np.array(task.table[task.item].to_pylist()), return_inverse=True)
    counts, mean = np.bincount(items[split.train], minlength=items.max() + 1), y[split.train].mean()
    sums = np.bincount(items[split.train], y[split.train], items.max() + 1)
    of_item = np.where(counts > 0, sums / np.maximum(counts, 1), mean)
    lines = {
        "mean of all": [error(np.full(test.size, mean))] * len(COUNTS),
        "mean of the item": [error(of_item[items[test]])] * len(COUNTS),
        "unknown": [error(model.scores(X[test]))] * len(COUNTS),
    }
    folding = Folding(model, "user")
    for name, kind in (("fold-in", folding), ("fold-in, isotropic prior", isotropic(folding))):
        results = [folded_scores(kind, X, y, split, count) for count in COUNTS]
        lines[name] = [error(scores) for scores, _ in results]
        if kind is folding:
            milliseconds = float(np.median(results[-1][1]))
    lines["retrained"] = []
    for count in COUNTS:
        rows = np.concatenate([split.train, *(learn[:count] for learn, _ in split.people)])
        again = model if not count else trained(task, columns, rows, config)
        lines["retrained"].append(error(again.predict(task.table.select(columns).take(test))))
    return lines, milliseconds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that holds ml-100k/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--factors", type=int, default=64)
    args = parser.parse_args()
    for task in (survey(), ml_100k(args.data)):
        if task is None:
            print(f"no ml-100k/u.data and u.user in {args.data}")
            continue
        for title, fields in (("ids only", []), (f"ids, {', '.join(task.fields)}", task.fields)):
            columns = ["user", task.item, *fields]
            runs = [measured(task, columns, args.factors, seed) for seed in range(args.seeds)]
            print(f"\n{task.name}, {title}, k={args.factors}; rmse, {args.seeds} seeds\n")
            print("| ratings of each person | " + " | ".join(map(str, COUNTS)) + " |")
            print("|---|" + "---|" * len(COUNTS))
            means = {
                name: np.mean([lines[name] for lines, _ in runs], axis=0) for name in runs[0][0]
            }
            for name, values in means.items():
                print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |")
            change = (means["fold-in"] / means["retrained"] - 1) * 100
            print(
                "| fold-in against retrained | " + " | ".join(f"{c:+.1f}%" for c in change) + " |"
            )
            last = [(lines["fold-in"][-1] / lines["retrained"][-1] - 1) * 100 for lines, _ in runs]
            print(f"\nthe last of these by seed: {', '.join(f'{c:+.1f}%' for c in last)}")
            each = np.median([milliseconds for _, milliseconds in runs])
            print(f"fold-in of {COUNTS[-1]} ratings: {each:.2f} ms per person", flush=True)


if __name__ == "__main__":
    main()
