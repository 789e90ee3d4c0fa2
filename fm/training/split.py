"""Which rows are trained on, and which are held out for early stopping.

Decided here: from 1,000 rows on a tenth is held out, unless the config says otherwise or there are
validation data. A ranker's rows are split by user (``fm.training.interactions``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.model.model import Model
from fm.training.interactions import Interactions, split_interactions

MIN_ROWS_TO_HOLD_OUT = 1000
_FRACTION, _FRACTION_OF_USERS = 0.1, 1.0


@dataclass(frozen=True)
class Split:
    """Row numbers, int32, ascending.

    Attributes
    ----------
    rows : ndarray
        To train on.
    held_out : ndarray or None
        To judge by; None: no rows.
    met : Interactions or None
        Who met what in the rows to train on; only for a ranker.
    """

    rows: np.ndarray
    held_out: np.ndarray | None = None
    met: Interactions | None = None


def split_rows(
    data: Dataset, config: TrainConfig, *, hold_out: bool = False, init: Model | None = None
) -> Split:
    """Return which rows to train on, and which to hold out.

    Parameters
    ----------
    data : Dataset
    config : TrainConfig
        Resolved.
    hold_out : bool
        Whether rows may be held out.
    init : Model, optional
        The model that training goes on from: what its users met counts as met.
    """
    fraction = config.validation_fraction
    if fraction is None:
        enough = config.patience and data.num_rows >= MIN_ROWS_TO_HOLD_OUT
        usual = _FRACTION_OF_USERS if config.task.ranks else _FRACTION
        fraction = usual if enough else 0.0
    if not hold_out:
        fraction = 0.0
    if config.task.ranks:
        return Split(*split_interactions(data, config, fraction, init))
    count, rows = data.num_rows, np.arange(data.num_rows, dtype=np.int32)
    held = min(max(1, round(fraction * count)), count - 1) if fraction else 0
    if not held:
        return Split(rows)
    return Split(*divided(rows, held, np.random.default_rng([config.seed, 1])))


def divided(
    rows: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to train on, and `count` rows drawn to judge by; both ascending."""
    mixed = rng.permutation(rows)
    return np.sort(mixed[count:]), np.sort(mixed[:count])
