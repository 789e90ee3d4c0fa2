"""The optimizers by name, and what each hyperparameter is for them where nobody sets it.

Decided here: which optimizers there are, where their code is, and the defaults of each for each
task. Nothing here loads the compiler: the code of an optimizer (``fm.kernels.optimizers``) and of a
solver (``fm.training.solvers``) is named, and imported when training begins.

To add an optimizer: its file in ``fm/kernels/optimizers`` and an entry in :data:`OPTIMIZERS`. To
add a solver: its file in ``fm/training/solvers`` and an entry that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Optimizer:
    """An optimizer as the config and the trainer know it.

    Attributes
    ----------
    about : str
        For the help text of ``optimizer``.
    home : str
        ``module:Class`` of its code in ``fm.kernels.optimizers``.
    recipes : mapping of str to mapping
        Task (of a ranker: its ranking loss) -> name and value of hyperparameters that nobody sets.
        A task that is not in it cannot be trained with this optimizer.
    solver : str
        ``module:Class`` in ``fm.training.solvers`` of what runs through the rows.
    long_rows : bool
        Whether unset learning rates are lowered where rows are long (see ``fm.training.rates``).
    l1 : bool
        Whether an L1 penalty makes exact zeros.
    scales : bool
        Whether features may be scaled inside training (see ``fm.training.scaling``).
    """

    about: str
    home: str
    recipes: Mapping[str, Mapping[str, Any]]
    solver: str = "rows:ByRow"
    long_rows: bool = False
    l1: bool = False
    scales: bool = True


#: The losses of a ranker, each with its solver.
RANKING_LOSSES: dict[str, str] = {
    "logistic": "negatives:ByRowWithNegatives",
    "bpr": "pairs:ByPair",
    "warp": "pairs:ByPair",
}


def _recipe(rates: tuple[float, float], wd: tuple[float, float], **more: Any) -> dict[str, Any]:
    """Return a recipe: learning rates of (w0 and w, V), L2 penalties of (w, V)."""
    return {
        "shuffle": True, "scale_target": True,
        "bias_lr": rates[0], "linear_lr": rates[0], "factors_lr": rates[1],
        "bias_wd": 0.0, "linear_wd": wd[0], "factors_wd": wd[1],
        "linear_init_sigma": 0.0, "factors_init_sigma": 0.015,
        "lr_decay": 0.0, "eps": 1e-8,
        **more,
    }  # fmt: skip


def _ranking(
    negatives: int, rates: tuple[float, float], wd: tuple[float, float], **more: Any
) -> dict[str, Any]:
    """Return a recipe of a ranker: chosen on rows held out of MovieLens 100K and 1M."""
    return _recipe(rates, wd, **{"num_negatives": negatives, "factors_init_sigma": 0.1, **more})


# The built-in's own defaults (its default-conf.json, printed in every training log).
_SAGEMAKER = {
    "shuffle": False, "scale_target": False, "validation_fraction": 0.0, "lr_decay": 0.0,
    "bias_lr": 0.1, "linear_lr": 0.001, "factors_lr": 0.0001, "eps": 1e-8,
    "bias_wd": 0.01, "linear_wd": 0.001, "factors_wd": 0.00001,
    "bias_init_method": "normal", "bias_init_sigma": 0.01,
    "linear_init_sigma": 0.01, "factors_init_sigma": 0.001,
}  # fmt: skip

# Chosen on held-out parts of the training data of nine data sets (scripts/bench/tune.py), a
# ranker's on two; with adagrad and logistic loss also on those of Last.fm and of Frappe.
OPTIMIZERS = {
    "sgd": Optimizer(
        "normalised steps that cannot diverge",
        "sgd:Sgd",
        {
            "regressor": _recipe((0.01, 0.02), (0.005, 0.05), lr_decay=0.02),
            "binary_classifier": _recipe((0.012, 0.03), (0.005, 0.02)),
            "logistic": _ranking(8, (0.02, 0.02), (0.02, 0.008), lr_decay=0.02),
            "bpr": _ranking(8, (0.03, 0.03), (0.005, 0.01), lr_decay=0.05),
            "warp": _ranking(20, (0.03, 0.03), (0.005, 0.02), lr_decay=0.05),
        },
        long_rows=True,
    ),
    "adagrad": Optimizer(
        "",
        "adagrad:AdaGrad",
        {
            "regressor": _recipe((0.03, 0.035), (0.012, 0.06)),
            "binary_classifier": _recipe((0.03, 0.03), (0.01, 0.012), lr_decay=0.05),
            "logistic": _ranking(20, (0.05, 0.08), (0.005, 0.006), factors_init_sigma=0.05),
            "bpr": _ranking(8, (0.05, 0.05), (0.005, 0.01)),
            "warp": _ranking(20, (0.05, 0.05), (0.005, 0.06)),
        },
    ),
    "adam": Optimizer(
        "",
        "adam:Adam",
        {
            "regressor": _recipe((0.0004, 0.0008), (0.009, 0.07)),
            "binary_classifier": _recipe((0.0005, 0.0007), (0.006, 0.02)),
            "logistic": _ranking(8, (0.001, 0.001), (0.005, 0.01)),
            "bpr": _ranking(8, (0.001, 0.001), (0.005, 0.01)),
            "warp": _ranking(20, (0.001, 0.001), (0.005, 0.03)),
        },
    ),
    "ftrl": Optimizer(
        "exact zeros under l1",
        "ftrl:Ftrl",
        {
            "regressor": _recipe((0.06, 0.04), (0.035, 0.005)),
            "binary_classifier": _recipe((0.06, 0.04), (0.035, 0.005)),
            "logistic": _ranking(8, (0.06, 0.04), (0.02, 0.005)),
            "bpr": _ranking(8, (0.06, 0.04), (0.02, 0.01)),
            "warp": _ranking(20, (0.06, 0.04), (0.02, 0.1)),
        },
        l1=True,
    ),
    "sagemaker": Optimizer(
        "the built-in algorithm's lazy mini-batch Adam, step for step",
        "lazy_adam:LazyAdam",
        {"regressor": _SAGEMAKER, "binary_classifier": _SAGEMAKER},
        solver="minibatch:MiniBatches",
        scales=False,
    ),
}
