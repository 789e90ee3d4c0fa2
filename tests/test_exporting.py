"""Exported vectors find what the recommender finds; test_readme.py tries them in indexes."""

import json

import numpy as np
import pytest

from fm.config import TrainConfig
from fm.model.model import Model
from fm.reading.read import read
from fm.recommending.recommender import Recommender
from fm.recommending.vectors import export_vectors


@pytest.fixture(scope="module")
def recommender():
    rng = np.random.default_rng(5)
    film = np.concatenate([np.arange(300), rng.integers(0, 300, 500)])
    genre = rng.choice(list("abcde"), 300)
    data = read(
        {"user": rng.integers(0, 20, 800), "film": film, "genre": genre[film], "rating": film % 5},
        target="rating", categorical=["user", "film", "genre"], item_columns="genre",
    )  # fmt: skip
    n = data.num_features
    return Recommender(
        Model(
            1.5,
            rng.normal(size=n),
            rng.normal(size=(n, 6)),
            TrainConfig(num_factors=6),
            encoder=data.encoder,
            catalogue=data.catalogue,
        )  # fmt: skip
    )


def test_inner_products_are_the_scores(recommender):
    contexts = ["3", "a stranger"]
    best = recommender.recommend(contexts, 300, exclude=None)
    products = recommender.context_vectors(contexts) @ recommender.item_vectors().T
    found = np.take_along_axis(products, best.numbers, axis=1)
    constant = recommender.context_sides(contexts).bias[:, None]
    np.testing.assert_allclose(found + constant, best.scores, rtol=1e-4, atol=1e-4)


def test_files(recommender, tmp_path):
    files = export_vectors(recommender, tmp_path / "made" / "here")
    assert [path.name for path in files] == [
        "items.npy", "item_ids.json", "users.npy", "user_ids.json",
    ]  # fmt: skip
    items, users = np.load(files[0], allow_pickle=False), np.load(files[2], allow_pickle=False)
    assert items.dtype == users.dtype == np.float32
    assert items.shape == (300, 7) and users.shape == (20, 7)
    ids, names = json.loads(files[1].read_text()), json.loads(files[3].read_text())
    best = recommender.recommend(names, 1, exclude=None)
    assert [[ids[i]] for i in (users @ items.T).argmax(axis=1)] == best.ids
    assert len(list(tmp_path.rglob("*.*"))) == 4  # nothing else is left
