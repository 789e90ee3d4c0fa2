"""What ``fm train`` shows: the data, what training came to, and what to do next.

Decided here: the texts. Not decided here: what is measured (``fm.cli.train``).
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fm.cli.messages import listed
from fm.cli.options import command
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.data.labels import ZERO_ONE
from fm.model.model import Model

_SEEN = "the model file will hold who met what, which lists leave out; --no-keep-seen keeps it out"
_MOST_FIELDS = 12  # that are shown
_WHAT = {"metrics": "(the model)", "baseline": "(always the training mean)"}
_WHAT_OF_RANKERS = {"metrics": "(the model, all items ranked)", "baseline": "(most popular first)"}


def texts_of_data(
    data: Dataset, config: TrainConfig, report: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Give the lines about the training data: the name of each, and its text."""
    about = report["data"]
    yield "data", f"{data.source}: {data.num_rows:,} rows, {data.num_features:,} features"
    if about["fields"]:
        columns = () if data.encoder is None else data.encoder.columns
        kinds = {column.name: column.about for column in columns}
        groups: dict[str | None, list[str]] = {}
        for name, size in list(about["fields"].items())[:_MOST_FIELDS]:
            groups.setdefault(kinds.get(name), []).append(f"{name} {size:,}")
        shown = [(f"{kind}: " if kind else "") + ", ".join(group) for kind, group in groups.items()]
        more = len(about["fields"]) - _MOST_FIELDS
        yield "fields", "; ".join(shown) + (f" and {more} more" if more > 0 else "")
    if data.catalogue is not None:
        yield "items", repr(data.catalogue)[len("Catalogue(") : -1]
        if data.catalogue.seen is not None:
            yield "seen", _SEEN
    task = config.task
    if task.ranks:
        yield "target", f"none: each row is an interaction; predictor_type {task.name}"
        return
    y = data.targets
    spread = f"{y.min():g} to {y.max():g}, mean {y.mean(dtype=np.float64):.5g}"
    if task.labels:
        labels = data.labels or ZERO_ONE
        share = float(y.mean(dtype=np.float64))
        spread = f"{labels[0]} and {labels[1]}, {share:.2%} are {labels[1]}"
    yield "target", f"{spread}; predictor_type {task.name}"
    yield "baseline", f"{_text_of(report['baseline'])}  {_WHAT['baseline']}"


def texts_of_model(
    args: argparse.Namespace, model: Model, path: Path, report: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Give the lines about the model that was trained and saved."""
    yield "trained", _text_of_training(model, args.validation, report["seconds"])
    if report["interrupted"] and args.checkpoint is not None:
        yield "resume", _text_of_checkpoint(args.checkpoint)
    what = _WHAT_OF_RANKERS if model.task.ranks else _WHAT
    for name, values in report.get("test", {}).items():
        yield "test" if name == "metrics" else "", f"{_text_of(values)}  {what[name]}"
    yield "saved", f"{path} ({path.stat().st_size / 1e6:.2f} MB)"
    yield "next", _next_command(args, model, path)


def _text_of(metrics: dict[str, Any]) -> str:
    """Return metrics and their values in one line."""
    return "  ".join(f"{name} {value:.5f}" for name, value in metrics.items())


def _text_of_training(model: Model, validation: str | None, seconds: float) -> str:
    """Return what the training came to: the epoch that was kept, and its metrics."""
    done = sum("refit" not in epoch for epoch in model.history)
    metrics = dict(model.metrics)
    kept, again = metrics.pop("epoch", 0), metrics.pop("refit", False)
    time_text = f"in {seconds:.3g} s"
    loss = metrics.pop("loss", float("nan"))
    if not metrics:
        return f"{done} epochs {time_text}: loss {loss:.5f} on the training rows; no row held out"
    where = "held-out rows" if validation is None else validation
    if model.config.patience:
        text = f"{done} epochs {time_text}; best {kept}: {_text_of(metrics)} on {where}"
        return text + (f"; then {kept} epochs on all rows" if again else "")
    text = f"{done} epochs {time_text}; last {kept}: {_text_of(metrics)} on {where}"
    best = _best_epoch(model)
    if best["epoch"] == kept:
        return text
    values = _text_of({name: best[name] for name in metrics})
    return f"{text}; best {best['epoch']}: {values}, not kept because patience is 0"


def _best_epoch(model: Model) -> dict[str, Any]:
    """Return the entry of the history that early stopping would have kept."""
    metric = model.config.watched_metric
    best = model.history[0]
    for entry in model.history[1:]:
        if model.task.is_better(metric, entry[metric], best[metric]):
            best = entry
    return best


def _text_of_checkpoint(path: str) -> str:
    """Return how to go on from the checkpoint of a training that was interrupted."""
    if os.path.exists(path):
        return f"the same command with --resume goes on from {path}"
    return f"{path} was not written yet (it is every half a minute): --resume would start afresh"


def _next_command(args: argparse.Namespace, model: Model, path: Path) -> str:
    """Return a command that uses the model: ready to run, or with a file of new rows to name."""
    known, recommend = model.catalogue, [*command("recommend"), str(path)]
    users = 0 if known is None else known.num_users
    if model.task.ranks and users:
        return shlex.join([*recommend, "--all", "--output", "lists.csv"])
    if model.task.ranks and _knows_items_only(model):
        return shlex.join([*recommend, "--context", "{}", "--output", "lists.csv"])
    if users and args.test is None:
        return shlex.join([*recommend, f"--user={listed([model.recommender.user_ids[0]])}"])
    new = "NEW" + "".join(Path(args.data).suffixes[-1:])
    words = [*command("predict"), str(path), args.test or new]
    if model.task.ranks:  # no users are known: the rows are contexts
        words = [*recommend, "--input", args.test or new, "--output", "lists.csv"]
    about = "" if args.test else f"  # {new}: a file of yours with new rows"
    return shlex.join([*words, *_form(args)]) + about


def _form(args: argparse.Namespace) -> list[str]:
    """Return the options that say what form the data have, to be given again."""
    words = []
    for name in ("format", "delimiter"):
        if getattr(args, name) is not None:
            words += [f"--{name}", getattr(args, name)]
    if args.header is not None:
        words.append("--header" if args.header else "--no-header")
    if args.names:
        words += ["--names", listed(args.names)]
    return words


def _knows_items_only(model: Model) -> bool:
    if model.encoder is None or model.catalogue is None:
        return False
    of_items = {model.catalogue.item, *model.catalogue.item_columns}
    return of_items.issuperset(model.encoder.field_names)
