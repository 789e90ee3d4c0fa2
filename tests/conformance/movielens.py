"""Ratings shaped like MovieLens 100K (943 people, 1,682 films): made up, or the real ones."""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from fm.formats.recordio import write_numpy_to_dense_tensor, write_spmatrix_to_sparse_tensor

NUM_USERS, NUM_FILMS = 943, 1682
NUM_FEATURES = NUM_USERS + NUM_FILMS


@dataclass(frozen=True)
class Ratings:
    """Ratings in the order of their file; ids from 0."""

    user: np.ndarray
    film: np.ndarray
    rating: np.ndarray

    def __getitem__(self, rows) -> "Ratings":
        return Ratings(self.user[rows], self.film[rows], self.rating[rows])

    @property
    def X(self) -> sp.csr_matrix:  # noqa: N802
        """One-hot rows: people in columns 0 to 942, films behind them."""
        n = self.rating.size
        columns = np.stack([self.user, NUM_USERS + self.film], axis=1).ravel()
        parts = (np.ones(2 * n, np.float32), columns, np.arange(0, 2 * n + 1, 2))
        return sp.csr_matrix(parts, shape=(n, NUM_FEATURES))

    @property
    def liked(self) -> np.ndarray:
        """The article's label: 1 for a rating of 4 or 5."""
        return (self.rating >= 4).astype(np.float32)

    def records(self, labels: np.ndarray | None = None) -> bytes:
        """RecordIO-protobuf, with the ratings as labels unless others are given."""
        return sparse_records(self.X, self.rating if labels is None else labels)

    def text(self) -> str:
        """The publisher's form of a file: user, film, rating, time; ids from 1."""
        rows = zip(self.user + 1, self.film + 1, self.rating.astype(int), strict=True)
        return "".join(f"{u}\t{f}\t{r}\t{881250949 + u}\n" for u, f, r in rows)


def sparse_records(X: sp.csr_matrix, labels: np.ndarray | None = None) -> bytes:
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, X, labels)
    return file.getvalue()


def dense_records(X: np.ndarray, labels: np.ndarray | None = None) -> bytes:
    file = io.BytesIO()
    write_numpy_to_dense_tensor(file, X, labels)
    return file.getvalue()


def made_up(num_rows: int, seed: int = 0) -> Ratings:
    """Draw ratings with tastes in them, so that there is something to learn.

    Films are rated by a power law, everybody rates something, no pair occurs twice.
    """
    rng = np.random.default_rng(seed)
    film_weight = 1 / np.arange(10, 10 + NUM_FILMS) ** 0.8
    film_weight = rng.permutation(film_weight / film_weight.sum())
    draws = 2 * num_rows + NUM_USERS
    user = np.concatenate([np.arange(NUM_USERS), rng.integers(0, NUM_USERS, draws)])
    film = rng.choice(NUM_FILMS, user.size, p=film_weight)
    _, first = np.unique(user * NUM_FILMS + film, return_index=True)
    chosen = rng.permutation(np.sort(first)[:num_rows])
    user, film = user[chosen], film[chosen]
    people, films = rng.normal(size=(NUM_USERS, 3)), rng.normal(size=(NUM_FILMS, 3))
    taste = 0.35 * np.einsum("rf,rf->r", people[user], films[film])
    mean = 3.6 + 0.5 * rng.normal(size=NUM_USERS)[user] + 0.5 * rng.normal(size=NUM_FILMS)[film]
    rating = np.clip(np.rint(mean + taste + 0.6 * rng.normal(size=user.size)), 1, 5)
    return Ratings(user, film, rating.astype(np.float32))


def read(path: Path) -> Ratings:
    """Read u.data, ua.base and the like, gzipped or not."""
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    with opened as file:
        rows = np.loadtxt(file, dtype=np.int64)
    return Ratings(rows[:, 0] - 1, rows[:, 1] - 1, rows[:, 2].astype(np.float32))
