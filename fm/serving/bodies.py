"""Bodies to rows: the bytes of a request become the features of a model.

Decided here: the forms a body may have, and that every row is checked before anything is computed
with it; a message names the instance (counted from 1) and what is wrong with it. Nothing here
knows HTTP servers.

==============  ===================================================================================
format          rows
==============  ===================================================================================
JSON            | ``{"instances": [INSTANCE, ...]}``, or one document a line as in JSON Lines
                | ``{"recommend": INSTANCE}`` or ``{"recommend": [INSTANCE, ...]}``
JSON Lines      an INSTANCE in each line, or a document with instances
INSTANCE        | dense: ``{"features": [1.5, 0, 2]}``, a value for each feature
                | ``{"data": {"features": {"values": [1.5, 0, 2]}}}``
                | sparse: ``{"data": {"features": {"keys": [0, 2], "values": [1.5, 2]}}}``
                | named: ``{"user": "42", "film": "Alien (1979)"}``, if the model knows columns;
                  those left out are filled in or unknown (``fm.catalogue.filling``)
                | with ``"k": 10``: a context to recommend items for (``fm.serving.lists``)
CSV             the model's columns, with or without a line that names them (which may leave out
                those that describe users and items); or a value for each feature
libsvm          ``LABEL INDEX:VALUE ...``; the label may be left out and is not used
RecordIO        records with frames, or one record without
==============  ===================================================================================

A feature that is given twice has the sum of its values, in every format that can say so.

The JSON parser does not let other threads run, so a long list of instances is parsed in pieces.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson
import scipy.sparse as sp

from fm.catalogue.filling import encode_rows, may_be_left_out
from fm.errors import DataError, FMError
from fm.formats.recordio import read_csr
from fm.formats.svmlight import read_libsvm
from fm.model.model import Model
from fm.serving.lists import OPTIONS, Asked, Asking
from fm.serving.media import CSV, JSON, JSONLINES, LIBSVM, RECORDIO, Content, Refusal
from fm.serving.media import shown as _shown

_PIECE = 1 << 17  # bytes of JSON parsed at a time: some milliseconds
_HEAD = re.compile(rb'\s*\{\s*"instances"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}\s*,(?=\s*\{)")
_TAIL = re.compile(rb"\]\s*\}\s*\Z")
_NO_LABEL = re.compile(rb"(?m)^(?=[ \t]*[0-9]+:)")
_ROW = re.compile(r"^(?:row|data row) (\d+)")
_NUMBERS, _WHOLE = frozenset((int, float)), frozenset((int,))
_OF_LISTS = frozenset(OPTIONS)
_LARGEST = float(np.finfo(np.float32).max)


class Rows(NamedTuple):
    """Rows of features."""

    X: sp.csr_matrix | None  # in fm's layout but for order and duplicates; None: see `one`
    one: tuple[Any, Any] | None  # (indices, values) of a single row, for Model.score_row
    form: str  # what the body really was: JSON Lines may come as JSON
    asked: list[Asked] | None = None  # rows are contexts, for which these are to be recommended


def decode(body: bytes, content: Content, model: Model) -> Rows:
    """Return the rows in a body.

    Parameters
    ----------
    body : bytes
        Not empty.
    content : Content
        What the request says of it.
    model : Model
        Knows the number of features, and perhaps columns.

    Raises
    ------
    Refusal
        400: the body is not of its format, or a row does not fit the model.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> model = Model(0, [0, 0, 0], [[1], [2], [3]], TrainConfig(num_factors=1))
    >>> decode(b'{"features": [0, 2, 0]}', Content("json", "utf-8"), model).one
    (array([1], dtype=int32), array([2.], dtype=float32))
    """
    if content.charset != "utf-8":
        try:
            body = body.decode(content.charset).encode()
        except UnicodeDecodeError as err:
            raise Refusal(400, f"body: not {content.charset}: {err.reason}") from None
    try:
        return _DECODERS[content.form](body.removeprefix(b"\xef\xbb\xbf"), model)
    except FMError as err:
        raise Refusal(400, str(err)) from None


class _Batch:
    """The rows of a request while they are collected; rows of a kind are checked together."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.limit = model.num_features
        self.encoder: Any = model.encoder  # None: there are no named rows
        self.columns = frozenset(() if self.encoder is None else self.encoder.field_names)
        self.count = 0
        self.asking: Asking | None = None
        self.done: list[sp.csr_matrix] = []
        self._start_run("")

    def _start_run(self, kind: str) -> None:
        self.kind = kind
        self.first = self.count + 1  # the number of the run's first row
        self.lengths: list[int] = []
        self.keys: list[int] = []
        self.values: list[float] = []
        self.dense: list[tuple[np.ndarray, np.ndarray]] = []
        self.named: list[dict[str, Any]] = []

    def add(self, instance: Any) -> None:
        """Add an instance in any of the three forms of JSON."""
        if type(instance) is not dict:
            raise self.wrong(f"expected an object, found {_shown(instance)}")
        if "k" in instance and "k" not in self.columns:
            self.add_asking(instance)
            return
        features = None if "features" in self.columns else instance.get("features")
        data = None if "data" in self.columns else instance.get("data")
        if features is not None and data is not None:
            raise self.wrong("expected features or data, found both")
        if type(data) is dict:
            features = data.get("features")
        if len(instance) > 1 and type(features) in (list, dict):
            for name in self.columns.intersection(instance):
                raise self.wrong(f"expected features or columns, found {_shown(name)} too")
        if type(features) is list:
            self.add_dense(features)
        elif type(features) is dict:
            keys, values = features.get("keys"), features.get("values")
            if keys is None and values is not None:
                self.add_dense(values)
            else:
                self.add_sparse(keys, values)
        elif self.columns:
            self.add_named(instance)
        else:
            raise self.wrong(
                'expected {"features": [...]} or {"data": {"features": {"keys": [...], '
                f'"values": [...]}}}}}}, found {_shown(instance)}'
            )

    def add_sparse(self, keys: Any, values: Any) -> None:
        """Add a row of features and their values."""
        self._continue("sparse")
        if type(keys) is not list or type(values) is not list or len(keys) != len(values):
            raise self.wrong(
                "expected keys and values, lists of one length, found "
                f"{_length(keys)} and {_length(values)}"
            )
        if not _WHOLE.issuperset(map(type, keys)):
            keys = self._whole(keys)
        if not _NUMBERS.issuperset(map(type, values)):
            raise self._no_number(values)
        if keys and (min(keys) < 0 or max(keys) >= self.limit):
            outside = next(key for key in keys if not 0 <= key < self.limit)
            raise self.wrong(
                f"expected keys from 0 to {self.limit - 1}, found {_shown(outside)}; the model has "
                f"{self.limit} features"
            )
        self.keys += keys
        self.values += values
        self.lengths.append(len(keys))
        self.count += 1

    def add_dense(self, values: Any) -> None:
        """Add a row that has a value for each feature."""
        self._continue("dense")
        if type(values) is not list or len(values) != self.limit:
            raise self.wrong(
                f"expected {self.limit} values, one for each feature of the model, found "
                f"{_length(values)}"
            )
        if not _NUMBERS.issuperset(map(type, values)):
            raise self._no_number(values)
        row = _as_float32(values)
        if not np.isfinite(row).all():
            raise self._too_large(values[int(np.argmax(~np.isfinite(row)))])
        stored = np.flatnonzero(row).astype(np.int32)
        self.dense.append((stored, row[stored]))
        self.count += 1

    def add_named(self, columns: dict[str, Any]) -> None:
        """Add a row of the model's columns."""
        self._continue("named")
        self.named.append(columns)
        self.count += 1

    def add_asking(self, instance: Any) -> None:
        """Add a context; what is to be recommended for it is kept aside."""
        if type(instance) is not dict:
            raise self.wrong(f"expected an object, found {_shown(instance)}")
        try:
            if self.asking is None:
                self.asking = Asking(self.model, self.columns)
            if self.count != len(self.asking.asked):
                raise self.wrong(
                    "expected a row to score, as before, found one that asks for recommendations; "
                    "send them in two requests"
                )
            context = self.asking.add(instance)
        except DataError as err:
            raise self.wrong(str(err)) from None
        if context or self.columns:
            self.add(context)
        else:
            self.add_sparse([], [])

    def rows(self, form: str) -> Rows:
        """Return what was collected."""
        asked = None
        if self.asking is not None:
            asked = self.asking.asked
            if len(asked) < self.count:
                raise self.wrong(
                    "expected k, as before, found a row to score; send them in two requests",
                    len(asked) + 1,
                )
        elif self.count == 1 and not self.done:
            return Rows(None, self._only_row(), form)
        self.end_run()
        if not self.done:
            return Rows(sp.csr_matrix((0, self.limit), dtype=np.float32), None, form, asked)
        X = self.done[0] if len(self.done) == 1 else sp.vstack(self.done, format="csr")
        return Rows(X, None, form, asked)

    def wrong(self, problem: str, number: int | None = None) -> Refusal:
        """Return the complaint about an instance; by default about the one to be added."""
        return Refusal(400, f"instance {number or self.count + 1}: {problem}")

    # -- a run of rows of one kind ---------------------------------------------------------------

    def _continue(self, kind: str) -> None:
        if kind != self.kind:
            self.end_run()
            self.kind = kind

    def end_run(self) -> None:
        """Make a matrix of the rows that are in lists; it takes a tenth of the memory."""
        if self.named:
            self.done.append(self._encode(self.named))
        elif self.dense:
            lengths = [len(indices) for indices, _ in self.dense]
            parts = (np.concatenate(parts) for parts in zip(*self.dense, strict=True))
            self.done.append(self._csr(lengths, *parts))
        elif self.lengths:
            indices = np.array(self.keys, np.int32)
            values = _as_float32(self.values)
            if not np.isfinite(values).all():
                at = int(np.argmax(~np.isfinite(values)))
                row = int(np.searchsorted(np.cumsum(self.lengths), at, "right"))
                raise self._too_large(self.values[at], self.first + row)
            self.done.append(self._csr(self.lengths, indices, values))
        self._start_run("")

    def _csr(self, lengths: list[int], indices: np.ndarray, values: np.ndarray) -> sp.csr_matrix:
        indptr = np.zeros(len(lengths) + 1, np.int32 if indices.size < 2**31 else np.int64)
        np.cumsum(lengths, out=indptr[1:])
        return sp.csr_matrix((values, indices, indptr), shape=(len(lengths), self.limit))

    def _only_row(self) -> tuple[Any, Any]:
        if self.named:
            return _first_row(self._encode(self.named))
        if self.dense:
            return self.dense[0]
        return self.keys, self.values

    def _encode(self, rows: list[dict[str, Any]]) -> sp.csr_matrix:
        try:
            if self.asking is not None:
                return self.model.recommender.contexts(rows)
            return encode_rows(self.encoder, self.model.catalogue, rows).X
        except DataError as err:
            raise _renumbered(err, self.first) from None

    # -- complaints ------------------------------------------------------------------------------

    def _whole(self, keys: list[Any]) -> list[int]:
        """Return whole numbers that were written as 7.0 as integers."""
        if not _NUMBERS.issuperset(map(type, keys)) or any(key % 1 for key in keys):
            bad = next(k for k in keys if type(k) not in _NUMBERS or k % 1)
            raise self.wrong(f"expected whole numbers as keys, found {_shown(bad)}")
        return [int(key) for key in keys]

    def _no_number(self, values: list[Any]) -> Refusal:
        bad = next(value for value in values if type(value) not in _NUMBERS)
        return self.wrong(f"expected numbers as values, found {_shown(bad)}")

    def _too_large(self, value: Any, number: int | None = None) -> Refusal:
        return self.wrong(f"expected values up to {_LARGEST:.3g}, found {_shown(value)}", number)


def _as_float32(values: list[float]) -> np.ndarray:
    with np.errstate(over="ignore"):  # what becomes infinite is reported by the caller
        return np.array(values, np.float64).astype(np.float32)


def _first_row(X: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    end = X.indptr[1]
    return X.indices[:end], X.data[:end]


def _renumbered(err: FMError, first: int) -> Refusal:
    """Return the message of an error with the number of the instance in the request."""
    return Refusal(400, _ROW.sub(lambda m: f"instance {int(m[1]) + first - 1}", str(err)))


def _length(value: Any) -> str:
    return f"{len(value)} of them" if type(value) is list else _shown(value)


# -- JSON ----------------------------------------------------------------------------------------


def _decode_json(body: bytes, model: Model) -> Rows:
    if len(body) > _PIECE:
        rows = _in_pieces(body, model)
        if rows is not None:
            return rows
    try:
        document = orjson.loads(body)
    except ValueError as err:
        first, _, rest = body.strip().partition(b"\n")
        if rest and _is_json(first):  # several documents, one a line: what a transform job sends
            return _decode_jsonlines(body, model)
        raise Refusal(400, f"body: expected JSON, found {_complaint(err)}") from None
    batch = _Batch(model)
    _add_document(batch, document)
    return batch.rows(JSON)


def _in_pieces(body: bytes, model: Model) -> Rows | None:
    """Parse ``{"instances": [...]}`` piece by piece; None: parse it whole.

    A piece ends before a comma between two objects. Whether that comma stands in the list of
    instances, and not inside one or in a text, is seen by parsing: what is before it must be
    complete values. So the pieces are right, or the whole is left to the parser.
    """
    head = _HEAD.match(body)
    tail = _TAIL.search(body, max(0, len(body) - 4096))
    if head is None or tail is None:
        return None
    batch = _Batch(model)
    at, end = head.end(), tail.start()
    while at < end:
        cut = _BETWEEN.search(body, min(at + _PIECE, end), end)
        stop = end if cut is None else cut.start() + 1
        try:
            instances = orjson.loads(b"[" + body[at:stop] + b"]")
        except ValueError:
            return None
        if not instances:
            return None
        for instance in instances:
            batch.add(instance)
        batch.end_run()
        at = end if cut is None else cut.end()
    return batch.rows(JSON)


def _decode_jsonlines(body: bytes, model: Model) -> Rows:
    batch = _Batch(model)
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line or line.isspace():
            continue
        try:
            document = orjson.loads(line)
        except ValueError as err:
            raise Refusal(
                400,
                f"instance {batch.count + 1} (line {number}): expected JSON, found "
                f"{_complaint(err)}",
            ) from None
        _add_document(batch, document)
    return batch.rows(JSONLINES)


def _add_document(batch: _Batch, document: Any) -> None:
    """Add the instances of ``{"instances": [...]}``, or the instance that a document is."""
    if type(document) is dict and "recommend" in document and "recommend" not in batch.columns:
        for name in (name for name in document if name != "recommend"):
            raise Refusal(
                400,
                f"body: expected nothing beside recommend, found {_shown(name)}; options such as k "
                "stand inside",
            )
        wishes = document["recommend"]
        for wish in wishes if type(wishes) is list else [wishes]:
            batch.add_asking(wish)
    elif type(document) is dict and "instances" in document and "instances" not in batch.columns:
        for name in _OF_LISTS.intersection(document) if len(document) > 1 else ():
            raise Refusal(
                400, f"body: expected {name} in the instances that ask for recommendations, found "
                "it beside them"
            )  # fmt: skip
        instances = document["instances"]
        if type(instances) is not list:
            raise Refusal(400, f"body: expected a list of instances, found {_shown(instances)}")
        for instance in instances:
            batch.add(instance)
    elif type(document) is dict:
        batch.add(document)
    else:
        raise Refusal(
            400, f'body: expected {{"instances": [...]}}, found {_shown(document)}; see the '
            "forms of a request"
        )  # fmt: skip


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _complaint(err: ValueError) -> str:
    return str(err)[:200]


# -- the other formats ---------------------------------------------------------------------------


def _decode_csv(body: bytes, model: Model) -> Rows:
    batch = _Batch(model)
    if model.encoder is None:
        for number, line in enumerate(body.splitlines(), 1):
            if line.strip():
                batch.add_dense(_cells(line, number, batch))
        return batch.rows(CSV)
    try:
        text = body.decode()
    except UnicodeDecodeError as err:
        raise Refusal(400, f"body: expected text in UTF-8, found {err.reason}") from None
    names = list(model.encoder.field_names)
    needed = set(names) - set(may_be_left_out(model.catalogue))
    for number, cells in enumerate(_table(text, batch, len(names)), 1):
        if number == 1 and needed and needed <= set(cells) and len(cells) == len(set(cells)):
            names = cells  # a header, perhaps with further columns, or without some that are known
            continue
        if len(cells) != len(names):
            raise batch.wrong(
                f"expected {len(names)} cells ({', '.join(names)}), found {len(cells)}"
            )
        batch.add_named(dict(zip(names, cells, strict=True)))
    return batch.rows(CSV)


def _table(text: str, batch: _Batch, width: int) -> Iterator[list[str]]:
    blank = [""] if width == 1 else []  # of a table of one column, an empty line is an empty cell
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), strict=True):
            if cells or blank:
                yield cells or blank
    except csv.Error as err:
        raise batch.wrong(f"expected CSV, found {err}") from None


def _cells(line: bytes, number: int, batch: _Batch) -> list[float]:
    """Return the numbers of a line; almost always it is what stands in a list of JSON."""
    try:
        found: list[float] = orjson.loads(b"[" + line + b"]")
        if _NUMBERS.issuperset(map(type, found)):
            return found
    except ValueError:
        pass  # such as +1, .5 or a blank at the end
    values = []
    for cell in line.split(b","):
        try:
            value = float(cell.strip().strip(b'"'))
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or b"_" in cell:  # Python reads 1_000
            text = cell.decode("utf-8", "replace")
            raise batch.wrong(f"line {number}: expected finite numbers, found {_shown(text)}")
        values.append(value)
    return values


def _decode_libsvm(body: bytes, model: Model) -> Rows:
    # As in the file the model was trained on; else an index is the number of a feature, as
    # everywhere in a request. (To guess from one row, which may lack feature 0, would be wrong.)
    zero_based = model.zero_based is not False
    if _NO_LABEL.match(body.lstrip()):
        body = _NO_LABEL.sub(b"0 ", body)
    X, _ = read_libsvm(
        body, num_features=model.num_features, zero_based=zero_based, source="instances"
    )
    return Rows(X, None, LIBSVM)


def _decode_recordio(body: bytes, model: Model) -> Rows:
    X, _ = read_csr(body, num_features=model.num_features, source="instances", allow_bare=True)
    return Rows(X, None, RECORDIO)


_DECODERS = {
    JSON: _decode_json,
    JSONLINES: _decode_jsonlines,
    CSV: _decode_csv,
    LIBSVM: _decode_libsvm,
    RECORDIO: _decode_recordio,
}


# -- scores --------------------------------------------------------------------------------------


def predictions(model: Model, rows: Rows) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (scores, labels) as the built-in algorithm defines them.

    The score of a classifier is the probability of label 1, and the label is 1 where it is at
    least one half; a regressor has no labels.

    Raises
    ------
    Refusal
        400, if a prediction is not a finite number.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            if rows.one is not None:
                raw = np.array([model.score_row(*rows.one)], np.float32)
            else:
                raw = model.scores(rows.X, engine="scipy")
    except DataError as err:
        raise _renumbered(err, 1) from None
    if not np.isfinite(raw).all():
        at = int(np.argmax(~np.isfinite(raw)))
        raise Refusal(
            400, f"instance {at + 1}: the prediction is not a finite number; scale the values"
        )
    if not model.task.has_probabilities:
        return raw, None
    scores = model.task.loss.link(raw)
    return scores, (scores >= 0.5).astype(np.float32)
