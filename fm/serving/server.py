"""The process around the application: gunicorn, its sockets, its logs, its end.

Decided here: the order in which a server starts and stops.

1. The socket is bound. GET /ping is answered with 503 until the model is loaded and has answered
   its first row. If a model cannot be loaded, the process ends and says why.
2. The processes that answer are forked, so that they share the model's memory.
3. SIGTERM: no more connections begin. Those in the socket's queue are accepted, then the socket is
   closed. Requests in flight, and those that arrive on open connections within two seconds, are
   answered.

Not decided here: what happens inside a process (``fm.serving.worker``).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import selectors
import signal
import socket
import struct
import tempfile
import threading
import traceback
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NoReturn

import orjson
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from fm.errors import ConfigError
from fm.model.load import load
from fm.serving.application import create_app, log, warm_up
from fm.serving.limits import Limits
from fm.serving.store import ModelStore
from fm.serving.worker import MOST_WORKERS, Worker

KEEPALIVE = 75  # seconds that an idle connection stays open
_SILENCE = 15  # seconds without a byte after which a thread closes the connection
_GRACE = 20  # seconds for requests in flight at the end; SageMaker kills after 30
_CONNECTIONS = 2000  # of each process
_LOADING = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b'Retry-After: 1\r\nContent-Length: 37\r\n\r\n{"error":"the model is being loaded"}'
)


def run_server(
    path: str | os.PathLike[str],
    *,
    bind: str = "127.0.0.1:8080",
    workers: int = 1,
    threads: int = 32,
    timeout: int = 60,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    multi_model: bool = False,
    model_bytes: int | None = None,
    default_accept: str | None = None,
    batch: bool = False,
    access_log: bool = False,
) -> NoReturn:
    """Serve a model until SIGTERM or SIGINT comes; ends with SystemExit, with 0 if all is well.

    Parameters
    ----------
    path : path
        What :func:`fm.load` reads; with `multi_model`, the directory that models are in.
    bind : str
        ``HOST:PORT``.
    workers, threads : int
        Processes, and threads of each. A multi-model endpoint has one process.
    timeout : int
        Seconds without a sign of life after which a process is replaced.
    limits : Limits, optional
    multi_model : bool
        Whether to serve all models in the directory, and to load and unload models by requests.
    model_bytes : int, optional
        The memory that the models of a multi-model endpoint may take together.
    default_accept, batch
        See :func:`fm.serving.application.create_app`.
    access_log : bool
        Whether every request is logged, to standard output.

    Raises
    ------
    FMError
        If there is no such model, or it cannot answer.
    OSError
        If the address cannot be used.
    """
    # A signal without a handler would not end us if we are the first process of a container.
    signal.signal(signal.SIGTERM, _leave)
    _log_as_json()
    listener = _listen(bind)
    workers = 1 if multi_model else min(workers, MOST_WORKERS)
    options: dict[str, Any] = {
        "default_accept": default_accept,
        "batch": batch,
        "concurrency": workers,
    }
    store: ModelStore | None = None
    with _answering_503(listener):
        if multi_model:
            record = Path(_writable_directory(), f"fm-models-{os.getpid()}.json")
            record.unlink(missing_ok=True)
            store = ModelStore(path, max_bytes=model_bytes, warm_up=warm_up, record=record)
            store.discover()
            app = create_app(store, limits, **options)
        else:
            app = create_app(load(path), limits, **options)
    host, port = listener.getsockname()[:2]
    log.info("serving %s at http://%s:%d with %d processes", path, host, port, workers)
    settings = {
        "bind": f"fd://{listener.detach()}",
        "workers": workers,
        "threads": threads,
        "timeout": timeout,
        "graceful_timeout": _GRACE,
        "keepalive": KEEPALIVE,
        "worker_class": Worker,
        "worker_connections": _connections(),
        "worker_tmp_dir": _writable_directory(),
        "logger_class": JsonLogger,
        "loglevel": "warning",
        "accesslog": "-" if access_log else None,
        "pre_fork": _before_fork,
        **({} if store is None else _hooks(store)),
        "preload_app": True,
        "control_socket_disable": True,
        "forwarded_allow_ips": "",  # headers of proxies are not used
        "secure_scheme_headers": {},
    }
    _Server(app, settings).run()
    raise SystemExit(0)


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, app: Flask, settings: dict[str, Any]) -> None:
        self._app = app
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._app.wsgi_app  # without Flask's own call around it, which does nothing here


def _leave(*_: Any) -> None:
    raise SystemExit(0)


def _before_fork(arbiter: Any, worker: Worker) -> None:
    """Give a process the first number that is free, and let it share the memory of this one."""
    taken = {other.slot for other in arbiter.WORKERS.values()}
    worker.slot = min(set(range(MOST_WORKERS)) - taken)
    gc.collect()
    gc.freeze()  # the collector would write to all objects, and so copy them


def _hooks(store: ModelStore) -> dict[str, Any]:
    def restore(worker: Any) -> None:
        store.restore(after_each=worker.notify)  # else it would seem to hang

    def close(server: Any) -> None:
        store.close()

    return {"post_worker_init": restore, "on_exit": close}


# -- before the model is loaded ------------------------------------------------------------------


def _listen(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"bind: expected HOST:PORT, found {bind!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit this: a thread that waits longer gets an error.
        silence = struct.pack("ll", _SILENCE, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, silence)
        listener.bind((host, int(port)))
        listener.listen(2048)
    except OSError as err:
        listener.close()
        raise OSError(err.errno, err.strerror, f"http://{bind}") from err
    return listener


@contextlib.contextmanager
def _answering_503(listener: socket.socket) -> Iterator[None]:
    """Answer every connection with 503, in a thread that has ended before anything is forked."""
    done, wake = socket.socketpair()

    def answer() -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(done, selectors.EVENT_READ)
            while done not in [key.fileobj for key, _ in selector.select()]:
                with contextlib.suppress(OSError):
                    client, _ = listener.accept()
                    with client:
                        client.settimeout(0.5)
                        client.recv(65536)
                        client.sendall(_LOADING)
                        client.shutdown(socket.SHUT_WR)

    listener.setblocking(False)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        wake.close()
        thread.join()
        done.close()


# -- what the machine has ------------------------------------------------------------------------


def _connections() -> int:
    """Raise the limit of open files, and return how many clients a process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        with contextlib.suppress(ValueError, OSError):
            wanted = 2 * _CONNECTIONS if hard == resource.RLIM_INFINITY else hard
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max(64, min(_CONNECTIONS, soft - 256))


def _writable_directory() -> str:
    """Return a directory for small files, in memory if there is one."""
    for directory in ("/dev/shm", tempfile.gettempdir()):
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=directory):
            return directory
    raise ConfigError("no directory for temporary files can be written; make /tmp writable")


# -- logs ----------------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """A log record as an object of JSON on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            **getattr(record, "request", {"message": record.getMessage()}),
        }
        if record.exc_info:
            entry["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return orjson.dumps(entry, default=str).decode()


class JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger, as lines of JSON."""

    def setup(self, cfg: Any) -> None:
        """Set up the handlers."""
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JsonFormatter())

    def access(self, resp: Any, req: Any, environ: Any, request_time: timedelta) -> None:
        """Log a request, if requests are to be logged."""
        if self.access_log_enabled:
            entry = {
                "client": environ.get("REMOTE_ADDR"),
                "method": environ.get("REQUEST_METHOD"),
                "path": environ.get("PATH_INFO"),
                "status": str(resp.status).partition(" ")[0],
                "bytes": resp.sent,
                "milliseconds": round(request_time.total_seconds() * 1000, 3),
            }
            self.access_log.info("", extra={"request": entry})


def _log_as_json() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
