"""The message of RecordIO-protobuf: one record, decoded field by field.

The schema (proto2, package aialgs.data)::

    Record        { map<string, Value> features = 1; map<string, Value> label = 2;
                    string uid = 3; string metadata = 4; string configuration = 5 }
    Value         { oneof { Float32Tensor float32_tensor = 2; Float64Tensor float64_tensor = 3;
                            Int32Tensor int32_tensor = 7; Bytes bytes = 9 } }
    *Tensor       { repeated float|double|int32 values = 1; repeated uint64 keys = 2, shape = 3 }
    Bytes         { repeated bytes value = 1; string content_type = 2 }

Features and label stand under the map key "values"; without keys a tensor is dense.

Decided here: what a valid record is, by the rules of protobuf: fields in any order, numbers packed
or not and in any number of pieces, unknown fields skipped; of several map entries with one key, and
of several members of Value, the last one counts. No length may exceed the bytes that are left, and
no memory is allocated because a shape says so.
Not decided here: where a record begins (fm.formats.recordio) and how many are decoded at once
(fm.formats.lockstep).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fm.errors import Advice

MAX_FEATURES = 2**31 - 1  # column numbers are int32

FLOAT32, FLOAT64, INT32, BYTES = 2, 3, 7, 9  # members of Value
SCALARS: dict[int, np.dtype[Any]] = {FLOAT32: np.dtype("<f4"), FLOAT64: np.dtype("<f8")}
KEY = b"values"
KEY_FIELD = b"\x0a\x06" + KEY  # the key as it stands in a map entry

_VARINT, _FIXED64, LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)  # wire types
_MAX_GROUPS = 100


class RecordError(Exception):
    """What is wrong with one record; the caller knows its number and place."""

    def __init__(self, problem: str, advice: Advice | None = None) -> None:
        super().__init__(problem)
        self.advice = advice


class Maps(NamedTuple):
    """The two maps of a record; their values are not decoded yet."""

    features: dict[bytes, bytearray]  # map key -> encoded Value
    label: dict[bytes, bytearray]


class _Numbers(NamedTuple):
    values: np.ndarray
    keys: np.ndarray  # uint64
    shape: np.ndarray  # uint64


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise RecordError("malformed protobuf: a number ends beyond its message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise RecordError("malformed protobuf: a number has more than 10 bytes")


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield number, wire type and bytes of each field; groups (never used here) are skipped."""
    at = 0
    groups: list[int] = []
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise RecordError(f"malformed protobuf: there is no field number {number}")
        begin = at
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == LENGTH:
            length, begin = _varint(data, at)
            at = begin + length
        elif wire == _GROUP and len(groups) < _MAX_GROUPS:
            groups.append(number)
            continue
        elif wire == _END_GROUP and groups and groups[-1] == number:
            groups.pop()
            continue
        else:
            raise RecordError(f"malformed protobuf: field {number} has the wire type {wire}")
        if at > len(data):
            raise RecordError(f"malformed protobuf: field {number} ends beyond its message")
        if not groups:
            yield number, wire, data[begin:at]
    if groups:
        raise RecordError(f"malformed protobuf: the group of field {groups[-1]} does not end")


def parse_maps(payload: memoryview) -> Maps:
    """Return the maps of a record, or raise RecordError."""
    found = Maps({}, {})
    for number, wire, raw in _fields(payload):
        if wire == LENGTH and number in (1, 2):
            key, value = b"", bytearray()
            for part, part_wire, part_raw in _fields(raw):
                if part_wire == LENGTH and part == 1:
                    key = bytes(part_raw)
                elif part_wire == LENGTH and part == 2:
                    value += part_raw  # joined messages are merged messages
            (found.features if number == 1 else found.label)[key] = value
    return found


def _member(value: bytearray) -> tuple[int, bytearray]:
    """Return which member of Value is set (the last one counts), and its bytes."""
    kind, body = 0, bytearray()
    for number, wire, raw in _fields(memoryview(value)):
        if wire == LENGTH and number in (FLOAT32, FLOAT64, INT32, BYTES):
            if number != kind:
                kind, body = number, bytearray()
            body += raw
    return kind, body


def _tensor(body: bytearray, kind: int) -> _Numbers:
    """Return the repeated fields of a tensor: packed or not, in one piece or several."""
    scalar = SCALARS.get(kind)
    value_wire = {FLOAT32: _FIXED32, FLOAT64: _FIXED64, INT32: _VARINT}[kind]
    parts = {1: bytearray(), 2: bytearray(), 3: bytearray()}
    for number, wire, raw in _fields(memoryview(body)):
        if number not in parts or wire not in (LENGTH, value_wire if number == 1 else _VARINT):
            continue
        if number == 1 and scalar is not None:
            if len(raw) % scalar.itemsize:
                raise RecordError(
                    f"malformed protobuf: {len(raw)} bytes of values are no multiple of "
                    f"{scalar.itemsize}"
                )
        elif len(raw) and raw[-1] >= 0x80:
            raise RecordError("malformed protobuf: a number ends beyond its field")
        parts[number] += raw
    if scalar is None:
        values = as_int32(_uint64(parts[1]))
    else:
        values = np.frombuffer(parts[1], scalar)
    return _Numbers(values, _uint64(parts[2]), _uint64(parts[3]))


def _uint64(raw: bytearray) -> np.ndarray:
    if len(raw) < 32:  # a loop is faster than numpy
        numbers, at, data = [], 0, memoryview(raw)
        while at < len(data):
            number, at = _varint(data, at)
            numbers.append(number)
        return np.array(numbers, np.uint64)
    decoded = decode_varints(np.frombuffer(raw, np.uint8))
    if decoded is None:
        raise RecordError("malformed protobuf: a number has more than 10 bytes")
    return decoded[0]


def decode_varints(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the numbers (uint64) in packed bytes, and where the last byte of each is.

    None: a number has more than 10 bytes. Bytes behind the last complete number are not looked at.
    """
    last = np.flatnonzero(raw < 0x80)
    values = raw[last].astype(np.uint64)
    if last.size == raw.size:
        return values, last
    size = np.diff(last, prepend=-1)
    longest = int(size.max(initial=0))
    if longest > 10:
        return None
    for length in range(2, longest + 1):
        some = np.flatnonzero(size == length)
        at = last[some]
        number: np.ndarray = values[some]
        for i in range(1, length):
            number = number << 7 | (raw[at - i] & 0x7F)
        values[some] = number
    return values, last


def as_int32(varints: np.ndarray) -> np.ndarray:
    """Return varints as int32: negative numbers come as 64 bits, of which the low half counts."""
    return varints.astype(np.uint32).view(np.int32)


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return numbers as float32; what is too large becomes infinite, and is reported as such."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _names(found: dict[bytes, bytearray]) -> str:
    names = [repr(key[:40].decode("utf-8", "replace")) for key in list(found)[:5]]
    return ", ".join(names) + (", ..." if len(found) > 5 else "") if names else "none"


def _label(maps: Maps, required: bool) -> float:
    """Return the label, NaN if there is none."""
    kind, body = _member(maps.label.get(KEY, bytearray()))
    values = _tensor(body, kind).values if kind in (FLOAT32, FLOAT64, INT32) else np.empty(0)
    if values.size > 1:
        raise RecordError(f"expected one label, found {values.size} of them")
    if not values.size:
        if required:
            raise RecordError(
                "expected a label (label map, key 'values'), found "
                + (f"the label keys {_names(maps.label)}" if maps.label else "none")
                + "; training and evaluation need labels"
            )
        return float("nan")
    label = float(as_float32(values)[0])
    if not np.isfinite(label):
        raise RecordError(f"the label {values[0]} is not a finite float32 number; clean the data")
    return label


class Rows(NamedTuple):
    """Records as CSR rows."""

    counts: np.ndarray  # int64, entries of each row
    indices: np.ndarray  # int32
    values: np.ndarray  # float32
    labels: np.ndarray  # float32, NaN: no label
    width: int  # the number of features that these rows need or claim


def parse_row(payload: memoryview, num_features: int | None, require_label: bool) -> Rows:
    """Return a record as a CSR row, or raise RecordError."""
    maps = parse_maps(payload)
    if KEY not in maps.features:
        raise RecordError(
            f"expected features under the key 'values', found the keys: {_names(maps.features)}"
        )
    kind, body = _member(maps.features[KEY])
    if kind == BYTES:
        raise RecordError("expected a tensor of numbers as features, found bytes")
    given, keys, shape = _tensor(body, kind or FLOAT32)
    values = as_float32(given)
    limit = MAX_FEATURES if num_features is None else num_features
    if keys.size:
        if keys.size != given.size:
            raise RecordError(
                f"expected as many keys as values, found {keys.size} keys and {given.size} values"
            )
        largest = int(keys.max())
        if largest >= limit:
            raise RecordError(
                f"feature key {largest} is outside [0, {limit})",
                Advice("check the data, or raise {num_features}", num_features=...),
            )
        indices, width = keys.astype(np.int32), largest + 1
    else:
        if given.size > limit:
            raise RecordError(
                f"expected at most {limit} values in a dense record, found {given.size}",
                Advice("check the data, or raise {num_features}", num_features=...),
            )
        indices, width = np.arange(given.size, dtype=np.int32), given.size
    if not np.isfinite(values).all():
        at = int(np.argmax(~np.isfinite(values)))
        raise RecordError(
            f"the value {given[at]} of feature {indices[at]} is not a finite float32 number; "
            "clean or leave out the value"
        )
    if shape.size and num_features is None:
        claimed = 1
        for length in shape.tolist():
            claimed = min(claimed * length, 2**64)
        if claimed > limit:
            raise RecordError(
                f"the shape {shape.tolist()} claims more than {limit} features",
                Advice("give {num_features}", num_features=...),
            )
        width = max(width, claimed)
    if not keys.size:
        stored = np.flatnonzero(values)
        indices, values = indices[stored], values[stored]
    label = _label(maps, require_label)
    return Rows(np.array([indices.size]), indices, values, np.array([label], np.float32), width)
