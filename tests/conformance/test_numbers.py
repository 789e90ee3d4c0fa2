"""The built-in's optimizer, its artefacts, and the bytes of its data (checks 13 to 15)."""

import gzip
import json
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import scipy.sparse as sp
from naive import Settings, minibatch_adam, rows_of, score
from records import predictions
from test_builtin_artifact import algo_zip, dense

from fm.formats.recordio import read_csr

from . import movielens
from .conftest import ARTICLE, ROOT, sdk_python
from .engine import JSON_LINES, RECORDIO, Job
from .movielens import dense_records, sparse_records
from .test_training import NUMBER, field, frame, raw_records, values

# -- 13: the optimizer -----------------------------------------------------------------------------

BUILT_IN = {"optimizer": "sagemaker", "num_factors": "64", "mini_batch_size": "1000"}


@pytest.mark.parametrize("seed", [0, 1])
def test_f13_the_regressor_of_a_real_run(engine, tmp_path, ml_100k, seed):
    """R2: u1.base and u1.test; its log says 1.81695 after epoch 0 and 1.000263 on the test rows.

    w0 starts at 0: drawn from N(0, 0.01), it moves the first figure by 0.0075 from seed to seed.
    """
    channels = {
        name: movielens.read(ml_100k / f"u1.{part}.gz").records()
        for name, part in (("train", "base"), ("test", "test"))
    }
    parameters = {**BUILT_IN, "predictor_type": "regressor", "epochs": "50", "seed": str(seed)}
    parameters |= {"bias_init_method": "constant", "bias_init_value": "0"}
    job = Job(tmp_path / "job", {**parameters, "feature_dim": "2625"}, channels)
    ended = job.run(engine)
    job.succeeded(ended)
    first = values(rf"#quality_metric: host=\S+, epoch=0, train rmse <loss>={NUMBER}", ended.log)
    test = values(rf"#quality_metric: host=\S+, test rmse <loss>={NUMBER}", ended.log)
    assert first == [pytest.approx(1.817, abs=0.003)]
    assert len(test) == 1 and 0.998 <= test[0] <= 1.004


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_f13_the_classifier_of_the_article(engine, tmp_path, ml_100k, seed):
    """R1: ua.base shuffled, ua.test; its log says .6931 and .5785.

    After epoch 0 it says .5484 and .6839, in which the rows that fill up the last batch count.
    """
    base, test = (movielens.read(ml_100k / f"ua.{part}.gz") for part in ("base", "test"))
    base = base[np.random.default_rng(seed).permutation(base.rating.size)]
    channels = {"train": base.records(base.liked), "test": test.records(test.liked)}
    job = Job(tmp_path / "job", {**ARTICLE, **BUILT_IN, "seed": str(seed)}, channels)
    ended = job.run(engine)
    job.succeeded(ended)
    name = "binary_classification"
    found = {
        (part, metric): values(rf"host=\S+, {part} {name}_{metric} <\w+>={NUMBER}", ended.log)
        for part in ("epoch=0, train", "test")
        for metric in ("accuracy", "cross_entropy")
    }
    assert found == {
        ("epoch=0, train", "accuracy"): [pytest.approx(0.5484, abs=0.0015)],
        ("epoch=0, train", "cross_entropy"): [pytest.approx(0.6839, abs=0.0005)],
        ("test", "accuracy"): [pytest.approx(0.693, abs=0.006)],
        ("test", "cross_entropy"): [pytest.approx(0.5785, abs=0.005)],
    }


def test_f13_our_defaults_are_better(engine, tmp_path, ml_100k):
    """The article's job as it stands, by our own optimizer."""
    base, test = (movielens.read(ml_100k / f"ua.{part}.gz") for part in ("base", "test"))
    channels = {"train": base.records(base.liked), "test": test.records(test.liked)}
    job = Job(tmp_path / "job", ARTICLE, channels)
    ended = job.run(engine)
    job.succeeded(ended)
    accuracy = values(rf"host=\S+, test binary_classification_accuracy <score>={NUMBER}", ended.log)
    assert accuracy[0] > 0.705


@pytest.mark.parametrize("task", ["regressor", "binary_classifier"])
def test_f13_a_slow_copy_agrees(engine, job, rng, task):
    """numpy, one parameter at a time, from the initial values that a job without steps leaves."""
    X = sp.random(130, 30, 0.15, "csr", dtype=np.float32, rng=rng)
    X.data[:] = rng.normal(size=X.nnz)
    y = rng.integers(0, 2, 130).astype(np.float32)
    rates = {"bias_lr": "0.05", "linear_lr": "0.03", "factors_lr": "0.02"}
    decay = {"bias_wd": "0.01", "linear_wd": "0.02", "factors_wd": "0.03"}
    parameters = {
        "predictor_type": task, "optimizer": "sagemaker", "num_factors": "3", "epochs": "4",
        "mini_batch_size": "50", "feature_dim": "30", "factors_init_sigma": "0.2",
        "clip_gradient": "0.4", **decay,
    }  # fmt: skip
    channels = {"train": sparse_records(X, y)}
    still = job({**parameters, **dict.fromkeys(rates, "0")}, channels)
    start = still.succeeded(still.run(engine))
    moved = job({**parameters, **rates}, channels)
    found = moved.succeeded(moved.run(engine))

    theta = {
        "bias": np.array([start.w0], float),
        "linear": start.w.astype(float),
        "factors": start.V.astype(float),
    }
    parts = {"bias": "bias", "linear": "linear", "factors": "factors"}
    settings = Settings(
        lr={part: float(rates[f"{part}_lr"]) for part in parts},
        wd={part: float(decay[f"{part}_wd"]) for part in parts},
        clip=0.4,
        rescale=1 / 50,
    )
    rows, order = rows_of(X), list(range(130))
    minibatch_adam(task, rows, y, np.ones(130), theta, settings, [order] * 4, 50, True)
    assert found.w0 == pytest.approx(theta["bias"][0], abs=1e-5)
    np.testing.assert_allclose(found.w, theta["linear"], atol=1e-5)
    np.testing.assert_allclose(found.V, theta["factors"], atol=1e-5)
    np.testing.assert_allclose(found.scores(X), [score(row, theta) for row in rows], atol=1e-4)


# -- 14: artefacts ---------------------------------------------------------------------------------


def test_f14_a_real_artefact_is_served_as_it_is(engine, builtin_run, tmp_path):
    folder = tmp_path / "model"
    with tarfile.open(builtin_run / "model.tar.gz") as archive:
        archive.extract("model_algo-1", folder, filter="data")
    with gzip.open(builtin_run / "u1.test.protobuf.gz") as file:
        records = file.read()
    _, y = read_csr(records, num_features=2625)
    with engine.serve(folder) as server:
        reply = server.post(records, RECORDIO, JSON_LINES)
    assert reply.status == 200
    scores = [json.loads(line)["score"] for line in reply.text.splitlines()]
    error = np.array(scores) - y
    assert np.sqrt(np.mean(error**2)) == pytest.approx(1.000263, abs=1e-5)


@pytest.mark.parametrize("task", ["regressor", "binary_classifier"])
def test_f14_the_dense_network_with_factors_on_their_side(engine, rng, tmp_path, task):
    """Older jobs, and jobs on dense data: v is (k, N), and the rest has other names."""
    n, k, rows = 12, 3, 20
    w0, w, V = 0.25, rng.normal(size=n), rng.normal(size=(n, k))
    arrays = {
        "arg:Linear_Plus_Bias_weight": dense(w.reshape(1, n)),
        "arg:Linear_Plus_Bias_bias": dense(np.array([w0])),
        "arg:v": dense(np.ascontiguousarray(V.T)),
    }
    meta = {"feature_dim": str(n), "num_factors": str(k), "predictor_type": task}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_algo-1").write_bytes(algo_zip(arrays, meta))
    X = rng.normal(size=(rows, n)).astype(np.float32)
    scores = w0 + X @ w + 0.5 * ((X @ V) ** 2 - X**2 @ V**2).sum(axis=1)
    if task == "binary_classifier":
        scores = 1 / (1 + np.exp(-scores))
    with engine.serve(folder) as server:
        found = server.post({"instances": [{"features": row.tolist()} for row in X]}).scores()
    assert found == pytest.approx(scores, rel=1e-5, abs=1e-6)


# -- 15: RecordIO ----------------------------------------------------------------------------------

# Written by SDK 2: a 3 x 5 matrix with (0,1)=1, (0,3)=2.5, (1,0)=1, labels 1, 0, 1; and its first
# row as dense record.
SPARSE = bytes.fromhex(
    "0a23d7ce330000000a1d0a0676616c756573121312110a080000803f00002040120201031a010512120a0676616c75"
    "6573120812060a040000803f00"
    "0a23d7ce2e0000000a180a0676616c756573120e120c0a040000803f1201001a010512120a0676616c756573120812"
    "060a04000000000000"
    "0a23d7ce250000000a0f0a0676616c756573120512031a010512120a0676616c756573120812060a040000803f0000"
    "00"
)
DENSE = bytes.fromhex(
    "0a23d7ce380000000a220a0676616c756573121812160a14000000000000803f000000000000204000000000"
    "12120a0676616c756573120812060a040000803f"
)
GOLDEN = np.array([[0, 1, 0, 2.5, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.float32)
GOLDEN_LABELS = np.array([1, 0, 1], np.float32)


def test_f15_golden_bytes():
    assert sparse_records(sp.csr_matrix(GOLDEN), GOLDEN_LABELS) == SPARSE
    assert dense_records(GOLDEN[:1], GOLDEN_LABELS[:1]) == DENSE
    X, y = read_csr(SPARSE)
    np.testing.assert_array_equal(X.toarray(), GOLDEN)
    np.testing.assert_array_equal(y, GOLDEN_LABELS)
    X, y = read_csr(DENSE)
    np.testing.assert_array_equal(X.toarray(), GOLDEN[:1])


def test_f15_golden_bytes_train_and_are_answered(engine, job):
    one = job({"feature_dim": "5", "epochs": "1"}, {"train": {"sparse": SPARSE, "z": DENSE}})
    model = one.succeeded(one.run(engine))
    expected = model.scores(GOLDEN)
    with engine.serve(one.model_dir) as server:
        assert server.post(SPARSE, RECORDIO).scores() == pytest.approx(expected, abs=1e-6)
        assert server.post(DENSE, RECORDIO).scores() == pytest.approx(expected[:1], abs=1e-6)


KINDS = ["float32", "float64", "int64"]


def test_f15_the_sdk_reads_ours_and_we_read_its(tmp_path, sdk_env):
    """All types of features and labels, sparse, dense, with an empty row: byte for byte."""
    subprocess.run(
        [sdk_python(2), ROOT / "tests/conformance/sdk2_records.py", "write", tmp_path],
        check=True, env=sdk_env, capture_output=True, timeout=120,
    )  # fmt: skip
    whole = np.array([[0, 1, 0, 3, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    for values_kind in KINDS:
        for labels_kind in KINDS:
            array, labels = whole.astype(values_kind), np.array([1, 0, 1]).astype(labels_kind)
            for form, content in (
                ("sparse", sparse_records(sp.csr_matrix(array), labels)),
                ("dense", dense_records(array, labels)),
            ):
                name = f"{form}-{values_kind}-{labels_kind}"
                theirs = (tmp_path / f"{name}.sdk").read_bytes()
                assert content == theirs, name
                X, y = read_csr(theirs, num_features=5)
                np.testing.assert_array_equal(X.toarray(), whole)
                np.testing.assert_array_equal(y, [1, 0, 1])
                (tmp_path / f"{name}.ours").write_bytes(content)
    subprocess.run(
        [sdk_python(2), ROOT / "tests/conformance/sdk2_records.py", "read", tmp_path],
        check=True, env=sdk_env, capture_output=True, timeout=120,
    )  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 2 * len(KINDS) ** 2
    for name, rows in found.items():
        for row, record in zip(whole, rows, strict=True):
            values = record["values"]
            if record["keys"] or not values:
                values = np.bincount(record["keys"], values, 5) if values else np.zeros(5)
                assert record["shape"] == [5], name
            np.testing.assert_array_equal(values, row)
        assert [record["label"] for record in rows] == [[1], [0], [1]]


def split(payload):
    """Frames as dmlc writes them: split where the magic number stands at a multiple of 4."""
    magic = struct.pack("<I", 0xCED7230A)
    places = [i for i in range(0, len(payload) - 3, 4) if payload[i : i + 4] == magic]
    bounds = [(-4, *places), (*places, len(payload))]
    parts = [payload[a + 4 : b] for a, b in zip(*bounds, strict=True)]
    if len(parts) == 1:
        return frame(payload)
    flags = [1, *[2] * (len(parts) - 2), 3]
    return b"".join(frame(part, flag) for part, flag in zip(parts, flags, strict=True))


def with_magic(records, copies):
    """Give every record a uid that contains the magic number at multiples of 4."""
    payloads, at = [], 0
    while at < len(records):
        size = struct.unpack_from("<I", records, at + 4)[0]
        payload = records[at + 8 : at + 8 + size]
        uid_at = len(payload) + 2  # behind tag and length
        uid = b"-" * (-uid_at % 4) + struct.pack("<I", 0xCED7230A) * copies + b"end"
        payloads.append(payload + field(3, uid))
        at += 8 + size + (-size % 4)
    return payloads


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_f15_split_records(engine, job, few, copies):
    payloads = with_magic(few.records(), copies)
    frames = [split(payload) for payload in payloads]
    assert all(f[7] >> 5 == 1 for f in frames), "each record has to be split"
    plain, cut = job(), job(channels={"train": b"".join(frames)})
    expected = plain.succeeded(plain.run(engine))
    assert cut.succeeded(cut.run(engine)) == expected


def test_f15_a_split_value_is_answered(regressor_endpoint):
    """The magic number as a float32 is a number like others."""
    magic = np.frombuffer(struct.pack("<I", 0xCED7230A), "<f4")
    for padding in range(4):
        keys = np.arange(3 + padding)
        X = sp.csr_matrix((np.full(keys.size, magic), keys, [0, keys.size]), shape=(1, 2625))
        record = raw_records(X, [0])
        payload = record[8 : 8 + struct.unpack_from("<I", record, 4)[0]]
        whole = regressor_endpoint.post(frame(payload), RECORDIO).scores()
        assert regressor_endpoint.post(split(payload), RECORDIO).scores() == whole


def test_f15_answers_are_records(regressor_endpoint, held_out):
    reply = regressor_endpoint.post(sparse_records(held_out[:3].X), RECORDIO, RECORDIO)
    assert len(predictions(reply.body)) == 3


def test_f15_needs_no_protobuf_package():
    """Nor does anything else of the SDKs."""
    code = (
        "import sys, fm.formats.recordio\n"
        "assert not {'google.protobuf', 'sagemaker', 'boto3'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
