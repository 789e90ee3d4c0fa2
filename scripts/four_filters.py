#!/usr/bin/env python
r"""The four kinds of recommender, each of them a factorization machine of other columns.

  python scripts/four_filters.py ml-100k                   MovieLens 100K, half a minute
  python scripts/four_filters.py ml-100k --user 7          lists for another person
  python scripts/four_filters.py ml-100k --ncf ncf-ml-1m   and against neural ranking, in minutes

A factorization machine learns from rows of columns. Which columns it is told of makes it a
recommender of one kind or another:

  content-based     a person's taste in terms of what films are: genres and year
  collaborative     who rated which film, and nothing else
  knowledge-based   a form that a visitor fills in (age, gender, occupation, genres wanted), and
                    what films are; no ids
  hybrid            ids, what people say of themselves, and what films are

All learn from the same ratings. A tenth of the people and a tenth of the films are left out of
these, so that there are four questions: ratings of known people, of new people (by their columns
alone, and after ten ratings of theirs), and of new films. Models of ratings are compared by their
error (rmse). Rankers, which learn who rated what from the same columns, are compared by where they
put the last film that each known person rated, among all films that the person had not.

The models of ratings get a tenth of their rows without the film's id, so that they learn what to
say of a film they have not met. MovieLens has no forms with genres: those that a person liked best,
of ten films that the person rated, stand for what they would write.

FOLDER holds u.data, u.user and u.item as GroupLens publishes them, gzipped or not. The folder of
--ncf holds ml-1m.train.rating, ml-1m.test.rating and ml-1m.test.negative as the authors of Neural
Collaborative Filtering publish them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "bench")]  # fm and ncf, from the clone this lies in

import ncf  # noqa: E402

import fm  # noqa: E402
from fm.errors import FMError  # noqa: E402
from fm.explaining.terms import one_line  # noqa: E402
from fm.formats.tables import read_table  # noqa: E402
from fm.measures.predictions import regression_metrics  # noqa: E402
from fm.recommending.folding import fold_ratings  # noqa: E402

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
OF_FILM, OF_PERSON = ("genres", "year"), ("age", "gender", "occupation")
KINDS: dict[str, tuple[str, ...]] = {
    "content-based": ("user", *OF_FILM),
    "collaborative": ("user", "film"),
    "knowledge-based": (*OF_PERSON, "wants", *OF_FILM),
    "hybrid": ("user", "film", *OF_PERSON, *OF_FILM),
}
IDS = ("user", "film")
SETS = ("genres", "wants")  # columns with several values in a row
FORM = {"age": "20s", "gender": "F", "occupation": "student", "wants": "Animation|Children|Musical"}
ABILITIES = """\
content-based    knows a new film from the start; of a new person nothing, until they rate some;
                 two films of the same genres and year are one to it
collaborative    best for people and films with many ratings; new ones are averages to it
knowledge-based  knows new people and new films from the start; two people who fill in the same
                 form are one to it
hybrid           ids where there are ratings, columns where there are none"""

LEFT_OUT = 0.1  # of the people, and of the films
WITHOUT_FILM = 0.1  # of the rows: what is learnt from them is for films that nobody has rated
TESTED = 10  # ratings of each known person, at most; as in MovieLens' own split ua
TOLD = 10  # ratings that a new person starts with
WANTED = 3  # genres on a form
DAMPING = 5.0  # an average counts as if so many more ratings were those of everybody
TOP = 5  # films that are shown
NEUMF = (0.726, 0.445)  # HR@10 and NDCG@10


# -- data ------------------------------------------------------------------------------------------


class MovieLens(NamedTuple):
    """Ratings with all columns beside them, and the films with theirs."""

    ratings: pa.Table  # user, film, rating, time, age, gender, occupation, genres, year
    films: pa.Table  # film, title, genres, year


class Split(NamedTuple):
    """Row numbers of the ratings."""

    train: np.ndarray
    known: np.ndarray  # to test: of people and films that training knows
    last: np.ndarray  # to rank: the last rating of each known person
    new_films: np.ndarray  # to test: of known people
    new_people: list[tuple[np.ndarray, np.ndarray]]  # of each: what they tell, what is tested

    @property
    def strangers(self) -> np.ndarray:
        """All tested ratings of new people."""
        return np.concatenate([test for _, test in self.new_people])


def read_movielens(folder: Path) -> MovieLens:
    """Read the three files of MovieLens 100K; all columns but the rating and the time are texts."""
    ratings = _table(folder, "u.data", "\t", ["user", "film", "rating", "time"])
    people = _table(folder, "u.user", "|", ["user", *OF_PERSON, "zip"])
    names = ["film", "title", "released", "video", "address", *GENRES]
    films = _table(folder, "u.item", "|", names)
    flags = np.column_stack([films[name].cast("int8").to_numpy() for name in GENRES])
    genres = ["|".join(np.array(GENRES)[row == 1]) for row in flags]
    years = [(date or "")[-4:] or None for date in films["released"].to_pylist()]
    films = pa.table(
        {"film": _texts(films["film"]), "title": films["title"], "genres": genres, "year": years}
    )
    decades = [f"{int(age) // 10}0s" for age in people["age"].to_pylist()]
    about = pa.table({"user": _texts(people["user"]), "age": decades}).append_column(
        "gender", people["gender"]
    ).append_column("occupation", people["occupation"])  # fmt: skip
    table = pa.table(
        {
            "user": _texts(ratings["user"]),
            "film": _texts(ratings["film"]),
            "rating": ratings["rating"].cast("float64"),
            "time": ratings["time"].cast("int64"),
        }
    )
    for key, others, columns in (("user", about, OF_PERSON), ("film", films, OF_FILM)):
        place = {name: row for row, name in enumerate(others[key].to_pylist())}
        rows = pa.array([place[name] for name in table[key].to_pylist()])
        for name in columns:
            table = table.append_column(name, others[name].take(rows))
    return MovieLens(table, films)


def _table(folder: Path, name: str, delimiter: str, columns: list[str]) -> pa.Table:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return read_table(path, delimiter=delimiter, header=columns, encoding="latin-1")
    raise SystemExit(
        f"{folder}: expected u.data, u.user and u.item (or .gz) in it, found no {name}; unpack "
        "MovieLens 100K there"
    )


def _texts(column: Any) -> Any:
    return column.cast("string")


def split_rows(ratings: pa.Table, seed: int, keep: str) -> Split:
    """Return what is trained on and what is asked; the person `keep` is not left out."""
    rng = np.random.default_rng(seed)
    names = ratings["user"].to_numpy()
    _, user = np.unique(names, return_inverse=True)
    _, film = np.unique(ratings["film"].to_numpy(), return_inverse=True)
    of_new_person = np.isin(user, _drawn(rng, user)) & (names != keep)
    of_new_film = np.isin(film, _drawn(rng, film))
    train, known, last, new_people = [], [], [], []
    by_time = np.lexsort((ratings["time"].to_numpy(), user))
    by_time = by_time[~of_new_film[by_time]]
    for rows in np.split(by_time, np.flatnonzero(np.diff(user[by_time])) + 1):
        mixed = rng.permutation(rows)
        if of_new_person[rows[0]]:
            if len(rows) > TOLD:
                new_people.append((mixed[:TOLD], mixed[TOLD:]))
            continue
        last.append(rows[-1])
        mixed = mixed[mixed != rows[-1]]
        count = min(TESTED, len(mixed) // 3)
        known.append(mixed[:count])
        train.append(mixed[count:])
    if not new_people:
        raise SystemExit(f"u.data: expected people with more than {TOLD} ratings, found too few")
    return Split(
        np.sort(np.concatenate(train)), np.sort(np.concatenate(known)), np.array(last),
        np.flatnonzero(of_new_film & ~of_new_person), new_people,
    )  # fmt: skip


def _drawn(rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    everything = rng.permutation(codes.max() + 1)
    return everything[: round(LEFT_OUT * everything.size)]


def with_forms(ratings: pa.Table, split: Split, seed: int) -> pa.Table:
    """Return the ratings with a column `wants`: the genres that a person liked best.

    They are those whose films got the most above 3, together, of ten ratings drawn at random; of
    new people, those that they tell. Ratings that are tested are not looked at.
    """
    users, genres = ratings["user"].to_pylist(), ratings["genres"].to_pylist()
    y = ratings["rating"].to_numpy()
    looked_at = np.random.default_rng([seed, 1]).permutation(split.train)
    likings: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for row in np.concatenate([looked_at, *(told for told, _ in split.new_people)]).tolist():
        user = users[row]
        counts[user] = counts.get(user, 0) + 1
        if counts[user] > TOLD:
            continue
        liking = likings.setdefault(user, {})
        for genre in filter(None, genres[row].split("|")):
            liking[genre] = liking.get(genre, 0.0) + y[row] - 3
    wants = {user: "|".join(_best_liked(of)) for user, of in likings.items()}
    return ratings.append_column("wants", pa.array([wants.get(user) for user in users]))


def _best_liked(liking: Mapping[str, float]) -> list[str]:
    liked = [genre for genre, total in liking.items() if total > 0]
    return sorted(liked, key=lambda genre: -liking[genre])[:WANTED]


# -- one kind of recommender -----------------------------------------------------------------------


def trained(
    columns: Sequence[str], rows: pa.Table, config: fm.TrainConfig, films: pa.Table
) -> tuple[fm.Model, Any]:
    """Train on some columns; return the model, and what recommends all films with it.

    An id that the kind is not told of stays in the rows with the value 0: it says which film a row
    is about, which a ranker has to know, but adds nothing to any score. After training its
    parameters, which have not moved, are set to 0.
    """
    names = [*IDS, *(name for name in columns if name not in IDS)]
    data = fm.read(
        rows.select([*names, "rating"]),
        target="rating",
        categorical=[name for name in names if name not in SETS],
        multi=[name for name in names if name in SETS],
        user="user",
        item="film",
        item_columns=[name for name in names if name in OF_FILM],
    )
    off = np.isin(data.fields, [names.index(name) for name in IDS if name not in columns])
    if off.any():
        items = _switched_off(data.catalogue.items, off)
        catalogue = dataclasses.replace(data.catalogue, items=items)
        X = _switched_off(data.X, off)
        data = dataclasses.replace(data, X=X, catalogue=catalogue, _cache={})
    model = fm.fit(data, config, progress=False)
    on = np.where(off, np.float32(0), np.float32(1))
    model = dataclasses.replace(model, w=model.w * on, V=model.V * on[:, None])
    return model, model.recommender.with_items(films)


def _switched_off(X: Any, off: np.ndarray) -> Any:
    X = X.copy()
    X.data[off[X.indices]] = 0
    return X


# -- what is measured ------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of the table; nan: the kind cannot be asked that."""

    name: str
    known: float
    new_people: float
    told: float
    new_films: float
    hits: float
    gain: float
    seconds: float


def rmse(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the error of some ratings."""
    return regression_metrics(scores, y)["rmse"] if len(y) else float("nan")


def told_scores(recommender: Any, person: Mapping[str, Any], ratings: Mapping[str, float]) -> Any:
    """Return the scores of all films for a new person who gave a few ratings."""
    X = recommender.contexts([person])
    folded, _ = fold_ratings(recommender.model, recommender.catalogue, X, ratings)
    sides, items = recommender.context_sides(X, folded=folded), recommender.item_sides
    return items.vectors @ sides.vectors[0] + items.bias + sides.bias[0]


def told_error(recommender: Any, columns: Sequence[str], table: pa.Table, split: Split) -> float:
    """Return the error on ratings of new people, each of whom gave a few first."""
    if "user" not in columns:
        return float("nan")  # nothing in it is one person's own
    scores, truth = [], []
    for first, test in split.new_people:
        rows = table.take(pa.array(first))
        ratings = dict(zip(rows["film"].to_pylist(), rows["rating"].to_pylist(), strict=True))
        person = {name: rows[name][0].as_py() for name in OF_PERSON if name in columns}
        asked = table.take(pa.array(test))
        found = told_scores(recommender, person, ratings)
        scores.append(found[recommender.catalogue.item_numbers(asked["film"].to_pylist())])
        truth.append(asked["rating"].to_numpy())
    return rmse(np.concatenate(scores), np.concatenate(truth)) if scores else float("nan")


def rated_besides(table: pa.Table, split: Split) -> list[list[str]]:
    """Return, for each person of `split.last`, all other films that the person rated."""
    met: dict[str, set[str]] = {}
    for user, film in zip(table["user"].to_pylist(), table["film"].to_pylist(), strict=True):
        met.setdefault(user, set()).add(film)
    last = table.select(IDS).take(pa.array(split.last)).to_pylist()
    return [sorted(met[row["user"]] - {row["film"]}) for row in last]


def last_ranks(best: Sequence[Sequence[str]], table: pa.Table, split: Split) -> np.ndarray:
    """Return the place (from 0) of each person's last film in the list for the person; else 10."""
    films = table["film"].take(pa.array(split.last)).to_pylist()
    lists = zip(best, films, strict=True)
    return np.array([found.index(film) if film in found else 10 for found, film in lists])


def measured(
    name: str, table: pa.Table, films: pa.Table, split: Split, options: argparse.Namespace
) -> tuple[Line, Any]:
    """Train one kind for ratings and for ranks; return its line, and the ranker's recommender."""
    begun, columns = time.perf_counter(), KINDS[name]
    rows, y = table.take(pa.array(split.train)), table["rating"].to_numpy()
    config = fm.TrainConfig(epochs=options.epochs, seed=options.seed)
    model, recommender = trained(columns, _some_without_film(rows, options.seed), config, films)
    scores = model.predict(table.drop_columns(["rating", "time"]))
    errors = [rmse(scores[part], y[part]) for part in (split.known, split.strangers)]
    errors.append(told_error(recommender, columns, table, split))
    errors.append(rmse(scores[split.new_films], y[split.new_films]))
    ranking = dataclasses.replace(config, predictor_type="ranker")
    _, ranker = trained(columns, rows, ranking, films)
    users = table["user"].take(pa.array(split.last)).to_pylist()
    best = ranker.recommend(users, 10, exclude=rated_besides(table, split)).ids
    figures = ncf.at_10(last_ranks(best, table, split))
    return Line(name, *errors, *figures, time.perf_counter() - begun), ranker


def _some_without_film(rows: pa.Table, seed: int) -> pa.Table:
    """Return the rows, a part of them without the film's id: they teach the unknown film."""
    hidden = np.random.default_rng([seed, 2]).random(rows.num_rows) < WITHOUT_FILM
    films = pa.array(rows["film"].to_numpy(), pa.string(), mask=hidden)
    return rows.set_column(rows.column_names.index("film"), "film", films)


def averages(table: pa.Table, split: Split) -> Line:
    """Return what needs no model: averages of person and film, and the films rated most."""
    y, films = table["rating"].to_numpy(), table["film"].to_numpy()
    _, film = np.unique(films, return_inverse=True)
    _, user = np.unique(table["user"].to_numpy(), return_inverse=True)
    mean = y[split.train].mean()
    base = mean + _damped(film, y - mean, split.train)
    scores = base + _damped(user, y - base, split.train)
    told = np.concatenate([first for first, _ in split.new_people])
    told_scores = base + _damped(user, y - base, told)
    errors = [rmse(scores[part], y[part]) for part in (split.known, split.strangers)]
    errors.append(rmse(told_scores[split.strangers], y[split.strangers]))
    errors.append(rmse(scores[split.new_films], y[split.new_films]))
    names, counts = np.unique(films[split.train], return_counts=True)
    popular = names[np.argsort(-counts, kind="stable")].tolist()
    best = []
    for met in map(set, rated_besides(table, split)):
        best.append([film for film in popular if film not in met][:10])
    return Line("averages; most rated", *errors, *ncf.at_10(last_ranks(best, table, split)), 0.0)


def _damped(codes: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return, for all rows, the damped average of the values of `rows` with the same code."""
    counts = np.bincount(codes[rows], minlength=codes.max() + 1)
    sums = np.bincount(codes[rows], values[rows], codes.max() + 1)
    return np.asarray((sums / (counts + DAMPING))[codes])


# -- neural collaborative filtering ----------------------------------------------------------------


def compare_with_ncf(folder: Path, factors: int, epochs: int, seed: int) -> np.ndarray:
    """Train a ranker under the protocol of NCF, print its figures beside NeuMF's, return them."""
    print(f"\nNeural Collaborative Filtering, its own protocol: reading {folder}", flush=True)
    train, test, negatives = ncf.load(folder)
    both = np.concatenate([train, test])
    sizes = (int(both[:, 0].max()) + 1, int(both[:, 1].max()) + 1)
    settings = {**ncf.SETTINGS, "predictor_type": "ranker", "validation_fraction": 0}
    settings |= {"num_factors": factors, "epochs": epochs, "seed": seed}
    print(f"training on {len(train):,} pairs, {epochs} epochs", flush=True)
    begun = time.perf_counter()
    model = fm.fit(ncf.data_of(train, sizes), fm.TrainConfig(**settings))
    seconds = time.perf_counter() - begun
    ranks = ncf.sampled(model, test, negatives, sizes)
    flawed = (negatives == test[:, 1:]).any(axis=1)
    figures = np.array([ncf.at_10(ranks), ncf.at_10(ranks[~flawed])])
    print(f"\n{'the last film of each person among 100':54}{'HR@10':>8}{'NDCG@10':>9}{'s':>7}")
    rows = [
        ("NeuMF, pretrained, 32 factors, as published", NEUMF, ""),
        (f"fm, ranker, {factors} factors", figures[0], f"{seconds:.0f}"),
        (f"  without the {flawed.sum()} people with flawed negatives", figures[1], ""),
    ]
    for name, (hits, gain), took in rows:
        print(f"{name:54}{hits:8.4f}{gain:9.4f}{took:>7}")
    print(
        "NeuMF: He et al., Neural Collaborative Filtering (2017), as the readme of a public "
        "implementation\nin PyTorch quotes their paper. Of flawed negatives, one is the last film "
        "itself."
    )
    return figures


# -- what is shown ---------------------------------------------------------------------------------


def print_table(lines: Sequence[Line], split: Split) -> None:
    """Print what was measured."""
    counts = [split.known.size, *[split.strangers.size] * 2, split.new_films.size, split.last.size]
    heads = ("known people", "new people", f"{TOLD} ratings", "new films", "HR@10", "NDCG@10", "s")
    print(f"\n{'':22}{'rmse of ratings, lower is better':^52}{'last film of all':^20}")
    print(f"{'':22}" + "".join(f"{head:>13}" for head in heads[:4]), end="")
    print(f"{heads[4]:>10}{heads[5]:>9}{heads[6]:>6}")
    print(f"{'':22}" + "".join(f"{f'{count:,} rows':>13}" for count in counts[:4]), end="")
    print(f"{f'{counts[4]:,} people':>19}")
    for line in lines:
        cells = "".join("            -" if x != x else f"{x:13.4f}" for x in line[1:5])
        print(f"{line.name:22}{cells}{line.hits:10.4f}{line.gain:9.4f}{line.seconds:6.1f}")
    print(f"\n{ABILITIES}")
    print(f"({TOLD} ratings: new people, after so many ratings, without training again)")


def print_lists(lists: Mapping[str, Sequence[str]], titles: Mapping[str, str]) -> None:
    """Print the films of each kind side by side."""
    print("  " + "".join(f"{name:24}" for name in lists).rstrip())
    for place in range(max(map(len, lists.values()))):
        row = [titles[films[place]] if place < len(films) else "" for films in lists.values()]
        print("  " + "".join(f"{one_line(title, 22):24}" for title in row).rstrip())


def print_recommendations(rankers: Mapping[str, Any], data: MovieLens, user: str) -> None:
    """Print what each kind recommends to a person, and to somebody who filled in the form."""
    titles = dict(zip(data.films["film"].to_pylist(), data.films["title"].to_pylist(), strict=True))
    rated = {row["film"]: row["rating"] for row in data.ratings.to_pylist() if row["user"] == user}
    liked = sorted(rated, key=rated.__getitem__, reverse=True)[:3]
    print(f"\nperson {user} rated {len(rated)} films, among the best of them:")
    print("  " + "; ".join(titles[film] for film in liked))
    print("of the others, these come first:")
    print_lists(
        {
            name: ranker.recommend(user, TOP, exclude=list(rated)).ids
            for name, ranker in rankers.items()
        },
        titles,
    )
    print(f"\nsomebody new fills in the form: {', '.join(f'{n} {v}' for n, v in FORM.items())}")
    lists = {}
    for name, ranker in rankers.items():
        told = {column: value for column, value in FORM.items() if column in KINDS[name]}
        lists[name] = ranker.recommend(told, TOP).ids
    print_lists(lists, titles)


# -- command line ----------------------------------------------------------------------------------


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="MovieLens 100K")
    parser.add_argument("--user", default="1", metavar="ID", help="whom to show lists for; 1")
    parser.add_argument("--epochs", type=int, default=100, help="at most; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the training; 0")
    group = parser.add_argument_group("Neural Collaborative Filtering")
    group.add_argument("--ncf", type=Path, metavar="FOLDER", help="compare with it on these files")
    group.add_argument("--ncf-factors", type=int, default=64, help="default: %(default)s")
    group.add_argument(
        "--ncf-epochs", type=int, default=ncf.SETTINGS["epochs"], help="default: %(default)s"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Do it all."""
    options = parse(words)
    data = read_movielens(options.folder)
    users = set(data.ratings["user"].to_pylist())
    if options.user not in users:
        raise SystemExit(f"--user: expected one of {len(users)} people, found {options.user!r}")
    split = split_rows(data.ratings, options.seed, options.user)
    table = with_forms(data.ratings, split, options.seed)
    print(
        f"{table.num_rows:,} ratings by {len(users):,} people of {data.films.num_rows:,} films; "
        f"{split.train.size:,} to train on"
    )
    lines, rankers = [averages(table, split)], {}
    for name, columns in KINDS.items():
        print(f"training {name}: {', '.join(columns)}", flush=True)
        line, rankers[name] = measured(name, table, data.films, split, options)
        lines.append(line)
    print_table(lines, split)
    print_recommendations(rankers, data, options.user)
    if options.ncf is not None:
        compare_with_ncf(options.ncf, options.ncf_factors, options.ncf_epochs, options.seed)


if __name__ == "__main__":
    try:
        main()
    except FMError as err:
        sys.exit(str(err))
    except KeyboardInterrupt:
        sys.exit(130)
