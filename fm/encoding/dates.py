"""Dates: a column of dates or times becomes the parts that people mean.

Decided here: the features of a column of the kind "date", and what it keeps in a model. Not decided
here: what a date is (``fm.formats.dates``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fm.encoding.columns import UNKNOWN, Entries, Numeric
from fm.formats.cells import Cells
from fm.formats.dates import Moment, moment_of, moments_of

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS, _HOURS = 12, 24


@dataclass(frozen=True)
class Date:
    """A column of dates: the year, which is a number; the month, the weekday, and maybe the hour.

    The features are those of the year, the second of which is unknown; then one for each month,
    weekday and hour. A row has the entries of its year, and one of value 1 for each other part.
    **Missing** is unknown with the value 1, and entries of value 0 for the parts, so that each row
    has as many.
    """

    kind: ClassVar[str] = "date"
    unknown: ClassVar[int] = 1
    name: str
    year: Numeric
    hours: bool = False

    @property
    def width(self) -> int:
        """Number of features of the field."""
        return self.year.width + _MONTHS + len(WEEKDAYS) + _HOURS * self.hours

    @property
    def about(self) -> str:
        """The kind, and its parts."""
        return "date: year, month, weekday" + ", hour" * self.hours

    @property
    def pads(self) -> bool:
        """Whether a missing value has entries of value 0 beside that of unknown."""
        return True

    def _places(self, moment: Any) -> list[Any]:
        """Return the features of the parts but the year, of one date or of arrays of them."""
        month = self.year.width
        weekday = month + _MONTHS
        places = [month + moment.month - 1, weekday + moment.weekday]
        return [*places, weekday + len(WEEKDAYS) + moment.hour] if self.hours else places

    def encode(self, cells: Cells) -> Entries:
        """Return the entries of all rows."""
        moments = moments_of(cells)
        missing, count = moments.missing, len(moments.year)
        years = np.where(missing, np.nan, moments.year)
        of_year = self.year.encode_numbers(years, cells.bad_cell)
        indices = [of_year.indices.reshape(count, -1 if count else 1)]
        values = [np.asarray(of_year.values).reshape(count, -1 if count else 1)]
        some = np.where(missing, 0.0, 1.0).astype(np.float32)
        first = self._places(Moment(0, 1, 0, 0))
        for place, usual in zip(self._places(moments), first, strict=True):
            indices.append(np.where(missing, usual, place).astype(np.int32)[:, None])
            values.append(some[:, None])
        entries = np.hstack(indices)
        return Entries(entries.ravel(), np.hstack(values).ravel(), entries.shape[1])

    def encode_value(self, value: Any) -> list[tuple[int, float]]:
        """Return the entries (feature within the field, value) of one row."""
        moment = moment_of(value)
        if moment is None:
            rest = [(place, 0.0) for place in self._places(Moment(0, 1, 0, 0))]
            return [*self.year.encode_number(None), *rest]
        rest = [(place, 1.0) for place in self._places(moment)]
        return [*self.year.encode_number(float(moment.year)), *rest]

    def find(self, value: Any) -> int:
        """Return the first feature of a value within the field: the year, or unknown."""
        return int(moment_of(value) is None)

    def decode(self, entries: list[tuple[int, float]]) -> str | None:
        """Return what is known of the date as ISO text, year and month; None if it is missing."""
        year = self.year.decode([entry for entry in entries if entry[0] < self.year.width])
        if year is None:
            return None
        text = f"{round(year):04d}"
        for i, value in entries:
            if value and 0 <= i - self.year.width < _MONTHS:
                text += f"-{i - self.year.width + 1:02d}"
        return text

    def value(self, i: int) -> str | None:
        """Return what feature i of the field stands for; None for the year and unknown."""
        if i < self.year.width:
            return self.year.value(i)
        return self._part(i)[1]

    def _part(self, i: int) -> tuple[str, str]:
        i -= self.year.width
        if i < _MONTHS:
            return "month", str(i + 1)
        i -= _MONTHS
        return ("weekday", WEEKDAYS[i]) if i < 7 else ("hour", str(i - len(WEEKDAYS)))

    def feature_name(self, i: int) -> str:
        """Return the name of feature i of the field."""
        if i == self.unknown:
            return f"{self.name}={UNKNOWN}"
        if i < self.year.width:
            return self.year.feature_name(i)
        return f"{self.name}.{'='.join(self._part(i))}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON keeps."""
        year = {key: value for key, value in self.year.to_dict().items() if key not in _TOLD}
        return {"name": self.name, "kind": self.kind, "year": year, "hours": self.hours}


_TOLD = ("name", "kind")
