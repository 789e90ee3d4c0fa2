"""optimizer=sagemaker: against the naive twin, and against Amazon's published training logs."""

import gzip

import naive
import numpy as np
import pytest
import scipy.sparse as sp
from test_kernels import FEATURES, RTOL, assert_close, make_data, random_theta

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.kernels.layout import csr_arrays, layout, padded_order
from fm.kernels.minibatch import minibatch_kernel, workspace
from fm.kernels.optimizers.lazy_adam import LazyAdam
from fm.measures.losses import Logistic, Squared
from fm.measures.predictions import classification_metrics, regression_metrics
from fm.model.model import Model
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.training.fit import fit

f4 = np.float32
RATES = {"bias": 0.1, "linear": 0.02, "factors": 0.01}  # of the size of the built-in's


def settings(**more):
    wd = {"bias": 0.01, "linear": 0.1, "factors": 0.05}
    return naive.Settings(lr=RATES, wd=wd, **{"rescale": 1 / 8, **more})


class Compiled:
    """The kernel with its arrays, started from `theta`."""

    def __init__(self, data, task, theta, s, batch=8, pad=True):
        n, k = theta["factors"].shape
        lanes = layout(k)
        self.data, self.batch, self.pad, self.k = data, batch, pad, k
        self.csr = csr_arrays(data.X, data.onehot, 0)
        self.weight = np.zeros(1, f4) if data.weight is None else data.weight
        self.loss = Squared() if task == REGRESSOR else Logistic()
        given = {f"{part}_lr": s.lr[part] for part in naive.PARTS}
        given |= {f"{part}_wd": s.wd[part] for part in naive.PARTS}
        given |= {"eps": s.eps, "rescale": s.rescale, "clip": s.clip}
        self.opt = LazyAdam(*(f4(given[name]) for name in LazyAdam._fields))
        self.space = workspace(batch, min(batch * 20, data.X.nnz), n, lanes.padded)
        self.B = np.array([theta["bias"][0], 0, 0, 1, 1])
        self.W, self.P = np.zeros((n, 3), f4), np.zeros((n, 3, lanes.padded), f4)
        self.W[:, 0], self.P[:, 0, :k] = theta["linear"], theta["factors"]
        self.kernel = minibatch_kernel(
            lanes.width, lanes.chunks, self.csr.onehot, data.weight is not None, 2
        )

    def epoch(self, order, parts=1):
        """Train on the rows in this order, in `parts` calls; return their scores."""
        scores, order = np.empty(order.size, f4), padded_order(order)
        bounds = [*range(0, scores.size, -(-scores.size // parts)), scores.size]
        for a, b in zip(bounds[:-1], bounds[1:], strict=True):
            self.kernel(
                order, a, b, self.csr.indptr, self.csr.indices, self.csr.values, self.data.y,
                self.weight, self.loss, self.opt, self.batch, self.pad, self.space, scores,
                self.B, self.W.reshape(-1), self.P.reshape(-1),
            )  # fmt: skip
        return scores


def compare(data, task, k, rng, s=None, batch=8, pad=True, epochs=3):
    """Train both ways on the same orders; everything must agree, padding must stay 0."""
    s = s or settings()
    theta = random_theta(data.num_features, k, rng)
    orders = [rng.permutation(data.num_rows).astype(np.int32) for _ in range(epochs)]
    compiled = Compiled(data, task, theta, s, batch, pad)
    fast = [compiled.epoch(order) for order in orders]
    weight = np.ones(data.num_rows) if data.weight is None else data.weight.astype(float)
    slow = naive.minibatch_adam(
        task, naive.rows_of(data.X), data.y.astype(float), weight, theta, s, orders, batch, pad
    )
    for scores, expected in zip(fast, slow, strict=True):
        assert_close(scores, expected, "scores", RTOL["adam"])
    assert_close(compiled.B[0], theta["bias"][0], "w0", RTOL["adam"])
    assert_close(compiled.W[:, 0], theta["linear"], "w", RTOL["adam"])
    assert_close(compiled.P[:, 0, :k], theta["factors"], "V", RTOL["adam"])
    assert not compiled.P[:, :, k:].any(), "padded lanes left 0"
    assert (compiled.space.slot == -1).all()
    return compiled


@pytest.mark.parametrize(
    ("kind", "task", "weighted", "k", "pad"),
    [
        ("onehot", REGRESSOR, False, 4, True),
        ("onehot", CLASSIFIER, False, 3, True),
        ("onehot ragged", REGRESSOR, True, 20, False),
        ("valued", CLASSIFIER, True, 7, True),
        ("valued ragged", REGRESSOR, False, 1, False),
        ("valued ragged", REGRESSOR, False, 64, True),
        ("valued ragged", CLASSIFIER, False, 200, True),
    ],
)
def test_training_equals_the_naive_twin(kind, task, weighted, k, pad, rng):
    data = make_data(kind, task, rng, rows=45, weighted=weighted)
    assert data.num_rows % 8  # the last batch is short
    compare(data, task, k, rng, pad=pad)


@pytest.mark.parametrize("batch", [1, 45, 1000])
def test_any_batch_size(batch, rng):
    compare(make_data("valued ragged", REGRESSOR, rng, rows=45), REGRESSOR, 4, rng, batch=batch)


def test_clipping_comes_after_weight_decay(rng):
    data = make_data("valued ragged", REGRESSOR, rng)
    compare(data, REGRESSOR, 4, rng, settings(clip=0.05, eps=1e-3, rescale=0.5))


@pytest.mark.parametrize("eps", [None, 0.0])
def test_parameters_without_a_gradient_stay_finite(eps, rng):
    """0 / (sqrt(0) + eps): V = 0 has no gradient, and the padded lanes never have one."""
    data = make_data("valued ragged", REGRESSOR, rng)
    config = TrainConfig(
        optimizer="sagemaker", num_factors=3, epochs=3, factors_init_sigma=0, eps=eps
    )
    model = fit(data, config)
    assert not model.V.any() and model.w.any()


def test_features_outside_the_batch_do_not_even_decay(rng):
    data = make_data("onehot", REGRESSOR, rng)
    theta = random_theta(FEATURES, 4, rng)
    rows = np.flatnonzero((data.X[:, [2]].toarray() == 0).ravel()).astype(np.int32)
    compiled = Compiled(data, REGRESSOR, theta, settings())
    compiled.epoch(rows)
    assert np.array_equal(compiled.P[2, 0], theta["factors"][2].astype(f4))
    assert compiled.W[2].tolist() == [f4(theta["linear"][2]), 0, 0]
    assert compiled.W[3, 0] != f4(theta["linear"][3])


def test_rows_that_fill_up_the_last_batch_pull_at_w0_alone(rng):
    data = make_data("onehot", REGRESSOR, rng, rows=9)
    theta = random_theta(FEATURES, 4, rng)
    theta["bias"][0] = 3.0
    ends = []
    for pad in (False, True):
        compiled = Compiled(data, REGRESSOR, theta, settings(), pad=pad)
        compiled.epoch(np.arange(9, dtype=np.int32))
        ends.append(compiled)
    plain, padded = ends
    assert np.array_equal(plain.W, padded.W) and np.array_equal(plain.P, padded.P)
    assert padded.B[0] < plain.B[0]  # towards 0, the label of an empty row


def test_the_calls_an_epoch_is_cut_into_change_nothing(rng):
    data = make_data("valued ragged", REGRESSOR, rng, rows=48)
    theta, ends = random_theta(FEATURES, 4, rng), []
    for parts in (1, 3):
        compiled = Compiled(data, REGRESSOR, theta, settings())
        scores = compiled.epoch(np.arange(48, dtype=np.int32), parts)
        ends.append((scores, compiled.B, compiled.W, compiled.P))
    for one, other in zip(*ends, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("more", [{}, {"clip_gradient": 0.002, "eps": 1e-4, "lr_decay": 0.3}])
def test_fit_equals_the_naive_twin_in_file_order(more, rng):
    data = make_data("onehot", REGRESSOR, rng, rows=45)
    theta = random_theta(FEATURES, 3, rng)
    config = TrainConfig(
        optimizer="sagemaker", num_factors=3, epochs=3, mini_batch_size=8, linear_lr=0.02, **more
    )
    init = Model(theta["bias"][0], theta["linear"], theta["factors"], config)
    seen = []
    fitted = fit(data, config, init=init, callbacks=[lambda e: seen.append(e.scores.copy())])

    full, clip = config.resolved(), more.get("clip_gradient", np.inf)
    s = naive.Settings(
        {part: getattr(full, f"{part}_lr") for part in naive.PARTS},
        {part: getattr(full, f"{part}_wd") for part in naive.PARTS},
        eps=full.eps, clip=clip, rescale=1 / 8,
    )  # fmt: skip
    rows, y, order = naive.rows_of(data.X), data.y.astype(float), np.arange(45)
    if "lr_decay" not in more:
        slow = naive.minibatch_adam(REGRESSOR, rows, y, np.ones(45), theta, s, [order] * 3, 8, True)
        for scores, expected in zip(seen, slow, strict=True):
            assert_close(scores, expected, "scores", RTOL["adam"])
        assert_close(fitted.V, theta["factors"], "V", RTOL["adam"])
        assert_close(fitted.w, theta["linear"], "w", RTOL["adam"])
    else:
        naive.minibatch_adam(REGRESSOR, rows, y, np.ones(45), theta, s, [order], 8, True)
        expected = [naive.score(row, theta) for row in rows]
        assert_close(seen[1][:8], np.array(expected)[:8], "first scores of epoch 1", RTOL["adam"])


# --- Amazon's published runs ----------------------------------------------------------------------
def ratings(path):
    """One-hot rows (user - 1, 943 + film - 1) and the ratings, in file order."""
    table = np.loadtxt(gzip.open(path, "rt"), dtype=np.int64)
    indices = np.stack([table[:, 0] - 1, 943 + table[:, 1] - 1], axis=1).ravel()
    indptr = np.arange(0, indices.size + 1, 2)
    X = sp.csr_matrix((np.ones(indices.size, f4), indices, indptr), shape=(len(table), 2625))
    return X, table[:, 2].astype(f4)


@pytest.mark.slow
def test_the_published_run_on_movielens_ua(shared_data):
    """A binary classifier on ratings of 4 and 5: log of a run of 2019 (100 epochs)."""
    X, y = ratings(shared_data / "ml-100k" / "ua.base.gz")
    X_test, y_test = ratings(shared_data / "ml-100k" / "ua.test.gz")
    found = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(y))
        data = Dataset.from_arrays(X[order], y[order] >= 4)
        config = TrainConfig(
            optimizer="sagemaker", predictor_type=CLASSIFIER, num_factors=64, epochs=100,
            mini_batch_size=1000, seed=seed,
        )  # fmt: skip
        first = []
        model = fit(data, config, callbacks=[lambda epoch, to=first: to.append(epoch.loss)])
        assert first[1] == pytest.approx(0.673967, abs=0.001)
        found.append(classification_metrics(model.scores(X_test), y_test >= 4))
    mean = {name: np.mean([metrics[name] for metrics in found]) for name in found[0]}
    assert mean["accuracy"] == pytest.approx(0.6931, abs=0.006)
    assert mean["log_loss"] == pytest.approx(0.5785, abs=0.003)


def test_the_published_run_on_movielens_u1(shared_data):
    """A regressor on u1.base in file order: log of a run of 2023 (50 epochs)."""
    X, y = ratings(shared_data / "ml-100k" / "u1.base.gz")
    X_test, y_test = ratings(shared_data / "ml-100k" / "u1.test.gz")
    config = TrainConfig(
        optimizer="sagemaker", num_factors=64, epochs=50, mini_batch_size=1000,
        bias_init_method="constant", bias_init_value=0.00658,  # from the log's first batch
    )  # fmt: skip
    train = []

    def note(epoch):
        train.append(regression_metrics(epoch.scores, y[epoch.rows])["rmse"])

    model = fit(Dataset.from_arrays(X, y), config, callbacks=[note])
    assert train[:4] == pytest.approx([1.81695, 1.11127, 1.10399, 1.09612], abs=0.003)
    assert 0.998 <= regression_metrics(model.scores(X_test), y_test)["rmse"] <= 1.004
    assert model.w0 == pytest.approx(3.4399, abs=0.01)
    assert model.w.std() == pytest.approx(0.2264, abs=0.002)
    assert model.V.std() == pytest.approx(0.0659, abs=0.002)
