"""A plain reader of predictions in RecordIO-protobuf, without any code of fm."""

import struct

MAGIC = 0xCED7230A


def varint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return number, at


def fields(data):
    """The fields of a message: (number, bytes) of each; all are of the wire type 2 here."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        assert tag & 7 == 2, f"field {tag >> 3} has the wire type {tag & 7}"
        length, at = varint(data, at)
        assert at + length <= len(data)
        yield tag >> 3, data[at : at + length]
        at += length


def predictions(data):
    """Return the predictions in records: {"score": ..., "predicted_label": ...} of each."""
    found, at = [], 0
    while at < len(data):
        magic, length = struct.unpack_from("<II", data, at)
        assert magic == MAGIC and at + 8 + length <= len(data)
        labels = {}
        for number, entry in fields(data[at + 8 : at + 8 + length]):
            assert number == 2, "a prediction has labels only"
            entry = dict(fields(entry))
            tensor = dict(fields(dict(fields(entry[2]))[2]))  # Value.float32_tensor
            (labels[entry[1].decode()],) = struct.unpack("<f", tensor[1])
        found.append(labels)
        at += 8 + -(-length // 4) * 4
    return found
