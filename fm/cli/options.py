"""What the command lines share: options that describe the data, and how a program ends.

Decided here: how a command line takes the options of reading (``fm.reading.options``), how outputs
are opened, the form of messages (advice in them names options, not arguments of Python), and exit
codes: 0 done, 2 wrong use, data or model (one line on standard error), 130 interrupted, 141 nobody
reads our output any more (as `head` leaves a pipe).
"""

from __future__ import annotations

import argparse
import csv
import errno
import gzip
import logging
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import orjson

from fm.config import parameters
from fm.errors import ConfigError, DataError, FMError
from fm.formats.storage import atomic_output
from fm.reading.options import options

if TYPE_CHECKING:
    from fm.encoding.encoder import Encoder

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


_NAME = {"metavar": "NAME"}
_NAMES = {"type": names, "action": "extend", "metavar": "NAME,..."}
_COUNT = {"type": positive, "metavar": "N"}
_SWITCH = {"action": argparse.BooleanOptionalAction}
# How a command line takes an option of fm.read; others are none.
_TAKEN: dict[str, dict[str, Any]] = {
    "target": _NAME,
    "weight": _NAME,
    "categorical": _NAMES,
    "numeric": _NAMES,
    "multi": _NAMES,
    "history": _NAMES,
    "ignore": _NAMES,
    "standardize": {"action": "store_const", "const": True},
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
    "the others as categorical."
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
        Whether the program chooses columns; not so where a model's encoder has chosen.
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
    {'header': False, 'target': 'stars', 'multi': ['genres', 'tags']}
    """
    given = vars(args)
    found = {name: given[name] for name in _TAKEN if given.get(name) not in (None, [])}
    if given.get("names"):
        if given.get("header"):
            raise ConfigError("--names: expected a table without a header, found --header too")
        found["header"] = given["names"]
    if given.get("separator"):
        named = [kind for kind in ("multi", "history") if kind in found]
        if not named:
            raise ConfigError(
                "--separator: separates the values of columns that --multi or --history names, "
                "found neither; name the columns"
            )
        for kind in named:
            found[kind] = dict.fromkeys(found[kind], given["separator"])
    return found


_SWITCHES = ("header", "zero_based", "standardize")
_ARGUMENTS = (*_TAKEN, "encoder", *(p.name for p in parameters()))
_ADVICE = re.compile(
    r"(\b(?:and|give|in|name|or|pass|say|use|where|with) |\()"
    rf"({'|'.join(_ARGUMENTS)})=(\[.*?\]|'.*?'|[\w.]*)"
)

_WIDTH = re.compile(r"(^|\b(?:give|raise) )num_features\b")  # has another name as an option


def as_options(text: str) -> str:
    """Return a message whose advice names options where it named arguments of Python.

    Examples
    --------
    >>> as_options("no column is called y; say which is the target with target=")
    'no column is called y; say which is the target with --target'
    >>> as_options("leave it out with ignore=['when'], or pass header=False")
    'leave it out with --ignore when, or pass --no-header'
    """
    return _ADVICE.sub(_option, _WIDTH.sub(r"\1--feature-dim", text))


def _option(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    dashed = name.replace("_", "-")
    if name in _SWITCHES and value in ("True", "False"):
        return f"{before}--{'' if value == 'True' else 'no-'}{dashed}"
    inner = value.strip("['\"]")
    if inner.strip("."):  # else it stands for any value
        inner = shlex.quote(inner)
    return f"{before}--{dashed} {inner}".rstrip()


def command(verb: str) -> list[str]:
    """Return the words that run a verb from where the user is, as the user runs this program."""
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
    """Return JSON, which is a thing of a kind or a list of them, as a list.

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
    """Refuse, before hours of work, a place for output that is an input or cannot be written.

    Parameters
    ----------
    option : str
        What asks for the output, such as ``"--output"``.
    path : str
        A file, which may be there, or a directory; directories are made later.
    inputs : mapping of str to path
        What each is for, and where it is; other things than paths are left alone.

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
        Name of the model's file.
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
    """Open what is written to: standard output (None), or a file that appears when it is complete.

    What goes to a name that ends in ``.gz`` is compressed.
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
    """Return what the name of a file says of its format: the ending before ``.gz``.

    Examples
    --------
    >>> output_ending("scores.CSV.gz")
    '.csv'
    """
    return Path(path.lower().removesuffix(".gz")).suffix


def output_format(args: argparse.Namespace, formats: Collection[str], usual: str) -> str:
    """Return the format of what is written: `--output-format`, or as the name of `--output` says.

    Raises ConfigError if that is none of `formats`; `usual` is that of standard output.
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
        _say(f"error: {as_options(str(err))}")
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
        _say(level + as_options(record.getMessage()))


def _show_warning(message: Warning | str, *_: Any) -> None:
    _say(f"warning: {as_options(str(message))}")
