"""What a signal does to a training job: SIGTERM (or Ctrl-C) ends the training, not the job.

SageMaker sends SIGTERM when a job is stopped, runs out of time, or loses its spot instance, and
SIGKILL 120 seconds later. Decided here: before training, a signal ends the job. In training, the
epoch may end first, so that a checkpoint holds all that was done, if that takes no more than
:data:`SECONDS_FOR_EPOCH`; then the best model so far is saved. Once that has begun, a signal is
noted and changes nothing. Nothing heavy is imported, because a container's first process loses
every signal that comes before its handler.
"""

from __future__ import annotations

import signal
from typing import Any

SECONDS_FOR_EPOCH = 2.0


class Stop:
    """Notices signals, and interrupts the work where that is allowed.

    Attributes
    ----------
    requested : bool
        Whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupts, self._patience = True, 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGALRM, self.check)

    def after_the_epoch(self) -> None:
        """From here on a signal waits for the next :meth:`check`, but not for long."""
        self._patience = SECONDS_FOR_EPOCH

    def no_more_interrupts(self) -> None:
        """From here on a signal is only noted: the rest of the job must be done."""
        self._interrupts = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def check(self, *_: Any) -> None:
        """Raise KeyboardInterrupt if a signal came.

        Python discards an exception that a signal handler raises inside a destructor or another
        callback of the interpreter. So the job calls this from time to time.
        """
        if self.requested and self._interrupts:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    def _handle(self, *_: Any) -> None:
        if self.requested:
            return  # the first signal is being answered
        self.requested = True
        if self._patience:
            signal.setitimer(signal.ITIMER_REAL, self._patience)
        else:
            self.check()
