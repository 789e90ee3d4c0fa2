"""``serve``: what the environment sets. The server itself is tested in test_serve*.py."""

import os
import signal
import subprocess
import sys

import pytest

import container.serve
from container.serve import settings
from fm.errors import ConfigError
from fm.serving.limits import Limits, cores


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {
            "bind": "0.0.0.0:8080", "workers": cores(), "timeout": 60, "limits": Limits(),
            "multi_model": False, "batch": False, "default_accept": None, "access_log": False,
        }),
        ({"SAGEMAKER_BIND_TO_PORT": "9090", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9100"},
         {"bind": "0.0.0.0:9090"}),
        ({"SAGEMAKER_BATCH": "True", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"},
         {"batch": True, "limits": Limits()}),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "500"}, {"limits": Limits(500 << 20)}),
        ({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}, {"limits": Limits(sys.maxsize)}),
        ({"MAX_CONTENT_LENGTH": "1000000"}, {"limits": Limits(1_000_000)}),
        ({"SAGEMAKER_MULTI_MODEL": "true"}, {"multi_model": True}),
        ({"SAGEMAKER_MULTI_MODEL": "false", "SAGEMAKER_BATCH": ""}, {"multi_model": False}),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "MODEL_SERVER_WORKERS": "5"}, {"workers": 3}),
        ({"MODEL_SERVER_WORKERS": "5"}, {"workers": 5}),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "120"}, {"timeout": 120}),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "90"}, {"timeout": 90}),
        ({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "application/jsonlines"},
         {"default_accept": "application/jsonlines"}),
        ({"SAGEMAKER_CONTAINER_LOG_LEVEL": "10"}, {"access_log": True}),
        ({"SAGEMAKER_CONTAINER_LOG_LEVEL": "20"}, {"access_log": False}),
        ({"SAGEMAKER_PROGRAM": "x.py", "SAGEMAKER_REGION": "us-east-1"}, {}),
    ],
)  # fmt: skip
def test_f23_f31_what_the_environment_sets(environ, expected):
    assert {**settings({}), **expected} == settings(environ)


def test_everything_wrong_is_named_at_once():
    wrong = {"SAGEMAKER_BIND_TO_PORT": "70000", "SAGEMAKER_BATCH": "maybe"}
    with pytest.raises(ConfigError) as error:
        settings(wrong)
    assert "SAGEMAKER_BIND_TO_PORT: expected an integer from 1 to 65,535" in str(error.value)
    assert "SAGEMAKER_BATCH: expected true or false, found 'maybe'" in str(error.value)


@pytest.mark.parametrize("multi", [False, True])
def test_where_models_are(multi, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("fm.serving.server.run_server", lambda *a, **k: asked.append((a, k)) or 0)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("SAGEMAKER_MULTI_MODEL", str(multi))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    before = signal.getsignal(signal.SIGTERM)
    try:
        container.serve.main([])
        with pytest.raises(SystemExit) as end:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 0
    (((path,), options),) = asked
    assert path == tmp_path / ("models" if multi else "model")
    assert options["multi_model"] is multi
    assert path.is_dir() == multi  # a platform that has no model yet may have no folder either


def test_f22_no_model_no_server(tmp_path):
    env = {**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_BIND_TO_PORT": "0"}
    for changed, text in (
        ({}, "SAGEMAKER_BIND_TO_PORT"),
        ({"SAGEMAKER_BIND_TO_PORT": ""}, "model"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "container.serve"],
            env={**env, **changed}, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert run.returncode == 2 and text in run.stderr and "Traceback" not in run.stderr


def test_serving_needs_no_compiler():
    code = (
        "import sys, container.serve, container.paths, fm.serving.server\n"
        "container.serve.settings({})\n"
        "assert not {'numba', 'llvmlite', 'pyarrow', 'sklearn'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
