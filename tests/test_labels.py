"""Two classes in any spelling: read, trained, saved, predicted and measured."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

import fm
from fm.cli.main import main
from fm.data.labels import ordered
from fm.errors import ConfigError, DataError

ROWS = 60
USERS = [f"u{i % 6}" for i in range(ROWS)]
ONES = [int(i % 6 < 2) for i in range(ROWS)]
TRAIN = ["--epochs", "20", "--num-factors", "2", "--quiet"]
CLASSIFIER = fm.TrainConfig(predictor_type="binary_classifier", num_factors=2, epochs=20)
UNNAMED = fm.TrainConfig(num_factors=2, epochs=20)


def table(negative, positive):
    return {"user": USERS, "label": [positive if one else negative for one in ONES]}


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("yes", "no"), ("no", "yes")),
        (("No", "Yes"), ("No", "Yes")),
        (("T", "F"), ("F", "T")),
        (("positive", "negative"), ("negative", "positive")),
        (("click", "skip"), ("skip", "click")),
        (("no", "maybe"), ("no", "maybe")),
        (("red", "blue"), ("blue", "red")),
        ((1, -1), (-1, 1)),
        ((2, 1), (1, 2)),
    ],
)
def test_which_label_is_positive(pair, expected):
    assert ordered(pair) == ordered(pair[::-1]) == expected
    assert ordered(pair, positive=expected[0]) == expected[::-1]


@pytest.mark.parametrize("form", ["csv", "parquet", "dict"])
@pytest.mark.parametrize(
    "labels", [("no", "yes"), ("No", "Yes"), (False, True), (-1, 1), ("bad", "worse")]
)
def test_tables_of_two_labels_make_a_classifier(labels, form, tmp_path):
    source = table(*labels)
    if form == "csv":
        source = tmp_path / "data.csv"
        pyarrow.csv.write_csv(pa.table(table(*labels)), source)
    elif form == "parquet":
        source = tmp_path / "data.parquet"
        pyarrow.parquet.write_table(pa.table(table(*labels)), source)
    model = fm.fit(fm.read(source, target="label"), UNNAMED)
    assert model.task.labels and model.labels == labels
    assert list(map(type, model.labels)) == list(map(type, labels))
    plain = fm.fit(fm.read(table(0, 1)), UNNAMED)
    assert np.array_equal(model.V, plain.V) and model.w0 == plain.w0
    path = model.save(tmp_path / "model.safetensors")
    again = fm.load(path)
    assert again.labels == labels and again == model
    rows = [{"user": "u0"}, {"user": "u5"}]
    assert again.predict(rows).tolist() == [labels[1], labels[0]]
    found = fm.evaluate_predictions(again, source, target="label")
    assert found["metrics"]["accuracy"] == 1


def test_a_model_of_0_and_1_says_nothing_of_labels(tmp_path):
    model = fm.fit(fm.read(table(0, 1)), UNNAMED)
    assert model.labels == (0, 1) and model.predict([{"user": "u0"}]).dtype == np.int64
    path = model.save(tmp_path / "model.safetensors")
    assert b'"labels"' not in path.read_bytes()
    assert fm.load(path).labels == (0, 1)


def test_arrays_of_labels():
    X = np.eye(6)[[int(user[1]) for user in USERS]]
    for negative, positive in (("no", "yes"), (-1, 1), (1, 2)):
        y = table(negative, positive)["label"]
        for data in (fm.read((X, y)), fm.Dataset.from_arrays(X, np.array(y))):
            model = fm.fit(data, CLASSIFIER)
            assert model.labels == (negative, positive)
            assert model.predict(X[:3]).tolist() == [positive, positive, negative]
            assert fm.evaluate_predictions(model, data)["metrics"]["accuracy"] == 1


def test_two_other_numbers_stay_a_regression_unless_it_is_named(caplog):
    model = fm.fit(fm.read(table(4, 5)), UNNAMED)
    assert model.task.name == "regressor"
    assert "only 4 and 5" in caplog.text and "predictor_type='binary_classifier'" in caplog.text
    assert fm.fit(fm.read(table(4, 5)), CLASSIFIER).labels == (4, 5)


def test_minus_one_is_a_number_if_a_regressor_is_named(caplog):
    caplog.set_level("INFO")
    regressor = fm.TrainConfig(predictor_type="regressor", num_factors=2, epochs=20)
    assert fm.fit(fm.read(table(-1, 1)), regressor).predict([{"user": "u5"}])[0] < 0
    fm.fit(fm.read(table(-1, 1)), UNNAMED)
    assert "all targets are -1 or 1: predictor_type is binary_classifier" in caplog.text


def test_positive_is_said(caplog):
    caplog.set_level("INFO")
    model = fm.fit(fm.read(table("no", "yes"), positive="no"), UNNAMED)
    assert model.labels == ("yes", "no") and model.probabilities([{"user": "u0"}])[0] < 0.5
    assert "the targets are 'yes' and 'no'" in caplog.text
    model = fm.fit(fm.read(table(1, 2), positive=1), UNNAMED)
    assert model.labels == (2, 1) and model.predict([{"user": "u0"}]).tolist() == [2]
    with pytest.raises(DataError, match="positive: expected one of the labels, 'yes' and 'no'"):
        fm.read(table("no", "yes"), positive="ja")


def test_further_rows_are_mapped_by_the_labels_of_the_model(tmp_path):
    data = fm.read(table("good", "bad"), positive="bad")
    known = {"encoder": data.encoder, "labels": data.labels, "target": "label"}
    only = {"user": ["u0"], "label": ["bad"]}
    validation = fm.read(only, **known)
    assert validation.y.tolist() == [1]
    assert fm.fit(data, UNNAMED, validation=validation).labels == ("good", "bad")
    unlike = fm.read(table("good", "bad"), encoder=data.encoder, target="label")
    with pytest.raises(DataError, match="expected the labels 'good' and 'bad', found 'bad' and"):
        fm.fit(data, UNNAMED, validation=unlike)
    path = tmp_path / "test.csv"
    path.write_text("user,label\nu0,bad\nu1,ugly\n")
    model = fm.fit(data, UNNAMED)
    with pytest.raises(DataError, match=r"test.csv row 2.*'good' and 'bad', found 'ugly'"):
        fm.evaluate_predictions(model, path, target="label")
    with pytest.raises(ConfigError, match="labels: expected the two labels"):
        fm.read(only, labels="bad")


def test_a_model_goes_on_with_its_labels():
    first = fm.fit(fm.read(table(-1, 1)), UNNAMED)
    more = fm.read({"user": ["u0", "u1"], "label": [1, 1]}, encoder=first.encoder, target="label")
    assert fm.fit(more, UNNAMED, init=first).labels == (-1, 1)
    more = fm.read({"user": ["u0", "u1"], "label": [0, 1]}, encoder=first.encoder, target="label")
    with pytest.raises(DataError, match="row 1: expected one of the labels -1 and 1, found 0"):
        fm.fit(more, UNNAMED, init=first)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "c"], "row 3, column 'label': expected numbers .* 3 texts: 'a', 'b' and 'c'"),
        (["a", "a", "a"], "found one text: 'a'"),
        (["1", "yes", "1"], "row 2, column 'label': expected a number, found 'yes'; .* two labels"),
        (["1", "2", "two"], "row 3, column 'label': expected a number, found 'two'"),
        (["yes", "", "no"], "row 2, column 'label': expected a label as target, found none"),
        (["yes", "nan", "no"], "row 2, column 'label': expected a label as target, found none"),
        (["1", "nan", "2"], "row 2, column 'label': expected a number as target, found none"),
    ],
)
def test_labels_that_are_none(labels, message, tmp_path):
    path = tmp_path / "data.csv"
    lines = [f"u{i},{label}" for i, label in enumerate(labels)]
    path.write_text("\n".join(["user,label", *lines, ""]))
    with pytest.raises(DataError, match=message):
        fm.read(path, target="label")


def test_arrays_of_labels_that_are_none():
    for y, message in (
        (["yes", None], "row 2: expected a target, found None"),
        (["yes", 1], "found a number and a text"),
        (["a", "b", "c"], "found 3 texts"),
    ):
        with pytest.raises(DataError, match=message):
            fm.Dataset.from_arrays(np.eye(len(y)), y)


def test_a_regressor_needs_numbers():
    with pytest.raises(DataError, match="a regressor expects a number as target, found the labels"):
        fm.fit(fm.read(table("no", "yes")), fm.TrainConfig(predictor_type="regressor"))


def test_the_command_line_answers_in_labels(tmp_path, capsys):
    paths = {name: str(tmp_path / name) for name in ("a.csv", "m", "new.csv", "out.csv", "p.rec")}
    pyarrow.csv.write_csv(pa.table(table("No", "Yes")), paths["a.csv"])
    (tmp_path / "new.csv").write_text("user\nu0\nu5\n")
    model = paths["m"] + ".safetensors"
    assert main(["train", paths["a.csv"], "--test", paths["a.csv"], "-o", model, *TRAIN]) == 0
    assert main(["predict", model, paths["new.csv"], "--label", "-o", paths["out.csv"]]) == 0
    assert (tmp_path / "out.csv").read_text().split() == ['"label"', '"Yes"', '"No"']
    recordio = ["--output-format", "recordio", "-o", paths["p.rec"]]
    assert main(["predict", model, paths["new.csv"], *recordio]) == 0
    assert main(["evaluate", model, paths["a.csv"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == 1
    other = ["--positive", "No", "-o", model]
    assert main(["train", paths["a.csv"], *other, *TRAIN[:-1]]) == 0
    assert "Yes and No, 66.67% are No; predictor_type binary_classifier" in capsys.readouterr().out
    assert fm.load(model).labels == ("Yes", "No")


def test_libsvm_of_minus_one_and_one(tmp_path, capsys):
    path, model = tmp_path / "a.libsvm", str(tmp_path / "m.safetensors")
    lines = [
        f"{2 * one - 1:+d} {int(user[1]) + 1}:1" for user, one in zip(USERS, ONES, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    assert main(["train", str(path), "--validation", str(path), "-o", model, *TRAIN]) == 0
    assert fm.load(model).labels == (-1, 1)
    capsys.readouterr()
    assert main(["predict", model, str(path), "--label"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["1", "1", "-1"]
    assert main(["evaluate", model, str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == 1
    path.write_text("+1 1:1\n0 2:1\n")
    assert main(["evaluate", model, str(path)]) == 2
    assert "row 2: expected one of the labels -1 and 1, found 0" in capsys.readouterr().err
