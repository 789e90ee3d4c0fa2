"""Filling: columns that a row leaves out -> what the model knows of the row's user and item.

Decided here: how named values become features for a trained model, so that a user and an item have
the same score in a list, in a row to predict, in a request and in an explanation. Not decided here:
what the model knows (``fm.catalogue.catalogue``), what a value becomes (``fm.encoding.encoder``).

A row may leave out columns that describe its user or its item (an age, genres). If the model knows
the user or the item, these columns are as in the training data; else they are unknown. A cell that
is there and empty is unknown, too: it says that nothing is known. Rows to train on are not filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.encoding.encoder import Encoder
from fm.errors import DataError
from fm.formats.files import ragged
from fm.formats.frames import source_of
from fm.formats.tables import read_table
from fm.sparse import csr_of_entries

if TYPE_CHECKING:
    import pyarrow as pa


class Encoded(NamedTuple):
    """Rows as features."""

    X: sp.csr_matrix
    filled: tuple[str, ...] = ()  # columns that rows left out; known ones are as in training


def may_be_left_out(catalogue: Catalogue | None) -> tuple[str, ...]:
    """Return the columns that describe users and items."""
    return () if catalogue is None else (*catalogue.user_columns, *catalogue.item_columns)


def encode_rows(
    encoder: Encoder,
    catalogue: Catalogue | None,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
) -> Encoded:
    """Return rows given as mappings as features, filled where they leave out columns.

    Parameters
    ----------
    encoder, catalogue
        Those of the model.
    rows : sequence of mappings
        Column name to value.
    columns : sequence of str, optional
        Only these columns, for one side of a row.

    Raises
    ------
    DataError
        See :meth:`fm.encoding.encoder.Encoder.encode_rows`.

    Examples
    --------
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 2, 1], "film": ["A", "A", "B"], "genre": ["x", "x", "y"],
    ...              "rating": [1, 2, 3]}, item_columns="genre")
    >>> X, filled = encode_rows(data.encoder, data.catalogue, [{"user": 2, "film": "B"}])
    >>> data.encoder.decode_row(X), filled
    ({'user': '2', 'film': 'B', 'genre': 'y'}, ('genre',))
    """
    known = _Known(encoder, catalogue, columns)
    X = encoder.encode_rows(rows, columns=columns, known=known if known.names else None)
    return Encoded(X, tuple(name for name in known.names if name in known.left_out))


class _Known:
    """Gives what is known of a row's user and item for the columns that the row leaves out.

    Row by row, as rows are mappings: numpy's calls would take longer than a request.
    """

    def __init__(
        self, encoder: Encoder, catalogue: Catalogue | None, columns: Sequence[str] | None
    ) -> None:
        names = may_be_left_out(catalogue)
        self.names = names if columns is None else tuple(n for n in names if n in columns)
        self.left_out: set[str] = set()
        self._encoder, self._catalogue = encoder, catalogue

    def __call__(self, row: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
        """Return the entries of columns that a row leaves out; no column: it is unknown."""
        found: dict[str, list[tuple[int, float]]] = {}
        missing = [name for name in self.names if name not in row]
        if not missing or self._catalogue is None:
            return found
        self.left_out.update(missing)
        catalogue, fields, names = self._catalogue, self._encoder.fields, self._encoder.field_names
        for column, known, numbers in (
            (catalogue.user, catalogue.users, catalogue.number_of_user_key),
            (catalogue.item, catalogue.items, catalogue.number_of_key),
        ):
            if known is None or (number := self._number(numbers, column, row)) < 0:
                continue
            part = slice(*known.indptr[number : number + 2].tolist())
            entries = zip(known.indices[part].tolist(), known.data[part].tolist(), strict=True)
            for feature, value in entries:
                if (name := names[fields[feature]]) in missing:
                    found.setdefault(name, []).append((feature, value))
        return found

    def _number(self, numbers: np.ndarray, column: str, row: Mapping[str, Any]) -> int:
        if column not in row:
            return -1
        try:
            return int(numbers[self._encoder.feature_index(column, row[column])])
        except DataError:
            return -1  # no value of the column: whoever encodes it says so


def encode_table(
    encoder: Encoder,
    catalogue: Catalogue | None,
    data: Any,
    columns: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> Encoded:
    """Return the rows of a table as features, filled where the table leaves out columns.

    Parameters
    ----------
    encoder, catalogue
        Those of the model.
    data : Arrow table, frame, dict of columns, or path
    columns : sequence of str, optional
        Only these columns, for one side of a row.
    optional : sequence of str
        Further columns that the table may leave out; they are unknown then.

    Raises
    ------
    DataError
        See :meth:`fm.encoding.encoder.Encoder.transform`.

    Examples
    --------
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 2, 1], "film": ["A", "A", "B"], "genre": ["x", "x", "y"],
    ...              "rating": [1, 2, 3]}, item_columns="genre")
    >>> X = encode_table(data.encoder, data.catalogue, {"user": [2], "film": ["B"]}).X
    >>> data.encoder.decode_row(X)
    {'user': '2', 'film': 'B', 'genre': 'y'}
    """
    table = read_table(data)
    names = [*may_be_left_out(catalogue), *optional]
    encoder.check_names(table.column_names, source_of(table), columns)
    table, missing = with_empty(table, [n for n in names if columns is None or n in columns])
    X = encoder.transform(table, columns=columns)
    return fill(X, missing, encoder, catalogue)


def with_empty(table: pa.Table, names: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Return a table that has all these columns, and the names of those that it did not have."""
    missing = [name for name in dict.fromkeys(names) if name not in table.column_names]
    if missing:
        import pyarrow as pa

        for name in missing:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return table, missing


def fill(
    X: sp.csr_matrix, missing: Sequence[str], encoder: Encoder, catalogue: Catalogue | None
) -> Encoded:
    """Return rows of a table, which lacks some columns, filled with what is known of these."""
    filled = tuple(name for name in may_be_left_out(catalogue) if name in missing)
    if not filled or catalogue is None:
        return Encoded(X)
    fields = encoder.fields
    wanted = np.array([name in filled for name in encoder.field_names])
    taken = np.zeros((X.shape[0], wanted.size), bool)  # row, field
    rows, indices, data = [], [], []
    for known, numbers in (
        (catalogue.users, catalogue.number_of_user_key),
        (catalogue.items, catalogue.number_of_key),
    ):
        if known is None:
            continue
        number = number_in_row(X, numbers)
        begins = known.indptr[number]
        counts = np.where(number < 0, 0, known.indptr[number + 1] - begins)
        entries, row = ragged(begins, counts), np.repeat(np.arange(X.shape[0]), counts)
        kept = wanted[fields[known.indices[entries]]]
        entries, row = entries[kept], row[kept]
        taken[row, fields[known.indices[entries]]] = True
        rows.append(row)
        indices.append(known.indices[entries])
        data.append(known.data[entries])
    # What nothing is known of (a user that was added to the model) stays unknown.
    row = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    told = ~taken[row, fields[X.indices]]
    merged = csr_of_entries(
        np.concatenate([*rows, row[told]]),
        np.concatenate([*indices, X.indices[told]]),
        np.concatenate([*data, X.data[told]]),
        X.shape,
    )
    return Encoded(merged, filled)


def number_in_row(X: sp.csr_matrix, numbers: np.ndarray) -> np.ndarray:
    """Return the number (>= 0) that an entry's feature has, for each row; -1: none has one."""
    of_entries = numbers[X.indices]
    at = np.flatnonzero(of_entries >= 0)
    found = np.full(X.shape[0], -1, np.int64)
    found[np.searchsorted(X.indptr, at, side="right") - 1] = of_entries[at]
    return found
