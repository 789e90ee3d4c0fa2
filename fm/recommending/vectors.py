"""Vectors: those of items and users, for other programs and for indexes of nearest neighbours.

Decided here: the files. Not decided here: what the vectors are (``Recommender.item_vectors``).

The vector of an item is ``[s_i, b_i]`` and that of a context is ``[s_c, 1]``. Their inner product
is the score but for a constant of the context. So every index that searches by inner product finds
the items that ``recommend`` finds: exactly, or nearly, as the index promises. What a user has seen
is not left out.

========================  ====================================================================
file                      content
========================  ====================================================================
``items.npy``             float32, shape (num_items, num_factors + 1): ``[s_i, b_i]``
``item_ids.json``         list of texts, one for each row of ``items.npy``
``users.npy``             float32, shape (num_users, num_factors + 1): ``[s_c, 1]``
``user_ids.json``         list of texts, one for each row of ``users.npy``
========================  ====================================================================
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fm.formats.storage import atomic_output, to_json
from fm.recommending.recommender import Recommender


def export_vectors(recommender: Recommender, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the vectors of all items and users to files, and return their paths.

    Columns that describe a user are as in training; other columns of the context are unknown. A
    model that knows no users has no files of them.

    Parameters
    ----------
    recommender : Recommender
        ``model.recommender``, or one with other items.
    folder : path
        It is made if it does not exist; files in it are replaced.

    Examples
    --------
    >>> import tempfile
    >>> from fm.config import TrainConfig
    >>> from fm.model.model import Model
    >>> from fm.reading.read import read
    >>> data = read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    >>> model = Model(2, [0, 0, 1, 0, 3, 1], [[0], [1], [-1], [0], [0], [1]],
    ...               TrainConfig(num_factors=1), encoder=data.encoder)
    >>> recommender = Recommender(model, data.catalogue)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = export_vectors(recommender, folder)
    ...     items, users = np.load(files[0]), np.load(files[2])
    >>> [path.name for path in files]
    ['items.npy', 'item_ids.json', 'users.npy', 'user_ids.json']
    >>> items.tolist(), (users @ items.T).tolist()
    ([[0.0, 3.0], [1.0, 1.0]], [[3.0, 2.0], [3.0, 0.0]])
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"item": (recommender.item_vectors(), recommender.catalogue.item_ids)}
    if recommender.catalogue.num_users:
        users = recommender.user_ids
        parts["user"] = recommender.context_vectors(list(users)), users
    files = []
    for name, (vectors, ids) in parts.items():
        files += [folder / f"{name}s.npy", folder / f"{name}_ids.json"]
        with atomic_output(files[-2]) as file:
            np.save(file, vectors, allow_pickle=False)
        with atomic_output(files[-1]) as file:
            file.write(to_json(list(ids)))
    return files
