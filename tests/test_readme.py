"""What the documents say is true: every example in the README runs, and the versions agree."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fm
from fm.config import TrainConfig
from fm.datasets.survey import load_survey
from fm.formats.recordio import write_spmatrix_to_sparse_tensor
from fm.model.builtin import write_artifact
from fm.model.model import Model

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)

MARK = "-- end of an example --"


@pytest.fixture
def desk(tmp_path, monkeypatch, rng):
    """A folder with the files that the README's examples read."""
    monkeypatch.chdir(tmp_path)
    users, films = rng.integers(30, size=600), rng.integers(20, size=600)
    ratings = np.clip(np.round(3 + users % 3 - films % 3 + rng.normal(size=600) / 2), 1, 5)
    genres = np.array(["Action|Comedy", "Drama", "Comedy"])[films % 3]
    rows = [
        f"u{user},f{film},{rating:.0f},{20 + user},{genre}"
        for user, film, rating, genre in zip(users, films, ratings, genres, strict=True)
    ]
    header = "user,film,rating,age,genres\n"
    Path("ratings.csv").write_text(header + "\n".join(rows[:500]))
    Path("test.csv").write_text(header + "\n".join(rows[500:]))
    Path("new.csv").write_text("user,film,age,genres\nu1,f2,21,Drama\nstranger,f3,,\n")
    lines = [
        f"{user}\t{film}\t{rating:.0f}\t{8e8 + user:.0f}"
        for user, film, rating in zip(users, films, ratings, strict=True)
    ]
    Path("u.data").write_text("\n".join(lines))
    X = np.zeros((600, 50), np.float32)
    X[np.arange(600), users] = X[np.arange(600), 30 + films] = 1
    for name, part in (("train", slice(500)), ("test", slice(500, None))):
        with open(f"{name}.protobuf", "wb") as file:
            data = fm.Dataset.from_arrays(X[part], ratings[part])
            write_spmatrix_to_sparse_tensor(file, data.X, data.y)
    config = TrainConfig(num_factors=4)
    write_artifact(Model(3.0, np.zeros(50), np.ones((50, 4)), config), "model.tar.gz")
    return tmp_path


def as_script():
    """Return all examples as one program, which marks the end of each."""
    parts = ["import fm.cli.main"]
    for language, text in BLOCKS:
        if language == "python":
            parts.append(text)
        else:
            for line in text.splitlines():
                verb, arguments = re.fullmatch(r"python -m fm\.(\w+) (.*)", line).groups()
                call = [verb, *shlex.split(arguments)]
                parts.append(f"assert fm.cli.main.main({call!r}) == 0, {line!r}")
        parts.append(f"print({MARK!r})")
    return "\n".join(parts)


def test_every_example_of_the_readme_runs_and_prints_what_it_promises(desk):
    done = subprocess.run([sys.executable, "-c", as_script()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = done.stdout.split(MARK)[:-1]
    promises = 0
    for (language, text), output in zip(BLOCKS, outputs, strict=True):
        for number in re.findall(r"print\(.*# \[([0-9.]+)\]", text):
            promises += 1
            assert float(re.search(r"[0-9.]+", output)[0]) == pytest.approx(float(number), abs=0.1)
        if language == "python":
            assert "print" not in text or output.strip()
    assert promises
    assert {"model.safetensors", "predictions.csv", "converted.safetensors"} <= set(os.listdir())


def test_the_readme_recommends_to_somebody_in_the_survey():
    asked = re.findall(r'ranker\.recommend\("(\w+)"', "".join(text for _, text in BLOCKS))
    assert asked and set(asked) <= set(map(str, load_survey()[0]["user"].to_pylist()))


def test_the_readme_shows_both_kinds_of_examples_and_leads_to_files_that_exist():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        for link in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (ROOT / link).exists(), f"{name}: {link}"
    for script in ("scripts/setup", "scripts/demo", "scripts/test", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK)


def test_contributing_names_the_floor_of_every_module():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "fm").glob("*.py"):
        if not path.stem.startswith("_"):
            assert f"`{path.stem}`" in text, path.name


def test_package_project_and_changelog_have_one_version():
    project = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    changes = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert fm.__version__ == project == changes
