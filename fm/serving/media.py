"""Media types: of requests, of answers, and the bytes of an answer.

Decided here: which media types there are, how ``Accept`` is understood (RFC 9110, section 12.5.1),
and the form of an answer in each type, which is that of SageMaker's built-in algorithm. Nothing
here knows HTTP servers.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson

from fm.formats.recordio_writer import write_predictions

JSON, JSONLINES, CSV, LIBSVM, RECORDIO = "json", "jsonlines", "csv", "libsvm", "recordio"

# The names of the types; the first one of a format is used in answers.
REQUEST_TYPES = {
    "application/json": JSON,
    "application/jsonlines": JSONLINES,
    "application/x-jsonlines": JSONLINES,
    "application/x-ndjson": JSONLINES,
    "text/csv": CSV,
    "text/libsvm": LIBSVM,
    "text/x-libsvm": LIBSVM,
    "application/x-recordio-protobuf": RECORDIO,
}
ANSWER_TYPES = {name: form for name, form in REQUEST_TYPES.items() if form != LIBSVM}
LIST_TYPES = {name: form for name, form in ANSWER_TYPES.items() if form in (JSON, JSONLINES)}
# The encodings of bodies. Not all that Python has: some of its codecs take quadratic time.
_CHARSETS = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252"}
_SAME_FAMILY = {
    JSON: "application/json",
    JSONLINES: "application/jsonlines",
    CSV: "text/csv",
    LIBSVM: "text/csv",
    RECORDIO: "application/json",
}
_SHOWN = 60  # characters of a request that a message shows
PREDICTIONS_AT_ONCE = 8192  # written together: the writer of JSON lets no other thread run


class Refusal(Exception):  # noqa: N818  (an answer, not a fault of ours)
    """A request that is answered with a status of the 400s.

    Parameters
    ----------
    status : int
        The HTTP status.
    message : str
        What is wrong with the request, in one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def shown(value: Any) -> str:
    """Return a value of a request for a message: the beginning of its JSON."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits
        text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class Content(NamedTuple):
    """What a request says about its body."""

    form: str  # JSON, JSONLINES, ...
    charset: str  # of texts; "utf-8" needs no conversion


@lru_cache(maxsize=256)
def content_of_type(header: str | None) -> Content:
    """Return what a Content-Type header says; without a header, a body is JSON.

    Raises
    ------
    Refusal
        415, if we cannot read the type.

    Examples
    --------
    >>> content_of_type("Application/JSON; charset=UTF-8")
    Content(form='json', charset='utf-8')
    """
    name, parameters = _split(header or "application/json")
    form = REQUEST_TYPES.get(name)
    if form is None:
        raise Refusal(
            415, f"Content-Type: expected one of {', '.join(REQUEST_TYPES)}, found {name[:80]!r}"
        )
    charset = parameters.get("charset", "utf-8").strip("\"'").lower()
    if charset not in _CHARSETS and form != RECORDIO:
        raise Refusal(415, f"Content-Type: expected charset=utf-8, found {charset[:40]!r}")
    return Content(form, "utf-8" if charset in ("utf8", "us-ascii", "ascii") else charset)


@lru_cache(maxsize=256)
def answer_type(
    accept: str | None, form: str, default: str | None, batch: bool, lists: bool = False
) -> str:
    """Return the media type of the answer.

    Parameters
    ----------
    accept : str or None
        The Accept header.
    form : str
        The format of the request; if the client accepts any, the answer is of the same family.
    default : str or None
        The media type of the answer if the client accepts any.
    batch : bool
        Whether this is a batch transform, whose answers are joined: JSON Lines for RecordIO.
    lists : bool
        Whether the answer is lists of items, which can be written in JSON or JSON Lines only.

    Raises
    ------
    Refusal
        406, if we cannot write what the client accepts.

    Examples
    --------
    >>> answer_type("text/csv;q=0.5, application/jsonlines; verbose=true", "json", None, False)
    'application/jsonlines'
    >>> answer_type(None, "recordio", None, True)
    'application/jsonlines'
    """
    types = LIST_TYPES if lists else ANSWER_TYPES
    if default not in types:
        default = None
    ours = default or (_SAME_FAMILY[JSONLINES if batch and form == RECORDIO else form])
    if accept is None or not accept.strip():
        return ours
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    # Among equal ranks max takes the first one, which is ours.
    rank, chosen = max(
        ((_rank(name, ranges), name) for name in dict.fromkeys([ours, *types])),
        key=lambda ranked: ranked[0],
    )
    if rank[0] == 0:
        what = " for recommendations" if lists else ""
        raise Refusal(
            406, f"Accept: expected one of {', '.join(types)}{what}, found {accept[:80]!r}"
        )
    return chosen


def _rank(name: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """Return how much a client wants a media type: its weight, and how exactly it is named."""
    family = name.partition("/")[0] + "/*"
    for detail, pattern in ((2, name), (1, family), (0, "*/*")):
        weights = [weight for found, weight in ranges if found == pattern]
        if weights:  # the most specific range that fits counts
            return max(weights), detail
    return 0.0, 0


def _split(header: str) -> tuple[str, dict[str, str]]:
    name, *parts = header.split(";")
    pairs = (part.partition("=") for part in parts)
    return name.strip().lower(), {key.strip().lower(): value.strip() for key, _, value in pairs}


def _range(text: str) -> tuple[str, float]:
    """Return a media range and its weight; a weight that is not from 0 to 1 counts as 0."""
    name, parameters = _split(text)
    try:
        weight = float(parameters.get("q", "1"))
    except ValueError:
        weight = 0.0
    return name, weight if 0 <= weight <= 1 else 0.0


def answer(media_type: str, scores: np.ndarray, labels: np.ndarray | None) -> bytes:
    r"""Return predictions as the bytes of a media type.

    Parameters
    ----------
    media_type : str
        One of ANSWER_TYPES.
    scores : ndarray of float32, shape (num_rows,)
        Probabilities of label 1, or the predictions of a regressor; finite.
    labels : ndarray, shape (num_rows,), or None
        Labels 0 and 1; None for a regressor.

    Examples
    --------
    >>> answer("application/jsonlines", np.float32([0.5]), np.float32([1]))
    b'{"score":0.5,"predicted_label":1.0}\n'
    """
    form = ANSWER_TYPES[media_type]
    if form == RECORDIO:
        file = io.BytesIO()
        write_predictions(file, scores, labels)
        return file.getvalue()
    write = _csv if form == CSV else _objects
    parts = [
        write(
            scores[i : i + PREDICTIONS_AT_ONCE].tolist(),
            None if labels is None else labels[i : i + PREDICTIONS_AT_ONCE].tolist(),
        )
        for i in range(0, len(scores), PREDICTIONS_AT_ONCE)
    ]
    if form == CSV:
        return b"".join(parts)
    if form == JSONLINES:
        return b"".join(part.replace(b"},{", b"}\n{") + b"\n" for part in parts)
    return b'{"predictions":[' + b",".join(parts) + b"]}"


def _csv(scores: list[float], labels: list[float] | None) -> bytes:
    if labels is None:
        return orjson.dumps(scores)[1:-1].replace(b",", b"\n") + b"\n"
    rows = orjson.dumps(list(zip(scores, labels, strict=True)))
    return rows[2:-2].replace(b"],[", b"\n") + b"\n"


def _objects(scores: list[float], labels: list[float] | None) -> bytes:
    if labels is None:
        rows = [{"score": score} for score in scores]
    else:
        pairs = zip(scores, labels, strict=True)
        rows = [{"score": score, "predicted_label": label} for score, label in pairs]
    return orjson.dumps(rows)[1:-1]
