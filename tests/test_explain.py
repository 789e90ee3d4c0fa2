"""The command line that explains: its terms add up to the scores, however rows and output come."""

import gzip
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from test_explaining import model_of

import fm.cli.explain
import fm.cli.main
from fm.config import TrainConfig
from fm.encoding.encoder import Encoder
from fm.formats.recordio import write_numpy_to_dense_tensor
from fm.model.load import load
from fm.model.model import Model
from fm.tasks import CLASSIFIER, REGRESSOR

ROWS = [
    {"user": "ann", "film": "A", "genres": "x|y", "age": "1.5"},
    {"user": "bob", "film": "B", "genres": "y", "age": "-2.0"},
    {"user": "eve", "film": "B", "genres": "z|x", "age": ""},
]
NUMBERED = np.array([[1, 0, 2, 0], [0, 1, 0, -1], [0.5, 1, 1, 1]])


@pytest.fixture(params=[REGRESSOR, CLASSIFIER])
def task(request):
    return request.param


@pytest.fixture
def desk(tmp_path, monkeypatch, task):
    """A folder with two models and rows for each: m and t.csv have columns, n and t.libsvm not."""
    monkeypatch.chdir(tmp_path)
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    encoder = Encoder.fit(columns, categorical=["user", "film"], multi=["genres"], numeric=["age"])
    model_of(task, encoder).save("m")
    lines = [",".join(row.values()) for row in ROWS]
    Path("t.csv").write_text("\n".join([",".join(ROWS[0]), *lines]) + "\n")
    Path("bare.csv").write_text("\n".join(lines) + "\n")
    Path("t.tsv").write_text(Path("t.csv").read_text().replace(",", "\t"))
    Path("t.csv.gz").write_bytes(gzip.compress(Path("t.csv").read_bytes()))
    pa.parquet.write_table(pa.csv.read_csv("t.csv"), "t.parquet")
    model_of(task, None, n=4).save("n")
    entries = [[f"{j}:{x:g}" for j, x in enumerate(row) if x] for row in NUMBERED]
    Path("t.libsvm").write_text("".join(f"1 {' '.join(row)}\n" for row in entries))
    Path("t.libffm").write_text("".join(f"1 0:{' 0:'.join(row)}\n" for row in entries))
    with open("t.recordio", "wb") as file:
        write_numpy_to_dense_tensor(file, NUMBERED.astype(np.float32), np.ones(3, np.float32))
    return tmp_path


regressor = pytest.mark.parametrize("task", [REGRESSOR], indirect=True)


def start(*argv):
    try:
        return fm.cli.main.main(["explain", *map(str, argv)])
    except SystemExit as err:  # argparse
        return err.code


@pytest.fixture
def out(capsys):
    """Run the command and return what it writes."""

    def run(*argv):
        capsys.readouterr()
        assert start(*argv) == 0
        found, said = capsys.readouterr()
        assert said == ""
        return found

    return run


@pytest.fixture
def fails(desk, capsys):
    """Check that a command ends with exit code 2 and one line that matches, and writes nothing."""

    def check(message, *argv):
        before = sorted(desk.iterdir())
        capsys.readouterr()
        assert start(*argv) == 2
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1, err
        assert re.search(message, err), err
        assert sorted(desk.iterdir()) == before

    return check


# -- which rows ------------------------------------------------------------------------------------


def test_the_text_is_that_of_model_explain(desk, out):
    texts = [str(load("m").explain(row)) for row in ROWS]
    assert out("m", "t.csv") == "\n".join(f"row {i}\n{t}\n" for i, t in enumerate(texts, 1))
    assert out("m", "t.csv", "--rows", 1) == f"row 1\n{texts[0]}\n"
    assert out("m", "--rows", 1, "t.csv") == f"row 1\n{texts[0]}\n"  # options may stand between
    assert out("m", "--row", json.dumps(ROWS[1])) == f"row 1\n{texts[1]}\n"


@pytest.mark.parametrize(
    "argv",
    [
        "m t.csv",
        "m t.tsv",
        "m t.csv.gz",
        "m t.parquet",
        "m bare.csv --names user,film,genres,age",
        "m t.tsv --format csv --delimiter \t",
        "n t.libsvm --zero-based",
        "n t.libffm",
        "n t.recordio",
    ],
)
def test_terms_of_any_file_add_up_to_the_scores_that_predict_writes(desk, out, capsys, argv):
    assert fm.cli.main.main(["predict", *argv.split(" "), "--score"]) == 0
    scores = [float(line) for line in capsys.readouterr().out.split()]
    found = json.loads(out(*argv.split(" "), "--json"))
    assert [row["row"] for row in found] == [1, 2, 3]
    assert [row["score"] for row in found] == pytest.approx(scores, rel=1e-4, abs=1e-5)
    for row in found:
        terms = [term["contribution"] for term in row["linear"] + row["pairs"]]
        assert row["bias"] + sum(terms) == pytest.approx(row["score"], abs=1e-9)


@regressor
def test_a_table_on_standard_input(desk, out, monkeypatch):
    wanted = out("m", "t.csv")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("t.csv").read_bytes())))
    assert out("m", "-") == wanted


@regressor
def test_only_the_first_rows_are_read(desk, out):
    lines = Path("t.csv").read_text().splitlines()
    Path("long.csv").write_text("\n".join([lines[0], *lines[1:] * 4, "ann,A,x,three"]) + "\n")
    assert out("m", "long.csv").count("score") == 5
    assert out("m", "long.csv", "--rows", 12).count("score") == 12
    for name in ("a.csv", "b.csv"):
        Path("folder").mkdir(exist_ok=True)
        Path("folder", name).write_text(Path("t.csv").read_text())
    assert out("m", "folder", "--rows", 4).count("score") == 4
    assert out("m", "folder", "--rows", 99).count("score") == 6


def test_rows_on_the_command_line(desk, out):
    told = ["--row", json.dumps(ROWS[:2]), "--row", json.dumps(ROWS[2]), "--json"]
    assert out("m", *told) == out("m", "t.csv", "--json")
    told = [{"features": [2, 0], "values": [2, 1]}, {"features": [1, 3, 3], "values": [1, -2, 1]}]
    found = json.loads(out("n", "--row", json.dumps(told), "--json"))
    scores = load("n").scores(NUMBERED[:2])
    assert [row["score"] for row in found] == pytest.approx(scores, rel=1e-4)
    assert found[0]["score"] == load("n").explain(([2, 0], [2, 1])).score
    found = json.loads(out("m", "--row", '{"features": [0], "values": [1]}', "--json"))
    assert found[0]["linear"][0]["feature"] == 0


@regressor
def test_a_column_called_features_is_one(desk, out):
    encoder = Encoder.fit({"features": ["a", "b"], "values": ["c", "d"]})
    model_of(encoder=encoder).save("odd")
    assert "features=a x values=c" in out("odd", "--row", '{"features": "a", "values": "c"}')


# -- what is written -------------------------------------------------------------------------------


def read_output(name):
    content = Path(name).read_bytes()
    content = gzip.decompress(content) if name.endswith(".gz") else content
    ending = name.split(".")[1]
    if ending == "parquet":
        return pa.parquet.read_table(name).to_pylist()
    if ending == "jsonl":
        return [json.loads(line) for line in content.splitlines()]
    options = pa.csv.ParseOptions(delimiter="\t" if ending == "tsv" else ",")
    return pa.csv.read_csv(io.BytesIO(content), parse_options=options).to_pylist()


NAMES = ["o.csv", "o.tsv", "o.jsonl", "o.parquet", "o.csv.gz"]


@pytest.mark.parametrize("name", NAMES)
def test_the_terms_in_a_file_add_up_to_the_scores(desk, task, out, monkeypatch, name):
    monkeypatch.setattr(fm.cli.explain, "ROWS_AT_ONCE", 2)  # three rows are two tables
    assert out("m", "t.csv", "-o", name) == ""
    found = read_output(name)
    more = ["probability"] if task == CLASSIFIER else []
    assert list(found[0]) == ["row", "score", *more, "term", "contribution"]
    model = load("m")
    parts = itertools.groupby(found, key=lambda line: line["row"])
    for (number, lines), row in zip(parts, ROWS, strict=True):
        lines, wanted = list(lines), model.explain(row)
        score = float(model.scores([row])[0])
        assert lines[0]["term"] == "bias" and 1 <= number <= 3
        assert sum(line["contribution"] for line in lines) == pytest.approx(score, abs=1e-4)
        assert all(line["score"] == pytest.approx(wanted.score) for line in lines)
        assert len(lines) == 1 + len(wanted.linear) + wanted.num_pairs
        if task == CLASSIFIER:
            assert lines[0]["probability"] == pytest.approx(1 / (1 + np.exp(-score)), rel=1e-4)


@regressor
def test_a_long_row_has_its_strongest_pairs_and_the_rest(desk, out):
    model_of(encoder=None, n=30).save("long")
    row = json.dumps({"features": list(range(30)), "values": [1] * 30})
    out("long", "--row", row, "-o", "o.parquet")
    found = read_output("o.parquet")
    assert len(found) == 1 + 30 + 20 + 1 and found[-1]["term"] == "415 more"
    wanted = load("long").scores(np.ones((1, 30)))[0]
    assert sum(line["contribution"] for line in found) == pytest.approx(wanted, rel=1e-4)


@regressor
def test_json_holds_all_that_is_known(desk, out):
    wanted = [{"row": i, **load("m").explain(row).to_dict()} for i, row in enumerate(ROWS, 1)]
    assert json.loads(out("m", "t.csv", "--json")) == wanted
    for more in (["-o", "o.json"], ["--json", "-o", "o"], ["-o", "o.json.gz"]):
        out("m", "t.csv", *more)
    text = Path("o.json").read_bytes()
    assert json.loads(text) == wanted
    assert text == Path("o").read_bytes() == gzip.decompress(Path("o.json.gz").read_bytes())


@regressor
def test_the_strongest_pairs(desk, out):
    wanted = load("m").interactions("t.csv", 3)
    lines = out("m", "t.csv", "--interactions", "-n", 3).splitlines()
    assert lines[0].split() == ["rank", "contribution", "product", "rows", "first", "second"]
    for rank, (line, pair) in enumerate(zip(lines[1:], wanted, strict=True), 1):
        texts = [str(rank), f"{pair.contribution:.4f}", f"{pair.product:.4f}", str(pair.rows)]
        assert line.split() == [*texts, pair.first, pair.second]
    everything = load("m").interactions("t.csv", 99)
    assert len(out("m", "t.csv", "--interactions").splitlines()) == 1 + min(20, len(everything))
    first = load("m").interactions(ROWS[:1], 3)
    for rows in (["t.csv", "--rows", 1], ["--row", json.dumps(ROWS[0])]):
        found = json.loads(out("m", *rows, "--interactions", "-n", 3, "--json"))
        assert found == [{"rank": i, **pair._asdict()} for i, pair in enumerate(first, 1)]


@regressor
@pytest.mark.parametrize("name", NAMES)
def test_the_strongest_pairs_in_a_file(desk, out, name):
    assert out("m", "t.csv", "--interactions", "-o", name) == ""
    for line, pair in zip(read_output(name), load("m").interactions("t.csv"), strict=True):
        assert list(line) == ["rank", *sorted(pair._fields, key=list(line).index)]
        assert (line["first"], line["second"], line["rows"]) == (pair.first, pair.second, pair.rows)
        assert line["contribution"] == pytest.approx(pair.contribution)


@regressor
def test_rows_without_pairs_are_named(desk, capsys):
    argv = ["n", "--row", '{"features": [1], "values": [1]}', "--interactions", "-o", "o.csv"]
    assert start(*argv) == 0
    assert capsys.readouterr().err == (
        "fm: warning: no two features occur together in these rows\n"
    )
    assert Path("o.csv").read_text().count("\n") == 1


# -- pictures --------------------------------------------------------------------------------------


@regressor
def test_pictures(desk, out):
    pytest.importorskip("matplotlib")
    text = out("m", "t.csv", "--picture", "a.png")
    assert text == out("m", "t.csv", "--rows", 1)
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    out("m", "--row", json.dumps(ROWS[0]), "--picture", "b.svg", "-o", "b.csv")
    assert "<svg" in Path("b.svg").read_text() and Path("b.csv").exists()
    lines = out("m", "t.csv", "--interactions", "--picture", "c.pdf").splitlines()
    assert len(lines) > 4 and Path("c.pdf").read_bytes().startswith(b"%PDF")


@regressor
def test_pictures_that_cannot_be_drawn(desk, fails):
    pytest.importorskip("matplotlib")
    message = "--picture: expected one row to draw, found more; say --rows 1"
    fails(message, "m", "t.csv", "--rows", 2, "--picture", "x.png", "-o", "o.csv")
    fails(message, "m", "--row", json.dumps(ROWS), "--picture", "x.png")
    fails("--picture: Format 'docx' is not supported", "m", "t.csv", "--picture", "x.docx")
    fails("--picture: Format 'docx' is not", "m", "t.csv", "--picture", "x.docx", "-o", "o.csv")
    fails("--picture: the model knows no fields", "n", "t.libsvm", "--zero-based",
          "--interactions", "--picture", "x.png")  # fmt: skip


@regressor
def test_a_full_disk_leaves_no_half_of_a_picture(desk, fails, monkeypatch):
    pytest.importorskip("matplotlib")

    def full(*_):
        raise OSError(28, "No space left on device")

    Path("a.png").write_text("yesterday")
    monkeypatch.setattr("os.fsync", full)
    fails("error: a.png: No space left on device", "m", "t.csv", "--picture", "a.png")
    assert Path("a.png").read_text() == "yesterday"
    fails("error: o.csv: No space left on device", "m", "t.csv", "-o", "o.csv")


@regressor
def test_without_matplotlib(desk, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for more in ([], ["--interactions"]):
        fails(r"--picture: matplotlib is not installed; run pip install fm\[plots\]", "m", "t.csv",
              "--picture", "x.png", "-o", "o.csv", *more)  # fmt: skip


# -- complaints ------------------------------------------------------------------------------------


@regressor
def test_complaints(desk, fails):
    fails("explain: expected rows, found none; name a FILE or say --row", "m")
    fails("required: MODEL .see fm explain --help")
    fails("unrecognized arguments: --wors", "m", "t.csv", "--wors")
    fails("--row: stands instead of a FILE, found t.csv", "m", "t.csv", "--row", "{}")
    fails("say how a FILE is read, found --row", "m", "--row", "{}", "--rows", 1)
    fails("say how a FILE is read, found --row", "m", "--row", "{}", "--names", "a")
    fails("-n: says how many --interactions", "m", "t.csv", "-n", 3)
    fails("argument --rows: expected an integer >= 1, found '0'", "m", "t.csv", "--rows", 0)
    fails("argument -n: expected an integer >= 1, found 'x'", "m", "t.csv", "-n", "x")
    fails("nowhere: no such file", "nowhere", "t.csv")
    fails("nowhere.csv: no such file", "m", "nowhere.csv")
    fails("t.csv: expected a safetensors", "t.csv", "t.csv")
    fails("cannot tell the format from 'o.xls'; give --output-format", "m", "t.csv", "-o", "o.xls")
    fails("--output: m is the file of the model", "m", "t.csv", "--json", "-o", "m")
    fails("--output: t.csv is the file of the input", "m", "t.csv", "-o", "t.csv")
    fails("--picture: t.csv is the file of the input", "m", "t.csv", "--picture", "t.csv")
    fails("--picture: o.csv is the file of --output", "m", "t.csv", "--picture", "o.csv",
          "-o", "o.csv")  # fmt: skip
    fails("t.csv: expected libsvm.*found a table", "n", "t.csv")
    fails("t.libsvm: |expected a table|there is no column", "m", "t.libsvm")
    Path("bad.csv").write_text("user,film,genres,age\nann,A,x,1\nann,A,x,three\n")
    fails("bad.csv row 2, column 'age': expected a finite number", "m", "bad.csv", "-o", "o.csv")
    Path("x.csv").write_text("user,film,age\nann,A,1\n")
    fails("x.csv.*there is no column 'genres'", "m", "x.csv")
    Path("x.libsvm").write_text("1 1:1\n1 9:1\n")
    fails("x.libsvm line 2: .*9", "n", "x.libsvm")


@regressor
@pytest.mark.parametrize("more", [[], ["--interactions"], ["--picture", "x.png"]])
def test_a_table_without_rows(desk, fails, more):
    pa.parquet.write_table(pa.csv.read_csv("t.csv").slice(0, 0), "empty.parquet")
    fails("empty.parquet: the file has no rows", "m", "empty.parquet", *more)
    Path("empty.libsvm").write_text("# nothing\n")
    fails("empty.libsvm: expected at least one row", "n", "empty.libsvm", *more)


@regressor
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "expected JSON, an object .*found '{'"),
        ("3", "expected an object or a list of them, found '3'"),
        ("[]", "expected an object or a list of them, found '..'"),
        ('{"usr": "ann"}', "row 1: there is no column 'usr'.*did you mean 'user'"),
        ('[{}, {"age": "x"}]', "row 2, column 'age': expected a .*number.*found 'x'"),
        ('{"user": ["ann", "bob"]}', "column 'user': expected one value, found .*'bob'.$"),
        ('{"features": [99], "values": [1]}', r"row 1: feature 99 is outside \[0, "),
        ('{"features": [1, 2], "values": [1]}', "row 1: expected as many values as numbers"),
        ('{"features": ["a"], "values": [1]}', "row 1: expected as many values as numbers"),
        ('{"features": [[1], 2], "values": [1, 2]}', "expected lists of numbers as features"),
        ('{"features": [1], "values": [1e300]}', "row 1, feature 1: the value .* is not a finite"),
        ('[{"features": [1], "values": [1]}, {}]', "row 1: there is no column 'features'"),
    ],
)
def test_wrong_rows_on_the_command_line(desk, fails, row, message):
    fails(f"^fm: error: --row: .*{message}", "m", "--row", row, "-o", "o.csv")


@regressor
def test_columns_for_a_model_of_numbered_features(desk, fails):
    fails('--row: expected {"features".*because n was trained on numbered features', "n", "--row",
          '{"user": "ann"}')  # fmt: skip


@regressor
def test_it_can_be_interrupted(desk, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "explain", stop)
    assert start("m", "t.csv", "-o", "o.csv") == 130
    assert capsys.readouterr() == ("", "fm: interrupted\n")
    assert not Path("o.csv").exists()


def test_it_never_loads_the_compiler_nor_matplotlib(tmp_path):
    Model(0.5, [1, -1], [[1], [2]], TrainConfig(REGRESSOR, 1)).save(tmp_path / "m")
    code = (
        "import sys; sys.argv[0] = 'x'\nimport runpy\n"
        "try:\n runpy.run_module('fm.explain', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'numba', 'sklearn', 'matplotlib'} & sys.modules.keys()"
    )
    argv = [sys.executable, "-c", code, tmp_path / "m", "--row", '{"features":[0],"values":[2]}']
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("row 1\nscore 2.5\n")


def test_help_teaches_by_examples(capsys):
    assert fm.cli.main.main(["--help"]) == 0
    assert "\n  explain " in capsys.readouterr().out
    assert start("--help") == 0
    found = capsys.readouterr().out
    assert "fm explain model/ new.csv" in found and "--delimiter" in found
    assert "usage: fm explain [-h] MODEL [FILE] [OPTIONS]" in found
