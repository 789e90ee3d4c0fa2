"""Explanations and interactions: against loops over all pairs, for rows of every kind of column."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import fm.explaining.interactions
from fm.config import TrainConfig
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError
from fm.explaining.interactions import field_interactions, interactions
from fm.explaining.terms import explain
from fm.model.model import Model
from fm.reading.read import read
from fm.tasks import CLASSIFIER, REGRESSOR

TABLE = {
    "user": ["ann", "bob", "ann", "eve"],
    "film": ["A", "B", "C", "B"],
    "genres": ["x|y", "y", "", "z|x"],
    "watched": ["A|B", "", "B|C|A", "C"],
    "age": [1.5, -2.0, 0.25, None],
    "city": ["p", "q", "r", "s"],
}
ENCODER = Encoder.fit(
    TABLE, categorical=["user", "film", "city"], multi=["genres"], history=["watched"],
    numeric=["age"], hash_dim={"city": 3},
)  # fmt: skip


def model_of(task=REGRESSOR, encoder=ENCODER, seed=0, k=3, n=None, **more):
    rng = np.random.default_rng(seed)
    n = n or encoder.num_features
    if encoder is not None:
        more |= {"fields": encoder.fields, "field_names": encoder.field_names, "encoder": encoder}
    config = TrainConfig(predictor_type=task, num_factors=k)
    return Model(rng.normal(), rng.normal(size=n), rng.normal(size=(n, k)), config, **more)


def terms(model, X):
    """Every pair of entries of one row: (i, j, <v_i, v_j> x_i x_j), by the definition."""
    entries = sorted(zip(X.indices.tolist(), X.data.tolist(), strict=True))
    return {
        (i, j): float(model.V[i].astype(float) @ model.V[j].astype(float)) * a * b
        for (i, a), (j, b) in itertools.combinations(entries, 2)
    }


cell = {
    "user": st.sampled_from(["ann", "bob", "nobody", None]),
    "film": st.sampled_from(["A", "B", "Z", None]),
    "genres": st.sampled_from(["x|y|z", "y", "new", "", None]),
    "watched": st.sampled_from(["A|B|C", "A", "new|B", None]),
    "age": st.one_of(st.none(), st.floats(-50, 50, width=32)),
    "city": st.sampled_from(["p", "q", "zz", None]),
}


@settings(deadline=None)
@given(st.fixed_dictionaries(cell), st.integers(0, 5))
def test_the_terms_of_any_row_add_up_to_its_score(row, seed):
    model = model_of(seed=seed)
    found = explain(model, row, pairs=10_000)
    X = ENCODER.encode_rows([row])
    linear, pairs = sum(v for _, v in found.linear), sum(v for *_, v in found.pairs)
    assert found.score == pytest.approx(found.bias + linear + pairs, abs=1e-9)
    assert found.score == pytest.approx(found.bias + float(found.by_field.sum()), abs=1e-9)
    # The score itself is in float32, by way of the squares of the sums: larger than the terms.
    size = abs(X) @ abs(model.w) + np.square(abs(X) @ abs(model.V)).sum() + abs(model.w0)
    assert found.score == pytest.approx(float(model.scores([row])[0]), abs=1e-6 * float(size[0]))
    wanted = sorted(terms(model, X).values(), key=abs, reverse=True)
    assert [v for *_, v in found.pairs] == pytest.approx(wanted, abs=1e-9)


def test_fields_hold_the_terms_of_their_features():
    model = model_of()
    row = {"user": "ann", "film": "A", "genres": "x|y", "age": 2}
    found = explain(model, row)
    X = ENCODER.encode_rows([row])
    names = list(found.field_names)
    wanted = np.zeros((len(names), len(names)))
    for (i, j), value in terms(model, X).items():
        a, b = sorted(names.index(ENCODER.field_names[ENCODER.fields[f]]) for f in (i, j))
        wanted[a, b] += value
    for i, x in zip(X.indices, X.data, strict=True):
        a = names.index(ENCODER.field_names[ENCODER.fields[i]])
        wanted[a, a] += model.w[i] * x
    assert np.triu(found.by_field) == pytest.approx(wanted, abs=1e-6)


def test_a_row_of_features_repeats_and_a_long_row():
    model = model_of(encoder=None, n=3000, k=4)
    twice = explain(model, ([7, 7, 9], [1, 2, 1]))
    assert twice.score == pytest.approx(model.score_row([7, 9], [3, 1]), rel=1e-5)
    row = np.random.default_rng(1).normal(size=3000)
    found = explain(model, (np.arange(3000), row), pairs=5)
    wanted = float(model.scores(sp.csr_matrix(row))[0])
    assert found.score == pytest.approx(wanted, rel=1e-4)
    assert len(found.pairs) == 5 and found.num_pairs == 3000 * 2999 // 2
    assert explain(model, ([], None)).score == pytest.approx(model.w0)


def test_a_classifier_tells_its_probability_and_text_shows_the_largest_terms():
    model = model_of(CLASSIFIER)
    found = explain(model, {"user": "ann", "film": "B"})
    assert found.probability == pytest.approx(
        model.probabilities([{"user": "ann", "film": "B"}])[0]
    )
    assert "bias" in str(found) and "user=ann" in str(found)
    assert found.to_dict()["score"] == pytest.approx(found.score)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (([99], None), "explain: feature 99 is outside"),
        (([-1], None), "explain: feature -1 is outside"),
        (([1, 2], [1]), "expected .feature numbers, as many values."),
        (([0.5], None), "expected .feature numbers, as many values."),
        ([{"user": "a"}, {"user": "b"}], "explain: expected one row, found 2"),
        ({"shoe": 1}, "shoe"),
    ],
)
def test_wrong_rows(row, message):
    with pytest.raises(DataError, match=message):
        explain(model_of(), row)


def test_wrong_options():
    with pytest.raises(ConfigError, match="pairs: expected an integer"):
        explain(model_of(), {}, pairs=-1)
    for options in ({"k": 0}, {"min_count": 1.5}, {"k": True}):
        with pytest.raises(ConfigError, match="expected an integer of at least 1"):
            interactions(model_of(), [{}], **options)
    with pytest.raises(ConfigError, match="the model knows no fields"):
        field_interactions(model_of(encoder=None, n=3), np.eye(3))
    with pytest.raises(DataError, match="expected at least one row"):
        field_interactions(model_of(), sp.csr_matrix((0, ENCODER.num_features)))


# -- the pairs of many rows ------------------------------------------------------------------------


@st.composite
def matrices(draw):
    rows, width = draw(st.integers(1, 12)), draw(st.integers(2, 9))
    values = st.sampled_from([0.0, 0.0, 1.0, -2.0, 0.5])
    return np.array(draw(st.lists(values, min_size=rows * width, max_size=rows * width))).reshape(
        rows, width
    )


@settings(deadline=None)
@given(matrices(), st.integers(1, 6), st.integers(1, 3), st.sampled_from([1, 7, 1 << 22]))
def test_interactions_are_those_of_loops_over_all_rows(X, k, min_count, block):
    model = model_of(encoder=None, n=X.shape[1], k=2)
    met = {}
    for row in X:
        for pair, value in terms(model, sp.csr_matrix(row)).items():
            met.setdefault(pair, []).append(value)
    wanted = {p: np.mean(v) for p, v in met.items() if len(v) >= min_count}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fm.explaining.interactions, "_PAIRS", block)
        found = interactions(model, sp.csr_matrix(X), k, min_count=min_count)
    assert len(found) == min(k, len(wanted))
    for one in found:
        pair = tuple(int(name.split()[1]) for name in (one.first, one.second))
        assert one.contribution == pytest.approx(wanted.pop(pair), abs=1e-9)
        assert one.rows == len(met[pair])
        product = float(model.V[pair[0]] @ model.V[pair[1]])  # rounded to float32
        assert one.product == pytest.approx(product, rel=1e-5, abs=1e-6)
    rest = max((abs(mean) * len(met[pair]) ** 0.5 for pair, mean in wanted.items()), default=0)
    sizes = [abs(one.contribution) * one.rows**0.5 for one in found]
    assert all(size >= rest - 1e-9 for size in sizes)
    assert all(a >= b - 1e-9 for a, b in zip(sizes, sizes[1:], strict=False))


def test_pairs_of_a_single_row_do_not_lead():
    """Noise of what occurs once is larger than what many rows agree on, row by row."""
    often = [{"user": f"u{i}", "film": f"f{i % 2}", "mood": "ab"[i % 2]} for i in range(200)]
    data = read(pd.DataFrame([*often, {"user": "once", "film": "odd", "mood": "a"}]))
    V = np.zeros((data.num_features, 1), np.float32)
    for name, value in {"film=f0": 1.0, "mood=a": 0.5, "user=once": 2.0, "film=odd": 2.0}.items():
        V[list(data.feature_names).index(name)] = value
    model = Model(0, V[:, 0], V, TrainConfig(num_factors=1), encoder=data.encoder)
    first, second, *_ = model.interactions(data)
    assert (first.first, first.second, first.rows) == ("film=f0", "mood=a", 100)
    assert second.rows == 1 and abs(second.contribution) > abs(first.contribution)


def test_sums_that_cancel_to_0_are_pairs_too():
    """Scipy leaves such entries out of a product."""
    X = np.array([[1, 1, 0, 2], [1, -1, 3, 0], [0, 0, 2, -1], [-2, 0, 1, 0]], float)
    model = model_of(encoder=None, n=4)
    found = {(i.first, i.second): i for i in interactions(model, X)}
    assert found["feature 0", "feature 1"][3:] == (2, 0.0)
    assert found["feature 0", "feature 2"].contribution == pytest.approx(
        found["feature 0", "feature 2"].product / 2, rel=1e-6
    )
    assert len(found) == 6


@pytest.mark.parametrize("shown", [True, False])
def test_long_work_shows_a_bar_on_a_terminal_only(shown, monkeypatch, capsys):
    import tqdm

    usual = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda **options: usual(**{**options, "delay": 0}))
    monkeypatch.setattr("sys.stderr.isatty", lambda: shown)
    interactions(model_of(encoder=None, n=3), np.ones((2, 3)))
    out, err = capsys.readouterr()
    assert out == "" and ("pairs: 100%" in err) == shown and bool(err) == shown


def test_the_strength_of_pairs_of_fields():
    model = model_of()
    names, strength, linear = field_interactions(model, TABLE)
    wanted, alone = np.zeros_like(strength), np.zeros_like(linear)
    X = ENCODER.transform(TABLE)
    for row in X:
        for i, x in zip(row.indices, row.data, strict=True):
            alone[ENCODER.fields[i]] += abs(model.w[i] * x) / X.shape[0]
        for (i, j), value in terms(model, row).items():
            a, b = ENCODER.fields[i], ENCODER.fields[j]
            wanted[a, b] += abs(value) / X.shape[0]
            if a != b:
                wanted[b, a] += abs(value) / X.shape[0]
    assert names == list(ENCODER.field_names)
    assert strength == pytest.approx(wanted, rel=1e-6)
    assert linear == pytest.approx(alone, rel=1e-6)


def test_a_row_is_explained_as_it_is_scored():
    """Columns left out of a known user are as in training, as in what is listed."""
    data = read(
        {
            "user": [1, 1, 2, 2, 3, 3],
            "age": ["x", "x", "y", "y", "x", "x"],
            "film": ["A", "B", "B", "C", "A", "C"],
            "rating": [1, 2, 3, 4, 5, 4],
        },
        categorical=["user", "age", "film"],
    )
    assert data.catalogue.user_columns == ("age",)
    model = model_of(encoder=data.encoder, catalogue=data.catalogue)
    bare, full = {"user": 1, "film": "C"}, {"user": 1, "age": "x", "film": "C"}
    for row in (bare, full):
        assert model.explain(row).score == pytest.approx(float(model.scores([row])[0]), rel=1e-5)
    listed = model.recommend(1, 1)
    assert listed.ids == ["C"]
    assert model.explain(full).score == pytest.approx(float(listed.scores[0]), rel=1e-5)
    assert model.explain(bare).score == pytest.approx(float(listed.scores[0]), rel=1e-5)


def test_the_model_has_both():
    model = model_of()
    assert model.explain({"user": "ann"}).score == explain(model, {"user": "ann"}).score
    assert model.interactions(TABLE, 3) == interactions(model, TABLE, 3)
