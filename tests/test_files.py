"""Bytes of files: gzip, its limits, and what is said about files that cannot be used."""

import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fm.errors import DataError, UnsupportedFormatError
from fm.formats import files
from fm.formats.files import Growing, content_of, gunzip, looks_like, ragged, read_bytes
from fm.formats.storage import read_metadata, write_tensors


def test_read_bytes_plain_and_gzip_whatever_the_name(tmp_path):
    path = tmp_path / "rows.txt"
    for content in (b"", b"\x1f", b"1 3:1\n" * 1000):
        path.write_bytes(content)
        assert read_bytes(path) == read_bytes(str(path)) == content
        path.write_bytes(gzip.compress(content))
        assert read_bytes(path) == content
    path.write_bytes(gzip.compress(b"one ") + gzip.compress(b"two") + bytes(5))
    assert read_bytes(path) == b"one two"


def test_truncated_and_damaged_gzip_name_the_file(tmp_path, rng):
    path = tmp_path / "rows.gz"
    whole = gzip.compress(rng.bytes(5000))
    for size in (3, 9, 10, 50, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"rows.gz: .*truncated"):
            read_bytes(path)
    for _ in range(300):
        bad = bytearray(whole)
        bad[rng.integers(10, len(bad))] ^= 1 << rng.integers(8)
        with pytest.raises(DataError, match=r"rows.gz: the gzip data"):
            gunzip(bytes(bad), source="rows.gz")
    with pytest.raises(DataError, match="damaged"):
        gunzip(whole + b"more")
    assert isinstance(gunzip(whole), bytes)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(files, "FREE_EXPANSION", 1 << 20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(4 << 20)))
    with pytest.raises(DataError, match=r"bomb.gz: expected at most 1048576 bytes .*gunzip"):
        read_bytes(path)
    assert len(read_bytes(path, max_bytes=4 << 20)) == 4 << 20  # who gives a limit is obeyed
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    assert len(read_bytes(path)) == 1 << 20
    sound = rng.integers(0, 2, 3 << 20, np.uint8).tobytes()  # large, but not suspicious
    assert gunzip(gzip.compress(sound, 1)) == sound


def test_max_bytes(tmp_path):
    path = tmp_path / "rows"
    for content in (bytes(100), gzip.compress(bytes(100))):
        path.write_bytes(content)
        assert read_bytes(path, max_bytes=100) == bytes(100)
    for content in (bytes(101), gzip.compress(bytes(101))):
        path.write_bytes(content)
        with pytest.raises(DataError, match="rows: expected at most 100 bytes"):
            read_bytes(path, max_bytes=100)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent", tmp_path, str(tmp_path / "a\0b")):
        with pytest.raises(DataError, match="cannot be read .*check the path"):
            read_bytes(path)


def test_content_of(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        assert content_of(file, None, "data") == (b"abc", str(path))
    assert content_of(path, None, "data") == (b"abc", str(path))
    assert content_of(path, "mine", "data")[1] == "mine"
    for data in (b"abc", bytearray(b"abc"), np.frombuffer(b"abc", np.uint8), io.BytesIO(b"abc")):
        assert content_of(data, None, "data") == (b"abc", "data")
    for data in (7, None, np.ones(2), np.zeros((2, 2), np.uint8), io.StringIO("abc"), ["abc"]):
        with pytest.raises(UnsupportedFormatError, match="data: expected a path, bytes"):
            content_of(data, None, "data")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\x1f\x8b\x08", "gzip-compressed data"),
        (b"PAR1\x15", "a Parquet file"),
        (b"ARROW1\0\0", "an Arrow file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x0a\x23\xd7\xce", "RecordIO-protobuf"),
        (b'{"a": 1}', "JSON text"),
        (b"user,item\r\n1,2", "text: 'user,item'"),
        (b"x" * 100, "text: '" + "x" * 40 + "'"),
        (b"\x00\x01\x02", "the bytes 00 01 02"),
        (b"\n", "text: ''"),
        (b"", "nothing"),
    ],
)
def test_looks_like(head, words):
    assert looks_like(head) == words


@given(st.lists(st.tuples(st.integers(-9, 99), st.integers(0, 5))), st.integers(1, 8))
def test_ragged(pairs, step):
    plain = [start + step * i for start, count in pairs for i in range(count)]
    start, count = np.array(pairs, np.int64).reshape(-1, 2).T
    assert ragged(start, count, step).tolist() == plain


@given(st.lists(st.lists(st.integers(-9, 9), max_size=9), max_size=20))
def test_growing(parts):
    column = Growing(np.int32)
    for i, part in enumerate(parts, 1):
        column.append(np.array(part, np.int64), i / len(parts))
    whole = column.array()
    assert whole.dtype == np.int32
    assert whole.tolist() == [number for part in parts for number in part]


def test_metadata_are_read_from_the_header_alone(tmp_path):
    path = tmp_path / "state"
    write_tensors(path, {"x": np.zeros(3)}, {"format": "example", "state": '{"epoch": 7}'})
    whole = path.read_bytes()
    found = read_metadata(path)
    assert found["format"] == "example" and found["state"] == '{"epoch": 7}'
    path.write_bytes(whole[:-20])
    assert read_metadata(path) == found
    for other in (b"", b"half", whole[:40], b"\2" + bytes(7) + b"[]", b"\xff" * 100):
        path.write_bytes(other)
        assert read_metadata(path) == {}
