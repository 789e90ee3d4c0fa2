"""Odd frames: whatever is in a column, it is read, or refused with an error of ours in one line.

The table holds what frames of pandas, polars and Arrow, and dicts, can hold and rarely do. Each
column goes through ``fm.read`` as each kind of column, and through ``predict`` as each column of a
model, as a table and as rows.
"""

import datetime as dt
import decimal
import uuid
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

import fm
from fm.errors import ConfigError, DataError, FMError

HUGE = 2**63 + 5
UTC = dt.timezone.utc


def not_utf8(kind=pa.string()):  # noqa: B008  (a type, which nobody changes)
    """Return texts as a damaged file holds them: Arrow checks none."""
    binary = pa.large_binary() if kind == pa.large_string() else pa.binary()
    buffers = pa.array([b"ann", b"ann", b"\xff", b"bob", b"bob", b"\xff"], binary).buffers()
    return pa.Array.from_buffers(kind, 6, buffers)


def categories(*values):
    return pd.Categorical([*values, *values])


def objects(*values):
    return [*values, *values]


COLUMNS = {
    "huge integers": [HUGE, 1, 2, HUGE, -(2**70), 3],
    "unsigned integers": np.array([2**64 - 1, 1, 2, 3, 4, 5], np.uint64),
    "inf": [1.0, np.inf, 2.0, 3.0, 4.0, 5.0],
    "NaN ids": [1.0, np.nan, 2.0, 1.0, np.nan, 2.0],
    "nothing": [None] * 6,
    "huge floats": [1e300] * 6,
    "mixed": [1, "a", None, 2.5, True, b"x"],
    "bytes": [b"a", b"\xff", b"", b"a", b"b", b"c"],
    "decimals": objects(decimal.Decimal("1.5"), decimal.Decimal("1e60"), decimal.Decimal("NaN")),
    "infinite decimals": objects(decimal.Decimal("Infinity"), decimal.Decimal("sNaN"), None),
    "timedeltas": [dt.timedelta(days=1)] * 6,
    "numpy timedeltas": np.arange(6).astype("m8[s]"),
    "times, one of a zone": objects(dt.datetime(2020, 1, 1, tzinfo=UTC), dt.datetime(1, 1, 1), 0),
    "times after the year 9999": np.full(6, 2**62).view("M8[s]"),
    "dates after the year 9999": pa.array([2**31 - 1] * 6, pa.int32()).view(pa.date32()),
    "no such time zone": pa.array([1] * 6, pa.int64()).view(pa.timestamp("s", "Mars/Here")),
    "UUIDs": objects(uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), None),
    "lists": objects([1, 2], [], None),
    "lists of lists": objects([[1]], [[2]], None),
    "lists of mixed values": objects([1, "a"], [2.5, None], [HUGE]),
    "lists and values": objects([1], 2, "a"),
    "arrays": objects(np.array([1, 2]), np.array([3]), None),
    "arrays of no dimension": [np.array(1)] * 6,
    "two dimensions": np.zeros((6, 2)),
    "dicts": [{"a": 1}] * 6,
    "sets": [{1}] * 6,
    "complex": [1j] * 6,
    "objects": [object()] * 6,
    "half floats": np.arange(6, dtype=np.float16),
    "long floats": np.arange(6, dtype=np.longdouble),
    "structured": np.zeros(6, [("a", int)]),
    "surrogates": ["\ud800", "a", "\0", " ", "", None],
    "categories of mixed types": categories(1, "a", None),
    "categories that are tuples": categories((1, 2), (3,), None),
    "categories that are bytes": categories(b"\xff", b"a", None),
    "infinite categories": categories(1.0, np.inf, None),
    "Int64": pd.array([1, None, 3] * 2, "Int64"),
    "boolean": pd.array([True, None, False] * 2, "boolean"),
    "intervals": pd.interval_range(0, 6),
    "periods": pd.period_range("2020", periods=6, freq="M"),
    "sparse": pd.arrays.SparseArray([0, 0, 1] * 2),
    "pandas' nothing": objects(pd.NA, pd.NaT, 1),
    "pandas' lists": pd.Series([[1], [2], None] * 2, dtype=pd.ArrowDtype(pa.list_(pa.int8()))),
    "polars lists": pl.Series([[1], [2], None] * 2),
    "polars objects": pl.Series([object()] * 6, dtype=pl.Object),
    "polars integers of 128 bits": pl.Series([2**100] * 6, dtype=pl.Int128),
    "texts not in UTF-8": not_utf8(),
    "long texts not in UTF-8": not_utf8(pa.large_string()),
    "categories not in UTF-8": not_utf8().dictionary_encode(),
    "lists not in UTF-8": pa.ListArray.from_arrays(pa.array(range(7), pa.int32()), not_utf8()),
    "categories that are lists": pa.DictionaryArray.from_arrays(
        pa.array([0, 1] * 3), pa.array([[1], [2]])
    ),
    "maps": pa.array([[("a", 1)]] * 6, pa.map_(pa.string(), pa.int64())),
    "structs": pa.array([{"a": 1}] * 6),
    "unions": pa.UnionArray.from_sparse(pa.array([0] * 6, pa.int8()), [pa.array([1] * 6)]),
    "durations": pa.array([1] * 6, pa.duration("s")),
    "no chunk": pa.chunked_array([], pa.int64()),
    "run-ends": pa.RunEndEncodedArray.from_arrays([3, 6], [1, 2]),
    "too few": [1],
    "a text": "abcdef",
    "a number": 5,
}  # fmt: skip
KINDS = ("", "categorical", "numeric", "multi", "history", "date", "target", "weight")


@pytest.fixture(scope="module")
def model():
    columns = {name: ["a|b", "b"] * 3 for name in ("categorical", "multi", "history")}
    kinds = {name: [name] for name in (*columns, "numeric")}
    data = {**columns, "numeric": [1.5, 2, 3, 4, 5, 6], "rating": [1, 2, 3, 1, 2, 3]}
    return fm.fit(fm.read(data, **kinds), fm.TrainConfig(num_factors=2, epochs=1))


def sources(column):
    """Yield the column as part of a dict, and of the frames that can hold it."""
    others = {"other": list("abcabc"), "rating": [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]}
    yield {"odd": column, **others}
    for made in (pd.DataFrame, pl.DataFrame, pa.table):
        try:
            frame = made({"odd": column, **others})
        except (Exception, pl.exceptions.PanicException):  # the libraries raise what they like
            continue
        yield frame


def accepted_or_refused(call, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(*args, **options)
        except FMError as err:
            assert "\n" not in str(err)


@pytest.mark.parametrize("name", COLUMNS)
def test_odd_column_is_read_or_refused(name):
    for source in sources(COLUMNS[name]):
        for kind in KINDS:
            accepted_or_refused(fm.read, source, **({kind: "odd"} if kind else {}))


@pytest.mark.parametrize("name", COLUMNS)
def test_odd_column_is_predicted_or_refused(name, model):
    column = COLUMNS[name]
    for kind in ("categorical", "numeric", "multi", "history"):
        others = {other: ["a"] * 6 for other in model.encoder.field_names if other != "numeric"}
        accepted_or_refused(model.predict, {"numeric": [1] * 6, **others, kind: column})
        if hasattr(column, "__len__") and not isinstance(column, (str, pa.Array, pa.ChunkedArray)):
            for value in list(column)[:3]:
                accepted_or_refused(model.predict, [{kind: value}])
                accepted_or_refused(model.explain, {kind: value})


# -- what some of them become ----------------------------------------------------------------------


def test_huge_integers_are_ids():
    data = fm.read({"user": [HUGE, 7, HUGE], "rating": [1, 2, 3]})
    assert data.feature_name(1) == f"user={HUGE}"
    assert data.X.indices.tolist() == [1, 2, 1]
    assert fm.read({"user": [1, 2], "rating": [2**70, 1]}).y.tolist() == [2.0**70, 1.0]


@pytest.mark.parametrize(
    "values",
    [
        [HUGE, -1, None, 2**70],
        [pd.NA, 1, "x", b"x", float("nan"), decimal.Decimal("sNaN")],
        [(1, "x"), [HUGE, 2.5], None, {7}, np.array(["x"])],
    ],
    ids=["huge", "mixed", "lists"],
)
def test_values_of_several_types_are_what_they_are_in_rows(values):
    kind = "multi" if isinstance(values[0], tuple) else "categorical"
    rows = [{"user": value} for value in values]
    for source in ({"user": values}, pd.DataFrame({"user": pd.Series(values, dtype=object)})):
        data = fm.read(source, **{kind: "user"})
        assert (data.X != data.encoder.encode_rows(rows)).nnz == 0
        assert data.encoder.num_features > 2


def test_columns_of_polars_that_arrow_does_not_know():
    """Of objects Arrow has the addresses, which now and then are valid texts."""
    values = {
        "object": pl.Series([1, "a", None], dtype=pl.Object),
        "big": pl.Series([2**100, 1, 0]),
    }
    encoder = fm.read(pl.DataFrame(values)).encoder
    assert encoder == fm.read({"object": [1, "a", None], "big": [2**100, 1, 0]}).encoder
    assert [encoder.feature_value(i) for i in range(3)] == [None, "1", "a"]


def test_uuids_are_spelled_as_in_rows():
    one, other = uuid.UUID(int=1), uuid.UUID(int=2)
    encoder = fm.read({"user": [one, other], "rating": [1, 2]}).encoder
    assert encoder.feature_name(1) == f"user={one}"
    assert encoder.encode_rows([{"user": other}]).indices.tolist() == [2]


@pytest.mark.parametrize("options", [{}, {"categorical": ["user"]}, {"multi": ["user"]}])
def test_text_that_is_not_utf8_is_named_with_its_place(tmp_path, options):
    path = tmp_path / "broken.parquet"
    parquet.write_table(pa.table({"user": not_utf8(), "rating": [1, 2, 3, 4, 5, 6]}), path)
    message = (
        r"broken\.parquet row 3, column 'user': expected text in UTF-8, found b'\\xff'; write it"
    )
    with pytest.raises(DataError, match=message):
        fm.read(path, **options)


def test_bytes_that_are_not_utf8_are_named_with_their_row():
    with pytest.raises(DataError, match=r"row 2, column 'user': expected text in UTF-8, found b'"):
        fm.read({"user": [b"ann", b"\xfe"], "rating": [1, 2]})


def test_names_that_are_not_unicode_are_refused():
    with pytest.raises(DataError, match="columns: cannot be read as columns .*surrogates"):
        fm.read({"\ud800": [1, 2], "rating": [1, 2]})


def test_rows_that_are_neither_features_nor_dicts_are_refused(model):
    with pytest.raises(DataError, match="expected a matrix of features, or rows as dicts, found a"):
        model.predict([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target": 1.5}, "target: expected the name or position of a column, found 1.5"),
        ({"target": ["y"]}, "target: expected the name or position of a column, found"),
        ({"weight": 1.5}, "weight: expected the name or position"),
        ({"categorical": 5.5}, "categorical: expected the names or positions of columns"),
        ({"categorical": iter(["u"])}, "categorical: expected the names or positions of columns"),
        ({"delimiter": 5}, "delimiter: expected a text, found 5"),
        ({"encoding": 5}, "encoding: expected a text, found 5"),
        ({"encoder": 3}, "encoder: expected the encoder of a model, found 3"),
    ],
)
def test_options_of_another_type_are_refused(options, expected):
    with pytest.raises(ConfigError, match=expected):
        fm.read({"u": ["a", "b"], "y": [1.0, 2.0]}, **options)


def test_integers_of_numpy_are_positions():
    data = fm.read({"y": [1.0, 2.0], "u": ["a", "b"]}, target=np.int64(0), categorical=np.int64(1))
    assert data.field_names == ("u",) and data.y.tolist() == [1.0, 2.0]
