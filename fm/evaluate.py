"""``fm evaluate``: how well a model predicts the targets in a file. Floor 4."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from fm.dataset import Dataset
from fm.errors import DataError
from fm.losses import first_wrong_label
from fm.metrics import constant_baseline, metrics_of
from fm.model import Model, load
from fm.options import Parser, add_data_options, check_encoder, data_options, run

EXAMPLES = """\
  fm evaluate model/ test.csv --target rating
  fm evaluate model.tar.gz test.protobuf       an artefact of SageMaker's built-in
  fm evaluate model/ test.libsvm --json | jq .metrics.rmse"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm evaluate --help``."""
    parser = Parser(
        "fm evaluate",
        "Measure a model on a file with targets. For comparison, the best constant prediction for\n"
        "these targets (their mean) is measured too.",
        EXAMPLES,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="model file, directory with one, or built-in model.tar.gz"
    )
    parser.add_argument(
        "input", metavar="INPUT", help="data file or directory; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    add_data_options(parser, columns=False)
    args = parser.parse_args(argv)
    source: Any = sys.stdin.buffer.read() if args.input == "-" else args.input
    model, options = load(args.model), data_options(args)
    check_encoder(args.model, model.encoder, source, options.get("format"))
    result = evaluate(model, source, **options)
    if args.json:
        text = orjson.dumps(result, option=orjson.OPT_INDENT_2).decode()
    else:
        text = _as_text(result)
    sys.stdout.write(text + "\n")
    return 0


def evaluate(model: Model, source: Any, **options: Any) -> dict[str, Any]:
    """Return the metrics of a model on data with targets, and those of the best constant.

    Parameters
    ----------
    model : Model
    source : path, frame, matrix, or anything else that :func:`fm.read` takes
        Read in batches: a table may be larger than the memory.
    **options
        Options of :func:`fm.reading.read_batches`, such as `target`.

    Returns
    -------
    dict
        ``rows``, ``predictor_type``, ``metrics`` and ``baseline``, the last two from name to value.

    Raises
    ------
    DataError
        If rows have no target, a classifier's is not 0 or 1, or all weights are 0.

    Examples
    --------
    >>> from fm import TrainConfig
    >>> model = Model(1.0, [1.0, 2.0], [[0.0], [0.0]], TrainConfig(num_factors=1))
    >>> evaluate(model, (np.eye(2), [2.0, 4.0]))["metrics"]["mse"]
    0.5
    """
    from fm.reading import read_batches

    options = {**model.reading_options(source, options.get("format")), **options}
    scores, targets, weights = [], [], []
    first = 0
    for rows in read_batches(source, require_target=True, **options):
        targets.append(_targets(model, rows, first))
        scores.append(model.scores(rows))
        if rows.weight is not None:
            weights.append(rows.weight)
        first += rows.num_rows
    y = np.concatenate(targets)
    weight = np.concatenate(weights) if weights else None
    if weight is not None and not weight.any():
        raise DataError(f"{rows.source}: expected a weight above 0, found all of them 0")
    task = model.config.predictor_type
    return {
        "rows": first,
        "predictor_type": task,
        "metrics": metrics_of(task, np.concatenate(scores), y, weight),
        "baseline": constant_baseline(task, y, weight=weight),
    }


def _targets(model: Model, rows: Dataset, first: int) -> np.ndarray:
    if rows.y is None:
        raise DataError(f"{rows.source}: expected a target in each row; name it with --target")
    at = first_wrong_label(rows.y) if model.is_classifier else None
    if at is not None:
        raise DataError(
            f"{rows.source} row {first + at + 1}: expected label 0 or 1, because the model is a "
            f"binary classifier, found {rows.y[at]:g}"
        )
    return rows.y


def _as_text(result: dict[str, Any]) -> str:
    metrics, baseline = result["metrics"], result["baseline"]
    lines = [
        f"{result['predictor_type']}, {result['rows']:,} rows",
        " " * 10 + "".join(f"{name:>12}" for name in metrics),
        "model     " + "".join(f"{value:12.6f}" for value in metrics.values()),
        "constant  " + "".join(f"{value:12.6f}" for value in baseline.values()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(main))
