"""What the estimators share: everything but the target.

Decided here: what scikit-learn's conventions ask for: which columns of a frame go through the
encoder, which rows are one row, where a second fit starts. Not decided here: the parameters
(``fm.estimators.parameters``), what labels stand for (``fm.estimators.predictors``), training
(``fm.training.fit``).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from fm.catalogue.fields import FIELD_RANGE
from fm.catalogue.filling import encode_table
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.estimators.parameters import COLUMNS, SIDES, SIGNATURE, TRAINING
from fm.reading.finding_items import catalogue_of, continued
from fm.sparse import checked_csr

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.catalogue.catalogue import Catalogue
    from fm.model.model import Model
    from fm.training.fit import TrainState

# Up to here, putting the rows in order and merging equal ones costs less than an epoch or two.
FEW_ROWS = 10_000


class FactorizationMachine(BaseEstimator):  # type: ignore[misc]
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

    __init__.__signature__ = SIGNATURE  # type: ignore[attr-defined]

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
        values = {p.name: getattr(self, p.name) for p in TRAINING}
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
        if self._merges and self._config().resolved().shuffle and data.num_rows <= FEW_ROWS:
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
            sides = {option.name: getattr(self, option.name) for option in SIDES}
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
        if not is_frame(X):  # a frame may have its columns in another order, and further ones
            validate_data(self, X, reset=False, skip_check_array=True)
        return encode_table(encoder, catalogue, self._table(X)).X

    def _new_encoder(self, X: Any) -> Encoder | None:
        """Return the encoder that X calls for; None where X is taken as numbers."""
        given = {option.name: getattr(self, option.name) for option in COLUMNS}
        asked = any(
            np.size(given[name]) if default == () else given[name] != default
            for name, default, *_ in COLUMNS
        )
        asked = asked or any(name and not FIELD_RANGE.fullmatch(name) for name in self._sides())
        if not asked and (not is_frame(X) or _is_matrix(X)):
            return None
        validate_data(self, X, reset=True, skip_check_array=True)
        return Encoder.fit(self._table(X), **given)

    def _sides(self) -> Iterator[str]:
        """Yield what was given as the columns of items and users."""
        return (name for name in (self.item, self.user) if isinstance(name, str))

    def _table(self, X: Any) -> pa.Table:
        """Return X as a table; an array's columns are called as in fit, or else x0, x1, ..."""
        from fm.formats.tables import read_table

        if is_frame(X):
            return read_table(X)
        if sp.issparse(X):
            raise DataError(
                "X: expected a frame or an array with columns to encode, found a sparse matrix; "
                "to train on features leave out all options about columns"
            )
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)])
        return read_table(dict(zip(names, np.asarray(X).T, strict=True)))


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


def is_frame(X: Any) -> bool:
    """Return whether X is a table with named columns, of pandas, polars or Arrow."""
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
