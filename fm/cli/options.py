"""What the command lines share: options that describe the data, and outputs.

Decided here: how a command line takes the options of reading (``fm.reading.options``), and how
outputs are opened.
"""

from __future__ import annotations

import argparse
import csv
import errno
import gzip
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import orjson

from fm.cli.messages import EXIT_WRONG
from fm.errors import Advice, ConfigError, DataError
from fm.formats.storage import atomic_output
from fm.reading.options import options

if TYPE_CHECKING:
    from fm.encoding.encoder import Encoder


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


def bins(text: str) -> int | str:
    """Return the number of bins, or "auto".

    Examples
    --------
    >>> bins("12"), bins("auto")
    (12, 'auto')
    """
    if text == "auto":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'expected an integer >= 0 or "auto", found {text!r}')
    return int(text)


_NAME = {"metavar": "NAME"}
_NAMES = {"type": names, "action": "extend", "metavar": "NAME,..."}
_COUNT = {"type": positive, "metavar": "N"}
_SWITCH = {"action": argparse.BooleanOptionalAction}
# How a command line takes an option of fm.read; others are none.
_TAKEN: dict[str, dict[str, Any]] = {
    "target": _NAME,
    "weight": _NAME,
    "positive": {"metavar": "LABEL"},
    "categorical": _NAMES,
    "numeric": _NAMES,
    "multi": _NAMES,
    "history": _NAMES,
    "date": _NAMES,
    "ignore": _NAMES,
    "standardize": _SWITCH,
    "bins": {"type": bins, "metavar": "N"},
    "min_count": _COUNT,
    "hash_dim": _COUNT,
    "user": _NAME,
    "item": _NAME,
    "item_columns": _NAMES,
    "keep_seen": _SWITCH,
    "format": {"choices": ("libsvm", "libffm", "csv", "tsv", "parquet", "recordio")},
    "delimiter": {"metavar": "CHAR"},
    "header": _SWITCH,
    "zero_based": _SWITCH,
}
# Options of a command line that go with one of these.
_BESIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "history": (
        "--separator",
        {"metavar": "TEXT", "help": 'separates the values of a multi or history cell ("|")'},
    ),
    "header": (
        "--names",
        {**_NAMES, "help": "names for the columns of a text table without a header"},
    ),
}
_ABOUT = {
    "columns": "Lists are separated by commas, or the option is repeated. If no column is named,\n"
    "all but target and weight are used: decimal numbers as numeric, lists as multi,\n"
    "ISO dates as date, the others as categorical."
}


def add_data_options(
    parser: argparse.ArgumentParser, *, target: bool = True, columns: bool = True
) -> None:
    """Add the options that describe a data file, group after group as in ``fm.reading.options``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Where to add them.
    target : bool
        Whether the program uses targets and weights.
    columns : bool
        Whether the program chooses columns; false where the encoder of a model has chosen them.
    """
    groups = dict.fromkeys(option.group for option in options())
    for name in groups:
        if name == "what is predicted" and not target:
            continue
        if name in ("columns", "recommending") and not columns:
            continue
        taken = [option for option in options(name) if option.name in _TAKEN]
        if not taken:
            continue
        group = parser.add_argument_group(name, _ABOUT.get(name))
        for option in taken:
            flag = f"--{option.name.replace('_', '-')}"
            group.add_argument(flag, default=None, help=option.help, **_TAKEN[option.name])
            if option.name in _BESIDE:
                flag, how = _BESIDE[option.name]
                group.add_argument(flag, **how)


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of :func:`add_data_options` as keyword arguments of :func:`fm.read`.

    Examples
    --------
    >>> parser = Parser("fm test", "A test.", "")
    >>> add_data_options(parser)
    >>> args = parser.parse_args(["--target", "stars", "--multi", "genres,tags", "--no-header"])
    >>> data_options(args)
    {'target': 'stars', 'multi': ['genres', 'tags'], 'header': False}
    """
    given = vars(args)
    found = {name: given[name] for name in _TAKEN if given.get(name) not in (None, [])}
    if given.get("names"):
        if given.get("header"):
            raise ConfigError(
                "names: expected a table without a header",
                Advice("give {names} or {header}, not both", names=..., header=True),
            )
        found["header"] = given["names"]
    if given.get("separator"):
        named = [kind for kind in ("multi", "history") if kind in found]
        if not named:
            raise ConfigError(
                "separator: expected columns whose values it separates, found none",
                Advice("name them with {multi} or {history}", multi=..., history=...),
            )
        for kind in named:
            found[kind] = dict.fromkeys(found[kind], given["separator"])
    return found


def command(verb: str) -> list[str]:
    """Return the words that run a verb from the user's directory, as the user runs this program."""
    script = Path(sys.argv[0])
    if script.name == "fm" and shutil.which("fm") == str(script.absolute()):
        return ["fm", verb]
    python = Path(sys.executable)
    name = str(python)
    if shutil.which(python.name) == name:
        name = python.name
    elif python.is_relative_to(Path.cwd()):
        name = str(python.relative_to(Path.cwd()))
    return [name, "-m", f"fm.{verb}"]


def parse_json(option: str, text: str, wanted: str, kind: Any) -> list[Any]:
    """Return JSON as a list: a value of the wanted kind, or a list of such values.

    Examples
    --------
    >>> parse_json("--context", '{"user": 7}', "an object of columns", dict)
    [{'user': 7}]
    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise DataError(f"{option}: expected JSON, {wanted}, found {text[:60]!r} ({err})") from err
    found = found if isinstance(found, list) else [found]
    if not found or not all(isinstance(part, kind) for part in found):
        raise DataError(f"{option}: expected {wanted}, found {text[:60]!r}")
    return found


def check_output(option: str, path: str, inputs: Mapping[str, Any]) -> None:
    """Refuse, before hours of work, an output that is an input or cannot be written.

    Parameters
    ----------
    option : str
        What asks for the output, such as ``"--output"``.
    path : str
        A file, which may exist, or a directory; directories are made later.
    inputs : mapping of str to path
        What each input is for, and its path; values that are no paths are skipped.

    Raises
    ------
    ConfigError
    """
    output = Path(path).absolute()
    for name, source in inputs.items():
        if isinstance(source, str) and not output.is_dir() and _same_file(path, source):
            raise ConfigError(f"{option}: {path} is the file of {name}; name another")
    if output.exists() and not output.is_dir():
        output = output.parent
    while not output.exists():
        output = output.parent
    if not output.is_dir() or not os.access(output, os.W_OK):
        raise ConfigError(f"{option}: {output} is no directory that can be written to")


def _same_file(a: str, b: str) -> bool:
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    return os.path.isfile(a) and os.path.isfile(b) and os.path.samefile(a, b)


def check_encoder(model: str, encoder: Encoder | None, source: Any, format: str | None) -> None:
    """Refuse a table for a model that knows features by their numbers only.

    Parameters
    ----------
    model : str
        Path of the model.
    encoder : Encoder or None
        That of the model.
    source : path or bytes
    format : str or None
        That of the source, if it was named.

    Raises
    ------
    ConfigError
    """
    from fm.formats.guess import guess_format
    from fm.reading.numbered import READERS

    if encoder is not None:
        return
    form = format or guess_format(source)
    if form not in READERS:
        name = source if isinstance(source, str) else "the input"
        raise ConfigError(
            f"{name}: expected {', '.join(READERS)}, because {model} was trained on numbered "
            f"features and knows no columns, found a table ({form})"
        )


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name the output in the error of a full disk, which the operating system does not."""
    try:
        yield
    except OSError as err:
        if err.filename is None and err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(err.errno, err.strerror, path) from err
        raise


@contextmanager
def open_output(path: str | None) -> Iterator[BinaryIO]:
    """Open standard output (None), or a file that appears when it is complete.

    A file whose name ends in ``.gz`` is compressed.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    with naming(path), atomic_output(path) as file:
        if not path.lower().endswith(".gz"):
            yield file
            return
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            yield cast(BinaryIO, packed)


def output_ending(path: str) -> str:
    """Return the ending of a file's name that tells its format: the one before ``.gz``.

    Examples
    --------
    >>> output_ending("scores.CSV.gz")
    '.csv'
    """
    return Path(path.lower().removesuffix(".gz")).suffix


def output_format(args: argparse.Namespace, formats: Collection[str], usual: str) -> str:
    """Return the format to write: that of `--output-format`, or of the ending of `--output`.

    `usual` is the format of standard output. Raises ConfigError if the ending is none of `formats`.
    """
    if args.output_format or args.output is None:
        return args.output_format or usual
    from fm.formats.guess import EXTENSIONS

    ending = output_ending(args.output)
    form = EXTENSIONS.get(ending, ending.removeprefix("."))
    if form not in formats:
        raise ConfigError(
            f"--output: cannot tell the format from {args.output!r}; give --output-format"
        )
    return form
