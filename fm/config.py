"""Every hyperparameter of fm, once: name, type, default, range and meaning.

The command line, the SageMaker strings, the estimators' docstrings and the metadata of a model
are all generated from :class:`TrainConfig`. Names are those of Amazon SageMaker's built-in
Factorization Machines algorithm wherever it has one; the rest are ours.

Decided here: what may be set. Not decided here: what "not set" means for each optimizer
(``fm.recipes``), what depends on the task (``fm.tasks``), what an optimizer does with a value
(``fm.kernels.optimizers``), how a value is read (``fm.parameter``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fm.errors import ConfigError
from fm.parameter import HUGE, NOT_SET, Parameter, bare
from fm.recipes import OPTIMIZERS, RANKING_LOSSES, Optimizer
from fm.tasks import REGRESSOR, TASKS, Task

_L1 = ("linear_l1", "factors_l1")
_TASK_OF_METRIC = {metric: task.name for task in TASKS.values() for metric in task.watched}
INIT_METHODS = ("normal", "uniform", "constant")


def _p(
    default: Any,
    help: str,
    group: str,
    *,
    kind: type | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one hyperparameter; `kind` is its type where the default is None."""
    return dataclasses.field(
        default=default,
        metadata={
            "kind": kind or type(default),
            "help": help,
            "group": group,
            "low": low,
            "high": high,
            "choices": choices,
            "optional": default is None,
        },
    )


def _listed(optimizers: Mapping[str, Optimizer]) -> str:
    """Return the optimizers in words, for a help text."""
    texts = [f"{name} ({o.about})" if o.about else name for name, o in optimizers.items()]
    return f"{', '.join(texts[:-1])}, or {texts[-1]}"


def _rate(text: str) -> Any:
    return _p(None, text, "learning rates", kind=float, low=0, high=HUGE)


def _decay(text: str) -> Any:
    return _p(None, text, "regularisation", kind=float, low=0, high=HUGE)


def _init(text: str, low: float = 0) -> Any:
    return _p(None, text, "initial values", kind=float, low=low, high=HUGE)


@dataclass(frozen=True)
class TrainConfig:
    """All hyperparameters of one training run; frozen, validated when made.

    Values that are None are filled in by :meth:`resolved` from the optimizer's recipe
    (``fm.recipes``). :func:`parameters` lists names, types, defaults, ranges and meanings.

    Raises
    ------
    ConfigError
        One error that names every value that is wrong.

    Examples
    --------
    >>> config = TrainConfig(predictor_type="binary_classifier", num_factors=8)
    >>> config.resolved().optimizer
    'sgd'
    """

    predictor_type: str | None = _p(
        None,
        "what is learnt: " + "; ".join(task.about for task in TASKS.values()) + " (ranker). Not "
        "set: binary_classifier if all targets are 0 or 1, else regressor",
        "model",
        kind=str,
        choices=tuple(TASKS),
    )
    num_factors: int = _p(
        64, "k, the length of each feature's vector of factors", "model", low=1, high=10_000
    )
    feature_dim: int | None = _p(
        None,
        "number of features; not set: as many as the training data have",
        "model",
        kind=int,
        low=1,
        high=2**31 - 1,
    )
    use_bias: bool = _p(True, "learn w0, the global bias", "model")
    use_linear: bool = _p(True, "learn w, one weight per feature", "model")

    optimizer: str | None = _p(
        None,
        f"{_listed(OPTIMIZERS)}; not set: a race of settings on rows held out finds optimizer, "
        "rates and decay (of those that are not set); for a ranker adagrad",
        "training",
        kind=str,
        choices=tuple(OPTIMIZERS),
    )
    epochs: int = _p(100, "passes over the training data, at most", "training", low=1)
    num_starts: int | None = _p(
        None,
        "train so many models, which differ in their seed, and make one of them, their mean; not "
        "set: 4 or 2 after a race if training takes seconds, else 1",
        "training",
        kind=int,
        low=1,
        high=100,
    )
    mini_batch_size: int = _p(
        1000,
        "rows per step of optimizer=sagemaker; the other optimizers step after every row",
        "training",
        low=1,
        high=2**31 - 1,
    )
    seed: int = _p(
        0,
        "start of all randomness: initial values, order, split",
        "training",
        low=0,
        high=2**32 - 1,
    )
    shuffle: bool | None = _p(
        None,
        "visit the rows in a new random order each epoch (optimizer=sagemaker: only if set)",
        "training",
        kind=bool,
    )
    scale_target: bool | None = _p(
        None,
        "regression: train on (y - mean) / std and undo it in the model, so that the learning "
        "rates suit any unit (optimizer=sagemaker: only if set)",
        "training",
        kind=bool,
    )
    scale_features: bool = _p(
        True,
        "train on features of size one, so that no unit matters: stored values that are all alike "
        "become 1, numbers in most rows get mean 0 and standard deviation 1, others root mean "
        "square 1. The model is in the unit of the data. Not for sagemaker and rankers",
        "training",
    )
    validation_fraction: float | None = _p(
        None,
        "part of the training rows held out for early stopping if there are no validation data; "
        "0: none. Not set: 0.1 from 1,000 rows on, else 0; 0 without early stopping and for "
        "optimizer=sagemaker. ranker: part of the users, each with one row held out; not set: all "
        "users with two rows or more, up to some thousands",
        "training",
        kind=float,
        low=0,
        high=0.9,
    )
    patience: int = _p(
        5,
        "stop after this many epochs without improvement on the validation data; the best epoch "
        "is kept. 0: never stop early",
        "training",
        low=0,
    )
    refit: bool | None = _p(
        None,
        "after early stopping on held-out rows, train again on all rows for the best number of "
        "epochs (not set: if there are at most a million rows)",
        "training",
        kind=bool,
    )
    metric: str = _p(
        "auto",
        "what early stopping watches on the validation data; auto: rmse, log_loss, or for a ranker "
        "ndcg. ndcg and hit_rate look at the first 10 items",
        "training",
        choices=("auto", *(metric for task in TASKS.values() for metric in task.watched)),
    )

    ranking_loss: str = _p(
        "logistic",
        "ranker: logistic, the log loss of rows and drawn negatives; or a loss of pairs of a row "
        "and a negative: bpr, or warp, which looks for negatives that score too high",
        "ranking",
        choices=tuple(RANKING_LOSSES),
    )
    num_negatives: int | None = _p(
        None,
        "ranker: negatives drawn for each row in each epoch (warp: the most that are tried); not "
        "set: a number that suits the loss",
        "ranking",
        kind=int,
        low=1,
        high=1000,
    )
    negative_sampling: str = _p(
        "uniform",
        "ranker: how negatives are drawn: all items alike, or in proportion to their rows to the "
        "power of 3/4. Items that the user of a row has met are never drawn",
        "ranking",
        choices=("uniform", "popularity"),
    )

    bias_lr: float | None = _rate("learning rate of w0")
    linear_lr: float | None = _rate("learning rate of w")
    factors_lr: float | None = _rate(
        "learning rate of V (optimizer=sgd: rates that are not set are divided by half the mean "
        "squared norm of the rows if that is above 1, so that long rows do not overshoot)"
    )
    lr_decay: float | None = _p(
        None,
        "the learning rates of epoch e (1, 2, ...) are divided by 1 + lr_decay * (e - 1)",
        "learning rates",
        kind=float,
        low=0,
    )
    clip_gradient: float | None = _p(
        None,
        "clip each gradient to [-c, c] (sagemaker: after adding weight decay; others: the "
        "derivative of the loss by the score)",
        "learning rates",
        kind=float,
        low=0,
    )
    rescale_grad: float | None = _p(
        None,
        "factor on the gradient (sagemaker: not set means 1/mini_batch_size; others: 1)",
        "learning rates",
        kind=float,
    )
    eps: float | None = _p(
        None,
        "added to the denominator of adagrad and adam steps",
        "learning rates",
        kind=float,
        low=0,
    )

    bias_wd: float | None = _decay("L2 penalty of w0")
    linear_wd: float | None = _decay("L2 penalty of w")
    factors_wd: float | None = _decay("L2 penalty of V")
    linear_l1: float = _p(0.0, "L1 penalty of w (ftrl)", "regularisation", low=0)
    factors_l1: float = _p(0.0, "L1 penalty of V (ftrl)", "regularisation", low=0)

    bias_init_method: str | None = _p(
        None,
        "start of w0; not set: the mean of the target (its log-odds for a classifier)",
        "initial values",
        kind=str,
        choices=INIT_METHODS,
    )
    bias_init_scale: float | None = _init("w0, uniform: half-width of the range")
    bias_init_sigma: float | None = _init("w0, normal: standard deviation")
    bias_init_value: float | None = _init("w0, constant: the value", low=-HUGE)
    linear_init_method: str = _p("normal", "start of w", "initial values", choices=INIT_METHODS)
    linear_init_scale: float | None = _init("w, uniform: half-width of the range")
    linear_init_sigma: float | None = _init("w, normal: standard deviation")
    linear_init_value: float | None = _init("w, constant: the value", low=-HUGE)
    factors_init_method: str = _p("normal", "start of V", "initial values", choices=INIT_METHODS)
    factors_init_scale: float | None = _init("V, uniform: half-width of the range")
    factors_init_sigma: float | None = _init("V, normal: standard deviation")
    factors_init_value: float | None = _init("V, constant: the value", low=-HUGE)

    pad_last_batch: bool = _p(
        True,
        "sagemaker: fill a short last batch with empty rows of label 0, as the built-in does",
        "compatibility",
    )

    def __post_init__(self) -> None:
        problems, wrong = [], set()
        for parameter in parameters():
            try:
                value = parameter.parse(getattr(self, parameter.name))
            except ConfigError as err:
                problems.append(str(err))
                wrong.add(parameter.name)
            else:
                object.__setattr__(self, parameter.name, value)
        if not wrong and self.predictor_type is None and self.metric in _TASK_OF_METRIC:
            object.__setattr__(self, "predictor_type", _TASK_OF_METRIC[self.metric])
        for part in ("bias", "linear", "factors"):
            method = getattr(self, f"{part}_init_method")
            needed = {"uniform": "scale", "constant": "value"}.get(method or "")
            if needed and getattr(self, f"{part}_init_{needed}") is None:
                problems.append(
                    f"{part}_init_{needed}: expected a number because {part}_init_method is "
                    f"{method}, found nothing; set it"
                )
        if not wrong & {"predictor_type", "metric"}:
            problems += self._misfits_of_task()
        if not wrong & {"predictor_type", "ranking_loss", "optimizer", *_L1}:
            problems += self._misfits_of_optimizer()
        if problems:
            raise ConfigError("; ".join(problems))

    def _misfits_of_task(self) -> list[str]:
        """Return what does not go with the task."""
        problems, because = [], f"because predictor_type is {self.predictor_type or 'not set'}"
        watched = self.task.watched
        if self.metric not in ("auto", *watched):
            problems.append(
                f"metric: expected auto, {', '.join(watched)} {because}, found {self.metric!r}"
            )
        if not self.task.ranks:
            for name, off in (
                ("ranking_loss", "logistic"), ("num_negatives", None),
                ("negative_sampling", "uniform"),
            ):  # fmt: skip
                if (value := getattr(self, name)) != off:
                    problems.append(
                        f"{name}: expected nothing {because}, found {value!r}; set "
                        "predictor_type to ranker"
                    )
        return problems

    def _misfits_of_optimizer(self) -> list[str]:
        """Return what does not go with the optimizer, and whether it goes with the task."""
        problems = []
        if not OPTIMIZERS[self.used_optimizer].l1:
            for name in _L1:
                if value := getattr(self, name):
                    problems.append(
                        f"{name}: expected 0 because optimizer is {self.used_optimizer}, found "
                        f"{value:g}; set optimizer to ftrl for exact zeros"
                    )
        fit = [name for name, entry in OPTIMIZERS.items() if self.recipe in entry.recipes]
        if self.used_optimizer not in fit:
            problems.append(
                f"optimizer: expected {', '.join(fit)} because predictor_type is "
                f"{self.task.name}, found {self.optimizer!r}"
            )
        return problems

    @property
    def task(self) -> Task:
        """All that depends on predictor_type; not set, it is that of numbers."""
        return TASKS[self.predictor_type or REGRESSOR]

    @property
    def used_optimizer(self) -> str:
        """The optimizer, also if it is not set."""
        return self.optimizer or self.task.optimizer

    @property
    def recipe(self) -> str:
        """Which of an optimizer's recipes fills in what is not set."""
        return self.ranking_loss if self.task.ranks else self.task.like or self.task.name

    @property
    def watched_metric(self) -> str:
        """The metric that early stopping watches, also if it is not set."""
        return self.task.metric if self.metric == "auto" else self.metric

    def resolved(self) -> TrainConfig:
        """Return a copy in which what was not set has the value of the optimizer's recipe.

        A task that is not set becomes that of numbers: :func:`fm.fit` looks at the targets before.
        """
        entry = OPTIMIZERS[self.used_optimizer]
        recipe = {
            "predictor_type": self.task.name,
            "optimizer": self.used_optimizer,
            **entry.recipes[self.recipe],
        }
        missing = {name: value for name, value in recipe.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    def to_dict(self) -> dict[str, Any]:
        """Return name -> value of everything that differs from "not set", ready for JSON."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_strings(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Make a config of strings, as a SageMaker training job or a command line hands them over.

        Names that the built-in algorithm accepts without documenting them are accepted too:
        ``_learning_rate`` and ``_wd`` multiply the learning rates and the weight decay; the
        others (:data:`IGNORED`) and names that start with ``sagemaker_`` change nothing here.

        Raises
        ------
        ConfigError
            One error that names every unknown name and every value that is wrong.
        """
        problems: list[str] = []
        given: dict[str, Any] = {}
        known = {parameter.name: parameter for parameter in (*_PARAMETERS, *_SCALES)}
        for name, value in values.items():
            if name in IGNORED or name.startswith("sagemaker_"):
                continue
            if name not in known:
                problems.append(f"{name}: unknown hyperparameter{_did_you_mean(name)}")
            elif not (isinstance(value, str) and bare(value) in NOT_SET):
                try:
                    given[name] = known[name].parse(value)
                except ConfigError as err:
                    problems.append(str(err))
        scales = {scale.name: given.pop(scale.name, scale.default) for scale in _SCALES}
        try:
            config = cls(**given)
        except ConfigError as err:
            problems.append(str(err))
        if problems:
            raise ConfigError("; ".join(problems))
        return config._scaled(scales["_learning_rate"], "_lr")._scaled(scales["_wd"], "_wd")

    def _scaled(self, factor: float, suffix: str) -> TrainConfig:
        """Return a copy in which the numbers of all three parts are multiplied by a factor."""
        if factor == 1:
            return self
        names = [part + suffix for part in ("bias", "linear", "factors")]
        full = self.resolved()
        return dataclasses.replace(self, **{name: getattr(full, name) * factor for name in names})


def _did_you_mean(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, [parameter.name for parameter in _PARAMETERS], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


_PARAMETERS = tuple(
    Parameter(
        name=f.name,
        kind=f.metadata["kind"],
        default=f.default,
        **{key: f.metadata[key] for key in ("help", "group", "low", "high", "choices", "optional")},
    )
    for f in dataclasses.fields(TrainConfig)
)
# Undocumented ones of the built-in, which multiply all learning rates and all weight decay.
_SCALES = tuple(Parameter(name, float, 1.0, "", "", low=0) for name in ("_learning_rate", "_wd"))


def parameters() -> Iterator[Parameter]:
    """Iterate over every hyperparameter, in the order of TrainConfig."""
    return iter(_PARAMETERS)


# Hyperparameters of the built-in that no model depends on: one about its log, which the container
# heeds, and those of MXNet that its configuration dump shows.
IGNORED = frozenset(
    {
        "batch_metrics_publish_interval",
        "_data_format", "_kvstore", "_log_level", "_num_gpus", "_num_kv_servers", "_optimizer",
        "_tuning_objective_metric", "_use_full_symbolic",
    }
)  # fmt: skip
