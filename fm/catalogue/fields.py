"""Fields: where the items and the users stand among the features, and what they are called.

Decided here: which names are those of items and users, what a range of features is, and which
columns can be either. Not decided here: which columns describe them (``fm.reading.finding_items``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fm.encoding.encoder import Encoder
from fm.errors import ConfigError

USER_NAMES = ("user", "user_id", "userid", "customer", "customer_id", "person", "visitor")
ITEM_NAMES = (
    "item", "item_id", "itemid", "movie", "movie_id", "movieid", "film", "product", "product_id",
    "article", "book", "isbn", "song", "track", "artist", "app", "game",
)  # fmt: skip
FIELD_RANGE = re.compile(r"(\d+):(\d+)")


class Features(Protocol):
    """What names the features of rows: a Dataset, or a factorization machine."""

    @property
    def num_features(self) -> int:
        """How many there are."""

    @property
    def encoder(self) -> Encoder | None:
        """What turned columns into features."""

    @property
    def fields(self) -> np.ndarray | None:
        """The field of each feature."""

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the fields, by field number."""


class FeatureIds(Sequence[str]):
    """What features are called: the value in their column, else their number. Made when needed."""

    def __init__(self, keys: np.ndarray, encoder: Encoder | None) -> None:
        self._keys, self._encoder = keys, encoder

    def __len__(self) -> int:
        return int(self._keys.size)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        key = int(self._keys[at])
        if self._encoder is None:
            return str(key)
        return self._encoder.feature_value(key) or ""  # features of users and items have one


@dataclass
class Field:
    """Where the items or the users stand among the features."""

    name: str
    features: np.ndarray  # one for each item or user
    all_features: np.ndarray  # the same, and the feature of unknown ones
    number: int | None  # the number of the field; None: it is a range of features


def field_of(
    features: Features, role: str, name: str | None, guesses: Sequence[str]
) -> Field | None:
    """Return the field of the items or users: the one called `name`, else the first good guess.

    None if there is no name and no good guess. Raises a ConfigError that begins with `role` if
    `name` is no field, or not a categorical column that keeps its values.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"{role}: expected the name of a column, found {name!r}")
    if name is None:
        name = _guessed(features.encoder, guesses)
        if name is None:
            return None
    match = FIELD_RANGE.fullmatch(name)
    if match:
        first, end = int(match[1]), int(match[2])
        if not first < end <= features.num_features:
            raise ConfigError(
                f"{role}: expected a range of features in 0:{features.num_features}, found {name!r}"
            )
        chosen = np.arange(first, end, dtype=np.int32)
        return Field(name, chosen, chosen, None)
    if features.fields is None or name not in features.field_names:
        known = ", ".join(features.field_names) or "none; give a range of features such as 943:2625"
        raise ConfigError(f"{role}: expected one of the columns ({known}), found {name!r}")
    number = features.field_names.index(name)
    chosen = np.flatnonzero(features.fields == number).astype(np.int32)
    if features.encoder is None:
        return Field(name, chosen, chosen, number)
    column = _column(features.encoder, name)
    if column.kind != "categorical" or _hashed(column):
        kind = "hashed" if column.kind == "categorical" else column.kind
        raise ConfigError(
            f"{role}: expected a categorical column that keeps its values, found {name!r}, which "
            f"is {kind}"
        )
    return Field(name, chosen[1:], chosen, number)


def _guessed(encoder: Encoder | None, guesses: Sequence[str]) -> str | None:
    """Return the column whose name comes first among the guesses; None if it cannot be used."""
    if encoder is None:
        return None
    found = {c.name.lower(): c.name for c in encoder.columns if c.kind == "categorical"}
    name = next((found[guess] for guess in guesses if guess in found), None)
    return None if name is None or _hashed(_column(encoder, name)) else name


def _hashed(column: Any) -> bool:
    return "hash_dim" in column.to_dict()


def _column(encoder: Encoder, name: str) -> Any:
    return encoder.columns[encoder.field_names.index(name)]
