"""What the command lines share: options that describe the data, and how a program ends.

Floor 4. Decided here: names and meaning of the options that say how a file is read, how outputs
are opened, the form of messages, and exit codes: 0 done, 2 wrong use, data or model (one line on
standard error), 130 interrupted, 141 nobody reads our output any more (as `head` leaves a pipe).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from fm.errors import ConfigError, FMError
from fm.formats.storage import atomic_output

EXIT_WRONG = 2
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141


class Parser(argparse.ArgumentParser):
    """An argument parser with examples in its help, whose complaints are one line.

    Parameters
    ----------
    prog : str
        Name of the program, such as ``"fm predict"``.
    description : str
        What it does.
    examples : str
        Lines of commands with comments, shown at the end of the help.
    """

    def __init__(self, prog: str, description: str, examples: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # a new option must not change what an old command means
        )

    def error(self, message: str) -> NoReturn:
        """Leave with one line; argparse would print the usage too."""
        self.exit(EXIT_WRONG, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_data_options(
    parser: argparse.ArgumentParser, *, target: bool = True, columns: bool = True
) -> None:
    """Add the options that describe a data file.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Where to add them.
    target : bool
        Whether the program uses targets and weights.
    columns : bool
        Whether the program chooses columns; not so where a model's encoder has chosen.
    """
    form = parser.add_argument_group("form of the data")
    form.add_argument(
        "--format",
        choices=("libsvm", "libffm", "csv", "tsv", "parquet", "recordio"),
        help="format of the file; not given: told from its name and first bytes",
    )
    form.add_argument(
        "--delimiter", metavar="CHAR", help="what separates the cells of a text table"
    )
    form.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a text table names the columns; not given: guessed",
    )
    form.add_argument(
        "--names",
        type=names,
        action="extend",
        metavar="NAME,...",
        help="names for the columns of a text table without a header",
    )
    form.add_argument(
        "--zero-based",
        action=argparse.BooleanOptionalAction,
        help="whether libsvm calls the first feature 0; not given: 1, if the file has no 0. Say "
        "it for test files, which may lack the first feature by chance",
    )
    if target:
        group = parser.add_argument_group("what is predicted")
        group.add_argument("--target", metavar="NAME", help="column with the target")
        group.add_argument("--weight", metavar="NAME", help="column with the weight of each row")
    if not columns:
        return
    group = parser.add_argument_group(
        "columns",
        "Lists are separated by commas, or the option is repeated. If no column is named, all but "
        "target and weight are used: decimal numbers as numeric, the others as categorical.",
    )
    for kind, text in _COLUMN_KINDS.items():
        group.add_argument(
            f"--{kind}", type=names, action="extend", metavar="NAME,...", default=[], help=text
        )
    group.add_argument(
        "--separator", metavar="TEXT", help='separates the values of a multi or history cell ("|")'
    )
    group.add_argument(
        "--standardize",
        action="store_true",
        help="scale numeric columns to mean 0 and standard deviation 1",
    )
    group.add_argument(
        "--min-count",
        type=positive,
        metavar="N",
        help="values in fewer rows share the unknown feature of their column",
    )
    group.add_argument(
        "--hash-dim",
        type=positive,
        metavar="N",
        help="hash the values of each column into N features instead of listing them",
    )


_SINGLE = (
    "format",
    "delimiter",
    "header",
    "zero_based",
    "target",
    "weight",
    "min_count",
    "hash_dim",
)
_COLUMN_KINDS = {
    "categorical": "columns with one value in each row: ids, names, codes",
    "numeric": "columns with numbers",
    "multi": 'columns with sets of values, such as "Action|Comedy"',
    "history": "columns with sets of values, weighted by 1/sqrt(how many): rated or bought things",
    "ignore": "columns to leave out when no others are named",
}


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of :func:`add_data_options` as keyword arguments of :func:`fm.read`.

    Examples
    --------
    >>> parser = Parser("fm test", "A test.", "")
    >>> add_data_options(parser)
    >>> args = parser.parse_args(["--target", "stars", "--multi", "genres,tags", "--no-header"])
    >>> data_options(args)
    {'header': False, 'target': 'stars', 'multi': ['genres', 'tags']}
    """
    given = vars(args)
    options = {name: given[name] for name in _SINGLE if given.get(name) is not None}
    if given.get("names"):
        if given.get("header"):
            raise ConfigError("--names: expected a table without a header, found --header too")
        options["header"] = given["names"]
    for kind in _COLUMN_KINDS:
        if given.get(kind):
            options[kind] = given[kind]
    if given.get("separator"):
        for kind in ("multi", "history"):
            if kind in options:
                options[kind] = dict.fromkeys(options[kind], given["separator"])
    if given.get("standardize"):
        options["standardize"] = True
    return options


def names(text: str) -> list[str]:
    """Return a comma-separated list of names; a name with a comma goes in double quotes.

    Examples
    --------
    >>> names('user, "last, first"')
    ['user', 'last, first']
    """
    found = next(csv.reader([text], skipinitialspace=True), [])
    if not all(found) or not found:
        raise argparse.ArgumentTypeError(f"expected names separated by commas, found {text!r}")
    return found


def positive(text: str) -> int:
    """Return an integer >= 1.

    Examples
    --------
    >>> positive("3")
    3
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, found {text!r}")
    return int(text)


@contextmanager
def open_output(path: str | None) -> Iterator[BinaryIO]:
    """Open what is written to: standard output (None), or a file that appears when it is complete.

    What goes to a name that ends in ``.gz`` is compressed.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    with atomic_output(path) as file:
        if not path.lower().endswith(".gz"):
            yield file
            return
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            yield cast(BinaryIO, packed)


def output_ending(path: str) -> str:
    """Return what the name of a file says of its format: the ending before ``.gz``.

    Examples
    --------
    >>> output_ending("scores.CSV.gz")
    '.csv'
    """
    return Path(path.lower().removesuffix(".gz")).suffix


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
        _say(f"error: {err}")
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
        _say(level + record.getMessage())


def _show_warning(message: Warning | str, *_: Any) -> None:
    _say(f"warning: {message}")
