"""``fm recommend``: a model in, the best items for users, contexts or somebody new out.

Decided here: the options that say for whom lists are made, and how items are named (by id or
title). Not decided here: which items are best (``fm.recommending.recommender``), what a model
learns from a few ratings (``fm.recommending.folding``), what a list looks like (``fm.cli.lists``).

Lists are made and written block by block, because those of all users may not fit in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import scipy.sparse as sp

from fm.cli.lists import (
    WRITERS,
    Items,
    candidates_in,
    items_in,
    ratings_in,
    warn_of_nothing,
    warn_of_strangers,
    with_items_named,
    with_reasons,
)
from fm.cli.options import (
    Parser,
    add_data_options,
    check_encoder,
    check_output,
    data_options,
    names,
    open_output,
    output_format,
    parse_json,
    positive,
)
from fm.errors import ConfigError, DataError
from fm.model.load import load
from fm.recommending.recommender import Recommender

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.recommending.folding import Folded

EXAMPLES = """\
  fm recommend model/ --user 42 -k 5                   a table of the five best for user 42
  fm recommend model/ --user 42,43 --titles movies.csv --why
                                                       with titles, and the reasons for each
  fm recommend model/ --all -k 20 -o lists.parquet     all users of the training data
  fm recommend model/ --context '{"user": "42", "hour": "evening"}'
  fm recommend model/ --input visitors.csv -o lists.csv
  fm recommend model/ --titles movies.csv --ratings '{"Alien (1979)": 5, "Big (1988)": 2}'
                                                       somebody new, from a few ratings
  fm recommend model/ --user 42 --items movies.csv     also films that are not in training data
  fm recommend model/ --similar-to 50 --titles u.item
  fm recommend model/ --export vectors/                for an index of nearest neighbours
  fm recommend model.tar.gz --item-column 943:2625 --user-column 0:943 --user 41
                                                       an artefact of SageMaker's built-in"""

WHOM = ("user", "context", "input", "all", "similar_to", "export")
PERSON = ("ratings", "rated", "liked")
_FILES = ("input", "rated", "candidates", "items", "titles")
_OF_LISTS = ("why", "include_seen", "exclude", "candidates")  # no effect without a list


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see ``fm recommend --help``."""
    args = _parser().parse_args(argv)
    form, options = output_format(args, WRITERS, "table"), _checked(args)
    model = with_items_named(
        load(args.model), args.model, "-column", item=args.item_column, user=args.user_column
    )
    recommender, items = items_in(
        model.recommender, args.items, args.titles, title=args.title, key=args.id
    )
    if args.export is not None:
        from fm.recommending.vectors import export_vectors

        for path in export_vectors(recommender, args.export):
            sys.stdout.write(f"{path}\n")
        return 0
    if args.similar_to is not None:
        best = recommender.similar_items(items.id_of(args.similar_to), args.k)
        tables = iter([items.table({}, best.to_table())])
    else:
        tables = _tables(args, recommender, items, options)
    with open_output(args.output) as file:
        WRITERS[form](file, tables)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("fm recommend", "Recommend the best items of a trained model.", EXAMPLES)
    parser.usage = "%(prog)s [-h] MODEL [OPTIONS]"
    parser.add_argument("model", metavar="MODEL", help="model file or directory with one")
    add = parser.add_argument_group("for whom, one of").add_argument
    add("--user", dest="users", type=names, action="extend", metavar="ID,...", help="users")
    add("--context", metavar="JSON", help="columns and their values: an object, or a list of them")
    add("--input", metavar="FILE", help="a table with a context in each row; - is standard input")
    add("--all", action="store_true", help="all users of the training data")
    add("--similar-to", metavar="ITEM", help="no user: the items most similar to this (cosine)")
    add("--export", metavar="FOLDER", help="no user: write the vectors of items and users there")
    add = parser.add_argument_group(
        "for somebody new, one of", "What else is known of the person goes in --context."
    ).add_argument
    add("--ratings", metavar="JSON", help="an object: item to rating (or label 0 or 1)")
    add("--rated", metavar="FILE", help="a table: a column of items and one of ratings")
    add(
        "--liked",
        type=_listed,
        metavar="ITEM,...",
        help="items, or a JSON list; for labels and rankers",
    )
    add = parser.add_argument_group(
        "which items", "An item is named by its id or, if there are titles, by its title."
    ).add_argument
    add("-k", type=positive, default=10, metavar="N", help="how many; default 10")
    add("--include-seen", action="store_true", help="also what the user has met or rated already")
    add("--exclude", action="append", default=[], metavar="ITEM", help="not this one; repeatable")
    add("--candidates", metavar="FILE", help="only these: a text with an item in each line")
    add("--items", metavar="FILE", help="those of this table and its columns; they may be new")
    add("--titles", metavar="FILE", help="a table with titles of items; not given: that of --items")
    add("--title", metavar="NAME", help="column of titles; not given: title, name or the second")
    add("--id", metavar="NAME", help="column of ids; not given: as in training, or the first")
    add = parser.add_argument_group(
        "for a model that knows no items", "Such as one of SageMaker's built-in algorithm."
    ).add_argument
    for role, span in (("item", "943:2625"), ("user", "0:943")):
        add(
            f"--{role}-column",
            metavar="NAME",
            help=f"column of the {role}s, or a range of features such as {span}",
        )
    add = parser.add_argument_group("what to write").add_argument
    add("--why", action="store_true", help="the terms of the item that add most to its score")
    add("-o", "--output", metavar="FILE", help="where to write; not given: standard output")
    add(
        "--output-format",
        choices=tuple(WRITERS),
        help="not given: told from the name of FILE (.gz is compressed); table on standard output",
    )
    add_data_options(parser, target=False, columns=False)
    return parser


def _listed(text: str) -> list[str]:
    """Return a list of items in JSON, or of names between commas.

    Examples
    --------
    >>> _listed('["Good, the Bad and the Ugly, The", 7]'), _listed("7, 8")
    (['Good, the Bad and the Ugly, The', '7'], ['7', '8'])
    """
    if not text.lstrip().startswith("["):
        return names(text)
    try:
        return [str(item) for item in parse_json("--liked", text, "a list of items", (str, int))]
    except DataError as err:
        raise argparse.ArgumentTypeError(str(err).partition(": ")[2]) from err


def _checked(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that say how --input is read; refuse options that exclude each other."""
    given = {**vars(args), "user": args.users}
    _check_whom(given)
    if args.items is None and args.titles is None and (args.title or args.id):
        raise ConfigError("--title, --id: name columns of --items or --titles; give one of these")
    options = data_options(argparse.Namespace(**{**given, "user": None}))
    if options and args.input is None:
        raise ConfigError(
            "--format, --delimiter, --header, --names, --zero-based: say how --input is read, "
            "which is not given"
        )
    if args.output is not None:
        files = {_flag(name): given[name] for name in _FILES}
        check_output("--output", args.output, {"the model": args.model, **files})
    return options


def _check_whom(given: Mapping[str, Any]) -> None:
    """Refuse anything but one kind of context, or one person who is new."""
    whom = [_flag(name) for name in WHOM if given[name] not in (None, False)]
    person = [_flag(name) for name in PERSON if given[name] is not None]
    for found in (whom, person):
        if len(found) > 1:
            raise ConfigError(f"{', '.join(found)}: expected one of them, found {len(found)}")
    if person and whom not in ([], ["--context"]):
        raise ConfigError(f"{person[0]}: is for somebody new; leave out {whom[0]}")
    if not whom and not person:
        raise ConfigError(
            "recommend: expected an option that says for whom; give --user, --context, --input, "
            "--all, --ratings, --rated or --liked (or --similar-to, --export)"
        )
    unused = {"--similar-to": _OF_LISTS, "--export": (*_OF_LISTS, "output", "titles", "title")}
    for name in unused.get(whom[0], ()) if whom else ():
        if given[name]:
            raise ConfigError(f"{_flag(name)}: has no effect with {whom[0]}; leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# -- for whom --------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """Some contexts: as features, and the columns that name them in the output."""

    labels: Mapping[str, Any]  # columns of Arrow
    X: sp.csr_matrix


def _asked(
    args: argparse.Namespace, recommender: Recommender, options: dict[str, Any]
) -> Iterator[Asked]:
    """Yield the contexts, block by block."""
    import pyarrow as pa

    if args.context is not None:
        rows = parse_json(
            "--context", args.context, "an object of columns, or a list of them", dict
        )
        columns = dict.fromkeys(name for row in rows for name in row)
        labels = {
            name: pa.array([_text(row.get(name)) for row in rows], pa.string()) for name in columns
        }
        numbers = {"row": pa.array(range(1, len(rows) + 1))} if len(rows) > 1 else {}
        yield Asked({**numbers, **labels}, recommender.contexts(rows))
    elif args.input is not None:
        done = 0
        for told, X in _asked_by_file(args, recommender, options):
            row = pa.array(range(done + 1, done + 1 + X.shape[0]))
            yield Asked({"row": row, **told}, X)
            done += X.shape[0]
    else:
        ids = args.users or recommender.user_ids
        if not len(ids):
            raise ConfigError(
                "--all: the model does not know its users; train it with --user COLUMN"
            )
        size = recommender.block_size(args.k)
        for begin in range(0, len(ids), size):
            part = list(ids[begin : begin + size])
            yield Asked({_user(recommender): pa.array(part)}, recommender.contexts(part))


def _asked_by_file(
    args: argparse.Namespace, recommender: Recommender, options: dict[str, Any]
) -> Iterator[Asked]:
    from fm.formats.guess import guess_format
    from fm.formats.tables import iter_batches
    from fm.reading.numbered import READERS
    from fm.reading.read import read_batches

    model, catalogue = recommender.model, recommender.catalogue
    size = recommender.block_size(args.k)
    source = sys.stdin.buffer.read() if args.input == "-" else args.input
    form = options.get("format")
    check_encoder(args.model, model.encoder, source, form)
    if model.encoder is None or (form or guess_format(source)) in READERS:
        for rows in read_batches(
            source, batch_rows=size, **{**model.reading_options(source, form), **options}
        ):
            yield Asked({}, recommender.contexts(rows))
        return
    if options.pop("zero_based", None) is not None:
        raise ConfigError("--zero-based: does not apply to a table; leave it out")
    of_item = {catalogue.item, *catalogue.item_columns}
    expected = [name for name in model.encoder.field_names if name not in of_item]
    for table in iter_batches(source, expect=expected, batch_rows=size, **options):
        labels = {name: table[name] for name in expected if name in table.column_names}
        yield Asked(labels, recommender.contexts(table))


def _user(recommender: Recommender) -> str:
    """Return the name of the column of users in the output; for a range of features, "user"."""
    name = recommender.catalogue.user
    return name if name in recommender.model.field_names else "user"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


class Person(NamedTuple):
    """Somebody new."""

    context: Mapping[str, Any]  # what is known beside the ratings
    X: sp.csr_matrix  # the same as features
    folded: Folded
    met: list[Any]


def _person(args: argparse.Namespace, recommender: Recommender, items: Items) -> Person | None:
    """Return what the options say about somebody new; None if they ask for other contexts."""
    from fm.recommending.folding import fold_ratings

    ratings, liked = None, None
    if args.ratings is not None:
        told, *more = parse_json("--ratings", args.ratings, "an object: item to rating", dict)
        if more:
            raise DataError("--ratings: expected one object for one person, found a list")
        ratings = {items.id_of(item): rating for item, rating in told.items()}
    elif args.rated is not None:
        ratings = ratings_in(args.rated, recommender, items)
    elif args.liked is not None:
        liked = [items.id_of(item) for item in args.liked]
    else:
        return None
    model = recommender.model
    context: dict[str, Any] = {}
    if args.context is not None:
        context, *more = parse_json("--context", args.context, "an object of columns", dict)
        if more:
            raise DataError("--context: expected one object for one person, found a list")
    X = recommender.contexts(context)
    return Person(context, X, *fold_ratings(model, recommender.catalogue, X, ratings, liked))


# -- lists -----------------------------------------------------------------------------------------


def _tables(
    args: argparse.Namespace, recommender: Recommender, items: Items, options: dict[str, Any]
) -> Iterator[pa.Table]:
    """Yield the lists, block by block, as a table with a row for each item."""
    candidates = candidates_in(args.candidates, args.exclude, recommender, items)
    person = _person(args, recommender, items)
    folded, asked = None, _asked(args, recommender, options)
    exclude: Any = "seen"
    if person is not None:
        asked, folded, exclude = iter([Asked({}, person.X)]), person.folded, person.met
    if args.include_seen:
        exclude = None
    for labels, X in _with_progress(args, recommender, asked):
        warn_of_strangers(recommender, labels.get(_user(recommender)), X)
        best = recommender.recommend(
            X, args.k, exclude=exclude, candidates=candidates, folded=folded
        )
        warn_of_nothing(labels, best)
        found = best.to_table()
        taken = {name: labels[name].take(found["context"]) for name in labels}
        table = items.table(taken, found)
        if args.why:
            table = with_reasons(table, *_knowing(person, recommender, X), best)
        yield table


def _with_progress(
    args: argparse.Namespace, recommender: Recommender, asked: Iterator[Asked]
) -> Iterator[Asked]:
    """Show how many contexts are done, unless the lists themselves go to the terminal."""
    if not sys.stderr.isatty() or args.output is None and sys.stdout.isatty():
        yield from asked
        return
    from tqdm import tqdm

    total = recommender.catalogue.num_users if args.all else None
    with tqdm(total=total, unit="list", unit_scale=True, desc="recommending") as bar:
        for part in asked:
            yield part
            bar.update(part.X.shape[0])


def _knowing(
    person: Person | None, recommender: Recommender, X: sp.csr_matrix
) -> tuple[Recommender, sp.csr_matrix]:
    """Return a recommender and the contexts to explain; somebody new is a user of it."""
    if person is None:
        return recommender, X
    from fm.recommending.extending import with_feature
    from fm.sparse import without

    model = dataclasses.replace(recommender.model, catalogue=recommender.catalogue)
    if model.encoder is None:
        raise ConfigError("--why: a model without columns cannot name somebody new; leave it out")
    known = Recommender(with_feature(model, person.folded, "(new)"))
    # As in the lists: the context that was given, with the new user in the place of its user.
    encoder: Any = known.model.encoder
    of_user = encoder.fields == encoder.field_names.index(known.catalogue.user)
    rest, new = known.contexts(person.context), known.contexts("(new)")
    return known, without(rest, of_user) + without(new, ~of_user)
