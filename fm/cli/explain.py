"""``fm explain``: a model and rows in, the terms of their scores out.

Decided here: which rows are explained, and how the terms are written to a file. Not decided here:
how a score is split (``fm.explaining.terms``), which pairs come first
(``fm.explaining.interactions``), how they are drawn (``fm.explaining.pictures``).
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson
import scipy.sparse as sp

from fm.cli.lists import WRITERS as LISTS
from fm.cli.options import (
    Parser,
    add_data_options,
    check_encoder,
    check_output,
    data_options,
    naming,
    open_output,
    output_format,
    parse_json,
    positive,
)
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.explaining.interactions import FieldInteractions, field_interactions
from fm.explaining.terms import Explanation
from fm.model.load import load
from fm.model.model import Model
from fm.sparse import sparse_row

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = """\
  fm explain model/ new.csv                            the terms of the first five scores
  fm explain model/ new.csv --rows 1000 -o terms.parquet
                                                       a table with a row for each term
  fm explain model/ --row '{"user": "42", "film": "Alien (1979)"}'
  fm explain model/ --row '{"features": [0, 943], "values": [1, 1]}' --json
                                                       a model of numbered features
  fm explain model/ new.csv --rows 1 --picture terms.png
  fm explain model/ test.csv --interactions -n 50      the strongest pairs of all rows
  fm explain model/ test.csv --interactions --picture fields.svg     and a heat map of the fields"""

_ROWS, _PAIRS = 5, 20  # rows and pairs that are shown if no number is given
ROWS_AT_ONCE = 1000  # rows whose terms go into one table

log = logging.getLogger("fm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm explain --help``."""
    # Intermixed: else argparse takes FILE for absent if an option stands before it.
    args = _parser().parse_intermixed_args(argv)
    form, options = output_format(args, OF_ROWS, "table"), _checked(args)
    model = load(args.model)
    parts = _read(args, model, options) if args.row is None else iter(_told(args, model))
    if args.interactions:
        _pairs_of(args, form, model, sp.vstack([part.X for part in parts], format="csr"))
        return 0
    found: Iterator[Explanation] = (
        model.explain(part.take(np.array([row]))) for part in parts for row in range(part.num_rows)
    )
    if args.picture is not None:
        first, *more = itertools.islice(found, 2)
        if more:
            raise ConfigError(
                "--picture: expected one row to draw, found more; say --rows 1, or one --row"
            )
        _draw(args.picture, lambda: first)
        found = iter([first])
    with open_output(args.output) as file:
        OF_ROWS[form](file, found)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fm explain",
        "Show the terms of the scores of rows: the bias, the weight of each entry, and what each\n"
        "pair of entries adds. With --interactions: the pairs that matter most in all rows.",
        EXAMPLES,
    )
    parser.usage = "%(prog)s [-h] MODEL [FILE] [OPTIONS]"
    parser.add_argument(
        "model", metavar="MODEL", help="model file, directory with one, or built-in model.tar.gz"
    )
    parser.add_argument(
        "input", metavar="FILE", nargs="?", help="data file or directory; - for standard input"
    )
    add = parser.add_argument_group("which rows").add_argument
    add(
        "--rows",
        type=positive,
        metavar="N",
        help=f"the first N of FILE; not given: {_ROWS}, for a picture 1, for --interactions all",
    )
    add(
        "--row",
        action="append",
        metavar="JSON",
        help="instead of FILE: an object of columns, or of the lists features and values; or a "
        "list of objects; repeatable",
    )
    add = parser.add_argument_group("what to show").add_argument
    add(
        "--interactions",
        action="store_true",
        help="the pairs of features that matter most: by the size of the mean contribution times "
        "the square root of the number of rows with the pair",
    )
    add("-n", type=positive, metavar="N", help=f"how many --interactions; not given: {_PAIRS}")
    add = parser.add_argument_group("what to write").add_argument
    add("-o", "--output", metavar="FILE", help="where to write; not given: standard output")
    add(
        "--output-format",
        choices=tuple(OF_ROWS),
        help="not given: told from the name of FILE (.gz is compressed); table on standard output",
    )
    add(
        "--json",
        dest="output_format",
        action="store_const",
        const="json",
        help="the same as --output-format json: a list, with everything about each row",
    )
    add(
        "--picture",
        metavar="FILE",
        help="draw the terms of one row, or of --interactions a heat map of the fields: .png, "
        ".svg or .pdf; needs matplotlib",
    )
    add_data_options(parser, target=False, columns=False)
    return parser


def _checked(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that say how FILE is read; refuse options that exclude each other."""
    options = data_options(args)
    if args.input is None and args.row is None:
        raise ConfigError("explain: expected rows, found none; name a FILE or say --row")
    if args.row is not None:
        if args.input is not None:
            raise ConfigError(f"--row: stands instead of a FILE, found {args.input}; leave one out")
        if options or args.rows is not None:
            raise ConfigError(
                "--rows, --format, --delimiter, --header, --names, --zero-based: say how a FILE is "
                "read, found --row; leave them out"
            )
    if args.n is not None and not args.interactions:
        raise ConfigError("-n: says how many --interactions; say that too, or leave it out")
    inputs = {"the model": args.model, "the input": args.input}
    if args.output is not None:
        check_output("--output", args.output, inputs)
    if args.picture is not None:
        check_output("--picture", args.picture, {**inputs, "--output": args.output})
    return options


# -- rows in ---------------------------------------------------------------------------------------


def _read(args: argparse.Namespace, model: Model, options: dict[str, Any]) -> Iterator[Dataset]:
    """Yield the first rows of the file as features; readers refuse a file without rows."""
    from fm.formats.tables import BATCH_ROWS
    from fm.reading.read import read_batches

    usual = sys.maxsize if args.interactions else 1 if args.picture is not None else _ROWS
    left = args.rows or usual
    source: Any = sys.stdin.buffer.read() if args.input == "-" else args.input
    form = options.get("format")
    check_encoder(args.model, model.encoder, source, form)
    options = {**model.reading_options(source, form), **options}
    for rows in read_batches(source, batch_rows=min(left, BATCH_ROWS), **options):
        yield rows if rows.num_rows <= left else rows.take(np.arange(left))
        left -= rows.num_rows
        if left <= 0:
            return


def _told(args: argparse.Namespace, model: Model) -> list[Dataset]:
    """Return the rows of --row as features, one by one: each may leave out other columns."""
    wanted = "an object or a list of them"
    rows = [row for text in args.row for row in parse_json("--row", text, wanted, dict)]
    numbered = all(row.keys() == {"features", "values"} for row in rows)
    if model.encoder is None and not numbered:
        raise DataError(
            '--row: expected {"features": [numbers], "values": [as many]}, because '
            f"{args.model} was trained on numbered features and knows no columns, found other keys"
        )
    try:
        if not numbered or model.encoder is not None and "features" in model.encoder.field_names:
            model.as_dataset(rows)  # its error names the row that is wrong
            return [model.as_dataset([row]) for row in rows]
        expected = "row {}: expected as many values as numbers of features"
        parts = [
            sparse_row(
                row["features"], row["values"], model.num_features, expected=expected.format(i)
            )
            for i, row in enumerate(rows, 1)
        ]
        return [model.as_dataset(part) for part in parts]
    except DataError as err:
        raise DataError(f"--row: {err.message}", err.advice) from err
    except ValueError as err:  # numpy's
        raise DataError(
            "--row: expected lists of numbers as features and values, found lists within them"
        ) from err


# -- explanations out ------------------------------------------------------------------------------


def _draw(path: str, made: Callable[[], Explanation | FieldInteractions]) -> None:
    try:
        with naming(path):
            made().plot(path)
    except ConfigError as err:  # its text begins with the name of a function or an argument
        raise ConfigError(f"--picture: {str(err).partition(': ')[2]}") from err


def _pairs_of(args: argparse.Namespace, form: str, model: Model, X: sp.csr_matrix) -> None:
    """Draw and write the strongest pairs of some rows."""
    import pyarrow as pa

    found = model.interactions(X, args.n or _PAIRS)
    if not found:
        log.warning("no two features occur together in these rows")
    columns = {
        "rank": pa.array(range(1, len(found) + 1), pa.int32()),
        "contribution": pa.array([pair.contribution for pair in found], pa.float64()),
        "product": pa.array([pair.product for pair in found], pa.float64()),
        "rows": pa.array([pair.rows for pair in found], pa.int64()),
        "first": pa.array([pair.first for pair in found], pa.string()),
        "second": pa.array([pair.second for pair in found], pa.string()),
    }
    if args.picture is not None:
        _draw(args.picture, lambda: field_interactions(model, X))
    with open_output(args.output) as file:
        OF_PAIRS[form](file, iter([pa.table(columns)]))


def _write_text(file: BinaryIO, found: Iterator[Explanation]) -> None:
    between = ""
    for number, one in enumerate(found, 1):
        file.write(f"{between}row {number}\n{one}\n".encode())
        between = "\n"


def _write_objects(file: BinaryIO, found: Iterator[Explanation]) -> None:
    _write_json(file, [{"row": number, **one.to_dict()} for number, one in enumerate(found, 1)])


def _write_json(file: BinaryIO, rows: list[dict[str, Any]]) -> None:
    file.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _tables(found: Iterator[Explanation]) -> Iterator[pa.Table]:
    """Yield tables with a row for each term; those of a score add up to it."""
    import pyarrow as pa

    numbered = enumerate(found, 1)
    while part := list(itertools.islice(numbered, ROWS_AT_ONCE)):
        columns: dict[str, list[Any]] = {name: [] for name in ("row", "score", "probability")}
        terms: list[tuple[str, float]] = []
        for number, one in part:
            listed = [("bias", one.bias), *one.terms(len(one.linear) + len(one.pairs))]
            for name, value in zip(columns, (number, one.score, one.probability), strict=True):
                columns[name] += [value] * len(listed)
            terms += listed
        if part[0][1].probability is None:
            del columns["probability"]
        names, values = zip(*terms, strict=True)
        yield pa.table({**columns, "term": names, "contribution": values})


def _as_terms(write: Callable[[BinaryIO, Iterator[Any]], None]) -> Callable[..., None]:
    return lambda file, found: write(file, _tables(found))


OF_PAIRS: dict[str, Callable[..., None]] = {
    **LISTS,
    "json": lambda file, tables: _write_json(file, [r for t in tables for r in t.to_pylist()]),
}
OF_ROWS: dict[str, Callable[..., None]] = {
    **{name: _as_terms(write) for name, write in LISTS.items()},
    "table": _write_text,
    "json": _write_objects,
}
