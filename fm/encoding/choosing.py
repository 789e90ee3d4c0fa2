"""choosing: a table -> the columns to learn from, their kinds and their values.

Decided here: what is used unless the caller says it, and what a column learns from the table: its
values, or mean, standard deviation and knots. Not decided here: what a column makes of its cells
(``fm.encoding.columns``).
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fm.encoding.columns import (
    MAX_FEATURES,
    SEPARATOR,
    Buckets,
    Numeric,
    Vocabulary,
    column_of_values,
    sorted_unique,
)
from fm.encoding.dates import Date
from fm.encoding.stored import Column
from fm.errors import Advice, ConfigError, DataError, FMWarning
from fm.formats.cells import Cells, CellTable, is_text
from fm.formats.dates import are_dates, moments_of

if TYPE_CHECKING:
    import pyarrow as pa

# A column chosen by default that looks like an identifier of the row, or a time, is pointed out.
_ROWS_TO_JUDGE = 1000
_NEARLY_ALL = 0.9
# By default sqrt(rows) / 4 bins, at most 32, none with fewer than 20 rows: the best rule of those
# tried by cross-validation on tables of 130 to 13,000 rows.
_USUAL_BINS, _LEAST_ROWS = 32, 20
_LARGEST_KNOT = sys.float_info.max / 2  # so that their differences are finite
_MOST_BINS = 10_000
_UNIX_SECONDS = (631_152_000, 2_524_608_000)  # the years 1990 to 2050


def fit_columns(
    table: CellTable,
    given: Mapping[str, Any],
    left_out: list[str],
    standardize: bool,
    bins: int | Literal["auto"],
    min_count: int,
    hash_dim: int | Mapping[str, int] | None,
) -> list[Column]:
    """Return the columns of a table to learn from, in its order, with what they learn from it.

    Parameters
    ----------
    table : CellTable
        The training data.
    given : mapping
        Name of a kind to the columns the caller wants as such.
    left_out : list of str
        The target, and columns to ignore.
    standardize, bins, min_count, hash_dim
        As in :meth:`fm.encoding.encoder.Encoder.fit`.

    Raises
    ------
    DataError, ConfigError
        As there.
    """
    if table.num_rows == 0:
        raise DataError(f"{table.source}: no rows to learn the columns from")
    if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 1:
        raise ConfigError(f"min_count: expected an integer >= 1, found {min_count!r}")
    if bins != "auto" and (type(bins) is not int or not 0 <= bins <= _MOST_BINS):
        raise ConfigError(
            f'bins: expected "auto" or an integer from 0 to {_MOST_BINS}, found {bins!r}'
        )
    chosen = _choose(table, given, set(left_out))
    sizes = _hash_sizes(hash_dim, chosen)
    columns: list[Column] = []
    for name in table.names:  # in this order whatever the order of the arguments
        if name not in chosen:
            continue
        kind, separator = chosen[name]
        with table.column(name, kind) as cells:
            if kind == "numeric":
                numbers = cells.numbers
                columns.append(_fit_numeric(name, numbers, cells, standardize, bins))
                continue
            if kind == "date":
                columns.append(_fit_date(name, cells, standardize, bins))
                continue
            values: Vocabulary | Buckets
            if name in sizes:
                values = Buckets(sizes[name])
            else:
                values = _fit_values(cells, kind, separator, min_count)
        columns.append(column_of_values(name, kind, values, separator))
    return columns


def _choose(
    table: CellTable, given: Mapping[str, Any], ignored: set[str]
) -> dict[str, tuple[str, str]]:
    """Return {name: (kind, separator)} of the columns to use."""
    chosen: dict[str, tuple[str, str]] = {}
    for kind, refs in given.items():
        names = table.resolve(refs)
        separators = refs.values() if isinstance(refs, Mapping) else [SEPARATOR] * len(names)
        for name, separator in zip(names, separators, strict=True):
            if name in chosen or name in ignored:
                other = chosen[name][0] if name in chosen else "target, weight or to be ignored"
                raise ConfigError(f"{kind}: column {name!r} is also named as {other}")
            if not isinstance(separator, str) or not separator:
                raise ConfigError(
                    f"{kind}: expected a text as the separator of {name!r}, found {separator!r}"
                )
            chosen[name] = kind, separator
    if not chosen:
        for name in table.names:
            if name not in ignored:
                chosen[name] = _default_kind(table, name), SEPARATOR
    if not chosen:
        raise DataError(f"{table.source}: no columns are left to learn from")
    return chosen


def _default_kind(table: CellTable, name: str) -> str:
    import pyarrow.types as types

    kind = table.table.schema.field(name).type
    with table.column(name, "categorical") as cells:
        if cells.is_list:
            return "multi"
        if types.is_date(kind) or types.is_timestamp(kind):
            return "date"
        if types.is_floating(kind) or types.is_decimal(kind):
            return "numeric"
        if types.is_nested(kind):
            raise DataError(
                f"{table.source}: column {name!r} holds values of type {kind}, which cannot become "
                "features",
                Advice("leave it out with {ignore}", ignore=[name]),
            )
        if is_text(kind) and cells.decimal:
            return "numeric"
        _, texts = cells.coded
        if is_text(kind) and are_dates(texts):
            return "date"
    few = len(texts) <= _ROWS_TO_JUDGE
    if not few and len(texts) > _NEARLY_ALL * table.num_rows:
        what = f"has {len(texts)} different values in {table.num_rows} rows"
    elif not few and _looks_like_time(texts):
        what = "looks like a time in Unix seconds"
    else:
        return "categorical"
    warnings.warn(
        FMWarning(
            f"{table.source}: column {name!r} {what}, and each becomes a feature that little is "
            "learnt about",
            Advice(
                "leave it out with {ignore}, or name the columns to use with {categorical}, "
                "{numeric} and {date}",
                ignore=[name], categorical=..., numeric=..., date=...,
            ),
        ),
        stacklevel=2,
    )  # fmt: skip
    return "categorical"


def _looks_like_time(texts: pa.Array) -> bool:
    low, high = _UNIX_SECONDS
    try:
        return all(low <= int(text) < high for text in texts.to_pylist() if text)
    except ValueError:
        return False


def _hash_sizes(
    hash_dim: int | Mapping[str, int] | None, chosen: Mapping[str, tuple[str, str]]
) -> dict[str, int]:
    if hash_dim is None:
        return {}
    hashable = [name for name, (kind, _) in chosen.items() if kind not in ("numeric", "date")]
    sizes = dict(hash_dim) if isinstance(hash_dim, Mapping) else dict.fromkeys(hashable, hash_dim)
    for name, size in sizes.items():
        if name not in hashable:
            raise ConfigError(
                f"hash_dim: {name!r} is not a categorical, multi or history column; those are "
                f"{', '.join(hashable) or 'none'}"
            )
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size < MAX_FEATURES:
            raise ConfigError(
                f"hash_dim: expected an integer from 1 to {MAX_FEATURES - 1}, found {size!r}"
            )
    return sizes


def _fit_numeric(
    name: str, numbers: np.ndarray, cells: Cells, standardize: bool, bins: int | Literal["auto"]
) -> Numeric:
    knots = knots_of(numbers, bins)
    if not standardize or np.isnan(numbers).all():
        return Numeric(name, knots=knots)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(np.nanmean(numbers)), float(np.nanstd(numbers))
    if not math.isfinite(mean) or not math.isfinite(std):
        raise cells.bad_cell(int(np.nanargmax(np.abs(numbers))))
    return Numeric(name, mean, std or 1.0, knots)


def _fit_date(name: str, cells: Cells, standardize: bool, bins: int | Literal["auto"]) -> Date:
    moments = moments_of(cells)
    known = ~moments.missing
    years = np.where(known, moments.year, np.nan)
    hours = moments.hour[known]
    differ = bool(hours.size and hours.min() < hours.max())
    return Date(name, _fit_numeric(f"{name}.year", years, cells, standardize, bins), differ)


def knots_of(numbers: np.ndarray, bins: int | Literal["auto"]) -> tuple[float, ...]:
    """Return the least number, the largest, and between them those that part it into equal bins.

    Parameters
    ----------
    numbers : ndarray of float64
        A column; NaN where missing.
    bins : int or "auto"
        How many, at most; "auto": as the number of rows suggests, and none with few rows in it.

    Returns
    -------
    tuple of float
        Ascending; none if that would be no more than two bins, or one.

    Examples
    --------
    >>> knots_of(np.array([5.0, 1, 2, 3, 4, np.nan]), 2)
    (1.0, 3.0, 5.0)
    >>> knots_of(np.array([5.0, 1, 2, 3, 4]), "auto")
    ()
    """
    known = np.sort(numbers[~np.isnan(numbers)])
    if bins == "auto":
        most, least = min(int(math.sqrt(known.size) / 4), _USUAL_BINS), _LEAST_ROWS
    else:
        most, least = bins, 1
    if most < 2 or known.size < 3 or np.abs(known).max() > _LARGEST_KNOT:
        return ()
    starts = np.flatnonzero(np.append(True, known[1:] != known[:-1]))
    ends = np.append(starts[1:], known.size)  # of the rows of each different number
    begin, inner = 0, []
    for left in range(most, 1, -1):  # a bin takes its share of the rows that are left
        at = int(np.searchsorted(ends, begin + (known.size - begin) / left, side="right"))
        at = max(at, int(np.searchsorted(starts, begin + least)))
        if at >= ends.size - 1 or known.size - starts[at] < least:
            break
        begin = int(starts[at])
        inner.append(float(known[begin]))
    return (float(known[0]), *inner, float(known[-1])) if inner else ()


def _fit_values(cells: Cells, kind: str, separator: str, min_count: int) -> Vocabulary:
    """Return the values that are in at least `min_count` rows, the most frequent first."""
    cells = cells.by_appearance()  # which decides between equal counts
    if kind == "categorical":
        codes, texts = cells.coded
        counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    else:
        parts = cells.parts(separator)
        texts, width = parts.texts, max(len(parts.texts), 1)
        pairs = sorted_unique(parts.cells * width + parts.codes)  # count once in a cell
        rows = np.ones(parts.num_cells, int)
        if parts.rows is not None:
            rows = np.bincount(parts.rows, minlength=parts.num_cells)
        counts = np.bincount(pairs % width, rows[pairs // width], minlength=len(texts))
    # Different cells can be one value, 42.0 and "42"; add up their counts.
    merged = texts.dictionary_encode()
    codes = merged.indices.fill_null(len(merged.dictionary)).to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, counts, minlength=len(merged.dictionary))
    counts = counts[: len(merged.dictionary)]  # without what is missing
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= min_count]
    return Vocabulary(tuple(merged.dictionary.take(order).to_pylist()))
