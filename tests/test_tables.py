"""fm.formats.tables and below: what is read, how it is found out, and what is refused."""

import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm.errors import ConfigError, DataError, UnsupportedFormatError
from fm.formats.files import data_files, head_of
from fm.formats.frames import column_name, place, source_of
from fm.formats.tables import iter_batches, read_table, write_table


def columns(source, **options):
    return read_table(source, **options).to_pydict()


# -- delimiter and header --------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " ", "::"])
@pytest.mark.parametrize("header", [True, False])
def test_delimiter_and_header_are_found(delimiter, header):
    rows = [["user", "title", "rating"], ["u1", "Alien", "4.5"], ["u2", "", "3"], ["u3", "Up", "1"]]
    lines = rows if header else rows[1:]
    text = "".join(delimiter.join(row) + "\n" for row in lines).encode()
    names = rows[0] if header else ["0", "1", "2"]
    cells = np.array(rows[1:]).T.tolist()
    expected = {name: [c or None for c in cells[i]] for i, name in enumerate(names)}
    assert columns(text) == expected
    assert columns(text.replace(b"\n", b"\r\n")) == expected
    assert columns(gzip.compress(text)) == expected
    assert columns(text.rstrip(b"\n")) == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,x\n2,y\n", ["a", "b"]),  # numbers below a
        ("userID;kind\nU1;thai\nU2;thai\n", ["userID", "kind"]),  # a digit in all below
        ("1,x\n2,y\n", ["0", "1"]),
        ("1,x\n", ["0", "1"]),
        ("0.5\n1e3\n", ["0"]),
        (",timestamp\n0,2020-01-01\n1,2020-01-02\n", ["0", "timestamp"]),  # pandas' index
        ("\n\na,b\n1,2\n", ["a", "b"]),  # blank lines before the header
    ],
)
def test_header_rule(text, names):
    assert read_table(text.encode()).column_names == names


def test_header_by_expected_names_and_by_order():
    text = b"user,film\nann,alien\nbob,up\n"
    with pytest.raises(
        DataError, match="cannot tell .* .user, film. .* say with header=... whether"
    ):
        read_table(text)
    assert columns(text, expect=["film"]) == {"user": ["ann", "bob"], "film": ["alien", "up"]}
    assert columns(text, header=False)["0"] == ["user", "ann", "bob"]
    assert columns(text, header=["a", "b"])["a"] == ["user", "ann", "bob"]
    assert columns(text, header=["user", "film"])["user"] == ["ann", "bob"]
    assert columns(text, columns=["film"]) == {"film": ["alien", "up"]}
    # digits are no evidence: column "0" of a file without header looks like data
    assert read_table(b"0,1\n0,5\n", expect=["0", "1"]).num_rows == 2


def test_more_columns_than_the_default_needs_no_luck():
    # commas and blanks occur in cells; only ";" cuts all rows alike
    text = "name;address;x\n" + "".join(f"n{i};Street {i}, City, ST;{i}\n" for i in range(20))
    assert read_table(text.encode()).column_names == ["name", "address", "x"]
    # one bad row does not change the delimiter, so the row can be named
    with pytest.raises(
        DataError, match=r"data line 12: expected 3 cells separated by ';', found 4"
    ):
        read_table(text.replace("n10;", "n10;;").encode())


def test_lines_end_at_newlines_only():
    text = "id,text\n" + "".join(f"{i},a\x85b\u2028c\x0bd\x1ce\n" for i in range(3))
    assert columns(text.encode())["text"] == ["a\x85b\u2028c\x0bd\x1ce"] * 3
    assert columns(b"id,text\r1,x\r2,y\r") == {"id": ["1", "2"], "text": ["x", "y"]}


def test_quotes():
    text = b'a,b\n1,"x, ""y""\nz"\n2,\n3,""\n4,5" disk\n'
    assert columns(text)["b"] == ['x, "y"\nz', None, None, '5" disk']
    # no quoting between "::"
    assert columns(b'1::"Up"::2\n2::"x::3\n')["1"] == ['"Up"', '"x']


@pytest.mark.parametrize(
    "text", [b'a,b\n1,"x\n2,y\n3,z\n', b'a,b\n1,"x\n2,"y\n3,z\n', b'a,b\n1,2\n3,"x"y\n\n4,5\n']
)
def test_a_quote_that_is_not_closed_swallows_no_rows(text):
    with pytest.raises(DataError, match=r"data line \d: a quoted cell"):
        read_table(text)
    with pytest.raises(DataError, match=r"data line \d: a quoted cell"):
        list(iter_batches(text))


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\x1f"), max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cell, cell, st.integers(0, 9)), min_size=1, max_size=8))
def test_any_text_survives_a_file(tmp_path_factory, rows):
    table = pa.table(
        {
            "a": [r[0] or None for r in rows],
            "b": [r[1] or None for r in rows],
            "n": [str(r[2]) for r in rows],
        },
        schema=pa.schema(dict.fromkeys("abn", pa.string())),
    )
    for name in ("x.csv", "x.tsv.gz", "x.parquet"):
        path = tmp_path_factory.getbasetemp() / name
        write_table(table, path)
        assert read_table(path, header=None if "parq" in name else True).equals(table), name
        batches = list(iter_batches(path, batch_rows=3, header=None if "parq" in name else True))
        assert pa.concat_tables(b.replace_schema_metadata() for b in batches).equals(table)


# -- encodings -------------------------------------------------------------------------------------


def test_encodings():
    text = "id,título\n1,Amélie\n2,Ω\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert columns(text.encode(encoding)) == {"id": ["1", "2"], "título": ["Amélie", "Ω"]}
    latin = text.replace("Ω", "ñ").encode("latin-1")
    with pytest.warns(UserWarning, match="data: not valid UTF-8, read as latin-1"):
        assert columns(latin)["título"] == ["Amélie", "ñ"]
    assert columns(latin, encoding="iso-8859-1")["título"] == ["Amélie", "ñ"]
    assert columns(b"1::\xe9::x\n2::::y\n", encoding="latin-1")["1"] == ["é", None]
    with pytest.raises(ConfigError, match="encoding: 'klingon' is not known"):
        read_table(latin, encoding="klingon")
    for encoding in ("base64", 5):
        with pytest.raises(ConfigError, match=f"encoding: {encoding!r} is not known"):
            read_table(latin, encoding=encoding)
    for encoding in ("utf-8", "ascii", "utf-16", "punycode"):
        for read in (read_table, lambda *a, **k: list(iter_batches(*a, **k))):
            message = f"expected text in {encoding}, found bytes .* encoding='latin-1'"
            with pytest.raises(DataError, match=message):
                read(latin, encoding=encoding)


def test_a_late_byte_that_is_not_utf8(monkeypatch):
    monkeypatch.setattr("fm.formats.delimited.SAMPLE_BYTES", 64)
    text = b"id,t\n" + b"1,abc\n" * 50 + b"2,\xe9\n"
    with pytest.warns(UserWarning, match="read as latin-1"):
        assert columns(text)["t"][-1] == "é"
    with pytest.raises(DataError, match="pass the right encoding="):  # rows are out already
        list(iter_batches(text))
    assert list(iter_batches(text, encoding="latin-1"))[0]["t"][-1].as_py() == "é"


def test_double_colons_across_blocks(monkeypatch):
    text = "".join(f"{i}::t:{i}::{i % 5}\n" for i in range(4000)).encode()
    monkeypatch.setattr("fm.formats.delimited.BLOCK_BYTES", 997)  # cuts "::" in all ways
    table = pa.concat_tables(iter_batches(text, batch_rows=100))
    assert table["1"].to_pylist() == [f"t:{i}" for i in range(4000)]
    with pytest.raises(DataError, match="data: the text holds the control character 0x1f"):
        read_table(b"1::a\x1fb::2\n")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "data: the file is empty"),
        (b"\n\n", "data: the file has only blank lines"),
        (b"user,item\n", "data: the file has no rows below the header; .* header=False"),
        (b"a,b,c\n1,2,3\n4,5\n", "data line 3: expected 3 cells separated by ',', found 2"),
        (b"a,b\n1,2\n\n3,4,5\n", "data line 4: expected 2 cells separated by ',', found 3"),
        (b"a,b\n1,2\n3;4\n", r"line 3: .* found 1, and 2 separated by ';' \(mixed delimiters\?\)"),
        (b'a,b\n1,"x\ny"\n3\n', "data line 4: expected 2 cells"),
        (b"a,a\n1,2\n", "data: the column name 'a' occurs twice"),
        (b"a,1\n1,2\n", None),
        (b"PK\x03\x04\0\0", "expected delimited text, found a zip archive"),
        (b"PAR1 but no more", "data: not a Parquet file that can be read"),
        (b"\x1f\x8b\x08\0broken", "gzip data"),
    ],
)
def test_refused(text, message):
    if message is None:
        assert read_table(text).num_rows == 2
        return
    for read in (read_table, lambda source: list(iter_batches(source))):
        with pytest.raises((DataError, UnsupportedFormatError), match=message):
            read(text)


def test_truncated_gzip_and_bomb(tmp_path, monkeypatch):
    whole = gzip.compress("".join(f"{i},{i * 7919 % 1009}\n" for i in range(9999)).encode())
    path = tmp_path / "x.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x.csv.gz: the gzip data end too early"):
        read_table(path)
    with pytest.raises(DataError, match=r"x.csv.gz: the gzip data are damaged or truncated"):
        list(iter_batches(path))
    monkeypatch.setattr("fm.formats.files.FREE_EXPANSION", 1 << 20)
    path.write_bytes(gzip.compress(b"1,2\n" * (1 << 21)))
    with pytest.raises(DataError, match="after decompression, found more"):
        read_table(path)


def test_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="delimiter: expected one ASCII character or '::'"):
        read_table(b"1,2\n", delimiter="ab")
    with pytest.raises(ConfigError, match="format: expected csv, tsv or parquet"):
        read_table(b"1,2\n", format="xls")
    with pytest.raises(ConfigError, match="header: expected true, false or names, found 'user'"):
        read_table(b"1,2\n", header="user")
    with pytest.raises(DataError, match="header names 1 columns, but the first row has 2 cells"):
        read_table(b"1,2\n", header=["user"])
    with pytest.raises(ConfigError, match="batch_rows"):
        next(iter_batches(b"1,2\n", batch_rows=0))
    with pytest.raises(DataError, match="no such file or directory"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UnsupportedFormatError, match="found int"):
        read_table(7)


def test_a_missing_column_lists_the_others():
    message = r"data: there is no column 'usr'; the columns are user, item; did you mean 'user'\?"
    for read in (read_table, lambda s, columns: list(iter_batches(s, columns=columns))):
        with pytest.raises(DataError, match=message):
            read(b"user,item\n1,2\n", columns=["usr"])
    with pytest.raises(DataError, match="if the first row is a header, pass header=True"):
        read_table(b"1,2\n3,4\n", columns=["user"])
    with pytest.raises(DataError, match="columns: there is no column 'x'"):
        read_table({"a": [1]}, columns=["x"])


# -- directories and batches -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub" / "_temporary").mkdir(parents=True)
    (tmp_path / "b.csv").write_text("item,user\n1,2\n3,4\n")
    (tmp_path / "a.csv").write_text("user,item\n5,6\n")
    (tmp_path / "sub" / "c.csv.gz").write_bytes(gzip.compress(b"user,item\n7,8\n"))
    for hidden in ("_SUCCESS", ".a.csv.crc", "empty.csv", "sub/_temporary/x.csv"):
        (tmp_path / hidden).write_text("" if "empty" in hidden else "x,y,z")
    return tmp_path


def test_directory(folder):
    assert [f.name for f in data_files(folder)] == ["a.csv", "b.csv", "c.csv.gz"]
    table = read_table(folder)
    assert table.to_pydict() == {"user": list("5247"), "item": list("6138")}
    assert [place(table, i).removeprefix(f"{folder}/") for i in range(4)] == [
        "a.csv row 1",
        "b.csv row 1",
        "b.csv row 2",
        "sub/c.csv.gz row 1",
    ]
    batches = list(iter_batches(folder, batch_rows=1, columns=["user"]))
    assert [b["user"].to_pylist() for b in batches] == [["5"], ["2"], ["4"], ["7"]]
    assert place(batches[2], 0) == f"{folder}/b.csv row 2"
    assert head_of(folder) == (f"{folder}/a.csv", b"user,item\n5,6\n")


def test_directory_must_agree(folder):
    (folder / "z.csv").write_text("user,film\n1,2\n")
    message = r"z.csv: expected the columns of the first file, user, item, found user, film"
    for read in (read_table, lambda source: list(iter_batches(source))):
        with pytest.raises(DataError, match=message):
            read(folder)
    (folder / "z.csv").write_text("user,item\n1,2,3\n")
    with pytest.raises(DataError, match=r"z.csv line 2: expected 2 cells"):
        read_table(folder)
    for file in data_files(folder):
        file.unlink()
    with pytest.raises(DataError, match="found none that is not empty or hidden"):
        read_table(folder)


def test_directory_of_parquet(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"b": ["z"], "a": [2.5]}), tmp_path / "1.parquet")
    assert columns(tmp_path) == {"a": [1.0, 2.0, 2.5], "b": ["x", "y", "z"]}
    assert [b.num_rows for b in iter_batches(tmp_path, batch_rows=2)] == [2, 1]
    pq.write_table(pa.table({"a": [[1]], "b": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(DataError, match="the files differ in their types"):
        read_table(tmp_path)
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "3.parquet")
    with pytest.raises(DataError, match="3.parquet: the file has no rows"):
        read_table(tmp_path / "3.parquet")


def test_batches_of_a_large_text(monkeypatch):
    monkeypatch.setattr("fm.formats.delimited.BLOCK_BYTES", 1000)
    text = "i,v\n" + "".join(f"{i},{i * i}\n" for i in range(1000))
    batches = list(iter_batches(text.encode(), batch_rows=150))
    assert [b.num_rows for b in batches] == [150] * 6 + [100]
    assert pa.concat_tables(batches)["i"].to_pylist() == [str(i) for i in range(1000)]
    assert place(batches[3], 2) == "data row 453"
    with pytest.raises(DataError, match="line 902: expected 2 cells"):
        list(iter_batches(text.replace("\n900,", "\n900;").encode()))


# -- frames ----------------------------------------------------------------------------------------


def frames():
    data = {"n": [1.5, 2.0], "s": ["x", "y"], "l": [["p"], ["q", "r"]]}
    yield data
    yield pa.table(data)
    yield pa.table(data).to_batches()[0]
    yield pd.DataFrame(data, index=[5, 6])
    yield pl.DataFrame(data)


@pytest.mark.parametrize("frame", list(frames()), ids=lambda f: type(f).__name__)
def test_frames(frame):
    table = read_table(frame)
    assert table.to_pydict() == {"n": [1.5, 2.0], "s": ["x", "y"], "l": [["p"], ["q", "r"]]}
    assert read_table(table) is table
    assert read_table(frame, columns=["s"]).column_names == ["s"]
    assert place(table, 1).endswith(" row 2")
    assert source_of(table) == place(table, 0).removesuffix(" row 1")


def test_frames_of_unusual_columns():
    frame = pd.DataFrame({"a": ["x", 1, None], 7: pd.Categorical(["u", None, "u"])})
    assert columns(frame) == {"a": ["x", "1", None], "7": ["u", None, "u"]}
    categories = pl.DataFrame({"c": pl.Series(["u", "v"], dtype=pl.Categorical)})
    assert columns(categories) == {"c": ["u", "v"]}
    assert columns({"h": np.array([1, 2], np.float16)}) == {"h": [1.0, 2.0]}
    assert columns({"c": pa.chunked_array([["x"], ["y"]])}) == {"c": ["x", "y"]}

    class Old:
        """A frame that knows only the dataframe interchange protocol."""

        def __dataframe__(self, **options):
            return pa.table({"c": ["u", "u"]}).__dataframe__(**options)

    assert columns(Old()) == {"c": ["u", "u"]}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"a": [1], "b": [1, 2]}, "expected the same number of values in each, found a: 1, b: 2"),
        ({"a": 5}, "column 'a': expected a list or an array of one dimension, found 5"),
        ({"a": np.array(5)}, "column 'a': expected a list or an array of one dimension, found arr"),
        ({"a": pd.DataFrame({"b": [1]})}, "column 'a': expected a list or an array of one dimens"),
        ({"a": [1, "x", {"b": 2}]}, "row 3, column 'a': expected a value or a list of values, fou"),
        ({"a": [1, b"\xff"]}, r"row 2, column 'a': expected text in UTF-8, found b'\\xff'"),
        ({"a": [[1], "x"]}, "column 'a': expected either lists or single values, found both"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "the column name 'a' occurs twice"),
    ],
)
def test_frames_refused(frame, message):
    with pytest.raises(DataError, match=message):
        read_table(frame)


def test_column_by_name_or_position():
    table = read_table({"b": [1], "0": [2], "a": [3]})
    assert [column_name(table, ref) for ref in ("a", 0, 1, 2, -1)] == ["a", "0", "0", "a", "a"]
    with pytest.raises(DataError, match="there is no column '3'"):
        column_name(table, 3)


# -- writing ---------------------------------------------------------------------------------------


def test_write(tmp_path):
    table = pa.table({"n": [1, None], "l": [["a", "b"], []], "d": ["x", "y"]})
    table = table.set_column(2, "d", table["d"].dictionary_encode())
    write_table(table, tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_text() == '"n"\t"l"\t"d"\n1\t"a|b"\t"x"\n\t""\t"y"\n'
    write_table(table, tmp_path / "t.csv.gz", delimiter=";")
    assert gzip.open(tmp_path / "t.csv.gz").readline() == b'"n";"l";"d"\n'
    with pytest.raises(DataError, match="cannot be written"):
        write_table(table, tmp_path / "none" / "t.csv")


# -- real files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shape", "names"),
    [
        ("ml-100k/u.data.gz", (100000, 4), "0 1"),
        ("ml-100k/u.user", (943, 5), "0 1"),
        ("ml-1m/users.dat.gz", (6040, 5), "0 1"),
        ("open-licence/movietweetings-10K/movies.dat.gz", (3096, 3), "0 1"),
        ("open-licence/food-world-cup/ratings_tidy.csv.gz", (23943, 3), "user cuisine"),
        ("open-licence/uci-restaurant-consumer/geoplaces.csv.gz", (130, 21), "placeID latitude"),
        ("open-licence/uci-restaurant-consumer/usercuisine.csv.gz", (330, 2), "userID Rcuisine"),
        ("tabular/adult.csv.gz", (48842, 15), "age workclass"),
        ("criteo-8k/train.tsv.gz", (7200, 40), "0 1"),
        ("frappe/frappe.tsv.gz", (96203, 11), "user item"),
        ("open-bandit-10k/bts_men_men.csv.gz", (10000, None), "0 timestamp"),
    ],
)
def test_real_files(shared_data, path, shape, names):
    table = read_table(shared_data / path)
    assert table.num_rows == shape[0]
    assert shape[1] in (None, table.num_columns)
    assert table.column_names[:2] == names.split()


def test_real_files_in_latin1(shared_data):
    with pytest.warns(UserWarning, match="u.item.gz: not valid UTF-8, read as latin-1"):
        table = read_table(shared_data / "ml-100k" / "u.item.gz")
    assert table.shape == (1682, 24) and table["3"].null_count == 1682
    movies = read_table(shared_data / "ml-1m" / "movies.dat.gz", encoding="latin-1")
    assert movies.shape == (3883, 3)
    assert "Misérables, Les (1995)" in movies["1"].to_pylist()


def test_open_files_are_closed(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    batches = iter_batches(tmp_path / "x.csv")
    next(batches)
    batches.close()  # a file left open would be a ResourceWarning, and warnings are errors
