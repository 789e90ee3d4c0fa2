"""Contexts: who or what is recommended for -> rows of features without an item.

Decided here: which inputs are contexts, and which user a context belongs to. Not decided here: what
is recommended (``fm.recommending.recommender``).

**One context** is a mapping of column names to values, such as ``{"user": 7, "hour": 20}``, or the
id of a user (a text or a whole number), which stands for ``{user column: id}``. Columns may be left
out: those that describe a known user are then as in the training data, and the others are unknown.
Columns of the item are ignored. A user that training did not meet is the unknown user.

For a model without an encoder, the id of a user is the number of the user's feature, and the only
mapping is ``{}``, a context that says nothing.

**Many contexts** are a list, array or Series of these, a frame or Arrow table, a path (``pathlib``)
to a file, or a sparse matrix of features. A table may leave out columns, but not all of them. A
matrix is taken as it is.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.catalogue.fields import FeatureIds
from fm.catalogue.filling import encode_rows, encode_table
from fm.data.dataset import Dataset
from fm.errors import Advice, ConfigError, DataError
from fm.formats.cells import text_of
from fm.sparse import checked_csr

if TYPE_CHECKING:
    from fm.scoring.machine import FactorizationMachine


def listed(values: Any) -> Any:
    """Return a one-dimensional Series, Index or array as a list, and anything else as it is.

    Examples
    --------
    >>> listed(np.array([5.0, 6.0])), listed("ab")
    ([5.0, 6.0], 'ab')
    """
    for method in ("tolist", "to_list", "to_pylist"):  # of numpy and pandas, polars, Arrow
        if hasattr(values, method) and getattr(values, "ndim", 1) == 1:
            return getattr(values, method)()
    return values


class Contexts:
    """Reads the contexts of a model with a catalogue.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> from fm.model.model import Model
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> model = Model(2, [0] * 6, [[0]] * 6, TrainConfig(num_factors=1), encoder=data.encoder)
    >>> contexts = Contexts(model, data.catalogue)
    >>> X = contexts.read([2, "a stranger"])
    >>> X.toarray().astype(int).tolist()
    [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    """

    def __init__(self, model: FactorizationMachine, catalogue: Catalogue) -> None:
        self.model = model
        self.catalogue = catalogue

    @property
    def user_ids(self) -> Sequence[str]:
        """The ids of the users of the training data, in the order of their features."""
        encoder = self.model.encoder if self._user_is_column else None
        return FeatureIds(self.catalogue.user_keys, encoder)

    def read(self, rows: Any) -> sp.csr_matrix:
        """Return contexts (see the module) as rows of features without the item side.

        Raises
        ------
        DataError
            If they cannot be read.
        ConfigError
            If they are ids of users and the catalogue has no user column.
        """
        return self.catalogue.contexts(self._rows(rows))

    def _rows(self, rows: Any) -> sp.csr_matrix:
        if isinstance(rows, Dataset) or sp.issparse(rows):
            return self.model.as_dataset(rows).X
        if isinstance(rows, Mapping) or is_id(rows):
            rows = [rows]
        if hasattr(rows, "columns") or hasattr(rows, "schema") or isinstance(rows, os.PathLike):
            return self._of_table(rows)
        rows, found = listed(rows), type(rows).__name__
        if isinstance(rows, (list, tuple)):
            if not len(rows):
                return sp.csr_matrix((0, self.model.num_features), dtype=np.float32)
            if is_id(rows[0]):
                return self.of_users(rows)
            if isinstance(rows[0], Mapping):
                return self._of_mappings(rows)
            found += f" that begins with {reprlib.repr(rows[0])}"
        raise DataError(
            "context: expected a user's id, a mapping of columns to values, a list of either, a "
            f"frame, a path or a sparse matrix, found {found}"
        )

    def _encoder(self) -> Any:
        if self.model.encoder is None:
            raise DataError(
                "context: the model was trained on feature numbers and has no encoder for named "
                f"columns; pass user ids or a sparse matrix of {self.model.num_features} features"
            )
        return self.model.encoder

    def _of_mappings(self, rows: Sequence[Mapping[str, Any]]) -> sp.csr_matrix:
        if self.model.encoder is None and all(isinstance(row, Mapping) and not row for row in rows):
            return sp.csr_matrix((len(rows), self.model.num_features), dtype=np.float32)
        columns = self._context_columns
        return encode_rows(self._encoder(), self.catalogue, rows, columns).X

    def _of_table(self, rows: Any) -> sp.csr_matrix:
        from fm.formats.frames import source_of
        from fm.formats.tables import read_table

        encoder, expected = self._encoder(), self._context_columns
        table = read_table(rows, expect=expected)
        if not expected:  # the model has columns of items only: all contexts are the same
            return sp.csr_matrix((table.num_rows, self.model.num_features), dtype=np.float32)
        if not set(expected) & set(table.column_names):
            raise DataError(
                f"{source_of(table)}: expected some of the columns {', '.join(expected)}, found "
                f"only {', '.join(table.column_names)}"
            )
        return encode_table(encoder, self.catalogue, table, expected, optional=expected).X

    def of_users(self, ids: Sequence[Any]) -> sp.csr_matrix:
        """Return one row for each id of a user; see :meth:`read`."""
        name = self.catalogue.user
        if not name:
            raise ConfigError(
                "context: the model does not know which column is the user",
                Advice("pass mappings, or train it on data read with {user}", user=...),
            )
        for wrong in (i for i in ids if not is_id(i)):
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
        text = text_of(user) or ""  # 7.0 is 7
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 11 else -1
        if not 0 <= number < self.model.num_features or not self.user_features[number]:
            keys = self.catalogue.user_keys
            span = f", one of {keys.size} from {keys[0]} to {keys[-1]}" if keys.size else ""
            raise DataError(
                f"{self.catalogue.user}: expected the number of a user's feature{span}, found "
                f"{user!r}"
            )
        return number

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
        """Which features belong to the user column, including the one of unknown users."""
        mask = np.zeros(self.model.num_features, bool)
        mask[self.catalogue.user_keys] = True
        if self.model.fields is not None and self.catalogue.user in self.model.field_names:
            mask[self.model.feature_indices(self.catalogue.user)] = True
        elif self._user_is_column:
            encoder = self._encoder()
            mask |= encoder.fields == encoder.field_names.index(self.catalogue.user)
        return mask


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a text or a whole number."""
    if isinstance(value, (float, np.floating)):
        return value.is_integer()  # pandas turns integers with missing values into floats
    return isinstance(value, (str, int, np.integer))
