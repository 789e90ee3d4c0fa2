"""Quality on published splits, next to the peers that are installed.

1. The article's task: MovieLens 100K, ua split, like = rating >= 4, user and film ids only.
2. Ratings: MovieLens 100K, u1 split, ids only.

All of fm's rows are means over seeds with the hyperparameters named; nothing is tuned on the test
part. Peers run with their defaults unless said otherwise.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.measures.predictions import classification_metrics, log_odds, regression_metrics
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.training.fit import fit

Score = Callable[[Dataset, Dataset, int], np.ndarray]


def ours(**hyperparameters: object) -> Score:
    """Return a contestant: fm with these hyperparameters."""

    def score(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
        if hyperparameters.get("optimizer") == "sagemaker":  # it does not shuffle: the article does
            train = train.take(np.random.default_rng(seed).permutation(train.num_rows))
        model = fit(train, TrainConfig(seed=seed, **hyperparameters), progress=False)
        return model.scores(test)

    return score


def constant(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
    """Predict the mean of the training rows."""
    mean = float(train.y.mean())
    labels = set(np.unique(train.y)) <= {0.0, 1.0}
    return np.full(test.num_rows, log_odds(mean) if labels else mean)


def modern_fm(kind: str, **options: object) -> Score:
    """Return a contestant of the package modern-fm."""

    def score(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
        import modern_fm as peer

        model = getattr(peer, kind)(random_state=seed, n_jobs=1, **options)
        model.fit(train.X, train.y.astype(np.float64))
        if kind == "FMRegressor":
            return model.predict(test.X)
        p = np.clip(model.predict_proba(test.X)[:, 1], 1e-7, 1 - 1e-7)
        return np.log(p / (1 - p))

    return score


def linear(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
    """Logistic regression of scikit-learn, C=1."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(train.X, train.y)
    return model.decision_function(test.X)


def sgd_classifier(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
    """SGDClassifier of scikit-learn, log loss."""
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(loss="log_loss", random_state=seed).fit(train.X, train.y)
    return model.decision_function(test.X)


def my_fm(kind: str) -> Score:
    """Return a contestant of the package myfm (Gibbs sampling, k=8, 300 iterations)."""

    def score(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
        import myfm

        X, y = train.X.astype(np.float64), train.y.astype(np.float64)
        model = getattr(myfm, kind)(rank=8, random_seed=seed)
        groups = [943, 1682] if X.shape[1] == 2625 else None
        model.fit(X, y, n_iter=300, group_shapes=groups)
        if kind == "MyFMRegressor":
            return model.predict(test.X.astype(np.float64))
        p = np.clip(model.predict_proba(test.X.astype(np.float64)), 1e-7, 1 - 1e-7)
        return np.log(p / (1 - p))

    return score


def vowpal(task: str) -> Score:
    """Return a contestant of Vowpal Wabbit: --lrq, rank 8, 20 passes, early stopping of its own."""

    def score(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
        import tempfile

        from vowpalwabbit import Workspace

        logistic = task == CLASSIFIER

        def line(data: Dataset, row: int) -> str:
            user, film = data.X.indices[2 * row : 2 * row + 2]
            y = data.y[row]
            label = (1 if y else -1) if logistic else y
            return f"{label} |u {user} |i {film}"

        mixed = np.random.default_rng(seed).permutation(train.num_rows)
        with tempfile.TemporaryDirectory() as folder:
            loss = "--loss_function logistic" if logistic else ""
            model = Workspace(
                f"--lrq ui8 --l2 1e-6 -b 18 --random_seed {seed + 1} {loss} --quiet "
                f"--cache_file {folder}/cache"
            )
            for _ in range(20):
                for row in mixed:
                    model.learn(line(train, row))
            return np.array([model.predict(line(test, row)) for row in range(test.num_rows)])

    return score


def river(task: str) -> Score:
    """Return a contestant of river: FM of rank 8, one pass (it is an online learner)."""

    def score(train: Dataset, test: Dataset, seed: int) -> np.ndarray:
        from river import facto

        kind = facto.FMClassifier if task == CLASSIFIER else facto.FMRegressor
        model = kind(n_factors=8, seed=seed)

        def row(data: Dataset, r: int) -> dict[str, float]:
            user, film = data.X.indices[2 * r : 2 * r + 2]
            return {f"u{user}": 1.0, f"i{film}": 1.0}

        for r in np.random.default_rng(seed).permutation(train.num_rows):
            y = train.y[r]
            model.learn_one(row(train, r), bool(y) if task == CLASSIFIER else float(y))
        if task == REGRESSOR:
            return np.array([model.predict_one(row(test, r)) for r in range(test.num_rows)])
        p = np.array(
            [model.predict_proba_one(row(test, r)).get(True, 0.5) for r in range(test.num_rows)]
        )
        p = np.clip(p, 1e-7, 1 - 1e-7)
        return np.log(p / (1 - p))

    return score


ARTICLE = {"predictor_type": CLASSIFIER, "num_factors": 64, "epochs": 100, "mini_batch_size": 1000}

CLASSIFIERS: dict[str, Score] = {
    "training rate for all": constant,
    "fm, the article's hyperparameters": ours(**ARTICLE),
    "fm, the same, optimizer=adagrad": ours(**ARTICLE, optimizer="adagrad"),
    "fm, the same, optimizer=sagemaker (the built-in's steps)": ours(
        **ARTICLE, optimizer="sagemaker"
    ),
    "scikit-learn LogisticRegression": linear,
    "scikit-learn SGDClassifier": sgd_classifier,
    "modern-fm FMClassifier, k=8": modern_fm("FMClassifier", n_factors=8, early_stopping=True),
    "myfm MyFMClassifier (Gibbs), k=8": my_fm("MyFMClassifier"),
    "Vowpal Wabbit --lrq, rank 8": vowpal(CLASSIFIER),
    "river FMClassifier, one pass": river(CLASSIFIER),
}
REGRESSORS: dict[str, Score] = {
    "training mean for all": constant,
    "fm, defaults": ours(),
    "fm, optimizer=adagrad": ours(optimizer="adagrad"),
    "fm, optimizer=sagemaker (the built-in's steps), 50 epochs": ours(
        optimizer="sagemaker", epochs=50
    ),
    "modern-fm FMRegressor, k=8": modern_fm("FMRegressor", n_factors=8, early_stopping=True),
    "myfm MyFMRegressor (Gibbs), k=8": my_fm("MyFMRegressor"),
    "Vowpal Wabbit --lrq, rank 8": vowpal(REGRESSOR),
    "river FMRegressor, one pass": river(REGRESSOR),
}


def table(
    title: str, contestants: dict[str, Score], train: Dataset, test: Dataset, seeds: int, one: str
) -> None:
    """Print one line per contestant: means over seeds, and CPU seconds of one run."""
    classify = one == "log_loss"
    names = ("log_loss", "accuracy", "f1", "auc") if classify else ("rmse", "mae")
    print(f"\n{title}: {train.num_rows:,} training rows, {test.num_rows:,} test rows\n")
    print("| | " + " | ".join(names) + " | +- of the first | seeds | CPU s |")
    print("|---|" + "---|" * (len(names) + 3))
    for label, score in contestants.items():
        fast = label.startswith(("fm", "modern"))
        results, used = [], []
        try:
            for seed in range(seeds if fast else 1):
                begun = time.process_time()
                scores = score(train, test, seed)
                used.append(time.process_time() - begun)
                measure = classification_metrics if classify else regression_metrics
                results.append([measure(scores, test.y)[name] for name in names])
        except ImportError:
            print(f"| {label} | not installed |" + " |" * (len(names) + 2))
            continue
        mean, spread = np.mean(results, axis=0), np.std(results, axis=0)[0]
        print(
            f"| {label} | "
            + " | ".join(f"{value:.4f}" for value in mean)
            + f" | {spread:.4f} | {len(results)} | {np.median(used):.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds ml-100k/")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for title, split, binary, contestants, one in (
        ("MovieLens 100K, ua, rating >= 4, ids only", "ua", True, CLASSIFIERS, "log_loss"),
        ("MovieLens 100K, u1, ratings, ids only", "u1", False, REGRESSORS, "rmse"),
    ):
        train = datasets.ml_100k(args.data, f"{split}.base", binary=binary)
        test = datasets.ml_100k(args.data, f"{split}.test", binary=binary)
        if train is None or test is None:
            print(f"{title}: no {split}.base and {split}.test in {args.data / 'ml-100k'}")
            continue
        table(title, contestants, train, test, args.seeds, one)


if __name__ == "__main__":
    main()
