"""Send nonsense to a server: mutated bodies of all types, and abuses of HTTP itself.

    fm serve MODEL --port 8080 &
    python scripts/bench/fuzz_serve.py 127.0.0.1:8080 --bodies 100000

The model must know feature numbers 0 to 39 at least; any model will do for the abuses. Every
hundredth request is a good one, whose answer must be right. Ends with 1 on any status of the 500s,
an answer later than a second, or a wrong answer.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp

from fm.formats.recordio import write_numpy_to_dense_tensor, write_spmatrix_to_sparse_tensor

Body = tuple[str, bytes]

TOKENS = [
    b"NaN", b"Infinity", b"-1", b"1e999", b"1e39", b"-0", b"null", b"true", b"[]", b"{}", b'""',
    b"18446744073709551616", b"4294967295", b"\xff", b"\0", b"\xef\xbb\xbf", b"\\ud800", b"[[",
    b"}}", b'"', b",", b":", b"\n", b"\r", b"\x0a\x23\xd7\xce", b"\xff" * 10, b"#", b"qid:1 ",
    b"instances", b"features", b"keys", b"values", b"data", b"shape", b"[" * 2000, b"9" * 400,
    b"k", b"recommend", b"ratings", b"liked", b"exclude", b"candidates", b'"seen"',
]  # fmt: skip
TYPES = [
    "application/json",
    "application/jsonlines",
    "text/csv",
    "text/libsvm",
    "application/x-recordio-protobuf",
]
SLOWEST = 1.0  # seconds


def mutated(rng: random.Random, bases: Sequence[Body]) -> Body:
    """Return a body with some bytes changed, cut, doubled, or taken for another type."""
    content_type, body = rng.choice(bases)
    data = bytearray(body)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 1, 2, 4, 16, 200]))
        kind = rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 3:
            data[at:end] = rng.choice(TOKENS)
        elif kind == 4:
            data[at:at] = data[at:end] * rng.choice([1, 2, 50])
        elif kind == 5:
            del data[at:]
        else:
            data[at:end] = rng.randbytes(end - at)
    if rng.random() < 0.05:
        content_type = rng.choice(TYPES)
    return content_type, bytes(data)


def good_bodies(width: int = 40) -> list[Body]:
    """Return good bodies of all types, for a model of at least `width` features."""
    X = sp.random(5, width, 0.1, format="csr", random_state=0, dtype=np.float32)
    ends = zip(X.indptr[:-1], X.indptr[1:], strict=True)
    rows = [(X.indices[a:b].tolist(), X.data[a:b].tolist()) for a, b in ends]
    instances = [{"data": {"features": {"keys": k, "values": v}}} for k, v in rows]
    dense = [{"features": row} for row in X.toarray().tolist()]
    records, dense_records = io.BytesIO(), io.BytesIO()
    write_spmatrix_to_sparse_tensor(records, X, np.ones(5, np.float32))
    write_numpy_to_dense_tensor(dense_records, X.toarray())
    # For a model whose items are 20:40 and users 0:20; others refuse these.
    asking = [{**instance, "k": 3} for instance in instances]
    asking += [
        {"k": 2, "ratings": {"21": 1, "30": 0}, "exclude": ["22"], "candidates": ["23", "24"]}
    ]
    lines = "".join(json.dumps(instance) + "\n" for instance in instances)
    svm = "".join(
        "0 " + " ".join(f"{k}:{v!r}" for k, v in zip(*row, strict=True)) + "\n" for row in rows
    )
    table = "\n".join(",".join(map(repr, row["features"])) for row in dense)
    return [
        ("application/json", json.dumps({"instances": instances}).encode()),
        ("application/json", json.dumps({"instances": dense}).encode()),
        ("application/json", json.dumps({"instances": asking}).encode()),
        ("application/json", json.dumps({"recommend": asking[-1]}).encode()),
        ("application/jsonlines", lines.encode()),
        ("text/csv", table.encode()),
        ("text/libsvm", svm.encode()),
        ("application/x-recordio-protobuf", records.getvalue()),
        ("application/x-recordio-protobuf", dense_records.getvalue()),
    ]


class Probe:
    """A good request, and the answer that it always has to get."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.body = good_bodies()[0][1]
        self.expected: bytes | None = None
        self.expected = self.send()

    def send(self) -> bytes:
        """Send it on a connection of its own; raise AssertionError if the answer is wrong."""
        begun = time.perf_counter()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/invocations", self.body, headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        took = time.perf_counter() - begun
        assert response.status == 200, (response.status, answer)
        assert self.expected in (None, answer), (self.expected, answer)
        assert took < SLOWEST, f"a good request took {took:.2f} s"
        return answer


def fuzz_bodies(probe: Probe, count: int, seed: int, connections: int = 4) -> Counter[int]:
    """Send mutated bodies over kept connections; return how often each status came."""
    statuses: Counter[int] = Counter()
    failures: list[str] = []

    def work(number: int, connection: http.client.HTTPConnection) -> None:
        rng = random.Random(seed * 1000 + number)
        bases = good_bodies()
        for i in range(count // connections):
            if i % 100 == 0:
                probe.send()
            content_type, body = mutated(rng, bases)
            chunks = rng.random() < 0.1
            begun = time.perf_counter()
            connection.request(
                "POST",
                "/invocations",
                iter([body[:10], body[10:]]) if chunks and len(body) > 10 else body,
                {"Content-Type": content_type},
                encode_chunked=True,
            )
            response = connection.getresponse()
            response.read()
            took = time.perf_counter() - begun
            statuses[response.status] += 1
            if response.status >= 500 or took > SLOWEST:
                failures.append(f"{response.status} after {took:.2f} s: {content_type} {body!r}")
                return

    def guarded(number: int) -> None:
        connection = http.client.HTTPConnection(probe.host, probe.port, timeout=10)
        try:
            with contextlib.closing(connection):
                work(number, connection)
        except Exception as err:  # an answer that does not come is a failure too
            failures.append(f"{type(err).__name__}: {err}")

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]
    return statuses


# -- HTTP itself ---------------------------------------------------------------------------------

POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
EMPTY = b'{"instances":[]}'
GOOD = POST + b"Content-Length: 16\r\n\r\n" + EMPTY
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

# What is sent, piece by piece, and the statuses that may come back ("": the server may hang up, or
# may wait for more).
ABUSES: dict[str, tuple[list[bytes], set[str]]] = {
    "length and chunks": (
        [POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1"],
        {"400"},
    ),
    "two lengths": ([POST + b"Content-Length: 16\r\nContent-Length: 5\r\n\r\n" + EMPTY], {"400"}),
    "negative length": ([POST + b"Content-Length: -1\r\n\r\n"], {"400"}),
    "length is no number": ([POST + b"Content-Length: 0x10\r\n\r\n" + EMPTY], {"400"}),
    "length is a list": ([POST + b"Content-Length: 16, 16\r\n\r\n" + EMPTY], {"400"}),
    "huge length": ([POST + b"Content-Length: 99999999999999999999\r\n\r\n"], {"413"}),
    "chunk size is no number": ([CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n"], {"400"}),
    "chunk size is negative": ([CHUNKED + b"-5\r\nabc\r\n0\r\n\r\n"], {"400"}),
    "chunk size is huge": ([CHUNKED + b"fffffffffffffffff\r\n"], {"", "400", "413"}),
    "chunk without an end": ([CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n"], {"400"}),
    "unknown coding": ([POST + b"Transfer-Encoding: x\r\n\r\n"], {"400"}),
    "chunks twice": ([POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"], {"400"}),
    "chunks in HTTP/1.0": ([CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n"], {"400"}),
    "a large header": ([POST + b"X: " + b"x" * 100_000 + b"\r\n\r\n"], {"", "400", "431"}),
    "many headers": ([POST + b"X: y\r\n" * 5000 + b"\r\n"], {"", "400", "431"}),
    "a long path": ([b"GET /" + b"x" * 50_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"], {"414"}),
    "zero bytes": ([b"\0" * 100 + b"\r\n\r\n"], {"400"}),
    "zero byte in a header": ([POST + b"X: a\0b\r\nContent-Length: 0\r\n\r\n"], {"400"}),
    "bare line feeds": ([GOOD.replace(b"\r\n", b"\n")], {"400"}),
    "folded header": ([POST + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"], {"400"}),
    "blank before the colon": ([POST + b"Content-Length : 16\r\n\r\n" + EMPTY], {"400"}),
    "no method": ([b" / HTTP/1.1\r\n\r\n"], {"400"}),
    "HTTP/9.9": ([GOOD.replace(b"HTTP/1.1", b"HTTP/9.9")], {"400"}),
    "another protocol": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], {""}),
    "nothing": ([], {""}),
    "half a request line": ([b"POST /invoc"], {""}),
    "half a head": ([POST], {""}),
    "half a body": ([GOOD[:-5]], {""}),
    "half a chunk": ([CHUNKED + b"ff\r\nabc"], {""}),
    "slow bytes": ([bytes([byte]) for byte in GOOD], {"200"}),
    "one after the other": ([GOOD * 5], {"200"}),
    "an expectation": (
        [POST + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n", EMPTY], {"100"},
    ),
    "another expectation": ([POST + b"Expect: 1\r\nContent-Length: 16\r\n\r\n" + EMPTY], {"417"}),
    "CONNECT": ([b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n"], {"400", "404", "405"}),
    "OPTIONS *": ([b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"], {"200", "400", "404"}),
    "bytes behind the body": ([GOOD + b"garbage\r\n\r\n"], {"200"}),
}  # fmt: skip


def abuse(host: str, port: int, name: str, patience: float = 0.5) -> tuple[str, socket.socket]:
    """Send an abuse; return the status that comes ("" if none), and the connection, still open."""
    pieces, _ = ABUSES[name]
    client = socket.create_connection((host, port), timeout=5)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for piece in pieces:
            client.sendall(piece)
            if len(pieces) > 2:
                time.sleep(0.002)
    waits = ABUSES[name][1] == {""}
    client.settimeout(0.05 if waits else patience)
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        answer = client.recv(65536)
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "", client


def check_abuses(
    host: str, port: int, probe: Callable[[], object], copies: int = 2
) -> dict[str, str]:
    """Do all abuses, several at a time, and keep their connections open; return the statuses."""
    found, open_ones = {}, []
    for name, (_, expected) in ABUSES.items():
        for _ in range(copies):
            status, client = abuse(host, port, name)
            open_ones.append(client)
            found[name] = status
            assert status in expected, f"{name}: expected {expected}, found {status!r}"
        probe()
    for client in open_ones:
        client.close()
    probe()
    return found


def main() -> None:
    """Run both parts against a server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    host, _, port = args.address.rpartition(":")
    probe = Probe(host, int(port))
    begun = time.perf_counter()
    statuses = fuzz_bodies(probe, args.bodies, args.seed)
    took = time.perf_counter() - begun
    print(f"{sum(statuses.values())} bodies in {took:.0f} s: {dict(sorted(statuses.items()))}")
    found = check_abuses(host, int(port), probe.send)
    print(f"{len(found)} abuses:")
    for name, status in found.items():
        print(f"  {name:28} {status or '-'}")


if __name__ == "__main__":
    sys.exit(main())
