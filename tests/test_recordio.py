"""RecordIO-protobuf: golden bytes, every rule of the reader, and its two ways against each other.

The twin are the functions `varint` to `row`: they build messages field by field, as the
specification says and in any layout that protobuf allows, so that what the readers must find is
known without them.
"""

import io
import re
import struct
import time
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fm.errors import DataError, FMError, UnsupportedFormatError
from fm.formats import recordio
from fm.formats.files import read_bytes
from fm.formats.recordio import (
    read_csr,
    write_numpy_to_dense_tensor,
    write_predictions,
    write_spmatrix_to_sparse_tensor,
)

MAGIC = bytes.fromhex("0a23d7ce")

# What the SDK (2.257.7) writes for a 3 x 5 matrix with (0,1)=1, (0,3)=2.5, (1,0)=1; labels 1, 0, 1.
GOLDEN = [
    "0a23d7ce330000000a1d0a0676616c756573121312110a080000803f00002040120201031a0105"
    "12120a0676616c756573120812060a040000803f00",
    "0a23d7ce2e0000000a180a0676616c756573120e120c0a040000803f1201001a0105"
    "12120a0676616c756573120812060a04000000000000",
    "0a23d7ce250000000a0f0a0676616c756573120512031a0105"
    "12120a0676616c756573120812060a040000803f000000",
]
GOLDEN_DENSE = (
    "0a23d7ce380000000a220a0676616c756573121812160a14000000000000803f000000000000204000000000"
    "12120a0676616c756573120812060a040000803f"
)
GOLDEN_BYTES = bytes.fromhex("".join(GOLDEN))


def golden_matrix():
    X = np.zeros((3, 5), np.float32)
    X[0, 1], X[0, 3], X[1, 0] = 1, 2.5, 1
    return X, np.array([1, 0, 1], np.float32)


# The twin


def varint(number, length=0):
    """Encode a number, with leading zeros up to a length (which protobuf allows)."""
    number &= 2**64 - 1
    out = bytearray()
    while number >= 0x80 or len(out) + 1 < length:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def field(number, content, wire=2):
    tag = varint(number << 3 | wire)
    return tag + varint(len(content)) + content if wire == 2 else tag + content


KINDS = {"float32": (2, "<f", 5), "float64": (3, "<d", 1), "int32": (7, None, 0)}


def scalars(kind, values):
    _, code, wire = KINDS[kind]
    return [varint(int(v)) if code is None else struct.pack(code, v) for v in values], wire


def repeated(number, items, wire, how="packed"):
    if not items:
        return b""
    if how == "packed":
        return field(number, b"".join(items))
    if how == "pieces":
        middle = (len(items) + 1) // 2
        return repeated(number, items[:middle], wire) + repeated(number, items[middle:], wire)
    return b"".join(field(number, item, wire) for item in items)  # unpacked


def tensor(values, keys=None, shape=None, kind="float32", how="packed", order=(1, 2, 3)):
    items, wire = scalars(kind, values)
    parts = {
        1: repeated(1, items, wire, how),
        2: repeated(2, [varint(key) for key in keys or []], 0, how),
        3: repeated(3, [varint(size) for size in shape or []], 0, how),
    }
    return field(KINDS[kind][0], b"".join(parts[number] for number in order))


def entry(number, value, key=b"values", swap=False):
    parts = [field(1, key), field(2, value)]
    return field(number, b"".join(parts[::-1] if swap else parts))


def frame(payload, flag=0):
    header = MAGIC + struct.pack("<I", flag << 29 | len(payload))
    return header + payload + bytes(-len(payload) % 4)


def row(values, keys=None, label=None, **how):
    payload = entry(1, tensor(values, keys, **how))
    return frame(payload + (b"" if label is None else entry(2, tensor([label]))))


UNKNOWN = field(12, b"new") + field(13, varint(7), 0) + field(14, bytes(8), 1)
UNKNOWN += field(15, bytes(4), 5) + field(16, b"", 3) + field(1, varint(3), 0) + field(16, b"", 4)


def plain(*args, **options):
    """Read with the plain parser alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordio, "decode_canonical", lambda *_: None)
        return read_csr(*args, **options)


def outcome(read, *args, **options):
    try:
        X, y = read(*args, **options)
    except (DataError, UnsupportedFormatError) as err:
        return str(err)
    assert X.has_canonical_format
    assert X.dtype == np.float32
    return (
        X.shape,
        X.indptr.tolist(),
        X.indices.tolist(),
        X.data.tobytes(),
        y is None or y.tobytes(),
    )


def check(content, rows, labels, num_features, **options):
    """Both ways of reading give these rows (dicts)."""
    for read in (read_csr, plain):
        X, y = read(content, num_features=num_features, **options)
        expected = np.zeros((len(rows), num_features), np.float32)
        for i, entries in enumerate(rows):
            for key, value in entries:
                expected[i, key] += np.float32(value)
        np.testing.assert_array_equal(X.toarray(), expected)
        if any(label is None for label in labels):
            assert y is None
        else:
            np.testing.assert_array_equal(y, np.float32(labels))
    assert outcome(read_csr, content, **options) == outcome(plain, content, **options)


# Golden bytes


def test_writers_give_the_bytes_of_the_sdk():
    X, y = golden_matrix()
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, sp.lil_matrix(X), y)
    assert file.getvalue().hex() == "".join(GOLDEN)
    file = io.BytesIO()
    write_numpy_to_dense_tensor(file, X[:1], y[:1])
    assert file.getvalue().hex() == GOLDEN_DENSE
    file = io.BytesIO()
    write_numpy_to_dense_tensor(file, X[:1].astype(np.float64), np.array([1]))
    features = tensor(X[0].tolist(), kind="float64")
    twin = frame(entry(1, features) + entry(2, tensor([1], kind="int32")))
    assert file.getvalue() == twin
    assert file.getvalue().rstrip(b"\0").hex().endswith("3a030a0101")


def test_read_csr_of_the_golden_bytes():
    expected, labels = golden_matrix()
    for read in (read_csr, plain):
        X, y = read(GOLDEN_BYTES)
        np.testing.assert_array_equal(X.toarray(), expected)
        assert X.dtype == np.float32 and X.indices.dtype == np.int32
        np.testing.assert_array_equal(y, labels)
    X, y = read_csr(bytes.fromhex(GOLDEN_DENSE))
    np.testing.assert_array_equal(X.toarray(), expected[:1])
    assert X.nnz == 2  # zeros of dense records are not stored


def test_the_test_channel_of_a_real_run(shared_data):
    path = shared_data / "sagemaker-builtin-fm" / "u1.test.protobuf.gz"
    content = read_bytes(path)
    X, y = read_csr(path, num_features=2625, require_label=True)
    assert X.shape == (20000, 2625) and X.nnz == 40000
    ratings = np.loadtxt(io.BytesIO(read_bytes(shared_data / "ml-100k" / "u1.test.gz")))
    np.testing.assert_array_equal(y, ratings[:, 2])
    keys = np.column_stack([ratings[:, 0] - 1, 943 + ratings[:, 1] - 1])
    np.testing.assert_array_equal(X.indices.reshape(-1, 2), keys)
    assert outcome(read_csr, content) == outcome(plain, content)
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, X, y)
    assert file.getvalue() == content


# Rules of the reader, by their number in the contract


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label_kind", KINDS)
def test_1_3_dense_sparse_and_every_type(kind, label_kind):
    label = entry(2, tensor([-4], kind=label_kind))
    sparse = entry(1, tensor([5, -6, 700], [3, 0, 300], [400], kind=kind))
    dense = entry(1, tensor([0, -8, 90], kind=kind))
    empty = entry(1, tensor([], [], [400], kind=kind))
    nothing = entry(1, tensor([], kind=kind))
    rows = [[(3, 5), (0, -6), (300, 700)], [(1, -8), (2, 90)], [], []]
    payloads = [sparse, dense, empty, nothing]
    check(b"".join(frame(p + label) for p in payloads), rows, [-4] * 4, 400)
    for payload, expected in zip(payloads, rows, strict=True):
        check(frame(payload + label) * 3, [expected] * 3, [-4] * 3, 400)


def test_1_width_without_feature_dim():
    assert read_csr(row([1], [7]))[0].shape == (1, 8)
    assert read_csr(row([1], [7], shape=[9]))[0].shape == (1, 9)
    assert read_csr(row([1, 0, 0]))[0].shape == (1, 3)
    assert read_csr(row([], shape=[6]) + row([1], [7]))[0].shape == (2, 8)
    assert read_csr(row([1], [7], shape=[3, 4]))[0].shape == (1, 12)
    assert read_csr(row([1], [7], shape=[2**40]), num_features=9)[0].shape == (1, 9)


@pytest.mark.parametrize("how", ["packed", "pieces", "unpacked"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_2_packed_unpacked_and_in_pieces(how, kind, order):
    features = entry(1, tensor([1, 2, -3], [4, 0, 300], [400], kind, how, order))
    content = frame(features + entry(2, tensor([1], kind=kind, how=how)))
    check(content * 2, [[(4, 1), (0, 2), (300, -3)]] * 2, [1, 1], 400)


def test_2_unknown_fields_map_order_and_the_last_key():
    good, other = tensor([1, 2], [3, 4]), tensor([9], [0])
    label = entry(2, tensor([5]))
    inside = field(2, UNKNOWN + good[2:]) + UNKNOWN
    for payload in (
        UNKNOWN + entry(1, good) + label,
        entry(1, good) + UNKNOWN + label + UNKNOWN,
        label + entry(1, good),
        entry(1, other) + entry(1, good) + label,
        entry(1, good) + entry(1, other, b"more") + label,
        entry(1, good, swap=True) + label,
        entry(1, inside) + label,
        entry(1, other + tensor([8.0], kind="float64") + good) + label,
        entry(1, tensor([1], [3]) + tensor([2], [4])) + label,  # the same member: merged
        entry(2, tensor([7])) + entry(1, good) + label + entry(2, tensor([6]), b"score"),
        field(3, b"uid") + entry(1, good) + label + field(4, b"m") + field(5, b"c"),
    ):
        check(frame(payload), [[(3, 1), (4, 2)]], [5], 9)


def test_2_numbers_longer_than_necessary():
    keys = field(2, varint(3, 10) + varint(200, 4))
    body = field(1, struct.pack("<2f", 1, 2)) + keys
    value = b"\x12" + varint(len(body), 5) + body
    check(frame(entry(1, value)), [[(3, 1), (200, 2)]], [None], 201)


def test_4_missing_and_several_labels():
    content = row([1], [2], label=3) + row([1], [2])
    check(content, [[(2, 1)]] * 2, [3, None], 5)
    for read in (read_csr, plain):
        with pytest.raises(DataError, match=r"f record 2 \(byte \d+\): expected a label .* none"):
            read(content, require_label=True, source="f")
        score = frame(entry(1, tensor([1])) + entry(2, tensor([1]), b"score"))
        with pytest.raises(DataError, match="found the label keys 'score'"):
            read(score, require_label=True)
        with pytest.raises(DataError, match="record 1 .*expected one label, found 2"):
            read(frame(entry(1, tensor([1])) + entry(2, tensor([1, 2]))))
        assert read(frame(entry(1, tensor([1])) + entry(2, tensor([]))))[1] is None


def test_5_keys():
    check(row([1, 2, 4, 8], [3, 1, 3, 3], label=1), [[(3, 13), (1, 2)]], [1], 4)
    for read in (read_csr, plain):
        good = row([1], [3], label=1)
        place = rf"record 2 \(byte {len(good)}\)"
        with pytest.raises(DataError, match=rf"{place}: feature key 7 is outside \[0, 7\)"):
            read(good + row([1], [7], label=1), num_features=7)
        with pytest.raises(DataError, match="at most 2 values in a dense record, found 3"):
            read(row([1, 2, 3]), num_features=2)
        for key in (2**31 - 1, 2**32, 2**63, 2**64 - 1):
            with pytest.raises(DataError, match=f"feature key {key} is outside"):
                read(row([1], [key]))
        with pytest.raises(DataError, match="as many keys as values, found 1 keys and 2 values"):
            read(row([1, 2], [3]))
        with pytest.raises(DataError, match="found 1 keys and 0 values"):
            read(row([], [3]))
        with pytest.raises(DataError, match="claims more than"):
            read(row([1], [3], shape=[2**31]))
        with pytest.raises(DataError, match="record 1: the sum of the values given for key 3"):
            read(row([3e38, 3e38], [3, 3]))
        # neighbours whose errors would cancel out if only totals were compared
        with pytest.raises(DataError, match="record 1 .*found 2 keys and 1 values"):
            read(row([1], [3, 4]) + row([1, 2], [3]))


def test_6_missing_key_names_those_found():
    for read in (read_csr, plain):
        with pytest.raises(DataError, match="under the key 'values', found the keys: 'a', 'b'"):
            read(frame(entry(1, tensor([1]), b"a") + entry(1, tensor([1]), b"b")))
        with pytest.raises(DataError, match="found the keys: none"):
            read(frame(b""))
        with pytest.raises(DataError, match="'6', ...$"):
            names = (b"3", b"4", b"5", b"6", b"2" * 10**5, b"8")
            read(frame(b"".join(entry(1, b"", name) for name in sorted(names))))
        with pytest.raises(DataError, match="found bytes"):
            read(frame(entry(1, field(9, field(1, b"png")))))


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_7_not_finite(kind, bad):
    good, bad = row([1], [1], label=1), float(bad)
    for read in (read_csr, plain):
        for values, keys, feature in (([1, bad], [0, 9], 9), ([1, bad], None, 1)):
            content = good + frame(entry(1, tensor(values, keys, kind=kind)))
            with pytest.raises(DataError, match=f"record 2 .*value {bad} of feature {feature} "):
                read(content)
        content = good * 2 + frame(entry(1, tensor([1])) + entry(2, tensor([bad], kind=kind)))
        with pytest.raises(DataError, match=f"record 3 .*the label {bad} is not a finite"):
            read(content)
        with pytest.raises(DataError, match=r"the value 1e\+300 of feature 0"):
            read(row([1e300], kind="float64"))


def test_8_truncated_everywhere():
    ends = np.cumsum([0] + [len(part) // 2 for part in GOLDEN])
    for size in range(1, len(GOLDEN_BYTES)):
        content = GOLDEN_BYTES[:size]
        record = int(np.searchsorted(ends, size, side="right"))
        payload = GOLDEN_BYTES[ends[record - 1] + 4] + 8
        if size in ends or size >= ends[record - 1] + payload:
            assert read_csr(content)[0].shape[0] == np.searchsorted(ends, size)  # lacks padding
            continue
        for read in (read_csr, plain):
            with pytest.raises(
                DataError, match=rf"f record {record} \(byte {ends[record - 1]}\): .*truncated"
            ):
                read(content, source="f")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\x1f\x8b\x08\x00", "found gzip-compressed data"),
        (b"PAR1\x15\x04", "found a Parquet file"),
        (b"PK\x03\x04", "found a zip archive"),
        (b"user,item,rating\n1,2,3\n", "found text: 'user,item,rating'"),
        (b'{"instances": []}', "found JSON text"),
        (b"\xff\xfe\x00\x01", "found the bytes ff fe 00 01"),
    ],
)
@pytest.mark.parametrize("allow_bare", [False, True])
def test_8_another_format(head, message, allow_bare):
    with pytest.raises(UnsupportedFormatError, match=f"f: expected RecordIO-protobuf .*{message}"):
        read_csr(head, source="f", allow_bare=allow_bare)


def test_8_damaged_in_the_middle_and_empty():
    bad = bytearray(GOLDEN_BYTES)
    bad[60] ^= 1
    for read in (read_csr, plain):
        with pytest.raises(DataError, match=r"record 2 \(byte 60\): expected a frame .*0b 23 d7"):
            read(bytes(bad))
    with pytest.raises(DataError, match="expected at least one record, found an empty file"):
        read_csr(b"")
    with pytest.raises(DataError, match="found an empty file"):
        read_csr(bytes(100))


def test_9_a_record_without_a_frame():
    payload = entry(1, tensor([1, 2], [3, 4]))
    X, y = read_csr(payload, allow_bare=True, num_features=5)
    assert X.toarray().tolist() == [[0, 0, 0, 1, 2]] and y is None
    X, y = read_csr(entry(2, tensor([5])) + payload, allow_bare=True)
    assert y.tolist() == [5]
    assert read_csr(GOLDEN_BYTES, allow_bare=True)[0].shape == (3, 5)
    with pytest.raises(UnsupportedFormatError):
        read_csr(payload)
    with pytest.raises(DataError, match=r"record 1 \(byte 0\): feature key 4"):
        read_csr(payload, allow_bare=True, num_features=4)
    with pytest.raises(DataError, match="empty file"):
        read_csr(b"", allow_bare=True)


def test_10_zeros_at_the_end():
    for zeros in (1, 3, 4, 7, 8, 100):
        assert read_csr(GOLDEN_BYTES + bytes(zeros))[0].shape == (3, 5)
        with pytest.raises(DataError, match="record 4"):
            read_csr(GOLDEN_BYTES + bytes(zeros) + b"\1")


# Frames


def magic_inside(count):
    """Return a payload with the magic number in it, at all four alignments."""
    texts = [b"x" * (i % 4) + MAGIC + struct.pack("<I", 8) + bytes(8) for i in range(count)]
    return entry(1, tensor([1, 2], [3, 4])) + entry(2, tensor([7])) + field(4, b"".join(texts))


@pytest.mark.parametrize("block_bytes", [16, 64, 256, 1 << 20])
def test_magic_number_inside_payloads(monkeypatch, block_bytes):
    monkeypatch.setattr(recordio, "BLOCK_BYTES", block_bytes)
    ordinary = row([1, 2], [3, 4], label=7)
    content = b"".join(frame(magic_inside(i)) + ordinary * (i % 3) for i in range(12))
    rows = 12 + sum(i % 3 for i in range(12))
    check(content, [[(3, 1), (4, 2)]] * rows, [7] * rows, 5)
    with pytest.raises(DataError, match=f"record {rows + 1} "):
        read_csr(content + b"\1" * 8)


def split(payload):
    """Write as dmlc does: cut at each magic number at a multiple of 4, and leave that out."""
    parts, begin = [], 0
    for at in range(0, len(payload) - 3, 4):
        if payload[at : at + 4] == MAGIC:
            parts.append(payload[begin:at])
            begin = at + 4
    parts.append(payload[begin:])
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(frame(part, flag) for part, flag in zip(parts, flags, strict=True))


@pytest.mark.parametrize("block_bytes", [16, 64, 256, 1 << 20])
def test_split_records_are_joined(monkeypatch, block_bytes):
    monkeypatch.setattr(recordio, "BLOCK_BYTES", block_bytes)
    payloads = [magic_inside(i) for i in range(12)]
    content = b"".join(split(p) + row([1, 2], [3, 4], label=7) for p in payloads)
    assert content.count(struct.pack("<I", 2 << 29 | 16)[2:]) > 3  # there are middle parts
    check(content, [[(3, 1), (4, 2)]] * 24, [7] * 24, 5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([2], "record 1 .*flag 0 or 1, found 2"),
        ([0, 3], "record 2 .*flag 0 or 1, found 3"),
        ([1, 0], "record 1 .*flag 2 or 3 .* found 0"),
        ([1, 3, 1, 1], "record 2 .*flag 2 or 3 .* found 1"),
        ([0, 5], "record 2 .*found 5"),
        ([1, 2], "record 1 .*expected the last part of a split record"),
    ],
)
def test_flags_out_of_order(flags, message):
    whole = entry(1, tensor([1]))
    with pytest.raises(DataError, match=message):
        read_csr(b"".join(frame(whole[:12] if flag else whole, flag) for flag in flags))


# Both ways of reading, against each other and the truth


@st.composite
def files(draw):
    """Return rows, labels and bytes, in layouts of all sorts."""
    kind, label_kind = draw(st.sampled_from([*KINDS])), draw(st.sampled_from([*KINDS, None]))
    mixed = draw(st.booleans())
    number = st.integers(-(2**31), 2**31 - 1)
    if kind != "int32":
        number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows, labels, content = [], [], []
    for _ in range(draw(st.integers(1, 12))):
        odd = mixed and draw(st.booleans())
        values = draw(st.lists(number, max_size=6))
        keys = None
        if draw(st.integers(0, 4)) or odd:
            key = st.sampled_from([0, 1, 127, 128, 300, 16383, 16384, 2097152, 2**31 - 2])
            keys = draw(st.lists(key, min_size=len(values), max_size=len(values), unique=True))
        shape = draw(st.sampled_from([None, [1], [300], [2, 3], [2**31 - 1]]))
        how = draw(st.sampled_from(["packed", "pieces", "unpacked"])) if odd else "packed"
        order = draw(st.permutations([1, 2, 3])) if odd else (1, 2, 3)
        features = entry(1, tensor(values, keys, shape, kind, how, order), swap=odd)
        label = None
        if label_kind is not None and (not odd or draw(st.booleans())):
            label = draw(st.integers(-5, 5))
        payload = [features, b"" if label is None else entry(2, tensor([label], kind=label_kind))]
        if odd:
            payload = draw(st.permutations([*payload, draw(st.sampled_from([b"", UNKNOWN]))]))
        rows.append(list(zip(range(len(values)) if keys is None else keys, values, strict=True)))
        labels.append(label)
        content.append(frame(b"".join(payload)))
    return rows, labels, b"".join(content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files(), st.sampled_from([16, 200, 1 << 20]))
def test_lockstep_equals_plain_equals_truth(example, block_bytes):
    rows, labels, content = example
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordio, "BLOCK_BYTES", block_bytes)
        fast, slow = outcome(read_csr, content), outcome(plain, content)
        assert fast == slow
        assert outcome(read_csr, content, num_features=300) == outcome(
            plain, content, num_features=300
        )
        assert outcome(read_csr, content, require_label=True) == outcome(
            plain, content, require_label=True
        )
        X, y = read_csr(content)
    for i, entries in enumerate(rows):
        part = slice(X.indptr[i], X.indptr[i + 1])
        found = dict(zip(X.indices[part].tolist(), X.data[part], strict=True))
        assert {key: v for key, v in found.items() if v != 0} == {
            key: np.float32(value) for key, value in entries if value != 0
        }
    if None in labels:
        assert y is None
    else:
        assert y.tolist() == labels


def seeds():
    """Return small files of different layouts to damage."""
    X = sp.random(6, 300, 0.03, "csr", np.float32, random_state=1)
    y = np.arange(6, dtype=np.float32)
    for dtype in (np.float32, np.float64, np.int64):
        file = io.BytesIO()
        write_spmatrix_to_sparse_tensor(file, (X * 100).astype(dtype), y.astype(dtype))
        write_numpy_to_dense_tensor(file, X[:2, :40].toarray().astype(dtype), y[:2].astype(dtype))
        yield file.getvalue()
    yield GOLDEN_BYTES
    yield b"".join(split(magic_inside(i)) for i in range(4))
    odd = entry(2, tensor([1], how="unpacked"), swap=True)
    yield frame(UNKNOWN + odd + entry(1, tensor([1, 2], [3, 4], [9], how="pieces"))) * 3


def mutations(seed, content, rng):
    bad = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(bad)))
        what = rng.integers(5)
        if what == 0:
            bad[at] = rng.integers(256)
        elif what == 1:
            bad[at] ^= 1 << int(rng.integers(8))
        elif what == 2:
            del bad[at : at + int(rng.integers(1, 9))]
        elif what == 3:
            bad[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            bad[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x12, 0x1A])
        if not bad:
            break
    return bytes(bad)


def test_damaged_files_give_an_error_or_a_valid_result(rng):
    results = []
    start = time.process_time()
    for seed in seeds():
        for _ in range(400):
            content = mutations(seed, seed, rng)
            options = {"num_features": 300, "source": "f", "allow_bare": bool(rng.integers(2))}
            result = outcome(read_csr, content, **options)
            assert result == outcome(plain, content, **options)
            results.append(isinstance(result, str))
    assert time.process_time() - start < 60  # none hangs
    assert 0.2 < np.mean(results) < 0.95  # there are errors, and files that still are valid


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", MAGIC, b"\x0a\x12\x0a\x06values\x12\x08"]))
def test_any_bytes(content, head):
    for bytes_ in (head + content, frame(head + content), frame(entry(1, content)) * 2):
        for allow_bare in (False, True):
            options = {"allow_bare": allow_bare}
            assert outcome(read_csr, bytes_, **options) == outcome(plain, bytes_, **options)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x0a\x20\x0a", "field 1 ends beyond its message"),
        (b"\x0a", "a number ends beyond its message"),
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x07", "no field number 0"),
        (b"\x0f", "field 1 has the wire type 7"),
        (b"\x1b", "group of field 3 does not end"),
        (b"\x1b\x24", "field 4 has the wire type 4"),
        (b"\x1b" * 200, "field 3 has the wire type 3"),
        (entry(1, field(2, field(1, bytes(5)))), "5 bytes of values are no multiple of 4"),
        (entry(1, field(2, field(2, b"\x80"))), "a number ends beyond its field"),
        (entry(1, field(7, field(1, b"\xff" * 11 + b"\1"))), "more than 10 bytes"),
        (entry(1, field(7, field(1, bytes(40) + b"\xff" * 11 + b"\1"))), "more than 10 bytes"),
    ],
)
def test_malformed_messages(payload, message):
    good = row([1], [0], label=1)
    expected = rf"record 2 \(byte {len(good)}\): .*{re.escape(message)}"
    for read in (read_csr, plain):
        with pytest.raises(DataError, match=expected):
            read(good + frame(payload))


def test_sources(tmp_path):
    path = tmp_path / "rows.pbr"
    path.write_bytes(GOLDEN_BYTES)
    expected = outcome(read_csr, GOLDEN_BYTES)
    with path.open("rb") as file:
        views = memoryview(GOLDEN_BYTES), bytearray(GOLDEN_BYTES), np.memmap(path, mode="r")
        for source in (path, str(path), file, io.BytesIO(GOLDEN_BYTES), *views):
            assert outcome(read_csr, source) == expected
    odd = memoryview(b"x" + GOLDEN_BYTES)[1:]  # at an odd address
    assert outcome(read_csr, odd) == expected
    path.write_bytes(GOLDEN_BYTES[:70])
    with path.open("rb") as file:
        for source in (path, file):
            with pytest.raises(DataError, match="rows.pbr record 2"):
                read_csr(source)
    with pytest.raises(DataError, match="no-such-file.* cannot be read"):
        read_csr(tmp_path / "no-such-file")
    for wrong in (3, None, io.StringIO("text"), np.zeros(3)):
        with pytest.raises(UnsupportedFormatError, match="expected a path, bytes, or a file"):
            read_csr(wrong)


# Writers


def twin_file(X, labels, kind, label_kind, dense=False):
    out = []
    for i in range(X.shape[0]):
        part = slice(X.indptr[i], X.indptr[i + 1])
        if dense:
            features = tensor(X[i].toarray()[0].tolist(), kind=kind)
        else:
            keys = X.indices[part].tolist()
            features = tensor(X.data[part].tolist(), keys, [X.shape[1]], kind)
        out.append(frame(entry(1, features) + entry(2, tensor([labels[i]], kind=label_kind))))
    return b"".join(out)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("int64", "int32"),
        ("int32", "int32"),  # the SDK raises for this one and those below
        ("int8", "int32"),
        ("uint16", "int32"),
        ("uint64", "int32"),
        ("bool", "float32"),
    ],
)
@pytest.mark.parametrize("chunk", [7, 1 << 17])
def test_writers_equal_the_twin(rng, monkeypatch, dtype, kind, chunk):
    monkeypatch.setattr("fm.formats.recordio_writer.CHUNK_ENTRIES", chunk)
    monkeypatch.setattr("fm.formats.recordio_writer.CHUNK_ROWS", 5)
    counts = rng.integers(0, 9, 30)
    counts[[3, 4, 29]] = 0, 200, 0  # a record whose lengths take two bytes
    indices = rng.integers(0, 3_000_000, counts.sum())  # unsorted
    values = rng.normal(0, 1e4, counts.sum()).astype("float32")
    if np.dtype(dtype).kind == "u":
        values = abs(values)
    elif dtype == "int8":
        values %= 100
    X = sp.csr_matrix((30, 3_000_000), dtype=dtype)
    X.data, X.indices = values.astype(dtype), indices.astype(np.int32)
    X.indptr = np.append(0, np.cumsum(counts)).astype(np.int32)
    X.indices[5] = X.indices[4]  # a duplicate, which stays
    labels = rng.integers(0, 100, 30).astype(dtype)
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, X, labels)
    assert file.getvalue() == twin_file(X, labels, kind, kind)
    dense = sp.csr_matrix(rng.integers(0, 3, (11, 40)).astype(dtype))
    file = io.BytesIO()
    write_numpy_to_dense_tensor(file, dense.toarray(order="F"), labels[:11].astype(np.float64))
    assert file.getvalue() == twin_file(dense, labels[:11], kind, "float64", dense=True)


@pytest.mark.parametrize(
    ("dtype", "member"),
    [("f2", "float32"), (">f4", "float32"), (">f8", "float64"), (">i8", "int32")],
)
def test_types_that_sparse_matrices_do_not_have(dtype, member):
    file = io.BytesIO()
    write_numpy_to_dense_tensor(file, np.array([[5, 2]], dtype), np.array([3], dtype))
    assert file.getvalue() == frame(
        entry(1, tensor([5, 2], kind=member)) + entry(2, tensor([3], kind=member))
    )


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 20),
    st.sampled_from([1, 127, 128, 2625, 10**6]),
    st.floats(0, 0.3),
    st.integers(0, 2**32 - 1),
)
def test_round_trip(rows, columns, density, seed):
    rng = np.random.default_rng(seed)
    counts = rng.binomial(min(columns, 60), density, rows)
    keys = [np.sort(rng.choice(columns, n, replace=False)) for n in counts]
    X = sp.csr_matrix(
        (
            rng.normal(size=counts.sum()).astype(np.float32),
            np.concatenate([*keys, []]).astype(np.int32),
            np.append(0, np.cumsum(counts)),
        ),
        shape=(rows, columns),
    )
    y = rng.normal(size=rows).astype(np.float32)
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, X, y)
    if not rows:
        assert file.getvalue() == b""
        return
    for options in ({}, {"num_features": columns}):
        found, labels = read_csr(file.getvalue(), **options)
        assert found.shape == X.shape
        for a, b in ((found.data, X.data), (found.indices, X.indices), (labels, y)):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(found.indptr, X.indptr)


def test_writers_refuse():
    X, file = sp.eye(3, 5, dtype=np.float32, format="csr"), io.BytesIO()
    for labels in (np.ones(5), np.ones(2), np.ones((3, 1)), 1.0):
        with pytest.raises(DataError, match=r"labels: expected one number per row, shape \(3,\)"):
            write_spmatrix_to_sparse_tensor(file, X, labels)
        with pytest.raises(DataError, match=r"labels: expected one number per row, shape \(3,\)"):
            write_numpy_to_dense_tensor(file, X.toarray(), labels)
    with pytest.raises(DataError, match="labels: expected numbers"):
        write_spmatrix_to_sparse_tensor(file, X, ["a", "b", "c"])
    with pytest.raises(UnsupportedFormatError, match="expected a scipy sparse matrix, found ndarr"):
        write_spmatrix_to_sparse_tensor(file, X.toarray())
    with pytest.raises(UnsupportedFormatError, match="expected 2 dimensions .* found 1"):
        write_numpy_to_dense_tensor(file, np.ones(3))
    for dtype in (np.complex128, np.longdouble, object, "U3"):
        with pytest.raises(UnsupportedFormatError, match="features: expected real numbers"):
            write_numpy_to_dense_tensor(file, np.ones((2, 2)).astype(dtype))
    with pytest.raises(DataError, match="2147483648 does not fit the format's 32-bit integers"):
        write_numpy_to_dense_tensor(file, np.array([[1, 2**31]]))
    with pytest.raises(DataError, match="-2147483649 does not fit"):
        write_numpy_to_dense_tensor(file, np.array([[1, -(2**31) - 1]]))
    X.indices[1] = -1
    with pytest.raises(DataError, match="a column number is negative"):
        write_spmatrix_to_sparse_tensor(file, X)
    assert file.getvalue() == b""


def test_predictions():
    file = io.BytesIO()
    write_predictions(file, np.array([0.25, 0.75]), [0, 1])
    twin = [
        frame(entry(2, tensor([s]), b"score") + entry(2, tensor([y]), b"predicted_label"))
        for s, y in ((0.25, 0), (0.75, 1))
    ]
    assert file.getvalue() == b"".join(twin)
    file = io.BytesIO()
    write_predictions(file, [3.5])
    assert file.getvalue() == frame(entry(2, tensor([3.5]), b"score"))
    write_predictions(file, [])
    with pytest.raises(DataError, match="predicted labels: expected one number per row"):
        write_predictions(file, [1.0, 2.0], [1])


# Resources


def movielens_like(rows, rng):
    keys = np.column_stack([rng.integers(0, 943, rows), 943 + rng.integers(0, 1682, rows)])
    X = sp.csr_matrix(
        (np.ones(2 * rows, np.float32), keys.ravel(), np.arange(rows + 1) * 2), shape=(rows, 2625)
    )
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, X, rng.integers(1, 6, rows).astype(np.float32))
    return file.getvalue()


def test_memory_stays_near_input_and_output(rng):
    content = movielens_like(150_000, rng)
    read_csr(content[:6400])
    tracemalloc.start()
    try:
        X, y = read_csr(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    output = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes + y.nbytes
    assert peak < 1.6 * output + (6 << 20)  # a block, and the row pointers as int64 on the way


def test_lengths_that_lie_allocate_nothing():
    claims = [
        MAGIC + struct.pack("<I", 2**29 - 1) + b"x" * 50,
        frame(b"\x0a" + varint(2**40) + b"x" * 50),
        frame(entry(1, b"\x12" + varint(2**31) + b"x" * 20)),
        row([1], [1], shape=[2**31 - 2]),
    ]
    for content in claims:
        tracemalloc.start()
        outcome(read_csr, content)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 << 20


def test_errors_are_of_our_tree():
    assert issubclass(DataError, FMError) and issubclass(UnsupportedFormatError, FMError)
