"""What the command lines share: options that describe the data, and outputs.

Decided here: names and meaning of the options that say how a file is read, and how outputs are
opened.
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
        Whether the program chooses columns; false where the encoder of a model has chosen them.
    """
    form = parser.add_argument_group("form of the data")
    form.add_argument(
        "--format",
        choices=("libsvm", "libffm", "csv", "tsv", "parquet", "recordio"),
        help="format of the file; not given: found from its name and first bytes",
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
        help="whether libsvm calls the first feature 0; not given: 1, unless the file has a 0. "
        "Give it for test files, which may lack the first feature by chance",
    )
    if target:
        group = parser.add_argument_group("what is predicted")
        group.add_argument(
            "--target",
            metavar="NAME",
            help="column with the target; not given: rating, label, target, y or click",
        )
        group.add_argument("--weight", metavar="NAME", help="column with the weight of each row")
    if not columns:
        return
    group = parser.add_argument_group(
        "columns",
        "Lists are separated by commas, or the option is repeated. If no column is named,\n"
        "all but target and weight are used: decimal numbers as numeric, lists as multi,\n"
        "the others as categorical.",
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
    group = parser.add_argument_group(
        "recommending",
        "Not given: columns called user, user_id, ...; item, movie, film, product, ...",
    )
    group.add_argument(
        "--user", metavar="NAME", help="column of the users, or a range of features such as 0:943"
    )
    group.add_argument(
        "--item",
        metavar="NAME",
        help="column of the items, or a range of features such as 943:2625",
    )
    group.add_argument(
        "--item-columns",
        type=names,
        action="extend",
        metavar="NAME,...",
        help="columns that describe an item; not given: those with one value for each item",
    )
    group.add_argument(
        "--no-keep-seen",
        dest="keep_seen",
        action="store_false",
        default=None,
        help="do not keep in the model file who met which item; lists then hold also what a user "
        "has met already",
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
    "user",
    "item",
    "item_columns",
    "keep_seen",
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
            raise ConfigError(
                "names: expected a table without a header",
                Advice("give {names} or {header}, not both", names=..., header=True),
            )
        options["header"] = given["names"]
    for kind in _COLUMN_KINDS:
        if given.get(kind):
            options[kind] = given[kind]
    if given.get("separator"):
        if not given.get("multi") and not given.get("history"):
            raise ConfigError(
                "separator: expected columns whose values it separates, found none",
                Advice("name them with {multi} or {history}", multi=..., history=...),
            )
        for kind in ("multi", "history"):
            if kind in options:
                options[kind] = dict.fromkeys(options[kind], given["separator"])
    if given.get("standardize"):
        options["standardize"] = True
    return options


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
