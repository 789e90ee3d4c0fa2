"""What is shown while training goes on: a bar on a terminal, one line per epoch in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

logger = logging.getLogger("fm")

# What matters is on the left: on a narrow terminal the bar shrinks first, then the end is cut off.
_FORM = (
    "{desc}: {percentage:3.0f}%{postfix} |{bar}| {remaining} left, {rate_fmt}, "
    "{n_fmt}/{total_fmt} rows"
)


class Progress:
    """A bar over epochs (and rows within a long epoch), or log lines.

    Parameters
    ----------
    epochs : int
        The most epochs there will be.
    rows : int
        Training rows per epoch.
    first : int
        How many epochs are done already.
    show : bool or None
        True: a bar; False: nothing but log lines; None: a bar if standard error is a terminal.
    log : bool
        Whether there are log lines.
    """

    def __init__(
        self,
        epochs: int,
        rows: int,
        *,
        first: int = 0,
        show: bool | None = None,
        log: bool = True,
    ) -> None:
        if show is None:
            show = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._epochs = epochs
        self._rows = rows
        self._best, self._log = "", log
        if show:
            from tqdm import tqdm

            self._bar = tqdm(
                total=epochs * rows,
                initial=first * rows,
                desc="training",
                unit=" rows",
                unit_scale=True,
                bar_format=_FORM,
                dynamic_ncols=True,
                mininterval=0.2,
                file=sys.stderr,
            )

    def rows(self, count: int) -> None:
        """Note that `count` more rows were trained on."""
        if self._bar is not None:
            self._bar.update(count)

    def epoch(self, number: int, values: dict[str, float], best: bool, seconds: float) -> None:
        """Note the end of an epoch (from 1) and its metrics.

        Parameters
        ----------
        number : int
        values : dict of str to float
            The loss of the training rows, then the metrics of the validation data; the bar
            shows the first two.
        best : bool
            Whether no earlier epoch was better on the validation data.
        seconds : float
            Duration of the epoch.
        """
        if self._bar is not None:
            if best:
                self._best = f", best {number}"
            text = ", ".join(f"{name} {value:.4f}" for name, value in list(values.items())[:2])
            self._bar.set_description_str(f"epoch {number}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(text + self._best, refresh=False)
        if not self._log:
            return
        logger.info(
            "epoch %d of %d: %s (%s, %s rows/s)%s",
            number,
            self._epochs,
            ", ".join(f"{name} {value:.5f}" for name, value in values.items()),
            _duration(seconds),
            _rounded(self._rows / max(seconds, 1e-9)),
            ", best so far" if best else "",
        )

    def close(self) -> None:
        """End the display; what was reached stays on the screen."""
        if self._bar is not None:
            self._bar.close()


def timer() -> float:
    """Return seconds on a clock that only runs forward."""
    return time.perf_counter()


def _duration(seconds: float) -> str:
    """Return a duration in a unit that suits it.

    Examples
    --------
    >>> _duration(0.01234), _duration(72.6)
    ('12.3 ms', '72.6 s')
    """
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _rounded(count: float) -> str:
    """Return three digits of a large number.

    Examples
    --------
    >>> _rounded(5_432_100), _rounded(87_654), _rounded(99)
    ('5.43M', '87.7k', '99')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"
