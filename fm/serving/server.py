"""The process around the application: gunicorn, its sockets, its logs, its end. Floor 4.

Decided here: the order in which a server starts and stops.

1. The socket is bound; GET /ping is answered with 503 while the model is loaded and answers its
   first row. A model that cannot be loaded ends the process with the reason.
2. The processes that answer are forked, so that they share the model's memory.
3. SIGTERM: what waits in the socket's queue is accepted, then the socket is closed; requests in
   flight, and those that arrive on open connections within two seconds, are answered.

A thread gets a request when all of it is there, so that slow and silent clients cost no thread.
(Longer requests are read by a thread; a client that sends nothing for a while loses it.)
"""

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import os
import resource
import selectors
import signal
import socket
import struct
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import orjson
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn, ThreadWorker

from fm.errors import ConfigError
from fm.model import load
from fm.serve import create_app, log, warm_up
from fm.serving.limits import Limits
from fm.serving.store import ModelStore

KEEPALIVE = 75  # seconds that an idle connection stays open
_SILENCE = 15  # seconds without a byte after which a thread gives a client up
_GRACE = 20  # seconds for requests in flight at the end; SageMaker kills after 30
_LINGER = 2  # seconds that a client has to read the last answer before its connection is closed
_WATCHED = 1 << 16  # bytes of a request that are awaited before a thread is called
_SHORT_BYTES = 1 << 13  # of a request that is answered at once; a thread would cost more
_QUICK = b"POST /invocations ", b"GET /ping "
_WHOLE, _SHORT = "whole", "short"
_AHEAD = 16  # clients more than another process has: it should take the next one
_PATIENCE = 0.05  # seconds that it may take for that
_MOST_WORKERS, _NOBODY = 256, 2**31 - 1
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
    """Serve a model until SIGTERM or SIGINT comes; leaves by SystemExit, with 0 if all is well.

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
        Whether models are loaded and unloaded by requests.
    model_bytes : int, optional
        What the models of a multi-model endpoint may take together.
    default_accept, batch
        See :func:`fm.serve.create_app`.
    access_log : bool
        Whether every request is logged, to standard output.

    Raises
    ------
    FMError
        If there is no such model, or it cannot answer.
    OSError
        If the address cannot be used.
    """
    # As the first process of a container, we would not be ended by a signal without a handler.
    signal.signal(signal.SIGTERM, _leave)
    _log_as_json()
    listener = _listen(bind)
    workers = 1 if multi_model else min(workers, _MOST_WORKERS - 1)
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
        "pre_fork": _share_memory,
        "child_exit": Worker.leave,
        **({} if store is None else _hooks(store)),
        "preload_app": True,
        "control_socket_disable": True,
        "forwarded_allow_ips": "",  # nothing that a proxy could say matters here
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
        return self._app.wsgi_app  # what is around it (request counting, ...) is not used


def _leave(*_: Any) -> None:
    raise SystemExit(0)


def _share_memory(arbiter: Any, worker: Any) -> None:
    """Let the collector leave alone what all processes share; to visit it would copy it."""
    gc.collect()
    gc.freeze()


def _hooks(store: ModelStore) -> dict[str, Any]:
    def restore(worker: Any) -> None:
        store.restore()

    def close(server: Any) -> None:
        store.close()

    return {"post_worker_init": restore, "on_exit": close}


# -- before the model is there -------------------------------------------------------------------


def _listen(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"bind: expected HOST:PORT, found {bind!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by accepted connections: what a thread waits for longer fails.
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
    """Answer every connection with 503, from a thread that is gone before anything is forked."""
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


# -- the worker ----------------------------------------------------------------------------------


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, but no client can keep it from serving the others.

    gunicorn gives a thread to every new connection, and closes connections in its main loop, up
    to two seconds each. Here both wait in the loop's selector. And where gunicorn's processes take
    whatever clients they can get, which may be all, these see to it that everyone gets as many.
    """

    # How many clients each process has: memory that all of them share, so it must be there before
    # they are.
    _clients = memoryview(mmap.mmap(-1, 4 * _MOST_WORKERS)).cast("i")
    for _slot in range(_MOST_WORKERS):
        _clients[_slot] = _NOBODY

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._closing: deque[TConn] = deque()
        self._slot = self._clients.tolist().index(_NOBODY)  # the first process decides
        self._clients[self._slot] = 0
        self._fewest, self._patient_until = -1, 0.0

    @classmethod
    def leave(cls, arbiter: Any, worker: Worker) -> None:
        """Note that a process has ended."""
        cls._clients[worker._slot] = _NOBODY

    # What is overridden here is called by gunicorn's main loop, on the main thread.

    def notify(self) -> None:
        """Give a sign of life."""
        super().notify()
        self._clients[self._slot] = self.nr_conns

    def accept(self, listener: Any) -> None:
        """Take the clients in the queue, which wait for their first request in the selector."""
        while not self._leaves_it():
            try:
                client, address = listener.accept()
            except OSError:
                return  # there are no more, or another process was faster
            self.nr_conns += 1
            conn = TConn(self.cfg, client, address, listener.getsockname())
            conn.timeout, conn.alarm = time.monotonic() + self.cfg.keepalive, 0
            self.pending_conns.append(conn)
            self.poller.register(
                client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn)
            )

    def _leaves_it(self) -> bool:
        """Whether a client should be left to a process that has fewer, unless that does nothing."""
        self._clients[self._slot] = self.nr_conns
        if not self.alive:
            return False
        if self.nr_conns >= self.worker_connections:
            return True
        fewest = min(self._clients)
        if self.nr_conns <= fewest + _AHEAD:
            return False
        now = time.monotonic()
        if fewest != self._fewest:
            self._fewest, self._patient_until = fewest, now + _PATIENCE
        if now > self._patient_until:
            return False
        time.sleep(_PATIENCE / 100)  # the selector would report it again at once
        return True

    def on_pending_socket_readable(self, conn: TConn, client: Any) -> None:
        """Have the first request of a client answered, if all of it is there."""
        arrived = _arrived(conn, client)
        if arrived is _SHORT:
            self._answer(conn, self.pending_conns)
        elif arrived:
            super().on_pending_socket_readable(conn, client)

    def on_client_socket_readable(self, conn: TConn, client: Any) -> None:
        """Have a later request answered, if all of it is there."""
        arrived = _arrived(conn, client)
        if arrived is _SHORT:
            self._answer(conn, self.keepalived_conns)
        elif arrived:
            super().on_client_socket_readable(conn, client)

    def _answer(self, conn: TConn, waiting: deque[TConn]) -> None:
        """Answer a short request at once, as ThreadWorker.handle does it in a thread.

        Nothing here waits: all of the request is there, and what the client does not take of the
        answer is left to a thread.
        """
        waiting.remove(conn)
        request, goes_on, rest = None, False, b""
        try:
            if not conn.initialized:
                conn.init()
                conn.sock.setblocking(False)
            request, held = next(conn.parser), _Held(conn)
            goes_on = self.handle_request(request, held) and conn.parser.finish_body()
            rest = b"".join(held.parts)
            rest = rest[conn.sock.send(rest) :]
        except BlockingIOError:
            pass  # the client has not even read what it got before
        except (OSError, StopIteration):
            goes_on = False
        except Exception as err:
            self.handle_error(request, conn.sock, conn.client, err)
        if goes_on and not rest:
            conn.set_timeout()
            self.keepalived_conns.append(conn)
            if waiting is self.pending_conns:
                later = partial(self.on_client_socket_readable, conn)
                self.poller.modify(conn.sock, selectors.EVENT_READ, later)
            return
        self.poller.unregister(conn.sock)
        if not rest:
            self._part(conn)
            return
        sending = self.tpool.submit(_send, conn.sock, rest, goes_on)
        sending.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Wait for the next request, or for the client to read the last answer."""
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
        else:
            self._part(conn)

    def _part(self, conn: TConn) -> None:
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.timeout = time.monotonic() + _LINGER
        self._closing.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))

    def _drain(self, conn: TConn, client: Any) -> None:
        """Read what a client still sends: to close without would destroy our last answer."""
        try:
            if client.recv(1 << 16):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # the client is gone
        self._closing.remove(conn)
        self.poller.unregister(client)
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Close connections whose time is over."""
        super().murder_pending()
        while self._closing and self._closing[0].timeout <= time.monotonic():
            conn = self._closing.popleft()
            self.poller.unregister(conn.sock)
            self._close(conn)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or end to take clients; at the end, those in the queue are the last ones."""
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        for listener in self.sockets:  # the end: clients in the queue think they are connected
            self.accept(listener)
            listener.close()

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what is not HTTP."""
        if isinstance(exc, UnsupportedTransferCoding):  # gunicorn: 501, but it is no fault of ours
            exc = InvalidHeader("TRANSFER-ENCODING", req=req)
        super().handle_error(req, client, addr, exc)


def _send(client: socket.socket, data: bytes, goes_on: bool) -> bool:
    """Send data to a client that takes its time."""
    client.setblocking(True)
    client.sendall(data)
    return goes_on


class _Held:
    """A connection that keeps what is written, so that head and body are sent in one piece."""

    def __init__(self, conn: TConn) -> None:
        self.sock, self.client, self.server = self, conn.client, conn.server
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Keep a part of the answer."""
        self.parts.append(data)


def _arrived(conn: TConn, client: socket.socket) -> str:
    """Return how much of a request is there: "" (not all of it), _WHOLE or _SHORT.

    If it is not all there, an alarm is set: the selector reports the socket again when it holds as
    many bytes as the alarm says, or when no more will come. What is not looked at here (long or
    chunked requests, nonsense) counts as whole: the parser decides.
    """
    try:
        seen = client.recv(_WATCHED, socket.MSG_PEEK)
    except BlockingIOError:
        return ""
    except OSError:
        return _WHOLE
    needed = _bytes_needed(seen)
    waits = max(len(seen), conn.alarm - 1) < needed <= _WATCHED  # short of the alarm: its end
    if waits or conn.alarm:
        conn.alarm = needed if waits else 0
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(1, conn.alarm))
    if waits:
        return ""
    short = len(seen) == needed < _SHORT_BYTES and seen.startswith(_QUICK)
    return _SHORT if short or not seen else _WHOLE  # nothing: the client has left


def _bytes_needed(seen: bytes) -> int:
    """Return how long a request is whose first bytes are given, as far as these tell."""
    head, end, _ = seen.partition(b"\r\n\r\n")
    if not end:
        strange = not seen or seen.count(b"\n") != seen.count(b"\r\n")
        return 0 if strange else len(seen) + 1
    fields = head.lower()
    _, named, value = fields.partition(b"\r\ncontent-length:")
    length = value.partition(b"\r\n")[0].strip()
    if not named and b"\r\ntransfer-encoding:" not in fields:
        return len(head) + 4
    if not named or not length.isdigit() or len(length) > 9 or b"\r\nexpect:" in fields:
        return 0  # an expectation is answered before the body comes
    return len(head) + 4 + int(length)


# -- what the machine has ------------------------------------------------------------------------


def _connections() -> int:
    """Return how many clients a process may have, having raised the limit of open files."""
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
        """Log a request, if that is wanted."""
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
