"""The hosts of a job, of which the first one trains.

Decided here: until training is distributed, the first host in the order of names trains on
everything, and the others wait for its end and leave nothing; which is right only where every host
sees all data. Not decided here: what training is (``container.job``).

The others must not end early: where containers run side by side (the SDK's local mode), the end of
one ends them all. So each of them holds a connection to the first host, which sends ``done`` over
it at its end. They exit with 0 even if the first host fails, because the job then has its reason.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from container.stopping import Stop

PORT = 9099
DONE = b"done"
SECONDS_TO_CONNECT = 30.0
SECONDS_FOR_OTHERS = 30.0

log = logging.getLogger("fm.container")


@dataclass
class Hosts:
    """The hosts of a job.

    Attributes
    ----------
    current : str
        This one.
    others : tuple of str
        All others, in order.
    """

    current: str
    others: tuple[str, ...] = ()
    _server: socket.socket | None = field(default=None, repr=False)
    _waiting: list[socket.socket] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, config: dict[str, Any]) -> Hosts:
        """Return what resourceconfig.json says; without it there is one host."""
        current = str(config.get("current_host") or "algo-1")
        names = {str(name) for name in config.get("hosts") or ()}
        return cls(current, tuple(sorted(names - {current})))

    @property
    def first(self) -> str:
        """The host that trains."""
        return min((self.current, *self.others))

    @property
    def trains(self) -> bool:
        """Whether this is the host that trains."""
        return self.current == self.first

    # -- the first host --------------------------------------------------------------------------

    def open(self) -> None:
        """Let the other hosts connect."""
        if not self.others:
            return
        try:
            # Not bound to the interface that resourceconfig.json names: it may not exist.
            self._server = socket.create_server(("", PORT), backlog=len(self.others))
        except OSError as err:
            log.warning("port %d cannot be opened (%s); the other hosts will not wait", PORT, err)
            return
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self._waiting.append(server.accept()[0])

    def release(self, stop: Stop) -> None:
        """Tell the other hosts that the job is done, but first wait for those that are late."""
        if self._server is None:
            return
        end = time.monotonic() + SECONDS_FOR_OTHERS
        while len(self._waiting) < len(self.others) and not stop.requested:
            if time.monotonic() > end:
                came = len(self._waiting)
                log.warning("only %d of %d other hosts have connected", came, len(self.others))
                break
            time.sleep(0.05)
        for connection in self._waiting:
            with contextlib.suppress(OSError):
                connection.sendall(DONE)
        self._server.close()

    # -- the others ------------------------------------------------------------------------------

    def wait(self) -> None:
        """Return when the first host is done, has failed, or cannot be found."""
        connection = self._connection()
        if connection is None:
            return
        said = b""
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            while part := connection.recv(len(DONE)):
                said += part
        if said == DONE:
            log.info("host %s is done", self.first)
        else:
            log.warning("host %s ended without a model; its log says why", self.first)

    def _connection(self) -> socket.socket | None:
        end = time.monotonic() + SECONDS_TO_CONNECT
        while True:
            try:
                return socket.create_connection((self.first, PORT), timeout=10)
            except OSError as err:  # not started yet, or its name is not known yet
                if time.monotonic() > end:
                    log.warning("host %s cannot be reached (%s)", self.first, err)
                    return None
            time.sleep(0.2)
