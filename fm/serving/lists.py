"""Recommending in requests: what an instance with ``k`` asks for, and how it is answered.

Decided here: the options of such an instance, how they are checked before anything is computed, and
that instances with the same options are answered together. Not decided here: how contexts
become rows (``fm.serving.bodies``), and what is recommended (``fm.recommending.recommender``).

==============  ===================================================================================
option          meaning
==============  ===================================================================================
``k``           how many items; there are fewer if no more are left
``exclude``     items not to recommend: ``"seen"`` (the default: those that the user met in the
                training data), a list of items, or ``null`` or ``false`` for none
``candidates``  recommend only these items
``ratings``     ``{ITEM: RATING, ...}`` of a person whom the model need not know; labels 0 and 1,
                unless the model is a regressor. They are used for this answer only, in place of
                what the model knows about the user. "seen" then means these items
``liked``       ``[ITEM, ...]``: as ``ratings`` with label 1; not for a regressor
==============  ===================================================================================

If the model has a column with the name of an option, the column is meant. Nothing is kept between
requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import scipy.sparse as sp

from fm.errors import DataError, FMError
from fm.formats.frames import misspelt
from fm.model.model import Model
from fm.serving.media import ANSWER_TYPES, JSONLINES, Refusal, shown

OPTIONS = ("k", "exclude", "candidates", "ratings", "liked")
DEFAULT_K = 10  # if {"recommend": ...} has no k
MOST_ITEMS = 5_000_000  # items in an answer: some 200 MB
_MOST_CHECKS = 100  # different sets of names in a request: to look for slips takes time
_LARGEST = float(np.finfo(np.float32).max)
_NOT_FINITE = "the prediction is not a finite number; scale the values"
_OF_A_NAME = 150  # bytes of an item's name: a short text, and its place in a dict


class Asked(NamedTuple):
    """What one instance asks for."""

    k: int
    exclude: Any  # "seen", None or a list of item ids
    candidates: tuple[Any, ...] | None
    ratings: Mapping[str, Any] | None
    liked: list[Any] | None

    @property
    def group(self) -> tuple[Any, ...]:
        """What is the same in all instances that are answered together."""
        return self.k, "each" if type(self.exclude) is list else self.exclude, self.candidates

    @property
    def folds(self) -> bool:
        """Whether the person is known by ratings only, and has to be folded in."""
        return self.ratings is not None or self.liked is not None


class Asking:
    """The instances of a request that ask for recommendations.

    Parameters
    ----------
    model : Model
    columns : collection of str
        Names of the model's columns, which cannot be options.

    Raises
    ------
    DataError
        If the model does not know which of its features are items.
    """

    def __init__(self, model: Model, columns: frozenset[str]) -> None:
        if model.catalogue is None:
            raise DataError(
                "k: the model cannot recommend, as it does not know which of its features are "
                "items; train it with the hyperparameter item, the column (or range of features) "
                "of the items, or name them with fm convert --item"
            )
        self.model, self.catalogue, self.columns = model, model.catalogue, columns
        self.options = frozenset(OPTIONS) - columns
        self.asked: list[Asked] = []
        self._items = 0
        self._names: set[tuple[str, ...]] = set()
        self._checked: set[tuple[Any, ...]] = set()  # candidates that all users may share

    def add(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        """Check and keep the options of an instance; return the rest, which is the context.

        Raises
        ------
        DataError
            If an option is wrong.
        """
        options = self.options
        given = {name: value for name, value in instance.items() if name in options}
        self._check_names(tuple(instance))
        k = given.get("k", DEFAULT_K)
        if type(k) is not int or k < 1:
            raise DataError(f"k: expected an integer of at least 1, found {shown(k)}")
        k = min(k, max(1, self.catalogue.num_items))
        self._items += k
        if self._items > MOST_ITEMS:
            raise DataError(
                f"k: expected at most {MOST_ITEMS} items in an answer, found more; send fewer "
                "instances at a time, or a smaller k"
            )
        candidates = given.get("candidates")
        if candidates is not None:
            candidates = self._shared(candidates)
        liked = given.get("liked")
        if liked is not None:
            self._check_items("liked", liked)
            if not self.model.task.labels:
                raise DataError(
                    "liked: the model predicts ratings, not likes; give ratings, from item to "
                    "number"
                )
        ratings = self._ratings(given.get("ratings"))
        if liked is not None and ratings is not None:
            raise DataError("ratings, liked: expected one of the two, found both")
        exclude = self._exclude(given.get("exclude", "seen"))
        self.asked.append(Asked(k, exclude, candidates, ratings, liked))
        return {name: value for name, value in instance.items() if name not in options}

    def _check_names(self, names: tuple[str, ...]) -> None:
        """Refuse a misspelt option; names that are neither options nor columns are ignored."""
        if names in self._names or len(self._names) >= _MOST_CHECKS:
            return
        slip = misspelt(names, OPTIONS, self.columns)
        if slip is not None:
            raise DataError(f"{slip[1]}: expected this name, found {slip[0]!r}; correct it")
        self._names.add(names)

    def _exclude(self, exclude: Any) -> Any:
        if exclude is None or exclude is False:
            return None
        if type(exclude) is str and exclude == "seen":
            return exclude
        if type(exclude) is not list:
            raise DataError(
                f'exclude: expected "seen", null or a list of items, found {shown(exclude)}'
            )
        self._check_items("exclude", exclude)
        return exclude

    def _shared(self, candidates: Any) -> tuple[Any, ...]:
        if type(candidates) is list:
            with contextlib.suppress(TypeError):  # it holds a list, which is not an item
                if (found := tuple(candidates)) in self._checked:
                    return found
        self._check_items("candidates", candidates)
        found = tuple(candidates)
        self._checked.add(found)
        return found

    def _ratings(self, ratings: Any) -> Any:
        if ratings is None:
            return None
        if type(ratings) is not dict:
            raise DataError(f'ratings: expected {{"ITEM": RATING}}, found {shown(ratings)}')
        self._check_items("ratings", list(ratings))
        labels = self.model.task.labels
        for item, rating in ratings.items():
            if labels:
                right = type(rating) in (int, float, bool) and rating in (0, 1)
            else:
                right = type(rating) in (int, float) and abs(rating) <= _LARGEST
            if not right:
                wanted = "0 or 1" if labels else "a finite number"
                raise DataError(
                    f"ratings: expected {wanted} for {shown(item)}, found {shown(rating)}"
                )
        return ratings

    def _check_items(self, option: str, items: Any) -> None:
        if type(items) is not list:
            raise DataError(f"{option}: expected a list of items, found {shown(items)}")
        # Not Catalogue.item_number, which takes half a second to find a similar name among 16,000.
        for item in items:
            if self.catalogue.find(item) is None:
                raise DataError(
                    f"{option}: expected items ({self.catalogue.item}) among the "
                    f"{self.catalogue.num_items} of the model, found {shown(item)}"
                )


def answer(model: Model, X: sp.csr_matrix, asked: Sequence[Asked], media_type: str) -> bytes:
    r"""Return the best items for each context as the bytes of a media type.

    Items have their raw score, those of a classifier the probability of label 1 too.

    Parameters
    ----------
    model : Model
        With a catalogue.
    X : csr_matrix, shape (len(asked), num_features)
        The contexts; items in them are ignored.
    asked : sequence of Asked
    media_type : str
        One of JSON or JSON Lines.

    Raises
    ------
    Refusal
        400, for an instance that cannot be answered, such as one with too large values.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> model = Model(2, [0, 0, 1, 0, 3, 1], [[0], [1], [-1], [0], [0], [1]],
    ...               TrainConfig(num_factors=1), encoder=data.encoder, catalogue=data.catalogue)
    >>> asking = Asking(model, frozenset(data.field_names))
    >>> X = data.encoder.encode_rows([asking.add({"user": 1, "k": 1, "exclude": None})])
    >>> answer(model, X, asking.asked, "application/jsonlines")
    b'{"items":[{"item":"B","score":5.0}]}\n'
    """
    parts = [b""] * len(asked)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, wish in enumerate(asked):
        if wish.folds:
            _fill(model, X, asked, [row], parts)
        else:
            groups.setdefault(wish.group, []).append(row)
    for group, rows in groups.items():
        size = model.recommender.block_size(group[0])
        for start in range(0, len(rows), size):
            _fill(model, X, asked, rows[start : start + size], parts)
    if ANSWER_TYPES[media_type] == JSONLINES:
        return b"".join(part + b"\n" for part in parts)
    return b'{"predictions":[' + b",".join(parts) + b"]}"


def _fill(
    model: Model, X: sp.csr_matrix, asked: Sequence[Asked], rows: list[int], parts: list[bytes]
) -> None:
    """Put the answers to some instances of one group into their places."""
    try:
        found = _lists(model, X, asked, rows)
    except FMError as err:
        if len(rows) == 1:
            raise Refusal(400, f"instance {rows[0] + 1}: {err}") from None
        middle = len(rows) // 2  # find the instance that is wrong
        _fill(model, X, asked, rows[:middle], parts)
        _fill(model, X, asked, rows[middle:], parts)
        return
    for row, part in zip(rows, found, strict=True):
        parts[row] = part


def _lists(model: Model, X: sp.csr_matrix, asked: Sequence[Asked], rows: list[int]) -> list[bytes]:
    """Return the answer to each of some instances of one group."""
    one = asked[rows[0]]
    exclude = one.exclude
    if type(exclude) is list:
        exclude = [asked[row].exclude for row in rows]
    contexts = X if len(rows) == X.shape[0] else X[rows]
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # reported below
            best = model.recommend(
                contexts,
                one.k,
                exclude=exclude,
                candidates=one.candidates,
                ratings=one.ratings,
                liked=one.liked,
            )
    except np.linalg.LinAlgError:  # the ratings lead to numbers that are not finite
        raise DataError(_NOT_FINITE) from None
    numbers, scores = best.numbers, best.scores
    there = numbers >= 0
    if not np.isfinite(scores[there]).all():
        raise DataError(_NOT_FINITE)
    probabilities = best.probabilities
    used, places = np.unique(numbers, return_inverse=True)
    ids = best.names
    names = ["" if number < 0 else ids[number] for number in used.tolist()]
    places = places.reshape(numbers.shape)
    found = []
    for row, count in enumerate(there.sum(axis=1).tolist()):
        pairs = zip(places[row, :count].tolist(), scores[row, :count].tolist(), strict=True)
        items = [{"item": names[place], "score": score} for place, score in pairs]
        if probabilities is not None:
            for item, probability in zip(items, probabilities[row, :count].tolist(), strict=True):
                item["probability"] = probability
        found.append(orjson.dumps({"items": items}))
    return found


def warm_up(model: Model) -> None:
    """Make what recommending needs: the items' vectors and names, the prior of new users.

    If that fails, the first request that needs it gets the message.
    """
    if model.catalogue is None or not model.catalogue.num_items:
        return
    first = model.catalogue.item_ids[0]
    told: dict[str, Any] = {"ratings": {first: model.w0}}
    if model.task.labels:
        told = {"liked": [first]}
    empty = sp.csr_matrix((1, model.num_features), dtype=np.float32)
    for more in ({}, told):
        with contextlib.suppress(FMError), np.errstate(over="ignore", invalid="ignore"):
            asking = Asking(model, frozenset())
            asking.add({"k": 1, **more})
            _lists(model, empty, asking.asked, [0])


def memory(model: Model) -> int:
    """Return the bytes of memory that recommending takes besides the model's parameters."""
    if model.catalogue is None:
        return 0
    items, seen = model.catalogue.items, model.catalogue.seen
    arrays = [items.data, items.indices, items.indptr]
    arrays += [] if seen is None else [seen.data, seen.indices, seen.indptr]
    vectors = model.catalogue.num_items * (model.num_factors + 1) * 4
    total = vectors + _OF_A_NAME * model.catalogue.num_items
    return total + sum(int(array.nbytes) for array in arrays)
