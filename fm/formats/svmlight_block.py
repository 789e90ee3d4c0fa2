"""A block of lines of libsvm or libffm at once, by numpy.

Decided here: which blocks have the plain form, in which all numbers can be parsed together. Any
other block is declined: the caller (``fm.formats.svmlight``) parses it line by line, and names what
is wrong.
"""

from __future__ import annotations

import re
import warnings
from typing import NamedTuple

import numpy as np

from fm.formats.files import ragged

MAX_INDEX = 2**31 - 2  # column numbers are int32
INDEX_VALUE, FIELD_INDEX_VALUE = 2, 3  # how many numbers an entry has, in libsvm and libffm

COMMENT = re.compile(rb"#[^\n]*")
_QUERY = re.compile(rb"(?m)^([ \t]*[^\s:]+[ \t]+)qid:\d+(?=\s)")
_MAX_DIGITS = 15  # of whole numbers that a float64 holds exactly

_INVALID, _SPACE, _NEWLINE, _COLON, _DIGIT, _SIGN = range(6)
_CLASS = np.full(256, _INVALID, np.uint8)
_CLASS[list(b" \t\r")] = _SPACE
_CLASS[list(b"\n")] = _NEWLINE
_CLASS[list(b":")] = _COLON
_CLASS[list(b"0123456789")] = _DIGIT
_CLASS[list(b"+-.eE")] = _SIGN


class Rows(NamedTuple):
    """Rows as they are written: indices unsorted and not shifted."""

    labels: np.ndarray  # float32
    indptr: np.ndarray  # int64
    indices: np.ndarray  # int32
    values: np.ndarray  # float32
    fields: np.ndarray  # int32; empty for libsvm


def rows_of(labels: np.ndarray, counts: np.ndarray, *columns: np.ndarray) -> Rows:
    """Return numbers as rows; columns: (field,) index and value of all entries."""
    *field, index, value = columns
    with np.errstate(over="ignore"):
        return Rows(
            labels.astype(np.float32),
            counts,
            index.astype(np.int32),
            value.astype(np.float32),
            field[0].astype(np.int32) if field else np.empty(0, np.int32),
        )


def parse_block(text: bytes, parts: int) -> Rows | None:
    """Return the rows of whole lines; None if there is anything that needs a closer look."""
    if b"#" in text:
        text = COMMENT.sub(b"", text)
    if parts == INDEX_VALUE and b"qid" in text:
        text = _QUERY.sub(rb"\1", text)
    # newlines around: a number has a byte before it, and _MAX_DIGITS bytes from its beginning on
    raw = np.frombuffer(b"\n%b%b" % (text, b"\n" * _MAX_DIGITS), np.uint8)
    kind = _CLASS[raw]
    if not kind.all():
        return None
    found = _numbers_in(kind, parts)
    if found is None:
        return None
    begin, size, counts, is_label = found
    if not begin.size:
        return rows_of(begin, counts, *[begin] * parts)
    whole = ~np.logical_or.reduceat(kind == _SIGN, begin) & (size <= _MAX_DIGITS)
    entries = np.flatnonzero(~is_label).reshape(-1, parts)
    if not whole[entries[:, :-1]].all():
        return None
    columns = [np.flatnonzero(is_label), *entries.T]
    numbers = [_numbers(raw, begin[column], size[column], whole[column]) for column in columns]
    if any(column.size and column.max() > MAX_INDEX for column in numbers[1:-1]):
        return None
    rows = rows_of(numbers[0], counts, *numbers[1:])
    return rows if np.isfinite(rows.labels).all() and np.isfinite(rows.values).all() else None


def _numbers_in(
    kind: np.ndarray, parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Return where numbers begin, their sizes, the entries of each line, and which are labels.

    None: some line is not a label and entries of so many parts.
    """
    in_number = kind >= _DIGIT
    edges = np.flatnonzero(in_number[1:] != in_number[:-1]) + 1
    begin, size = edges[::2], edges[1::2] - edges[::2]
    after_colon = kind[begin - 1] == _COLON
    if np.count_nonzero(kind == _COLON) != np.count_nonzero(after_colon) or not (
        in_number[begin[after_colon] - 2].all()
    ):
        return None  # a colon without a number on either side
    in_line = np.diff(np.searchsorted(begin, np.flatnonzero(kind == _NEWLINE)))
    in_line = in_line[in_line > 0]
    counts, rest = np.divmod(in_line - 1, parts)
    is_label = np.zeros(begin.size, bool)
    is_label[np.cumsum(in_line) - in_line] = True
    if rest.any() or after_colon[is_label].any():
        return None
    if (after_colon[~is_label].reshape(-1, parts) != (np.arange(parts) > 0)).any():
        return None
    return begin, size, counts, is_label


def _numbers(raw: np.ndarray, begin: np.ndarray, size: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return numbers, NaN for what is none. Numbers of digits only are parsed faster."""
    if whole.all():
        return _whole_numbers(raw, begin, size)
    numbers = np.full(begin.size, np.nan)
    numbers[whole] = _whole_numbers(raw, begin[whole], size[whole])
    begin, size = begin[~whole], size[~whole] + 1  # with the byte behind, which becomes a space
    text = raw[ragged(begin, size)]
    text[np.cumsum(size) - 1] = ord(" ")
    with warnings.catch_warnings():
        # Up to numpy 2.2, anything but a number ends the parsing with only a warning; the zero
        # behind the last number is then missing.
        warnings.simplefilter("ignore")
        try:
            parsed = np.fromstring(text.tobytes() + b"0", sep=" ")
        except ValueError:
            return numbers
    if parsed.size == begin.size + 1:
        numbers[~whole] = parsed[:-1]
    return numbers


def _whole_numbers(raw: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    number = np.zeros(begin.size, np.int64)
    for i in range(int(size.max(initial=0))):
        digit = raw[begin + i] - np.uint8(ord("0"))  # garbage behind the number's end
        number = np.where(i < size, number * 10 + digit, number)
    return number
