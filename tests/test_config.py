"""The hyperparameters: what they accept, how every SDK spells them, and what is said otherwise."""

import dataclasses
import math
import re

import numpy as np
import orjson
import pytest

from fm.config import IGNORED, TrainConfig, parameters
from fm.errors import ConfigError, FMError
from fm.recipes import OPTIMIZERS, RANKING_LOSSES
from fm.tasks import CLASSIFIER, RANKER, REGRESSOR

BY_NAME = {parameter.name: parameter for parameter in parameters()}
BY_KIND = {
    kind: [name for name, parameter in BY_NAME.items() if parameter.kind is kind]
    for kind in (bool, int, float, str)
}
PARTS = ("bias", "linear", "factors")


def error_of(**values):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**values)
    return str(caught.value)


# --- values ---------------------------------------------------------------------------------------
def test_every_field_is_a_described_parameter():
    assert list(BY_NAME) == [field.name for field in dataclasses.fields(TrainConfig)]
    assert sum(map(len, BY_KIND.values())) == len(BY_NAME)
    for parameter in parameters():
        assert parameter.help and parameter.group
        assert parameter.default is None or parameter.parse(parameter.default) == parameter.default
        assert parameter.optional == (parameter.default is None)


WRONG = {
    float: ["abc", "0.1.2", "nan", "inf", "-inf", math.nan, True, [1.0], "1,5", "1e400"],
    int: ["abc", "1.5", 1.5, "nan", math.inf, True, [1], "1e400"],
    bool: ["yes", "2", 2, "truee", 0.5, [True]],
    str: ["Regressor", "other", 1, True],
}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_value_of_another_kind_is_refused(name):
    parameter = BY_NAME[name]
    for bad in WRONG[parameter.kind]:
        expected = f"{name}: expected {parameter.range_text}, found {bad!r}"
        assert expected in error_of(**{name: bad})


@pytest.mark.parametrize("name", [p.name for p in parameters() if p.low is not None])
def test_the_ends_of_each_range(name):
    parameter = BY_NAME[name]
    assert parameter.parse(parameter.low) == parameter.low
    below = error_of(**{name: parameter.low * (2 if parameter.low < 0 else 1) - 1})
    assert f"{name}: expected {parameter.range_text}, found" in below
    if parameter.high is not None:
        assert parameter.parse(parameter.high) == parameter.high
        beyond = parameter.high * 2 + 1
        assert f"{name}: expected {parameter.range_text}" in error_of(**{name: beyond})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("epochs", "epochs: expected an integer >= 1, found 0"),
        ("num_factors", "num_factors: expected an integer from 1 to 10,000, found 0"),
        ("linear_lr", "linear_lr: expected a number >= 0, found -1"),
        ("validation_fraction", "validation_fraction: expected a number from 0 to 0.9, found -1"),
        ("seed", "seed: expected an integer from 0 to 4,294,967,295, found -1"),
    ],
)
def test_messages_in_full(name, text):
    assert error_of(**{name: -1 if text.endswith("-1") else 0}) == text


@pytest.mark.parametrize("part", PARTS)
def test_initial_values_that_need_a_number(part):
    uniform = f"{part}_init_scale: expected a number because {part}_init_method is uniform"
    assert uniform in error_of(**{f"{part}_init_method": "uniform"})
    constant = f"{part}_init_value: expected a number because {part}_init_method is constant"
    assert constant in error_of(**{f"{part}_init_method": "constant"})
    given = {f"{part}_init_method": "constant", f"{part}_init_value": -0.5}
    assert getattr(TrainConfig(**given), f"{part}_init_value") == -0.5


@pytest.mark.parametrize("name", ["linear_l1", "factors_l1"])
def test_l1_belongs_to_ftrl(name):
    expected = f"{name}: expected 0 because optimizer is adam, found 0.5; set optimizer to ftrl"
    assert expected in error_of(**{"optimizer": "adam", name: 0.5})
    assert getattr(TrainConfig(**{"optimizer": "ftrl", name: 0.5}), name) == 0.5


def test_a_metric_belongs_to_its_task():
    assert error_of(metric="auc", predictor_type=REGRESSOR) == (
        "metric: expected auto, rmse, mae because predictor_type is regressor, found 'auc'"
    )
    found = [TrainConfig(metric=m).predictor_type for m in ("auto", "rmse", "auc", "ndcg")]
    assert found == [None, REGRESSOR, CLASSIFIER, RANKER]
    message = error_of(metric="rmse", predictor_type=CLASSIFIER)
    assert "expected auto, log_loss, accuracy, f1, auc because" in message
    assert TrainConfig(metric="auc", predictor_type=CLASSIFIER).metric == "auc"


def test_all_problems_are_named_at_once():
    message = error_of(
        epochs=0, linear_lr="fast", optimizer="newton", factors_init_method="uniform", metric="auc"
    )
    assert "\n" not in message
    for name in ("epochs", "linear_lr", "optimizer", "factors_init_scale", "metric"):
        assert re.search(rf"(^|; ){name}: expected", message), name


def test_the_error_is_a_value_error_of_ours():
    assert issubclass(ConfigError, FMError) and issubclass(ConfigError, ValueError)


def test_numpy_scalars_become_plain_values():
    config = TrainConfig(epochs=np.int64(3), linear_lr=np.float32(0.5), use_bias=np.bool_(False))
    assert type(config.epochs) is int and type(config.linear_lr) is float
    assert config.use_bias is False
    assert orjson.loads(orjson.dumps(config.to_dict()))["linear_lr"] == 0.5


def test_a_config_is_frozen_and_survives_a_dictionary():
    config = TrainConfig(epochs=3, optimizer="ftrl", linear_l1=0.5, shuffle=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 4
    assert TrainConfig(**config.to_dict()) == config
    assert config.to_dict()["shuffle"] is False and "feature_dim" not in config.to_dict()


# --- recipes --------------------------------------------------------------------------------------
RECIPES = {(name, task): o.recipes[task] for name, o in OPTIMIZERS.items() for task in o.recipes}


@pytest.mark.parametrize(("optimizer", "task"), RECIPES)
def test_a_recipe_fills_in_what_was_not_set_and_nothing_else(optimizer, task):
    needed = {f"{part}_{kind}" for part in PARTS for kind in ("lr", "wd")}
    needed |= {"lr_decay", "eps", "shuffle", "scale_target"}
    asked = {"predictor_type": task}
    if task in RANKING_LOSSES:
        asked = {"predictor_type": RANKER, "ranking_loss": task}
        needed.add("num_negatives")
    config = TrainConfig(optimizer=optimizer, factors_lr=0, shuffle=False, **asked)
    full = config.resolved()
    assert needed <= RECIPES[optimizer, task].keys() <= BY_NAME.keys()
    assert full.factors_lr == 0 and full.shuffle is False
    assert all(getattr(full, name) is not None for name in needed)
    assert full.resolved() == full
    assert {o for o, _ in RECIPES} == set(BY_NAME["optimizer"].choices)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"predictor_type": RANKER, "optimizer": "sagemaker"},
         r"optimizer: expected sgd, adagrad, adam, ftrl because predictor_type is ranker, found "
         r"'sagemaker'"),
        ({"predictor_type": RANKER, "metric": "auc"},
         r"metric: expected auto, ndcg, hit_rate because predictor_type is ranker, found 'auc'"),
        ({"predictor_type": REGRESSOR, "metric": "ndcg"}, r"metric: expected auto, rmse, mae"),
        ({"ranking_loss": "bpr"},
         r"ranking_loss: expected nothing because predictor_type is not set, found 'bpr'; set "
         r"predictor_type to ranker"),
        ({"predictor_type": CLASSIFIER, "num_negatives": 3},
         r"num_negatives: expected nothing because predictor_type is binary_classifier, found 3"),
        ({"negative_sampling": "popularity"}, r"negative_sampling: expected nothing because"),
        ({"predictor_type": RANKER, "num_negatives": 0},
         r"num_negatives: expected an integer from 1 to 1,000, found 0"),
    ],
)  # fmt: skip
def test_what_goes_with_a_ranker(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize("task", [REGRESSOR, CLASSIFIER])
def test_sagemaker_has_the_defaults_that_the_built_in_prints(task):
    full = TrainConfig(optimizer="sagemaker", predictor_type=task).resolved()
    printed = {
        "bias_lr": 0.1, "bias_wd": 0.01, "bias_init_method": "normal", "bias_init_sigma": 0.01,
        "linear_lr": 0.001, "linear_wd": 0.001, "linear_init_sigma": 0.01,
        "factors_lr": 0.0001, "factors_wd": 0.00001, "factors_init_sigma": 0.001,
        "linear_init_method": "normal", "factors_init_method": "normal", "mini_batch_size": 1000,
        "use_bias": True, "use_linear": True,
        "clip_gradient": None, "rescale_grad": None, "shuffle": False, "scale_target": False,
        "pad_last_batch": True,
    }  # fmt: skip
    assert {name: getattr(full, name) for name in printed} == printed


# --- strings --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("True", "true", "TRUE", "1", " true ", '"true"', True, 1), True),
        (("False", "false", "0", '"False"', False, 0), False),
    ],
)
def test_all_spellings_of_truth(texts, expected):
    for text in texts:
        assert TrainConfig.from_strings({"use_bias": text}).use_bias is expected


def test_all_spellings_of_numbers_and_names():
    """As SDK 2 (str), SDK 3 (json.dumps), framework estimators and tuning jobs send them."""
    for text in ("100", "100.0", " 100 ", '"100"', "1e2", 100, 100.0):
        assert TrainConfig.from_strings({"epochs": text}).epochs == 100
    for text in ("1e-05", "0.00001", '"1e-05"', "1E-5", 1e-5):
        assert TrainConfig.from_strings({"factors_wd": text}).factors_wd == 1e-5
    for text in ("binary_classifier", '"binary_classifier"', " binary_classifier "):
        assert TrainConfig.from_strings({"predictor_type": text}).predictor_type == CLASSIFIER


@pytest.mark.parametrize("name", BY_NAME)
def test_every_parameter_comes_back_from_both_kinds_of_strings(name):
    example = {
        "predictor_type": CLASSIFIER, "optimizer": "ftrl", "metric": "mae", "linear_l1": 0.0,
        "factors_l1": 0.0, "validation_fraction": 0.25, "lr_decay": 0.5,
        "ranking_loss": "warp", "negative_sampling": "popularity",
    }  # fmt: skip
    more = {"predictor_type": RANKER} if BY_NAME[name].group == "ranking" else {}
    parameter = BY_NAME[name]
    value = example.get(name, {bool: False, int: 7, float: 0.125, str: "normal"}[parameter.kind])
    for text in (str(value), orjson.dumps(value).decode()):
        assert getattr(TrainConfig.from_strings({name: text, **more}), name) == value


@pytest.mark.parametrize("name", BY_NAME)
def test_a_text_for_nothing_means_the_default(name):
    for text in ("", "None", "null", " None ", '""'):
        assert TrainConfig.from_strings({name: text}) == TrainConfig()


def test_unknown_names_and_wrong_values_are_all_named_at_once():
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_strings(
            {"epoch": "3", "zzz": "1", "_sparse_input": "1", "num_factors": "many", "eps": "-1"}
        )
    message = str(caught.value)
    assert "epoch: unknown hyperparameter (did you mean epochs?)" in message
    assert "zzz: unknown hyperparameter;" in message
    assert "_sparse_input: unknown hyperparameter" in message
    assert "num_factors: expected an integer from 1 to 10,000, found 'many'" in message
    assert "eps: expected a number >= 0, found '-1'" in message
    assert "\n" not in message


def test_problems_between_parameters_are_named_with_the_others():
    with pytest.raises(ConfigError, match="zzz: unknown.*bias_init_value: expected a number"):
        TrainConfig.from_strings({"zzz": "1", "bias_init_method": "constant"})


def test_what_the_platform_adds_is_ignored():
    added = dict.fromkeys(IGNORED, "anything") | {
        "sagemaker_program": '"train.py"', "sagemaker_region": '"eu-west-1"',
        "_tuning_objective_metric": "test:rmse", "_optimizer": "adam", "_kvstore": "auto",
    }  # fmt: skip
    assert TrainConfig.from_strings(added) == TrainConfig()


def test_the_built_ins_own_factors_multiply_rates_and_decay():
    config = TrainConfig.from_strings(
        {"optimizer": "sagemaker", "_learning_rate": "0.5", "_wd": "2.0", "linear_lr": "0.004"}
    )
    assert (config.bias_lr, config.linear_lr, config.factors_lr) == (0.05, 0.002, 0.00005)
    assert (config.bias_wd, config.linear_wd, config.factors_wd) == (0.02, 0.002, 0.00002)
    neutral = TrainConfig.from_strings({"_learning_rate": "1.0", "_wd": "1.0"})
    assert neutral == TrainConfig()
    with pytest.raises(ConfigError, match="_wd: expected a number >= 0, found 'x'"):
        TrainConfig.from_strings({"_wd": "x"})


def test_the_log_of_a_real_job_is_understood():
    """The final configuration printed by a published run of the built-in."""
    printed = {
        "_data_format": "record", "_kvstore": "auto", "_learning_rate": "1.0", "_log_level": "info",
        "_num_gpus": "auto", "_num_kv_servers": "auto", "_optimizer": "adam",
        "_tuning_objective_metric": "", "_use_full_symbolic": "true", "_wd": "1.0",
        "batch_metrics_publish_interval": "500", "bias_init_method": "normal",
        "bias_init_sigma": "0.01", "bias_lr": "0.1", "bias_wd": "0.01", "clip_gradient": "",
        "epochs": "50", "eps": "", "factors_init_method": "normal", "factors_init_sigma": "0.001",
        "factors_lr": "0.0001", "factors_wd": "0.00001", "feature_dim": "2625",
        "linear_init_method": "normal", "linear_init_sigma": "0.01", "linear_lr": "0.001",
        "linear_wd": "0.001", "mini_batch_size": "1000", "num_factors": "64",
        "predictor_type": "regressor", "rescale_grad": "", "use_bias": "true",
        "use_linear": "true",
    }  # fmt: skip
    config = TrainConfig.from_strings({**printed, "optimizer": "sagemaker"})
    same = TrainConfig(optimizer="sagemaker", epochs=50, feature_dim=2625).resolved()
    assert config.resolved() == same
