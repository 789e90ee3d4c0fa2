"""Folding in: the weight and factors of a new user or item, from a few rows, in milliseconds.

Decided here: how the parameters of a new feature are found while all others stay as they are. Not
decided here: how it becomes part of a model (``fm.recommending.extending``), what is then
recommended (``fm.recommending.recommender``). Only numpy and scipy are used.

A new feature of value 1, with weight w and factors v, changes the score of a row x to (Rendle 2010,
equation 1)

    score(x) + w + <v, s_x>,    s_x = sum_j x_j v_j

which is linear in theta = [w, v]. So theta is the minimum of a convex function, that of ridge
regression (or logistic regression) on z = [1, s_x]:

    sum_i weight_i loss(score(x_i) + <theta, z_i>, y_i) / noise
        + 1/2 (theta - mean)' covariance^-1 (theta - mean)

**The prior** is that of empirical Bayes: mean and covariance of theta over the features of the same
field that training has met. It tells what users have in common: which factors go with a high
weight, and which factors vary at all. Two corrections are made. Learnt values are shrunk, so they
vary less than the values they estimate (the covariance lacks the mean variance of the estimates):
the covariance is multiplied by :data:`SPREAD`. And a few features say little about a covariance: a
diagonal one, with one variance for all factors, is added and counts as one more feature.

**The noise** of a regression is the mean squared error on the held-out rows of training; for log
loss it is 1.

**Without rows** theta is the mean of the prior: an average user. Its errors differ from those of
the unknown feature by at most 0.3%, in either direction (``scripts/bench/coldstart.py``).

**A ranker** learns from liked rows. The other items (or users) of the catalogue are added as rows
that are not liked: a seeded sample of at most :data:`MAX_OTHERS`. Together they weigh as much as
negatives weigh in training: ``num_negatives`` for each liked row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.fields import FIELD_RANGE
from fm.data.dataset import Dataset
from fm.data.labels import is_zero_one
from fm.errors import Advice, ConfigError, DataError
from fm.sparse import without

if TYPE_CHECKING:
    from fm.catalogue.catalogue import Catalogue
    from fm.scoring.machine import FactorizationMachine

SPREAD = 1.5  # chosen on ml-latest-small, ml-1m and jester; 1 to 2 differ by less than 1%
MAX_OTHERS = 2000
_LARGEST = float(np.finfo(np.float32).max)
_NEWTON_STEPS = 50  # a dozen suffice, unless labels are separable and the prior is very wide


class Folded(NamedTuple):
    """What was learnt of a new value of a field: its weight and factors.

    Examples
    --------
    >>> from fm import Folded, Model, TrainConfig
    >>> model = Model(3.0, [0, 1], [[1], [2]], TrainConfig(num_factors=1))
    >>> new = Folded("0:1", w=0.5, v=np.array([1.0]))  # as model.fold_in returns it
    >>> model.with_feature(new, "new").predict([[0, 1, 1]])
    array([6.5], dtype=float32)
    """

    field: str
    w: float
    v: np.ndarray  # float32, shape (num_factors,)


class Folding:
    """A model prepared to fold in new values of one field; :func:`fold_in` makes and keeps one.

    Parameters
    ----------
    model : FactorizationMachine
    field : str
        The field (column) that gets a new value, or a range of features ``"first:end"`` where the
        model knows no fields (the end is not in it).
    noise : float, optional
        Variance of the targets around the scores, for regression; the default is the mean squared
        error that training measured on held-out rows.
    catalogue : Catalogue, optional
        For a ranker: the items that are not liked are drawn from it; the default is the model's.

    Attributes
    ----------
    mean : ndarray of float64, shape (1 + num_factors,)
        The prior's mean of [w, v].
    covariance : ndarray of float64, shape (1 + num_factors, 1 + num_factors)
        The prior's covariance.
    noise : float
        1 for log loss.

    Raises
    ------
    ConfigError
        If the model has no such field, the field has fewer than two trained features, or the noise
        is not known.
    """

    def __init__(
        self,
        model: FactorizationMachine,
        field: str,
        *,
        noise: float | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.model, self.field = model, field
        features = _features(model, field)
        self._dropped = np.zeros(model.num_features, bool)
        self._dropped[features] = True
        self.mean, self.covariance = _prior(model, field, features)
        variances, axes = np.linalg.eigh(self.covariance)
        # theta = mean + root a, where a is standard normal. This needs no inverse, so directions in
        # which nothing varies (a model without linear weights) are no special case.
        self._root = axes * np.sqrt(np.maximum(variances, 0.0))
        self.noise = 1.0
        if not model.task.labels:
            self.noise = _noise(model) if noise is None else noise
            if not (math.isfinite(self.noise) and self.noise > 0):
                raise ConfigError(f"noise: expected a number > 0, found {noise!r}")
        self.catalogue = model.catalogue if catalogue is None else catalogue

    def fold(self, X: Any, y: Any = None, *, weight: Any = None) -> Folded:
        """Return weight and factors of a new value of the field; see :func:`fold_in`."""
        rows = self.model.as_dataset(X)
        task = self.model.task
        if y is None and not task.ranks:
            raise DataError("fold_in: expected a target y for each row, found none")
        y = np.ones(rows.num_rows) if y is None else np.asarray(y)
        labels = None if task.ranks or is_zero_one(self.model.labels) else self.model.labels
        if labels and isinstance(labels[1], str) and y.dtype.kind in "fiub":
            labels = None  # 0 and 1, said by number
        rows = Dataset.from_arrays(rows.X, y, weight, source="fold_in", labels=labels)
        wrong = task.first_wrong_target(rows.targets)
        if wrong is not None:
            raise DataError(
                f"fold_in row {wrong + 1}: expected a label 0 or 1 for a {task.noun}, found "
                f"{rows.targets[wrong]:g}"
            )
        X = without(rows.X, self._dropped)
        Z, offsets = _design(X @ self.model.V), self.model.scores(X, engine="scipy")
        targets = rows.targets.astype(np.float64)
        shares = np.ones(rows.num_rows) if rows.weight is None else rows.weight.astype(np.float64)
        if task.ranks and rows.num_rows:
            others = self._others(X, shares[targets == 1].sum())
            Z, offsets, targets, shares = (
                np.concatenate(pair)
                for pair in zip((Z, offsets, targets, shares), others, strict=True)
            )
        theta = self._solve(Z, offsets.astype(np.float64), targets, shares / self.noise)
        return Folded(self.field, float(np.float32(theta[0])), theta[1:].astype(np.float32))

    def _solve(self, Z: np.ndarray, offsets: np.ndarray, y: np.ndarray, w: np.ndarray) -> Any:
        """Return the minimum by Newton's method; for squared loss the first step is the last."""
        loss = self.model.task.loss
        A = Z @ self._root
        offsets = offsets + Z @ self.mean

        def cost(a: np.ndarray) -> float:
            return float(w @ loss.value(offsets + A @ a, y) + 0.5 * a @ a)

        a = np.zeros(A.shape[1])
        for _ in range(_NEWTON_STEPS):
            scores = offsets + A @ a
            curvature = w * loss.curvature(scores)
            gradient = A.T @ (w * loss.gradient(scores, y)) + a
            hessian = (A.T * curvature) @ A
            hessian[np.diag_indices_from(hessian)] += 1.0
            try:
                step = np.linalg.solve(hessian, gradient)
            except np.linalg.LinAlgError as err:
                raise DataError(
                    "fold_in: the values or targets are too large to learn from; scale them down"
                ) from err
            if loss.is_quadratic():
                a = a - step
                break
            if float(gradient @ step) < 1e-18 * max(1.0, float(w.sum())):
                break
            # Where the sigmoid is flat a full step may overshoot: halve it until it helps.
            length, before = 1.0, cost(a)
            while cost(a - length * step) > before and length > 1e-6:
                length /= 2
            a = a - length * step
        return self.mean + self._root @ a

    # -- what a ranker compares with ---------------------------------------------------------------

    @cached_property
    def _sample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (keys, vectors, constants, side) of the items or users that may be not liked."""
        model, catalogue = self.model, self.catalogue
        if catalogue is None:
            raise ConfigError(
                "fold_in: a ranker compares what is liked with the other items; expected a model "
                "with a catalogue, or Folding(..., catalogue=...)"
            )
        if self._dropped[catalogue.item_keys[catalogue.item_keys >= 0]].any():
            keys = catalogue.user_keys
            users = sp.identity(model.num_features, np.float32, "csr")[keys]
            X, side = users, ~catalogue.item_side  # without the columns that describe users
        else:
            X, keys, side = catalogue.items, catalogue.item_keys, catalogue.item_side
        if len(keys) > MAX_OTHERS:
            rng = np.random.default_rng(model.config.seed)
            chosen = np.sort(rng.choice(len(keys), MAX_OTHERS, replace=False))
            X, keys = X[chosen], keys[chosen]
        constants = model.scores(X, engine="scipy") - np.float32(model.w0)
        return keys, X @ model.V, constants, side

    def _others(self, X: sp.csr_matrix, total: float) -> tuple[np.ndarray, ...]:
        """Return (Z, offsets, targets, weights) of rows not liked, with the other side of row 0."""
        model = self.model
        keys, vectors, constants, side = self._sample
        context = without(X[:1], side)
        shared = np.asarray(context @ model.V)[0]
        offsets = model.scores(context, engine="scipy")[0] + constants + vectors @ shared
        weights = np.where(np.isin(keys, X.indices), 0.0, 1.0)
        negatives = getattr(model.config, "num_negatives", None) or 1
        weights *= negatives * total / max(1.0, weights.sum())
        return _design(vectors + shared), offsets, np.zeros(len(keys)), weights


def fold_in(
    model: FactorizationMachine, X: Any, y: Any, field: str, *, weight: Any = None
) -> Folded:
    """Return weight and factors of a new value of a field, learnt from a few rows.

    The model does not change; :func:`fm.recommending.extending.with_feature` makes one that knows
    the value. What depends on the model alone is computed once and kept.

    Parameters
    ----------
    model : FactorizationMachine
    X : csr_matrix or what Model.as_dataset reads
        Rows of the new user or item. Their entries in `field` are ignored. Without rows, the result
        is the mean of the trained values. A repeated row counts each time.
    y : array, shape (num_rows,)
        Targets: numbers for a regressor, else labels 0 and 1. None: all rows are liked, for a
        ranker.
    field : str
        The field of the new value; see :class:`Folding`.
    weight : array, shape (num_rows,), optional
        Weight of each row, >= 0.

    Raises
    ------
    ConfigError
        See :class:`Folding`.
    DataError
        If rows or targets do not suit the model.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> from fm.model.model import Model
    >>> model = Model(3.0, [-1, 1, 0, 0], [[-1], [1], [1], [-1]], TrainConfig(num_factors=1),
    ...               fields=[0, 0, 1, 1], field_names=("user", "film"), metrics={"mse": 0.1})
    >>> likes_the_first = fold_in(model, [[0, 0, 1, 0], [0, 0, 0, 1]], [5, 3], "user")
    >>> round(likes_the_first.w, 1), likes_the_first.v.round(1).tolist()
    (1.0, [1.0])
    """
    known: dict[str, Folding] = model.__dict__.setdefault("_foldings", {})
    if field not in known:
        known[field] = Folding(model, field)
    return known[field].fold(X, y, weight=weight)


def ratings_rows(
    model: FactorizationMachine, catalogue: Catalogue, context: Any, ratings: Mapping[Any, Any]
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return (X, y) for :func:`fold_in`: one row for each rating of one person.

    Parameters
    ----------
    model : FactorizationMachine
    catalogue : Catalogue
    context : mapping, csr_matrix of one row, or None
        Columns of the person (and the hour, ...); columns of the item side are ignored. None:
        nothing is known about the person.
    ratings : mapping
        Item id to rating; 0 or 1 for a classifier or ranker.

    Raises
    ------
    DataError
        If an item is not in the catalogue, a rating is not a finite float32 number (or not 0 or 1),
        or the context does not suit the model.
    """
    if not isinstance(ratings, Mapping):
        raise DataError(
            f"ratings: expected a mapping of item to rating, found {type(ratings).__name__}"
        )
    _check_ratings(ratings, labels=model.task.labels)
    items = catalogue.items[catalogue.item_numbers(ratings)]
    if context is None and model.encoder is None:
        context = sp.csr_matrix((1, model.num_features), dtype=np.float32)
    if isinstance(context, Mapping) or context is None:
        context = [context or {}]
    rows = model.as_dataset(context).X
    if rows.shape[0] != 1:
        raise DataError(f"context: expected one row, found {rows.shape[0]}")
    rows = catalogue.contexts(rows)
    X = sp.csr_matrix(np.ones((len(ratings), 1), np.float32)) @ rows + items
    X = sp.csr_matrix(X, dtype=np.float32)
    X.sum_duplicates()  # sorts as well
    return X, np.array(list(ratings.values()), np.float32)


def _check_ratings(ratings: Mapping[Any, Any], *, labels: bool) -> None:
    for item, rating in ratings.items():
        number = isinstance(rating, (Real, np.bool_)) and (
            abs(rating if isinstance(rating, int) else float(rating)) <= _LARGEST
        )
        if not number or (labels and rating not in (0, 1)):
            wanted = "0 or 1" if labels else "a finite number"
            raise DataError(f"ratings: expected {wanted} for item {item!r}, found {rating!r}")


def fold_ratings(
    model: FactorizationMachine,
    catalogue: Catalogue,
    context: Any,
    ratings: Mapping[Any, Any] | None = None,
    liked: Iterable[Any] | None = None,
) -> tuple[Folded, list[Any]]:
    """Return what a few ratings or likes tell about a person, and the items that they name.

    Parameters
    ----------
    model : FactorizationMachine
    catalogue : Catalogue
    context : mapping, csr_matrix of one row, or None
        See :func:`ratings_rows`.
    ratings : mapping, optional
        Item id to rating; 0 or 1 for a classifier or ranker.
    liked : iterable of item ids, optional
        Items that the person liked: label 1. Not for a regressor.

    Raises
    ------
    ConfigError
        If neither or both are given, or the model does not know which column is the user.
    DataError
        See :func:`ratings_rows`.
    """
    if not catalogue.user:
        raise ConfigError(
            "ratings: the model does not know which column is the user",
            Advice("train it on data read with {user}", user=...),
        )
    if (ratings is None) == (liked is None):
        raise ConfigError("ratings, liked: expected one of the two")
    if liked is not None:
        if not model.task.labels:
            raise ConfigError(
                "liked: the model predicts ratings, not likes; give ratings, from item to number"
            )
        if isinstance(liked, (str, bytes)) or not isinstance(liked, Iterable):
            raise DataError(f"liked: expected a list of item ids, found {liked!r}")
        ratings = dict.fromkeys(liked, 1)
    assert ratings is not None
    X, y = ratings_rows(model, catalogue, context, ratings)
    if model.task.ranks:
        return fold_in(model, X[np.flatnonzero(y > 0)], None, catalogue.user), list(ratings)
    return fold_in(model, X, y, catalogue.user), list(ratings)


# -- parts -----------------------------------------------------------------------------------------


def _features(model: FactorizationMachine, field: str) -> np.ndarray:
    match = FIELD_RANGE.fullmatch(field) if isinstance(field, str) else None
    if match is None or field in model.field_names:
        return model.feature_indices(field)
    first, end = int(match[1]), int(match[2])
    if not first < end <= model.num_features:
        raise ConfigError(
            f"field: expected a range of features in 0:{model.num_features}, found {field!r}"
        )
    return np.arange(first, end)


def _prior(
    model: FactorizationMachine, field: str, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of [w, v] over the trained features of a field."""
    if model.encoder is not None and field in model.encoder.field_names:
        column = model.encoder.columns[model.encoder.field_names.index(field)]
        if column.kind in ("numeric", "date"):
            raise ConfigError(
                f"field: expected a column with values, found {field}, a {column.kind} one"
            )
        features = features[1:]  # the first is that of unknown values
    theta = np.hstack([model.w[features, None], model.V[features]]).astype(np.float64)
    theta = theta[theta.any(axis=1)]  # training leaves features that it does not meet at 0
    count = len(theta)
    if count < 2:
        raise ConfigError(
            f"field: expected two trained features of {field} or more to learn from, found {count}"
        )
    mean = theta.mean(axis=0)
    rest = theta - mean
    covariance = rest.T @ rest / count
    plain = np.full(len(mean), np.diag(covariance)[1:].mean())
    plain[0] = covariance[0, 0]
    covariance = (count * covariance + np.diag(plain)) / (count + 1)
    return mean, SPREAD * covariance


def _noise(model: FactorizationMachine) -> float:
    """Return the variance of targets around scores, on held-out rows, else on training rows."""
    metrics = model.metrics
    for noise in (metrics.get("mse"), 2 * metrics.get("loss", math.nan)):  # loss is half of it
        if noise is not None and math.isfinite(noise) and noise > 0:
            return float(noise)
    raise ConfigError(
        "noise: expected a model with the mean squared error of its training, found none above 0; "
        "give it that of other rows, as python -m fm.evaluate measures it: "
        "dataclasses.replace(model, metrics={'mse': ...}), which save keeps"
    )


def _design(sums: np.ndarray) -> np.ndarray:
    return np.hstack([np.ones((len(sums), 1)), sums])
