"""Start-up, hyperparameters, channels, logs (checks 1 to 12)."""

import gzip
import hashlib
import importlib.metadata
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from container.logs import METRIC_DEFINITIONS

from .conftest import ARTICLE, CHECKS, ROOT
from .engine import Job
from .movielens import NUM_FEATURES, sparse_records

NUMBER = r"(\S+)"


def test_every_check_has_a_test():
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert set(map(int, re.findall(r"^def test_f(\d\d)_", text, re.M))) == set(CHECKS)


# -- 1 to 3: start and end -------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["train"], []], ids=["train", "no argument"])
def test_f01_trains(engine, job, words):
    small = job()
    ended = engine.run(*words, options=small.options)
    assert small.succeeded(ended).num_features <= NUM_FEATURES


@pytest.mark.parametrize("entrypoint", ["train", "serve"])
def test_f01_train_and_serve_are_on_the_path(engine, job, regressor, entrypoint):
    if entrypoint == "train":
        small = job()
        small.succeeded(engine.run(options=[*small.options, "--entrypoint", "train"]))
        return
    options = ["--entrypoint", "serve"]
    with engine.serve(regressor.model_dir, options=options, command=()) as server:
        assert server.ping() == 200


def test_f01_serves(endpoint, held_out):
    instances = [{"data": {"features": {"keys": [3, 1000], "values": [1, 1]}}}]
    assert len(endpoint.post({"instances": instances}).scores()) == 1


def test_f01_other_commands_are_executed(engine):
    ended = engine.run("echo", "hi")
    assert (ended.code, ended.out) == (0, "hi\n")
    assert engine.run("sh", "-c", "exit 7").code == 7
    assert engine.run("no-such-command").code == 127
    # SDK 3 cleans up with this
    assert engine.run("chmod", "-R", "777", "/tmp").code == 0


def test_f02_entrypoint_and_labels(engine):
    config = engine.inspect(engine.image, ".Config")
    entrypoint = config["Entrypoint"] or []
    assert entrypoint[:2] not in (["/bin/sh", "-c"], ["sh", "-c"]), "signals would not arrive"
    assert config["Cmd"] == ["train"]
    labels = config["Labels"] or {}
    for name in ("accept-bind-to-port", "multi-models"):
        assert labels.get(f"com.amazonaws.sagemaker.capabilities.{name}") == "true"


def test_f02_the_image_holds_no_compiler(engine):
    ended = engine.run("sh", "-c", "command -v gcc cc g++ make")
    assert ended.code != 0, ended.out


def test_f02_the_image_is_small(engine):
    size = engine.inspect(engine.image, ".Size")
    assert size < 600e6, f"{size / 1e6:.0f} MB"


def test_f03_a_good_job(classifier, engine, job):
    assert classifier.ended.code == 0
    files = classifier.job.model_files()
    assert files and all(files.values())
    assert classifier.job.failure is None
    assert classifier.model.num_features == NUM_FEATURES and classifier.model.num_factors == 64
    for path in classifier.model_dir.rglob("*"):
        assert path.is_file() and not path.is_symlink()
        assert path.stat().st_mode & 0o444 == 0o444, "another user may serve it"
    # what a former run said is not left beside a good one
    again = job()
    (again.root / "output/failure").write_text("ClientError: an old reason")
    ended = again.run(engine)
    assert ended.code == 0 and again.model_files()


# -- 4 and 5: hyperparameters ----------------------------------------------------------------------


def test_f04_wrong_hyperparameters_are_all_named(engine, job):
    wrong = job(
        {"epoch": "3", "num_factors": "0", "mini_batch_size": "many", "bias_lr": "-1", "seeed": "1"}
    )
    wrong.write_config(
        "hyperparameters", {k: v for k, v in wrong.hyperparameters.items() if k != "predictor_type"}
    )
    ended = wrong.run(engine)
    reason = wrong.refused(ended)
    for name in ("epoch", "num_factors", "mini_batch_size", "bias_lr", "seeed", "predictor_type"):
        assert re.search(rf"\b{name}\b", reason), f"{name} is not named: {reason}"
    assert reason.strip() in ended.err, "the same text belongs on stderr"
    assert "Traceback" not in reason


def test_f04_a_reason_is_cut_not_lost(engine, job):
    wrong = job({f"no_such_hyperparameter_{i}": "1" for i in range(80)})
    reason = wrong.refused(wrong.run(engine))
    assert "no_such_hyperparameter_0" in reason


@pytest.mark.parametrize(
    "value", ["nan", "inf", "1e400", "3.5", "", "None", "0", "-1", "two", "[3]"]
)
def test_f04_epochs_out_of_range(engine, job, value):
    """Nothing but "not set" may stand for a number that is none."""
    one = job({"epochs": value, "patience": "1"})
    ended = one.run(engine)
    if value in ("", "None"):
        one.succeeded(ended)
    else:
        assert "epochs" in one.refused(ended)


def test_f04_files_that_are_not_json(engine, job):
    one = job()
    (one.root / "input/config/hyperparameters.json").write_text("{'a': 1")
    assert "hyperparameters.json" in one.refused(one.run(engine))


ORIGINS = {
    "SDK 2": {"use_bias": "True", "epochs": "3", "linear_wd": "1e-05", "seed": "4"},
    "SDK 3": {"use_bias": "true", "epochs": "3", "linear_wd": "1e-05", "seed": "4"},
    "frameworks": {"use_bias": '"true"', "epochs": '"3"', "linear_wd": '"1e-05"', "seed": '"4"'},
    "odd": {"use_bias": "1", "epochs": " 3.0 ", "linear_wd": "0.00001", "seed": "4.0"},
}
INJECTED = {
    "_tuning_objective_metric": "test:rmse",
    "_data_format": "record",
    "_kvstore": "auto",
    "_learning_rate": "1.0",
    "_log_level": "info",
    "_num_gpus": "auto",
    "_num_kv_servers": "auto",
    "_optimizer": "adam",
    "_use_full_symbolic": "true",
    "_wd": "1.0",
    "use_linear": "true",
    "batch_metrics_publish_interval": "500",
    "sagemaker_program": '"train.py"',
    "sagemaker_region": '"us-east-1"',
    "sagemaker_container_log_level": "20",
    "sagemaker_job_name": '"job"',
    "sagemaker_submit_directory": '"s3://bucket/source.tar.gz"',
}


def test_f05_strings_of_every_origin(engine, job):
    models = {}
    for origin, strings in ORIGINS.items():
        quoted = {"predictor_type": '"regressor"'} if origin == "frameworks" else {}
        one = job({**INJECTED, **strings, **quoted, "num_factors": "8"})
        models[origin] = one.succeeded(one.run(engine))
    first, *others = models.values()
    assert first.config.linear_wd == pytest.approx(1e-5) and first.config.seed == 4
    for other in others:
        assert other == first


def test_f05_an_empty_objective_and_the_article(engine, job, train_ratings):
    channels = {"train": train_ratings.records(train_ratings.liked)}
    one = job({**ARTICLE, "epochs": "1", "_tuning_objective_metric": ""}, channels)
    model = one.succeeded(one.run(engine))
    assert (model.num_features, model.num_factors) == (NUM_FEATURES, 64)
    assert model.task.has_probabilities


# -- 6 to 8: channels ------------------------------------------------------------------------------


def bad_value(few, row, value, *, column=None, label=None):
    X, y = few.X.copy(), few.rating.copy()
    if column is not None:
        X.indices[X.indptr[row]] = column
        X.has_sorted_indices = False
    if value is not None:
        X.data[X.indptr[row]] = value
    if label is not None:
        y[row] = label
    return raw_records(X, y)


def raw_records(X, y):
    """Records written by hand: what no writer of ours would write."""
    parts = []
    for i in range(X.shape[0]):
        row = slice(X.indptr[i], X.indptr[i + 1])
        values = X.data[row].astype("<f4").tobytes()
        keys = b"".join(varint(int(key)) for key in X.indices[row])
        tensor = field(1, values) + field(2, keys) + field(3, varint(X.shape[1]))
        label = field(1, struct.pack("<f", y[i]))
        payload = b"".join(
            field(number, field(1, b"values") + field(2, field(2, content)))
            for number, content in ((1, tensor), (2, label))
        )
        parts.append(frame(payload))
    return b"".join(parts)


def varint(number):
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def frame(payload, flag=0):
    head = struct.pack("<II", 0xCED7230A, flag << 29 | len(payload))
    return head + payload + bytes(-len(payload) % 4)


def test_f06_raw_records_are_what_the_writer_writes(few):
    assert raw_records(few.X, few.rating) == few.records()


BAD_CHANNELS = {
    # name: (hyperparameters, channel, what the reason must say)
    "text": ({}, lambda few: few.text().encode(), ["train.protobuf"]),
    "gzip of nothing": ({}, lambda few: gzip.compress(b"")[:12], ["train.protobuf"]),
    "truncated": ({}, lambda few: few.records()[:-7], ["train.protobuf", "record 600"]),
    "damaged": (
        {},
        lambda few: few.records()[:640] + b"junk" + few.records()[640:],
        ["train.protobuf", "record 11"],
    ),
    "key": (
        {"feature_dim": str(NUM_FEATURES)},
        lambda few: bad_value(few, 41, None, column=NUM_FEATURES),
        ["train.protobuf", "record 42", str(NUM_FEATURES)],
    ),
    "label": (
        {"predictor_type": "binary_classifier"},
        lambda few: few.records(np.where(np.arange(600) == 9, 2, few.liked)),
        ["train.protobuf", "record 10"],
    ),
    "value": ({}, lambda few: bad_value(few, 99, np.nan), ["train.protobuf", "record 100"]),
    "infinite": ({}, lambda few: bad_value(few, 99, np.inf), ["train.protobuf", "record 100"]),
    "target": (
        {},
        lambda few: bad_value(few, 7, None, label=np.nan),
        ["train.protobuf", "record 8"],
    ),
    "no label": ({}, lambda few: sparse_records(few.X), ["train.protobuf", "record 1", "label"]),
}


@pytest.mark.parametrize("name", BAD_CHANNELS)
def test_f06_wrong_data(engine, job, few, name):
    parameters, content, expected = BAD_CHANNELS[name]
    one = job(parameters, {"train": content(few)})
    reason = one.refused(one.run(engine))
    for pattern in expected:
        assert re.search(pattern, reason), f"{pattern} is not in {reason!r}"


def test_f06_in_the_second_file(engine, job, few):
    files = {"a.protobuf": few.records(), "b.protobuf": bad_value(few, 2, np.nan)}
    one = job(channels={"train": files})
    assert re.search(r"b\.protobuf.* record 3\b", one.refused(one.run(engine)))


def test_f06_in_the_test_channel(engine, job, few):
    one = job(channels={"train": few.records(), "test": few.records()[:-7]})
    assert re.search(r"test\.protobuf", one.refused(one.run(engine)))


def test_f06_no_train_channel(engine, job, few):
    one = job(channels={"test": few.records()})
    assert "train" in one.refused(one.run(engine))


def test_f06_an_empty_train_channel(engine, job):
    one = job(channels={"train": {}})
    assert "train" in one.refused(one.run(engine))
    one = job(channels={"train": {"empty.protobuf": b"", ".hidden": b"x"}})
    assert "train" in one.refused(one.run(engine))


def test_f06_a_configured_channel_that_is_not_there(engine, job, few):
    one = job(channels={"train": few.records()})
    inputs = {"train": {"TrainingInputMode": "File"}, "test": {"TrainingInputMode": "File"}}
    one.write_config("inputdataconfig", inputs)
    assert "test" in one.refused(one.run(engine))


def test_f07_what_local_mode_writes(engine, job):
    one = job(
        inputs={"train": {"TrainingInputMode": "File"}},
        resources={
            "current_host": "algo-1-syv00",
            "hosts": ["algo-1-syv00"],
            "network_interface_name": "eth0",
            "current_instance_type": "local",
        },
    )
    one.succeeded(one.run(engine))


@pytest.mark.parametrize("interface", ["ethwe", None])
def test_f07_an_interface_that_does_not_exist(engine, job, interface):
    resources = {"current_host": "algo-1", "hosts": ["algo-1"]}
    if interface:
        resources["network_interface_name"] = interface
    one = job(resources=resources)
    one.succeeded(one.run(engine))


CONTENT_TYPES = ["application/x-recordio-protobuf", "APPLICATION/X-RECORDIO-PROTOBUF; charset=x"]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_f07_the_content_type_of_the_built_in(engine, job, content_type):
    one = job(inputs={"train": {"TrainingInputMode": "File", "ContentType": content_type}})
    one.succeeded(one.run(engine))


@pytest.mark.parametrize("content_type", ["text/csv", "image/jpeg"])
def test_f07_a_content_type_that_is_not_what_is_there(engine, job, content_type):
    one = job(inputs={"train": {"TrainingInputMode": "File", "ContentType": content_type}})
    assert re.search(r"train|ContentType", one.refused(one.run(engine)))


def test_f07_the_formats_the_built_in_has_not(engine, job, few):
    """The same rows as CSV and libsvm, told by ContentType."""
    libsvm = "".join(
        f"{y:g} {u + 1}:1 {943 + f + 1}:1\n"
        for u, f, y in zip(few.user, few.film, few.rating, strict=True)
    ).encode()
    csv = b"rating,user,film\n" + b"".join(
        b"%d,u%d,f%d\n" % (y, u, f)
        for u, f, y in zip(few.user, few.film, few.rating.astype(int), strict=True)
    )
    for content_type, name, content in (
        ("text/libsvm", "part-0", libsvm),
        ("text/csv", "part-0.csv", csv),
    ):
        inputs = {"train": {"TrainingInputMode": "File", "ContentType": content_type}}
        one = job(channels={"train": {name: content}}, inputs=inputs)
        model = one.succeeded(one.run(engine))
        assert np.isfinite(model.V).all() and model.w.any()  # of so few rows maybe linear


def test_f08_files_of_a_channel(engine, job, few):
    """In the order of their paths; what is no data is left out."""
    whole = job()
    single = whole.succeeded(whole.run(engine))
    parts = [few[rows].records() for rows in (slice(0, 200), slice(200, 350), slice(350, None))]
    split = job(
        channels={
            "train": {
                "a/0/part-0": parts[0],
                "a/part-1.protobuf": parts[1],
                "b": parts[2],
                "a/empty": b"",
                "_SUCCESS": b"",
                "a/_SUCCESS": b"done",
                ".part-0.crc": b"crc",
                ".hidden/part-9": parts[0],
                "train.manifest": json.dumps([{"prefix": "s3://bucket/"}, "a/0/part-0"]).encode(),
            }
        }
    )
    assert split.succeeded(split.run(engine)) == single


# -- 9 and 10: what the log says -------------------------------------------------------------------

REGRESSION = {"rmse <loss>": "rmse", "mse <loss>": "mse", "absolute_loss <loss>": "absolute_loss"}
CLASSIFICATION = {
    "binary_classification_accuracy <score>": "binary_classification_accuracy",
    "binary_classification_cross_entropy <loss>": "binary_classification_cross_entropy",
    r"binary_f_\S+ <score>": r"binary_f_\S+",
}


def values(pattern, log):
    return [float(value) for value in re.findall(pattern, log)]


def test_f09_the_test_channel_is_scored_once(regressor, classifier, engine, job):
    for trained, metrics in ((regressor, REGRESSION), (classifier, CLASSIFICATION)):
        log = trained.ended.log
        for metric, name in metrics.items():
            line = values(rf"#quality_metric: host=\S+, test {metric}={NUMBER}", log)
            score = values(rf"#test_score \(algo-1\) : \('{name}', ([^)]+)\)", log)
            assert len(line) == len(score) == 1, f"{metric}: {line} and {score}"
            assert line == pytest.approx(score)
    without = job()
    ended = without.run(engine)
    without.succeeded(ended)
    assert "#test_score" not in ended.log and ", test " not in ended.log


def test_f09_the_figures_are_the_model_s(regressor, classifier, held_out):
    log = regressor.ended.log
    error = regressor.model.scores(held_out.X).astype(np.float64) - held_out.rating
    found = values(rf"#quality_metric: host=\S+, test \w+ <loss>={NUMBER}", log)
    mse = np.mean(error**2)
    assert found == pytest.approx([np.sqrt(mse), mse, np.mean(np.abs(error))], rel=1e-5)

    log = classifier.ended.log
    p = classifier.model.probabilities(held_out.X).astype(np.float64)
    y, guess = held_out.liked, p >= 0.5
    hits = np.sum(guess & (y == 1))
    expected = [
        np.mean(guess == y),
        -np.mean(np.log(np.where(y == 1, p, 1 - p))),
        2 * hits / (guess.sum() + y.sum()),
    ]
    found = values(rf"#quality_metric: host=\S+, test \S+ <\w+>={NUMBER}", log)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("which", ["regressor", "classifier"])
def test_f10_the_regexes_of_the_metrics(request, which):
    trained = request.getfixturevalue(which)
    log, epochs = trained.ended.log, len(trained.model.history)
    for metric in REGRESSION if which == "regressor" else CLASSIFICATION:
        epoch = values(rf"#quality_metric: host=\S+, epoch=\S+, train {metric}={NUMBER}", log)
        final = values(rf"#quality_metric: host=\S+, train {metric}={NUMBER}", log)
        test = values(rf"#quality_metric: host=\S+, test {metric}={NUMBER}", log)
        assert len(epoch) >= epochs and len(final) == 1 and len(test) == 1
        if which == "classifier":  # steps by mini-batches, as the built-in
            batch = values(
                rf"#quality_metric: host=\S+, epoch=\S+, batch=\S+ train {metric}={NUMBER}", log
            )
            assert len(epoch) == 10 and len(batch) == 10 * 4  # batches 0, 5, 10, 15 of 18
            assert final == epoch[-1:]
    progress = values(rf"#progress_metric: host=\S+, completed {NUMBER} %", log)
    assert progress == sorted(progress) and progress[-1] == 100
    throughput = values(
        rf"#throughput_metric: host=\S+, train throughput={NUMBER} records/second", log
    )
    assert len(throughput) >= epochs and min(throughput) > 0


def test_f10_lines_have_the_built_in_s_form(classifier):
    """Its prefix, its punctuation, its order within an epoch."""
    stamp = r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d INFO \d+\] "
    quality = [line for line in classifier.ended.log.splitlines() if "#quality_metric" in line]
    form = rf"{stamp}#quality_metric: host=algo-1, (epoch=\d+, (batch=\d+ )?)?(train|test) "
    for line in quality:
        assert re.match(form, line), line
    kinds = re.findall(
        r"#(quality|progress|throughput)_metric: host=algo-1, (\w+)",
        "\n".join(
            line
            for line in classifier.ended.log.splitlines()
            if "epoch=3, train" in line or "completed 40" in line
        ),
    )
    assert kinds == [("quality", "epoch")] * 3 + [("progress", "completed")]


@pytest.mark.parametrize("which", ["regressor", "classifier"])
def test_f10_metrics_lines_are_json(request, which):
    log = request.getfixturevalue(which).ended.log
    lines = re.findall(r"^#metrics (.*)$", log, re.M)
    assert lines
    seen = set()
    for line in lines:
        content = json.loads(line)
        assert content["StartTime"] <= content["EndTime"]
        assert content["Dimensions"]["Algorithm"] == "factorization-machines"
        assert content["Dimensions"]["Host"] == "algo-1"
        for metric in content["Metrics"].values():
            assert metric["count"] >= 1 and metric["min"] <= metric["max"]
        seen |= content["Metrics"].keys()
    assert {"epochs", "update.time", "totaltime", "Total Records Seen"} <= seen


def test_f10_a_failed_regex_is_not_hidden_by_colours(classifier, regressor):
    for trained in (classifier, regressor):
        assert "\x1b" not in trained.ended.log and "\r" not in trained.ended.log


def test_f10_metric_definitions_to_pass_on(engine, job, few):
    """For an image of one's own the platform has no regexes: each of these finds its metric."""
    given = {one["Name"]: one["Regex"] for one in METRIC_DEFINITIONS}
    assert len(METRIC_DEFINITIONS) == len(given) <= 40  # limits of the API
    assert all(len(name) <= 255 and len(regex) <= 500 for name, regex in given.items())
    binary = [f"binary_{name}" for name in ("classification_accuracy", "f_beta")]
    for metric in ("rmse", "mse", "absolute_loss", "binary_classification_cross_entropy", *binary):
        assert given.keys() >= {f"test:{metric}", f"train:{metric}", f"train:{metric}:epoch"}
    log = ""
    met = np.ones_like(few.liked)
    sides = {"user": "0:943", "item": "943:2625"}
    for task, labels, more in (
        ("regressor", few.rating, {}),
        ("binary_classifier", few.liked, {}),
        ("ranker", met, sides),
    ):
        parts = {"train": slice(200, 600), "test": slice(0, 100), "validation": slice(100, 200)}
        channels = {name: few[rows].records(labels[rows]) for name, rows in parts.items()}
        one = job({"predictor_type": task, **more}, channels)
        ended = one.run(engine)
        one.succeeded(ended)
        log += ended.log
    for name, regex in given.items():
        found = values(regex, log)
        assert found and all(np.isfinite(found)), name


# -- 11 and 12: the same model ---------------------------------------------------------------------

PIPE = """
set -e
cd /opt/ml/input/data
( sleep {delay}
  for epoch in 0 1 2; do
    [ -p {channel}_$epoch ] || mkfifo {channel}_$epoch
    cat /source/{channel}/* > {channel}_$epoch || exit 0
  done ) &
"""


@pytest.mark.parametrize("delay", [0, 2], ids=["at once", "late"])
def test_f11_pipe_mode(engine, job, few, tmp_path, delay):
    """The writer closes between epochs; a pipe that is not there yet will come."""
    channels = {
        "train": {"a": few[:300].records(), "b": few[300:].records()},
        "test": few[:200].records(),
    }
    file = job(channels=channels)
    expected = file.run(engine)
    model = file.succeeded(expected)
    source = Job(tmp_path / "source", {}, channels).root / "input/data"
    inputs = {name: {"TrainingInputMode": "Pipe", "RecordWrapperType": "None"} for name in channels}
    pipe = job(channels={}, inputs=inputs)
    script = "".join(PIPE.format(channel=name, delay=delay) for name in channels)
    ended = pipe.run(
        engine, "sh", "-c", script + "exec train", options=["-v", f"{source}:/source:ro"],
        timeout=120,
    )  # fmt: skip
    assert pipe.succeeded(ended) == model
    pattern = rf"#quality_metric: host=\S+, test rmse <loss>={NUMBER}"
    assert values(pattern, ended.log) == values(pattern, expected.log)


def digest(job):
    return {name: hashlib.sha256(data).hexdigest() for name, data in job.model_files().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "sagemaker"])
def test_f12_same_seed_same_bits(engine, job, few, optimizer):
    parameters = {"optimizer": optimizer, "seed": "11", "epochs": "5"}
    first, second = job(parameters), job(parameters)
    first.succeeded(first.run(engine))
    second.succeeded(second.run(engine))
    assert digest(first) == digest(second)
    other = job({**parameters, "seed": "12"})
    other.succeeded(other.run(engine))
    assert digest(other) != digest(first)


def test_f12_the_laptop_makes_the_same_file(engine, job, few, tmp_path):
    packages = ("numpy", "numba", "llvmlite")
    code = f"import importlib.metadata as m; print(*(m.version(p) for p in {packages}))"
    inside = engine.run("python", "-c", code).out.split()
    here = [importlib.metadata.version(package) for package in packages]
    if inside != here:
        pytest.skip(f"{packages} are {inside} in the image and {here} here")
    parameters = {"num_factors": "8", "epochs": "5", "seed": "3", "predictor_type": "regressor"}
    one = job(parameters)
    one.succeeded(one.run(engine))
    train = one.root / "input/data/train/train.protobuf"
    output = tmp_path / "laptop.safetensors"
    words = [word for name, value in parameters.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "fm.train", str(train), *words, "--output", str(output)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert one.model_files() == {"model.safetensors": output.read_bytes()}
