"""``fm predict``: a model and a file in, a file of predictions out, batch after batch."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson

from fm.cli.options import (
    Parser,
    add_data_options,
    check_encoder,
    check_output,
    data_options,
    open_output,
    output_format,
)
from fm.data.dataset import Dataset
from fm.data.labels import is_plain
from fm.errors import ConfigError, DataError
from fm.model.load import load
from fm.model.model import Model

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = """\
  fm predict model/ new.csv                            one prediction a line
  fm predict model/ new.csv --output scored.csv --append
                                                       the table with one column more
  fm predict model/ ads.libsvm --output p.parquet      probabilities of a classifier
  fm predict model/ ads.libsvm --label --probability --output p.csv
  fm predict model.tar.gz test.protobuf --score        an artefact of SageMaker's built-in
  gunzip -c log.csv.gz | fm predict model/ - | head"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm predict --help``."""
    args = _parser().parse_args(argv)
    model = load(args.model)
    if args.output is not None:
        check_output("--output", args.output, {"the model": args.model, "the input": args.input})
    form = output_format(args, WRITERS, "txt")
    kinds = _kinds(args, model, form)
    source: Any = sys.stdin.buffer.read() if args.input == "-" else args.input
    options = data_options(args)
    check_encoder(args.model, model.encoder, source, options.get("format"))
    parts = _batches(model, source, options, args.append)
    if sys.stderr.isatty() and not (args.output is None and sys.stdout.isatty()):
        parts = _with_progress(parts)
    with open_output(args.output) as file:
        plain = form == "recordio"  # its labels are numbers
        tables = (_predicted(model, rows, kinds, table, plain) for rows, table in parts)
        WRITERS[form](file, tables)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("fm predict", "Predict each row of a file with a trained model.", EXAMPLES)
    parser.add_argument(
        "model", metavar="MODEL", help="model file, directory with one, or built-in model.tar.gz"
    )
    parser.add_argument(
        "input", metavar="INPUT", help="data file or directory; - for standard input"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write; not given: standard output"
    )
    parser.add_argument(
        "--output-format",
        choices=tuple(WRITERS),
        help="not given: as the name of FILE ends (.gz is compressed); txt on standard output",
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="write the columns of the input, too, before the predictions",
    )
    what = parser.add_argument_group(
        "what to write",
        "Not given: the probabilities of a classifier, the predictions of a regressor, the scores\n"
        "of a ranker.",
    )
    for name, text in _KINDS.items():
        what.add_argument(f"--{name}", dest="kinds", action="append_const", const=name, help=text)
    add_data_options(parser, target=False, columns=False)
    return parser


_KINDS = {
    "probability": "classifier: the probability of label 1, or of the positive label",
    "label": "classifier: the label, spelled as in training; 1 where the probability is >= 0.5",
    "score": "the raw score: the sum of the formula, before the sigmoid of a classifier",
}


def _kinds(args: argparse.Namespace, model: Model, form: str) -> list[str]:
    """Return the names of the columns to write; refuse those that the format cannot hold."""
    kinds = list(dict.fromkeys(args.kinds or ()))
    classifies = model.task.has_probabilities
    if not classifies and set(kinds) - {"score"}:
        raise ConfigError(
            f"--probability, --label: {args.model} is a {model.task.noun}, not a "
            "classifier; leave them out"
        )
    if form == "txt" and (args.append or len(kinds) > 1):
        raise ConfigError("txt holds one number a line; use --output-format csv, jsonl or parquet")
    if form == "recordio":
        if args.append or kinds:
            raise ConfigError(
                "recordio holds what the built-in algorithm answers: score, and predicted_label of "
                "a classifier; leave out --append, --probability, --label and --score, or use "
                "another format"
            )
        return ["probability", "label"] if classifies else ["prediction"]
    usual = "probability" if classifies else "score" if model.task.ranks else "prediction"
    return kinds or [usual]


# -- rows in -------------------------------------------------------------------------------------


def _batches(
    model: Model, source: Any, options: dict[str, Any], append: bool
) -> Iterator[tuple[Dataset, pa.Table | None]]:
    """Give the rows as the model's features, with their columns for --append."""
    from fm.formats.guess import guess_format
    from fm.reading.numbered import READERS
    from fm.reading.read import read_batches

    if not append:
        options = {**model.reading_options(source, options.get("format")), **options}
        for rows in read_batches(source, **options):
            yield rows, None
        return
    form = options.get("format") or guess_format(source)
    if model.encoder is None or form in READERS:
        raise ConfigError(f"--append: the input has no columns ({form}); leave it out")
    from fm.formats.tables import iter_batches

    if options.pop("zero_based", None) is not None:
        raise ConfigError("--zero-based: does not apply to a table; leave it out")
    options.setdefault("format", form)
    for table in iter_batches(source, expect=model.encoder.field_names, **options):
        yield model.as_dataset(table), table


def _with_progress(
    parts: Iterator[tuple[Dataset, pa.Table | None]],
) -> Iterator[tuple[Dataset, pa.Table | None]]:
    """Show how many rows are done."""
    from tqdm import tqdm

    with tqdm(unit="row", unit_scale=True, desc="predicting", mininterval=0.2) as bar:
        for rows, table in parts:
            yield rows, table
            bar.update(rows.num_rows)


def _predicted(
    model: Model, rows: Dataset, kinds: Sequence[str], table: pa.Table | None, as_numbers: bool
) -> pa.Table:
    """Return the predictions of some rows as columns, behind those of `table`.

    `as_numbers`: labels are 0 and 1 whatever they are in the training data.
    """
    import pyarrow as pa

    scores = model.scores(rows)
    columns: dict[str, np.ndarray] = {
        "prediction": scores,
        "score": scores,
        "probability": np.asarray(model.task.loss.link(scores)),
        "label": model.task.predictions(scores).astype(np.int8),
    }
    if not as_numbers and not is_plain(model.labels):
        columns["label"] = model.predictions(scores)
    result = pa.table({name: columns[name] for name in kinds})
    if table is None:
        return result
    for name in kinds:
        if name in table.column_names:
            raise DataError(f"--append: the input has a column {name!r} already; rename it")
    for name, column in zip(table.column_names[::-1], table.columns[::-1], strict=True):
        result = result.add_column(0, name, column)
    return result


# -- predictions out -----------------------------------------------------------------------------


def _write_csv(
    file: BinaryIO, tables: Iterator[pa.Table], header: bool = True, delimiter: str = ","
) -> None:
    import pyarrow as pa
    from pyarrow import csv

    for table in tables:
        buffer = pa.BufferOutputStream()
        options = csv.WriteOptions(include_header=header, delimiter=delimiter)
        try:
            csv.write_csv(table, buffer, options)
        except pa.ArrowInvalid as err:
            raise DataError(f"csv: {err}; write another format, such as parquet") from err
        file.write(buffer.getvalue())
        header = False


def _write_jsonl(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    for table in tables:
        rows = table.to_pylist()
        try:
            lines = [orjson.dumps(row, _as_text, orjson.OPT_APPEND_NEWLINE) for row in rows]
        except TypeError as err:
            raise DataError(f"jsonl: {err}; write another format, such as parquet") from err
        file.write(b"".join(lines))


def _as_text(value: Any) -> str:
    """Return as a text a value that has no form of its own in JSON."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime.datetime):  # also that of pandas
        return value.isoformat()
    raise TypeError


def _write_parquet(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    from pyarrow import parquet

    first = next(tables)
    with parquet.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_as_first(table, first.schema))


def _as_first(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the types of the first one: files of a folder may differ in them."""
    import pyarrow as pa

    if table.schema == schema:
        return table
    columns = []
    for field in schema:
        try:
            columns.append(table[field.name].cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as err:
            raise DataError(
                f"parquet: column {field.name!r}: expected {field.type} in all files, as in the "
                f"first, found another ({err}); give it one type in all of them, or write csv"
            ) from err
    return pa.table(columns, schema=schema)


def _write_recordio(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    from fm.formats.recordio import write_predictions

    for table in tables:
        scores, *labels = (column.to_numpy() for column in table.columns)
        write_predictions(file, scores, *labels)


WRITERS: dict[str, Callable[[BinaryIO, Iterator[Any]], None]] = {
    "txt": partial(_write_csv, header=False),
    "csv": _write_csv,
    "tsv": partial(_write_csv, delimiter="\t"),
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "recordio": _write_recordio,
}
