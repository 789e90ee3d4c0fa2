"""Text of sparse rows: two parsers against each other and scikit-learn, and hostile files."""

import gzip
import io
import itertools
import time

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fm.errors import ConfigError, DataError, UnsupportedFormatError
from fm.formats import svmlight
from fm.formats.files import read_bytes
from fm.formats.svmlight import read_libffm, read_libsvm, write_libffm, write_libsvm


def by_line(read, *args, **options):
    """Read with the line parser alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svmlight, "parse_block", lambda *_: None)
        return read(*args, **options)


def by_block(read, *args, **options):
    """Read with the block parser alone."""

    def refuse(*_):
        raise AssertionError("the block parser declined")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svmlight._Text, "_parse_lines", refuse)
        return read(*args, **options)


def outcome(call, *args, **options):
    try:
        X, *vectors = call(*args, **options)
    except (DataError, UnsupportedFormatError) as err:
        return str(err)
    assert X.has_canonical_format
    assert X.dtype == np.float32 and X.indices.dtype == np.int32
    arrays = X.indptr, X.indices, X.data, *vectors
    return X.shape, [array.tolist() for array in arrays]


def same(read, *args, **options):
    """Return what both parsers make of a file."""
    result = outcome(read, *args, **options)
    assert result == outcome(by_line, read, *args, **options)
    return result


# libsvm


def test_libsvm_forms():
    text = (
        b"# a comment\n+1 1:0.5  4:-1e1 # another: 7:8\r\n\n-1\t2:1 \n 3.5 qid:7 5:.5 1:2.\n0\n"
        b"1e1 00003:+2"
    )
    X, y = read_libsvm(text)
    expected = [[0.5, 0, 0, -10, 0], [0, 1, 0, 0, 0], [2, 0, 0, 0, 0.5], [0] * 5, [0, 0, 2, 0, 0]]
    assert X.toarray().tolist() == expected
    assert y.tolist() == [1, -1, 3.5, 0, 10]
    same(read_libsvm, text)
    # comments, queries, tabs and blank lines do not cost the speed of the block parser
    assert outcome(by_block, read_libsvm, text.replace(b"00003", b"3")) == outcome(
        read_libsvm, text
    )


def test_zero_based():
    one, zero, empty = b"1 1:1 3:1\n", b"1 0:1 3:1\n", b"1\n2\n"
    assert read_libsvm(one)[0].indices.tolist() == [0, 2]
    assert read_libsvm(zero)[0].indices.tolist() == [0, 3]
    assert read_libsvm(one, zero_based=True)[0].indices.tolist() == [1, 3]
    assert read_libsvm(one, zero_based=False, num_features=3)[0].shape == (1, 3)
    assert read_libsvm(one, num_features=9)[0].shape == (1, 9)
    assert read_libsvm(empty)[0].shape == (2, 0)
    assert read_libsvm(empty, num_features=4)[0].shape == (2, 4)
    with pytest.raises(DataError, match="f line 2: feature index 0, but indices count from 1"):
        read_libsvm(one + zero, zero_based=False, source="f")
    for wrong in ("yes", None, 2):
        with pytest.raises(ConfigError, match="zero_based: expected True, False or 'auto'"):
            read_libsvm(one, zero_based=wrong)


@pytest.mark.parametrize("zero_based", [True, False, "auto"])
@pytest.mark.parametrize("name", ["a9a.gz", "abalone.gz", "rcv1_small.test.gz", "mushrooms.gz"])
def test_libsvm_equals_scikit_learn(shared_data, name, zero_based):
    from sklearn.datasets import load_svmlight_file

    path = shared_data / "svmlight" / name
    X, y = by_block(read_libsvm, path, zero_based=zero_based)
    content = read_bytes(path)
    their_X, their_y = load_svmlight_file(io.BytesIO(content), zero_based=zero_based)
    assert X.shape == their_X.shape
    np.testing.assert_array_equal(X.indptr, their_X.indptr)
    np.testing.assert_array_equal(X.indices, their_X.indices)
    np.testing.assert_array_equal(X.data, their_X.data.astype(np.float32))
    np.testing.assert_array_equal(y, their_y.astype(np.float32))
    some = b"".join(content.splitlines(keepends=True)[:500])
    same(read_libsvm, some, zero_based=zero_based)


GOOD = b"1 1:1\n# comment\n\n"  # two rows are on lines 1 and 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"3:1 4:1", "expected a label at the beginning of the line, found '3:1'"),
        (b"abc 3:1", "expected a number as a label, found 'abc'"),
        (b"1_0 3:1", "expected a number as a label, found '1_0'"),
        (b"0x10 3:1", "expected a number as a label, found '0x10'"),
        (b"nan 3:1", "expected a finite float32 number as a label, found 'nan'"),
        (b"-inf 3:1", "expected a finite float32 number as a label, found '-inf'"),
        (b"1e39 3:1", "expected a finite float32 number as a label, found '1e39'"),
        (b"1,2 3:1", "separated by spaces or tabs, found a comma: '1,2 3:1'"),
        (b"1,3:1,4:1", "found a comma"),
        (b"1 3:1,4:1", "found a comma"),
        (b"1 3:1 4;1", "expected index:value, found '4;1'"),
        (b"1;3:1", "expected a label at the beginning of the line, found '1;3:1'"),
        (b"1 3", "expected index:value, found '3'"),
        (b"1 2:3:1", "expected index:value, found '2:3:1'; is the file in libffm format?"),
        (b"1 3:", "expected a number as a value in '3:', found ''"),
        (b"1 :3", "expected a whole number as index, found '' in ':3'"),
        (b"1 3 :1", "expected index:value, found '3'"),
        (b"1 3: 1", "expected a number as a value in '3:', found ''"),
        (b"1 3::1", "expected index:value, found '3::1'"),
        (b"1 :", "expected a whole number as index"),
        (b"1 -3:1", "expected a whole number as index, found a negative one in '-3:1'"),
        (b"1 1.5:1", "expected a whole number as index, found '1.5' in '1.5:1'"),
        (b"1 1e1:1", "expected a whole number as index, found '1e1'"),
        (b"1 x:1", "expected a whole number as index, found 'x'"),
        (b"1 2147483647:1", "the index in '2147483647:1' is too large"),
        (b"1 9223372036854775808:1", "the index in '9223372036854775808:1' is too large"),
        (b"1 " + b"9" * 5000 + b":1", "is too large"),
        (b"1 3:nan", "expected a finite float32 number as a value in '3:nan', found 'nan'"),
        (b"1 3:Infinity", "expected a finite float32 number"),
        (b"1 3:1e300", "expected a finite float32 number as a value in '3:1e300', found '1e300'"),
        (b"1 3:1.2.3", "expected a number as a value in '3:1.2.3', found '1.2.3'"),
        (b"1 3:--1", "expected a number as a value"),
        (b"1 3:1e", "expected a number as a value"),
        (b"1 3:.", "expected a number as a value"),
        (b"1 3:1\x00", "expected a number as a value"),
        (b"1 3:1 3:2", "feature index 3 occurs twice; merge the two"),
        (b"1 3:1 1:1 3:1", "feature index 3 occurs twice"),
        (b"1 qid:x 3:1", "expected a whole number as index, found 'qid'"),
        (b"1 3:1 qid:3", "expected a whole number as index, found 'qid'"),
        (
            b"1 11:1",
            r"feature index 11 is outside [1, 11); check the file, or give",
        ),
    ],
)
def test_libsvm_errors_name_the_line(line, message):
    for before, after in itertools.product((GOOD, GOOD * 2), (b"", b"\n", b"\n1 2:1\n")):
        text = before + line + after
        result = same(read_libsvm, text, num_features=10, source="train.libsvm")
        number = before.count(b"\n") + 1
        assert isinstance(result, str), result
        assert result.startswith(f"train.libsvm line {number}: ")
        assert message in result
        assert len(result) < 200


@pytest.mark.parametrize("read", [read_libsvm, read_libffm])
def test_not_such_text_at_all(read, tmp_path):
    for empty in (b"", b"\n\n", b"# nothing\n", b"\xef\xbb\xbf"):
        with pytest.raises(DataError, match="expected at least one row, found an empty file"):
            read(empty)
    for head, found in (
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"PK\x03\x04", "a zip archive"),
        (gzip.compress(b"1 2:3"), "gzip-compressed data"),  # in memory: not ours to unpack
        (b"\x0a\x23\xd7\xce\x33\0\0\0", "RecordIO-protobuf"),
    ):
        with pytest.raises(UnsupportedFormatError, match=f"f: expected text, found {found}"):
            read(head, source="f")
    with pytest.raises(DataError, match="line 1: expected a label .* found '{\"inst"):
        read(b'{"instances": []}')
    path = tmp_path / "rows.gz"
    path.write_bytes(gzip.compress(b"1 2:3\n" * 99)[:-9])
    with pytest.raises(DataError, match="rows.gz: .*truncated"):
        read(path)


def test_byte_order_mark():
    assert same(read_libsvm, b"\xef\xbb\xbf1 1:2\n")[1][2] == [2]
    with pytest.raises(DataError, match="line 2: feature index 3 occurs twice"):
        read_libsvm(b"\xef\xbb\xbf# x\n1 3:1 3:1\n")


# libffm


def test_libffm():
    text = b"1 0:0:1 1:300:0.5\n0\t2:0:2 1:5:1 1:5:1 # the pair twice\n"
    X, y, fields = read_libffm(text)
    assert X.shape == (2, 301)
    assert X.toarray()[:, [0, 5, 300]].tolist() == [[1, 0, 0.5], [2, 2, 0]]
    assert y.tolist() == [1, 0]
    assert fields.dtype == np.int32
    assert fields[[0, 5, 300, 7]].tolist() == [0, 1, 1, -1]  # the first field is kept
    same(read_libffm, text)
    assert read_libffm(text, num_features=400)[2].shape == (400,)


def test_libffm_of_criteo(shared_data):
    path = shared_data / "criteo-libffm" / "small_train.ffm.gz"
    X, y, fields = by_block(read_libffm, path)
    lines = read_bytes(path).decode().splitlines()
    assert X.shape[0] == len(lines) == 200
    for i, line in enumerate(lines):
        label, *entries = line.split()
        row = {}
        for entry in entries:
            _, index, value = entry.split(":")
            row[int(index)] = row.get(int(index), 0) + float(value)
        assert y[i] == float(label)
        part = slice(X.indptr[i], X.indptr[i + 1])
        assert X.indices[part].tolist() == sorted(row)
        np.testing.assert_allclose(X.data[part], [row[key] for key in sorted(row)], rtol=1e-6)
    assert fields.max() < 18
    same(read_libffm, path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1 3:1", "expected field:index:value, found '3:1'; is the file in libsvm format?"),
        (b"1 1:3:1:1", "expected field:index:value, found '1:3:1:1'"),
        (b"0:1:1 1:3:1", "expected a label at the beginning"),
        (b"1 -1:3:1", "found a negative one in '-1:3:1'"),
        (b"1 1:-3:1", "found a negative one in '1:-3:1'"),
        (b"1 9223372036854775808:3:1", "is too large"),
        (b"1 1:9223372036854775808:1", "is too large"),
        (b"1 a:3:1", "found 'a' in 'a:3:1'"),
        (b"1 1:3:nan", "expected a finite float32 number as a value in '1:3:nan'"),
        (b"1 1:3:x", "expected a number as a value in '1:3:x'"),
        (b"1 1::1", "found '' in '1::1'"),
        (b"1 1:3:", "found ''"),
        (b"1 1:3:1,", "found a comma"),
        (b"1 1:10:1", "feature index 10 is outside [0, 10)"),
        (b"1 1:3:3e38 2:3:3e38", "the values of feature 3 add up to more than a float32"),
    ],
)
def test_libffm_errors_name_the_line(line, message):
    text = b"1 0:1:1\n\n" + line + b"\n1 0:2:1\n"
    result = same(read_libffm, text, num_features=10, source="train.ffm")
    assert result.startswith("train.ffm line 3: ")
    assert message in result


def test_one_mistyped_index_does_not_allocate_gigabytes():
    text = b"1 0:1:1\n1 0:2000000000:1\n"
    with pytest.raises(DataError, match="line 2: feature index 2000000000 is far beyond"):
        read_libffm(text)
    assert read_libsvm(b"1 2000000000:1", zero_based=True)[0].shape == (1, 2000000001)


# Both parsers, blocks, hostile input

NUMBERS = [
    "0",
    "1",
    "-1",
    "+2",
    "0.5",
    ".5",
    "2.",
    "1e3",
    "1E-3",
    "3.4028235e38",
    "1e-60",
    "0" * 20,
]
NUMBERS += ["123456789012345", "1234567890123456", "9007199254740993", "0.1", "16777217", "-0"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NUMBERS),
            st.lists(
                st.tuples(st.integers(0, 99), st.integers(0, 10**6), st.sampled_from(NUMBERS)),
                max_size=6,
                unique_by=lambda entry: entry[1],
            ),
            st.sampled_from(["\n", "\r\n", " \n", "\n\n", " # x:y, z\n", "\n#\n \t\n"]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([" ", "\t", "  "]),
    st.sampled_from([1, 40, 1 << 20]),
    st.booleans(),
)
@example([("1", [], "\n")], " ", 1, False)
def test_block_parser_equals_line_parser_equals_truth(rows, space, block_bytes, ffm):
    text = "".join(
        label
        + "".join(f"{space}{f}:{j}:{v}" if ffm else f"{space}{j}:{v}" for f, j, v in entries)
        + end
        for label, entries, end in rows
    ).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svmlight, "BLOCK_BYTES", block_bytes)
        read, options = (read_libffm, {}) if ffm else (read_libsvm, {"zero_based": True})
        same(read, text, num_features=10**6 + 1, **options)
        X, y, *_ = read(text, num_features=10**6 + 1, **options)
    assert y.tolist() == [np.float32(label) for label, _, _ in rows]
    for i, (_, entries, _) in enumerate(rows):
        part = slice(X.indptr[i], X.indptr[i + 1])
        found = dict(zip(X.indices[part].tolist(), X.data[part].tolist(), strict=True))
        assert found == {j: np.float32(v) for _, j, v in entries}


def seeds():
    yield read_libsvm, b"1 1:0.5 3:1\n-1 2:1 # no\n0.5 qid:3 1:2 900:1e-2\n\n3\t4:1\t5:1\r\n"
    yield read_libsvm, b"0 0:1 7:1 19:1\n1 1:1 8:1 20:1\n" * 3
    yield read_libffm, b"1 0:1:0.5 1:3:1\n0 0:2:1 1:4:1e1\n1\n0 2:999:1\n"


def test_damaged_files_give_an_error_or_a_valid_result(rng):
    alphabet = b"0123456789:::   \n\n\t\r.,-+eE#qid;x\x00\xff_"
    results = []
    start = time.process_time()
    for read, seed in seeds():
        for _ in range(800):
            bad = bytearray(seed)
            for _ in range(rng.integers(1, 4)):
                at = int(rng.integers(len(bad)))
                what = rng.integers(3)
                if what == 0:
                    bad[at] = alphabet[rng.integers(len(alphabet))]
                elif what == 1:
                    del bad[at : at + int(rng.integers(1, 6))]
                else:
                    bad[at:at] = bytes(rng.choice(list(alphabet), rng.integers(1, 6)).tolist())
                bad = bad or bytearray(b"1")
            results.append(isinstance(same(read, bytes(bad), num_features=1000), str))
    assert time.process_time() - start < 60  # none hangs
    assert 0.2 < np.mean(results) < 0.95  # there are errors, and files that still are valid


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("01:. \n#,-e", max_size=60).map(str.encode)))
def test_any_bytes(content):
    same(read_libsvm, content)
    same(read_libffm, content, num_features=1000)


def test_long_lines_and_many_blocks(monkeypatch):
    monkeypatch.setattr(svmlight, "BLOCK_BYTES", 64)
    long = b"1 " + b" ".join(b"%d:1" % i for i in range(1000))
    text = b"\n".join([b"0 1:1", long, b"0 2:1"] * 5)
    X, y = by_block(read_libsvm, text)
    assert np.diff(X.indptr).tolist() == [1, 1000, 1] * 5
    with pytest.raises(DataError, match="line 16: expected a number"):
        read_libsvm(text + b"\nx")
    with pytest.raises(DataError, match="line 17: feature index 1 occurs twice"):
        read_libsvm(text + b"\n\n1 1:1 1:1")


# Writers


def sample(rng):
    X = sp.random(50, 40, 0.1, "csr", np.float32, random_state=3)
    X.data[:6] = 1, -1, 0.1, 1e30, 1e-30, 16777216
    X.data[6:12] = rng.normal(size=6).astype(np.float32) * np.float32(1e-7)
    return X, rng.normal(size=50).astype(np.float32)


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize("chunk", [7, 1 << 14])
def test_written_libsvm_reads_back(rng, monkeypatch, zero_based, chunk):
    monkeypatch.setattr(svmlight, "CHUNK_ROWS", chunk)
    X, y = sample(rng)
    file = io.BytesIO()
    write_libsvm(file, X, y, zero_based=zero_based)
    options = [{"zero_based": zero_based}, {}] if not zero_based else [{"zero_based": True}]
    for option in options:
        found, labels = read_libsvm(file.getvalue(), num_features=40, **option)
        assert (found != X).nnz == 0
        np.testing.assert_array_equal(labels, y)
    from sklearn.datasets import load_svmlight_file

    theirs, _ = load_svmlight_file(io.BytesIO(file.getvalue()), zero_based=zero_based)
    np.testing.assert_array_equal(theirs.data.astype(np.float32), X.data)


def test_written_libffm_reads_back(rng):
    X, y = sample(rng)
    fields = rng.integers(0, 5, 40)
    file = io.BytesIO()
    write_libffm(file, X, y, fields)
    found, labels, their = read_libffm(file.getvalue(), num_features=40)
    assert (found != X).nnz == 0
    np.testing.assert_array_equal(labels, y)
    occurs = np.unique(X.indices)
    np.testing.assert_array_equal(their[occurs], fields[occurs])


def test_writers_refuse():
    X, y, file = sp.eye(5, 4, dtype=np.float32, format="csr"), np.ones(5), io.BytesIO()
    with pytest.raises(DataError, match="labels: expected one number per row"):
        write_libsvm(file, X, y[:4])
    for bad in (np.nan, 1e300):
        with pytest.raises(DataError, match="labels: row 2 is not finite"):
            write_libsvm(file, X, [0, bad, 0, 0, 0])
    with pytest.raises(DataError, match="not a finite"):
        write_libsvm(file, [[np.inf]], [1])
    with pytest.raises(DataError, match=r"fields: expected one number per row, shape \(4,\)"):
        write_libffm(file, X, y, [1])
    with pytest.raises(DataError, match="fields: feature 3 occurs but has no field"):
        write_libffm(file, X, y, [0, 0, 0, -1])
    assert file.getvalue() == b""
    write_libsvm(file, np.zeros((2, 3)), [1, 2])
    assert file.getvalue() == b"1\n2\n"
