"""Jobs of several hosts: the first one trains, the others wait for it."""

import re
import signal
import socket
import threading
import time

import pytest
from test_container_train import FOREVER, Job, good, job, refused, run, wait_for  # noqa: F401

from container import hosts
from container.hosts import DONE, Hosts


@pytest.fixture
def port(monkeypatch):
    """A port of this test's own, and its driver code for other processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    monkeypatch.setattr(hosts, "PORT", number)
    monkeypatch.setattr(hosts, "SECONDS_TO_CONNECT", 0.3)
    monkeypatch.setattr(hosts, "SECONDS_FOR_OTHERS", 0.3)
    return f"import container.hosts; container.hosts.PORT = {number}"


class NoStop:
    requested = False


def resources(current):
    """Names that this machine knows, and their order."""
    return {"current_host": current, "hosts": ["localhost", "127.0.0.1"]}


def test_what_the_file_says():
    assert Hosts.of({}) == Hosts("algo-1")
    found = Hosts.of({"current_host": "algo-2", "hosts": ["algo-3", "algo-2", "algo-1"]})
    assert found.others == ("algo-1", "algo-3") and found.first == "algo-1" and not found.trains
    assert Hosts.of({"current_host": "algo-1", "hosts": ["algo-2", "algo-1"]}).trains


@pytest.mark.parametrize("late", ["first", "other"])
def test_both_end_well_and_one_trains(late, tmp_path, port):
    jobs = {name: Job(tmp_path / name) for name in ("127.0.0.1", "localhost")}
    for name, one in jobs.items():
        one.write("resourceconfig", resources(name))
    names = sorted(jobs, reverse=late == "first")
    started = []
    for name in names:
        started.append(jobs[name].start(port))
        time.sleep(0.3)
    (first, out), (_, waited) = sorted(
        (name, process.communicate(timeout=60)[0])
        for name, process in zip(names, started, strict=True)
    )
    assert [process.returncode for process in started] == [0, 0]
    assert first == "127.0.0.1" and "#progress_metric: host=127.0.0.1, completed 100.0" in out
    assert "host 127.0.0.1 is done" in waited and "#" not in waited
    assert jobs["127.0.0.1"].model
    assert not jobs["localhost"].files and jobs["localhost"].failure is None


@pytest.mark.parametrize("who", ["first", "other"])
def test_signals(who, tmp_path, port):
    first, other = Job(tmp_path / "first", FOREVER), Job(tmp_path / "other", FOREVER)
    first.write("resourceconfig", resources("127.0.0.1"))
    other.write("resourceconfig", resources("localhost"))
    training, waiting = first.start(port), other.start(port)
    wait_for(training, "epoch=1, train")
    wait_for(waiting, "waits for its end")
    if who == "other":
        waiting.send_signal(signal.SIGTERM)
        out, _ = waiting.communicate(timeout=10)
        assert waiting.returncode == 0 and "host localhost was stopped" in out
        training.kill()
        training.communicate()
        return
    training.send_signal(signal.SIGTERM)
    training.communicate(timeout=10)
    out, _ = waiting.communicate(timeout=10)
    assert training.returncode == waiting.returncode == 0
    assert "host 127.0.0.1 is done" in out and first.model


def test_the_first_host_dies(port, caplog):
    """Its failure is the job's; another reason would hide it."""
    with socket.create_server(("", hosts.PORT)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        Hosts("localhost", ("127.0.0.1",)).wait()
        thread.join()
    assert "ended without a model" in caplog.text


def test_nobody_is_there(port, caplog):
    begun = time.monotonic()
    Hosts("localhost", ("127.0.0.1",)).wait()
    assert "host 127.0.0.1 cannot be reached" in caplog.text
    first = Hosts("127.0.0.1", ("localhost",))
    first.open()
    first.release(NoStop())
    assert "only 0 of 1 other hosts have connected" in caplog.text
    assert 0.5 < time.monotonic() - begun < 5


def test_the_port_is_taken(port, caplog):
    with socket.create_server(("", hosts.PORT)):
        first = Hosts("127.0.0.1", ("localhost",))
        first.open()
        first.release(NoStop())
    assert "cannot be opened" in caplog.text


def test_a_slow_host_is_waited_for(port):
    first = Hosts("127.0.0.1", ("localhost",))
    first.open()
    said = []

    def come_late():
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", hosts.PORT)) as connection:
            said.append(connection.recv(10))

    thread = threading.Thread(target=come_late)
    thread.start()
    first.release(NoStop())
    thread.join()
    assert said == [DONE]


def test_f36_shards_are_refused(job, refused):  # noqa: F811
    sharded = {"train": {"TrainingInputMode": "File", "S3DistributionType": "ShardedByS3Key"}}
    one = job(config=sharded)
    one.write("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]})
    reason = refused(one)
    assert re.search("channel train: S3DistributionType ShardedByS3Key .* one of the 2", reason)


def test_one_host_sees_all_shards(job, good):  # noqa: F811
    sharded = {"train": {"TrainingInputMode": "File", "S3DistributionType": "ShardedByS3Key"}}
    good(job(config=sharded))
