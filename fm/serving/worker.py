"""One process of the server: gunicorn's threaded worker, kinder to its clients.

Decided here: who waits where. A client waits in the selector of the process, and costs nothing
there: before its first request, while a short request arrives, and until it has read the last
answer. A short request is answered in the main loop, as a thread would cost as much as the answer;
others get a thread when all of them is there. Longer ones are read by their thread, and a client
that is silent for too long loses it (see ``SO_RCVTIMEO`` in fm.serving.server).
"""

from __future__ import annotations

import contextlib
import mmap
import selectors
import socket
import time
from collections import deque
from functools import partial
from typing import Any

from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn, ThreadWorker

_LINGER = 2  # seconds that a client has to read the last answer before its connection is closed
_WATCHED = 1 << 16  # bytes of a request that are awaited before a thread is called
_SHORT_BYTES = 1 << 13  # of a request that is answered at once; a thread would cost more
_QUICK = b"POST /invocations ", b"GET /ping "
_SLOW = b'"k"', b'"recommend"'  # a list may look at a million items
_WHOLE, _SHORT = "whole", "short"
_AHEAD = 16  # clients more than another process has: it should take the next one
_PATIENCE = 0.05  # seconds that it may take for that
MOST_WORKERS, _NOBODY = 256, 2**31 - 1


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, but no client can keep it from serving the others.

    gunicorn gives a thread to every new connection, and closes connections in its main loop, up
    to two seconds each. Here both wait in the loop's selector. And where gunicorn's processes take
    whatever clients they can get, which may be all, these see to it that everyone gets as many.
    """

    # How many clients each process has: memory that all of them share, so it must be there before
    # they are.
    _clients = memoryview(mmap.mmap(-1, 4 * MOST_WORKERS)).cast("i")
    for _slot in range(MOST_WORKERS):
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
    short = short and not any(mark in seen for mark in _SLOW)
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
