"""Targets and weights: a column of a table -> numbers, one for each row.

Decided here: which columns hold labels in place of numbers. Not decided here: which column it is
(``fm.reading.read``), what a number may be (``fm.formats.cells``), which label is positive
(``fm.data.labels``), which task suits the targets (``fm.training.checks``).
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from fm.data.labels import Labels, from_numbers, from_texts, of_two_numbers
from fm.errors import DataError
from fm.formats.cells import MISSING_NUMBERS, BadCell, CellTable, number_of
from fm.formats.frames import place


def numbers_of(cells: CellTable, name: str, what: str) -> np.ndarray:
    """Return the numbers in the column of the target or the weight (`what`).

    Raises
    ------
    DataError
        If a cell is missing or no number.
    """
    with cells.column(name, what) as column:
        numbers = column.numbers
    missing = np.isnan(numbers)
    if missing.any():
        where = place(cells.table, int(np.argmax(missing)))
        raise DataError(
            f"{where}, column {name!r}: expected a number as {what}, found none; fill in the cell "
            "or leave out the row"
        )
    return numbers


def targets_of(
    cells: CellTable, name: str, labels: Labels | None = None, positive: Any = None
) -> tuple[np.ndarray, Labels | None]:
    """Return the targets of a table, and the two labels that they are, if they are any."""

    def place_of(row: int) -> str:
        return f"{place(cells.table, row)}, column {name!r}"

    with cells.column(name, "target") as column:
        try:
            column.numbers  # noqa: B018  kept
        except BadCell:
            codes, found = column.coded
            every = [text or "" for text in found.to_pylist()]  # None, None, "" may be among them
            texts = list(dict.fromkeys(every))
            codes = np.array([*map(texts.index, every), -1])[codes]
        else:
            y = numbers_of(cells, name, "target")
            if labels is None and positive is not None:
                labels = of_two_numbers(y, positive)
            elif labels is None and of_two_numbers(y) == (0, 1) and column.is_truth:
                return y, (False, True)
            return (y, None) if labels is None else (from_numbers(y, labels, place_of), labels)
        words = [text for text in texts if text.lower() not in MISSING_NUMBERS]
        if labels is None and len(words) > 1:
            for text in words:
                with contextlib.suppress(ValueError):
                    number_of(text)
                    column.numbers  # noqa: B018  some are numbers: the error names another cell
    none = [i for i, text in enumerate(texts) if not text or len(words) == 2 and text not in words]
    lost = (codes < 0) | np.isin(codes, none)
    if lost.any():
        raise DataError(
            f"{place_of(int(np.argmax(lost)))}: expected a label as target, found none; fill in "
            "the cell or leave out the row"
        )
    kept = np.unique(codes)
    return from_texts(
        np.searchsorted(kept, codes),
        [texts[i] for i in kept],
        place=place_of,
        labels=labels,
        positive=positive,
    )
