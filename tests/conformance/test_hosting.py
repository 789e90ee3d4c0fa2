"""The server: readiness, formats, limits, batch, many models, signals (checks 22 to 34)."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import re
import shutil
import socket
import time

import numpy as np
import pytest
import records
import scipy.sparse as sp

import fm

from .engine import JSON, JSON_LINES, RECORDIO
from .movielens import NUM_FEATURES, dense_records, sparse_records

# -- bodies ----------------------------------------------------------------------------------------


def dense_json(X):
    return {"instances": [{"features": row.tolist()} for row in X]}


def dense_data_json(X):
    return {"instances": [{"data": {"features": {"values": row.tolist()}}} for row in X]}


def sparse_features(X, shape=True):
    for i in range(X.shape[0]):
        row = slice(X.indptr[i], X.indptr[i + 1])
        features = {"keys": X.indices[row].tolist(), "values": X.data[row].tolist()}
        if shape:
            features["shape"] = [X.shape[1]]
        yield {"data": {"features": features}}


def sparse_json(X, **how):
    return {"instances": list(sparse_features(X, **how))}


def lines(instances):
    return "".join(json.dumps(instance) + "\n" for instance in instances)


def padded(body, size):
    """The same JSON, with blanks behind its first bracket up to `size` bytes."""
    text = json.dumps(body)
    return f"{text[0]}{' ' * max(0, size - len(text))}{text[1:]}".encode()


# -- 22: ready or not ------------------------------------------------------------------------------


def test_f22_ready_in_two_seconds(engine, classifier):
    """From `docker run` to the first 200, the container's own start included."""
    start = time.monotonic()
    with engine.serve(classifier.model_dir) as server:
        seconds = time.monotonic() - start
        assert len(server.post(dense_json(np.zeros((1, NUM_FEATURES)))).scores()) == 1
    assert seconds < 4, f"{seconds:.2f} s"  # the goal is 2 s on a quiet machine


def test_f22_not_ready_before_the_model_is(engine, tmp_path):
    """A model of 500 MB takes a moment; until it answers, /ping says 503 or nobody answers."""
    n, k = 2_000_000, 64
    rng = np.random.default_rng(0)
    V = np.zeros((n, k), np.float32)
    V[:1000] = rng.normal(size=(1000, k))
    config = fm.TrainConfig(num_factors=k)
    model = fm.Model(w0=0.0, w=np.zeros(n, np.float32), V=V, config=config)
    model.save(tmp_path / "model.safetensors")
    seen, end = [], time.monotonic() + 60
    with engine.serve(tmp_path, wait=0) as server:
        while not seen or seen[-1] != 200:
            seen.append(server.ping(timeout=5))
            assert time.monotonic() < end, server.container.log()
        reply = server.post(sparse_json(sp.csr_matrix(([1.0, 1.0], [3, 9], [0, 2]), shape=(1, n))))
        assert reply.scores() == [pytest.approx(model.score_row([3, 9]), rel=1e-5)]
    assert set(seen) <= {None, 503, 200}, seen


def test_f22_ping_while_big_requests_are_answered(endpoint, rng):
    X = rng.normal(size=(400, NUM_FEATURES)).round(5)
    body = padded(dense_json(X), 20_000_000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        posted = [pool.submit(endpoint.post, body, timeout=120) for _ in range(8)]
        slowest, pings = 0.0, 0
        while not all(one.done() for one in posted):
            start = time.monotonic()
            assert endpoint.ping(timeout=10) == 200
            slowest, pings = max(slowest, time.monotonic() - start), pings + 1
            time.sleep(0.05)
        replies = [one.result() for one in posted]
    assert all(len(reply.scores()) == 400 for reply in replies)
    assert pings >= 3 and slowest < 2, f"{slowest:.2f} s"


BAD_MODELS = {
    "none": {},
    "other files": {"model.txt": b"x", "code/inference.py": b"print()"},
    "garbage": {"model.safetensors": b"\x00" * 1000},
    "empty": {"model.safetensors": b""},
    "truncated": None,
    "a damaged artefact": {"model_algo-1": b"PK\x03\x04" + b"x" * 100},
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_f22_no_model_no_200(engine, regressor, tmp_path, name):
    files = BAD_MODELS[name]
    if files is None:
        whole = (regressor.model_dir / "model.safetensors").read_bytes()
        files = {"model.safetensors": whole[: len(whole) // 2]}
    folder = tmp_path / "model"
    folder.mkdir()
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    with engine.serve(folder, wait=0) as server:
        end = time.monotonic() + 15
        while server.container.running and time.monotonic() < end:
            assert server.ping() != 200
            time.sleep(0.1)
        log = server.container.log()
        if server.container.running:
            assert server.ping() == 500
        else:
            assert server.container.ended().code != 0
        assert "model" in log and log.strip().splitlines()[-1]


# -- 23: ports -------------------------------------------------------------------------------------


def listening(container):
    """Return the ports on which anything in the container listens (state 0A of /proc/net/tcp)."""
    table = container.execute("sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null")
    return {
        int(words[1].rpartition(":")[2], 16)
        for words in map(str.split, table.splitlines())
        if len(words) > 3 and words[3] == "0A"
    }


def test_f23_the_port_it_is_told(engine, regressor):
    env = {"SAGEMAKER_BIND_TO_PORT": "9090", "SAGEMAKER_SAFE_PORT_RANGE": "21000-21999"}
    with engine.serve(regressor.model_dir, env=env, port=9090) as server:
        assert len(server.post(dense_json(np.zeros((1, NUM_FEATURES)))).scores()) == 1
        others = listening(server.container) - {9090}
        assert all(21000 <= port <= 21999 for port in others), others


def test_f23_nothing_else_listens(endpoint):
    assert listening(endpoint.container) == {8080}


def test_f23_a_port_that_is_none(engine, regressor):
    env = {"SAGEMAKER_BIND_TO_PORT": "many"}
    with engine.serve(regressor.model_dir, env=env, wait=0) as server:
        ended = server.container.ended(20)
        assert ended.code != 0 and "SAGEMAKER_BIND_TO_PORT" in ended.log


# -- 24 and 25: requests and answers ---------------------------------------------------------------


@pytest.mark.parametrize("which", ["endpoint", "regressor_endpoint"])
def test_f24_every_format_the_same_scores(request, which, held_out, rng):
    server = request.getfixturevalue(which)
    trained = request.getfixturevalue("classifier" if which == "endpoint" else "regressor")
    X = held_out[:50].X
    X.data[:] = rng.uniform(0.5, 1.5, X.nnz).round(3)  # exact in text
    D = X.toarray()
    model = trained.model
    expected = model.probabilities(X) if model.task.has_probabilities else model.scores(X)
    bodies = {
        "dense": (dense_json(D), JSON),
        "values": (dense_data_json(D), JSON),
        "sparse": (sparse_json(X), JSON),
        "no shape": (sparse_json(X, shape=False), JSON),
        "lines, dense": (lines(dense_json(D)["instances"]), JSON_LINES),
        "lines, sparse": (lines(sparse_features(X)), JSON_LINES),
        "lines, no end": (lines(sparse_features(X)).rstrip("\n"), JSON_LINES),
        "records": (sparse_records(X), RECORDIO),
        "records with labels": (sparse_records(X, np.ones(50, np.float32)), RECORDIO),
        "dense records": (dense_records(D), RECORDIO),
    }
    for name, (body, content_type) in bodies.items():
        found = server.post(body, content_type, JSON).scores()
        assert found == pytest.approx(expected, abs=1e-6, rel=1e-6), name
    for i in range(5):  # batch transform takes the frame off single records
        record = sparse_records(X[i])[8:]
        size = int.from_bytes(sparse_records(X[i])[4:8], "little")
        found = server.post(record[:size], RECORDIO, JSON).scores()
        assert found == [pytest.approx(expected[i], abs=1e-6)]


def test_f24_columns_have_the_place_of_features(endpoint, classifier):
    """One instance may be dense and another sparse, keys in any order, twice the same."""
    body = {
        "instances": [
            {"data": {"features": {"keys": [1000, 3], "values": [1, 1]}}},
            {"data": {"features": {"keys": [3, 1000, 3], "values": [0.5, 1, 0.5]}}},
            {"features": [float(i in (3, 1000)) for i in range(NUM_FEATURES)]},
            {"data": {"features": {"keys": [3, 1000], "values": [1, 1], "shape": [10_000]}}},
            {
                "data": {
                    "features": {"shape": [NUM_FEATURES], "keys": [3, 1000], "values": [1, 1]}
                },
                "configuration": {"top": 3},
            },
        ]
    }
    scores = endpoint.post(body).scores()
    assert scores == pytest.approx([scores[0]] * 5, abs=1e-6)


def test_f25_json(endpoint, regressor_endpoint, held_out):
    X = held_out[:200].X
    reply = endpoint.post(sparse_json(X))
    assert reply.type == JSON and list(reply.json()) == ["predictions"]
    predictions = reply.predictions()
    assert len(predictions) == 200
    for prediction in predictions:
        assert prediction.keys() == {"score", "predicted_label"}
        assert isinstance(prediction["predicted_label"], float)
        assert prediction["predicted_label"] == float(prediction["score"] >= 0.5)
        assert 0 <= prediction["score"] <= 1
    assert {p["predicted_label"] for p in predictions} == {0.0, 1.0}
    assert b'"predicted_label":1.0' in reply.body.replace(b" ", b"")
    predictions = regressor_endpoint.post(sparse_json(X)).predictions()
    assert all(prediction.keys() == {"score"} for prediction in predictions)


def test_f25_scores_are_float32_widened(regressor_endpoint, regressor, held_out):
    X = held_out[:20].X
    expected = regressor.model.scores(X, engine="scipy")
    found = regressor_endpoint.post(sparse_json(X)).scores()
    assert all(float(np.float32(score)) == score for score in found)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_f25_json_lines(endpoint, held_out):
    X = held_out[:30].X
    expected = endpoint.post(sparse_json(X)).predictions()
    for body, content_type in (
        (sparse_json(X), JSON),
        (lines(sparse_features(X)), JSON_LINES),
        (sparse_records(X), RECORDIO),
    ):
        reply = endpoint.post(body, content_type, JSON_LINES)
        assert reply.status == 200 and reply.type == JSON_LINES
        assert reply.text.endswith("\n")
        assert [json.loads(line) for line in reply.text.splitlines()] == expected


def test_f25_recordio(endpoint, regressor_endpoint, held_out):
    X = held_out[:30].X
    for server, names in (
        (endpoint, ["predicted_label", "score"]),
        (regressor_endpoint, ["score"]),
    ):
        expected = server.post(sparse_json(X)).predictions()
        reply = server.post(sparse_records(X), RECORDIO, RECORDIO)
        assert reply.status == 200 and reply.type == RECORDIO
        found = records.predictions(reply.body)
        assert found == expected and len(found) == 30
        assert all(sorted(prediction) == names for prediction in found)


def test_f25_order_is_kept(regressor_endpoint, regressor, ratings):
    X = ratings.X[:5000]
    found = regressor_endpoint.post(sparse_records(X), RECORDIO).scores()
    np.testing.assert_allclose(found, regressor.model.scores(X, engine="scipy"), rtol=1e-6)


def test_f25_named_columns(engine, job, few):
    """Our own form: the model knows the columns it was trained on."""
    rows = zip(few.user, few.film, few.rating.astype(int), strict=True)
    csv = "user,film,rating\n" + "".join(f"u{u},f{f},{r}\n" for u, f, r in rows)
    inputs = {"train": {"TrainingInputMode": "File", "ContentType": "text/csv"}}
    one = job(channels={"train": {"ratings.csv": csv.encode()}}, inputs=inputs)
    model = one.succeeded(one.run(engine))
    people = [{"user": "u1", "film": "f7"}, {"user": "a stranger", "film": "f7"}, {"film": "f7"}]
    with engine.serve(one.model_dir) as server:
        found = server.post({"instances": people}).scores()
        assert server.post(lines(people), JSON_LINES, JSON).scores() == found
    expected = model.predict([{"user": None, **person} for person in people])
    assert found == pytest.approx(expected, rel=1e-5)


# -- 26: edges -------------------------------------------------------------------------------------


def test_f26_an_empty_row_is_the_bias(regressor_endpoint, regressor):
    empty = sp.csr_matrix((2, NUM_FEATURES), dtype=np.float32)
    w0 = pytest.approx(regressor.model.w0, rel=1e-6)
    assert regressor_endpoint.post(sparse_json(empty)).scores() == [w0, w0]
    assert regressor_endpoint.post(sparse_records(empty), RECORDIO).scores() == [w0, w0]
    zeros = dense_json(np.zeros((1, NUM_FEATURES)))
    assert regressor_endpoint.post(zeros).scores() == [w0]


def test_f26_no_instances_no_predictions(endpoint, regressor_endpoint):
    for server in (endpoint, regressor_endpoint):
        reply = server.post({"instances": []})
        assert reply.status == 200 and reply.json() == {"predictions": []}


GOOD = {"data": {"features": {"keys": [0], "values": [1]}}}


def features(keys, values):
    return {"data": {"features": {"keys": keys, "values": values}}}


WRONG_INSTANCES = {
    "key too large": features([NUM_FEATURES], [1]),
    "key huge": features([10**18], [1]),
    "key beyond 64 bits": features([10**30], [1]),
    "key negative": features([-1], [1]),
    "key is a fraction": features([1.5], [1]),
    "key is a text": features(["a"], [1]),
    "key is null": features([None], [1]),
    "fewer values": features([1, 2], [1]),
    "more values": features([1], [1, 2]),
    "value is a text": features([1], ["x"]),
    "value is null": features([1], [None]),
    "value is a list": features([1], [[1]]),
    "value too large": features([1], [1e300]),
    "too short": {"features": [1.0] * (NUM_FEATURES - 1)},
    "too long": {"features": [1.0] * (NUM_FEATURES + 1)},
    "nested": {"features": [[1.0] * NUM_FEATURES]},
    "null": {"features": [None] * NUM_FEATURES},
    "no features": {"data": {}},
    "a number": 7,
    "nothing": None,
    "a text": "features",
    "empty": {},
}


@pytest.mark.parametrize("name", WRONG_INSTANCES)
def test_f26_a_wrong_instance_is_named(endpoint, name):
    body = {"instances": [GOOD, GOOD, WRONG_INSTANCES[name], GOOD]}
    reply = endpoint.post(body)
    assert reply.status == 400, reply.text[:500]
    assert re.search(r"instance (2|3)\b|instances\[2\]", reply.text), reply.text[:500]
    assert len(reply.body) < 2000 and "Traceback" not in reply.text
    assert endpoint.post({"instances": [GOOD]}).status == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_f26_numbers_that_json_has_not(endpoint, number):
    text = f'{{"instances": [{{"data": {{"features": {{"keys": [1], "values": [{number}]}}}}}}]}}'
    assert endpoint.post(text).status == 400


WRONG_BODIES = {
    "empty": (b"", JSON),
    "not JSON": (b"{'a': 1}", JSON),
    "cut": (json.dumps({"instances": [GOOD]})[:-3].encode(), JSON),
    "a list": (json.dumps([GOOD]).encode(), JSON),
    "no instances": (b'{"data": []}', JSON),
    "instances is no list": (b'{"instances": 3}', JSON),
    "not UTF-8": (b'{"instances": "\xff\xfe"}', JSON),
    "deep": (b"[" * 100_000 + b"]" * 100_000, JSON),
    "second line": ((json.dumps(GOOD) + "\n{'a'}\n").encode(), JSON_LINES),
    "no records": (b"", RECORDIO),
    "text as records": (b"1,2,3", RECORDIO),
    "cut record": (sparse_records(sp.csr_matrix(np.eye(3, dtype=np.float32)))[:-6], RECORDIO),
    "wide record": (
        sparse_records(sp.csr_matrix(([1.0], [NUM_FEATURES], [0, 1]), shape=(1, 5000))), RECORDIO,
    ),
    "NaN in a record": (dense_records(np.full((1, NUM_FEATURES), np.nan, np.float32)), RECORDIO),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_f26_a_wrong_body(endpoint, name):
    body, content_type = WRONG_BODIES[name]
    reply = endpoint.post(body, content_type)
    assert reply.status in ((400, 415) if content_type == RECORDIO else (400,)), reply.text[:500]
    assert reply.body and len(reply.body) < 2000 and "Traceback" not in reply.text


# -- 27: negotiation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("Application/JSON", JSON),
        ("application/json;verbose=true", JSON),
        ("application/jsonlines", JSON_LINES),
        ("application/jsonlines; verbose=true", JSON_LINES),
        ("application/x-recordio-protobuf", RECORDIO),
        ("text/html, application/jsonlines;q=0.5, application/json;q=0.9", JSON),
        ("application/jsonlines;q=0.9, application/json;q=0.5", JSON_LINES),
        ("application/json;q=0, application/jsonlines", JSON_LINES),
        ("text/html, */*;q=0.1", JSON),
        ("text/html", None),
        ("image/png, text/xml", None),
        ("application/json;q=0", None),
    ],
)
def test_f27_accept(endpoint, accept, expected):
    reply = endpoint.post({"instances": [GOOD]}, accept=accept)
    if expected is None:
        assert reply.status == 406, reply.text
    else:
        assert (reply.status, reply.type) == (200, expected)


def test_f27_without_accept_the_family_of_the_request(endpoint):
    for body, content_type, expected in (
        (json.dumps(GOOD), JSON_LINES, JSON_LINES),
        (sparse_records(sp.csr_matrix(([1.0], [0], [0, 1]), shape=(1, 5))), RECORDIO, JSON),
    ):
        for accept in (None, "*/*"):
            reply = endpoint.post(body, content_type, accept)
            assert (reply.status, reply.type) == (200, expected)


def test_f27_a_default_accept_of_the_model(engine, classifier):
    env = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": JSON_LINES}
    with engine.serve(classifier.model_dir, env=env) as server:
        assert server.post({"instances": [GOOD]}).type == JSON_LINES
        assert server.post({"instances": [GOOD]}, accept="*/*").type == JSON_LINES
        assert server.post({"instances": [GOOD]}, accept=JSON).type == JSON


def test_f27_accept_comes_before_the_work(endpoint):
    reply = endpoint.post(b"{not json", accept="text/html")
    assert reply.status == 406


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON", 200),
        (' application/json ;charset="UTF-8"', 200),
        ("image/jpeg", 415),
        ("text/html", 415),
        ("application/x-npy", 415),
        ("nonsense", 415),
    ],
)
def test_f27_content_type(endpoint, content_type, status):
    assert endpoint.post({"instances": [GOOD]}, content_type).status == status


def test_f27_no_content_type(endpoint):
    """Taken for JSON, or refused; never a failure of the server's own."""
    assert endpoint.post({"instances": [GOOD]}, None).status in (200, 415)


def test_f27_csv_and_libsvm_are_answered_where_the_built_in_says_415(endpoint):
    expected = endpoint.post({"instances": [features([3, 1000], [1, 1])]}).scores()
    row = ",".join("1" if i in (3, 1000) else "0" for i in range(NUM_FEATURES))
    assert endpoint.post(row + "\n", "text/csv", JSON).scores() == pytest.approx(expected)
    assert endpoint.post("3:1 1000:1\n", "text/libsvm", JSON).status == 200


# -- 28: sizes -------------------------------------------------------------------------------------


def test_f28_the_article_s_request(endpoint, classifier, held_out):
    """Ten dense rows by a serializer that writes every number."""
    X = held_out[:10].X
    reply = endpoint.post(json.dumps(dense_json(X.toarray())))
    expected = classifier.model.probabilities(X)
    assert reply.scores() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("megabytes", [6, 25, 100])
def test_f28_large_bodies(endpoint, held_out, megabytes):
    """As JSON of sparse instances, and as records."""
    X = held_out[:1000].X
    expected = endpoint.post(sparse_records(X), RECORDIO).scores()
    body = padded(sparse_json(X), megabytes << 20)
    assert endpoint.post(body, timeout=120).scores() == pytest.approx(expected)
    times = (megabytes << 20) // len(sparse_records(X))
    reply = endpoint.post(sparse_records(X) * times, RECORDIO, RECORDIO, timeout=120)
    assert reply.status == 200
    assert len(reply.body) > 1000 * times * 30


def test_f28_a_dense_body_of_25_megabytes(endpoint, rng):
    X = rng.normal(size=(1250, NUM_FEATURES)).round(4)
    body = json.dumps(dense_json(X))
    assert len(body) > 25_000_000
    assert len(endpoint.post(body, timeout=120).scores()) == 1250


@pytest.mark.parametrize("content_type", [JSON, RECORDIO])
def test_f28_chunked(endpoint, held_out, content_type):
    X = held_out[:3000].X
    body = json.dumps(sparse_json(X)).encode() if content_type == JSON else sparse_records(X)
    chunks = (body[i : i + 10_000] for i in range(0, len(body), 10_000))
    reply = endpoint.request(
        "POST", "/invocations", chunks,
        {"Content-Type": content_type, "Transfer-Encoding": "chunked"}, encode_chunked=True,
    )  # fmt: skip
    assert reply.scores() == endpoint.post(body, content_type).scores()


@pytest.mark.parametrize("chunked", [False, True])
def test_f28_a_body_over_the_limit(engine, regressor, chunked):
    env = {"MAX_CONTENT_LENGTH": "1000000"}
    with engine.serve(regressor.model_dir, env=env) as server:
        text, headers = b" " * 1_200_000, {"Content-Type": JSON}
        body = (text[i : i + 10_000] for i in range(0, len(text), 10_000)) if chunked else text
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        with contextlib.closing(server.connection()) as connection:
            # an honest server may answer, and close, before everything is sent
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", "/invocations", body, headers, encode_chunked=chunked)
            assert connection.getresponse().status == 413
        assert server.post({"instances": [GOOD]}).status == 200
        assert server.post(padded({"instances": [GOOD]}, 900_000)).status == 200


# -- 29 and 30: HTTP -------------------------------------------------------------------------------


def test_f29_headers_of_the_platform(endpoint):
    headers = {
        "X-Amzn-SageMaker-Custom-Attributes": "trace-id=" + "x" * 1000,
        "X-Amzn-SageMaker-Target-Variant": "AllTraffic",
        "X-Amzn-SageMaker-Inference-Id": "7",
        "X-Amzn-SageMaker-Session-Id": "8",
        "X-Amzn-SageMaker-Enable-Explanations": "`true`",
        "X-Unknown": "y" * 2000,
    }
    assert endpoint.post({"instances": [GOOD]}, headers=headers).status == 200


def test_f29_keep_alive(endpoint):
    """Fifty requests, with errors among them, over one connection."""
    connection = endpoint.connection()
    body = json.dumps({"instances": [GOOD]})
    connection.connect()
    first = connection.sock
    for number in range(50):
        bad = number % 5 == 4
        connection.request("POST", "/invocations", b"{" if bad else body, {"Content-Type": JSON})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == (400 if bad else 200)
        assert connection.sock is first, "the server closed the connection"
    connection.close()


def test_f29_expect_100_continue(endpoint):
    body = json.dumps({"instances": [GOOD]}).encode()
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as raw:
        raw.sendall(head)
        first = raw.recv(1000)
        assert first.startswith(b"HTTP/1.1 100"), first
        raw.sendall(body)
        rest = first.partition(b"\r\n\r\n")[2]
        while data := raw.recv(65536):
            rest += data
    assert rest.startswith(b"HTTP/1.1 200") and b'"predictions"' in rest


def test_f30_many_clients(endpoint, classifier, ratings):
    """Each asks for other rows, over its own connection, in every format; nothing is mixed up."""
    X = ratings.X
    expected = classifier.model.probabilities(X)
    encoders = {
        JSON: lambda X: json.dumps(sparse_json(X)),
        RECORDIO: sparse_records,
        JSON_LINES: lambda X: lines(sparse_features(X)),
    }

    def client(number):
        rng = np.random.default_rng(number)
        connection = endpoint.connection()
        for turn in range(30):
            rows = rng.integers(0, X.shape[0], rng.integers(1, 20))
            content_type, encode = list(encoders.items())[turn % 3]
            body = encode(X[rows])
            headers = {"Content-Type": content_type, "Accept": JSON}
            connection.request("POST", "/invocations", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content[:500]
            found = [one["score"] for one in json.loads(content)["predictions"]]
            np.testing.assert_allclose(found, expected[rows], atol=1e-6)
        connection.close()
        return True

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert all(pool.map(client, range(32)))


# -- 31: batch transform ---------------------------------------------------------------------------


def test_f31_execution_parameters(endpoint):
    reply = endpoint.get("/execution-parameters")
    assert reply.status == 200 and reply.type == JSON
    found = reply.json()
    assert found.keys() >= {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
    assert found["BatchStrategy"] in ("MULTI_RECORD", "SINGLE_RECORD")
    assert found["MaxConcurrentTransforms"] >= 1
    assert 1 <= found["MaxPayloadInMB"] <= 100
    assert found["MaxPayloadInMB"] * found["MaxConcurrentTransforms"] <= 100


@pytest.mark.parametrize("value", ["true", "True"])
def test_f31_batch(engine, classifier, held_out, value):
    """Bodies put one behind another are valid; records without Accept become lines."""
    env = {
        "SAGEMAKER_BATCH": value,
        "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "1",
    }
    X = held_out[:9].X
    expected = classifier.model.probabilities(X)
    with engine.serve(classifier.model_dir, env=env) as server:
        assert server.get("/execution-parameters").status == 200
        pieces = [sparse_records(X[:4]), sparse_records(X[4:])]
        replies = [server.post(piece, RECORDIO) for piece in pieces]
        assert {reply.type for reply in replies} == {JSON_LINES}
        text = "".join(reply.text for reply in replies)
        assert text.endswith("\n") and text.count("\n") == 9
        found = [json.loads(line)["score"] for line in text.splitlines()]
        assert found == pytest.approx(expected, abs=1e-6)
        single = server.post(lines(sparse_features(X[0])), JSON_LINES, JSON_LINES)
        assert single.text.endswith("\n") and single.text.count("\n") == 1
        # SplitType=Line with application/json: several documents in one body
        several = server.post(lines(sparse_features(X)), JSON, JSON_LINES)
        if several.status == 200:
            assert several.text.count("\n") == 9


# -- 32: many models -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory, regressor, classifier):
    """What the platform unpacks: /opt/ml/models/HASH/model for each model, with its hash."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, source in {"first": regressor, "second": classifier}.items():
        found[name] = hashlib.sha256(name.encode()).hexdigest()
        shutil.copytree(source.model_dir, folder / found[name] / "model")
    (folder / "bad" / "model").mkdir(parents=True)
    (folder / "bad" / "model" / "model.safetensors").write_bytes(b"x" * 100)
    return folder, found


@contextlib.contextmanager
def multi_model(engine, folder, **env):
    env = {"SAGEMAKER_MULTI_MODEL": "true", **env}
    options = ["-v", f"{folder}:/opt/ml/models:ro"]
    empty = folder.parent / "no-model"
    empty.mkdir(exist_ok=True)
    with engine.serve(empty, env=env, options=options) as server:
        yield server


def url(name):
    return f"/opt/ml/models/{name}/model"


def load(server, name):
    return server.post({"model_name": name, "url": url(name)}, path="/models")


def test_f32_the_life_of_models(engine, models, regressor, classifier, held_out):
    folder, names = models
    X = held_out[:5].X
    with multi_model(engine, folder) as server:
        assert server.get("/models").json()["models"] == []
        first, second = names["first"], names["second"]
        path = f"/models/{first}/invoke"
        assert server.post(sparse_json(X), path=path).status == 404
        assert load(server, first).status == 200
        assert load(server, first).status == 409
        assert load(server, second).status == 200

        found = {
            one["modelName"]: one["modelUrl"] for one in server.get("/models").json()["models"]
        }
        assert found == {first: url(first), second: url(second)}
        one = server.get(f"/models/{first}")
        assert one.status == 200 and first in one.text
        assert server.get("/models/unknown").status == 404

        header = {"X-Amzn-SageMaker-Target-Model": "ratings/first.tar.gz"}
        scores = server.post(sparse_json(X), path=path, headers=header).scores()
        assert scores == pytest.approx(regressor.model.scores(X), rel=1e-5)
        scores = server.post(sparse_records(X), RECORDIO, path=f"/models/{second}/invoke").scores()
        assert scores == pytest.approx(classifier.model.probabilities(X), abs=1e-6)

        assert server.request("DELETE", f"/models/{first}").status == 200
        assert server.post(sparse_json(X), path=path).status == 404
        assert server.request("DELETE", f"/models/{first}").status == 404
        assert server.post(sparse_json(X), path=f"/models/{second}/invoke").status == 200
        assert load(server, first).status == 200
        assert server.post(sparse_json(X), path=path).status == 200


def test_f32_what_cannot_be_loaded(engine, models):
    folder, names = models
    with multi_model(engine, folder) as server:
        for body in (
            {"model_name": "a", "url": "/opt/ml/models/none/model"},
            {"model_name": "b", "url": url("bad")},
            {"model_name": "c", "url": "/etc"},
            {"model_name": "d", "url": "/opt/ml/models/../../../etc/passwd"},
            {"model_name": "e"},
            {"url": url(names["first"])},
            {"model_name": 3, "url": url(names["first"])},
            [],
        ):
            reply = server.post(body, path="/models")
            assert 400 <= reply.status < 600 and reply.status not in (409, 507), body
        assert server.post(b"{", path="/models").status == 400
        assert server.ping() == 200 and server.get("/models").json()["models"] == []
        assert load(server, names["first"]).status == 200


def test_f32_pages(engine, models, regressor):
    folder, _ = models
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(5)]
    with multi_model(engine, folder) as server:
        for name in names:
            body = {"model_name": name, "url": url(models[1]["first"])}
            assert server.post(body, path="/models").status == 200
        seen, token = [], None
        while True:
            query = "?limit=2" + (f"&next_page_token={token}" if token else "")
            page = server.get(f"/models{query}").json()
            assert 1 <= len(page["models"]) <= 2
            seen += [one["modelName"] for one in page["models"]]
            token = page.get("nextPageToken")
            if not token:
                break
        assert sorted(seen) == sorted(names)


def test_f32_full_memory_says_507(engine, models, tmp_path):
    """The platform then unloads another model and asks again."""
    n, k = 300_000, 64
    config = fm.TrainConfig(num_factors=k)
    big = fm.Model(w0=0.0, w=np.zeros(n, np.float32), V=np.zeros((n, k), np.float32), config=config)
    folder = tmp_path / "models"
    (folder / "one" / "model").mkdir(parents=True)
    big.save(folder / "one" / "model" / "model.safetensors")
    options = ["-m", "512m", "--memory-swap", "512m", "-v", f"{folder}:/opt/ml/models:ro"]
    empty = tmp_path / "empty"
    empty.mkdir()
    env = {"SAGEMAKER_MULTI_MODEL": "true"}
    with engine.serve(empty, env=env, options=options) as server:
        names, status = [], 200
        while status == 200:
            names.append(f"model-{len(names)}")
            status = server.post(
                {"model_name": names[-1], "url": url("one")}, path="/models"
            ).status
            assert len(names) < 30, "models of 80 MB do not fit into 512 MB 30 times"
        assert status == 507 and len(names) > 1
        assert server.request("DELETE", f"/models/{names[0]}").status == 200
        reply = server.post({"model_name": "again", "url": url("one")}, path="/models")
        assert reply.status == 200, "what was deleted makes room"
        assert server.post({"instances": [GOOD]}, path="/models/again/invoke").status == 200
        assert not engine.inspect(server.container.id, ".State.OOMKilled")


# -- 33 and 34: signals, paths ---------------------------------------------------------------------


def test_f33_sigterm_finishes_what_was_accepted(engine, classifier, rng):
    X = rng.normal(size=(1500, NUM_FEATURES)).round(4)
    body = json.dumps(dense_json(X)).encode()
    with engine.serve(classifier.model_dir) as server:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            replies = [pool.submit(server.post, body, timeout=60) for _ in range(2)]
            time.sleep(0.35)  # sent, and being decoded
            ended = server.stop(grace=30)
            for reply in replies:
                assert len(reply.result().scores()) == 1500
    assert ended.code == 0, ended.log[-2000:]
    assert ended.seconds < 30


def test_f33_sigterm_half_way_through_a_body(engine, classifier, held_out):
    """A request whose body is still on its way is finished, too."""
    body = json.dumps(sparse_json(held_out[:100].X)).encode()
    head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with engine.serve(classifier.model_dir) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(head.encode() + body[:1000])
            time.sleep(0.3)
            server.container.kill("TERM")
            time.sleep(0.5)
            raw.sendall(body[1000:])
            answer = http.client.HTTPResponse(raw)
            answer.begin()
            assert answer.status == 200
            assert len(json.loads(answer.read())["predictions"]) == 100
        assert server.container.ended(30).code == 0


def test_f33_idle_clients_do_not_hold_it_up(engine, regressor):
    with engine.serve(regressor.model_dir) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        idle[0].sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        time.sleep(0.3)
        ended = server.stop(grace=40)
        for one in idle:
            one.close()
    assert ended.code == 0 and ended.seconds < 30


def test_f33_a_worker_that_is_killed_is_replaced(engine, regressor):
    """Or the container ends, and the platform starts another."""
    find = (
        "import os\n"
        "for p in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try:\n"
        "        stat = open(f'/proc/{p}/stat').read().rpartition(')')[2].split()\n"
        "    except OSError:\n"
        "        continue\n"
        "    if stat[1] == '1': print(p)\n"
    )
    with engine.serve(regressor.model_dir, env={"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}) as server:
        for pid in server.container.execute("python", "-c", find).split()[:1]:
            server.container.execute("python", "-c", f"import os; os.kill({pid}, 9)")
        time.sleep(1)
        if server.container.running:
            server.wait(10)
            for _ in range(20):
                assert server.post({"instances": [GOOD]}).status == 200
        else:
            assert server.container.ended().code != 0


@pytest.mark.parametrize(
    "path", ["/", "/invocation", "/ping/", "/ping/x", "/model", "/../etc/passwd"]
)
def test_f34_unknown_paths(endpoint, path):
    assert endpoint.get(path).status == 404
    assert endpoint.post({"instances": []}, path=path).status == 404


def test_f34_wrong_methods(endpoint):
    assert endpoint.get("/invocations").status == 405
    assert endpoint.request("DELETE", "/invocations").status == 405
    assert endpoint.request("POST", "/ping", b"").status == 405
    assert endpoint.request("HEAD", "/ping").status == 200
