"""Recommending: a ranker's job, lists of items over HTTP and in a batch transform (check 41)."""

import json

import pytest

from .conftest import Trained
from .engine import JSON, JSON_LINES, RECORDIO, Job

RANKER = {"predictor_type": "ranker", "num_factors": "8", "epochs": "5", "user": "who"}
CSV = "text/csv"


def interactions(ratings):
    pairs = zip(ratings.user, ratings.film, strict=True)
    return b"who,film\n" + b"".join(b"u%d,f%d\n" % pair for pair in pairs)


@pytest.fixture(scope="module")
def ranker(engine, tmp_path_factory, train_ratings, held_out) -> Trained:
    channels = {
        "train": {"train.csv": interactions(train_ratings)},
        "test": {"test.csv": interactions(held_out)},
    }
    return Trained(engine, Job(tmp_path_factory.mktemp("ranker"), RANKER, channels))


@pytest.fixture(scope="module")
def ranking(engine, ranker):
    with engine.serve(ranker.model_dir) as server:
        yield server


def items(prediction):
    return [pair["item"] for pair in prediction["items"]]


def test_f41_the_log_of_a_ranker(ranker):
    log = ranker.ended.log
    assert log.count(", train ranking_loss <loss>=") >= 5
    assert "test ndcg_10 <score>=" in log and "test hit_rate_10 <score>=" in log


def test_f41_lists(ranker, ranking):
    wishes = [{"who": f"u{i}", "k": 5} for i in range(20)]
    found = ranking.post({"instances": wishes}).predictions()
    best = ranker.model.recommend([{"who": wish["who"]} for wish in wishes], 5)
    assert [items(one) for one in found] == best.ids
    text = "".join(json.dumps(wish) + "\n" for wish in wishes)
    for content_type in (JSON_LINES, JSON):  # SplitType=Line sends lines as JSON, too
        answer = ranking.post(text, content_type, JSON_LINES)
        assert answer.status == 200 and answer.text.count("\n") == 20
        assert [items(json.loads(line)) for line in answer.text.splitlines()] == best.ids


def test_f41_a_person_who_is_told_of(ranker, ranking):
    liked = ranker.model.catalogue.item_ids[:3]
    (found,) = ranking.post({"recommend": {"k": 5, "liked": liked}}).predictions()
    assert items(found) == ranker.model.recommend({}, 5, liked=liked).ids
    assert not set(liked) & set(items(found))


def test_f41_refusals(ranking, endpoint):
    assert ranking.post({"k": 0}).status == 400
    assert ranking.post({"k": 3, "exclude": ["no such film"]}).status == 400
    for accept in (CSV, RECORDIO):
        assert ranking.post({"k": 3}, JSON, accept).status == 406
    context = {"data": {"features": {"keys": [1], "values": [1]}}, "k": 3}
    refused = endpoint.post({"instances": [context]})  # a model that knows no items
    assert refused.status == 400 and "hyperparameter item" in refused.text
