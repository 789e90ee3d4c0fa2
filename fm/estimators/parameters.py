"""The parameters of the estimators' constructors: signature and docstring.

Decided here: which parameters there are, and in which order. Not decided here: what they are
(``fm.config``, ``fm.reading.options``).
"""

from __future__ import annotations

import inspect
import textwrap
from typing import TypeVar

from fm.config import parameters
from fm.parameter import Parameter
from fm.reading.options import Option, options

COLUMNS, SIDES = options("columns"), options("recommending")
_WARM_START = Option(
    "warm_start", False, "", "bool", "let fit start from the model of the last fit, if there is one"
)
TRAINING = tuple(p for p in parameters() if p.name not in ("predictor_type", "feature_dim"))


def _described(parameter: Parameter) -> Option:
    kind, text = parameter.kind.__name__, parameter.help
    if parameter.choices:
        kind = "{" + ", ".join(map(repr, parameter.choices)) + "}"
    elif parameter.low is not None:
        text += f"; {parameter.range_text}"
    if parameter.optional:
        kind += " or None"
    return Option(parameter.name, parameter.default, parameter.group, kind, text)


_OPTIONS = (*map(_described, TRAINING), _WARM_START, *COLUMNS, *SIDES)
SIGNATURE = inspect.Signature(
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    + [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default)
        for option in _OPTIONS
    ]
)


_NOTES = """
Give it numbers, and it behaves as every estimator of scikit-learn: arrays, sparse matrices, frames
that are sparse, and frames with nothing but floats and truth values (``pd.get_dummies``) are taken
as they are. Scale the columns, and name columns of ids in `categorical`: as numbers they would mean
nothing.

Give it a frame (pandas, polars or Arrow) with other columns too, or any option about columns, and
the columns become features by :class:`fm.Encoder`, as with :func:`fm.read`; the model keeps it.
Texts, integers and truth values become categories, unless `numeric` names them; floats numbers;
dates their parts; lists sets of values. Values that were not seen in training are "unknown", not an
error. Later frames may have their columns in any order, and further ones, and may leave out columns
that describe a known user or item. ``model_.recommend`` makes lists, if a column is known
to hold the items (see `item`).
"""

_MERGING = """
Up to 10,000 rows that are visited in random order (see `shuffle`) are first brought into an order
of their own, and equal rows with equal targets become one row with the sum of their weights. So the
model depends on what the rows say, not on their order, and a row of weight 2 is the row twice.
"""

_ATTRIBUTES = """
model_ : fm.Model
    The trained model; ``model_.save(path)`` writes it to a file for other programs.
intercept_ : float
    The global bias w0.
coef_ : ndarray of float32, shape (num_features,)
    The linear weights w.
factors_ : ndarray of float32, shape (num_features, num_factors)
    The factors V.
history_ : list of dict
    What was measured in each epoch of the last fit.
n_iter_ : int
    Epochs done in the last fit.
n_features_in_ : int
    Number of columns of X.
feature_names_in_ : ndarray of str
    Names of the columns of X, if it was a frame and they are all texts.
"""

_Class = TypeVar("_Class", bound=type)


def documented(cls: _Class) -> _Class:
    """Fill in the parts of the docstring that are not written by hand."""
    if cls.__doc__ is None:  # python -OO
        return cls
    entries = []
    for option in _OPTIONS:
        text = textwrap.fill(option.help, 92)
        default = "" if option.default is None else f", default={option.default!r}"
        entries.append(f"{option.name} : {option.kind}{default}\n{textwrap.indent(text, '    ')}")
    parts = {
        "notes": _NOTES,
        "merging": _MERGING,
        "parameters": "\n".join(entries),
        "attributes": _ATTRIBUTES,
    }
    text = inspect.cleandoc(cls.__doc__)
    for name, part in parts.items():
        text = text.replace("{" + name + "}", part.strip())
    cls.__doc__ = text
    return cls
