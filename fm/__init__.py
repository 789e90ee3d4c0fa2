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

from fm.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers; "as" says that a name is meant for others
    from fm.catalogue.catalogue import Catalogue as Catalogue
    from fm.config import TrainConfig as TrainConfig
    from fm.data.dataset import Dataset as Dataset
    from fm.datasets.survey import load_survey as load_survey
    from fm.encoding.encoder import Encoder as Encoder
    from fm.errors import ConfigError as ConfigError
    from fm.errors import DataError as DataError
    from fm.errors import DivergenceError as DivergenceError
    from fm.errors import FMError as FMError
    from fm.errors import ModelFileError as ModelFileError
    from fm.errors import UnsupportedFormatError as UnsupportedFormatError
    from fm.estimators.predictors import FMClassifier as FMClassifier
    from fm.estimators.predictors import FMRegressor as FMRegressor
    from fm.estimators.ranker import FMRanker as FMRanker
    from fm.evaluating.predictions import evaluate_predictions as evaluate_predictions
    from fm.evaluating.rankings import evaluate_ranking as evaluate_ranking
    from fm.evaluating.splits import split_by_time as split_by_time
    from fm.evaluating.splits import split_by_user as split_by_user
    from fm.evaluating.splits import split_leave_one_out as split_leave_one_out
    from fm.explaining.interactions import FieldInteractions as FieldInteractions
    from fm.explaining.interactions import Interaction as Interaction
    from fm.explaining.interactions import field_interactions as field_interactions
    from fm.explaining.terms import Explanation as Explanation
    from fm.model.load import load as load
    from fm.model.model import Model as Model
    from fm.reading.read import read as read
    from fm.recommending.folding import Folded as Folded
    from fm.recommending.recommendations import Recommendations as Recommendations
    from fm.recommending.recommender import Recommender as Recommender
    from fm.recommending.vectors import export_vectors as export_vectors
    from fm.training.fit import fit as fit
    from fm.training.loop import Epoch as Epoch

# No name is that of a module here: "import fm.evaluate" would replace it.
_NAMES_IN = {
    # data
    "reading.read": ["read"],
    "data.dataset": ["Dataset"],
    "encoding.encoder": ["Encoder"],
    "catalogue.catalogue": ["Catalogue"],
    "datasets.survey": ["load_survey"],
    # training
    "config": ["TrainConfig"],
    "training.fit": ["fit"],
    "training.loop": ["Epoch"],
    "model.model": ["Model"],
    "model.load": ["load"],
    "estimators.predictors": ["FMRegressor", "FMClassifier"],
    "estimators.ranker": ["FMRanker"],
    # recommending
    "recommending.recommender": ["Recommender"],
    "recommending.recommendations": ["Recommendations"],
    "recommending.folding": ["Folded"],
    "recommending.vectors": ["export_vectors"],
    # explaining
    "explaining.terms": ["Explanation"],
    "explaining.interactions": ["Interaction", "FieldInteractions", "field_interactions"],
    # evaluating
    "evaluating.predictions": ["evaluate_predictions"],
    "evaluating.rankings": ["evaluate_ranking"],
    "evaluating.splits": ["split_by_user", "split_by_time", "split_leave_one_out"],
    # errors
    "errors": [
        "FMError",
        "ConfigError",
        "DataError",
        "DivergenceError",
        "ModelFileError",
        "UnsupportedFormatError",
    ],
}
_HOME = {name: home for home, names in _NAMES_IN.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fm' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fm.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
