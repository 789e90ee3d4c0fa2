"""Recommendations: what ``recommend``, ``similar_items`` and ``similar_users`` return.

Decided here: the one shape of their answers. Not decided here: what is found
(``fm.recommending.recommender``), and how lists are shown (``fm.cli.lists``).

**One or many.** Who asks for one thing gets one list: a user's id, a mapping of columns, an item's
id. Who asks for many gets a list for each: a list of ids or mappings, a frame, a file, a matrix,
even if there is only one row in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fm.errors import DataError
from fm.tasks import Task

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False, repr=False)
class Recommendations:
    """One list of items (or users), best first, or a list for each of many contexts.

    One list is a sequence of ``(id, score)``; many are a sequence of lists.

    Attributes
    ----------
    numbers : ndarray of int32, shape (num_found,) or (num_contexts, k)
        Numbers of the items in the catalogue. Of many lists, -1 where one is shorter than others.
    scores : ndarray of float32, of the same shape
        What the lists are ordered by, highest first: the raw scores, as ``Model.scores`` gives
        them; of ``similar_items`` and ``similar_users`` the similarities. nan where there is none.
    names : sequence of str
        The id of each number.
    contexts : sequence or object, optional
        What each list is for, where ids were asked for; of one list, that id.
    columns : (str, str)
        How :meth:`to_table` calls the ids and the scores.
    task : Task, optional
        That of the model, if these are its scores; one with probabilities has them of items, too.

    Examples
    --------
    >>> import fm
    >>> data = fm.read({"user": [1, 1, 2, 3], "film": ["A", "B", "B", "C"], "rating": [1, 2, 3, 4]})
    >>> model = fm.fit(data, fm.TrainConfig(num_factors=2))
    >>> model.recommend(1, 5).ids  # one user, one list; A and B are left out
    ['C']
    >>> model.recommend([1, 3], 5).ids
    [['C'], ['B', 'A']]
    >>> for film, score in model.recommend(3, 1):
    ...     print(film, round(score))
    B 3
    """

    numbers: np.ndarray
    scores: np.ndarray
    names: Sequence[str]
    contexts: Any = None
    columns: tuple[str, str] = ("item", "score")
    task: Task | None = None

    @cached_property
    def ids(self) -> list[Any]:
        """The ids of one list, best first, or of many as a list of lists."""
        if self.is_one:
            return [self.names[number] for number in self.numbers.tolist()]
        lists = self.numbers.tolist()
        return [[self.names[number] for number in one if number >= 0] for one in lists]

    @property
    def probabilities(self) -> np.ndarray | None:
        """Of a classifier: the probability of label 1 of each item, shaped as `scores`."""
        if self.task is None or not self.task.has_probabilities:
            return None
        return np.asarray(self.task.loss.link(self.scores))

    @property
    def is_one(self) -> bool:
        """Whether it is one list, and not a list for each of many contexts."""
        return self.numbers.ndim == 1

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at: int) -> Any:
        if self.is_one:
            return self.ids[at], float(self.scores[at])
        numbers, scores = self.numbers[at], self.scores[at]
        there = numbers >= 0
        context = None if self.contexts is None else self.contexts[at]
        return Recommendations(
            numbers[there], scores[there], self.names, context, self.columns, self.task
        )

    def __iter__(self) -> Iterator[Any]:
        if self.is_one:
            return zip(self.ids, self.scores.tolist(), strict=True)
        return (self[at] for at in range(len(self)))

    def __repr__(self) -> str:
        if not self.is_one:
            return f"Recommendations({len(self):,} lists of up to {self.numbers.shape[1]:,})"
        shown = [f"{name} {score:.4g}" for name, score in self][:10]
        return f"Recommendations({', '.join(shown + ['...'] * (len(self) > 10))})"

    def to_table(self, contexts: Sequence[Any] | None = None) -> pa.Table:
        """Return an Arrow table with a row for each item; ``.to_pandas()`` makes a frame of it.

        Its columns are context, rank (from 1), item and score, of a classifier probability too.
        Similar items have a similarity in the place of the score, and similar users are a column
        user.

        Parameters
        ----------
        contexts : sequence, optional
            What to call each context; the default is the id that was asked for, else its number
            from 0.

        Raises
        ------
        DataError
            If there are not as many as contexts.

        Examples
        --------
        >>> best = Recommendations(np.array([2, 0]), np.array([1.5, 1.0]), ["A", "B", "C"], "ann")
        >>> best.to_table().to_pylist()[0]
        {'context': 'ann', 'rank': 1, 'item': 'C', 'score': 1.5}
        """
        import pyarrow as pa

        numbers, scores = np.atleast_2d(self.numbers), np.atleast_2d(self.scores)
        if contexts is None and self.contexts is not None:
            contexts = [self.contexts] if self.is_one else self.contexts
        if contexts is not None and len(contexts) != len(numbers):
            raise DataError(
                f"contexts: expected a name for each of {len(numbers)} contexts, found "
                f"{len(contexts)}"
            )
        rows, ranks = np.nonzero(numbers >= 0)
        called: Any = pa.array(rows)
        if contexts is not None:
            called = pa.array(contexts).take(called)
        used, places = np.unique(numbers[rows, ranks], return_inverse=True)
        names = pa.array([self.names[number] for number in used.tolist()], pa.string())
        result = {
            "context": called,
            "rank": pa.array((ranks + 1).astype(np.int32)),
            self.columns[0]: names.take(pa.array(places)),
            self.columns[1]: pa.array(scores[rows, ranks]),
        }
        if (found := self.probabilities) is not None:
            result["probability"] = pa.array(np.atleast_2d(found)[rows, ranks])
        return pa.table(result)
