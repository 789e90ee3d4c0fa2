"""What the checks share: the image, data, models trained once, and the table at the end.

    pytest tests/conformance --image fm:latest        (or the environment variable FM_IMAGE)

scripts/conformance does that and all it needs. Without an image nothing here is collected.
"""

import os
import shutil
import socket
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from . import movielens
from .engine import Engine, Job

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"

ARTICLE = {  # the article's hyperparameters
    "feature_dim": str(movielens.NUM_FEATURES),
    "predictor_type": "binary_classifier",
    "mini_batch_size": "1000",
    "num_factors": "64",
    "epochs": "100",
}

CHECKS = {
    1: "train, serve, no argument, another command",
    2: "ENTRYPOINT in exec form, labels",
    3: "a good job: exit 0, a model, no failure file",
    4: "wrong hyperparameters, all named at once",
    5: "hyperparameters as every SDK writes them",
    6: "wrong data: file and record named",
    7: "sparse configuration files, content types",
    8: "nested, several, hidden and empty files",
    9: "the test channel is optional and scored once",
    10: "the regexes of the built-in's metrics",
    11: "Pipe mode trains the model of File mode",
    12: "the same seed, the same bits",
    13: "the built-in's optimizer, its figures",
    14: "artefacts of the built-in",
    15: "RecordIO: golden bytes, both ways with the SDK",
    16: "SIGTERM in training: seconds, model, checkpoint",
    17: "restart resumes exactly",
    18: "a bad checkpoint is no obstacle",
    19: "SIGKILL at any time leaves no bad checkpoint",
    20: "no network, read-only, no /dev/shm, user 1000",
    21: "512 MB of memory; no place for a cache",
    22: "/ping is honest and quick",
    23: "the port it is told, and no other",
    24: "every request format, the same scores",
    25: "answers of every format",
    26: "edges and wrong instances",
    27: "Accept and Content-Type",
    28: "bodies from the article's to 100 MB, chunked",
    29: "headers, keep-alive, Expect: 100-continue",
    30: "32 clients at once",
    31: "batch transform",
    32: "multi-model endpoints",
    33: "SIGTERM and SIGKILL while serving",
    34: "404 and 405",
    35: "SDK 2: fit, deploy, predict, transform, no AWS call",
    36: "SDK 2 with two hosts",
    37: "SDK 3: ModelTrainer, LocalSession",
    38: "the article, top to bottom",
    39: "channels mounted read-only",
    40: "model.tar.gz beside others; model_algo-1",
    41: "a ranker's job, and lists of items",
}


# Programs that run elsewhere, with another SDK each.
collect_ignore_glob = ["sdk*.py", "article.py"]


def pytest_addoption(parser):
    parser.addoption("--image", help="the image to check (default: $FM_IMAGE)")


def _image(config):
    return config.getoption("--image", None) or os.environ.get("FM_IMAGE")


def pytest_ignore_collect(collection_path, config):
    if not _image(config) and collection_path.suffix == ".py":
        return True
    return None


# -- the table -----------------------------------------------------------------------------------

_outcomes: dict[int, list[tuple[str, str, float, str]]] = defaultdict(list)


def pytest_runtest_logreport(report):
    name = report.nodeid.rpartition("::")[2]
    if not name.startswith("test_f"):
        return
    if report.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2] if report.skipped and report.longrepr else ""
        _outcomes[int(name[6:8])].append((name, report.outcome, report.duration, str(reason)))


def pytest_terminal_summary(terminalreporter):
    """Print check -> pass, fail or skip."""
    if not _outcomes:
        return
    terminalreporter.section("conformance")
    for number, title in CHECKS.items():
        found = _outcomes.get(number)
        if not found:
            continue
        bad = [name for name, outcome, *_ in found if outcome == "failed"]
        skipped = [reason for _, outcome, _, reason in found if outcome == "skipped"]
        result = "FAIL" if bad else "skip" if len(skipped) == len(found) else "pass"
        note = ", ".join(bad)
        if not bad and skipped:
            note = f"{len(skipped)} of {len(found)} skipped: {skipped[0].removeprefix('Skipped: ')}"
        seconds = sum(duration for _, _, duration, _ in found)
        line = f"{number:2}  {result}  {len(found):2} tests {seconds:6.1f} s  {title}"
        terminalreporter.write_line(f"{line}  ({note})" if note else line)


# -- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def engine(request, tmp_path_factory):
    """The image on the engine that the docker command reaches."""
    engine = Engine(_image(request.config))
    engine.docker("image", "inspect", engine.image)
    yield engine
    engine.remove_leftovers(tmp_path_factory.getbasetemp())
    engine.give_up_ownership(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def ml_100k() -> Path:
    """The folder of the real MovieLens 100K; the test is skipped where it is absent."""
    folder = SHARED_DATA / "ml-100k"
    if not folder.is_dir():
        pytest.skip("no MovieLens 100K beside the checkout")
    return folder


@pytest.fixture(scope="session")
def builtin_run() -> Path:
    """A real run of the built-in: artefact, test channel, log; skipped where it is absent."""
    folder = SHARED_DATA / "sagemaker-builtin-fm"
    if not folder.is_dir():
        pytest.skip("no artefact of the built-in beside the checkout")
    return folder


@pytest.fixture(scope="session")
def ratings() -> movielens.Ratings:
    return movielens.made_up(20_000, seed=7)


@pytest.fixture(scope="session")
def train_ratings(ratings) -> movielens.Ratings:
    return ratings[:18_000]


@pytest.fixture(scope="session")
def held_out(ratings) -> movielens.Ratings:
    return ratings[18_000:]


@pytest.fixture(scope="session")
def few(ratings) -> movielens.Ratings:
    """Enough to train on for a moment."""
    return ratings[:600]


@pytest.fixture
def job(tmp_path, few):
    """Make a small job; keywords change its parts."""
    numbers = iter(range(1000))

    def make(hyperparameters=None, channels=None, *, root=None, **more) -> Job:
        given = {"predictor_type": "regressor", "num_factors": "4", "epochs": "3"}
        if channels is None:
            channels = {"train": few.records()}
        root = root or tmp_path / f"job{next(numbers)}"
        return Job(root, {**given, **(hyperparameters or {})}, channels, **more)

    return make


class Trained:
    """A job that was run once for all tests that look at it."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self.job = job
        self.ended = job.run(engine)
        self.model = job.succeeded(self.ended)
        self.model_dir = job.model_dir


@pytest.fixture(scope="session")
def classifier(engine, tmp_path_factory, train_ratings, held_out) -> Trained:
    """The article's job by the built-in's optimizer, for 10 epochs."""
    channels = {
        "train": train_ratings.records(train_ratings.liked),
        "test": held_out.records(held_out.liked),
    }
    parameters = {**ARTICLE, "epochs": "10", "optimizer": "sagemaker", "factors_lr": "0.003"}
    parameters |= {"batch_metrics_publish_interval": "5"}
    return Trained(engine, Job(tmp_path_factory.mktemp("classifier"), parameters, channels))


@pytest.fixture(scope="session")
def regressor(engine, tmp_path_factory, train_ratings, held_out) -> Trained:
    """A regressor by our defaults."""
    channels = {"train": train_ratings.records(), "test": held_out.records()}
    parameters = {"predictor_type": "regressor", "num_factors": "8", "epochs": "10"}
    return Trained(engine, Job(tmp_path_factory.mktemp("regressor"), parameters, channels))


@pytest.fixture(scope="session")
def endpoint(engine, classifier):
    """The classifier, served."""
    with engine.serve(classifier.model_dir) as server:
        yield server


@pytest.fixture(scope="session")
def regressor_endpoint(engine, regressor):
    with engine.serve(regressor.model_dir) as server:
        yield server


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- the SDKs, each in a virtual environment of its own ------------------------------------------


def sdk_python(version: int) -> Path:
    """Return the Python that has an SDK; the test is skipped where there is none."""
    python = ROOT / f".venv-sagemaker{version}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no SDK {version}: scripts/conformance installs it")
    return python


@pytest.fixture(scope="session")
def sdk_env(tmp_path_factory) -> dict[str, str]:
    """The environment in which the SDKs reach nothing outside this machine."""
    folder = tmp_path_factory.mktemp("sdk")
    config = folder / "config.yaml"
    config.write_text(
        "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )
    env = {
        **os.environ,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(config),
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
    }
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        env.pop(name, None)
    if not shutil.which("docker-compose"):  # SDK 2 looks for the word "v2" in Compose's version
        shim = folder / "bin" / "docker-compose"
        shim.parent.mkdir()
        shim.write_text('#!/bin/sh\nexec docker compose "$@"\n')
        shim.chmod(0o755)
        env["PATH"] = f"{shim.parent}{os.pathsep}{env['PATH']}"
    return env
