"""Interactions: what a ranker's rows are, who met what, and which rows are held out.

Each row of the data is an interaction. The catalogue says which of its entries describe the item;
the others are its context.

Decided here:

- What is never a negative of a row: an item that the user of the row meets in a training row, or
  met in the training that this one goes on from. Where users meet the same items again and again (a
  tenth of the rows), only items met in this very context are left out: what somebody uses in the
  evening is a negative of the morning. Rows that are held out count as not yet met: if they were
  never drawn as negatives, a model could recognise them by that, and early stopping would reward it
  (MovieLens 1M, 50 epochs: NDCG 0.162 of held-out rows instead of 0.135).
- Which rows are held out: a random one of each user who has two (without a column of users: a tenth
  of the rows), as many as keep judging cheaper than training.

Not decided here: how negatives are drawn (``fm.kernels.negatives``), what is learnt from them
(``fm.training.solvers``), how lists are judged (``fm.training.judging``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import Advice, ConfigError, DataError
from fm.kernels.negatives import Known, known_pairs
from fm.model.model import Model
from fm.reading.finding_items import catalogue_of

MOST_SCORES = 1 << 26  # to judge one epoch by
REPEATS = 0.1  # from this share of known pairs on, users meet the same items again and again


def interactions(data: Dataset, like: Dataset | None = None) -> Dataset:
    """Return data as a ranker needs them: with a catalogue, and with 1 for every target.

    Parameters
    ----------
    data : Dataset
        Rows; targets may be missing.
    like : Dataset, optional
        The training data whose catalogue holds for these rows too.

    Raises
    ------
    ConfigError
        If it is not known which column is the item.
    DataError
        If there is a target that is not above 0.

    Examples
    --------
    >>> from fm.reading.read import read
    >>> data = interactions(read({"user": ["ann", "bob"], "item": ["tea", "rum"]}))
    >>> data.y.tolist(), data.catalogue
    ([1.0, 1.0], Catalogue(2 items (item), 2 users (user), 2 pairs seen))
    """
    if data.y is not None and (wrong := ~(data.y > 0)).any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{data.source} row {row + 1}: expected an interaction, that is no target or one above "
            f"0, because predictor_type is ranker, found {data.y[row]:g}; leave such rows out: "
            "negatives are drawn from the other items"
        )
    catalogue = data.catalogue if like is None else like.catalogue
    if catalogue is None:
        catalogue = catalogue_of(data)
    if catalogue is None:
        known = ", ".join(data.field_names) or "no column has a name: give a range of features"
        raise ConfigError(
            f"item: expected the column of the items, because predictor_type is ranker, found none "
            f"({known})",
            Advice("name it, as in {item} and {user}", item="film", user="person"),
        )
    return replace(data, y=np.ones(data.num_rows, np.float32), catalogue=catalogue)


@dataclass(frozen=True)
class Interactions:
    """The user and the item of each row, and the pairs that are never negatives.

    Attributes
    ----------
    catalogue : Catalogue
    users, items : ndarray of int32, shape (num_rows,)
        -1: none.
    known : Known
        The pairs of user and item that were met.
    groups : ndarray of int32, shape (num_rows,)
        Rows of one group share what is never a negative: those of a user or, where users meet items
        again and again, those of a context.
    taken : Known
        The pairs of group and item that are never negatives.
    """

    catalogue: Catalogue
    users: np.ndarray
    items: np.ndarray
    known: Known
    groups: np.ndarray
    taken: Known


def split_interactions(
    data: Dataset, config: TrainConfig, fraction: float, init: Model | None
) -> tuple[np.ndarray, np.ndarray | None, Interactions]:
    """Return the rows to train on, those held out (if any), and who met what.

    Parameters
    ----------
    data : Dataset
        As :func:`interactions` returns them.
    config : TrainConfig
    fraction : float
        Part of the users who have one row held out.
    init : Model, optional
        The model that training goes on from.
    """
    catalogue: Any = data.catalogue  # there is one: see interactions
    users, items = catalogue.rows_of_keys(data.X)
    rows = np.flatnonzero(items >= 0).astype(np.int32)
    if not rows.size:
        raise DataError(f"{data.source}: expected rows with an item ({catalogue.item}), found none")
    held = None
    if fraction:
        mixed = np.random.default_rng([config.seed, 1]).permutation(rows)
        held = _to_hold_out(mixed, users, fraction, MOST_SCORES // catalogue.num_items)
        rows = rows if held is None else np.setdiff1d(rows, held)
    size = catalogue.num_users, catalogue.num_items
    known = known_pairs(users[rows], items[rows], *size)
    repeated = _repeat_themselves(known, users, rows)
    before = _met_before(init, catalogue, users, items, held)
    if before is not None:
        pairs = ([users[rows], before[0]], [items[rows], before[1]])
        known = known_pairs(np.concatenate(pairs[0]), np.concatenate(pairs[1]), *size)
    groups, taken = users, known
    if repeated:
        groups = _alike(catalogue.contexts(data.X))
        groups[users < 0] = -1
        number = int(groups.max(initial=-1)) + 1
        taken = known_pairs(groups[rows], items[rows], number, catalogue.num_items)
    return rows, held, Interactions(catalogue, users, items, known, groups, taken)


def _met_before(
    init: Model | None,
    catalogue: Catalogue,
    users: np.ndarray,
    items: np.ndarray,
    held: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the pairs met in the training that this one goes on from, without those held out."""
    if init is None or init.catalogue is None:
        return None
    seen, count = init.catalogue.seen, catalogue.num_items
    if seen is None or seen.shape != (catalogue.num_users, count):
        return None
    met_users, met_items = seen.nonzero()
    if held is None:
        return met_users, met_items
    asked = users[held].astype(np.int64) * count + items[held]
    keep = ~np.isin(met_users.astype(np.int64) * count + met_items, asked)
    return met_users[keep], met_items[keep]


def _to_hold_out(
    mixed: np.ndarray, users: np.ndarray, fraction: float, most: int
) -> np.ndarray | None:
    """Return the rows to hold out, of rows in random order; ascending."""
    owners = users[mixed]
    if (owners >= 0).any():
        mixed, owners = mixed[owners >= 0], owners[owners >= 0]
        twice = np.bincount(owners) > 1
        _, first = np.unique(owners, return_index=True)
        chosen = mixed[np.sort(first)]  # one of each user, the users in random order
        chosen = chosen[twice[users[chosen]]]
        count = round(fraction * chosen.size)
    else:
        chosen = mixed
        count = round((fraction if fraction < 1 else 0.1) * mixed.size)
    count = min(max(count, 1), max(most, 1), chosen.size)
    return np.sort(chosen[:count]) if count else None


def _repeat_themselves(known: Known, users: np.ndarray, rows: np.ndarray) -> bool:
    """Whether users meet the same items again: a tenth of the rows are of a pair met before."""
    of_users = int((users[rows] >= 0).sum())
    return of_users - known.indices.size > REPEATS * of_users


def _alike(X: sp.csr_matrix) -> np.ndarray:
    """Return a number for each row, int32, the same for equal rows.

    Rows are compared by sums of random numbers, one for each feature.
    """
    marks = np.random.default_rng(0).random(X.shape[1])
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    sums = np.bincount(rows, marks[X.indices] * X.data, X.shape[0])
    return np.unique(sums, return_inverse=True)[1].reshape(-1).astype(np.int32)
