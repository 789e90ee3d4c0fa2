"""The one shape of recommend, recommend_all, similar_items and similar_users."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import fm
from fm.catalogue.catalogue import Catalogue
from fm.config import TrainConfig
from fm.errors import DataError
from fm.model.model import Model
from fm.reading.read import read

DATA = {
    "user": ["ann", "ann", "bob", "cy"],
    "film": ["A", "B", "B", "C"],
    "rating": [1, 0, 1, 1],
}


@pytest.fixture(params=["regressor", "binary_classifier"])
def model(request, rng):
    data = read(DATA)
    n = data.num_features
    return Model(
        0.5, rng.normal(size=n), rng.normal(size=(n, 2)),
        TrainConfig(num_factors=2, predictor_type=request.param),
        encoder=data.encoder, catalogue=data.catalogue,
    )  # fmt: skip


def asked(model):
    """What is asked for one thing and for many."""
    yield (lambda who, k: model.recommend(who, k, exclude=None)), ["ann", "cy"]
    yield model.recommend, [{"user": "ann"}, {}]
    yield model.similar_items, ["A", "C"]
    yield model.similar_users, ["bob", "ann"]


def test_one_gets_one_list_and_many_get_a_list_each(model):
    for answer, many in asked(model):
        lists = answer(many, 2)
        assert not lists.is_one and len(lists) == len(lists.ids) == 2
        for at, what in enumerate(many):
            one = answer(what, 2)
            assert one.is_one and isinstance(one.ids, list) and isinstance(one.ids[0], str)
            assert one.ids == lists.ids[at] == lists[at].ids
            assert list(one) == list(zip(one.ids, one.scores.tolist(), strict=True))
            assert one[0] == next(iter(one)) and len(one) == one.numbers.size == one.scores.size
            np.testing.assert_allclose(lists[at].scores, one.scores, rtol=1e-5)
        assert [one.ids for one in lists] == lists.ids


def test_a_single_row_of_many_is_still_many(model):
    one = model.recommend("ann", 2)
    X = model.recommender.contexts("ann")
    frame = pd.DataFrame({"user": ["ann"]})
    for single in (["ann"], np.array(["ann"]), X, frame, [{"user": "ann"}]):
        assert model.recommend(single, 2).ids == [one.ids]


def test_a_shorter_list_has_no_gap_when_it_stands_alone(model):
    lists = model.recommend(["ann", "bob"], 3)  # ann met two of three films
    assert lists.numbers[0].tolist()[1:] == [-1, -1] and np.isnan(lists.scores[0, 1:]).all()
    assert lists.ids[0] == lists[0].ids == model.recommend("ann", 3).ids == ["C"]
    assert lists[0].scores.shape == (1,)
    assert repr(lists) == "Recommendations(2 lists of up to 3)"
    assert repr(lists[0]) == f"Recommendations(C {lists.scores[0, 0]:.4g})"


def test_tables_name_whom_the_lists_are_for(model):
    named = ["context", "rank", "item", "score"] + ["probability"] * model.task.has_probabilities
    table = model.recommend(["ann", 7.0], 2).to_table()
    assert table.column_names == named
    assert table["context"].to_pylist() == ["ann", "7", "7"]
    assert model.recommend("ann").to_table()["context"].to_pylist() == ["ann"]
    for context in ({"user": "ann"}, pd.DataFrame({"user": ["ann"]})):
        assert model.recommend(context).to_table()["context"].to_pylist() == [0]
    (block,) = model.recommender.recommend_all(2)
    assert sorted(block.contexts) == ["ann", "bob", "cy"]
    assert set(block.to_table()["context"].to_pylist()) == {"ann", "bob", "cy"}
    table = model.similar_items(["A", "B"], 1).to_table()
    assert table.column_names == ["context", "rank", "item", "similarity"]
    assert table["context"].to_pylist() == ["A", "B"]
    table = model.similar_users("ann", 2).to_table()
    assert table.column_names == ["context", "rank", "user", "similarity"]
    assert table["context"].to_pylist() == ["ann", "ann"]
    with pytest.raises(DataError, match="expected a name for each of 1 contexts, found 2"):
        model.recommend("ann").to_table(["ann", "bob"])


def test_a_classifier_has_probabilities_beside_the_scores(model):
    for best in (model.recommend("cy", 3), model.recommend(["cy", "bob"], 3)):
        if not model.task.has_probabilities:
            assert best.probabilities is None
            continue
        np.testing.assert_allclose(best.probabilities, 1 / (1 + np.exp(-best.scores)), rtol=1e-6)
        flat = best.scores[~np.isnan(best.scores)]
        found = best.to_table()["probability"].to_numpy()
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-flat)), rtol=1e-6)


def test_a_model_without_items():
    keys = np.zeros(0, np.int32)
    nothing, user = sp.csr_matrix((0, 2)), np.zeros(1, np.int32)
    none = Catalogue(nothing, keys, [], np.zeros(2, bool), "1:2", "0:1", user)
    model = Model(0, [0, 0], [[1], [1]], TrainConfig(num_factors=1), catalogue=none)
    assert model.recommend(0).ids == [] and model.recommend([0]).ids == [[]]
    assert len(model.recommend(0)) == 0 and not list(model.recommend(0))


def test_unknown_things_are_refused_by_name(model):
    with pytest.raises(DataError, match="film: expected one of the 3 items.*found 'D'"):
        model.similar_items(["A", "D"])
    with pytest.raises(DataError, match="user: expected one of the 3 users.*found 'eve'"):
        model.similar_users(["ann", "eve"])


def test_the_class_is_at_the_top_level(model):
    assert isinstance(model.recommend("ann"), fm.Recommendations)
