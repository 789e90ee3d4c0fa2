"""A table of items -> a catalogue of them.

Decided here: how items that are described by columns become a catalogue, including items that
training did not meet. Not decided here: which columns describe an item
(``fm.reading.finding_items``).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.formats.cells import CellTable
from fm.formats.frames import place, source_of
from fm.formats.tables import read_table


def catalogue_of_table(
    encoder: Encoder | None, catalogue: Catalogue, table: Any, *, item: str | None = None
) -> Catalogue:
    """Return a catalogue of the items in a table; users and what they met stay as they were.

    Parameters
    ----------
    encoder : Encoder
        The model's encoder.
    catalogue : Catalogue
        The catalogue of the training data: it says which columns describe an item.
    table : frame, Arrow table, dict of columns, or path
        A row for each item, with its id and the columns that describe it. Other columns are
        ignored.
    item : str, optional
        The column of the ids; the default is its name in the training data.

    Raises
    ------
    ConfigError
        If there is no encoder, or the items are not a column of it.
    DataError
        If the table cannot be read or has no rows, a column is missing, or an id is missing or
        occurs twice.

    Examples
    --------
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "genre": ["x", "y", "y"],
    ...              "rating": [1, 2, 3]}, item_columns="genre")
    >>> data.encoder.feature_names[3:]
    ['film=<unknown>', 'film=B', 'film=A', 'genre=<unknown>', 'genre=y', 'genre=x']
    >>> films = catalogue_of_table(data.encoder, data.catalogue,
    ...                            {"film": ["A", "new"], "genre": ["x", "y"]})
    >>> films.item_keys.tolist(), films.items[:, 3:].toarray().astype(int).tolist()
    ([5, -1], [[0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 0]])
    """
    name = catalogue.item
    if encoder is None or name not in encoder.field_names:
        raise ConfigError(
            f"items: the model's items are features ({name}), not a column, so a table cannot "
            "describe them; train the model on a table"
        )
    rows = read_table(table)
    if not rows.num_rows:
        raise DataError(f"{source_of(rows)}: expected a row for each item, found none")
    if item is not None and item != name:
        if item not in rows.column_names:
            raise DataError(
                f"items: expected one of the columns {', '.join(rows.column_names)}, found {item!r}"
            )
        if name in rows.column_names:
            rows = rows.drop_columns([name])
        rows = rows.rename_columns([name if c == item else c for c in rows.column_names])
    cells = CellTable(rows)
    ids = _ids(cells, name, item or name)
    X = encoder.transform(cells, columns=(name, *catalogue.item_columns))
    features = np.flatnonzero(encoder.fields == encoder.field_names.index(name))
    own = X.indices[(X.indices >= features[0]) & (X.indices <= features[-1])]  # one in each row
    keys = np.where(own == features[0], np.int32(-1), own)  # the first one is that of the unknown
    changed = dataclasses.replace(catalogue, items=X, item_keys=keys, item_ids=ids)
    seen = None if catalogue.seen is None else _seen_again(catalogue, changed)
    return dataclasses.replace(changed, seen=seen)


def _ids(cells: CellTable, name: str, called: str) -> list[str]:
    with cells.column(name, "categorical") as column:
        codes, texts = column.coded
    known = texts.to_pylist()
    ids = [known[code] if code >= 0 else None for code in codes.tolist()]
    first: dict[str, int] = {}
    for row, text in enumerate(ids):
        where = place(cells.table, row)
        if text is None:
            raise DataError(f"{where}, column {called!r}: expected the id of an item, found none")
        if text in first:
            raise DataError(f"{where}, column {called!r}: the item {text!r} occurs twice")
        first[text] = row
    return list(first)


def _seen_again(old: Catalogue, new: Catalogue) -> sp.csr_matrix:
    """Return who met which item, in the numbers of the new catalogue."""
    assert old.seen is not None
    number_of_key = np.full(old.items.shape[1] + 1, -1, np.int32)  # the last one is for key -1
    number_of_key[new.item_keys] = np.arange(new.num_items)
    number_of_key[-1] = -1
    numbers = number_of_key[old.item_keys][old.seen.indices]
    keep = numbers >= 0
    seen = sp.csr_matrix((old.seen.shape[0], new.num_items), dtype=bool)
    seen.data, seen.indices = np.ones(int(keep.sum()), bool), numbers[keep]
    seen.indptr = np.concatenate([[0], np.cumsum(keep)])[old.seen.indptr]
    return seen
