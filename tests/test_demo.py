"""The demonstration shows what was measured; scripts/setup says what it needs."""

import os
import re
import shlex
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import fm.cli.demo
import fm.cli.main
from fm.cli.demo import split_rows
from fm.cli.options import command
from fm.datasets.survey import load_survey

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^(\S.*?)  +(\d\.\d{4})[* ] +(\d\.\d{4})[* ] +(\d+\.\d\d)$", re.M)


@pytest.fixture(scope="module")
def shown():
    """What ``fm train`` prints without arguments."""
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fm.cli.demo._say", lambda text: parts.append(text + "\n"))
        assert fm.cli.main.main(["train"]) == 0
    return "".join(parts)


def test_the_table_shows_what_ids_and_answers_are_good_for(shown):
    rows = {name: (float(known), float(new)) for name, known, new, _ in ROW.findall(shown)}
    assert list(rows) == [
        "mean of all ratings", "averages of person and cuisine", "FM, ids", "FM, ids and answers",
    ]  # fmt: skip
    mean, averages, ids, answers = rows.values()
    assert ids[0] < averages[0] < mean[0]  # factors know more of a person than a mean does
    assert answers[0] < averages[0]
    assert answers[1] < min(mean[1], averages[1], ids[1])  # nothing else tells new people apart
    assert shown.count("*") == 3  # the lowest of each column, and the heading that says so


def test_the_mean_and_the_averages_are_those_of_the_rows_trained_on(shown):
    table, _ = load_survey()
    split = split_rows(table)
    y = table["rating"].cast("float64").to_numpy()
    expected = [
        np.sqrt(np.mean((y[rows] - y[split.train].mean()) ** 2))
        for rows in (split.known, split.unknown)
    ]
    found = [float(text) for text in ROW.search(shown).groups()[1:3]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_held_out_rows_are_not_trained_on_and_new_people_have_none():
    table, _ = load_survey()
    split = split_rows(table)
    everything = np.concatenate(split)
    np.testing.assert_array_equal(np.sort(everything), np.arange(table.num_rows))
    users = table["user"].to_numpy()
    assert not np.isin(users[split.unknown], users[split.train]).any()
    assert 0.08 < split.known.size / table.num_rows < 0.1
    assert 0.08 < split.unknown.size / table.num_rows < 0.12


def test_progress_data_and_licence_are_shown(shown):
    assert "23,943 ratings (1 to 5) by 1,276 people of 40 cuisines" in shown
    assert shown.count("  epoch   1  validation rmse ") == 2
    assert "Data: FiveThirtyEight (fivethirtyeight/data, food-world-cup), CC BY 4.0" in shown
    assert float(re.search(r"^([\d.]+) s\. Data", shown, re.M)[1]) < 30
    train = re.escape(shlex.join(command("train")))
    assert re.search(rf"Now your own data: {train} ratings\.csv \({train} --help\)$", shown)


def test_recommendations_for_a_known_person_are_cuisines_without_a_rating(shown):
    person = re.search(r"^Person (\d+) rated ", shown, re.M)[1]
    table, _ = load_survey()
    rated = {row["cuisine"] for row in table.to_pylist() if row["user"] == person}
    first, *others = re.findall(r":\n    (.*)$", shown, re.M)
    named = re.findall(r"([A-Z][A-Za-z ]+?) (\d\.\d)", first)
    assert len(named) == 5
    assert not {name for name, _ in named} & rated
    scores = [float(score) for _, score in named]
    assert scores == sorted(scores, reverse=True)
    assert len(others) == len(set(others)) == 3  # two new people, and one of them after ratings


def test_reasons_add_up_to_the_score_that_is_shown(shown):
    lists = re.findall(r"^    ([A-Z][A-Za-z ]+?) (\d\.\d), .*\n    why (.*): (.*)$", shown, re.M)
    assert len(lists) == 3
    for best, score, cuisine, reasons in lists:
        assert best == cuisine
        bias, *terms = re.findall(r"(\d\.\d\d) for everything| ([+-]\d\.\d\d)(?:,|$)", reasons)
        total = float(bias[0]) + sum(float(value) for _, value in terms)
        assert float(score) == pytest.approx(total, abs=0.08)


def test_three_ratings_change_what_a_new_person_is_told(shown):
    told = shown.partition("The first of the two now rates Italy 5, India 1, Thailand 1.")[2]
    best = re.search(r":\n    (.*)$", told, re.M)[1]
    before = re.findall(r":\n    (.*)$", shown, re.M)[1]
    assert not re.search("Italy|India|Thailand", best)  # these are known now
    highest = [float(re.search(r"\d\.\d", text)[0]) for text in (before, best)]
    assert highest[0] > highest[1]  # who dislikes two of three is not promised more


def test_answers_of_the_new_people_are_answers_that_somebody_gave():
    table, fields = load_survey()
    assert set(fm.cli.demo.RATINGS) <= set(table["cuisine"].to_pylist())
    for stranger in fm.cli.demo.STRANGERS:
        assert set(stranger) <= set(fields)
        for name, value in stranger.items():
            assert value in table[name].to_pylist()


def test_a_signal_ends_the_demo(monkeypatch, capsys):
    def interrupt(epoch):
        os.kill(os.getpid(), 2)

    monkeypatch.setattr("fm.cli.demo._say_epoch", interrupt)
    assert fm.cli.main.main(["train"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_embedded_data_come_with_their_attribution():
    folder = files("fm.datasets")
    text = (folder / "food-world-cup.md").read_text()
    for part in ("fivethirtyeight/data", "FiveThirtyEight", "CC BY 4.0", "Changes made"):
        assert part in text
    sizes = [len((folder / f"{name}_tidy.csv.gz").read_bytes()) for name in ("ratings", "users")]
    assert sum(sizes) < 100_000


# -- scripts/setup ---------------------------------------------------------------------------------

TOOLS = ("cat", "cksum", "dirname", "rm", "tail", "tee", "sh")


@pytest.fixture
def machine(tmp_path):
    """A copy of the project's scripts, and a PATH on which there is what the test puts there."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/setup", tmp_path / "scripts/setup")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    return tmp_path


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def setup(machine, *arguments):
    return subprocess.run(
        [machine / "scripts/setup", *arguments],
        env={"PATH": str(machine / "bin")},
        cwd="/",
        capture_output=True,
        text=True,
    )


def test_setup_says_which_python_it_needs_and_which_it_found(machine):
    done = setup(machine)
    assert done.returncode == 1
    assert "expected Python 3.10 or newer" in done.stderr
    assert "found no python3" in done.stderr
    program(machine / "bin/python3", '[ "$1" = --version ] && echo Python 3.8.2 && exit; exit 1')
    done = setup(machine)
    assert done.returncode == 1
    assert "found Python 3.8.2;\n" in done.stderr
    assert not (machine / ".venv").exists()


def test_setup_does_what_is_missing_once(machine):
    # A Python that makes environments whose pip only notes what it was asked to install.
    pip = 'case "$*" in *pip*) echo Collecting "$@"; echo "$@" >>asked;; esac'
    make = f"""mkdir -p .venv/bin; printf '#!/bin/sh\\n%s\\n' '{pip}' >.venv/bin/python"""
    (machine / "bin/mkdir").symlink_to(shutil.which("mkdir"))
    (machine / "bin/chmod").symlink_to(shutil.which("chmod"))
    program(
        machine / "bin/python3.11",
        f"""case "$*" in --version) echo Python 3.11.0;; *venv\\ .venv) {make}
chmod +x .venv/bin/python;; esac""",
    )
    done = setup(machine)
    assert done.returncode == 0, done.stderr
    assert "making .venv with Python 3.11.0" in done.stdout
    assert done.stdout.endswith("setup: done\n")
    asked = (machine / "asked").read_text()
    assert asked.splitlines()[-1].endswith("-e .")
    assert setup(machine).stdout == ""  # it is there
    assert (machine / "asked").read_text() == asked
    assert "installing fm and the tools for dev" in setup(machine, "dev").stdout
    assert (machine / "asked").read_text().splitlines()[-1].endswith("-e .[dev]")
    with (machine / "pyproject.toml").open("a") as file:
        file.write("\n# another dependency\n")
    assert "installing fm" in setup(machine).stdout


def test_setup_shows_why_an_installation_failed(machine):
    (machine / ".venv/bin").mkdir(parents=True)
    program(
        machine / ".venv/bin/python",
        'case "$*" in *pip*) echo no matching distribution; exit 1;; esac',
    )
    done = setup(machine)
    assert done.returncode == 1
    assert "no matching distribution" in done.stderr
    assert "the installation failed" in done.stderr
    assert setup(machine).returncode == 1  # and it is not taken for done
