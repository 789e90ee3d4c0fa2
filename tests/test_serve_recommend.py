"""Recommending over HTTP: the lists, the options of an instance, refusals; no sockets."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve_server import serving

import fm.recommending.recommender
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.model.builtin import write_artifact
from fm.model.load import load
from fm.model.model import Model
from fm.reading.finding_items import catalogue_of
from fm.reading.read import read
from fm.serving import bodies
from fm.serving import lists as recommending
from fm.serving.application import create_app
from fm.serving.store import ModelStore
from fm.tasks import CLASSIFIER, RANKER, REGRESSOR

JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
RECORDIO = "application/x-recordio-protobuf"
USERS, FILMS = 12, 30
FILM_NAMES = [f'"Film" {i}, the ({1970 + i})' for i in range(FILMS)]


def named(task=REGRESSOR, **more):
    """A model of users, hours, films and genres; a genre describes the film."""
    rng = np.random.default_rng(1)
    user, film = rng.integers(USERS, size=150), rng.integers(FILMS, size=150)
    film[:FILMS] = np.arange(FILMS)
    table = {
        "user": [f"u{i}" for i in user],
        "hour": [f"{i}" for i in rng.integers(4, size=150)],
        "film": [FILM_NAMES[i] for i in film],
        "genre": [f"g{i % 5}" for i in film],
        "rating": rng.integers(2, size=150),
    }
    data = read(table, item_columns="genre")
    n = data.num_features
    return Model(
        0.5,
        rng.normal(size=n),
        rng.normal(size=(n, 4)),
        TrainConfig(task, 4),
        encoder=data.encoder,
        fields=data.fields,
        field_names=data.field_names,
        catalogue=data.catalogue,
        **{"metrics": {"mse": 0.5}, **more},
    )


def numbered(task=REGRESSOR):
    """Features 0 to 5 are users, 6 to 15 items, 16 and 17 context."""
    rng = np.random.default_rng(2)
    rows = [[u, 6 + i] for u in range(6) for i in rng.choice(10, 3, replace=False)]
    X = sp.csr_matrix((np.ones(36), np.ravel(rows), np.arange(0, 37, 2)), (18, 18))
    data = Dataset.from_arrays(X.astype(np.float32), np.ones(18))
    catalogue = catalogue_of(data, user="0:6", item="6:16")
    V = rng.normal(size=(18, 3))
    config = TrainConfig(task, 3)
    return Model(0.5, rng.normal(size=18), V, config, catalogue=catalogue, metrics={"mse": 0.5})


MODELS = {task: named(task) for task in (REGRESSOR, CLASSIFIER, RANKER)}
CLIENTS = {task: create_app(model).test_client() for task, model in MODELS.items()}
NUMBERED = numbered()
NUMBERED_CLIENT = create_app(NUMBERED).test_client()
CLIENT = CLIENTS[REGRESSOR]


@pytest.fixture(params=(REGRESSOR, CLASSIFIER, RANKER))
def task(request):
    return request.param


def post(client, content, content_type=JSON, path="/invocations", **headers):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post(path, data=body, content_type=content_type, headers=headers)


def lists(response, media_type=JSON):
    """[[(item, score), ...], ...] of an answer."""
    assert response.status_code == 200, response.data
    assert response.content_type == media_type
    if media_type == JSON:
        assert list(response.json) == ["predictions"]
        found = response.json["predictions"]
    else:
        assert response.data == b"" or response.data.endswith(b"\n")
        found = [json.loads(line) for line in response.data.splitlines()]
    assert all(list(one) == ["items"] for one in found)
    for pair in (pair for one in found for pair in one["items"]):
        assert list(pair)[:2] == ["item", "score"]
        if len(pair) > 2:  # of a classifier
            sigmoid = pytest.approx(1 / (1 + np.exp(-pair["score"])), rel=1e-5)
            assert list(pair)[2:] == ["probability"] and pair["probability"] == sigmoid
    return [[(pair["item"], pair["score"]) for pair in one["items"]] for one in found]


def ask(*instances, client=CLIENT):
    return lists(post(client, {"instances": list(instances)}))


def items(*instances, client=CLIENT):
    return [[item for item, _ in found] for found in ask(*instances, client=client)]


def refused(response, match, status=400):
    assert response.status_code == status, response.data
    assert response.content_type == JSON
    assert match in response.json["error"], response.json


def wrong(instance, match, client=CLIENT):
    """The instance is refused, and named, wherever it stands."""
    good = {"k": 1} if "user" not in instance else {"user": "u1", "k": 1}
    refused(post(client, {"instances": [instance]}), f"instance 1: {match}")
    refused(post(client, {"instances": [good, good, instance]}), f"instance 3: {match}")


def by_scoring(task, context, k, out=(), among=None):
    """The slow twin: score each film, and sort."""
    chosen = [i for i in range(FILMS) if among is None or FILM_NAMES[i] in among]
    rows = [{**context, "film": FILM_NAMES[i], "genre": f"g{i % 5}"} for i in chosen]
    scores = MODELS[task].scores(rows, engine="scipy").tolist() if rows else []
    pairs = [(FILM_NAMES[i], score) for i, score in zip(chosen, scores, strict=True)]
    pairs = [pair for pair in pairs if pair[0] not in out]
    return sorted(pairs, key=lambda pair: -pair[1])[:k]


def seen_by(user, model=MODELS[REGRESSOR]):
    catalogue = model.catalogue
    number = list(model.recommender.user_ids).index(user)
    return [catalogue.item_ids[i] for i in catalogue.seen[number].indices]


def same(found, expected):
    """Equal lists; where scores are equal to rounding, items may have changed places."""
    assert len(found) == len(expected) == len({item for item, _ in found})
    scores = [[score for _, score in pairs] for pairs in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-5)
    others = dict(expected)
    for item, score in found:  # an item that is not there can only be as good as the last one
        assert others.get(item, scores[1][-1]) == pytest.approx(score, rel=1e-5, abs=1e-5)


def all_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        same(one, other)


# -- the lists -------------------------------------------------------------------------------------


def test_the_best_items_are_those_of_the_highest_scores(task):
    client = CLIENTS[task]
    context = {"user": "u3", "hour": "2"}
    (found,) = ask({**context, "k": 7}, client=client)
    assert len(seen_by("u3")) > 3
    same(found, by_scoring(task, context, 7, out=seen_by("u3")))
    (found,) = ask({**context, "k": 7, "exclude": None}, client=client)
    same(found, by_scoring(task, context, 7))
    one = post(client, {**context, "k": 1}).json["predictions"][0]["items"][0]
    assert ("probability" in one) == (task == CLASSIFIER)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_batch_is_answered_as_each_instance_alone(data):
    films = st.lists(st.sampled_from(FILM_NAMES), max_size=4)
    exclude = st.one_of(st.just("seen"), st.none(), st.just(False), films)
    wish = st.fixed_dictionaries(
        {"user": st.sampled_from([f"u{i}" for i in range(USERS)] + ["a stranger"])},
        optional={
            "hour": st.sampled_from(["0", "1", "9"]),
            "exclude": exclude,
            "candidates": st.one_of(st.none(), st.lists(st.sampled_from(FILM_NAMES[:6]))),
        },
    )
    told = st.one_of(
        st.just({}),
        st.just({"ratings": {FILM_NAMES[0]: 1, FILM_NAMES[1]: 0}}),
        st.just({"liked": FILM_NAMES[3:5]}),
    )
    wishes = data.draw(st.lists(st.builds(lambda a, b, k: {**a, **b, "k": k}, wish, told,
                                          st.sampled_from([1, 3, 50])), max_size=8))  # fmt: skip
    client = CLIENTS[CLASSIFIER]
    together = lists(post(client, {"recommend": wishes}))
    assert len(together) == len(wishes)
    for one, found in zip(wishes, together, strict=True):
        same(found, ask(one, client=client)[0])
        if "ratings" in one or "liked" in one:
            continue
        context = {name: one[name] for name in ("user", "hour") if name in one}
        out = one.get("exclude", "seen") or []
        if out == "seen":
            out = [] if one["user"] == "a stranger" else seen_by(one["user"])
        among = one.get("candidates")
        expected = [] if among == [] else by_scoring(CLASSIFIER, context, one["k"], out, among)
        same(found, expected)


def test_forms_of_requests_and_answers_agree():
    wishes = [{"user": f"u{i}", "k": 1 + i % 3} for i in range(9)]
    expected = ask(*wishes)
    rows = "".join(json.dumps(wish) + "\n" for wish in wishes).encode()
    documents = "".join(json.dumps({"recommend": wish}) + "\n" for wish in wishes).encode()
    several = json.dumps({"instances": wishes[:4]}) + "\n" + json.dumps({"recommend": wishes[4:]})
    assert [len(found) for found in expected] == [wish["k"] for wish in wishes]
    all_same(lists(post(CLIENT, {"recommend": wishes})), expected)
    all_same(lists(post(CLIENT, {"recommend": wishes[0]})), expected[:1])
    all_same(lists(post(CLIENT, wishes[0])), expected[:1])
    for body in (rows, documents, several.encode()):
        all_same(lists(post(CLIENT, body, LINES), LINES), expected)
        all_same(lists(post(CLIENT, body), LINES), expected)  # JSON that is lines
        all_same(lists(post(CLIENT, body, LINES, Accept=JSON)), expected)
    all_same(lists(post(CLIENT, {"instances": wishes}, Accept=LINES), LINES), expected)
    assert lists(post(CLIENT, {"recommend": []})) == []
    assert lists(post(CLIENT, {"recommend": []}, Accept=LINES), LINES) == []


def test_the_text_of_an_answer():
    model = Model(2, [0, 3, 0, 1], [[0]] * 4, TrainConfig(num_factors=1))
    data = Dataset.from_arrays(np.eye(4)[[0, 1, 3]], [1, 1, 1])
    model = dataclasses.replace(model, catalogue=catalogue_of(data, item="1:4"))
    client = create_app(model).test_client()
    wish = {"data": {"features": {"keys": [0], "values": [1]}}, "k": 2}
    response = post(client, {"instances": [wish]})
    text = b'{"items":[{"item":"1","score":5.0},{"item":"3","score":3.0}]}'
    assert response.data == b'{"predictions":[' + text + b"]}"
    assert post(client, {"instances": [wish] * 2}, Accept=LINES).data == 2 * (text + b"\n")


def test_a_batch_transform_of_a_file_of_users(monkeypatch):
    monkeypatch.setattr(bodies, "PIECE_BYTES", 200)
    monkeypatch.setattr(fm.recommending.recommender, "CONTEXTS_AT_ONCE", 7)
    client = create_app(MODELS[REGRESSOR], batch=True).test_client()
    rows = [json.dumps({"user": f"u{i % 15}", "k": 2}).encode() + b"\n" for i in range(60)]
    expected = ask(*map(json.loads, rows))
    whole = lists(post(client, b"".join(rows), LINES, Accept=LINES), LINES)
    all_same(whole, expected)
    for size in (1, 13):
        parts = [b"".join(rows[i : i + size]) for i in range(0, 60, size)]
        split = [lists(post(client, part, LINES, Accept=LINES), LINES) for part in parts]
        all_same(sum(split, []), expected)
    all_same(lists(post(client, rows[7], Accept=JSON)), expected[7:8])
    pieces = b'{"instances": [' + b",".join(row.strip() for row in rows) + b"]}"
    all_same(lists(post(client, pieces)), expected)


def test_the_numbers_of_products(monkeypatch):
    """What is asked alike is answered together."""
    calls = []

    def recommend(self, context, k, **options):
        calls.append((context.shape[0], k))
        return original(self, context, k, **options)

    original = Model.recommend
    monkeypatch.setattr(Model, "recommend", recommend)
    film = FILM_NAMES[:3]
    wishes = [{"user": f"u{i}", "k": 3} for i in range(6)]
    wishes += [{"user": "u1", "k": 3, "exclude": [name]} for name in film]
    wishes += [{"user": f"u{i}", "k": 1, "candidates": film} for i in range(4)]
    wishes += [{"user": f"u{i}", "k": 3, "ratings": {film[0]: 2}} for i in range(2)]
    ask(*wishes)
    assert sorted(calls) == [(1, 3), (1, 3), (3, 3), (4, 1), (6, 3)]


# -- contexts --------------------------------------------------------------------------------------


def test_an_unknown_user_is_served_as_unknown():
    assert ask({"user": "a stranger", "k": 5}) == ask({"k": 5}) == ask({"user": None, "k": 5})
    same(ask({"hour": "2", "k": 5})[0], by_scoring(REGRESSOR, {"hour": "2"}, 5))


@pytest.fixture(scope="module")
def described():
    """A model whose users have an age and a town of their own."""
    rng = np.random.default_rng(4)
    user, film = rng.integers(9, size=120), rng.integers(12, size=120)
    table = {
        "user": [f"u{i}" for i in user],
        "age": 20.5 + user,
        "town": [f"t{i % 4}" for i in user],
        "film": [f"f{i}" for i in film],
        "rating": rng.integers(2, size=120),
    }
    data = read(table, user="user", item="film")
    assert data.catalogue.user_columns == ("age", "town")
    n = data.num_features
    return Model(
        0.5, rng.normal(size=n), rng.normal(size=(n, 3)), TrainConfig(num_factors=3),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue, metrics={"mse": 0.5},
    )  # fmt: skip


def test_lists_are_those_of_python_and_the_command_line(described, tmp_path):
    """Columns left out of a known user are as in training."""
    from fm.cli.recommend import main

    client = create_app(described).test_client()
    described.save(tmp_path / "m")
    contexts = [{"user": f"u{i}"} for i in range(9)]
    contexts += [{"user": "u1", "age": 30}, {"user": "u2", "town": None}, {"town": "t1"}, {}]
    contexts += [{"user": "a stranger"}, {"user": "u3", "age": None, "town": "t0"}]
    for told in ({}, {"ratings": {"f1": 5, "f2": 1}}):
        options = {"k": 4, **told}
        by_instances = ask(*({**context, **options} for context in contexts), client=client)
        wishes = [{**context, **options} for context in contexts]
        assert lists(post(client, {"recommend": wishes})) == by_instances
        for context, found in zip(contexts, by_instances, strict=True):
            best = described.recommend(context, 4, **told)
            same(found, list(best))
            same(lists(post(client, {"recommend": {**context, **options}}))[0], found)
            argv = [str(tmp_path / "m"), "-k", "4", "--context", json.dumps(context)]
            if told:
                argv += ["--ratings", json.dumps(told["ratings"])]
            main([*argv, "-o", str(tmp_path / "l.jsonl")])
            rows = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
            same(found, [(row["item"], row["score"]) for row in rows])
    rows = [{"user": "u1", "film": "f1"}, {"user": "u1", "age": 21.5, "town": "t1", "film": "f1"}]
    answers = post(client, {"instances": rows}).json["predictions"]
    scores = [one["score"] for one in answers]  # a row to score is filled in the same way
    np.testing.assert_allclose(scores, described.scores(rows), rtol=1e-5)
    assert scores[0] == scores[1]
    everything = ask({"user": "u1", "k": 12, "exclude": None}, client=client)[0]
    assert dict(everything)["f1"] == pytest.approx(scores[1], rel=1e-5)


def test_what_is_said_of_an_item_does_not_count():
    plain = ask({"user": "u1", "k": 5})
    assert ask({"user": "u1", "film": FILM_NAMES[2], "genre": "g1", "k": 5}) == plain


def test_contexts_of_feature_numbers():
    keys = {"data": {"features": {"keys": [2, 16, 17], "values": [1, 0.5, 1]}}, "k": 4}
    twice = {"data": {"features": {"keys": [17, 16, 2, 16], "values": [1, 0.25, 1, 0.25]}}, "k": 4}
    with_item = {"data": {"features": {"keys": [2, 9, 16, 17], "values": [1, 1, 0.5, 1]}}, "k": 4}
    dense = [0.0] * 18
    dense[2], dense[16], dense[17] = 1, 0.5, 1
    found = ask(
        keys, twice, with_item, {"features": dense, "k": 4}, {"k": 4}, client=NUMBERED_CLIENT
    )
    rows = np.array([dense] * 10)
    rows[np.arange(10), np.arange(6, 16)] = 1
    scores = NUMBERED.scores(rows)
    seen = NUMBERED.catalogue.seen[2].indices
    best = [i for i in np.argsort(-scores).tolist() if i not in seen][:4]
    expected = [(str(6 + i), float(scores[i])) for i in best]
    for each in found[:4]:
        same(each, expected)
    stranger = NUMBERED.scores(np.eye(18)[6:16])
    same(found[4], [(str(6 + i), float(stranger[i])) for i in np.argsort(-stranger)[:4]])


def test_options_that_are_columns_are_columns():
    table = {"user": [1, 2, 1], "item": [5, 6, 7], "k": ["a", "b", "a"], "recommend": [1, 2, 3]}
    data = read({**table, "y": [1, 2, 3]}, item="item", user="user", item_columns=())
    n = data.num_features
    rng = np.random.default_rng(0)
    model = Model(
        0, rng.normal(size=n), rng.normal(size=(n, 2)), TrainConfig(num_factors=2),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue,
    )  # fmt: skip
    client = create_app(model).test_client()
    row = {"user": 1, "item": 5, "k": "b", "recommend": 1}
    assert "score" in post(client, row).json["predictions"][0]
    few = data.catalogue.item_ids
    only_k = read({**table, "y": [1, 2, 3]}, categorical=["user", "item", "k"], item="item",
                  user="user", item_columns=())  # fmt: skip
    small = Model(
        0, rng.normal(size=(m := only_k.num_features)), rng.normal(size=(m, 2)),
        TrainConfig(num_factors=2), encoder=only_k.encoder, fields=only_k.fields,
        field_names=only_k.field_names, catalogue=only_k.catalogue,
    )  # fmt: skip
    client = create_app(small).test_client()
    found = lists(post(client, {"recommend": {"user": 9, "k": "b"}}))  # 10 of 3 items
    best = small.recommend([{"user": 9, "k": "b"}])
    assert [[item for item, _ in one] for one in found] == best.ids
    assert len(found[0]) == len(few) == 3


# -- options ---------------------------------------------------------------------------------------


def test_k():
    assert len(items({"user": "a stranger", "k": FILMS})[0]) == FILMS
    assert len(items({"user": "a stranger", "k": 2**60})[0]) == FILMS
    assert len(lists(post(CLIENT, {"recommend": {"user": "u1"}}))[0]) == 10
    for k in (0, -1, 1.5, 10.0, True, "10", None, [3], 2**80):
        wrong({"user": "u1", "k": k}, "k: expected an integer of at least 1, found")


def test_an_answer_has_a_limit(monkeypatch):
    monkeypatch.setattr(recommending, "MOST_ITEMS", 20)
    assert len(ask(*[{"k": 10}] * 2)) == 2
    refused(
        post(CLIENT, {"instances": [{"k": 10}, {"k": 9}, {"k": 2}]}),
        "instance 3: k: expected at most 20 items in an answer, found more",
    )


def test_exclude_and_candidates():
    first = items({"user": "u1", "k": 3})[0]
    assert items({"user": "u1", "k": 3, "exclude": "seen"})[0] == first
    everything = items({"user": "u1", "k": FILMS, "exclude": None})[0]
    assert sorted(everything) == sorted(FILM_NAMES)
    assert items({"user": "u1", "k": 3, "exclude": False})[0] == everything[:3]
    assert items({"user": "u1", "k": 3, "exclude": []})[0] == everything[:3]
    assert items({"user": "u1", "k": 3, "exclude": everything[:2]})[0] == everything[2:5]
    assert items({"user": "u1", "k": 3, "exclude": FILM_NAMES}) == [[]]
    few = everything[5:9]
    assert items({"user": "u1", "k": 9, "exclude": None, "candidates": few[::-1]})[0] == few
    assert items({"user": "u1", "k": 9, "candidates": few, "exclude": few}) == [[]]
    assert items({"user": "u1", "k": 9, "candidates": []}) == [[]]
    assert items({"user": "u1", "k": 3, "candidates": None})[0] == first


def test_ids_may_be_numbers():
    by_text = ask({"k": 9, "candidates": ["6", "7", "8"], "exclude": ["8"]}, client=NUMBERED_CLIENT)
    by_number = {"k": 9, "candidates": [6, 7.0, "8.0", 6], "exclude": [8]}
    assert ask(by_number, client=NUMBERED_CLIENT) == by_text
    wrong({"k": 9, "candidates": [6.5]}, "candidates: expected items", NUMBERED_CLIENT)


@pytest.mark.parametrize("option", ("exclude", "candidates", "liked"))
@pytest.mark.parametrize(
    ("found", "match"),
    [
        (["Alien (1979)"], 'expected items (film) among the 30 of the model, found "Alien (1979)"'),
        ([FILM_NAMES[0], None], "expected items (film) among the 30 of the model, found null"),
        ([[FILM_NAMES[0]]], "expected items (film) among the 30 of the model, found ["),
        ([True], "expected items (film) among the 30 of the model, found true"),
        ({"film": 1}, "expected "),
        (7, "expected "),
        (FILM_NAMES[0], "expected "),
        ("", "expected "),
    ],
)
def test_items_that_do_not_exist(option, found, match):
    instance = {"user": "u1", "k": 2, option: found}
    wrong(instance, f"{option}: {match}", CLIENTS[CLASSIFIER])


def test_nobody_waits_for_a_suggestion(monkeypatch):
    """To look for a similar name among many takes seconds."""
    monkeypatch.setattr("difflib.get_close_matches", None)
    wrong({"user": "u1", "k": 2, "exclude": ["Film 1"]}, "exclude: expected items (film)")


# -- ratings ---------------------------------------------------------------------------------------


def test_ratings_of_a_person(task):
    model, client = MODELS[task], CLIENTS[task]
    told = {FILM_NAMES[0]: 1, FILM_NAMES[7]: 0, FILM_NAMES[9]: 1}
    if task == REGRESSOR:
        told = {FILM_NAMES[0]: 4.5, FILM_NAMES[7]: -3}
    for exclude in ({}, {"exclude": None}, {"exclude": [FILM_NAMES[1]]}):
        best = model.recommend([{"hour": "1"}], 6, ratings=told, **exclude)
        wish = {"hour": "1", "k": 6, "ratings": told, **exclude}
        others = [{"user": "u2", "k": 6}, {"k": 6, "ratings": {FILM_NAMES[1]: 1}}]
        found = ask(others[0], wish, others[1], client=client)
        assert [item for item, _ in found[1]] == best.ids[0]
        everything = items({**wish, "k": FILMS}, client=client)[0]
        assert set(told) - set(everything) == (set() if exclude else set(told))
        assert found[0] == ask(others[0], client=client)[0]
        assert found[1] == ask(wish, client=client)[0]
    assert found[1] != ask({"hour": "1", "k": 6}, client=client)[0]


@pytest.mark.parametrize("task", (CLASSIFIER, RANKER))
def test_liked(task):
    client, liked = CLIENTS[task], FILM_NAMES[2:5]
    by_ratings = ask({"k": 4, "ratings": dict.fromkeys(liked, 1)}, client=client)
    assert ask({"k": 4, "liked": liked}, client=client) == by_ratings
    assert ask({"k": 4, "ratings": dict.fromkeys(liked, True)}, client=client) == by_ratings
    nothing = ask({"k": 4, "liked": []}, {"k": 4, "ratings": {}}, client=client)
    assert nothing[0] == nothing[1] and len(nothing[0]) == 4
    wrong({"k": 4, "liked": liked, "ratings": {}}, "ratings, liked: expected one of", client)
    for label in (2, -1, 0.5, "1", None, []):
        match = "ratings: expected 0 or 1 for "
        wrong({"k": 4, "ratings": {liked[0]: label}}, match, client)


def test_wrong_ratings():
    wrong({"user": "u1", "k": 1, "liked": FILM_NAMES[:1]}, "liked: the model predicts ratings, not")
    wrong({"user": "u1", "k": 1, "ratings": FILM_NAMES[:1]}, 'ratings: expected {"ITEM": RATING}')
    wrong({"user": "u1", "k": 1, "ratings": {"Alien": 3}}, "ratings: expected items (film) among")
    for rating in (1e39, -(2**200), "5", None, True, [5]):
        instance = {"user": "u1", "k": 1, "ratings": {FILM_NAMES[0]: rating}}
        wrong(instance, "ratings: expected a finite number for ")
    wish = {"user": "u1", "k": 1, "ratings": {FILM_NAMES[0]: 1e30}}
    answer = post(CLIENT, {"instances": [wish]})
    assert answer.status_code == 200 or "instance 1: " in answer.json["error"]


def test_models_that_cannot_learn_of_a_person():
    client = create_app(named(metrics={})).test_client()
    assert len(items({"k": 3}, client=client)[0]) == 3
    match = "noise: expected a model with the mean squared error"
    wrong({"k": 3, "ratings": {FILM_NAMES[0]: 1}}, match, client)
    model = dataclasses.replace(
        NUMBERED,
        catalogue=dataclasses.replace(NUMBERED.catalogue, user="", user_keys=np.zeros(0, np.int32)),
    )
    wish = {"k": 3, "ratings": {"6": 1}}
    wrong(wish, "ratings: the model does not know which column", create_app(model).test_client())


def test_nothing_is_kept(task):
    client = create_app(named(task)).test_client()
    plain = {"user": "u4", "k": 5}
    before = post(client, plain).data
    ask({"user": "u4", "k": 5, "ratings": {FILM_NAMES[8]: 1}}, client=client)
    assert post(client, plain).data == before


# -- refusals --------------------------------------------------------------------------------------


def test_a_model_without_a_catalogue():
    match = "k: the model cannot recommend, as it does not know which of its features are items"
    model = dataclasses.replace(MODELS[REGRESSOR], catalogue=None)
    client = create_app(model).test_client()
    for body in ({"user": "u1", "k": 3}, {"recommend": {"user": "u1"}}):
        refused(post(client, body), f"instance 1: {match}")
    assert "score" in post(client, {"user": "u1"}).json["predictions"][0]


def test_artefacts_of_the_built_in_cannot_recommend(tmp_path):
    path = tmp_path / "model_algo-1"
    write_artifact(dataclasses.replace(NUMBERED, catalogue=None), path)
    client = create_app(load(path)).test_client()
    wish = {"data": {"features": {"keys": [2], "values": [1]}}, "k": 4}
    refused(post(client, wish), "train it with the hyperparameter item")


def test_kinds_are_not_mixed():
    row, wish = {"user": "u1"}, {"user": "u1", "k": 2}
    later = "expected a row to score, as before, found one that asks for recommendations"
    for rows, match in (
        ([row, row, wish], f"instance 3: {later}"),
        ([wish, wish, row, row], "instance 3: expected k, as before, found a row to score"),
        ([wish, row, wish], f"instance 3: {later}"),
    ):
        refused(post(CLIENT, {"instances": rows}), match)
        lines = "\n".join(map(json.dumps, rows)).encode()
        refused(post(CLIENT, lines, LINES), match)
    two = json.dumps({"instances": [row]}) + "\n" + json.dumps({"recommend": wish})
    refused(post(CLIENT, two.encode(), LINES), f"instance 2: {later}")


@pytest.mark.parametrize("found", (5, None, True, "u1", [7], [[{"k": 1}]]))
def test_what_is_no_instance(found):
    refused(post(CLIENT, {"recommend": found}), "instance 1: expected an object, found")


@pytest.mark.parametrize("more", ({"instances": []}, {"k": 3}, {"user": "u1"}))
def test_nothing_stands_beside_recommend(more):
    name = next(iter(more))
    for document in ({"recommend": {"user": "u1"}, **more}, {**more, "recommend": []}):
        match = f'body: expected nothing beside recommend, found "{name}"'
        refused(post(CLIENT, document), match)
        refused(post(CLIENT, document, LINES), match)


@pytest.mark.parametrize("more", ({"k": 3}, {"exclude": [1]}, {"liked": []}))
def test_options_do_not_stand_beside_instances(more):
    name = next(iter(more))
    for document in ({"instances": [{"user": "u1"}], **more}, {**more, "instances": []}):
        match = f"body: expected {name} in the instances that ask"
        refused(post(CLIENT, document), match)
        refused(post(CLIENT, document, LINES), match)
    assert post(CLIENT, {"instances": [], "signature_name": "x"}).status_code == 200


def test_features_do_not_stand_beside_columns():
    data = {"features": {"keys": [0], "values": [1]}}
    for row in ({"data": data, "user": "u1"}, {"features": [0.0], "user": "u1"}):
        refused(post(CLIENT, {"instances": [row]}), 'features or columns, found "user" too')
    other = {"data": data, "id": "x"}
    assert post(CLIENT, {"instances": [other]}).status_code == 200


def test_further_names_in_a_context_are_ignored():
    assert ask({"user": "u1", "k": 3, "session": 5}) == ask({"user": "u1", "k": 3})


def test_wrong_contexts():
    wrong({"usr": "u1", "k": 3}, "there is no column 'usr'")
    two = {"recommend": [{"k": 3}, {"user": ["u1"], "k": 3}]}
    refused(post(CLIENT, two), "instance 2, column 'user': expected one value")
    wrong({"user": "u1", "k": 3, "exlude": None}, "exclude: expected this name, found 'exlude'")
    match = 'expected {"features": [...]} or'
    wrong({"person": 3, "k": 3}, match, NUMBERED_CLIENT)
    sparse = {"data": {"features": {"keys": [18], "values": [1]}}, "k": 3}
    wrong(sparse, "expected keys from 0 to 17", NUMBERED_CLIENT)


def test_the_instance_whose_numbers_are_too_large_is_named():
    good = {"data": {"features": {"keys": [1, 16], "values": [1, 1]}}, "k": 3}
    for value in (1e30, 3e38):
        bad = {"data": {"features": {"keys": [1, 16], "values": [1, value]}}, "k": 3}
        wishes = [good] * 9
        wishes[5] = bad
        answer = post(NUMBERED_CLIENT, {"instances": wishes})
        refused(answer, "instance 6: ")
        assert "finite number" in answer.json["error"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("text/csv;q=1, application/jsonlines;q=0.5", LINES),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/*, text/csv", JSON),
        (CSV, None),
        (RECORDIO, None),
        ("text/*", None),
    ],
)
def test_accept(accept, expected):
    headers = {} if accept is None else {"Accept": accept}
    response = post(CLIENT, {"user": "u1", "k": 3}, **headers)
    if expected:
        assert response.status_code == 200 and response.content_type == expected
    else:
        match = (
            "Accept: expected one of application/json, application/jsonlines, "
            "application/x-jsonlines, application/x-ndjson for recommendations, found"
        )
        refused(response, match, 406)


def test_a_default_that_cannot_be_written_leaves_the_family_of_the_request():
    for default, expected in ((CSV, JSON), (LINES, LINES)):
        client = create_app(MODELS[REGRESSOR], default_accept=default).test_client()
        assert post(client, {"user": "u1", "k": 3}).content_type == expected


# -- what a server has -----------------------------------------------------------------------------


def test_items_are_prepared_when_the_model_is_loaded(task):
    model = named(task)
    assert "item_sides" not in model.recommender.__dict__
    create_app(model)
    assert "item_sides" in model.recommender.__dict__
    assert "_number_of_id" in model.catalogue.__dict__
    assert "_foldings" in model.__dict__


def test_a_model_of_which_nothing_can_be_recommended_still_scores():
    model = MODELS[REGRESSOR]
    V = model.V.copy()
    V[model.catalogue.item_keys] = 1e25
    model = dataclasses.replace(model, V=V)
    client = create_app(model).test_client()
    refused(post(client, {"user": "u1", "k": 3}), "finite number")


def test_items_count_as_memory_of_a_model(tmp_path):
    model = MODELS[REGRESSOR]
    bare = dataclasses.replace(model, catalogue=None)
    assert recommending.memory(bare) == 0
    assert recommending.memory(model) > FILMS * (4 + 1) * 4
    no_seen = dataclasses.replace(model.catalogue, seen=None)
    fewer = recommending.memory(dataclasses.replace(model, catalogue=no_seen))
    assert 0 < fewer < recommending.memory(model)
    for name, each in (("with", model), ("without", bare)):
        each.save(tmp_path / name / "model.safetensors")
    scoring = model.V.nbytes + 3 * model.w.nbytes
    client = create_app(ModelStore(tmp_path, max_bytes=scoring + 2000)).test_client()
    order = {"model_name": "m", "url": str(tmp_path / "with")}
    limited = client.post("/models", json=order)
    assert limited.status_code == 507
    client = create_app(ModelStore(tmp_path)).test_client()
    assert client.post("/models", json=order).status_code == 200
    found = lists(post(client, {"user": "u1", "k": 2}, path="/models/m/invoke"))
    assert found == ask({"user": "u1", "k": 2})


def test_recommending_loads_no_compiler(tmp_path):
    """No numba, no Arrow, whoever is asked and whatever is told."""
    for name, model in {**MODELS, "numbered": NUMBERED}.items():
        model.save(tmp_path / f"{name}.safetensors")
    film = json.dumps(FILM_NAMES[0])
    code = f"""
import sys, pathlib
import fm.serving.server
from fm.model.load import load
from fm.serving.application import create_app
folder = pathlib.Path({str(tmp_path)!r})
film = {film}
for path in folder.iterdir():
    client = create_app(load(path)).test_client()
    name = "6" if path.stem == "numbered" else film
    bodies = [{{"k": 2}}, {{"k": 2, "candidates": [name], "exclude": [name]}}]
    bodies += [{{"k": 2, "ratings": {{name: 1}}}}]
    if path.stem != "numbered":
        bodies += [{{"user": "u1", "k": 3}}]
    for body in bodies:
        response = client.post("/invocations", json=body)
        assert response.status_code == 200, response.data
heavy = {{"numba", "llvmlite", "sklearn", "pandas", "pyarrow", "polars", "tqdm", "boto3"}}
print(*sorted(heavy & sys.modules.keys()))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(bodies.__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_a_server_recommends(tmp_path):
    """The whole server, whose processes share the items' vectors."""
    path = MODELS[CLASSIFIER].save(tmp_path / "model.safetensors")
    wishes = [{"user": f"u{i}", "k": 4} for i in range(8)]
    wishes += [{"k": 4, "liked": [FILM_NAMES[i]]} for i in range(8)]
    with serving(path, "--workers", "2", log=tmp_path / "log") as served:
        for wish in wishes:
            (found,) = served.invoke(json.dumps({"recommend": wish}))
            pairs = [(pair["item"], pair["score"]) for pair in found["items"]]
            same(pairs, ask(wish, client=CLIENTS[CLASSIFIER])[0])
        assert served.request("POST", "/invocations", b'{"user": "u1", "k": 0}')[0] == 400
        assert not [one for one in served.logged() if one["level"] in ("ERROR", "CRITICAL")]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**65) | st.floats(allow_nan=False)
    | st.sampled_from(["seen", "6", FILM_NAMES[0], "u1", ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["6", FILM_NAMES[1], "features", "keys"]), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip
NAMES = ["k", "exclude", "candidates", "ratings", "liked", "user", "film", "data", "features"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.sampled_from(sorted(CLIENTS)))
def test_nonsense_is_never_a_fault_of_ours(instance, task):
    for client in (CLIENTS[task], NUMBERED_CLIENT):
        for body in ({"recommend": instance}, {"instances": [{"k": 2, **instance}]}):
            response = client.post("/invocations", json=json.loads(json.dumps(body)))
            assert response.status_code in (200, 400), response.data
            if response.status_code == 200:
                assert b"null" not in response.data and b"NaN" not in response.data
