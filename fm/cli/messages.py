"""How a command ends, and what it says on standard error.

Decided here: the form of messages (advice in them names options) and exit codes: 0 done, 2 wrong
use, data or model (one line on standard error), 130 interrupted, 141 the reader of our output has
gone (as ``head`` leaves a pipe).
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fm.errors import FMError, FMWarning, spelled_record

EXIT_WRONG = 2
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141

_OPTIONS = {"num_features": "feature_dim"}  # arguments whose options have other names


def as_option(name: str, value: Any) -> str:
    """Return how the command line spells an argument of Python; the value ``...`` stands for any.

    Examples
    --------
    >>> as_option("target", ...), as_option("num_features", 9), as_option("header", False)
    ('--target', '--feature-dim 9', '--no-header')
    >>> as_option("ignore", ["when", "who else"])
    "--ignore 'when,who else'"
    """
    option = _OPTIONS.get(name, name).replace("_", "-")
    if value is ...:
        return f"--{option} or --no-{option}" if name in ("header", "zero_based") else f"--{option}"
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {shlex.quote(listed(value) if isinstance(value, list) else str(value))}"


def listed(names: Sequence[str]) -> str:
    """Return names as the options that take several take them: separated by commas.

    Examples
    --------
    >>> listed(["user", "last, first"])
    'user,"last, first"'
    """
    return ",".join(f'"{name}"' if "," in name else name for name in names)


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run the main function of a command line and return its exit code.

    Errors that are not bugs become one line on standard error; so do warnings and the messages of
    the logger ``fm``.
    """
    try:
        with _messages():
            code = main(argv)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python would complain when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CLOSED_PIPE
    except FMError as err:
        _say(f"error: {err.spelled(as_option)}")
    except OSError as err:
        _say(f"error: {err.filename or 'input or output'}: {err.strerror or err}")
    except MemoryError:
        _say("error: out of memory; use fewer rows at a time, fewer features or fewer factors")
    return EXIT_WRONG


def _say(text: str) -> None:
    line = "fm: " + " ".join(text.split())
    if "tqdm" in sys.modules:  # keeps a progress bar in one piece
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(line + "\n")


@contextmanager
def _messages() -> Iterator[None]:
    """Show warnings and log records as lines, as long as a command runs."""
    log = logging.getLogger("fm")
    handler = _Lines()
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            yield
    finally:
        log.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        _say(level + spelled_record(record, as_option))


def _show_warning(message: Warning | str, *_: Any) -> None:
    text = message.spelled(as_option) if isinstance(message, FMWarning) else str(message)
    _say(f"warning: {text}")
