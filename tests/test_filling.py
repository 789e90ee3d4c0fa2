"""One pair, one score: columns left out that describe a known user or item are filled in."""

import io
import json
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fm
import fm.cli.main
from fm.catalogue.filling import encode_rows, encode_table
from fm.config import TrainConfig
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.evaluating.rankings import evaluate_ranking
from fm.model.model import Model
from fm.serving.application import create_app

FILMS, USERS = 8, 10
GENRES = ["a|b", "b", "c", "a|c"]
DESCRIBING = ("age", "town", "genres", "year")
ROWS = [
    {
        "user": f"u{u}",
        "age": 2.0 + u,
        "town": f"t{u % 3}",
        "film": f"f{f}",
        "genres": GENRES[f % 4],
        "year": 1.0 + f,
        "hour": str((u + f) % 2),
        "rating": 1 + (u + f) % 5,
    }
    for u in range(USERS)
    for f in range(FILMS)
    if (u * f) % 3 != 1
]
KINDS = {
    "categorical": ["user", "film", "hour", "town"],
    "multi": ["genres"],
    "numeric": ["age", "year"],
}


def make(task="regressor"):
    data = fm.read(pd.DataFrame(ROWS), item_columns=["genres", "year"], **KINDS)
    assert data.catalogue.user_columns == ("age", "town")
    rng = np.random.default_rng(3)
    n = data.num_features
    return Model(
        0.5, rng.normal(size=n) / 10, rng.normal(size=(n, 3)) / 10,
        TrainConfig(num_factors=3, predictor_type=task),
        encoder=data.encoder, fields=data.fields, field_names=data.field_names,
        catalogue=data.catalogue, metrics={"mse": 0.5},
    )  # fmt: skip


MODEL = make()
BARE = {"user": "u3", "film": "f2", "hour": "1"}
WHOLE = {**BARE, "age": 5, "town": "t0", "genres": "c", "year": 3}
EXPECTED = float(MODEL.scores([WHOLE])[0])


def near(value):
    return pytest.approx(value, rel=1e-5)


# -- the same pair everywhere ----------------------------------------------------------------------


def test_the_row_without_what_describes_it_is_another_one_to_the_encoder():
    assert float(MODEL.scores(MODEL.encoder.encode_rows([BARE]))[0]) != near(EXPECTED)


def test_python():
    best = MODEL.recommend({"user": "u3", "hour": "1"}, FILMS, exclude=None)
    assert dict(best)["f2"] == near(EXPECTED)
    table = {name: [value] for name, value in BARE.items()}
    for rows in ([BARE], [WHOLE], (BARE,), table, pd.DataFrame(table), pl.DataFrame(table)):
        assert MODEL.scores(rows).tolist() == [near(EXPECTED)]
        assert MODEL.predict(rows).tolist() == [near(EXPECTED)]
    assert MODEL.explain(BARE).score == near(EXPECTED)
    assert MODEL.explain(pa.table(table)).score == near(EXPECTED)
    in_row = [BARE, WHOLE, {**BARE, "age": 5}, {"user": "u3", "film": "f2"}]
    scores = MODEL.scores(in_row)
    np.testing.assert_allclose(scores[:3], EXPECTED, rtol=1e-5)
    assert scores[3] != near(EXPECTED)  # the hour describes neither: left out, it is unknown


@pytest.mark.parametrize("name", ["bare.csv", "bare.parquet"])
def test_command_lines(tmp_path, monkeypatch, capsysbinary, name):
    monkeypatch.chdir(tmp_path)
    MODEL.save("m")
    frame = pd.DataFrame([BARE, {**BARE, "user": "u4"}]).assign(stars=[5, 1], rest=["x", "y"])
    if name.endswith("csv"):
        frame.to_csv(name, index=False)
    else:
        frame.to_parquet(name)

    def lines(*argv):
        assert fm.cli.main.main(list(map(str, argv))) == 0
        return capsysbinary.readouterr().out.decode().splitlines()

    expected = MODEL.scores(frame[["user", "film", "hour"]])
    assert expected[0] == near(EXPECTED)
    assert [float(line) for line in lines("predict", "m", name)] == near(expected.tolist())
    lines("predict", "m", name, "--append", "-o", "out.csv")
    appended = pd.read_csv("out.csv")
    assert list(appended) == [*BARE, "stars", "rest", "prediction"]
    np.testing.assert_allclose(appended["prediction"], expected, rtol=1e-5)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / name).read_bytes())))
    assert [float(line) for line in lines("predict", "m", "-")] == near(expected.tolist())
    rows = json.loads("\n".join(lines("explain", "m", name, "--json")))
    assert [row["score"] for row in rows] == near(expected.tolist())
    assert [row["filled"] for row in rows] == [list(DESCRIBING)] * 2
    told = json.dumps([BARE, WHOLE])
    rows = json.loads("\n".join(lines("explain", "m", "--row", told, "--json")))
    assert [row["score"] for row in rows] == [near(EXPECTED)] * 2
    assert [row["filled"] for row in rows] == [list(DESCRIBING), []]
    error = np.mean((expected - [5, 1]) ** 2)
    report = json.loads("\n".join(lines("evaluate", "m", name, "--target", "stars", "--json")))
    assert report["metrics"]["mse"] == near(error)
    context = json.dumps({"user": "u3", "hour": "1"})
    lines("recommend", "m", "--context", context, "--include-seen", "-o", "l.csv")
    listed = pd.read_csv("l.csv").set_index("item")["score"]
    assert listed["f2"] == near(EXPECTED)


def test_http():
    client = create_app(MODEL).test_client()

    def scores(*instances):
        found = client.post("/invocations", json={"instances": list(instances)}).json
        return [one["score"] for one in found["predictions"]]

    assert scores(BARE) == scores(WHOLE) == [near(EXPECTED)]
    assert scores(BARE, WHOLE, BARE) == [near(EXPECTED)] * 3
    for text in ("user,film,hour\nu3,f2,1\n", "hour,year,film,user\n1,3,f2,u3\n"):
        found = client.post("/invocations", data=text, content_type="text/csv")
        assert float(found.data) == near(EXPECTED)
    refused = client.post("/invocations", data="user,film\nu3,f2\n", content_type="text/csv")
    assert refused.status_code == 400 and b"expected 7 cells" in refused.data
    wish = {"user": "u3", "hour": "1", "k": FILMS, "exclude": None}
    found = client.post("/invocations", json={"instances": [wish]}).json["predictions"][0]
    assert {one["item"]: one["score"] for one in found["items"]}["f2"] == near(EXPECTED)


def test_ranking_is_measured_on_the_same_scores():
    bare = pd.DataFrame([BARE, {**BARE, "user": "u4", "film": "f6"}])
    whole = pd.DataFrame([row for row in ROWS if (row["user"], row["film"]) in
                          {("u3", "f2"), ("u4", "f6")}])  # fmt: skip
    whole["hour"] = "1"
    found = [
        evaluate_ranking(MODEL, rows, k=3, exclude=None)["metrics"]["model"]
        for rows in (bare, whole)
    ]
    assert found[0] == found[1]


# -- what is filled, and what is not ---------------------------------------------------------------


def decoded(row):
    return MODEL.encoder.decode_row(MODEL.as_dataset([row]).X)


def test_what_is_there_and_empty_is_unknown():
    assert decoded(BARE)["town"] == "t0" and decoded(BARE)["age"] == 5
    for empty in (None, "", np.nan):
        assert decoded({**BARE, "town": empty})["town"] is None
        assert decoded({**BARE, "age": empty})["age"] is None
        assert decoded({**BARE, "genres": empty})["genres"] is None
    frame = pd.DataFrame([BARE, BARE]).assign(town=["t1", None])
    X = MODEL.as_dataset(frame).X
    found = [MODEL.encoder.decode_row(X[row]) for row in range(2)]
    assert [row["town"] for row in found] == ["t1", None]
    assert [row["age"] for row in found] == [5, 5]


UNKNOWN = {name: 0 for name in ("seat", "price", "crew", "score", "awards", "language")}


@pytest.mark.parametrize("more", [{}, UNKNOWN], ids=["few columns", "more than the model has"])
@pytest.mark.parametrize(
    ("slip", "meant"), [("gnres", "genres"), ("twon", "town"), ("hours", "hour")]
)
def test_a_slip_is_refused_where_columns_are_left_out(slip, meant, more):
    """A misspelt name would otherwise be ignored, and the column filled in or unknown."""
    row = {**BARE, slip: "c", **more}
    row.pop(meant, None)
    assert bool(more) == (len(row) > len(MODEL.encoder.field_names))
    table = {name: [value] for name, value in row.items()}
    for rows in ([row], [WHOLE, row], table, pd.DataFrame(table), pl.DataFrame(table)):
        with pytest.raises(DataError, match=f"{slip}.*{meant}"):
            MODEL.scores(rows)
    client = create_app(MODEL).test_client()
    found = client.post("/invocations", json={"instances": [WHOLE, row]})
    assert found.status_code == 400 and b"instance 2" in found.data and meant.encode() in found.data
    context = {key: value for key, value in row.items() if key != "film"}
    if meant != "genres":  # which is the item's
        with pytest.raises(DataError, match=f"{slip}.*{meant}"):
            MODEL.recommend(context)
    row[meant] = row.pop(slip) if meant != "hour" else "1"
    table = {name: [value] for name, value in row.items()}
    assert np.isfinite(MODEL.scores([row])).all() and np.isfinite(MODEL.scores(table)).all()


def test_strangers_and_new_items_stay_unknown():
    row = decoded({**BARE, "user": "stranger"})
    assert (row["age"], row["town"], row["genres"], row["year"]) == (None, None, ["c"], 3)
    row = decoded({**BARE, "film": "new"})
    assert (row["age"], row["town"], row["genres"], row["year"]) == (5, "t0", None, None)
    row = decoded({"hour": "1"})
    assert all(row[name] is None for name in DESCRIBING)


rows_of = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "user": st.sampled_from(["u0", "u3", "u9", "stranger", None]),
            "film": st.sampled_from(["f0", "f2", "f7", "new", None]),
            "age": st.sampled_from([5.0, 55.0, None]),
            "town": st.sampled_from(["t0", "t2", "elsewhere", None]),
            "genres": st.sampled_from(["a|b", "c", "other", None]),
            "year": st.sampled_from([3.0, 50.0, None]),
            "hour": st.sampled_from(["0", None]),
        },
    ),
    max_size=5,
)


def known(column, value):
    """What describes a user or film in the training rows: the slow twin."""
    for row in ROWS:
        if row[column] == value:
            names = ("age", "town") if column == "user" else ("genres", "year")
            return {name: row[name] for name in names}
    return {}


@given(rows_of)
@settings(max_examples=150, deadline=None)
def test_filled_rows_are_those_that_say_it_themselves(rows):
    whole = [
        {**known("user", row.get("user")), **known("film", row.get("film")), **row} for row in rows
    ]
    found = encode_rows(MODEL.encoder, MODEL.catalogue, rows).X
    expected = MODEL.encoder.encode_rows(whole)
    np.testing.assert_array_equal(found.toarray(), expected.toarray())
    assert found.has_sorted_indices and found.has_canonical_format
    np.testing.assert_array_equal(found.indptr, expected.indptr)


def test_a_table_may_lack_only_what_describes():
    frame = pd.DataFrame([BARE])
    for name in BARE:
        with pytest.raises(DataError, match=f"there is no column '{name}'"):
            MODEL.scores(frame.drop(columns=name))
    found, filled = encode_table(MODEL.encoder, MODEL.catalogue, frame)
    assert filled == DESCRIBING
    expected = encode_rows(MODEL.encoder, MODEL.catalogue, [BARE]).X
    np.testing.assert_array_equal(found.toarray(), expected.toarray())
    with pytest.raises(DataError, match="there is no column"):  # without the catalogue
        fm.read(frame, encoder=MODEL.encoder)
    with pytest.raises(ConfigError, match="catalogue: expected encoder= too"):
        fm.read(frame, catalogue=MODEL.catalogue)
    data = fm.read(frame, encoder=MODEL.encoder, catalogue=MODEL.catalogue)
    assert data.filled == DESCRIBING and MODEL.scores(data).tolist() == [near(EXPECTED)]


def test_complete_rows_are_encoded_and_that_is_all(monkeypatch):
    def never(*args):
        raise AssertionError

    monkeypatch.setattr("fm.catalogue.filling._Known.__call__", never)
    monkeypatch.setattr("fm.catalogue.filling.number_in_row", never)
    table = pd.DataFrame([WHOLE] * 3)
    for rows in ([WHOLE] * 3, table):
        np.testing.assert_allclose(MODEL.scores(rows), EXPECTED, rtol=1e-5)
    for rows in ([WHOLE, BARE], table.drop(columns="age")):
        with pytest.raises(AssertionError):
            MODEL.scores(rows)


def test_rows_to_train_on_are_not_filled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    MODEL.save("m")
    pd.DataFrame(ROWS).drop(columns="genres").to_csv("more.csv", index=False)
    assert fm.cli.main.main(["train", "more.csv", "--init", "m", "-o", "n"]) == 2
    assert "there is no column 'genres'" in capsys.readouterr().err


def test_a_model_without_columns_that_describe_reads_as_before():
    data = fm.read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    assert isinstance(data.encoder, Encoder)
    rows = [{"user": 1}, {}]
    X, filled = encode_rows(data.encoder, data.catalogue, rows)
    assert filled == () and (X != data.encoder.encode_rows(rows)).nnz == 0


def test_the_explanation_says_what_was_filled():
    found = MODEL.explain(BARE)
    assert found.filled == DESCRIBING
    assert str(found).splitlines()[1] == "as in the training data: age, town, genres, year"
    assert MODEL.explain(WHOLE).filled == () and "training data" not in str(MODEL.explain(WHOLE))
    assert MODEL.explain({**BARE, "user": "stranger"}).filled == ("genres", "year")
    assert MODEL.explain({**BARE, "age": None}).filled == ("town", "genres", "year")
    assert found.to_dict()["filled"] == list(DESCRIBING)


@pytest.mark.parametrize("kind", [fm.FMRegressor, fm.FMClassifier, fm.FMRanker])
def test_estimators(kind):
    frame = pd.DataFrame(ROWS)
    y = frame.pop("rating")
    options = {
        **KINDS,
        "num_factors": 2,
        "epochs": 3,
        "standardize": True,
        "validation_fraction": 0.0,
        "patience": 0,
    }
    estimator = kind(**options)
    estimator.fit(frame, None if kind is fm.FMRanker else y > 2)
    score = estimator.decision_function if kind is fm.FMClassifier else estimator.predict
    bare = frame.drop(columns=list(DESCRIBING))
    np.testing.assert_allclose(score(bare), score(frame), rtol=1e-5)
    np.testing.assert_allclose(score(bare), estimator.model_.scores(bare), rtol=1e-4)
    if kind is fm.FMRanker:
        assert estimator.score(bare) == estimator.score(frame)
