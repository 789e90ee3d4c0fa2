"""The command lines: what they write, how they complain, and how they end."""

import ast
import dataclasses
import fcntl
import gzip
import io
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import termios
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import records
import scipy.sparse as sp

import fm.cli.convert
import fm.cli.evaluate
import fm.cli.main
import fm.cli.predict
from fm.cli.messages import EXIT_CLOSED_PIPE, as_option, run
from fm.cli.options import Parser, add_data_options, command, data_options
from fm.config import TrainConfig
from fm.encoding.columns import Categorical, Numeric, Vocabulary
from fm.encoding.encoder import Encoder
from fm.errors import Advice, ConfigError, DataError, FMWarning
from fm.evaluating.rankings import evaluate_ranking
from fm.formats import recordio, svmlight
from fm.model.builtin import write_artifact
from fm.model.load import load
from fm.model.model import Model
from fm.reading.read import read
from fm.tasks import CLASSIFIER, REGRESSOR

TASKS = (REGRESSOR, CLASSIFIER)
ROWS = [("ann", "Alien", "30"), ("bob", "Brazil", "41.5"), ("eve", "", "")]
RATINGS = [1, 0, 1]


def model_of_columns(task):
    encoder = Encoder(
        [
            Categorical("user", Vocabulary(("ann", "bob"))),
            Categorical("film", Vocabulary(("Alien", "Brazil"))),
            Numeric("age", 35.0, 5.0),
        ]
    )
    rng = np.random.default_rng(3)
    return Model(
        0.25,
        rng.normal(size=encoder.num_features),
        rng.normal(size=(encoder.num_features, 2)),
        TrainConfig(task, 2),
        encoder=encoder,
        fields=encoder.fields,
        field_names=encoder.field_names,
    )


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


@pytest.fixture
def files(tmp_path, task):
    """A folder with two models, a table and rows of features."""
    model = model_of_columns(task)
    model.save(tmp_path / "model")
    (tmp_path / "m.safetensors").write_bytes((tmp_path / "model").read_bytes())
    lines = [",".join((*row, str(y))) for row, y in zip(ROWS, RATINGS, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["user,film,age,rating", *lines]) + "\n")
    Model(0.5, [1, -1, 2], [[1], [2], [3]], TrainConfig(task, 1)).save(tmp_path / "s.safetensors")
    (tmp_path / "t.libsvm").write_text("1 1:1 2:1\n0 2:1 3:0.5\n")
    return tmp_path


def expected_scores(task):
    rows = [dict(zip(("user", "film", "age"), row, strict=True)) for row in ROWS]
    return model_of_columns(task).scores(rows)


SPARSE_SCORES = [0.5 + 0 + 2, 0.5 - 1 + 1 + 3]


def start(*argv):
    """Run fm in this process; return the exit code."""
    try:
        return fm.cli.main.main([str(arg) for arg in argv])
    except SystemExit as err:  # argparse
        return err.code


@pytest.fixture
def fails(capsys):
    """Check that a command ends with exit code 2 and one line that matches."""

    def check(message, *argv):
        import re

        capsys.readouterr()
        assert start(*argv) == 2
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1, err
        assert re.search(message, err), err

    return check


# -- fm ------------------------------------------------------------------------------------------


def test_help_and_version(capsys):
    assert start("--version") == 0
    assert capsys.readouterr().out == f"fm {fm.__version__}\n"
    for argv in ([], ["--help"]):
        assert start(*argv) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {verb} " in out for verb in fm.cli.main.VERBS)


def test_a_wrong_verb(fails):
    fails("fm: error: expected one of train, .*found 'predcit'; did you mean 'predict'", "predcit")
    fails(r"found 'xyz' \(see fm --help\)", "xyz")


@pytest.mark.parametrize("verb", ["predict", "evaluate", "convert"])
def test_help_teaches_by_examples(capsys, verb):
    assert start(verb, "--help") == 0
    out = capsys.readouterr().out
    assert f"fm {verb} model" in out and "examples:" in out and "--delimiter" in out


@pytest.mark.parametrize("module", ["fm", "fm.cli.main"])
def test_python_m(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fm {fm.__version__}\n", "")


@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_modules_run_by_themselves_and_never_load_numba(files):
    code = (
        "import runpy, sys; sys.argv[0] = 'x'; runpy.run_module('fm.predict', run_name='__main__')"
    )
    code = f"import sys\ntry:\n {code}\nexcept SystemExit as e: assert e.code == 0\n"
    code += "assert 'numba' not in sys.modules and 'sklearn' not in sys.modules"
    argv = [sys.executable, "-c", code, files / "s.safetensors", files / "t.libsvm"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) == 2


# -- predict -------------------------------------------------------------------------------------


def link(task, scores):
    return 1 / (1 + np.exp(-np.asarray(scores))) if task == CLASSIFIER else np.asarray(scores)


def test_predictions_on_standard_output(capsys, files, task):
    for model in ("m.safetensors", "model"):
        assert start("predict", files / model, files / "t.csv") == 0
        found = [float(line) for line in capsys.readouterr().out.splitlines()]
        np.testing.assert_allclose(found, link(task, expected_scores(task)), rtol=1e-5)
    assert start("predict", files / "s.safetensors", files / "t.libsvm", "--score") == 0
    assert [float(line) for line in capsys.readouterr().out.split()] == SPARSE_SCORES


def test_the_first_feature_of_libsvm(files, capsys):
    """A file without the first feature is ambiguous; --zero-based says what is meant."""
    (files / "x.libsvm").write_text("0 1:1 2:1\n")
    argv = ["predict", files / "s.safetensors", files / "x.libsvm", "--score"]
    for flags, score in ((["--zero-based"], 0.5 - 1 + 2 + 6), ([], 0.5 + 0 + 2)):
        assert start(*argv, *flags) == 0
        assert float(capsys.readouterr().out) == score


def test_predictions_from_standard_input(capsys, files, task, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO((files / "t.csv").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert start("predict", files / "m.safetensors", "-") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def read_output(path):
    import pyarrow.csv
    import pyarrow.parquet

    content = path.read_bytes()
    if path.name.endswith(".gz"):
        content = gzip.decompress(content)
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "jsonl":
        rows = [json.loads(line) for line in content.splitlines()]
        return {name: [row[name] for row in rows] for name in rows[0]}
    if ending == "parquet":
        return pyarrow.parquet.read_table(path).to_pydict()
    options = pyarrow.csv.ParseOptions(delimiter="\t" if ending == "tsv" else ",")
    return pyarrow.csv.read_csv(io.BytesIO(content), parse_options=options).to_pydict()


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.csv.gz", "o.jsonl", "o.parquet"])
@pytest.mark.parametrize("append", [False, True])
def test_output_formats(capsys, files, task, name, append):
    flags = ["--append"] if append else []
    flags += ["--probability", "--label", "--score"] if task == CLASSIFIER else []
    assert (
        start("predict", files / "m.safetensors", files / "t.csv", "-o", files / name, *flags) == 0
    )
    found = read_output(files / name)
    columns = ["user", "film", "age", "rating"] if append else []
    kinds = ["probability", "label", "score"] if task == CLASSIFIER else ["prediction"]
    assert list(found) == columns + kinds
    scores = expected_scores(task)
    np.testing.assert_allclose(found[kinds[-1]], scores, rtol=1e-5)
    if task == CLASSIFIER:
        np.testing.assert_allclose(found["probability"], link(task, scores), rtol=1e-5)
        assert found["label"] == (scores >= 0).tolist()
    if append:
        assert found["user"] == ["ann", "bob", "eve"]
    assert capsys.readouterr() == ("", "")


def test_recordio_output_is_as_the_built_ins(files, task):
    path = files / "o.recordio"
    assert start("predict", files / "m.safetensors", files / "t.csv", "--output", path) == 0
    values = records.predictions(path.read_bytes())
    scores = expected_scores(task)
    found = [value["score"] for value in values]
    np.testing.assert_allclose(found, link(task, scores), rtol=1e-5)
    if task == CLASSIFIER:
        assert [value["predicted_label"] for value in values] == [float(s >= 0) for s in scores]


@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_columns_that_json_has_no_form_for(files, capsys, fails):
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet

    columns = {"user": ["ann"], "film": ["Alien"], "age": [30.0]}

    def argv(value):
        pyarrow.parquet.write_table(pa.table({**columns, "x": [value]}), files / "x.parquet")
        return ["predict", files / "m.safetensors", files / "x.parquet", "--append",
                "-o", files / "o.jsonl"]  # fmt: skip

    assert start(*argv(Decimal("1.50"))) == 0
    assert read_output(files / "o.jsonl")["x"] == ["1.50"]
    assert start(*argv(pa.scalar(1, pa.timestamp("ns")))) == 0
    assert read_output(files / "o.jsonl")["x"] == ["1970-01-01T00:00:00.000000001"]
    fails("jsonl: .*not JSON serializable: bytes; write another format", *argv(b"x"))


@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_files_of_a_folder_may_differ_in_their_types(files, capsys, fails):
    import pyarrow as pa
    import pyarrow.parquet

    (files / "two").mkdir()
    columns = {"user": ["ann"], "film": ["Alien"], "age": [30.0]}

    def write(*values):
        for i, value in enumerate(values):
            table = pa.table({**columns, "x": [value]})
            pyarrow.parquet.write_table(table, files / "two" / f"{i}.parquet")

    argv = ["predict", files / "m.safetensors", files / "two", "--append",
            "-o", files / "o.parquet"]  # fmt: skip
    write(1.5, 2)
    assert start(*argv) == 0
    assert read_output(files / "o.parquet")["x"] == [1.5, 2.0]
    assert start("convert", files / "two", files / "c.parquet") == 0
    write(1, "two")
    fails("parquet: column 'x': expected int64 in all files, as in the first, found", *argv)


@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_a_table_larger_than_a_batch(files, monkeypatch, capsys):
    import fm.formats.tables

    lines = (files / "t.csv").read_text().splitlines()
    (files / "big.csv").write_text("\n".join([lines[0], *lines[1:] * 40_000]))
    assert start("predict", files / "m.safetensors", files / "big.csv") == 0
    found = capsys.readouterr().out.split()
    assert len(found) == 120_000 > fm.formats.tables.BATCH_ROWS
    assert found[:3] * 40_000 == found


def test_predict_complains(files, task, fails):
    model, table = files / "m.safetensors", files / "t.csv"
    fails("nowhere: no such file", "predict", "nowhere", table)
    fails("nowhere.csv: ", "predict", model, "nowhere.csv")
    fails(r"t\.csv: not|t\.csv: expected a safetensors", "predict", table, table)
    fails("cannot tell the format from '.*out'", "predict", model, table, "-o", files / "out")
    fails("txt holds one number", "predict", model, table, "--append")
    fails("recordio holds what the built-in", "predict", model, table, "--append",
          "--output-format", "recordio")  # fmt: skip
    fails(r"t\.csv: expected libsvm.*found a table", "predict", files / "s.safetensors", table)
    fails("input has no columns", "predict", files / "s.safetensors", files / "t.libsvm",
          "--append", "-o", files / "o.csv")  # fmt: skip
    fails("fm predict: error: .*required: INPUT .see fm predict --help", "predict", model)
    fails("invalid choice: 'xls'", "predict", model, table, "--format", "xls")
    fails("unrecognized arguments: --targe", "predict", model, table, "--targe", "x")
    if task == REGRESSOR:
        fails(
            "is a regressor, not a classifier; leave them out",
            "predict",
            model,
            table,
            "--probability",
        )
    (files / "bad.csv").write_text("user,age\nann,3\n")
    fails(r"bad\.csv.*there is no column 'film'", "predict", model, files / "bad.csv")
    (files / "x.libsvm").write_text("1 1:1\n1 9:1\n")
    fails(r"x\.libsvm line 2: .*9", "predict", files / "s.safetensors", files / "x.libsvm")
    (files / "own.csv").write_text("user,film,age,label,prediction\nann,Alien,3,1,2\n")
    kind = ["--label"] if task == CLASSIFIER else []
    fails("has a column '(label|prediction)' already", "predict", model, files / "own.csv",
          "--append", "-o", files / "o.csv", *kind)  # fmt: skip


@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_a_failed_prediction_leaves_the_old_output(files, capsys):
    (files / "o.csv").write_text("old")
    (files / "bad.csv").write_text("user,film,age\nann,Alien,3\nann,Alien,three\n")
    argv = ["predict", files / "m.safetensors", files / "bad.csv", "-o", files / "o.csv"]
    before = sorted(os.listdir(files))
    assert start(*argv) == 2
    assert "bad.csv row 2, column 'age': expected a finite number" in capsys.readouterr().err
    assert (files / "o.csv").read_text() == "old" and sorted(os.listdir(files)) == before


@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_progress_on_a_terminal(files, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert start("predict", files / "m.safetensors", files / "t.csv", "-o", files / "o.csv") == 0
    assert "predicting" in terminal.getvalue()


# -- evaluate ------------------------------------------------------------------------------------


def test_evaluate_as_json(files, task, capsys):
    argv = ["evaluate", files / "m.safetensors", files / "t.csv", "--json"]
    for more in ([], ["--target", "rating"], ["--target", "rating", "--weight", "rating"]):
        assert start(*argv, *more) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["rows"] == 3 and found["predictor_type"] == task
        error = expected_scores(task) - RATINGS
        keep = np.array(RATINGS) == 1 if "--weight" in more else slice(None)
        if task == REGRESSOR:
            assert found["metrics"]["mse"] == pytest.approx(np.mean(error[keep] ** 2), rel=1e-5)
        else:
            right = (expected_scores(task) >= 0) == RATINGS
            assert found["metrics"]["accuracy"] == pytest.approx(right[keep].mean())
    assert found["metrics"].keys() == found["baseline"].keys()


def test_evaluate_as_a_table(files, task, capsys):
    assert start("evaluate", files / "s.safetensors", files / "t.libsvm") == 0
    head, names, model, constant = capsys.readouterr().out.splitlines()
    assert head == f"{task}, 2 rows"
    assert names.split() == (
        ["rmse", "mse", "mae"] if task == REGRESSOR else ["log_loss", "accuracy", "f1", "auc"]
    )
    assert constant.split()[0] == "constant" and model.split()[0] == "model"
    if task == REGRESSOR:
        assert constant.split()[1:] == ["0.500000", "0.250000", "0.500000"]
        errors = np.array(SPARSE_SCORES) - [1, 0]
        assert float(model.split()[2]) == pytest.approx(np.mean(errors**2))


def test_the_target_of_training_is_that_of_evaluate_and_convert(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("user,rating,stars\n" + "ann,1,4\nbob,2,8\n" * 3)
    train = ["train", table, "--target", "stars", "--categorical", "user", "--epochs", "1"]
    model = tmp_path / "m.safetensors"
    assert start(*train, "--num-factors", "1", "--output", model, "--quiet") == 0
    assert start("predict", model, table) == 0
    assert start("evaluate", model, table, "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["baseline"]["rmse"] == 2
    assert start("convert", table, tmp_path / "t.libsvm", "--encoder", model) == 0
    assert (tmp_path / "t.libsvm").read_text().startswith("4 ")


def test_evaluate_complains(files, task, fails):
    model = files / "m.safetensors"
    (files / "x.csv").write_text("user,film,age,stars\nann,Alien,3,1\nann,Alien,3,2\n")
    fails("x.csv: no column is called rating", "evaluate", model, files / "x.csv")
    fails("no column 'star'; .*did you mean 'stars'", "evaluate", model, files / "x.csv",
          "--target", "star")  # fmt: skip
    if task == CLASSIFIER:
        fails(r"x\.csv row 2: expected label 0 or 1.*found 2", "evaluate", model, files / "x.csv",
              "--target", "stars")  # fmt: skip


@pytest.fixture
def ranking(tmp_path):
    """A folder with a model that knows its items, one that does not, and test rows."""
    train = {"user": list("aabbcc"), "film": list("XYYZXZ"), "rating": [1.0] * 6}
    data = read(train, target="rating")
    rng = np.random.default_rng(3)
    n = data.num_features
    model = Model(
        0, rng.normal(size=n), rng.normal(size=(n, 2)), TrainConfig(REGRESSOR, 2),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue,
    )  # fmt: skip
    model.save(tmp_path / "m.safetensors")
    dataclasses.replace(model, catalogue=None).save(tmp_path / "none.safetensors")
    lines = ["user,film,stars", "a,Z,5", "b,X,2", "c,W,4", "eve,X,1"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_evaluate_a_ranking(ranking, capsys):
    argv = ["evaluate", ranking / "m.safetensors", ranking / "t.csv", "--ranking"]
    assert start(*argv, "-k", "1") == 0
    head, unknown, strangers, names, *methods = capsys.readouterr().out.splitlines()
    assert head == "full ranking: 4 lists of 1 of 3 items, without those seen; 4 relevant"
    assert unknown == "items unknown to the model: 1 of 4 relevant; they count as misses"
    assert strangers.startswith("users unknown to the model: 1 rows")
    assert names.split()[:2] == ["precision@1", "recall@1"] and "novelty@1" in names
    assert [line[:12].strip() for line in methods] == ["model", "most popular", "item kNN"]
    assert all(len(line) == len(names) for line in methods)
    assert float(methods[0].split()[1]) in (0.5, 0.75)  # only what a and b have not met is left

    model = load(ranking / "m.safetensors")
    for more, options in (
        (["--sampled", "2"], {"sampled": 2}),
        (["--include-seen", "-k", "2"], {"exclude": None, "k": 2}),
        (["--threshold", "4", "--target", "stars"], {"threshold": 4}),
        (["--user", "user", "--item", "film"], {}),
    ):
        assert start(*argv, "--json", *more) == 0
        found = json.loads(capsys.readouterr().out)
        data = read(ranking / "t.csv", encoder=model.encoder, target="stars")
        assert found == evaluate_ranking(model, data, **options)


def test_evaluate_a_ranking_of_named_columns(ranking, capsys):
    argv = ["evaluate", ranking / "none.safetensors", ranking / "t.csv", "--ranking", "--json"]
    assert start(*argv, "--item", "film", "--user", "user") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["metrics"]) == ["model"] and found["items"] == 3 and found["contexts"] == 4
    assert found["notes"][-1].endswith("the model has no training pairs")
    # another column than the model's own
    assert start("evaluate", ranking / "m.safetensors", *argv[2:], "--item", "user") == 2
    assert "user, item: expected two columns, found user" in capsys.readouterr().err


def test_evaluate_a_ranking_by_ranges(files, task, capsys):
    argv = ["evaluate", files / "s.safetensors", files / "r.libsvm", "--ranking", "--json"]
    (files / "r.libsvm").write_text("1 1:1 2:1\n1 1:1 3:1\n")
    assert start(*argv, "--user", "0:1", "--item", "1:3", "-k", "2") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["contexts"] == 1 and found["metrics"]["model"]["recall@2"] == 1


def test_evaluate_shows_progress_of_a_ranking(ranking, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert start("evaluate", ranking / "m.safetensors", ranking / "t.csv", "--ranking") == 0
    assert "ranking" in terminal.getvalue() and "12" in terminal.getvalue()


def test_evaluate_a_ranking_complains(ranking, fails):
    model, rows = ranking / "m.safetensors", ranking / "t.csv"
    for more in (["-k", "3"], ["--sampled", "9"], ["--include-seen"], ["--item", "film"]):
        fails(f"{more[0]}: expected --ranking too", "evaluate", model, rows, *more)
    argv = ["evaluate", model, rows, "--ranking"]
    fails("--weight: does not apply to --ranking", *argv, "--weight", "stars")
    fails("argument -k: expected an integer >= 1, found '0'", *argv, "-k", "0")
    fails("threshold: expected a finite number, found nan", *argv, "--threshold", "nan",
          "--target", "stars")  # fmt: skip
    fails("no column is called rating.*with --target", *argv, "--threshold", "4")
    fails("no target reaches the threshold of 9; the highest is 5", *argv, "--threshold", "9",
          "--target", "stars")  # fmt: skip
    fails("item: expected one of the columns.*found 'flim'", *argv, "--item", "flim")
    fails("does not know which column is the item; train it on data read with --item",
          "evaluate", ranking / "none.safetensors", *argv[2:])  # fmt: skip
    ranker = dataclasses.replace(load(model), config=TrainConfig("ranker", 2))
    ranker.save(ranking / "ranker.safetensors")
    fails("the model is a ranker, whose scores predict no target.*--ranking",
          "evaluate", ranking / "ranker.safetensors", rows, "--target", "stars")  # fmt: skip


def test_evaluate_the_real_artefact(shared_data, capsys):
    folder = shared_data / "sagemaker-builtin-fm"
    channel = folder / "u1.test.protobuf.gz"
    assert start("evaluate", folder / "model.tar.gz", channel, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 20_000
    assert found["metrics"]["rmse"] == pytest.approx(1.000263, abs=1e-5)


# -- convert -------------------------------------------------------------------------------------


@pytest.fixture
def sparse(rng):
    X = sp.random(50, 20, 0.2, format="csr", dtype=np.float32, random_state=1)
    edges = sp.csr_matrix(([1, 1], ([0, 0], [0, 19])), shape=X.shape, dtype=np.float32)
    X = X + edges  # the first and the last feature occur
    return X, rng.integers(0, 5, 50).astype(np.float32)


def test_rows_through_every_format(tmp_path, capsys, sparse):
    X, y = sparse
    with open(tmp_path / "a.libffm", "wb") as file:
        svmlight.write_libffm(file, X, y, np.arange(20) // 7)
    chain = ["a.libffm", "b.recordio", "c.libsvm", "d.libsvm.gz", "e.protobuf"]
    for source, target in zip(chain, chain[1:], strict=False):
        assert start("convert", tmp_path / source, tmp_path / target) == 0
        assert "50 rows, 20 features" in capsys.readouterr().out
    found, labels = recordio.read_csr(tmp_path / "e.protobuf")
    np.testing.assert_array_equal(found.toarray(), X.toarray())
    np.testing.assert_array_equal(labels, y)
    assert start("convert", tmp_path / "a.libffm", tmp_path / "f.x", "--to", "libffm") == 0
    assert (tmp_path / "f.x").read_bytes() == (tmp_path / "a.libffm").read_bytes()


def test_feature_dim_widens_rows(tmp_path, capsys, sparse):
    with open(tmp_path / "a.recordio", "wb") as file:
        recordio.write_spmatrix_to_sparse_tensor(file, *sparse)
    argv = ["convert", tmp_path / "a.recordio", tmp_path / "b.recordio", "--feature-dim", "99"]
    assert start(*argv) == 0
    assert recordio.read_csr(tmp_path / "b.recordio")[0].shape == (50, 99)


def test_a_table_becomes_rows_and_the_encoder_is_kept(files, capsys):
    argv = ["convert", files / "t.csv", files / "a.recordio", "--target", "rating"]
    columns = ["--categorical", "user,film", "--numeric", "age", "--standardize"]
    assert start(*argv, *columns, "--save-encoder", files / "encoder.json") == 0
    assert capsys.readouterr().err == ""
    encoder = Encoder.from_dict(json.loads((files / "encoder.json").read_text()))
    X, y = recordio.read_csr(files / "a.recordio")
    assert y.tolist() == RATINGS and X.shape[1] == encoder.num_features
    assert encoder.decode_row(X[1])["film"] == "Brazil"
    lines = (files / "t.csv").read_text().splitlines()
    (files / "test.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))  # the rows reversed
    argv = ["convert", files / "test.csv", files / "b.recordio", "--target", "rating"]
    assert start(*argv, "--encoder", files / "encoder.json") == 0
    np.testing.assert_array_equal(
        recordio.read_csr(files / "b.recordio")[0].toarray(), X.toarray()[::-1]
    )
    assert start(*argv, "--encoder", files / "m.safetensors") == 0
    argv = argv[:3]  # the target is found without a name, too
    assert start(*argv, "--encoder", files / "encoder.json") == 0
    assert recordio.read_csr(files / "b.recordio")[1].tolist() == RATINGS[::-1]
    assert capsys.readouterr().err == ""
    assert start(*argv) == 0
    assert "give --save-encoder" in capsys.readouterr().err
    (files / "test.csv").write_text("user,film,age\nann,Alien,3\n")
    assert start(*argv, "--encoder", files / "encoder.json") == 0
    assert "test.csv: no column is called rating, " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["o.parquet", "o.tsv", "o.csv.gz"])
def test_tables_keep_their_columns(files, capsys, name):
    assert start("convert", files / "t.csv", files / name) == 0
    assert capsys.readouterr().out.endswith(": 3 rows\n")
    found = read_output(files / name)
    assert found["user"] == ["ann", "bob", "eve"]
    assert list(map(int, found["rating"])) == RATINGS


def test_models_to_and_fro(tmp_path, capsys, rng):
    model = Model(0.5, rng.normal(size=4), rng.normal(size=(4, 2)), TrainConfig(num_factors=2))
    write_artifact(model, tmp_path / "model.tar.gz")
    assert start("convert", tmp_path / "model.tar.gz", tmp_path / "m.safetensors") == 0
    ours = load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(ours.V, model.V)
    assert start("convert", tmp_path / "m.safetensors", tmp_path / "again.tar.gz") == 0
    assert load(tmp_path / "again.tar.gz") == ours
    argv = ["convert", tmp_path / "m.safetensors", tmp_path / "model_algo-1", "--to", "builtin"]
    assert start(*argv) == 0
    assert load(tmp_path / "model_algo-1") == ours
    assert "Model(regressor, 4 features x 2 factors)" in capsys.readouterr().out


@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_convert_says_what_stays_behind(files, capsys):
    assert start("convert", files / "m.safetensors", files / "m.tar.gz") == 0
    assert "fm: warning: the built-in's artefact has no place for" in capsys.readouterr().err


def test_convert_complains(files, fails):
    table, rows = files / "t.csv", files / "t.libsvm"
    fails("cannot tell the format from .*give --to", "convert", table, files / "x.bin")
    fails("libsvm has no columns; convert to one of", "convert", rows, files / "x.csv")
    fails("libffm needs the field of each feature", "convert", rows, files / "x.libffm")
    (files / "x.csv").write_text("user,age\nann,3\n")
    fails("libsvm needs a target", "convert", files / "x.csv", files / "x.libsvm",
          "--save-encoder", files / "e.json")  # fmt: skip
    fails("has no place for weights", "convert", table, files / "x.libsvm", "--weight", "age")
    fails("--save-encoder: .* has no columns", "convert", rows, files / "x.recordio",
          "--save-encoder", files / "e.json")  # fmt: skip
    fails("--target, --feature-dim: does not apply", "convert", table, files / "x.parquet",
          "--target", "rating", "--feature-dim", "9")  # fmt: skip
    fails("--encoder: does not apply", "convert", table, files / "x.tsv", "--encoder", "e.json")
    fails("--categorical, --save-encoder: does not apply, because a model", "convert",
          files / "m.safetensors", files / "n.safetensors", "--categorical", "user",
          "--save-encoder", files / "e.json")  # fmt: skip
    assert not (files / "e.json").exists() and not (files / "n.safetensors").exists()
    fails("--item: does not apply", "convert", table, files / "x.libsvm", "--item", "film")
    fails("to a table; leave out --feature-dim", "convert", table, files / "x.libsvm",
          "--feature-dim", "9")  # fmt: skip
    fails("the model has no encoder", "convert", table, files / "x.libsvm", "--encoder",
          files / "s.safetensors")  # fmt: skip
    (files / "e.json").write_text("[]")
    fails("expected an object with a list of columns", "convert", table, files / "x.libsvm",
          "--encoder", files / "e.json")  # fmt: skip
    (files / "e.json").write_text("[")
    fails("e.json: expected the JSON of an encoder", "convert", table, files / "x.libsvm",
          "--encoder", files / "e.json")  # fmt: skip
    fails("--feature-dim: expected an integer >= 1, found '0'", "convert", rows, rows,
          "--feature-dim", "0")  # fmt: skip


# -- options and endings -------------------------------------------------------------------------


def options(*argv):
    parser = Parser("fm test", "A test.", "")
    add_data_options(parser)
    return data_options(parser.parse_args(argv))


def test_no_options_are_no_keywords():
    assert options() == {}


def test_data_options_are_keywords_of_read():
    found = options(
        "--target", "y", "--weight", "w", "--format", "csv", "--delimiter", ";",
        "--names", "a,b", "--names", "y", "--categorical", 'a,"b,c"', "--categorical", "d",
        "--numeric", "n", "--multi", "m", "--history", "h", "--date", "d", "--ignore", "i",
        "--separator", "/", "--no-standardize", "--bins", "12", "--min-count", "3",
        "--hash-dim", "16", "--no-zero-based",
    )  # fmt: skip
    assert found == {
        "target": "y", "weight": "w", "format": "csv", "delimiter": ";", "header": ["a", "b", "y"],
        "categorical": ["a", "b,c", "d"], "numeric": ["n"], "multi": {"m": "/"},
        "history": {"h": "/"}, "date": ["d"], "ignore": ["i"], "standardize": False,
        "bins": 12, "min_count": 3, "hash_dim": 16, "zero_based": False,
    }  # fmt: skip
    assert options("--no-header") == {"header": False} and options("--header") == {"header": True}
    import inspect

    from fm.reading.read import read

    assert found.keys() <= inspect.signature(read).parameters.keys()
    with pytest.raises(ConfigError, match="names: expected a table without a header; give names"):
        options("--names", "a", "--header")
    with pytest.raises(ConfigError, match="separator: .*; name them with multi=... or history"):
        options("--separator", "/", "--categorical", "a")


def test_help_names_the_columns_that_are_targets_by_default(capsys):
    from fm.reading.read import TARGETS

    assert start("evaluate", "--help") == 0
    *others, last = TARGETS
    text = " ".join(capsys.readouterr().out.split())
    assert f"not given: {', '.join(others)} or {last}" in text


ADVICE = [
    (Advice("name its column with {target}", target=...), "name its column with --target"),
    (Advice("leave out {ignore}, or", ignore=["a b"]), "leave out --ignore 'a b', or"),
    (Advice("pass {header}", header=False), "pass --no-header"),
    (Advice("say with {header} whether", header=...), "say with --header or --no-header whether"),
    (Advice("give {num_features}", num_features=9), "give --feature-dim 9"),
    (Advice("use {task} or", task="a_b"), "use --task a_b or"),
    (Advice("weight=3 is not {scaled}", scaled=True), "weight=3 is not --scaled"),
]


@pytest.mark.parametrize(("advice", "shown"), ADVICE)
def test_advice_in_messages_names_options(capsys, advice, shown):
    def main(argv):
        log = logging.getLogger("fm")
        log.warning("%s: %s", "a.csv", advice)
        log.warning("100%")
        log.warning("%(a)s", {"a": 1})
        warnings.warn(FMWarning("b.csv", advice), stacklevel=1)
        raise DataError("c.csv {as it is}", advice)

    assert run(main) == 2
    assert capsys.readouterr().err == (
        f"fm: warning: a.csv: {shown}\nfm: warning: 100%\nfm: warning: 1\n"
        f"fm: warning: b.csv; {shown}\nfm: error: c.csv {{as it is}}; {shown}\n"
    )


def test_errors_with_advice_survive_a_process_border():
    error = pickle.loads(pickle.dumps(DataError("x", Advice("pass {header}", header=True))))
    assert str(error) == "x; pass header=True" and str(DataError("y")) == "y"


def test_advice_names_arguments_that_are_options(capsys):
    """Each name in braces has a value, and is an option of fm train or fm evaluate."""
    known = ""
    for verb in ("train", "evaluate"):
        assert start(verb, "--help") == 0
        known += capsys.readouterr().out
    words = set(re.split(r"[\s,]+", known))
    found = 0
    for path in Path(fm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Advice":
                if not isinstance(node.args[0], ast.Constant):
                    assert path.name == "read.py", path  # braces in data would be names
                    continue
                text = node.args[0].value
                given = {keyword.arg for keyword in node.keywords}
                assert given == set(re.findall(r"{(.*?)}", text)), path
                for name in given:
                    assert as_option(name, ...).split()[0] in words, (path, name)
                found += bool(given)
    assert found > 10


@pytest.mark.parametrize(
    ("script", "python", "words"),
    [
        ("{bin}/fm", "{bin}/python3", "fm predict"),
        ("x.py", "{bin}/python3", "python3 -m fm.predict"),
        ("x.py", "{here}/.venv/bin/python", ".venv/bin/python -m fm.predict"),
        ("x.py", "/opt/a/bin/python", "/opt/a/bin/python -m fm.predict"),
    ],
)
def test_the_command_that_is_suggested_can_be_typed(tmp_path, monkeypatch, script, python, words):
    places = {"bin": tmp_path / "bin", "here": tmp_path / "here"}
    for folder in places.values():
        folder.mkdir()
    for name in ("fm", "python3"):
        (tmp_path / "bin" / name).touch(mode=0o755)
    monkeypatch.chdir(places["here"])
    monkeypatch.setenv("PATH", str(places["bin"]))
    monkeypatch.setattr(sys, "argv", [script.format(**places)])
    monkeypatch.setattr(sys, "executable", python.format(**places))
    assert " ".join(command("predict")) == words


def test_lists_do_not_leak_from_one_call_to_the_next():
    parser = Parser("fm test", "A test.", "")
    add_data_options(parser)
    assert data_options(parser.parse_args(["--multi", "a"])) == {"multi": ["a"]}
    assert data_options(parser.parse_args(["--multi", "b"])) == {"multi": ["b"]}
    assert data_options(parser.parse_args([])) == {}


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "fm: interrupted"),
        (DataError("x.csv row 3:\nbad"), 2, "fm: error: x.csv row 3: bad"),
        (FileNotFoundError(2, "No such file", "a.csv"), 2, "fm: error: a.csv: No such file"),
        (OSError(28, "No space left on device"), 2, "input or output: No space left on device"),
        (MemoryError(), 2, "fm: error: out of memory"),
    ],
)
def test_endings(capsys, error, code, text):
    def main(argv):
        raise error

    assert run(main) == code
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1


def test_bugs_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(lambda argv: 1 // 0)


def test_warnings_are_lines(capsys):
    import logging
    import warnings

    def main(argv):
        warnings.warn("odd\ncolumn", stacklevel=1)
        logging.getLogger("fm").warning("left out")
        return 0

    assert run(main) == 0
    assert capsys.readouterr().err == "fm: warning: odd column\nfm: warning: left out\n"


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes")
@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_a_closed_pipe_is_no_error(files):
    lines = (files / "t.csv").read_text().splitlines()
    (files / "big.csv").write_text("\n".join([lines[0], *lines[1:] * 40_000]))
    argv = [sys.executable, "-m", "fm", "predict", files / "m.safetensors", files / "big.csv"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == EXIT_CLOSED_PIPE
    process.stderr.close()


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes")
@pytest.mark.parametrize("task", [REGRESSOR], indirect=True)
def test_an_interrupt_is_one_line(files):
    argv = [sys.executable, "-m", "fm.predict", files / "m.safetensors", "-"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(b"user,film,age\n")
        process.stdin.flush()
        # Until it waits for more: an interrupt while Python imports an extension would end it.
        while any(fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, bytes(4))):
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"fm: interrupted\n"
        assert process.wait(30) == 130
