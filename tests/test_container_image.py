"""What the image is made of, as far as it can be told without building it."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from container import kernels

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENTRYPOINT = ROOT / "container" / "entrypoint"


def test_one_name_is_pushed():
    argv = [ROOT / "scripts" / "build_and_push", "--dry-run"]
    one, two = (
        subprocess.run([*argv, *names], capture_output=True, text=True, timeout=10)
        for names in (["a"], ["a", "b"])
    )
    assert one.returncode == 0 and one.stdout.endswith("/a:latest\n")
    assert (two.returncode, two.stdout) == (2, "")
    assert "expected one NAME, found a and b" in two.stderr


# -- the Dockerfile --------------------------------------------------------------------------------


def instruction(name):
    """The last occurrence of an instruction, its lines joined."""
    text = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.M)[-1]


def test_f02_entrypoint_command_and_labels():
    assert json.loads(instruction("ENTRYPOINT")) == ["/usr/local/bin/entrypoint"]
    assert json.loads(instruction("CMD")) == ["train"]
    labels = instruction("LABEL")
    for name in ("accept-bind-to-port", "multi-models"):
        assert f"com.amazonaws.sagemaker.capabilities.{name}=true" in labels


def test_it_builds_without_a_registry_of_syntaxes_and_from_another_base():
    assert "# syntax" not in DOCKERFILE
    assert DOCKERFILE.count("ARG BASE_IMAGE=python:3.11-slim-bookworm") == 1
    images = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M))
    assert images == {"${BASE_IMAGE}", "runtime"}
    assert "USER" not in re.findall(r"^[A-Z]+", DOCKERFILE, re.M)  # /opt/ml belongs to root


def test_what_is_taken_out_of_scipy_is_imported_nowhere():
    folder, removed = re.search(r"cd scipy.*?rm -rf ([a-z ]+)", DOCKERFILE, re.S), set()
    removed = {f"scipy.{name}" for name in folder[1].split()}
    assert "scipy.stats" in removed
    for path in [*(ROOT / "fm").rglob("*.py"), *(ROOT / "container").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                assert ".".join(name.split(".")[:2]) not in removed, f"{path} needs {name}"


# -- the entry point -------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path):
    """Call the entry point under a name, with a `python` that says what it was asked."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "python $*"\nexit 3\n')
    python.chmod(0o755)
    for name in ("entrypoint", "train", "serve"):
        (tmp_path / name).symlink_to(ENTRYPOINT)

    def call(name, *words):
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        run = subprocess.run(
            [tmp_path / name, *words], env=env, capture_output=True, text=True, timeout=10
        )
        return run.returncode, run.stdout.strip()

    return call


def test_f01_train_and_serve(call):
    assert call("entrypoint") == call("entrypoint", "train") == (3, "python -m container.train")
    assert call("entrypoint", "serve") == (3, "python -m container.serve")
    assert call("train") == (3, "python -m container.train")
    assert call("serve") == (3, "python -m container.serve")
    assert call("entrypoint", "train", "a b") == (3, "python -m container.train a b")


def test_f01_another_command(call, tmp_path):
    assert call("entrypoint", "echo", "hi  there") == (0, "hi  there")
    assert call("entrypoint", "sh", "-c", "exit 7")[0] == 7
    assert call("entrypoint", "no-such-command")[0] == 127
    (tmp_path / "x").mkdir(mode=0o700)
    assert call("entrypoint", "chmod", "-R", "777", str(tmp_path / "x"))[0] == 0
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o777


# -- compiled kernels ------------------------------------------------------------------------------

AVX2 = "flags\t\t: fpu avx avx2 bmi1 bmi2 f16c fma abm movbe"
AVX512 = f"{AVX2} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (AVX512, ["x86-64-v4", "x86-64-v3"]),
        (AVX2, ["x86-64-v3"]),
        ("flags : fpu avx", []),
        ("Features : fp asimd", []),
        ("", []),
    ],
)
def test_kinds_of_processors(flags, expected):
    assert kernels.kinds(f"model name : x\n{flags}\nflags : of another core\n") == expected


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "read_cpuinfo", lambda: AVX512)
    (tmp_path / "kernels" / "x86-64-v3" / "fm").mkdir(parents=True)
    (tmp_path / "kernels" / "x86-64-v3" / "fm" / "k.nbi").write_text("x")
    return tmp_path / "kernels"


def test_kernels_are_copied_to_where_numba_looks(folder, tmp_path):
    target = tmp_path / "target"
    environ = {"NUMBA_CACHE_DIR": str(target)}
    kernels.use(environ, folder)  # made for the second best kind only
    assert environ["NUMBA_CPU_NAME"] == "x86-64-v3" and environ["NUMBA_CPU_FEATURES"] == ""
    assert (target / "fm" / "k.nbi").read_text() == "x"


@pytest.mark.parametrize("more", [{}, {"NUMBA_CPU_NAME": "skylake"}])
def test_what_the_user_says_stays(more, folder, tmp_path):
    environ = {"NUMBA_CACHE_DIR": "", **more}
    if more:
        environ["NUMBA_CACHE_DIR"] = str(tmp_path / "target")
    before = dict(environ)
    kernels.use(environ, folder)
    assert environ == before and not (tmp_path / "target").exists()


def test_a_place_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").touch()
    environ = {"NUMBA_CACHE_DIR": str(tmp_path / "file" / "x")}
    kernels.use(environ, folder)
    assert environ["NUMBA_CPU_NAME"] == "x86-64-v3"


def test_no_kernels_at_all(tmp_path):
    environ = {"NUMBA_CACHE_DIR": str(tmp_path)}
    kernels.use(environ, tmp_path / "none")
    assert environ == {"NUMBA_CACHE_DIR": str(tmp_path)}
