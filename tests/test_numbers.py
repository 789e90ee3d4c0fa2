"""Columns of numbers whose effect bends, from the encoder to explanations: fm.encoding."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

import fm
from fm.encoding.choosing import knots_of
from fm.encoding.columns import Numeric
from fm.encoding.encoder import Encoder
from fm.errors import DataError
from fm.formats.tables import read_table

AGE = Numeric("age", 30.0, 10.0, (20.0, 30.0, 50.0))


def entries(X):
    return list(zip(X.indices.tolist(), X.data.tolist(), strict=True))


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (20, [(0, -1), (2, 1), (3, 0)]),
        (25, [(0, -0.5), (2, 0.5), (3, 0.5)]),
        (30, [(0, 0), (3, 1), (4, 0)]),
        (35, [(0, 0.5), (3, 0.75), (4, 0.25)]),
        (50, [(0, 2), (3, 0), (4, 1)]),
        (-10, [(0, -4), (2, 1), (3, 0)]),  # outside: the number, and the nearest knot
        (90, [(0, 6), (3, 0), (4, 1)]),
        (None, [(0, 0), (1, 1), (2, 0)]),
        ("NA", [(0, 0), (1, 1), (2, 0)]),
    ],
)
def test_a_number_and_its_shares_of_two_knots(age, expected):
    encoder = Encoder([AGE])
    assert entries(encoder.transform({"age": [age]})) == expected
    assert entries(encoder.encode_rows([{"age": age}])) == expected
    number = None if age == "NA" else age
    assert encoder.decode_row(encoder.encode_rows([{"age": age}])) == {"age": number}


def test_names_and_places():
    encoder = Encoder([AGE])
    names = ["age", "age=<unknown>", "age~20", "age~30", "age~50"]
    assert list(encoder.feature_names) == names and encoder.unknown_features.tolist() == [1]
    assert [encoder.feature_value(i) for i in range(5)] == [None, None, "20", "30", "50"]
    assert encoder.feature_index("age", 25) == 0 and encoder.feature_index("age", "NA") == 1
    assert repr(encoder) == "<Encoder of 5 features: 'age': numeric, 2 bins 5>"
    close = Numeric("n", knots=(1.0, 1.0000001, 1.0000002))
    assert [close.value(i) for i in (2, 3, 4)] == ["1", "1.0000001", "1.0000002"]
    with pytest.raises(DataError, match="row 2, column 'age': expected a finite number, found 1e"):
        encoder.transform({"age": [1, 1e300]})


def test_in_a_model_file():
    encoder = Encoder([AGE])
    kept = {
        "name": "age",
        "kind": "numeric",
        "mean": 30.0,
        "std": 10.0,
        "knots": [20.0, 30.0, 50.0],
    }
    assert encoder.to_dict()["columns"] == [kept]
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder and hash(again) == hash(encoder)
    old = {"name": "age", "kind": "numeric", "mean": 30.0, "std": 10.0}  # before there were knots
    linear = Encoder.from_dict({"version": 1, "columns": [old]})
    assert linear == Encoder([Numeric("age", 30.0, 10.0)]) != encoder
    assert linear.to_dict()["columns"] == [old]
    assert entries(linear.transform({"age": [40, None]})) == [(0, 1), (1, 1)]


def test_which_knots(rng):
    for n, bins in ((40, 0), (300, 4), (1000, 7), (100_000, 32)):
        knots = knots_of(rng.normal(size=n), "auto")
        assert max(len(knots) - 1, 0) == bins
    numbers = rng.normal(size=10_000)
    numbers[:50] = np.nan
    knots = np.array(knots_of(numbers, 24))
    counts = np.histogram(numbers[50:], knots)[0]
    assert counts.size == 24 and np.ptp(counts) <= 24  # equal shares of the rows
    assert knots[0] == np.nanmin(numbers) and knots[-1] == np.nanmax(numbers)
    assert knots_of(numbers, 0) == knots_of(numbers, 1) == ()
    # few different values, of which some are rare
    stars = np.repeat([1.0, 2, 3, 4, 5], [500, 3, 400, 600, 700])
    assert knots_of(stars, "auto") == (1, 2, 4, 5)
    assert knots_of(stars, 4) == (1, 3, 4, 5)
    assert knots_of(np.repeat([0.0, 1, 2], 300), 2) == (0, 1, 2)
    assert knots_of(np.repeat([1.0, 2], 900), "auto") == ()
    assert knots_of(np.repeat([0.0, 1, 2], [5000, 10, 9]), "auto") == ()
    assert knots_of(np.zeros(900), 9) == knots_of(np.full(900, np.nan), 9) == ()
    assert knots_of(np.array([-1.5e308, 0, 1.5e308]), 3) == ()


def test_the_number_comes_back_exactly(rng):
    numbers = {"n": rng.integers(0, 10**6, 300), "d": rng.normal(50, 9, 300).round(3)}
    encoder = Encoder.fit(numbers, numeric=["n", "d"])
    for i, row in enumerate(encoder.transform(numbers)):
        assert encoder.decode_row(row) == {name: column[i] for name, column in numbers.items()}


def test_missing_numbers_do_not_change_the_number_of_entries(rng):
    table = pd.DataFrame({"n": rng.normal(size=500), "c": rng.choice(list("abc"), 500)})
    table.loc[::7, "n"] = np.nan
    data = fm.read((table, rng.normal(size=500)))
    assert data.entries_per_row == 4 and not data.onehot
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    found = data.encoder.encode_rows(rows)
    assert (found != data.X).nnz == 0 and np.array_equal(found.indices, data.X.indices)
    assert fm.read(table[["c"]]).onehot
    # entries of value 0 change no score
    model = fm.fit(data, fm.TrainConfig(epochs=3))
    bare = data.X[:50].copy()
    bare.eliminate_zeros()
    whole = model.scores(dataclasses.replace(data, X=data.X[:50], y=None, _cache={}))
    alone = model.scores(dataclasses.replace(data, X=bare, y=None, _cache={}))
    np.testing.assert_allclose(whole, alone, rtol=1e-6)


@pytest.fixture(scope="module")
def bent():
    """A frame where people of a middle age differ, and a column that says nothing."""
    rng = np.random.default_rng(7)
    age = rng.uniform(18, 80, 3000)
    y = ((age - 50) / 15) ** 2 + 0.2 * rng.normal(size=3000)
    return pd.DataFrame({"age": age, "noise": rng.normal(size=3000), "y": y})


@pytest.mark.parametrize("options", [{}, {"optimizer": "adagrad"}], ids=str)
def test_an_effect_that_bends_is_learnt_with_defaults(bent, options):
    train, test = bent[:2500], bent[2500:]
    config = fm.TrainConfig(**options)
    linear = fm.evaluate_predictions(fm.fit(fm.read(train, bins=0), config), test)["metrics"]
    found = fm.evaluate_predictions(fm.fit(fm.read(train), config), test)["metrics"]
    assert linear["rmse"] > 0.8 * test.y.std() and found["rmse"] < 0.3 * test.y.std()


def test_the_unit_of_a_column_does_not_matter(bent):
    config = fm.TrainConfig(epochs=5)
    rows = bent[["age", "noise"]]
    first = fm.fit(fm.read(bent), config).predict(rows)
    larger = bent.assign(age=bent.age * 1000, noise=bent.noise / 1000)
    second = fm.fit(fm.read(larger), config).predict(larger[["age", "noise"]])
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)


def test_estimators_follow(bent):
    X, y = bent[["age", "noise"]].assign(c="x"), bent["y"]
    fine = fm.FMRegressor(epochs=5).fit(X, y)
    assert [c.about for c in fine.model_.encoder.columns[:2]] == ["numeric, 13 bins"] * 2
    coarse = fm.FMRegressor(epochs=5, bins=3, standardize=False).fit(X, y)
    assert [c.about for c in coarse.model_.encoder.columns[:2]] == ["numeric, 3 bins"] * 2
    assert coarse.model_.encoder.columns[0].mean == 0


def test_terms_of_a_number(bent):
    model = fm.fit(fm.read(bent), fm.TrainConfig(epochs=3))
    found = model.explain({"age": 40, "noise": None})
    names = [name for name, _ in found.linear]
    assert names[0] == "age" and names[1].startswith("age~") and "noise=<unknown>" in names
    assert found.field_names == ("age", "noise")
    assert math.isclose(found.bias + found.by_field.sum(), found.score)
    assert math.isclose(found.score, model.scores([{"age": 40}])[0], rel_tol=1e-5)


def test_numbers_that_describe_users_are_filled(rng):
    users = rng.integers(0, 60, 3000)
    age, income = rng.integers(18, 80, 60) / 1.0, rng.normal(size=60)
    age[3] = np.nan
    table = pd.DataFrame({"user": users, "item": rng.integers(0, 30, 3000)})
    table["age"], table["income"] = age[users] + 0.5, income[users]
    table["rating"] = rng.normal(size=3000)
    data = fm.read(table)
    assert data.catalogue.user_columns == ("age", "income") and data.entries_per_row == 8
    model = fm.fit(data, fm.TrainConfig(epochs=2))
    rows = [{"user": user, "item": 7} for user in (3, 8, 999)]
    full = [{**rows[0], "age": None, "income": income[3]}]
    full += [{**rows[1], "age": age[8] + 0.5, "income": income[8]}]
    full += [{**rows[2], "age": None, "income": None}]
    np.testing.assert_allclose(model.scores(rows), model.scores(full), rtol=1e-6)
    np.testing.assert_allclose(model.scores(read_table(pd.DataFrame(rows))), model.scores(full))
    assert model.explain(rows[0]).filled == ("income",)  # the age of user 3 is not known
    assert model.explain(rows[1]).filled == ("age", "income")
    # a later table that is silent about the age leaves it as it was
    later = pd.DataFrame(rows[1:2]).assign(age=np.nan, income=5.0, rating=1.0)
    more = fm.read(later, encoder=model.encoder, target="rating")
    model = fm.fit(more, fm.TrainConfig(epochs=1), init=model)
    kept = [{**rows[1], "age": age[8] + 0.5, "income": 5.0}]
    np.testing.assert_allclose(model.scores(rows[1:2]), model.scores(kept), rtol=1e-6)
