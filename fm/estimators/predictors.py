"""FMRegressor and FMClassifier: the estimators that predict a target.

Decided here: what labels stand for. Not decided here: what the estimators share
(``fm.estimators.base``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from fm.errors import ConfigError, DataError
from fm.estimators.base import FactorizationMachine
from fm.estimators.parameters import documented
from fm.measures.losses import sigmoid
from fm.tasks import CLASSIFIER, REGRESSOR


@documented
class FMRegressor(RegressorMixin, FactorizationMachine):  # type: ignore[misc]
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


@documented
class FMClassifier(ClassifierMixin, FactorizationMachine):  # type: ignore[misc]
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
