"""fm: factorization machines, trained by compiled kernels, served anywhere.

>>> import numpy as np
>>> import fm
>>> data = fm.Dataset.from_arrays(np.eye(4), [1.0, 2.0, 3.0, 4.0])
>>> model = fm.fit(data, fm.TrainConfig(num_factors=2, linear_lr=0.2))
>>> model.predict(data).round().tolist()
[1.0, 2.0, 3.0, 4.0]

Names are imported when they are first used: ``import fm`` costs little, and what only predicts
never loads the compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fm.config import TrainConfig
    from fm.data.dataset import Dataset
    from fm.encoding.encoder import Encoder
    from fm.errors import (
        ConfigError,
        DataError,
        DivergenceError,
        FMError,
        ModelFileError,
        UnsupportedFormatError,
    )
    from fm.estimators import FMClassifier, FMRanker, FMRegressor
    from fm.model.model import Model, load
    from fm.reading.read import read
    from fm.recommending.recommendations import Recommendations
    from fm.training.fit import fit

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "DivergenceError": "errors",
    "FMError": "errors",
    "ModelFileError": "errors",
    "UnsupportedFormatError": "errors",
    "TrainConfig": "config",
    "Dataset": "data.dataset",
    "Encoder": "encoding.encoder",
    "read": "reading.read",
    "Model": "model.model",
    "load": "model.model",
    "Recommendations": "recommending.recommendations",
    "fit": "training.fit",
    "FMClassifier": "estimators",
    "FMRanker": "estimators",
    "FMRegressor": "estimators",
}

__all__ = [
    "ConfigError",
    "DataError",
    "Dataset",
    "DivergenceError",
    "Encoder",
    "FMClassifier",
    "FMError",
    "FMRanker",
    "FMRegressor",
    "Model",
    "ModelFileError",
    "Recommendations",
    "TrainConfig",
    "UnsupportedFormatError",
    "fit",
    "load",
    "read",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fm' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fm.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
