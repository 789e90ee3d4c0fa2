"""The options of reading, once: name, default, group and meaning.

Decided here: what may be said when data are read. The signature of :func:`fm.read`, the help of the
command lines and the estimators follow this table. Not decided here: what an option does
(``fm.reading.read``, ``fm.encoding``, ``fm.formats``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fm.errors import ConfigError

if TYPE_CHECKING:
    from fm.catalogue.catalogue import Catalogue
    from fm.encoding.encoder import Encoder

_NAME, _NAMES = "str or int", "str, int, or sequence of them"
_SETS = "str, int, sequence of them, or dict"


class Option(NamedTuple):
    """What is known of one option (made from the fields of :class:`Options`)."""

    name: str
    default: Any
    group: str
    kind: str  # as a docstring shows it
    help: str


def _o(default: Any, group: str, kind: str, help: str) -> Any:
    metadata = {"group": group, "kind": kind, "help": help}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """What the caller of :func:`fm.read` said; group after group."""

    target: str | int | None = _o(
        None,
        "what is predicted",
        _NAME,
        "column with the target; not given: rating, label, target, y or click",
    )
    weight: str | int | None = _o(
        None, "what is predicted", _NAME, "column with the weight of each row"
    )
    positive: str | int | float | None = _o(
        None,
        "what is predicted",
        "label",
        "which of two labels is the positive one, whose probability is predicted; not given: the "
        "one called yes, true, click, ..., or the larger one",
    )
    require_target: bool = _o(False, "what is predicted", "bool", "refuse data without targets")

    categorical: Any = _o(
        (), "columns", _NAMES, "columns with one value in each row: ids, names, codes"
    )
    numeric: Any = _o((), "columns", _NAMES, "columns with numbers")
    multi: Any = _o(
        (), "columns", _SETS, 'columns with sets of values: lists, or texts such as "Action|Comedy"'
    )
    history: Any = _o(
        (),
        "columns",
        _SETS,
        "columns with sets of values, weighted by 1/sqrt(how many): rated or bought things",
    )
    date: Any = _o(
        (),
        "columns",
        _NAMES,
        "columns with dates or times, ISO or seconds since 1970: year, month, weekday, hour",
    )
    ignore: Any = _o((), "columns", _NAMES, "columns to leave out when no others are named")
    standardize: bool = _o(
        True, "columns", "bool", "scale numeric columns to mean 0 and standard deviation 1"
    )
    bins: int | Literal["auto"] = _o(
        "auto",
        "columns",
        'int or "auto"',
        "let the effect of a number bend at so many points of its column; 0: it is linear; not "
        "given: a number that suits the rows",
    )
    min_count: int = _o(
        1, "columns", "int", "values in fewer rows share the unknown feature of their column"
    )
    hash_dim: int | Mapping[str, int] | None = _o(
        None,
        "columns",
        "int, dict of int, or None",
        "hash the values of each column into so many features instead of listing them",
    )

    user: str | None = _o(
        None,
        "recommending",
        "str or None",
        "column of the users, or a range of features such as 0:943; not given: one called user, "
        "user_id, ...",
    )
    item: str | None = _o(
        None,
        "recommending",
        "str or None",
        "column of the items, or a range of features such as 943:2625; not given: one called item, "
        "movie, film, product, ...",
    )
    item_columns: str | Sequence[str] | None = _o(
        None,
        "recommending",
        "str, sequence of them, or None",
        "columns that describe an item; not given: those with one value for each item",
    )
    keep_seen: bool = _o(
        True,
        "recommending",
        "bool",
        "keep in the model file who met which item; else lists hold also what a user has met",
    )

    format: str | None = _o(
        None,
        "form of the data",
        "str or None",
        "format of the file; not given: told from its name and first bytes",
    )
    delimiter: str | None = _o(
        None, "form of the data", "str or None", "what separates the cells of a text table"
    )
    header: bool | Sequence[str] | None = _o(
        None,
        "form of the data",
        "bool, sequence of str, or None",
        "whether the first line of a text table names the columns; not given: guessed",
    )
    encoding: str | None = _o(
        None,
        "form of the data",
        "str or None",
        "encoding of a text table; not given: UTF-8, or latin-1 with a warning",
    )

    num_features: int | None = _o(
        None, "numbered features", "int or None", "number of features; not given: those in the data"
    )
    zero_based: bool | Literal["auto"] = _o(
        "auto",
        "numbered features",
        'bool or "auto"',
        "whether libsvm calls the first feature 0; not given: 1, if the file has no 0. Say it for "
        "test files, which may lack the first feature by chance",
    )

    encoder: Encoder | None = _o(None, "rows for a model", "Encoder or None", "that of the model")
    catalogue: Catalogue | None = _o(
        None,
        "rows for a model",
        "Catalogue or None",
        "that of the same model, which fills columns left out",
    )

    labels: tuple[Any, Any] | None = _o(
        None,
        "rows for a model",
        "tuple or None",
        "the two labels that the model knows, the negative one first",
    )

    def __post_init__(self) -> None:
        for option in _ALL:
            value = getattr(self, option.name)
            if value is not option.default:
                object.__setattr__(self, option.name, _checked(option, value))

    def given(self, *groups: str) -> dict[str, Any]:
        """Return the options of some groups that differ from their defaults."""
        found = {}
        for option in options(*groups):
            value = getattr(self, option.name)
            if option.default == ():  # one column, or a collection of them
                differs = isinstance(value, (str, int)) or len(value) > 0
            else:
                differs = value is not option.default and value != option.default
            if differs:
                found[option.name] = value
        return found


def _checked(option: Option, value: Any) -> Any:
    """Return a value as the readers expect it, or refuse it for its type."""
    if option.kind in (_NAME, _NAMES, _SETS) and isinstance(value, Integral):
        return int(value)  # numpy's integers, too
    expected = ""
    if option.kind == _NAME and not isinstance(value, str):
        expected = "the name or position of a column"
    elif option.kind in (_NAMES, _SETS) and not isinstance(value, Collection):
        expected = "the names or positions of columns"
    elif option.name in ("delimiter", "encoding") and not isinstance(value, str | None):
        expected = "a text"
    elif option.name == "encoder" and not hasattr(value, "field_names"):
        expected = "the encoder of a model"
    elif option.name == "labels" and not (isinstance(value, (tuple, list)) and len(value) == 2):
        expected = "the two labels of a model"
    if expected:
        raise ConfigError(f"{option.name}: expected {expected}, found {value!r}")
    return tuple(value) if option.name == "labels" else value


_ALL = tuple(
    Option(f.name, f.default, f.metadata["group"], f.metadata["kind"], f.metadata["help"])
    for f in dataclasses.fields(Options)
)


def column_names(said: Mapping[str, Any]) -> set[str]:
    """Return the names of columns in what a caller said, option by option.

    Examples
    --------
    >>> sorted(column_names({"target": "rating", "multi": ["tags", 3], "delimiter": ","}))
    ['rating', 'tags']
    """
    refs: list[Any] = []
    for option in _ALL:
        if option.kind in (_NAME, _NAMES, _SETS):
            value = said.get(option.name, ())
            single = isinstance(value, str) or not isinstance(value, Collection)
            refs += [value] if single else list(value)
    return {ref for ref in refs if isinstance(ref, str)}


def options(*groups: str) -> tuple[Option, ...]:
    """Return the options of some groups, or all, in the order of the signature.

    Examples
    --------
    >>> [option.name for option in options("recommending")]
    ['user', 'item', 'item_columns', 'keep_seen']
    """
    return tuple(option for option in _ALL if not groups or option.group in groups)
