"""Load on a server: requests per second, latencies and errors, on the cores of the server.

    python scripts/bench/serve.py                    the tables (about two minutes)
    python scripts/bench/serve.py --soak 600         and ten minutes at 70% of the highest load
    python scripts/bench/serve.py --kill 50          only this: workers are killed under load
    python scripts/bench/serve.py --stop 40          only this: clients lost at SIGTERM under load
    python scripts/bench/serve.py --silent 200       only this: a request beside clients that wait
    python scripts/bench/serve.py --plain ...        any of these with gunicorn's own gthread worker

A server with one process per core is started with a model of 2,625 features and 64 factors (the
article's). Clients are connections of one process that keep one request in flight each; every
answer is compared with the right one. At a fixed rate (the soak) a latency counts from when the
request should have been sent, so that a server that stalls cannot hide it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import io
import os
import platform
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import scipy.sparse as sp

from fm.config import TrainConfig
from fm.formats.recordio import write_spmatrix_to_sparse_tensor
from fm.model.model import Model
from fm.serving.application import create_app
from fm.tasks import CLASSIFIER

USERS, FILMS = 943, 1682
WIDTH = USERS + FILMS
PLAIN = """
import sys
from fm.cli.serve import main
from fm.serving import server
server.Worker = "gthread"
main(sys.argv[1:])
"""


class Load(NamedTuple):
    """What happened."""

    seconds: float
    latencies: np.ndarray  # seconds, of good answers
    errors: int
    processor: float  # seconds of all processes of the server

    def row(self) -> str:
        """Return the figures as cells of a table."""
        p50, p99, p999 = np.percentile(self.latencies, [50, 99, 99.9]) * 1e3
        rate = len(self.latencies) / self.seconds
        each = self.processor / max(1, len(self.latencies)) * 1e6
        return f"{rate:,.0f} | {p50:.1f} | {p99:.1f} | {p999:.1f} | {self.errors} | {each:.0f}"


class Exchange(NamedTuple):
    """A request, and what the answer has to end with."""

    request: bytes
    answer: bytes


def exchange(content_type: str, body: bytes, answer: bytes) -> Exchange:
    """Return a request with its head."""
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    return Exchange(head.encode() + body, b"\r\n\r\n" + answer)


def drive(
    port: int, exchanges: list[Exchange], clients: int, seconds: float, rate: float | None = None
) -> tuple[float, np.ndarray, int]:
    """Send requests for some time; return (seconds, latencies, errors).

    Without a rate every client sends its next request when it has the answer to the last one.
    """
    selector = selectors.DefaultSelector()
    free: deque[socket.socket] = deque()
    errors = 0

    def connect() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
        return client

    free.extend(connect() for _ in range(clients))
    due: dict[socket.socket, tuple[float, bytes, bytearray]] = {}
    latencies: list[float] = []
    gc.disable()  # of this process
    begun = now = time.perf_counter()
    sent = 0
    while now < begun + seconds or due:
        while free and now < begun + seconds:
            if rate is not None and begun + sent / rate > now:
                break
            client, chosen = free.popleft(), exchanges[sent % len(exchanges)]
            client.send(chosen.request)
            planned = now if rate is None else begun + sent / rate
            due[client] = planned, chosen.answer, bytearray()
            sent += 1
        pause = 1.0 if rate is None or not free else max(0.0, begun + sent / rate - now)
        for key, _ in selector.select(min(pause, 1.0)):
            client = key.fileobj  # type: ignore[assignment]
            planned, answer, got = due.pop(client, (now, b"", bytearray()))
            with contextlib.suppress(OSError):
                part = client.recv(65536)
                got += part
                if part and not got.endswith(answer):
                    due[client] = planned, answer, got
                    continue
            if got.endswith(answer) and answer and got.startswith(b"HTTP/1.1 200"):
                latencies.append(time.perf_counter() - planned)
            else:
                errors += 1
                selector.unregister(client)
                client.close()
                client = connect()
            free.append(client)
        now = time.perf_counter()
        if now > begun + seconds + 10:
            errors += len(due)
            break
    gc.enable()
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return now - begun, np.array(latencies), errors


@contextlib.contextmanager
def server(model: Model, plain: bool = False) -> Iterator[tuple[int, int]]:
    """Run a server; give its process and its port."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        path = model.save(Path(folder, "model.safetensors"))
        program = ["-c", PLAIN] if plain else ["-m", "fm.serve"]
        command = [sys.executable, *program, str(path), "--port", str(port)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for_ping(port)
            yield process.pid, port
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def wait_for_ping(port: int, seconds: float = 30) -> None:
    """Return when /ping is answered with 200."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise TimeoutError(f"no answer from port {port}")


def processes(pid: int) -> list[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def processor_seconds(pid: int) -> float:
    """Return what a server has used up."""
    fields = (
        Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split() for p in processes(pid)
    )
    return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Return the memory of a server, what is shared counted once."""
    total = 0
    for process in processes(pid):
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        total += int(text.split("Pss:")[1].split()[0]) << 10
    return total


def measure(
    pid: int,
    port: int,
    exchanges: list[Exchange],
    clients: int,
    seconds: float,
    rate: float | None = None,
) -> Load:
    """Drive a server and look at what it uses."""
    before = processor_seconds(pid)
    took, latencies, errors = drive(port, exchanges, clients, seconds, rate)
    return Load(took, latencies, errors, processor_seconds(pid) - before)


def kill_workers(pid: int, times: int, pause: float) -> Iterator[int]:
    """Kill a worker, again and again; give the number of connections that it had."""
    for number in range(times):
        time.sleep(pause)
        _, *workers = processes(pid)
        victim = workers[number % len(workers)]
        held = sum(
            os.readlink(link).startswith("socket:") for link in Path(f"/proc/{victim}/fd").iterdir()
        )
        os.kill(victim, signal.SIGKILL)
        yield held
        while len(processes(pid)) <= len(workers) or victim in processes(pid):
            time.sleep(0.01)  # until another one is there


def survive(model: Model, exchanges: list[Exchange], clients: int, kills: int, plain: bool) -> None:
    """Print what is lost when workers are killed under load."""
    with server(model, plain) as (pid, port):
        held: list[int] = []
        killer = threading.Thread(target=lambda: held.extend(kill_workers(pid, kills, 0.5)))
        took, good, errors = 0.0, 0, 0
        killer.start()
        while killer.is_alive():
            seconds, latencies, failed = drive(port, exchanges, clients, 2)
            took, good, errors = took + seconds, good + len(latencies), errors + failed
        seconds, latencies, failed = drive(port, exchanges, clients, 2)
        print(f"{kills} workers killed in {took:.0f} s under {clients} clients: {good:,} right")
        print(f"answers, {errors} requests lost (the workers had {sum(held)} sockets open);")
        print(f"afterwards {len(latencies) / seconds:,.0f} requests/s, {failed} errors")


class Client(threading.Thread):
    """A client with one request in flight, until the server refuses its connection."""

    def __init__(self, port: int, chosen: Exchange) -> None:
        super().__init__()
        self.port, self.chosen = port, chosen
        self.good = self.lost = 0
        self.start()

    def run(self) -> None:
        """Connect again whenever the server closes the connection."""
        with contextlib.suppress(ConnectionRefusedError, TimeoutError):
            while True:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                    while self.exchange(client):
                        pass

    def exchange(self, client: socket.socket) -> bool:
        """Send a request and read the answer; return whether the connection can be used again."""
        try:
            client.sendall(self.chosen.request)
            got = b""
            while not got.endswith(self.chosen.answer):
                part = client.recv(65536)
                if not part:
                    raise ConnectionResetError
                got += part
        except OSError:
            self.lost += 1
            return False
        self.good += 1
        return b"\r\nConnection: close\r\n" not in got


def stop(model: Model, chosen: Exchange, clients: int, stops: int, plain: bool) -> None:
    """Print how many requests are lost when a server is told to end under load."""
    good = lost = 0
    for _ in range(stops):
        with server(model, plain) as (pid, port):
            running = [Client(port, chosen) for _ in range(clients)]
            time.sleep(0.5)
            os.kill(pid, signal.SIGTERM)
        for client in running:
            client.join()
        good += sum(client.good for client in running)
        lost += sum(client.lost for client in running)
    print(f"{stops} stops under {clients} clients: {good:,} right answers, {lost} requests lost")


def wait_beside(model: Model, chosen: Exchange, clients: int, plain: bool) -> None:
    """Print how long a request takes beside clients that do not get on."""
    sent = {"nothing": b"", "half a request": chosen.request[:-9], "nonsense": b"x\r\n\r\n"}
    for name, begun in sent.items():
        with server(model, plain) as (_, port):
            others = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
            for other in others:
                other.sendall(begun)
            time.sleep(0.2)
            since = time.perf_counter()
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(chosen.request)
                client.recv(65536)
            took = time.perf_counter() - since
            print(f"{clients} clients have sent {name}: a request takes {took:.3f} s", flush=True)
            for other in others:
                other.close()


def ratings(rows: int, rng: np.random.Generator) -> sp.csr_matrix:
    """Return rows of one user and one film each."""
    columns = np.stack([rng.integers(USERS, size=rows), USERS + rng.integers(FILMS, size=rows)], 1)
    parts = np.ones(2 * rows, np.float32), columns.ravel(), np.arange(rows + 1) * 2
    return sp.csr_matrix(parts, shape=(rows, WIDTH))


def instances(X: sp.csr_matrix) -> list[dict[str, object]]:
    """Return rows in the sparse form of JSON."""
    return [
        {"data": {"features": {"keys": keys, "shape": [WIDTH], "values": [1, 1]}}}
        for keys in X.indices.reshape(-1, 2).tolist()
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="of the highest load")
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--soak", type=float, default=0, help="seconds at a lower rate")
    parser.add_argument("--rate", type=float, help="of the soak; not given: 70%% of the highest")
    parser.add_argument("--kill", type=int, metavar="N", help="kill a worker N times under load")
    parser.add_argument("--stop", type=int, metavar="N", help="stop a server N times under load")
    parser.add_argument("--silent", type=int, metavar="N", help="N clients that do not get on")
    parser.add_argument("--plain", action="store_true", help="use gunicorn's own gthread worker")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    model = Model(
        0.1,
        rng.normal(size=WIDTH) / 10,
        rng.normal(size=(WIDTH, 64)) / 10,
        TrainConfig(CLASSIFIER, 64),
    )
    local = create_app(model).test_client()

    def known(content_type: str, body: bytes) -> Exchange:
        response = local.post("/invocations", data=body, content_type=content_type)
        return exchange(content_type, body, response.data)

    X = ratings(1000, rng)
    rows = instances(X)
    single = [known("application/json", orjson.dumps({"instances": [row]})) for row in rows]
    if args.kill:
        survive(model, single, args.clients, args.kill, args.plain)
        return
    if args.stop:
        stop(model, single[0], args.clients, args.stop, args.plain)
        return
    if args.silent:
        wait_beside(model, single[0], args.silent, args.plain)
        return
    records = io.BytesIO()
    write_spmatrix_to_sparse_tensor(records, X)
    dense = [{"features": row} for row in X[:10].toarray().astype(int).tolist()]
    batches = {
        "1,000 rows, RecordIO": known("application/x-recordio-protobuf", records.getvalue()),
        "1,000 rows, JSON": known("application/json", orjson.dumps({"instances": rows})),
        "10 rows of 2,625, dense JSON": known(
            "application/json", orjson.dumps({"instances": dense})
        ),
    }
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("gunicorn", "flask", "numpy"))
    print(f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores\n")
    with server(model, args.plain) as (pid, port):
        measure(pid, port, single, args.clients, 2)  # warm
        print("| load | requests/s | p50 ms | p99 ms | p99.9 ms | errors | server, us each |")
        print("|---|---|---|---|---|---|---|")
        highest = measure(pid, port, single, args.clients, args.seconds)
        print(f"| {args.clients} clients, one row each | {highest.row()} |", flush=True)
        for name, chosen in batches.items():
            load = measure(pid, port, [chosen], 1, 5)
            print(f"| 1 client, {name} | {load.row()} |", flush=True)
        if args.soak:
            rate = args.rate or 0.7 * len(highest.latencies) / highest.seconds
            measure(pid, port, single, args.clients, args.soak / 20, rate)
            before = memory_bytes(pid)
            load = measure(pid, port, single, args.clients, args.soak, rate)
            grown = memory_bytes(pid) / before - 1
            print(f"| {args.soak:.0f} s at {rate:,.0f} a second | {load.row()} |")
            print(f"\nmemory: {before / 1e6:.0f} MB, grown by {grown:.2%}")


if __name__ == "__main__":
    main()
