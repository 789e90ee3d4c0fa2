"""The demonstration that ``python -m fm.train`` runs: who likes which cuisine.

Decided here: what is compared and on which rows. Not decided here: the data
(``fm.datasets.survey``).

The models are compared on two kinds of rows that none is trained on: ratings of people whose other
ratings are known, and all ratings of people never seen. The two are different questions.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fm.cli.interrupts import interruptible
from fm.cli.options import command
from fm.config import TrainConfig
from fm.datasets.survey import load_survey
from fm.measures.predictions import regression_metrics
from fm.model.model import Model
from fm.training.fit import Epoch, fit

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.recommending.recommendations import Recommendations

SEED = 0
HELD_OUT = 0.1  # of the people, and of the ratings of the others
STRANGERS: tuple[dict[str, str], ...] = (
    {
        "interest": "A lot",
        "knowledge": "Advanced",
        "gender": "Female",
        "age": "18-29",
        "region": "Pacific",
    },
    {
        "interest": "Not much",
        "knowledge": "Novice",
        "gender": "Male",
        "age": "> 60",
        "region": "East South Central",
    },
)
RATINGS = {"Italy": 5.0, "India": 1.0, "Thailand": 1.0}  # what the first of them rates next
FM_IDS, FM_ANSWERS = "FM, ids", "FM, ids and answers"
_DAMPING = 5.0  # of the bias model: that many average ratings are added to those of each
_SWEEPS = 15  # over people and cuisines, until their averages fit together
_TOP = 5  # cuisines that are shown
_REASONS = 3  # terms of a score that are shown
_EVERY = 5  # epochs, from one line of progress to the next


class Split(NamedTuple):
    """Row numbers: to train on, held-out ratings of known people, ratings of unknown people."""

    train: np.ndarray
    known: np.ndarray
    unknown: np.ndarray


class Line(NamedTuple):
    """A line of the table: a model, its two errors, and how long it took to train."""

    name: str
    known: float
    unknown: float
    seconds: float


def main() -> int:
    """Run the demonstration and return the exit code."""
    begun = time.perf_counter()
    with interruptible() as interrupted:
        table, fields = load_survey()
        _say(_introduction(table, fields))
        split = split_rows(table)
        lines = [_mean_line(table, split), _bias_line(table, split)]
        models = {}
        ids = ["user", "cuisine"]
        for name, columns in ((FM_IDS, ids), (FM_ANSWERS, [*ids, *fields])):
            _say(f"\ntraining {name}: {', '.join(columns)}")
            models[name], line = _trained(name, columns, table, split)
            lines.append(line)
            if interrupted.is_set:  # fit ended early and kept the best model so far
                raise KeyboardInterrupt
        _say(_as_text(lines, split))
        with_ids, with_answers = models.values()
        _say(_recommendations(table, split, with_ids, with_answers))
    train = shlex.join(command("train"))
    _say(
        f"\n{time.perf_counter() - begun:.1f} s. Data: FiveThirtyEight (fivethirtyeight/data, "
        "food-world-cup), CC BY 4.0, tidied.\n"
        f"Now your own data: {train} ratings.csv ({train} --help)"
    )
    return 0


# -- data ------------------------------------------------------------------------------------------


def split_rows(table: pa.Table) -> Split:
    """Return who and what is held out, drawn at random from :data:`SEED`."""
    rng = np.random.default_rng(SEED)
    users, _ = _codes(table, "user")
    people = rng.permutation(users.max() + 1)
    strange = np.isin(users, people[: round(HELD_OUT * people.size)])
    rows = rng.permutation(np.flatnonzero(~strange))
    count = round(HELD_OUT * rows.size)
    return Split(np.sort(rows[count:]), np.sort(rows[:count]), np.flatnonzero(strange))


def _codes(table: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """Return a column as numbers from 0, and the text of each number."""
    column = table[name].combine_chunks().dictionary_encode()
    return column.indices.to_numpy(), column.dictionary.to_pylist()


def _ratings(table: pa.Table) -> np.ndarray:
    ratings: np.ndarray = table["rating"].cast("float64").to_numpy()
    return ratings


# -- the models that are compared ------------------------------------------------------------------


def _mean_line(table: pa.Table, split: Split) -> Line:
    begun = time.perf_counter()
    mean = _ratings(table)[split.train].mean()
    seconds = time.perf_counter() - begun
    return _line("mean of all ratings", np.full(table.num_rows, mean), table, split, seconds)


def _bias_line(table: pa.Table, split: Split) -> Line:
    """Mean + how kind the person is + how popular the cuisine is, by damped averages.

    Each of the two is the average of what the other leaves over, sum / (count + damping), in turn
    until they fit together: the solution of ridge regression on one-hot people and cuisines.
    """
    begun = time.perf_counter()
    y, train = _ratings(table), split.train
    columns = [_codes(table, name)[0] for name in ("cuisine", "user")]
    effects = [np.zeros(codes.max() + 1) for codes in columns]
    mean = y[train].mean()
    for _ in range(_SWEEPS):
        for at, (codes, other) in enumerate(zip(columns, columns[::-1], strict=True)):
            rest = y[train] - mean - effects[1 - at][other[train]]
            size = effects[at].size
            counts = np.bincount(codes[train], minlength=size)
            effects[at] = np.bincount(codes[train], rest, size) / (counts + _DAMPING)
    seconds = time.perf_counter() - begun
    scores = mean + sum(effect[codes] for effect, codes in zip(effects, columns, strict=True))
    return _line("averages of person and cuisine", scores, table, split, seconds)


def _trained(name: str, columns: list[str], table: pa.Table, split: Split) -> tuple[Model, Line]:
    """Train a factorization machine with default hyperparameters on some columns."""
    from fm.reading.read import read

    begun = time.perf_counter()
    rows = table.select([*columns, "rating"]).take(split.train)
    data = read(rows, target="rating", categorical=columns, user="user", item="cuisine")
    model = fit(data, TrainConfig(seed=SEED), callbacks=[_say_epoch], progress=False)
    seconds = time.perf_counter() - begun
    return model, _line(name, model.predict(table.select(columns)), table, split, seconds)


def _say_epoch(epoch: Epoch) -> None:
    if epoch.refit:
        if epoch.number == 1:
            _say("  again on all rows, for as many epochs as were best")
    elif epoch.number % _EVERY == 1:
        _say(f"  epoch {epoch.number:3}  validation rmse {epoch.validation['rmse']:.4f}")


def _line(name: str, scores: np.ndarray, table: pa.Table, split: Split, seconds: float) -> Line:
    y = _ratings(table)
    known, unknown = (
        regression_metrics(scores[rows], y[rows])["rmse"] for rows in (split.known, split.unknown)
    )
    return Line(name, known, unknown, seconds)


# -- recommendations -------------------------------------------------------------------------------


def _recommendations(table: pa.Table, split: Split, with_ids: Model, with_answers: Model) -> str:
    """Return what the models recommend to one person they know and to strangers."""
    users, names = _codes(table, "user")
    cuisines, cuisine_names = _codes(table, "cuisine")
    y = _ratings(table)
    person = _opinionated_person(users[split.train], y[split.train], len(cuisine_names))
    own = split.train[users[split.train] == person]
    order = own[np.argsort(-y[own], kind="stable")]
    likes, dislikes = (
        ", ".join(f"{cuisine_names[cuisines[row]]} {y[row]:.0f}" for row in rows)
        for rows in (order[:_TOP], order[-_TOP:])
    )
    rated = [cuisine_names[code] for code in set(cuisines[users == person].tolist())]
    best = with_ids.recommend(names[person], _TOP, exclude=rated)
    lines = [
        f"\nPerson {names[person]} rated {likes}, ... {dislikes}.",
        f"  the best of {len(cuisine_names) - len(rated)} cuisines without a rating ({FM_IDS}):",
        f"    {_listed(best)}",
        f"    {_why(with_ids, {'user': names[person]}, best)}",
    ]
    for answers in STRANGERS:
        best = with_answers.recommend(answers, _TOP)
        lines += [
            f"A new person: {', '.join(f'{name} {value}' for name, value in answers.items())}.",
            f"  the best of all cuisines ({FM_ANSWERS}):",
            f"    {_listed(best)}",
            f"    {_why(with_answers, answers, best)}",
        ]
    told = ", ".join(f"{cuisine} {rating:.0f}" for cuisine, rating in RATINGS.items())
    lines += [
        f"The first of the two now rates {told}.",
        "  the best of the others, after folding these in, without training again:",
        f"    {_listed(with_answers.recommend(STRANGERS[0], _TOP, ratings=RATINGS))}",
    ]
    return "\n".join(lines)


def _opinionated_person(users: np.ndarray, y: np.ndarray, cuisines: int) -> int:
    """Return the person whose ratings differ most, among those with 1/4 to 3/4 of the cuisines."""
    counts = np.bincount(users)
    means = np.bincount(users, y) / np.maximum(counts, 1)
    spread = np.bincount(users, (y - means[users]) ** 2) / np.maximum(counts, 1)
    spread[(counts < cuisines / 4) | (counts > cuisines * 3 / 4)] = -1.0
    return int(np.argmax(spread))


def _listed(best: Recommendations) -> str:
    """Return the cuisines recommended to one person, with the predictions."""
    return ", ".join(f"{cuisine} {score:.1f}" for cuisine, score in best)


def _why(model: Model, person: dict[str, str], best: Recommendations) -> str:
    """Return the strongest terms of the first prediction, in a line."""
    cuisine = best.ids[0]
    found = model.explain({**person, "cuisine": cuisine})
    terms = ", ".join(f"{name} {value:+.2f}" for name, value in found.terms(_REASONS))
    return f"why {cuisine}: {found.bias:.2f} for everything, {terms}"


# -- what is shown ---------------------------------------------------------------------------------


def _introduction(table: pa.Table, fields: list[str]) -> str:
    people, cuisines = (len(_codes(table, name)[1]) for name in ("user", "cuisine"))
    return (
        f"Who likes which cuisine? {table.num_rows:,} ratings (1 to 5) by {people:,} people of "
        f"{cuisines} cuisines;\neach person also answered: {', '.join(fields)}."
    )


def _as_text(lines: list[Line], split: Split) -> str:
    """Return the table with the lowest error of each column marked."""
    columns: tuple[Callable[[Line], float], ...] = (lambda x: x.known, lambda x: x.unknown)
    best = [min(map(column, lines)) for column in columns]
    text = (
        "\nroot mean square error on ratings that were held out (* lowest)\n\n"
        f"{'':32}{'known people':>13}{'new people':>13}{'seconds':>10}\n"
        f"{'':32}{f'{split.known.size:,} rows':>13}{f'{split.unknown.size:,} rows':>13}\n"
    )
    for line in lines:
        text += f"{line.name:32}"
        for column, low in zip(columns, best, strict=True):
            text += f"{column(line):12.4f}{'*' if column(line) == low else ' '}"
        text += f"{line.seconds:10.2f}\n"
    return text + "\nNew people have no ratings to learn from: only their answers tell them apart."


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
