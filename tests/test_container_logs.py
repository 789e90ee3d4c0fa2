"""The lines of a training log: those of a real run of the built-in, and their figures."""
# ruff: noqa: F811  (fixtures of test_container_train)

import contextlib
import gzip
import io
import json
import logging
import re

import numpy as np
import pytest
import scipy.sparse as sp
from test_container_train import LIKED, RATING, SMALL, Job, good, job, records, run  # noqa: F401

from container.logs import METRIC_DEFINITIONS, epochs_done, start_logging, sums
from fm.errors import Advice
from fm.formats.recordio import write_spmatrix_to_sparse_tensor
from fm.tasks import CLASSIFIER, REGRESSOR
from fm.tasks import TASKS as RECORDS

NUMBER = r"(-?\d[\d.e+-]*)"


def found(name, log):
    """What the platform finds for a metric of METRIC_DEFINITIONS."""
    (regex,) = [each["Regex"] for each in METRIC_DEFINITIONS if each["Name"] == name]
    return [float(value) for value in re.findall(regex, log)]


def names():
    return [each["Name"] for each in METRIC_DEFINITIONS]


# -- the definitions -------------------------------------------------------------------------------


def test_the_platform_takes_the_definitions():
    assert len(METRIC_DEFINITIONS) <= 40 and len(set(names())) == len(names())
    for each in METRIC_DEFINITIONS:
        assert set(each) == {"Name", "Regex"}
        assert len(each["Name"]) <= 255 and len(each["Regex"]) <= 500
        assert re.compile(each["Regex"]).groups == 1


# Lines of published logs of the built-in, and what its own definitions find in them.
PUBLISHED = {
    "test:rmse": "#quality_metric: host=algo-1, test rmse <loss>=1.0002629948968227",
    "test:mse": "#quality_metric: host=algo-1, test mse <loss>=1.000526058959961",
    "test:absolute_loss": "#quality_metric: host=algo-1, test absolute_loss <loss>=0.7952481",
    "test:binary_classification_accuracy":
        "#quality_metric: host=algo-1, test binary_classification_accuracy <score>=0.693107",
    "test:binary_classification_cross_entropy":
        "#quality_metric: host=algo-1, test binary_classification_cross_entropy <loss>=0.578525",
    "test:binary_f_beta": "#quality_metric: host=algo-1, test binary_f_1.000 <score>=0.733616",
    "train:rmse": "#quality_metric: host=algo-1, epoch=0, batch=0 train rmse <loss>=3.846082752",
    "train:rmse:epoch": "#quality_metric: host=algo-1, epoch=0, train rmse <loss>=1.8169458122",
    "train:progress": "#progress_metric: host=algo-1, completed 2.0 % of epochs",
    "train:throughput":
        "#throughput_metric: host=algo-1, train throughput=229405.34775444906 records/second",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_definitions_find_the_built_in_s_lines(name):
    line = f"[04/21/2023 14:26:45 INFO 139893122135872] {PUBLISHED[name]}"
    assert found(name, line) == [float(re.findall(NUMBER, PUBLISHED[name])[-1])]
    for other in set(names()) - {name}:
        assert found(other, line) == []


# -- F9 and F10: the lines of a job ----------------------------------------------------------------


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Return a job and its log; made once for each set of hyperparameters."""
    made = {}

    def log(task, optimizer):
        if (task, optimizer) not in made:
            rows = {"train": slice(None), "test": slice(0, 90), "validation": slice(90, 200)}
            if optimizer == "sagemaker":
                del rows["validation"]
            y = LIKED if task == CLASSIFIER else RATING
            data = {name: records(rows=part, y=y) for name, part in rows.items()}
            given = {
                "predictor_type": task, "optimizer": optimizer, "epochs": "6",
                "mini_batch_size": "60", "batch_metrics_publish_interval": "3",
            }  # fmt: skip
            one = Job(tmp_path_factory.mktemp("log") / "job", given, data)
            process = one.start()
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            made[task, optimizer] = one, out
        return made[task, optimizer]

    return log


TASKS = {
    REGRESSOR: ["rmse", "mse", "absolute_loss"],
    CLASSIFIER: [
        "binary_classification_accuracy",
        "binary_classification_cross_entropy",
        "binary_f_beta",
    ],
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("optimizer", ["sgd", "sagemaker"])
def test_f10_every_definition_finds_its_lines(task, optimizer, log):
    one, out = log(task, optimizer)
    epochs = len(one.model.history)
    for name in TASKS[task]:
        assert len(found(f"test:{name}", out)) == 1
        assert len(found(f"train:{name}:epoch", out)) == epochs
        assert len(found(f"train:{name}", out)) == epochs * 3  # batches 0, 3, 6 of 7
        final = re.findall(rf"algo-1, train {name.replace('f_beta', r'f_1.000')} <\w+>=(\S+)", out)
        assert len(final) == 1
        assert float(final[0]) in found(f"train:{name}:epoch", out)
        if optimizer == "sgd":
            assert len(found(f"validation:{name}:epoch", out)) == epochs
            (kept,) = found(f"validation:{name}", out)
            assert kept in found(f"validation:{name}:epoch", out)
        else:
            assert found(f"validation:{name}:epoch", out) == []
            assert float(final[0]) == found(f"train:{name}:epoch", out)[-1]
    progress = found("train:progress", out)
    assert progress == sorted(progress) and progress[-1] == 100
    assert len(found("train:throughput", out)) == epochs
    assert all(value > 0 for value in found("train:throughput", out))
    other = TASKS[CLASSIFIER if task == REGRESSOR else REGRESSOR]
    assert not any(found(f"test:{name}", out) for name in other)


def test_f09_the_test_channel_is_scored_once(log, job, good):
    one, out = log(CLASSIFIER, "sgd")
    scores = re.findall(r"#test_score \(algo-1\) : \('(\S+)', (\S+)\)", out)
    lines = re.findall(r"#quality_metric: host=algo-1, test (\S+) <\w+>=(\S+)", out)
    assert scores == lines and [name for name, _ in scores] == [
        "binary_classification_accuracy", "binary_classification_cross_entropy", "binary_f_1.000",
    ]  # fmt: skip
    assert "#test_score" not in good(job())


@pytest.mark.parametrize(
    ("task", "metrics"), [(REGRESSOR, "rmse mse mae"), (CLASSIFIER, "accuracy log_loss f1")]
)
def test_the_lines_are_those_of_the_model_and_of_fit(task, metrics, log):
    one, out = log(task, "sgd")
    history = one.model.history
    for metric, name in zip(metrics.split(), TASKS[task], strict=True):
        assert found(f"validation:{name}:epoch", out) == [epoch[metric] for epoch in history]
        assert found(f"validation:{name}", out) == [one.model.metrics[metric]]
    name = "mse" if task == REGRESSOR else "binary_classification_cross_entropy"
    factor = 2 if task == REGRESSOR else 1  # what is minimised is half the squared error
    losses = [factor * epoch["loss"] for epoch in history]
    assert found(f"train:{name}:epoch", out) == pytest.approx(losses, rel=1e-5)


def test_f10_metrics_lines_are_json(log):
    _, out = log(REGRESSOR, "sgd")
    seen = {}
    for line in re.findall(r"^#metrics (.*)$", out, re.M):
        content = json.loads(line)
        assert content["StartTime"] <= content["EndTime"]
        assert content["Dimensions"].items() >= {
            "Algorithm": "factorization-machines", "Host": "algo-1", "Operation": "training",
        }.items()  # fmt: skip
        for name, values in content["Metrics"].items():
            assert values == {
                "sum": values["min"],
                "count": 1,
                "min": values["max"],
                "max": values["max"],
            }
            seen[name] = values["sum"]
    assert seen["epochs"] == 6 and seen["totaltime"] > seen["update.time"] > 0
    assert seen["Total Records Seen"] == 90  # the last ones are those of the test channel
    assert "\x1b" not in out and "\r" not in out


def test_lines_go_out_one_by_one(tmp_path):
    """They are read while the job runs: nothing waits in a buffer."""
    one = Job(tmp_path / "job", {"epochs": "1000000", "patience": "0"})
    process = one.start()
    with contextlib.closing(process.stdout):
        for line in process.stdout:
            if "#progress_metric" in line:
                break
        process.kill()
    process.stderr.close()
    assert process.wait() == -9


def shapes(text):
    """The lines that tell metrics, without their numbers."""
    lines = []
    for line in text.splitlines():
        if line.startswith("#metrics "):
            content = json.loads(line.removeprefix("#metrics "))
            about = {k: v if isinstance(v, str) else 0 for k, v in content["Dimensions"].items()}
            if about.get("Meta") == "init_train_data_iter":
                continue  # the built-in's pipeline looks at the first batch; ours does not
            lines.append((sorted(about.items()), list(content["Metrics"])))
        elif re.match(r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d INFO \d+\] #", line):
            lines.append(re.sub(r"\d[\d.]*(e-?\d+)?", "0", line))
    return lines


def movielens(path, binary, seed=None):
    """RecordIO of a file of MovieLens 100K, as the article writes it."""
    table = np.loadtxt(gzip.open(path, "rt"), dtype=np.int64)
    if seed is not None:
        table = np.random.default_rng(seed).permutation(table)
    columns = np.stack([table[:, 0] - 1, 942 + table[:, 1]], axis=1).ravel()
    parts = np.ones(columns.size, np.float32), columns, np.arange(0, columns.size + 1, 2)
    y = (table[:, 2] >= 4 if binary else table[:, 2]).astype(np.float32)
    file = io.BytesIO()
    write_spmatrix_to_sparse_tensor(file, sp.csr_matrix(parts, (len(y), 2625)), y)
    return file.getvalue()


ARTICLE = {"feature_dim": "2625", "mini_batch_size": "1000", "num_factors": "64"}


def test_f10_f13_the_log_of_a_real_run(shared_data, job, good):
    """R2, a regressor of 2023: line by line its log, and its figures within their spread."""
    folder = shared_data / "ml-100k"
    data = {
        n: movielens(folder / f"u1.{f}.gz", False) for n, f in (("train", "base"), ("test", "test"))
    }
    parameters = {
        "predictor_type": "regressor", "optimizer": "sagemaker", "epochs": "50",
        "bias_init_method": "constant", "bias_init_value": "0.00658",  # by the log's first batch
    }  # fmt: skip
    log = good(job({**ARTICLE, **parameters}, data))
    with gzip.open(shared_data / "sagemaker-builtin-fm" / "train-log.txt.gz", "rt") as file:
        theirs = file.read()
    assert shapes(log) == shapes(theirs)
    epochs = found("train:rmse:epoch", log)
    assert epochs[:4] == pytest.approx([1.81695, 1.11127, 1.10399, 1.09612], abs=0.003)
    assert epochs[49] == pytest.approx(found("train:rmse:epoch", theirs)[49], abs=0.003)
    assert found("train:rmse", log)[0] == pytest.approx(3.846, abs=0.02)
    assert 0.998 <= found("test:rmse", log)[0] <= 1.004


def test_f13_the_article_s_run(shared_data, job, good):
    """R1, a classifier of 2019, by its log."""
    folder = shared_data / "ml-100k"
    data = {"train": movielens(folder / "ua.base.gz", True, seed=0),
            "test": movielens(folder / "ua.test.gz", True)}  # fmt: skip
    parameters = {"predictor_type": "binary_classifier", "epochs": "100"}
    log = good(job({**ARTICLE, **parameters, "optimizer": "sagemaker"}, data))
    name = "binary_classification"
    entropy = found(f"train:{name}_cross_entropy:epoch", log)
    assert entropy[:2] == pytest.approx([0.683922, 0.673967], abs=0.0005)
    # The rows that fill up the last batch count: without them these are .5510 and .7100.
    assert found(f"train:{name}_accuracy:epoch", log)[0] == pytest.approx(0.548418, abs=0.001)
    assert found("train:binary_f_beta:epoch", log)[0] == pytest.approx(0.708210, abs=0.001)
    assert entropy[99] == pytest.approx(0.511619, abs=0.004)
    assert found(f"test:{name}_accuracy", log) == [pytest.approx(0.6931, abs=0.006)]
    assert found(f"test:{name}_cross_entropy", log) == [pytest.approx(0.5785, abs=0.005)]
    assert found("test:binary_f_beta", log) == [pytest.approx(0.7336, abs=0.012)]
    # and with our own optimizer
    log = good(job({**ARTICLE, **parameters}, data))
    assert found(f"test:{name}_accuracy", log)[0] > 0.705
    assert found(f"test:{name}_cross_entropy", log)[0] < 0.565


# -- after a restart -------------------------------------------------------------------------------


def quality(log):
    return re.findall(r"#quality_metric: host=algo-1, (.*)", log)


def with_checkpoints(job):
    (job.paths.base / "checkpoints").mkdir()
    return job


def test_the_second_training_counts_on_after_a_restart(job, good):
    one = with_checkpoints(job({"validation_fraction": "0.2"}, {"train": records()}))
    whole = quality(good(one))
    again = quality(good(one))  # the first training is over, the second is done again
    assert again[0].startswith("epoch=3, batch=0 train")
    assert again == whole[-len(again) :]


def test_the_kept_epoch_s_figures_are_its_own_after_a_restart(job, good):
    data = {"train": records(), "validation": records(y=6 - RATING)}  # gets worse with each epoch
    whole = quality(good(job({"epochs": "4"}, data)))
    assert whole[-6].startswith("train rmse") and f"epoch=0, {whole[-6]}" in whole
    one = with_checkpoints(job({"epochs": "2"}, data))
    good(one)
    one.write("hyperparameters", {**SMALL, "epochs": "4"})
    log = good(one)
    assert one.model.metrics["epoch"] == 1 and "resumed from" in log
    unknown = [line for line in whole if line.startswith("train ")]
    start = next(i for i, line in enumerate(whole) if line.startswith("epoch=2, "))
    assert quality(log) == [line for line in whole[start:] if line not in unknown]


def test_a_count_that_cannot_be_read_is_none(tmp_path):
    assert epochs_done(tmp_path / "none") == 0
    (tmp_path / "damaged").write_bytes(b"half")
    assert epochs_done(tmp_path / "damaged") == 0


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_parts_make_the_metrics_of_fm(task, weighted, rng, monkeypatch):
    scores = rng.normal(size=1000).astype(np.float32)
    y = rng.normal(size=1000) if task == REGRESSOR else rng.integers(0, 2, 1000)
    weight = rng.uniform(0, 3, 1000).astype(np.float32) if weighted else None
    y = y.astype(np.float32)
    total, record = 0.0, RECORDS[task]
    for part in np.split(np.arange(1000), [100, 101, 700]):
        some = None if weight is None else weight[part]
        total = total + sums(record, scores[part], y[part], some)
    expected = record.measure(scores, y, weight)
    for name, value in record.of_sums(*total).items():
        assert value == pytest.approx(expected[name], rel=1e-9)


def test_no_label_1_at_all():
    record = RECORDS[CLASSIFIER]
    total = sums(record, np.array([-1.0, -2.0]), np.array([0.0, 0.0]), None)
    assert record.of_sums(*total)["f1"] == 0


def test_advice_in_the_log_names_hyperparameters(monkeypatch):
    stream, log = io.StringIO(), logging.getLogger("fm")
    for name in ("handlers", "propagate", "level"):
        monkeypatch.setattr(log, name, getattr(log, name))  # to be set back
    start_logging(stream)
    advice = Advice("scale {standardize}, give {num_features}", standardize=True, num_features=9)
    log.warning("%s: large; %s", "x.csv", advice)
    assert stream.getvalue().endswith(
        "] x.csv: large; scale standardize=true, give feature_dim=9\n"
    )
