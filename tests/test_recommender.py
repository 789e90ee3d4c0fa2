"""Recommending against scoring every item of every context and sorting."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import fm.recommending.recommender
from fm.catalogue.catalogue import Catalogue
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.model.model import Model
from fm.reading.read import read
from fm.recommending.recommender import Recommender, side_vectors

f4 = np.float32
COLUMNS = {"categorical": ["user", "hour", "film"], "numeric": ["year"], "multi": ["genres"]}
COLUMNS["standardize"] = False  # scores of small integers are exact


def make(seed=0, users=5, films=12, size=4, rows=40, k=3):
    """A model of random small integers, its training table and its recommender.

    A film has genres and a year (the item's side), a row has a user and an hour (the context).
    """
    rng = np.random.default_rng(seed)
    genres = ["|".join(rng.choice(list("abcd"), rng.integers(0, 3), False)) for _ in range(films)]
    years = rng.integers(-2, 3, films)
    film = np.concatenate([np.arange(films), rng.integers(0, films, rows)])
    table = {
        "user": [f"u{i}" for i in rng.integers(0, users, film.size)],
        "film": [f"f{i}" for i in film],
        "hour": rng.integers(0, 3, film.size).astype(str),
        "genres": [genres[i] for i in film],
        "year": [float(years[i]) for i in film],
        "rating": np.ones(film.size),
    }
    data = read(table, target="rating", item_columns=["genres", "year"], **COLUMNS)
    n = data.num_features
    model = Model(
        int(rng.integers(-size, size + 1)),
        rng.integers(-size, size + 1, n),
        rng.integers(-size, size + 1, (n, k)),
        TrainConfig(num_factors=k),
        encoder=data.encoder,
        fields=data.fields,
        field_names=data.field_names,
        catalogue=data.catalogue,
    )
    return model, table, Recommender(model)


def best_by_scoring(model, table, context, k, excluded=(), candidates=None):
    """The slow twin: Model.scores of a whole row for every film, and one sort."""
    of_film = {
        f: (g, y) for f, g, y in zip(table["film"], table["genres"], table["year"], strict=True)
    }
    ids = list(model.catalogue.item_ids)
    chosen = [f for f in ids if f not in excluded and (candidates is None or f in candidates)]
    rows = [{**context, "film": f, "genres": of_film[f][0], "year": of_film[f][1]} for f in chosen]
    if not rows:
        return []
    scores = model.scores(rows, engine="scipy").tolist()
    order = sorted(range(len(chosen)), key=lambda i: (-scores[i], ids.index(chosen[i])))[:k]
    return [(chosen[i], scores[i]) for i in order]


def pairs(recommendations):
    return [list(one) for one in recommendations]


def seen_by(table, user):
    return {f for u, f in zip(table["user"], table["film"], strict=True) if u == user}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 4]), st.data())
def test_recommend_equals_brute_force(seed, size, data):
    model, table, recommender = make(seed, size=size)
    context = st.fixed_dictionaries(
        {"user": st.sampled_from(["u0", "u1", "u2", "stranger"])},
        optional={"hour": st.sampled_from(["0", "1", "other"])},
    )
    contexts = data.draw(st.lists(context, min_size=1, max_size=4))
    films = st.lists(st.sampled_from(list(model.catalogue.item_ids)), max_size=12)
    k = data.draw(st.sampled_from([1, 3, 12, 100]))
    candidates = data.draw(st.none() | films)
    exclude = data.draw(
        st.just("seen")
        | st.none()
        | films
        | st.lists(films, min_size=len(contexts), max_size=len(contexts))
    )
    found = recommender.recommend(contexts, k, exclude=exclude, candidates=candidates)
    expected = []
    for i, one in enumerate(contexts):
        if exclude == "seen":
            out = seen_by(table, one["user"])
        elif exclude and isinstance(exclude[0], list):
            out = exclude[i]
        else:
            out = exclude or ()
        expected.append(best_by_scoring(model, table, one, k, out, candidates))
    assert pairs(found) == expected
    width = min(k, 12 if candidates is None else len(set(candidates)))
    assert found.numbers.shape == found.scores.shape == (len(contexts), width)
    assert ((found.numbers < 0) == np.isnan(found.scores)).all()
    assert found.numbers.dtype == np.int32 and found.scores.dtype == f4
    if exclude in ("seen", None):  # a context alone gets what it gets among others
        one = recommender.recommend(contexts[0], k, exclude=exclude, candidates=candidates)
        assert list(one) == expected[0]
        assert one.numbers.shape == one.scores.shape == (len(one),)


def test_floats_agree_to_rounding(rng):
    model, table, _ = make()
    model = dataclasses.replace(
        model, w=rng.normal(size=model.num_features), V=rng.normal(size=model.V.shape), w0=0.3
    )
    found = list(Recommender(model).recommend("u1", 12, exclude=None))
    expected = dict(best_by_scoring(model, table, {"user": "u1"}, 12))
    assert found == sorted(found, key=lambda pair: -pair[1])
    assert dict(found) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_contexts_of_every_kind():
    model, table, recommender = make()
    rows = [{"user": "u1", "hour": "2"}, {"user": "u3", "hour": None}]
    X = recommender.contexts(rows)
    assert not model.catalogue.item_side[X.indices].any()
    whole = [{**row, "film": "f0", "genres": "a", "year": 1} for row in rows]
    columns = {name: [row[name] for row in rows] for name in ("user", "hour")}
    same = [
        tuple(rows),
        whole,
        pd.DataFrame(columns),
        pl.DataFrame(columns),
        pa.table(columns),
        model.encoder.encode_rows(whole),
        Dataset.from_arrays(model.encoder.encode_rows(whole)),
    ]
    for other in same:
        np.testing.assert_array_equal(recommender.contexts(other).toarray(), X.toarray())
    assert recommender.contexts([]).shape == (0, model.num_features)
    assert recommender.recommend([], 3).ids == []
    ids = recommender.contexts(np.array(["u1", "stranger"])).toarray()
    alone = recommender.contexts([{"user": "u1"}, {}]).toarray()
    np.testing.assert_array_equal(ids, alone)


def test_context_from_a_file(tmp_path):
    _, _, recommender = make()
    path = tmp_path / "people.csv"
    path.write_text("user,hour\nu1,2\nu2,0\n")
    rows = [{"user": "u1", "hour": "2"}, {"user": "u2", "hour": "0"}]
    assert (recommender.contexts(path) != recommender.contexts(rows)).nnz == 0


def described():
    """A model of users 5, 6, ... with an age and a town of their own."""
    rng = np.random.default_rng(3)
    user, film = rng.integers(5, 12, size=90), rng.integers(9, size=90)
    table = {
        "user": user,
        "age": 20.5 + user,
        "town": [f"t{u % 3}" for u in user],
        "film": [f"f{f}" for f in film],
        "hour": rng.integers(3, size=90),
        "rating": rng.integers(1, 6, size=90),
    }
    kinds = {"categorical": ["user", "town", "film", "hour"], "numeric": ["age"]}
    data = read(table, target="rating", **kinds)
    assert data.catalogue.user_columns == ("age", "town")
    n = data.num_features
    return Model(
        1.0, rng.normal(size=n), rng.normal(size=(n, 3)), TrainConfig(num_factors=3),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue, metrics={"mse": 1.0},
    )  # fmt: skip


def test_a_table_may_leave_out_columns(tmp_path):
    recommender = described().recommender
    path = tmp_path / "people.csv"
    for columns in (
        {"user": ["7", "8", "a stranger"]},
        {"hour": ["1", None, "2"], "user": ["7", "a stranger", "8"], "shoe": ["x", "y", "z"]},
        {"town": ["t0", None], "user": ["7", "8"]},  # an empty cell is not left out
        {"hour": ["2"]},
    ):
        table = pa.table(columns)
        told = [n for n in columns if n != "shoe"]
        expected = recommender.contexts(table.select(told).to_pylist()).toarray()
        pa.csv.write_csv(table, path)
        for same in (table, pd.DataFrame(columns), pl.DataFrame(columns), path):
            np.testing.assert_array_equal(recommender.contexts(same).toarray(), expected)
    full = recommender.contexts({"user": 7, "age": 27.5, "town": "t1"}).toarray()
    bare = recommender.contexts(pd.DataFrame({"user": [7]})).toarray()
    np.testing.assert_array_equal(bare, full)
    message = "expected some of the columns user, age, town, hour, found only film"
    with pytest.raises(DataError, match=message):
        recommender.contexts(pd.DataFrame({"film": ["f1"]}))
    path.write_text("user,age\n7,1\n8,old\n")
    with pytest.raises(DataError, match="people.csv row 2, column 'age'.*found 'old'"):
        recommender.contexts(path)


def test_ids_of_every_kind():
    recommender = described().recommender
    expected = recommender.contexts(["7", "9"]).toarray()
    many = [np.array([7.0, 9.0]), np.array(["7", "9"]), (7, np.float32(9)), pa.array([7, 9])]
    many += [kind([7.0, 9.0]) for kind in (pd.Series, pd.Index, pl.Series)]
    for ids in many:
        np.testing.assert_array_equal(recommender.contexts(ids).toarray(), expected)
    for one in (7.0, np.float64(7), np.int32(7)):
        np.testing.assert_array_equal(recommender.contexts(one).toarray(), expected[:1])
    assert recommender.similar_users(7.0, 2).ids == recommender.similar_users("7", 2).ids
    lists = [["f1", "f2"], ["f3"]]
    best = recommender.recommend(["7", "9"], 9, exclude=lists).ids
    for kind in (pd.Series, pd.Index, pl.Series, np.array, pa.array):
        found = recommender.recommend(["7", "9"], 9, exclude=[kind(part) for part in lists])
        assert found.ids == best
        found = recommender.recommend("7", 9, exclude=kind(lists[0]))
        assert found.ids == best[0]
    for gaps in ([7, None], [7, np.nan]):
        with pytest.raises(DataError, match="expected the id of a user, found (None|nan)"):
            recommender.contexts(gaps)
    with pytest.raises(DataError, match="expected the id of a user, found nan"):
        recommender.contexts(pd.Series([7, None]))


def test_nothing_is_known_of_the_columns_of_a_user_who_was_added():
    from fm.recommending.extending import with_feature
    from fm.recommending.folding import fold_ratings

    model, told = described(), {"f1": 5, "f4": 1}
    for context in ({}, {"hour": 1}, {"town": "t1"}):
        folded, _ = fold_ratings(model, model.catalogue, context, told)
        longer = with_feature(model, folded, "new")
        expected = model.recommend(context, 9, ratings=told, exclude=None)
        found = longer.recommend({"user": "new", **context}, 9, exclude=None)
        assert found.ids == expected.ids
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


@pytest.mark.parametrize("context", [3.5, [3.5], [None], [["u1"]]])
def test_what_is_no_context(context):
    found = f"found {type(context).__name__}"
    if isinstance(context, list):
        found = re.escape(f"found list that begins with {context[0]!r}")
    with pytest.raises(DataError, match=f"context: expected a user's id, a mapping.*{found}"):
        make()[2].recommend(context)


def test_a_wrong_column_or_id_in_a_context():
    _, _, recommender = make()
    with pytest.raises(DataError, match="usr"):
        recommender.recommend({"usr": "u1"})
    with pytest.raises(DataError, match="context: expected the id of a user, found {}"):
        recommender.recommend(["u1", {}])


def by_numbers(user="0:2", item="2:5", seen=None):
    """A model of feature numbers: two users, three items, a context feature."""
    items = sp.csr_matrix((np.ones(3, f4), ([0, 1, 2], [2, 3, 4])), shape=(3, 6))
    side = np.array([0, 0, 1, 1, 1, 0], bool)
    keys = np.arange(2, 5, dtype=np.int32)
    users = np.arange(2 if user else 0, dtype=np.int32)
    catalogue = Catalogue(items, keys, ["2", "3", "4"], side, item, user, users, seen)
    return Model(
        0, [0, 0, 1, 2, 3, 0], [[1], [-1], [1], [0], [-1], [5]], TrainConfig(num_factors=1),
        catalogue=catalogue,
    )  # fmt: skip


def test_a_model_of_feature_numbers():
    seen = sp.csr_matrix(np.array([[0, 1, 0], [0, 0, 0]], bool))
    recommender = Recommender(by_numbers(seen=seen))
    best = recommender.recommend([0, "1"], 3)
    assert best.ids == [["2", "4"], ["4", "3", "2"]]
    np.testing.assert_array_equal(best.scores, [[2, 2, np.nan], [4, 2, 0]])
    X = sp.csr_matrix(np.array([[0, 1, 0, 0, 0, 1]], f4))
    assert recommender.recommend(X, 1).scores.tolist() == [[0]]
    assert recommender.user_ids[:] == ["0", "1"]
    assert recommender.recommend(1.0, 3).ids == best.ids[1]
    message = "0:2: expected the number of a user's feature, one of 2 from 0 to 1, found"
    for wrong in (2, 5, 6, -1, "x", "1" * 5000):  # 2 is an item, 5 is no item and no user
        with pytest.raises(DataError, match=message):
            recommender.recommend(wrong)
    with pytest.raises(DataError, match="no encoder for named columns"):
        recommender.recommend({"user": 1})
    with pytest.raises(ConfigError, match="items are features .*not a column"):
        recommender.with_items({"item": [1]})


def test_ratings_for_a_model_of_feature_numbers():
    model, told = dataclasses.replace(by_numbers(), metrics={"mse": 1.0}), {2: 5, 3: 1}
    nobody = sp.csr_matrix((1, 6), dtype=f4)
    expected = model.recommend(nobody, 3, ratings=told)
    assert expected.ids == [["4"]]
    for context in (None, {}, [{}]):
        found = model.recommend(context, 3, ratings=told)
        assert list(found if found.is_one else found[0]) == list(expected[0])
    assert model.recommend([{}, {}], 2).ids == model.recommend(nobody, 2).ids * 2


def test_without_a_user_column():
    recommender = Recommender(by_numbers(user=""))
    with pytest.raises(ConfigError, match="does not know which column is the user"):
        recommender.recommend(1)
    assert list(recommender.recommend_all()) == []
    X = sp.csr_matrix(np.array([[0, 1, 0, 0, 0, 0]], f4))
    assert recommender.recommend(X, 1).ids == [["4"]]
    with_seen = sp.csr_matrix((0, 3), dtype=bool)
    assert Recommender(by_numbers(user="", seen=with_seen)).recommend(X, 1).ids == [["4"]]


def test_all_users_in_blocks(monkeypatch):
    _, table, recommender = make()
    monkeypatch.setattr(fm.recommending.recommender, "CONTEXTS_AT_ONCE", 2)
    blocks = list(recommender.recommend_all(3, candidates=["f1", "f2", "f3", "f4"]))
    ids = [user for best in blocks for user in best.contexts]
    assert sorted(ids) == sorted(set(table["user"]))
    expected = recommender.recommend(ids, 3, candidates=["f1", "f2", "f3", "f4"])
    assert sum((best.ids for best in blocks), []) == expected.ids


def test_blocks_are_smaller_for_long_lists(monkeypatch):
    _, table, recommender = make()
    assert [recommender.block_size(k) for k in (1, 10, 10**9)] == [4096] * 3
    monkeypatch.setattr(fm.recommending.recommender, "ITEMS_AT_ONCE", 24)
    assert [recommender.block_size(k) for k in (1, 5, 12, 10**9)] == [24, 4, 2, 2]  # of 12 films
    sizes = [len(best) for best in recommender.recommend_all(100)]
    assert sizes == [2] * (len(sizes) - 1) + [1] and sum(sizes) == len(set(table["user"]))
    for k in (0, "3"):
        with pytest.raises(ConfigError, match="k: expected an integer of at least 1"):
            next(recommender.recommend_all(k))


def test_everything_excluded():
    _, table, recommender = make()
    everything = sorted(set(table["film"]))
    best = recommender.recommend(["u1", "u2"], 3, exclude=everything)
    assert best.ids == [[], []] and best.to_table().num_rows == 0
    assert recommender.recommend("u1", 3, candidates=[]).ids == []
    assert recommender.recommend("u1", 3, exclude=None, candidates=iter(["f3"])).ids == ["f3"]


def test_folded_parameters_take_the_place_of_the_user():
    model, table, recommender = make()
    user = model.encoder.feature_index("user", "u2")
    folded = SimpleNamespace(w=float(model.w[user]), v=model.V[user])
    for context in ({"user": "u1", "hour": "1"}, {"user": "stranger", "hour": "1"}, {"hour": "1"}):
        best = recommender.recommend(context, 12, exclude=None, folded=folded)
        expected = best_by_scoring(model, table, {"user": "u2", "hour": "1"}, 12)
        assert list(best) == expected
    known = recommender.recommend("u1", 12, folded=folded)  # what u1 met stays excluded
    assert not set(known.ids) & seen_by(table, "u1")
    with pytest.raises(DataError, match=r"folded: expected v of shape \(3,\), found \(2,\)"):
        recommender.recommend("u1", folded=SimpleNamespace(w=0.0, v=np.zeros(2)))


def test_folded_of_a_model_of_feature_numbers():
    recommender = Recommender(by_numbers())
    folded = SimpleNamespace(w=1.0, v=np.array([-1.0]))
    best = recommender.recommend(0, 3, exclude=None, folded=folded)
    assert list(best) == [("4", 5), ("3", 3), ("2", 1)]


@pytest.mark.parametrize("k", [0, -1, 2.0, True, None, "3"])
def test_wrong_k(k):
    _, _, recommender = make()
    for call in (recommender.recommend, recommender.similar_users):
        with pytest.raises(ConfigError, match="k: expected an integer of at least 1"):
            call("u1", k)


def test_items_that_do_not_exist():
    _, _, recommender = make()
    wrong = [{"candidates": ["nothing"]}, {"exclude": ["nothing"]}, {"exclude": [["nothing"]]}]
    for options in wrong:
        with pytest.raises(DataError, match="film: expected one of the 12 items.*'nothing'"):
            recommender.recommend("u1", **options)
    with pytest.raises(DataError, match="'nothing'"):
        recommender.similar_items("nothing")


def test_wrong_options():
    model, _, recommender = make()
    for exclude in ("bought", 3, {"f1": 1}):
        with pytest.raises(ConfigError, match="exclude: expected 'seen', None, or lists"):
            recommender.recommend("u1", exclude=exclude)
    with pytest.raises(DataError, match="exclude: expected one list for each of 2 contexts"):
        recommender.recommend(["u1", "u2"], exclude=[["f1"]])
    with pytest.raises(ConfigError, match="candidates: expected a list of item ids, found 'f1'"):
        recommender.recommend("u1", candidates="f1")
    with pytest.raises(ConfigError, match="candidates: expected a list of item ids, found 5"):
        recommender.recommend("u1", candidates=5)
    with pytest.raises(ConfigError, match="similarity: expected one of cosine, inner"):
        recommender.similar_items("f1", similarity="l2")
    with pytest.raises(ConfigError, match="does not know which of its features are items"):
        Recommender(dataclasses.replace(model, catalogue=None))
    with pytest.raises(ConfigError, match="catalogue: expected items of the model's 6 features"):
        Recommender(by_numbers(), model.catalogue)
    assert "12 items" in repr(recommender)


def test_scores_that_overflow():
    model, _, _ = make()
    huge = Recommender(dataclasses.replace(model, V=np.full(model.V.shape, 1e30, f4)))
    with pytest.raises(DataError, match="its score is not a finite number"):
        huge.recommend({"user": "u1", "hour": "1"})
    V = np.full(model.V.shape, 1e18, f4)
    V[model.catalogue.item_side] = 1e15
    V[model.catalogue.item_keys] = 1e30
    with pytest.raises(DataError, match="scores: expected finite numbers"):
        Recommender(dataclasses.replace(model, V=V)).recommend("u1", exclude=None)


def test_sides_add_up_to_the_score(rng):
    model, _, _ = make()
    X = sp.random(30, model.num_features, 0.5, format="csr", random_state=1, dtype=f4)
    item = model.catalogue.contexts(X)
    other = sp.csr_matrix(X - item)
    a, b = side_vectors(model, item), side_vectors(model, other)
    scores = model.w0 + a.bias + b.bias + np.einsum("ij,ij->i", a.vectors, b.vectors)
    np.testing.assert_allclose(scores, model.scores(X, engine="scipy"), rtol=1e-4, atol=1e-4)


def test_similar_items_and_users():
    model, _, recommender = make()
    V = recommender.item_sides.vectors.astype(float)
    lengths = np.linalg.norm(V, axis=1)
    ids = list(model.catalogue.item_ids)
    for similarity, table in (("inner", V @ V.T), ("cosine", V @ V.T / np.outer(lengths, lengths))):
        found = recommender.similar_items("f3", 100, similarity=similarity)
        row = table[ids.index("f3")]
        assert "f3" not in found.ids and len(found.ids) == 11
        np.testing.assert_allclose(found.scores, [row[ids.index(i)] for i in found.ids], atol=1e-5)
        assert (np.diff(found.scores) <= 0).all()
    users = recommender.similar_users("u1", 2)
    assert len(users.ids) == 2 and "u1" not in users.ids
    V = model.V[[model.encoder.feature_index("user", u) for u in ("u1", users.ids[0])]]
    cosine = V[0] @ V[1] / np.sqrt((V[0] @ V[0]) * (V[1] @ V[1]))
    assert users.scores[0] == pytest.approx(cosine, abs=1e-5)
    with pytest.raises(DataError, match="user: expected one of the 5 users.*'stranger'"):
        recommender.similar_users("stranger")


def test_a_vector_of_zeros_is_like_nothing():
    model = dataclasses.replace(by_numbers(), V=np.zeros((6, 1)))
    found = Recommender(model).similar_items(3)
    assert (found.ids, found.scores.tolist()) == (["2", "4"], [0, 0])


def test_table_of_recommendations():
    _, _, recommender = make()
    best = recommender.recommend([{"user": "u1"}, {"user": "u2"}], 2, exclude=["f1"])
    table = best.to_table()
    assert table.column_names == ["context", "rank", "item", "score"]
    assert table["context"].to_pylist() == [0, 0, 1, 1]
    assert table["rank"].to_pylist() == [1, 2, 1, 2]
    assert table["item"].to_pylist() == sum(best.ids, [])
    assert table["score"].to_pylist() == best.scores.ravel().tolist()
    assert best.to_table(["u1", "u2"])["context"].to_pylist() == ["u1", "u1", "u2", "u2"]
    for names in (["u1"], ["u1", "u2", "u3"]):
        message = f"contexts: expected a name for each of 2 contexts, found {len(names)}"
        with pytest.raises(DataError, match=message):
            best.to_table(names)


def test_a_table_of_items_with_new_ones():
    model, table, recommender = make()
    films = pd.DataFrame(
        {
            "id": ["new", "f3", "f0"],
            "genres": ["a|b", "c", None],
            "year": [1.0, 2.0, 0.0],
            "title": ["N", "Three", "Zero"],
        }
    )
    other = recommender.with_items(films, item="id")
    assert list(other.catalogue.item_ids) == ["new", "f3", "f0"]
    assert other.catalogue.item_keys[0] == -1 and (other.catalogue.item_keys[1:] > 0).all()
    rows = [
        {"user": "u1", "hour": "1", "film": row["id"], "genres": row["genres"], "year": row["year"]}
        for row in films.to_dict("records")
    ]
    scores = dict(zip(films["id"], model.scores(rows, engine="scipy").tolist(), strict=True))
    found = dict(other.recommend({"user": "u1", "hour": "1"}, exclude=None))
    assert found == scores
    for user in model.catalogue.user_keys:
        name = model.encoder.feature_name(user).partition("=")[2]
        left = {"new", "f3", "f0"} - seen_by(table, name)
        assert set(other.recommend(name).ids) == left
    assert other.similar_items("new", 1).ids[0] in ("f3", "f0")


def test_wrong_tables_of_items():
    _, _, recommender = make()
    rest = {"genres": ["a", "b"], "year": [1.0, 2.0]}
    with pytest.raises(DataError, match="the item 'x' occurs twice"):
        recommender.with_items({"film": ["x", "x"], **rest})
    with pytest.raises(DataError, match="column 'film': expected the id of an item, found none"):
        recommender.with_items({"film": ["x", None], **rest})
    with pytest.raises(DataError, match="items: expected one of the columns.*found 'id'"):
        recommender.with_items({"film": ["x", "y"], **rest}, item="id")
    with pytest.raises(DataError, match="genres"):
        recommender.with_items({"film": ["x"], "year": [1.0]})
    with pytest.raises(DataError, match="expected a row for each item, found none"):
        recommender.with_items({"film": [], "genres": [], "year": []})


def test_real_data(shared_data):
    """MovieLens 100K with a random model: 943 users, 1,682 films, seen ones excluded."""
    path = shared_data / "ml-100k" / "u.data.gz"
    data = read(path, header=["user", "item", "rating", "time"], ignore=["time"], target="rating")
    rng = np.random.default_rng(0)
    n = data.num_features
    model = Model(
        3.5, rng.integers(-3, 4, n), rng.integers(-3, 4, (n, 8)), TrainConfig(num_factors=8),
        encoder=data.encoder, catalogue=data.catalogue,
    )  # fmt: skip
    recommender = Recommender(model)
    (best,) = recommender.recommend_all(10)
    assert len(best.contexts) == 943
    keys, items = data.catalogue.user_keys, data.catalogue.item_keys
    scores = model.V[keys] @ model.V[items].T + model.w[items]
    scores[data.catalogue.seen.nonzero()] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(best.numbers, expected)


# -- through the model, to people it does not know -------------------------------------------------


def people(task, rng, count=40, films=12):
    """Ratings by two kinds of people: each likes one half of the films."""
    rows = [(u, f) for u in range(count) for f in rng.permutation(films)[:8].tolist()]
    liked = [float((u % 2) == (f % 2)) for u, f in rows]
    data = {
        "user": [f"u{u}" for u, _ in rows],
        "film": [f"f{f}" for _, f in rows],
        "rating": liked if task == "binary_classifier" else [1 + 4 * y for y in liked],
    }
    config = TrainConfig(predictor_type=task, num_factors=4, epochs=40, seed=1)
    if task == "ranker":
        keep = [i for i, y in enumerate(liked) if y]
        data = {name: [data[name][i] for i in keep] for name in ("user", "film")}
    return fm.fit(fm.read(data), config)


@pytest.mark.parametrize("task", ["regressor", "binary_classifier", "ranker"])
def test_a_stranger_with_likes_gets_more_of_their_kind(task, rng):
    model = people(task, rng)
    if task == "regressor":
        answer = model.recommend({}, 4, ratings={"f0": 5, "f2": 5, "f1": 1})
    else:
        answer = model.recommend(None, 4, liked=["f0", "f2"])
    ids = answer.ids
    assert len(ids) == 4 and all(int(name[1:]) % 2 == 0 for name in ids)
    assert not {"f0", "f1", "f2"} & set(ids)
    assert model.recommend("nobody", 3).ids  # a stranger without any: what is liked by most


def test_what_was_rated_may_be_recommended_if_asked(rng):
    model = people("binary_classifier", rng)
    ids = model.recommend({}, 12, liked=["f0", "f2"], exclude=None).ids
    assert {"f0", "f2"} <= set(ids[:6])
    assert model.recommend({}, 3, liked=["f0"], candidates=["f3", "f4"]).ids == ["f4", "f3"]


def test_wrong_likes(rng):
    model = people("binary_classifier", rng)
    with pytest.raises(ConfigError, match="ratings, liked: expected one of the two"):
        model.recommend({}, liked=["f0"], ratings={"f1": 1})
    with pytest.raises(DataError, match="liked: expected a list of item ids, found 'f0'"):
        model.recommend({}, liked="f0")
    with pytest.raises(DataError, match="film: expected one of the 12 items"):
        model.recommend({}, liked=["no such film"])
    with pytest.raises(DataError, match="context: expected one row, found 2"):
        model.recommend(["u1", "u2"], liked=["f0"])
    with pytest.raises(ConfigError, match="expected a context"):
        model.recommend()
    with pytest.raises(ConfigError, match="liked: the model predicts ratings"):
        people("regressor", rng).recommend({}, liked=["f0"])
    with pytest.raises(ConfigError, match="train it on data read with item="):
        fm.fit(fm.read((np.eye(2), [1, 2]))).recommend(0)


def test_rows_of_a_table_are_alike_where_the_model_knows_items_alone():
    data = read({"film": ["A", "A", "B"], "rating": [5.0, 4.0, 1.0]})
    model = fm.fit(data, TrainConfig(num_factors=2, epochs=20))
    lists = model.recommend(pa.table({"film": ["B", "A"], "hour": [1, 2]}), 2).ids
    assert lists == [["A", "B"]] * 2
