"""Jobs whose model recommends: what they are told, a ranker's log, and the server at the end."""
# ruff: noqa: F811  (fixtures of test_container_train)

import json
import re

import numpy as np
import pytest
from test_container_train import (  # noqa: F401
    FILM,
    FILMS,
    USER,
    USERS,
    WIDTH,
    Job,
    good,
    job,
    refused,
    run,
)  # fmt: skip

from container.logs import METRIC_DEFINITIONS
from fm.config import TrainConfig
from fm.reading.read import read
from fm.serving.application import create_app
from fm.tasks import RANKER
from fm.training.fit import fit

RANKS = {"predictor_type": RANKER, "num_factors": "4", "epochs": "4", "patience": "0"}


def plays(header="user,item\n", rows=slice(None), suffix=""):
    pairs = zip(USER[rows], FILM[rows], strict=True)
    return (header + "".join(f"u{u},i{i}{suffix}\n" for u, i in pairs)).encode()


def found(name, log):
    """What the platform finds for a metric of METRIC_DEFINITIONS."""
    (regex,) = [each["Regex"] for each in METRIC_DEFINITIONS if each["Name"] == name]
    return [float(value) for value in re.findall(regex, log)]


def asked(model, *wishes):
    client = create_app(model).test_client()
    answer = client.post("/invocations", json={"instances": list(wishes)})
    assert answer.status_code == 200, answer.data
    return [[pair["item"] for pair in one["items"]] for one in answer.json["predictions"]]


def test_a_ranker_from_interactions_to_lists(good, job):
    data = {"train": plays(rows=slice(300)), "test": plays(rows=slice(300, None))}
    made = job(RANKS, data)
    log = good(made)
    model = made.model
    assert model.config.predictor_type == RANKER and model.catalogue.num_items == FILMS
    losses = found("train:ranking_loss:epoch", log)
    assert len(losses) == 4 and losses[-1] < losses[0] < 1
    assert log.count(", train ranking_loss <loss>=") == 5  # and that of the model that is kept
    ndcg, hits = found("test:ndcg", log), found("test:hit_rate", log)
    assert len(ndcg) == len(hits) == 1 and 0 < ndcg[0] < hits[0] <= 1
    assert f"#test_score (algo-1) : ('ndcg_10', {ndcg[0]!r})" in log
    report = json.loads((made.paths.output / "metrics.json").read_text())
    assert report["test"] == {"ndcg": ndcg[0], "hit_rate": hits[0]}
    (items,) = asked(model, {"user": "u3", "k": FILMS})
    seen = {f"i{i}" for u, i in zip(USER[:300], FILM[:300], strict=True) if u == 3}
    assert set(items) == {f"i{i}" for i in range(FILMS)} - seen
    assert len(asked(model, {"k": 5, "liked": ["i1", "i2"]})[0]) == 5


def test_a_ranker_s_loss_is_told_after_a_restart(good, job):
    """There is nothing left to train; the model has noted the loss."""
    made = job(RANKS, {"train": plays()})
    (made.paths.base / "checkpoints").mkdir()
    line = r"algo-1, (train ranking_loss <loss>=\S+)"
    told = re.findall(line, good(made))
    assert len(told) == 1 and re.findall(line, good(made)) == told


def test_the_test_of_a_ranker_is_the_rank_of_each_item(good, job):
    """The slow twin: score all items of each row, leave out what its user met, and sort."""
    data = {"train": plays(rows=slice(300)), "test": plays(rows=slice(300, None))}
    made = job(RANKS, data)
    log = good(made)
    gains, hits = [], []
    met = set(zip(USER[:300].tolist(), FILM[:300].tolist(), strict=True))
    model = made.model
    pairs = list(zip(USER[300:].tolist(), FILM[300:].tolist(), strict=True))
    repeated = np.mean([pair in met for pair in pairs]) > 0.1  # then what is met stays in
    for user, film in pairs:
        others = [i for i in range(FILMS) if i == film or repeated or (user, i) not in met]
        scores = model.scores([{"user": f"u{user}", "item": f"i{i}"} for i in others])
        rank = int((scores > scores[others.index(film)]).sum())
        hits.append(rank < 10)
        gains.append(1 / np.log2(rank + 2) if rank < 10 else 0)
    assert found("test:hit_rate", log) == [pytest.approx(np.mean(hits))]
    assert found("test:ndcg", log) == [pytest.approx(np.mean(gains), rel=1e-6)]


def test_the_model_is_that_of_fit(good, job, tmp_path):
    made = job(RANKS, {"train": plays()})
    good(made)
    path = tmp_path / "plays.csv"
    path.write_bytes(plays())
    model = fit(read(path), TrainConfig.from_strings(RANKS))
    assert made.model == model


def test_a_validation_channel_and_early_stopping(good, job):
    data = {"train": plays(rows=slice(300)), "validation": plays(rows=slice(300, None))}
    made = job({**RANKS, "patience": "2", "epochs": "30"}, data)
    log = good(made)
    epochs = found("validation:ndcg:epoch", log)
    assert 3 <= len(epochs) <= 30
    assert found("validation:ndcg", log)[-1] == max(epochs) == made.model.metrics["ndcg"]
    assert found("validation:hit_rate", log)[-1] == made.model.metrics["hit_rate"]
    assert found("train:progress", log)[-1] == 100


def test_one_row_of_some_users_is_held_out(good, job):
    parameters = {**RANKS, "patience": "2", "epochs": "6", "validation_fraction": "0.5"}
    made = job(parameters, {"train": plays()})
    log = good(made)
    assert found("validation:ndcg", log)[-1] == made.model.metrics["ndcg"]


@pytest.mark.parametrize("loss", ("bpr", "warp", "logistic"))
def test_every_ranking_loss(good, job, loss):
    log = good(job({**RANKS, "ranking_loss": loss, "epochs": "2"}, {"train": plays()}))
    assert len(found("train:ranking_loss:epoch", log)) == 2


def test_a_column_of_ratings_is_no_feature(good, job):
    rows = "".join(f"{u},{i},5\n" for u, i in zip(USER, FILM, strict=True))
    made = job(RANKS, {"train": b"user,item,rating\n" + rows.encode()})
    good(made)
    assert made.model.field_names == ("user", "item")


def test_columns_are_named_and_a_table_may_have_no_header(good, job, caplog):
    named = job({**RANKS, "user": "who", "item": "what"}, {"train": plays("who,what\n")})
    good(named)
    assert (named.model.catalogue.user, named.model.catalogue.item) == ("who", "what")
    rows = "".join(f"{u},{i}\n" for u, i in zip(USER, FILM, strict=True)).encode()
    bare = job({**RANKS, "user": "0", "item": "1"}, {"train": rows, "test": rows[:200]})
    log = good(bare)
    assert "csv has no header: it has no target" in log and found("test:ndcg", log)
    assert bare.model.field_names == ("0", "1")
    given = job({**RANKS, "names": "user,item"}, {"train": rows})
    good(given)
    assert asked(given.model, {"user": "3", "k": 2})[0]


def test_features_with_ranges_for_users_and_items(good, job):
    lines = "".join(f"1 {u}:1 {USERS + i}:1\n" for u, i in zip(USER, FILM, strict=True)).encode()
    ranges = {"user": f"0:{USERS}", "item": f"{USERS}:{WIDTH}", "zero_based": "true"}
    made = job({**RANKS, **ranges, "feature_dim": str(WIDTH)}, {"train": lines, "test": lines})
    log = good(made)
    assert found("test:ndcg", log)
    context = {"data": {"features": {"keys": [3], "values": [1]}}, "k": 4}
    assert len(asked(made.model, context)[0]) <= 4


def test_a_test_channel_of_other_items(good, job):
    data = {"train": plays(), "test": plays(rows=slice(50), suffix="new")}
    made = job(RANKS, data)
    log = good(made)
    assert "channel test: no row has an item of channel train" in log
    assert found("test:ndcg", log) == []


def test_a_large_test_channel_is_drawn_from(good, job, monkeypatch):
    monkeypatch.setattr("container.job.RANKED_SCORES", 40 * FILMS)
    log = good(job(RANKS, {"train": plays(), "test": plays()}))
    assert f"channel test: 40 rows are ranked, drawn from {len(USER)}" in log
    assert found("test:ndcg", log)


def test_ratings_with_a_catalogue(good, job):
    rows = "".join(f"{u},{i},{1 + (u + i) % 5}\n" for u, i in zip(USER, FILM, strict=True))
    told = {"user": "who", "item": "what", "keep_seen": "false"}
    made = job(told, {"train": b"who,what,rating\n" + rows.encode()})
    good(made)
    assert made.model.catalogue.seen is None
    assert len(asked(made.model, {"who": "3", "k": FILMS})[0]) == FILMS
    (items,) = asked(made.model, {"k": 3, "ratings": {"1": 5, "2": 1}})
    assert len(items) == 3 and not {"1", "2"} & set(items)


def test_what_a_ranker_is_refused_for(refused, job):
    lines = "".join(f"1 {u}:1 {USERS + i}:1\n" for u, i in zip(USER, FILM, strict=True)).encode()
    assert "item: expected the column of the items" in refused(job(RANKS, {"train": lines}))
    wrong = plays().replace(b"user,item\n", b"user,item,rating\n").replace(b"\n", b",0\n")
    wrong = wrong.replace(b"user,item,rating,0", b"user,item,rating")
    assert "expected an interaction" in refused(job(RANKS, {"train": wrong}))
    reason = refused(job({**RANKS, "item": "song"}, {"train": plays()}))
    assert "item: expected one of the columns (user, item), found 'song'" in reason
    reason = refused(job({**RANKS, "predictor_type": ""}, {"train": plays()}))
    assert "set regressor, binary_classifier or ranker" in reason
    reason = refused(job({**RANKS, "metric": "rmse"}, {"train": plays()}))
    assert "metric" in reason
    # what is no ranker needs its targets
    assert "target" in refused(job({"predictor_type": "regressor"}, {"train": plays()}))


def test_a_ranker_goes_on_where_it_stopped(good, job):
    parameters = {**RANKS, "epochs": "6"}
    whole = job(parameters, {"train": plays()})
    good(whole)
    parts = job({**parameters, "epochs": "3"}, {"train": plays()})
    (parts.paths.base / "checkpoints").mkdir()
    good(parts)
    parts.write("hyperparameters", parameters)
    assert "resumed from" in good(parts)
    assert parts.model == whole.model
