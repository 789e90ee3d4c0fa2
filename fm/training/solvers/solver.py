"""What the loop asks of a solver.

A solver holds the parameters and knows how a pass over the rows changes them. It knows nothing of
epochs to come, held-out rows, early stopping, progress bars or files: that is the loop
(``fm.training.loop``).

To add one: a file in this folder with a subclass of :class:`Solver`, and an entry that names it in
``fm.recipes``.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.model.model import Model
from fm.recipes import OPTIMIZERS, RANKING_LOSSES
from fm.training.split import Split


class Visit(NamedTuple):
    """One epoch, as a solver is asked for it.

    Attributes
    ----------
    number : int
        From 0.
    order : ndarray of int32
        The rows to visit, in this order, with padding (:func:`fm.kernels.layout.padded_order`).
    scores : ndarray of float32
        To be filled with the score of each row before its step, in the order of the visit and in
        the unit of training; empty: the scores are not needed.
    done : callable
        To be called with the number of rows trained on since the last call. It may raise
        KeyboardInterrupt.
    """

    number: int
    order: np.ndarray
    scores: np.ndarray
    done: Callable[[int], object]


class Solver(ABC):
    """How the parameters change.

    Parameters
    ----------
    data : Dataset
        The rows, with targets.
    config : TrainConfig
        Resolved.
    split : Split
        Which of the rows to train on.

    Attributes
    ----------
    types : dict of str to str
        The arrays of a checkpoint and their types.
    center, scale : float
        The solver trains on (y - center) / scale; the scores of a visit are in that unit.
    padding : tuple of int and float
        How many empty rows of label 0 filled up the last batch of the last epoch, and their score.
    """

    types: Mapping[str, str]
    padding: tuple[int, float] = (0, 0.0)
    center, scale = 0.0, 1.0

    def __init__(self, data: Dataset, config: TrainConfig, split: Split) -> None:
        self.data, self.config, self.split = data, config, split
        self.task = config.task

    @abstractmethod
    def start(self, init: Model | None = None, *, more: bool = False) -> None:
        """Set the parameters as they are before the first epoch.

        Parameters
        ----------
        init : Model, optional
            The model whose parameters to start from.
        more : bool
            Whether further rows will be trained on later.
        """

    @abstractmethod
    def epoch(self, visit: Visit) -> float:
        """Train on each row once and return their mean loss, each before its own step.

        In the unit of the targets; it need not be finite.
        """

    @abstractmethod
    def scorer(self, data: Dataset, rows: np.ndarray) -> Callable[[], np.ndarray]:
        """Return a function that scores some rows with the current parameters.

        The scores are in the unit of the targets.
        """

    @abstractmethod
    def parameters(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the current w0, w and V, in the unit of the targets; maybe as views."""

    @property
    @abstractmethod
    def kept(self) -> bool:
        """Whether parameters are kept as the best ones."""

    @abstractmethod
    def keep(self) -> None:
        """Remember the present parameters as the best ones so far."""

    @abstractmethod
    def drop(self) -> None:
        """Forget what was kept: the present parameters count."""

    @abstractmethod
    def over(self, split: Split, data: Dataset | None = None) -> Solver:
        """Return a solver of other rows with the same parameters, and with what was kept.

        Parameters
        ----------
        split : Split
        data : Dataset, optional
            The rows; not given: the same.
        """

    @abstractmethod
    def finish(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return w0, w and V: the best ones if some were kept. Nothing can be trained further."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that :meth:`restore` needs, the best parameters included."""

    @abstractmethod
    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`arrays` returned, in place of :meth:`start`."""


def make_solver(data: Dataset, config: TrainConfig, split: Split) -> Solver:
    """Return the solver of a config (resolved)."""
    home = OPTIMIZERS[config.used_optimizer].solver
    if config.task.ranks:
        home = RANKING_LOSSES[config.ranking_loss]
    module, _, name = home.partition(":")
    made: type[Solver] = getattr(importlib.import_module(f"fm.training.solvers.{module}"), name)
    return made(data, config, split)
