"""Signals, checkpoints, restarts (checks 16 to 19)."""

import random
import re
import time

import numpy as np
import pytest

from .conftest import ARTICLE
from .engine import Job
from .movielens import NUM_FEATURES

FOREVER = {"epochs": "1000000", "patience": "0"}
FIRST_EPOCH = "epoch=0, train"


@pytest.fixture(scope="module")
def channels(train_ratings, held_out):
    return {
        "train": train_ratings.records(train_ratings.liked),
        "test": held_out.records(held_out.liked),
    }


@pytest.fixture
def long_job(tmp_path, channels):
    def make(name="job", **parameters):
        return Job(tmp_path / name, {**ARTICLE, **FOREVER, **parameters}, channels)

    return make


def checkpoints(job):
    return [path for path in (job.root / "checkpoints").rglob("*") if path.is_file()]


def last_epoch(log):
    return max(int(number) for number in re.findall(r"epoch=(\d+), train", log))


def resumed_at(log):
    """Return the epoch at which the log says that training was resumed; None if it does not."""
    found = re.search(r"resum\w+\b[^\n]*\bepoch (\d+)", log, re.I)
    return int(found[1]) if found else None


@pytest.mark.parametrize("optimizer", ["sgd", "sagemaker"])
def test_f16_sigterm_leaves_a_model_and_a_checkpoint(engine, long_job, optimizer):
    job = long_job(optimizer=optimizer)
    with job.start(engine) as container:
        container.wait_for(FIRST_EPOCH)
        time.sleep(1)
        start = time.monotonic()
        engine.docker("stop", "-t", "120", container.id, timeout=150)
        seconds = time.monotonic() - start
        ended = container.ended()
    assert ended.code == 0, ended.log[-2000:]
    assert seconds < 5, f"{seconds:.1f} s"
    assert job.failure is None
    model = job.model()
    assert np.isfinite(model.V).all() and model.num_features == NUM_FEATURES
    assert checkpoints(job)
    assert not [path for path in checkpoints(job) if path.name.endswith(".sagemaker-ignore")]
    with engine.serve(job.model_dir) as server:
        assert len(server.post({"instances": [{"features": [0.0] * NUM_FEATURES}]}).scores()) == 1


@pytest.mark.parametrize("number", range(3))
def test_f16_sigterm_before_the_first_epoch(engine, long_job, number):
    """While the interpreter starts, or the data are read: an end in seconds, whatever is there."""
    job = long_job()
    with job.start(engine) as container:
        container.wait_for("train")
        time.sleep(0.3 * number)
        start = time.monotonic()
        engine.docker("stop", "-t", "60", container.id, timeout=90)
        assert time.monotonic() - start < 10
        assert container.ended().code != 137, "the signal was lost"


@pytest.mark.parametrize("optimizer", ["sgd", "sagemaker"])
def test_f17_resumes_after_sigterm(engine, long_job, optimizer):
    job = long_job(optimizer=optimizer)
    with job.start(engine) as container:
        container.wait_for(FIRST_EPOCH)
        time.sleep(0.5)
        engine.docker("stop", "-t", "60", container.id, timeout=90)
        reached = last_epoch(container.log())
    check_resumed(engine, job, long_job, reached, optimizer)


def test_f17_resumes_after_sigkill(engine, long_job):
    """As a spot instance that is gone: what the last checkpoint holds is not done again."""
    job = long_job(optimizer="sgd")
    with job.start(engine) as container:
        container.wait_for(FIRST_EPOCH)
        end = time.monotonic() + 60
        while not checkpoints(job):
            assert container.running, container.log()[-2000:]
            assert time.monotonic() < end, "no checkpoint in a minute of training"
            time.sleep(0.1)
        time.sleep(1.0)
        container.kill("KILL")
        reached = last_epoch(container.log())
    check_resumed(engine, job, long_job, reached, "sgd")


def check_resumed(engine, job, long_job, reached, optimizer):
    """The job goes on, and ends with the model of one that was never interrupted."""
    epochs = {"epochs": str(reached + 50)}
    job.write_config("hyperparameters", {**job.hyperparameters, **epochs})
    for path in job.model_dir.iterdir():  # the new instance has only the checkpoints
        path.unlink()
    ended = job.run(engine)
    found = job.succeeded(ended)
    at = resumed_at(ended.log)
    assert at is not None, ended.log[:3000]
    assert 0 < at <= reached + 2  # the last epoch may have ended without its line
    first_logged = int(re.search(r"epoch=(\d+), train", ended.log)[1])
    assert abs(first_logged - at) <= 1
    whole = long_job("whole", optimizer=optimizer, **epochs)
    assert whole.succeeded(whole.run(engine)) == found
    assert whole.model_files() == job.model_files()


DAMAGED = {
    "garbage": lambda content: b"\xff" * 5000,
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}
FOREIGN = ["feature_dim", "num_factors", "predictor_type", "data"]


@pytest.mark.parametrize("kind", [*DAMAGED, *FOREIGN])
def test_f18_a_bad_checkpoint_is_ignored_with_a_warning(engine, job, few, kind):
    parameters = {"feature_dim": str(NUM_FEATURES), "seed": "5"}
    before = dict(parameters)
    channels = {"train": few.records(few.liked)}
    if kind == "feature_dim":
        before["feature_dim"] = str(NUM_FEATURES + 10)
    elif kind == "num_factors":
        before["num_factors"] = "5"
    elif kind == "predictor_type":
        before["predictor_type"] = "binary_classifier"
    elif kind == "data":
        channels = {"train": few[:500].records(few.liked[:500])}
    first = job(before, channels)
    first.succeeded(first.run(engine))
    written = checkpoints(first)
    assert written, "a finished job leaves its checkpoint"

    second = job(parameters, {"train": few.records(few.liked)})
    for path in written:
        target = second.root / "checkpoints" / path.relative_to(first.root / "checkpoints")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(DAMAGED.get(kind, bytes)(path.read_bytes()))
    ended = second.run(engine)
    found = second.succeeded(ended)
    assert re.search(r"WARN.*checkpoint|checkpoint.*ignored", ended.log, re.I), ended.log[:3000]
    assert resumed_at(ended.log) is None
    fresh = job(parameters, {"train": few.records(few.liked)})
    assert fresh.succeeded(fresh.run(engine)) == found


def test_f18_the_platform_s_own_files_are_ignored(engine, job):
    one = job()
    for name in ("x.sagemaker-uploading", "x.sagemaker-uploaded", "y.tmp.sagemaker-ignore"):
        (one.root / "checkpoints" / name).write_bytes(b"junk")
    one.succeeded(one.run(engine))


def test_f18_no_checkpoints_without_the_folder(engine, job):
    one = job()
    (one.root / "checkpoints").rmdir()
    one.succeeded(one.run(engine))


def test_f19_sigkill_at_any_time(engine, tmp_path, few):
    """Most of them while a checkpoint of 150 MB is written on SIGTERM."""
    draw = random.Random(3)
    parameters = {
        "predictor_type": "regressor", "feature_dim": "250000", "num_factors": "64",
        "optimizer": "adagrad", **FOREVER,
    }  # fmt: skip
    job = Job(tmp_path / "job", parameters, {"train": few.records()})
    for number in range(8):
        with job.start(engine) as container:
            container.wait_for("train" if number % 4 == 3 else "throughput_metric")
            time.sleep(draw.uniform(0, 0.5))
            if number % 4 != 3:
                container.kill("TERM")
                time.sleep(draw.uniform(0, 0.6))
            if container.running:
                engine.docker("kill", container.id, check=False)
            log = container.log()
        assert "Traceback" not in log and job.failure is None, log[-3000:]
    job.write_config("hyperparameters", {**parameters, "epochs": "2"})
    job.succeeded(job.run(engine))
