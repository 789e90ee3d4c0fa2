"""Folding in: against a general optimizer and dense normal equations, and as part of a model."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

import fm.recommending.folding
from fm.config import TrainConfig
from fm.encoding.columns import Categorical, Numeric, Vocabulary
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.model.load import load
from fm.model.model import Model
from fm.reading.finding_items import catalogue_of
from fm.reading.read import read
from fm.recommending.extending import with_feature
from fm.recommending.folding import Folded, Folding, fold_in, fold_ratings, ratings_rows
from fm.tasks import CLASSIFIER, RANKER, REGRESSOR, TASKS

USERS, FILMS, AGES = 12, 9, 3
TABLE = {
    "user": [f"u{i % USERS}" for i in range(60)],
    "age": [f"a{i % USERS % AGES}" for i in range(60)],
    "film": [f"f{(i * 7 + i // USERS) % FILMS}" for i in range(60)],
    "genre": [f"g{(i * 7 + i // USERS) % FILMS % 2}" for i in range(60)],
    "rating": [float(i % 5) for i in range(60)],
}


def make_model(seed=0, task=REGRESSOR, k=4, **more):
    rng = np.random.default_rng(seed)
    data = read(TABLE, target="rating", categorical=["user", "age", "film", "genre"])
    n = data.num_features
    w, V = rng.normal(size=n), rng.normal(size=(n, k)) * 0.7
    V[:, 1] += w  # so that the prior has something to tell
    unknown = [data.encoder.feature_index(name) for name in data.field_names]
    w[unknown], V[unknown] = 0, 0
    config = TrainConfig(predictor_type=task, num_factors=k, **more)
    model = Model(
        1.5, w, V, config, data.encoder, data.fields, data.field_names, metrics={"mse": 0.4}
    )
    return model, catalogue_of(data)


def some_rows(model, rng, count):
    """Rows with everything but a user, and numbers other than 1."""
    rows = [
        {
            "age": f"a{rng.integers(3)}",
            "film": f"f{rng.integers(9)}",
            "genre": f"g{rng.integers(2)}",
        }
        for _ in range(count)
    ]
    X = model.encoder.encode_rows(rows) if count else sp.csr_matrix((0, model.num_features))
    X = sp.csr_matrix(X, dtype=np.float32)
    X.data = X.data * rng.choice([0.5, 1, 2], X.nnz).astype(np.float32)
    return X


def parts(model, X, field="user"):
    """Z and score of each row without the field, the obvious way."""
    X = X.toarray().astype(np.float64)
    X[:, model.feature_indices(field)] = 0
    V = model.V.astype(np.float64)
    score = model.w0 + X @ model.w.astype(np.float64)
    score += 0.5 * (((X @ V) ** 2).sum(axis=1) - (X**2 @ V**2).sum(axis=1))
    return np.hstack([np.ones((len(X), 1)), X @ V]), score


def slow_cost(theta, Z, score, y, weight, folding, squared):
    margins = score + Z @ theta
    if squared:
        losses = 0.5 * (margins - y) ** 2 / folding.noise
    else:
        losses = np.logaddexp(0, margins) - y * margins
    rest = theta - folding.mean
    return weight @ losses + 0.5 * rest @ np.linalg.solve(folding.covariance, rest)


# -- what is learnt --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 40])  # fewer and more rows than parameters
@pytest.mark.parametrize("field", ["user", "film"])
def test_a_regression_is_that_of_the_normal_equations(rng, count, field):
    model, _ = make_model()
    X, y = some_rows(model, rng, count), rng.normal(size=count)
    weight = rng.choice([0.0, 0.5, 2.0], count)
    folding = Folding(model, field)
    Z, score = parts(model, X, field)
    inverse = np.linalg.inv(folding.covariance)
    left = (Z.T * weight) @ Z / folding.noise + inverse
    right = Z.T @ (weight * (y - score)) / folding.noise + inverse @ folding.mean
    expected = np.linalg.solve(left, right)
    found = fold_in(model, X, y, field, weight=weight)
    assert found.field == field and found.v.dtype == np.float32
    np.testing.assert_allclose([found.w, *found.v], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("task", [REGRESSOR, CLASSIFIER])
def test_it_is_the_minimum_of_the_penalised_loss(rng, count, task):
    model, _ = make_model(task=task)
    X, y = some_rows(model, rng, count), rng.integers(0, 2, count)
    folding, weight = Folding(model, "user"), rng.random(count)
    args = (*parts(model, X), y, weight, folding, task == REGRESSOR)
    slow = minimize(slow_cost, folding.mean, args, method="BFGS", options={"gtol": 1e-7})
    found = folding.fold(X, y, weight=weight)
    np.testing.assert_allclose([found.w, *found.v], slow.x, atol=1e-3)
    assert slow_cost(np.r_[found.w, found.v], *args) <= slow.fun + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.floats(1e-3, 1e3), st.floats(0.1, 30))
def test_the_gradient_is_zero_at_the_solution(seed, count, heavy, wide):
    """Also where scores are extreme, and full Newton steps overshoot."""
    rng = np.random.default_rng(seed)
    model, _ = make_model(task=CLASSIFIER)
    model = dataclasses.replace(model, w=model.w * wide, V=model.V * np.sqrt(wide))
    X, y = some_rows(model, rng, count), rng.integers(0, 2, count)
    weight = np.full(count, heavy, np.float32)
    folding = Folding(model, "user")
    Z, score = parts(model, X)
    theta = folding._solve(Z, score, y.astype(float), weight.astype(float))
    pull = np.linalg.solve(folding.covariance, theta - folding.mean)
    push = Z.T @ (weight * (expit(score + Z @ theta) - y))
    scale = 1 + np.abs(Z.T * weight).sum()
    np.testing.assert_allclose((pull + push) / scale, 0, atol=1e-6)


def test_a_ranker_is_a_classifier_of_liked_items_against_all_others(rng):
    model, catalogue = make_model(task=RANKER, num_negatives=3)
    context = {"age": "a1"}
    X, y = ratings_rows(model, catalogue, context, {"f2": 1, "f5": 1})
    folding = Folding(model, "user", catalogue=catalogue)
    others = [i for i in range(FILMS) if catalogue.item_ids[i] not in ("f2", "f5")]
    rest = {catalogue.item_ids[i]: 0 for i in others}
    all_rows, _ = ratings_rows(model, catalogue, context, {"f2": 1, "f5": 1, **rest})
    weight = np.r_[1, 1, np.full(len(others), 3 * 2 / len(others))]
    labels = np.r_[1, 1, np.zeros(len(others))]
    args = (*parts(model, all_rows), labels, weight, folding, False)
    slow = minimize(slow_cost, folding.mean, args, method="BFGS", options={"gtol": 1e-7})
    found = folding.fold(X)
    np.testing.assert_allclose([found.w, *found.v], slow.x, atol=1e-3)
    np.testing.assert_array_equal(folding.fold(X, y).v, found.v)


def test_a_new_item_of_a_ranker_is_compared_with_other_users():
    model, catalogue = make_model(task=RANKER, num_negatives=2)
    X = model.encoder.encode_rows([{"user": "u1", "age": "a1"}, {"user": "u4", "age": "a1"}])
    X = catalogue.contexts(X)
    folding = Folding(model, "film", catalogue=catalogue)
    found = folding.fold(X)
    users = [f"u{i}" for i in range(USERS) if i not in (1, 4)]
    alone = sp.identity(model.num_features, np.float32, "csr")
    rest = alone[[model.encoder.feature_index("user", user) for user in users]]
    weight = np.r_[1, 1, np.full(len(users), 2 * 2 / len(users))]
    labels = np.r_[1, 1, np.zeros(len(users))]
    args = (*parts(model, sp.vstack([X, rest]), "film"), labels, weight, folding, False)
    slow = minimize(slow_cost, folding.mean, args, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose([found.w, *found.v], slow.x, atol=1e-3)


def test_a_ranker_draws_from_a_large_catalogue_by_the_seed(monkeypatch):
    monkeypatch.setattr(fm.recommending.folding, "MAX_OTHERS", 4)
    model, catalogue = make_model(task=RANKER, num_negatives=2)
    X, _ = ratings_rows(model, catalogue, None, {"f2": 1})
    folding = Folding(model, "user", catalogue=catalogue)
    first, second = folding.fold(X), Folding(model, "user", catalogue=catalogue).fold(X)
    assert len(folding._sample[0]) == 4
    np.testing.assert_array_equal(first.v, second.v)


def test_the_prior_is_that_of_the_trained_values():
    model, _ = make_model()
    indices = model.feature_indices("user")
    w, V = model.w.copy(), model.V.copy()
    w[indices[0]], V[indices[0]] = 100.0, 100.0  # unknown, and trained: no user
    w[indices[3]], V[indices[3]] = 0.0, 0.0  # not trained
    folding = Folding(dataclasses.replace(model, w=w, V=V), "user")
    trained = np.delete(indices, [0, 3])
    theta = np.c_[w[trained], V[trained]]
    np.testing.assert_allclose(folding.mean, theta.mean(axis=0), rtol=1e-5)
    plain = np.cov(theta.T, bias=True)
    count, wide = len(trained), np.diag(plain)
    mixed = plain * count + np.diag([wide[0], *[wide[1:].mean()] * 4])
    np.testing.assert_allclose(folding.covariance, 1.5 * mixed / (count + 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", [REGRESSOR, CLASSIFIER, RANKER])
def test_without_rows_it_is_the_mean(task):
    model, _ = make_model(task=task)
    found = fold_in(model, sp.csr_matrix((0, model.num_features)), [], "user")
    np.testing.assert_allclose([found.w, *found.v], Folding(model, "user").mean, rtol=1e-6)


def test_entries_of_the_field_do_not_count(rng):
    model, _ = make_model()
    rows = [{"age": "a1", "film": "f3", "genre": "g1"}, {"age": "a1", "film": "f5", "genre": "g0"}]
    named = [{**row, "user": user} for row, user in zip(rows, ["u3", "nobody"], strict=True)]
    a, b = fold_in(model, rows, [1, 4], "user"), fold_in(model, named, [1, 4], "user")
    assert a.w == b.w and np.array_equal(a.v, b.v)


@pytest.mark.parametrize("task", [REGRESSOR, CLASSIFIER])
def test_a_repeated_row_is_a_row_of_twice_the_weight(rng, task):
    model, _ = make_model(task=task)
    X = some_rows(model, rng, 2)
    twice = fold_in(model, X[[0, 1, 1]], [1, 0, 0], "user")
    weighed = fold_in(model, X, [1, 0], "user", weight=[1, 2])
    np.testing.assert_allclose(twice.v, weighed.v, atol=1e-6)


def test_no_linear_weights_stay_none(rng):
    model, _ = make_model()
    model = dataclasses.replace(model, w=np.zeros(model.num_features))
    assert fold_in(model, some_rows(model, rng, 5), np.ones(5), "user").w == 0


def test_many_rows_find_the_truth(rng):
    model, catalogue = make_model(k=2)
    truth = np.array([0.7, 1.1, -0.4])
    X = sp.csr_matrix(np.repeat(catalogue.items.toarray(), 300, axis=0))
    Z, score = parts(model, X)
    y = score + Z @ truth + rng.normal(size=len(score)) * 0.1
    found = Folding(model, "user", noise=0.01).fold(X, y)
    np.testing.assert_allclose([found.w, *found.v], truth, atol=0.02)


def test_what_depends_on_the_model_alone_is_kept(rng, monkeypatch):
    model, _ = make_model()
    X = some_rows(model, rng, 2)
    first = fold_in(model, X, [1, 2], "user")
    monkeypatch.setattr(fm.recommending.folding, "Folding", None)
    assert fold_in(model, X, [1, 2], "user").w == first.w
    assert dataclasses.replace(model).__dict__.get("_foldings") is None


@pytest.mark.parametrize("metrics, noise", [({"mse": 0.3, "loss": 0.1}, 0.3), ({"loss": 0.1}, 0.2)])
def test_the_noise_is_that_of_training(metrics, noise):
    model, _ = make_model()
    assert Folding(dataclasses.replace(model, metrics=metrics), "user").noise == noise


# -- rows of ratings -------------------------------------------------------------------------------


def test_rows_of_ratings():
    model, catalogue = make_model()
    context = {"user": "u3", "age": "a2", "film": "f8"}  # of the film nothing remains
    X, y = ratings_rows(model, catalogue, context, {"f4": 3, "f1": 1.5})
    rows = [
        {"user": "u3", "age": "a2", "film": "f4", "genre": "g0"},
        {"user": "u3", "age": "a2", "film": "f1", "genre": "g1"},
    ]
    np.testing.assert_array_equal(X.toarray(), model.encoder.encode_rows(rows).toarray())
    assert X.has_canonical_format and y.tolist() == [3, 1.5] and y.dtype == np.float32
    given = catalogue.contexts(model.encoder.encode_rows([context]))
    np.testing.assert_array_equal(ratings_rows(model, catalogue, given, {"f4": 3})[0][0].toarray(),
                                  X[0].toarray())  # fmt: skip
    X, y = ratings_rows(model, catalogue, None, {})
    assert X.shape == (0, model.num_features) and y.size == 0
    np.testing.assert_allclose(fold_in(model, X, y, "user").w, Folding(model, "user").mean[0])


def test_rows_of_ratings_without_an_encoder():
    model, catalogue = make_model()
    bare = dataclasses.replace(model, encoder=None)
    X, _ = ratings_rows(bare, catalogue, None, {"f4": 3})
    np.testing.assert_array_equal(
        X.toarray(), catalogue.items[catalogue.item_number("f4")].toarray()
    )


@pytest.mark.parametrize(
    "task, ratings, message",
    [
        (REGRESSOR, {"f99": 3}, "film: expected one of the 9 items of the model, found 'f99'"),
        (REGRESSOR, {"f1": "3"}, "ratings: expected a finite number for item 'f1', found '3'"),
        (REGRESSOR, {"f1": float("nan")}, "ratings: expected a finite number for item 'f1'"),
        (REGRESSOR, {"f1": None}, "ratings: expected a finite number for item 'f1', found None"),
        (REGRESSOR, {"f1": 1e39}, "ratings: expected a finite number for item 'f1', found 1e+39"),
        (REGRESSOR, {"f1": -(10**400)}, "ratings: expected a finite number for item 'f1'"),
        (REGRESSOR, ["f1"], "ratings: expected a mapping of item to rating, found list"),
        (CLASSIFIER, {"f1": 4}, "ratings: expected 0 or 1 for item 'f1', found 4"),
        (RANKER, {"f1": 0.5}, "ratings: expected 0 or 1 for item 'f1', found 0.5"),
    ],
)
def test_wrong_ratings(task, ratings, message):
    model, catalogue = make_model(task=task)
    with pytest.raises(DataError, match=re.escape(message)):
        ratings_rows(model, catalogue, {"age": "a1"}, ratings)


def test_numbers_of_any_type_are_ratings():
    model, catalogue = make_model()
    ratings = {"f1": np.float16(2), "f2": np.int8(-3), "f3": True, "f4": np.True_, "f5": 3.4e38}
    assert ratings_rows(model, catalogue, None, ratings)[1].tolist() == [
        2, -3, 1, 1, np.float32(3.4e38)
    ]  # fmt: skip


@pytest.mark.parametrize("ratings", [pd.Series({"f1": 5.0}), np.ones(2), [("f1", 5)]], ids=type)
def test_ratings_that_are_no_mapping_are_refused(ratings):
    model = knowing_model()
    with pytest.raises(DataError, match="ratings: expected a mapping of item to rating, found"):
        model.recommend({}, 2, ratings=ratings)


def test_wrong_contexts():
    model, catalogue = make_model()
    with pytest.raises(DataError, match="row 1: .*'shoe'"):
        ratings_rows(model, catalogue, {"shoe": 3}, {"f1": 3})
    with pytest.raises(DataError, match="context: expected one row, found 2"):
        ratings_rows(model, catalogue, catalogue.items[:2], {"f1": 3})


# -- a model that knows the value ------------------------------------------------------------------


@pytest.mark.parametrize("field", ["user", "genre"])  # in the middle, and the last
def test_a_model_with_the_feature(rng, tmp_path, field):
    model, _ = make_model()
    folded = fold_in(model, some_rows(model, rng, 4), rng.normal(size=4), field)
    longer = with_feature(model, folded, "new")
    rows = [dict(zip(TABLE, cells, strict=True)) for cells in zip(*TABLE.values(), strict=True)]
    for row in rows:
        del row["rating"]
    np.testing.assert_allclose(longer.scores(rows), model.scores(rows), rtol=1e-6)
    new = [{**row, field: "new"} for row in rows]
    Z, score = parts(model, model.encoder.encode_rows(new), field)
    expected = score + Z @ np.r_[folded.w, folded.v]
    np.testing.assert_allclose(longer.scores(new), expected, rtol=1e-5, atol=1e-5)
    assert longer.encoder.feature_name(longer.encoder.feature_index(field, "new")) == f"{field}=new"
    np.testing.assert_array_equal(longer.fields, longer.encoder.fields)
    assert longer.config.feature_dim == longer.num_features == model.num_features + 1
    assert load(longer.save(tmp_path / "model.safetensors")) == longer


def test_without_an_encoder_the_feature_is_the_last(rng):
    model, _ = make_model()
    bare = dataclasses.replace(model, encoder=None)
    X = some_rows(model, rng, 3)
    folded = fold_in(bare, X, [1, 2, 3], "user")
    longer = with_feature(bare, folded, "new")
    assert longer.fields[-1] == bare.field_names.index("user")
    assert longer.w[-1] == np.float32(folded.w)
    by_range = dataclasses.replace(bare, fields=None, field_names=())
    first, *_, last = model.feature_indices("user")[1:].tolist()
    again = fold_in(by_range, X, [1, 2, 3], f"{first}:{last + 1}")
    # The unknown user's entry is outside the range, and 0 in this model.
    np.testing.assert_allclose(again.v, folded.v, rtol=1e-5)
    assert with_feature(by_range, again, "new").fields is None


def knowing_model():
    model, catalogue = make_model()
    return dataclasses.replace(model, catalogue=catalogue)


def same_catalogue(a, b):
    return (
        list(a.item_ids) == list(b.item_ids)
        and np.array_equal(a.item_keys, b.item_keys)
        and np.array_equal(a.user_keys, b.user_keys)
        and np.array_equal(a.item_side, b.item_side)
        and np.array_equal(a.items.toarray(), b.items.toarray())
        and np.array_equal(a.seen.toarray(), b.seen.toarray())
    )


@pytest.mark.parametrize("field", ["user", "film", "age", "genre"])
def test_the_longer_catalogue_survives_the_file(tmp_path, field):
    longer = with_feature(knowing_model(), Folded(field, 0.1, np.ones(4)), "new")
    again = load(longer.save(tmp_path / "model.safetensors"))
    assert again == longer and same_catalogue(again.catalogue, longer.catalogue)


def test_the_catalogue_of_a_model_with_a_new_user(rng):
    model = knowing_model()
    old, row = model.catalogue, {"user": "u2", "age": "a2", "film": "f3", "genre": "g1"}
    longer = with_feature(model, fold_in(model, [row], [3], "user"), "new")
    new = longer.catalogue
    assert new.num_users == old.num_users + 1 and new.num_items == old.num_items
    assert new.user_keys[-1] == longer.encoder.feature_index("user", "new")
    assert list(new.item_ids) == list(old.item_ids)
    for number, name in enumerate(new.item_ids):
        assert new.item_keys[number] == longer.encoder.feature_index("film", name)
    np.testing.assert_allclose(longer.scores(new.items), model.scores(old.items), rtol=1e-6)
    assert new.seen.shape == (USERS + 1, FILMS) and new.seen[USERS].nnz == 0
    np.testing.assert_array_equal(new.seen[:USERS].toarray(), old.seen.toarray())
    X = longer.encoder.encode_rows([{**row, "user": "new"}])
    assert new.rows_of_keys(X) == (USERS, old.item_number("f3"))
    assert new.contexts(X).nnz == 2


def test_a_new_user_is_not_recommended_what_they_have_rated(tmp_path):
    model = knowing_model()
    folded, met = fold_ratings(model, model.catalogue, {}, {"f3": 5, "f1": 1})
    longer = with_feature(model, folded, "new", seen=[*met, "f3"])
    assert not {"f1", "f3"} & set(longer.recommend("new", FILMS).ids)
    assert len(longer.recommend("new", FILMS).ids) == FILMS - 2
    assert len(longer.recommend("new", FILMS, exclude=None).ids) == FILMS
    again = load(longer.save(tmp_path / "model.safetensors"))
    assert same_catalogue(again.catalogue, longer.catalogue)
    with pytest.raises(DataError, match="film: expected one of the 9 items of the model"):
        with_feature(model, folded, "new", seen=["f99"])
    forgetful = dataclasses.replace(model.catalogue, seen=None)
    for other, field in (
        (model, "film"),
        (dataclasses.replace(model, catalogue=forgetful), "user"),
        (dataclasses.replace(model, catalogue=None), "user"),
    ):
        with pytest.raises(ConfigError, match=f"seen: expected a new user.*value of {field}"):
            with_feature(other, Folded(field, 0.0, np.ones(4)), "new", seen=["f1"])


def test_the_catalogue_of_a_model_with_a_new_item():
    model = knowing_model()
    row = {"user": "u2", "age": "a2", "film": "f99", "genre": "g1"}
    folded = fold_in(model, [row], [3], "film")
    longer = with_feature(model, folded, "f99", item_row=model.encoder.encode_rows([row]))
    new = longer.catalogue
    at = new.item_number("f99")
    assert at == FILMS and new.seen.shape == (USERS, FILMS + 1)
    assert new.item_side[new.item_keys[at]] and not new.item_side[new.user_keys].any()
    whole = longer.encoder.encode_rows([row])
    parts_of_row = new.contexts(whole) + new.items[at]
    # In the row given, the old model's, f99 is unknown: that entry is there as well.
    unknown = longer.encoder.feature_index("film")
    rest = (parts_of_row - whole).tocoo()
    assert set(rest.col[rest.data != 0].tolist()) <= {unknown}
    alone = with_feature(model, folded, "f99").catalogue.items[at]
    assert alone.indices.tolist() == [new.item_keys[at]]


def test_a_value_of_neither_side_moves_the_catalogue():
    model = knowing_model()
    longer = with_feature(model, Folded("age", 0.1, np.ones(4)), "a99")
    new = longer.catalogue
    assert new.num_users == USERS and new.num_items == FILMS
    assert not new.item_side[longer.encoder.feature_index("age", "a99")]
    np.testing.assert_allclose(longer.scores(new.items), model.scores(model.catalogue.items))


@pytest.mark.parametrize("field", ["user", "item"])
def test_the_catalogue_of_ranges(tmp_path, field):
    """Features of users and items without names: only the last range can grow."""
    rng = np.random.default_rng(3)
    X = sp.csr_matrix(np.hstack([np.eye(6), np.eye(6)[:, [0, 1, 2, 0, 1, 2]][:, :3]]))
    data = read((X, np.arange(6.0)))
    model = Model(
        0.5, rng.normal(size=9), rng.normal(size=(9, 2)), TrainConfig(num_factors=2),
        metrics={"mse": 1.0}, catalogue=catalogue_of(data, user="0:6", item="6:9"),
    )  # fmt: skip
    part = {"user": "0:6", "item": "6:9"}[field]
    folded = fold_in(model, X[:2], [1, 2], part)
    if field == "user":
        with pytest.raises(ConfigError, match="with_feature: the features 0:6 are followed by"):
            with_feature(model, folded, "new")
        return
    longer = with_feature(model, folded, "new")
    assert longer.catalogue.item == "6:10" and list(longer.catalogue.item_ids) == list("6789")
    again = load(longer.save(tmp_path / "model.safetensors"))
    assert same_catalogue(again.catalogue, longer.catalogue)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, message",
    [
        ("shoe", "field: expected one of the model's (user, age, film, genre), found 'shoe'"),
        ("5:99", "field: expected a range of features in 0:30, found '5:99'"),
    ],
)
def test_wrong_fields(field, message):
    model, _ = make_model()
    assert model.num_features == 30
    with pytest.raises(ConfigError, match=re.escape(message)):
        fold_in(model, catalogue_items(), [1], field)


def catalogue_items():
    return make_model()[1].items[:1]


def test_wrong_rows_and_targets():
    model, _ = make_model()
    X = catalogue_items()
    for y, weight, message in (
        ([1, 2], None, "fold_in: expected one target per row"),
        ([np.nan], None, "fold_in row 1: the target nan is not a finite number"),
        ([1], [-1], "fold_in row 1: weight -1 is negative"),
        (None, None, "fold_in: expected a target y for each row, found none"),
    ):
        with pytest.raises(DataError, match=message):
            fold_in(model, X, y, "user", weight=weight)
    with pytest.raises(DataError, match="feature index 40 is outside"):
        fold_in(model, sp.csr_matrix(([1.0], ([0], [40]))), [1], "user")
    for task, kind in ((CLASSIFIER, "binary_classifier"), (RANKER, "ranker")):
        wrong = f"fold_in row 1: expected a label 0 or 1 for a {TASKS[kind].noun}, found 3"
        with pytest.raises(DataError, match=wrong):
            fold_in(make_model(task=task)[0], X, [3], "user")
    with pytest.raises(ConfigError, match="a ranker compares what is liked with the other items"):
        fold_in(make_model(task=RANKER)[0], X, None, "user")


def test_too_little_to_learn_a_prior_from():
    model, _ = make_model()
    w, V = model.w.copy(), model.V.copy()
    rest = model.feature_indices("age")[2:]
    w[rest], V[rest] = 0, 0
    message = "field: expected two trained features of age or more to learn from, found 1"
    with pytest.raises(ConfigError, match=message):
        Folding(dataclasses.replace(model, w=w, V=V), "age")


@pytest.mark.parametrize("metrics", [{}, {"mse": 0.0}, {"mse": float("nan")}, {"mse": None}])
def test_noise_that_is_not_known(metrics):
    model, _ = make_model()
    model = dataclasses.replace(model, metrics=metrics)
    with pytest.raises(ConfigError, match="noise: expected a model with the mean squared error"):
        Folding(model, "user")
    given = dataclasses.replace(model, metrics={"mse": 0.8})  # as the message advises
    assert Folding(given, "user").noise == 0.8
    with pytest.raises(ConfigError, match="noise: expected a number > 0, found -1"):
        Folding(model, "user", noise=-1)
    assert Folding(model, "user", noise=2.0).noise == 2.0


@pytest.mark.parametrize(
    "name, message",
    [
        ("u3", "with_feature: expected a new value of user, found 'u3', which the model knows"),
        (None, "with_feature: expected a new value of user, found a missing value"),
        ([1], "with_feature.*user"),
    ],
)
def test_wrong_names(name, message):
    model, _ = make_model()
    with pytest.raises(DataError, match=message):
        with_feature(model, Folded("user", 0.0, np.ones(4)), name)


def test_columns_that_cannot_get_another_value():
    plain = Encoder([Numeric("price"), Categorical("user", Vocabulary(("a",)))])
    hashed = Encoder.fit({"user": ["a", "b"]}, categorical="user", hash_dim=3)
    for encoder, field, kind in ((plain, "price", "numeric"), (hashed, "user", "hashed")):
        n = encoder.num_features
        model = Model(
            0, np.ones(n), np.ones((n, 1)), TrainConfig(num_factors=1), encoder, encoder.fields,
            encoder.field_names,
        )  # fmt: skip
        message = f"field: expected a column that keeps its values, found {field}, which is {kind}"
        with pytest.raises(ConfigError, match=message):
            with_feature(model, Folded(field, 0.0, np.ones(1)), "new")
        with pytest.raises(ConfigError, match="field: expected a column of the model .*'shoe'"):
            with_feature(model, Folded("shoe", 0.0, np.ones(1)), "new")
        if kind == "numeric":
            message = "field: expected a column with values, found price, a numeric one"
            with pytest.raises(ConfigError, match=message):
                Folding(model, "price", noise=1.0)
    with pytest.raises(DataError, match="with_feature: expected 1 factors.*shape \\(2,\\)"):
        with_feature(model, Folded("user", 0.0, np.ones(2)), "new")


def test_numbers_that_are_too_large_to_learn_from(monkeypatch):
    def singular(*_):
        raise np.linalg.LinAlgError("Singular matrix")

    model = knowing_model()
    folding = Folding(model, "user")
    monkeypatch.setattr(np.linalg, "solve", singular)
    with pytest.raises(DataError, match="fold_in: the values or targets are too large"):
        folding.fold(model.as_dataset([{"film": "f1"}]).X, [3])
