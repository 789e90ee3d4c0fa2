"""Contexts: who or what is recommended for -> rows of features without an item. Floor 2.

Decided here: what a context may be given as, and whose it is. Not decided here: what is recommended
(``fm.recommender``).

**A context** is a mapping of column names to values, such as ``{"user": 7, "hour": 20}``. Of the
columns that it leaves out, those that describe a known user are as in the training data, and the
others are unknown; columns of the item are ignored. The id of a user alone (a text
or an integer) stands for ``{user column: id}``. For a model without an encoder a user's id is the
number of the feature. An unknown user is served as the model serves unknown users. Many contexts
are a list of these, a frame or Arrow table, a path (``pathlib``) of a file, or a sparse
matrix of features.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from fm.catalogue import Catalogue, FeatureIds, entries_of
from fm.dataset import Dataset, checked_csr
from fm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fm.model import Model

_ID = (str, int, np.integer)


class Contexts:
    """Reads the contexts of a model with a catalogue.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> from fm.model import Model
    >>> from fm.reading import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> model = Model(2, [0] * 6, [[0]] * 6, TrainConfig(num_factors=1), encoder=data.encoder)
    >>> contexts = Contexts(model, data.catalogue)
    >>> X = contexts.read([2, "a stranger"])
    >>> X.toarray().astype(int).tolist()
    [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    >>> contexts.users_of(X).tolist()
    [1, -1]
    """

    def __init__(self, model: Model, catalogue: Catalogue) -> None:
        self.model = model
        self.catalogue = catalogue

    @property
    def user_ids(self) -> Sequence[str]:
        """What the users of the training data are called, in the order of their features."""
        encoder = self.model.encoder if self._user_is_column else None
        return FeatureIds(self.catalogue.user_keys, encoder)

    def read(self, rows: Any) -> sp.csr_matrix:
        """Return contexts (see the module) as rows of features, without the item side.

        Raises
        ------
        DataError
            If they cannot be read.
        ConfigError
            If they are users' ids and the catalogue has no user column.
        """
        return self.catalogue.contexts(self._rows(rows))

    def _rows(self, rows: Any) -> sp.csr_matrix:
        if isinstance(rows, Dataset) or sp.issparse(rows):
            return self.model.as_dataset(rows).X
        if isinstance(rows, (Mapping, *_ID)):
            rows = [rows]
        if isinstance(rows, np.ndarray) and rows.ndim == 1:
            rows = rows.tolist()
        if isinstance(rows, (list, tuple)):
            if not len(rows):
                return sp.csr_matrix((0, self.model.num_features), dtype=np.float32)
            if isinstance(rows[0], _ID):
                return self.of_users(rows)
            if isinstance(rows[0], Mapping):
                return self._of_mappings(rows)
        if hasattr(rows, "columns") or hasattr(rows, "schema") or isinstance(rows, os.PathLike):
            return self._encoder().transform(rows, columns=self._context_columns)
        raise DataError(
            "context: expected a user's id, a mapping of columns to values, a list of either, a "
            f"frame, a path or a sparse matrix, found {type(rows).__name__}"
        )

    def _encoder(self) -> Any:
        if self.model.encoder is None:
            raise DataError(
                "context: the model was trained on feature numbers and has no encoder for named "
                f"columns; pass user ids or a sparse matrix of {self.model.num_features} features"
            )
        return self.model.encoder

    def _of_mappings(self, rows: Sequence[Mapping[str, Any]]) -> sp.csr_matrix:
        X = self._encoder().encode_rows(rows, columns=self._context_columns)
        users, fields = self.catalogue.users, self._encoder().fields
        numbers = self.users_of(X)
        if users is None or not (numbers >= 0).any():
            return X
        # Of the columns that a row leaves out, those of its user are known from training.
        left_out = np.array(
            [
                [name in self.catalogue.user_columns and name not in row for name in names]
                for names, row in ((self._encoder().field_names, row) for row in rows)
            ]
        )
        left_out[numbers < 0] = False
        known = users[np.maximum(numbers, 0)]
        told = _entries_where(X, ~left_out, fields)
        return checked_csr(told + _entries_where(known, left_out, fields))

    def of_users(self, ids: Sequence[Any]) -> sp.csr_matrix:
        """Return one row for each user's id; see :meth:`read`."""
        name = self.catalogue.user
        if not name:
            raise ConfigError(
                "context: the model does not know which column is the user; pass mappings, or "
                "train it on data read with user=..."
            )
        wrong = next((i for i in ids if not isinstance(i, _ID)), None)
        if wrong is not None:
            raise DataError(f"context: expected the id of a {name}, found {wrong!r}")
        if self._user_is_column:
            return self._of_mappings([{name: i} for i in ids])
        numbers = [self._user_feature(i) for i in ids]
        X = sp.csr_matrix(
            (np.ones(len(ids)), numbers, range(len(ids) + 1)),
            shape=(len(ids), self.model.num_features),
        )
        return checked_csr(X)

    def _user_feature(self, user: Any) -> int:
        text = str(user)
        if not text.isascii() or not text.isdigit() or int(text) >= self.model.num_features:
            raise DataError(
                f"{self.catalogue.user}: expected the number of a user's feature, below "
                f"{self.model.num_features}, found {user!r}"
            )
        return int(text)

    @property
    def _user_is_column(self) -> bool:
        encoder = self.model.encoder
        return encoder is not None and self.catalogue.user in encoder.field_names

    @cached_property
    def _context_columns(self) -> list[str]:
        """The encoder's columns that are not on the item side."""
        encoder = self._encoder()
        of_item = set(np.unique(encoder.fields[self.catalogue.item_side]).tolist())
        return [name for i, name in enumerate(encoder.field_names) if i not in of_item]

    @cached_property
    def user_features(self) -> np.ndarray:
        """Which features are of the user column, that of unknown users included."""
        mask = np.zeros(self.model.num_features, bool)
        mask[self.catalogue.user_keys] = True
        if self.model.fields is not None and self.catalogue.user in self.model.field_names:
            mask[self.model.feature_indices(self.catalogue.user)] = True
        elif self._user_is_column:
            encoder = self._encoder()
            mask |= encoder.fields == encoder.field_names.index(self.catalogue.user)
        return mask

    def users_of(self, X: sp.csr_matrix) -> np.ndarray:
        """Return the number of the user in each context; -1 for strangers."""
        keys = self.catalogue.user_keys
        users = np.full(X.shape[0], -1, np.int64)
        if keys.size:
            places = np.minimum(np.searchsorted(keys, X.indices), keys.size - 1)
            at = np.flatnonzero(keys[places] == X.indices)
            users[np.searchsorted(X.indptr, at, side="right") - 1] = places[at]
        return users


def _entries_where(X: sp.csr_matrix, wanted: np.ndarray, fields: np.ndarray) -> sp.csr_matrix:
    """Return the entries of X in the fields wanted in their row (rows x fields)."""
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    return entries_of(X, wanted[rows, fields[X.indices]])
