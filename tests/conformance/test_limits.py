"""What the container may not have: network, a writable root, memory, a user (checks 20 and 21)."""

import json

import pytest

LIMITS = {
    "no network": [],
    "read-only": ["--read-only", "--tmpfs", "/tmp"],
    "no /dev/shm": ["--ipc", "none"],
    "user 1000": ["--user", "1000:1000"],
    "no capabilities": ["--cap-drop", "ALL"],
    "all of them": [
        "--read-only", "--tmpfs", "/tmp", "--ipc", "none", "--user", "1000:1000",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    ],
}  # fmt: skip

# GET /ping and POST /invocations from inside, where no port leads out
PROBE = """
import json, sys, time, urllib.request
url = "http://127.0.0.1:8080"
for _ in range(300):
    try:
        if urllib.request.urlopen(url + "/ping", timeout=2).status == 200:
            break
    except OSError:
        time.sleep(0.1)
body = b'{"instances": [{"data": {"features": {"keys": [3, 1000], "values": [1, 1]}}}]}'
request = urllib.request.Request(url + "/invocations", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""


def open_to_all(folder):
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)


@pytest.mark.parametrize("name", LIMITS)
def test_f20_trains(engine, job, name):
    """Without network each time, as all jobs here."""
    one = job()
    open_to_all(one.root)
    model = one.succeeded(one.run(engine, options=LIMITS[name]))
    free = job()
    assert free.succeeded(free.run(engine)) == model


@pytest.mark.parametrize("name", LIMITS)
def test_f20_serves(engine, regressor, name):
    """Without network and with a model that cannot be written to, each time."""
    options = ["-v", f"{regressor.model_dir}:/opt/ml/model:ro", "--network", "none"]
    with engine.start("serve", options=[*options, *LIMITS[name]]) as container:
        answer = container.execute("python", "-c", PROBE)
        log = container.log()
        assert '"predictions"' in answer, log
        expected = float(regressor.model.score_row([3, 1000]))
        assert json.loads(answer)["predictions"][0]["score"] == pytest.approx(expected, rel=1e-5)
        engine.docker("stop", "-t", "30", container.id, timeout=60)
        assert container.ended().code == 0


def test_f20_no_dev_shm_is_really_none(engine):
    ended = engine.run("sh", "-c", "test -d /dev/shm", options=["--ipc", "none"])
    assert ended.code == 1


def test_f20_no_writes_outside(engine, job):
    """What a job leaves in its own file system, besides temporary files, is nothing."""
    one = job()
    with one.start(engine) as container:
        assert container.ended(120).code == 0
        changed = engine.docker("diff", container.id).split("\n")
    allowed = ("/opt", "/tmp", "/run", "/dev", "/proc", "/sys", "/var/tmp", "/root/.cache")
    assert not [line for line in changed if line and not line[2:].startswith(allowed)]


def test_f21_half_a_gigabyte_serves(engine, classifier, held_out):
    options = ["-m", "512m", "--memory-swap", "512m"]
    with engine.serve(classifier.model_dir, options=options) as server:
        body = {"instances": [{"features": [1.0] * 2625}] * 10}
        for _ in range(20):
            assert len(server.post(body).scores()) == 10
        assert not engine.inspect(server.container.id, ".State.OOMKilled")


@pytest.mark.parametrize("path", ["/proc/none", "/etc/none"])
def test_f21_no_place_for_a_cache(engine, job, regressor, path):
    env = ["-e", f"NUMBA_CACHE_DIR={path}", "-e", "HOME=/none"]
    options = [*env, "--read-only", "--tmpfs", "/tmp", "--user", "1000:1000"]
    one = job()
    open_to_all(one.root)
    one.succeeded(one.run(engine, options=options))
    with engine.serve(regressor.model_dir, options=options) as server:
        assert server.ping() == 200
