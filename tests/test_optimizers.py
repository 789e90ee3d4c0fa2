"""What each optimizer promises when it is used through fm.fit, and what defines it."""

import dataclasses

import naive
import numpy as np
import pytest
import scipy.sparse as sp
from test_kernels import RTOL, assert_close, random_theta

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import DivergenceError
from fm.kernels import layout, minibatch, rows, scoring
from fm.model.model import Model
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.training.fit import fit
from fm.training.parameters import Parameters

f4 = np.float32
ROW_BY_ROW = ("sgd", "adagrad", "adam", "ftrl")
ALL = (*ROW_BY_ROW, "sagemaker")
TASKS = (REGRESSOR, CLASSIFIER)
USERS, ITEMS = 20, 15


def planted(task=REGRESSOR, rows=400, noise=0.1, weighted=False, seed=1):
    """One-hot (user, item) rows whose target is a factorization machine of rank 2 plus noise."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99)
    user, item = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    P, Q = truth.normal(0, 0.8, (USERS, 2)), truth.normal(0, 0.8, (ITEMS, 2))
    bias = truth.normal(0, 0.5, USERS)
    y = 0.5 + bias[user] + (P[user] * Q[item]).sum(1) + rng.normal(0, noise, rows)
    indices = np.stack([user, USERS + item], axis=1).ravel()
    X = sp.csr_matrix((np.ones(2 * rows, f4), indices, np.arange(0, 2 * rows + 1, 2)))
    X.resize(rows, USERS + ITEMS)
    weight = rng.uniform(0.5, 2, rows) if weighted else None
    return Dataset.from_arrays(X, y > 0.5 if task == CLASSIFIER else y, weight)


def config_of(optimizer, task=REGRESSOR, **more):
    """Rates under which every optimizer learns the planted data in 20 epochs."""
    rate = {"sgd": 0.05, "adagrad": 0.2, "adam": 0.01, "ftrl": 0.2, "sagemaker": 0.02}[optimizer]
    given = {f"{part}_lr": rate for part in naive.PARTS} | {f"{p}_wd": 1e-4 for p in naive.PARTS}
    given |= {"factors_init_sigma": 0.1, "mini_batch_size": 20, "num_factors": 4, "lr_decay": 0}
    given["epochs"] = 20
    return TrainConfig(optimizer=optimizer, predictor_type=task, **{**given, **more})


def same(a, b):
    return a.w0 == b.w0 and np.array_equal(a.w, b.w) and np.array_equal(a.V, b.V)


# --- the contract of every optimizer --------------------------------------------------------------
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimizer", ALL)
def test_the_loss_falls_on_planted_data(optimizer, task):
    data = planted(task)
    model = fit(data, config_of(optimizer, task))
    losses = [entry["loss"] for entry in model.history]
    assert len(losses) == 20 and [entry["epoch"] for entry in model.history] == list(range(1, 21))
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("optimizer", ALL)
def test_a_warm_start_goes_on_from_where_the_model_was(optimizer):
    data, config = planted(), config_of(optimizer, epochs=2)
    first = fit(data, config)
    again = fit(data, config, init=first)
    assert again.history[0]["loss"] < 0.7 * first.history[0]["loss"]
    assert again.history[-1]["loss"] < first.history[-1]["loss"]


@pytest.mark.parametrize("optimizer", ALL)
def test_a_second_fit_compiles_nothing(optimizer):
    config = config_of(optimizer, epochs=2)
    data = planted()
    fit(data, config, validation=planted(rows=50, seed=2))
    made = [
        rows.training_kernel(4, 1, 2, True, False, Parameters(config, 1).states, False),
        minibatch.minibatch_kernel(4, 1, True, False, 2),
        scoring._scoring_kernel(4, 1, 2, True),
        layout.shuffle,
    ]
    caches = (rows.training_kernel, minibatch.minibatch_kernel, scoring._scoring_kernel)
    before = [len(kernel.signatures) for kernel in made], [c.cache_info().misses for c in caches]
    fit(planted(rows=123, seed=3), dataclasses.replace(config, num_factors=3, seed=7))
    frozen = planted(seed=4)
    for array in (frozen.X.data, frozen.X.indices, frozen.X.indptr, frozen.y):
        array.flags.writeable = False  # as from a memory map or another process
    fit(frozen, config, validation=frozen)
    if optimizer != "sagemaker":  # which reads the row pointers even where rows are equally long
        wide = planted(seed=5)
        wide.X.indptr = wide.X.indptr.astype(np.int64)
        fit(wide, config, validation=wide)
    after = [len(kernel.signatures) for kernel in made], [c.cache_info().misses for c in caches]
    assert after == before


@pytest.mark.parametrize("optimizer", ALL)
def test_the_state_has_the_promised_shape(optimizer):
    state = Parameters(config_of(optimizer, num_factors=20), 7)
    state.initialise(np.random.default_rng(0), 0.25)
    states = {"sgd": 0, "adagrad": 1}.get(optimizer, 2)
    assert state.W.shape == (7 * (1 + states),)
    assert state.P.shape == (7 * (1 + states) * 32,)
    assert state.V.shape == (7, 20) and state.w.shape == (7,)
    assert state.V.any() and not state.P.reshape(7, 1 + states, 32)[:, :, 20:].any()


@pytest.mark.parametrize("factor", [1e3, 1e9])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimizer", ALL)
def test_far_too_large_steps_never_give_a_model_of_nan(optimizer, task, factor):
    """Model refuses parameters that are not finite, so a model or an error is all there may be."""
    rates = {f"{part}_lr": 0.05 * factor for part in naive.PARTS}
    try:
        model = fit(planted(task), config_of(optimizer, task, **rates))
    except DivergenceError as err:
        assert optimizer != "sgd"
        assert "divide the learning rates by 10" in str(err)
    else:
        assert np.isfinite(model.scores(planted(task).X)).all()


@pytest.mark.parametrize("lr", [10.0, 30.0])
def test_sgd_with_a_rate_a_thousand_times_too_high_stays_finite_on_real_ratings(lr, shared_data):
    from test_minibatch import ratings

    X, y = ratings(shared_data / "ml-100k" / "u1.base.gz")
    rates = {f"{part}_lr": lr for part in naive.PARTS}
    for task, target in ((REGRESSOR, y), (CLASSIFIER, y >= 4)):
        config = TrainConfig(predictor_type=task, num_factors=64, epochs=3, patience=0, **rates)
        model = fit(Dataset.from_arrays(X, target), config)
        assert np.abs(model.scores(X[:1000])).max() < 1e3


@pytest.mark.parametrize("factor", [1e6, 1e20])
@pytest.mark.parametrize("optimizer", ALL)
def test_an_unscaled_column_gives_a_finite_model_or_an_error_that_names_it(optimizer, factor, rng):
    values = rng.normal(size=(60, 3))
    values[:, 1] *= factor
    data = Dataset.from_arrays(
        values, rng.normal(size=60), feature_names=["age", "income", "height"], source="people.csv"
    )
    given = {f"{part}_lr": 0.05 for part in naive.PARTS}
    try:
        model = fit(data, TrainConfig(optimizer=optimizer, num_factors=4, epochs=5, **given))
    except DivergenceError as err:
        assert "people.csv" in str(err) and "income is not scaled" in str(err)
        assert "standardise" in str(err)
    else:
        assert np.isfinite(model.V).all() and np.isfinite(model.w).all()


# --- equal to the twin through all of fit ---------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", ROW_BY_ROW)
def test_fit_equals_the_naive_twin_on_the_orders_it_reports(optimizer, weighted, rng):
    data = planted(rows=60, weighted=weighted)
    rates, decays = {"bias": 0.02, "linear": 0.1, "factors": 0.05}, dict.fromkeys(naive.PARTS, 0.03)
    l1 = {"bias": 0.0, "linear": 0.1, "factors": 0.05} if optimizer == "ftrl" else {}
    config = TrainConfig(
        optimizer=optimizer, num_factors=3, epochs=3, scale_target=False, lr_decay=0.5,
        clip_gradient=0.8, rescale_grad=1.25, eps=1e-6,
        **{f"{part}_lr": rate for part, rate in rates.items()},
        **{f"{part}_wd": rate for part, rate in decays.items()},
        **{f"{part}_l1": rate for part, rate in l1.items() if part != "bias"},
    )  # fmt: skip
    theta = random_theta(data.num_features, 3, rng)
    init = Model(theta["bias"][0], theta["linear"], theta["factors"], config)
    orders, seen = [], []

    def note(epoch):
        orders.append(epoch.rows.copy())
        seen.append((epoch.scores.copy(), epoch.loss))

    model = fit(data, config, init=init, callbacks=[note])
    assert not np.array_equal(orders[0], orders[1])
    s = naive.Settings(
        rates, decays, {**dict.fromkeys(naive.PARTS, 0.0), **l1},
        eps=1e-6, clip=0.8, rescale=1.25, lr_decay=0.5,
    )  # fmt: skip
    weight = np.ones(60) if data.weight is None else data.weight.astype(float)
    rows, y = naive.rows_of(data.X), data.y.astype(float)
    slow = naive.train(optimizer, REGRESSOR, rows, y, weight, theta, s, orders)
    for (scores, loss), (expected, total) in zip(seen, slow, strict=True):
        assert_close(scores, expected, "scores", RTOL[optimizer])
        assert loss == pytest.approx(total / weight.sum(), rel=RTOL[optimizer])
    assert_close(model.w0, theta["bias"][0], "w0", RTOL[optimizer])
    assert_close(model.w, theta["linear"], "w", RTOL[optimizer])
    assert_close(model.V, theta["factors"], "V", RTOL[optimizer])


def test_one_hot_pairs_are_matrix_factorization(rng):
    data = planted(rows=200)
    config = config_of("sgd", epochs=4, scale_target=False, num_factors=3)
    config = dataclasses.replace(config, **{f"{part}_wd": 0.0 for part in naive.PARTS})
    theta = random_theta(data.num_features, 3, rng)
    init = Model(theta["bias"][0], theta["linear"], theta["factors"], config)
    orders = []
    model = fit(data, config, init=init, callbacks=[lambda e: orders.append(e.rows.copy())])
    user, item = data.X.indices[::2], data.X.indices[1::2] - USERS
    bias, (bu, bi) = theta["bias"], np.split(theta["linear"], [USERS])
    P, Q = np.split(theta["factors"], [USERS])
    naive.factorise(user, item, data.y.astype(float), bias, bu, bi, P, Q, 0.05, orders)
    predicted = bias[0] + bu[user] + bi[item] + (P[user] * Q[item]).sum(1)
    assert_close(model.predict(data), predicted, "predictions", 2e-5)
    assert_close(model.V, np.vstack([P, Q]), "factors", 2e-5)


# --- weights --------------------------------------------------------------------------------------
def weighted_as(data, weight):
    return dataclasses.replace(data, weight=np.full(data.num_rows, weight, f4))


@pytest.mark.parametrize("optimizer", ROW_BY_ROW)
def test_weight_two_doubles_the_loss(optimizer):
    """The same as rates doubled for SGD's normalised step, as the gradient doubled elsewhere."""
    data, config = planted(), config_of(optimizer, epochs=3, scale_target=False)
    if optimizer == "sgd":
        twice = {f"{part}_lr": 0.1 for part in naive.PARTS}
    elif optimizer == "ftrl":  # whose penalty is not a part of the gradient
        twice = {"rescale_grad": 2.0}
    else:
        twice = {"rescale_grad": 2.0, **{f"{part}_wd": 2e-4 for part in naive.PARTS}}
    heavy = fit(weighted_as(data, 2), config)
    light = fit(data, dataclasses.replace(config, **twice))
    np.testing.assert_allclose(heavy.V, light.V, rtol=0, atol=2e-6)
    np.testing.assert_allclose(heavy.w, light.w, rtol=0, atol=2e-6)
    assert heavy.history[-1]["loss"] == pytest.approx(light.history[-1]["loss"], rel=1e-5)


@pytest.mark.parametrize("optimizer", ALL)
def test_weight_one_is_no_weight(optimizer):
    data, config = planted(), config_of(optimizer, epochs=3)
    plain, ones = fit(data, config), fit(weighted_as(data, 1), config)
    np.testing.assert_allclose(ones.V, plain.V, rtol=0, atol=1e-6)
    assert ones.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_rows_of_weight_zero_change_nothing(optimizer):
    data = planted(rows=300)
    weight = np.ones(300, f4)
    weight[200:] = 0
    half = dataclasses.replace(data, weight=weight)
    config = config_of(optimizer, epochs=3, shuffle=False)
    assert same(fit(half, config), fit(weighted_as(data.take(np.arange(200)), 1), config))


# --- what defines each of them --------------------------------------------------------------------
def walk(optimizer, steps, lr=0.1):
    """w after 1, 2, ... steps along a gradient that is always 1, with nothing else to learn."""
    data = Dataset.from_arrays(np.ones((1, 1)), [-1e3])
    config = TrainConfig(
        optimizer=optimizer, num_factors=1, use_bias=False, scale_target=False, clip_gradient=1,
        linear_lr=lr, linear_wd=0, linear_init_sigma=0, factors_init_sigma=0, rescale_grad=1,
        lr_decay=0,
    )  # fmt: skip
    return [
        float(fit(data, dataclasses.replace(config, epochs=t)).w[0]) for t in range(1, steps + 1)
    ]


def test_sgd_divides_its_step_by_one_plus_the_reach():
    assert walk("sgd", 3) == pytest.approx([-0.1 / 1.1 * t for t in (1, 2, 3)])
    assert walk("sgd", 3, lr=1e6) == pytest.approx([-1.0, -2.0, -3.0], rel=1e-5)


def test_adagrad_steps_fall_as_one_over_the_root_of_their_number():
    expected = np.cumsum([-0.1 / np.sqrt(t) for t in range(1, 9)])
    assert walk("adagrad", 8) == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sagemaker"])
def test_adam_is_corrected_for_its_empty_start(optimizer):
    """Under a constant gradient every step is lr, from the first one on."""
    expected = [-0.1 * t for t in range(1, 9)]
    assert walk(optimizer, 8) == pytest.approx(expected, rel=2e-5)


def test_ftrl_walks_as_its_closed_form_says():
    """z = t - sum of sigma_s w_s; w = -z lr / (1 + sqrt(t)), without penalties."""
    z, w, expected = 0.0, 0.0, []
    for t in range(1, 9):
        z += 1 - (np.sqrt(t) - np.sqrt(t - 1)) / 0.1 * w
        w = -z * 0.1 / (1 + np.sqrt(t))
        expected.append(w)
    assert walk("ftrl", 8) == pytest.approx(expected, rel=1e-5)


def test_ftrl_gives_exact_zeros_under_l1():
    data, zeros = planted(rows=1000), []
    for l1 in (0.0, 30.0, 300.0, 1e4):
        model = fit(data, config_of("ftrl", linear_l1=l1, factors_l1=l1, validation_fraction=0))
        zeros.append((np.count_nonzero(model.w == 0), np.count_nonzero(model.V == 0)))
    assert zeros[0] == (0, 0)
    assert 0 < zeros[1][0] < zeros[2][0] < zeros[3][0] == model.w.size
    assert 0 < zeros[1][1] <= zeros[2][1]


def test_an_l1_that_no_gradient_outweighs_leaves_nothing_but_the_mean():
    """Random initial values are no reason to pay less: sums of gradients are below 1e3 here."""
    data = planted(rows=1000)
    model = fit(data, config_of("ftrl", linear_l1=1e4, factors_l1=1e4, validation_fraction=0))
    assert not model.w.any() and not model.V.any()
    assert model.predict(data) == pytest.approx(np.full(1000, data.y.mean()), abs=0.05)


@pytest.mark.parametrize("optimizer", ALL)
def test_more_weight_decay_gives_smaller_factors(optimizer):
    data, norms = planted(), []
    for wd in (0.0, 0.3, 3.0):
        decay = wd * 30 if optimizer == "ftrl" else wd  # one penalty for all rows, not for each
        model = fit(data, config_of(optimizer, factors_wd=decay))
        norms.append(np.linalg.norm(model.V))
    assert norms[0] > norms[1] > norms[2]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimizer", ALL)
def test_parts_that_are_switched_off_stay_zero(optimizer, task):
    data = planted(task)
    model = fit(data, config_of(optimizer, task, epochs=2, use_bias=False))
    assert model.w0 == 0 and model.w.any() and model.V.any()
    model = fit(data, config_of(optimizer, task, epochs=2, use_linear=False))
    assert not model.w.any() and model.w0 and model.V.any()


# --- settings shared by all -----------------------------------------------------------------------
def still(**more):
    """A config that trains nothing, so that the model shows the initial values."""
    rates = dict.fromkeys(("bias_lr", "linear_lr", "factors_lr"), 0.0)
    return TrainConfig(
        optimizer="sgd", num_factors=8, epochs=1, scale_target=False, validation_fraction=0,
        **rates, **more,
    )  # fmt: skip


def test_initial_values():
    data = Dataset.from_arrays(np.eye(1000), np.arange(1000.0))
    model = fit(data, still())
    assert model.w0 == pytest.approx(499.5) and not model.w.any()
    assert model.V.std() == pytest.approx(still().resolved().factors_init_sigma, rel=0.03)
    assert abs(model.V.mean()) < 1e-3

    start = {"factors_init_method": "uniform", "factors_init_scale": 0.3, "linear_init_sigma": 0.2}
    model = fit(data, still(bias_init_method="constant", bias_init_value=1.25, **start))
    assert model.w0 == 1.25
    assert model.w.std() == pytest.approx(0.2, rel=0.1)
    assert 0.299 < model.V.max() <= 0.3 and -0.3 <= model.V.min() < -0.299
    assert model.V.std() == pytest.approx(0.3 / np.sqrt(3), rel=0.03)

    start = {f"{part}_init_method": "constant" for part in ("linear", "factors")}
    model = fit(data, still(linear_init_value=2, factors_init_value=-0.5, **start))
    assert (model.V == -0.5).all() and (model.w == 2).all()


def test_the_bias_of_a_classifier_starts_at_the_log_odds_and_weights_count():
    data = planted(CLASSIFIER, weighted=True)
    rate = np.average(data.y, weights=data.weight)
    model = fit(data, dataclasses.replace(still(), predictor_type=CLASSIFIER))
    assert model.w0 == pytest.approx(np.log(rate / (1 - rate)), rel=1e-5)


def test_a_given_start_of_the_bias_is_in_the_unit_of_the_target():
    start = {"bias_init_method": "constant", "bias_init_value": 1.25}
    model = fit(planted(), dataclasses.replace(still(**start), scale_target=True))
    assert model.w0 == pytest.approx(1.25)
