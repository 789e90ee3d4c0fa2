"""The server: real processes and sockets. Bodies and answers are tested in test_serve.py."""

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fm.config import TrainConfig
from fm.errors import ConfigError
from fm.model.model import Model
from fm.serving import server
from fm.serving.application import create_app
from fm.serving.worker import _bytes_needed, begin_no_more
from fm.tasks import CLASSIFIER, REGRESSOR

ROOT = Path(server.__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "bench"))
import fuzz_serve  # noqa: E402

sys.path.pop(0)

WIDTH = 500
HEADERS = {"Content-Type": "application/json"}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")


def model_of(task=CLASSIFIER):
    rng = np.random.default_rng(8)
    return Model(0.5, rng.normal(size=WIDTH), rng.normal(size=(WIDTH, 8)), TrainConfig(task, 8))


def body_of(key, value=1.0):
    return json.dumps({"instances": [{"data": {"features": {"keys": [key], "values": [value]}}}]})


class Server:
    """A server in processes of its own."""

    def __init__(self, path, *options, log):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = log
        command = [sys.executable, "-m", "fm.serve", str(path), "--port", str(self.port), *options]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file, stdout=file, env=environ)

    def request(self, method, path, body=None, headers=HEADERS, timeout=10):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, data

    def invoke(self, body, path="/invocations"):
        status, data = self.request("POST", path, body)
        assert status == 200, data
        return json.loads(data)["predictions"]

    def ping(self):
        """The status of /ping; None if nobody answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/ping", timeout=2)[0]

    def wait(self, status=200, seconds=20):
        until = time.monotonic() + seconds
        while self.ping() != status:
            assert time.monotonic() < until, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def workers(self):
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def logged(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self):
        """End it as Docker does; return the exit code and how long it took."""
        begun = time.monotonic()
        self.process.terminate()
        return self.process.wait(30), time.monotonic() - begun


@contextlib.contextmanager
def serving(path, *options, log):
    served = Server(path, *options, log=log)
    try:
        served.wait()
        yield served
    finally:
        served.process.terminate()
        try:
            served.process.wait(30)
        finally:
            served.process.kill()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return model_of().save(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def running(path):
    with serving(path, "--workers", "2", log=path.parent / "log") as served:
        yield served
    assert not [entry for entry in served.logged() if entry["level"] in ("ERROR", "CRITICAL")]


# -- HTTP ----------------------------------------------------------------------------------------


def test_answers(running):
    local = create_app(model_of()).test_client()
    body = body_of(3)
    expected = local.post("/invocations", data=body, content_type="application/json").data
    assert running.request("POST", "/invocations", body) == (200, expected)
    assert running.request("GET", "/ping")[0] == 200
    assert running.request("GET", "/invocations")[0] == 405
    assert running.request("GET", "/nothing")[0] == 404
    assert json.loads(running.request("GET", "/execution-parameters")[1]) == {
        "MaxConcurrentTransforms": 2,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 6,
    }
    odd = {"X-Amzn-SageMaker-Custom-Attributes": "a=1", "X-Forwarded-Proto": "https", "X": "\xff"}
    assert running.request("POST", "/invocations", body, {**HEADERS, **odd}) == (200, expected)


def test_a_connection_is_kept(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    for key in range(20):
        connection.request("POST", "/invocations", body_of(key if key % 3 else 10**6), HEADERS)
        response = connection.getresponse()
        assert response.status == (200 if key % 3 else 400)
        assert response.headers["Connection"] == "keep-alive"
        response.read()
    connection.close()


def test_chunked_bodies(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    body = body_of(3).encode()
    expected = running.request("POST", "/invocations", body)[1]
    for size in (1, 7, 1000):
        chunks = [body[i : i + size] for i in range(0, len(body), size)]
        connection.request("POST", "/invocations", iter(chunks), HEADERS, encode_chunked=True)
        assert connection.getresponse().read() == expected
    connection.close()


def test_a_client_that_waits_for_leave_to_send(running):
    body = body_of(3).encode()
    with socket.create_connection(("127.0.0.1", running.port), timeout=2) as client:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_large_bodies_their_limit_and_the_access_log(path, tmp_path):
    options = "--max-body", "3", "--workers", "1", "--access-log"
    with serving(path, *options, log=tmp_path / "log") as served:
        row = json.dumps({"features": [0.25] * WIDTH})
        many = (b'{"instances":[' + b",".join([row.encode()] * 1000) + b"]}", 1000)
        assert len(many[0]) > 2 << 20
        assert len(served.invoke(many[0])) == many[1]
        for body in (many[0] * 3, iter([many[0]] * 3)):
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", "/invocations", body, HEADERS, encode_chunked=True)
            with contextlib.suppress(ConnectionResetError):  # it may stop to read at any time
                assert connection.getresponse().status == 413
            connection.close()
        assert served.ping() == 200
    entries = [entry for entry in served.logged() if entry.get("path") == "/invocations"]
    assert [entry["status"] for entry in entries] == ["200", "413", "413"]
    assert entries[0]["method"] == "POST"
    assert entries[0]["bytes"] > 1000


def test_answers_of_parallel_clients_are_not_mixed_up(running):
    expected = model_of().probabilities(np.eye(WIDTH, dtype=np.float32)).tolist()
    wrong = []

    def work(number):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        for key in range(number, WIDTH, 32):
            connection.request("POST", "/invocations", body_of(key), HEADERS)
            score = json.loads(connection.getresponse().read())["predictions"][0]["score"]
            if abs(score - expected[key]) > 1e-6:
                wrong.append((key, score))
        connection.close()

    in_parallel(work, 32)
    assert wrong == []


def in_parallel(work, count):
    failures = []

    def guarded(number):
        try:
            work(number)
        except Exception as err:
            failures.append(err)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_ping_is_quick_while_large_bodies_are_computed(running):
    row = json.dumps({"features": [0.125] * WIDTH}).encode()
    count = (20 << 20) // len(row)
    body = b'{"instances":[' + b",".join([row] * count) + b"]}"
    done, slowest = threading.Event(), [0.0]

    def watch():
        while not done.is_set():
            begun = time.monotonic()
            assert running.ping() == 200
            slowest[0] = max(slowest[0], time.monotonic() - begun)
            time.sleep(0.05)

    def work(_):
        status, data = running.request("POST", "/invocations", body, timeout=60)
        assert status == 200
        assert data.count(b"score") == count

    watcher = threading.Thread(target=watch)
    watcher.start()
    in_parallel(work, 8)
    done.set()
    watcher.join()
    assert slowest[0] < 2


def test_clients_that_do_not_send_cost_nobody_anything(running):
    """More of them than there are threads; so are those that do not take their last answer."""
    idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(200)]
    for i, client in enumerate(idle):
        client.sendall((b"", b"POST /inv", fuzz_serve.GOOD[:-3], b"nonsense\r\n\r\n")[i % 4])
    time.sleep(0.1)
    for _ in range(20):
        begun = time.monotonic()
        running.invoke(body_of(3))
        assert time.monotonic() - begun < 1
    for client in idle:
        client.close()


@pytest.mark.parametrize("sent", [b"", b"POST /inv", fuzz_serve.GOOD[:-3]])
def test_a_client_that_ends_in_the_middle_of_a_request_is_left(running, sent):
    with socket.create_connection(("127.0.0.1", running.port), timeout=2) as client:
        client.sendall(sent)
        time.sleep(0.1)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(1000), b""))  # to its end
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


def test_a_client_that_reads_slowly_gets_all_of_a_long_answer(running):
    """The answer to a short request may be long: every instance of it is 52 bytes here."""
    instance = '{"data":{"features":{"keys":[],"values":[]}}}'
    body = '{"instances":[' + ",".join([instance] * 170) + "]}"
    assert len(body) < 1 << 13
    requests = fuzz_serve.POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body.encode())
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        client.connect(("127.0.0.1", running.port))
        client.setblocking(False)
        whole = 0
        with contextlib.suppress(BlockingIOError):
            while client.send(requests) == len(requests):  # until no buffer takes more
                whole += 1
                time.sleep(0.0005)
        begun = time.monotonic()
        running.invoke(body_of(3))
        assert time.monotonic() - begun < 1
        got = b""
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while part := client.recv(1 << 16):
                got += part
    answers = got.split(b"HTTP/1.1 200 OK")[1:]
    assert len(answers) == whole > 100
    assert {len(answer) for answer in answers} == {len(answers[0])}
    assert answers[0].count(b"score") == 170


def test_every_process_gets_clients(running):
    """As many as the others, or nearly so."""
    clients = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(200)]
    for client in clients:
        client.sendall(fuzz_serve.GOOD)
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    mine = server_sockets({client.getsockname()[1] for client in clients})
    got = [len(mine & sockets_of(pid)) for pid in running.workers()]
    assert sum(got) == 200
    assert min(got) > 50
    for client in clients:
        client.close()


def server_sockets(ports):
    """The inodes of the server's ends of the connections from ``ports``.

    Sockets are named, not counted before and after: those of other tests may close late.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if int(row[2].split(":")[1], 16) in ports}


def sockets_of(pid):
    """The inodes of the sockets that a process holds."""
    names = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            names.add(os.readlink(entry.path).removeprefix("socket:[").removesuffix("]"))
    return names


def test_abuses_of_http(running):
    workers = running.workers()
    probe = fuzz_serve.Probe("127.0.0.1", running.port)
    found = fuzz_serve.check_abuses("127.0.0.1", running.port, probe.send, copies=1)
    assert len(found) > 30
    statuses = fuzz_serve.fuzz_bodies(probe, 400, seed=1)
    assert set(statuses) <= {200, 400, 413}
    assert running.workers() == workers


@pytest.mark.parametrize(
    ("seen", "needed"),
    [
        (b"", 0),
        (b"POST", 5),
        (b"POST / HTTP/1.1\r\n", 18),
        (b"GET / HTTP/1.1\r\n\r\n", 18),
        (b"GET / HTTP/1.1\n\n", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n", 38 + 7),
        (b"POST / HTTP/1.1\r\ncontent-LENGTH:  7 \r\nX: y\r\n\r\nabc", 46 + 7),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n", 0),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n", 0),
    ],
)
def test_how_much_of_a_request_is_awaited(seen, needed):
    assert _bytes_needed(seen) == needed


# -- beginning and end ---------------------------------------------------------------------------


def test_503_while_the_model_is_loaded(tmp_path):
    """A named pipe is a model that takes long to load, and is none in the end."""
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    served = Server(pipe, log=tmp_path / "log")
    served.wait(503)
    assert served.request("POST", "/invocations", body_of(1))[0] == 503
    assert b"being loaded" in served.request("GET", "/ping")[1]
    until = time.monotonic() + 20
    while served.process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):  # nobody reads just now
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"nonsense")
            os.close(writer)
        time.sleep(0.01)
    assert served.process.wait(20) == 2
    assert "model.safetensors" in served.log.read_text()


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_a_model_that_cannot_be_loaded_ends_the_process(tmp_path, path, kind):
    damaged = tmp_path / "model.safetensors"
    if kind == "truncated":
        whole = path.read_bytes()
        damaged.write_bytes(whole[: len(whole) // 2])
    served = Server(damaged, log=tmp_path / "log")
    assert served.process.wait(20) == 2
    assert str(damaged) in served.log.read_text()
    assert len(served.log.read_text().splitlines()) == 1


def test_an_address_that_is_taken_ends_the_process(path, running, tmp_path):
    served = Server(path, "--port", str(running.port), log=tmp_path / "log")
    assert served.process.wait(20) == 2
    assert "Address already in use" in served.log.read_text()
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        server._listen("8080")


def test_a_signal_while_the_model_is_loaded(tmp_path):
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    served = Server(pipe, log=tmp_path / "log")
    served.wait(503)
    assert served.stop()[0] == 0


class Clients:
    """Clients with one request in flight each; they stop when the server wants them to."""

    def __init__(self, port, count=16):
        self.port = port
        self.good = self.lost = 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        expected = model_of().probabilities(np.eye(WIDTH, dtype=np.float32)).tolist()
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return  # the server says that it is gone
            with contextlib.closing(connection):
                for key in range(number, WIDTH):
                    if self.stopping.is_set():
                        return
                    try:
                        connection.request("POST", "/invocations", body_of(key), HEADERS)
                        response = connection.getresponse()
                        score = json.loads(response.read())["predictions"][0]["score"]
                    except (OSError, http.client.HTTPException):
                        with self.lock:
                            self.lost += 1
                        break
                    assert abs(score - expected[key]) < 1e-6
                    with self.lock:
                        self.good += 1
                    if response.headers["Connection"] == "close":
                        break

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def test_sigterm_under_load_drops_nothing(path, tmp_path):
    with serving(path, "--workers", "2", log=tmp_path / "log") as served:
        clients = Clients(served.port)
        time.sleep(0.5)
        code, took = served.stop()
        clients.stop()
        assert code == 0
        assert took < 10
        assert clients.good > 100
        assert clients.lost == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_at_the_end_no_connections_begin_and_those_in_the_queue_go_on(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"no {host} here")
    with listener, socket.create_connection(listener.getsockname()[:2]) as early:
        begin_no_more(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname()[:2], timeout=0.2)
        early.sendall(b"hello")
        served, _ = listener.accept()
        with served:
            assert served.recv(5) == b"hello"
            served.sendall(b"bye")
            assert early.recv(3) == b"bye"


def test_sigterm_lets_a_long_request_finish(path, tmp_path):
    with serving(path, "--workers", "1", log=tmp_path / "log") as served:
        body = body_of(3).encode()
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as client:
            head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.sendall(head + b"%x\r\n%s\r\n" % (len(body), body))
            time.sleep(0.3)
            served.process.terminate()
            time.sleep(0.5)
            assert served.ping() is None
            client.sendall(b"0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert served.process.wait(20) == 0


def test_a_killed_process_is_replaced(path, tmp_path):
    """Only what was in flight there is lost: at most one request of each client."""
    with serving(path, "--workers", "2", log=tmp_path / "log") as served:
        clients = Clients(served.port, 8)
        for _ in range(3):
            time.sleep(0.3)
            victim = served.workers()[0]
            os.kill(victim, signal.SIGKILL)
            until = time.monotonic() + 5
            while victim in served.workers() or len(served.workers()) < 2:
                assert time.monotonic() < until
                time.sleep(0.01)
        time.sleep(0.3)
        clients.stop()
        assert clients.good > 100
        assert clients.lost <= 3 * 8
        assert served.stop()[0] == 0
        assert any("SIGKILL" in entry["message"] for entry in served.logged())


# -- several models ------------------------------------------------------------------------------


def test_several_models_survive_their_process(tmp_path):
    """Those that lie in the directory, and one that a request has loaded."""
    root = tmp_path / "models"
    for name, task in (("a", REGRESSOR), ("b", CLASSIFIER), ("c/model", REGRESSOR)):
        model_of(task).save(root / name / "model.safetensors")
    with serving(root, "--multi-model", log=tmp_path / "log") as served:
        assert len(served.workers()) == 1
        order = json.dumps({"model_name": "c", "url": str(root / "c" / "model")})
        assert served.request("POST", "/models", order)[0] == 200
        assert served.request("POST", "/models", order)[0] == 409
        assert served.request("DELETE", "/models/a")[0] == 200
        before = served.invoke(body_of(3), "/models/b/invoke")
        (victim,) = served.workers()
        os.kill(victim, signal.SIGKILL)
        while served.workers() in ([], [victim]):
            time.sleep(0.01)
        served.wait()
        listed = json.loads(served.request("GET", "/models")[1])["models"]
        assert [model["modelName"] for model in listed] == ["b", "c"]
        assert served.invoke(body_of(3), "/models/b/invoke") == before
        assert served.request("DELETE", "/models/b")[0] == 200
        assert served.request("POST", "/models/b/invoke", body_of(3))[0] == 404
        assert served.stop()[0] == 0


# -- logs, directories ---------------------------------------------------------------------------


def test_requests_are_not_logged_but_refusals_are(running):
    before = len(running.logged())
    running.invoke(body_of(3))
    assert len(running.logged()) == before
    running.request("POST", "/invocations", body_of(10**6))
    assert running.logged()[-1]["message"].startswith("400: instance 1: expected keys")


def test_a_fault_is_logged_with_its_traceback():
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "b", 1, "%s!", ("oh",), sys.exc_info())
    entry = json.loads(server.JsonFormatter().format(record))
    assert entry["message"] == "oh!"
    assert "ValueError: x" in entry["traceback"]


def test_temporary_files_go_where_they_can(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    opened = server.tempfile.TemporaryFile

    def without_shm(dir):
        if dir == "/dev/shm":
            raise FileNotFoundError
        return opened(dir=dir)

    monkeypatch.setattr("tempfile.TemporaryFile", without_shm)
    assert server._writable_directory() == str(tmp_path)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="make /tmp writable"):
        server._writable_directory()
