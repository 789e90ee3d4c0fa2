"""Catalogue: which features are items and users, and who met which item."""

import dataclasses
import datetime
import json

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from fm.catalogue.catalogue import Catalogue
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError, ModelFileError
from fm.formats.cells import text_of
from fm.formats.storage import read_tensors, write_tensors
from fm.model.file import _TENSOR_TYPES
from fm.model.load import load
from fm.model.model import Model
from fm.reading.finding_items import _odd, catalogue_of, continued
from fm.reading.read import read
from fm.training.fit import fit

GENRES = {"A": "x|y", "B": "y", "C": "z"}
ROWS = [
    ("u1", "A", 30, "am"), ("u1", "B", 30, "pm"), ("u2", "B", 40, "am"),
    ("u2", "A", 40, "pm"), ("u3", "C", 30, "am"), ("u3", "C", 30, "pm"), ("u1", "C", 30, "am"),
]  # fmt: skip


def table(rows=ROWS, **more):
    users, films, ages, hours = zip(*rows, strict=True)
    return {
        "user": users, "film": films, "genres": [GENRES[f] for f in films], "age": ages,
        "hour": hours, "rating": [1.0] * len(rows), **more,
    }  # fmt: skip


def known(rows=ROWS, **options):
    columns = ["user", "film", "age", "hour"]
    return read(table(rows), categorical=columns, multi=["genres"], **options)


def names_of(data, row):
    return sorted(data.feature_name(i) for i in row.indices)


def test_columns_are_found_by_their_names_and_what_describes_an_item_by_the_data():
    data = known()
    catalogue = data.catalogue
    assert (catalogue.item, catalogue.user) == ("film", "user")
    assert catalogue.item_columns == ("genres",)
    assert list(catalogue.item_ids) == ["C", "A", "B"]  # by falling count
    assert names_of(data, catalogue.items[1]) == ["film=A", "genres=x", "genres=y"]
    assert repr(catalogue) == "Catalogue(3 items (film), 3 users (user), 6 pairs seen)"


def test_who_met_what():
    data = known()
    catalogue = data.catalogue
    users = [data.encoder.feature_name(key) for key in catalogue.user_keys]
    seen = {
        users[u]: {catalogue.item_ids[i] for i in catalogue.seen[u].indices}
        for u in range(catalogue.num_users)
    }
    assert seen == {"user=u1": {"A", "B", "C"}, "user=u2": {"A", "B"}, "user=u3": {"C"}}
    assert known(keep_seen=False).catalogue.seen is None


def test_a_row_is_its_context_and_its_item():
    data = known()
    catalogue = data.catalogue
    users, items = catalogue.rows_of_keys(data.X)
    contexts = catalogue.contexts(data.X)
    assert (contexts + catalogue.items[items] != data.X).nnz == 0
    assert names_of(data, contexts[0]) == ["age=30", "hour=am", "user=u1"]
    assert [data.encoder.feature_name(catalogue.user_keys[u]) for u in users[:3]] == [
        "user=u1", "user=u1", "user=u2",
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_a_range_of_features_is_a_column(pairs):
    X = np.zeros((len(pairs), 12))
    for row, (user, item) in enumerate(pairs):
        X[row, [user, 5 + item]] = 1
    data = read((X, np.ones(len(pairs))), user="0:5", item="5:10")
    catalogue = data.catalogue
    assert list(catalogue.item_ids) == ["5", "6", "7", "8", "9"]
    assert catalogue.items.toarray().tolist() == np.eye(12)[5:10].tolist()
    assert {tuple(pair) for pair in np.argwhere(catalogue.seen.toarray()).tolist()} == set(pairs)


def test_items_are_named_as_in_the_data():
    catalogue = read({"user": [1, 2], "item": [10, 11], "rating": [1, 2]}).catalogue
    assert catalogue.item_number(11) == catalogue.item_number("11") == catalogue.item_number(11.0)
    assert catalogue.item_numbers(["11", "10"]).tolist() == [1, 0]
    with pytest.raises(DataError, match="item: expected one of the 2 items of the model, found 12"):
        catalogue.item_number(12)
    with pytest.raises(DataError, match="did you mean '10'"):
        catalogue.item_number("100")


IDS = ["1", "1.0", 1, 1.0, 2**60, 1e16, np.float32(1.5), np.int8(3), "true", "True", True, np.True_,
       "007", " 7", "1.50", b"bytes", "-0", -0.0, datetime.date(2024, 1, 2)]  # fmt: skip


@pytest.mark.parametrize("value", IDS, ids=repr)
def test_ids_are_read_as_training_reads_them(value):
    columns = {"user": [1, 2], "item": [value, value], "rating": [1, 2]}
    catalogue = read(columns, categorical=["user", "item"]).catalogue
    assert catalogue.item_ids[catalogue.item_number(value)] == text_of(value)
    assert catalogue.item_numbers([text_of(value)]).tolist() == [catalogue.item_number(value)]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "", [1], {"item": 1}, b"\xff"])
def test_what_is_no_id_is_no_item(value):
    catalogue = read({"user": [1, 2], "item": ["None", "nan"], "rating": [1, 2]}).catalogue
    with pytest.raises(DataError, match="item: expected one of the 2 items of the model, found"):
        catalogue.item_number(value)


def test_the_name_of_a_column_may_hold_anything():
    data = {"a=b": ["u=1", "u2", "u2"], "=": ["x=", "=y", "x="], "rating": [1, 2, 3]}
    model = fit(read(data, user="a=b", item="="), TrainConfig(num_factors=2, epochs=2))
    assert list(model.catalogue.item_ids) == ["x=", "=y"]
    assert next(model.recommender.recommend_all(2)).contexts == ["u2", "u=1"]
    assert model.recommend("u=1", 2).ids == ["=y"]


def test_without_a_column_of_items_there_is_none():
    assert read({"a": ["x", "y"], "rating": [1, 2]}).catalogue is None
    assert read((np.eye(3), [1, 2, 3])).catalogue is None
    with pytest.raises(ConfigError, match="expected item too"):
        read({"a": ["x", "y"], "b": ["x", "y"], "rating": [1, 2]}, item_columns="b")


def test_rare_and_missing_values_are_no_items():
    columns = {"user": ["a", "a", "b"], "item": ["x", "x", None], "rating": [1, 2, 3]}
    data = read(columns, min_count=2)
    assert list(data.catalogue.item_ids) == ["x"]
    assert data.catalogue.num_users == 1  # b was met once
    assert data.catalogue.seen.toarray().tolist() == [[True]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"item": "movie"}, "item: expected one of the columns .user, film, .*found 'movie'"),
        ({"item": "genres"}, "item: expected a categorical column.*'genres', which is multi"),
        ({"item": "film", "user": "film"}, "expected two columns, found film for both"),
        ({"item_columns": ["year"]}, "item_columns: expected some of the columns .*'year'"),
        ({"item_columns": "user"}, "item_columns: user is the user or the item itself"),
        ({"item": 3}, "item: expected the name of a column, found 3"),
        ({"item": "0:99"}, "item: expected a range of features in 0:18, found '0:99'"),
    ],
)
def test_wrong_columns(options, message):
    with pytest.raises(ConfigError, match=message):
        known(**options)


def test_a_hashed_column_has_no_items():
    options = {"categorical": ["user", "film"], "hash_dim": {"film": 8}}
    assert read(table(), **options).catalogue is None
    with pytest.raises(ConfigError, match="'film', which is hashed"):
        read(table(), item="film", **options)


def test_two_items_in_a_row():
    with pytest.raises(DataError, match="row 2: expected one feature of 0:3 in a row"):
        read((sp.csr_matrix([[1, 0, 0], [1, 1, 0]]), [1, 2]), item="0:3")


def test_a_stored_zero_is_an_item_only_where_it_stands_alone():
    X = sp.csr_matrix(np.array([[1, 2, 3], [2, 0, 4], [1, 1, 0]], np.float32))
    X.data[[1, 4, 6]] = 0  # of item 0 in row 0, of item 1 in row 1, of item 0 in row 2
    catalogue = read((X, [1, 2, 3]), user="0:1", item="1:3").catalogue
    assert catalogue.rows_of_keys(X)[1].tolist() == [1, 1, 0]


def test_named_columns_describe_an_item_even_if_they_change():
    data = known(item_columns=["hour"])
    last = {film: hour for _, film, _, hour in ROWS}
    for number, film in enumerate(data.catalogue.item_ids):
        assert names_of(data, data.catalogue.items[number]) == [
            f"film={film}",
            f"hour={last[film]}",
        ]


def test_of_items_met_once_nothing_is_told():
    rows = [(f"u{i % 3}", film, 1, "am") for i, film in enumerate("ABC")]
    assert known(rows).catalogue.item_columns == ()


def shop(rng, count=4000, **more):
    """A table of visits: items of 40 kinds, users who keep their town."""
    item, user = rng.integers(0, 200, count), rng.integers(0, 100, count)
    return {
        "basket": [f"b{i}" for i in rng.integers(0, 300, count)],
        "user": [f"u{i}" for i in user], "item": [f"i{i}" for i in item],
        "kind": [f"k{i % 40}" for i in item], "town": [f"t{i % 7}" for i in user],
        "hour": [f"h{i}" for i in rng.integers(0, 24, count)], "web": ["yes"] * count, **more,
    }  # fmt: skip


def test_without_users_the_columns_that_describe_an_item_are_found_too(rng):
    rows = shop(rng)
    del rows["user"], rows["town"]
    assert read(rows).catalogue.item_columns == ("kind", "web")
    del rows["basket"], rows["hour"]
    rows = {name: column[:500] for name, column in rows.items()}
    rows["item"] = [f"i{n}" for n in range(500)]
    assert read(rows).catalogue.item_columns == ()  # each item once: nothing is told


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_few_mistakes_do_not_hide_what_describes_an_item(rng, caplog, place):
    rows = shop(rng)
    assert read(rows).catalogue.item_columns == ("kind",)
    assert not caplog.records
    mine = [i for i, item in enumerate(rows["item"]) if item == "i7"]
    rows["kind"][{"first": mine[0], "middle": mine[1], "last": mine[-1]}[place]] = "typo"
    rows["town"][7] = "typo"
    rows["web"][5:25] = ["no"] * 20  # rare for every item: of none
    data = read(rows)
    catalogue = data.catalogue
    assert catalogue.item_columns == ("kind",)
    assert catalogue.user_columns == ("town",)
    assert "kind: taken to describe item, though it differs in 1 of 4000 rows" in caplog.text
    assert names_of(data, catalogue.items[catalogue.item_number("i7")]) == ["item=i7", "kind=k7"]
    rows["kind"][:200] = rows["kind"][200:400]
    assert read(rows).catalogue.item_columns == ()


def test_the_odd_rows_of_a_group_are_those_without_its_usual_value(rng):
    groups, values = rng.integers(-1, 9, 500), rng.integers(0, 3, 500) * 0.5
    values[groups == 4] = 7.0
    odd = _odd(groups, values)
    for group in range(9):
        of_group, counts = np.unique(values[groups == group], return_counts=True)
        usual = values[(groups == group) & ~odd]
        assert np.unique(usual).size == 1 and usual.size == counts.max()
    assert not odd[groups == -1].any()


def test_items_that_most_rows_meet_once_are_described_if_enough_are_met_twice(rng):
    once, twice = shop(rng, 9000), shop(rng, 2000)
    once["item"], once["kind"] = ([f"{c}{i}" for i in range(9000)] for c in "xy")
    rows = {name: once[name] + twice[name] for name in once}
    assert read(rows).catalogue.item_columns == ("kind",)


# -- training that goes on -------------------------------------------------------------------------


@pytest.fixture
def first():
    return known(ROWS[:4])


def as_next(first, rows, **options):
    return read(table(rows), target="rating", encoder=first.encoder, **options)


NEXT = [("u2", "A", 50, "am"), ("u1", "B", 30, "am")]


def pairs_of(data):
    catalogue = data.catalogue
    users = [data.encoder.feature_name(key) for key in catalogue.user_keys]
    return {
        (users[u], catalogue.item_ids[i]) for u, i in zip(*catalogue.seen.nonzero(), strict=True)
    }


@pytest.mark.parametrize("options", [{}, {"user": "user", "item": "film"}])
def test_a_catalogue_goes_on(first, options):
    rows = table([NEXT[0]], genres=["y"])  # another description, of a film that the new row meets
    new = read(rows, target="rating", encoder=first.encoder, **options)
    going_on = continued(first.catalogue, new)
    catalogue = going_on.catalogue
    assert pairs_of(going_on) == pairs_of(first)
    of = {name: catalogue.items[i] for i, name in enumerate(catalogue.item_ids)}
    assert names_of(first, of["A"]) == ["film=A", "genres=y"]
    assert names_of(first, of["B"]) == ["film=B", "genres=y"]
    assert catalogue.item_columns == ("genres",) and catalogue.user_columns == ("age",)
    users = {first.encoder.feature_name(k): u for u, k in enumerate(catalogue.user_keys)}
    assert names_of(first, catalogue.users[users["user=u1"]]) == ["age=30"]
    assert names_of(first, catalogue.users[users["user=u2"]]) == ["age=40"]  # 50 is not known


@pytest.mark.parametrize("genres", [None, "new"])
def test_an_empty_cell_says_nothing_new_of_an_item(first, genres):
    rows = table([NEXT[0]], genres=[genres])
    new = continued(first.catalogue, read(rows, target="rating", encoder=first.encoder))
    number = new.catalogue.item_number("A")
    assert names_of(first, new.catalogue.items[number]) == ["film=A", "genres=x", "genres=y"]


def test_training_goes_on_with_the_columns_of_the_model(first, caplog):
    new = as_next(first, NEXT, item="film", user="user", item_columns=["hour", "genres"])
    assert continued(first.catalogue, new).catalogue.item_columns == ("genres",)
    assert "item_columns: hour, genres describe film in these rows" in caplog.text


def test_who_met_what_goes_on(first):
    new = continued(first.catalogue, as_next(first, NEXT))
    again = {("user=u2", "A"), ("user=u1", "B")}
    assert pairs_of(new) == pairs_of(first) | again
    without = as_next(first, NEXT, user="user", item="film", keep_seen=False)
    assert continued(first.catalogue, without).catalogue.seen is None
    assert continued(first.catalogue, as_next(first, NEXT, keep_seen=False)).catalogue.seen is None
    unseen = dataclasses.replace(first.catalogue, seen=None)
    assert continued(unseen, as_next(first, NEXT)).catalogue.seen is None
    assert pairs_of(continued(unseen, as_next(first, NEXT, user="user", item="film"))) == again


def test_rows_of_other_items_begin_anew(first):
    other = as_next(first, NEXT, item="hour")
    assert continued(first.catalogue, other) is other
    bare = Dataset.from_arrays(np.eye(2))
    assert continued(first.catalogue, bare) is bare


def test_ranges_go_on():
    first, wide = read((np.eye(6), np.ones(6)), user="0:3", item="3:6"), np.eye(9)[:5]
    catalogue = continued(first.catalogue, Dataset.from_arrays(wide)).catalogue
    assert catalogue.items.shape == (3, 9) and catalogue.seen.shape == (3, 3)


@pytest.mark.parametrize("task", ["regressor", "ranker"])
def test_training_that_goes_on_keeps_what_was_known(first, task):
    config = TrainConfig(predictor_type=task, num_factors=2, epochs=1)
    model = fit(first, config)
    more = fit(as_next(first, NEXT), config, init=model)
    assert pairs_of(more) == pairs_of(first) | {("user=u2", "A"), ("user=u1", "B")}


# -- in a model file -----------------------------------------------------------------------------


def model_of(data):
    rng = np.random.default_rng(0)
    n = data.num_features
    return Model(
        0.5, rng.normal(size=n), rng.normal(size=(n, 3)), TrainConfig(num_factors=3),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue,
    )  # fmt: skip


def same(a: Catalogue, b: Catalogue):
    assert (a.item, a.user, a.item_columns) == (b.item, b.user, b.item_columns)
    assert list(a.item_ids) == list(b.item_ids)
    assert np.array_equal(a.item_side, b.item_side)
    assert (a.items != b.items).nnz == 0
    assert (a.users is None) == (b.users is None)
    assert a.users is None or (a.users != b.users).nnz == 0
    assert a.user_columns == b.user_columns
    assert (a.seen is None) == (b.seen is None)
    assert a.seen is None or (a.seen != b.seen).nnz == 0


@pytest.mark.parametrize("keep_seen", [True, False])
def test_a_model_file_keeps_it(tmp_path, keep_seen):
    model = model_of(known(keep_seen=keep_seen))
    same(load(model.save(tmp_path / "m")).catalogue, model.catalogue)


def test_a_model_file_keeps_ranges(tmp_path):
    model = model_of(read((np.eye(6), np.ones(6)), user="0:3", item="3:6"))
    same(load(model.save(tmp_path / "m")).catalogue, model.catalogue)


def notes(item, user, item_columns):
    return json.dumps(
        {"item": item, "user": user, "item_columns": item_columns, "user_columns": []}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_rows": np.array([0, 9], np.int32)}, "item_rows and item_features to be a matrix"),
        ({"item_features": np.array([99] * 7, np.int32)}, "to be a matrix of 3 x 18"),
        ({"item_values": np.array([np.nan] * 7, np.float32)}, "a finite value for each entry"),
        ({"item_features": None}, "expected the tensors item_rows and item_features"),
        ({"seen_items": np.array([-1] * 6, np.int32)}, "seen_items to be a matrix of 3 x 3"),
        ({"catalogue": "[1]"}, "expected an object with item, user, item_columns"),
        ({"catalogue": notes("x", "", [])}, "item: .*found 'x'"),
        ({"catalogue": notes("film", "user", ["x"])}, "no column 'x'"),
    ],
)
def test_a_changed_model_file_is_refused(tmp_path, change, message):
    path = model_of(known()).save(tmp_path / "m")
    tensors, metadata = read_tensors(path, _TENSOR_TYPES, format="fm", version="1", source="m")
    for name, value in change.items():
        (metadata if name == "catalogue" else tensors)[name] = value
    write_tensors(path, {k: v for k, v in tensors.items() if v is not None}, metadata)
    with pytest.raises(ModelFileError, match=message):
        load(path)


def test_data_made_by_hand():
    data = Dataset.from_arrays(np.eye(4), np.ones(4), fields=np.array([0, 0, 1, 1], np.int32))
    assert catalogue_of(data) is None
    with pytest.raises(ConfigError, match="item: expected one of the columns .none; give a range"):
        catalogue_of(data, item="film")


def test_a_model_of_more_features_than_the_data_recommends_too():
    data = read((np.eye(6)[:5], np.ones(5)), user="0:3", item="3:6")
    model = fit(data, TrainConfig(num_factors=2, feature_dim=9, epochs=1))
    assert model.catalogue.items.shape == (3, 9)
    assert len(model.recommend(1, exclude=None).ids) == 3


def test_the_columns_of_a_user_need_not_be_said():
    data = known()
    assert data.catalogue.user_columns == ("age",)
    model = model_of(data)
    whole = [{"user": "u2", "age": 40, "hour": "am"}, {"user": "u2", "age": 30, "hour": "am"}]
    said, other = model.recommender.contexts(whole)
    left = model.recommender.contexts([{"user": "u2", "hour": "am"}, {"user": "new", "age": 40}])
    assert (left[0] != said).nnz == 0 and (said != other).nnz
    assert names_of(data, left[1]) == ["age=40", "hour=<unknown>", "user=<unknown>"]
    by_id = model.recommender.contexts(["u2", "new"])
    assert names_of(data, by_id[0]) == ["age=40", "hour=<unknown>", "user=u2"]
    assert names_of(data, by_id[1]) == ["age=<unknown>", "hour=<unknown>", "user=<unknown>"]
