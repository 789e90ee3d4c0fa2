"""FMRanker: the estimator that ranks items, without a target.

Decided here: that numbers in a frame are ids, and what a ranker's score is. Not decided here: what
the estimators share (``fm.estimators.base``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from fm.data.dataset import Dataset
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError
from fm.estimators.base import FactorizationMachine, is_frame
from fm.estimators.parameters import documented
from fm.tasks import RANKER

if TYPE_CHECKING:
    from fm.catalogue.catalogue import Catalogue


@documented
class FMRanker(FactorizationMachine):
    """Factorization machine that ranks items, trained on rows that are interactions.

    Each row is a user (or any context) that met an item: a purchase, a listen, a click. There are
    no targets; items that were not met are drawn as negatives. See
    ``fm.training.solvers.negatives``.

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
    >>> from fm import FMRanker
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
        if encoder is None and is_frame(X):
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
