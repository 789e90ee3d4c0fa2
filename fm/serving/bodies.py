"""Bodies to rows: the bytes of a request become the features of a model.

Decided here: the forms a body may have. Not decided here: what is checked of an instance
(``fm.serving.rows``). Nothing here knows HTTP servers.

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

If a format can give a feature twice in a row, the values are added.

The JSON parser lets no other thread run, so a long list of instances is parsed in pieces.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from fm.catalogue.filling import may_be_left_out
from fm.errors import DataError, FMError
from fm.formats.recordio import read_csr
from fm.formats.svmlight import read_libsvm
from fm.model.model import Model
from fm.serving.lists import OPTIONS
from fm.serving.media import CSV, JSON, JSONLINES, LIBSVM, RECORDIO, Content, Refusal
from fm.serving.media import shown as _shown
from fm.serving.rows import NUMBERS, Batch, Rows, renumbered

PIECE_BYTES = 1 << 17  # bytes of JSON parsed at a time: some milliseconds
_HEAD = re.compile(rb'\s*\{\s*"instances"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}\s*,(?=\s*\{)")
_TAIL = re.compile(rb"\]\s*\}\s*\Z")
_NO_LABEL = re.compile(rb"(?m)^(?=[ \t]*[0-9]+:)")
_OF_LISTS = frozenset(OPTIONS)


def decode(body: bytes, content: Content, model: Model) -> Rows:
    """Return the rows in a body.

    Parameters
    ----------
    body : bytes
        Not empty.
    content : Content
        What the request says about it.
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


# -- JSON ----------------------------------------------------------------------------------------


def _decode_json(body: bytes, model: Model) -> Rows:
    if len(body) > PIECE_BYTES:
        rows = _in_pieces(body, model)
        if rows is not None:
            return rows
    try:
        document = orjson.loads(body)
    except ValueError as err:
        first, _, rest = body.strip().partition(b"\n")
        if rest and _is_json(first):  # a transform job sends several documents, one in each line
            return _decode_jsonlines(body, model)
        raise Refusal(400, f"body: expected JSON, found {_complaint(err)}") from None
    batch = Batch(model)
    _add_document(batch, document)
    return batch.rows(JSON)


def _in_pieces(body: bytes, model: Model) -> Rows | None:
    """Parse ``{"instances": [...]}`` piece by piece; None: parse it whole.

    A piece ends before a comma between two objects. Such a comma may also stand inside an instance
    or in a text. But then what stands before it is not a list of complete values, and its parsing
    fails. So the pieces are right, or the body is parsed as a whole.
    """
    head = _HEAD.match(body)
    tail = _TAIL.search(body, max(0, len(body) - 4096))
    if head is None or tail is None:
        return None
    batch = Batch(model)
    at, end = head.end(), tail.start()
    while at < end:
        cut = _BETWEEN.search(body, min(at + PIECE_BYTES, end), end)
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
    batch = Batch(model)
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


def _add_document(batch: Batch, document: Any) -> None:
    """Add the instances of ``{"instances": [...]}``, or the instance that a document is."""
    if type(document) is not dict:
        raise Refusal(
            400, f'body: expected {{"instances": [...]}}, found {_shown(document)}; see the '
            "forms of a request"
        )  # fmt: skip
    if "recommend" in document and "recommend" not in batch.columns:
        _add_asking(batch, document)
    elif "instances" in document and "instances" not in batch.columns:
        _add_instances(batch, document)
    else:
        batch.add(document)


def _add_asking(batch: Batch, document: dict[str, Any]) -> None:
    for name in document:
        if name != "recommend":
            raise Refusal(
                400,
                f"body: expected nothing beside recommend, found {_shown(name)}; options such as k "
                "stand inside",
            )
    wishes = document["recommend"]
    for wish in wishes if type(wishes) is list else [wishes]:
        batch.add_asking(wish)


def _add_instances(batch: Batch, document: dict[str, Any]) -> None:
    for name in _OF_LISTS.intersection(document):
        raise Refusal(
            400,
            f"body: expected {name} in the instances that ask for recommendations, found it beside "
            "them",
        )
    instances = document["instances"]
    if type(instances) is not list:
        raise Refusal(400, f"body: expected a list of instances, found {_shown(instances)}")
    for instance in instances:
        batch.add(instance)


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
    batch = Batch(model)
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


def _table(text: str, batch: Batch, width: int) -> Iterator[list[str]]:
    blank = [""] if width == 1 else []  # in a table of one column, an empty line is an empty cell
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), strict=True):
            if cells or blank:
                yield cells or blank
    except csv.Error as err:
        raise batch.wrong(f"expected CSV, found {err}") from None


def _cells(line: bytes, number: int, batch: Batch) -> list[float]:
    """Return the numbers of a line, which nearly always are written as in a list of JSON."""
    try:
        found: list[float] = orjson.loads(b"[" + line + b"]")
        if NUMBERS.issuperset(map(type, found)):
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
    # As in the training file. If that is not known, an index is the number of a feature, as in the
    # other formats. (A guess from one row, which may lack feature 0, would be wrong.)
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
        raise renumbered(err, 1) from None
    if not np.isfinite(raw).all():
        at = int(np.argmax(~np.isfinite(raw)))
        raise Refusal(
            400, f"instance {at + 1}: the prediction is not a finite number; scale the values"
        )
    if not model.task.has_probabilities:
        return raw, None
    scores = model.task.loss.link(raw)
    return scores, (scores >= 0.5).astype(np.float32)
