"""Interrupts: what Ctrl-C and SIGTERM do to a training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted:
    """Whether a signal came that asks the program to end."""

    is_set = False


@contextmanager
def interruptible() -> Iterator[Interrupted]:
    """Treat SIGTERM like Ctrl-C: training ends with the best model so far. Note that it came."""
    state = Interrupted()

    def stop(number: int, frame: Any) -> None:
        state.is_set = True
        raise KeyboardInterrupt

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before[number] = signal.signal(number, stop)
        except ValueError:  # not in the main thread
            break
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
