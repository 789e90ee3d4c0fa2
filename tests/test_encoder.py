"""fm.encoding, with fm.formats.cells: columns -> features, and back."""

import copy
import json
import math
import pickle
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fm.encoding.columns import Buckets, Numeric, Vocabulary
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError, ModelFileError
from fm.formats.cells import number_of, text_of
from fm.formats.tables import read_table

MIXED = {
    "user": ["u1", "u2", "u1", None],
    "age": [20.0, 30.0, None, 40.0],
    "genres": ["Action|Comedy", "Comedy", "", "Drama | Comedy|Comedy"],
    "seen": [["a", "b"], ["b"], None, []],
}
KINDS = {"categorical": "user", "numeric": "age", "multi": "genres", "history": ["seen"]}


def rows_of(table):
    return read_table(table).to_pylist()


def same(a, b):
    assert a.shape == b.shape and a.dtype == b.dtype == np.float32
    assert a.indices.dtype == b.indices.dtype == np.int32
    for part in ("indptr", "indices", "data"):
        assert np.array_equal(getattr(a, part), getattr(b, part)), part


# -- what the features are -------------------------------------------------------------------------


def test_features_of_each_kind():
    encoder = Encoder.fit(MIXED, **KINDS, standardize=False)
    assert list(encoder.feature_names) == (
        ["user=<unknown>", "user=u1", "user=u2", "age", "age=<unknown>"]
        + ["genres=<unknown>", "genres=Comedy", "genres=Action", "genres=Drama"]
        + ["seen=<unknown>", "seen=b", "seen=a"]
    )
    assert encoder.field_names == ("user", "age", "genres", "seen")
    assert encoder.fields.tolist() == [0] * 3 + [1] * 2 + [2] * 4 + [3] * 3
    r = np.float32(1 / math.sqrt(2))
    X = encoder.transform(MIXED)
    assert X.toarray().tolist() == [
        [0, 1, 0, 20, 0, 0, 1, 1, 0, 0, r, r],
        [0, 0, 1, 30, 0, 0, 1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0],
        [1, 0, 0, 40, 0, 0, 1, 0, 1, 1, 0, 0],
    ]
    assert X.has_canonical_format and X.dtype == np.float32 and X.indices.dtype == np.int32
    same(X, encoder.encode_rows(rows_of(MIXED)))


def test_new_values_are_unknown():
    encoder = Encoder.fit(MIXED, **KINDS)
    new = {"user": ["eve"], "age": [None], "genres": ["Western|Noir|Drama"], "seen": [["z", "a"]]}
    X = encoder.transform(new)
    names = [encoder.feature_name(i) for i in X.indices]
    assert names == (
        ["user=<unknown>", "age=<unknown>", "genres=<unknown>", "genres=Drama"]
        + ["seen=<unknown>", "seen=a"]
    )
    same(X, encoder.encode_rows(rows_of(new)))
    same(encoder.encode_rows([{}]), encoder.transform({k: [None] for k in MIXED}))


@pytest.mark.parametrize(
    "column",
    [
        [42, 7, 42, None],
        ["42", "7", "42", None],
        [42.0, 7.0, 42.0, float("nan")],
        ["42.0", "7", "42", ""],
        pa.array([42, 7, 42, None], pa.uint8()),
        pa.array(["42", "7", "42", None]).dictionary_encode(),
        pd.Series([42, 7, 42, None], dtype="Int64"),
        pd.Series(["42", 7, 42.0, None], dtype=object),
        pd.Categorical([42, 7, 42, None]),
        np.array([42, 7, 42, np.nan], np.float32),
        pa.array([b"42", b"7", b"42", None]),
        pa.array([42, 7, 42, None], pa.decimal128(5)),
        pa.chunked_array(
            [
                pa.array(["42"]).dictionary_encode(),
                pa.DictionaryArray.from_arrays(
                    pa.array([1, 0, None], pa.int32()), pa.array(["42", "7"])
                ),
            ]
        ),
    ],
    ids=str,
)
def test_one_value_in_many_types(column):
    encoder = Encoder.fit({"user": ["42", "42", "7"]}, categorical=["user"])
    assert encoder.transform({"user": column}).indices.tolist() == [1, 2, 1, 0]
    assert Encoder.fit({"user": column}, categorical=["user"]) == encoder
    for value in (42, "42", 42.0, "42.0", np.int8(42), np.float32(42), b"42"):
        assert encoder.feature_index("user", value) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", None),
        (None, None),
        (float("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        ("007", "007"),
        (" 7", " 7"),
        ("1.50", "1.50"),
        ("1.00", "1.00"),
        ("-3.0", "-3"),
        ("x.0", "x.0"),
        (1.5, "1.5"),
        (np.float32(0.1), "0.1"),
        (-0.0, "0"),
        (1e20, "1e+20"),
        (2**70, str(2**70)),
        (True, "true"),
        (np.False_, "false"),
        ("True", "true"),
        ("NA", "NA"),
        ('a "b" = c|d\n', 'a "b" = c|d\n'),
        ("東京", "東京"),
    ],
)
def test_text_of_a_value(value, text):
    assert text_of(value) == text
    if text is not None and not isinstance(value, int):
        encoder = Encoder.fit({"c": [value]}, categorical=["c"])
        assert encoder.columns[0].values == Vocabulary((text,))
        assert encoder.feature_name(1) == f"c={text}"
        assert encoder.decode_row([1]) == {"c": text}


def test_booleans_and_dates():
    import datetime as dt

    encoder = Encoder.fit({"b": [True, False, True]})
    assert encoder.columns[0].values.values == ("true", "false")
    assert encoder.transform({"b": ["True", "FALSE", "true"]}).indices.tolist() == [1, 2, 1]
    times = [dt.datetime(2020, 1, 2, 3, 4, 5), dt.datetime(2021, 1, 2)]
    for column in (pa.array(times, pa.timestamp("ns")), pd.Series(times), pl.Series(times), times):
        encoder = Encoder.fit(
            pl.DataFrame({"t": column}) if isinstance(column, pl.Series) else {"t": column},
            categorical="t",
        )
        same(
            encoder.transform({"t": column if not isinstance(column, pl.Series) else times}),
            encoder.encode_rows([{"t": t} for t in times]),
        )
        assert encoder.feature_name(1) == "t=2020-01-02 03:04:05"
    days = [dt.date(2020, 1, 2)]
    assert Encoder.fit({"d": days}, categorical="d").encode_rows(
        [{"d": "2020-01-02"}]
    ).indices.tolist() == [1]


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        ("3", 3.0),
        (" 3.5 ", 3.5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("-1e-3", -0.001),
        ("", None),
        (" ", None),
        ("NA", None),
        ("n/a", None),
        ("NaN", None),
        ("?", None),
        ("\\N", None),
        (None, None),
        (float("nan"), None),
        (True, 1.0),
        ("False", 0.0),
        ("x", ValueError),
        ("1,5", ValueError),
        ("0x10", ValueError),
        ("1_000", ValueError),
        ("٣", ValueError),
        ("inf", ValueError),
        ("1e400", ValueError),
        (10**400, ValueError),
        (1j, ValueError),
        (float("inf"), ValueError),
        ([1.0], ValueError),
    ],
)
def test_number_of_a_value(value, number):
    encoder = Encoder([Numeric("n")])
    if number is ValueError:
        with pytest.raises(ValueError):
            number_of(value)
        message = "row 1, column 'n': expected a finite number, found"
        with pytest.raises(DataError, match=message):
            encoder.encode_rows([{"n": value}])
        if not isinstance(value, (int, complex)):  # which Arrow does not hold
            with pytest.raises(DataError, match=message):
                encoder.transform({"n": [value]})
        return
    assert number_of(value) == number
    expected = [(0, number)] if number is not None else [(1, 1.0)]
    for X in (encoder.transform({"n": [value]}), encoder.encode_rows([{"n": value}])):
        assert list(zip(X.indices.tolist(), X.data.tolist(), strict=True)) == [
            (i, float(np.float32(v))) for i, v in expected
        ]


def test_standardised():
    column = [1.0, 2.0, 3.0, None, 6.0]
    encoder = Encoder.fit({"n": column, "flat": [5] * 5}, numeric=["n", "flat"], standardize=True)
    n, flat = encoder.columns
    assert (n.mean, n.std) == (3.0, np.std([1, 2, 3, 6])) and (flat.mean, flat.std) == (5.0, 1.0)
    X = encoder.transform({"n": column, "flat": [5] * 5})
    values = X[:, 0].toarray().ravel()[[0, 1, 2, 4]]
    assert abs(values.mean()) < 1e-6 and abs(values.std() - 1) < 1e-6
    assert X[3, 0] == 0 and X[3, 1] == 1 and X[:, 2].nnz == 5  # an entry in each row, 0 too
    assert encoder.decode_row(X[1]) == {"n": pytest.approx(2.0), "flat": 5.0}


def test_numbers_that_are_too_large():
    for value in (1e39, "-1e39"):
        with pytest.raises(DataError, match="row 2, column 'n': expected a finite number, found"):
            Encoder([Numeric("n")]).transform({"n": [1, value]})
        with pytest.raises(DataError, match="row 2, column 'n'"):
            Encoder([Numeric("n")]).encode_rows([{"n": 1}, {"n": value}])
    with pytest.raises(DataError, match="columns row 2, column 'n'"):
        Encoder.fit({"n": [1.0, 1e308, -1e308]}, numeric=["n"], standardize=True)


def test_a_text_in_a_numeric_column_is_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("age,n\n20,NA\nold,2\n")
    with pytest.raises(
        DataError, match=r"x.csv row 2, column 'age': expected a finite number, found 'old'"
    ):
        Encoder.fit(path, numeric=["n", "age"])
    for bad in ([{"a": 1}], [[1.0]]):
        with pytest.raises(DataError, match="row 1, column 'age'"):
            Encoder([Numeric("age")]).transform({"age": bad})


# -- default kinds ---------------------------------------------------------------------------------


def test_default_kinds():
    table = pa.table(
        {
            "int": [1, 2],
            "float": [1.0, 2.0],
            "whole": ["1.0", "2.0"],
            "decimal": ["1", "2.5"],
            "gaps": ["?", "2.5"],
            "digits": ["01", "2"],
            "version": ["1.0.1", "2.5"],
            "flag": [True, False],
            "truth": ["True", "1e0"],
            "list": [["a"], ["b"]],
            "empty": pa.nulls(2),
            "blank": ["", None],
            "money": pa.array([1, 2], pa.decimal128(5, 2)),
            "dict": pa.array(["1.5", "2.5"]).dictionary_encode(),
        }
    )
    encoder = Encoder.fit(table)
    kinds = {c.name: c.kind for c in encoder.columns}
    assert [n for n, k in kinds.items() if k == "numeric"] == (
        ["float", "whole", "decimal", "gaps", "truth", "money"]
    )
    assert [n for n, k in kinds.items() if k == "multi"] == ["list"]
    assert list(kinds) == table.column_names
    with pytest.raises(DataError, match=r"column 's' holds values of type struct.*ignore=\['s'\]"):
        Encoder.fit({"s": [{"a": 1}], "t": [1]})


def test_columns_of_identifiers_are_pointed_out(rng):
    n = 2400
    data = {"id": np.arange(n), "time": rng.integers(10**9, 2 * 10**9, n // 2).repeat(2)}
    data |= {"user": rng.integers(0, 1500, n), "x": rng.normal(size=n)}
    with pytest.warns(UserWarning) as caught:
        Encoder.fit(data)
    assert [str(w.message).split(", and each")[0] for w in caught] == [
        "columns: column 'id' has 2400 different values in 2400 rows",
        "columns: column 'time' looks like a time in Unix seconds",
    ]
    assert "ignore=['id']" in str(caught[0].message)
    Encoder.fit(data, categorical=["id", "time"])  # asked for, so no warning
    Encoder.fit(data, ignore=["id", "time"])


def test_named_columns_only():
    data = {"a": [1], "b": [2], "c": [0.5]}
    assert Encoder.fit(data, categorical=["b"]).field_names == ("b",)
    assert Encoder.fit(data, numeric=2, categorical=[0]).field_names == ("a", "c")
    assert Encoder.fit(data, ignore="b").field_names == ("a", "c")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"categorical": ["usr"]}, DataError, "there is no column 'usr'.*did you mean 'user'"),
        ({"ignore": ["x"]}, DataError, "there is no column 'x'"),
        ({"categorical": ["user"], "multi": ["user"]}, ConfigError, "also named as categorical"),
        ({"categorical": ["user"], "ignore": ["user"]}, ConfigError, "target, weight or to be ign"),
        ({"multi": {"user": ""}}, ConfigError, "expected a text as the separator of 'user'"),
        ({"min_count": 0}, ConfigError, "min_count: expected an integer >= 1, found 0"),
        (
            {"bins": -1},
            ConfigError,
            'bins: expected "auto" or an integer from 0 to 10000, found -1',
        ),
        ({"bins": True}, ConfigError, "bins: expected .* found True"),
        ({"bins": "many"}, ConfigError, "bins: expected .* found 'many'"),
        ({"hash_dim": 0}, ConfigError, "hash_dim: expected an integer from 1 to"),
        ({"hash_dim": {"age": 5}}, ConfigError, "hash_dim: 'age' is not a categorical"),
        ({"ignore": ["user", "age"]}, DataError, "no columns are left"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        Encoder.fit({"user": ["a", "b"], "age": [0.5, 1.5]}, **options)


def test_no_rows_and_missing_columns():
    with pytest.raises(DataError, match="table: no rows to learn the columns from"):
        Encoder.fit(pa.table({"a": pa.array([], pa.string())}))
    encoder = Encoder.fit({"user": ["a"], "film": ["b"]})
    with pytest.raises(DataError, match="columns: there is no column 'film'; the columns are user"):
        encoder.transform({"user": ["a"], "extra": [1]})
    empty = encoder.transform(pa.table({n: pa.array([], pa.string()) for n in ("user", "film")}))
    assert empty.shape == (0, 4)
    assert encoder.encode_rows([]).shape == (0, 4)


def test_a_list_is_not_one_value():
    encoder = Encoder.fit({"c": ["x"]})
    message = r"row 2, column 'c': expected one value, found \['x'\]$"
    with pytest.raises(DataError, match=message[:-1] + "; .* in multi=... or history=...$"):
        encoder.transform({"c": [None, ["x"]]})
    with pytest.raises(DataError, match=message):  # of columns that are what they are
        encoder.encode_rows([{"c": None}, {"c": ["x"]}])
    for bad in ({"a": 1}, ["x"], [["x"]], b"\xff"):
        kind = {
            "multi" if isinstance(bad, list) and isinstance(bad[0], list) else "categorical": "c"
        }
        with pytest.raises(DataError, match="columns row 2, column 'c'"):
            Encoder.fit({"c": [None, bad]}, **kind)


# -- values: order, rare ones, separators ----------------------------------------------------------


def test_values_by_falling_count_and_min_count():
    data = {"c": list("bbbaaacdde"), "m": ["x|y|x"] * 2 + ["y"] + ["z"] * 7}
    encoder = Encoder.fit(data, categorical=["c"], multi=["m"])
    assert encoder.columns[0].values.values == tuple("badce")
    assert encoder.columns[1].values.values == tuple("zyx")
    encoder = Encoder.fit(data, categorical=["c"], multi=["m"], min_count=3)
    assert encoder.columns[0].values.values == tuple("ba")
    assert encoder.columns[1].values.values == tuple("zy")  # x is in 2 cells, twice in each
    assert (encoder.transform(data).toarray()[:, 0] == [0] * 6 + [1] * 4).all()


def test_one_count_for_one_value_in_two_spellings():
    column = pa.array(["7.0", "x", "x", "7", "7"])
    assert Encoder.fit({"c": column}).columns[0].values.values == ("7", "x")


WORDS = ["z", "a", "m", None, "a", "z", "m", "q"]  # the first three occur as often


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(WORDS, dtype="category"),
        pd.Series(pd.Categorical(WORDS, ["unused", "q", "m", "a", "z", "5.5"])),
        pl.Series(WORDS, dtype=pl.Enum(["a", "m", "q", "z"])),
        pa.DictionaryArray.from_arrays([3, 0, 2, 4, 1, 3, 2, 5], ["a", "a", "m", "z", None, "q"]),
        pa.chunked_array([pd.Categorical(WORDS[:4]), pd.Categorical(WORDS[4:])]),
    ],
    ids=["category", "given order", "enum", "arrow", "chunks"],
)
def test_equal_counts_keep_the_order_of_the_rows_in_a_dictionary_too(column):
    found = Encoder.fit(pa.table({"c": column, "m": column}), categorical=["c"], multi=["m"])
    assert found == Encoder.fit({"c": WORDS, "m": WORDS}, categorical=["c"], multi=["m"])
    assert [c.values.values for c in found.columns] == [("z", "a", "m", "q")] * 2
    lists = pa.ListArray.from_arrays([0, 2, 3], pa.array(["z", "a", "m"]).dictionary_encode())
    backward = pa.DictionaryArray.from_arrays([2, 0, 1], ["a", "m", "z"])
    same = pa.ListArray.from_arrays([0, 2, 3], backward)
    assert Encoder.fit(pa.table({"m": lists})) == Encoder.fit(pa.table({"m": same}))


def test_separators():
    data = {"tags": ["a, b", "b,c", "x|y"], "path": ["a::b", "c", "::"]}
    encoder = Encoder.fit(data, multi={0: ","}, history={"path": "::"})
    assert encoder.columns[0].values.values == ("b", "a", "c", "x|y")
    assert encoder.columns[1].values.values == ("a", "b", "c")
    same(encoder.transform(data), encoder.encode_rows(rows_of(data)))
    # numbers are sets of one; lists of numbers are texts of numbers
    encoder = Encoder.fit({"h": [[1, 2], [2]]}, history=["h"])
    for cell in ("2|1", [1.0, 2], ["2", "1", None], (1, 2), {1, 2}, np.array([1, 2]), "2.0| 1"):
        assert encoder.encode_rows([{"h": cell}]).indices.tolist() == [1, 2]
    assert encoder.transform({"h": [2, 7]}).indices.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
def test_list_types(kind):
    lists = [["a", "b"], ["b", "c"], None, ["x", None]]
    types = {"list": pa.list_(pa.string()), "large_list": pa.large_list(pa.string())}
    column = pa.array(lists, types.get(kind, pa.list_(pa.string(), 2)))
    column = pa.chunked_array([column[:1], column[1:]])
    encoder = Encoder.fit({"m": column})
    same(encoder.transform({"m": column}), encoder.encode_rows([{"m": v} for v in lists]))


# -- hashing ---------------------------------------------------------------------------------------


def naive_hash(text):
    """FNV-1a and MurmurHash3's finaliser, as their authors publish them."""
    h = 14695981039346656037
    for byte in text.encode():
        h = (h ^ byte) * 1099511628211 % 2**64
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCD % 2**64
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53 % 2**64
    return h ^ (h >> 33)


def test_hash_is_the_documented_one(rng):
    lengths = [0, 1, 7, 8, 500, 3000, *rng.integers(1, 40, 300)]
    texts = ["".join(chr(c) for c in rng.integers(1, 0x3000, n)) for n in lengths]
    buckets = Buckets(2**31 - 2)
    found = buckets.find_all(pa.array(texts))
    assert found.tolist() == [naive_hash(t) % (2**31 - 2) + 1 for t in texts]
    assert found.tolist() == [buckets.find(t) for t in texts]
    assert buckets.find_all(pa.array(["x", *texts])[1:]).tolist() == found.tolist()  # an offset
    assert buckets.find_all(pa.array([None, ""])).tolist() == [0, buckets.find("")]
    assert buckets.find_all(pa.array([], pa.string())).size == 0
    # known answers of FNV-1a 64, before the finaliser
    assert naive_hash("") == Buckets(2**64).find("") - 1


def test_buckets_are_evenly_used():
    counts = np.bincount(Buckets(64).find_all(pa.array([str(i) for i in range(64000)])) - 1)
    assert counts.size == 64 and ((counts - 1000) ** 2 / 1000).sum() < 120  # chi2, 63 degrees


def test_hashed_columns():
    encoder = Encoder.fit(MIXED, **KINDS, hash_dim={"user": 10, "genres": 5})
    assert [c.width for c in encoder.columns] == [11, 2, 6, 3]
    new = {"user": ["zed"], "age": [1], "genres": ["new|Action"], "seen": ["a"]}
    X = encoder.transform(new)
    same(X, encoder.encode_rows(rows_of(new)))
    name = encoder.feature_name(X.indices[0])
    assert name == f"user=<bucket {naive_hash('zed') % 10}>"
    assert encoder.decode_row(X)["user"] == name.removeprefix("user=")
    assert encoder.encode_rows([{}]).indices[0] == 0
    assert Encoder.from_dict(encoder.to_dict()) == encoder
    assert Encoder.fit(MIXED, **KINDS, hash_dim=7).num_features == 8 + 2 + 8 + 8
    assert "values" not in json.dumps(encoder.to_dict()["columns"][0])


# -- there and back --------------------------------------------------------------------------------

blanks = st.sampled_from(["", " ", "42.0", "True", "-0.0", "<unknown>", "=", '"', "|"])
texts = st.one_of(st.none(), st.text(max_size=6), blanks)
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32), st.integers(-(2**40), 2**40))
parts = st.text(st.characters(codec="utf-8", exclude_characters="|"), max_size=3)
records = st.fixed_dictionaries(
    {
        "c": texts,
        "i": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "n": numbers,
        "m": st.one_of(st.none(), st.lists(parts, max_size=4).map("|".join)),
        "h": st.one_of(st.none(), st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=4)),
    }
)
TYPES = {"c": pa.string(), "i": pa.int64(), "n": pa.float64(), "m": pa.string()}
SCHEMA = pa.schema({**TYPES, "h": pa.list_(pa.string())})
RECORD_KINDS = {"categorical": ["c", "i"], "numeric": "n", "multi": "m", "history": "h"}


def table_of(rows):
    return pa.Table.from_pylist(
        [{**row, "n": None if row["n"] is None else float(row["n"])} for row in rows], SCHEMA
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(records, min_size=1, max_size=6),
    st.lists(records, max_size=4),
    st.booleans(),
    st.data(),
)
def test_table_and_rows_and_back(rows, others, hashed, data):
    rows = [row for row in rows if encodable(row)] or [dict.fromkeys(SCHEMA.names)]
    others = [row for row in others if encodable(row)]
    standardize = data.draw(st.booleans())
    bins = data.draw(st.one_of(st.just("auto"), st.integers(0, 4)))
    encoder = Encoder.fit(
        table_of(rows),
        **RECORD_KINDS,
        standardize=standardize,
        bins=bins,
        min_count=data.draw(st.integers(1, 2)),
        hash_dim=data.draw(st.integers(1, 9)) if hashed else None,
    )
    X = encoder.transform(table_of(rows + others))
    same(X, encoder.encode_rows(rows + others))
    X.check_format()
    assert (X.indices < encoder.num_features).all() and X.has_sorted_indices
    same(
        X,
        Encoder.from_dict(json.loads(json.dumps(encoder.to_dict()))).transform(
            table_of(rows + others)
        ),
    )
    # what was decoded encodes to the same row; missing numbers and unknown values included
    for i in range(len(rows)):
        decoded = encoder.decode_row(X[i])
        if not hashed and bins in (0, "auto"):  # close knots are closer than float32 numbers
            again = {k: v if k not in "mh" or v is None else v for k, v in decoded.items()}
            one = encoder.encode_rows([again])
            known = [None not in (again[k] or []) for k in "mh"]
            if all(known):
                assert one.indices.tolist() == X[i].indices.tolist()
                np.testing.assert_allclose(one.data, X[i].data, rtol=1e-6)


def encodable(row):
    """Arrow holds valid Unicode only."""
    try:
        table_of([row])
    except (UnicodeEncodeError, pa.ArrowInvalid):
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=1, max_size=9)
)
def test_decode_gives_the_values_back(values):
    encoder = Encoder.fit(
        {"c": values, "m": [values] * len(values)}, categorical=["c"], multi=["m"]
    )
    for i, value in enumerate(values):
        row = {"c": value, "m": values}
        decoded = encoder.decode_row(encoder.encode_rows([row]))
        assert decoded["c"] == text_of(value)
        assert set(decoded["m"]) == set(map(text_of, values))
        index = encoder.feature_index("c", value)
        assert encoder.feature_name(index) == f"c={text_of(value)}"
        assert encoder.transform({"c": values, "m": [None] * len(values)})[i].indices[0] == index


def test_names_and_indices():
    encoder = Encoder.fit(MIXED, **KINDS)
    assert encoder.feature_index("user", None) == 0 == encoder.feature_index("user", "nobody")
    assert encoder.feature_index("age", 7) == 3 and encoder.feature_index("age") == 4
    assert encoder.feature_index("genres", "Drama") == 8
    for i, name in enumerate(encoder.feature_names):
        assert encoder.feature_name(i) == name
    assert encoder.feature_names[-1] == "seen=a"
    names = [encoder.feature_name(i) for i in encoder.unknown_features]
    assert names == [f"{name}=<unknown>" for name in encoder.field_names]
    assert [encoder.feature_value(i) for i in (0, 1, 3, 4, 8)] == [None, "u1", None, None, "Drama"]
    assert encoder.feature_names[1:3] == ["user=u1", "user=u2"]
    assert repr(encoder.feature_names) == "<names of 12 features>"
    assert "'user': categorical 3" in repr(encoder)
    for index in (12, -1):
        with pytest.raises(DataError, match=r"feature -?\d+ is outside \[0, 12\)"):
            encoder.feature_name(index)
    with pytest.raises(DataError, match="encoder: there is no column 'films'"):
        encoder.feature_index("films", 1)
    with pytest.raises(DataError, match="column 'user': expected one value"):
        encoder.feature_index("user", ["a"])
    with pytest.raises(DataError, match="expected one row, found 2"):
        encoder.decode_row(sp.csr_matrix((2, 12)))
    # a value that looks like the name of the unknown feature is not it
    odd = Encoder.fit({"c": ["<unknown>"]})
    assert odd.feature_index("c", "<unknown>") == 1 and odd.decode_row([0]) == {"c": None}


def test_columns_too_many_are_ignored_unless_they_are_slips():
    """One rule for tables and for rows: see Encoder.check_names."""
    encoder = Encoder.fit({"user": [1, 2], "film": [3, 4], "stars": [5, 1]}, target="stars")
    row = {"user": 1, "film": 4, "time": 9, "films": 8, "user_name": "x", 5: None}
    whole = encoder.encode_rows([{"user": 1, "film": 4}])
    same(encoder.encode_rows([row, {"user": 2, "time": 1}])[:1], whole)
    same(encoder.transform({**{str(n): [v] for n, v in row.items()}, "stars": [3]}), whole)
    for left_out, wrong in (("film", "flim"), ("film", "Films"), ("film", "FILM"), ("user", "usr")):
        slip = {name: 1 for name in ("user", "film", "time") if name != left_out}
        message = f"did you mean '{left_out}'. If not, rename it"
        with pytest.raises(DataError, match=f"row 2: there is no column '{wrong}'; .*{message}"):
            encoder.encode_rows([row, {**slip, wrong: 1}])
        with pytest.raises(DataError, match=f"there is no column '{left_out}'"):
            encoder.transform({name: [1] for name in (*slip, wrong)})
    encoder.encode_rows([{"user": 1, "name": 2}, {"user": 1, "x" * 10**6: 2}, {}, {"stars": 3}])
    encoder.encode_rows([{"user": 1, "flim": 2}], columns=["user"])  # where no film is needed
    with pytest.raises(DataError, match="row 1: there is no column 'person'; the columns are user"):
        encoder.encode_rows([{"person": 1}])


def test_hostile_names_take_little_time():
    encoder = Encoder.fit({f"column {i}": [1, 2] for i in range(20)})
    rows = [{f"nmuloc {50 * i + j}": 1 for j in range(50)} for i in range(3000)]
    assert cpu_seconds(lambda: encoder.encode_rows([{"column 1": 1, **row} for row in rows])) < 10


def test_rows_are_checked():
    encoder = Encoder.fit(MIXED, **KINDS)
    with pytest.raises(DataError, match="row 2: there is no column 'usr'.*did you mean 'user'"):
        encoder.encode_rows([{"user": 1}, {"usr": 2}])
    with pytest.raises(DataError, match="row 1: expected an object with the columns user, age"):
        encoder.encode_rows(["user"])
    with pytest.raises(DataError, match="row 1, column 'genres': expected a list of values"):
        encoder.encode_rows([{"genres": {"a": 1}}])


# -- in a model file -------------------------------------------------------------------------------


def test_to_dict_is_json_and_stable():
    encoder = Encoder.fit(MIXED, **KINDS, standardize=True)
    data = json.loads(json.dumps(encoder.to_dict()))
    assert data == {
        "version": 1,
        "columns": [
            {"name": "user", "kind": "categorical", "values": ["u1", "u2"]},
            {"name": "age", "kind": "numeric", "mean": 30.0, "std": math.sqrt(200 / 3)},
            {
                "name": "genres",
                "kind": "multi",
                "values": ["Comedy", "Action", "Drama"],
                "separator": "|",
            },
            {"name": "seen", "kind": "history", "values": ["b", "a"], "separator": "|"},
        ],
    }
    assert Encoder.from_dict(data) == encoder and hash(Encoder.from_dict(data)) == hash(encoder)
    encoder.transform(MIXED)  # what is cached may not get in the way
    assert pickle.loads(pickle.dumps(encoder)) == encoder == copy.deepcopy(encoder)


GOOD = {"name": "c", "kind": "categorical", "values": ["a"]}
NUMBER = {"name": "n", "kind": "numeric", "mean": 0.0, "std": 1.0}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"version": 1},
        {"version": 2, "columns": []},
        {"version": 1, "columns": {"a": 1}},
        {"version": 1, "columns": [None]},
        {"version": 1, "columns": [GOOD, GOOD]},
        {"version": 1, "columns": [GOOD], "target": 5},
        {"version": 1, "columns": [GOOD], "target": "c"},
        *(
            {"version": 1, "columns": [column]}
            for column in (
                {**GOOD, "name": 5},
                {**GOOD, "kind": "exec"},
                {**GOOD, "kind": ["multi"]},
                {**GOOD, "values": "abc"},
                {**GOOD, "values": [1]},
                {**GOOD, "values": ["a", "a"]},
                {**GOOD, "values": [""]},
                {**GOOD, "values": ["\ud800"]},
                {**GOOD, "hash_dim": 5},
                {**GOOD, "extra": 5},
                {"name": "c", "kind": "categorical"},
                {"name": "c", "kind": "categorical", "hash_dim": 0},
                {"name": "c", "kind": "categorical", "hash_dim": True},
                {"name": "c", "kind": "categorical", "hash_dim": 2**40},
                {"name": "c", "kind": "categorical", "hash_dim": 5.0},
                {**GOOD, "kind": "multi"},
                {**GOOD, "kind": "multi", "separator": ""},
                {**GOOD, "kind": "history", "separator": None},
                {**NUMBER, "std": 0},
                {**NUMBER, "std": -1.0},
                {**NUMBER, "std": float("nan")},
                {**NUMBER, "mean": float("inf")},
                {**NUMBER, "mean": "0"},
                {**NUMBER, "mean": 10**400},
                {"name": "n", "kind": "numeric"},
                {**NUMBER, "edges": [1.0]},
                {**NUMBER, "knots": 5},
                {**NUMBER, "knots": [1.0]},
                {**NUMBER, "knots": [1.0, "2"]},
                {**NUMBER, "knots": [1.0, True]},
                {**NUMBER, "knots": [2.0, 1.0]},
                {**NUMBER, "knots": [1.0, 1.0]},
                {**NUMBER, "knots": [1.0, float("nan")]},
                {**NUMBER, "knots": [1.0, float("inf")]},
                {**NUMBER, "knots": [1.0, 10**400]},
                {**NUMBER, "knots": [-1.5e308, 1.5e308]},
            )
        ),
        {
            "version": 1,
            "columns": [{"name": n, "kind": "categorical", "hash_dim": 2**31 - 2} for n in "abc"],
        },
    ],
    ids=repr,
)
def test_hostile_dicts(data):
    with pytest.raises(ModelFileError):
        Encoder.from_dict(data)


def test_target_is_left_out_and_remembered():
    data = {"user": ["a", "b"], "stars": [1, 2]}
    encoder = Encoder.fit(data, target="stars")
    assert encoder.field_names == ("user",) and encoder.target == "stars"
    assert Encoder.from_dict(json.loads(json.dumps(encoder.to_dict()))).target == "stars"
    assert Encoder.fit(data, target=1).target == "stars"
    plain = Encoder.fit({"user": ["a", "b"]})
    assert plain == encoder and "target" not in plain.to_dict()  # files stay as they were
    with pytest.raises(ConfigError, match="categorical: column 'stars' is also named as target"):
        Encoder.fit(data, categorical=["stars"], target="stars")


# -- real data and speed ---------------------------------------------------------------------------


def test_adult(shared_data):
    table = read_table(shared_data / "tabular" / "adult.csv.gz")
    encoder = Encoder.fit(
        table,
        numeric=["age", "hours-per-week"],
        categorical=["education", "native-country"],
        standardize=True,
    )
    X = encoder.transform(table)
    assert X.shape[0] == 48842 and (np.diff(X.indptr) == 2 + 2 * 3).all()
    sample = table.take(list(range(0, 48842, 997)))
    same(
        encoder.transform(sample),
        encoder.encode_rows(sample.select(encoder.field_names).to_pylist()),
    )
    row = encoder.decode_row(X[10])
    assert row["age"] == pytest.approx(float(table["age"][10].as_py()), rel=1e-5)
    assert row["education"] == table["education"][10].as_py()


def test_criteo_with_blanks(shared_data):
    table = read_table(shared_data / "criteo-8k" / "train.tsv.gz")
    encoder = Encoder.fit(
        table, numeric=range(1, 14), categorical=range(14, 40), standardize=True, min_count=2
    )
    X = encoder.transform(table)
    assert (np.diff(X.indptr) == 26 + 13 * 3).all()
    blank = table["1"].is_null().to_numpy(zero_copy_only=False)
    assert (X[:, encoder.feature_index("1")].toarray().ravel() == blank).all()
    test = read_table(shared_data / "criteo-8k" / "test.tsv.gz")
    rows = test.select(encoder.field_names).to_pylist()
    same(encoder.transform(test), encoder.encode_rows(rows))


def test_genres_of_movielens(shared_data):
    movies = read_table(
        shared_data / "ml-1m" / "movies.dat.gz",
        encoding="latin-1",
        header=["id", "title", "genres"],
    )
    encoder = Encoder.fit(movies, multi=["genres"])
    assert encoder.num_features == 19
    assert encoder.transform(movies).sum() == 6408  # genres of all films
    assert encoder.columns[0].values.values[:2] == ("Drama", "Comedy")


def cpu_seconds(what):
    start = time.process_time()
    what()
    return time.process_time() - start


def test_cost_is_per_value_not_per_row(rng):
    """A guard against a loop over rows in Python; the limits are ten times what is measured."""
    n = 300_000
    table = read_table({"u": rng.integers(0, 6000, n).astype(str), "i": rng.integers(0, 4000, n)})
    unit = cpu_seconds(lambda: sum(i * i for i in range(10 * n)))
    encoder = Encoder.fit(table, categorical=["u", "i"])
    both = cpu_seconds(lambda: Encoder.fit(table, categorical=["u", "i"]).transform(table))
    assert both < 2.5 * unit
    row = {"u": "42", "i": 7}
    encoder.encode_rows([row])
    assert cpu_seconds(lambda: [encoder.encode_rows([row]) for _ in range(200)]) < unit / 2
