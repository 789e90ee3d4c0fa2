"""The factorization machine: its parameters, and how they turn rows into scores.

Decided here: which rows can be scored, by scipy or by the compiled kernel, and what a label is. Not
decided here: the formula (``fm.scoring.formula``), how columns become features
(``fm.encoding.encoder``), what else people ask of a model (``fm.model.model``).
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.filling import encode_rows, encode_table
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.data.labels import ZERO_ONE, Labels, is_plain, is_zero_one
from fm.errors import ConfigError, DataError
from fm.scoring.formula import Prepared, prepared, row_scores, score_of_row
from fm.sparse import all_finite, checked_csr, sparse_row
from fm.tasks import Task

if TYPE_CHECKING:
    from fm.catalogue.catalogue import Catalogue
    from fm.encoding.encoder import Encoder

ENGINES = ("auto", "scipy", "compiled")

# From how many products (stored entries x factors) engine="auto" takes the compiled kernel. Loading
# numba and the kernel takes about as long as scipy needs for the first number of products. Once
# they are loaded the second is enough, unless the kernel must first be compiled for these rows.
COLD_WORK = 2**29
WARM_WORK = 2**24


class Factors(NamedTuple):
    """What a model learnt about some features: their names, weights and vectors."""

    names: list[str]
    w: np.ndarray
    V: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class FactorizationMachine:
    """The parameters of a factorization machine, what its features are, and how it scores rows.

    Users of fm have its subclass :class:`fm.Model`.

    Parameters
    ----------
    w0 : float
        The bias; rounded to float32.
    w : ndarray of float32, shape (num_features,)
        One weight per feature. Read-only; a changed model is made by ``dataclasses.replace``.
    V : ndarray of float32, shape (num_features, num_factors)
        One vector of factors per feature. Read-only.
    config : TrainConfig
        The hyperparameters it was trained with; ``config.predictor_type`` is its task, not set: a
        regressor.
    encoder : Encoder, optional
        What turns columns into features.
    fields : ndarray of int32, shape (num_features,), optional
        The field of each feature; -1 if the training data named none.
    field_names : tuple of str
        Names of the fields, by field number.
    metrics : dict
        What was measured on held-out rows during training.
    zero_based : bool, optional
        How the libsvm file it was trained on counts features (see Dataset.zero_based).
    catalogue : Catalogue, optional
        Which features are items and users, and who met what (see Dataset.catalogue).
    labels : tuple of two
        What a classifier's labels 0 and 1 are in the training data.

    Raises
    ------
    DataError
        If the shapes do not belong together or a parameter is not a finite number.

    Examples
    --------
    >>> machine = FactorizationMachine(
    ...     3.5, [0.5, -0.5, 0.0], [[1.0], [0.0], [2.0]], TrainConfig(num_factors=1)
    ... )
    >>> machine.predict([[1, 0, 0], [1, 0, 1]]).tolist()
    [4.0, 6.0]
    >>> machine.score_row([0, 2])
    6.0
    """

    w0: float
    w: np.ndarray
    V: np.ndarray
    config: TrainConfig
    encoder: Encoder | None = None
    fields: np.ndarray | None = None
    field_names: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    zero_based: bool | None = None
    catalogue: Catalogue | None = None
    labels: Labels = ZERO_ONE

    def __post_init__(self) -> None:
        w0 = _parameter("w0", np.reshape(self.w0, -1), (1,))
        V = _parameter("V", self.V, (None, None))
        w = _parameter("w", self.w, (V.shape[0],))
        if self.encoder is not None and self.encoder.num_features != len(V):
            raise DataError(
                f"model encoder: expected one of {len(V)} features, as V has rows, found "
                f"{self.encoder.num_features}"
            )
        changed: dict[str, Any] = {
            "w0": float(w0[0]),
            "w": w,
            "V": V,
            "field_names": tuple(self.field_names),
        }
        changed["config"] = dataclasses.replace(self.config, predictor_type=self.task.name)
        if self.fields is not None:
            changed["fields"] = _field_numbers(self.fields, V.shape[0], len(self.field_names))
        for name, value in changed.items():
            object.__setattr__(self, name, value)

    @property
    def num_features(self) -> int:
        """Number of features."""
        return int(self.V.shape[0])

    @property
    def num_factors(self) -> int:
        """Length of each feature's vector of factors."""
        return int(self.V.shape[1])

    @property
    def task(self) -> Task:
        """What was learnt, and all that depends on it."""
        return self.config.task

    def __eq__(self, other: object) -> bool:
        """Whether both score every row alike and carry the same hyperparameters and encoder."""
        if not isinstance(other, FactorizationMachine):
            return NotImplemented
        return (
            self.w0 == other.w0
            and np.array_equal(self.w, other.w)
            and np.array_equal(self.V, other.V)
            and self.config == other.config
            and self.field_names == other.field_names
            and _same_array(self.fields, other.fields)
            and self.encoder == other.encoder
            and self.labels == other.labels
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [f"{self.config.predictor_type}, {self.num_features} features x "]
        parts.append(f"{self.num_factors} factors")
        if self.field_names:
            parts.append(f", fields {' '.join(self.field_names)}")
        parts += [f", {name} {value:.6g}" for name, value in self.metrics.items() if _number(value)]
        return f"{type(self).__name__}({''.join(parts)})"

    # -- scoring ---------------------------------------------------------------------------------

    def as_dataset(self, data: Any) -> Dataset:
        """Return rows of any kind as a Dataset of this model's features.

        Parameters
        ----------
        data : Dataset, sparse matrix, array, frame, dict of columns, list of dicts, or path
            Frames, dicts and tables in files go through the model's encoder. Columns that they
            leave out and that describe a known user or item are as in training, see
            ``fm.catalogue.filling``. A dense array must be as wide as the model; sparse rows may be
            narrower.

        Raises
        ------
        DataError
            If a feature number is outside the model, or the rows cannot be read.
        """
        if isinstance(data, Dataset):
            if data.encoder is not None and data.encoder != self.encoder:
                raise DataError(
                    f"{data.source}: the rows were encoded by another encoder than the model's, "
                    "so their feature numbers mean something else; read them with "
                    "encoder=model.encoder"
                )
            if data.num_features == self.num_features:
                return data
            X = checked_csr(data.X, self.num_features, source=data.source)
            return dataclasses.replace(data, X=X, _cache={})
        if sp.issparse(data):
            return Dataset(checked_csr(data, self.num_features))
        if isinstance(data, (list, tuple)) and data and isinstance(data[0], Mapping):
            X, filled = encode_rows(self._needed_encoder(), self.catalogue, data)
            return Dataset(X, filled=filled)
        if self.encoder is None and hasattr(data, "to_numpy"):
            data = data.to_numpy()
        if isinstance(data, (np.ndarray, list, tuple)):
            try:
                array = np.asarray(data)
            except ValueError as err:
                raise DataError(
                    "data: expected a matrix of features, or rows as dicts, found "
                    f"a {type(data).__name__} that is neither"
                ) from err
            if array.ndim == 2 and array.shape[1] != self.num_features:
                raise DataError(
                    f"data: expected {self.num_features} columns, one for each feature of the "
                    f"model, found {array.shape[1]}; pass rows that name their features as a "
                    "sparse matrix"
                )
            return Dataset(checked_csr(array))
        if isinstance(data, (str, os.PathLike)) and self.encoder is None:
            from fm.reading.read import read

            return self.as_dataset(read(data, **self.reading_options(data)))
        X, filled = encode_table(self._needed_encoder(), self.catalogue, data)
        return Dataset(X, filled=filled)

    def reading_options(self, source: Any, format: str | None = None) -> dict[str, Any]:
        """Return the options of :func:`fm.read` that turn a source into this model's features."""
        options: dict[str, Any] = {} if is_zero_one(self.labels) else {"labels": self.labels}
        if self.encoder is not None:
            return {**options, "encoder": self.encoder, "catalogue": self.catalogue}
        options["num_features"] = self.num_features
        if self.zero_based is not None:
            from fm.formats.files import is_file  # a path, or what came on standard input
            from fm.formats.guess import guess_format

            if is_file(source) and (format or guess_format(source)) == "libsvm":
                options["zero_based"] = self.zero_based
        return options

    def _needed_encoder(self) -> Encoder:
        if self.encoder is None:
            raise DataError(
                "data: the model was trained on feature numbers and has no encoder for named "
                f"columns; pass a matrix of {self.num_features} features"
            )
        return self.encoder

    def scores(self, data: Any, *, engine: str = "auto") -> np.ndarray:
        """Return the raw score of each row: the prediction before the link.

        Parameters
        ----------
        data : Dataset, sparse matrix, array, frame, dict of columns, list of dicts, or path
            See :meth:`as_dataset`.
        engine : {"auto", "scipy", "compiled"}
            "scipy" never imports numba (for servers); "compiled" is the numba kernel; "auto" takes
            the kernel for large batches, if numba can be imported. They agree to rounding.

        Returns
        -------
        ndarray of float32, shape (num_rows,)

        Raises
        ------
        DataError
            If the rows do not fit the model.
        ConfigError
            If the engine is none of the three.
        """
        if engine not in ENGINES:
            raise ConfigError(f"engine: expected one of {', '.join(ENGINES)}, found {engine!r}")
        rows = self.as_dataset(data)
        if engine == "compiled" or engine == "auto" and self._pays_off(rows):
            try:
                from fm.kernels.scoring import predict_scores
            except ImportError:
                if engine == "compiled":
                    raise
            else:
                scores = predict_scores(
                    rows.X, self.w0, self.w, self.V, rows.onehot, rows.entries_per_row
                )
                return np.asarray(scores)
        return row_scores(rows.X, self._prepared, onehot=rows.onehot)

    def _pays_off(self, rows: Dataset) -> bool:
        enough = WARM_WORK if "fm.kernels.scoring" in sys.modules else COLD_WORK
        return bool(rows.X.nnz * self.num_factors >= enough)

    @cached_property
    def _prepared(self) -> Prepared:
        return prepared(self.w0, self.w, self.V)

    def score_row(self, indices: Sequence[int] | np.ndarray, values: Any = None) -> float:
        """Return the raw score of one row, in a few microseconds.

        Parameters
        ----------
        indices : sequence of int
            The features that are not zero; a repeated feature's values add up.
        values : sequence of float, optional
            Their values; the default is 1 each.

        Raises
        ------
        DataError
            If a feature is outside the model, a value is not finite or the lengths differ.
        """
        columns = np.asarray(indices)
        try:
            ids = columns.tolist()
            if len(set(ids)) != len(ids) or min(ids) < 0:  # numpy would take -1 as the last
                return self._score_odd_row(columns, values)
            x = None
            if values is not None:
                with np.errstate(over="ignore"):  # the score is infinite then
                    x = np.asarray(values, dtype=np.float32)
            score = score_of_row(columns, x, self._prepared)
        except (IndexError, TypeError, ValueError):
            return self._score_odd_row(columns, values)
        return score if math.isfinite(score) else self._score_odd_row(columns, values)

    def _score_odd_row(self, columns: np.ndarray, values: Any) -> float:
        """Score one row on the general path, which sums duplicates and explains errors."""
        expected = "row: expected a list of integer feature numbers and as many values"
        row = sparse_row(columns, values, self.num_features, expected=expected)
        return float(self.scores(row, engine="scipy")[0])

    def predict(self, data: Any, *, engine: str = "auto") -> np.ndarray:
        """Return the prediction of each row: a number, or the label of a classifier.

        The label is the second of :attr:`labels`, 1 unless the training data have others, where
        its probability is at least one half. Parameters and errors are those of :meth:`scores`.

        Returns
        -------
        ndarray of float32 (regressor) or int64 (classifier, or the type of its labels), shape
        (num_rows,)
        """
        return self.predictions(self.scores(data, engine=engine))

    def predictions(self, scores: np.ndarray) -> np.ndarray:
        """Return what :meth:`predict` answers to rows with these scores."""
        found = self.task.predictions(scores)
        if not self.task.has_probabilities or is_plain(self.labels):
            return found
        return np.asarray(np.array(self.labels)[found])

    def probabilities(self, data: Any, *, engine: str = "auto") -> np.ndarray:
        """Return the probability of label 1 of each row: sigmoid(score).

        Parameters are those of :meth:`scores`. (``fm.FMClassifier.predict_proba`` returns those of
        both labels, as scikit-learn asks.)

        Returns
        -------
        ndarray of float32, shape (num_rows,)

        Raises
        ------
        ConfigError
            If the model is no classifier.
        """
        if not self.task.has_probabilities:
            raise ConfigError(
                f"probabilities: the model is a {self.task.noun} and has none; use predict or "
                "scores, or train with predictor_type=binary_classifier"
            )
        return np.asarray(self.task.loss.link(self.scores(data, engine=engine)))

    # -- looking inside --------------------------------------------------------------------------

    def feature_indices(self, field_name: str) -> np.ndarray:
        """Return the numbers of the features of one field.

        Raises
        ------
        ConfigError
            If the model has no such field.
        """
        if self.fields is None or field_name not in self.field_names:
            known = ", ".join(self.field_names) or "none: the training data named no fields"
            raise ConfigError(f"field: expected one of the model's ({known}), found {field_name!r}")
        return np.flatnonzero(self.fields == self.field_names.index(field_name))

    def factors(self, field_name: str | None = None) -> Factors:
        """Return names, weights and factors of the features of one field, or of all.

        Examples
        --------
        >>> machine = FactorizationMachine(
        ...     0, [1, 2, 3], [[1], [2], [3]], TrainConfig(num_factors=1),
        ...     fields=[0, 1, 1], field_names=("user", "item"))
        >>> machine.factors("item").w.tolist()
        [2.0, 3.0]
        """
        if field_name is None:
            indices = np.arange(self.num_features)
        else:
            indices = self.feature_indices(field_name)
        return Factors(
            [self.feature_name(i) for i in indices.tolist()], self.w[indices], self.V[indices]
        )

    def feature_name(self, index: int) -> str:
        """Return the name of a feature, such as ``"user=42"``, or ``"feature 17"``."""
        if self.encoder is None:
            return f"feature {index}"
        return self.encoder.feature_name(index)


# -- checks ----------------------------------------------------------------------------


def _parameter(name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return a read-only float32 view or copy, after checking shape and finiteness."""
    array = np.asarray(values)
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    fits = array.ndim == len(shape) and all(
        n in (None, m) for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise DataError(
            f"model parameter {name}: expected numbers of shape {wanted}, not empty, found "
            f"{array.dtype} of shape {array.shape}"
        )
    with np.errstate(over="ignore"):  # reported below
        array = np.ascontiguousarray(array, dtype=np.float32).view()
    if not all_finite(array):
        at = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
        raise DataError(
            f"model parameter {name}{[int(i) for i in at]}: expected a finite float32 number, "
            f"found {array[at]}"
        )
    array.flags.writeable = False
    return array


def _field_numbers(values: Any, num_features: int, num_names: int) -> np.ndarray:
    fields = np.ascontiguousarray(values)
    if fields.shape != (num_features,) or fields.dtype.kind not in "iu":
        raise DataError(
            f"model fields: expected one integer per feature, shape ({num_features},), found "
            f"{fields.dtype} of shape {fields.shape}"
        )
    highest = num_names - 1 if num_names else np.iinfo(np.int32).max
    if int(fields.min()) < -1 or int(fields.max()) > highest:
        at = int(np.argmax((fields < -1) | (fields > highest)))
        raise DataError(
            f"model fields: feature {at} is in field {fields[at]}, expected 0 to {highest}, or -1"
        )
    fields = fields.astype(np.int32, copy=False).view()
    fields.flags.writeable = False
    return fields


def _same_array(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
