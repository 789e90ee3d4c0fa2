"""How a training job ends: exit code, and the file in which SageMaker looks for the reason.

Decided here: who is at fault, by the class of an error; that the reason comes first, in one line;
that the log has what there is no room for in the file.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

EXIT_USER = 1
EXIT_INTERNAL = 2
LIMIT = 1024  # characters that SageMaker shows


def guarded(job: Callable[[], int], file: Path) -> int:
    """Run a job and return the exit code; write the reason of a failure to `file`.

    The user can correct errors of fm, of the file system and of memory, and a signal that came
    before there was a model: ``ClientError``, exit code 1. All others are faults of ours:
    ``AlgorithmError``, exit code 2, with a traceback.
    """
    from container.hyperparameters import as_hyperparameter
    from fm.errors import FMError

    trace = ""
    try:
        return job()
    except FMError as err:
        code, reason = EXIT_USER, f"ClientError: {err.spelled(as_hyperparameter)}"
    except KeyboardInterrupt:
        code, reason = EXIT_USER, "ClientError: stopped by a signal before there was a model"
    except MemoryError:
        code = EXIT_USER
        reason = "ClientError: out of memory; use a larger instance, fewer factors or less data"
    except OSError as err:
        what = err.strerror or type(err).__name__
        code, reason = EXIT_USER, f"ClientError: {err.filename or 'input or output'}: {what}"
        trace = traceback.format_exc()
    except Exception as err:
        code, reason = EXIT_INTERNAL, f"AlgorithmError: {type(err).__name__}: {err}"
        trace = traceback.format_exc()
    report(" ".join(reason.split()), trace, file)
    return code


def report(reason: str, trace: str, file: Path) -> None:
    """Write a reason, and a traceback if it is not empty, to standard error and to the file."""
    shown = f"{reason}\n{trace}"[:LIMIT].rstrip()
    sys.stderr.write(shown + "\n")
    if len(shown) < len(reason):
        sys.stderr.write(f"in full: {reason}\n")
    if trace:
        sys.stderr.write(trace)
    sys.stderr.flush()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(shown, "utf-8")
    except OSError as err:
        sys.stderr.write(f"{file}: the reason cannot be written there ({err.strerror})\n")
