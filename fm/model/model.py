"""Model: the parameters of a factorization machine, with all that is needed to use them.

Decided here: how rows are scored, what a model remembers, and the file it is kept in. Not decided
here: how the parameters are found (``fm.training.fit``), how columns become features
(``fm.encoding.encoder``).

The score of a row x with features i and factors f is (Rendle 2010, equations 1 and 5)

    w0 + sum_i w_i x_i + 1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ]

**The file.** A model is one file of :mod:`fm.formats.storage`: a safetensors file, of format ``fm``
and version ``1``, which a few lines in any language can read. Nothing in it is a time, a host or a
path, so that the same model gives the same bytes.

==================  ==========  ==============================================================
tensor              type        meaning
==================  ==========  ==============================================================
``w0``              F32 [1]     the bias
``w``               F32 [n]     one weight per feature
``V``               F32 [n, k]  one vector of factors per feature
``fields``          I32 [n]     field of each feature, -1: unknown; left out if all are unknown
``encoder_json``    U8 [bytes]  the encoder as JSON in UTF-8; left out where there is none
``item_rows``,      I32, I32,   the catalogue (``fm.catalogue.catalogue``), where there is one: the
item side ``item_features``,  F32         of each item as a CSR matrix of features
``item_values``
``user_rows``,      as above    the features of each user's own columns
``user_features``,
``user_values``
``seen_users``,     I32, I32    which items each user met in training, a CSR matrix of items
``seen_items``
==================  ==========  ==============================================================

===================  =========================================================================
metadata             meaning (every value is a text)
===================  =========================================================================
``task``             ``regressor`` or ``binary_classifier``: the probability is sigmoid(score)
``config``           JSON object: the hyperparameters
``field_names``      JSON list: the names of the fields, by field number
``metrics``          JSON object: what was measured on the held-out rows
``history``          JSON list of objects: the metrics of each epoch
``fingerprint``      a fingerprint of the training data
``catalogue``        JSON object: columns: ``item``, ``user``, ``item_columns``, ``user_columns``
``zero_based``       ``true`` or ``false``: whether the libsvm file trained on calls its first
                     feature 0; ``null`` for other data
``library_version``  the version of fm that wrote the file
===================  =========================================================================
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm import __version__
from fm.config import CLASSIFIER, TrainConfig, parameters
from fm.data.dataset import Dataset, all_finite, checked_csr, sparse_row
from fm.errors import ConfigError, DataError, FMError, ModelFileError
from fm.formats.storage import from_json, read_tensors, to_json, write_tensors
from fm.measures.losses import LOSSES

if TYPE_CHECKING:
    from fm.catalogue.catalogue import Catalogue
    from fm.encoding.encoder import Encoder
    from fm.explaining.interactions import Interaction
    from fm.explaining.terms import Explanation
    from fm.recommending.folding import Folded
    from fm.recommending.recommendations import Recommendations
    from fm.recommending.recommender import Recommender

FILE_NAME = "model.safetensors"
FORMAT_VERSION = "1"
ENGINES = ("auto", "scipy", "compiled")

# Products (stored entries x factors) from which engine="auto" takes the compiled kernel. Loading
# numba and the kernel costs about as much as scipy needs for the first number; once they are in
# memory, only a specialisation that this machine never compiled could cost more than it saves.
_COLD_WORK = 2**29
_WARM_WORK = 2**24
# Floats of a temporary matrix while scoring: 4 MB, large beside a call's overhead.
_BLOCK = 2**20

log = logging.getLogger("fm")


class Factors(NamedTuple):
    """What a model learnt of some features: their names, weights and vectors."""

    names: list[str]
    w: np.ndarray
    V: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained factorization machine.

    Parameters
    ----------
    w0 : float
        The bias; rounded to float32.
    w : ndarray of float32, shape (num_features,)
        One weight per feature. Read-only; a changed model is made by ``dataclasses.replace``.
    V : ndarray of float32, shape (num_features, num_factors)
        One vector of factors per feature. Read-only.
    config : TrainConfig
        The hyperparameters it was trained with; ``config.predictor_type`` is its task.
    encoder : Encoder, optional
        What turns columns into features.
    fields : ndarray of int32, shape (num_features,), optional
        The field of each feature; -1 where the training data did not tell.
    field_names : tuple of str
        Names of the fields, by field number.
    metrics : dict
        What was measured on held-out rows during training.
    history : list of dict
        Metrics of each epoch.
    fingerprint : str
        Fingerprint of the training data.
    zero_based : bool, optional
        How the libsvm file it was trained on counts features (see Dataset.zero_based).
    catalogue : Catalogue, optional
        Which features are items and users, and who met what (see Dataset.catalogue).

    Raises
    ------
    DataError
        If the shapes do not belong together or a parameter is not a finite number.

    Examples
    --------
    >>> model = Model(3.5, [0.5, -0.5, 0.0], [[1.0], [0.0], [2.0]], TrainConfig(num_factors=1))
    >>> model.predict([[1, 0, 0], [1, 0, 1]]).tolist()
    [4.0, 6.0]
    >>> model.score_row([0, 2])
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
    history: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str = ""
    zero_based: bool | None = None
    catalogue: Catalogue | None = None

    def __post_init__(self) -> None:
        w0 = _parameter("w0", np.reshape(self.w0, -1), (1,))
        V = _parameter("V", self.V, (None, None))
        w = _parameter("w", self.w, (V.shape[0],))
        if self.encoder is not None and self.encoder.num_features != len(V):
            raise DataError(
                f"model encoder: expected one of {len(V)} features, as V has rows, found "
                f"{self.encoder.num_features}"
            )
        changed = {"w0": float(w0[0]), "w": w, "V": V, "field_names": tuple(self.field_names)}
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
    def is_classifier(self) -> bool:
        """Whether the scores are log-odds of label 1."""
        return self.config.predictor_type == CLASSIFIER

    def __eq__(self, other: object) -> bool:
        """Whether both score every row alike and carry the same hyperparameters and encoder."""
        if not isinstance(other, Model):
            return NotImplemented
        return (
            self.w0 == other.w0
            and np.array_equal(self.w, other.w)
            and np.array_equal(self.V, other.V)
            and self.config == other.config
            and self.field_names == other.field_names
            and _same_array(self.fields, other.fields)
            and self.encoder == other.encoder
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [f"{self.config.predictor_type}, {self.num_features} features x "]
        parts.append(f"{self.num_factors} factors")
        if self.field_names:
            parts.append(f", fields {' '.join(self.field_names)}")
        parts += [f", {name} {value:.6g}" for name, value in self.metrics.items() if _number(value)]
        return f"Model({''.join(parts)})"

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
            from fm.catalogue.filling import encode_rows

            X, filled = encode_rows(self._needed_encoder(), self.catalogue, data)
            return Dataset(X, filled=filled)
        if self.encoder is None and hasattr(data, "to_numpy"):
            data = data.to_numpy()
        if isinstance(data, (np.ndarray, list, tuple)):
            array = np.asarray(data)
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
        from fm.catalogue.filling import encode_table

        X, filled = encode_table(self._needed_encoder(), self.catalogue, data)
        return Dataset(X, filled=filled)

    def reading_options(self, source: Any, format: str | None = None) -> dict[str, Any]:
        """Return the options of :func:`fm.read` that turn a source into this model's features."""
        if self.encoder is not None:
            return {"encoder": self.encoder, "catalogue": self.catalogue}
        options: dict[str, Any] = {"num_features": self.num_features}
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
                from fm.kernels.rows import predict_scores
            except ImportError:
                if engine == "compiled":
                    raise
            else:
                scores = predict_scores(
                    rows.X, self.w0, self.w, self.V, rows.onehot, rows.entries_per_row
                )
                return np.asarray(scores)
        return self._scipy_scores(rows)

    def _pays_off(self, rows: Dataset) -> bool:
        enough = _WARM_WORK if "fm.kernels.rows" in sys.modules else _COLD_WORK
        return bool(rows.X.nnz * self.num_factors >= enough)

    def _scipy_scores(self, rows: Dataset) -> np.ndarray:
        """Score with two or three sparse products per block of rows."""
        X, onehot = rows.X, rows.onehot
        result = np.empty(X.shape[0], dtype=np.float32)
        entries = -(-X.nnz // max(1, X.shape[0]))
        step = max(1, _BLOCK // max(self.num_factors, entries))
        half = np.float32(0.5)
        for start in range(0, X.shape[0], step):
            block = _rows_of(X, start, min(start + step, X.shape[0]))
            sums = block @ self.V
            pairs = half * np.einsum("ij,ij->i", sums, sums)
            if onehot:  # x^2 = x, so both linear terms are one product
                rest = block @ self._linear_onehot
            else:
                rest = block @ self.w
                block.data = np.square(block.data)
                rest -= half * (block @ self._squares)
            result[start : start + step] = np.float32(self.w0) + rest + pairs
        return result

    @cached_property
    def _squares(self) -> np.ndarray:
        return np.asarray(np.einsum("ij,ij->i", self.V, self.V))

    @cached_property
    def _linear_onehot(self) -> np.ndarray:
        return np.asarray(self.w - np.float32(0.5) * self._squares)

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
            vectors = self.V.take(columns, 0)
            if values is None:
                sums = np.add.reduce(vectors, 0)
                rest = np.add.reduce(self._linear_onehot.take(columns))
            else:
                with np.errstate(over="ignore"):  # the score is infinite then
                    x = np.asarray(values, dtype=np.float32)
                sums = x @ vectors
                rest = x @ self.w.take(columns) - 0.5 * (x * x) @ self._squares.take(columns)
            score = self.w0 + float(rest) + 0.5 * float(sums @ sums)
        except (IndexError, TypeError, ValueError):
            return self._score_odd_row(columns, values)
        return score if math.isfinite(score) else self._score_odd_row(columns, values)

    def _score_odd_row(self, columns: np.ndarray, values: Any) -> float:
        """Score one row by the general path, which sums duplicates and says what is wrong."""
        expected = "row: expected a list of integer feature numbers and as many values"
        row = sparse_row(columns, values, self.num_features, expected=expected)
        return float(self.scores(row, engine="scipy")[0])

    def predict(self, data: Any, *, engine: str = "auto") -> np.ndarray:
        """Return the prediction of each row: a number, or the label 0 or 1 of a classifier.

        The label is 1 where its probability is at least one half. Parameters and errors are those
        of :meth:`scores`.

        Returns
        -------
        ndarray of float32 (regressor) or int64 (classifier), shape (num_rows,)
        """
        scores = self.scores(data, engine=engine)
        return np.asarray(scores >= 0, dtype=np.int64) if self.is_classifier else scores

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
        if not self.is_classifier:
            raise ConfigError(
                f"probabilities: the model is a {self.config.predictor_type} and has none; use "
                "predict or scores, or train with predictor_type=binary_classifier"
            )
        return np.asarray(LOSSES[CLASSIFIER].link(self.scores(data, engine=engine)))

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
        >>> model = Model(0, [1, 2, 3], [[1], [2], [3]], TrainConfig(num_factors=1),
        ...               fields=[0, 1, 1], field_names=("user", "item"))
        >>> model.factors("item").w.tolist()
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

    def explain(self, row: Any, *, pairs: int = 20) -> Explanation:
        """Return what the score of a row is made of; see :func:`fm.explaining.terms.explain`."""
        from fm.explaining.terms import explain

        return explain(self, row, pairs=pairs)

    def interactions(self, data: Any, k: int = 20, *, min_count: int = 1) -> list[Interaction]:
        """Return the strongest pairs in some rows; see ``fm.explaining.interactions``."""
        from fm.explaining.interactions import interactions

        return interactions(self, data, k, min_count=min_count)

    # -- recommending ----------------------------------------------------------------------------

    @cached_property
    def recommender(self) -> Recommender:
        """What recommends this model's items; made once (see ``fm.recommending.recommender``)."""
        from fm.recommending.recommender import Recommender

        return Recommender(self)

    def recommend(
        self,
        context: Any = None,
        k: int = 10,
        *,
        exclude: Any = "seen",
        candidates: Any = None,
        ratings: Mapping[Any, Any] | None = None,
        liked: Sequence[Any] | None = None,
    ) -> Recommendations:
        """Return the `k` items with the highest scores for a user or context, or for each of many.

        Parameters
        ----------
        context, k, exclude, candidates, ratings, liked
            See :meth:`fm.recommending.recommender.Recommender.recommend`.

        Returns
        -------
        Recommendations
            One list for one user or context; a list for each of many.

        Raises
        ------
        ConfigError
            If the model has no catalogue, or an option is wrong.
        DataError
            If an item does not exist, or a context or rating cannot be read.

        Examples
        --------
        >>> from fm import fit, read
        >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
        >>> fit(data, TrainConfig(num_factors=2)).recommend(2).ids  # 2 has met B
        ['A']
        """
        return self.recommender.recommend(
            context, k, exclude=exclude, candidates=candidates, ratings=ratings, liked=liked
        )

    def similar_items(self, item: Any, k: int = 10) -> Recommendations:
        """Return the `k` items most like one (see ``Recommender.similar_items``)."""
        return self.recommender.similar_items(item, k)

    def similar_users(self, user: Any, k: int = 10) -> Recommendations:
        """Return the `k` users most like one (see ``Recommender.similar_users``)."""
        return self.recommender.similar_users(user, k)

    def with_catalogue(
        self,
        *,
        item: str | None = None,
        user: str | None = None,
        item_columns: str | Sequence[str] | None = None,
        rows: Any = None,
    ) -> Model:
        """Return the model with items to recommend, for one that was trained without knowing them.

        Parameters
        ----------
        item, user, item_columns
            See :func:`fm.read`. For feature numbers, ranges such as ``"943:2625"``.
        rows : anything that :meth:`as_dataset` takes, optional
            The rows it was trained on: they tell who met what, and what describes items and users.

        Raises
        ------
        ConfigError
            If there is no such column, or no range of features that the model has.

        Examples
        --------
        >>> model = Model(0, [0, 0, 1, 2], [[1], [2], [3], [4]], TrainConfig(num_factors=1))
        >>> model.with_catalogue(item="2:4", user="0:2").recommend(1).ids
        ['3', '2']
        """
        from fm.catalogue.finding import catalogue_of

        X = np.zeros((0, self.num_features)) if rows is None else rows
        data = dataclasses.replace(
            self.as_dataset(X),
            fields=self.fields,
            field_names=self.field_names,
            encoder=self.encoder,
            _cache={},
        )
        made = catalogue_of(
            data, item=item, user=user, item_columns=item_columns, keep_seen=rows is not None
        )
        if made is None:
            raise ConfigError("item: expected the column of the items, or a range of features")
        return dataclasses.replace(self, catalogue=made)

    def fold_in(self, X: Any, y: Any, field: str, *, weight: Any = None) -> Folded:
        """Return what a few rows tell of a new user or item; see ``fm.recommending.folding``."""
        from fm.recommending.folding import fold_in

        return fold_in(self, X, y, field, weight=weight)

    def with_feature(
        self, folded: Folded, name: Any, *, item_row: Any = None, seen: Iterable[Any] = ()
    ) -> Model:
        """Return a model that knows what was folded in; see ``fm.recommending.extending``."""
        from fm.recommending.extending import with_feature

        return with_feature(self, folded, name, item_row=item_row, seen=seen)

    # -- the file --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a file and return its path; see the module for the format.

        Whoever reads `path` sees the old file or the whole new one, even after a power failure.

        Parameters
        ----------
        path : path
            The file; for a directory, ``model.safetensors`` in it. Directories are made.
        """
        path = Path(path)
        if path.is_dir():
            path = path / FILE_NAME
        tensors = {"V": self.V, "w": self.w, "w0": np.array([self.w0], dtype=np.float32)}
        if self.fields is not None:
            tensors["fields"] = self.fields
        if self.encoder is not None:
            tensors["encoder_json"] = np.frombuffer(to_json(self.encoder.to_dict()), dtype=np.uint8)
        if self.catalogue is not None:
            from fm.catalogue.catalogue import to_notes, to_tensors

            tensors |= to_tensors(self.catalogue)
        metadata = {
            "format": "fm",
            "format_version": FORMAT_VERSION,
            "task": self.config.predictor_type,
            "config": to_json(self.config.to_dict()).decode(),
            "field_names": to_json(list(self.field_names)).decode(),
            "metrics": to_json(self.metrics).decode(),
            "history": to_json(self.history).decode(),
            "fingerprint": self.fingerprint,
            "zero_based": to_json(self.zero_based).decode(),
            "catalogue": to_json(self.catalogue and to_notes(self.catalogue)).decode(),
            "library_version": __version__,
        }
        write_tensors(path, tensors, metadata)
        return path


def load(path: str | os.PathLike[str]) -> Model:
    """Return the model in a file or directory.

    Parameters
    ----------
    path : path
        A file of :meth:`Model.save`; an artefact of Amazon's built-in algorithm
        (``model.tar.gz`` or the ``model_algo-1`` in it); a ``model.tar.gz`` with our file in it;
        or a directory that holds one of these.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or not a model. Nothing in it is ever executed.

    Examples
    --------
    >>> import tempfile
    >>> model = Model(1.0, [0.0], [[2.0]], TrainConfig(num_factors=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(model.save(folder)) == model
    True
    """
    path = Path(path)
    if path.is_dir():
        names = (FILE_NAME, "model_algo-1", "model.tar.gz")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise ModelFileError(f"{path}: expected one of {', '.join(names)} in it, found none")
        path = found[0]
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as err:
        raise ModelFileError(f"{path}: no such file; expected a model file or directory") from err
    except OSError as err:
        raise ModelFileError(f"{path}: cannot be read ({err.strerror})") from err
    if start[:2] == b"\x1f\x8b" or start == b"PK\x03\x04":
        from fm.model.builtin import read_artifact

        return read_artifact(path)
    return read_safetensors(path)


def read_safetensors(path: str | os.PathLike[str], source: str | None = None) -> Model:
    """Return the model in a file of :meth:`Model.save`, called `source` in messages.

    Raises
    ------
    ModelFileError
        If the file is damaged or is not a model.
    """
    source = source or str(path)
    tensors, metadata = read_tensors(
        path, _TENSOR_TYPES, format="fm", version=FORMAT_VERSION, source=source
    )
    missing = [name for name in ("w0", "w", "V") if name not in tensors]
    if missing:
        raise ModelFileError(
            f"{source}: expected tensors w0, w and V, found no {' and no '.join(missing)}"
        )
    try:
        return _from_tensors(tensors, metadata)
    except FMError as err:
        raise ModelFileError(f"{source}: {err}") from err


_TENSOR_TYPES = {
    "w0": "F32", "w": "F32", "V": "F32", "fields": "I32", "encoder_json": "U8",
    "item_rows": "I32", "item_features": "I32", "item_values": "F32",
    "seen_users": "I32", "seen_items": "I32",
    "user_rows": "I32", "user_features": "I32", "user_values": "F32",
}  # fmt: skip


def _from_tensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Model:
    values = {
        name: from_json(metadata.get(name, ""), name)
        for name in ("config", "field_names", "metrics", "history")
    }
    for name, kind in (
        ("config", dict),
        ("metrics", dict),
        ("field_names", list),
        ("history", list),
    ):
        if not isinstance(values[name], kind):
            found = type(values[name]).__name__
            raise ModelFileError(f"{name}: expected a JSON {kind.__name__}, found {found}")
    if tensors["w0"].shape != (1,):
        raise ModelFileError(f"tensor w0: expected shape (1,), found {tensors['w0'].shape}")
    config = _config(values["config"])
    if metadata.get("task") != config.predictor_type:
        raise ModelFileError(
            f"task: expected {config.predictor_type!r} as in config, found {metadata.get('task')!r}"
        )
    model = Model(
        w0=float(tensors["w0"][0]),
        w=tensors["w"],
        V=tensors["V"],
        config=config,
        encoder=_encoder(tensors.get("encoder_json")),
        fields=tensors.get("fields"),
        field_names=tuple(map(str, values["field_names"])),
        metrics=values["metrics"],
        history=values["history"],
        fingerprint=metadata.get("fingerprint", ""),
        zero_based={"true": True, "false": False}.get(metadata.get("zero_based", "")),
    )
    notes = from_json(metadata.get("catalogue", "null"), "catalogue")
    if notes is None:
        return model
    from fm.catalogue.catalogue import from_file

    catalogue = from_file(
        tensors, notes, model.num_features, model.encoder, model.fields, model.field_names
    )
    return dataclasses.replace(model, catalogue=catalogue)


def _config(values: dict[str, Any]) -> TrainConfig:
    """Make the config of a file; hyperparameters of a later release do not change a score."""
    known = {parameter.name for parameter in parameters()}
    unknown = sorted(set(values) - known)
    if unknown:
        log.warning("the model has hyperparameters unknown here: %s", ", ".join(unknown))
    return TrainConfig(**{name: value for name, value in values.items() if name in known})


def _encoder(data: np.ndarray | None) -> Encoder | None:
    if data is None:
        return None
    from fm.encoding.encoder import Encoder

    return Encoder.from_dict(from_json(data.tobytes(), "encoder_json"))


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


def _rows_of(X: sp.csr_matrix, start: int, stop: int) -> sp.csr_matrix:
    """Return rows of X that share its memory (X[start:stop] copies)."""
    begin, end = X.indptr[start], X.indptr[stop]
    indptr = (X.indptr[start : stop + 1] - begin).astype(np.int32, copy=False)
    parts = X.data[begin:end], X.indices[begin:end], indptr
    return sp.csr_matrix(parts, shape=(stop - start, X.shape[1]), copy=False)
