"""A training job without docker: the tree of /opt/ml in a temporary folder.

Numbers such as F6 are those of the checks in tests/conformance, which do this with the image.
"""

import gzip
import io
import json
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

import container.train
from container import channels, hyperparameters, stopping
from container.failure import EXIT_INTERNAL, EXIT_USER, LIMIT, guarded
from container.paths import Paths
from container.stopping import Stop
from fm.errors import Advice, ConfigError, DataError, DivergenceError
from fm.formats.recordio import read_csr, write_spmatrix_to_sparse_tensor
from fm.model.file import FILE_NAME
from fm.model.load import load

USERS, FILMS = 30, 20
WIDTH = USERS + FILMS
SMALL = {"predictor_type": "regressor", "num_factors": "4", "epochs": "3"}


def drawn(rows=400, seed=3):
    """User, film and rating of made-up ratings that follow both."""
    rng = np.random.default_rng(seed)
    user, film = rng.integers(USERS, size=rows), rng.integers(FILMS, size=rows)
    rating = np.clip(np.rint(3 + user % 3 - film % 3 + rng.normal(size=rows) / 2), 1, 5)
    return user, film, rating.astype(np.float32)


USER, FILM, RATING = drawn()
LIKED = (RATING >= 4).astype(np.float32)


def onehot(rows=slice(None)):
    user, film = USER[rows], FILM[rows]
    columns = np.stack([user, USERS + film], axis=1).ravel()
    indptr = np.arange(0, columns.size + 1, 2)
    return sp.csr_matrix((np.ones(columns.size, np.float32), columns, indptr), (user.size, WIDTH))


def records(X=None, y=RATING, rows=slice(None)):
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, onehot(rows) if X is None else X, y[rows])
    return file.getvalue()


def libsvm():
    lines = zip(RATING, USER, FILM, strict=True)
    return "".join(f"{y:g} {u + 1}:1 {USERS + f + 1}:1\n" for y, u, f in lines).encode()


def csv(header="rating,user,film\n", rows=slice(None)):
    lines = zip(RATING[rows], USER[rows], FILM[rows], strict=True)
    return (header + "".join(f"{y:g},u{u},f{f}\n" for y, u, f in lines)).encode()


class Job:
    """The tree of one job, and what it leaves."""

    def __init__(self, root, parameters=None, data=None, config=None):
        self.root, self.paths = root, Paths(root)
        self.paths.model.mkdir(parents=True)
        self.write("hyperparameters", {**SMALL, **(parameters or {})})
        data = {"train": records()} if data is None else data
        for channel, files in data.items():
            (self.paths.data / channel).mkdir(parents=True, exist_ok=True)
            for name, content in ({"part-0": files} if isinstance(files, bytes) else files).items():
                path = self.paths.data / channel / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        modes = {channel: {"TrainingInputMode": "File"} for channel in data}
        self.write("inputdataconfig", modes if config is None else config)

    def write(self, name, content):
        self.paths.config.mkdir(parents=True, exist_ok=True)
        path = self.paths.config / f"{name}.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    @property
    def files(self):
        """What is in the model directory."""
        root = self.paths.model
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    @property
    def failure(self):
        return self.paths.failure.read_text() if self.paths.failure.exists() else None

    @property
    def model(self):
        return load(self.paths.model)

    def start(self, driver="", **env):
        """Run the job in a process of its own; `driver` is code that runs before it."""
        code = f"{driver}\nimport sys, container.train; sys.exit(container.train.main([]))"
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(self.root), **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def job(tmp_path):
    numbers = iter(range(100))
    return lambda *args, **more: Job(tmp_path / f"job{next(numbers)}", *args, **more)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a job in this process; return its exit code, standard output and standard error."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    logger = logging.getLogger("fm")
    state = logger.handlers, logger.level, logger.propagate

    def run(job):
        monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(job.root))
        capsys.readouterr()
        code = container.train.main([])
        return (code, *capsys.readouterr())

    yield run
    logger.handlers, logger.level, logger.propagate = state
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def good(run):
    """Run a job that must succeed; return its log."""

    def good(job):
        code, out, err = run(job)
        assert (code, err, job.failure) == (0, "", None), out + err
        assert list(job.files) == [FILE_NAME]
        return out

    return good


@pytest.fixture
def refused(run):
    """Run a job that must fail for a reason of the user's; return the reason."""

    def refused(job):
        code, out, err = run(job)
        reason = job.failure
        assert code == EXIT_USER, out + err
        assert reason.startswith("ClientError: ") and len(reason) <= LIMIT
        assert reason in err and "Traceback" not in err
        assert not job.files
        return reason

    return refused


# -- F3 to F5: what a job is told ------------------------------------------------------------------


def test_f03_a_good_job(job, good):
    one = job(data={"train": records(), "test": records(rows=slice(0, 50))})
    one.paths.failure.parent.mkdir()
    one.paths.failure.write_text("ClientError: of a former job")
    good(one)
    model = one.model
    assert model.num_features == WIDTH and model.num_factors == 4
    report = json.loads((one.paths.output / "metrics.json").read_text())
    assert len(report["history"]) == 3 and report["config"]["num_factors"] == 4
    X, y = read_csr(records(rows=slice(0, 50)), num_features=WIDTH)
    rmse = np.sqrt(np.mean((model.scores(X).astype(float) - y) ** 2))
    assert report["test"]["rmse"] == pytest.approx(rmse, rel=1e-6)
    assert not report["interrupted"]


def test_f03_a_job_leaves_its_inputs_alone(job, good):
    """F39: channels may be mounted read-only."""
    one = job(data={"train": records(), "test": records()})
    one.paths.data.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in one.paths.base.glob("input/**/*")}
    good(one)
    assert {path: path.stat().st_mtime_ns for path in one.paths.base.glob("input/**/*")} == before


def test_f04_everything_wrong_is_named_at_once(job, refused):
    one = job({"epoch": "3", "num_factors": "0", "mini_batch_size": "many", "min_count": "0"})
    one.write("hyperparameters", {"epoch": "3", "num_factors": "0", "bias_lr": "x", "min_count": 0})
    reason = refused(one)
    for text in (
        "predictor_type: missing required hyperparameter",
        "epoch: unknown hyperparameter (did you mean epochs?)",
        "num_factors: expected an integer from 1 to 10,000, found '0'",
        "bias_lr: expected a number >= 0, found 'x'",
        "min_count: expected an integer >= 1, found 0",
    ):
        assert text in reason


def test_f04_names_come_before_reasons_that_have_no_room(job, refused, run):
    names = [f"unknown_hyperparameter_{i}" for i in range(25)]
    one = job(dict.fromkeys(names, "1"))
    reason = refused(one)
    assert len(reason) == LIMIT
    for name in names:
        assert name in reason
    assert "unknown_hyperparameter_24: unknown hyperparameter" in run(one)[2]  # in full there


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "3.5", "0", "-1", "two", "[3]"])
def test_f04_values_that_are_none(value):
    with pytest.raises(ConfigError, match=r"^epochs: expected an integer >= 1, found"):
        hyperparameters.parse({**SMALL, "epochs": value})


def test_f04_files_that_are_not_json(job, refused):
    one = job()
    one.write("hyperparameters", "{'a': 1")
    assert "hyperparameters.json: expected JSON" in refused(one)
    one.write("hyperparameters", "[1]")
    assert "expected a JSON object, found list" in refused(one)


@pytest.mark.parametrize(
    "strings",
    [
        {"use_bias": "True", "epochs": "3", "linear_wd": "1e-05"},
        {"use_bias": "true", "epochs": "3", "linear_wd": "1e-05"},
        {"use_bias": '"true"', "epochs": '"3"', "linear_wd": '"1e-05"',
         "predictor_type": '"regressor"'},
        {"use_bias": "1", "epochs": " 3.0 ", "linear_wd": "0.00001"},
    ],
    ids=["SDK 2", "SDK 3", "frameworks", "odd"],
)  # fmt: skip
def test_f05_strings_of_every_origin(strings):
    injected = {
        "_tuning_objective_metric": "test:rmse", "_data_format": "record", "_kvstore": "auto",
        "_learning_rate": "1.0", "_log_level": "info", "_num_gpus": "auto", "_optimizer": "adam",
        "_num_kv_servers": "auto", "_use_full_symbolic": "true", "_wd": "1.0",
        "use_linear": "true", "batch_metrics_publish_interval": "500", "weight": "",
        "sagemaker_program": '"train.py"', "sagemaker_region": '"us-east-1"', "header": "None",
    }  # fmt: skip
    found = hyperparameters.parse({**injected, **SMALL, **strings})
    assert found == hyperparameters.parse({**SMALL, "linear_wd": "1e-05"})
    assert found.config.use_bias is True and found.config.linear_wd == 1e-5
    assert found.reading == {} and found.batch_interval == 500


def test_how_often_batches_are_logged_is_asked_of_the_job_and_not_in_the_model():
    asked = {**SMALL, "batch_metrics_publish_interval": "3"}
    assert hyperparameters.parse(asked).batch_interval == 3
    assert hyperparameters.parse(asked).config == hyperparameters.parse(SMALL).config
    with pytest.raises(ConfigError, match="publish_interval: expected an integer >= 1, found '0'"):
        hyperparameters.parse({**SMALL, "batch_metrics_publish_interval": "0"})


def test_f05_options_for_tables():
    asked = {
        "target": "stars", "weight": "w", "categorical": "user, film", "multi": "genres",
        "separator": ";", "header": "True", "min_count": "2", "standardize": "false",
        "bins": "auto",
    }  # fmt: skip
    assert hyperparameters.parse({**SMALL, **asked}).reading == {
        "target": "stars", "weight": "w", "categorical": ["user", "film"], "min_count": 2,
        "multi": {"genres": ";"}, "header": True, "standardize": False, "bins": "auto",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="names: expected a table without a header"):
        hyperparameters.parse({**SMALL, "names": "a,b", "header": "1"})
    with pytest.raises(ConfigError, match="separator: .*; name them with multi or history$"):
        hyperparameters.parse({**SMALL, "separator": ";"})
    assert hyperparameters.wrong_names({**SMALL, "separator": ";"}) == ["separator"]
    assert hyperparameters.wrong_names({**SMALL, "separator": ";", "history": "h"}) == []
    with pytest.raises(ConfigError, match="ignore: expected names separated by commas"):
        hyperparameters.parse({**SMALL, "ignore": "a,,b"})


# -- F6 to F8: channels ----------------------------------------------------------------------------


def with_value(row, *, key=None, value=None):
    X = onehot()
    if key is not None:
        X.indices[2 * row] = key
        X.has_sorted_indices = False
        X = sp.csr_matrix((X.data, X.indices, X.indptr), (X.shape[0], key + 1))
    if value is not None:
        X.data[2 * row] = value
    file = io.BytesIO()
    if value is None:
        write_spmatrix_to_sparse_tensor(file, X, RATING)
        return file.getvalue()
    content = records()  # our writer refuses such a value
    size = struct.unpack_from("<I", content, 4)[0] + 8
    at = content.index(struct.pack("<ff", 1, 1), row * (size + -size % 4))
    return content[:at] + struct.pack("<f", value) + content[at + 4 :]


def labels(row, value):
    y = LIKED.copy()
    y[row] = value
    return records(y=y)


BAD = {
    # name: (hyperparameters, train channel, what the reason says)
    "text": ({}, {"a.protobuf": b"user,film\n1,2\n"}, r"a\.protobuf: expected RecordIO-protobuf"),
    "truncated": ({}, {"a": records()[:-7]}, r"train/a record 400 "),
    "key": ({"feature_dim": str(WIDTH)}, with_value(41, key=WIDTH), rf"part-0 record 42 .*{WIDTH}"),
    "label": ({"predictor_type": "binary_classifier"}, labels(9, 2), r"part-0 record 10: label 2"),
    "NaN": ({}, with_value(99, value=np.nan), r"part-0 record 100 "),
    "infinite": ({}, with_value(0, value=np.inf), r"part-0 record 1 "),
    "second file": ({}, {"a": records(), "b": with_value(2, value=np.nan)}, r"train/b record 3 "),
    "second label": (
        {"predictor_type": "binary_classifier"},
        {"a": labels(0, 1), "b": labels(4, -1)},
        r"train/b record 5: label -1",
    ),
    "empty": ({}, {}, r"channel train: .*train: expected data files, found none"),
    "hidden only": ({}, {".x": b"x", "_SUCCESS": b"", "e": b""}, r"channel train: .*found none"),
}


@pytest.mark.parametrize("name", BAD)
def test_f06_wrong_data(name, job, refused):
    parameters, content, pattern = BAD[name]
    assert re.search(pattern, refused(job(parameters, {"train": content})))


def test_f06_wrong_labels_in_a_table(job, refused):
    parameters = {"predictor_type": "binary_classifier"}
    config = {"train": {"TrainingInputMode": "File", "ContentType": "text/csv"}}
    good_rows = b"label,user,film\n1,u1,f1\n0,u2,f2\n"
    one = job(
        parameters, {"train": {"a.csv": good_rows, "b.csv": good_rows + b"3,u1,f1\n"}}, config
    )
    assert "b.csv row 3: label 3, but a binary classifier expects 0 or 1" in refused(one)


def test_f06_missing_channels(job, refused):
    assert "channel train: missing" in refused(job(data={"test": records()}))
    config = {"train": {"TrainingInputMode": "File"}, "test": {"TrainingInputMode": "File"}}
    assert re.search("channel test: .*no such folder", refused(job(config=config)))
    bad = records()[:-7]
    assert re.search("channel test: .*400", refused(job(data={"train": records(), "test": bad})))


def test_f07_what_local_mode_writes(job, good):
    one = job()
    one.write("resourceconfig", {
        "current_host": "algo-1-syv00", "hosts": ["algo-1-syv00"],
        "network_interface_name": "ethwe", "current_instance_type": "local",
    })  # fmt: skip
    assert "host=algo-1-syv00, epoch=0, train rmse" in good(one)


def test_f07_nothing_but_data(job, good):
    one = job()
    (one.paths.config / "inputdataconfig.json").unlink()
    good(one)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"ContentType": "text/csv"}, "ContentType says csv, but the data look like recordio data"),
        ({"ContentType": "text/libsvm"}, "says libsvm, but the data look like recordio"),
        ({"ContentType": "application/x-parquet"}, "says parquet, but the data look like recordio"),
        ({"ContentType": "image/jpeg"}, "channel train: ContentType: expected one of .*text/csv"),
        ({"TrainingInputMode": "Tape"}, "channel train: TrainingInputMode: expected one of File"),
        ({"TrainingInputMode": "Pipe", "RecordWrapperType": "RecordIO"}, "RecordWrapperType"),
    ],
)
def test_f07_channels_that_contradict_themselves(options, pattern, job, refused):
    one = job(config={"train": {"TrainingInputMode": "File", **options}})
    assert re.search(pattern, refused(one))


@pytest.mark.parametrize(
    ("content", "content_type", "looks"),
    [
        (libsvm(), "text/csv", "libsvm data"),
        (csv(), "application/x-recordio-protobuf", "text: 'rating,user,film'"),
        (csv(), "text/libsvm", None),
    ],
)
def test_f07_texts_that_are_of_another_kind(content, content_type, looks, job, refused):
    config = {"train": {"TrainingInputMode": "File", "ContentType": content_type}}
    reason = refused(job(data={"train": content}, config=config))
    assert f"look like {looks}" in reason if looks else "part-0 line 1" in reason


def parquet():
    table = pa.table({"rating": RATING, "user": [f"u{u}" for u in USER], "film": FILM.astype(str)})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


FORMS = {
    "recordio": ("application/x-recordio-protobuf", records()),
    "recordio, no type": (None, records()),
    "libsvm": ("text/libsvm; charset=utf-8", libsvm()),
    "libsvm, no type": (None, libsvm()),
    "csv": ("text/csv", csv()),
    "gzip": ("text/csv", gzip.compress(csv())),
    "tsv": ("text/tab-separated-values", csv().replace(b",", b"\t")),
    "no header": ("text/csv;label_size=1", csv(header="")),
    "parquet": ("application/x-parquet", parquet()),
}


@pytest.mark.parametrize("form", FORMS)
def test_f07_formats(form, job, good):
    content_type, content = FORMS[form]
    options = {"TrainingInputMode": "FastFile"} | (
        {"ContentType": content_type} if content_type else {}
    )
    one = job(
        {"epochs": "30", "factors_lr": "0.05"},
        {"train": content, "test": content, "validation": content},
        dict.fromkeys(("train", "test", "validation"), options),
    )
    log = good(one)
    rmse = float(re.search(r"test rmse <loss>=(\S+)", log)[1])
    assert rmse < 0.8  # the rows were trained on, so targets and features are not mixed up
    model = one.model
    assert (model.encoder is None) == ("recordio" in form or "libsvm" in form)
    if model.encoder is None:
        assert model.num_features == WIDTH
    else:
        names = ("1", "2") if form == "no header" else ("user", "film")
        assert model.field_names == names


def test_f07_the_same_rows_in_two_formats_are_the_same_model(job, good):
    one, other = job(), job(data={"train": libsvm()})
    good(one)
    good(other)
    assert one.model == other.model


def test_f07_columns_are_chosen_by_hyperparameters(job, good):
    content = csv("stars,user,film\n").replace(b"\n", b",9\n").replace(b"film,9", b"film,noise")
    config = {"train": {"TrainingInputMode": "File", "ContentType": "text/csv"}}
    one = job({"target": "stars", "ignore": "noise"}, {"train": content}, config)
    good(one)
    assert one.model.field_names == ("user", "film")


def test_f07_feature_dim_means_nothing_to_a_table(job, good):
    config = {"train": {"TrainingInputMode": "File", "ContentType": "text/csv"}}
    one = job({"feature_dim": "2625"}, {"train": csv()}, config)
    assert "WARNING" in (log := good(one)) and "feature_dim 2625 is not used" in log


def test_f07_channels_of_two_kinds(job, refused):
    data = {"train": records(), "test": {"test.csv": csv()}}
    assert "channel test: expected features, as in channel train" in refused(job(data=data))
    data = {"train": {"train.csv": csv()}, "test": records()}
    assert "channel test: expected a table, as in channel train" in refused(job(data=data))


def test_f08_files_of_a_channel(job, good):
    whole = job()
    good(whole)
    split = job(
        data={
            "train": {
                "a/0/part-0": records(rows=slice(0, 100)),
                "a/part-1": records(rows=slice(100, 250)),
                "b": records(rows=slice(250, None)),
                "a/empty": b"",
                "_SUCCESS": b"",
                ".part-0.crc": b"crc",
                ".hidden/part-9": records(),
                "train.manifest": b'[{"prefix": "s3://bucket/"}, "a/0/part-0"]',
            }
        }
    )
    good(split)
    assert split.model == whole.model


def test_channels_nobody_uses_are_named(job, good):
    one = job(data={"training": records(), "code": b"x"})
    assert "channel code is not used" in good(one)  # the SDK calls a single channel "training"


# -- F11 and F12: the same model -------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_f11_pipe_mode(late, job, good):
    """The writer closes between epochs; only the first pipe is opened."""
    data = {"train": records(), "test": records(rows=slice(0, 60))}
    file = job(data=data)
    expected = good(file)
    modes = {name: {"TrainingInputMode": "Pipe", "RecordWrapperType": "None"} for name in data}
    pipe = job(data={}, config=modes)
    pipe.paths.data.mkdir()

    def write(name):
        if late:
            time.sleep(0.2)
        os.mkfifo(pipe.paths.data / f"{name}_0")
        with open(pipe.paths.data / f"{name}_0", "wb") as stream:
            stream.write(data[name][:1000])
            stream.flush()
            stream.write(data[name][1000:])
        os.mkfifo(pipe.paths.data / f"{name}_1")

    writers = [threading.Thread(target=write, args=(name,)) for name in data]
    for writer in writers:
        writer.start()
    if not late:
        time.sleep(0.1)
    log = good(pipe)
    for writer in writers:
        writer.join()
    assert pipe.files == file.files
    pattern = r"#quality_metric: .*test.*"
    assert re.findall(pattern, log) == re.findall(pattern, expected)


def test_f11_pipes_that_bring_nothing(job, refused, monkeypatch):
    monkeypatch.setattr(channels, "SECONDS_FOR_PIPE", 0.1)
    config = {"train": {"TrainingInputMode": "Pipe"}}
    assert "train_0: expected a pipe, found none after" in refused(job(data={}, config=config))
    one = job(data={}, config=config)
    one.paths.data.mkdir()
    (one.paths.data / "train_0").touch()
    assert "train_0: expected data, found none" in refused(one)


@pytest.mark.parametrize("optimizer", ["sgd", "sagemaker"])
def test_f12_same_seed_same_bits(optimizer, job, good):
    one, same, other = (job({"optimizer": optimizer, "seed": s}) for s in ("11", "11", "12"))
    for each in (one, same, other):
        good(each)
    assert one.files == same.files != other.files


@pytest.mark.parametrize("form", ["recordio", "csv"])
def test_f12_the_laptop_makes_the_same_file(form, job, good, tmp_path):
    content_type, content = FORMS[form]
    parameters = {"num_factors": "4", "epochs": "5", "seed": "3", "predictor_type": "regressor"}
    config = {"train": {"TrainingInputMode": "File", "ContentType": content_type}}
    one = job(parameters, {"train": {f"train.{form}": content}}, config)
    good(one)
    words = [word for name, value in parameters.items() for word in (f"--{name}", value)]
    output = tmp_path / "laptop.safetensors"
    train = one.paths.data / f"train/train.{form}"
    command = [sys.executable, "-m", "fm.train", train, *words, "--output", output]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert one.files == {FILE_NAME: output.read_bytes()}


# -- F16 to F19: signals and checkpoints -----------------------------------------------------------

FOREVER = {"epochs": "1000000", "patience": "0", "num_factors": "4"}
# Checkpoints come every half a minute; a test has less time.
OFTEN = "import fm.training.checkpoint; fm.training.checkpoint.SECONDS_BETWEEN = 0.02"


def checkpoints(job):
    folder = job.paths.base / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else None


def wait_for(process, text):
    """Read the log of a running job until it says something."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines) + process.stderr.read())


def last_epoch(log):
    return max(int(number) for number in re.findall(r"epoch=(\d+), train", log))


@pytest.mark.parametrize("optimizer", ["sgd", "sagemaker"])
def test_f16_f17_sigterm_leaves_all_that_is_needed_to_go_on(optimizer, job, good):
    one = job({**FOREVER, "optimizer": optimizer})
    (one.paths.base / "checkpoints").mkdir()
    process = one.start()
    log = wait_for(process, "epoch=20, train")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and time.monotonic() - begun < 15, err
    assert np.isfinite(one.model.V).all() and one.failure is None
    assert checkpoints(one) == ["fm-algo-1.checkpoint"]
    assert json.loads((one.paths.output / "metrics.json").read_text())["interrupted"]
    assert "completed 100" not in out
    reached = last_epoch(log + out)

    parameters = {**FOREVER, "optimizer": optimizer, "epochs": str(reached + 10)}
    one.write("hyperparameters", {**SMALL, **parameters})
    log = good(one)
    resumed = int(re.search(r"resumed from \S+ after epoch (\d+)", log)[1])
    assert resumed == reached + 1  # the epoch was allowed to end
    assert re.search(r"epoch=(\d+), train", log)[1] == str(resumed)
    whole = job(parameters)
    good(whole)
    assert one.files == whole.files


def test_f16_sigterm_before_there_is_a_model(job):
    """While it waits for a pipe: an end at once, and a reason."""
    one = job(data={}, config={"train": {"TrainingInputMode": "Pipe"}})
    process = one.start()
    wait_for(process, "Final configuration")
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == EXIT_USER
    assert one.failure == "ClientError: stopped by a signal before there was a model"
    assert one.failure in err


def test_f16_later_signals_change_nothing(job, run, monkeypatch):
    """The model is saved, whoever is impatient."""
    from fm.model.model import Model

    save = Model.save

    def slow_save(self, path):
        os.kill(os.getpid(), signal.SIGTERM)
        return save(self, path)

    monkeypatch.setattr(Model, "save", slow_save)
    one = job()
    assert run(one)[0] == 0 and one.model


@pytest.fixture
def stop():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield Stop()
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_before_training_interrupts_at_once(stop):
    stop.check()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    with pytest.raises(KeyboardInterrupt):
        stop.check()  # Python may have swallowed the first exception
    os.kill(os.getpid(), signal.SIGTERM)  # the second one changes nothing
    stop.no_more_interrupts()
    stop.check()
    assert stop.requested


def test_a_signal_in_training_waits_for_the_epoch_but_not_for_long(stop, monkeypatch):
    monkeypatch.setattr(stopping, "SECONDS_FOR_EPOCH", 1.0)
    stop.after_the_epoch()
    begun = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
    assert time.monotonic() - begun < 0.9
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)
    assert 0.9 < time.monotonic() - begun < 4.5


def test_a_signal_after_training_changes_nothing(stop, monkeypatch):
    monkeypatch.setattr(stopping, "SECONDS_FOR_EPOCH", 0.05)
    stop.after_the_epoch()
    os.kill(os.getpid(), signal.SIGTERM)
    stop.no_more_interrupts()
    time.sleep(0.1)
    assert stop.requested


def damaged(content, kind):
    return {"garbage": b"\xff" * 5000, "half": content[: len(content) // 2], "empty": b""}[kind]


@pytest.mark.parametrize("kind", ["garbage", "half", "empty", "feature_dim", "num_factors", "data"])
def test_f18_a_checkpoint_that_does_not_fit_is_moved_aside(kind, job, good):
    first = job(
        {"feature_dim": str(WIDTH + 9)} if kind == "feature_dim"
        else {"num_factors": "5"} if kind == "num_factors" else {},
        {"train": records(rows=slice(0, 300))} if kind == "data" else None,
    )  # fmt: skip
    (first.paths.base / "checkpoints").mkdir()
    good(first)
    path = first.paths.base / "checkpoints" / "fm-algo-1.checkpoint"
    content = path.read_bytes()
    if kind in ("garbage", "half", "empty"):
        content = damaged(content, kind)

    second = job()
    folder = second.paths.base / "checkpoints"
    folder.mkdir()
    (folder / path.name).write_bytes(content)
    (folder / "x.sagemaker-uploaded").write_bytes(b"")
    log = good(second)
    assert re.search(r"WARNING \d+\] checkpoint ignored, and moved to", log)
    assert "resumed" not in log
    assert checkpoints(second) == [path.name, f"{path.name}.ignored", "x.sagemaker-uploaded"]
    assert (folder / f"{path.name}.ignored").read_bytes() == content
    fresh = job()
    good(fresh)
    assert second.files == fresh.files


def test_f18_where_checkpoints_are_kept(job, good, refused, tmp_path):
    one = job()
    assert "Checkpoint loading and saving are disabled." in good(one)
    assert checkpoints(one) is None
    one.write("checkpointconfig", {"S3Uri": "s3://bucket/x", "LocalPath": "/opt/ml/elsewhere"})
    good(one)
    assert (one.paths.base / "elsewhere" / "fm-algo-1.checkpoint").is_file()
    one.write("checkpointconfig", {"LocalPath": str(tmp_path / "outside")})
    one.write("resourceconfig", {"current_host": "algo-7", "hosts": ["algo-7"]})
    good(one)
    assert (tmp_path / "outside" / "fm-algo-7.checkpoint").is_file()
    (tmp_path / "file").touch()
    two = job()
    two.write("checkpointconfig", {"LocalPath": str(tmp_path / "file")})
    assert "cannot be made" in refused(two)


def test_f19_sigkill_at_any_time(job, good, rng):
    """Checkpoints are written all the time here, so that most signals meet one half written."""
    one = job({**FOREVER, "optimizer": "adagrad"})
    folder = one.paths.base / "checkpoints"
    folder.mkdir()
    reached = 0
    for _ in range(4):
        process = one.start(OFTEN)
        log = wait_for(process, f"epoch={reached + 5}, train")
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        out, err = process.communicate()
        assert "Traceback" not in err and one.failure is None
        reached = max(reached, last_epoch(log + out)) if checkpoints(one) else 0
    epochs = {"epochs": str(reached + 3)}
    one.write("hyperparameters", {**SMALL, **FOREVER, "optimizer": "adagrad", **epochs})
    (folder / ".fm-algo-1.checkpoint.1-ab.sagemaker-ignore").write_bytes(b"half")
    assert "resumed from" in good(one)
    assert checkpoints(one) == ["fm-algo-1.checkpoint"]
    whole = job({**FOREVER, "optimizer": "adagrad", **epochs})
    good(whole)
    assert one.files == whole.files


# -- how a job ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "first"),
    [
        (DataError("x.csv row 3: no"), EXIT_USER, "ClientError: x.csv row 3: no"),
        (DataError("no", Advice("{ignore}", ignore=["t"])), EXIT_USER, "ClientError: no; ignore=t"),
        (DivergenceError("it\n  diverged"), EXIT_USER, "ClientError: it diverged"),
        (MemoryError(), EXIT_USER, "ClientError: out of memory; use a larger instance"),
        (OSError(28, "No space left on device", "/opt/x"), EXIT_USER, "ClientError: /opt/x: No sp"),
        (OSError("odd"), EXIT_USER, "ClientError: input or output: OSError"),
        (KeyError("x"), EXIT_INTERNAL, "AlgorithmError: KeyError: 'x'\nTraceback"),
    ],
)
def test_the_reason_of_a_failure_comes_first(error, code, first, tmp_path, capsys):
    def fail():
        raise error

    file = tmp_path / "output" / "failure"
    assert guarded(fail, file) == code
    assert file.read_text().startswith(first)
    err = capsys.readouterr().err
    assert err.startswith(first)
    assert ("Traceback" in err) == (code == EXIT_INTERNAL or isinstance(error, OSError))


def test_a_failure_file_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()

    def fail():
        raise DataError("wrong")

    assert guarded(fail, tmp_path / "file" / "failure") == EXIT_USER
    err = capsys.readouterr().err
    assert err.startswith("ClientError: wrong\n") and "cannot be written there" in err


def test_a_place_that_cannot_be_written_is_noticed_first(job, refused):
    one = job()
    one.paths.model.rmdir()
    one.paths.model.touch()
    assert f"{one.paths.model}: cannot be made" in refused(one)


def test_a_report_that_cannot_be_written_costs_no_model(job, good):
    one = job()
    (one.paths.base / "output").touch()
    assert "metrics.json: cannot be written" in good(one)


def test_the_program_takes_no_arguments(capsys):
    assert container.train.main(["--epochs", "3"]) == EXIT_USER
    assert "hyperparameters are read from" in capsys.readouterr().err


@pytest.mark.parametrize("positive", ["", "no"])
def test_labels_of_a_job_are_those_of_its_data(job, good, positive):
    lines = [f"{'yes' if i % 3 else 'no'},u{i % 7},f{i % 5}" for i in range(60)]
    content = "\n".join(["label,user,film", *lines, ""]).encode()
    parameters = {"predictor_type": "binary_classifier", "epochs": "2", "positive": positive}
    parts = {name: {"a.csv": content} for name in ("train", "validation", "test")}
    paths = job({k: v for k, v in parameters.items() if v}, parts)
    good(paths)
    expected = ("yes", "no") if positive else ("no", "yes")
    assert paths.model.labels == expected


def test_libsvm_labels_of_a_job(job, good):
    content = b"-1 1:1\n+1 2:1\n" * 20
    paths = job({"predictor_type": "binary_classifier", "epochs": "2"}, {"train": {"a": content}})
    good(paths)
    assert paths.model.labels == (-1, 1)
