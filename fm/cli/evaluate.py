"""``fm evaluate``: how well a model predicts the targets in a file, or ranks its items."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from fm.cli.options import Parser, add_data_options, check_encoder, data_options, positive
from fm.evaluating.predictions import evaluate_predictions
from fm.model.load import load
from fm.model.model import Model

EXAMPLES = """\
  fm evaluate model/ test.csv --target rating
  fm evaluate model.tar.gz test.protobuf       an artefact of SageMaker's built-in
  fm evaluate model/ test.libsvm --json | jq .metrics.rmse
  fm evaluate model/ test.csv --ranking -k 20                   as a recommender, on interactions
  fm evaluate model/ test.csv --ranking --threshold 4           those rated 4 or more are relevant
  fm evaluate model/ test.csv --ranking --sampled 99            each row against 99 drawn items"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm evaluate --help``."""
    parser = Parser(
        "fm evaluate",
        "Measure a model on a file with targets, and beside it the best constant prediction for\n"
        "these targets (their mean). With --ranking: measure how well it recommends the items of\n"
        "the file, whose rows are interactions, and beside it two simple methods.",
        EXAMPLES,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="model file, directory with one, or built-in model.tar.gz"
    )
    parser.add_argument(
        "input", metavar="INPUT", help="data file or directory; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    _add_ranking_options(parser)
    add_data_options(parser, columns=False)
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in _RANKING_ONLY if getattr(args, name) is not None}
    if given and not args.ranking:
        option = "-k" if "k" in given else f"--{next(iter(given)).replace('_', '-')}"
        parser.error(f"{option}: expected --ranking too")
    if args.ranking and args.weight:
        parser.error("--weight: does not apply to --ranking")
    source: Any = sys.stdin.buffer.read() if args.input == "-" else args.input
    model = load(args.model)
    options = {name: value for name, value in data_options(args).items() if name not in given}
    check_encoder(args.model, model.encoder, source, options.get("format"))
    if args.ranking:
        result = _ranking(model, source, given, options)
    else:
        result = evaluate_predictions(model, source, **options)
    if args.json:
        text = orjson.dumps(result, option=orjson.OPT_INDENT_2).decode()
    else:
        text = _as_ranking_text(result) if args.ranking else _as_text(result)
    sys.stdout.write(text + "\n")
    return 0


_RANKING_ONLY = ("k", "sampled", "threshold", "include_seen", "user", "item")


def _add_ranking_options(parser: Parser) -> None:
    group = parser.add_argument_group("as a recommender")
    group.add_argument(
        "--ranking", action="store_true", help="measure lists of items instead of predictions"
    )
    group.add_argument("-k", type=positive, metavar="N", help="length of the lists; not given: 10")
    group.add_argument(
        "--sampled",
        type=positive,
        metavar="N",
        help="rank the item of each row among N drawn ones; not given: among all items",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="rows are relevant if their target is at least X; not given: all, or of a classifier "
        "those with label 1",
    )
    group.add_argument(
        "--include-seen",
        action="store_true",
        default=None,
        help="do not leave out what users met in training: for things that people come back to",
    )
    for role in ("user", "item"):
        group.add_argument(
            f"--{role}",
            metavar="NAME",
            help=f"column of the {role}s, or a range of features such as 0:943, for a model that "
            "does not know it",
        )


def _ranking(
    model: Model, source: Any, given: Mapping[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Return what evaluate_ranking finds, with the progress on a terminal."""
    from fm.evaluating.rankings import evaluate_ranking
    from fm.reading.read import read

    threshold = given.get("threshold")
    columns: dict[str, Any] = {role: given[role] for role in ("user", "item") if role in given}
    known = model.catalogue
    if known is not None:
        columns = {role: name for role, name in columns.items() if name != getattr(known, role)}
    if columns:
        if known is not None:
            columns = {"user": known.user or None, "item": known.item, **columns}
        columns["keep_seen"] = False  # seen in training is meant, and these are test rows
    options = {**model.reading_options(source, options.get("format")), **options}
    data = read(
        source,
        require_target=threshold is not None or model.task.has_probabilities,
        **{**options, **columns},
    )
    catalogue = model.as_dataset(data).catalogue if columns else known
    with _progress() as advance:
        return evaluate_ranking(
            model,
            data,
            k=given.get("k", 10),
            exclude=None if "include_seen" in given else "seen",
            threshold=threshold,
            sampled=given.get("sampled"),
            catalogue=catalogue,
            progress=advance,
        )


@contextmanager
def _progress() -> Iterator[Callable[[int], object] | None]:
    """Show on a terminal how many lists are made."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit="list", unit_scale=True, desc="ranking", mininterval=0.2) as bar:
        yield bar.update


def _as_text(result: dict[str, Any]) -> str:
    metrics, baseline = result["metrics"], result["baseline"]
    lines = [
        f"{result['predictor_type']}, {result['rows']:,} rows",
        " " * 10 + "".join(f"{name:>12}" for name in metrics),
        "model     " + "".join(f"{value:12.6f}" for value in metrics.values()),
        "constant  " + "".join(f"{value:12.6f}" for value in baseline.values()),
    ]
    return "\n".join(lines)


def _as_ranking_text(result: dict[str, Any]) -> str:
    metrics = result["metrics"]
    wide = max(map(len, metrics))
    left_out = "nothing left out" if result["excluded"] == "nothing" else "without those seen"
    lines = [
        f"{result['protocol']}: {result['contexts']:,} lists of {result['k']} of "
        f"{result['items']:,} items, {left_out}; {result['relevant']:,} relevant",
        *result["notes"],
        " " * wide + "".join(f"{name:>14}" for name in metrics["model"]),
    ]
    for name, values in metrics.items():
        lines.append(f"{name:{wide}}" + "".join(f"{value:14.5f}" for value in values.values()))
    return "\n".join(lines)
