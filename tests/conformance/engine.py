"""The docker command line as the tests use it: jobs that train, servers that answer.

Nothing here knows the engine's API: what a user can type is what is tested.
"""

import contextlib
import http.client
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import fm

LABEL = "fm-conformance"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
RECORDIO = "application/x-recordio-protobuf"


class Ended(NamedTuple):
    """A container that has come to its end."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def log(self) -> str:
        return self.out + self.err


class Engine:
    """An image, and the containers that a test session starts from it."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.session = uuid.uuid4().hex[:12]

    def docker(self, *words: object, check: bool = True, timeout: float = 60) -> str:
        """Run a command of docker and return what it prints."""
        run = subprocess.run(
            ["docker", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if check and run.returncode:
            raise RuntimeError(f"docker {' '.join(map(str, words))}: {run.stderr.strip()}")
        return run.stdout

    def inspect(self, what: str, template: str) -> Any:
        return json.loads(self.docker("inspect", "--format", "{{json " + template + "}}", what))

    def run(self, *command: str, options: Sequence[object] = (), timeout: float = 300) -> Ended:
        """`docker run IMAGE command` to its end; a run that takes longer than `timeout` fails."""
        name, start = self._name(), time.monotonic()
        words = ["run", "--rm", "--name", name, "--label", f"{LABEL}={self.session}", *options]
        try:
            done = subprocess.run(
                ["docker", *map(str, words), self.image, *command],
                capture_output=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as err:
            self.docker("rm", "-f", name, check=False)
            end = ((err.stdout or b"") + (err.stderr or b""))[-2000:].decode("utf-8", "replace")
            raise AssertionError(f"no end after {timeout} s; the log ends with {end}") from None
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        return Ended(done.returncode, out, err, time.monotonic() - start)

    @contextlib.contextmanager
    def start(self, *command: str, options: Sequence[object] = ()) -> Iterator["Container"]:
        """`docker run -d IMAGE command`; the container is removed behind the block."""
        words = ["run", "-d", "--name", self._name(), "--label", f"{LABEL}={self.session}"]
        container = Container(self, self.docker(*words, *options, self.image, *command).strip())
        try:
            yield container
        finally:
            self.docker("rm", "-f", container.id, check=False)

    @contextlib.contextmanager
    def serve(
        self,
        model: Path,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[object] = (),
        command: Sequence[str] = ("serve",),
        port: int = 8080,
        wait: float = 60,
    ) -> Iterator["Server"]:
        """Serve a model directory, mounted read-only, at a free port of 127.0.0.1."""
        words: list[object] = ["-p", f"127.0.0.1::{port}", "-v", f"{model}:/opt/ml/model:ro"]
        for name, value in (env or {}).items():
            words += ["-e", f"{name}={value}"]
        with self.start(*command, options=[*words, *options]) as container:
            server = Server(container, container.published(port))
            if wait:
                server.wait(wait)
            yield server

    def remove_leftovers(self, folder: Path) -> None:
        """Remove the session's containers, and those of SDKs that worked in `folder`."""
        left = self.docker("ps", "-aq", "--filter", f"label={LABEL}={self.session}").split()
        where = '{{.ID}} {{.Label "com.docker.compose.project.working_dir"}}'
        for line in self.docker("ps", "-a", "--format", where).splitlines():
            container, _, project = line.partition(" ")
            if Path(project).is_relative_to(folder):
                left.append(container)
        if left:
            self.docker("rm", "-f", *left, check=False)

    def give_up_ownership(self, folder: Path) -> None:
        """Let the user who runs the tests delete what root wrote in a mounted folder."""
        if os.getuid():
            self.run("chmod", "-R", "a+rwX", "/folder", options=["-v", f"{folder}:/folder"])

    def _name(self) -> str:
        return f"{LABEL}-{self.session}-{uuid.uuid4().hex[:8]}"


@dataclass
class Container:
    """A container in the background."""

    engine: Engine
    id: str

    def published(self, port: int) -> int:
        """Return the port of 127.0.0.1 that leads to a port of the container; 0 if it has ended."""
        text = self.engine.docker("port", self.id, f"{port}/tcp", check=False)
        if not text:
            assert not self.running, f"port {port} is not published"
            return 0
        return int(text.split()[0].rpartition(":")[2])

    def execute(self, *command: str, check: bool = True) -> str:
        return self.engine.docker("exec", self.id, *command, check=check)

    def kill(self, signal: str) -> None:
        self.engine.docker("kill", "--signal", signal, self.id)

    @property
    def running(self) -> bool:
        return bool(self.engine.inspect(self.id, ".State.Running"))

    def log(self) -> str:
        run = subprocess.run(
            ["docker", "logs", self.id], capture_output=True, text=True, errors="replace"
        )
        return run.stdout + run.stderr

    def wait_for(self, text: str, timeout: float = 120) -> str:
        """Return the log as soon as it contains `text`."""
        end = time.monotonic() + timeout
        while text not in (log := self.log()):
            assert time.monotonic() < end and self.running, (
                f"no {text!r} in the log:\n{log[-3000:]}"
            )
            time.sleep(0.05)
        return log

    def ended(self, timeout: float = 60) -> Ended:
        """Wait for the container's end."""
        start = time.monotonic()
        code = int(self.engine.docker("wait", self.id, timeout=timeout))
        seconds = time.monotonic() - start
        run = subprocess.run(["docker", "logs", self.id], capture_output=True, text=True)
        return Ended(code, run.stdout, run.stderr, seconds)


class Reply(NamedTuple):
    """An answer of a server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def type(self) -> str:
        return self.headers.get_content_type()

    def predictions(self) -> list[dict[str, float]]:
        assert self.status == 200, f"{self.status}: {self.text[:500]}"
        return self.json()["predictions"]

    def scores(self) -> list[float]:
        return [prediction["score"] for prediction in self.predictions()]


@dataclass
class Server:
    """A container that serves, and the port of 127.0.0.1 where it does."""

    container: Container
    port: int

    def connection(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 60,
        encode_chunked: bool = False,
    ) -> Reply:
        connection = self.connection(timeout)
        try:
            connection.request(
                method, path, body, dict(headers or {}), encode_chunked=encode_chunked
            )
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, timeout: float = 60) -> Reply:
        return self.request("GET", path, timeout=timeout)

    def post(
        self,
        body: Any,
        content_type: str | None = JSON,
        accept: str | None = None,
        *,
        path: str = "/invocations",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Reply:
        """POST a body; what is not text or bytes is sent as JSON."""
        if not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        more = {"Content-Type": content_type, "Accept": accept}
        headers = {**{k: v for k, v in more.items() if v is not None}, **(headers or {})}
        return self.request("POST", path, body, headers, timeout=timeout)

    def ping(self, timeout: float = 2) -> int | None:
        """Return the status of GET /ping; None while nobody answers."""
        try:
            return self.get("/ping", timeout).status
        except (OSError, http.client.HTTPException):
            return None

    def wait(self, timeout: float = 60) -> float:
        """Wait for the first 200 of /ping; return the seconds it took."""
        start = time.monotonic()
        while self.ping() != 200:
            waited = time.monotonic() - start
            assert self.container.running, f"the server has ended:\n{self.container.log()[-3000:]}"
            assert waited < timeout, f"no 200 in {timeout} s:\n{self.container.log()[-3000:]}"
            time.sleep(0.02)
        return time.monotonic() - start

    def stop(self, grace: int = 30) -> Ended:
        """`docker stop`: SIGTERM, and SIGKILL after `grace` seconds, as the platform does."""
        start = time.monotonic()
        self.container.engine.docker("stop", "-t", grace, self.container.id, timeout=grace + 30)
        ended = self.container.ended()
        return ended._replace(seconds=time.monotonic() - start)


Files = Mapping[str, bytes] | bytes


@dataclass
class Job:
    """A training job: the tree of /opt/ml as the platform lays it out, in a folder of the host."""

    root: Path
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Files]
    inputs: Mapping[str, Mapping[str, str]] | None = None  # inputdataconfig.json, if unusual
    resources: Mapping[str, Any] | None = None  # resourceconfig.json, if unusual
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name, files in self.channels.items():
            if isinstance(files, bytes):
                files = {f"{name}.protobuf": files}
            (self.root / "input/data" / name).mkdir(exist_ok=True)
            for file, content in files.items():
                path = self.root / "input/data" / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        inputs = self.inputs
        if inputs is None:
            inputs = {
                name: {
                    "TrainingInputMode": "File",
                    "S3DistributionType": "FullyReplicated",
                    "RecordWrapperType": "None",
                }
                for name in self.channels
            }
        resources = self.resources or {
            "current_host": "algo-1",
            "current_instance_type": "ml.c5.xlarge",
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [
                {
                    "instance_group_name": "homogeneousCluster",
                    "instance_type": "ml.c5.xlarge",
                    "hosts": ["algo-1"],
                }
            ],
            "network_interface_name": "eth0",
        }
        self.write_config("hyperparameters", self.hyperparameters)
        self.write_config("inputdataconfig", inputs)
        self.write_config("resourceconfig", resources)

    def write_config(self, name: str, content: Mapping[str, Any]) -> None:
        (self.root / f"input/config/{name}.json").write_text(json.dumps(content))

    @property
    def options(self) -> list[object]:
        words: list[object] = ["-v", f"{self.root}:/opt/ml", "--network", "none"]
        for name, value in {"TRAINING_JOB_NAME": "conformance", **self.env}.items():
            words += ["-e", f"{name}={value}"]
        return words

    def run(
        self,
        engine: Engine,
        *command: str,
        options: Sequence[object] = (),
        timeout: float = 300,
    ) -> Ended:
        """Run the job to its end: `docker run IMAGE train` unless `command` says otherwise."""
        words = [*self.options, *options]
        return engine.run(*(command or ("train",)), options=words, timeout=timeout)

    def start(self, engine: Engine, options: Sequence[object] = ()) -> Any:
        """Start the job in the background."""
        return engine.start("train", options=[*self.options, *options])

    @property
    def failure(self) -> str | None:
        path = self.root / "output/failure"
        return path.read_text("utf-8") if path.exists() else None

    @property
    def model_dir(self) -> Path:
        return self.root / "model"

    def model_files(self) -> dict[str, bytes]:
        """Return the model directory: relative path -> content."""
        return {
            str(path.relative_to(self.model_dir)): path.read_bytes()
            for path in sorted(self.model_dir.rglob("*"))
            if path.is_file()
        }

    def model(self) -> fm.Model:
        return fm.load(self.model_dir)

    def refused(self, ended: Ended) -> str:
        """Check that the job failed for a reason of the user's, and return the reason."""
        assert ended.code == 1, f"exit code {ended.code}:\n{ended.log[-3000:]}"
        assert self.failure, f"no failure file:\n{ended.log[-3000:]}"
        assert len(self.failure) <= 1024
        assert self.failure.startswith("ClientError: ")
        assert not self.model_files()
        return self.failure

    def succeeded(self, ended: Ended) -> fm.Model:
        """Check that the job went well, and return its model."""
        assert ended.code == 0, f"exit code {ended.code}: {self.failure}\n{ended.log[-3000:]}"
        assert self.failure is None
        return self.model()
