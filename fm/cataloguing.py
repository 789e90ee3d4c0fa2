"""The catalogue of training data: what is an item, what describes it, and who met what.

Decided here: which columns describe items and users if nobody says so, and what becomes of a
catalogue when training goes on with other rows. Not decided here: what a catalogue is
(``fm.catalogue``). Floor 1.

Unless they are named, the columns are found so: the item and the user by the names in
:data:`fm.catalogue.ITEM_NAMES` and :data:`fm.catalogue.USER_NAMES`; a column describes the item if
the rows of an item have the same value in it, and those of a user have not. Columns with one value
in the rows of each user belong to the user: who asks for user 42 need not say how old that user is.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from fm.catalogue import (
    FIELD_RANGE,
    ITEM_NAMES,
    USER_NAMES,
    Catalogue,
    FeatureIds,
    Field,
    csr,
    field_of,
)
from fm.dataset import Dataset
from fm.errors import ConfigError

_BLOCK = 1 << 18  # rows looked at together
_ENOUGH = 1000  # rows of groups of two or more, to tell what is alike within a group
_FEW = 0.01  # part of them that may differ by mistake

log = logging.getLogger("fm")


def catalogue_of(
    data: Dataset,
    *,
    item: str | None = None,
    user: str | None = None,
    item_columns: str | Sequence[str] | None = None,
    keep_seen: bool = True,
) -> Catalogue | None:
    """Return the catalogue of training data, or None if no column is known as the item's.

    Parameters
    ----------
    data : Dataset
    item, user : str, optional
        A column, or a range of features ``"first:end"`` (the end is not in it). Not given: see the
        module. For libffm, the number of the field.
    item_columns : name or sequence of them, optional
        The columns that describe an item. Not given: see the module.
    keep_seen : bool
        Whether to remember which user met which item.

    Raises
    ------
    ConfigError
        If a column does not exist or has no values of its own.
    DataError
        If a row holds two items or users.

    Examples
    --------
    >>> from fm.reading import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> catalogue_of(data)
    Catalogue(2 items (film), 2 users (user), 3 pairs seen)
    """
    by_item, by_user = (
        field_of(data, "item", item, ITEM_NAMES),
        field_of(data, "user", user, USER_NAMES),
    )
    if by_item is None:
        if item_columns:
            raise ConfigError("item_columns: expected item too, the column that they describe")
        return None
    if by_user is not None and np.intersect1d(by_item.features, by_user.features).size:
        raise ConfigError(f"user, item: expected two columns, found {by_item.name} for both")
    users, items = _bare(data, by_item, by_user).rows_of_keys(data.X)
    of_item, of_user = _describing(data, by_item, by_user, users, items, item_columns)
    return _filled(data, by_item, by_user, of_item, of_user, keep_seen=keep_seen)


def continued(old: Catalogue, data: Dataset) -> Dataset:
    """Return data with the catalogue of a training that goes on with them from another's model.

    The columns that describe items and users are those of `old`. What the rows say of an item or a
    user takes the place of what was known; what they do not meet stays. Who met what is the union,
    unless the data were read with ``keep_seen=False``. Data whose catalogue is of other columns
    keep it: they begin anew.

    Parameters
    ----------
    old : Catalogue
        That of the model; of as many features as `data`, or fewer.
    data : Dataset

    Examples
    --------
    >>> from fm.reading import read
    >>> first = read({"user": [1, 2], "film": ["A", "B"]})
    >>> more = read({"user": [1, 1], "film": ["A", "B"]}, encoder=first.encoder)
    >>> continued(first.catalogue, more).catalogue
    Catalogue(2 items (film), 2 users (user), 3 pairs seen)
    """
    new, names = data.catalogue, (old.item, old.user) if old.user else (old.item,)
    if new is not None and (new.item, new.user) != (old.item, old.user):
        return data
    known = all(FIELD_RANGE.fullmatch(name) or name in data.field_names for name in names)
    if not known or old.items.shape[1] > data.num_features:
        return data  # rows of another kind: whether the model suits them is for others to say
    old = old.widened(data.num_features)
    by_item = field_of(data, "item", old.item, ())
    by_user = field_of(data, "user", old.user, ()) if old.user else None
    assert by_item is not None
    of_item = [data.field_names.index(name) for name in old.item_columns]
    of_user = [data.field_names.index(name) for name in old.user_columns]
    keep = old.seen is not None if new is None else new.seen is not None
    made = _filled(data, by_item, by_user, of_item, of_user, keep_seen=keep)
    if made.items.shape != old.items.shape or made.user_keys.size != old.user_keys.size:
        return data
    users, items = made.rows_of_keys(data.X)
    seen = made.seen
    if seen is not None and old.seen is not None:
        seen = (seen + old.seen).tocsr()
        seen.sort_indices()
    rows = made.users
    if rows is not None and old.users is not None:
        rows = _instead(old.users, rows, users)
    joined = dataclasses.replace(
        made, items=_instead(old.items, made.items, items), users=rows, seen=seen
    )
    return dataclasses.replace(data, catalogue=joined)


def _instead(old: sp.csr_matrix, new: sp.csr_matrix, met: np.ndarray) -> sp.csr_matrix:
    """Return old with those rows from new whose numbers are met; -1 is none."""
    at = np.arange(old.shape[0])
    at[met[met >= 0]] += old.shape[0]
    rows = sp.vstack([old, new], format="csr")[at]
    return csr(rows.data, rows.indices, rows.indptr, old.shape)


def _bare(data: Dataset, by_item: Field, by_user: Field | None) -> Catalogue:
    """Return a catalogue that knows the features of items and users, and nothing of them."""
    keys = by_item.features
    user_keys = by_user.features if by_user else np.zeros(0, np.int32)
    side = np.zeros(data.num_features, bool)
    side[by_item.all_features] = True
    return Catalogue(
        sp.csr_matrix((keys.size, data.num_features), dtype=np.float32),
        keys, FeatureIds(keys, data.encoder), side, by_item.name,
        by_user.name if by_user else "", user_keys,
    )  # fmt: skip


def _filled(
    data: Dataset,
    by_item: Field,
    by_user: Field | None,
    of_item: list[int],
    of_user: list[int],
    *,
    keep_seen: bool,
) -> Catalogue:
    """Return the catalogue, given the numbers of the fields that describe items and users."""
    bare = _bare(data, by_item, by_user)
    users, items = bare.rows_of_keys(data.X)
    side = bare.item_side
    for field in of_item:
        side[data.fields == field] = True
    user_rows = None
    if of_user:
        chosen = np.isin(np.asarray(data.fields), of_user)
        user_rows = _side_rows(data.X, users, chosen, bare.num_users)
    seen = None
    if keep_seen and by_user is not None:
        both = (users >= 0) & (items >= 0)
        pairs = np.unique(users[both].astype(np.int64) * bare.num_items + items[both])
        counts = np.bincount(pairs // bare.num_items, minlength=bare.num_users)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        indices = (pairs % bare.num_items).astype(np.int32)
        seen = csr(np.ones(pairs.size, bool), indices, indptr, (bare.num_users, bare.num_items))
    return dataclasses.replace(
        bare,
        items=_item_rows(data.X, bare.item_keys, items, side),
        item_side=side,
        seen=seen,
        item_columns=tuple(data.field_names[field] for field in of_item),
        users=user_rows,
        user_columns=tuple(data.field_names[field] for field in of_user),
    )


def _describing(
    data: Dataset,
    by_item: Field,
    by_user: Field | None,
    users: np.ndarray,
    items: np.ndarray,
    named: str | Sequence[str] | None,
) -> tuple[list[int], list[int]]:
    """Return the numbers of the fields that describe an item, and of those that do a user."""
    taken = [field.number for field in (by_item, by_user) if field is not None]
    numbers: list[int] = []
    for name in [named] if isinstance(named, str) else named or ():
        if data.fields is None or name not in data.field_names:
            known = ", ".join(data.field_names) or "none"
            raise ConfigError(
                f"item_columns: expected some of the columns ({known}), found {name!r}"
            )
        if data.field_names.index(name) in taken:
            raise ConfigError(f"item_columns: {name} is the user or the item itself")
        numbers.append(data.field_names.index(name))
    if data.fields is None or not data.field_names or None in taken:
        return numbers, []
    others = [f for f in range(len(data.field_names)) if f not in taken and f not in numbers]
    if not others:
        return numbers, []
    in_user = np.zeros(len(data.field_names), bool)
    if by_user is not None:
        in_user = _alike_within(data, users, by_user.features.size) >= 0
    if named is None:
        differ = _alike_within(data, items, by_item.features.size)
        numbers = [field for field in others if differ[field] >= 0 and not in_user[field]]
        if numbers:
            names = ", ".join(data.field_names[field] for field in numbers)
            log.info("the columns that describe %s: %s", by_item.name, names)
        for field in numbers:
            if differ[field]:
                log.warning(
                    "%s: taken to describe %s, though it differs in %d of %d rows from others of "
                    "the same %s; name item_columns to settle it",
                    data.field_names[field], by_item.name, differ[field], data.num_rows,
                    by_item.name,
                )  # fmt: skip
    return numbers, [field for field in others if in_user[field] and field not in numbers]


def _alike_within(data: Dataset, groups: np.ndarray, count: int) -> np.ndarray:
    """Return, for each field, in how many rows it differs from the first row of their group.

    -1 where it is not one of the group: if more rows differ than a few mistakes make (1%, and a
    tenth of what groups of random rows would have). Entries are compared by the sum of random
    numbers, one for each feature. Of groups with one row nothing can be told; if most rows are in
    such groups, nothing is.
    """
    num_fields = len(data.field_names)
    sizes = np.bincount(groups[groups >= 0], minlength=count)
    told = int(sizes[sizes > 1].sum())
    if told * 2 < len(groups) and told < _ENOUGH:
        return np.full(num_fields, -1)
    marks = np.random.default_rng(0).random(data.num_features)
    first = np.full((count, num_fields), np.nan)
    differ = np.zeros(num_fields, np.int64)
    X, fields = data.X, data.fields
    assert fields is not None
    for start in range(0, X.shape[0], _BLOCK):
        indptr = X.indptr[start : start + _BLOCK + 1]
        part = slice(indptr[0], indptr[-1])
        rows = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
        features = X.indices[part]
        sums = np.bincount(
            rows * num_fields + fields[features],
            marks[features] * X.data[part],
            (indptr.size - 1) * num_fields,
        ).reshape(-1, num_fields)
        group = groups[start : start + _BLOCK]
        sums, group = sums[group >= 0], group[group >= 0]
        new, at = np.unique(group, return_index=True)
        new_at = at[np.isnan(first[new, 0])]
        first[group[new_at]] = sums[new_at]
        differ += (first[group] != sums).sum(axis=0)
    for field in np.flatnonzero(differ):
        values, sizes_of = np.unique(first[sizes > 0, field], return_inverse=True)
        most = np.bincount(sizes_of.reshape(-1), sizes[sizes > 0], values.size).max()
        if differ[field] > min(_FEW * told, 0.1 * (sizes.sum() - most)):
            differ[field] = -1
    return differ


def _item_rows(
    X: sp.csr_matrix, keys: np.ndarray, items: np.ndarray, side: np.ndarray
) -> sp.csr_matrix:
    """Return the item side of each item: as in its last row, or its own feature alone."""
    rows = _side_rows(X, items, side, keys.size)
    bare = np.diff(rows.indptr) == 0
    lengths = np.diff(rows.indptr) + bare
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices, data = np.empty(indptr[-1], np.int32), np.ones(indptr[-1], np.float32)
    from_rows = ~np.repeat(bare, lengths)
    indices[from_rows], data[from_rows] = rows.indices, rows.data
    indices[~from_rows] = keys[bare]
    return csr(data, indices, indptr, rows.shape)


def _side_rows(
    X: sp.csr_matrix, numbers: np.ndarray, side: np.ndarray, count: int
) -> sp.csr_matrix:
    """Return one side of each user or item as in its last row; nothing if it has none."""
    last = np.full(count, -1, np.int64)
    at = np.flatnonzero(numbers >= 0)
    last[numbers[at]] = at  # of repeated places, numpy keeps the last value
    met = np.flatnonzero(last >= 0)
    rows = X[last[met]]
    keep = side[rows.indices]
    owner = np.repeat(met, np.diff(rows.indptr))[keep]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    return csr(rows.data[keep], rows.indices[keep], indptr, (count, X.shape[1]))
