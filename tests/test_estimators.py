"""FMRegressor and FMClassifier: scikit-learn's own checks, and what they promise beyond them."""

import inspect
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import estimator_checks_generator

import fm
from fm.config import parameters
from fm.errors import ConfigError, DataError
from fm.estimators.predictors import FMClassifier, FMRegressor
from fm.estimators.ranker import FMRanker
from fm.reading.options import options

ESTIMATORS = [FMRegressor, FMClassifier]


def checks():
    """Return what parametrize_with_checks would; a list, because pytest wants no generator."""
    found = []
    for make in ESTIMATORS:
        for estimator, check in estimator_checks_generator(make()):
            name = getattr(check, "func", check).__name__
            # scikit-learn 1.6 makes y binary by its first row, and this check then shuffles one of
            # two equal data sets: it compares a classifier of "0" with one of "not 0".
            # A frame of integers alone is a table of ids, and not what an array of them is.
            if name == "check_classifier_data_not_an_array":
                continue
            equivalence = name.startswith("check_sample_weight_equivalence")
            if not (equivalence and make is FMClassifier and sklearn.__version__ < "1.7"):
                found.append(pytest.param(estimator, check, id=f"{make.__name__}-{name}"))
    return found


@pytest.mark.parametrize(("estimator", "check"), checks())
def test_scikit_learn_check(estimator, check):
    check(estimator)


# -- data ------------------------------------------------------------------------------------------


@pytest.fixture
def ratings(rng):
    """Users x films with planted factors, as a frame with a column of each kind."""
    users, films = rng.integers(30, size=900), rng.integers(20, size=900)
    P, Q = rng.normal(size=(30, 2)), rng.normal(size=(20, 2))
    score = (P[users] * Q[films]).sum(1)
    frame = pd.DataFrame(
        {
            "user": [f"u{i}" for i in users],
            "film": films,
            "genres": ["Action|Comedy" if i % 2 else "Drama" for i in films],
            "age": rng.normal(40.0, 10.0, size=900).round(1),
        }
    )
    return frame, score, np.where(score > 0, "like", "leave")


COLUMNS = {"categorical": ["user", "film"], "multi": ["genres"]}


def halves(X, y):
    return X[:700], y[:700], X[700:], y[700:]


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ESTIMATORS)
def test_parameters_are_those_of_the_config(make):
    signature = inspect.signature(make)
    given = {p.name: p.default for p in parameters()}
    del given["predictor_type"], given["feature_dim"]
    found = {name: p.default for name, p in signature.parameters.items() if name in given}
    assert found == given
    more = [name for name in signature.parameters if name not in given]
    known = [option.name for option in options("columns", "recommending")]
    assert more == ["warm_start", *known]
    assert make().get_params() == {name: p.default for name, p in signature.parameters.items()}


@pytest.mark.parametrize("make", ESTIMATORS)
def test_docstring_describes_every_parameter(make):
    for parameter in parameters():
        if parameter.name not in ("predictor_type", "feature_dim"):
            assert f"\n{parameter.name} : " in make.__doc__
            assert parameter.help.split()[0] in make.__doc__
    assert "{" + "parameters}" not in make.__doc__


def test_unknown_parameter():
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_factor'"):
        FMRegressor(num_factor=3)


def test_wrong_hyperparameters_are_named_together_in_fit():
    model = FMRegressor(num_factors=0, optimizer="magic")
    with pytest.raises(ConfigError, match=r"num_factors: .*; optimizer: .*'magic'"):
        model.fit([[1.0], [2.0]], [1.0, 2.0])


def test_repr_shows_what_was_set():
    assert repr(FMClassifier(num_factors=3, seed=1)) == "FMClassifier(num_factors=3, seed=1)"


# -- what is learnt --------------------------------------------------------------------------------


def test_regressor_finds_planted_factors(ratings):
    X, y, X_test, y_test = halves(ratings[0], ratings[1])
    model = FMRegressor(num_factors=4, **COLUMNS).fit(X, y)
    assert model.score(X_test, y_test) > 0.7
    assert model.coef_.shape == (model.model_.num_features,)
    assert model.factors_.shape == (model.model_.num_features, 4)
    assert model.n_iter_ == len(model.history_) == 100
    assert isinstance(model.intercept_, float)
    assert model.history_[-1]["loss"] < model.history_[0]["loss"]


def test_classifier_keeps_its_labels(ratings):
    X, y, X_test, y_test = halves(ratings[0], ratings[2])
    model = FMClassifier(num_factors=4, **COLUMNS).fit(X, y)
    assert model.classes_.tolist() == ["leave", "like"]
    assert model.score(X_test, y_test) > 0.8
    probability = model.predict_proba(X_test)
    assert probability.shape == (200, 2)
    assert_allclose(probability.sum(1), 1, rtol=1e-12)
    likes = model.decision_function(X_test) > 0
    assert_array_equal(likes, probability[:, 1] > 0.5)
    assert_array_equal(model.predict(X_test), np.where(likes, "like", "leave"))
    assert_allclose(model.model_.probabilities(X_test), probability[:, 1], rtol=1e-4, atol=1e-6)


def test_a_score_does_not_depend_on_the_other_rows(rng):
    X = (rng.random((300, 20)) < 0.3) * rng.choice([1.0, 2.5], size=(300, 20))
    model = FMRegressor(num_factors=5, epochs=2).fit(X, rng.normal(size=300))
    whole = model.predict(X)
    assert_array_equal(whole, np.concatenate([model.predict(X[i : i + 1]) for i in range(300)]))
    assert_array_equal(whole, model.predict(sp.csc_matrix(X)))
    assert_array_equal(whole, model.predict(sp.coo_array(X)))


def test_more_classes_one_against_the_rest():
    X, y = make_blobs(n_samples=90, centers=[[0, 0], [9, 0], [0, 9]], random_state=0)
    model = OneVsRestClassifier(FMClassifier(num_factors=2)).fit((X - 4) / 4, y)
    assert model.score((X - 4) / 4, y) > 0.9


# -- frames ----------------------------------------------------------------------------------------


def test_frames_of_all_libraries_give_the_same_model(ratings):
    frame, y, _ = ratings
    expected = FMRegressor(num_factors=3, epochs=5).fit(frame, y)
    assert expected.model_.encoder.field_names == ("user", "film", "genres", "age")
    assert expected.feature_names_in_.tolist() == ["user", "film", "genres", "age"]
    assert expected.n_features_in_ == 4
    for X in (pl.from_pandas(frame), pa.table(frame.to_dict("list"))):
        model = FMRegressor(num_factors=3, epochs=5).fit(X, y)
        assert model.model_ == expected.model_
        assert model.n_features_in_ == 4
        assert_array_equal(model.predict(X), expected.predict(frame))


def test_later_frames_may_be_in_another_order(ratings):
    frame, y, _ = ratings
    model = FMRegressor(num_factors=3, epochs=5).fit(frame, y)
    other = frame[["age", "film", "user", "genres"]].assign(more=1)
    assert_array_equal(model.predict(other), model.predict(frame))
    with pytest.raises(DataError, match=r"'film'"):
        model.predict(frame.drop(columns="film"))


def test_only_named_columns_are_used(ratings):
    frame, y, _ = ratings
    model = FMRegressor(epochs=2, categorical="user", numeric="age", standardize=True)
    model.fit(frame, y)
    assert model.model_.encoder.field_names == ("user", "age")
    assert model.n_features_in_ == 4
    assert abs(model.model_.encoder.columns[1].mean - 40) < 2


def test_value_that_training_did_not_see_is_unknown(ratings):
    frame, y, _ = ratings
    model = FMRegressor(num_factors=3, epochs=5, min_count=2, ignore="age").fit(frame, y)
    strangers = frame.assign(user="nobody")
    assert np.isfinite(model.predict(strangers)).all()
    assert_array_equal(model.predict(strangers), model.predict(frame.assign(user=None)))


def test_integers_are_ids_in_frames_as_in_read_and_numbers_in_arrays():
    X = pd.DataFrame({"user": [7, 8, 7, 8], "film": [1, 1, 2, 2], "new": [True, False, True, True]})
    y = [1.0, 2.0, 3.0, 4.0]
    read = fm.read((X, y)).encoder
    for frame in (X, pl.from_pandas(X), pa.table(X.to_dict("list"))):
        model = FMRegressor(num_factors=2, epochs=3).fit(frame, y)
        assert model.model_.encoder == read
        assert {column.kind for column in read.columns} == {"categorical"}
        assert FMRegressor(epochs=3, numeric=["film", "user"]).fit(frame, y).coef_.shape == (4,)
    assert FMRegressor(epochs=3).fit(X.to_numpy(), y).model_.encoder is None
    # one rule whatever the other columns are
    kinds = [c.kind for c in fm.read((X.assign(age=[0.5, 1.5, 2.5, 3.5]), y)).encoder.columns]
    model = FMClassifier(epochs=3).fit(X.assign(age=[0.5, 1.5, 2.5, 3.5]), [0, 1, 1, 0])
    assert [column.kind for column in model.model_.encoder.columns] == kinds


def test_frames_of_floats_are_numbers():
    X = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [0.5, 0.1, 0.2, 0.9], "c": [1.0, 0, 1, 1]})
    y = [1.0, 2.0, 3.0, 4.0]
    expected = FMRegressor(num_factors=2).fit(X.to_numpy(dtype=float), y).predict(X.to_numpy(float))
    sparse = X.astype(pd.SparseDtype(float, 0.0))
    for frame in (X, pl.from_pandas(X), pa.table(X.to_dict("list")), sparse):
        model = FMRegressor(num_factors=2).fit(frame, y)
        assert model.model_.encoder is None
        assert model.n_features_in_ == 3
        assert_array_equal(model.predict(frame), expected)


def test_frames_of_indicators_are_numbers():
    """With an encoder each of their columns had features of its own for true, false and unknown."""
    texts = pd.DataFrame({"user": list("abcabc"), "film": list("xyxyzz")})
    y = np.arange(6.0)
    expected = FMRegressor(num_factors=2).fit(pd.get_dummies(texts).to_numpy(float), y).coef_
    flags = pd.get_dummies(texts)
    sparse = pd.get_dummies(texts, sparse=True, dtype=int)
    for frame in (flags, pl.from_pandas(flags), pa.table(flags.to_dict("list")), sparse):
        model = FMRegressor(num_factors=2).fit(frame, y)
        assert model.model_.encoder is None
        assert_array_equal(model.coef_, expected)
    # beside integers they are categories, as in fm.read
    mixed = FMRegressor(num_factors=2).fit(flags.assign(age=range(6)), y).model_.encoder
    assert mixed == fm.read(flags.assign(age=range(6))).encoder


def test_ids_in_an_array_are_named_by_position(rng):
    X = rng.integers(20, size=(400, 2))
    y = np.sin(X[:, 0]) + np.cos(3 * X[:, 1])
    model = FMRegressor(num_factors=2, categorical=[0, 1]).fit(X, y)
    assert model.model_.encoder.field_names == ("x0", "x1")
    assert not hasattr(model, "feature_names_in_")
    assert model.score(X, y) > 0.8
    with pytest.raises(ValueError, match="X has 1 features, but FMRegressor is expecting 2"):
        model.predict(X[:, :1])


def test_array_after_a_frame_goes_by_position(ratings):
    frame, y, _ = ratings
    model = FMRegressor(num_factors=3, epochs=2).fit(frame, y)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        found = model.predict(frame.to_numpy())
    assert_array_equal(found, model.predict(frame))


def test_columns_of_a_sparse_matrix_cannot_be_encoded():
    model = FMRegressor(categorical=[0])
    with pytest.raises(DataError, match="expected a frame or an array .* found a sparse matrix"):
        model.fit(sp.eye_array(3).tocsr(), [1, 2, 3])


# -- rows and weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ESTIMATORS)
def test_weight_2_is_the_row_twice_and_weight_0_is_no_row(rng, make):
    X, y = rng.normal(size=(60, 5)), rng.integers(2, size=60)
    weight = rng.integers(0, 4, size=60)
    twice = np.repeat(np.arange(60), weight)
    rng.shuffle(twice)
    a = make(num_factors=3).fit(X, y, sample_weight=weight)
    b = make(num_factors=3).fit(X[twice], y[twice])
    assert a.model_ == b.model_


def test_weights_also_count_in_large_data(rng, monkeypatch):
    monkeypatch.setattr("fm.estimators.base.FEW_ROWS", 10)
    X = np.ones((300, 1))
    y = np.repeat([0.0, 1.0], 150)
    model = FMRegressor(num_factors=1, epochs=50).fit(X, y, sample_weight=np.where(y > 0, 3, 1))
    assert model.predict(X[:1]) == pytest.approx(0.75, abs=0.05)


def test_stored_zeros_make_no_difference(rng):
    X = sp.random_array((50, 8), density=0.4, format="csr", rng=rng)
    stored = X.copy()
    stored.data[::3] = 0
    without = stored.copy()
    without.eliminate_zeros()
    y = rng.normal(size=50)
    models = [FMRegressor(num_factors=2, epochs=5).fit(Z, y).model_ for Z in (stored, without)]
    assert models[0] == models[1]
    assert stored.nnz == X.nnz


def test_order_counts_where_it_was_asked_for(rng):
    X, y = rng.normal(size=(60, 5)), rng.normal(size=60)
    mixed = rng.permutation(60)
    for shuffle, alike in ((None, True), (False, False)):
        a, b = (
            FMRegressor(num_factors=3, epochs=3, shuffle=shuffle).fit(X[rows], y[rows]).model_
            for rows in (slice(None), mixed)
        )
        assert (a == b) == alike


def test_bad_weights():
    X, y = [[1.0], [2.0]], [1.0, 2.0]
    with pytest.raises(DataError, match="all of them zero"):
        FMRegressor().fit(X, y, sample_weight=[0, 0])
    with pytest.raises(DataError, match="row 2: weight -1 is negative"):
        FMRegressor().fit(X, y, sample_weight=[1, -1])


# -- targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 2, 0], "Only binary classification is supported. The type of the target is multic"),
        ([0.1, 0.5, 0.2, 0.1], "Unknown label type: continuous"),
        (["a"] * 4, r"expected two classes, found 1 class: \['a'\]"),
        (None, "requires y to be passed"),
        ([0, 1, 0], "inconsistent numbers of samples"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        FMClassifier().fit(np.eye(4), y)


@pytest.mark.parametrize("labels", [[False, True], [-1, 1], ["a", "b"], [2.0, 7.0]])
def test_labels_of_any_kind(labels):
    y = np.array(labels)[[0, 1, 0, 1]]
    model = FMClassifier(num_factors=1).fit(np.eye(4), y)
    assert_array_equal(model.predict(np.eye(4)), y)


# -- going on --------------------------------------------------------------------------------------


def test_partial_fit_improves(ratings):
    frame, y, _ = ratings
    model = FMRegressor(num_factors=4, **COLUMNS)
    scores = []
    for _ in range(40):
        for start in range(0, 900, 300):
            model.partial_fit(frame[start : start + 300], y[start : start + 300])
        scores.append(model.score(frame, y))
    assert scores[0] < scores[10] < scores[-1]
    assert scores[-1] > 0.7
    assert model.n_iter_ == 120  # passes so far


def test_partial_fit_goes_on_from_fit(ratings):
    frame, y, _ = ratings
    model = FMRegressor(num_factors=4, epochs=20, **COLUMNS).fit(frame, y)
    before = model.predict(frame)
    model.partial_fit(frame[:10], y[:10])
    after = model.predict(frame)
    assert not np.array_equal(before, after)
    assert np.corrcoef(before, after)[0, 1] > 0.99


def test_partial_fit_of_a_classifier(ratings):
    frame, _, y = ratings
    like = np.flatnonzero(y == "like")
    with pytest.raises(DataError, match="found 1 class: .*classes="):
        FMClassifier().partial_fit(frame.iloc[like], y[like])
    model = FMClassifier(num_factors=4, **COLUMNS)
    model.partial_fit(frame.iloc[like], y[like], classes=["like", "leave"])
    assert (model.predict(frame) == "like").all()
    for _ in range(40):
        model.partial_fit(frame, y)
    assert model.score(frame, y) > 0.8
    with pytest.raises(DataError, match=r"expected the labels \['leave', 'like'\], found 'hate'"):
        model.partial_fit(frame[:2], ["like", "hate"])
    with pytest.raises(ConfigError, match=r"classes: expected \['leave', 'like'\]"):
        model.partial_fit(frame[:2], ["like", "leave"], classes=["like", "hate"])


def test_warm_start(ratings):
    frame, y, _ = ratings
    cold, warm = (FMRegressor(num_factors=4, epochs=5, warm_start=w) for w in (False, True))
    first = cold.fit(frame, y).model_
    assert cold.fit(frame, y).model_ == first
    assert warm.fit(frame, y).model_ == clone(warm).fit(frame, y).model_
    warm.fit(frame, y)
    for epoch in (0, -1):
        assert warm.history_[epoch]["loss"] < first.history[epoch]["loss"]
    with pytest.raises(ConfigError, match="num_factors"):
        warm.set_params(num_factors=3).fit(frame, y)


def test_a_second_fit_forgets_the_first(ratings):
    frame, y, _ = ratings
    model = FMRegressor(num_factors=2, epochs=2).fit(frame, y)
    X = np.arange(12.0).reshape(6, 2)
    model.fit(X, np.arange(6.0))
    assert model.n_features_in_ == 2 and model.model_.encoder is None
    assert not hasattr(model, "feature_names_in_")


# -- early stopping --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [tuple, lambda pair: [pair]])
def test_eval_set_stops_early(ratings, wrap):
    frame, _, y = ratings
    X, labels, X_val, labels_val = halves(frame, y)
    model = FMClassifier(optimizer="sgd", num_factors=20, factors_wd=0.0, linear_wd=0.0, patience=2)
    model.fit(X, labels, eval_set=wrap((X_val, labels_val)))
    losses = [epoch["log_loss"] for epoch in model.history_]
    assert len(losses) < 100
    assert np.argmin(losses) == len(losses) - 3
    assert model.model_.metrics["log_loss"] == min(losses)
    p = model.predict_proba(X_val)[:, 1]
    found = -np.mean(np.log(np.where(labels_val == "like", p, 1 - p)))
    assert found == pytest.approx(min(losses), rel=1e-4)


def test_bad_eval_set(ratings):
    frame, _, y = ratings
    model = FMClassifier(epochs=1)
    with pytest.raises(ConfigError, match=r"eval_set: expected a tuple \(X, y\)"):
        model.fit(frame, y, eval_set=[(frame, y), (frame, y)])
    with pytest.raises(DataError, match="eval_set: expected the labels"):
        model.fit(frame, y, eval_set=(frame[:2], ["like", "hate"]))


# -- in scikit-learn's company ---------------------------------------------------------------------


def test_pipeline(ratings):
    frame, _, y = ratings
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(encoder, FMClassifier(num_factors=4))
    X, labels, X_test, labels_test = halves(frame[["user", "film"]], y)
    assert model.fit(X, labels).score(X_test, labels_test) > 0.75
    assert model[-1].model_.encoder is None


def test_grid_search_in_two_processes(ratings):
    frame, y, _ = ratings
    grid = {"num_factors": [1, 4], "factors_lr": np.array([1e-6, 0.02])}
    search = GridSearchCV(FMRegressor(epochs=40, **COLUMNS), grid, cv=2, n_jobs=2).fit(frame, y)
    assert search.best_params_ == {"num_factors": 4, "factors_lr": 0.02}
    assert search.best_score_ > 0.5


def test_cross_validation_on_read_only_memory(rng):
    X = rng.normal(size=(400, 10))
    y = X[:, 0] * X[:, 1] + X[:, 2]
    X.flags.writeable = y.flags.writeable = False
    assert cross_val_score(FMRegressor(num_factors=4), X, y, cv=3).mean() > 0.8


def test_pickle(ratings):
    frame, _, y = ratings
    model = FMClassifier(num_factors=3, epochs=3).fit(frame, y)
    again = pickle.loads(pickle.dumps(model))
    assert again.model_ == model.model_
    assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
    assert again.partial_fit(frame, y).n_iter_ == 1


def test_saved_model_scores_alike(ratings, tmp_path):
    frame, y, _ = ratings
    model = FMRegressor(num_factors=3, epochs=3).fit(frame, y)
    loaded = fm.load(model.model_.save(tmp_path / "model.safetensors"))
    assert_allclose(loaded.predict(frame), model.predict(frame), rtol=1e-5, atol=1e-6)


# -- recommending ----------------------------------------------------------------------------------


PAIRS = pd.DataFrame(
    [(f"u{u}", f"f{f}", 20 + u, "ab"[f % 2]) for u in range(9) for f in range(6) if (u + f) % 3],
    columns=["user", "film", "age", "genre"],
)


@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier, FMRanker])
def test_the_model_recommends_as_one_of_read_and_fit(kind):
    y = (PAIRS.index % 2).to_numpy(float)
    model = kind(num_factors=2, epochs=2).fit(PAIRS, y if kind is not FMRanker else None).model_
    expected = fm.read(PAIRS.assign(rating=y), target="rating").catalogue
    assert repr(model.catalogue) == repr(expected)
    assert model.catalogue.item_columns == expected.item_columns == ("genre",)
    assert model.catalogue.user_columns == expected.user_columns == ("age",)
    best = model.recommend("u1", 9)
    assert set(best.ids) == {"f2", "f5"} and model.recommend({"user": "u1"}, 9).ids == best.ids


def test_what_users_met_is_kept_unless_it_is_not_wanted():
    y = (PAIRS.index % 2).to_numpy(float)
    model = FMRegressor(num_factors=2, epochs=2, keep_seen=False).fit(PAIRS, y).model_
    assert model.catalogue.seen is None and len(model.recommend("u1", 9)) == 6


def test_columns_of_unusual_names_and_numbers():
    numbers = pd.DataFrame({"who": [1, 1, 2, 3], "what": [7, 8, 7, 9]})
    model = FMRegressor(user="who", item="what", num_factors=2, epochs=2).fit(numbers, [1, 2, 3, 4])
    assert sorted(model.model_.recommend(1, exclude=None).ids) == ["7", "8", "9"]
    X = np.eye(4)[[0, 0, 1]] + np.eye(4)[[2, 3, 2]]
    model = FMRegressor(user="0:2", item="2:4", num_factors=2, epochs=2).fit(X, [1.0, 2.0, 3.0])
    assert model.model_.recommend(1).ids == ["3"]
    assert FMRegressor(num_factors=2, epochs=2).fit(X, [1.0, 2.0, 3.0]).model_.catalogue is None
    with pytest.raises(ConfigError, match="item: expected one of the columns .*found 'song'"):
        FMRegressor(item="song").fit(PAIRS, PAIRS["age"])


def test_what_comes_later_adds_to_what_is_known():
    y = (PAIRS.index % 2).to_numpy(float)
    first, second = PAIRS.index % 2 == 0, PAIRS.index % 2 == 1
    model = FMRegressor(num_factors=2, epochs=2, warm_start=True)
    partly = FMRegressor(num_factors=2)
    model.fit(PAIRS[first], y[first])
    partly.partial_fit(PAIRS[first], y[first])
    before = model.model_.catalogue.seen.nnz
    model.fit(PAIRS[second], y[second])
    partly.partial_fit(PAIRS[second], y[second])
    for one in (model, partly):
        assert one.model_.catalogue.seen.nnz > before
        assert not set(one.model_.recommend("u1").ids) & {"f0", "f1", "f3", "f4"}


def test_not_fitted():
    with pytest.raises(NotFittedError, match="FMRegressor"):
        FMRegressor().predict([[1.0]])


def test_no_warnings_and_no_output(ratings, capfd):
    frame, y, _ = ratings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FMRegressor(epochs=2).fit(frame, y).predict(frame)
    assert capfd.readouterr() == ("", "")


def test_constructing_does_not_load_the_compiler():
    code = "import sys, fm; fm.FMRegressor(); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
