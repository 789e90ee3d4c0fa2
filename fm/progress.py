"""What is shown while training goes on: a bar on a terminal, one line per epoch in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

logger = logging.getLogger("fm")


class Progress:
    """A bar over epochs (and rows within a long epoch), or log lines.

    Parameters
    ----------
    epochs : int
        Number of epochs at most.
    rows : int
        Training rows per epoch.
    first : int
        The epoch training starts at.
    show : bool or None
        True: a bar; False: nothing but log lines; None: a bar if standard error is a terminal.
    """

    def __init__(self, epochs: int, rows: int, *, first: int = 0, show: bool | None = None) -> None:
        if show is None:
            show = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._epochs = epochs
        self._rows = rows
        if show:
            from tqdm import tqdm

            self._bar = tqdm(
                total=epochs * rows,
                initial=first * rows,
                desc="training",
                unit="row",
                unit_scale=True,
                dynamic_ncols=True,
                mininterval=0.2,
                file=sys.stderr,
            )

    def rows(self, count: int) -> None:
        """Note that `count` more rows were trained on."""
        if self._bar is not None:
            self._bar.update(count)

    def epoch(self, number: int, values: dict[str, float], best: bool, seconds: float) -> None:
        """Note the end of an epoch (from 0) and its metrics."""
        text = "  ".join(f"{name} {value:.5f}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_description(f"epoch {number + 1}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(text + (" *" if best else ""), refresh=False)
        logger.info("epoch %d  %s%s  (%.3g s)", number + 1, text, " *" if best else "", seconds)

    def close(self) -> None:
        """End the display; what was reached stays on the screen."""
        if self._bar is not None:
            self._bar.close()


def timer() -> float:
    """Return seconds on a clock that only runs forward."""
    return time.perf_counter()
