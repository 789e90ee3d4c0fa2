"""``fm train``: a file in, a model file out.

Decided here: how further files are read so that their features are those of the training file, and
what a signal does. Not decided here: hyperparameters (the options are made from ``fm.config``),
training and its task (``fm.training``), what is shown (``fm.cli.report``).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from fm.cli.interrupts import interruptible
from fm.cli.messages import EXIT_INTERRUPTED
from fm.cli.options import (
    Parser,
    add_data_options,
    check_encoder,
    check_output,
    data_options,
    naming,
)
from fm.cli.report import texts_of_data, texts_of_model
from fm.config import TrainConfig, parameters
from fm.data.dataset import Dataset
from fm.data.labels import ZERO_ONE, is_zero_one
from fm.errors import ConfigError, DataError
from fm.model.file import FILE_NAME
from fm.model.load import load
from fm.model.model import Model
from fm.parameter import Parameter
from fm.reading.finding_items import continued
from fm.recipes import OPTIMIZERS
from fm.tasks import CLASSIFIER, REGRESSOR, Task
from fm.training.checkpoint import is_checkpoint
from fm.training.checks import check_labels, with_labels, with_task
from fm.training.fit import fit

EXAMPLES = """\
  fm train                                        the embedded demo: who likes which cuisine
  fm train ratings.csv                            the target is the column rating, label, ...
  fm train ratings.csv --target stars --categorical user,film --numeric age --test test.csv
  fm train u1.base --names user,film,rating,time --ignore time --num-factors 32
  fm train clicks.libsvm --predictor-type binary_classifier --optimizer adagrad --output m/
  fm train plays.csv --predictor-type ranker --user listener --item song
                                                  no ratings, only who met what: learn to rank
  fm train big.parquet --checkpoint big.checkpoint --resume
then:
  fm predict model.safetensors new.csv
  fm recommend model.safetensors --user 42"""

_WORSE = 1.2  # from this many times the error of the training mean on, it is not by chance

log = logging.getLogger("fm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm train --help``."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        from fm.cli.demo import main as demo

        return demo()
    args = _parse(given)
    with _log_level(quiet=args.quiet):
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    init = None if args.init is None else load(args.init)
    config = _config(args, init)
    _check_outputs(args)
    say = _silent if args.quiet or args.json else _say
    with interruptible() as interrupted:
        rows = _read(args, config, init)
        config, rows = _checked(args, config, init, rows)
        report = _report_of_data(rows.data, config)
        for name, text in texts_of_data(rows.data, config, report):
            say(name, text)
        begun = time.perf_counter()
        model = _fitted(args, config, init, rows)
        report["seconds"] = time.perf_counter() - begun
        with naming(args.output):
            path = model.save(args.output)
    _warn_of_a_useless_model(model, report["baseline"])
    report |= {"model": str(path), "metrics": model.metrics, "history": model.history}
    report |= {"config": model.config.to_dict(), "interrupted": interrupted.is_set}
    if rows.test is not None:
        report["test"] = _measured(model, rows.data, rows.test)
    for name, text in texts_of_model(args, model, path, report):
        say(name, text)
    if args.json:
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")
    return EXIT_INTERRUPTED if interrupted.is_set else 0


def _fitted(
    args: argparse.Namespace, config: TrainConfig, init: Model | None, rows: _Rows
) -> Model:
    if args.resume and not os.path.exists(args.checkpoint):
        log.info("%s: no checkpoint yet; training starts at epoch 1", args.checkpoint)
    return fit(
        rows.data,
        config,
        validation=rows.validation,
        init=init,
        checkpoint=args.checkpoint,
        resume=args.resume,
        progress=False if args.quiet else None,
    )


# -- the command line ------------------------------------------------------------------------------


def _parse(given: list[str]) -> argparse.Namespace:
    parser = _parser()
    args, unknown = parser.parse_known_args(_with_dashes(given))
    if unknown:
        from difflib import get_close_matches

        name = next((text for text in unknown if text.startswith("-")), unknown[0])
        known = parser._option_string_actions
        close = get_close_matches(name.partition("=")[0], known, n=1)
        parser.error(f"unknown argument {name}" + (f"; did you mean {close[0]}?" if close else ""))
    if args.data is None:
        parser.error("expected a data file; without any argument the embedded demo runs")
    if args.resume and args.checkpoint is None:
        parser.error("--resume: expected --checkpoint FILE too")
    if args.output.endswith(os.sep):  # a directory that may not exist yet
        args.output += FILE_NAME
    return args


def _with_dashes(given: list[str]) -> list[str]:
    """Return the arguments with - for _ in the names of options: both spellings are accepted."""
    result: list[str] = []
    for at, text in enumerate(given):
        if text == "--":
            return result + given[at:]
        name, equals, value = text.partition("=")
        result.append(name.replace("_", "-") + equals + value if text[:2] == "--" else text)
    return result


def _parser() -> Parser:
    parser = Parser(
        "fm train",
        "Train a factorization machine on a file and save the model.\n"
        "Without any argument: a demonstration on embedded data.",
        EXAMPLES,
    )
    parser.usage = "%(prog)s [-h] [DATA] [OPTIONS]"  # a line for each of the options is below
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="training data, with targets: a file or a directory of files",
    )
    parser.add_argument("--test", metavar="FILE", help="measure the finished model on this file")
    parser.add_argument(
        "--validation",
        metavar="FILE",
        help="what early stopping watches; not given: a held-out part of DATA",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        default=FILE_NAME,
        help="where to save the model, a file or a directory (default: %(default)s)",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="start from this model: its parameters, encoder, num_factors and predictor_type",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="write the state of the training to this file, every half a minute and at the end",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint, if there is one, as if training had not been interrupted",
    )
    parser.add_argument("--json", action="store_true", help="write a report as JSON, no text")
    parser.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    add_data_options(parser)
    groups: dict[str, Any] = {}
    for parameter in parameters():
        if parameter.group not in groups:
            groups[parameter.group] = parser.add_argument_group(
                f"hyperparameters: {parameter.group}"
            )
        groups[parameter.group].add_argument(
            f"--{parameter.name.replace('_', '-')}",
            dest=parameter.name,
            metavar=_metavar(parameter),
            help=f"{parameter.help} [{_default_text(parameter)}]".replace("%", "%%"),
        )
    return parser


def _metavar(parameter: Parameter) -> str:
    if parameter.choices:
        return "{" + ",".join(parameter.choices) + "}"
    return {bool: "{true,false}", int: "N", float: "X", str: "TEXT"}[parameter.kind]


def _default_text(parameter: Parameter) -> str:
    """Return default and range of a hyperparameter in words.

    Examples
    --------
    >>> [_default_text(p) for p in parameters() if p.name in ("epochs", "factors_lr")]
    ['an integer >= 1; default 100', 'a number >= 0; default with sgd 0.02, for labels 0.03']
    """
    default = parameter.default
    sgd = OPTIMIZERS["sgd"].recipes
    recipes = [sgd[task].get(parameter.name) for task in (REGRESSOR, CLASSIFIER)]
    if default is not None:
        text = f"default {_spelled(default)}"
    elif recipes == [None, None]:
        text = "default: not set"
    else:
        text = f"default with sgd {_spelled(recipes[0])}"
        if recipes[0] != recipes[1]:
            text += f", for labels {_spelled(recipes[1])}"
    named = parameter.choices or parameter.kind is bool  # the metavar shows the range
    return text if named else f"{parameter.range_text}; {text}"


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _config(args: argparse.Namespace, init: Model | None) -> TrainConfig:
    """Return the config of the options; one error names all that is wrong with it."""
    names = (parameter.name for parameter in parameters())
    values = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if init is not None:
        values.setdefault("num_factors", init.num_factors)
        values.setdefault("predictor_type", init.config.predictor_type)
    return TrainConfig.from_strings(values)


def _check_outputs(args: argparse.Namespace) -> None:
    inputs = {name: getattr(args, name) for name in ("data", "test", "validation")}
    check_output("--output", args.output, inputs)  # may be the model of --init: a new version
    if args.checkpoint is not None:
        output = Path(args.output)
        output = output / FILE_NAME if output.is_dir() else output
        inputs |= {"init": args.init, "output": str(output)}
        check_output("--checkpoint", args.checkpoint, inputs)
        if args.init is not None:
            init = Path(args.init)
            init = init / FILE_NAME if init.is_dir() else init
            again = "--init, which --resume starts from again"
            check_output("--output", str(output), {again: str(init)})
        if os.path.isfile(args.checkpoint) and not is_checkpoint(args.checkpoint):
            raise ConfigError(
                f"--checkpoint: {args.checkpoint}: expected a checkpoint or no file, found another "
                "file, which would be overwritten; name another path"
            )


# -- data ------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """The rows to train on, to measure the finished model on, and to watch meanwhile."""

    data: Dataset
    test: Dataset | None
    validation: Dataset | None


def _read(args: argparse.Namespace, config: TrainConfig, init: Model | None) -> _Rows:
    """Return the rows of all files, all with the features of the training file."""
    from fm.formats.guess import guess_format
    from fm.reading.read import read

    options, needed = data_options(args), not config.task.ranks
    form = options.get("format")
    data = read(args.data, require_target=needed, **_first_options(args, config, init))
    if init is not None and init.catalogue is not None:
        data = continued(init.catalogue, data)  # as fit does; here for the report
    same = ("format", "delimiter", "header", "target", "weight")
    further: dict[str, Any] = {name: options[name] for name in same if name in options}
    if not is_zero_one(data.labels):
        further["labels"] = data.labels
    if data.encoder is not None:
        further["encoder"] = data.encoder
    else:
        further["num_features"] = max(data.num_features, config.feature_dim or 0)

    def like_data(path: str | None) -> Dataset | None:
        if path is None:
            return None
        more: dict[str, Any] = {}
        if data.zero_based is not None and (form or guess_format(path)) == "libsvm":
            more["zero_based"] = data.zero_based  # the training file decides for all
        return read(path, require_target=needed, **further, **more)

    return _Rows(data, like_data(args.test), like_data(args.validation))


def _first_options(
    args: argparse.Namespace, config: TrainConfig, init: Model | None
) -> dict[str, Any]:
    """Return how the training file is read: as the options and the model of --init say."""
    from fm.formats.guess import guess_format
    from fm.reading.numbered import READERS

    options = data_options(args)
    form = options.get("format")
    if init is None:
        if config.feature_dim is not None and (form or guess_format(args.data)) in READERS:
            options["num_features"] = config.feature_dim
        return options
    check_encoder(args.init, init.encoder, args.data, form)
    options = {**init.reading_options(args.data, form), **options}
    options.pop("catalogue", None)  # rows to train on are not filled in
    if options.get("keep_seen") is False and init.catalogue is not None:
        options = {"item": init.catalogue.item, "user": init.catalogue.user or None, **options}
    return options


def _checked(
    args: argparse.Namespace, config: TrainConfig, init: Model | None, rows: _Rows
) -> tuple[TrainConfig, _Rows]:
    """Return the config with the task that suits the targets, and the rows with 0 and 1 for labels.

    Refuse rows that do not suit the task.
    """
    for some in rows:
        if some is not None and some.weight is not None and not some.weight.any():
            raise DataError(f"{some.source}: expected a weight above 0, found all of them 0")
    config = with_task(config, rows.data, init)  # as fit does; here for the report
    data = with_labels(rows.data, config, None if init is None else init.labels)
    test, validation = (
        some and with_labels(some, config, data.labels or ZERO_ONE)
        for some in (rows.test, rows.validation)
    )
    rows = _Rows(data, test, validation)
    if not config.task.ranks:
        for some in (rows.data, rows.validation, rows.test):
            if some is not None:
                check_labels(some, config)  # here, as the report says how good the mean is
    return config, rows


def _report_of_data(data: Dataset, config: TrainConfig) -> dict[str, Any]:
    fields, kinds = None, None
    if data.encoder is not None:
        kinds = {column.name: column.kind for column in data.encoder.columns}
    if data.fields is not None:
        sizes = np.bincount(data.fields, minlength=len(data.field_names)).tolist()
        fields = dict(zip(data.field_names, sizes, strict=True))
    return {
        "data": {
            "source": data.source,
            "rows": data.num_rows,
            "features": data.num_features,
            "fields": fields,
            "kinds": kinds,
        },
        "predictor_type": config.predictor_type,
        "baseline": {} if config.task.ranks else _constant(data, config.task, data),
    }


def _constant(training: Dataset, task: Task, data: Dataset) -> dict[str, float]:
    """Return how good it is to answer every row of `data` with the mean of the training rows."""
    return task.baseline(
        task.constant(training.targets, training.weight), data.targets, data.weight
    )


def _measured(model: Model, training: Dataset, test: Dataset) -> dict[str, Any]:
    task = model.task
    if task.ranks:
        from fm.evaluating.rankings import evaluate_ranking

        found = evaluate_ranking(model, test)["metrics"]
        return {"metrics": found["model"], "baseline": found.get("most popular", {})}
    return {
        "metrics": task.measure(model.scores(test), test.targets, test.weight),
        "baseline": _constant(training, task, test),
    }


def _warn_of_a_useless_model(model: Model, baseline: dict[str, float]) -> None:
    """Say so if the model is clearly worse than the training mean (metrics of two sets of rows)."""
    if not baseline:
        return
    name, loss = model.task.training_loss
    error = model.metrics.get(name, loss * model.metrics.get("loss", 0.0))
    if error > _WORSE * baseline[name] > 0:
        log.warning(
            "the model is worse than always answering the training mean (%s %.5g, not %.5g): lower "
            "the learning rates, scale the numbers, or train for more epochs",
            name,
            error,
            baseline[name],
        )


def _say(name: str, text: str) -> None:
    sys.stdout.write(f"{name:9} {text}\n")
    sys.stdout.flush()  # epochs are reported on standard error, in between


def _silent(name: str, text: str) -> None:
    pass


@contextmanager
def _log_level(*, quiet: bool) -> Iterator[None]:
    """Let notes of the program through, and lines of epochs where no bar shows them."""
    bar = sys.stderr is not None and sys.stderr.isatty()
    level = log.level

    def wanted(record: logging.LogRecord) -> bool:
        return not (bar and record.module == "progress")

    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.addFilter(wanted)
    try:
        yield
    finally:
        log.removeFilter(wanted)
        log.setLevel(level)
