"""Catalogue: which features of a model are its items and its users, and who met which item.

Decided here: what of the training data is remembered for recommending, and how a model file keeps
it. Not decided here: how it is made from data (``fm.catalogue.finding``), how items are scored
(``fm.recommending.recommender``). Floor 1.

A row of the training data has two sides: the **item side** (the item's own feature and the columns
that describe it, such as genres) and the **context** (everything else: the user, the hour). To
recommend is to put the item side of every item beside one context.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from fm.data.dataset import Dataset
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.formats.cells import text_of

USER_NAMES = ("user", "user_id", "userid", "customer", "customer_id", "person", "visitor")
ITEM_NAMES = (
    "item", "item_id", "itemid", "movie", "movie_id", "movieid", "film", "product", "product_id",
    "article", "book", "isbn", "song", "track", "artist", "app", "game",
)  # fmt: skip
FIELD_RANGE = re.compile(r"(\d+):(\d+)")


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
        The features of each user's own columns, without that of `user` itself; None: no such
        columns.
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
        """Return the number of an item from its id, a text or a number; None: there is none such.

        Ids are read as training reads them: 1.0 is "1" (see ``fm.formats.cells``).
        """
        if type(item) is str and item in self._number_of_id:  # spelled as in the data: most are
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
        """Return, for each row of X, (number of its user, number of its item), int32; -1: none.

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
        """Return the catalogue for a model of more features, which are of no item."""
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
    """Return the number (>= 0) that stands in each row; -1 where none does."""
    found = numbers[X.indices]
    at = np.flatnonzero(found >= 0)
    rows = np.searchsorted(X.indptr, at, side="right") - 1
    zero = X.data[at] == 0
    if zero.any():  # a stored zero counts where it stands alone: a side that is switched off
        others = np.bincount(rows[~zero], minlength=X.shape[0])
        keep = ~zero | (others[rows] == 0)
        at, rows = at[keep], rows[keep]
    if rows.size and (twice := rows[1:][np.diff(rows) == 0]).size:
        raise DataError(
            f"row {twice[0] + 1}: expected one feature of {name} in a row, found more than one; "
            "name a column (or range) of which a row has one"
        )
    result = np.full(X.shape[0], -1, np.int32)
    result[rows] = found[at]
    return result


# -- names -----------------------------------------------------------------------------------------


class FeatureIds(Sequence[str]):
    """What features are called, made when asked for: the value of a column, else the number."""

    def __init__(self, keys: np.ndarray, encoder: Encoder | None) -> None:
        self._keys, self._encoder = keys, encoder

    def __len__(self) -> int:
        return int(self._keys.size)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        key = int(self._keys[at])
        if self._encoder is None:
            return str(key)
        return self._encoder.feature_value(key) or ""  # those of users and items have one


@dataclass
class Field:
    """Where the items or the users stand among the features."""

    name: str
    features: np.ndarray  # those that stand for one item or user
    all_features: np.ndarray  # and that of unknown ones
    number: int | None  # of the field; None: a range of features


def field_of(data: Dataset, role: str, name: str | None, guesses: Sequence[str]) -> Field | None:
    """Return the field of items or users, by its name or the first of the guesses that is one.

    Raises ConfigError, which begins with `role`, if `name` is no field that has values of its own.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"{role}: expected the name of a column, found {name!r}")
    encoder = data.encoder
    if name is None:
        if encoder is None:
            return None
        found = {c.name.lower(): c.name for c in encoder.columns if c.kind == "categorical"}
        name = next((found[guess] for guess in guesses if guess in found), None)
        if name is None or "hash_dim" in _column(encoder, name).to_dict():
            return None
    match = FIELD_RANGE.fullmatch(name)
    if match:
        first, end = int(match[1]), int(match[2])
        if not first < end <= data.num_features:
            raise ConfigError(
                f"{role}: expected a range of features in 0:{data.num_features}, found {name!r}"
            )
        features = np.arange(first, end, dtype=np.int32)
        return Field(name, features, features, None)
    if data.fields is None or name not in data.field_names:
        known = ", ".join(data.field_names) or "none; give a range of features such as 943:2625"
        raise ConfigError(f"{role}: expected one of the columns ({known}), found {name!r}")
    number = data.field_names.index(name)
    features = np.flatnonzero(data.fields == number).astype(np.int32)
    if encoder is None:
        return Field(name, features, features, number)
    column = _column(encoder, name)
    if column.kind != "categorical" or "hash_dim" in column.to_dict():
        kind = "hashed" if column.kind == "categorical" else column.kind
        raise ConfigError(
            f"{role}: expected a categorical column that keeps its values, found {name!r}, which "
            f"is {kind}"
        )
    return Field(name, features[1:], features, number)


def _column(encoder: Encoder, name: str) -> Any:
    return encoder.columns[encoder.field_names.index(name)]


def without(X: sp.csr_matrix, features: np.ndarray) -> sp.csr_matrix:
    """Return X without the entries of some features (a mask)."""
    keep = ~features[X.indices]
    indptr = np.concatenate([[0], np.cumsum(keep)])[X.indptr].astype(X.indptr.dtype)
    result = sp.csr_matrix(X.shape, dtype=X.dtype)
    result.data, result.indices, result.indptr = X.data[keep], X.indices[keep], indptr
    result.has_canonical_format = X.has_canonical_format
    return result


def csr_of_entries(
    rows: np.ndarray, indices: np.ndarray, data: np.ndarray, shape: tuple[int, int]
) -> sp.csr_matrix:
    """Return the matrix of entries in any order, no two of which are in the same place."""
    order = np.lexsort((indices, rows))
    indptr = np.searchsorted(rows[order], np.arange(shape[0] + 1))
    return csr(data[order], indices[order], indptr, shape)


def csr(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]
) -> sp.csr_matrix:
    """Return the matrix of these arrays, which are taken as they are: ascending in each row."""
    matrix = sp.csr_matrix(shape, dtype=data.dtype)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr.astype(np.int32)
    matrix.has_canonical_format = True
    return matrix


# -- in a model file -------------------------------------------------------------------------------


def to_tensors(catalogue: Catalogue) -> dict[str, np.ndarray]:
    """Return the arrays that a model file keeps; :func:`from_tensors` reads them."""
    tensors = {
        "item_rows": catalogue.items.indptr.astype(np.int32),
        "item_features": catalogue.items.indices.astype(np.int32),
        "item_values": catalogue.items.data.astype(np.float32),
    }
    if catalogue.users is not None:
        tensors["user_rows"] = catalogue.users.indptr.astype(np.int32)
        tensors["user_features"] = catalogue.users.indices.astype(np.int32)
        tensors["user_values"] = catalogue.users.data.astype(np.float32)
    if catalogue.seen is not None:
        tensors["seen_users"] = catalogue.seen.indptr.astype(np.int32)
        tensors["seen_items"] = catalogue.seen.indices.astype(np.int32)
    return tensors


def to_notes(catalogue: Catalogue) -> dict[str, Any]:
    """Return the rest of what a model file keeps, as what JSON can hold."""
    return {
        "item": catalogue.item,
        "user": catalogue.user,
        "item_columns": list(catalogue.item_columns),
        "user_columns": list(catalogue.user_columns),
    }


_NOTES = {"item": str, "user": str, "item_columns": list, "user_columns": list}


def from_file(
    tensors: Mapping[str, np.ndarray],
    notes: Any,
    num_features: int,
    encoder: Encoder | None,
    fields: np.ndarray | None,
    field_names: Sequence[str],
) -> Catalogue:
    """Return the catalogue of a model file.

    Raises
    ------
    DataError, ConfigError
        If the parts do not belong together.
    """
    if not isinstance(notes, dict) or not all(
        isinstance(notes.get(name), kind) for name, kind in _NOTES.items()
    ):
        raise DataError(f"catalogue: expected an object with {', '.join(_NOTES)}")
    data = Dataset(
        sp.csr_matrix((0, num_features), dtype=np.float32),
        fields=fields,
        field_names=tuple(field_names),
        encoder=encoder,
    )
    by_item = field_of(data, "item", notes["item"], ())
    by_user = field_of(data, "user", notes["user"], ()) if notes["user"] else None
    assert by_item is not None
    keys = by_item.features
    user_keys = by_user.features if by_user else np.zeros(0, np.int32)
    items = _checked(tensors, "item", keys.size, num_features)
    users = None
    if "user_rows" in tensors:
        users = _checked(tensors, "user", user_keys.size, num_features)
    seen = None
    if "seen_users" in tensors:
        seen = _checked(tensors, "seen", user_keys.size, keys.size)
        seen.data = np.ones(seen.indices.size, bool)
    side = np.zeros(num_features, bool)
    side[by_item.all_features] = True
    columns = tuple(map(str, notes["item_columns"]))
    for name in columns:
        if fields is None or name not in field_names:
            raise DataError(f"catalogue: no column {name!r}, which is said to describe items")
        side[fields == list(field_names).index(name)] = True
    return Catalogue(
        items, keys, FeatureIds(keys, encoder), side, by_item.name,
        by_user.name if by_user else "", user_keys, seen, columns, users,
        tuple(map(str, notes["user_columns"])),
    )  # fmt: skip


def _checked(tensors: Mapping[str, np.ndarray], name: str, rows: int, width: int) -> sp.csr_matrix:
    """Return the matrix in two tensors, after checking that it is one."""
    first, second = f"{name}_rows", f"{name}_features"
    if name == "seen":
        first, second = "seen_users", "seen_items"
    if first not in tensors or second not in tensors:
        raise DataError(f"catalogue: expected the tensors {first} and {second}")
    indptr, indices = tensors[first], tensors[second]
    right = indptr.shape == (rows + 1,) and indices.ndim == 1
    right = right and indptr[0] == 0 and indptr[-1] == indices.size
    right = right and bool((np.diff(indptr) >= 0).all())
    if not right or indices.size and not 0 <= indices.min() <= indices.max() < width:
        raise DataError(
            f"catalogue: expected {first} and {second} to be a matrix of {rows} x {width}"
        )
    values = tensors.get(f"{name}_values", np.zeros(indices.size, np.float32))
    if values.shape != indices.shape or not np.isfinite(values).all():
        raise DataError(f"catalogue: expected a finite value for each entry of {second}")
    return csr(values, indices, indptr, (rows, width))
