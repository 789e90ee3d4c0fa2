"""Model: a trained factorization machine, and everything that people ask of it.

Decided here: what a model remembers of its training, and what can be asked of it. Not decided here:
how rows are scored (``fm.scoring.machine``), how the parameters are found (``fm.training.fit``),
the file (``fm.model.file``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fm.errors import ConfigError
from fm.model.file import write_parts
from fm.scoring.machine import FactorizationMachine

if TYPE_CHECKING:
    from fm.explaining.interactions import Interaction
    from fm.explaining.terms import Explanation
    from fm.recommending.folding import Folded
    from fm.recommending.recommendations import Recommendations
    from fm.recommending.recommender import Recommender


@dataclass(frozen=True, eq=False, repr=False)
class Model(FactorizationMachine):
    """A trained factorization machine.

    Parameters
    ----------
    w0, w, V, config, encoder, fields, field_names, metrics, zero_based, catalogue, labels
        See :class:`fm.scoring.machine.FactorizationMachine`.
    history : list of dict
        Metrics of each epoch; the ``epoch`` in them counts from 1.
    fingerprint : str
        Fingerprint of the training data.

    Raises
    ------
    DataError
        If the shapes do not belong together or a parameter is not a finite number.

    Examples
    --------
    >>> from fm.config import TrainConfig
    >>> model = Model(3.5, [0.5, -0.5, 0.0], [[1.0], [0.0], [2.0]], TrainConfig(num_factors=1))
    >>> model.predict([[1, 0, 0], [1, 0, 1]]).tolist()
    [4.0, 6.0]
    >>> model.score_row([0, 2])
    6.0
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str = ""

    # -- looking inside --------------------------------------------------------------------------

    def explain(self, row: Any, *, pairs: int = 20) -> Explanation:
        """Return what the score of a row is made of; see :func:`fm.explaining.terms.explain`."""
        from fm.explaining.terms import explain

        return explain(self, row, pairs=pairs)

    def interactions(self, data: Any, k: int = 20, *, min_count: int = 1) -> list[Interaction]:
        """Return the strongest pairs of features; see :mod:`fm.explaining.interactions`."""
        from fm.explaining.interactions import interactions

        return interactions(self, data, k, min_count=min_count)

    # -- recommending ----------------------------------------------------------------------------

    @cached_property
    def recommender(self) -> Recommender:
        """The recommender of this model's items, made once; see ``fm.recommending.recommender``."""
        from fm.recommending.recommender import Recommender

        return Recommender(self)

    def recommend(
        self,
        context: Any = None,
        k: int = 10,
        *,
        exclude: Any = "seen",
        candidates: Any = None,
        ratings: Mapping[Any, Any] | None = None,
        liked: Sequence[Any] | None = None,
    ) -> Recommendations:
        """Return the `k` items with the highest scores for a user or context, or for each of many.

        Parameters
        ----------
        context, k, exclude, candidates, ratings, liked
            See :meth:`fm.recommending.recommender.Recommender.recommend`.

        Returns
        -------
        Recommendations
            One list for one user or context; a list for each of many.

        Raises
        ------
        ConfigError
            If the model has no catalogue, or an option is wrong.
        DataError
            If an item does not exist, or a context or rating cannot be read.

        Examples
        --------
        >>> from fm import TrainConfig, fit, read
        >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
        >>> fit(data, TrainConfig(num_factors=2)).recommend(2).ids  # 2 has met B
        ['A']
        """
        return self.recommender.recommend(
            context, k, exclude=exclude, candidates=candidates, ratings=ratings, liked=liked
        )

    def similar_items(self, item: Any, k: int = 10) -> Recommendations:
        """Return the `k` items most like one (see ``Recommender.similar_items``)."""
        return self.recommender.similar_items(item, k)

    def similar_users(self, user: Any, k: int = 10) -> Recommendations:
        """Return the `k` users most like one (see ``Recommender.similar_users``)."""
        return self.recommender.similar_users(user, k)

    def with_catalogue(
        self,
        *,
        item: str | None = None,
        user: str | None = None,
        item_columns: str | Sequence[str] | None = None,
        rows: Any = None,
    ) -> Model:
        """Return the model with items to recommend, for one that was trained without knowing them.

        Parameters
        ----------
        item, user, item_columns
            See :func:`fm.read`. For feature numbers, ranges such as ``"943:2625"``.
        rows : anything that :meth:`as_dataset` takes, optional
            The rows it was trained on: they tell who met what, and what describes items and users.

        Raises
        ------
        ConfigError
            If there is no such column, or no range of features that the model has.

        Examples
        --------
        >>> from fm import TrainConfig
        >>> model = Model(0, [0, 0, 1, 2], [[1], [2], [3], [4]], TrainConfig(num_factors=1))
        >>> model.with_catalogue(item="2:4", user="0:2").recommend(1).ids
        ['3', '2']
        """
        from fm.reading.finding_items import catalogue_of

        X = np.zeros((0, self.num_features)) if rows is None else rows
        data = replace(
            self.as_dataset(X),
            fields=self.fields,
            field_names=self.field_names,
            encoder=self.encoder,
            _cache={},
        )
        made = catalogue_of(
            data, item=item, user=user, item_columns=item_columns, keep_seen=rows is not None
        )
        if made is None:
            raise ConfigError("item: expected the column of the items, or a range of features")
        return replace(self, catalogue=made)

    def fold_in(self, X: Any, y: Any, field: str, *, weight: Any = None) -> Folded:
        """Return what a few rows tell about a new user or item; see ``fm.recommending.folding``."""
        from fm.recommending.folding import fold_in

        return fold_in(self, X, y, field, weight=weight)

    def with_feature(
        self, folded: Folded, name: Any, *, item_row: Any = None, seen: Iterable[Any] = ()
    ) -> Model:
        """Return a model that knows what was folded in; see ``fm.recommending.extending``."""
        from fm.recommending.extending import with_feature

        return with_feature(self, folded, name, item_row=item_row, seen=seen)

    # -- the file --------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a file and return its path; see ``fm.model.file`` for the format.

        A reader of `path` sees the old file or the complete new one, even after a power failure.

        Parameters
        ----------
        path : path
            The file; for a directory, ``model.safetensors`` in it. Directories are made.
        """
        return write_parts(path, {part.name: getattr(self, part.name) for part in fields(self)})
