"""The catalogue of training data: what is an item, what describes it, and who met what.

Decided here: which columns describe items and users if nobody says so, and what becomes of a
catalogue when training goes on with other rows. Not decided here: what a catalogue is
(``fm.catalogue.catalogue``). Floor 1.

Unless they are named, the columns are found so: the item and the user by the names in
:data:`fm.catalogue.catalogue.ITEM_NAMES` and :data:`fm.catalogue.catalogue.USER_NAMES`; a column
describes the item if the rows of an item have the same value in it, and those of a user have not.
Columns with one value in the rows of each user belong to the user: who asks for user 42 need not
say how old that user is.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import (
    FIELD_RANGE,
    ITEM_NAMES,
    USER_NAMES,
    Catalogue,
    FeatureIds,
    Field,
    csr,
    csr_of_entries,
    field_of,
)
from fm.data.dataset import Dataset
from fm.encoding.columns import sorted_unique
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
        Whether to remember which user met which item (see :func:`fm.read`).

    Raises
    ------
    ConfigError
        If a column does not exist or has no values of its own.
    DataError
        If a row holds two items or users.

    Examples
    --------
    >>> from fm.reading.read import read
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
    bare = _bare(data, by_item, by_user)
    met = bare.rows_of_keys(data.X)
    of_item, of_user, usual = _describing(data, by_item, by_user, *met, item_columns)
    return _filled(data, bare, met, of_item, of_user, usual, keep_seen=keep_seen)


def continued(old: Catalogue, data: Dataset) -> Dataset:
    """Return data with the catalogue of a training that goes on with them from another's model.

    The columns that describe items and users are those of `old`. What the rows say of an item or a
    user takes the place of what was known; what they do not say stays. Who met what is the union,
    unless the data were read with ``keep_seen=False`` (and ``item=``, where its name is not a usual
    one). Data whose catalogue is of another column of items or users keep it: they begin anew.

    Parameters
    ----------
    old : Catalogue
        That of the model; of as many features as `data`, or fewer.
    data : Dataset

    Examples
    --------
    >>> from fm.reading.read import read
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
    if new is not None and set(new.item_columns) - set(old.item_columns):
        log.warning(
            "item_columns: %s describe %s in these rows; training goes on with those of the model "
            "(%s)",
            ", ".join(new.item_columns), old.item, ", ".join(old.item_columns) or "none",
        )  # fmt: skip
    keep = old.seen is not None if new is None else new.seen is not None
    bare = _bare(data, by_item, by_user)
    if bare.items.shape != old.items.shape or bare.num_users != old.num_users:
        return data
    users, items = bare.rows_of_keys(data.X)
    made = _filled(data, bare, (users, items), of_item, of_user, None, keep_seen=keep)
    seen = made.seen
    if seen is not None and old.seen is not None:
        seen = (seen + old.seen).tocsr()
        seen.sort_indices()
    rows = made.users
    if rows is not None and old.users is not None:
        rows = _instead(old.users, rows, users, data)
    joined = dataclasses.replace(
        made, items=_instead(old.items, made.items, items, data), users=rows, seen=seen
    )
    return dataclasses.replace(data, catalogue=joined)


def _instead(
    old: sp.csr_matrix, new: sp.csr_matrix, met: np.ndarray, data: Dataset
) -> sp.csr_matrix:
    """Return old with what new says in the rows met (numbers; -1 is none), field by field.

    A field that is unknown in the new row stays as it was: an empty cell says nothing.
    """
    fields, unknown = np.zeros(old.shape[1], np.int64), np.zeros(old.shape[1], bool)
    if data.fields is not None and data.field_names:
        fields = np.asarray(data.fields)
    if data.encoder is not None:
        unknown[data.encoder.unknown_features] = True
    taken = np.zeros(old.shape[0], bool)
    taken[met[met >= 0]] = True
    rows, places = [], []  # of the entries of both: their rows, and where in their fields they are
    for X in (old, new):
        rows.append(np.repeat(np.arange(X.shape[0]), np.diff(X.indptr)))
        places.append((rows[-1], fields[X.indices]))
    known, told = np.zeros((2, old.shape[0], int(fields.max(initial=0)) + 1), bool)
    known[places[0]] = True
    silent = unknown[new.indices]
    told[places[1][0][~silent], places[1][1][~silent]] = True
    told |= ~known  # nothing was known: even the unknown feature is more
    told &= taken[:, None]
    keep_old, keep_new = ~told[places[0]], told[places[1]]
    row = np.concatenate([rows[0][keep_old], rows[1][keep_new]])
    indices = np.concatenate([old.indices[keep_old], new.indices[keep_new]])
    values = np.concatenate([old.data[keep_old], new.data[keep_new]])
    return csr_of_entries(row, indices, values, old.shape)


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
    bare: Catalogue,
    met: tuple[np.ndarray, np.ndarray],
    of_item: list[int],
    of_user: list[int],
    usual: np.ndarray | None,
    *,
    keep_seen: bool,
) -> Catalogue:
    """Return the catalogue, given the numbers of the fields that describe items and users.

    `met` are the user and the item of each row; `usual` says which rows describe their item as most
    of its rows do; None: all.
    """
    users, items = met
    side = bare.item_side.copy()
    for field in of_item:
        side[data.fields == field] = True
    user_rows = None
    if of_user:
        chosen = np.isin(np.asarray(data.fields), of_user)
        user_rows = _side_rows(data.X, users, chosen, bare.num_users)
    seen = None
    if keep_seen and bare.user:
        both = (users >= 0) & (items >= 0)
        pairs = sorted_unique(users[both].astype(np.int64) * bare.num_items + items[both])
        counts = np.bincount(pairs // bare.num_items, minlength=bare.num_users)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        indices = (pairs % bare.num_items).astype(np.int32)
        seen = csr(np.ones(pairs.size, bool), indices, indptr, (bare.num_users, bare.num_items))
    return dataclasses.replace(
        bare,
        items=_item_rows(data.X, bare.item_keys, items, side, usual),
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
) -> tuple[list[int], list[int], np.ndarray | None]:
    """Return the numbers of the fields that describe an item, and of those that do a user.

    And which rows describe their item as most of its rows do; None: all.
    """
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
        return numbers, [], None
    others = [f for f in range(len(data.field_names)) if f not in taken and f not in numbers]
    if not others:
        return numbers, [], None
    of_user: dict[int, np.ndarray] = {}
    if by_user is not None:
        of_user = _alike_within(data, users, by_user.features.size)
    usual = None
    if named is None:
        of_item = _alike_within(data, items, by_item.features.size)
        numbers = [field for field in others if field in of_item and field not in of_user]
        if numbers:
            names = ", ".join(data.field_names[field] for field in numbers)
            log.info("the columns that describe %s: %s", by_item.name, names)
        for field in numbers:
            if odd := int(of_item[field].sum()):
                usual = ~of_item[field] if usual is None else usual & ~of_item[field]
                log.warning(
                    "%s: taken to describe %s, though it differs in %d of %d rows from most rows "
                    "of the same %s; name item_columns to settle it",
                    data.field_names[field], by_item.name, odd, data.num_rows, by_item.name,
                )  # fmt: skip
    return numbers, [field for field in others if field in of_user and field not in numbers], usual


def _alike_within(data: Dataset, groups: np.ndarray, count: int) -> dict[int, np.ndarray]:
    """Return the fields that are one in the rows of a group, each with the rows that are odd.

    A few rows may differ from most of their group, as by mistake: 1% of them, and a tenth of those
    that would differ in groups of random rows. Of groups with one row nothing can be told; if most
    rows are in such groups, nothing is. Entries are compared by the sum of random numbers, one for
    each feature.
    """
    num_fields = len(data.field_names)
    sizes = np.bincount(groups[groups >= 0], minlength=count)
    told = int(sizes[sizes > 1].sum())
    if not told or told * 2 < len(groups) and told < _ENOUGH:
        return {}
    first = np.full((count, num_fields), np.nan)
    differ = np.zeros(num_fields, np.int64)  # rows, from the first one of their group
    for start, sums in _sums(data):
        group = groups[start : start + _BLOCK]
        sums, group = sums[group >= 0], group[group >= 0]
        new, at = np.unique(group, return_index=True)
        new_at = at[np.isnan(first[new, 0])]
        first[group[new_at]] = sums[new_at]
        differ += (first[group] != sums).sum(axis=0)
    alike = {}
    for field in range(num_fields):
        if not differ[field]:
            alike[field] = np.zeros(len(groups), bool)
            continue
        by_chance = _by_chance(first[sizes > 0, field], sizes[sizes > 0])
        if differ[field] > 0.5 * by_chance:
            continue  # far from alike; the first rows may be the odd ones, but not of most groups
        odd = _odd(groups, np.concatenate([sums[:, field] for _, sums in _sums(data)]))
        if odd.sum() <= min(_FEW * told, 0.1 * by_chance):
            alike[field] = odd
    return alike


def _sums(data: Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, the sum of random numbers for each row and field), block by block."""
    num_fields = len(data.field_names)
    marks = np.random.default_rng(0).random(data.num_features)
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
        )
        yield start, sums.reshape(-1, num_fields)


def _by_chance(values: np.ndarray, sizes: np.ndarray) -> int:
    """Return how many rows do not have the most common value; each group has one of its own."""
    _, numbers = np.unique(values, return_inverse=True)
    return int(sizes.sum() - np.bincount(numbers.reshape(-1), sizes).max())


def _odd(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return which rows do not have the most common value of their group; -1 is no group."""
    order = np.lexsort((values, groups))
    group, value = groups[order], values[order]
    begins = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (value[1:] != value[:-1])])
    lengths = np.diff(np.r_[begins, group.size])
    by_length = np.lexsort((lengths, group[begins]))  # the last run of each group is its longest
    last = np.r_[group[begins][by_length][1:] != group[begins][by_length][:-1], True]
    usual = np.zeros(begins.size, bool)
    usual[by_length[last]] = True
    odd = np.empty(groups.size, bool)
    odd[order] = np.repeat(~usual, lengths)
    return odd & (groups >= 0)


def _item_rows(
    X: sp.csr_matrix,
    keys: np.ndarray,
    items: np.ndarray,
    side: np.ndarray,
    usual: np.ndarray | None,
) -> sp.csr_matrix:
    """Return the item side of each item: as in its last (usual) row, or its own feature alone."""
    rows = _side_rows(X, items, side, keys.size, usual)
    bare = np.diff(rows.indptr) == 0
    lengths = np.diff(rows.indptr) + bare
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices, data = np.empty(indptr[-1], np.int32), np.ones(indptr[-1], np.float32)
    from_rows = ~np.repeat(bare, lengths)
    indices[from_rows], data[from_rows] = rows.indices, rows.data
    indices[~from_rows] = keys[bare]
    return csr(data, indices, indptr, rows.shape)


def _side_rows(
    X: sp.csr_matrix,
    numbers: np.ndarray,
    side: np.ndarray,
    count: int,
    usual: np.ndarray | None = None,
) -> sp.csr_matrix:
    """Return one side of each user or item as in its last (usual) row; nothing if it has none."""
    last = np.full(count, -1, np.int64)
    for some in (numbers >= 0, None if usual is None else usual & (numbers >= 0)):
        if some is not None:
            at = np.flatnonzero(some)
            last[numbers[at]] = at  # of repeated places, numpy keeps the last value
    met = np.flatnonzero(last >= 0)
    rows = X[last[met]]
    keep = side[rows.indices]
    owner = np.repeat(met, np.diff(rows.indptr))[keep]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    return csr(rows.data[keep], rows.indices[keep], indptr, (count, X.shape[1]))
