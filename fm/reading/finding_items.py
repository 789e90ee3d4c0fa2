"""The catalogue of training data: what is an item, what describes it, and who met what.

Decided here: which columns describe items and users if nobody says so, and what becomes of a
catalogue when training goes on with other rows. Not decided here: what a catalogue is
(``fm.catalogue.catalogue``).

Columns that nobody names are found as follows. The item and the user are found by the names in
:data:`fm.catalogue.fields.ITEM_NAMES` and :data:`fm.catalogue.fields.USER_NAMES`. A column
describes the item if it has the same value in all rows of an item, but not in all rows of a user.
A column with the same value in all rows of a user describes the user: a request for user 42 need
not give the user's age.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.catalogue.fields import FIELD_RANGE, ITEM_NAMES, USER_NAMES, FeatureIds, Field, field_of
from fm.data.dataset import Dataset
from fm.encoding.columns import sorted_unique
from fm.errors import ConfigError
from fm.sparse import csr, csr_of_entries

_BLOCK = 1 << 18  # rows that are looked at together
_ENOUGH = 1000  # rows in groups of two or more: with so many, columns can be compared
_FEW = 0.01  # share of these rows that may differ by mistake

log = logging.getLogger("fm")


def catalogue_of(
    data: Dataset,
    *,
    item: str | None = None,
    user: str | None = None,
    item_columns: str | Sequence[str] | None = None,
    keep_seen: bool = True,
) -> Catalogue | None:
    """Return the catalogue of training data; None if no column is known to hold the items.

    Parameters
    ----------
    data : Dataset
    item, user : str, optional
        A column, or a range of features ``"first:end"`` (without the end); for libffm, the number
        of the field. Not given: see the module.
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
    by_item = field_of(data, "item", item, ITEM_NAMES)
    by_user = field_of(data, "user", user, USER_NAMES)
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
    """Return data with the catalogue that they have when training goes on from a model.

    The columns that describe items and users are those of `old`. What the rows say about an item or
    a user replaces what was known; the rest stays. The pairs seen are those of both, unless the
    data were read with ``keep_seen=False`` (and ``item=``, where the column has an unusual name).
    Data with another item or user column keep their own catalogue.

    Parameters
    ----------
    old : Catalogue
        The model's catalogue, with at most as many features as `data`.
    data : Dataset

    Examples
    --------
    >>> from fm.reading.read import read
    >>> first = read({"user": [1, 2], "film": ["A", "B"]})
    >>> more = read({"user": [1, 1], "film": ["A", "B"]}, encoder=first.encoder)
    >>> continued(first.catalogue, more).catalogue
    Catalogue(2 items (film), 2 users (user), 3 pairs seen)
    """
    if not _suits(old, data):
        return data
    old, new = old.widened(data.num_features), data.catalogue
    by_item = field_of(data, "item", old.item, ())
    by_user = field_of(data, "user", old.user, ()) if old.user else None
    assert by_item is not None
    bare = _bare(data, by_item, by_user)
    if bare.items.shape != old.items.shape or bare.num_users != old.num_users:
        return data
    if new is not None and set(new.item_columns) - set(old.item_columns):
        log.warning(
            "item_columns: %s describe %s in these rows; training goes on with those of the model "
            "(%s)",
            ", ".join(new.item_columns), old.item, ", ".join(old.item_columns) or "none",
        )  # fmt: skip
    of_item, of_user = (
        [data.field_names.index(name) for name in names]
        for names in (old.item_columns, old.user_columns)
    )
    keep = old.seen is not None if new is None else new.seen is not None
    met = bare.rows_of_keys(data.X)
    made = _filled(data, bare, met, of_item, of_user, None, keep_seen=keep)
    return dataclasses.replace(data, catalogue=_joined(old, made, met, data))


def _suits(old: Catalogue, data: Dataset) -> bool:
    """Whether the items and users of data are in the same columns, or ranges, as those of `old`.

    Whether rows of another kind suit the model at all is decided elsewhere.
    """
    names = (old.item, old.user) if old.user else (old.item,)
    if data.catalogue is not None and (data.catalogue.item, data.catalogue.user) != (
        old.item,
        old.user,
    ):
        return False
    known = all(FIELD_RANGE.fullmatch(name) or name in data.field_names for name in names)
    return known and old.items.shape[1] <= data.num_features


def _joined(
    old: Catalogue, made: Catalogue, met: tuple[np.ndarray, np.ndarray], data: Dataset
) -> Catalogue:
    """Return the catalogue made from data; what it does not say is taken from the old one."""
    users, items = met
    seen, user_rows = made.seen, made.users
    if seen is not None and old.seen is not None:
        seen = (seen + old.seen).tocsr()
        seen.sort_indices()
    if user_rows is not None and old.users is not None:
        user_rows = _instead(old.users, user_rows, users, data)
    item_rows = _instead(old.items, made.items, items, data)
    return dataclasses.replace(made, items=item_rows, users=user_rows, seen=seen)


def _instead(
    old: sp.csr_matrix, new: sp.csr_matrix, met: np.ndarray, data: Dataset
) -> sp.csr_matrix:
    """Return `old` with the fields that `new` has in the rows met; `met` are row numbers, or -1.

    A field that is unknown in the new row stays as it was: an empty cell says nothing.
    """
    fields, heard = np.zeros(old.shape[1], np.int64), np.ones(new.indices.size, bool)
    if data.fields is not None and data.field_names:
        fields = np.asarray(data.fields)
    if data.encoder is not None:
        heard = data.encoder.known_entries(new)
    taken = np.zeros(old.shape[0], bool)
    taken[met[met >= 0]] = True
    rows, places = [], []  # of each entry, in both: its row; its row and its field
    for X in (old, new):
        rows.append(np.repeat(np.arange(X.shape[0]), np.diff(X.indptr)))
        places.append((rows[-1], fields[X.indices]))
    known, told = np.zeros((2, old.shape[0], int(fields.max(initial=0)) + 1), bool)
    known[places[0]] = True
    told[places[1][0][heard], places[1][1][heard]] = True
    told |= ~known  # where nothing was known, even the feature of unknown values says more
    told &= taken[:, None]
    keep_old, keep_new = ~told[places[0]], told[places[1]]
    row = np.concatenate([rows[0][keep_old], rows[1][keep_new]])
    indices = np.concatenate([old.indices[keep_old], new.indices[keep_new]])
    values = np.concatenate([old.data[keep_old], new.data[keep_new]])
    return csr_of_entries(row, indices, values, old.shape)


def _bare(data: Dataset, by_item: Field, by_user: Field | None) -> Catalogue:
    """Return a catalogue that knows which features are items and users, but nothing about them."""
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

    `met` holds the user and the item of each row. `usual` marks the rows that describe their item
    as most of its rows do; None: all do.
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
    """Return the numbers of the fields that describe an item, and of those that describe a user.

    The third result marks the rows that describe their item as most of its rows do; None: all do.
    """
    taken = [field.number for field in (by_item, by_user) if field is not None]
    numbers = _numbers_of(data, [named] if isinstance(named, str) else named or (), taken)
    if data.fields is None or not data.field_names or None in taken:
        return numbers, [], None
    others = [f for f in range(len(data.field_names)) if f not in taken and f not in numbers]
    if not others:
        return numbers, [], None
    of_user, usual = {}, None
    if by_user is not None:
        of_user = _alike_within(data, users, by_user.features.size)
    if named is None:
        alike = _alike_within(data, items, by_item.features.size)
        numbers = [field for field in others if field in alike and field not in of_user]
        usual = _usual_rows(data, by_item.name, {field: alike[field] for field in numbers})
    return numbers, [field for field in others if field in of_user and field not in numbers], usual


def _numbers_of(data: Dataset, names: Sequence[str], taken: Sequence[int | None]) -> list[int]:
    """Return the numbers of the fields that the caller names as describing an item."""
    numbers = []
    for name in names:
        if data.fields is None or name not in data.field_names:
            known = ", ".join(data.field_names) or "none"
            raise ConfigError(
                f"item_columns: expected some of the columns ({known}), found {name!r}"
            )
        number = data.field_names.index(name)
        if number in taken:
            raise ConfigError(f"item_columns: {name} is the user or the item itself")
        numbers.append(number)
    return numbers


def _usual_rows(data: Dataset, item: str, odd: dict[int, np.ndarray]) -> np.ndarray | None:
    """Log which fields describe an item, and return the rows that are as most rows of their item.

    `odd` holds these fields, each with a mask of the rows that differ. None: no row differs.
    """
    if odd:
        names = ", ".join(data.field_names[field] for field in odd)
        log.info("the columns that describe %s: %s", item, names)
    usual = None
    for field, rows in odd.items():
        if count := int(rows.sum()):
            usual = ~rows if usual is None else usual & ~rows
            log.warning(
                "%s: taken to describe %s, though it differs in %d of %d rows from most rows of "
                "the same %s; name item_columns to settle it",
                data.field_names[field], item, count, data.num_rows, item,
            )  # fmt: skip
    return usual


def _alike_within(data: Dataset, groups: np.ndarray, count: int) -> dict[int, np.ndarray]:
    """Return the fields that have one value within each group, each with a mask of the odd rows.

    A few rows may differ from most rows of their group, as by mistake: at most 1% of the rows, and
    at most a tenth of those that would differ if the groups were random. Groups with one row tell
    nothing; if most rows are in such groups, no field is returned. The entries of a field are
    compared by a sum of random numbers, one for each feature.
    """
    num_fields = len(data.field_names)
    sizes = np.bincount(groups[groups >= 0], minlength=count)
    told = int(sizes[sizes > 1].sum())
    if not told or told * 2 < len(groups) and told < _ENOUGH:
        return {}
    first = np.full((count, num_fields), np.nan)
    differ = np.zeros(num_fields, np.int64)  # rows that differ from the first of their group
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
            continue  # far too many, even if the first row of some groups is the odd one
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
    """Return how many rows would differ by chance: those without the value of most rows."""
    _, numbers = np.unique(values, return_inverse=True)
    return int(sizes.sum() - np.bincount(numbers.reshape(-1), sizes).max())


def _odd(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return which rows lack the most common value of their group; group -1 is none."""
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
    """Return the item side of each item: that of its last usual row, or its own feature alone."""
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
    """Return one side of each user or item: that of its last usual row; empty if it has no row."""
    last = np.full(count, -1, np.int64)
    for some in (numbers >= 0, None if usual is None else usual & (numbers >= 0)):
        if some is not None:
            at = np.flatnonzero(some)
            last[numbers[at]] = at  # numpy keeps the last of repeated places
    met = np.flatnonzero(last >= 0)
    rows = X[last[met]]
    keep = side[rows.indices]
    owner = np.repeat(met, np.diff(rows.indptr))[keep]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    return csr(rows.data[keep], rows.indices[keep], indptr, (count, X.shape[1]))
