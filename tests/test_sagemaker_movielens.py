"""The end of the article's script: what an endpoint and a model file recommend, without any SDK."""

import gzip
import json
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import fm

ROOT = Path(__file__).parents[1]
USERS, FILMS = 30, 20


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    import sagemaker_movielens

    return sagemaker_movielens


@pytest.fixture(scope="module")
def data(script):
    """People of even numbers like films of even numbers, and the others the others."""
    rng = np.random.default_rng(3)
    pairs = rng.permutation(USERS * FILMS)[: USERS * FILMS * 3 // 4]
    pairs = np.union1d(pairs, [USERS * FILMS - 1])
    pairs = rng.permutation(pairs)
    user, film = pairs // FILMS, pairs % FILMS
    rating = np.where(user % 2 == film % 2, 5, 2)
    parts = [
        script.Ratings(user[rows], film[rows], rating[rows])
        for rows in (slice(50, None), slice(50))
    ]
    titles = [f"Film {'odd' if film % 2 else 'even'} {film} (1995)" for film in range(FILMS)]
    return script.MovieLens(*parts, titles, USERS)


@pytest.fixture(scope="module")
def archive(script, data, tmp_path_factory):
    """A model.tar.gz as the training job leaves it."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "train").write_bytes(
        script.records(data.one_hot(data.train.user, data.train.film), script.liked(data.train))
    )
    rows = fm.read(folder / "train", user=f"0:{USERS}", item=f"{USERS}:{USERS + FILMS}")
    config = fm.TrainConfig(
        predictor_type="binary_classifier", num_factors=4, epochs=30, patience=0
    )
    path = fm.fit(rows, config, progress=False).save(folder / "model.safetensors")
    with tarfile.open(folder / "model.tar.gz", "w:gz") as file:
        file.add(path, "model.safetensors")
    return folder / "model.tar.gz"


class Backend:
    """An endpoint that answers by the model itself."""

    def __init__(self, path):
        self.path = path

    def artifact(self):
        return self.path

    def invoke(self, body, content_type, accept="application/json"):
        assert content_type == "application/x-recordio-protobuf"
        scores = fm.load(self.path).probabilities(fm.read(body, num_features=USERS + FILMS))
        return json.dumps({"predictions": [{"score": float(score)} for score in scores]}).encode()


def test_the_model_file_recommends_what_the_endpoint_does_and_says_why(
    script, data, archive, capsys
):
    backend = Backend(archive)
    script.recommend(backend, data, 4, 3)
    asked = capsys.readouterr().out
    model = script.open_artifact(backend)
    script.recommend_locally(model, data, 4, 3)
    told = capsys.readouterr().out
    best = re.findall(r"^  (\d\.\d{3})  (\S.*)$", asked, re.M)
    titles = re.findall(r"^  +\d\. (.*)$", told, re.M)
    term = r" ([+-][\d.]+)"
    pattern = rf"(0\.\d{{3}}): the person{term}, the film{term}, the two together{term}"
    whys = re.findall(pattern, told)
    assert titles == [title for _, title in best]
    assert [why[0] for why in whys] == [score for score, _ in best]
    for probability, *terms in whys:
        odds = sum(map(float, terms))
        assert float(probability) == pytest.approx(1 / (1 + np.exp(-odds)), abs=0.01)
    assert re.findall("most like Film (even|odd)", told) == ["even"] * 3


def test_films_that_were_rated_are_not_recommended(script, data):
    films = set(script.unseen(data, 4).tolist())
    for part in data[:2]:
        assert not films & set(part.film[part.user == 4].tolist())
    rated = sum(int((part.user == 4).sum()) for part in data[:2])
    assert len(films) + rated == FILMS


def test_without_a_model_file_there_is_only_the_endpoint(script, tmp_path, capsys):
    assert script.open_artifact(Backend(None)) is None  # on AWS
    assert script.open_artifact(Backend(tmp_path / "none")) is None
    assert capsys.readouterr().out == ""
    (tmp_path / "model.tar.gz").write_bytes(gzip.compress(b"no archive"))
    assert script.open_artifact(Backend(tmp_path / "model.tar.gz")) is None
    assert "the model file is not opened: " in capsys.readouterr().out


def test_a_missing_package_is_named(script, archive, capsys, monkeypatch):
    def load(path):
        raise ImportError("no module named safetensors")

    monkeypatch.setattr(script, "load", load)
    assert script.open_artifact(Backend(archive)) is None
    assert "pip install safetensors" in capsys.readouterr().out


def test_a_model_that_knows_no_items_says_so(script, data, capsys):
    model = fm.Model(0.0, np.zeros(50), np.ones((50, 2)), fm.TrainConfig())
    script.recommend_locally(model, data, 4, 3)
    assert "trained without the hyperparameter item" in capsys.readouterr().out


def test_each_sdk_knows_where_the_model_is(script):
    two, three = script.Sdk2.__new__(script.Sdk2), script.Sdk3.__new__(script.Sdk3)
    two.estimator = type("", (), {"model_data": "file:///work/output/model.tar.gz"})()
    three.model_data = "file:///work/serving"
    assert two.artifact() == Path("/work/output/model.tar.gz")
    assert three.artifact() == Path("/work/serving/model.tar.gz")
    two.estimator.model_data = three.model_data = "s3://bucket/model.tar.gz"
    assert two.artifact() is three.artifact() is None


def test_a_job_is_told_which_features_are_people_and_films(script, monkeypatch, tmp_path):
    """The hyperparameters that the container reads a channel by."""
    from container.hyperparameters import parse

    (tmp_path / "u.item").write_text("".join(f"{i}|Film {i}\n" for i in range(1, 1 + FILMS)))
    lines = [f"{1 + i % USERS}\t{1 + i % FILMS}\t{1 + i % 5}\t0\n" for i in range(90)]
    for name in ("ua.base", "ua.test"):
        (tmp_path / name).write_text("".join(lines))
    given = []

    class Sdk:
        def __init__(self, options, work):
            given.append(options.hyperparameters)
            raise SystemExit("enough")

    monkeypatch.setattr(script, "Sdk2", Sdk)
    with pytest.raises(SystemExit, match="enough"):
        script.main(["--local", "--image", "fm", "--data", str(tmp_path)])
    assert given[0]["user"] == "0:30" and given[0]["item"] == "30:50"
    parse({name: str(value) for name, value in given[0].items()})  # raises what it refuses
