"""Lists of items: their names, the reasons for an item, and how a list is shown.

Decided here: how items are named (by id or title), which terms of a score are given as reasons, and
the text that people read. Not decided here: which items are best
(``fm.recommending.recommender``), for whom (``fm.cli.recommend``).
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from fm.cli.predict import WRITERS as PREDICTIONS
from fm.errors import ConfigError, DataError
from fm.explaining.terms import explain, one_line
from fm.formats.cells import number_of, text_of
from fm.recommending.recommendations import Recommendations
from fm.recommending.recommender import Recommender

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.model.model import Model

_PAIRS = 200  # pairs listed in an explanation: all of a row of up to 20 entries
_REASONS = 3
_TITLES = ("title", "name")  # columns of titles, unless another is named

log = logging.getLogger("fm")


class Items:
    """The names of the items: ids, and titles where there are some.

    Parameters
    ----------
    ids : sequence of str
        All items.
    titles : mapping of str to str
        Id to title, perhaps for some items only; empty: there are no titles.
    column : str
        The name of the column of ids, for messages.

    Examples
    --------
    >>> items = Items(["7", "8"], {"7": "Alien"}, "film")
    >>> items.id_of("8"), items.id_of("Alien")
    ('8', '7')
    """

    def __init__(self, ids: Sequence[str], titles: Mapping[str, str], column: str) -> None:
        self.titles, self._column = titles, column
        self._known = set(ids) if titles else set()
        self._ids: dict[str, list[str]] = {}  # of each title
        for item in self._known & titles.keys():
            self._ids.setdefault(titles[item], []).append(item)

    def id_of(self, item: str) -> str:
        """Return the id of an item from its id or its title.

        Raises
        ------
        DataError
            If there are titles, and it is neither an id nor the title of one item.
        """
        if not self.titles or item in self._known:
            return item  # the catalogue checks ids
        found = sorted(self._ids.get(item, []))
        if len(found) > 1:
            raise DataError(
                f"{self._column}: expected one item, found {len(found)} called {item!r}; name it "
                f"by its id ({', '.join(found)})"
            )
        if not found:
            close = difflib.get_close_matches(item, self._ids, n=1, cutoff=0.5)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError(
                f"{self._column}: expected the id or title of an item, found {item!r}{meant}"
            )
        return found[0]

    def table(self, labels: Mapping[str, Any], found: pa.Table) -> pa.Table:
        """Return a table to show: labels, rank, item, title if there are titles, and scores.

        Parameters
        ----------
        labels : mapping of str to Arrow array
            What each row is for.
        found : Table
            That of :meth:`Recommendations.to_table`; its column context is left out.
        """
        import pyarrow as pa

        columns = dict(zip(found.column_names[1:3], found.columns[1:3], strict=True))
        if self.titles:
            titles = map(self.titles.get, found["item"].to_pylist())
            columns["title"] = pa.array(list(titles), pa.string())
        columns |= zip(found.column_names[3:], found.columns[3:], strict=True)
        taken = {*columns, "why"}
        named = {f"context_{name}" if name in taken else name: labels[name] for name in labels}
        return pa.table({**named, **columns})


def with_items_named(
    model: Model, path: str, suffix: str = "", *, item: str | None, user: str | None
) -> Model:
    """Return a model that knows no items with those that options name.

    Parameters
    ----------
    model : Model
    path : str
        Its file.
    suffix : str
        What the names of the options end in: ``--item`` and ``--user``, or ``--item-column``.
    item, user : str or None
        Columns or ranges of features.

    Raises
    ------
    ConfigError
        If the model knows its items, or they are not named.
    """
    if item is None and user is None:
        if model.catalogue is not None:
            return model
        raise ConfigError(
            f"{path}: the model does not know which of its features are items; say it with "
            f"--item{suffix}, a column or a range of features such as 943:2625, and the users with "
            f"--user{suffix}"
        )
    if model.catalogue is not None:
        raise ConfigError(
            f"--item{suffix}, --user{suffix}: {path} knows its items ({model.catalogue.item}); "
            "leave them out"
        )
    if item is None:
        raise ConfigError(f"--user{suffix}: expected --item{suffix} too")
    return model.with_catalogue(item=item, user=user)


# -- items in files --------------------------------------------------------------------------------


def items_in(
    recommender: Recommender,
    items: str | None,
    titles: str | None,
    *,
    title: str | None,
    key: str | None,
) -> tuple[Recommender, Items]:
    """Return a recommender of the items to choose from, and their names.

    Parameters
    ----------
    recommender : Recommender
    items : str or None
        File with a table of the items that may be recommended; None: those of `recommender`.
    titles : str or None
        File with a table of titles; None: that of `items`, if it has a column of titles.
    title, key : str or None
        The columns of titles and ids. None: a column called `title` or `name`, and one called as in
        the training data; else the second and the first (but no title is guessed in `items`).

    Raises
    ------
    ConfigError
        If there is no such column.
    DataError
        If a table cannot be read, or has no titles of the items.
    """
    from fm.formats.tables import read_table

    column = recommender.catalogue.item
    expect = [name for name in (key, title, column, *_TITLES) if name]
    paths = [path for path in dict.fromkeys((items, titles)) if path is not None]
    tables = {path: read_table(path, expect=expect) for path in paths}
    if items is not None:
        by_id = _column("--id", key, tables[items], [column], 0)
        recommender = recommender.with_items(tables[items], item=by_id)
    ids, found = recommender.catalogue.item_ids, {}
    if paths:
        table = tables[paths[-1]]
        by_id = _column("--id", key, table, [column], 0)
        by_title = _column("--title", title, table, _TITLES, None if titles is None else 1)
        if by_title is not None:
            found = _titles_in(table, paths[-1], by_id, by_title, ids)
    return recommender, Items(ids, found, column)


def _titles_in(
    table: pa.Table, path: str, by_id: str, by_title: str, ids: Sequence[str]
) -> dict[str, str]:
    """Return the titles in a table, by id; refuse one that has none of these ids."""
    cells = (map(text_of, table[name].to_pylist()) for name in (by_id, by_title))
    found = {item: title for item, title in zip(*cells, strict=True) if item and title}
    if not any(item in found for item in ids):
        raise DataError(
            f"{path}: expected ids of the model's items in column {by_id}, found none; name the "
            "column with --id"
        )
    return found


def _column(
    option: str, given: str | None, table: pa.Table, usual: Sequence[str], last: int | None
) -> Any:
    """Return the column that is given, or one with a usual name, or the one at place `last`."""
    found = table.column_names
    if given is not None:
        if given not in found:
            raise ConfigError(f"{option}: expected one of {', '.join(found)}, found {given!r}")
        return given
    known = next((name for name in found if name in usual or name.lower() in usual), None)
    if known is not None or last is None:
        return known
    return found[min(last, len(found) - 1)]


def candidates_in(
    path: str | None, exclude: Sequence[str], recommender: Recommender, items: Items
) -> list[str] | None:
    """Return the ids in a text file without those to exclude; None: all items of the model."""
    from fm.formats.files import read_bytes

    if path is None and not exclude:
        return None
    catalogue = recommender.catalogue
    numbers = np.arange(catalogue.num_items)
    if path is not None:
        lines = read_bytes(path).decode(errors="replace").splitlines()
        wanted = [items.id_of(line.strip()) for line in lines if line.strip()]
        if not wanted:
            raise DataError(f"{path}: expected an item in each line, found none")
        numbers = catalogue.item_numbers(wanted)
    left_out = catalogue.item_numbers(map(items.id_of, exclude))
    return [catalogue.item_ids[number] for number in np.setdiff1d(numbers, left_out).tolist()]


def ratings_in(path: str, recommender: Recommender, items: Items) -> dict[str, float]:
    """Return the ratings in a table; if an item occurs more than once, its last row counts."""
    from fm.formats.tables import read_table
    from fm.reading.read import TARGETS

    column = recommender.catalogue.item
    table = read_table(path, expect=(column, *TARGETS))
    by_item = _column("", None, table, [column], 0)
    by_rating = _column("", None, table, TARGETS, 1)
    ratings: dict[str, float] = {}
    for cell, value in zip(*(table[c].to_pylist() for c in (by_item, by_rating)), strict=True):
        try:
            item, rating = text_of(cell), number_of(value)
        except ValueError:
            item, rating = None, None
        if item is None or rating is None:
            raise DataError(
                f"{path}: expected an item in column {by_item} and its rating in column "
                f"{by_rating}, found {cell!r} and {value!r}"
            )
        ratings[items.id_of(item)] = rating
    return ratings


# -- lists -----------------------------------------------------------------------------------------


def with_reasons(
    table: pa.Table, recommender: Recommender, X: sp.csr_matrix, best: Recommendations
) -> pa.Table:
    """Return a table of lists with a column `why`: the terms that add most to each item's score.

    Terms of the context alone are left out: they are the same for all items of a list. The feature
    of the item itself has the name of its column, because the item's id stands beside it.

    Parameters
    ----------
    table : Table
        The lists, a row for each item.
    recommender : Recommender
    X : csr_matrix
        The contexts.
    best : Recommendations
        The same lists, one for each context.
    """
    import pyarrow as pa

    model, catalogue = recommender.model, recommender.catalogue
    result: list[str] = []
    for row, rank in zip(*np.nonzero(best.numbers >= 0), strict=True):
        number = best.numbers[row, rank]
        found = explain(model, X[row] + catalogue.items[number], pairs=_PAIRS)
        called = {name: name for name, _ in found.linear}
        if (key := catalogue.item_keys[number]) >= 0:
            called[model.feature_name(key)] = catalogue.item
        of_item = {found.linear[i][0] for i in np.flatnonzero(catalogue.item_side[found.features])}
        terms = [(called[a], value) for a, value in found.linear if a in of_item]
        terms += [
            (f"{called[a]} x {called[b]}", value)
            for a, b, value in found.pairs
            if a in of_item or b in of_item
        ]
        terms = sorted((term for term in terms if term[1]), key=lambda term: -term[1])
        result.append(", ".join(f"{value:+.2g} {name}" for name, value in terms[:_REASONS]))
    return table.append_column("why", pa.array(result, pa.string()))


def warn_of_strangers(recommender: Recommender, users: Any, X: sp.csr_matrix) -> None:
    """Warn about users whom the model does not know; `users` is a column of Arrow, or None."""
    if users is None:
        return
    numbers, told = recommender.catalogue.rows_of_keys(X)[0], users.to_pylist()
    strangers = [u for u, number in zip(told, numbers, strict=True) if number < 0 and u is not None]
    if strangers:
        log.warning(
            "users not in the training data: %s; they get the lists of an unknown user",
            _shown(strangers),
        )


def warn_of_nothing(labels: Mapping[str, Any], best: Recommendations) -> None:
    """Warn about empty lists; `labels` are columns of Arrow."""
    empty = np.flatnonzero((best.numbers < 0).all(axis=1))
    if empty.size:
        name = next(iter(labels), None)
        whose = "" if name is None else f" to {name} {_shown(labels[name].take(empty).to_pylist())}"
        log.warning("no item is left to recommend%s", whose)


def _shown(values: Sequence[Any]) -> str:
    """Return some values as text, the first three by name.

    Examples
    --------
    >>> _shown([1, 2]), _shown(["a"] * 9)
    ('1, 2', 'a, a, a and 6 more')
    """
    text = ", ".join(one_line(str(value), 40) for value in values[:3])
    return text + (f" and {len(values) - 3} more" if len(values) > 3 else "")


def write_text(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    """Write lists for people to read; each list begins at rank 1, under a line with its labels."""
    between: list[str] = []
    for table in tables:
        labels = table.column_names[: table.column_names.index("rank")]
        shown = [name for name in table.column_names[len(labels) :] if name != "why"]
        shown.sort(key=lambda name: name in _NAMES)  # numbers first
        rows = table.to_pylist()
        starts = [i for i, row in enumerate(rows) if row["rank"] == 1]
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=False):
            named = [f"{name} {rows[start][name]}" for name in labels]
            lines = [one_line(", ".join(named), 100)] if labels else []
            lines += _lines(rows[start:end], shown)
            file.write(("\n".join([*between, *lines]) + "\n").encode())
            between = [""]


_NAMES = ("item", "title", "first", "second")


def _lines(rows: list[dict[str, Any]], shown: list[str]) -> list[str]:
    """Return the lines of one list."""
    cells = [shown, *([_cell(row[name]) for name in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for texts, row in zip(cells, [{}, *rows], strict=True):
        columns = zip(texts, widths, shown, strict=True)
        aligned = (f"{t:<{w}}" if name in _NAMES else f"{t:>{w}}" for t, w, name in columns)
        lines.append("  ".join(aligned).rstrip())
        if "why" in row:
            lines.append(f"{'':{widths[0]}}  {one_line(row['why'], 120)}")
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else one_line(str(value), 60)


WRITERS: dict[str, Callable[[BinaryIO, Iterator[Any]], None]] = {
    "table": write_text,
    **{name: PREDICTIONS[name] for name in ("csv", "tsv", "jsonl", "parquet")},
}
