"""The race of settings, and several starts that become one model."""

import dataclasses
import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeCV

from fm import Dataset, TrainConfig, fit
from fm.measures.predictions import classification_metrics
from fm.model.model import Model
from fm.training import fit as fitting
from fm.training.race import SETTINGS, is_raced, race
from fm.training.split import split_rows
from fm.training.starts import count_of, merged


def numbers(rng, rows, columns=6):
    """Rows where a linear model is right."""
    X = rng.normal(50, 20, (rows, columns))
    return X, X @ rng.normal(size=columns) + rng.normal(size=rows) * 20


def clicks(rng, rows=2500):
    """Ids with effects of their own, and of pairs."""
    ids = np.stack([rng.integers(0, 30, rows), 30 + rng.integers(0, 20, rows)], axis=1)
    one, pair = rng.normal(size=50), rng.normal(size=(50, 2))
    logit = one[ids].sum(axis=1) + 2 * (pair[ids[:, 0]] * pair[ids[:, 1]]).sum(axis=1)
    X = np.zeros((rows, 50), np.float32)
    X[np.arange(rows)[:, None], ids] = 1
    return X, (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)


@pytest.mark.parametrize("rows", [120, 3000])
def test_defaults_do_not_lose_to_a_linear_model_of_numbers(rng, rows):
    X, y = numbers(rng, rows + 2000)
    model = fit(Dataset.from_arrays(X[:rows], y[:rows]), progress=False)
    linear = RidgeCV(alphas=np.logspace(-2, 3, 6)).fit(X[:rows], y[:rows])
    errors = [np.sqrt(np.mean((m.predict(X[rows:]) - y[rows:]) ** 2)) for m in (model, linear)]
    assert errors[0] < 1.02 * errors[1]


def test_defaults_find_pairs_that_a_linear_model_cannot(rng):
    X, y = clicks(rng)
    train, test = slice(0, 2000), slice(2000, None)
    model = fit(Dataset.from_arrays(X[train], y[train]), progress=False)
    linear = LogisticRegression().fit(X[train], y[train])
    found = classification_metrics(model.scores(X[test]), y[test])["log_loss"]
    expected = classification_metrics(linear.decision_function(X[test]), y[test])["log_loss"]
    assert found < 0.97 * expected


def test_the_race_is_told_and_its_settings_are_kept(rng, caplog):
    X, y = clicks(rng)
    data = Dataset.from_arrays(X, y)
    with caplog.at_level(logging.INFO, "fm"):
        model = fit(data, progress=False)
    (told,) = [record.message for record in caplog.records if "race of" in record.message]
    config = model.config
    assert config.optimizer in told and f"factors_wd {config.factors_wd:.3g}" in told
    again = fit(data, config, progress=False)  # everything is set now: no race
    assert again.history == model.history
    assert fit(data, progress=False) == model  # the same by the same seed


def test_what_is_set_is_kept(rng):
    X, y = clicks(rng)
    data = Dataset.from_arrays(X, y)
    given = TrainConfig(
        predictor_type="binary_classifier", factors_wd=0.123, linear_lr=0.01, num_factors=5
    )
    found = race(given, data, split_rows(data, given.resolved(), hold_out=True), None).config
    assert (found.factors_wd, found.linear_lr, found.num_factors) == (0.123, 0.01, 5)
    named = dataclasses.replace(given, optimizer="adam")
    assert is_raced(given, data) and not is_raced(named, data)
    model = fit(data, dataclasses.replace(named, epochs=2), progress=False)
    assert model.config.optimizer == "adam" and len(model.history) <= 4


def test_settings_are_equal_only_where_the_user_has_left_nothing_open(rng):
    X, y = clicks(rng)
    data = Dataset.from_arrays(X, y)
    configs = [setting.over(TrainConfig(), data) for setting in SETTINGS]
    assert all(configs.count(config) == 1 for config in configs)


def test_an_interrupted_race_leaves_a_model(rng, monkeypatch, caplog, tmp_path):
    X, y = clicks(rng)
    calls = iter(range(100))

    class Interrupting(fitting.Loop):
        def run(self, run, epochs):
            if next(calls) == 2:
                raise KeyboardInterrupt
            super().run(run, epochs)

    monkeypatch.setattr("fm.training.race.Loop", Interrupting)
    file = tmp_path / "c"
    model = fit(Dataset.from_arrays(X, y), checkpoint=file, progress=False)
    assert not file.exists()  # it would go on with settings that were not raced to the end
    assert len([epoch for epoch in model.history if "refit" not in epoch]) == 1
    assert "interrupted in the race" in caplog.text


def test_rows_without_weight_race_with_nobody(rng):
    X, y = numbers(rng, 400)
    weight = np.zeros(400)
    weight[rng.permutation(400)[:60]] = 1
    few = Dataset.from_arrays(X, y, weight)
    rows = np.flatnonzero(weight)
    model = fit(few, progress=False)
    assert np.sqrt(np.mean((model.predict(X[rows]) - y[rows]) ** 2)) < y.std()
    assert not is_raced(TrainConfig(), Dataset.from_arrays(X, y, weight * (np.arange(400) < 200)))


# -- starts ----------------------------------------------------------------------------------------


def test_one_model_of_many_is_their_mean(rng):
    parts = [
        (float(rng.normal()), rng.normal(size=9).astype(np.float32),
         rng.normal(size=(9, 2)).astype(np.float32))
        for _ in range(3)
    ]  # fmt: skip
    wide = [(w0, w, np.pad(V, ((0, 0), (0, 4)))) for w0, w, V in parts]
    config = TrainConfig(predictor_type="regressor", num_factors=6)
    X = rng.random((20, 9)).astype(np.float32)
    expected = np.mean([Model(*part, config).scores(X) for part in wide], axis=0)
    np.testing.assert_allclose(Model(*merged(wide), config).scores(X), expected, atol=1e-5)


def test_of_more_factors_than_fit_the_strongest_stay(rng):
    """2 + 2 factors in 2: no other V of that width is nearer to V V' of both (Eckart, Young)."""
    parts = [(0.0, np.zeros(9, np.float32), rng.normal(size=(9, 2))) for _ in range(2)]
    V = merged(parts)[2].astype(np.float64)
    both = sum(part[2] @ part[2].T for part in parts) / 2
    values = np.linalg.eigvalsh(both)
    assert np.linalg.norm(V @ V.T - both) == pytest.approx(np.linalg.norm(values[:-2]), rel=1e-5)


def test_starts_are_better_than_one_and_have_its_factors(rng):
    X, y = clicks(rng, 6000)
    data, rest = Dataset.from_arrays(X[:1500], y[:1500]), slice(1500, None)
    config = TrainConfig(
        predictor_type="binary_classifier", optimizer="adagrad", num_factors=8, factors_wd=0.001
    )
    losses = []
    for starts, seeds in ((1, range(4)), (4, [0])):
        models = [
            fit(data, dataclasses.replace(config, num_starts=starts, seed=seed), progress=False)
            for seed in seeds
        ]
        assert all(model.V.shape == (50, 8) for model in models)
        measured = [classification_metrics(m.scores(X[rest]), y[rest]) for m in models]
        losses.append(np.mean([metrics["log_loss"] for metrics in measured]))
    assert losses[1] < losses[0]


def test_metrics_are_those_of_the_mean(rng):
    X, y = clicks(rng)
    data, validation = (
        Dataset.from_arrays(X[:2000], y[:2000]),
        Dataset.from_arrays(X[2000:], y[2000:]),
    )
    model = fit(data, validation=validation, progress=False)
    expected = classification_metrics(model.scores(validation), validation.y)
    assert model.metrics["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-5)


def test_how_many_starts(rng):
    X, y = clicks(rng)
    data = Dataset.from_arrays(X, y)
    config = TrainConfig()
    assert count_of(config, data, 20, raced=True) == 4
    assert count_of(config, data, 20, raced=False) == 1
    assert count_of(config, data, 20_000, raced=True) == 2
    assert count_of(config, data, 2_000_000, raced=True) == 1
    assert count_of(dataclasses.replace(config, num_starts=7), data, 2_000_000, raced=False) == 7


def test_going_on_from_a_checkpoint_after_a_race_is_the_uninterrupted_training(rng, tmp_path):
    X, y = clicks(rng)
    data, file = Dataset.from_arrays(X, y), tmp_path / "c"
    fit(data, TrainConfig(epochs=3), checkpoint=file, progress=False)
    again = fit(data, TrainConfig(epochs=3), checkpoint=file, resume=True, progress=False)
    assert again == fit(data, TrainConfig(epochs=3), progress=False)


def test_going_on_after_an_interruption_is_the_uninterrupted_training(rng, tmp_path):
    X, y = clicks(rng)
    data, file, config = Dataset.from_arrays(X, y), tmp_path / "c", TrainConfig(epochs=6)

    def stop(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    fit(data, config, callbacks=[stop], checkpoint=file, progress=False)
    again = fit(data, config, checkpoint=file, resume=True, progress=False)
    assert again == fit(data, config, progress=False)
