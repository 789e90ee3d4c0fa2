"""fm.read: any source -> Dataset."""

import gzip
import inspect
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from fm.cli.options import Parser, add_data_options
from fm.data.dataset import Dataset
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError, UnsupportedFormatError
from fm.formats.guess import guess_format
from fm.formats.recordio import write_spmatrix_to_sparse_tensor
from fm.formats.svmlight import write_libffm, write_libsvm
from fm.formats.tables import write_table
from fm.reading.options import options
from fm.reading.read import read, read_batches

TABLE = {"user": ["ann", "bob", "ann"], "film": [7, 7, 9], "rating": [4.0, 5.0, 1.0]}


@pytest.fixture
def features(rng):
    X = np.where(rng.random((20, 9)) < 0.4, rng.integers(1, 5, (20, 9)), 0).astype(np.float32)
    X[0, 0] = X[3, 8] = 1  # the first and the last feature occur, in the first half
    return sp.csr_matrix(X), rng.integers(0, 2, 20).astype(np.float32)


def same(data, X, y=None):
    assert (data.X != X).nnz == 0 and data.X.shape == X.shape
    assert data.X.dtype == np.float32 and data.X.indices.dtype == np.int32
    assert data.y is None if y is None else np.array_equal(data.y, y)


# -- the same table from anywhere ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x.csv", "x.tsv", "x.csv.gz", "x.parquet", "x.txt", "x.dat", "x", "x.data.gz"]
)
def test_files(tmp_path, name):
    expected = read(TABLE)
    path = tmp_path / name
    write_table(pa.table(TABLE), path)
    for source in (path, str(path), path.read_bytes(), tmp_path):
        data = read(source)
        same(data, expected.X, expected.y)
        assert data.encoder == expected.encoder
        assert data.source == ("data" if isinstance(source, bytes) else str(path))


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, dict])
def test_frames(make):
    data = read(make(TABLE))
    assert data.y.tolist() == [4, 5, 1] and data.onehot and data.entries_per_row == 2
    assert data.field_names == ("user", "film") and data.fields.tolist() == [0, 0, 0, 1, 1, 1]
    assert [data.feature_names[i] for i in data.X[1].indices] == ["user=bob", "film=7"]
    assert len(data.feature_names) == 6 and data.feature_name(4) == "film=7"


def test_named_columns_target_and_weight():
    table = {**TABLE, "w": [1, 2, 0.5], "tags": ["a,b", "b", None], "age": ["20", "?", "30"]}
    data = read(
        table,
        target="film",
        weight="w",
        categorical=["user"],
        multi={"tags": ","},
        numeric=["age"],
        standardize=True,
    )
    assert data.y.tolist() == [7, 7, 9] and data.weight.tolist() == [1, 2, 0.5]
    assert data.field_names == ("user", "tags", "age")
    assert data.X[:, data.encoder.feature_index("age", 0)].toarray().ravel().tolist() == [-1, 0, 1]
    assert read(table, target=2, weight=-3, ignore=["tags", 5]).field_names == ("user", "film")
    assert (
        read(table, min_count=2, hash_dim={"user": 4}, categorical=["user", "film"]).num_features
        == 7
    )
    with pytest.raises(DataError, match="row 2: weight -1 is negative"):
        read({**TABLE, "w": [1, -1, 1]}, weight="w")


# -- target ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rating", "label", "Target", "y", "CLICK"])
def test_default_target(name, caplog):
    caplog.set_level("INFO", "fm")
    data = read({"a": ["x", "z"], name: [1, 0]})
    assert data.y.tolist() == [1, 0] and data.field_names == ("a",)
    assert f"the target is column {name!r}" in caplog.text


def test_without_target():
    table = {"user": [1, 2], "stars": [4, 5]}
    assert read(table).y is None and read(table).field_names == ("user", "stars")
    with pytest.raises(
        DataError, match="no column is called rating, label, .*; the columns .* with target="
    ):
        read(table, require_target=True)
    # a column that is asked for as a feature is one
    assert read({"label": ["a"], "y": [1]}, categorical=["label"]).y.tolist() == [1]
    with pytest.raises(
        ConfigError, match="categorical: column 'y' is also named as target, weight"
    ):
        read({"y": [1]}, target="y", categorical=["y"])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["4", "good"], "row 2, column 'y': expected a number, found 'good'; .* 0 and 1"),
        (["4", ""], "row 2, column 'y': expected a number as target, found none"),
        ([1.0, np.nan], "row 2, column 'y': expected a number as target, found none"),
        ([1.0, np.inf], "row 2, column 'y': expected a number, found inf"),
        ([1.0, 1e39], "row 2: the target 1e\\+39 is not a finite number"),
    ],
)
def test_wrong_target(column, message):
    with pytest.raises(DataError, match=message):
        read({"a": ["u", "v"], "y": column})


def test_boolean_target():
    assert read({"a": [1, 2], "click": [True, False]}).y.tolist() == [1, 0]
    assert read(b"a,click\n1,True\n2,False\n").y.tolist() == [1, 0]


def test_error_names_the_file_of_a_directory(tmp_path):
    (tmp_path / "1.csv").write_text("user,rating\na,1\nb,2\n")
    (tmp_path / "2.csv").write_text("user,rating\nc,3\nd,bad\n")
    with pytest.raises(DataError, match=r"2\.csv row 2, column 'rating': .* found 'bad'"):
        read(tmp_path)
    (tmp_path / "2.csv").write_text("user,rating\nc,3\n")
    assert read(tmp_path).y.tolist() == [1, 2, 3]


# -- with the encoder of a model -------------------------------------------------------------------


def test_encoder_is_reused(tmp_path):
    encoder = read(TABLE).encoder
    path = tmp_path / "new.csv"
    path.write_text("note,film,user\nx,9,bob\ny,8,eve\n")
    data = read(path, encoder=encoder)
    assert data.encoder is encoder and data.y is None
    assert [encoder.decode_row(row) for row in data.X] == [
        {"user": "bob", "film": "9"},
        {"user": None, "film": None},
    ]
    # a column that is called like a target is read if it is asked for
    path.write_text("rating,film,user\n,9,bob\n")
    assert read(path, encoder=encoder).y is None
    with pytest.raises(
        DataError, match="new.csv row 1, column 'rating': expected a number as target"
    ):
        read(path, encoder=encoder, require_target=True)
    path.write_text("film,user,stars\n9,bob,3\n")
    assert read(path, encoder=encoder, target="stars").y.tolist() == [3]
    assert read(path, encoder=encoder, target=2).y.tolist() == [3]


def test_the_target_of_training_is_that_of_later_rows(caplog):
    encoder = read(
        {"user": ["ann", "bob"], "rating": [1, 2], "stars": [5, 4]}, target="stars", ignore="rating"
    ).encoder
    caplog.set_level("INFO", "fm")
    rows = {"user": ["bob"], "rating": [1], "stars": [3]}
    assert read(rows, encoder=encoder, require_target=True).y.tolist() == [3]
    assert not caplog.text
    assert read(rows, encoder=encoder).y is None  # as a file to predict has none
    assert read(rows, encoder=encoder, target="rating").y.tolist() == [1]
    (part,) = read_batches(rows, encoder=encoder, require_target=True)
    assert part.y.tolist() == [3]
    del rows["stars"]  # then as usual, and said
    assert read(rows, encoder=encoder, require_target=True).y.tolist() == [1]
    assert "the target is column 'rating'" in caplog.text
    with pytest.raises(DataError, match="no column is called stars, rating, label, target"):
        read({"user": ["bob"]}, encoder=encoder, require_target=True)
    # a header is found by the target's name, too
    assert read(b"stars,user\n3,bob\n", encoder=encoder, require_target=True).y.tolist() == [3]


def test_one_table_of_options():
    """The signature, the docstring, command lines and estimators follow fm.reading.options."""
    names = [option.name for option in options()]
    parameters = inspect.signature(read).parameters
    assert list(parameters)[1:] == names
    assert [p.default for p in parameters.values()][1:] == [o.default for o in options()]
    groups = list(dict.fromkeys(option.group for option in options()))
    text = inspect.getdoc(read)
    listed = re.findall(r"^(\w[\w, ]*) : ", text[text.index("Parameters") :], re.M)
    assert [name for line in listed for name in line.split(", ")] == ["source", *names]
    table = re.split(r"^={5,}.*$", text, flags=re.M)[1]
    found, group = {}, ""
    for line in table.strip().splitlines():
        group = line[:19].strip() or group
        found[group] = found.get(group, []) + re.findall(r"\w+", line[19:])
    assert found == {group: [o.name for o in options(group)] for group in groups}
    shared = list(inspect.signature(read_batches).parameters)[1:-1]
    assert shared == [name for name in names if name in shared]
    parser = Parser("fm test", "A test.", "")
    add_data_options(parser)
    titles = [group.title for group in parser._action_groups][2:]
    assert titles == [name for name in groups if name != "rows for a model"]


def test_encoder_and_other_data(features):
    encoder = read(TABLE).encoder
    with pytest.raises(DataError, match="there is no column 'film'; the columns are user, flim"):
        read({"user": [1], "flim": [2]}, encoder=encoder)
    with pytest.raises(ConfigError, match="categorical, min_count: does not apply, because"):
        read(TABLE, encoder=encoder, categorical=["user"], min_count=2)
    for source in (features[0], b"1 1:1\n"):
        with pytest.raises(DataError, match="expected a table with the columns user, film, which"):
            read(source, encoder=encoder)


# -- features --------------------------------------------------------------------------------------


def test_arrays(features):
    X, y = features
    for source in (X, X.toarray(), X.tocoo(), X.toarray().tolist()):
        same(read(source), X)
        same(read((source, y)), X, y)
    data = read((X, y, np.ones(20)), num_features=12)
    assert data.num_features == 12 and data.weight.sum() == 20
    assert read(data) is data
    frame = read(({"user": ["a", "b"]}, [1, 0]))
    assert frame.y.tolist() == [1, 0] and frame.field_names == ("user",)
    with pytest.raises(DataError, match="expected a target in each row, found none"):
        read(X, require_target=True)
    with pytest.raises(DataError, match="one target per row"):
        read((X, y[1:]))


@pytest.mark.parametrize("form", ["libsvm", "libffm", "recordio"])
@pytest.mark.parametrize("guessed", ["name", "content"])
def test_feature_files(tmp_path, features, form, guessed):
    X, y = features
    path = tmp_path / (f"x.{form}" if guessed == "name" else "x")
    fields = np.arange(9, dtype=np.int32) // 3
    with path.open("wb") as file:
        if form == "libsvm":
            write_libsvm(file, X, y)
        elif form == "libffm":
            write_libffm(file, X, y, fields)
        else:
            write_spmatrix_to_sparse_tensor(file, X, labels=y)
    for source in (path, path.read_bytes(), tmp_path):
        assert guess_format(source) == form or guessed == "name"
        data = read(source, format=form if isinstance(source, bytes) else None)
        same(data, X, y)
    if form == "libffm":
        assert data.fields.tolist() == fields.tolist() and data.field_names == ("0", "1", "2")
    else:
        assert data.fields is None and data.field_names == ()
    assert read(path, num_features=20).num_features == 20
    with pytest.raises(DataError, match="x"):
        read(path, num_features=5)
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
    for source in (path.with_suffix(".gz"), path.with_suffix(".gz").read_bytes()):
        same(read(source, format=form), X, y)


def test_directories_of_feature_files(tmp_path, features):
    X, y = features
    X = X.toarray()
    X[:10, 0], X[10, 0] = 0, 1  # the first file lacks feature 0, which must not make it one-based
    X = sp.csr_matrix(X)
    for zero_based in (True, False):
        (tmp_path / f"{zero_based}").mkdir()
        for name, rows in (("a.libsvm", slice(0, 10)), ("b.libsvm", slice(10, 20))):
            with (tmp_path / f"{zero_based}" / name).open("wb") as file:
                write_libsvm(file, X[rows], y[rows], zero_based=zero_based)
        same(read(tmp_path / f"{zero_based}"), X, y)
        same(read(tmp_path / f"{zero_based}", num_features=9, zero_based=zero_based), X, y)
    with pytest.raises(DataError, match="b.libsvm|a.libsvm"):
        read(tmp_path / "True", num_features=3)
    (tmp_path / "ffm").mkdir()
    (tmp_path / "ffm" / "1").write_bytes(b"1 0:0:1 1:3:1\n")
    (tmp_path / "ffm" / "2").write_bytes(b"0 0:1:1 2:5:1\n")
    data = read(tmp_path / "ffm")
    assert data.fields.tolist() == [0, 0, 3, 1, 3, 2] and data.y.tolist() == [1, 0]
    assert data.field_names == ("0", "1", "2", "no field")


def test_some_files_without_labels(tmp_path, features):
    X, y = features
    for name, labels in (("a.rec", y), ("b.rec", None)):
        with (tmp_path / name).open("wb") as file:
            write_spmatrix_to_sparse_tensor(file, X, labels=labels)
    with pytest.raises(DataError, match="b.rec: expected targets, as other files have them"):
        read(tmp_path)
    with pytest.raises(DataError, match="b.rec record 1"):
        read(tmp_path, require_target=True)
    assert read(tmp_path / "b.rec").y is None


# -- format and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"1 3:1 9:0.5\n-1 2:1\n", "libsvm"),
        (b"-1.5e3 qid:4 3:1\n0\n1 2:1 # note\n", "libsvm"),
        (b"1,3 3:1\n", "libsvm"),
        (b"0 1:7759:0.3651 2:7921:0.3651\n", "libffm"),
        (b"1 2 3\n4 5 6\n", "csv"),
        (b"1::2::3\n", "csv"),
        (b"time,x\n12:30,1\n", "csv"),
        (b"1\n0\n", "csv"),
        (b"PAR1\0\0", "parquet"),
        (b"\x0a\x23\xd7\xce\0\0\0\0", "recordio"),
        (gzip.compress(b"1 3:1\n", mtime=0), "libsvm"),
    ],
)
def test_guess(tmp_path, head, form):
    assert guess_format(head) == form
    (tmp_path / "x").write_bytes(head)
    assert guess_format(tmp_path / "x") == form == guess_format(tmp_path)


def test_names_decide_where_bytes_do_not(tmp_path):
    for name, form in (("x.TSV", "tsv"), ("x.libfm.gz", "libsvm"), ("x.v2.ffm", "libffm")):
        (tmp_path / name).write_bytes(b"1 2:3:4\n")
        assert guess_format(tmp_path / name) == form
    pq.write_table(pa.table(TABLE), tmp_path / "wrong.csv")
    assert read(tmp_path / "wrong.csv").num_rows == 3


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (b"1 1:1\n", {"target": "y"}, ConfigError, "target: does not apply to libsvm"),
        (b"1 1:1\n", {"header": True}, ConfigError, "header: does not apply to libsvm"),
        (TABLE, {"num_features": 5}, ConfigError, "num_features: does not apply to a frame"),
        (b"1,2\n", {"zero_based": True}, ConfigError, "zero_based: does not apply to a table"),
        (b"1 0:3:1\n", {"zero_based": True}, ConfigError, "zero_based: does not apply to libffm"),
        (
            b"",
            {"format": "recordio", "zero_based": False},
            ConfigError,
            "zero_based: does not apply to recordio",
        ),
        ([[1.0]], {"min_count": 2}, ConfigError, "min_count: does not apply to an array"),
        (TABLE, {"format": "csv"}, ConfigError, "format: does not apply to dict, only to files"),
        (
            b"1,2\n",
            {"format": "json"},
            ConfigError,
            "format: expected one of libsvm, libffm, recor",
        ),
        (b"1,2\n", {"format": "libsvm"}, DataError, "line 1"),
        (b"1,2\n", {"format": "recordio"}, UnsupportedFormatError, "RecordIO"),
        ("no/such/file", {}, DataError, "no/such/file: no such file or directory"),
        (
            "long" * 2000,
            {},
            DataError,
            r"longlong: cannot be read \(File name too long\); check the",
        ),
        (7, {}, UnsupportedFormatError, "expected a path, a frame .* found int"),
        ((b"1 1:1\n", [1]), {}, ConfigError, r"expected \(features or frame, targets\)"),
        (b"", {}, DataError, "data: the file is empty"),
    ],
)
def test_refused(source, options, error, message):
    with pytest.raises(error, match=message):
        read(source, **options)


# -- batches ---------------------------------------------------------------------------------------


def test_batches_of_a_table(tmp_path):
    rows = [(f"u{i % 7}", i % 5, i % 3) for i in range(100)]
    path = tmp_path / "x.csv"
    path.write_text("user,film,rating\n" + "".join(f"{u},{f},{r}\n" for u, f, r in rows))
    whole = read(path)
    parts = list(read_batches(path, encoder=whole.encoder, batch_rows=30, require_target=True))
    assert [part.num_rows for part in parts] == [30, 30, 30, 10]
    same(whole, sp.vstack([part.X for part in parts]), np.concatenate([part.y for part in parts]))
    frame = list(read_batches(pl.read_csv(path), encoder=whole.encoder, batch_rows=99))
    assert [part.num_rows for part in frame] == [99, 1] and frame[0].y is None
    path.write_text(path.read_text() + "u1,2,bad\n")
    batches = read_batches(path, encoder=whole.encoder, batch_rows=30, target="rating")
    with pytest.raises(DataError, match=r"x.csv row 101, column 'rating'"):
        list(batches)
    with pytest.raises(ConfigError, match="encoder: a table is read in batches with the encoder"):
        next(read_batches(path))


def test_batches_of_features(features):
    X, y = features
    for source in ((X, y), Dataset.from_arrays(X, y)):
        parts = list(read_batches(source, batch_rows=8))
        assert [part.num_rows for part in parts] == [8, 8, 4]
        same(
            Dataset.from_arrays(X, y),
            sp.vstack([p.X for p in parts]),
            np.concatenate([p.y for p in parts]),
        )
    assert next(read_batches(b"1 1:1\n0 2:1\n", num_features=5)).num_features == 5
    with pytest.raises(ConfigError, match="batch_rows"):
        next(read_batches(X, batch_rows=0))


# -- real data, start-up ---------------------------------------------------------------------------


def test_movielens(shared_data):
    folder = shared_data / "ml-100k"
    columns = ["user", "item", "rating", "time"]
    train = read(folder / "ua.base.gz", header=columns, categorical=["user", "item"])
    assert train.num_rows == 90570 and train.entries_per_row == 2 and train.onehot
    assert train.y.mean() == pytest.approx(3.5238, abs=1e-4)
    test = read(folder / "ua.test.gz", header=columns, target="rating", encoder=train.encoder)
    assert test.num_rows == 9430 and test.num_features == train.num_features
    new = test.X[:, train.encoder.feature_index("item", None)].sum()
    items = [
        [line.split("\t")[1] for line in gzip.open(folder / f"ua.{part}.gz", "rt")]
        for part in ("base", "test")
    ]
    known = set(items[0])
    assert new == sum(item not in known for item in items[1]) > 0
    with pytest.raises(DataError, match="no column is called rating.*columns are 0, 1, 2, 3"):
        read(folder / "ua.base.gz", require_target=True, categorical=[0, 1])


def test_food_world_cup(shared_data):
    folder = shared_data / "open-licence" / "food-world-cup"
    ratings = pd.read_csv(folder / "ratings_tidy.csv.gz")
    users = pd.read_csv(folder / "users_tidy.csv.gz")
    data = read(ratings.merge(users, on="user"))
    assert data.num_rows == 23943 and data.field_names[:2] == ("user", "cuisine")
    direct = read(folder / "ratings_tidy.csv.gz")
    assert np.array_equal(np.sort(direct.y), np.sort(data.y))
    x = data.encoder.encode_rows([{"user": 1, "cuisine": "Argentina", "gender": "Male"}])
    assert [data.feature_name(i) for i in x.indices][:4] == (
        ["user=1", "cuisine=Argentina", "knowledge=<unknown>", "interest=<unknown>"]
    )


def test_frappe_and_svmlight(shared_data):
    data = read(shared_data / "frappe" / "frappe.tsv.gz", target="cnt")
    assert data.num_rows == 96203 and data.entries_per_row == 10
    libfm = read(shared_data / "frappe-nfm" / "frappe.validation.libfm.gz", zero_based=True)
    assert libfm.num_rows == 57722 and set(np.unique(libfm.y)) == {-1, 1}
    ffm = read(shared_data / "criteo-libffm" / "small_train.ffm.gz")
    assert ffm.num_rows == 200 and ffm.field_names[-2:] == ("17", "no field")


def test_reading_needs_no_compiler_and_little_time():
    code = (
        "import sys, fm, fm.reading.read, fm.encoding.encoder; "
        "assert not {'pyarrow', 'pandas', 'numba', 'sklearn'} & set(sys.modules), 'heavy import'; "
        "fm.read(([[1.0]], [1])); assert 'pyarrow' not in sys.modules; "
        "fm.read({'a': [1, 2], 'y': [0, 1]}); assert 'numba' not in sys.modules; "
        "fm.encoding.encoder.Encoder([]).encode_rows([])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_encoder_alone_needs_no_arrow():
    encoder = Encoder.fit(TABLE, ignore="rating")
    code = (
        "import sys, json; from fm.encoding.encoder import Encoder; "
        f"e = Encoder.from_dict(json.loads({str(__import__('json').dumps(encoder.to_dict()))!r})); "
        "X = e.encode_rows([{'user': 'bob', 'film': 9.0}]); assert X.indices.tolist() == [2, 5]; "
        "assert 'pyarrow' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
