"""Public data sets as the benchmarks use them, read from a folder that the user names.

Nothing is downloaded. A data set whose files are absent is left out. The layout expected is that
of the publishers, gzipped or not: ``ml-100k/ua.base``, ``ml-1m/ratings.csv``, ...
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from fm.data.dataset import Dataset

Split = tuple[Dataset, Dataset]


def find(folder: Path, name: str) -> Path | None:
    """Return the path of a file, gzipped or not; None if it is absent."""
    for path in (folder / name, folder / (name + ".gz")):
        if path.exists():
            return path
    return None


def ids(users: np.ndarray, items: np.ndarray, y: np.ndarray, sizes: tuple[int, int]) -> Dataset:
    """Return the article's layout: one-hot users (numbers from 1), then one-hot items."""
    columns = np.stack([users - 1, items - 1 + sizes[0]], axis=1).astype(np.int32)
    rows = len(y)
    X = sp.csr_matrix(
        (np.ones(2 * rows, np.float32), columns.ravel(), np.arange(rows + 1) * 2),
        shape=(rows, sum(sizes)),
    )
    return Dataset.from_arrays(X, y.astype(np.float32))


def ml_100k(folder: Path, part: str, *, binary: bool) -> Dataset | None:
    """Return ``ml-100k/<part>`` ("ua.base", "u1.test", ...); binary: rating >= 4."""
    path = find(folder, f"ml-100k/{part}")
    if path is None:
        return None
    table = np.loadtxt(path, dtype=np.int64)
    y = table[:, 2] >= 4 if binary else table[:, 2]
    return ids(table[:, 0], table[:, 1], y, (943, 1682))


def onehot(columns: list[np.ndarray], y: np.ndarray) -> Dataset:
    """Return a data set with one feature per value of each column."""
    start, parts = 0, []
    for column in columns:
        values, codes = np.unique(np.asarray(column).astype(str), return_inverse=True)
        parts.append(codes.reshape(-1) + start)
        start += len(values)
    stacked = np.stack(parts, axis=1).astype(np.int32)
    rows, m = stacked.shape
    X = sp.csr_matrix(
        (np.ones(stacked.size, np.float32), stacked.ravel(), np.arange(rows + 1) * m),
        shape=(rows, start),
    )
    return Dataset.from_arrays(X, np.asarray(y, np.float32))


def _table(path: Path, **options: object) -> dict[str, np.ndarray]:
    from fm.formats.tables import read_table

    table = read_table(path, **options)
    return {name: table[name].to_numpy() for name in table.column_names}


def regression(folder: Path) -> dict[str, Dataset]:
    """Return the rating data sets the defaults were chosen on (training parts only)."""
    found: dict[str, Dataset] = {}

    def add(name: str, file: str, make: Callable[[Path], Dataset]) -> None:
        path = find(folder, file)
        if path is not None:
            found[name] = make(path)

    def ratings(
        user: str, item: str, rating: str, keep: int = 10**9, **options: object
    ) -> Callable:
        def make(path: Path) -> Dataset:
            table = _table(path, **options)
            _, codes = np.unique(table[user].astype(str), return_inverse=True)
            rows = codes.reshape(-1) < keep
            return onehot([table[user][rows], table[item][rows]], table[rating][rows])

        return make

    add("ml-100k u1", "ml-100k/u1.base", lambda p: ml_100k(folder, "u1.base", binary=False))
    add("ml-small", "ml-latest-small/ratings.csv", ratings("userId", "movieId", "rating"))
    add("ml-1m part", "ml-1m/ratings.csv", ratings("user", "item", "rating", keep=1200))
    add("jester part", "jester-1/ratings.csv", ratings("user", "joke", "rating", keep=1500))
    names = ["user", "film", "rating", "time"]
    add(
        "movietweetings", "open-licence/movietweetings-100K/ratings.dat",
        ratings("user", "film", "rating", delimiter="::", header=names),
    )  # fmt: skip
    add("amazon", "amazon-magazine/ratings.csv", ratings("user", "item", "rating"))
    food = "open-licence/food-world-cup/ratings_tidy.csv"
    add("food", food, ratings("user", "cuisine", "rating"))
    return found


def classification(folder: Path) -> dict[str, Dataset]:
    """Return the 0/1 data sets the defaults were chosen on (training parts only)."""
    from fm.formats.svmlight import read_libsvm

    found: dict[str, Dataset] = {}
    ua = ml_100k(folder, "ua.base", binary=True)
    if ua is not None:
        found["ml-100k ua"] = ua
    for name, file in (
        ("a9a", "svmlight/a9a"),
        ("frappe", "frappe-nfm/frappe.train.rebuilt.libfm"),
    ):
        path = find(folder, file)
        if path is not None:
            X, y = read_libsvm(path)
            data = Dataset.from_arrays(X, (y > 0).astype(np.float32))
            some = np.random.default_rng(0).permutation(data.num_rows)[:60_000]
            found[name] = data.take(some)
    for name, file, user, item in (
        ("ml-small", "ml-latest-small/ratings.csv", "userId", "movieId"),
        ("food", "open-licence/food-world-cup/ratings_tidy.csv", "user", "cuisine"),
    ):
        path = find(folder, file)
        if path is not None:
            table = _table(path)
            found[name] = onehot([table[user], table[item]], table["rating"] >= 4)
    path = find(folder, "tabular/adult.csv")
    if path is not None:
        table = _table(path)
        *columns, target = table
        few = [table[name] for name in columns if len(set(table[name].tolist())) < 200]
        found["adult"] = onehot(few, np.char.find(table[target].astype(str), ">50") >= 0)
    return found
