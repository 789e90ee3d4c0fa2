"""How far a training is: what the loop remembers from epoch to epoch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Run:
    """The loop's memory.

    Attributes
    ----------
    epoch : int
        Epochs done.
    history : list of dict
        One entry per epoch done; its ``epoch`` counts from 1.
    best_epoch, best_value : int, float
        The best epoch's position in the history, and its value of the metric that early stopping
        watches; -1 and NaN before there is one.
    finished : bool
        Whether early stopping has ended the training.
    planned : int
        The number of epochs that a race found; 0: none.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_value: float = float("nan")
    finished: bool = False
    planned: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Run:
        """Return the run in a file; JSON knows no NaN, so null is one.

        Raises
        ------
        KeyError, TypeError
            If something is missing or of the wrong type.
        """
        run = cls(**{f.name: values[f.name] for f in fields(cls)})
        run.best_value = float("nan") if run.best_value is None else run.best_value
        for value, kind in (
            (run.epoch, int), (run.best_epoch, int), (run.best_value, (int, float)),
            (run.history, list), (run.finished, bool), (run.planned, int),
        ):  # fmt: skip
            if not isinstance(value, kind):
                raise TypeError(f"expected a {kind}, found {value!r}")
        run.history = [
            {name: float("nan") if value is None else value for name, value in entry.items()}
            for entry in run.history
        ]
        return run
