"""The evaluation of rankings against scoring every item of every list, one by one."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from test_rank_metrics import figures_by_hand

import fm.evaluating.rankings
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.evaluating.rankings import _neighbours, evaluate_ranking
from fm.model.model import Model
from fm.reading.read import read
from fm.tasks import CLASSIFIER, RANKER, REGRESSOR

HOURS = ("day", "night")


def model_of(data, task=REGRESSOR, k=3, seed=1):
    rng = np.random.default_rng(seed)
    n = data.num_features
    return Model(
        0.5, rng.normal(size=n), rng.normal(size=(n, k)), TrainConfig(task, k),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue,
    )  # fmt: skip


def make(seed=0, users=6, films=15, rows=60, task=REGRESSOR, hours=True):
    """Tables of training and test, and a random model; films have genres, rows have an hour."""
    rng = np.random.default_rng(seed)
    genre = rng.choice(["war", "noir"], films)

    def table(film):
        found = {
            "user": [f"u{i}" for i in rng.integers(0, users, film.size)],
            "film": [f"f{i}" for i in film],
            "genre": genre[film].tolist(),
            "rating": rng.integers(1, 6, film.size).astype(float).tolist(),
        }
        return {**found, "hour": rng.choice(HOURS, film.size).tolist()} if hours else found

    train = table(np.concatenate([np.arange(films), rng.integers(0, films, rows)]))
    test = table(rng.integers(0, films, 25))
    return model_of(read(train, target="rating", item_columns="genre"), task), train, test


def lists_by_hand(model, train, test, relevant, *, exclude=True, by_row=False):
    """(scores of all films by name, relevant films, films left out) of each list."""
    genres = dict(zip(train["film"], train["genre"], strict=True))
    names = [name for name in ("user", "hour") if name in test]
    groups = {}
    for row in np.flatnonzero(relevant).tolist():
        context = {name: test[name][row] for name in names}
        alone = by_row or context["user"] not in train["user"]
        key = (*context.values(), row if alone else -1)
        groups.setdefault(key, (context, []))[1].append(test["film"][row])
    for context, wanted in groups.values():
        rows = [{**context, "film": film, "genre": genre} for film, genre in genres.items()]
        scores = dict(zip(genres, model.scores(rows, engine="scipy").tolist(), strict=True))
        met = {f for u, f in zip(train["user"], train["film"], strict=True) if u == context["user"]}
        yield scores, set(wanted), (met if exclude else set()) - set(wanted)


def evaluated_by_hand(lists, k, num_items):
    found = []
    for scores, wanted, left_out in lists:
        order = sorted((f for f in scores if f not in left_out), key=lambda f: -scores[f])
        listed = order[:k] + [-1] * (k - len(order[:k]))
        numbers = {film: i for i, film in enumerate([*scores, *wanted - scores.keys()])}
        figures = figures_by_hand(
            [numbers.get(f, -1) for f in listed], [numbers[f] for f in wanted]
        )
        others = [scores[f] for f in order if f not in wanted]
        below = [np.mean([scores.get(f, -np.inf) > s for s in others]) if others else np.nan
                 for f in wanted]  # fmt: skip
        found.append({**{f"{name}@{k}": v for name, v in figures.items()}, "auc": np.mean(below)})
    return {name: np.nanmean([figures[name] for figures in found]) for name in found[0]}


@pytest.mark.parametrize("exclude", ["seen", None])
@pytest.mark.parametrize("lists", ["context", "row"])
@pytest.mark.parametrize("threshold", [None, 3.0])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_the_figures_are_those_of_scoring_all_items(exclude, lists, threshold, k, monkeypatch):
    for seed in range(3):
        model, train, test = make(seed)
        test = {**test, "film": [*test["film"][:-1], "new"], "user": ["new", *test["user"][1:]]}
        relevant = np.array(test["rating"]) >= (threshold or 0)
        by_hand = list(
            lists_by_hand(
                model, train, test, relevant, exclude=exclude == "seen", by_row=lists == "row"
            )
        )
        monkeypatch.setattr(fm.evaluating.rankings, "SCORES_AT_ONCE", [1, 40, 10**6][seed])
        found = evaluate_ranking(
            model, test, k=k, exclude=exclude, threshold=threshold, lists=lists
        )
        expected = evaluated_by_hand(by_hand, k, 15)
        metrics = found["metrics"]["model"]
        assert {name: metrics[name] for name in expected} == pytest.approx(expected)
        assert found["contexts"] == len(by_hand) and found["items"] == 15 and found["rows"] == 25
        assert found["protocol"] == "full ranking"
        assert found["excluded"] == ("seen in training" if exclude else "nothing")


def test_what_is_counted_and_said():
    model, train, test = make()
    test = {
        "user": ["u1", "u1", "x", "x", "u2"],
        "hour": ["day"] * 5,
        "film": ["new", "other", "f1", "f1", train["film"][train["user"].index("u2")]],
        "genre": ["war"] * 5,
    }
    found = evaluate_ranking(model, test, k=3)
    assert found["rows"] == 5 and found["relevant"] == 5
    assert found["contexts"] == 4  # u1's share one; strangers have one each
    assert (found["unknown_items"], found["unknown_users"], found["relevant_seen"]) == (2, 2, 1)
    assert found["notes"] == [
        "items unknown to the model: 2 of 5 relevant; they count as misses",
        "users unknown to the model: 2 rows, each with a list of its own",
        "of the relevant items 1 were met in training; they stay in the lists while other such "
        "items are left out, which helps them",
    ]
    assert evaluate_ranking(model, test, exclude=None)["notes"][-1] == (
        "of the relevant items 1 were met in training"
    )


def test_unknown_items_are_misses():
    model, _, test = make()
    known = evaluate_ranking(model, test, k=15, exclude=None, lists="row", per_list=True)
    half = {**test, "film": [f if i % 2 else f"new{i}" for i, f in enumerate(test["film"])]}
    found = evaluate_ranking(model, half, k=15, exclude=None, lists="row", per_list=True)
    assert found["unknown_items"] == 13
    for name, values in found["per_list"]["model"].items():
        assert (values[::2] == 0).all() and (
            values[1::2] == known["per_list"]["model"][name][1::2]
        ).all()
    assert found["metrics"]["model"]["recall@15"] == 12 / 25


def test_a_row_twice_is_one_relevant_item():
    model, _, test = make()
    twice = {name: values * 2 for name, values in test.items()}
    once, found = evaluate_ranking(model, test), evaluate_ranking(model, twice)
    assert once["metrics"] == found["metrics"] and found["rows"] == 2 * once["rows"]


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [CLASSIFIER, REGRESSOR, RANKER])
def test_which_rows_are_relevant(task):
    model, _, test = make(task=task)
    labels = [float(i % 2) for i in range(25)]
    test["rating"] = labels
    some = {name: values[1::2] for name, values in test.items()}
    found = evaluate_ranking(model, test, lists="row")
    assert found["contexts"] == (12 if task == CLASSIFIER else 25)
    part = evaluate_ranking(model, some, lists="row")
    assert evaluate_ranking(model, test, threshold=1, lists="row")["metrics"] == part["metrics"]
    if task == CLASSIFIER:
        assert found["metrics"] == part["metrics"]
        data = model.as_dataset({name: v for name, v in some.items() if name != "rating"})
        assert evaluate_ranking(model, data, lists="row")["metrics"] == part["metrics"]


def test_a_dataset_a_frame_and_a_mapping_are_alike():
    model, _, test = make()
    expected = evaluate_ranking(model, test)
    assert evaluate_ranking(model, pa.table(test)) == expected
    assert evaluate_ranking(model, model.as_dataset(test)) == expected


# -- the sampled protocol ------------------------------------------------------------------------


def test_sampled_is_named_and_ranks_among_so_many():
    model, _, test = make(users=8, films=40, rows=40, hours=False)
    found = evaluate_ranking(model, test, sampled=9, k=10, per_list=True)
    assert found["protocol"] == "1 against 9 sampled" and found["contexts"] == 25
    figures = found["per_list"]["model"]
    assert (figures["recall@10"] == 1).all()  # ten places for ten items
    ranks = np.round(1 / figures["mrr@10"])
    assert figures["auc"] == pytest.approx(1 - (ranks - 1) / 9)
    assert set(found["metrics"]) == {"model", "most popular", "item kNN"}
    assert not [name for name in found["metrics"]["model"] if name[:4] in ("cove", "nove")]
    assert evaluate_ranking(model, test, sampled=9)["metrics"] == found["metrics"]
    assert evaluate_ranking(model, test, sampled=9, seed=1)["metrics"] != found["metrics"]


def test_with_all_others_drawn_the_rank_is_that_among_all():
    """Of users with one test row each, all unseen items are candidates in both protocols."""
    model, _, test = make(users=30, hours=False)
    rows = [test["user"].index(user) for user in sorted(set(test["user"]))]
    test = {name: [values[row] for row in rows] for name, values in test.items()}
    full, drawn = evaluate_ranking(model, test, k=5), evaluate_ranking(model, test, k=5, sampled=15)
    for name, figures in drawn["metrics"].items():
        for figure, value in figures.items():
            assert value == pytest.approx(full["metrics"][name][figure])
    assert (
        drawn["notes"][-1]
        == f"fewer than 15 items to draw for {len(rows)} rows; they have all there are"
    )


def test_nothing_met_is_drawn():
    """A model that scores what a user met, in training or the test, above all: no harm is done."""
    train = {
        "user": ["a"] * 5 + ["b"] * 5,
        "film": [f"f{i}" for i in range(10)],
        "rating": [1.0] * 10,
    }
    data = read(train, target="rating")
    test = {"user": ["a", "a", "b"], "film": ["f5", "f6", "f0"]}
    V = np.zeros((data.num_features, 1))
    for i in range(10):
        V[data.encoder.feature_index("film", f"f{i}")] = 1 if i < 7 else 0
    V[data.encoder.feature_index("user", "a")] = 1
    model = dataclasses.replace(model_of(data, k=1), w=np.zeros(data.num_features), V=V)
    found = evaluate_ranking(model, test, sampled=3, k=1, per_list=True)
    assert found["per_list"]["model"]["hit_rate@1"][:2].tolist() == [1, 1]


# -- what it is compared with ----------------------------------------------------------------------


def test_neighbours_are_the_cosines_of_columns(rng, monkeypatch):
    seen = (rng.random((30, 12)) < 0.3).astype(np.float64)
    seen[:, 3] = 0
    lengths = np.sqrt((seen**2).sum(axis=0))
    cosine = seen.T @ seen / np.maximum(np.outer(lengths, lengths), 1e-9)
    np.fill_diagonal(cosine, 0)
    for block in (1, 30, 1000):
        monkeypatch.setattr(fm.evaluating.rankings, "SCORES_AT_ONCE", block)
        matrix = sp.csr_matrix(seen.astype(bool))
        assert _neighbours(matrix, 100).toarray() == pytest.approx(cosine, abs=1e-6)
        near = _neighbours(matrix, 2).toarray()
        for row, expected in zip(near, cosine, strict=True):
            assert np.sort(row)[-2:] == pytest.approx(np.sort(expected)[-2:], abs=1e-6)
            assert np.count_nonzero(row) <= 2


def test_baselines_find_what_they_are_made_for():
    """Two tastes, and a film that all have met but the users asked for."""
    pairs = [(u, f) for u in range(10) for f in range(5) if (u, f) not in ((0, 4), (9, 4))]
    pairs += [(u, f) for u in range(10, 16) for f in range(5, 9) if (u, f) != (10, 8)]
    train = {"user": [f"u{u}" for u, _ in pairs], "film": [f"f{f}" for _, f in pairs]}
    model = model_of(read({**train, "rating": [1.0] * len(pairs)}, target="rating"))
    found = evaluate_ranking(
        model, {"user": ["u0", "u10"], "film": ["f4", "f8"]}, k=1, per_list=True
    )
    assert found["per_list"]["most popular"]["hit_rate@1"].tolist() == [1, 0]
    assert found["per_list"]["item kNN"]["hit_rate@1"].tolist() == [1, 1]
    assert found["metrics"]["most popular"]["coverage@1"] == 2 / 9
    assert found["metrics"]["item kNN"]["novelty@1"] == pytest.approx(
        (np.log2(16 / 8) + np.log2(16 / 5)) / 2
    )


def test_a_model_that_knows_nothing_is_not_taken_for_the_most_popular():
    """The catalogue is in the order of popularity; ties must not be."""
    model, train, _ = make(films=20, rows=200, hours=False)
    blind = dataclasses.replace(model, w=np.zeros_like(model.w), V=np.zeros_like(model.V))
    top = model.catalogue.item_ids[0]
    test = {"user": ["u0"], "film": [top], "genre": ["war"]}
    hits = [
        evaluate_ranking(blind, test, k=5, exclude=None, seed=seed, baselines=False)["metrics"][
            "model"
        ]
        for seed in range(200)
    ]
    assert 0.1 < np.mean([h["hit_rate@5"] for h in hits]) < 0.4
    assert all(h["auc"] == 0.5 for h in hits)


def test_without_training_pairs_there_are_no_baselines():
    model, _, test = make()
    forgetful = dataclasses.replace(
        model, catalogue=dataclasses.replace(model.catalogue, seen=None)
    )
    found = evaluate_ranking(forgetful, test)
    assert list(found["metrics"]) == ["model"] and found["excluded"] == "nothing"
    assert "novelty@10" not in found["metrics"]["model"]
    assert found["notes"] == [
        "no baselines, and nothing is left out: the model has no training pairs"
    ]
    same = evaluate_ranking(model, test, exclude=None, baselines=False)
    assert same["metrics"]["model"].items() >= found["metrics"]["model"].items()
    assert evaluate_ranking(forgetful, test, exclude=None, baselines=False)["notes"] == []


def test_items_without_a_user_column():
    data = read(
        {"hour": ["day", "night", "day"], "film": ["a", "b", "c"], "rating": [1.0, 2.0, 3.0]}
    )
    found = evaluate_ranking(model_of(data), {"hour": ["day", "day"], "film": ["b", "a"]}, k=3)
    assert found["contexts"] == 1 and found["unknown_users"] == 0 and found["excluded"] == "nothing"
    assert found["metrics"]["model"]["recall@3"] == 1


def test_features_without_names():
    X = sp.csr_matrix(np.eye(6)[[0, 0, 1]] + np.eye(6)[[2, 3, 4]])
    data = read((X, [1.0, 1.0, 1.0]), user="0:2", item="2:6")
    model = dataclasses.replace(model_of(data), catalogue=None)
    found = evaluate_ranking(
        model, Dataset.from_arrays(X), k=4, exclude=None, catalogue=data.catalogue
    )
    assert found["contexts"] == 2 and found["metrics"]["model"]["recall@4"] == 1


def test_progress_counts_all_lists(monkeypatch):
    model, _, test = make()
    monkeypatch.setattr(fm.evaluating.rankings, "SCORES_AT_ONCE", 40)
    done = []
    found = evaluate_ranking(model, test, progress=done.append)
    assert sum(done) == 3 * found["contexts"] and len(done) > 3


# -- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k: expected an integer of at least 1, found 0"),
        ({"k": True}, "k: expected an integer of at least 1, found True"),
        ({"sampled": 0}, "sampled: expected an integer of at least 1, found 0"),
        ({"sampled": 9.5}, "sampled: expected an integer of at least 1, found 9.5"),
        ({"exclude": "all"}, "exclude: expected 'seen' or None, found 'all'"),
        ({"exclude": ["f1"]}, "exclude: expected 'seen' or None, found"),
        ({"threshold": float("nan")}, "threshold: expected a finite number, found nan"),
        ({"threshold": "4"}, "threshold: expected a finite number, found '4'"),
        ({"lists": "user"}, "lists: expected 'context' or 'row', found 'user'"),
    ],
)
def test_wrong_options(options, message):
    model, _, test = make()
    with pytest.raises(ConfigError, match=message):
        evaluate_ranking(model, test, **options)


def test_a_model_without_items():
    model, _, test = make()
    with pytest.raises(ConfigError, match="does not know which column is the item; train it on"):
        evaluate_ranking(dataclasses.replace(model, catalogue=None), test)


def test_wrong_rows():
    model, _, test = make()
    with pytest.raises(DataError, match="no target reaches the threshold of 6; the highest is 5"):
        evaluate_ranking(model, test, threshold=6)
    with pytest.raises(DataError, match="expected a target in each row to compare with threshold"):
        evaluate_ranking(model, model.as_dataset(test), threshold=3)
    with pytest.raises(DataError, match="expected rows, found none"):
        evaluate_ranking(model, Dataset.from_arrays(np.zeros((0, model.num_features))))
    classifier, _, test = make(task=CLASSIFIER)
    with pytest.raises(DataError, match="row 1: expected label 0 or 1.*say with threshold="):
        evaluate_ranking(classifier, {**test, "rating": [3.0] * 25})
    with pytest.raises(DataError, match="expected rows with label 1, found none"):
        evaluate_ranking(classifier, {**test, "rating": [0.0] * 25})


def test_scores_beyond_all_numbers():
    model, _, test = make()
    huge = dataclasses.replace(model, V=np.full_like(model.V, 1e30))
    with pytest.raises(DataError, match="scores: expected finite numbers, found others"):
        evaluate_ranking(huge, test)
