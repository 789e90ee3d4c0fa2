"""``fm convert``: data files and models from one format to another."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from fm.cli.lists import with_items_named
from fm.cli.options import (
    Parser,
    add_data_options,
    check_output,
    data_options,
    naming,
    open_output,
    output_ending,
    positive,
)
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError, ModelFileError
from fm.model.builtin import write_artifact
from fm.model.load import load

if TYPE_CHECKING:
    from fm.encoding.encoder import Encoder

EXAMPLES = """\
  rows of features (libsvm, libffm, recordio) into each other, tables (csv, tsv, parquet) too
    fm convert train.libsvm train.recordio
    fm convert ratings.csv ratings.parquet
  a table into rows of features; the encoder keeps what each feature number means
    fm convert train.csv train.recordio --target rating --categorical user,film \\
        --save-encoder encoder.json
    fm convert test.csv test.recordio --target rating --encoder encoder.json
  the artefact of SageMaker's built-in algorithm into our model file, and back
    fm convert model.tar.gz model.safetensors
    fm convert model.tar.gz model.safetensors --user 0:943 --item 943:2625     recommends then
    fm convert model.safetensors model.tar.gz"""

ROWS = ("libsvm", "libffm", "recordio")
TABLES = ("csv", "tsv", "parquet")
MODELS = ("safetensors", "builtin")

_OWN = ("encoder", "feature_dim", "save_encoder")  # options beside those of the data
_OF_ITEMS = {"user", "item", "item_columns", "keep_seen"}

log = logging.getLogger("fm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm convert --help``."""
    args = _parser().parse_args(argv)
    form = args.to or _format_of(args.output)
    inputs = {"the input": args.input, "the encoder": args.encoder}
    check_output("OUTPUT", args.output, inputs)
    if args.save_encoder is not None:
        check_output("--save-encoder", args.save_encoder, {**inputs, "OUTPUT": args.output})
    convert = (
        _convert_model if form in MODELS else _convert_table if form in TABLES else _convert_rows
    )
    sys.stdout.write(f"{args.output}: {convert(args, form)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("fm convert", "Turn a data file or a model into another format.", EXAMPLES)
    parser.add_argument("input", metavar="INPUT", help="data file or directory, or a model")
    parser.add_argument("output", metavar="OUTPUT", help="file to write; .gz is compressed")
    parser.add_argument(
        "--to",
        choices=(*ROWS, *TABLES, *MODELS),
        help="format of OUTPUT; not given: as its name ends (.tar.gz: builtin)",
    )
    parser.add_argument(
        "--feature-dim",
        type=positive,
        metavar="N",
        help="number of features of rows; not given: as many as they need",
    )
    parser.add_argument(
        "--encoder",
        metavar="FILE",
        help="encode a table as this encoder, or the one of this model, does",
    )
    parser.add_argument(
        "--save-encoder", metavar="FILE", help="where to keep the encoder made for a table (JSON)"
    )
    add_data_options(parser)
    return parser


def _refuse(args: argparse.Namespace, why: str, *, unless: Collection[str]) -> None:
    """Refuse options that a conversion has no use for, rather than ignore them."""
    given = {**data_options(args), **{name: getattr(args, name) for name in _OWN}}
    wrong = [name for name, value in given.items() if value is not None and name not in unless]
    if wrong:
        flags = ("names" if name == "header" and args.names else name for name in wrong)
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in flags)
        raise ConfigError(f"{shown}: does not apply, because {why}; leave it out")


def _format_of(path: str) -> str:
    from fm.formats.guess import EXTENSIONS

    endings = {**EXTENSIONS, ".safetensors": "safetensors", ".tar": "builtin"}
    if (ending := output_ending(path)) in endings:
        return endings[ending]
    raise ConfigError(f"OUTPUT: cannot tell the format from {path!r}; give --to")


def _convert_model(args: argparse.Namespace, form: str) -> str:
    own = () if form == "builtin" else ("item", "user")
    _refuse(args, "a model is converted as it is", unless=own)
    model = load(args.input)
    if args.item is not None or args.user is not None:
        model = with_items_named(model, args.input, item=args.item, user=args.user)
    if form == "builtin" and model.encoder is not None:
        log.warning("the built-in's artefact has no place for the encoder: it stays behind")
    with naming(args.output):
        if form == "builtin":
            write_artifact(model, args.output)
        else:
            model.save(args.output)
    return repr(model)


# -- tables --------------------------------------------------------------------------------------


def _convert_table(args: argparse.Namespace, form: str) -> str:
    """Copy columns as they are, batch after batch."""
    from fm.cli.predict import WRITERS
    from fm.formats.guess import guess_format
    from fm.formats.tables import iter_batches
    from fm.reading.numbered import READERS

    options = data_options(args)
    given = options.pop("format", None) or guess_format(args.input)
    if given in READERS:
        raise ConfigError(
            f"{args.input}: {given} has no columns; convert to one of {', '.join(ROWS)}"
        )
    _refuse(args, "all columns of a table are copied", unless=("format", "delimiter", "header"))
    rows = 0

    def counted() -> Any:
        nonlocal rows
        for table in iter_batches(args.input, format=given, **options):
            rows += table.num_rows
            yield table.replace_schema_metadata()

    with open_output(args.output) as file:
        WRITERS[form](file, counted())
    return f"{rows} rows"


# -- rows of features ----------------------------------------------------------------------------


def _convert_rows(args: argparse.Namespace, form: str) -> str:
    from fm.reading.read import TARGETS, read

    if args.weight is not None:
        raise ConfigError(f"--weight: {form} has no place for weights")
    options = data_options(args)
    unless = {*options, *_OWN} - _OF_ITEMS
    _refuse(args, "a file of rows has no place for items and users", unless=unless)
    encoder = None if args.encoder is None else _load_encoder(args.encoder)
    if encoder is not None and "target" not in options:
        options |= _target_beside(encoder, args.input, options)
    data = read(args.input, encoder=encoder, num_features=args.feature_dim, **options)
    if data.encoder is None:
        if args.save_encoder:
            raise ConfigError(f"--save-encoder: {args.input} has no columns to encode")
    else:
        if not (args.encoder or args.save_encoder):
            log.warning("what the feature numbers mean is not kept; give --save-encoder")
        if data.y is None and form == "recordio":
            called = ", ".join(TARGETS)
            log.warning(
                "%s: no column is called %s, so the records have no labels; name the target with "
                "--target",
                data.source, called,
            )  # fmt: skip
    with open_output(args.output) as file:
        _write_rows(file, data, form)
    if args.save_encoder and data.encoder is not None:
        with open_output(args.save_encoder) as file:
            file.write(orjson.dumps(data.encoder.to_dict()))
    return f"{data.num_rows} rows, {data.num_features} features"


def _target_beside(encoder: Encoder, source: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the target of a table, if there is one."""
    from fm.formats.guess import guess_format
    from fm.formats.tables import iter_batches
    from fm.reading.read import target_names, usual_target

    form = options.get("format") or guess_format(source)
    if form not in TABLES:
        return {}
    look = {name: options[name] for name in ("delimiter", "header") if name in options}
    expect = [*encoder.field_names, *(name for name in target_names(encoder) if name != "y")]
    first = next(iter_batches(source, format=form, expect=expect, batch_rows=1, **look))
    target = usual_target(first.column_names, encoder)
    return {} if target is None else {"target": target}


def _write_rows(file: BinaryIO, data: Dataset, form: str) -> None:
    from fm.formats import recordio, svmlight

    if form == "recordio":
        recordio.write_spmatrix_to_sparse_tensor(file, data.X, data.y)
        return
    if data.y is None:
        raise DataError(f"{data.source}: {form} needs a target in each row; name it with --target")
    if form == "libsvm":
        svmlight.write_libsvm(file, data.X, data.y)
        return
    if data.fields is None:
        raise DataError(f"{data.source}: libffm needs the field of each feature, but none is known")
    svmlight.write_libffm(file, data.X, data.y, data.fields)


def _load_encoder(path: str) -> Encoder:
    if Path(path).suffix != ".json":
        encoder = load(path).encoder
        if encoder is None:
            raise ModelFileError(f"{path}: the model has no encoder")
        return encoder
    from fm.encoding.encoder import Encoder

    try:
        return Encoder.from_dict(orjson.loads(Path(path).read_bytes()))
    except ValueError as err:
        raise ModelFileError(f"{path}: expected the JSON of an encoder ({err})") from err
