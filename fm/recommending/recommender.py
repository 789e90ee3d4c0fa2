"""Recommender: the best items for a context, exactly as scoring every item would find them.

Decided here: which items may be recommended, and what is returned. Not decided here: what a context
is (``fm.recommending.contexts``), what the items are (``fm.catalogue.catalogue``), how the best are
found (``fm.recommending.topk``).

A row has two sides, the item's and the context's (see ``fm.catalogue.catalogue``). The score of
context c and item i is (see ``fm.scoring.formula.side_terms``)

    w0 + t_c + t_i + <s_c, s_i>

The vectors ``s_i`` and biases ``t_i`` of the items are the same for all contexts and are computed
once. The scores of many contexts are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.catalogue import Catalogue
from fm.catalogue.filling import number_in_row
from fm.errors import Advice, ConfigError, DataError
from fm.formats.cells import text_of
from fm.recommending.contexts import Contexts, is_id, listed
from fm.recommending.recommendations import Recommendations
from fm.recommending.topk import TopK, top_k
from fm.scoring.formula import side_terms
from fm.sparse import all_finite, compacted, without

if TYPE_CHECKING:
    from fm.recommending.folding import Folded
    from fm.scoring.machine import FactorizationMachine

CONTEXTS_AT_ONCE = 4096  # at most so many contexts are answered together,
ITEMS_AT_ONCE = 1 << 20  # with at most so many items
SIMILARITIES = ("cosine", "inner")


class Sides(NamedTuple):
    """One side of rows: vectors and what is added to their inner products.

    Attributes
    ----------
    vectors : ndarray of float32, shape (n, num_factors)
        The sum of the factors of the side's features.
    bias : ndarray of float32, shape (n,)
        The linear terms and the pairs within the side; for contexts, the model's bias too.
    """

    vectors: np.ndarray
    bias: np.ndarray


def side_vectors(model: FactorizationMachine, X: sp.csr_matrix) -> Sides:
    """Return vectors and biases of rows that hold one side, without the model's own bias.

    Parameters
    ----------
    model : FactorizationMachine
    X : csr_matrix of float32, shape (n, num_features)
    """
    w, V = model.w, model.V
    if 4 * X.nnz < model.num_features:  # a request need not read the whole model
        used, X = compacted(X)
        w, V = w[used], V[used]
    return Sides(*side_terms(X, w, V))


class Recommender:
    """Recommends the items of a catalogue with a model.

    Parameters
    ----------
    model : FactorizationMachine
    catalogue : Catalogue, optional
        The items; the default is the model's own.

    Raises
    ------
    ConfigError
        If the model has no catalogue.

    Examples
    --------
    >>> from fm.reading.finding_items import catalogue_of
    >>> from fm.config import TrainConfig
    >>> from fm.model.model import Model
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> data.encoder.feature_names[:]
    ['user=<unknown>', 'user=1', 'user=2', 'film=<unknown>', 'film=B', 'film=A']
    >>> model = Model(2, [0, 0, 1, 0, 3, 1], [[0], [1], [-1], [0], [0], [1]],
    ...               TrainConfig(num_factors=1), encoder=data.encoder)
    >>> recommender = Recommender(model, catalogue_of(data))
    >>> recommender.recommend(2).ids  # they have met B
    ['A']
    >>> best = recommender.recommend([{"user": 2}, {"user": "a stranger"}], exclude=None)
    >>> best.ids, best.scores.tolist()
    ([['B', 'A'], ['B', 'A']], [[6.0, 3.0], [5.0, 3.0]])
    """

    def __init__(self, model: FactorizationMachine, catalogue: Catalogue | None = None) -> None:
        if catalogue is None:
            catalogue = model.catalogue
        if catalogue is None:
            raise ConfigError(
                "recommend: the model does not know which of its features are items; say it with "
                "model.with_catalogue(item=...)",
                Advice(
                    "or train it on data read with {item}, the column (or range of features) of "
                    "the items",
                    item=...,
                ),
            )
        if catalogue.items.shape[1] != model.num_features:
            raise ConfigError(
                f"catalogue: expected items of the model's {model.num_features} features, found "
                f"{catalogue.items.shape[1]}"
            )
        self.model = model
        self.catalogue = catalogue
        self._reader = Contexts(model, catalogue)

    def __repr__(self) -> str:
        return f"Recommender({self.catalogue!r})"

    # -- sides -----------------------------------------------------------------------------------

    @cached_property
    def item_sides(self) -> Sides:
        """Vectors and biases of all items."""
        return side_vectors(self.model, self.catalogue.items)

    def context_sides(self, rows: Any, *, folded: Folded | None = None) -> Sides:
        """Return vectors and biases of contexts; the bias holds the model's own.

        Parameters
        ----------
        rows : contexts
            See ``fm.recommending.contexts``.
        folded : object with w and v, optional
            Takes the place of the user's features in all these contexts.

        Raises
        ------
        DataError
            If a context cannot be read, its numbers are too large, or `folded` does not fit.
        """
        return self._sides_of(self.contexts(rows), folded)

    def _sides_of(self, X: sp.csr_matrix, folded: Folded | None) -> Sides:
        if folded is not None:
            X = without(X, self._reader.user_features)
        vectors, bias = side_vectors(self.model, X)
        with np.errstate(over="ignore", invalid="ignore"):
            if folded is not None:
                v = np.asarray(folded.v, np.float32)
                if v.shape != (self.model.num_factors,):
                    raise DataError(
                        f"folded: expected v of shape ({self.model.num_factors},), found {v.shape}"
                    )
                bias = bias + (np.float32(folded.w) + vectors @ v)
                vectors = vectors + v
            bias = bias + np.float32(self.model.w0)
        if not all_finite(bias) or not all_finite(vectors):
            raise DataError("context: its score is not a finite number; its values are too large")
        return Sides(vectors, bias)

    def item_vectors(self) -> np.ndarray:
        """Return ``[s_i, b_i]`` of all items, float32, shape (num_items, num_factors + 1).

        The inner product with a row of :meth:`context_vectors` is the score but for a constant of
        the context, which changes no order.
        """
        return np.column_stack(self.item_sides)

    def context_vectors(self, rows: Any) -> np.ndarray:
        """Return ``[s_c, 1]`` of contexts, float32; see :meth:`item_vectors`."""
        vectors = self.context_sides(rows).vectors
        return np.column_stack([vectors, np.ones(len(vectors), np.float32)])

    # -- contexts --------------------------------------------------------------------------------

    @property
    def user_ids(self) -> Sequence[str]:
        """What the users of the training data are called, in the order of their features."""
        return self._reader.user_ids

    def contexts(self, rows: Any) -> sp.csr_matrix:
        """Return contexts as rows of features, without the item side (see ``Contexts.read``)."""
        return self._reader.read(rows)

    def with_items(self, table: Any, *, item: str | None = None) -> Recommender:
        """Return a recommender of the same model for the items of a table.

        Parameters
        ----------
        table : frame, Arrow table, dict of columns, or path
            A row for each item: its id and the columns that describe it. Items that training did
            not meet are scored by these columns.
        item : str, optional
            The column of the ids; the default is called as in the training data.

        Raises
        ------
        ConfigError
            If the model has no encoder, or its items are no column of it.
        DataError
            If the table cannot be read, a column is missing, or an id is missing or occurs twice.
        """
        from fm.catalogue.item_table import catalogue_of_table

        made = catalogue_of_table(self.model.encoder, self.catalogue, table, item=item)
        return Recommender(self.model, made)

    # -- recommending ----------------------------------------------------------------------------

    def block_size(self, k: int) -> int:
        """Return how many contexts to answer together: as many as fit in memory with `k` items."""
        _check_k(k)
        length = min(int(k), max(1, self.catalogue.num_items))
        return max(1, min(CONTEXTS_AT_ONCE, ITEMS_AT_ONCE // length))

    def recommend(
        self,
        context: Any = None,
        k: int = 10,
        *,
        exclude: Any = "seen",
        candidates: Iterable[Any] | None = None,
        ratings: Mapping[Any, Any] | None = None,
        liked: Iterable[Any] | None = None,
        folded: Folded | None = None,
    ) -> Recommendations:
        """Return the `k` items with the highest scores for one context, or for each of many.

        Equal scores stand in the order of the catalogue. A context with fewer than `k` items left
        gets those.

        Parameters
        ----------
        context : one context or many
            See ``fm.recommending.contexts``; one gets one list. It may be left out where `ratings`
            or `liked` tell of somebody new.
        k : int
            How many.
        exclude : "seen", None, list of item ids, or list of such lists
            Items not to recommend: those that the context's user met in the training data
            (strangers met none), none, these, or, for each context, its own.
        candidates : iterable of item ids, optional
            Only these are recommended; None: all items.
        ratings : mapping, optional
            Item id to rating, by one person whom the model need not know: what it learns of the
            person from them is used for this answer and not kept. With exclude="seen" the items
            in it are left out.
        liked : iterable of item ids, optional
            As `ratings`, for models of labels and rankers.
        folded : Folded, optional
            What was learnt of a new user before (``Model.fold_in``), in the place of the user's
            own parameters.

        Raises
        ------
        ConfigError
            If an option is not one of the above.
        DataError
            If an item does not exist, or a context or rating cannot be read.
        """
        if ratings is not None or liked is not None:
            from fm.recommending.folding import fold_ratings

            one = context is None or _is_one(context)
            context = self.contexts({} if context is None else context)
            folded, met = fold_ratings(self.model, self.catalogue, context, ratings, liked)
            if isinstance(exclude, str) and exclude == "seen":
                exclude = met
        elif context is None:
            raise ConfigError("recommend: expected a context (such as a user's id), found None")
        else:
            one = _is_one(context)
        X = self.contexts(context)
        best = self._recommend(X, k, exclude, self._chosen(candidates), folded, _ids_in(context))
        return best[0] if one else best

    def recommend_all(
        self,
        k: int = 10,
        *,
        exclude: Any = "seen",
        candidates: Iterable[Any] | None = None,
    ) -> Iterator[Recommendations]:
        """Yield the lists of all users of the training data, a few thousand at a time.

        The ids of the users are the `contexts` of what is yielded. Columns that describe the user
        are as in training, the others unknown. Parameters and errors are those of
        :meth:`recommend`, but `exclude` cannot be one list for each user.
        """
        chosen, size = self._chosen(candidates), self.block_size(k)
        for begin in range(0, self.catalogue.num_users, size):
            ids = list(self.user_ids[begin : begin + size])
            yield self._recommend(self.contexts(ids), k, exclude, chosen, None, ids)

    def _chosen(self, candidates: Iterable[Any] | None) -> np.ndarray | None:
        if candidates is None:
            return None
        if isinstance(candidates, (str, bytes)) or not isinstance(candidates, Iterable):
            raise ConfigError(f"candidates: expected a list of item ids, found {candidates!r}")
        return np.unique(self.catalogue.item_numbers(candidates))

    def _recommend(
        self,
        X: sp.csr_matrix,
        k: int,
        exclude: Any,
        chosen: np.ndarray | None,
        folded: Folded | None,
        called: Sequence[str] | None,
    ) -> Recommendations:
        _check_k(k)
        left_out = self._excluded(exclude, X)
        contexts = self._sides_of(X, folded)
        vectors, bias = self.item_sides
        if chosen is not None:
            vectors, bias = vectors[chosen], bias[chosen]
            left_out = None if left_out is None else _within(left_out, chosen)
        count = min(int(k), len(bias))
        best = top_k(contexts.vectors, vectors, bias, max(1, count), exclude=left_out)
        numbers, scores = best.numbers[:, :count], best.scores[:, :count]
        if chosen is not None and chosen.size:
            numbers = np.where(numbers < 0, np.int32(-1), chosen[numbers])
        return Recommendations(
            numbers,
            scores + contexts.bias[:, None],
            self.catalogue.item_ids,
            called,
            task=self.model.task,
        )

    def _excluded(self, exclude: Any, X: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (indptr, item numbers) of what each context must not get."""
        num_rows = X.shape[0]
        if exclude is None:
            return None
        if isinstance(exclude, str) and exclude == "seen":
            return self._seen(X)
        if isinstance(exclude, (str, bytes, Mapping)) or not isinstance(exclude, Iterable):
            raise ConfigError(
                f"exclude: expected 'seen', None, or lists of item ids, found {exclude!r}"
            )
        lists = [listed(part) for part in listed(exclude)]
        if lists and all(isinstance(part, _LISTS) for part in lists):
            if len(lists) != num_rows:
                raise DataError(
                    f"exclude: expected one list for each of {num_rows} contexts, found "
                    f"{len(lists)}"
                )
            parts = [self.catalogue.item_numbers(part) for part in lists]
        else:
            parts = [self.catalogue.item_numbers(lists)] * num_rows
        indptr = np.concatenate([[0], np.cumsum([part.size for part in parts], dtype=np.int64)])
        return indptr, np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def _seen(self, X: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray] | None:
        seen = self.catalogue.seen
        if seen is None or not seen.shape[0]:
            return None
        users = number_in_row(X, self.catalogue.number_of_user_key)
        begins = seen.indptr[users]
        counts = np.where(users >= 0, seen.indptr[users + 1] - begins, 0)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        entries = np.arange(indptr[-1]) + np.repeat(begins - indptr[:-1], counts)
        return indptr, seen.indices[entries]

    # -- similar items and users -----------------------------------------------------------------

    def similar_items(
        self, item: Any, k: int = 10, *, similarity: str = "cosine"
    ) -> Recommendations:
        """Return the `k` items most similar to one, which is not among them, or to each of many.

        Parameters
        ----------
        item : str or int, or list of them
            The id of an item, or of many.
        k : int
            How many; there are fewer if the catalogue is smaller.
        similarity : {"cosine", "inner"}
            Of the items' vectors: their cosine, or their inner product. The items' biases are not
            in it.

        Raises
        ------
        DataError
            If there is no such item.
        ConfigError
            If `k` or `similarity` is wrong.
        """
        numbers = self.catalogue.item_numbers([item] if is_id(item) else listed(item))
        vectors = self.item_sides.vectors
        directions = self._item_directions if similarity == "cosine" else None
        found = _most_similar(vectors, directions, numbers, k, similarity)
        return _similar(found, self.catalogue.item_ids, item, "item")

    def similar_users(
        self, user: Any, k: int = 10, *, similarity: str = "cosine"
    ) -> Recommendations:
        """Return the `k` users most similar to one, or to each of many; as `similar_items`."""
        ids = [user] if is_id(user) else listed(user)
        X = self._reader.of_users(ids)
        numbers = number_in_row(X, self.catalogue.number_of_user_key)
        if (numbers < 0).any():
            stranger = ids[int(np.argmax(numbers < 0))]
            raise DataError(
                f"{self.catalogue.user}: expected one of the {self.catalogue.num_users} users of "
                f"the training data, found {stranger!r}"
            )
        vectors = self.model.V[self.catalogue.user_keys]
        found = _most_similar(vectors, None, numbers, k, similarity)
        return _similar(found, self.user_ids, user, "user")

    @cached_property
    def _item_directions(self) -> np.ndarray:
        return _directions(self.item_sides.vectors)


def _is_one(context: Any) -> bool:
    """Whether it is one context, which gets one list, and not many."""
    return isinstance(context, Mapping) or is_id(context)


def _ids_in(asked: Any) -> Any:
    """Return the ids that were asked for, as texts; None where it is something else."""
    if is_id(asked):
        return [text_of(asked)]
    table = hasattr(asked, "columns") or hasattr(asked, "schema")
    found = None if table else listed(asked)
    if isinstance(found, (list, tuple)) and all(map(is_id, found)):
        return [text_of(one) for one in found]
    return None


_LISTS = (list, tuple, set, frozenset)


def _check_k(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ConfigError(f"k: expected an integer of at least 1, found {k!r}")


def _within(
    entries: tuple[np.ndarray, np.ndarray], chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of items as positions in `chosen` (ascending); the others are dropped."""
    indptr, numbers = entries
    if not chosen.size:
        return np.zeros_like(indptr), numbers[:0]
    places = np.minimum(np.searchsorted(chosen, numbers), chosen.size - 1)
    keep = chosen[places] == numbers
    return np.concatenate([[0], np.cumsum(keep)])[indptr], places[keep]


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1; zero vectors stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)


def _similar(found: TopK, names: Sequence[str], asked: Any, what: str) -> Recommendations:
    best = Recommendations(*found, names, _ids_in(asked), (what, "similarity"))
    return best[0] if is_id(asked) else best


def _most_similar(
    vectors: np.ndarray,
    directions: np.ndarray | None,
    chosen: np.ndarray,
    k: int,
    similarity: str,
) -> TopK:
    """Return numbers and similarities of the rows most like each of those chosen."""
    if similarity not in SIMILARITIES:
        raise ConfigError(
            f"similarity: expected one of {', '.join(SIMILARITIES)}, found {similarity!r}"
        )
    _check_k(k)
    if similarity == "cosine":
        vectors = _directions(vectors) if directions is None else directions
    itself = np.arange(len(chosen) + 1), chosen
    zeros = np.zeros(len(vectors), np.float32)
    return top_k(vectors[chosen], vectors, zeros, min(int(k), len(vectors)), exclude=itself)
