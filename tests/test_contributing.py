"""What CONTRIBUTING.md shows how to add is added to a copy of the package, and works there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fm

ROOT = Path(fm.__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PARTS = {
    name: re.findall(r"```python\n# (.*?)\n(.*?)```", part, re.S)
    for name, part in re.findall(r"\*\*(An? \w+)\*\* is a (.*?which works:.*?```)", TEXT, re.S)
}


def test_there_is_an_example_of_each():
    assert list(PARTS) == ["A loss", "An optimizer", "A solver"]
    for blocks in PARTS.values():
        places = [place for place, _ in blocks]
        assert len(blocks) == 3 and places[-1] == "which works:"  # one file, one entry, a proof


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with everything added."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fm", folder / "fm", ignore=ignored)
    for blocks in PARTS.values():
        for place, code in blocks[:-1]:
            at_the_end = place.startswith("at the end of ")
            path = folder / place.removeprefix("at the end of ")
            assert path.exists() == at_the_end, f"{place}: a new file is new, others are there"
            with path.open("a", encoding="utf-8") as file:
                file.write("\n\n" * at_the_end + code)
    return folder


@pytest.mark.parametrize("name", PARTS)
def test_the_example_works(name, package):
    code = "import fm\nimport numpy as np\n" + PARTS[name][-1][1] + "\nprint(fm.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1].startswith(str(package))


def test_the_command_line_and_the_estimators_know_them(package):
    code = (
        "from fm.config import parameters\nimport fm.estimators.parameters, fm.cli.main\n"
        "print({p.name: p.choices for p in parameters()}['optimizer'])\n"
        "fm.cli.main.main(['train', '--help'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    for word in ("signs", "ridge", "steps of a fixed length", "counter"):
        assert word in run.stdout
