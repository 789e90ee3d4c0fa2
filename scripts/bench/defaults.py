"""Defaults on tables of every kind: fm without arguments beside a linear model and boosted trees.

Each table goes to ``fm.read`` and ``fm.fit`` as a user has it: no argument but the data. The peers
get it as their users would prepare it:

linear    scikit-learn's LogisticRegressionCV or RidgeCV; categories one-hot, numbers standardised
          with gaps filled by the mean, sparse matrices divided by their largest values
lightgbm  LightGBM's defaults; categories as pandas' categories, sparse matrices as they are
catboost  CatBoost's defaults, on one core; frames only
constant  the mean of the targets

``--inside`` is for choosing: 5-fold cross-validation inside the training part. Without it the test
part is used, once, for judging. Log loss for labels, root mean squared error for numbers; CPU
seconds of the process, reading and preparing included.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

import fm


class Table(NamedTuple):
    """Rows as a user has them: a frame or a sparse matrix, and targets (labels are 0 and 1)."""

    X: Any
    y: np.ndarray
    labels: bool

    def take(self, rows: np.ndarray) -> Table:
        """Return some of the rows."""
        frame = isinstance(self.X, pd.DataFrame)
        X = self.X.iloc[rows].reset_index(drop=True) if frame else self.X[rows]
        return Table(X, self.y[rows], self.labels)


# -- the tables ------------------------------------------------------------------------------------

Parts = tuple[Table, Table]
TABLES: dict[str, Callable[[Path], Parts]] = {}


def table(make: Callable[[Path], Parts]) -> Callable[[Path], Parts]:
    """Register a function that returns (training part, test part)."""
    TABLES[make.__name__.replace("_", "-")] = make
    return make


def split(whole: Table, share: float = 0.2, most: int = 100_000) -> Parts:
    """Split rows at random, with a seed; of long tables only `most` rows are used."""
    rows = np.random.default_rng(0).permutation(len(whole.y))[:most]
    cut = round(share * len(rows))
    return whole.take(np.sort(rows[cut:])), whole.take(np.sort(rows[:cut]))


def csv(path: Path, target: str, labels: bool = False, **options: Any) -> Table:
    """Return a text table as a frame; ids are texts."""
    frame = pd.read_csv(path, **options)
    return Table(frame.drop(columns=target), frame[target].to_numpy(np.float64), labels)


def svmlight(folder: Path, name: str, labels: bool, high: float = 1) -> Table:
    """Return a file of the folder svmlight; `high` is the label that counts as 1."""
    data = fm.read(folder / "svmlight" / f"{name}.gz", format="libsvm", zero_based=False)
    y = (data.y == high).astype(np.float64) if labels else data.y.astype(np.float64)
    return Table(sp.csr_matrix(data.X, dtype=np.float64), y, labels)


def same_width(one: Table, other: Table) -> Parts:
    """Give two sparse tables the same number of columns."""
    n = max(one.X.shape[1], other.X.shape[1])
    for part in (one, other):
        part.X.resize(part.X.shape[0], n)
    return one, other


@table
def a9a(folder: Path) -> Parts:
    """123 flags of adult."""
    return same_width(svmlight(folder, "a9a", True), svmlight(folder, "a9a.t", True))


@table
def mushrooms(folder: Path) -> Parts:
    """22 columns as flags; nearly separable."""
    return split(svmlight(folder, "mushrooms", True), 0.5)


@table
def norm_1(folder: Path) -> Parts:
    """Mushrooms with every tenth label wrong, rows divided by their norm."""
    whole = svmlight(folder, "agaricus.train", True)
    wrong = np.random.default_rng(5).random(len(whole.y)) < 0.1
    X = sp.csr_matrix(whole.X / np.sqrt(22))
    return split(Table(X, np.where(wrong, 1 - whole.y, whole.y), True))


@table
def rcv1(folder: Path) -> Parts:
    """Words of 1,000 texts, tf-idf, rows of norm 1."""
    return same_width(
        svmlight(folder, "rcv1_small.train", True), svmlight(folder, "rcv1_small.test", True)
    )


@table
def abalone(folder: Path) -> Parts:
    """8 numbers."""
    return split(svmlight(folder, "abalone", False))


@table
def housing(folder: Path) -> Parts:
    """13 numbers, 506 rows."""
    return split(svmlight(folder, "housing_scale", False))


@table
def adult(folder: Path) -> Parts:
    """6 numbers, 8 categories."""
    frame = pd.read_csv(folder / "tabular" / "adult.csv.gz")
    y = frame.pop("income").str.contains(">50K").to_numpy(np.float64)
    return split(Table(frame, y, True))


@table
def adult_categories(folder: Path) -> Parts:
    """Categories of adult alone, eight of them."""
    train, test = adult(folder)
    kept = train.X.select_dtypes(exclude="number").columns
    return train._replace(X=train.X[kept]), test._replace(X=test.X[kept])


@table
def california(folder: Path) -> Parts:
    """8 numbers."""
    return split(csv(folder / "tabular" / "california_housing.csv.gz", "MedHouseVal"))


@table
def criteo(folder: Path) -> Parts:
    """13 numbers with gaps, 26 categories; 8,000 rows."""
    kinds: dict[Any, Any] = {i: (float if i < 14 else str) for i in range(40)}
    files = [folder / "criteo-8k" / f"{part}.tsv.gz" for part in ("train", "dev", "test")]
    read = [pd.read_csv(f, sep="\t", header=None, dtype=kinds) for f in files]
    parts = []
    for frame in (read[0], pd.concat(read[1:], ignore_index=True)):
        named = frame.rename(columns=lambda i: f"c{i}")
        parts.append(Table(named.drop(columns="c0"), named["c0"].to_numpy(np.float64), True))
    return parts[0], parts[1]


@table
def frappe(folder: Path) -> Parts:
    """10 columns of ids and contexts as flags."""
    path = folder / "frappe-nfm" / "frappe.validation.libfm.gz"
    data = fm.read(path, format="libsvm", zero_based=True)
    return split(Table(sp.csr_matrix(data.X, dtype=np.float64), (data.y > 0) * 1.0, True))


def movielens(folder: Path, part: str, labels: bool) -> Table:
    """Return user and film of MovieLens 100K, as texts."""
    file = folder / "ml-100k" / f"{part}.gz"
    frame = pd.read_csv(file, sep="\t", names=["user", "film", "rating", "time"])
    y = frame["rating"].to_numpy(np.float64)
    return Table(frame[["user", "film"]].astype(str), (y >= 4) * 1.0 if labels else y, labels)


@table
def ml_100k_ua(folder: Path) -> Parts:
    """Likes by user and film."""
    return movielens(folder, "ua.base", True), movielens(folder, "ua.test", True)


@table
def ml_100k_u1(folder: Path) -> Parts:
    """Ratings by user and film."""
    return movielens(folder, "u1.base", False), movielens(folder, "u1.test", False)


def ratings(path: Path, users: str, items: str) -> Parts:
    """Split a file of ratings by user and item."""
    whole = csv(path, "rating", dtype={users: str, items: str})
    return split(whole._replace(X=whole.X[[users, items]]))


@table
def ml_1m(folder: Path) -> Parts:
    """100,000 of the ratings."""
    return ratings(folder / "ml-1m" / "ratings.csv.gz", "user", "item")


@table
def magazine(folder: Path) -> Parts:
    """Ratings by people who rated once."""
    return ratings(folder / "amazon-magazine" / "ratings.csv.gz", "user", "item")


@table
def books(folder: Path) -> Parts:
    """100,000 ratings; most people and books occur a few times."""
    frame = pd.read_csv(folder / "book-crossing" / "ratings.csv.gz", dtype=str)
    frame = frame[frame["rating"] != "0"]
    return split(Table(frame[["user", "isbn"]], frame["rating"].to_numpy(np.float64), False))


@table
def food(folder: Path) -> Parts:
    """Ratings of cuisines with what is known of the people."""
    place = folder / "open-licence" / "food-world-cup"
    frame = pd.read_csv(place / "ratings_tidy.csv.gz", dtype={"user": str})
    people = pd.read_csv(place / "users_tidy.csv.gz", dtype=str)
    frame = frame.merge(people, on="user", how="left").fillna("")
    y = frame.pop("rating").to_numpy(np.float64)
    return split(Table(frame, y, False))


@table
def plays(folder: Path) -> Parts:
    """Logarithms of listening counts by user and artist."""
    frame = pd.read_csv(
        folder / "hetrec2011-lastfm-2k" / "user_artists.dat.gz", sep="\t", dtype=str
    )
    y = np.log(frame["weight"].to_numpy(np.float64))
    return split(Table(frame[["userID", "artistID"]], y, False))


def bundled(name: str) -> Callable[[Path], Parts]:
    """Return a maker of one of scikit-learn's own tables, as a frame."""

    def make(folder: Path) -> Parts:
        import sklearn.datasets

        found = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
        y = found.target.to_numpy(np.float64)
        labels = name != "diabetes"
        return split(Table(found.data, (y == y.max()) * 1.0 if labels else y, labels))

    return make


for _name in ("diabetes", "breast_cancer", "wine"):
    TABLES[_name.replace("_", "-")] = bundled(_name)


@table
def clicks(folder: Path) -> Parts:
    """Made up: 100,000 rows, 8 categories, 2 numbers, one of them from 0 to 300, U-shaped."""
    rng = np.random.default_rng(11)
    n, sizes = 100_000, (5000, 800, 100, 50, 20, 12, 7, 3)
    frame = pd.DataFrame({f"c{i}": rng.zipf(1.3, n) % size for i, size in enumerate(sizes)})
    parts = [rng.normal(0, 0.4, size)[frame[f"c{i}"]] for i, size in enumerate(sizes)]
    one, two = rng.normal(0, 0.5, (5000, 3)), rng.normal(0, 0.5, (800, 3))
    parts.append((one[frame["c0"]] * two[frame["c1"]]).sum(axis=1))
    frame = frame.astype(str).assign(minutes=rng.gamma(1.5, 40, n).clip(0, 300), age=rng.random(n))
    parts.append(((frame["minutes"] - 60) / 60).clip(-1, 2) ** 2 * 0.5 - 0.8 * frame["age"])
    p = 1 / (1 + np.exp(0.8 - np.sum(parts, axis=0)))
    return split(Table(frame, (rng.random(n) < np.asarray(p)) * 1.0, True))


@table
def income(folder: Path) -> Parts:
    """Made up: 3 numbers, one of them an income, and a category."""
    rng = np.random.default_rng(12)
    n = 5000
    frame = pd.DataFrame(
        {
            "income": np.exp(rng.normal(10.5, 0.8, n)).round(),
            "age": rng.integers(18, 90, n).astype(float),
            "debt": rng.gamma(1, 3000, n).round(2),
            "town": rng.integers(0, 30, n).astype(str),
        }
    )
    logit = 1.2 * (np.log(frame["income"]) - 10.5) - ((frame["age"] - 50) / 20) ** 2 + 0.5
    y = rng.random(n) < 1 / (1 + np.exp(-logit.to_numpy()))
    return split(Table(frame, y * 1.0, True))


# -- the contestants -------------------------------------------------------------------------------

Fit = Callable[[Table, Table], np.ndarray]  # predictions for the second table


def ours(**hyperparameters: Any) -> Fit:
    """Return fm with these hyperparameters; none: as a newcomer runs it."""

    def predict(train: Table, test: Table) -> np.ndarray:
        source = train.X if sp.issparse(train.X) else train.X.assign(target=train.y)
        if sp.issparse(train.X):
            data = fm.read((train.X, train.y))
        else:
            data = fm.read(source, target="target")
        config = fm.TrainConfig(**hyperparameters) if hyperparameters else None
        model = fm.fit(data, config, progress=False)
        found = model.probabilities(test.X) if train.labels else model.predict(test.X)
        return np.asarray(found, np.float64)

    return predict


def constant(train: Table, test: Table) -> np.ndarray:
    """Return the mean of the targets for each row."""
    return np.full(len(test.y), train.y.mean())


def linear(train: Table, test: Table) -> np.ndarray:
    """Return predictions of a linear model, its penalty found by cross-validation."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, StandardScaler

    steps: list[Any] = [MaxAbsScaler()]
    if isinstance(train.X, pd.DataFrame):
        numbers = list(train.X.select_dtypes("number"))
        others = [name for name in train.X if name not in numbers]
        scaled = make_pipeline(SimpleImputer(), StandardScaler())
        coded = OneHotEncoder(handle_unknown="ignore")
        steps = [ColumnTransformer([("n", scaled, numbers), ("c", coded, others)])]
    elif train.X.shape[1] < 20:
        steps = [StandardScaler(with_mean=False)]
    model: Any = RidgeCV(alphas=np.logspace(-2, 3, 11))
    if not train.labels and sp.issparse(train.X) is False and train.X.nunique().max() > 500:
        model = _sparse_ridge()
    if train.labels:
        model = LogisticRegressionCV(Cs=8, cv=3, scoring="neg_log_loss", max_iter=300)
    made = make_pipeline(*steps, model).fit(train.X, train.y)
    return made.predict_proba(test.X)[:, 1] if train.labels else made.predict(test.X)


def _sparse_ridge() -> Any:
    """Return a ridge regression for thousands of columns (RidgeCV makes them dense)."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    grid = {"alpha": np.logspace(-1, 2, 7)}
    return GridSearchCV(Ridge(solver="sparse_cg"), grid, cv=3, scoring="neg_mean_squared_error")


def lightgbm(train: Table, test: Table) -> np.ndarray:
    """Return predictions of LightGBM's defaults, on one core."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    pair = train.X, test.X
    if isinstance(train.X, pd.DataFrame):
        whole = pd.concat(pair, ignore_index=True)
        for name in whole.select_dtypes(exclude="number"):
            whole[name] = whole[name].astype("category")
        pair = whole.iloc[: len(train.y)], whole.iloc[len(train.y) :]
    kind = LGBMClassifier if train.labels else LGBMRegressor
    model = kind(n_jobs=1, verbose=-1, random_state=0).fit(pair[0], train.y)
    return model.predict_proba(pair[1])[:, 1] if train.labels else model.predict(pair[1])


def catboost(train: Table, test: Table) -> np.ndarray:
    """Return predictions of CatBoost's defaults, on one core."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    kind = CatBoostClassifier if train.labels else CatBoostRegressor
    model = kind(thread_count=1, verbose=0, random_seed=0, allow_writing_files=False)
    if isinstance(train.X, pd.DataFrame):
        named = list(train.X.select_dtypes(exclude="number"))
        pair = [part.X.fillna(dict.fromkeys(named, "")) for part in (train, test)]
        model.fit(pair[0], train.y, cat_features=named)
    else:
        pair = [train.X.tocsr(), test.X.tocsr()]
        model.fit(pair[0], train.y)
    return model.predict_proba(pair[1])[:, 1] if train.labels else model.predict(pair[1])


PEERS: dict[str, Fit] = {
    "constant": constant, "linear": linear, "lightgbm": lightgbm, "catboost": catboost,
}  # fmt: skip


# -- measuring -------------------------------------------------------------------------------------


def loss(y: np.ndarray, found: np.ndarray, labels: bool) -> float:
    """Return log loss, or root mean squared error."""
    if not labels:
        return float(np.sqrt(np.mean((y - found) ** 2)))
    p = np.clip(found, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(y > 0, np.log(p), np.log(1 - p))))


def second(y: np.ndarray, found: np.ndarray, labels: bool) -> float:
    """Return AUC, or R²."""
    from sklearn.metrics import r2_score, roc_auc_score

    return float(roc_auc_score(y, found) if labels else r2_score(y, found))


def folds(train: Table, count: int = 5) -> Iterator[Parts]:
    """Yield the parts of a cross-validation."""
    of = np.random.default_rng(1).permutation(len(train.y)) % count
    for fold in range(count):
        yield train.take(np.flatnonzero(of != fold)), train.take(np.flatnonzero(of == fold))


def measured(fit: Fit, parts: list[Parts]) -> tuple[float, float, float]:
    """Return (loss, AUC or R², CPU seconds), means over the parts."""
    rows = []
    for train, test in parts:
        begun = time.process_time()
        found = fit(train, test)
        seconds = time.process_time() - begun
        kind = train.labels
        rows.append((loss(test.y, found, kind), second(test.y, found, kind), seconds))
    means = np.mean(rows, axis=0)
    return float(means[0]), float(means[1]), float(means[2])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the public data sets")
    parser.add_argument("--tables", default=",".join(TABLES), help="of " + ",".join(TABLES))
    parser.add_argument("--peers", default="constant,linear,lightgbm,catboost")
    parser.add_argument("--inside", action="store_true", help="5 folds inside the training part")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE,...",
        help="one more contestant: fm with these hyperparameters",
    )  # fmt: skip
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    contestants: dict[str, Fit] = {"fm": ours()}
    for text in args.set:
        contestants[text] = ours(**dict(_value(part) for part in text.split(",")))
    for name in filter(None, args.peers.split(",")):
        contestants[name] = PEERS[name]
    print("| table | what | " + " | ".join(contestants) + " |")
    print("|---|---" + "|---" * len(contestants) + "|")
    for name in args.tables.split(","):
        try:
            whole = TABLES[name](args.data)
        except FileNotFoundError:
            continue
        parts = list(folds(whole[0])) if args.inside else [whole]
        ours(epochs=1)(whole[0].take(np.arange(min(len(whole[0].y), 2000))), whole[1])  # compiles
        cells = []
        for fit in contestants.values():
            try:
                cells.append("{:.4f} / {:.4f} / {:.1f} s".format(*measured(fit, parts)))
            except Exception as err:
                cells.append(type(err).__name__)
        what = "log loss / AUC" if whole[0].labels else "rmse / R²"
        print(f"| {name} | {what} | " + " | ".join(cells) + " |", flush=True)


def _value(text: str) -> tuple[str, Any]:
    """Return a hyperparameter and its value from ``name=value``."""
    name, value = text.split("=")
    try:
        return name, int(value)
    except ValueError:
        pass
    try:
        return name, float(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    main()
