"""Scaling inside training: no unit matters, and the model is in the unit of the data."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import fm
from fm import Dataset, TrainConfig, fit
from fm.model.model import Model
from fm.training.fit import fit_pass
from fm.training.scaling import View

SGD = TrainConfig(optimizer="sgd", predictor_type="regressor", num_factors=3, epochs=5)


def naive_scores(X, w0, w, V):
    """Rendle 2010, equation 1, pair by pair."""
    n = X.shape[1]
    pairs = sum(X[:, i] * X[:, j] * (V[i] @ V[j]) for i in range(n) for j in range(i + 1, n))
    return w0 + X @ w + pairs


def table(rng, rows=300):
    """Flags of size .2, sparse numbers, and dense numbers far from 0."""
    flags = (rng.random((rows, 3)) < 0.3) * 0.2
    sparse = (rng.random((rows, 2)) < 0.2) * rng.gamma(2, 50, (rows, 2))
    dense = rng.normal([200, 1e5], [5, 3e4], (rows, 2))
    X = np.hstack([flags, sparse, dense, np.zeros((rows, 1))])
    y = X[:, 0] * 5 + sparse[:, 0] / 50 + (dense[:, 0] - 200) / 5 * (dense[:, 1] - 1e5) / 3e4
    return X, y


def test_what_training_sees(rng):
    X, y = table(rng)
    seen = View.of(Dataset.from_arrays(X, y), SGD).rows.X.toarray()
    assert set(np.unique(seen[:, :3])) == {0, 1}  # flags become 1
    for column in (3, 4):  # sparse numbers: the root mean square of the stored values is 1
        stored = seen[seen[:, column] != 0, column]
        assert np.sqrt(np.mean(stored**2)) == pytest.approx(1, rel=1e-5)
        assert stored.size == np.count_nonzero(X[:, column])
    np.testing.assert_allclose(seen[:, 5:7].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen[:, 5:7].std(axis=0), 1, rtol=1e-4)
    assert not seen[:, 7].any()


def test_rows_of_ones_are_left_alone(rng):
    data = Dataset.from_arrays(np.eye(5)[rng.integers(0, 5, 50)], rng.normal(size=50))
    assert View.of(data, SGD).rows is data
    other = Dataset.from_arrays(rng.normal(size=(50, 3)), rng.normal(size=50))
    for config in (
        dataclasses.replace(SGD, scale_features=False),
        TrainConfig(optimizer="sagemaker", predictor_type="regressor"),
    ):
        assert View.of(other, config).rows is other


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_model_of_what_training_sees_is_one_of_the_features_as_they_are(seed):
    rng = np.random.default_rng(seed)
    X, y = table(rng, 40)
    view = View.of(Dataset.from_arrays(X, y), SGD)
    inner = 0.3, rng.normal(size=8), rng.normal(size=(8, 3))
    expected = naive_scores(view.rows.X.toarray().astype(np.float64), *inner)
    w0, w, V = view.plain(inner)
    found = naive_scores(X, w0, w.astype(np.float64), V.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.05)
    model = Model(w0, w, V, SGD)
    back = view.start(model)
    np.testing.assert_allclose(back.V, inner[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(back.w, inner[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam", "ftrl", None])
@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_no_unit_matters(rng, optimizer, factor):
    X, y = table(rng)
    config = dataclasses.replace(SGD, optimizer=optimizer)
    one = fit(Dataset.from_arrays(X, y), config)
    other = fit(Dataset.from_arrays(X * factor, y), config)
    spread = one.predict(X).std()
    assert np.abs(one.predict(X) - other.predict(X * factor)).max() < 0.01 * spread


def test_no_unit_of_a_column_matters_in_a_frame(rng):
    rows = 400
    frame = {"town": rng.integers(0, 5, rows).astype(str), "income": rng.gamma(2, 1e5, rows)}
    y = frame["income"] / 1e5 + rng.normal(size=rows) / 10
    models = []
    for factor in (1.0, 1e-4):
        table = {**frame, "income": frame["income"] * factor, "y": y}
        models.append(fit(fm.read(table, target="y"), SGD).predict(table))
    np.testing.assert_allclose(models[0], models[1], atol=0.01 * models[0].std())


def test_sparse_rows_stay_sparse(rng):
    X = sp.random(2000, 500, 0.01, "csr", rng=rng) * 1e4
    seen = View.of(Dataset.from_arrays(X, rng.normal(size=2000)), SGD).rows.X
    assert seen.nnz == X.nnz


def test_going_on_from_a_model_starts_where_it_ended(rng):
    X, y = table(rng)
    data = Dataset.from_arrays(X, y)
    model = fit(data, SGD)
    still = dataclasses.replace(SGD, epochs=1, bias_lr=0.0, linear_lr=0.0, factors_lr=0.0)
    again = fit(data, still, init=model)
    np.testing.assert_allclose(again.predict(data), model.predict(data), rtol=1e-3, atol=1e-2)


def test_pieces_are_seen_alike(rng):
    X, y = table(rng, 600)
    state = None
    for start in range(0, 600, 200):
        piece = Dataset.from_arrays(X[start : start + 200], y[start : start + 200])
        model, state = fit_pass(piece, dataclasses.replace(SGD, epochs=1), state)
    error = np.sqrt(np.mean((model.predict(X) - y) ** 2))
    assert error < y.std()
