"""Extending: a model that also knows a new user or item.

Decided here: where the new feature is inserted, and what else of the model moves. Not decided here:
how its parameters are found (``fm.recommending.folding``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp

from fm.catalogue.fields import FIELD_RANGE
from fm.errors import ConfigError, DataError
from fm.recommending.folding import Folded
from fm.sparse import without

if TYPE_CHECKING:
    from fm.catalogue.catalogue import Catalogue
    from fm.encoding.columns import Categorical
    from fm.encoding.encoder import Encoder
    from fm.scoring.machine import FactorizationMachine

M = TypeVar("M", bound="FactorizationMachine")


def with_feature(
    model: M,
    folded: Folded,
    name: Any,
    *,
    item_row: sp.csr_matrix | None = None,
    seen: Iterable[Any] = (),
) -> M:
    """Return a model that knows a new value, with the parameters that were learnt for it.

    The feature becomes the last of its field, and later features move up by one; in a model without
    an encoder it becomes the last of all. Scores of other rows stay the same.

    Parameters
    ----------
    model : FactorizationMachine
    folded : Folded
        What :func:`fold_in` returned.
    name : str or number
        The value in the data. Not used without an encoder.
    item_row : csr_matrix of one row, optional
        For a new item of a model with a catalogue: the features (of `model`) that describe it.
    seen : iterable of item ids
        For a new user of a model with a catalogue: the items that the user has seen, such as those
        that :func:`fm.recommending.folding.fold_ratings` returns.

    Raises
    ------
    ConfigError
        If the field cannot get another value: it is a numeric or hashed column, or a range of users
        or items with features after it. If `seen` is given for a value that is not a user, or the
        model does not remember what users have seen.
    DataError
        If the value is already known, or missing; if an item of `seen` is unknown.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> from fm.model.model import Model
    >>> model = Model(3.0, [0, 1], [[1], [2]], TrainConfig(num_factors=1))
    >>> with_feature(model, Folded("0:1", 0.5, np.array([1.0])), "new").predict([[0, 1, 1]])
    array([6.5], dtype=float32)
    """
    v = np.asarray(folded.v, np.float32)
    if v.shape != (model.num_factors,):
        raise DataError(
            f"with_feature: expected {model.num_factors} factors, as the model has, found an array "
            f"of shape {v.shape}"
        )
    met = _met(model.catalogue, folded.field, seen)
    at, encoder, fields = model.num_features, None, None
    if model.encoder is not None:
        at, encoder = _extended(model, folded.field, name)
    if model.fields is not None:
        known = folded.field in model.field_names
        number = model.field_names.index(folded.field) if known else -1
        fields = np.insert(model.fields, at, number)
    changed = dataclasses.replace(
        model,
        w=np.insert(model.w, at, folded.w),
        V=np.insert(model.V, at, v, axis=0),
        config=dataclasses.replace(model.config, feature_dim=model.num_features + 1),
        encoder=encoder,
        fields=fields,
    )
    if model.catalogue is None:
        return changed
    catalogue = _catalogue_with(model.catalogue, at, folded.field, encoder, item_row, met)
    return dataclasses.replace(changed, catalogue=catalogue)


def _extended(model: FactorizationMachine, field: str, name: Any) -> tuple[int, Any]:
    """Return the number of the new feature, and an encoder with it."""
    from fm.encoding.columns import Categorical, Vocabulary
    from fm.encoding.encoder import Encoder
    from fm.formats.cells import text_of, wrong_cell

    assert model.encoder is not None
    if field not in model.encoder.field_names:
        raise ConfigError(
            f"field: expected a column of the model ({', '.join(model.encoder.field_names)}), "
            f"found {field!r}"
        )
    place = model.encoder.field_names.index(field)
    column = model.encoder.columns[place]
    if not isinstance(column, Categorical) or not isinstance(column.values, Vocabulary):
        kind = "hashed" if isinstance(column, Categorical) else column.kind
        raise ConfigError(
            f"field: expected a column that keeps its values, found {field}, which is {kind}"
        )
    try:
        text = text_of(name)
    except ValueError as err:
        raise wrong_cell("with_feature", field, column.kind, name) from err
    if text is None or column.values.find(text):
        found = "a missing value" if text is None else f"{text!r}, which the model knows"
        raise DataError(f"with_feature: expected a new value of {field}, found {found}")
    longer: Categorical = dataclasses.replace(
        column, values=Vocabulary((*column.values.values, text))
    )
    columns = list(model.encoder.columns)
    columns[place] = longer
    return sum(c.width for c in columns[: place + 1]) - 1, Encoder(columns, model.encoder.target)


def _met(catalogue: Catalogue | None, field: str, seen: Iterable[Any]) -> np.ndarray:
    """Return the numbers of the items that a new user has seen, ascending."""
    items = list(seen)
    if not items:
        return np.zeros(0, np.int32)
    if catalogue is None or catalogue.seen is None or field != catalogue.user:
        raise ConfigError(
            "seen: expected a new user of a model that remembers which items users have seen, "
            f"found a new value of {field}; leave seen out, and name the items in exclude= when "
            "recommending"
        )
    return np.unique(catalogue.item_numbers(items))


def _catalogue_with(
    old: Catalogue,
    at: int,
    field: str,
    encoder: Encoder | None,
    item_row: sp.csr_matrix | None,
    met: np.ndarray,
) -> Catalogue:
    """Return the catalogue after feature `at` of a field was inserted."""
    from fm.catalogue.fields import FeatureIds

    n, seen, name = old.items.shape[1] + 1, old.seen, field
    users = None if old.users is None else _moved(old.users, at)
    items = _moved(old.items, at)
    item_keys, user_keys = (keys + (keys >= at) for keys in (old.item_keys, old.user_keys))
    match = FIELD_RANGE.fullmatch(field) if encoder is None else None
    if match and field in (old.item, old.user):
        if int(match[2]) != at:
            raise ConfigError(
                f"with_feature: the features {field} are followed by others and cannot get one "
                "more; train on named columns, or use what was folded in without a new model"
            )
        name = f"{match[1]}:{n}"
    if field == old.item:
        item_keys = np.append(item_keys, at)
        items, seen = _one_item_more(old, items, seen, at, item_row)
    elif field == old.user:
        user_keys = np.append(user_keys, at)
        users, seen = _one_user_more(users, seen, met)
    return dataclasses.replace(
        old,
        items=items,
        item_keys=item_keys.astype(np.int32),
        item_ids=FeatureIds(item_keys, encoder),
        item_side=np.insert(old.item_side, at, field == old.item or field in old.item_columns),
        item=name if field == old.item else old.item,
        user=name if field == old.user else old.user,
        user_keys=user_keys.astype(np.int32),
        users=users,
        seen=seen,
    )


def _one_item_more(
    old: Catalogue,
    items: sp.csr_matrix,
    seen: sp.csr_matrix | None,
    at: int,
    item_row: sp.csr_matrix | None,
) -> tuple[sp.csr_matrix, sp.csr_matrix | None]:
    """Return items and pairs seen with a new item of feature `at`, which nobody has seen."""
    own = sp.csr_matrix(([1.0], ([0], [at])), shape=(1, items.shape[1]), dtype=np.float32)
    if item_row is not None:
        described = old.item_side.copy()
        described[old.item_keys[old.item_keys >= 0]] = False
        own = own + _moved(without(sp.csr_matrix(item_row), ~described), at)
    if seen is not None:
        shape = seen.shape[0], seen.shape[1] + 1
        seen = sp.csr_matrix((seen.data, seen.indices, seen.indptr), shape)
    return sp.vstack([items, own], format="csr", dtype=np.float32), seen


def _one_user_more(
    users: sp.csr_matrix | None, seen: sp.csr_matrix | None, met: np.ndarray
) -> tuple[sp.csr_matrix | None, sp.csr_matrix | None]:
    """Return users and pairs seen with a new user, about whom only the items met are known."""
    if users is not None:
        indptr = np.append(users.indptr, users.indptr[-1])
        users = sp.csr_matrix(
            (users.data, users.indices, indptr), (users.shape[0] + 1, users.shape[1])
        )
    if seen is not None:
        own = sp.csr_matrix((np.ones(met.size, bool), met, [0, met.size]), (1, seen.shape[1]))
        seen = sp.vstack([seen, own], format="csr")
    return users, seen


def _moved(X: sp.csr_matrix, at: int) -> sp.csr_matrix:
    """Return X with an empty column before column `at`."""
    indices = X.indices + (X.indices >= at).astype(X.indices.dtype)
    return sp.csr_matrix((X.data, indices, X.indptr), shape=(X.shape[0], X.shape[1] + 1))
