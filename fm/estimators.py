"""Factorization machines as scikit-learn estimators: FMRegressor, FMClassifier, FMRanker.

Decided here: what scikit-learn's conventions ask for: which columns of a frame go through the
encoder, what labels stand for, which rows are one row, where a second fit starts. Not decided
here: hyperparameters (the constructors' signatures and docstrings are made from ``fm.config``) and
training (``fm.training.fit``).
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from fm.catalogue.fields import FIELD_RANGE
from fm.catalogue.filling import encode_table
from fm.config import TrainConfig, parameters
from fm.data.dataset import Dataset
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.measures.losses import sigmoid
from fm.parameter import Parameter
from fm.reading.finding_items import catalogue_of, continued
from fm.sparse import checked_csr
from fm.tasks import CLASSIFIER, RANKER, REGRESSOR

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.catalogue.catalogue import Catalogue
    from fm.model.model import Model
    from fm.training.fit import TrainState

# Up to here, putting the rows in order and merging equal ones costs less than an epoch or two.
_SMALL = 10_000


# -- hyperparameters -------------------------------------------------------------------------------


class _Option(NamedTuple):
    """A parameter of the constructors, as their signature and docstring show it."""

    name: str
    default: Any
    kind: str
    help: str


_NAMES, _SETS = "str, int, or sequence of them", "str, int, sequence of them, or dict"

#: What :meth:`fm.encoding.encoder.Encoder.fit` is told of the columns.
_COLUMN_OPTIONS = tuple(_Option(*option) for option in (
    ("categorical", (), _NAMES, "columns with one value in each row: ids, names, codes"),
    ("numeric", (), _NAMES, "columns with numbers"),
    ("multi", (), _SETS, "columns with sets of values: lists, or texts such as 'Action|Comedy'; "
     "a dict gives the separator of each column"),
    ("history", (), _SETS, "as multi, but each of n values weighs 1/sqrt(n)"),
    ("ignore", (), _NAMES, "columns to leave out when no others are named"),
    ("standardize", False, "bool", "scale numeric columns to mean 0 and standard deviation 1"),
    ("min_count", 1, "int", "values in fewer rows share the unknown feature of their column"),
    ("hash_dim", None, "int, dict of int, or None", "hash the values of a column into so many "
     "features instead of listing them"),
))  # fmt: skip
_WARM_START = _Option(
    "warm_start", False, "bool", "let fit start from the model of the last fit, if there is one"
)
#: What :func:`fm.reading.finding_items.catalogue_of` is told of them, for recommending.
_SIDE_OPTIONS = (
    _Option("item", None, "str or None", "the column of the items, or a range of features such as "
            "'943:2625'; None: a column with a usual name, such as item, film or product"),
    _Option("user", None, "str or None", "the same of the users, who may be absent"),
    _Option("item_columns", None, "str, sequence of them, or None", "the columns that describe an "
            "item; None: those with one value in all rows of each item"),
    _Option("keep_seen", True, "bool", "whether the model and its file remember who met which "
            "item; lists leave it out"),
)  # fmt: skip
_TRAINING = tuple(p for p in parameters() if p.name not in ("predictor_type", "feature_dim"))


def _options() -> Iterator[_Option]:
    yield from map(_described, _TRAINING)
    yield _WARM_START
    yield from _COLUMN_OPTIONS
    yield from _SIDE_OPTIONS


def _described(parameter: Parameter) -> _Option:
    kind, text = parameter.kind.__name__, parameter.help
    if parameter.choices:
        kind = "{" + ", ".join(map(repr, parameter.choices)) + "}"
    elif parameter.low is not None:
        text += f"; {parameter.range_text}"
    if parameter.optional:
        kind += " or None"
    return _Option(parameter.name, parameter.default, kind, text)


def _signature() -> inspect.Signature:
    return inspect.Signature(
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        + [
            inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default)
            for option in _options()
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
lists sets of values. Values that were not seen in training are "unknown", not an error. Later
frames may have their columns in any order, and further ones, and may leave out columns that
describe a known user or item. ``model_.recommend`` makes lists, if a column is known to hold the
items (see `item`).
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


def _documented(cls: _Class) -> _Class:
    """Fill in the parts of the docstring that are not written by hand."""
    if cls.__doc__ is None:  # python -OO
        return cls
    entries = []
    for option in _options():
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


# -- the estimators --------------------------------------------------------------------------------


class _FactorizationMachine(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: everything but the target."""

    _predictor_type: str
    _merges = True  # few rows: see _MERGING
    model_: Model

    def __init__(self, **given: Any) -> None:
        bound = inspect.signature(type(self).__init__).bind(self, **given)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name != "self":
                setattr(self, name, value)

    __init__.__signature__ = _signature()  # type: ignore[attr-defined]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, eval_set: Any = None) -> Any:
        """Train, and return self.

        Parameters
        ----------
        X : array, sparse matrix or frame, shape (num_rows, num_columns)
            Rows; see the class.
        y : array-like, shape (num_rows,)
            Targets.
        sample_weight : array-like, shape (num_rows,), optional
            Weights >= 0; rows of weight 0 are left out.
        eval_set : tuple (X, y), or list with one, optional
            Rows that early stopping watches; without it `validation_fraction` of X is held out.

        Raises
        ------
        ConfigError
            If hyperparameters are wrong: one ValueError that names all of them.
        DataError
            If the data break a rule; a ValueError, too.
        DivergenceError
            If training left the finite numbers; the message names the likely cause.
        """
        fresh = not (self.warm_start and hasattr(self, "model_"))
        return self._train(X, y, sample_weight, self._config(), fresh, eval_set=eval_set)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Any:
        """Train one epoch on some rows; the optimizer's state is carried from call to call."""
        from fm.training.fit import fit_pass

        state = getattr(self, "_state", None)  # none after fit: training starts from its model
        fresh = not hasattr(self, "model_")
        if state is None and not fresh:
            one_pass = {"epochs": 1, "validation_fraction": 0.0, "patience": 0}
            return self._train(X, y, sample_weight, self._config(**one_pass), fresh)
        data, _ = self._rows(X, y, sample_weight, fresh, classes=classes)
        model, state = fit_pass(data, self._config(), state)
        self._keep(model)._state = state
        return self

    def _config(self, **changed: Any) -> TrainConfig:
        values = {p.name: getattr(self, p.name) for p in _TRAINING}
        return TrainConfig(**{**values, **changed}, predictor_type=self._predictor_type)

    def _train(
        self, X: Any, y: Any, weight: Any, config: TrainConfig, fresh: bool, *,
        classes: Any = None, eval_set: Any = None,
    ) -> Any:  # fmt: skip
        """Train from the beginning, or else go on with the model there is."""
        from fm.training.fit import fit

        data, validation = self._rows(X, y, weight, fresh, classes=classes, eval_set=eval_set)
        init = None if fresh else self.model_
        self._state: TrainState | None = None
        return self._keep(fit(data, config, validation=validation, init=init, progress=False))

    def _rows(
        self, X: Any, y: Any, weight: Any, fresh: bool, *, classes: Any = None, eval_set: Any = None
    ) -> tuple[Dataset, Dataset | None]:
        """Return the training and the validation rows; `fresh`: decide what columns mean."""
        y = self._target(y, "y", fresh, classes)
        encoder = self._new_encoder(X) if fresh else self.model_.encoder
        data = _without_weightless(self._dataset(X, y, weight, encoder, reset=fresh))
        if self._merges and self._config().resolved().shuffle and data.num_rows <= _SMALL:
            data = _canonical(data)
        data = self._with_catalogue(data, fresh)
        validation = None
        if eval_set is not None:
            X, y = _the_pair(eval_set)
            y = self._target(y, "eval_set", False)
            validation = self._dataset(X, y, None, encoder, reset=False)
        return data, validation

    def _with_catalogue(self, data: Dataset, fresh: bool) -> Dataset:
        """Return data with the items and users there are, and those of the model that goes on."""
        old = None if fresh else self.model_.catalogue
        if old is None:
            sides = {option.name: getattr(self, option.name) for option in _SIDE_OPTIONS}
            return dataclasses.replace(data, catalogue=catalogue_of(data, **sides))
        if not self.keep_seen:
            old = dataclasses.replace(old, seen=None)
        return continued(old, data)

    def _keep(self, model: Model) -> Any:
        """Show what was learnt as attributes, and return self."""
        self.model_ = model
        self.intercept_, self.coef_, self.factors_ = model.w0, model.w, model.V
        self.history_, self.n_iter_ = model.history, len(model.history)
        return self

    def _target(self, y: Any, name: str, fresh: bool, classes: Any = None) -> np.ndarray:
        """Return y as numbers to train on; `fresh`: learn what they stand for."""
        if y is None:
            raise DataError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        values = np.asarray(column_or_1d(y, warn=True))
        assert_all_finite(values, input_name=name)
        return values

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "model_")
        from fm.kernels.scoring import predict_scores

        model = self.model_
        X = self._features(X, model.encoder, reset=False, catalogue=model.catalogue)
        # One machine code for every batch: a row's score must not depend on the rows beside it.
        scores = predict_scores(X, model.w0, model.w, model.V, onehot=False, entries_per_row=0)
        return np.asarray(scores, dtype=np.float64)

    # -- from X to features ------------------------------------------------------------------------

    def _dataset(
        self, X: Any, y: np.ndarray, weight: Any, encoder: Encoder | None, *, reset: bool,
        catalogue: Catalogue | None = None,
    ) -> Dataset:  # fmt: skip
        features = self._features(X, encoder, reset=reset, catalogue=catalogue)
        check_consistent_length(features, y)
        if encoder is None:
            names = getattr(self, "feature_names_in_", None)
            return Dataset.from_arrays(features, y, weight, feature_names=names)
        known = {
            name: getattr(encoder, name) for name in ("fields", "field_names", "feature_names")
        }
        return Dataset.from_arrays(features, y, weight, encoder=encoder, **known)

    def _features(
        self, X: Any, encoder: Encoder | None, *, reset: bool, catalogue: Catalogue | None = None
    ) -> sp.csr_matrix:
        """Return X as features; a catalogue fills in columns that rows to predict leave out."""
        if encoder is None:
            X = validate_data(self, X, reset=reset, accept_sparse="csr", dtype=np.float32)
            return checked_csr(X)
        if not _is_frame(X):  # a frame may have its columns in another order, and further ones
            validate_data(self, X, reset=False, skip_check_array=True)
        return encode_table(encoder, catalogue, self._table(X)).X

    def _new_encoder(self, X: Any) -> Encoder | None:
        """Return the encoder that X calls for; None where X is taken as numbers."""
        given = {option.name: getattr(self, option.name) for option in _COLUMN_OPTIONS}
        asked = any(
            np.size(given[name]) if default == () else given[name] != default
            for name, default, *_ in _COLUMN_OPTIONS
        )
        asked = asked or any(name and not FIELD_RANGE.fullmatch(name) for name in self._sides())
        if not asked and (not _is_frame(X) or _is_matrix(X)):
            return None
        validate_data(self, X, reset=True, skip_check_array=True)
        return Encoder.fit(self._table(X), **given)

    def _sides(self) -> Iterator[str]:
        """Yield what was given as the columns of items and users."""
        return (name for name in (self.item, self.user) if isinstance(name, str))

    def _table(self, X: Any) -> pa.Table:
        """Return X as a table; an array's columns are called as in fit, or else x0, x1, ..."""
        from fm.formats.tables import read_table

        if _is_frame(X):
            return read_table(X)
        if sp.issparse(X):
            raise DataError(
                "X: expected a frame or an array with columns to encode, found a sparse matrix; "
                "to train on features leave out all options about columns"
            )
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)])
        return read_table(dict(zip(names, np.asarray(X).T, strict=True)))


@_documented
class FMRegressor(RegressorMixin, _FactorizationMachine):  # type: ignore[misc]
    """Factorization machine that predicts a number, trained on squared loss.

    {notes}

    {merging}

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    Examples
    --------
    >>> import pandas as pd
    >>> from fm import FMRegressor
    >>> X = pd.DataFrame({"user": ["ann", "ann", "bob", "cy"], "film": [7, 8, 7, 8]})
    >>> model = FMRegressor(num_factors=2, linear_lr=0.5, lr_decay=0)
    >>> model.fit(X, [5.0, 1.0, 4.0, 2.0]).predict(X).round().tolist()
    [5.0, 1.0, 4.0, 2.0]
    """

    _predictor_type = REGRESSOR

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> FMRegressor:
        """Train one epoch on these rows, from where the model stands, and return self.

        The first call decides about the columns and their values. Parameters and errors are those
        of :meth:`fit`.
        """
        return self._partial_fit(X, y, sample_weight)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> np.ndarray:
        """Return the prediction for each row.

        Parameters
        ----------
        X : array, sparse matrix or frame, shape (num_rows, num_columns)

        Returns
        -------
        ndarray of float64, shape (num_rows,)
        """
        return self._scores(X)


@_documented
class FMClassifier(ClassifierMixin, _FactorizationMachine):  # type: ignore[misc]
    """Factorization machine that tells two classes apart, trained on log loss.

    {notes}

    {merging}

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The labels, ascending; ``model_`` knows them as 0 and 1.
    {attributes}

    Examples
    --------
    >>> import pandas as pd
    >>> from fm import FMClassifier
    >>> X = pd.DataFrame({"user": ["ann", "ann", "bob", "cy"], "film": [7, 8, 7, 8]})
    >>> model = FMClassifier(num_factors=2, epochs=300).fit(X, ["yes", "no", "yes", "no"])
    >>> model.predict(X).tolist()
    ['yes', 'no', 'yes', 'no']
    """

    _predictor_type = CLASSIFIER

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> FMClassifier:
        """Train one epoch on these rows, from where the model stands, and return self.

        The first call decides about the columns and their values, and about the labels: they are
        `classes`, or those in `y` if it holds both. The other parameters, and errors, are those of
        :meth:`fit`.
        """
        return self._partial_fit(X, y, sample_weight, classes)  # type: ignore[no-any-return]

    def _target(self, y: Any, name: str, fresh: bool, classes: Any = None) -> np.ndarray:
        y = super()._target(y, name, fresh)
        check_classification_targets(y)
        kind = type_of_target(y, input_name=name, raise_unknown=True)
        if kind != "binary":
            raise DataError(
                f"Only binary classification is supported. The type of the target is {kind}. Wrap "
                "the estimator in sklearn.multiclass.OneVsRestClassifier for more classes."
            )
        found = np.unique(y if classes is None else classes)
        if fresh and found.size != 2:
            raise DataError(
                f"y: expected two classes, found {found.size} class{'es' * (found.size != 1)}: "
                f"{found.tolist()}; partial_fit can be told of both with classes=[...]"
            )
        if fresh:
            self.classes_ = found
        elif classes is not None and not np.array_equal(found, self.classes_):
            raise ConfigError(
                f"classes: expected {self.classes_.tolist()} as in the first call, found "
                f"{found.tolist()}"
            )
        known = np.isin(y, self.classes_)
        if not known.all():
            raise DataError(
                f"{name}: expected the labels {self.classes_.tolist()}, found "
                f"{y[~known].tolist()[0]!r}"
            )
        return np.asarray(y == self.classes_[1], dtype=np.float32)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds of ``classes_[1]`` for each row, float64, shape (num_rows,)."""
        return self._scores(X)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class for each row, float64, shape (num_rows, 2)."""
        scores = self._scores(X)
        return np.column_stack([sigmoid(-scores), sigmoid(scores)])

    def predict(self, X: Any) -> np.ndarray:
        """Return the more probable label for each row, shape (num_rows,)."""
        scores = self._scores(X)
        return np.asarray(self.classes_[(scores >= 0).astype(np.intp)])


@_documented
class FMRanker(_FactorizationMachine):
    """Factorization machine that ranks items, trained on rows that are interactions.

    Each row is a user (or any context) that met an item: a purchase, a listen, a click. There are
    no targets; items that were not met are drawn as negatives. See :mod:`fm.training.ranker`.

    {notes}

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    Examples
    --------
    >>> import pandas as pd
    >>> from fm.estimators import FMRanker
    >>> X = pd.DataFrame({"user": ["ann", "ann", "bob", "bob", "cy"], "item": list("ABCDA")})
    >>> model = FMRanker(num_factors=4, epochs=300).fit(X)
    >>> scores = model.predict(pd.DataFrame({"user": ["cy", "cy"], "item": ["B", "C"]}))
    >>> bool(scores[0] > scores[1])
    True
    """

    _predictor_type = RANKER
    _merges = False  # that users meet items again and again is something that it learns from

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, eval_set: Any = None
    ) -> FMRanker:
        """Train, and return self.

        Parameters
        ----------
        X : array, sparse matrix or frame, shape (num_rows, num_columns)
            Interactions; see the class.
        y : array-like, shape (num_rows,), optional
            If given, it must be above 0 everywhere; otherwise it is not used.
        sample_weight : array-like, shape (num_rows,), optional
            Weights >= 0; rows of weight 0 are left out.
        eval_set : tuple (X, y), or list with one, optional
            Interactions that early stopping watches (y may be None); without it one row of each
            user who has two is held out.

        Raises
        ------
        ConfigError, DataError, DivergenceError
            As the other estimators; and if it is not known which column is the item.
        """
        super().fit(X, y, sample_weight, eval_set=eval_set)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the score of each row, float64: higher is better, within the same context."""
        return self._scores(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return how well the items of these rows are ranked: NDCG at 10, from 0 to 1.

        The mean over the lists of :func:`fm.evaluating.rankings.evaluate_ranking`, one for each
        user (or other context) in X: all items of the model, without those that the user met in
        training, unless they are in X too. A row whose item is unknown is a miss; one whose user is
        unknown has a list of its own. Where users come back to the same items, call that function
        with ``exclude=None`` instead.

        Parameters
        ----------
        X : array, sparse matrix or frame, shape (num_rows, num_columns)
            Interactions that the model was not trained on.
        y : object, optional
            Not used.
        """
        check_is_fitted(self, "model_")
        from fm.evaluating.rankings import evaluate_ranking

        model = self.model_
        rows = self._dataset(X, None, None, model.encoder, reset=False, catalogue=model.catalogue)
        found = evaluate_ranking(model, rows, baselines=False)
        return float(found["metrics"]["model"]["ndcg@10"])

    def _target(self, y: Any, name: str, fresh: bool, classes: Any = None) -> Any:
        return None if y is None else super()._target(y, name, fresh)

    def _dataset(
        self, X: Any, y: Any, weight: Any, encoder: Encoder | None, *, reset: bool,
        catalogue: Catalogue | None = None,
    ) -> Dataset:  # fmt: skip
        if y is None:
            y = np.ones(np.shape(X)[0], np.float32)
        return super()._dataset(X, y, weight, encoder, reset=reset, catalogue=catalogue)

    def _rows(
        self, X: Any, y: Any, weight: Any, fresh: bool, *, classes: Any = None, eval_set: Any = None
    ) -> tuple[Dataset, Dataset | None]:
        data, validation = super()._rows(X, y, weight, fresh, classes=classes, eval_set=eval_set)
        if data.catalogue is None:
            raise ConfigError(f"item: expected the column of the items, found none{_told(data)}")
        return data, validation

    def _new_encoder(self, X: Any) -> Encoder | None:
        """Return the encoder; of frames always: in a ranker's numbers are ids."""
        encoder = super()._new_encoder(X)
        if encoder is None and _is_frame(X):
            validate_data(self, X, reset=True, skip_check_array=True)
            encoder = Encoder.fit(self._table(X))
        return encoder


def _told(data: Dataset) -> str:
    """Return which columns there are, and how to say that one is the items'."""
    if data.encoder is None:
        return "; give the range of their features, as in item='943:2625'"
    kinds = ", ".join(f"{column.name}: {column.kind}" for column in data.encoder.columns)
    return (
        f" ({kinds}); name it, as in item='film'; ids that are floats are numeric unless all "
        "columns to use are named, as in categorical=['user', 'film']"
    )


# -- rows ------------------------------------------------------------------------------------------


def _without_weightless(data: Dataset) -> Dataset:
    if data.weight is None or data.weight.all():
        return data
    rows = np.flatnonzero(data.weight)
    if not rows.size:
        raise DataError("sample_weight: expected a weight that is not zero, found all of them zero")
    return data.take(rows)


def _canonical(data: Dataset) -> Dataset:
    """Return the rows in an order of their own, equal ones as one row of their weights' sum."""
    X, y = data.X, np.asarray(data.y) + np.float32(0)  # -0.0 + 0 is 0.0
    if not X.data.all():  # a zero that is stored is no different from one that is not
        X = X.copy()
        X.eliminate_zeros()
    first: dict[bytes, int] = {}
    total = np.zeros(data.num_rows)
    weight = np.ones(data.num_rows) if data.weight is None else data.weight.astype(np.float64)
    for i in range(data.num_rows):
        part = slice(X.indptr[i], X.indptr[i + 1])
        row = y[i].tobytes() + X.indices[part].tobytes() + X.data[part].tobytes()
        total[first.setdefault(row, i)] += weight[i]
    rows = np.array([first[row] for row in sorted(first)])
    total = total[rows].astype(np.float32)
    merged = dataclasses.replace(data, X=X, weight=None, _cache={}).take(rows)
    return merged if (total == 1).all() else dataclasses.replace(merged, weight=total)


def _the_pair(eval_set: Any) -> tuple[Any, Any]:
    if isinstance(eval_set, list) and len(eval_set) == 1:
        eval_set = eval_set[0]
    if not isinstance(eval_set, tuple) or len(eval_set) != 2:
        raise ConfigError(
            "eval_set: expected a tuple (X, y), or a list with one, found a "
            f"{type(eval_set).__name__} of {len(eval_set) if hasattr(eval_set, '__len__') else 1}"
        )
    return eval_set


# -- frames ----------------------------------------------------------------------------------------


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns")


def _is_matrix(frame: Any) -> bool:
    """Whether a frame holds nothing but floats and truth values, or is a sparse matrix."""
    types = frame.schema.types if hasattr(frame, "column_names") else frame.dtypes
    return all(map(_is_number, types))


def _is_number(dtype: Any) -> bool:
    """Whether the type of a column of pandas, polars or Arrow is not one that ids have."""
    if hasattr(dtype, "kind"):  # numpy's letters, which pandas gives to its own types too
        sparse = type(dtype).__name__ == "SparseDtype"
        return dtype.kind in ("fcbiu" if sparse else "fcb")
    if hasattr(dtype, "is_float"):
        return bool(dtype.is_float() or str(dtype) == "Boolean")
    import pyarrow.types as types

    return bool(types.is_floating(dtype) or types.is_boolean(dtype))
