"""Dataset: rows ready to train on or to score, checked once at the door.

Decided here: what goes with the rows, and what targets and weights may be. Not decided here:
the layout of the rows (``fm.sparse``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from fm.data import labels as two
from fm.errors import Advice, DataError
from fm.sparse import all_finite, all_ones, checked_csr, refuse_complex

if TYPE_CHECKING:
    from fm.catalogue.catalogue import Catalogue
    from fm.encoding.encoder import Encoder


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows of features, with targets and weights where there are any.

    Make one with :func:`fm.read` or :meth:`from_arrays`; the constructor itself does not check.

    Attributes
    ----------
    X : scipy.sparse.csr_matrix of float32, shape (num_rows, num_features)
        Column numbers int32, sorted in each row, without duplicates.
    y : ndarray of float32, shape (num_rows,), or None
        Targets: numbers for a regressor; labels 0 and 1 for a classifier.
    weight : ndarray of float32, shape (num_rows,), or None
        Non-negative weight of each row; None: all 1.
    fields : ndarray of int32, shape (num_features,), or None
        The field (source column) of each feature; None if the format has no fields.
    feature_names : sequence of str or None
        ``feature_names[i]`` describes feature i, e.g. ``"user=42"``.
    field_names : tuple of str
        Names of the fields, by field number.
    encoder : Encoder or None
        What turned columns into features; None for data that came as features.
    source : str
        Where the rows come from, for messages.
    zero_based : bool or None
        For libsvm data: whether the file counts features from 0 (else from 1). A model remembers
        it: a later file without a feature 0 could be taken for one that counts from 1.
    catalogue : Catalogue or None
        Which features are items and users; None if no column is known to hold the items.
        Which features are items and users; None where no column is known to be the item's.
    labels : tuple of two, or None
        What the targets 0 and 1 are in the data: texts or numbers, the negative one first. None:
        the targets are as they were written.
    filled : tuple of str
        Columns that rows to predict left out, and that the model's catalogue filled in where it
        knows their user or item.

    Examples
    --------
    >>> data = Dataset.from_arrays([[1, 0], [0, 2]], [3.0, 4.0])
    >>> data
    Dataset(data: 2 rows x 2 features, y)
    >>> data.take([1]).y
    array([4.], dtype=float32)
    """

    X: sp.csr_matrix
    y: np.ndarray | None = None
    weight: np.ndarray | None = None
    fields: np.ndarray | None = None
    feature_names: Sequence[str] | None = None
    field_names: tuple[str, ...] = ()
    encoder: Encoder | None = None
    source: str = "data"
    zero_based: bool | None = None
    catalogue: Catalogue | None = None
    filled: tuple[str, ...] = ()
    labels: two.Labels | None = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_arrays(
        cls,
        X: Any,
        y: Any = None,
        weight: Any = None,
        *,
        num_features: int | None = None,
        source: str = "data",
        labels: two.Labels | None = None,
        positive: Any = None,
        **more: Any,
    ) -> Dataset:
        """Check and convert arrays; nothing is copied that already has the right layout.

        Parameters
        ----------
        X : array or sparse matrix, shape (num_rows, num_columns)
            Finite numbers.
        y, weight : array, shape (num_rows,), optional
            Finite; weights >= 0. Targets may be texts, of two labels.
        num_features : int, optional
            Width of the result; the default is that of X. Further columns are zero.
        source : str
            Name used in messages.
        labels, positive
            As in :func:`fm.read`.
        **more
            The other attributes of Dataset.

        Raises
        ------
        DataError
            If a value is not finite, a column number is out of range, or lengths differ.
        """
        X = checked_csr(X, num_features, source=source)
        is_done = False  # whether y is 0 and 1 for the labels
        if y is not None and _are_texts(y):
            is_done = True
            y, labels = _from_texts(np.asarray(y), source, labels, positive)
            positive = None
        y = _checked_vector(y, X.shape[0], "target", source)
        weight = _checked_vector(weight, X.shape[0], "weight", source)
        if weight is not None and weight.size and weight.min() < 0:
            row = int(np.argmax(weight < 0))
            raise DataError(
                f"{source} row {row + 1}: weight {weight[row]:g} is negative; "
                "expected a number >= 0"
            )
        data = cls(X, y, weight, source=source, **more)
        if y is None or labels is None and positive is None:
            return data
        if positive is None and is_done:
            return dataclasses.replace(data, labels=labels)
        return data.labelled(labels, positive)

    def __repr__(self) -> str:
        parts = [f"{self.num_rows:,} rows x {self.num_features:,} features"]
        parts += [name for name in ("y", "weight", "encoder") if getattr(self, name) is not None]
        return f"Dataset({self.source}: {', '.join(parts)})"

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self.X.shape[0])

    @property
    def num_features(self) -> int:
        """Number of features (columns of X)."""
        return int(self.X.shape[1])

    @property
    def onehot(self) -> bool:
        """True if every stored value is 1, so that the kernels need not read the values."""
        if "onehot" not in self._cache:
            self._cache["onehot"] = bool(all_ones(self.X.data))
        return bool(self._cache["onehot"])

    @property
    def entries_per_row(self) -> int:
        """The number of entries if it is the same in every row (at most 64), else 0."""
        if "entries" not in self._cache:
            lengths = np.diff(self.X.indptr)
            same = lengths.size and 0 < lengths[0] <= 64 and bool((lengths == lengths[0]).all())
            self._cache["entries"] = int(lengths[0]) if same else 0
        return int(self._cache["entries"])

    @property
    def targets(self) -> np.ndarray:
        """The targets y, for callers that need them.

        Raises
        ------
        DataError
            If there are none.
        """
        if self.y is None:
            advice = Advice("name its column with {target}", target=...)
            raise DataError(f"{self.source}: no target to train on", advice)
        return self.y

    def feature_name(self, index: int) -> str:
        """Return the name of a feature; ``"feature 17"`` if the data have no names."""
        if self.feature_names is not None and index < len(self.feature_names):
            return self.feature_names[index]
        return f"feature {index}"

    def labelled(self, labels: two.Labels | None = None, positive: Any = None) -> Dataset:
        """Return the data with targets 0 and 1 for two labels: those given, or those there are.

        Data whose targets are not just two numbers are returned as they are, unless the labels
        are given.

        Raises
        ------
        DataError
            If a target is none of the labels given.

        Examples
        --------
        >>> data = Dataset.from_arrays([[1], [2]], [-1, 1]).labelled()
        >>> data.y.tolist(), data.labels
        ([0.0, 1.0], (-1, 1))
        """
        if self.labels is not None:
            if labels is None or self.labels == labels:
                return self
            raise DataError(
                f"{self.source}: expected the labels {two.listed(labels)}, found "
                f"{two.listed(self.labels)}; if they are the same in another order, read the data "
                f"with labels={labels!r}"
            )
        y = self.targets
        if labels is None:
            labels = two.of_two_numbers(y, positive)
        if labels is None or labels == two.ZERO_ONE and positive is None:
            return self  # checked where the task is known
        y = two.from_numbers(y, labels, lambda row: f"{self.source} row {row + 1}")
        return dataclasses.replace(self, y=y, labels=labels)

    def take(self, rows: np.ndarray) -> Dataset:
        """Return a Dataset of the given rows (a copy of them)."""
        return dataclasses.replace(
            self,
            X=self.X[rows],
            y=None if self.y is None else self.y[rows],
            weight=None if self.weight is None else self.weight[rows],
            _cache={},
        )


def _are_texts(y: Any) -> bool:
    if isinstance(y, np.ndarray) and y.dtype.kind in "fiub":
        return False
    try:
        y = np.asarray(y)
    except ValueError:  # lists of different lengths
        return False
    if y.ndim != 1 or y.dtype.kind != "U" and not any(isinstance(v, str) for v in y.tolist()):
        return False
    try:
        y.astype(np.float64)
    except (TypeError, ValueError):
        return True
    return False  # texts of numbers


def _from_texts(
    y: np.ndarray, source: str, labels: two.Labels | None, positive: Any
) -> tuple[np.ndarray, two.Labels]:
    """Return texts as targets 0 and 1."""
    values = y.tolist()
    for row, value in enumerate(values):
        if value is None or value != value or value == "":
            raise DataError(f"{source} row {row + 1}: expected a target, found {value!r}")
    texts = list(dict.fromkeys(map(str, values)))
    codes = {text: code for code, text in enumerate(texts)}
    return two.from_texts(
        np.array([codes[str(value)] for value in values]),
        texts,
        place=lambda row: f"{source} row {row + 1}",
        labels=labels,
        positive=positive,
    )


def _checked_vector(values: Any, rows: int, what: str, source: str) -> np.ndarray | None:
    if values is None:
        return None
    try:
        values = np.asarray(values)
    except ValueError as err:
        raise DataError(f"{source}: expected one {what} per row, found lists") from err
    refuse_complex(values.dtype, source)
    if values.dtype.kind not in "fiub":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError) as err:
            raise DataError(f"{source}: the {what} must be numbers, found {values.dtype}") from err
    if values.shape != (rows,):
        raise DataError(
            f"{source}: expected one {what} per row, shape ({rows},), found {values.shape}"
        )
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(values, dtype=np.float32)
    if not all_finite(result):
        row = int(np.argmax(~np.isfinite(result)))
        raise DataError(f"{source} row {row + 1}: the {what} {values[row]} is not a finite number")
    return result
