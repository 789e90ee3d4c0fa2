"""One process of the server: gunicorn's threaded worker, kinder to its clients.

Why not gunicorn's own (``scripts/bench/serve.py --plain`` measures it): there a request takes 1.2
to 1.3 times the processor time; 200 clients that have sent half a request keep the others waiting
for 30 seconds, here for milliseconds; and SIGTERM under 64 clients loses a request of each, here
none.

Decided here: who waits where. A client waits in the selector of the process, where it costs
nothing: before its first request, while a request arrives, and until it has read the last answer.
The main loop answers a short request at once, because a thread would cost as much as the answer;
threads answer the others. A request of more than 64 kB is read by its thread, and a client that is
silent for too long loses it (see ``SO_RCVTIMEO`` in fm.serving.server).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import selectors
import socket
import struct
import sys
import time
from functools import partial
from typing import Any

from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn, ThreadWorker

_LINGER = 2  # seconds that a client has to read the last answer before its connection is closed
_WATCHED = 1 << 16  # a request of fewer bytes gets a thread only when all of it is there
_SHORT_BYTES = 1 << 13  # a request of fewer bytes may be answered by the main loop
_QUICK = b"POST /invocations ", b"GET /ping "
_SLOW = b'"k"', b'"recommend"'  # a list may look at a million items
_PART, _SHORT, _WHOLE = "part", "short", "whole"  # how much of a request is there
_AHEAD = 4  # a process with so many clients more than another lets that one take the next
_HEAD_START = 0.0005  # seconds that the other has for that
_HANDSHAKE = 0.05  # seconds that connections which have begun may take to get into the queue
MOST_WORKERS = 1024  # whose counts of clients fit into a page of memory


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, but no client can keep it from serving the others.

    Attributes
    ----------
    slot : int
        The number of the process, from 0 on.
    """

    slot = 0
    # How many clients each process has: memory that all of them share, made before they are.
    _clients = memoryview(mmap.mmap(-1, 4 * MOST_WORKERS)).cast("i")

    # What is overridden here is called by gunicorn's main loop, on the main thread.

    def notify(self) -> None:
        """Give a sign of life."""
        super().notify()
        self._clients[self.slot] = self.nr_conns

    def accept(self, listener: socket.socket) -> None:
        """Take the clients in the queue; they wait for their first request in the selector.

        A process that has more clients than another takes only one, after the other had time to
        take it. Left to themselves, one process may get nearly all clients and the other none.
        """
        taken = 0
        while not self.alive or self.nr_conns < self.worker_connections:
            self._clients[self.slot] = self.nr_conns
            if self.alive and self.nr_conns > min(self._clients[: self.cfg.workers]) + _AHEAD:
                if taken:
                    return  # the selector reports the queue again
                time.sleep(_HEAD_START)
            try:
                client, address = listener.accept()
            except OSError:
                return  # there are no more, or another process was faster
            taken += 1
            self.nr_conns += 1
            conn = TConn(self.cfg, client, address, listener.getsockname())
            conn.data_ready, conn.alarm = True, 0
            conn.set_timeout()
            self.keepalived_conns.append(conn)
            readable = partial(self.on_client_socket_readable, conn)
            self.poller.register(client, selectors.EVENT_READ, readable)

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Have a request answered, if all of it is there."""
        arrived = _arrived(conn, client)
        if arrived is _SHORT:
            self._answer(conn)
        elif arrived is _WHOLE:
            super().on_client_socket_readable(conn, client)

    def _answer(self, conn: TConn) -> None:
        """Answer a short request at once, as ThreadWorker.handle does in a thread.

        Nothing here waits: all of the request is there, and a thread sends what the client does
        not take of the answer.
        """
        self.keepalived_conns.remove(conn)
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
            return
        self.poller.unregister(conn.sock)
        if not rest:
            self._part(conn)
            return
        sent = self.tpool.submit(_send, conn.sock, rest, goes_on)
        sent.add_done_callback(
            lambda sent: self.method_queue.defer(self.finish_request, conn, sent)
        )

    def finish_request(self, conn: TConn, done: Any) -> None:
        """Wait for the next request, or for the client to read the last answer."""
        if not done.cancelled() and done.exception() is None and done.result():
            super().finish_request(conn, done)
        else:
            self._part(conn)

    def _part(self, conn: TConn) -> None:
        """Close a connection, but only when the client has: else it might lose our last answer."""
        with contextlib.suppress(OSError):  # the client is gone, as the selector will say
            conn.sock.shutdown(socket.SHUT_WR)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + _LINGER
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def on_pending_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Read what a client still sends after its last answer, and close when it has closed."""
        try:
            if client.recv(1 << 16):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # the client is gone
        self.pending_conns.remove(conn)
        self.poller.unregister(client)
        self.nr_conns -= 1
        conn.close()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or end to take clients. At the end, those in the queue are the last ones."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            begin_no_more(listener)
        time.sleep(_HANDSHAKE)
        for listener in self.sockets:
            self.accept(listener)  # clients in the queue think that they are connected
            listener.close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what is not HTTP."""
        if isinstance(exc, UnsupportedTransferCoding):  # 400, not 501: it is no fault of ours
            exc = InvalidHeader("TRANSFER-ENCODING", req=req)
        super().handle_error(req, client, addr, exc)


class _Held:
    """A connection that keeps what is written, so that head and body are sent in one piece."""

    def __init__(self, conn: TConn) -> None:
        self.sock, self.client, self.server = self, conn.client, conn.server
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Keep a part of the answer."""
        self.parts.append(data)


def _send(client: socket.socket, data: bytes, goes_on: bool) -> bool:
    """Send data to a client that takes its time."""
    client.setblocking(True)
    client.sendall(data)
    return goes_on


# -- how much of a request is there --------------------------------------------------------------


def _arrived(conn: TConn, client: socket.socket) -> str:
    """Return how much of a request is there: _PART, _SHORT (all of a short one) or _WHOLE.

    For a part, an alarm is set: the selector reports the socket again when it holds as many bytes
    as the alarm says, or when no more will come. Long or chunked requests and nonsense count as
    whole: gunicorn's parser deals with them.
    """
    try:
        seen = client.recv(_WATCHED, socket.MSG_PEEK)
    except BlockingIOError:
        return _PART
    except OSError:
        return _WHOLE
    needed = _bytes_needed(seen)
    ended = len(seen) < conn.alarm  # fewer bytes than the alarm says: no more will come
    waits = len(seen) < needed <= _WATCHED and not ended
    if waits or conn.alarm:
        conn.alarm = needed if waits else 0
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(1, conn.alarm))
    if waits:
        return _PART
    if not seen:
        return _SHORT  # the client has left, and there is nothing to wait for
    short = len(seen) == needed < _SHORT_BYTES and seen.startswith(_QUICK)
    return _SHORT if short and not any(mark in seen for mark in _SLOW) else _WHOLE


def _bytes_needed(seen: bytes) -> int:
    """Return how many bytes a request has, as far as its first ones tell; 0 if they do not."""
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


# -- the end -------------------------------------------------------------------------------------

_SO_ATTACH_FILTER = 26  # of Linux (asm-generic/socket.h); Python has no name for it
_NO_SYN = (  # a filter of packets (linux/filter.h): code, where to go on if so, if not, operand
    (0x30, 0, 0, 13),  # load the byte of TCP's flags
    (0x54, 0, 0, 0x12),  # SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


def begin_no_more(listener: socket.socket) -> None:
    """Have the kernel ignore new connections, where it can; those that have begun are finished.

    A client that connects between the last accept and the close of the socket would lose its
    request: without this, 2 of 90 stops under load lost one. A client that is ignored tries again
    after a second, and finds the socket closed, or a new server.
    """
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *s) for s in _NO_SYN))
        address = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        with contextlib.suppress(OSError):  # a sandbox that forbids it
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, address)
