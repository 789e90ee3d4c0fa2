"""Targets and weights: a column of a table -> numbers, one for each row.

Decided here: that answers in words are labels. Not decided here: which column it is
(``fm.reading.read``), what a number may be (``fm.formats.cells``), which task suits the targets
(``fm.training.checks``).
"""

from __future__ import annotations

import math

import numpy as np

from fm.errors import DataError
from fm.formats.cells import BadCell, Cells, CellTable
from fm.formats.frames import place

#: What targets may be in words, in any case.
ANSWERS = {"yes": 1, "y": 1, "true": 1, "t": 1, "no": 0, "n": 0, "false": 0, "f": 0}


def numbers_of(cells: CellTable, name: str, what: str) -> np.ndarray:
    """Return the numbers in the column of the target or the weight (`what`).

    Raises
    ------
    DataError
        If a cell is missing or no number.
    """
    with cells.column(name, what) as column:
        try:
            numbers = column.numbers
        except BadCell as err:
            if what != "target":
                raise
            numbers = _answers(column, err)
    missing = np.isnan(numbers)
    if missing.any():
        where = place(cells.table, int(np.argmax(missing)))
        raise DataError(
            f"{where}, column {name!r}: expected a number as {what}, found none; fill in the cell "
            "or leave out the row"
        )
    return numbers


def _answers(column: Cells, err: BadCell) -> np.ndarray:
    """Return answers in words as labels 0 and 1, NaN where missing.

    Raises
    ------
    BadCell
        If a cell is no answer: for the first one, or `err` if no cell is an answer.
    """
    codes, texts = column.coded
    known = [None if text is None else ANSWERS.get(text.lower(), -1) for text in texts.to_pylist()]
    labels: np.ndarray = np.array(
        [math.nan if label is None else label for label in (*known, None)]
    )
    labels = labels[codes]
    if (labels < 0).any():
        raise column.bad_cell(int(np.argmax(labels < 0))) if (labels >= 0).any() else err
    return labels
