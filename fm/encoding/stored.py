"""stored: what a model file says of a column -> the column. The file may be hostile.

Decided here: what is refused. Not decided here: what a column writes (its ``to_dict``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

from fm.encoding.columns import (
    MAX_FEATURES,
    SEPARATOR,
    Buckets,
    Categorical,
    History,
    Numeric,
    ValueSet,
    Vocabulary,
    column_of_values,
)
from fm.encoding.dates import Date
from fm.errors import ModelFileError

Column = Categorical | Numeric | Date  # and the subclasses of Categorical

KINDS: dict[str, type[Column]] = {
    c.kind: c for c in (Categorical, Numeric, ValueSet, History, Date)
}


def column_from(number: int, data: Any) -> Column:
    """Return the column that ``to_dict`` wrote, the `number`-th of an encoder.

    Raises
    ------
    ModelFileError
        If it is anything else.
    """

    def wrong(what: str) -> ModelFileError:
        return ModelFileError(f"encoder: column {number}: {what}")

    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise wrong("expected an object with a name")
    name, kind = data["name"], data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise wrong(f"expected a kind out of {', '.join(KINDS)}, found {kind!r}")
    keys = set(data) - {"name", "kind"}
    if kind == "date":
        year, hours = data.get("year"), data.get("hours")
        if keys != {"year", "hours"} or not isinstance(year, dict) or type(hours) is not bool:
            raise wrong(f"expected a year and whether hours matter, found {sorted(keys)}")
        of_year = column_from(number, {**year, "name": f"{name}.year", "kind": "numeric"})
        return Date(name, cast(Numeric, of_year), hours)
    if kind == "numeric":
        if not {"mean", "std"} <= keys <= {"mean", "std", "knots"}:
            raise wrong(f"expected mean and std, found {sorted(keys)}")
        mean, std = data["mean"], data["std"]
        for value in (mean, std):
            if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
                raise wrong(f"expected a finite mean and std, found {value!r}")
        if not std > 0:
            raise wrong(f"expected a std > 0, found {std!r}")
        return Numeric(name, float(mean), float(std), _knots_from(data.get("knots", []), wrong))
    extra = set() if kind == "categorical" else {"separator"}
    if keys - extra not in ({"values"}, {"hash_dim"}) or not extra <= keys:
        raise wrong(
            f"expected values or hash_dim{' and separator' * len(extra)}, found {sorted(keys)}"
        )
    separator = data.get("separator", SEPARATOR)
    if not isinstance(separator, str) or not separator:
        raise wrong(f"expected a text as separator, found {separator!r}")
    return column_of_values(name, kind, _values_from(data, wrong), separator)


def _knots_from(knots: Any, wrong: Callable[[str], ModelFileError]) -> tuple[float, ...]:
    """Return the knots of a column of numbers; `wrong` makes the error."""
    if not isinstance(knots, list) or not all(type(knot) in (int, float) for knot in knots):
        raise wrong("expected a list of numbers as knots")
    if len(knots) == 1 or not all(a < b for a, b in pairwise(knots)):
        raise wrong("expected none, or two ascending knots and more")
    if not all(abs(knot) <= sys.float_info.max / 2 for knot in knots):
        raise wrong("expected finite knots")
    return tuple(map(float, knots))


def _values_from(
    data: dict[str, Any], wrong: Callable[[str], ModelFileError]
) -> Vocabulary | Buckets:
    """Return the values of a column; `wrong` makes the error."""
    if "hash_dim" in data:
        size = data["hash_dim"]
        if type(size) is not int or not 1 <= size < MAX_FEATURES:
            raise wrong(f"expected a hash_dim from 1 to {MAX_FEATURES - 1}, found {size!r}")
        return Buckets(size)
    listed = data["values"]
    if not isinstance(listed, list) or not all(type(v) is str and v for v in listed):
        raise wrong("expected a list of texts that are not empty as values")
    if len(set(listed)) != len(listed):
        raise wrong("a value occurs twice")
    try:
        "".join(listed).encode()
    except UnicodeEncodeError as err:
        raise wrong("a value is not valid Unicode") from err
    return Vocabulary(tuple(listed))
