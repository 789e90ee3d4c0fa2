"""The image under the real SDKs, and what their local modes do to its files (checks 35 to 40)."""

import gzip
import json
import re
import shutil
import subprocess
import tarfile
import time
import urllib.request
import uuid

import numpy as np
import pytest
from test_builtin_artifact import algo_zip, dense

import fm

from . import movielens
from .conftest import ROOT, free_port, sdk_python
from .engine import JSON, RECORDIO
from .movielens import NUM_FEATURES
from .test_hosting import dense_json, lines, sparse_features, sparse_json

HERE = ROOT / "tests" / "conformance"
ARTICLE_PARAMETERS = {
    "feature_dim": NUM_FEATURES,
    "predictor_type": "binary_classifier",
    "mini_batch_size": 1000,
    "num_factors": 64,
    "epochs": 3,
    "use_linear": True,  # "True" by SDK 2, "true" by SDK 3
    "linear_wd": 1e-05,
    "optimizer": "sagemaker",
    "factors_lr": 0.003,
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, train_ratings, held_out):
    """Channels, bodies and files to transform, as the SDKs find them on a user's disk."""
    folder = tmp_path_factory.mktemp("sdk-data")
    channels = {}
    for name, part in (("train", train_ratings), ("test", held_out)):
        (folder / name).mkdir()
        (folder / name / f"{name}.protobuf").write_bytes(part.records(part.liked))
        channels[name] = str(folder / name)
    X = held_out.X[:10]
    bodies = {"dense": dense_json(X.toarray()), "sparse": sparse_json(X)}
    (folder / "bodies.json").write_text(json.dumps(bodies))
    for name, content in (
        ("lines", lines(sparse_features(held_out.X[:50])).encode()),
        ("records", movielens.sparse_records(held_out.X[:50])),
    ):
        (folder / name).mkdir()
        (folder / name / name).write_bytes(content)
    return folder, channels


@pytest.fixture
def run_sdk(engine, workspace, sdk_env, tmp_path):
    """Run a program in an SDK's own virtual environment; return its report, log and folder."""
    folder, channels = workspace

    def run(version, program, *, fails=False, **more):
        root = tmp_path / f"{program}-{len(list(tmp_path.iterdir()))}"
        root.mkdir()
        arguments = {
            "image": engine.image,
            "root": str(root),
            "port": free_port(),
            "project": f"fm-conformance-{uuid.uuid4().hex[:8]}",
            "channels": channels,
            "bodies": str(folder / "bodies.json"),
            "lines": str(folder / "lines"),
            "records": str(folder / "records"),
            "hyperparameters": ARTICLE_PARAMETERS,
            **more,
        }
        files = [root / "arguments.json", root / "report.json"]
        files[0].write_text(json.dumps(arguments))
        code, log = run_python(version, [HERE / program, *files], sdk_env, cwd=root)
        if fails:
            assert code != 0
            return {}, log, root
        assert code == 0, log
        report = json.loads(files[1].read_text())
        print(program, more, report["seconds"])
        return report, log, root

    return run


def run_python(version, words, env, cwd):
    """Run the Python of an SDK; return its exit code and all it wrote, errors last."""
    done = subprocess.run(
        [sdk_python(version), *words],
        env=env, cwd=cwd, capture_output=True, text=True, timeout=400, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, f"{done.stderr}\n{done.stdout}"


def model_in(archive, folder):
    """Unpack a model.tar.gz and load what is in it."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return fm.load(folder)


def check_answers(answers, model, held_out):
    expected = model.probabilities(held_out.X[:10])
    for name in ("dense", "sparse"):
        predictions = answers[name]["predictions"]
        assert [one["score"] for one in predictions] == pytest.approx(expected, abs=1e-6)
        assert [one["predicted_label"] for one in predictions] == list(expected >= 0.5)


def test_f35_sdk_2_from_fit_to_transform(run_sdk, held_out, tmp_path):
    report, log, root = run_sdk(2, "sdk2_local.py")
    assert report["asked"] == [], "AWS was asked"
    assert report["model"] == ["model.safetensors"]
    model = model_in(root / "output" / "model.tar.gz", tmp_path / "model")
    assert model.num_features == NUM_FEATURES
    check_answers(report["answers"], model, held_out)
    expected = model.probabilities(held_out.X[:50])
    for name in ("lines", "records"):
        rows = [json.loads(line) for line in report["transform"][name].splitlines() if line]
        assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-6), name
    assert re.search(r"#quality_metric: host=algo-1-\w+, test binary_f_\S+ <score>=\S+", log)


def test_f35_a_wrong_hyperparameter_is_told_in_the_log(run_sdk):
    wrong = {**ARTICLE_PARAMETERS, "epochz": 3}
    _, log, _ = run_sdk(2, "sdk2_local.py", fails=True, hyperparameters=wrong)
    assert "epochz: unknown hyperparameter" in log


def test_f36_sdk_2_with_two_hosts(run_sdk, tmp_path):
    """One host trains on everything, the other ends well and writes no model."""
    report, log, root = run_sdk(2, "sdk2_local.py", instance_count=2, only_fit=True)
    assert report["asked"] == [] and report["model"] == ["model.safetensors"]
    finals = re.findall(r"#quality_metric: host=(algo-\d)-\w+, test binary_f_\S+ <score>=", log)
    assert finals == ["algo-1"]
    _, _, single = run_sdk(2, "sdk2_local.py", only_fit=True)
    two = model_in(root / "output" / "model.tar.gz", tmp_path / "two")
    assert two == model_in(single / "output" / "model.tar.gz", tmp_path / "one")


def test_f36_shards_are_refused(engine, job, few):
    """Until there is distributed training: a host that sees a part must not make a model of it."""
    sharded = {"train": {"TrainingInputMode": "File", "S3DistributionType": "ShardedByS3Key"}}
    resources = {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]}
    one = job(inputs=sharded, resources=resources)
    assert "ShardedByS3Key" in one.refused(one.run(engine))
    alone = job(inputs=sharded)
    alone.succeeded(alone.run(engine))


def test_f36_two_hosts_as_the_platform_starts_them(engine, job, few, tmp_path):
    """Each in its own file system; the first is late; only its model is there at the end."""
    network = f"fm-conformance-{engine.session}"
    engine.docker("network", "create", "--internal", network)
    hosts = ["algo-1", "algo-2"]
    try:
        jobs = {
            host: job(root=tmp_path / host, resources={"current_host": host, "hosts": hosts})
            for host in hosts
        }

        def options(host):
            mount = ["-v", f"{jobs[host].root}:/opt/ml"]
            return [*mount, "--network", network, "--network-alias", host, "--hostname", host]

        with engine.start("train", options=options("algo-2")) as second:
            second.wait_for("algo-1")
            time.sleep(2)
            with engine.start("train", options=options("algo-1")) as first:
                ended = first.ended(60)
                other = second.ended(10)
        assert (ended.code, other.code) == (0, 0), ended.log + other.log
        assert list(jobs["algo-1"].model_files()) == ["model.safetensors"]
        assert not jobs["algo-2"].model_files() and jobs["algo-2"].failure is None

        with engine.start("train", options=options("algo-2")) as second:
            second.wait_for("algo-1")
            start = time.monotonic()
            engine.docker("stop", "-t", "60", second.id, timeout=90)
            assert time.monotonic() - start < 5, "who waits has to answer SIGTERM, too"
    finally:
        engine.docker("network", "rm", network, check=False)


@pytest.mark.parametrize("instance_count", [1, 2])
def test_f37_sdk_3(run_sdk, held_out, tmp_path, instance_count):
    only_fit = instance_count > 1
    report, _, root = run_sdk(3, "sdk3_local.py", instance_count=instance_count, only_fit=only_fit)
    assert report["asked"] == [], "AWS was asked"
    assert report["model"] == ["model.safetensors"]
    assert "input" not in report["left"], "the SDK could not clean up"
    model = model_in(next(root.glob("fm-*/compressed_artifacts/model.tar.gz")), tmp_path / "model")
    if instance_count == 1:
        check_answers(report["answers"], model, held_out)


def test_f37_the_clean_up_of_sdk_3(engine, tmp_path):
    """It runs this when the caller may not delete root's files; if that fails, so does the job."""
    (tmp_path / "x").mkdir(mode=0o700)
    options = ["-v", f"{tmp_path}:/delete"]
    ended = engine.run("chmod", "-R", "777", "/delete", options=options)
    assert ended.code == 0 and (tmp_path / "x").stat().st_mode & 0o777 == 0o777


# -- 38: the article -------------------------------------------------------------------------------

# What changes for local mode, and the two lines that newer SDKs break with any image.
CHANGES = [
    ("session = sagemaker.Session()", "session = LOCAL_SESSION"),
    ("role = get_execution_role()", 'role = "arn:aws:iam::111111111111:role/dummy"'),
    ('instance_type = "ml.c4.xlarge"', 'instance_type = "local"'),
    ("    containers[region],", "    IMAGE,"),
]
SDK_CHANGES = [
    (
        "from sagemaker.predictor import json_deserializer",
        "from fm.sagemaker_compat import Serializer, json_deserializer",
    ),
    (
        "fm_predictor.serializer = fm_serializer",
        "fm_predictor.serializer = Serializer(fm_serializer)",
    ),
]
PROLOGUE = """
import boto3, os
from sagemaker.local import LocalSession
IMAGE = os.environ["IMAGE"]
LOCAL_SESSION = LocalSession(
    boto3.Session(), s3_endpoint_url=os.environ["AWS_ENDPOINT_URL"], default_bucket="fm-movielens"
)
LOCAL_SESSION.config = {
    "local": {
        "local_code": True,
        "serving_port": int(os.environ["PORT"]),
        "container_root": os.environ["ROOT"],
    }
}
"""


@pytest.fixture
def s3(sdk_env, tmp_path):
    """S3 by moto on this machine, with the article's bucket in it."""
    server = sdk_python(2).with_name("moto_server")
    if not server.exists():
        pytest.skip("no moto: scripts/conformance installs it")
    address = f"http://127.0.0.1:{free_port()}"
    with (tmp_path / "moto.log").open("w") as log:
        process = subprocess.Popen(
            [server, "-H", "127.0.0.1", "-p", address.rpartition(":")[2]],
            env=sdk_env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        for _ in range(300):
            try:
                put = urllib.request.Request(f"{address}/fm-movielens", method="PUT")
                urllib.request.urlopen(put, timeout=2)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "moto.log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def movielens_folder(request, tmp_path, ratings):
    """ua.base, ua.test and u.item: the real ones where they lie, else made up."""
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    try:
        source = request.getfixturevalue("ml_100k")
        parts = {name: movielens.read(source / f"{name}.gz") for name in ("ua.base", "ua.test")}
        titles = gzip.decompress((source / "u.item.gz").read_bytes())
    except pytest.skip.Exception:
        parts = {"ua.base": ratings[:18_000], "ua.test": ratings[18_000:]}
        films = range(1, 1 + movielens.NUM_FILMS)
        titles = "".join(f"{i}|Film {i} (1995)|01-Jan-1995||\n" for i in films).encode()
    (folder / "u.item").write_bytes(titles)
    for name, part in parts.items():
        (folder / name).write_text(part.text())
    return folder


def changed(text, changes):
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_f38_the_article_top_to_bottom(engine, sdk_env, s3, movielens_folder, tmp_path):
    text = changed((HERE / "article.py").read_text(), [*CHANGES, *SDK_CHANGES])
    (tmp_path / "notebook.py").write_text(PROLOGUE + text)
    root = tmp_path / "root"
    root.mkdir()
    env = {
        **sdk_env, "AWS_ENDPOINT_URL": s3, "IMAGE": engine.image, "PORT": str(free_port()),
        "ROOT": str(root), "ML_100K": str(movielens_folder),
    }  # fmt: skip
    code, log = run_python(2, [tmp_path / "notebook.py"], env, tmp_path)
    assert code == 0, log
    result = json.loads(re.search(r"RESULT (\{.*\})", log)[1])
    labels = json.loads(re.search(r"LABELS (\[.*\])", log)[1])
    predictions = result["predictions"]
    assert len(predictions) == len(labels) == 10
    for prediction in predictions:
        assert prediction["predicted_label"] == float(prediction["score"] >= 0.5)
    accuracy = re.search(r"test binary_classification_accuracy <score>=(\S+)", log)
    assert float(accuracy[1]) > 0.6


def test_f38_without_our_line_it_stops_whatever_the_image(sdk_env, tmp_path):
    """So the honest number of lines to change is the image and two more."""
    code, log = run_python(2, ["-c", SDK_CHANGES[0][0]], sdk_env, tmp_path)
    assert code != 0 and "ImportError" in log


@pytest.mark.parametrize("version", [2, 3])
def test_f38_the_script_in_local_mode(engine, sdk_env, movielens_folder, tmp_path, version):
    """The article by scripts/sagemaker_movielens.py, as a user calls it."""
    words = ["--local", "--image", engine.image, "--data", movielens_folder, "--sdk", version]
    more = ["--user", 7, "--top", 5, "--set", "epochs=3", "--set", "num_factors=8"]
    command = [ROOT / "scripts" / "sagemaker_movielens.py", *words, *more]
    code, log = run_python(version, map(str, command), sdk_env, tmp_path)
    assert code == 0, log
    assert len(re.findall(r"^  score \d\.\d{3}  label [01]  liked [01]$", log, re.M)) == 10
    best = re.findall(r"^  (\d\.\d{3})  \S.*$", log.partition("would be liked most")[2], re.M)
    assert len(best) == 5 and best == sorted(best, reverse=True)


# -- 39 and 40: files ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["File", "FastFile"])
def test_f39_channels_mounted_read_only(engine, job, few, mode):
    one = job(
        channels={"train": few.records(), "test": few[:100].records()},
        inputs={name: {"TrainingInputMode": mode} for name in ("train", "test")},
    )
    source = one.root / "input"
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    one.succeeded(one.run(engine, options=["-v", f"{source}:/opt/ml/input:ro"]))
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before


def test_f40_beside_the_archives_of_local_mode(engine, regressor, held_out, tmp_path):
    """SDK 2 unpacks in place: both archives stay in /opt/ml/model, which may be written to."""
    folder = tmp_path / "model"
    shutil.copytree(regressor.model_dir, folder)
    for name in ("model", "output"):
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(regressor.model_dir / "model.safetensors", "model.safetensors")
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text("raise SystemExit")
    expected = pytest.approx(regressor.model.scores(held_out.X[:5]), rel=1e-5)
    with engine.serve(folder) as server:
        assert server.post(sparse_json(held_out.X[:5])).scores() == expected


def test_f40_an_artefact_of_the_built_in(engine, rng, tmp_path):
    w, V = rng.normal(size=8), rng.normal(size=(8, 3))
    arrays = {
        "arg:w0_weight": dense(np.array([0.5])),
        "arg:w1_weight": dense(w.reshape(8, 1)),
        "arg:v": dense(V),
    }
    meta = {"feature_dim": "8", "num_factors": "3", "predictor_type": "binary_classifier"}
    (tmp_path / "model_algo-1").write_bytes(algo_zip(arrays, meta))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "model_algo-1", "model_algo-1")
    X = movielens.sp.csr_matrix(rng.normal(size=(4, 8)).astype(np.float32))
    D = X.toarray()
    scores = 1 / (1 + np.exp(-(0.5 + D @ w + 0.5 * ((D @ V) ** 2 - D**2 @ V**2).sum(axis=1))))
    with engine.serve(tmp_path) as server:
        reply = server.post(sparse_json(X))
        assert reply.scores() == pytest.approx(scores, rel=1e-5)
        assert {"score", "predicted_label"} == reply.predictions()[0].keys()
        again = server.post(movielens.sparse_records(X), RECORDIO, JSON)
        assert again.scores() == pytest.approx(scores, rel=1e-5)
