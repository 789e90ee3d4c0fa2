"""The training loop: early stopping, randomness, interruption, resuming, and odd data."""

import dataclasses
import logging

import numpy as np
import pytest
from test_optimizers import ALL, ITEMS, ROW_BY_ROW, TASKS, USERS, config_of, planted, same

import fm.training.parameters
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError, FMError, ModelFileError
from fm.measures.predictions import classification_metrics, regression_metrics
from fm.reading.read import read
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.tasks import TASKS as RECORDS
from fm.training.fit import fit, fit_pass
from fm.training.progress import Progress
from fm.training.solvers.gradient import GradientSolver


def noisy(task=REGRESSOR, rows=150, **more):
    """Data on which training soon learns the noise: the best epoch is among the first."""
    return planted(task, rows=rows, noise=0.7, **more)


def overfitting(optimizer, task=REGRESSOR, **more):
    """A config whose best epoch on noisy() lies between the first and the last."""
    lr = {"sgd": 0.03, "adagrad": 0.06, "adam": 0.003, "ftrl": 0.1, "sagemaker": 0.015}[optimizer]
    given = {"epochs": 40, "patience": 4, "bias_lr": lr, "linear_lr": lr, "factors_lr": lr}
    given["factors_init_sigma"] = 0.3
    return config_of(optimizer, task, **{**given, **more})


def recorded(data, config, **more):
    """Fit; return the model and what the callbacks saw, with the arrays copied."""
    seen = []

    def note(epoch):
        seen.append(dataclasses.replace(epoch, scores=epoch.scores.copy(), rows=epoch.rows.copy()))

    return fit(data, config, callbacks=[note], **more), seen


# --- what is learnt ------------------------------------------------------------------------------
def test_targets_decide_the_task_unless_it_is_named(caplog):
    caplog.set_level(logging.INFO, "fm")
    users = {"user": ["ann", "bob", "cy", "ann"]}
    clicks, stars = read({**users, "click": [1, 0, 0, 1]}), read({**users, "rating": [1, 0, 2, 1]})
    few = {"num_factors": 2, "epochs": 2}
    assert fit(clicks, TrainConfig(**few)).config.predictor_type == CLASSIFIER
    assert "all targets are 0 or 1: predictor_type is binary_classifier" in caplog.text
    numbers = fit(clicks, TrainConfig(REGRESSOR, **few))
    assert numbers.config.predictor_type == REGRESSOR
    assert fit(stars, TrainConfig(**few)).config.predictor_type == REGRESSOR
    ones = dataclasses.replace(clicks, y=np.ones(4, np.float32), _cache={})
    assert fit(ones, TrainConfig(**few)).config.predictor_type == REGRESSOR
    assert fit(clicks, TrainConfig(**few), init=numbers).config.predictor_type == REGRESSOR
    model, state = fit_pass(clicks, TrainConfig(**few))
    assert model.config.predictor_type == CLASSIFIER
    with pytest.raises(DataError, match="label 2, but a binary classifier expects 0 or 1; .*use"):
        fit_pass(stars, None, state)
    # with a metric, the metric
    with pytest.raises(DataError, match="label 2, but a binary classifier expects 0 or 1"):
        fit(stars, TrainConfig(metric="auc", **few))
    caplog.clear()
    twos = dataclasses.replace(clicks, y=2 * clicks.y, _cache={})
    assert fit(twos, TrainConfig(**few)).config.predictor_type == REGRESSOR
    assert "the targets are only 0 and 2" in caplog.text


# --- early stopping -------------------------------------------------------------------------------
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimizer", ALL)
def test_early_stopping_keeps_the_best_epoch(optimizer, task):
    data, held_out = noisy(task), noisy(task, seed=2)
    config = overfitting(optimizer, task)
    model, seen = recorded(data, config, validation=held_out)
    watched = "rmse" if task == REGRESSOR else "log_loss"
    values = [epoch.validation[watched] for epoch in seen]
    best = int(np.argmin(values))
    assert 1 < best < 35 and len(seen) == best + 1 + 4
    assert [epoch.best for epoch in seen] == [
        v == min(values[: i + 1]) for i, v in enumerate(values)
    ]
    assert same(model, fit(data, dataclasses.replace(config, epochs=best + 1)))
    assert model.metrics == model.history[best]
    again = RECORDS[task].measure(model.scores(held_out), held_out.y)
    assert {name: model.metrics[name] for name in again} == pytest.approx(again, rel=1e-5)


def test_without_patience_the_last_epoch_is_kept():
    data, held_out = noisy(), noisy(seed=2)
    config = overfitting("sgd", epochs=12, patience=0)
    model = fit(data, config, validation=held_out)
    assert len(model.history) == 12 and model.metrics == model.history[-1]
    assert same(model, fit(data, config))


@pytest.mark.parametrize("metric", ["mae", "accuracy", "f1", "auc"])
def test_early_stopping_watches_the_metric_it_is_told_to(metric):
    task = REGRESSOR if metric == "mae" else CLASSIFIER
    config = overfitting("sgd", task, metric=metric, patience=3)
    model = fit(noisy(task), config, validation=noisy(task, seed=2))
    values = np.array([entry[metric] for entry in model.history])
    best = int(np.argmin(values) if metric == "mae" else np.argmax(values))
    assert model.metrics["epoch"] == best + 1 and len(values) == best + 4


@pytest.mark.parametrize("optimizer", ALL)
def test_a_fraction_is_held_out_and_never_trained_on(optimizer):
    data = noisy(rows=200)
    config = overfitting(optimizer, validation_fraction=0.2, refit=False)
    model, seen = recorded(data, config)
    trained = set(seen[0].rows.tolist())
    assert len(trained) == 160 and all(set(epoch.rows.tolist()) == trained for epoch in seen)
    held = data.take(np.setdiff1d(np.arange(200), seen[0].rows))
    found = regression_metrics(model.scores(held), held.y)
    assert model.metrics["rmse"] == pytest.approx(found["rmse"], rel=1e-5)
    assert model.metrics["rmse"] == min(entry["rmse"] for entry in model.history)
    other = recorded(data, dataclasses.replace(config, seed=1))[1]
    assert set(other[0].rows.tolist()) != trained


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("optimizer", ALL)
def test_the_second_training_is_one_on_all_rows_for_the_best_number_of_epochs(optimizer, warm):
    data = noisy(rows=200)
    config = overfitting(optimizer, validation_fraction=0.2)
    init = fit(data, dataclasses.replace(config, epochs=1, seed=5)) if warm else None
    model, seen = recorded(data, config, init=init)
    best = model.metrics["epoch"]
    first = [epoch for epoch in seen if not epoch.refit]
    again = [epoch for epoch in seen if epoch.refit]
    assert first[best - 1].best and len(again) == best
    assert all(set(epoch.rows.tolist()) == set(range(200)) for epoch in again)
    assert model.metrics["refit"] and model.metrics["rmse"] == first[best - 1].validation["rmse"]
    assert [entry["epoch"] for entry in model.history] == [epoch.number for epoch in seen]
    plain = dataclasses.replace(config, validation_fraction=0, epochs=best)
    assert same(model, fit(data, plain, init=init))


def test_when_a_tenth_is_held_out():
    def held_out(rows, optimizer="sgd", **more):
        model = fit(planted(rows=rows), config_of(optimizer, epochs=1, **more))
        return "rmse" in model.metrics

    assert held_out(1000) and not held_out(999)
    assert not held_out(1000, patience=0) and not held_out(1000, validation_fraction=0)
    assert held_out(20, validation_fraction=0.1)
    assert not held_out(1000, "sagemaker")


# --- what is reported -----------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimizer", ["sgd", "sagemaker"])
def test_the_reported_loss_is_that_of_the_reported_scores(optimizer, task, weighted):
    data = planted(task, weighted=weighted)
    data.y[:] *= 10 if task == REGRESSOR else 1
    model, seen = recorded(data, config_of(optimizer, task, epochs=3))
    for epoch, entry in zip(seen, model.history, strict=True):
        assert sorted(epoch.rows.tolist()) == list(range(400))
        weight = None if data.weight is None else data.weight[epoch.rows]
        found = RECORDS[task].measure(epoch.scores, data.y[epoch.rows], weight)
        expected = found["mse"] / 2 if task == REGRESSOR else found["log_loss"]
        assert epoch.loss == entry["loss"] == pytest.approx(expected, rel=1e-4)
        assert epoch.seconds > 0


@pytest.mark.parametrize("optimizer", ALL)
def test_watching_changes_nothing(optimizer):
    """Scores are only kept where a callback may look at them, by another specialisation."""
    data, config = planted(), config_of(optimizer, epochs=3)
    watched, seen = recorded(data, config)
    assert same(watched, fit(data, config)) and len(seen) == 3


def test_scores_are_taken_before_the_step_of_their_row():
    data = planted()
    model, seen = recorded(data, config_of("sgd", epochs=2))
    one = fit(data, config_of("sgd", epochs=1))
    first = int(seen[1].rows[0])
    assert seen[1].scores[0] == pytest.approx(one.scores(data)[first], rel=1e-5)


def test_a_line_per_epoch_goes_to_the_log_and_a_bar_to_a_terminal(caplog, capsys):
    config = config_of("sgd", epochs=3)
    with caplog.at_level(logging.INFO, logger="fm"):
        fit(planted(), config, validation=planted(seed=2), progress=False)
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    assert len(lines) == 3 and "loss 0." in lines[0] and "rmse 0." in lines[0]
    assert capsys.readouterr() == ("", "")
    fit(planted(), config, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "epoch 3/3" in err and "1.20k/1.20k" in err


# --- randomness -----------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ALL)
def test_the_same_seed_gives_the_same_model_bit_for_bit(optimizer):
    data, config = planted(), config_of(optimizer, epochs=4, validation_fraction=0.2)
    one, two = fit(data, config), fit(data, config)
    assert same(one, two) and one.history == two.history and one == two
    assert not same(one, fit(data, dataclasses.replace(config, seed=1)))


def test_each_epoch_has_an_order_of_its_own_unless_shuffling_is_off():
    data = planted()
    seen = recorded(data, config_of("sgd", epochs=3))[1]
    assert len({tuple(epoch.rows.tolist()) for epoch in seen}) == 3
    seen = recorded(data, config_of("sgd", epochs=3, shuffle=False))[1]
    assert {tuple(epoch.rows.tolist()) for epoch in seen} == {tuple(range(400))}
    seen = recorded(data, config_of("sagemaker", epochs=2))[1]
    assert {tuple(epoch.rows.tolist()) for epoch in seen} == {tuple(range(400))}
    seen = recorded(data, config_of("sagemaker", epochs=2, shuffle=True))[1]
    assert len({tuple(epoch.rows.tolist()) for epoch in seen}) == 2


@pytest.mark.parametrize("optimizer", ALL)
def test_the_calls_an_epoch_is_cut_into_change_nothing(optimizer, monkeypatch):
    data, config = planted(), config_of(optimizer, epochs=3)
    whole = fit(data, config)
    monkeypatch.setattr(GradientSolver, "rows_per_call", lambda self: 64)
    parts = fit(data, config)
    assert same(whole, parts)
    losses = [[entry["loss"] for entry in model.history] for model in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "sagemaker"])
def test_the_way_memory_is_managed_changes_nothing(optimizer, monkeypatch, tmp_path):
    """Memory maps, the tail given back, the best epoch kept in a file."""
    data, held_out = noisy(), noisy(seed=2)
    config = overfitting(optimizer, num_factors=20)
    small = fit(data, config, validation=held_out)
    monkeypatch.setattr(fm.training.parameters, "LARGE_BYTES", 64)
    path = tmp_path / "state"
    large = fit(data, config, validation=held_out, checkpoint=path)
    assert same(small, large) and small.history == large.history
    assert same(small, fit(data, config, validation=held_out, checkpoint=path, resume=True))


# --- interruption and resuming --------------------------------------------------------------------
def interrupting(number):
    def callback(epoch):
        if epoch.number == number:
            raise KeyboardInterrupt

    return callback


def test_an_interruption_keeps_the_best_model_so_far(caplog):
    data, held_out = noisy(), noisy(seed=2)
    config = overfitting("sgd")
    whole = fit(data, config, validation=held_out)
    best = whole.metrics["epoch"]
    model = fit(data, config, validation=held_out, callbacks=[interrupting(best + 2)])
    assert same(model, whole) and len(model.history) == best + 2
    assert "interrupted in epoch" in caplog.text
    early = fit(data, config, callbacks=[interrupting(1)])  # nothing to compare: the last one
    assert same(early, fit(data, dataclasses.replace(config, epochs=1)))


@pytest.mark.parametrize("optimizer", ALL)
def test_an_interrupted_training_resumes_where_it_was(optimizer, tmp_path):
    data, path = planted(), tmp_path / "state"
    config = config_of(optimizer, epochs=6)
    whole = fit(data, config)
    fit(data, config, checkpoint=path, callbacks=[interrupting(3)])
    model, seen = recorded(data, config, checkpoint=path, resume=True)
    assert [epoch.number for epoch in seen] == [4, 5, 6]
    assert same(model, whole) and model.history == whole.history


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "sagemaker"])
def test_a_training_interrupted_within_an_epoch_resumes_exactly(optimizer, tmp_path, monkeypatch):
    data, path = planted(), tmp_path / "state"
    config = config_of(optimizer, epochs=3)
    whole = fit(data, config)
    calls = []

    def rows(self, count):
        calls.append(count)
        if len(calls) == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GradientSolver, "rows_per_call", lambda self: 64)
        patch.setattr(Progress, "rows", rows)
        fit(data, config, checkpoint=path)
    assert 0 < sum(calls) % 400  # in the middle of an epoch
    assert same(fit(data, config, checkpoint=path, resume=True), whole)


def test_an_interruption_while_the_best_epoch_is_copied_is_no_crash(monkeypatch):
    real, taken = fm.training.parameters.Snapshot.take, []

    def take(self, parameters):
        taken.append(parameters)
        if len(taken) == 3:
            raise KeyboardInterrupt
        real(self, parameters)

    monkeypatch.setattr(fm.training.parameters.Snapshot, "take", take)
    model = fit(noisy(), overfitting("sgd"), validation=noisy(seed=2))
    assert model.metrics in model.history


@pytest.mark.parametrize("optimizer", ["sgd", "ftrl"])
def test_a_warm_start_can_be_resumed_without_its_model(optimizer, tmp_path):
    data, path = planted(), tmp_path / "state"
    config = config_of(optimizer, epochs=4, feature_dim=50)
    V = np.random.default_rng(0).normal(size=(50, 4))
    init = dataclasses.replace(fit(data, config), V=V)
    whole = fit(data, config, init=init)
    fit(data, dataclasses.replace(config, epochs=2), init=init, checkpoint=path)
    assert same(fit(data, config, checkpoint=path, resume=True), whole)


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ("a", "b", "expected the model that the training in .* started from, found another"),
        ("a", None, "expected the model that the training in .* started from, found nothing"),
        (None, "a", "expected nothing, because the training in .* started from no model, found a"),
    ],
)
def test_resuming_from_another_start_is_refused(first, then, message, tmp_path):
    table = {"user": [1, 1, 2, 2] * 5, "film": [1, 2, 1, 2] * 5, "rating": [1, 2, 3, 5] * 5}
    data, path = read(table), tmp_path / "state"
    config = TrainConfig(num_factors=2, epochs=2)
    models = {name: fit(data, dataclasses.replace(config, seed=ord(name))) for name in "ab"}
    models[None] = None
    fit(data, config, init=models[first], checkpoint=path)
    more = dataclasses.replace(config, epochs=4)
    with pytest.raises(ConfigError, match=f"init: {message}"):
        fit(data, more, init=models[then], checkpoint=path, resume=True)
    again = fit(data, more, init=models[first], checkpoint=path, resume=True)
    assert same(again, fit(data, more, init=models[first]))


def test_rows_and_models_of_another_encoder_are_refused():
    one = read({"user": [1, 2], "film": [1, 2], "rating": [1, 2]})
    other = read({"user": [8, 9], "film": [1, 2], "rating": [1, 2]})
    config = TrainConfig(num_factors=2, epochs=1)
    with pytest.raises(DataError, match=r"encoded by another encoder .* encoder=data.encoder"):
        fit(one, config, validation=other)
    with pytest.raises(ConfigError, match=r"init: expected a model of the encoder"):
        fit(other, config, init=fit(one, config))


@pytest.mark.parametrize("stop", ["before the best epoch", "after the best epoch"])
@pytest.mark.parametrize("optimizer", ALL)
def test_resuming_equals_never_having_stopped(optimizer, stop, tmp_path):
    data, held_out, path = noisy(), noisy(seed=2), tmp_path / "state"
    config = overfitting(optimizer)
    whole = fit(data, config, validation=held_out)
    best = whole.metrics["epoch"] - 1
    assert best > 1
    cut = best if stop.startswith("before") else best + 2
    part = dataclasses.replace(config, epochs=cut)
    more = {"validation": held_out, "checkpoint": path}
    assert len(fit(data, part, **more).history) == cut
    resumed = fit(data, config, resume=True, **more)
    assert same(resumed, whole)
    assert resumed.history == whole.history and resumed.metrics == whole.metrics
    done = fit(data, config, resume=True, **more)  # nothing is left to do
    assert same(done, whole) and done.history == whole.history


@pytest.mark.parametrize("optimizer", ALL)
def test_five_and_five_epochs_are_ten(optimizer, tmp_path):
    """Without early stopping; and with a part held out, and the training again on all rows."""
    data = planted()
    for more in ({}, {"validation_fraction": 0.25}):
        path = tmp_path / f"state-{len(more)}"
        config = config_of(optimizer, epochs=10, lr_decay=0.1, **more)
        whole = fit(data, config)
        fit(data, dataclasses.replace(config, epochs=5), checkpoint=path)
        resumed = fit(data, config, checkpoint=path, resume=True)
        assert same(resumed, whole) and resumed.history == whole.history
        assert resumed.metrics == whole.metrics


def test_a_missing_checkpoint_starts_from_the_beginning(tmp_path):
    data, config = planted(), config_of("sgd", epochs=2)
    path = tmp_path / "state"
    assert same(fit(data, config, checkpoint=path, resume=True), fit(data, config))
    assert path.exists()


def test_a_checkpoint_takes_no_other_files_place(tmp_path):
    data, config, path = planted(), config_of("sgd", epochs=1), tmp_path / "model"
    fit(data, config).save(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another file, which would be overwritten"):
        fit(data, config, checkpoint=path)
    assert path.read_bytes() == before


def test_resuming_with_other_data_or_settings_is_refused(tmp_path):
    path, config = tmp_path / "state", config_of("sgd", epochs=2)
    fit(planted(), config, checkpoint=path)
    with pytest.raises(ModelFileError, match="other training data"):
        fit(planted(seed=2), config, checkpoint=path, resume=True)
    with pytest.raises(ModelFileError, match="other hyperparameters .*linear_lr"):
        fit(planted(), dataclasses.replace(config, linear_lr=1), checkpoint=path, resume=True)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelFileError, match="damaged checkpoint"):
        fit(planted(), config, checkpoint=path, resume=True)


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    for path in (tmp_path, tmp_path / "file" / "state"):
        (tmp_path / "file").write_text("")
        called = []
        with pytest.raises(FMError, match=tmp_path.name):
            fit(planted(), config_of("sgd", epochs=2), callbacks=[called.append], checkpoint=path)
        assert not called


def test_resuming_with_other_validation_data_is_refused(tmp_path):
    """It decides which rows are trained on and which epoch is best."""
    path, config = tmp_path / "state", config_of("sgd", epochs=2)
    fit(noisy(rows=1000), config, validation=noisy(seed=2), checkpoint=path)
    for validation in (None, noisy(seed=3)):
        with pytest.raises(ModelFileError, match="validation"):
            fit(noisy(rows=1000), config, validation=validation, checkpoint=path, resume=True)


def test_the_metrics_are_those_of_the_parameters_when_patience_came_late(tmp_path):
    """No copy of the best epoch was made as long as patience was 0."""
    data, held_out, path = noisy(), noisy(seed=2), tmp_path / "state"
    more = {"validation": held_out, "checkpoint": path}
    config = overfitting("sgd", patience=0)
    best = (
        fit(data, dataclasses.replace(config, patience=4), validation=held_out).metrics["epoch"] - 1
    )
    fit(data, dataclasses.replace(config, epochs=best + 3), **more)
    late = dataclasses.replace(config, epochs=best + 4, patience=9)
    model = fit(data, late, resume=True, **more)
    found = regression_metrics(model.scores(held_out), held_out.y)["rmse"]
    assert model.metrics["rmse"] == pytest.approx(found, rel=1e-5)


# --- piece by piece -------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ALL)
def test_passes_over_the_same_rows_are_epochs(optimizer):
    data, config = planted(), config_of(optimizer, epochs=3)
    state = None
    for _ in range(3):
        model, state = fit_pass(data, config, state)
    whole = fit(data, config)
    assert same(model, whole)
    assert model.history == whole.history and model.metrics == whole.metrics


def test_a_pass_returns_a_model_that_later_passes_do_not_change():
    data, config = planted(), config_of("adagrad")
    first, state = fit_pass(data, config)
    before = first.w0, first.w.copy(), first.V.copy(), list(first.history)
    second, _ = fit_pass(planted(seed=2), config, state)
    assert first.w0 == before[0] and first.history == before[3]
    assert np.array_equal(first.w, before[1]) and np.array_equal(first.V, before[2])
    assert not same(first, second) and len(second.history) == 2


def test_a_pass_over_rows_it_cannot_train_on_is_an_error():
    data, config = planted(), config_of("sgd")
    _, state = fit_pass(data, config)
    with pytest.raises(DataError, match="feature_dim"):
        fit_pass(Dataset.from_arrays(np.ones((2, 99)), [1, 2]), config, state)
    with pytest.raises(DataError, match="no target"):
        fit_pass(Dataset(data.X), config, state)
    with pytest.raises(DataError, match="all weights are 0"):
        fit_pass(dataclasses.replace(data, weight=np.zeros(400, np.float32)), config, state)


# --- units and shapes -----------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", ROW_BY_ROW)
def test_predictions_follow_the_unit_of_the_target(optimizer, weighted):
    data = planted(weighted=weighted)
    other = dataclasses.replace(data, y=data.y * np.float32(1000) + np.float32(5))
    config = config_of(optimizer, clip_gradient=None)
    one, two = fit(data, config), fit(other, config)
    expected = one.predict(data).astype(np.float64) * 1000 + 5
    assert two.predict(data) == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())
    assert two.history[-1]["loss"] == pytest.approx(1e6 * one.history[-1]["loss"], rel=1e-3)


def test_clipping_is_in_the_unit_of_the_target():
    data = planted()
    other = dataclasses.replace(data, y=data.y * np.float32(1000))
    one = fit(data, config_of("sgd", clip_gradient=0.3, epochs=3))
    two = fit(other, config_of("sgd", clip_gradient=300, epochs=3))
    np.testing.assert_allclose(two.predict(data), 1000 * one.predict(data), rtol=1e-3, atol=0.1)
    assert not same(one, fit(data, config_of("sgd", epochs=3)))


def test_a_wider_model_scores_the_same_rows_alike():
    data, config = planted(), config_of("sgd", epochs=3)
    wide = fit(data, dataclasses.replace(config, feature_dim=100))
    narrow = fit(data, config)
    assert wide.num_features == 100 and wide.config.feature_dim == 100
    np.testing.assert_array_equal(wide.V[: USERS + ITEMS], narrow.V)
    np.testing.assert_array_equal(wide.scores(data.X), narrow.scores(data.X))
    assert not wide.w[USERS + ITEMS :].any() and not wide.V[USERS + ITEMS :].any()
    assert data.num_features == USERS + ITEMS  # the caller's data stay as they were


@pytest.mark.parametrize("optimizer", ALL)
def test_features_that_never_occurred_have_no_say(optimizer):
    """Their random start would be noise in the scores of rows that have them; a model's is not."""
    data, width = planted(), USERS + ITEMS
    config = config_of(optimizer, epochs=2, feature_dim=width + 9)
    fresh = fit(data, config)
    assert fresh.V[:width].all() and fresh.V[width:].any() == (optimizer == "sagemaker")
    V = np.vstack([fresh.V[:width], np.full((9, 4), 0.5)])
    warm = fit(data, config, init=dataclasses.replace(fresh, V=V))
    assert (warm.V[width:] == 0.5).all()


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("optimizer", ALL)
def test_the_metrics_are_those_of_the_model_also_on_features_it_never_saw(optimizer, given):
    """A row of its own feature each: whatever is held out was not met in training."""
    X, y = np.hstack([np.eye(40), np.eye(4)[np.arange(40) % 4]]), np.arange(40.0)
    data = Dataset.from_arrays(X, y)
    more = {} if given else {"validation_fraction": 0.25, "refit": False}
    config = config_of(optimizer, epochs=3, factors_init_sigma=1.0, **more)
    if given:
        held_out, data = data.take(np.arange(30, 40)), data.take(np.arange(30))
        model = fit(data, config, validation=held_out)
    else:
        model, seen = recorded(data, config)
        held_out = data.take(np.setdiff1d(np.arange(40), seen[0].rows))
    found = regression_metrics(model.scores(held_out), held_out.y)
    assert model.metrics["rmse"] == pytest.approx(found["rmse"], rel=1e-5)


def test_more_features_than_feature_dim_are_refused():
    with pytest.raises(DataError, match="data: 35 features, but feature_dim is 30; raise"):
        fit(planted(), config_of("sgd", feature_dim=30))
    with pytest.raises(DataError, match="one for each value of its columns, but feature_dim is 9"):
        fit(read({"user": ["a", "b"], "rating": [1, 2]}), TrainConfig(feature_dim=9))
    with pytest.raises(DataError, match="99 features, but feature_dim is 35"):
        wide = Dataset.from_arrays(np.ones((2, 99)), [1, 2])
        fit(planted(), config_of("sgd"), validation=wide)


def test_narrower_validation_data_are_widened():
    data, held_out = planted(), planted(seed=2, rows=50)
    held_out.X.resize(50, USERS)
    model = fit(data, config_of("sgd", epochs=2), validation=held_out)
    held_out.X.resize(50, USERS + ITEMS)
    found = regression_metrics(model.scores(held_out.X), held_out.y)
    assert model.metrics["rmse"] == pytest.approx(found["rmse"], rel=1e-5)


def test_a_warm_start_of_another_shape_is_refused():
    data = planted()
    init = fit(data, config_of("sgd", epochs=1))
    with pytest.raises(ConfigError, match="init: expected a model of 35 features x 5 factors, fou"):
        fit(data, config_of("sgd", num_factors=5), init=init)


# --- odd data -------------------------------------------------------------------------------------
def test_targets_that_cannot_be_learnt_are_refused():
    data = planted()
    with pytest.raises(DataError, match="data: no target to train on; name its column"):
        fit(Dataset(data.X))
    with pytest.raises(DataError, match="data: no rows; expected at least one"):
        fit(data.take(np.array([], int)))
    with pytest.raises(DataError, match="row 3: label 2, but a binary classifier expects 0 or 1"):
        labels = [0, 1, 2, 1]
        fit(Dataset.from_arrays(np.eye(4), labels), TrainConfig(predictor_type=CLASSIFIER))
    with pytest.raises(DataError, match="row 1: label -2, but"):
        held = Dataset.from_arrays(np.eye(4), [-2, 1, 1, 1])
        good = Dataset.from_arrays(np.eye(4), [0, 1, 1, 1])
        fit(good, TrainConfig(predictor_type=CLASSIFIER), validation=held)
    with pytest.raises(DataError, match="all weights are 0; nothing to train on"):
        fit(dataclasses.replace(data, weight=np.zeros(400, np.float32)))


def test_validation_rows_without_weight_are_refused():
    data = planted()
    held_out = dataclasses.replace(planted(seed=2), weight=np.zeros(400, np.float32))
    with pytest.raises(DataError, match="weight"):
        fit(data, config_of("sgd", epochs=2), validation=held_out)


@pytest.mark.parametrize("optimizer", ALL)
@pytest.mark.parametrize(
    "X",
    [
        np.ones((1, 1)),
        np.zeros((5, 3)),
        np.eye(5)[:, :1],
    ],
    ids=["one entry", "empty rows", "one feature"],
)
def test_hardly_any_data(X, optimizer):
    """Not much can be learnt, but the mean is."""
    y = np.arange(len(X)) + 3.0
    config = TrainConfig(
        optimizer=optimizer, num_factors=3, epochs=2, mini_batch_size=5, bias_init_method=None
    )
    model = fit(Dataset.from_arrays(X, y), config)
    assert model.V.shape == (X.shape[1], 3)
    assert np.isfinite(model.scores(X)).all()
    if optimizer in ROW_BY_ROW:
        assert model.scores(X) == pytest.approx(np.full(len(X), y.mean()), abs=0.5)


def test_rows_without_features_are_refused():
    with pytest.raises(DataError, match="feature"):
        fit(Dataset.from_arrays(np.zeros((5, 0)), np.arange(5)), TrainConfig(epochs=1))


def test_one_row_leaves_nothing_to_hold_out():
    data = Dataset.from_arrays(np.eye(3)[:1], [2.0])
    model = fit(data, TrainConfig(num_factors=2, epochs=2, validation_fraction=0.5))
    assert model.predict(data) == pytest.approx([2.0])


@pytest.mark.parametrize("optimizer", ALL)
@pytest.mark.parametrize("value", [0.0, 7.0, 1e6, -1e-6])
def test_a_constant_target(value, optimizer):
    data = planted()
    data.y[:] = value
    model = fit(data, TrainConfig(optimizer=optimizer, num_factors=4, epochs=3))
    if optimizer in ROW_BY_ROW:
        near = abs(value) * 1e-6 + 0.1
        assert model.predict(data) == pytest.approx(np.full(400, value), abs=near)


@pytest.mark.parametrize("optimizer", ALL)
@pytest.mark.parametrize("label", [0, 1])
def test_a_classifier_of_one_label(label, optimizer):
    data = planted(CLASSIFIER)
    data.y[:] = label
    model = fit(data, config_of(optimizer, CLASSIFIER, epochs=3))
    found = classification_metrics(model.scores(data), data.y)
    assert found["accuracy"] == 1 and np.isnan(found["auc"])


def test_wide_row_pointers_train_alike():
    """scipy takes int64 pointers beyond 2^31 entries."""
    rng = np.random.default_rng(0)
    X = (rng.random((100, 12)) < 0.3) * rng.normal(size=(100, 12))
    narrow, wide = (Dataset.from_arrays(X, X.sum(1)) for _ in range(2))
    wide.X.indptr = wide.X.indptr.astype(np.int64)
    for optimizer in ("sgd", "sagemaker"):
        config = config_of(optimizer, epochs=3)
        assert same(fit(narrow, config), fit(wide, config))
