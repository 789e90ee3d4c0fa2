"""The door: whatever is not a finite number in its place does not get in."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import fm
from fm.data.dataset import Dataset
from fm.errors import DataError, FMError
from fm.sparse import checked_csr

ROOT = Path(fm.__file__).parents[1]


def csr(data, indices, indptr, shape):
    """A CSR matrix of exactly these arrays: scipy's own checks are passed by."""
    X = sp.csr_matrix(shape, dtype=np.asarray(data).dtype)
    X.data, X.indices, X.indptr = map(np.asarray, (data, indices, indptr))
    return X


def good():
    return csr(np.array([1, 2, 3], np.float32), np.array([0, 2, 1], np.int32), [0, 2, 2, 3], (3, 3))


# --- the layout -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make",
    [
        lambda dense: dense,
        lambda dense: dense.astype(np.int64),
        lambda dense: dense.astype(np.float16),
        lambda dense: np.asfortranarray(dense),
        lambda dense: dense.tolist(),
        sp.csr_matrix,
        sp.csr_array,
        sp.csc_matrix,
        sp.coo_array,
        sp.lil_matrix,
        sp.dok_matrix,
        lambda dense: sp.csr_matrix(dense.astype(np.int8)),
    ],
    ids=["float64", "int64", "float16", "fortran", "lists", "csr_matrix", "csr_array",
         "csc", "coo", "lil", "dok", "int8 csr"],
)  # fmt: skip
def test_every_kind_of_matrix_becomes_the_one_layout(make):
    dense = np.array([[0, 2, 0, 3], [0, 0, 0, 0], [1, 0, 0, 5.0]])
    X = checked_csr(make(dense))
    assert isinstance(X, sp.csr_matrix) and X.shape == (3, 4)
    assert X.data.dtype == np.float32 and X.indices.dtype == np.int32
    assert X.has_sorted_indices and X.has_canonical_format
    np.testing.assert_array_equal(X.toarray(), dense)


def test_truth_values_are_ones():
    data = Dataset.from_arrays(np.eye(3, dtype=bool), [True, False, True])
    assert data.onehot and data.y.tolist() == [1, 0, 1]


def test_nothing_is_copied_that_has_the_layout_already():
    X, y, weight = good(), np.ones(3, np.float32), np.ones(3, np.float32)
    data = Dataset.from_arrays(X, y, weight)
    for name in ("data", "indices", "indptr"):
        assert np.shares_memory(getattr(data.X, name), getattr(X, name))
    assert data.y is y and data.weight is weight


def test_unsorted_and_duplicate_entries_are_put_in_order_in_a_copy():
    X = csr([1.0, 2.0, 3.0, 4.0], [2, 0, 2, 1], [0, 3, 4], (2, 3))
    before = X.data.copy(), X.indices.copy(), X.indptr.copy()
    result = checked_csr(X)
    np.testing.assert_array_equal(result.toarray(), [[2, 0, 4], [0, 4, 0]])
    assert result.indices.tolist() == [0, 2, 1] and result.has_canonical_format
    for now, then in zip((X.data, X.indices, X.indptr), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_read_only_float32_input_in_disorder_is_not_written_to():
    X = csr(np.array([1, 2, 3], np.float32), np.array([2, 0, 0], np.int32), [0, 2, 3], (2, 3))
    for array in (X.data, X.indices, X.indptr):
        array.flags.writeable = False
    result = checked_csr(X)
    np.testing.assert_array_equal(result.toarray(), [[2, 0, 1], [3, 0, 0]])
    assert X.indices.tolist() == [2, 0, 0]


def test_entries_that_are_stored_as_zero_stay():
    X = csr([0.0, 1.0], [0, 1], [0, 2], (1, 2))
    assert Dataset.from_arrays(X).X.nnz == 2


def test_the_width_can_be_set():
    assert checked_csr(good(), 10).shape == (3, 10)
    narrow = checked_csr(csr([1.0], [1], [0, 1], (1, 5)), 2)  # nothing lies beyond
    assert narrow.shape == (1, 2) and narrow.toarray().tolist() == [[0, 1]]
    assert Dataset.from_arrays(good(), num_features=10).num_features == 10
    with pytest.raises(DataError, match=r"row 1: feature index 2 is outside \[0, 2\)"):
        checked_csr(good(), 2)
    with pytest.raises(DataError, match="2147483648 features, but at most 2147483647"):
        checked_csr(good(), 2**31)


# --- hostile matrices -----------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [-1, 3, 10**9, -(2**31)])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_column_outside_the_matrix_is_refused(bad, at):
    X = good()
    X.indices = X.indices.copy()
    X.indices[at] = bad
    row = 3 if at == 2 else 1
    with pytest.raises(
        DataError, match=rf"logs row {row}: feature index {bad} is outside \[0, 3\)"
    ):
        checked_csr(X, source="logs")


def test_a_column_beyond_32_bits_is_refused():
    X = csr([1.0], np.array([2**40], np.int64), np.array([0, 1], np.int64), (1, 3))
    with pytest.raises(DataError, match="feature index 1099511627776 is outside"):
        checked_csr(X)


@pytest.mark.parametrize(
    "indptr",
    [
        [0, 2, 2, 9],
        [0, 2, 1, 3],
        [1, 2, 2, 3],
        [0, 2, 3],
        [0, 2, 2, 3, 3],
        [0, -1, 2, 3],
        [0, 5, 2, 3],
        [],
    ],
    ids=str,
)
def test_damaged_row_pointers_are_refused(indptr):
    X = good()
    X.indptr = np.array(indptr, np.int32)
    with pytest.raises(
        DataError, match=r"row pointers \(indptr\) of the sparse matrix are damaged"
    ):
        checked_csr(X)


def test_a_damaged_matrix_of_another_format_is_no_crash(tmp_path):
    """scipy turns columns into rows without looking at the row numbers."""
    code = """
import numpy as np, scipy.sparse as sp
from fm.sparse import checked_csr
from fm.errors import DataError
X = sp.csc_matrix((np.ones(3), np.array([0, 1, 10**8], np.int32), np.arange(4)), shape=(3, 3))
try:
    checked_csr(X)
except DataError:
    print("refused")
"""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout == "refused\n", run.stderr


def test_fewer_values_than_columns_are_refused():
    X = good()
    X.data = X.data[:2]
    with pytest.raises(DataError, match="damaged"):
        checked_csr(X)


# --- values ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_value_that_is_no_finite_float32_is_refused_with_its_place(bad, sparse):
    X = np.eye(3)
    X[1, 2] = bad
    with pytest.raises(DataError, match=r"logs row 2, feature 2: the value .* is not a finite"):
        checked_csr(sp.csr_matrix(X) if sparse else X, source="logs")


def test_duplicates_that_add_up_to_infinity_are_refused():
    X = csr(np.array([3e38, 3e38], np.float32), [0, 0], [0, 2], (1, 2))
    with pytest.raises(DataError, match="not a finite"):
        checked_csr(X)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix], ids=["dense", "sparse"])
def test_complex_numbers_are_refused(make):
    with pytest.raises(DataError, match="Complex data not supported"):
        checked_csr(make(np.eye(2) * 1j))
    with pytest.raises(DataError, match="Complex data not supported"):
        Dataset.from_arrays(np.eye(2), np.array([1j, 2]))


@pytest.mark.parametrize(
    "X", [np.ones(3), np.ones((2, 2, 2)), 1.0, sp.coo_array(np.ones(3))], ids=["1", "3", "0", "coo"]
)
def test_what_is_no_matrix_is_refused(X):
    if getattr(X, "ndim", 0) == 2:
        pytest.skip("this scipy has no sparse vectors")
    with pytest.raises(
        DataError, match=r"expected a matrix \(rows x features\), found . dimension"
    ):
        checked_csr(X)


@pytest.mark.parametrize(
    "X", [[["a", "b"]], [[None, 1]], np.array([["2020-01-01"]], "datetime64[D]")],
    ids=["text", "none", "date"],
)  # fmt: skip
def test_what_is_not_numbers_is_refused(X):
    with pytest.raises(DataError, match="expected numbers, found an array of .*pass a frame"):
        checked_csr(X)


def test_ragged_rows_are_refused():
    with pytest.raises(DataError):
        checked_csr([[1, 2], [3]])
    with pytest.raises(DataError):
        Dataset.from_arrays(np.eye(2), [[1], [2, 3]])


def test_the_errors_are_value_errors_of_ours():
    assert issubclass(DataError, FMError) and issubclass(DataError, ValueError)


# --- targets and weights --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], r"logs: expected one {what} per row, shape \(3,\), found \(2,\)"),
        ([[1], [2], [3]], r"logs: expected one {what} per row, shape \(3,\), found \(3, 1\)"),
        (5, r"logs: expected one {what} per row"),
        ([1, 2, np.nan], "logs row 3: the {what} nan is not a finite number"),
        ([1, np.inf, 2], "logs row 2: the {what} inf is not a finite number"),
        ([1, 2, 1e39], r"logs row 3: the {what} 1e\+39 is not a finite number"),
        (["x", "y", "z"], "logs: the {what} must be numbers|row 3: .* two labels, found 3 texts"),
        ([None, 1, 2], "logs: the {what} must be numbers|row 1: the {what} nan is not"),
    ],
    ids=["short", "column", "scalar", "nan", "inf", "overflow", "text", "none"],
)
@pytest.mark.parametrize("what", ["target", "weight"])
def test_targets_and_weights_are_checked(what, values, message):
    given = {"y": values} if what == "target" else {"y": [1, 2, 3], "weight": values}
    with pytest.raises(DataError, match=message.format(what=what)):
        Dataset.from_arrays(np.eye(3), source="logs", **given)


def test_negative_weights_are_refused_and_zero_is_one():
    with pytest.raises(DataError, match="logs row 2: weight -0.5 is negative; expected"):
        Dataset.from_arrays(np.eye(3), weight=[1, -0.5, 1], source="logs")
    assert Dataset.from_arrays(np.eye(3), weight=[0, 0, 0]).weight.tolist() == [0, 0, 0]


def test_texts_of_numbers_are_numbers():
    data = Dataset.from_arrays(np.eye(2), ["1.5", "2"])
    assert data.y.tolist() == [1.5, 2] and data.y.dtype == np.float32


def test_no_rows_are_fine_until_something_is_to_be_learnt():
    data = Dataset.from_arrays(np.zeros((0, 4)), [])
    assert (data.num_rows, data.num_features, data.entries_per_row) == (0, 4, 0)


# --- what a Dataset knows -------------------------------------------------------------------------
def test_onehot_means_that_every_stored_value_is_one():
    assert Dataset.from_arrays(np.eye(3)).onehot
    assert not Dataset.from_arrays(np.eye(3) * 2).onehot
    assert not Dataset.from_arrays(csr([1.0, 0.0], [0, 1], [0, 2], (1, 2))).onehot
    assert not Dataset.from_arrays(csr([1.0, 1.0], [0, 0], [0, 2], (1, 2))).onehot  # 1 + 1
    late = np.ones((3_000_000, 1))
    late[-1] = 2
    assert not Dataset.from_arrays(late).onehot


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([2, 2, 2], 2), ([64, 64], 64), ([65, 65], 0), ([2, 1], 0), ([0, 0], 0), ([2, 0, 2], 0)],
    ids=str,
)
def test_entries_per_row(lengths, expected):
    indptr = np.cumsum([0, *lengths])
    indices = np.concatenate([np.arange(n) for n in lengths])
    X = csr(np.ones(indptr[-1]), indices, indptr, (len(lengths), 70))
    assert Dataset.from_arrays(X).entries_per_row == expected


def test_names_of_features():
    data = Dataset.from_arrays(np.eye(3), feature_names=["user=1", "user=2"])
    assert [data.feature_name(i) for i in range(3)] == ["user=1", "user=2", "feature 2"]
    assert Dataset.from_arrays(np.eye(3)).feature_name(1) == "feature 1"


def test_take_keeps_everything_that_describes_the_columns():
    data = Dataset.from_arrays(
        np.diag([1.0, 2, 3]), [1, 2, 3], [0.5, 1, 1.5], fields=np.array([0, 0, 1], np.int32),
        feature_names=["a", "b", "c"], field_names=("f", "g"), source="logs",
    )  # fmt: skip
    part = data.take(np.array([2, 0]))
    assert part.X.toarray().tolist() == [[0, 0, 3], [1, 0, 0]]
    assert part.y.tolist() == [3, 1] and part.weight.tolist() == [1.5, 0.5]
    assert part.fields is data.fields and part.feature_names is data.feature_names
    assert part.field_names == ("f", "g") and part.source == "logs"
    part.y[:] = 9
    assert data.y.tolist() == [1, 2, 3]
    bare = Dataset.from_arrays(np.eye(2)).take(np.array([1]))
    assert bare.y is None and bare.weight is None


def test_take_does_not_inherit_what_was_true_of_all_rows():
    data = Dataset.from_arrays(np.array([[1.0, 1], [1, 0], [0, 2]]))
    assert not data.onehot and data.entries_per_row == 0
    assert data.take(np.array([0, 1])).onehot
    assert data.take(np.array([0])).entries_per_row == 2


def test_a_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Dataset.from_arrays(np.eye(2)).y = None
