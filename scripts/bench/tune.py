"""How the default hyperparameters were chosen: random search over several data sets at once.

Each candidate is trained, as fm.fit does by default, on nine tenths of every data set and judged
on the rest. Its score is the mean, over data sets, of how far its loss is above the best
candidate's there; so a default is not what suits one data set but what is near the best on all.
Only training parts are used: the test parts of the published splits are never read here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import datasets
import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import DivergenceError
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.training.fit import fit


def candidate(rng: np.random.Generator, optimizer: str) -> dict[str, float]:
    """Draw learning rates, penalties and initial spread, log-uniformly."""
    low, high = {"sgd": (-2.3, -1), "adagrad": (-2.3, -0.5), "adam": (-4, -2), "ftrl": (-2.5, 0)}[
        optimizer
    ]
    rate = 10 ** rng.uniform(low, high)
    return {
        "bias_lr": rate,
        "linear_lr": rate,
        "factors_lr": rate * 10 ** rng.uniform(-0.3, 0.7),
        "linear_wd": 10 ** rng.uniform(-4, -1.3),
        "factors_wd": 10 ** rng.uniform(-3, -0.8),
        "factors_init_sigma": 10 ** rng.uniform(-2, -1),
        "lr_decay": float(rng.choice([0, 0.02, 0.05, 0.1])),
    }


def judge(data: Dataset, config: TrainConfig) -> float:
    """Return the loss on a tenth of the rows that training did not see."""
    mixed = np.random.default_rng(7).permutation(data.num_rows)
    tenth = data.num_rows // 10
    seen, unseen = data.take(mixed[tenth:]), data.take(mixed[:tenth])
    try:
        model = fit(seen, config, progress=False)
    except DivergenceError:
        return float("inf")
    values = model.task.measure(model.scores(unseen), unseen.y)
    return values[model.task.metric]


def main() -> None:
    """Search for the given time and print the best candidates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of public data sets (see datasets.py)")
    parser.add_argument("--task", choices=(REGRESSOR, CLASSIFIER), default=REGRESSOR)
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    load = datasets.regression if args.task == REGRESSOR else datasets.classification
    sets = load(args.data)
    rng = np.random.default_rng(args.seed)
    tried, losses = [], []
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        values = candidate(rng, args.optimizer)
        config = TrainConfig(
            predictor_type=args.task, optimizer=args.optimizer, num_factors=args.factors, **values
        )
        tried.append(values)
        losses.append([judge(data, config) for data in sets.values()])
    table = np.array(losses)
    regret = table / table.min(axis=0) - 1
    print(
        f"{len(tried)} candidates; best per data set:",
        dict(zip(sets, table.min(axis=0).round(4), strict=True)),
    )
    for at in np.argsort(regret.mean(axis=1))[:10]:
        values = {name: float(f"{value:.3g}") for name, value in tried[at].items()}
        print(f"{regret[at].mean():.4f}  worst {regret[at].max():.4f}  {values}")


if __name__ == "__main__":
    main()
