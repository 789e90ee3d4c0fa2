"""Catalogue: which features of a model are its items and its users, and who met which item.

Decided here: what of the training data is remembered for recommending. Not decided here: how it is
made from data (``fm.reading.finding_items``), how a file keeps it (``fm.catalogue.tensors``), how
items are scored (``fm.recommending.recommender``).

A row of the training data has two sides: the **item side** (the item's own feature and the columns
that describe it, such as genres) and the **context** (everything else: the user, the hour). To
recommend is to put the item side of every item beside one context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from fm.errors import DataError
from fm.formats.cells import text_of
from fm.sparse import csr, without


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items that can be recommended, and what users have met already.

    Attributes
    ----------
    items : csr_matrix of float32, shape (num_items, num_features)
        The item side of each item: its own feature and those that describe it.
    item_keys : ndarray of int32, shape (num_items,)
        The feature that stands for each item alone; -1 for an item that training did not meet.
    item_ids : sequence of str, length num_items
        What each item is called in the data.
    item_side : ndarray of bool, shape (num_features,)
        Which features belong to the item side; the others are context.
    item, user : str
        The columns, or ranges of features such as ``"943:2625"``. `user` may be empty.
    user_keys : ndarray of int32, shape (num_users,)
        The feature that stands for each user, ascending; empty if there is no user column.
    seen : csr_matrix of bool, shape (num_users, num_items), optional
        Which items each user met in the training data.
    item_columns : tuple of str
        The columns that describe an item.
    users : csr_matrix of float32, shape (num_users, num_features), optional
        The features of the columns that describe each user, without the user's own feature; None
        if there are no such columns.
    user_columns : tuple of str
        The columns that describe a user.

    Examples
    --------
    >>> import fm
    >>> data = fm.read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> data.catalogue
    Catalogue(2 items (film), 2 users (user), 3 pairs seen)
    >>> list(data.catalogue.item_ids)
    ['B', 'A']
    """

    items: sp.csr_matrix
    item_keys: np.ndarray
    item_ids: Sequence[str]
    item_side: np.ndarray
    item: str
    user: str
    user_keys: np.ndarray
    seen: sp.csr_matrix | None = None
    item_columns: tuple[str, ...] = ()
    users: sp.csr_matrix | None = None
    user_columns: tuple[str, ...] = ()

    @property
    def num_items(self) -> int:
        """Number of items."""
        return int(self.items.shape[0])

    @property
    def num_users(self) -> int:
        """Number of users."""
        return int(self.user_keys.size)

    def __repr__(self) -> str:
        text = f"{self.num_items:,} items ({self.item})"
        if self.user:
            text += f", {self.num_users:,} users ({self.user})"
        if self.seen is not None:
            text += f", {self.seen.nnz:,} pairs seen"
        return f"Catalogue({text})"

    @cached_property
    def _number_of_id(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.item_ids)}

    @cached_property
    def number_of_user_key(self) -> np.ndarray:
        """The number of the user that each feature stands for; -1 for others."""
        numbers = np.full(self.items.shape[1], -1, np.int32)
        numbers[self.user_keys] = np.arange(self.num_users)
        return numbers

    @cached_property
    def number_of_key(self) -> np.ndarray:
        """The number of the item that each feature stands for; -1 for others."""
        known = self.item_keys >= 0
        numbers = np.full(self.items.shape[1], -1, np.int32)
        numbers[self.item_keys[known]] = np.flatnonzero(known)
        return numbers

    def find(self, item: Any) -> int | None:
        """Return the number of the item with an id (a text or a number); None if there is none.

        Ids are read as training reads them: 1.0 is "1" (see ``fm.formats.cells``).
        """
        if type(item) is str and item in self._number_of_id:  # as most are spelled
            return self._number_of_id[item]
        try:
            return self._number_of_id.get(text_of(item) or "")  # no item is called ""
        except ValueError:  # a list, ...
            return None

    def item_number(self, item: Any) -> int:
        """Return the number of an item from its id; see :meth:`find`.

        Raises
        ------
        DataError
            If there is no such item.
        """
        number = self.find(item)
        if number is None:
            from difflib import get_close_matches

            close = get_close_matches(str(item), list(self.item_ids[:5000]), n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"{self.item}: expected one of the {self.num_items} items of the model, found "
                f"{item!r}{meant}"
            )
        return number

    def item_numbers(self, items: Iterable[Any]) -> np.ndarray:
        """Return the numbers of items from their ids, int32; see :meth:`item_number`."""
        return np.fromiter((self.item_number(item) for item in items), np.int32)

    def rows_of_keys(self, X: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the user and that of the item of each row, int32; -1: none.

        Raises
        ------
        DataError
            If a row holds more than one user or item.
        """
        return (
            _one_of_each_row(X, self.number_of_user_key, self.user or "user"),
            _one_of_each_row(X, self.number_of_key, self.item),
        )

    def widened(self, num_features: int) -> Catalogue:
        """Return the catalogue for a model with more features, which belong to no item."""
        more = num_features - self.items.shape[1]
        if more <= 0:
            return self
        items = csr(
            self.items.data, self.items.indices, self.items.indptr, (self.num_items, num_features)
        )
        return dataclasses.replace(self, items=items, item_side=np.pad(self.item_side, (0, more)))

    def contexts(self, X: sp.csr_matrix) -> sp.csr_matrix:
        """Return the rows of X without their item side."""
        return without(X, self.item_side)


def _one_of_each_row(X: sp.csr_matrix, numbers: np.ndarray, name: str) -> np.ndarray:
    """Return the number of the user (or item) in each row; -1 where there is none.

    `numbers` holds the number of each feature; -1 for features that are no user (or item).
    """
    found = numbers[X.indices]
    at = np.flatnonzero(found >= 0)
    rows = np.searchsorted(X.indptr, at, side="right") - 1
    zero = X.data[at] == 0
    if zero.any():  # a stored zero, which switches its feature off, counts only if it is alone
        others = np.bincount(rows[~zero], minlength=X.shape[0])
        keep = ~zero | (others[rows] == 0)
        at, rows = at[keep], rows[keep]
    if rows.size and (twice := rows[1:][np.diff(rows) == 0]).size:
        raise DataError(
            f"row {twice[0] + 1}: expected one feature of {name} in a row, found more than one; "
            "name a column (or range) with one value in each row"
        )
    result = np.full(X.shape[0], -1, np.int32)
    result[rows] = found[at]
    return result
