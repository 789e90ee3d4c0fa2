"""Model: scores against the formula written out, and a file that survives and refuses."""

import base64
import hashlib
import itertools
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import fm.scoring.formula
import fm.scoring.machine
from fm.config import TrainConfig
from fm.data.dataset import Dataset
from fm.encoding.columns import Categorical, Vocabulary
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError, DataError, ModelFileError
from fm.formats import storage
from fm.formats.storage import atomic_output
from fm.model.load import load
from fm.model.model import Model
from fm.tasks import CLASSIFIER


def make_model(rng, n=30, k=5, task="regressor", **more):
    return Model(
        w0=rng.normal(),
        w=rng.normal(size=n),
        V=rng.normal(size=(n, k)),
        config=TrainConfig(predictor_type=task, num_factors=k),
        **more,
    )


def naive_score(model, x):
    """The formula before Rendle's rearrangement: a sum over pairs, in float64."""
    V = model.V.astype(np.float64)
    pairs = itertools.combinations(np.flatnonzero(x), 2)
    return (
        model.w0
        + model.w.astype(np.float64) @ x
        + sum((V[i] @ V[j]) * x[i] * x[j] for i, j in pairs)
    )


@pytest.fixture
def model(rng):
    return make_model(rng)


# -- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["scipy", "compiled"])
@pytest.mark.parametrize("k", [1, 5, 16, 130])
@pytest.mark.parametrize("onehot", [True, False])
def test_scores_equal_the_sum_over_pairs(rng, engine, k, onehot):
    model = make_model(rng, k=k)
    X = sp.random(40, 30, 0.1, format="csr", random_state=7)
    X.data = np.ones(X.nnz) if onehot else rng.normal(size=X.nnz)
    assert (np.diff(X.indptr) == 0).any()  # an empty row is among them
    found = model.scores(X, engine=engine)
    assert found.dtype == np.float32
    expected = [naive_score(model, x) for x in X.toarray()]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * k)


def test_blocks_of_rows_change_nothing(rng, model, monkeypatch):
    X = sp.random(50, 30, 0.2, format="csr", random_state=1)
    whole = model.scores(X, engine="scipy")
    monkeypatch.setattr(fm.scoring.formula, "FLOATS_AT_ONCE", 3 * model.num_factors)
    np.testing.assert_array_equal(model.scores(X, engine="scipy"), whole)


def test_scoring_leaves_the_callers_matrix_alone(rng, model):
    X = sp.random(9, 30, 0.3, format="csr", dtype=np.float32, random_state=2)
    before = X.copy()
    model.scores(X, engine="scipy")
    assert (X != before).nnz == 0 and X.indices.dtype == before.indices.dtype


def test_large_batches_take_the_compiled_kernel(rng, model, monkeypatch):
    X = sp.random(20, 30, 0.2, format="csr", random_state=3)
    taken = []
    monkeypatch.setattr(
        "fm.kernels.scoring.predict_scores", lambda *_: taken.append(1) or np.zeros(20)
    )
    assert model.scores(X).any() and not taken
    monkeypatch.setattr(fm.scoring.machine, "WARM_WORK", 1)
    model.scores(X)
    model.scores(X, engine="scipy")
    assert len(taken) == 1


def test_auto_falls_back_to_scipy_without_numba(model, monkeypatch):
    monkeypatch.setattr(fm.scoring.machine, "WARM_WORK", 0)
    monkeypatch.setattr(fm.scoring.machine, "COLD_WORK", 0)
    monkeypatch.setitem(sys.modules, "fm.kernels.scoring", None)  # import raises ImportError
    X = sp.eye(30, format="csr")
    np.testing.assert_array_equal(model.scores(X), model.scores(X, engine="scipy"))
    with pytest.raises(ImportError):
        model.scores(X, engine="compiled")


def test_engine_scipy_imports_neither_numba_nor_its_friends():
    code = """if True:
        import sys, numpy as np, scipy.sparse as sp
        from fm.model.load import load
        from fm.model.model import Model
        from fm.config import TrainConfig
        model = Model(0.0, np.ones(4), np.ones((4, 2)), TrainConfig(num_factors=2))
        model.scores(sp.eye(4, format="csr"), engine="scipy"), model.score_row([1])
        heavy = {"numba", "sklearn", "pyarrow", "pandas", "polars"} & sys.modules.keys()
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("values", [None, "random"])
def test_score_row_equals_scores(rng, model, values):
    for size in (0, 1, 2, 17):
        ids = rng.choice(30, size, replace=False)
        x = None if values is None else rng.normal(size=size)
        row = np.zeros((1, 30))
        row[0, ids] = 1 if x is None else x
        expected = pytest.approx(model.scores(row, engine="scipy")[0], rel=1e-5, abs=1e-5)
        assert model.score_row(ids, x) == expected
        assert model.score_row(ids.tolist(), None if x is None else x.tolist()) == expected


def test_score_row_adds_up_repeated_features(model):
    assert model.score_row([3, 8, 3]) == pytest.approx(model.score_row([3, 8], [2, 1]), rel=1e-5)


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([4, 30], None, r"row: feature 30 is outside \[0, 30\)"),
        ([-1], None, "feature -1 is outside"),
        ([2**63], None, "feature 9223372036854775808 is outside"),
        ([1.5], None, "integer feature numbers"),
        ([[1, 2]], None, "integer feature numbers"),
        (["a"], None, "integer feature numbers"),
        ([1, 2], [1.0], "as many values"),
        ([1], [float("nan")], "not a finite float32"),
        ([1], [1e39], "not a finite float32"),
        ([1], ["x"], "as many values"),
    ],
)
def test_score_row_names_what_is_wrong(model, indices, values, message):
    with pytest.raises(DataError, match=message):
        model.score_row(indices, values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((2, 29)), "expected 30 columns, one for each feature of the model, found 29"),
        (np.zeros(30), r"reshape\(1, -1\)"),
        ([["a"] * 30], "expected numbers"),
        (np.full((1, 30), np.nan), "row 1, feature 0"),
        (sp.csr_matrix(([1.0], ([0], [40])), shape=(1, 41)), "row 1: feature index 40 is outside"),
        (Dataset.from_arrays(np.ones((1, 31)), source="some.csv"), "some.csv row 1: feature index"),
    ],
)
def test_rows_that_do_not_fit_are_refused(model, data, message):
    with pytest.raises(DataError, match=message):
        model.scores(data)


def test_narrower_sparse_rows_and_datasets_are_fine(model):
    X = sp.csr_matrix(([1.0, 1.0], ([0, 1], [2, 4])), shape=(2, 5))
    expected = [model.score_row([2]), model.score_row([4])]
    for data in (X, Dataset.from_arrays(X)):
        np.testing.assert_allclose(model.scores(data, engine="scipy"), expected, rtol=1e-6)


@pytest.fixture
def named(rng):
    """A model of two columns, user and film."""
    columns = [Categorical(name, Vocabulary(values)) for name, values in NAMED.items()]
    encoder = Encoder(columns)
    return make_model(
        rng,
        n=encoder.num_features,
        encoder=encoder,
        fields=encoder.fields,
        field_names=encoder.field_names,
    )


NAMED = {"user": ("7", "8"), "film": ("Alien", "Brazil", "Ça")}


def test_named_columns_go_through_the_encoder(named):
    # user: unknown 7 8, film: unknown Alien Brazil Ça
    expected = [named.score_row([2, 4]), named.score_row([0, 6])]
    rows = [{"user": 8, "film": "Alien"}, {"user": "new", "film": "Ça"}]
    np.testing.assert_allclose(named.scores(rows), expected, rtol=1e-6)
    np.testing.assert_allclose(named.scores(np.eye(7)), named.w0 + named.w, rtol=1e-5)
    assert named.factors("film").names == [
        "film=<unknown>", "film=Alien", "film=Brazil", "film=Ça"
    ]  # fmt: skip


def test_frames_and_dicts_of_columns(named, model):
    pd = pytest.importorskip("pandas")
    columns = {"user": ["8", None], "film": ["Alien", "Ça"]}
    expected = [named.score_row([2, 4]), named.score_row([0, 6])]
    for data in (columns, pd.DataFrame(columns)):
        np.testing.assert_allclose(named.scores(data), expected, rtol=1e-6)
    with pytest.raises(DataError, match="has no encoder for named columns"):
        model.scores(columns)
    frame = pd.DataFrame(np.eye(30))
    np.testing.assert_allclose(model.scores(frame), model.w0 + model.w, rtol=1e-5, atol=1e-5)


def test_rows_of_another_encoder_are_refused(named, model):
    other = Encoder([Categorical("user", Vocabulary(("a", "b")))])
    rows = Dataset(sp.csr_matrix((1, 3), dtype=np.float32), encoder=other, source="x.csv")
    for wrong in (named, model):
        with pytest.raises(DataError, match=r"x\.csv: .*encoded by another encoder"):
            wrong.scores(rows)


def test_unknown_engine(model):
    with pytest.raises(ConfigError, match="engine: expected one of auto, scipy, compiled"):
        model.scores(np.zeros((1, 30)), engine="gpu")


def test_predictions_of_both_tasks(rng):
    regressor, classifier = make_model(rng), make_model(rng, task=CLASSIFIER)
    X = sp.random(50, 30, 0.2, format="csr", random_state=3)
    np.testing.assert_array_equal(regressor.predict(X), regressor.scores(X))
    with pytest.raises(ConfigError, match="the model is a regressor and has none"):
        regressor.probabilities(X)
    scores, labels = classifier.scores(X), classifier.predict(X)
    probabilities = classifier.probabilities(X)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-scores)), rtol=1e-5)
    np.testing.assert_array_equal(labels, scores >= 0)
    assert set(labels) == {0, 1}


def test_probability_one_half_is_label_one():
    model = Model(0.0, [0.0], [[1.0]], TrainConfig(predictor_type=CLASSIFIER, num_factors=1))
    assert model.probabilities([[1]]) == [0.5] and model.predict([[1]]) == [1]


def test_extreme_scores_stay_finite():
    config = TrainConfig(predictor_type=CLASSIFIER, num_factors=1)
    model = Model(0.0, [1e4, -1e4], [[1.0], [1.0]], config)
    np.testing.assert_array_equal(model.probabilities(np.eye(2)), [1, 0])


# -- the object ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": np.zeros(4)}, r"parameter w: expected numbers of shape \(3\)"),
        ({"V": np.zeros(3)}, r"parameter V: expected numbers of shape \(any, any\)"),
        ({"V": np.zeros((3, 0))}, "parameter V: .*not empty"),
        ({"V": np.array([[1.0], [np.inf], [0.0]])}, r"parameter V\[1, 0\]: .*found inf"),
        ({"w0": 1e39}, r"parameter w0\[0\]: .*found inf"),
        ({"w": ["a", "b", "c"]}, "parameter w: expected numbers"),
        ({"fields": [0, 1]}, "fields: expected one integer per feature"),
        (
            {"fields": [0, 1, 2], "field_names": ("a", "b")},
            "feature 2 is in field 2, expected 0 to 1",
        ),
        ({"fields": [0, -2, 0]}, "feature 1 is in field -2"),
    ],
)
def test_parameters_that_do_not_belong_together(change, message):
    values = {"w0": 0.0, "w": np.zeros(3), "V": np.zeros((3, 1)), "config": TrainConfig()}
    with pytest.raises(DataError, match=message):
        Model(**{**values, **change})


def test_parameters_cannot_be_changed_behind_the_cached_norms(model):
    with pytest.raises(ValueError, match="read-only"):
        model.V[0] = 0


def test_equality_and_repr(rng):
    model = make_model(np.random.default_rng(1), metrics={"rmse": 0.9, "best": True})
    same = make_model(np.random.default_rng(1))
    assert model == same and model != make_model(rng) and model != "model"
    assert pickle.loads(pickle.dumps(model)) == model
    assert repr(model) == "Model(regressor, 30 features x 5 factors, rmse 0.9)"


def test_factors_of_a_field(rng):
    fields = np.arange(30) % 3
    model = make_model(rng, fields=fields, field_names=("user", "film", "hour"))
    names, w, V = model.factors("film")
    assert names[:2] == ["feature 1", "feature 4"]
    np.testing.assert_array_equal(w, model.w[1::3])
    np.testing.assert_array_equal(V, model.V[1::3])
    assert len(model.factors().names) == 30
    with pytest.raises(ConfigError, match=r"one of the model's \(user, film, hour\), found 'age'"):
        model.factors("age")
    with pytest.raises(ConfigError, match="named no fields"):
        make_model(rng).factors("user")


# -- the file ------------------------------------------------------------------------------------

# The first release's file of `golden()`: it must load forever.
GOLDEN = """
8AQAAAAAAAB7IlYiOnsiZGF0YV9vZmZzZXRzIjpbMCwyNF0sImR0eXBlIjoiRjMyIiwic2hhcGUiOlszLDJdfSwiX19tZXRh
ZGF0YV9fIjp7ImNvbmZpZyI6IntcImJhdGNoX21ldHJpY3NfcHVibGlzaF9pbnRlcnZhbFwiOjUwMCxcImVwb2Noc1wiOjEw
MCxcImZhY3RvcnNfaW5pdF9tZXRob2RcIjpcIm5vcm1hbFwiLFwiZmFjdG9yc19sMVwiOjAuMCxcImxpbmVhcl9pbml0X21l
dGhvZFwiOlwibm9ybWFsXCIsXCJsaW5lYXJfbDFcIjowLjAsXCJtZXRyaWNcIjpcImF1dG9cIixcIm1pbmlfYmF0Y2hfc2l6
ZVwiOjEwMDAsXCJudW1fZmFjdG9yc1wiOjIsXCJvcHRpbWl6ZXJcIjpcInNnZFwiLFwicGFkX2xhc3RfYmF0Y2hcIjp0cnVl
LFwicGF0aWVuY2VcIjo1LFwicHJlZGljdG9yX3R5cGVcIjpcImJpbmFyeV9jbGFzc2lmaWVyXCIsXCJzZWVkXCI6NyxcInVz
ZV9iaWFzXCI6dHJ1ZSxcInVzZV9saW5lYXJcIjp0cnVlfSIsImZpZWxkX25hbWVzIjoiW1widXNlclwiLFwiZmlsbVwiXSIs
ImZpbmdlcnByaW50IjoiYWJjIiwiZm9ybWF0IjoiZm0iLCJmb3JtYXRfdmVyc2lvbiI6IjEiLCJoaXN0b3J5IjoiW3tcImVw
b2NoXCI6MSxcImxvZ19sb3NzXCI6MC41fV0iLCJsaWJyYXJ5X3ZlcnNpb24iOiIwLjEuMCIsIm1ldHJpY3MiOiJ7XCJsb2df
bG9zc1wiOjAuNX0iLCJzaGEyNTYiOiJ7XCJWXCI6XCJmZDIzNjRiYTVhN2JlNzA4MjQ4YzI5ZjBkZDU2ZmVjNjM5NDMzZGJh
ZGNjNjFjYzA1NzJiOGQwZWIyYjBiMjQ2XCIsXCJfX21ldGFkYXRhX19cIjpcImMyYzE2MmZjYjY0YzAwMjUzNWU4NDk3ZTJm
NmRhMGNhMDI0ZmIyNjRiMTcwYmM0MmEzYTViMWQ3MDYwNTZhOTJcIixcImZpZWxkc1wiOlwiYzNlNDIyNDVmZmRmZjMxYzk4
MGQ2M2IyMzJkZTE0MTRjYTI0NjFhMDhjNmVmY2NjYTJhZjk2NzM3ZWY0ZDA2OFwiLFwid1wiOlwiOTIxMjVjNTFjNjdkODMy
MTdhYjM1ZWMwY2I0M2I1ZjhiN2NiY2E2OGQ5ZmFhYjUwNGQwYjE2MGVlYjE5NmY1M1wiLFwidzBcIjpcImQ5OWU1ODQzNTI0
M2Q5ZmVmOWM4ODI3M2I4ZDU1M2I0ZmJhNGQwYmFmODAwOWQyOWVhZTc0ZmE5OWUwZDlmNTdcIn0iLCJ0YXNrIjoiYmluYXJ5
X2NsYXNzaWZpZXIifSwiZmllbGRzIjp7ImRhdGFfb2Zmc2V0cyI6WzQwLDUyXSwiZHR5cGUiOiJJMzIiLCJzaGFwZSI6WzNd
fSwidyI6eyJkYXRhX29mZnNldHMiOlsyNCwzNl0sImR0eXBlIjoiRjMyIiwic2hhcGUiOlszXX0sIncwIjp7ImRhdGFfb2Zm
c2V0cyI6WzM2LDQwXSwiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzFdfX0gICAgICAgAACAPwAAAEAAAAA/AACAvwAAAAAAAEBA
AACAPwAAAMAAAIA+AAAAPwAAAAAAAAAAAQAAAA==
"""


def golden():
    return Model(
        w0=0.5,
        w=[1.0, -2.0, 0.25],
        V=[[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]],
        config=TrainConfig(predictor_type=CLASSIFIER, num_factors=2, seed=7),
        fields=[0, 0, 1],
        field_names=("user", "film"),
        metrics={"log_loss": 0.5},
        history=[{"epoch": 1, "log_loss": 0.5}],
        fingerprint="abc",
    )


def test_golden_file_loads_forever(tmp_path):
    path = tmp_path / "golden.safetensors"
    path.write_bytes(base64.b64decode(GOLDEN))
    model = load(path)
    expected = golden()
    for name in ("w0", "field_names", "metrics", "history", "fingerprint"):
        assert getattr(model, name) == getattr(expected, name)
    for name in ("w", "V", "fields"):
        np.testing.assert_array_equal(getattr(model, name), getattr(expected, name))
    assert model.task.has_probabilities and model.config.seed == 7
    # 0.5 + 1 - 2 + <(1, 2), (.5, -1)>
    assert model.score_row([0, 1]) == -2.0


def test_round_trip_and_same_bytes(tmp_path, rng):
    model = make_model(rng, n=400, fields=np.zeros(400, int), field_names=("é",))
    first = model.save(tmp_path / "a.safetensors").read_bytes()
    again = load(tmp_path / "a.safetensors")
    assert again == model
    assert again.save(tmp_path / "b.safetensors").read_bytes() == first


def test_the_encoder_is_in_the_file(tmp_path, named):
    again = load(named.save(tmp_path))
    assert again == named and again.encoder == named.encoder
    assert again.score_row(
        again.encoder.encode_rows([{"film": "Brazil"}]).indices
    ) == named.score_row([0, 5])


def broken_encoder(text):
    def change(tensors, _):
        tensors["encoder_json"] = np.frombuffer(text, np.uint8)

    return change


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "encoder_json: expected JSON"),
        (b"[" * 100_000, "encoder_json: expected JSON"),
        (b"{}", "encoder: expected an object"),
        (
            b'{"version": 1, "columns": []}',
            "encoder: expected one of 7 features, as V has rows, found 0",
        ),
    ],
)
def test_broken_encoders_are_refused(tmp_path, named, text, message):
    with pytest.raises(ModelFileError, match=rf"m\.safetensors: .*{message}"):
        load(rewritten(named, tmp_path, broken_encoder(text)))


def test_twenty_lines_of_any_language_read_the_file(tmp_path, model):
    path = model.save(tmp_path / "m.safetensors")

    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    start = 8 + length
    metadata = header.pop("__metadata__")
    assert metadata["format"] == "fm" and metadata["format_version"] == "1"
    kinds = {"F32": "<f4", "I32": "<i4", "U8": "u1"}
    tensors, digests = {}, json.loads(metadata.pop("sha256"))
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        part = data[start + begin : start + end]
        assert hashlib.sha256(part).hexdigest() == digests[name]
        tensors[name] = np.frombuffer(part, kinds[entry["dtype"]]).reshape(entry["shape"])
    w0, w, V = tensors["w0"][0], tensors["w"], tensors["V"]
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == digests["__metadata__"]
    x = np.zeros(30)
    x[[2, 5]] = 1
    score = w0 + w @ x + 0.5 * (((x @ V) ** 2).sum() - (x**2 @ V**2).sum())
    assert score == pytest.approx(model.score_row([2, 5]), rel=1e-5)


def test_the_safetensors_package_reads_the_file(tmp_path, model):
    from safetensors.numpy import load_file

    tensors = load_file(model.save(tmp_path))
    np.testing.assert_array_equal(tensors["V"], model.V)


def test_save_makes_directories_and_load_finds_the_file(tmp_path, model):
    path = model.save(tmp_path / "new" / "m.safetensors")
    assert load(path) == model
    assert model.save(tmp_path) == tmp_path / "model.safetensors"
    assert load(tmp_path) == load(str(tmp_path)) == model
    with pytest.raises(ModelFileError, match="expected one of model.safetensors, model_algo-1"):
        load(tmp_path / "new")
    with pytest.raises(ModelFileError, match="nowhere: no such file"):
        load(tmp_path / "nowhere")


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, model, monkeypatch):
    path = model.save(tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make_model(np.random.default_rng(5)).save(tmp_path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and pipes")
def test_atomic_output_follows_links_and_writes_to_pipes(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with atomic_output(tmp_path / "link") as file:
        file.write(b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"x"
    with atomic_output("/dev/null") as file:
        file.write(b"x")
    assert not Path("/dev/null").is_file()


def rewritten(model, tmp_path, change):
    """Save the model after `change(tensors, metadata)`, with digests that are right again."""
    from safetensors.numpy import load_file, save_file

    path = model.save(tmp_path / "m.safetensors")
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    metadata, tensors = header["__metadata__"], load_file(path)
    del metadata["sha256"]
    change(tensors, metadata)
    metadata.setdefault("sha256", json.dumps(storage._digests(tensors, metadata)))
    save_file(tensors, path, metadata=metadata)
    return path


def poison(tensors, _):
    tensors["V"][3, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(format="pt"), "not one of fm's: .*found 'pt'"),
        (
            lambda t, m: m.update(format_version="2"),
            "expected format_version 1, found '2'.*upgrade",
        ),
        (lambda t, m: t.pop("w0"), "expected tensors w0, w and V, found no w0"),
        (lambda t, m: t.update(w=t["w"][:-1]), r"parameter w: expected numbers of shape \(30\)"),
        (lambda t, m: t.update(w0=np.zeros(2, "f")), r"tensor w0: expected shape \(1,\)"),
        (lambda t, m: t.update(V=t["V"].astype("d")), "tensor V: expected type F32, found F64"),
        (
            lambda t, m: t.update(V=np.array(1.0, "f")),
            r"parameter V: expected .*found float32 of sh",
        ),
        (lambda t, m: t.update(fields=np.array(1, "i")), "fields: expected one integer"),
        (lambda t, m: t.update(extra=t["w"]), "expected the tensors .*found 'extra'"),
        (poison, r"parameter V\[3, 1\]: expected a finite"),
        (lambda t, m: t.update(fields=np.zeros(3, "i")), "fields: expected one integer"),
        (lambda t, m: m.update(sha256="{}"), "V was changed after the file was written"),
        (lambda t, m: m.update(sha256="7"), "V was changed after the file was written"),
        (lambda t, m: m.pop("config"), "config: expected JSON"),
        (lambda t, m: m.update(config="[]"), "config: expected a JSON dict, found list"),
        (lambda t, m: m.update(config='{"epochs": -1}'), "epochs: expected an integer >= 1"),
        (lambda t, m: m.update(history="[" * 100_000), "history: expected JSON"),
        (lambda t, m: m.update(task="ranker"), "task: expected 'regressor' as in config"),
    ],
)
def test_files_that_are_not_models_are_refused(tmp_path, model, change, message):
    path = rewritten(model, tmp_path, change)
    with pytest.raises(ModelFileError, match=rf"m\.safetensors: .*{message}"):
        load(path)


def test_a_later_hyperparameter_is_ignored_with_a_warning(tmp_path, model, caplog):
    def change(_, metadata):
        config = json.loads(metadata["config"])
        metadata["config"] = json.dumps({**config, "warp": 9})

    assert load(rewritten(model, tmp_path, change)) == model
    assert "hyperparameters unknown here: warp" in caplog.text


def test_an_interval_of_log_lines_in_an_old_file_is_ignored_without_one(tmp_path, model, caplog):
    def change(_, metadata):
        config = json.loads(metadata["config"])
        metadata["config"] = json.dumps({**config, "batch_metrics_publish_interval": 5})

    assert load(rewritten(model, tmp_path, change)) == model
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"user,item\n1,2\n",
        b"\xff" * 64,
        struct.pack("<Q", 2**62) + b"{}",  # a header larger than the file
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        b"\x1f\x8b\x08",
        b"PK\x03\x04",
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m\.safetensors: "):
        load(path)


def test_every_truncation_is_noticed(tmp_path, model):
    path = model.save(tmp_path / "m.safetensors")
    content = path.read_bytes()
    for size in range(0, len(content), 41):
        path.write_bytes(content[:size])
        with pytest.raises(ModelFileError, match=r"m\.safetensors: "):
            load(path)


def test_two_thousand_mutations_fail_cleanly_or_change_nothing(tmp_path, rng):
    model = golden()
    path = model.save(tmp_path / "m.safetensors")
    content = path.read_bytes()
    harmless = 0
    for _ in range(2000):
        mutated = bytearray(content)
        for at in rng.integers(len(content), size=rng.integers(1, 4)):
            mutated[at] = rng.integers(256)
        path.unlink()  # some file systems flush a file that is truncated and written anew
        path.write_bytes(mutated)
        try:
            harmless += load(path) == model
        except ModelFileError as err:
            assert str(path) in str(err) and "\n" not in str(err)
        else:
            assert load(path) == model
    assert harmless < 100


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_never_a_model(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        load(path)
