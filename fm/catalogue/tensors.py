"""Tensors: how a model file keeps a catalogue.

Decided here: the catalogue's part of the file. Not decided here: the rest (``fm.model.file``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.catalogue.fields import FeatureIds, Features, field_of
from fm.errors import DataError
from fm.sparse import csr


def to_tensors(catalogue: Catalogue) -> dict[str, np.ndarray]:
    """Return the arrays that a model file keeps; :func:`from_file` reads them."""
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
    """Return the rest of what a model file keeps, in a form that JSON can hold."""
    return {
        "item": catalogue.item,
        "user": catalogue.user,
        "item_columns": list(catalogue.item_columns),
        "user_columns": list(catalogue.user_columns),
    }


_NOTES = {"item": str, "user": str, "item_columns": list, "user_columns": list}


def from_file(tensors: Mapping[str, np.ndarray], notes: Any, features: Features) -> Catalogue:
    """Return the catalogue of a model file, given what else the file says of the features.

    Raises
    ------
    DataError, ConfigError
        If the parts do not belong together.
    """
    if not isinstance(notes, dict) or not all(
        isinstance(notes.get(name), kind) for name, kind in _NOTES.items()
    ):
        raise DataError(f"catalogue: expected an object with {', '.join(_NOTES)}")
    by_item = field_of(features, "item", notes["item"], ())
    by_user = field_of(features, "user", notes["user"], ()) if notes["user"] else None
    assert by_item is not None
    keys = by_item.features
    user_keys = by_user.features if by_user else np.zeros(0, np.int32)
    items = _checked(tensors, "item", keys.size, features.num_features)
    users = None
    if "user_rows" in tensors:
        users = _checked(tensors, "user", user_keys.size, features.num_features)
    seen = None
    if "seen_users" in tensors:
        seen = _checked(tensors, "seen", user_keys.size, keys.size)
        seen.data = np.ones(seen.indices.size, bool)
    side = np.zeros(features.num_features, bool)
    side[by_item.all_features] = True
    columns = tuple(map(str, notes["item_columns"]))
    for name in columns:
        if features.fields is None or name not in features.field_names:
            raise DataError(f"catalogue: no column {name!r}, but item_columns names it")
        side[features.fields == features.field_names.index(name)] = True
    return Catalogue(
        items, keys, FeatureIds(keys, features.encoder), side, by_item.name,
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
