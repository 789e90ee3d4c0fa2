"""Exporting: item vectors for other programs and for indexes of nearest neighbours.

Decided here: which files and indexes there are. Not decided here: what the vectors are
(``Recommender.item_vectors``).

The vector of an item is ``[s_i, b_i]`` and that of a context is ``[s_c, 1]``: their inner product
is the score but for a constant of the context. So any search by inner product finds the items that
``Recommender.recommend`` finds; whether exactly depends on the index. Items that must not be
recommended are the caller's to leave out.

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

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from fm.errors import ConfigError
from fm.formats.storage import atomic_output, to_json
from fm.recommending.recommender import Recommender


def export_vectors(recommender: Recommender, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the vectors of items, and of the training data's users, and return the files.

    Columns that describe a user are as in training; others of the context are unknown. Without
    users in the catalogue there are no files of them.

    Parameters
    ----------
    recommender : Recommender
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


def to_faiss(recommender: Recommender) -> Any:
    """Return a ``faiss.IndexFlatIP`` of the items: exact; its labels are the items' numbers.

    Raises
    ------
    ConfigError
        If faiss is not installed.

    Examples
    --------
    ::

        scores, numbers = to_faiss(recommender).search(recommender.context_vectors([7]), 10)
    """
    vectors = recommender.item_vectors()
    index = _needed("faiss", "faiss-cpu").IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def to_hnswlib(
    recommender: Recommender, *, connections: int = 32, effort: int = 200, threads: int = -1
) -> Any:
    """Return an ``hnswlib.Index`` of the items: approximate; its labels are the items' numbers.

    Parameters
    ----------
    recommender : Recommender
    connections, effort : int
        What hnswlib calls ``M`` and ``ef_construction``.
    threads : int
        The index is the same in every run only with 1; -1 uses all cores.

    Raises
    ------
    ConfigError
        If hnswlib is not installed.

    Examples
    --------
    ::

        index = to_hnswlib(recommender)
        index.set_ef(100)  # more than the number of items wanted
        numbers, distances = index.knn_query(recommender.context_vectors([7]), 10)
    """
    vectors = recommender.item_vectors()
    index = _needed("hnswlib", "hnswlib").Index(space="ip", dim=vectors.shape[1])
    index.init_index(len(vectors), M=connections, ef_construction=effort, random_seed=1)
    index.add_items(vectors, np.arange(len(vectors)), num_threads=threads)
    return index


def to_usearch(recommender: Recommender) -> Any:
    """Return a ``usearch.index.Index`` of the items: approximate; its keys are their numbers.

    Raises
    ------
    ConfigError
        If usearch is not installed.

    Examples
    --------
    ::

        index = to_usearch(recommender)
        numbers = index.search(recommender.context_vectors([7])[0], 10).keys
        numbers = index.search(recommender.context_vectors([7])[0], 10, exact=True).keys
    """
    vectors = recommender.item_vectors()
    usearch = _needed("usearch.index", "usearch")
    index = usearch.Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(vectors), dtype=np.uint64), vectors)
    return index


def _needed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise ConfigError(
            f"{package}: the package is not installed; run pip install {package}"
        ) from err
