"""``fm train``: what it reads, trains, says and saves, and how it ends."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fm.cli.main
import fm.cli.predict
import fm.cli.train
from fm.cli.messages import EXIT_INTERRUPTED, EXIT_WRONG
from fm.config import TrainConfig, parameters
from fm.data.dataset import Dataset
from fm.evaluating.predictions import evaluate_predictions
from fm.formats.svmlight import write_libsvm
from fm.model.load import load
from fm.reading.read import read
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.training.fit import fit

HEADER = "user,film,rating\n"


@pytest.fixture
def desk(tmp_path, monkeypatch, rng):
    """A folder with ratings that follow users and films: train.csv, test.csv, 0/1 labels."""
    monkeypatch.chdir(tmp_path)
    users, films = rng.integers(40, size=1500), rng.integers(25, size=1500)
    ratings = np.clip(np.round(3 + users % 3 - films % 3 + rng.normal(size=1500) / 2), 1, 5)
    rows = [f"u{u},f{f},{r:.0f}" for u, f, r in zip(users, films, ratings, strict=True)]
    (tmp_path / "train.csv").write_text(HEADER + "\n".join(rows[:1200]))
    (tmp_path / "test.csv").write_text(HEADER + "\n".join([*rows[1200:], "stranger,f1,3"]))
    labels = [f"u{u},f{f},{r > 3:d}" for u, f, r in zip(users, films, ratings, strict=True)]
    (tmp_path / "labels.csv").write_text("user,film,label\n" + "\n".join(labels))
    return tmp_path


def train(*arguments):
    """Run the command in this process; return its exit code."""
    return fm.cli.main.main(["train", *map(str, arguments)])


def start(*arguments, **options):
    command = [sys.executable, "-m", "fm.train", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def leftovers(folder):
    """What is in the folder beside the files that were there."""
    return {path.name for path in folder.iterdir()} - {"train.csv", "test.csv", "labels.csv"}


# -- a whole run -----------------------------------------------------------------------------------


def test_a_run_in_a_process_of_its_own_reports_saves_and_says_how_to_go_on(desk):
    process = start("train.csv", "--test", "test.csv", "--output", "m.safetensors")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    shown = {line[:9].strip(): line[10:] for line in out.splitlines() if line[:1].strip()}
    assert list(shown) == [
        "data", "fields", "items", "seen", "target", "baseline", "trained", "test", "saved", "next",
    ]  # fmt: skip
    assert shown["data"] == "train.csv: 1,200 rows, 67 features"
    assert shown["fields"] == "categorical: user 41, film 26"
    epochs = int(re.match(r"(\d+) epochs in .*; best (\d+): rmse", shown["trained"])[1])
    held_out = [line for line in err.splitlines() if re.match(r"fm: epoch \d+ .*rmse", line)]
    assert len(held_out) == epochs  # a line for each, because this is no terminal
    model = load("m.safetensors")
    assert model.encoder is not None
    rmse = evaluate_predictions(model, "test.csv")["metrics"]["rmse"]
    assert shown["test"].startswith(f"rmse {rmse:.5f}")
    baseline = float(re.search(r"^ +rmse ([\d.]+) .*training mean", out, re.M)[1])
    assert rmse < 0.75 * baseline
    following = shlex.split(shown["next"])
    assert following[1:3] == ["-m", "fm.predict"]
    done = subprocess.run(following, capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == 301
    assert leftovers(desk) == {"m.safetensors"}


def test_the_model_is_that_of_the_python_api(desk):
    assert train("train.csv", "--seed", 5, "--num_factors=8", "--epochs", "7", "--quiet") == 0
    data = read("train.csv", target="rating")
    config = TrainConfig(seed=5, num_factors=8, epochs=7)
    assert load("model.safetensors") == fit(data, config, progress=False)


def test_ratings_of_movielens(desk, shared_data, capsys):
    base, test = shared_data / "ml-100k/ua.base.gz", shared_data / "ml-100k/ua.test.gz"
    names = ("--names", "user,movie,rating,time", "--ignore", "time")
    assert train(base, *names, "--test", test, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["rows"] == 90570
    assert list(report["data"]["fields"]) == ["user", "movie"]
    assert report["test"]["metrics"]["rmse"] < 0.95 < report["test"]["baseline"]["rmse"]


def test_without_arguments_the_demo_runs(monkeypatch):
    called = []
    monkeypatch.setattr("fm.cli.demo.main", lambda: called.append(1) or 0)
    assert train() == 0
    assert called == [1]


# -- hyperparameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", list(parameters()), ids=lambda parameter: parameter.name)
def test_every_hyperparameter_is_an_option_in_both_spellings(parameter):
    value = parameter.default
    if parameter.choices:
        value = parameter.choices[0]
    elif value is None:
        value = {bool: True, int: 7, float: 0.25}[parameter.kind]
    text = str(value).lower() if parameter.kind is bool else str(value)
    for name in (parameter.name, parameter.name.replace("_", "-")):
        args = fm.cli.train._parse(["data.csv", f"--{name}", text])
        assert parameter.parse(getattr(args, parameter.name)) == value


def test_help_shows_range_default_and_group_of_every_hyperparameter(capsys):
    with pytest.raises(SystemExit) as end:
        train("--help")
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for parameter in parameters():
        assert f"--{parameter.name.replace('_', '-')} " in text
        assert f"hyperparameters: {parameter.group}:" in text
        assert parameter.choices or parameter.kind is bool or f"[{parameter.range_text};" in text
    assert "default 64]" in text
    assert "[a number >= 0; default with sgd 0.02, for labels 0.03]" in text
    assert "Not set: binary_classifier if all targets are 0 or 1, else regressor [" in text


def test_all_that_is_wrong_with_hyperparameters_is_said_at_once(desk, capsys):
    wrong = ("--num-factors", "0", "--epochs", "many", "--metric", "bleu", "--seed=-1")
    assert train("train.csv", *wrong) == EXIT_WRONG
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in (
        "num_factors: expected an integer from 1 to",
        "epochs: expected an integer >= 1, found 'many'",
        "metric: expected one of auto, rmse",
        "seed: expected an integer from 0",
    ):
        assert part in error
    assert leftovers(desk) == set()


# -- what is predicted -----------------------------------------------------------------------------


def test_targets_of_0_and_1_are_labels_and_that_is_said(desk, capsys):
    assert train("labels.csv", "--epochs", "3") == 0
    out, err = capsys.readouterr()
    assert "all targets are 0 or 1: predictor_type is binary_classifier" in err
    assert re.search(r"target +0 and 1, [\d.]+% are 1; predictor_type binary_classifier", out)
    assert "log_loss" in out
    assert load("model.safetensors").task.has_probabilities


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (("--predictor-type", REGRESSOR), REGRESSOR),
        (("--metric", "mae"), REGRESSOR),
        (("--metric", "auc"), CLASSIFIER),
    ],
)
def test_what_is_said_of_the_task_goes_before_the_targets(desk, capsys, arguments, task):
    assert train("labels.csv", "--epochs", "2", *arguments) == 0
    assert load("model.safetensors").config.predictor_type == task
    assert "all targets" not in capsys.readouterr().err


def test_other_pairs_of_labels_are_numbers_with_a_hint(desk, capsys):
    (desk / "train.csv").write_text("item,y\na,4\nb,5\na,4\n")
    assert train("train.csv", "--epochs", "2") == 0
    assert "--predictor-type binary_classifier for probabilities" in capsys.readouterr().err
    assert not load("model.safetensors").task.has_probabilities


def test_weights_count_in_training_and_in_the_baseline(desk, capsys):
    (desk / "train.csv").write_text("item,y,w\na,1,3\nb,5,1\n")
    assert train("train.csv", "--weight", "w", "--json", "--epochs", "2") == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["data"]["fields"]) == ["item"]
    assert report["baseline"]["mse"] == pytest.approx(3.0)  # around the mean 2


# -- further files ---------------------------------------------------------------------------------


def test_test_and_validation_files_get_the_features_of_the_training_file(desk, capsys):
    # The same columns in another order, with values of their own first.
    lines = (desk / "test.csv").read_text().splitlines()[1:]
    turned = [",".join(line.split(",")[::-1]) for line in lines]
    (desk / "turned.csv").write_text("rating,film,user\n" + "\n".join(turned[::-1]))
    reports = []
    for name in ("test.csv", "turned.csv"):
        arguments = ("--validation", name, "--test", name, "--epochs", "5", "--json")
        assert train("train.csv", *arguments) == 0
        reports.append(json.loads(capsys.readouterr().out))
    first, second = (report["test"]["metrics"]["rmse"] for report in reports)
    assert first == pytest.approx(second, rel=1e-6)
    assert reports[0]["metrics"]["rmse"] == pytest.approx(first, rel=1e-4)  # of the kept epoch
    assert "refit" not in reports[0]["metrics"]


def test_libsvm_test_files_count_from_where_the_training_file_does(desk, capsys, monkeypatch):
    X = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)[np.arange(90) % 3]
    for name, rows in (("train", slice(None)), ("test", np.arange(90) % 3 > 0)):
        data = Dataset.from_arrays(X[rows], (np.arange(90.0) % 3)[rows])
        with open(f"{name}.libsvm", "wb") as file:
            write_libsvm(file, data.X, data.y, zero_based=True)
    assert b" 0:" not in (desk / "test.libsvm").read_bytes()
    assert train("train.libsvm", "--test", "test.libsvm", "--num-factors", "1") == 0
    out = capsys.readouterr().out
    assert float(re.search(r"^test +rmse ([\d.]+)", out, re.M)[1]) < 0.3
    assert fm.cli.predict.main(["model.safetensors", "test.libsvm"]) == 0  # the model remembers it
    predicted = np.loadtxt(capsys.readouterr().out.splitlines())
    assert np.abs(predicted - (np.arange(90.0) % 3)[np.arange(90) % 3 > 0]).max() < 0.5
    content = (desk / "test.libsvm").read_bytes()
    for verb in ("predict", "evaluate", "explain"):  # also of what comes on standard input
        assert fm.cli.main.main([verb, "model.safetensors", "test.libsvm"]) == 0
        expected = capsys.readouterr().out
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert fm.cli.main.main([verb, "model.safetensors", "-"]) == 0
        assert capsys.readouterr().out == expected
    assert fm.cli.main.main(["convert", "test.libsvm", "test.recordio", "--zero-based"]) == 0
    assert train("train.libsvm", "--test", "test.recordio", "--epochs", 1) == 0


def test_a_test_file_may_have_further_features_if_feature_dim_says_so(desk, capsys):
    (desk / "a.libsvm").write_text("1 1:1 2:1\n2 1:1\n")
    (desk / "b.libsvm").write_text("1 5:1\n")
    arguments = ("a.libsvm", "--test", "b.libsvm", "--epochs", "1")
    assert train(*arguments) == EXIT_WRONG
    assert re.search("b.libsvm.*; check the file, or give --feature-dim 5", capsys.readouterr().err)
    assert train(*arguments, "--feature-dim", "9") == 0
    assert load("model.safetensors").num_features == 9


def test_many_fields_are_not_all_listed(desk, capsys):
    names = [f"c{i}" for i in range(15)]
    (desk / "wide.csv").write_text(",".join([*names, "y"]) + "\n" + "a," * 15 + "2\n")
    assert train("wide.csv", "--epochs", "1") == 0
    assert "c11 2 and 3 more" in capsys.readouterr().out


# -- going on --------------------------------------------------------------------------------------


def test_a_model_to_start_from_brings_encoder_factors_and_task(desk, capsys):
    assert train("labels.csv", "--num-factors", "3", "--epochs", "4", "--output", "first/") == 0
    first = load("first")
    still = ("--bias-lr", "0", "--linear-lr", "0", "--factors-lr", "0")
    assert train("labels.csv", "--init", "first", "--epochs", "1", *still) == 0
    second = load("model.safetensors")
    assert (second.num_factors, second.task.has_probabilities) == (3, True)
    assert second.encoder == first.encoder
    np.testing.assert_array_equal(second.V, first.V)
    assert second.w0 == first.w0
    assert train("labels.csv", "--init", "first", "--categorical", "user") == EXIT_WRONG
    assert "categorical: does not apply" in capsys.readouterr().err
    assert train("labels.csv", "--init", "first", "--num-factors", "4") == EXIT_WRONG
    assert "init: expected a model of" in capsys.readouterr().err


def test_a_resumed_run_gives_the_model_of_a_run_in_one_piece(desk):
    run = ("train.csv", "--validation-fraction", "0", "--optimizer", "adagrad", "--quiet")
    assert train(*run, "--epochs", "6", "--output", "whole.safetensors") == 0
    for epochs in ("3", "6"):
        assert train(*run, "--epochs", epochs, "--checkpoint", "c", "--resume") == 0
    assert load("model.safetensors") == load("whole.safetensors")


# -- what is shown ---------------------------------------------------------------------------------


def test_json_is_all_that_goes_to_standard_output(desk, capsys):
    assert train("train.csv", "--test", "test.csv", "--json", "--epochs", "3") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"] == {
        "source": "train.csv", "rows": 1200, "features": 67, "fields": {"user": 41, "film": 26},
        "kinds": {"user": "categorical", "film": "categorical"},
    }  # fmt: skip
    assert report["predictor_type"] == REGRESSOR
    assert report["config"]["epochs"] == 3
    assert report["interrupted"] is False
    assert set(report["test"]["metrics"]) == set(report["baseline"]) == {"rmse", "mse", "mae"}
    assert [epoch["epoch"] for epoch in report["history"][:3]] == [1, 2, 3]
    assert load(report["model"]).metrics == report["metrics"]


def test_quiet_says_nothing(desk, capsys):
    assert train("train.csv", "--test", "test.csv", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal_there_is_a_bar_and_no_line_per_epoch(desk, columns):
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "fm.train", "train.csv", "--epochs", "4"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how Linux tells that the other side is closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert re.search(rb"epoch 4/4: 100%, loss \d\.\d{4}, rmse \d\.\d{4}, best \d \|", shown)
    assert re.search(rb"left, [\d.]+[kMG]? rows/s", shown)
    assert b"fm: epoch" not in shown
    assert b"training again on all 1200 rows" in shown
    lines = re.split(r"[\r\n]+", shown.decode())
    assert max(len(line) for line in lines if "rows/s" in line) < columns


def test_a_line_of_the_log_tells_loss_metrics_duration_and_speed(desk, capsys):
    assert train("train.csv", "--epochs", "3") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fm: epoch")]
    lines = lines[:3]  # those of the second training are without metrics
    form = r"fm: epoch (\d) of 3: loss [\d.]+, rmse [\d.]+, mse [\d.]+, mae [\d.]+ "
    form += r"\([\d.]+ m?s, [\d.]+[kMG]? rows/s\)(, best so far)?"
    assert [re.fullmatch(form, line)[1] for line in lines] == ["1", "2", "3"]


def test_kinds_of_columns_are_shown_where_they_are_not_categorical(desk, capsys):
    (desk / "kinds.csv").write_text("who,tags,age,rating\n" + "ann,a|b,1.5,3\nbob,,2.5,4\n" * 9)
    assert train("kinds.csv", "--categorical", "who", "--multi", "tags", "--numeric", "age") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^fields    categorical: who 3; multi: tags 3; numeric: age 2$", shown, re.M)


def test_without_patience_the_last_epoch_is_kept_and_the_best_is_told(desk, capsys):
    endless = ("--epochs", "60", "--patience", "0", "--validation-fraction", "0.3")
    assert train("train.csv", *endless, "--optimizer", "adam", "--factors-wd", "0") == 0
    shown = re.search(
        r"; last 60: rmse ([\d.]+) .* on held-out rows; best (\d+): rmse ([\d.]+) .*, not kept",
        capsys.readouterr().out,
    )
    assert float(shown[3]) < float(shown[1]) and int(shown[2]) < 60
    errors = [epoch["rmse"] for epoch in load("model.safetensors").history]
    assert int(shown[2]) == 1 + int(np.argmin(errors))


@pytest.mark.parametrize("more", [(), ("--validation", "test.csv")])
def test_a_model_worse_than_the_mean_is_pointed_out(desk, capsys, more):
    rows = [f"{i + 1},{i % 5}" for i in range(40)]
    for name in ("steep.csv", "test.csv"):
        (desk / name).write_text("x,rating\n" + "\n".join(rows))
    rates = ("--linear-lr", "30", "--factors-lr", "3", "--optimizer", "adam", "--bins", "0")
    columns = ("--numeric", "x", "--no-standardize")
    assert train("steep.csv", *columns, *rates, "--quiet", "--epochs", "3", *more) == 0
    said = capsys.readouterr().err
    assert "fm: warning: the model is worse than always answering the training mean (mse " in said
    assert train("train.csv", "--quiet") == 0
    assert "worse" not in capsys.readouterr().err


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_and_the_best_so_far_is_saved(desk, number):
    endless = ("--epochs", "100000000", "--patience", "0", "--validation-fraction", "0.2")
    process = start("train.csv", *endless, "--output", "m.safetensors")
    for line in process.stderr:
        if line.startswith("fm: epoch 20 "):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert "keeping the best model so far" in err
    assert "saved     m.safetensors" in out
    assert np.isfinite(load("m.safetensors").scores(read("train.csv"))).all()
    assert leftovers(desk) == {"m.safetensors"}


@pytest.mark.parametrize("written", [True, False])
def test_after_an_interruption_it_is_said_whether_there_is_a_checkpoint(
    desk, capsys, monkeypatch, written
):
    def epoch(self, *_):
        os.kill(os.getpid(), signal.SIGINT)

    if written:
        assert train("train.csv", "--epochs", "2", "--checkpoint", "c", "--quiet") == 0
    monkeypatch.setattr("fm.training.loop.Progress.rows" if not written else
    "fm.training.loop.Progress.epoch",
                        epoch)  # fmt: skip
    argv = ("train.csv", "--epochs", "9", "--checkpoint", "c", "--resume")
    assert train(*argv) == EXIT_INTERRUPTED
    shown, said = capsys.readouterr()
    if written:
        assert "resume    the same command with --resume goes on from c\n" in shown
    else:
        assert "resume    c was not written yet (it is every half a minute): --resume " in shown
    assert ("fm: c: no checkpoint yet; training starts at epoch 1\n" in said) is not written


def test_handlers_of_signals_are_put_back(desk):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert train("train.csv", "--epochs", "1", "--quiet") == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("absent.csv", r"absent\.csv: no such file"),
        ("train.csv --test absent.csv", r"absent\.csv: no such file"),
        ("train.csv --target stars", r"no column 'stars'; .* user, film, rating"),
        ("train.csv --numeric user", r"train\.csv.*column 'user'.*number"),
        ("train.csv --predictor-type binary_classifier", r"label [2-5].*expects 0 or 1"),
        ("train.csv --validation labels.csv --target rating", r"labels\.csv.*no column 'rating'"),
        ("bare.csv", r"bare\.csv: no column is called rating, label"),
        ("train.csv --output train.csv", r"--output: train\.csv is the file of data"),
        ("train.csv --test test.csv --output test.csv", r"--output: .* the file of test"),
        ("train.csv --output test.csv/m", r"--output: .*test\.csv is no directory"),
        ("train.csv --init absent", r"absent: no such file; expected a model"),
        ("train.csv --checkpoint test.csv --resume", r"test\.csv: .*checkpoint"),
        ("train.csv --names a,b --header", r"names: expected .*; give --names or --header"),
        ("train.libsvm --categorical user", r"categorical: does not apply to libsvm"),
        (
            "big.csv --numeric x --no-standardize --scale-features false --optimizer adam "
            "--linear-lr 1e30",
            r"diverged.*likely cause: x",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(desk, capsys, arguments, message):
    (desk / "bare.csv").write_text("a,b\n1,2\n")
    (desk / "train.libsvm").write_text("1 3:1\n")
    (desk / "big.csv").write_text("x,y\n1e30,1\n2e30,2\n")
    before = leftovers(desk)
    contents = {name: (desk / name).read_bytes() for name in ("train.csv", "test.csv")}
    assert train(*arguments.split()) == EXIT_WRONG
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"^fm: error: .*" + message, error), error
    assert leftovers(desk) == before
    assert contents == {name: (desk / name).read_bytes() for name in contents}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train.csv --epoch 3", "unknown argument --epoch; did you mean --epochs?"),
        ("train.csv more.csv", "unknown argument more.csv"),
        ("--epochs 3", "expected a data file; without any argument the embedded demo runs"),
        ("train.csv --resume", "--resume: expected --checkpoint FILE too"),
    ],
)
def test_wrong_use_is_one_line(desk, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        train(*arguments.split())
    assert end.value.code == EXIT_WRONG
    error = capsys.readouterr().err
    assert error.startswith(f"fm train: error: {message} ")
    assert error.count("\n") == 1


def test_errors_end_a_process_with_code_2_and_no_traceback(desk):
    process = start("train.csv", "--target", "stars")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (EXIT_WRONG, "")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_an_old_model_stays_until_the_new_one_is_complete(desk, monkeypatch, capsys):
    assert train("train.csv", "--epochs", "1") == 0
    before = (desk / "model.safetensors").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert train("train.csv", "--epochs", "2") == EXIT_WRONG
    assert "No space left on device" in capsys.readouterr().err
    assert (desk / "model.safetensors").read_bytes() == before
    assert leftovers(desk) == {"model.safetensors"}


def test_underscores_become_dashes_in_names_of_options_only():
    given = ["my_file.csv", "--num_factors=3", "--target", "a_b", "--", "--x_y"]
    assert fm.cli.train._with_dashes(given) == [
        "my_file.csv", "--num-factors=3", "--target", "a_b", "--", "--x_y",
    ]  # fmt: skip


def test_a_resumed_training_finds_the_model_it_started_from(desk, capsys):
    assert train("train.csv", "--epochs", "1", "-o", "a.fm") == 0
    before = (desk / "a.fm").read_bytes()
    options = ("--init", "a.fm", "--epochs", "1", "--checkpoint", "c")
    assert train("train.csv", *options, "-o", "a.fm") == EXIT_WRONG
    assert "is the file of --init, which --resume starts from again" in capsys.readouterr().err
    assert (desk / "a.fm").read_bytes() == before
    assert train("train.csv", *options, "-o", "b.fm") == 0
    assert train("train.csv", *options[:2], "--epochs", "1", "-o", "a.fm") == 0  # a new version


def test_who_met_what_is_forgotten_where_that_is_wanted(desk, capsys):
    (desk / "met.csv").write_text("who,what,rating\n1,a,1\n1,b,2\n2,a,3\n")
    first = ("--user", "who", "--item", "what", "--epochs", "1", "-o", "a.fm")
    assert train("met.csv", *first) == 0
    assert load("a.fm").catalogue.seen.nnz == 3
    assert "\nseen      the model file will hold who met what" in capsys.readouterr().out
    more = ("--init", "a.fm", "--epochs", "1", "-o", "b.fm")
    assert train("met.csv", *more) == 0
    assert load("b.fm").catalogue.seen.nnz == 3
    capsys.readouterr()
    assert train("met.csv", *more, "--no-keep-seen") == 0
    assert "seen" not in capsys.readouterr().out
    assert load("b.fm").catalogue.seen is None


def test_time_is_not_in_the_model(desk):
    for name in ("a", "b"):
        assert train("train.csv", "--epochs", "2", "--quiet", "--output", name) == 0
        time.sleep(0.01)
    assert (desk / "a").read_bytes() == (desk / "b").read_bytes()


def test_a_ranker_needs_no_targets_and_is_measured_by_its_lists(desk, capsys):
    rows = [f"u{u},f{f}" for u in range(30) for f in range(20) if (u + f) % 2]
    (desk / "met.csv").write_text("user,film\n" + "\n".join(rows[::2] + rows[1::4]))
    (desk / "later.csv").write_text("user,film\n" + "\n".join(rows[3::4]))
    options = ["--predictor-type", "ranker", "--num-factors", "4", "--epochs", "5", "-o", "r.fm"]
    assert train("met.csv", "--test", "later.csv", *options) == 0
    shown = capsys.readouterr().out
    assert re.search(r"items     \d+ items \(film\), 30 users \(user\), \d+ pairs seen", shown)
    assert "target    none: each row is an interaction; predictor_type ranker" in shown
    assert re.search(r"test .*ndcg.*the model, all items ranked", shown)
    assert "most popular first" in shown
    assert shlex.split(shown.splitlines()[-1])[-5:] == [
        "fm.recommend", "r.fm", "--all", "--output", "lists.csv",
    ]  # fmt: skip


def follow(capsys, new=None):
    """Run the command that a training proposed, on new rows if it asks for some.

    Return its verb and the lines that it writes.
    """
    proposed = capsys.readouterr().out.splitlines()[-1]
    assert proposed.startswith("next ")
    words = shlex.split(proposed, comments=True)
    at = words.index("-m") + 1
    placeholder = re.search("  # (.*): a file of yours with new rows$", proposed)
    assert bool(placeholder) == bool(new)
    if placeholder:
        assert placeholder[1] in words
        Path(placeholder[1]).write_text(new)
    assert fm.cli.main.main([words[at].removeprefix("fm."), *words[at + 1 :]]) == 0
    return words[at].removeprefix("fm."), capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("table", ["hour,film", "film"])
def test_the_command_after_a_ranker_without_users_works(desk, capsys, table):
    rows = [f"f{i % 7}" if table == "film" else f"h{i % 5},f{i % 7}" for i in range(60)]
    (desk / "met.csv").write_text("\n".join([table, *rows]))
    options = ["--predictor-type", "ranker", "--item", "film", "--num-factors", "2"]
    assert train("met.csv", *options, "--header", "--epochs", "1") == 0
    assert follow(capsys, None if table == "film" else "hour\nh1\n")[0] == "recommend"
    assert "rank" in (desk / "lists.csv").read_text()


def test_the_command_after_a_training_does_not_predict_the_training_file(desk, capsys):
    short = ["--epochs", "1", "--num-factors", "2"]
    assert train("train.csv", *short) == 0  # users and items are known
    verb, lines = follow(capsys)
    assert verb == "recommend" and len(lines) > 5
    text = (desk / "train.csv").read_text().replace("user", "hour")
    (desk / "hours.txt").write_text(text.partition("\n")[2])
    names = ["--names", "hour,film,rating"]
    assert train("hours.txt", *names, *short) == 0
    verb, lines = follow(capsys, "u1,f2,0\nu2,f3,0\n")
    assert verb == "predict" and len(lines) == 2
    (desk / "n.libsvm").write_text("0 1:1\n1 2:1\n2 3:1\n3 4:1\n")
    assert train("n.libsvm", *short) == 0  # nothing but numbers
    verb, lines = follow(capsys, "0 2:1\n")
    assert verb == "predict" and len(lines) == 1


def test_numbers_are_no_labels_and_no_baseline_is_shown(desk, capsys):
    options = ["--predictor-type", "binary_classifier"]
    (desk / "new.csv").write_text("user,film,label\nu1,f1,1\nu1,f2,5\n")
    for arguments, place in (
        (["train.csv"], r"train\.csv row \d+: label [2-5]"),
        (["labels.csv", "--test", "new.csv"], r"new\.csv row 2: label 5"),
    ):
        assert train(*arguments, *options) == EXIT_WRONG
        out, err = capsys.readouterr()
        assert "baseline" not in out and re.search(place, err)


def test_a_checkpoint_replaces_no_other_file(desk, capsys):
    assert train("train.csv", "--epochs", "1", "--quiet", "-o", "m") == 0
    model = (desk / "m").read_bytes()
    for more in ([], ["--resume"]):
        assert train("train.csv", "--epochs", "1", "--checkpoint", "m", *more) == EXIT_WRONG
        err = capsys.readouterr().err
        assert "m: expected a checkpoint or no file, found another" in err and "delete" not in err
    assert (desk / "m").read_bytes() == model and leftovers(desk) == {"m"}
    for _ in range(2):  # one that is there may be replaced
        assert train("train.csv", "--epochs", "1", "--checkpoint", "c", "--quiet") == 0


def test_a_new_version_of_a_model_keeps_its_items(desk):
    assert train("train.csv", "--epochs", 2, "-o", "a.fm", "--quiet") == 0
    assert train("train.csv", "--init", "a.fm", "--epochs", 2, "-o", "b.fm", "--quiet") == 0
    a, b = load("a.fm").catalogue, load("b.fm").catalogue
    assert repr(a) == repr(b) and a.item == "film"
