"""Dates: what a cell with a date or a time says: year, month, weekday and hour.

Decided here: which texts, numbers and values are dates. Each rule is written twice: for a Python
value and for an Arrow array. Not decided here: which features they become (``fm.encoding.dates``).

A date is a text in ISO 8601 (``2024-05-01``, ``2024-05-01 12:30``, ``2024-05-01T12:30:00+02:00``),
a date or datetime of Python, numpy, pandas, polars or Arrow, or a number: seconds since 1970 in
UTC. The hour is that on the clock of its own time zone, as written. The years are 1 to 9999.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fm.formats.cells import BadCell, Cells, number_of

if TYPE_CHECKING:
    import pyarrow as pa

_DAY = r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:\.[0-9]+)?)?"
_ZONE = r" ?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_ISO = f"{_DAY}(?:[T ]{_TIME}{_ZONE})?"
_PATTERN = re.compile(_ISO)
_SECONDS = (-62_135_596_800, 253_402_300_800)  # the years 1 to 9999
_MISSING = -1


class Moment(NamedTuple):
    """What is known of one date."""

    year: int
    month: int  # 1 to 12
    weekday: int  # 0 is Monday
    hour: int  # 0 to 23


class Moments(NamedTuple):
    """The same of many rows, as arrays of int64; the year is -1 where the date is missing."""

    year: np.ndarray
    month: np.ndarray
    weekday: np.ndarray
    hour: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """Which rows have no date."""
        return np.asarray(self.year == _MISSING)


# -- a value ---------------------------------------------------------------------------------------


def moment_of(value: Any) -> Moment | None:
    """Return what a date says, or None if it is missing.

    Raises
    ------
    ValueError
        If the value is not a date.

    Examples
    --------
    >>> moment_of("2024-05-01 12:30")
    Moment(year=2024, month=5, weekday=2, hour=12)
    >>> moment_of(1714566600) == moment_of("2024-05-01 12:30")
    True
    """
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else int(value.astype("M8[s]").astype(np.int64))
    if isinstance(value, str):
        match = _PATTERN.fullmatch(value.strip())
        if match:
            day = datetime.date(int(match[1]), int(match[2]), int(match[3]))
            return Moment(day.year, day.month, day.weekday(), int(match[4] or 0))
    if type(value).__name__ == "NaTType":  # of pandas; it is a datetime
        return None
    if isinstance(value, datetime.date):
        return Moment(value.year, value.month, value.weekday(), getattr(value, "hour", 0))
    if isinstance(value, (bool, np.bool_)) or isinstance(value, str) and _is_truth(value):
        raise ValueError(value)
    seconds = number_of(value)
    if seconds is None:
        return None
    return moment_of(_EPOCH + datetime.timedelta(seconds=_checked_seconds(seconds)))


_EPOCH = datetime.datetime(1970, 1, 1)


def _is_truth(text: str) -> bool:
    """Return whether a text is a truth value, which would be a number elsewhere."""
    return text.strip().lower() in ("true", "false")


def _checked_seconds(seconds: float) -> int:
    if not _SECONDS[0] <= seconds < _SECONDS[1]:
        raise ValueError(seconds)
    return math.floor(seconds)


# -- a column of them ------------------------------------------------------------------------------


def moments_of(cells: Cells) -> Moments:
    """Return what the cells of a column say, by the rule of :func:`moment_of`.

    Raises
    ------
    BadCell
        For the first cell that is no date.
    """
    import pyarrow as pa

    column = cells.column
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _of_times(column.cast(kind), cells)
    if pa.types.is_boolean(kind) or pa.types.is_temporal(kind) or pa.types.is_nested(kind):
        raise cells.bad_cell()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        seconds = cells.numbers
        with np.errstate(invalid="ignore"):
            wrong = (seconds < _SECONDS[0]) | (seconds >= _SECONDS[1])
        if wrong.any():
            raise cells.bad_cell(int(np.argmax(wrong)))
        missing = np.isnan(seconds)
        whole = np.floor(np.where(missing, 0, seconds)).astype("M8[s]")
        whole[missing] = np.datetime64("NaT")
        return _parts(whole)
    codes, texts = cells.coded
    known = _of_iso(texts) or _one_by_one(codes, texts, cells)
    padded = (np.append(part, _MISSING) for part in known)  # the last one is for code -1
    return Moments(*(part[codes] for part in padded))


def are_dates(texts: pa.Array) -> bool:
    """Return whether texts (null where missing) are ISO dates, all that there are."""
    return len(texts) > texts.null_count and _of_iso(texts) is not None


def _of_times(column: pa.ChunkedArray, cells: Cells) -> Moments:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            column = pc.local_timestamp(column)
        times = column.to_numpy().astype("M8[s]")
    except (pa.ArrowInvalid, ValueError, OverflowError) as err:  # no such time zone
        raise cells.bad_cell() from err
    seconds = times.astype(np.int64)
    wrong = ~np.isnat(times) & ((seconds < _SECONDS[0]) | (seconds >= _SECONDS[1]))
    if wrong.any():
        raise cells.bad_cell(int(np.argmax(wrong)))
    return _parts(times)


def _parts(times: np.ndarray) -> Moments:
    """Return the parts of times in seconds; NaT is missing."""
    missing = np.isnat(times)
    days, months = times.astype("M8[D]"), times.astype("M8[M]").astype(np.int64)
    weekday = (days.astype(np.int64) + 3) % 7
    hour = (times - days).astype(np.int64) // 3600
    parts = (months // 12 + 1970, months % 12 + 1, weekday, hour)
    return Moments(*(np.where(missing, _MISSING, part) for part in parts))


def _of_iso(texts: pa.Array) -> Moments | None:
    """Return what texts say that are all ISO dates, or missing; None if some are not."""
    import pyarrow.compute as pc

    fits = pc.match_substring_regex(texts, f"^{_ISO}$")
    if not (pc.all(fits).as_py() and pc.all(pc.match_substring_regex(texts, r"^[^\n]*$")).as_py()):
        return None if len(texts) > texts.null_count else Moments(*_nothing(len(texts)))

    def part(begin: int, end: int) -> np.ndarray:
        cut = pc.utf8_slice_codeunits(texts, begin, end)
        cut = pc.if_else(pc.equal(cut, ""), "0", cut).fill_null("0")
        found: np.ndarray = cut.cast("int64").to_numpy(zero_copy_only=False)
        return found

    missing = texts.is_null().to_numpy(zero_copy_only=False)
    year, month, day, hour = part(0, 4), part(5, 7), part(8, 10), part(11, 13)
    months = ((year - 1970) * 12 + month - 1).astype("M8[M]")
    days = months.astype("M8[D]") + (day - 1)
    wrong = (days.astype("M8[M]") != months) | (year < 1)
    if (wrong & ~missing).any():
        return None
    parts = (year, month, (days.astype(np.int64) + 3) % 7, hour)
    return Moments(*(np.where(missing, _MISSING, part) for part in parts))


def _nothing(count: int) -> list[np.ndarray]:
    return [np.full(count, _MISSING)] * 4


def _one_by_one(codes: np.ndarray, texts: pa.Array, cells: Cells) -> Moments:
    found = Moments(*np.full((4, len(texts)), _MISSING))
    for i, text in enumerate(texts.to_pylist()):
        try:
            moment = moment_of(text)
        except ValueError:
            raise _bad(cells, codes, i) from None
        for part, number in zip(found, moment or (), strict=False):
            part[i] = number
    return found


def _bad(cells: Cells, codes: np.ndarray, code: int) -> BadCell:
    return cells.bad_cell(int(np.argmax(codes == code)))
