"""The embedded survey: ratings of 1 to 5 that people gave to cuisines, and what they said.

The data of FiveThirtyEight (food-world-cup, CC BY 4.0), tidied; see ``food-world-cup.md`` here.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def load_survey() -> tuple[pa.Table, list[str]]:
    """Return the ratings with the raters' answers beside them, and the names of the answers.

    Examples
    --------
    >>> table, fields = load_survey()
    >>> table.num_rows, fields[2:4]
    (23943, ['gender', 'age'])
    """
    import pyarrow.compute as pc

    ratings, people = _embedded("ratings_tidy.csv.gz"), _embedded("users_tidy.csv.gz")
    row_of_rater = pc.index_in(ratings["user"], people["user"])
    fields = [name for name in people.column_names if name != "user"]
    for name in fields:
        ratings = ratings.append_column(name, people[name].take(row_of_rater))
    return ratings, fields


def _embedded(name: str) -> pa.Table:
    from fm.formats.tables import read_table

    with as_file(files("fm.datasets") / name) as path:
        return read_table(path)
