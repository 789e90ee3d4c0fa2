"""Dataset: rows ready to train on or to score, checked once at the door.

Decided here: the one layout all of fm computes with (CSR, float32 values, int32 sorted column
numbers without duplicates) and the rules every row obeys. Kernels do not check anything: whatever
reaches them went through :meth:`Dataset.from_arrays` or :func:`checked_csr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from fm.errors import DataError

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
        The field (source column) of each feature; None where the format knows none.
    feature_names : sequence of str or None
        ``feature_names[i]`` describes feature i, e.g. ``"user=42"``.
    field_names : tuple of str
        Names of the fields, by field number.
    encoder : Encoder or None
        What turned columns into features; None for data that came as features.
    source : str
        Where the rows come from, for messages.
    zero_based : bool or None
        Of libsvm data: whether the file calls its first feature 0 (else 1). A model remembers it,
        so that a later file that happens to lack feature 0 is not taken for the other kind.
    catalogue : Catalogue or None
        Which features are items and users; None where no column is known to be the item's.
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
        **more: Any,
    ) -> Dataset:
        """Check and convert arrays; nothing is copied that already has the right layout.

        Parameters
        ----------
        X : array or sparse matrix, shape (num_rows, num_columns)
            Finite numbers.
        y, weight : array, shape (num_rows,), optional
            Finite; weights >= 0.
        num_features : int, optional
            Width of the result; the default is that of X. Wider: the further columns are zero.
        source : str
            Name used in messages.
        **more
            The other attributes of Dataset.

        Raises
        ------
        DataError
            If a value is not finite, a column number is out of range, or lengths differ.
        """
        X = checked_csr(X, num_features, source=source)
        y = _checked_vector(y, X.shape[0], "target", source)
        weight = _checked_vector(weight, X.shape[0], "sample weight", source)
        if weight is not None and weight.size and weight.min() < 0:
            row = int(np.argmax(weight < 0))
            raise DataError(
                f"{source} row {row + 1}: sample weight {weight[row]:g} is negative; "
                "expected a number >= 0"
            )
        return cls(X, y, weight, source=source, **more)

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
            self._cache["onehot"] = bool(_all_ones(self.X.data))
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
        """The targets y, for callers that cannot do without.

        Raises
        ------
        DataError
            If there are none.
        """
        if self.y is None:
            raise DataError(
                f"{self.source}: no target to train on; name its column with target=..."
            )
        return self.y

    def feature_name(self, index: int) -> str:
        """Return the name of a feature; ``"feature 17"`` where the data brought no names."""
        if self.feature_names is not None and index < len(self.feature_names):
            return self.feature_names[index]
        return f"feature {index}"

    def take(self, rows: np.ndarray) -> Dataset:
        """Return a Dataset of the given rows (a copy of them)."""
        return Dataset(
            self.X[rows],
            None if self.y is None else self.y[rows],
            None if self.weight is None else self.weight[rows],
            self.fields,
            self.feature_names,
            self.field_names,
            self.encoder,
            self.source,
            self.zero_based,
            self.catalogue,
            self.filled,
        )


def sparse_row(indices: Any, values: Any, num_features: int, *, expected: str) -> sp.csr_matrix:
    """Return features and their values (None: 1 each) as a row, which checked_csr brings in order.

    Raises
    ------
    DataError
        If they are not numbers of the right kind, of one length, or outside the features;
        `expected` begins the message.
    """
    features = np.asarray(indices)
    if features.size == 0:
        features = features.astype(np.int64)
    x = np.ones(features.shape) if values is None else np.asarray(values)
    kinds = features.dtype.kind in "iu" and (x.size == 0 or x.dtype.kind in "fiub")
    if features.ndim != 1 or features.shape != x.shape or not kinds:
        raise DataError(
            f"{expected}, found {features.dtype} of shape {features.shape} and {x.dtype} of shape "
            f"{x.shape}"
        )
    outside = features[(features < 0) | (features >= num_features)]
    if outside.size:
        where = expected.partition(":")[0]
        raise DataError(f"{where}: feature {outside[0]} is outside [0, {num_features})")
    row = sp.csr_matrix((1, num_features))
    row.indices, row.data = features.astype(np.int64), x.astype(np.float64)
    row.indptr = np.array([0, features.size])
    row.has_canonical_format = False  # repeated features are summed later
    return row


def checked_csr(X: Any, num_features: int | None = None, *, source: str = "data") -> sp.csr_matrix:
    """Return X as a CSR matrix in fm's layout (see Dataset.X), or say what is wrong with it.

    Raises
    ------
    DataError
        If X is not two-dimensional, a value is not a finite number or a column number is
        outside ``[0, num_features)``.
    """
    given = X
    if not sp.issparse(X):
        X = _checked_matrix(X, source)
    else:
        _refuse_complex(X.dtype, source)
        _check_places(X, source)
    if X.dtype == np.float16:  # scipy.sparse knows no half precision
        X = X.astype(np.float32)
    try:
        X = sp.csr_matrix(X)  # does not copy a CSR matrix
    except (TypeError, ValueError) as err:
        raise DataError(f"{source}: cannot be made a CSR matrix ({err})") from err
    rows, columns = X.shape
    width = columns if num_features is None else int(num_features)
    if width > 2**31 - 1:
        raise DataError(f"{source}: {width} features, but at most {2**31 - 1} are supported")
    if X.nnz:
        low, high = int(X.indices.min()), int(X.indices.max())
        if low < 0 or high >= width:
            at, row, feature = _first_entry(X, (X.indices < 0) | (X.indices >= width))
            raise DataError(
                f"{source} row {row}: feature index {feature} is outside "
                f"[0, {width}); raise feature_dim or check the data"
            )
    with np.errstate(over="ignore"):  # reported below, with its place
        data = np.ascontiguousarray(X.data, dtype=np.float32)
    if not all_finite(data):
        at, row, feature = _first_entry(X, ~np.isfinite(data))
        raise DataError(
            f"{source} row {row}, feature {feature}: the value {X.data[at]} is not a "
            "finite float32 number; clean or leave out the value"
        )
    indices = np.ascontiguousarray(X.indices, dtype=np.int32)
    result = sp.csr_matrix((rows, width), dtype=np.float32)
    result.data, result.indices, result.indptr = data, indices, X.indptr
    if not X.has_canonical_format:
        if sp.issparse(given) and given.format == "csr":
            result = result.copy()  # sorting and summing work in place, and X is the caller's
        result.has_canonical_format = False
        result.sum_duplicates()
        if not all_finite(result.data):
            at, row, feature = _first_entry(result, ~np.isfinite(result.data))
            raise DataError(
                f"{source} row {row}, feature {feature}: the sum of its repeated "
                "entries is not a finite float32 number; check the values"
            )
    else:
        result.has_canonical_format = True
    return result


def _first_entry(X: sp.csr_matrix, wrong: np.ndarray) -> tuple[int, int, int]:
    """Return (position, row from 1, feature) of the first entry that is `wrong`, for a message."""
    at = int(np.argmax(wrong))
    return at, int(np.searchsorted(X.indptr, at, side="right")), int(X.indices[at])


def _checked_matrix(given: Any, source: str) -> np.ndarray:
    """Return what is not sparse as a two-dimensional array of numbers."""
    try:
        X: np.ndarray = np.asarray(given)
    except ValueError as err:
        raise DataError(f"{source}: rows of different lengths; expected a matrix") from err
    _refuse_complex(X.dtype, source)
    if X.ndim != 2:
        raise DataError(
            f"{source}: expected a matrix (rows x features), found {X.ndim} dimension(s); "
            "reshape a single row with X.reshape(1, -1)"
        )
    if X.dtype.kind not in "fiub":
        raise DataError(
            f"{source}: expected numbers, found an array of {X.dtype}; name the columns and "
            "pass a frame to have strings encoded"
        )
    return X


def _check_places(X: Any, source: str) -> None:
    """Refuse a sparse matrix whose arrays do not fit together: scipy's loops do not check them."""
    if X.ndim != 2:
        raise DataError(
            f"{source}: expected a matrix (rows x features), found {X.ndim} dimension(s)"
        )
    if X.format == "csr":  # column numbers are checked later, with the row named
        pointers, entries = np.asarray(X.indptr), min(X.indices.size, X.data.size)
        sound = (
            X.indices.size == X.data.size
            and pointers.size == X.shape[0] + 1
            and pointers[0] == 0
            and pointers[-1] <= entries
            and not (np.diff(pointers) < 0).any()
        )
    elif X.format == "coo":
        sound = all(
            part.size == X.data.size and (not part.size or (part.min() >= 0 and part.max() < size))
            for part, size in zip((X.row, X.col), X.shape, strict=True)
        )
    elif X.format in ("csc", "bsr"):
        try:
            X.check_format(full_check=True)
            sound = True
        except (ValueError, IndexError):
            sound = False
    else:
        sound = True
    if not sound:
        what = "row pointers (indptr)" if X.format == "csr" else "indices or pointers"
        raise DataError(
            f"{source}: the {what} of the sparse matrix are damaged; build it again from its parts"
        )


def _refuse_complex(dtype: np.dtype, source: str) -> None:
    if dtype.kind == "c":
        raise DataError(f"{source}: Complex data not supported; expected real numbers")


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; block by block, so that no large mask is made."""
    return all(bool(np.isfinite(part).all()) for part in blocks(values))


def _all_ones(values: np.ndarray) -> bool:
    """Whether all values are 1; most other data are told apart by the first block."""
    return all(bool((part == 1).all()) for part in blocks(values))


def blocks(values: np.ndarray, dtype: Any = None, size: int = 1 << 20) -> Iterator[np.ndarray]:
    """Iterate over an array piece by piece, so that no large temporary is made of it."""
    flat = values.reshape(-1)
    return (
        flat[start : start + size].astype(dtype or flat.dtype, copy=False)
        for start in range(0, flat.size, size)
    )


def _checked_vector(values: Any, rows: int, what: str, source: str) -> np.ndarray | None:
    if values is None:
        return None
    try:
        values = np.asarray(values)
    except ValueError as err:
        raise DataError(f"{source}: expected one {what} per row, found lists") from err
    _refuse_complex(values.dtype, source)
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
