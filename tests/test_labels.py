"""Labels as people have them: -1 and 1, yes and no."""

import json

import numpy as np
import pytest

import fm
import fm.cli.main
from fm import Dataset, TrainConfig
from fm.errors import DataError
from fm.evaluating.predictions import evaluate_predictions
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.training.fit import fit_pass

QUICK = {"epochs": 3, "optimizer": "sgd", "num_factors": 2}


@pytest.fixture
def rows(rng):
    X = np.eye(6)[rng.integers(0, 6, 300)]
    return X, np.where(X[:, :3].sum(axis=1) > 0, 1.0, 0.0)


def test_minus_1_and_1_are_labels(rows, caplog):
    X, y = rows
    caplog.set_level("INFO", "fm")
    expected = fm.fit(Dataset.from_arrays(X, y), TrainConfig(**QUICK))
    signed = Dataset.from_arrays(X, 2 * y - 1)
    for config in (TrainConfig(**QUICK), TrainConfig(predictor_type=CLASSIFIER, **QUICK)):
        model = fm.fit(signed, config, validation=signed)
        assert model.config.predictor_type == CLASSIFIER
        np.testing.assert_array_equal(
            model.w, fm.fit(Dataset.from_arrays(X, y), config,
                            validation=Dataset.from_arrays(X, y)).w,
        )  # fmt: skip
    assert "all targets are -1 or 1: predictor_type is binary_classifier" in caplog.text
    assert signed.y.min() == -1  # the caller's rows are as they were
    reports = [
        evaluate_predictions(expected, data)["metrics"]
        for data in (signed, Dataset.from_arrays(X, y))
    ]
    assert reports[0] == reports[1]
    pieces = [fit_pass(Dataset.from_arrays(X, t), TrainConfig(**QUICK))[0] for t in (y, 2 * y - 1)]
    np.testing.assert_array_equal(pieces[0].w, pieces[1].w)


def test_who_names_a_regression_gets_one(rows):
    X, y = rows
    model = fm.fit(
        Dataset.from_arrays(X, 2 * y - 1), TrainConfig(predictor_type=REGRESSOR, **QUICK)
    )
    assert model.config.predictor_type == REGRESSOR and model.predict(X).min() < -0.3


def test_three_labels_are_no_labels(rows):
    X, y = rows
    y = 2 * y - 1
    y[5] = 0
    with pytest.raises(DataError, match="label -1, but a binary classifier expects 0 or 1"):
        fm.fit(Dataset.from_arrays(X, y), TrainConfig(predictor_type=CLASSIFIER))


def test_a_libsvm_file_of_signed_labels(tmp_path, monkeypatch, capsys, rows):
    monkeypatch.chdir(tmp_path)
    X, y = rows
    with open("x.libsvm", "w") as file:
        for row, label in zip(X, y, strict=True):
            file.write(f"{'+1' if label else '-1'} {int(np.argmax(row)) + 1}:1\n")
    argv = ["train", "x.libsvm", "--test", "x.libsvm", "--json", "--epochs", "3", "-o", "m"]
    assert fm.cli.main.main([*argv, "--optimizer", "sgd"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["test"]["metrics"]["auc"] == 1.0
    assert fm.load("m").task.name == CLASSIFIER
    assert fm.cli.main.main(["evaluate", "m", "x.libsvm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["auc"] == 1.0


@pytest.mark.parametrize("words", [("no", "yes"), ("False", "TRUE"), ("n", "Y"), ("f", "t")])
def test_answers_in_words(tmp_path, words):
    ages = ["young", "old"] * 20
    table = {"age": ages, "bought": [words[i % 2] for i in range(40)]}
    path = tmp_path / "x.csv"
    path.write_text(
        "age,bought\n" + "".join(f"{a},{b}\n" for a, b in zip(*table.values(), strict=True))
    )
    for source in (table, path):
        data = fm.read(source, target="bought")
        assert data.y.tolist() == [0.0, 1.0] * 20
        model = fm.fit(data, TrainConfig(**QUICK))
        assert model.task.name == CLASSIFIER
        assert fm.read(source, encoder=model.encoder, require_target=True).y.max() == 1


@pytest.mark.parametrize("wrong", ["maybe", "yes!"])
def test_other_words_are_refused_with_their_row(wrong):
    with pytest.raises(DataError, match=rf"row 3, column 'y': .*{wrong}"):
        fm.read({"a": ["x"] * 3, "y": ["yes", "no", wrong]}, target="y")
    with pytest.raises(DataError, match="row 2, column 'y': expected a number as target"):
        fm.read({"a": ["x"] * 3, "y": ["yes", None, "no"]}, target="y")
