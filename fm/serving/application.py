"""A model behind HTTP, as SageMaker's hosting and batch transform expect it.

Decided here: paths, statuses, and the order of the checks: headers before the body is read, all of
the body before anything is computed. Not decided here: the forms of bodies (``fm.serving.bodies``)
and answers (``fm.serving.media``), the processes and sockets (``fm.serving.server``), and the
command line (``fm.cli.serve``).

==========================  =====================================================================
GET /ping                   200: the model is loaded and has answered; 503: it is being loaded
POST /invocations           predictions for the rows in the body, or the best items for them
GET /execution-parameters   how a batch transform should send its data
POST /models                load a model (multi-model endpoints)
GET /models[/NAME]          list the models, or one
DELETE /models/NAME         unload a model
POST /models/NAME/invoke    as /invocations
==========================  =====================================================================

A request that cannot be answered gets a status of the 400s and ``{"error": "..."}``, which names
the instance that is wrong; a fault of ours gets 500, and the log has the traceback.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from fm.errors import ConfigError
from fm.model.model import Model
from fm.serving import lists as recommending
from fm.serving.bodies import decode, predictions
from fm.serving.limits import Limits
from fm.serving.media import (
    ANSWER_TYPES,
    JSONLINES,
    Content,
    Refusal,
    answer,
    answer_type,
    content_of_type,
)
from fm.serving.store import ModelStore

log = logging.getLogger("fm.serving")

_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_PAYLOAD_MB = 6  # SageMaker's own default for a batch transform
_PAGE = 100  # models listed at a time


class Answer(NamedTuple):
    """What is sent back to the client."""

    status: int
    media_type: str
    body: bytes


class Service:
    """Answers requests for predictions, which come from Flask or by the short way around it.

    Parameters
    ----------
    models : Model or ModelStore
        One model, which answers a first row at once, or models by name.
    limits : Limits
    default_accept : str, optional
        The media type of answers to clients that accept any.
    batch : bool
        Whether answers are joined by a batch transform.

    Raises
    ------
    ConfigError
        If `default_accept` is a type that we cannot write.
    FMError
        If the model cannot answer.
    """

    def __init__(
        self, models: Model | ModelStore, limits: Limits, default_accept: str | None, batch: bool
    ) -> None:
        if default_accept is not None and default_accept not in ANSWER_TYPES:
            raise ConfigError(
                f"default_accept: expected one of {', '.join(ANSWER_TYPES)}, found "
                f"{default_accept!r}"
            )
        if isinstance(models, Model):
            warm_up(models)
        self.models = models
        self.limits = limits
        self.default_accept = default_accept
        self.batch = batch
        self._turn = threading.Lock()

    def invoke(self, environ: dict[str, Any], name: str | None = None) -> Answer:
        """Answer a request for predictions; never raises.

        Parameters
        ----------
        environ : dict
            The request, in the form of WSGI (PEP 3333).
        name : str, optional
            The model to ask; None: the only one.
        """
        try:
            model = self._model(name)
            content = content_of_type(environ.get("CONTENT_TYPE") or None)
            accept = environ.get("HTTP_ACCEPT")
            media_type = self._answer_type(accept, content.form)
            body = read_body(environ, self.limits.body_bytes)
            if not body:
                raise Refusal(400, "body: expected instances, found an empty body")
            large = len(body) > self.limits.wait_bytes
            with self._turn if large else contextlib.nullcontext():
                return self._predict(model, body, content, media_type, accept)
        except Refusal as refusal:
            return refused(refusal)
        except MemoryError:
            return refused(Refusal(413, "body: too large for the memory of this server"))
        except Exception:
            log.exception("a request failed")
            return Answer(500, "application/json", b'{"error":"internal error; see the log"}')

    def _model(self, name: str | None) -> Model:
        if isinstance(self.models, Model):
            if name is None:
                return self.models
            raise Refusal(404, "this endpoint serves one model; use /invocations")
        if name is None:
            raise Refusal(404, "this endpoint serves several models; use /models/NAME/invoke")
        return self.models.get(name)

    def _answer_type(self, accept: str | None, form: str, lists: bool = False) -> str:
        return answer_type(accept, form, self.default_accept, self.batch, lists)

    def _predict(
        self, model: Model, body: bytes, content: Content, media_type: str, accept: str | None
    ) -> Answer:
        rows = decode(body, content, model)
        del body  # may be large, and is not needed for what follows
        if rows.form != content.form:  # JSON Lines with the Content-Type of JSON
            media_type = self._answer_type(accept, rows.form)
        if rows.asked is not None:
            media_type = self._answer_type(accept, rows.form, lists=True)
            return Answer(
                200, media_type, recommending.answer(model, rows.X, rows.asked, media_type)
            )
        scores, labels = predictions(model, rows)
        return Answer(200, media_type, answer(media_type, scores, labels))


def warm_up(model: Model) -> None:
    """Answer empty rows, so that the first request finds everything ready."""
    empty = b'{"data":{"features":{"keys":[],"values":[]}}}\n' if model.encoder is None else b"{}\n"
    for rows in (1, 2):
        found = decode(empty * rows, Content(JSONLINES, "utf-8"), model)
        answer("application/json", *predictions(model, found))
    recommending.warm_up(model)


def read_body(environ: dict[str, Any], limit: int) -> bytes:
    """Return the body of a request.

    Raises
    ------
    Refusal
        413 (larger than `limit`), 408 (the client stopped sending) or 400 (it cannot be read).
    """
    length = environ.get("CONTENT_LENGTH") or ""
    if not length and not environ.get("wsgi.input_terminated"):
        return b""
    expected = _expected_bytes(length, limit) if length else None
    try:
        body: bytes = environ["wsgi.input"].read(limit + 1 if expected is None else expected)
    except (TimeoutError, BlockingIOError):
        raise Refusal(408, "body: the client stopped sending") from None
    except Exception as err:  # errors of the server, such as for a malformed chunk
        raise Refusal(400, f"body: cannot be read ({err})") from None
    if len(body) > limit:
        raise Refusal(413, f"body: expected at most {limit} bytes, found more")
    if expected is not None and len(body) < expected:
        raise Refusal(400, f"body: expected {expected} bytes, found {len(body)}")
    return body


def _expected_bytes(length: str, limit: int) -> int:
    if not (length.isascii() and length.isdecimal()):
        raise Refusal(400, "Content-Length: expected a whole number")
    if int(length) > limit:
        raise Refusal(413, f"body: expected at most {limit} bytes, found {length}")
    return int(length)


def refused(refusal: Refusal) -> Answer:
    """Return the answer to a request that is refused, and note it in the log."""
    log.info("%d: %s", refusal.status, refusal.message)
    body = orjson.dumps({"error": refusal.message}, option=orjson.OPT_NON_STR_KEYS)
    return Answer(refusal.status, "application/json", body)


class ShortWay:
    """WSGI around a Flask app: requests for predictions do not need Flask's routing.

    Nearly all requests are for predictions. Through Flask (contexts, request and response objects,
    signals) each takes 1.4 times the processor time. The same method answers them either way.
    """

    def __init__(self, service: Service, flask: Callable[..., Iterable[bytes]]) -> None:
        self.service = service
        self.flask = flask

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request for predictions; Flask answers any other."""
        if environ["PATH_INFO"] != "/invocations" or environ["REQUEST_METHOD"] != "POST":
            return self.flask(environ, start_response)
        status, media_type, body = self.service.invoke(environ)
        headers = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
        start_response(_STATUS[status], headers)
        return [body]


def create_app(
    models: Model | ModelStore,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    *,
    default_accept: str | None = None,
    batch: bool = False,
    concurrency: int = 1,
) -> Flask:
    """Return the application.

    Parameters
    ----------
    models : Model or ModelStore
        One model, or models by name for a multi-model endpoint.
    limits : Limits, optional
    default_accept : str, optional
        The media type of answers to clients that accept any.
    batch : bool
        Whether answers are joined by a batch transform: RecordIO is then answered in JSON Lines.
    concurrency : int
        How many requests of a batch transform should be sent at a time.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> client = create_app(Model(3, [0.5], [[0]], TrainConfig(num_factors=1))).test_client()
    >>> client.post("/invocations", json={"instances": [{"features": [1]}]}).json
    {'predictions': [{'score': 3.5}]}
    """
    service = Service(models, limits, default_accept, batch)
    app = Flask("fm.serving.application", static_folder=None)

    @app.get("/ping")
    def ping() -> Response:
        return _response(Answer(200, "application/json", b""))

    @app.post("/invocations")
    def invocations() -> Response:
        return _response(service.invoke(request.environ))

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        parameters = {
            "MaxConcurrentTransforms": concurrency,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": min(_PAYLOAD_MB, limits.body_bytes >> 20),
        }
        return _json(parameters)

    if isinstance(models, ModelStore):
        _add_models(app, service, models)

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Response:
        return _response(refused(refusal))

    @app.errorhandler(HTTPException)
    def http_error(err: HTTPException) -> Response:
        """Answer 404 for an unknown path and 405 for a wrong method, as JSON."""
        response = _json({"error": f"{err.code} {err.name}: {request.method} {request.path[:200]}"})
        response.status_code = err.code or 500
        response.headers.extend(
            (name, value) for name, value in err.get_headers() if name == "Allow"
        )
        return response

    @app.errorhandler(Exception)
    def fault(err: Exception) -> Response:
        log.error("a request failed", exc_info=err)
        return _response(Answer(500, "application/json", b'{"error":"internal error"}'))

    app.wsgi_app = ShortWay(service, app.wsgi_app)  # type: ignore[method-assign]
    return app


def _add_models(app: Flask, service: Service, store: ModelStore) -> None:
    """Add the paths of a multi-model endpoint."""

    @app.post("/models")
    def load_model() -> Response:
        try:
            order = orjson.loads(read_body(request.environ, 1 << 20))
        except ValueError:
            order = None
        if not isinstance(order, dict):
            raise Refusal(400, 'body: expected {"model_name": "...", "url": "..."}')
        store.load(order.get("model_name"), order.get("url"))
        return _json({"status": "loaded"})

    @app.get("/models")
    def list_models() -> Response:
        names = store.names()
        start, limit = _number("next_page_token", 0), _number("limit", _PAGE)
        if not limit:  # the token would lead to the same page again
            raise Refusal(400, "limit: expected a whole number >= 1, found 0")
        found = []
        for name in names[start : start + limit]:
            with contextlib.suppress(Refusal):  # unloaded in the meantime
                found.append(store.describe(name))
        page: dict[str, Any] = {"models": found}
        if start + limit < len(names):
            page["nextPageToken"] = str(start + limit)
        return _json(page)

    @app.get("/models/<path:name>")
    def describe_model(name: str) -> Response:
        return _json(store.describe(name))

    @app.delete("/models/<path:name>")
    def unload_model(name: str) -> Response:
        store.unload(name)
        return _json({"status": "unloaded"})

    @app.post("/models/<path:name>/invoke")
    def invoke_model(name: str) -> Response:
        return _response(service.invoke(request.environ, name))


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise Refusal(400, f"{name}: expected a whole number, found {text[:40]!r}")
    return int(text)


def _json(value: Any) -> Response:
    return _response(Answer(200, "application/json", orjson.dumps(value)))


def _response(found: Answer) -> Response:
    return Response(found.body, found.status, content_type=found.media_type)
