"""Score, probability and label mean the same in Python, as commands, over HTTP, in estimators."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fm
import fm.cli.main
from fm.serving.application import create_app

USERS, FILMS = 8, 6
FRAME = pd.DataFrame(
    [(f"u{u}", f"f{f}", int((u + f) % 2 == 0)) for u in range(USERS) for f in range(FILMS)],
    columns=["user", "film", "like"],
)
ASKED = pd.DataFrame({"user": ["u1", "u2", "u3"], "film": ["f1", "f3", "f3"]})


@pytest.fixture(scope="module")
def estimator():
    found = fm.FMClassifier(num_factors=4, epochs=100, categorical=["user", "film"])
    return found.fit(FRAME[["user", "film"]], FRAME["like"])


@pytest.fixture
def model(estimator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = fm.read(FRAME, target="like", encoder=estimator.model_.encoder, item="film", user="user")
    made = dataclasses.replace(estimator.model_, catalogue=data.catalogue)
    made.save("m.safetensors")
    ASKED.to_csv("asked.csv", index=False)
    return made


def run(*argv):
    assert fm.cli.main.main(list(argv)) == 0


def table(path):
    frame = pd.read_csv(path)
    return {name: frame[name].to_numpy() for name in frame.columns}


def test_of_rows(model, estimator):
    scores = model.scores(ASKED)
    probabilities, labels = 1 / (1 + np.exp(-scores)), (scores >= 0).astype(int)
    assert 0 < labels.sum() < len(labels)
    np.testing.assert_allclose(model.probabilities(ASKED), probabilities, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(ASKED), labels)
    explained = [model.explain(row) for row in ASKED.to_dict("records")]
    np.testing.assert_allclose([one.score for one in explained], scores, rtol=1e-5)
    np.testing.assert_allclose([one.probability for one in explained], probabilities, rtol=1e-5)

    kinds = ["--score", "--probability", "--label"]
    run("predict", "m.safetensors", "asked.csv", *kinds, "-o", "p.csv")
    found = table("p.csv")
    np.testing.assert_allclose(found["score"], scores, rtol=1e-5)
    np.testing.assert_allclose(found["probability"], probabilities, rtol=1e-5)
    np.testing.assert_array_equal(found["label"], labels)
    run("explain", "m.safetensors", "asked.csv", "-o", "e.csv")
    found = table("e.csv")
    firsts = [list(found["row"]).index(row) for row in (1, 2, 3)]
    np.testing.assert_allclose(found["score"][firsts], scores, rtol=1e-5)
    np.testing.assert_allclose(found["probability"][firsts], probabilities, rtol=1e-5)

    np.testing.assert_allclose(estimator.decision_function(ASKED), scores, rtol=1e-5)
    np.testing.assert_allclose(estimator.predict_proba(ASKED)[:, 1], probabilities, rtol=1e-5)
    np.testing.assert_array_equal(estimator.predict(ASKED), labels)

    # The one exception: an answer to rows has the form of the built-in algorithm.
    body = {"instances": ASKED.to_dict("records")}
    found = create_app(model).test_client().post("/invocations", json=body).json["predictions"]
    np.testing.assert_allclose([one["score"] for one in found], probabilities, rtol=1e-5)
    assert [one["predicted_label"] for one in found] == labels.tolist()


def test_of_lists(model):
    best = model.recommend("u1", 3, exclude=None)
    rows = [{"user": "u1", "film": film} for film in best.ids]
    scores, probabilities = model.scores(rows), model.probabilities(rows)
    np.testing.assert_allclose(best.scores, scores, rtol=1e-5)
    np.testing.assert_allclose(best.probabilities, probabilities, rtol=1e-5)
    run("recommend", "m.safetensors", "--user", "u1", "-k", "3", "--include-seen", "-o", "l.csv")
    body = {"recommend": {"user": "u1", "k": 3, "exclude": None}}
    answer = create_app(model).test_client().post("/invocations", json=body).json["predictions"]
    by_http = pd.DataFrame(answer[0]["items"])
    for found in (table("l.csv"), best.to_table().to_pandas(), by_http):
        assert list(found["item"]) == best.ids
        np.testing.assert_allclose(found["score"], scores, rtol=1e-5)
        np.testing.assert_allclose(found["probability"], probabilities, rtol=1e-5)


def test_a_ranker_predicts_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plays = FRAME[FRAME["like"] == 1][["user", "film"]]
    ranker = fm.FMRanker(num_factors=2, epochs=5).fit(plays)
    ranker.model_.save("r.safetensors")
    ASKED.to_csv("asked.csv", index=False)
    run("predict", "r.safetensors", "asked.csv", "-o", "p.csv")
    scores = ranker.model_.scores(ASKED)
    assert list(table("p.csv")) == ["score"]
    np.testing.assert_allclose(table("p.csv")["score"], scores, rtol=1e-5)
    np.testing.assert_allclose(ranker.predict(ASKED), scores, rtol=1e-5)
    with pytest.raises(fm.ConfigError, match="the model is a ranker and has none"):
        ranker.model_.probabilities(ASKED)


def test_the_readme_has_the_words():
    text = (Path(fm.__file__).parents[1] / "README.md").read_text()
    rows = re.findall(r"^\| \*(\w+)\* \|", text, re.M)
    assert rows == ["score", "probability", "label", "prediction"]
