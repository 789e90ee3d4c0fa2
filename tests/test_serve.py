"""The application: forms of bodies, forms of answers, refusals; no sockets."""

import csv
import dataclasses
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import records
import scipy.sparse as sp

from fm.config import TrainConfig
from fm.encoding.encoder import Encoder
from fm.errors import ConfigError
from fm.formats.recordio import write_numpy_to_dense_tensor, write_spmatrix_to_sparse_tensor
from fm.formats.svmlight import write_libsvm
from fm.model.builtin import write_artifact
from fm.model.load import load
from fm.model.model import Model
from fm.serving import bodies
from fm.serving.application import create_app
from fm.serving.limits import Limits, cores, memory
from fm.serving.media import ANSWER_TYPES, Refusal, answer_type, content_of_type
from fm.serving.store import ModelStore
from fm.tasks import CLASSIFIER, REGRESSOR

WIDTH = 40
JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
RECORDIO, LIBSVM = "application/x-recordio-protobuf", "text/libsvm"


def numbered(task, width=WIDTH):
    rng = np.random.default_rng(5)
    V = rng.normal(size=(width, 8)) / 4
    return Model(0.25, rng.normal(size=width), V, TrainConfig(task, 8))


def named(task):
    table = {"user": [1, 42], "film": ["Alien (1979)", "Brazil"], "age": [30, 40]}
    encoder = Encoder.fit(table, categorical=["user", "film"], numeric=["age"], standardize=True)
    rng = np.random.default_rng(6)
    n = encoder.num_features
    return Model(
        1.5,
        rng.normal(size=n),
        rng.normal(size=(n, 4)),
        TrainConfig(task, 4),
        encoder=encoder,
        fields=encoder.fields,
        field_names=encoder.field_names,
    )


@pytest.fixture(params=(REGRESSOR, CLASSIFIER))
def task(request):
    return request.param


@pytest.fixture(scope="module")
def client():
    """A client of a regressor."""
    return create_app(numbered(REGRESSOR)).test_client()


@pytest.fixture(scope="module")
def named_client():
    return create_app(named(REGRESSOR)).test_client()


def matrix(rows=30, seed=0):
    """Rows with empty ones among them; the first and the last feature occur."""
    X = sp.random(rows, WIDTH, 0.1, format="csr", random_state=seed, dtype=np.float32).tolil()
    X[1], X[0, 0], X[rows - 1, WIDTH - 1] = 0, 0.5, 2
    return X.tocsr()


def sparse(X):
    parts = zip(X.indptr[:-1], X.indptr[1:], strict=True)
    rows = [(X.indices[a:b].tolist(), X.data[a:b].tolist()) for a, b in parts]
    shape = [X.shape[1]]
    return [{"data": {"features": {"keys": k, "values": v, "shape": shape}}} for k, v in rows]


def to_json(instances):
    return json.dumps({"instances": instances}).encode()


def to_lines(instances):
    return "".join(json.dumps(instance) + "\n" for instance in instances).encode()


def record_file(write, X, labels=None):
    file = io.BytesIO()
    write(file, X, labels)
    return file.getvalue()


def svm(X, label):
    file = io.BytesIO()
    write_libsvm(file, X, np.zeros(X.shape[0]), zero_based=True)
    text = file.getvalue()
    return text if label else text.replace(b"0 ", b"")


def encodings(X):
    """The same rows as all kinds of bodies: name -> (content type, body)."""
    dense = X.toarray().tolist()
    labels = np.ones(X.shape[0], np.float32)
    texts = "\n".join(",".join(map(repr, row)) for row in dense)
    mixed = [s if i % 3 else {"features": d} for i, (s, d) in enumerate(zip(sparse(X), dense))]  # noqa: B905
    return {
        "dense": (JSON, to_json([{"features": row} for row in dense])),
        "dense, data": (JSON, to_json([{"data": {"features": {"values": r}}} for r in dense])),
        "sparse": (JSON, to_json(sparse(X))),
        "mixed": (JSON, to_json(mixed)),
        "lines": (LINES, to_lines(sparse(X))),
        "dense lines": (LINES, to_lines([{"features": row} for row in dense])),
        "lines as JSON": (JSON, to_lines(sparse(X))),
        "documents": (JSON, to_json(sparse(X)[:10]) + b"\n" + to_json(sparse(X)[10:])),
        "csv": (CSV, texts.encode()),
        "csv, loose": (CSV, texts.replace(",", " , ").replace("0.", "+0.").encode()),
        "libsvm": (LIBSVM, svm(X, True)),
        "records": (RECORDIO, record_file(write_spmatrix_to_sparse_tensor, X)),
        "labelled": (RECORDIO, record_file(write_spmatrix_to_sparse_tensor, X, labels)),
        "dense records": (RECORDIO, record_file(write_numpy_to_dense_tensor, X.toarray())),
    }


def scores_of(response, media_type=None):
    """The scores, and the labels if there are any, in any form of an answer."""
    assert response.status_code == 200, response.data
    found = media_type or response.content_type
    assert response.content_type == found
    if found == JSON:
        rows = response.json["predictions"]
    elif found == LINES:
        assert response.data == b"" or response.data.endswith(b"\n")
        rows = [json.loads(line) for line in response.data.splitlines()]
    elif found == CSV:
        rows = [
            dict(zip(("score", "predicted_label"), map(float, row), strict=False))
            for row in csv.reader(response.text.splitlines())
        ]
    else:
        rows = records.predictions(response.data)
    return [row["score"] for row in rows], [row.get("predicted_label") for row in rows]


def post(client, body, content_type=JSON, path="/invocations", **headers):
    return client.post(path, data=body, content_type=content_type, headers=headers)


def refused(response, status, match):
    assert response.status_code == status, response.data
    assert response.content_type == JSON
    assert match in response.json["error"], response.json
    return response.json["error"]


# -- the same rows, in every form ----------------------------------------------------------------


def test_all_encodings_give_the_same_scores_in_order(task):
    model, X = numbered(task), matrix()
    client = create_app(model).test_client()
    raw = model.scores(X)
    expected = raw if task == REGRESSOR else model.probabilities(X)
    assert len(set(raw.tolist())) > 25
    for name, (content_type, body) in encodings(X).items():
        scores, labels = scores_of(post(client, body, content_type, Accept=JSON))
        np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6, err_msg=name)
        if task == REGRESSOR:
            assert labels == [None] * len(scores)
        else:
            assert labels == [float(score >= 0.5) for score in scores]


@pytest.mark.parametrize("row", range(30))
def test_one_row_scores_as_in_a_batch(client, row):
    X = matrix()
    expected = numbered(REGRESSOR).scores(X)[row]
    forms = encodings(X[row])
    forms["bare"] = (RECORDIO, forms["records"][1][8:].rstrip(b"\0") or b"\n\0")
    if X[row].nnz == 0:  # what is left of a bare record could end in zeros
        length = int.from_bytes(forms["records"][1][4:8], "little")
        forms["bare"] = (RECORDIO, forms["records"][1][8 : 8 + length])
        forms.pop("documents")
    for name, (content_type, body) in forms.items():
        scores, _ = scores_of(post(client, body, content_type, Accept=JSON))
        np.testing.assert_allclose(scores, [expected], rtol=1e-6, atol=1e-6, err_msg=name)


def test_libsvm_without_labels_and_with_the_counting_of_the_model():
    X = matrix()[2:]
    X = X[np.diff(X.indptr) > 0]  # without a label, an empty row would be an empty line
    model = numbered(REGRESSOR)
    client = create_app(model).test_client()
    expected, _ = scores_of(post(client, to_json(sparse(X))))
    assert scores_of(post(client, svm(X, False), LIBSVM, Accept=JSON))[0] == expected
    one_based = create_app(dataclasses.replace(model, zero_based=False)).test_client()
    file = io.BytesIO()
    write_libsvm(file, X, np.zeros(X.shape[0]))
    assert scores_of(post(one_based, file.getvalue(), "text/x-libsvm"))[0] == pytest.approx(
        expected, abs=1e-6
    )


def test_forms_of_answers_agree(task):
    client = create_app(numbered(task)).test_client()
    body = to_json(sparse(matrix()))
    expected = scores_of(post(client, body))
    for media_type in ANSWER_TYPES:
        if media_type.startswith("application/x-") and media_type != RECORDIO:
            continue
        assert scores_of(post(client, body, Accept=media_type), media_type) == expected
        nothing = post(client, b'{"instances":[]}', Accept=media_type)
        assert scores_of(nothing, media_type) == ([], [])


def test_the_text_of_an_answer(task):
    """As the built-in algorithm writes it: labels are floats."""
    model = Model(0.0, [0.0], [[0.0]], TrainConfig(task, 1))
    client = create_app(model).test_client()
    body = b'{"instances":[{"features":[1]},{"features":[0]}]}'
    one = '{"score":0.0}' if task == REGRESSOR else '{"score":0.5,"predicted_label":1.0}'
    assert post(client, body).text == f'{{"predictions":[{one},{one}]}}'
    assert post(client, body, Accept=LINES).text == f"{one}\n{one}\n"
    row = "0.0" if task == REGRESSOR else "0.5,1.0"
    assert post(client, body, Accept=CSV).text == f"{row}\n{row}\n"


def test_answers_longer_than_a_block(monkeypatch):
    monkeypatch.setattr("fm.serving.media.PREDICTIONS_AT_ONCE", 7)
    client = create_app(numbered(CLASSIFIER)).test_client()
    body = to_json(sparse(matrix()))
    expected = scores_of(post(client, body, Accept=RECORDIO))
    for media_type in (JSON, LINES, CSV):
        assert scores_of(post(client, body, Accept=media_type)) == expected


def test_the_article(shared_data):
    """Its ten dense rows of 2,625 features, to an artefact of the built-in algorithm."""
    model = load(shared_data / "sagemaker-builtin-fm" / "model.tar.gz")
    client = create_app(model).test_client()
    rng = np.random.default_rng(1)
    rows = np.zeros((10, 2625), np.float32)
    rows[np.arange(10), rng.integers(943, size=10)] = 1
    rows[np.arange(10), 943 + rng.integers(1682, size=10)] = 1
    body = to_json([{"features": row.tolist()} for row in rows])
    scores, _ = scores_of(post(client, body))
    np.testing.assert_allclose(scores, model.scores(rows), rtol=1e-6)
    assert np.std(scores) > 0.1


def test_named_columns(task):
    model = named(task)
    client = create_app(model).test_client()
    rows = [
        {"user": "42", "film": "Alien (1979)", "age": 31},
        {"user": 42, "film": "Alien (1979)", "age": "31.0"},
        {"film": "Brazil"},
        {"user": "a stranger", "age": None},
        {},
    ]
    X = model.encoder.encode_rows(rows)
    expected = model.scores(X) if task == REGRESSOR else model.probabilities(X)
    table = "user,film,age\n42,Alien (1979),31\n42,Alien (1979),31.0\n,Brazil,\na stranger,,\n,,\n"
    columns = [line.split(",") for line in table.splitlines()]
    turned = "\n".join(",".join(reversed(cells)) for cells in columns)
    wider = "\n".join(",".join([str(i), *cells]) for i, cells in enumerate(columns))
    for content_type, body in (
        (JSON, to_json(rows)),
        (LINES, to_lines(rows)),
        (CSV, table.encode()),
        (CSV, table.partition("\n")[2].replace("\n", "\r\n").encode()),
        (CSV, turned.encode()),
        (CSV, wider.encode()),  # with a column too many, called 0
        (JSON, to_json([{**row, "time": 5} for row in rows[:4]] + [{}])),
        (CSV, b"\xef\xbb\xbf" + table.encode()),
        (JSON, to_json([rows[0], sparse(X)[1], rows[2], *sparse(X)[3:4], rows[4]])),
    ):
        scores, _ = scores_of(post(client, body, content_type, Accept=JSON))
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
    for i, row in enumerate(rows):
        scores, _ = scores_of(post(client, to_json([row])))
        assert scores == pytest.approx([expected[i]], rel=1e-6)


def test_a_column_may_be_called_as_the_forms_are():
    encoder = Encoder.fit({"features": ["x"], "instances": ["x"]})
    model = Model(0, [1, 2, 4, 8], np.ones((4, 1)), TrainConfig(num_factors=1), encoder=encoder)
    client = create_app(model).test_client()
    assert scores_of(post(client, b'{"features": "x", "instances": "?"}'))[0] == [7.0]


def test_a_table_of_one_column_keeps_its_empty_cells():
    encoder = Encoder.fit({"user": ["a"]})
    model = Model(0, [1, 2], [[0], [0]], TrainConfig(num_factors=1), encoder=encoder)
    client = create_app(model).test_client()
    assert scores_of(post(client, b"a\n\na\n", CSV))[0] == [2.0, 1.0, 2.0]


# -- rows with little or much in them ------------------------------------------------------------


def test_empty_rows_score_the_bias(client):
    empty = {"data": {"features": {"keys": [], "shape": [WIDTH], "values": []}}}
    assert scores_of(post(client, to_json([empty])))[0] == [0.25]
    assert scores_of(post(client, to_json([empty, empty])))[0] == [0.25, 0.25]
    assert scores_of(post(client, b"0\n", LIBSVM))[0] == [0.25]


def test_values_of_a_repeated_feature_add_up(client):
    twice = {"data": {"features": {"keys": [3, 3], "values": [1, 1.5]}}}
    once = {"data": {"features": {"keys": [3.0], "values": [2.5]}}}
    (expected,), _ = scores_of(post(client, to_json([once])))
    assert scores_of(post(client, to_json([twice])))[0] == pytest.approx([expected])
    assert scores_of(post(client, to_json([twice] * 3)))[0] == pytest.approx([expected] * 3)


def test_long_json_is_parsed_in_pieces(client, monkeypatch):
    """Wherever a piece ends, the result is that of parsing all at once, or the same complaint."""
    whole = to_json(sparse(matrix()))
    expected = scores_of(post(client, whole))
    bodies_of = {
        "plain": whole,
        "spaced": json.dumps({"instances": sparse(matrix())}, indent=2).encode(),
        "more members": whole[:-1] + b', "configuration": {"a": [{}, {}]}}',
        "before": b'{"configuration": [{}, {}], ' + whole[1:],
        "a list inside": whole.replace(b'"shape": [40]', b'"shape": [{"a": 1}, {"b": 2}]'),
        "a text inside": whole.replace(b'"shape": [40]', b'"shape": "},  {"'),
    }
    parsed = []
    loads = bodies.orjson.loads
    for size in (1, 10, 100, 1000, 5000):
        monkeypatch.setattr(bodies, "PIECE_BYTES", size)
        monkeypatch.setattr(bodies.orjson, "loads", lambda b: parsed.append(len(b)) or loads(b))
        for name, body in bodies_of.items():
            parsed.clear()
            assert scores_of(post(client, body)) == expected, (name, size)
            if name in ("plain", "spaced") and size < 1000:
                assert max(parsed) < len(body) / 2
        for broken in (whole[:-1], whole + b"]", whole.replace(b"}, {", b"} {"), whole[:2000]):
            refused(post(client, broken), 400, "expected JSON")
        wrong = to_json([*sparse(matrix())[:20], {"data": {"features": 7}}])
        refused(post(client, wrong), 400, "instance 21: ")


# -- what is refused -----------------------------------------------------------------------------

NESTED = b"[" * 100_000
GOOD = '{"features": [' + "1," * 39 + "1]}"
INSTANCES = {
    '{"data":{"features":{"keys":[40],"values":[1]}}}': "keys from 0 to 39, found 40",
    '{"data":{"features":{"keys":[18446744073709551615],"values":[1]}}}': "found 1844674",
    '{"data":{"features":{"keys":[1e300],"values":[1]}}}': "keys from 0 to 39, found 1000",
    '{"data":{"features":{"keys":[-1],"values":[1]}}}': "keys from 0 to 39, found -1",
    '{"data":{"features":{"keys":[1.5],"values":[1]}}}': "whole numbers as keys, found 1.5",
    '{"data":{"features":{"keys":["1"],"values":[1]}}}': 'whole numbers as keys, found "1"',
    '{"data":{"features":{"keys":[true],"values":[1]}}}': "whole numbers as keys, found true",
    '{"data":{"features":{"keys":[null],"values":[1]}}}': "whole numbers as keys, found null",
    '{"data":{"features":{"keys":[[1]],"values":[1]}}}': "whole numbers as keys, found [1]",
    '{"data":{"features":{"keys":[1],"values":["1"]}}}': 'numbers as values, found "1"',
    '{"data":{"features":{"keys":[1],"values":[true]}}}': "numbers as values, found true",
    '{"data":{"features":{"keys":[1],"values":[[1]]}}}': "numbers as values, found [1]",
    '{"data":{"features":{"keys":[1],"values":[null]}}}': "numbers as values, found null",
    '{"data":{"features":{"keys":[1],"values":[1e39]}}}': "1e+39",
    '{"data":{"features":{"keys":[1,1],"values":[3e38,3e38]}}}': "finite float32",
    '{"data":{"features":{"keys":[1,2],"values":[1e30,1e30]}}}': "prediction is not a finite",
    '{"data":{"features":{"keys":[1],"values":[1,2]}}}': "found 1 of them and 2 of them",
    '{"data":{"features":{"keys":[1]}}}': "found 1 of them and null",
    '{"data":{"features":{"keys":{},"values":[1]}}}': "found {} and 1 of them",
    '{"data":{"features":{"values":[1]}}}': "40 values, one for each feature of the model, found 1",
    '{"data":{"features":{"values":7}}}': "40 values, one for each feature of the model, found 7",
    '{"data":{"features":{"f1":{"values":[1]}}}}': "keys and values",
    '{"data":{"features":7}}': 'expected {"features"',
    '{"data":7}': 'expected {"features"',
    "{}": 'expected {"features"',
    '{"user":"42"}': 'expected {"features"',
    '{"features":[]}': "40 values, one for each feature of the model, found 0",
    '{"features":[1,2]}': "40 values, one for each feature of the model, found 2",
    GOOD.replace("1,1,", '"x",1,', 1): 'numbers as values, found "x"',
    GOOD.replace("1,1,", "1e39,1,", 1): "values up to 3.4e+38, found 1e+39",
    '{"features":[1],"data":{}}': "found both",
    "[1]": "expected an object, found [1]",
    "7": "expected an object, found 7",
    "null": "expected an object, found null",
}


@pytest.mark.parametrize("instance", INSTANCES)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_wrong_instance_is_named(client, instance, before):
    body = ('{"instances":[' + (GOOD + ",") * before + instance + "," + GOOD + "]}").encode()
    message = refused(post(client, body), 400, INSTANCES[instance])
    assert message.startswith(f"instance {before + 1}"), message
    if instance[0] == "{":
        lines = (GOOD + "\n") * before + instance + "\n" + GOOD
        assert refused(post(client, lines.encode(), LINES), 400, f"instance {before + 1}")
    alone = f'{{"instances":[{instance}]}}'.encode()
    assert refused(post(client, alone), 400, "instance 1")


@pytest.mark.parametrize("found", ["1e39", "NaN", "inf", "x", "", "1_0", '"', "true", "[1]"])
def test_a_wrong_cell_is_named(client, found):
    row = ",".join(["1"] * WIDTH)
    body = f"{row}\n{row}\n{found}{row[1:]}\n{row}".encode()
    refused(post(client, body, CSV), 400, "instance 3")
    refused(post(client, f"{row}\n{row},1".encode(), CSV), 400, "instance 2: expected 40 values")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"{", "expected JSON"),
        (NESTED, "expected JSON"),
        (NESTED + b"]" * 100_000, "expected JSON"),
        (b'{"a":' * 100_000, "expected JSON"),
        (b'{"instances":[{"features":' + NESTED, "expected JSON"),
        (b'{"instances":[{"features":[NaN]}]}', "expected JSON"),
        (b'{"instances":[{"features":[Infinity]}]}', "expected JSON"),
        (b'{"instances":[{"features":[1e999]}]}', "expected JSON"),
        (b'{"instances":[{"features":[01]}]}', "expected JSON"),
        (b'{"instances":[{"features":[1,]}]}', "expected JSON"),
        (b'{"instances":[\xff]}', "expected JSON"),
        (b'{"instances":["\\ud800"]}', "expected JSON"),
        (b"\0", "expected JSON"),
        (b" ", "expected JSON"),
        (b"[]", 'expected {"instances": [...]}, found []'),
        (b"7", 'expected {"instances": [...]}, found 7'),
        (b'"x"', 'expected {"instances": [...]}, found "x"'),
        (b"null", 'expected {"instances": [...]}, found null'),
        (b'{"instances":7}', "expected a list of instances, found 7"),
        (b'{"instances":null}', "expected a list of instances, found null"),
        (b'{"instances":[],"instances":7}', "expected a list of instances, found 7"),
        (b"", "found an empty body"),
    ],
)
def test_a_body_that_is_no_request(client, body, match):
    refused(post(client, body), 400, match)


@pytest.mark.parametrize("content_type", [JSON, LINES, CSV, LIBSVM, RECORDIO])
def test_an_empty_body(client, content_type):
    refused(post(client, b"", content_type), 400, "empty body")


def test_wrong_lines_name_the_instance(client):
    body = to_lines(sparse(matrix())[:2]) + b"\n{\n"
    refused(post(client, body, LINES), 400, "instance 3 (line 4): expected JSON")
    assert scores_of(post(client, b"\n\n \n", LINES))[0] == []


def test_wrong_libsvm(client):
    refused(post(client, b"0 1:1\n0 40:1\n", LIBSVM), 400, "line 2")
    refused(post(client, b"0 1:1\n0 2:x\n", LIBSVM), 400, "line 2")
    refused(post(client, b"1:1\n-2:1\n", LIBSVM), 400, "line 2")
    refused(post(client, b"\x00\x01", LIBSVM), 400, "expected text")


def test_wrong_records(client):
    X = sp.csr_matrix(np.eye(3, WIDTH + 5, 3, dtype=np.float32))
    X.indices[2] = 40
    body = record_file(write_spmatrix_to_sparse_tensor, X)
    refused(post(client, body, RECORDIO), 400, "instances record 3")
    nan = record_file(write_numpy_to_dense_tensor, np.full((2, WIDTH), np.nan, np.float32))
    refused(post(client, nan, RECORDIO), 400, "record 1")
    wide = record_file(write_numpy_to_dense_tensor, np.ones((2, WIDTH + 1), np.float32))
    refused(post(client, wide, RECORDIO), 400, "record 1")
    refused(post(client, body[:-5], RECORDIO), 400, "record 3")
    refused(post(client, b"1,2,3", RECORDIO), 400, "expected RecordIO")
    refused(post(client, body[8:20], RECORDIO), 400, "expected RecordIO")


def test_wrong_columns(named_client):
    refused(post(named_client, to_json([{}, {"usr": 1}])), 400, "instance 2: ")
    refused(post(named_client, to_json([{}, {"age": "old"}])), 400, "instance 2, column 'age'")
    refused(post(named_client, to_json([{"age": "old"}])), 400, "instance 1, column 'age'")
    refused(post(named_client, to_json([{}, {"user": {}}])), 400, "instance 2, column 'user'")
    mixed = [{"data": {"features": {"keys": [], "values": []}}}, {}, {"user": [1]}]
    refused(post(named_client, to_json(mixed)), 400, "instance 3, column 'user'")
    refused(post(named_client, b"1,2\n", CSV), 400, "instance 1: expected 3 cells")
    refused(post(named_client, b'1,2,3\n1,"2,3\n', CSV), 400, "instance 2: expected CSV")
    refused(post(named_client, b"1,2,3\n1,2,old\n", CSV), 400, "instance 2, column 'age'")
    refused(post(named_client, b"\xff\xfe", CSV), 400, "UTF-8")


def test_a_message_is_short(client):
    huge = to_json([{"data": {"features": {"keys": ["x" * 10**6], "values": [1]}}}])
    assert len(post(client, huge).data) < 300
    assert len(post(client, b'{"instances":"' + b"x" * 10**6 + b'"}').data) < 300


def test_a_long_text_among_numbers_takes_no_memory(client):
    """numpy would give every element of the array the length of the longest text."""
    values = ["x" * 10**6] + [1.0] * 10**5
    body = to_json([{"data": {"features": {"keys": [0] * len(values), "values": values}}}])
    refused(post(client, body), 400, "instance 1: expected numbers")


# -- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/*", CSV),
        ("application/json;verbose=true", JSON),
        ("Application/JSON", JSON),
        ("application/jsonlines; verbose=true", LINES),
        ("text/html, application/jsonlines;q=0.9, */*;q=0.1", LINES),
        ("application/json;q=0.2, text/csv;q=0.7", CSV),
        ("application/json;q=0, */*", LINES),
        ("*/*, text/csv", CSV),
        ("application/json;q=0.5, application/*;q=0.6", LINES),
        (RECORDIO, RECORDIO),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json;q=x", None),
        ("application/json;q=nan", None),
        ("image/*", None),
        (";;;,,,", None),
        ("\x7f", None),
    ],
)
def test_accept(client, accept, expected):
    headers = {} if accept is None else {"Accept": accept}
    response = post(client, to_json(sparse(matrix())), **headers)
    if expected is None:
        refused(response, 406, "Accept: expected one of application/json")
    else:
        assert response.content_type == expected


def test_the_answer_is_of_the_family_of_the_request():
    form = {JSON: "json", LINES: "jsonlines", CSV: "csv", LIBSVM: "libsvm", RECORDIO: "recordio"}
    got = {name: answer_type("*/*", value, None, False) for name, value in form.items()}
    assert got == {JSON: JSON, LINES: LINES, CSV: CSV, LIBSVM: CSV, RECORDIO: JSON}
    assert answer_type(None, "recordio", None, True) == LINES
    assert answer_type(None, "json", None, True) == JSON
    assert answer_type(None, "json", CSV, True) == CSV
    assert answer_type("*/*", "json", CSV, False) == CSV
    assert answer_type(JSON, "json", CSV, False) == JSON


def test_default_accept_and_batch():
    model = numbered(REGRESSOR)
    body = record_file(write_spmatrix_to_sparse_tensor, matrix())
    batch = create_app(model, batch=True).test_client()
    assert post(batch, body, RECORDIO).content_type == LINES
    csvs = create_app(model, default_accept=CSV).test_client()
    assert post(csvs, body, RECORDIO).content_type == CSV
    with pytest.raises(ConfigError, match="default_accept: expected one of application/json"):
        create_app(model, default_accept="text/html")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        JSON,
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'APPLICATION/JSON; charset="utf-8"',
        "application/json; charset=us-ascii",
        "application/json; charset=iso-8859-1",
        "application/json; odata=verbose;",
    ],
)
def test_content_type(client, content_type):
    assert scores_of(post(client, to_json(sparse(matrix())), content_type))


def test_content_types_that_are_not_read(client):
    body = to_json(sparse(matrix()))
    for content_type in ("text/html", "application/octet-stream", "x", "application/x-npy"):
        refused(post(client, body, content_type), 415, "Content-Type: expected one of")
    for charset in ("utf-16", "punycode", "zip", "x" * 100):
        refused(post(client, body, f"{JSON}; charset={charset}"), 415, "charset")


def test_charset_of_names(named_client):
    body = '{"instances":[{"user":"Zoë"}]}'
    assert scores_of(post(named_client, body.encode("latin-1"), JSON + "; charset=iso-8859-1"))
    refused(post(named_client, body.encode("latin-1")), 400, "expected JSON")
    body = b'{"instances":[{"user":"\x81"}]}'
    refused(post(named_client, body, JSON + ";charset=windows-1252"), 400, "not windows-1252")


def test_headers_are_judged_before_the_body(client):
    """A body is not even read if nothing could come of it."""

    class Untouchable:
        def read(self, size):
            raise AssertionError

    def status_of(**headers):
        environ = {"PATH_INFO": "/invocations", "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "9"}
        seen = []
        environ |= {"wsgi.input": Untouchable(), **headers}
        client.application.wsgi_app(environ, lambda status, headers: seen.append(status))
        return seen[0][:3]

    assert status_of(CONTENT_TYPE="text/html") == "415"
    assert status_of(HTTP_ACCEPT="text/html") == "406"
    assert status_of(CONTENT_LENGTH=str(10**10)) == "413"
    assert status_of(CONTENT_LENGTH="-1") == "400"
    assert status_of(CONTENT_LENGTH="x") == "400"
    assert status_of() == "400"  # and here it was


def test_limits():
    app = create_app(numbered(REGRESSOR), Limits(body_bytes=1000))
    refused(post(app.test_client(), b"x" * 1001), 413, "expected at most 1000 bytes, found 1001")
    refused(post(app.test_client(), b"x" * 1000), 400, "expected JSON")
    assert Limits().body_bytes >= 100 << 20
    assert cores() >= 1
    assert memory() > 1 << 20


def test_paths_and_methods(client):
    assert client.get("/ping").status_code == 200
    assert client.head("/ping").status_code == 200
    assert client.get("/execution-parameters").json == {
        "MaxConcurrentTransforms": 1,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 6,
    }
    refused(client.get("/nothing"), 404, "404 Not Found: GET /nothing")
    refused(client.get("/models"), 404, "404")
    for method in ("get", "put", "delete", "patch"):
        response = getattr(client, method)("/invocations")
        refused(response, 405, "405 Method Not Allowed")
        assert "POST" in response.headers["Allow"]
    assert client.post("/ping").status_code == 405


def app_of(model, short_way):
    app = create_app(model)
    if not short_way:
        app.wsgi_app = app.wsgi_app.flask
    return app


def test_the_short_way_answers_as_flask_does():
    model = numbered(CLASSIFIER)
    apps = [app_of(model, short_way).test_client() for short_way in (True, False)]
    for content_type, body in (
        *encodings(matrix()).values(),
        (JSON, b"{"),
        ("x", b""),
        (JSON, b""),
    ):
        for accept in (JSON, RECORDIO, "text/html"):
            answers = [post(app, body, content_type, Accept=accept) for app in apps]
            assert answers[0].status_code == answers[1].status_code
            assert answers[0].data == answers[1].data
            assert answers[0].content_type == answers[1].content_type


@pytest.mark.parametrize("short_way", [True, False])
def test_a_fault_of_ours_is_logged_and_not_told(monkeypatch, caplog, short_way):
    client = app_of(numbered(REGRESSOR), short_way).test_client()
    monkeypatch.setattr("fm.serving.application.predictions", lambda *_: 1 / 0)
    caplog.set_level("ERROR", "fm.serving")
    monkeypatch.setattr("fm.serving.application.log.propagate", True)
    response = post(client, to_json(sparse(matrix())))
    assert response.status_code == 500
    assert "division" not in response.text
    assert "ZeroDivisionError" in caplog.text


def test_no_memory_for_a_body(monkeypatch, client):
    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr("fm.serving.application.decode", hungry)
    refused(post(client, b"{}"), 413, "memory")


# -- several models ------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path):
    """A directory of models, as the platform lays them out."""
    for name, model in {"a": numbered(REGRESSOR), "b": named(CLASSIFIER)}.items():
        model.save(tmp_path / "models" / name / "model" / "model.safetensors")
    old = tmp_path / "models" / "old" / "model"
    old.mkdir(parents=True)
    write_artifact(numbered(CLASSIFIER), old / "model_algo-1")
    numbered(REGRESSOR).save(tmp_path / "outside.safetensors")
    return tmp_path / "models"


def load_model(client, root, name, url=None):
    order = {"model_name": name, "url": url or str(root / name / "model")}
    return client.post("/models", json=order)


def test_models_come_and_go(models):
    client = create_app(ModelStore(models)).test_client()
    assert client.get("/ping").status_code == 200
    assert client.get("/models").json == {"models": []}
    body = to_json(sparse(matrix()))
    refused(post(client, body, path="/models/a/invoke"), 404, "'a' is not loaded")
    assert load_model(client, models, "a").status_code == 200
    refused(load_model(client, models, "a"), 409, "'a' is loaded already")
    opaque = "6f1ed002ab5595859014ebf0951522d9"
    assert load_model(client, models, opaque, str(models / "old" / "model")).status_code == 200
    listed = [
        {"modelName": "a", "modelUrl": str(models / "a" / "model")},
        {"modelName": opaque, "modelUrl": str(models / "old" / "model")},
    ]
    assert client.get("/models").json == {"models": listed}
    assert client.get("/models?limit=1").json == {"models": listed[:1], "nextPageToken": "1"}
    assert client.get("/models?limit=1&next_page_token=1").json == {"models": listed[1:]}
    refused(client.get("/models?limit=x"), 400, "limit: expected a whole number")
    refused(client.get("/models?limit=0"), 400, "limit: expected a whole number >= 1")
    assert client.get("/models/a").json == listed[0]
    refused(client.get("/models/b"), 404, "'b' is not loaded")
    expected = numbered(REGRESSOR).scores(matrix())
    scores, _ = scores_of(post(client, body, path="/models/a/invoke"))
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    assert scores_of(post(client, body, path=f"/models/{opaque}/invoke"))[1][0] is not None
    assert client.delete("/models/a").status_code == 200
    refused(client.delete("/models/a"), 404, "not loaded")
    refused(post(client, body, path="/models/a/invoke"), 404, "not loaded")
    refused(post(client, body), 404, "several models")
    assert load_model(client, models, "a").status_code == 200


def test_models_that_cannot_be_loaded(models):
    client = create_app(ModelStore(models)).test_client()
    (models / "bad").mkdir()
    (models / "bad" / "model.safetensors").write_bytes(b"nonsense")
    (models / "link").symlink_to(models.parent / "outside.safetensors")
    for url, status, match in (
        (models / "bad", 400, "cannot be loaded"),
        (models / "c", 404, "does not exist"),
        (models / "a", 400, "cannot be loaded"),
        (models, 400, "inside"),
        (models.parent / "outside.safetensors", 400, "inside"),
        (models / ".." / "outside.safetensors", 400, "inside"),
        (models / "link", 400, "inside"),
        ("/etc/passwd", 400, "inside"),
        ("\0", 400, "expected the path"),
        (7, 400, "expected the path"),
    ):
        response = client.post(
            "/models", json={"model_name": "x", "url": url if url == 7 else str(url)}
        )
        refused(response, status, match)
    for name in (None, "", 7, "x" * 2000):
        response = client.post("/models", json={"model_name": name, "url": "a/model"})
        refused(response, 400, "model_name")
    for body in (b"", b"{", b"[]", b"7"):
        refused(client.post("/models", data=body), 400, "model_name")
    assert client.get("/models").json == {"models": []}
    assert load_model(client, models, "b").status_code == 200
    with pytest.raises(ConfigError, match="expected a directory"):
        ModelStore(models / "nowhere")


def test_models_have_a_limit_of_memory(models):
    for name in ("x", "y"):
        numbered(REGRESSOR, 5000).save(models / name / "model" / "model.safetensors")
    client = create_app(ModelStore(models, max_bytes=300_000)).test_client()
    assert load_model(client, models, "x").status_code == 200
    refused(load_model(client, models, "y"), 507, "not enough memory")
    assert client.delete("/models/x").status_code == 200
    assert load_model(client, models, "y").status_code == 200


def test_a_new_process_knows_the_models_of_the_old_one(models, tmp_path):
    record = tmp_path / "record.json"
    first = ModelStore(models, record=record)
    for name in ("a", "b"):
        first.load(name, str(models / name / "model"))
    first.load("gone", str(models / "old" / "model"))
    (models / "old" / "model" / "model_algo-1").unlink()
    second = ModelStore(models, record=record)
    second.restore()
    assert second.names() == ["a", "b"]
    second.unload("a")
    third = ModelStore(models, record=record)
    third.restore()
    assert third.names() == ["b"]
    with pytest.raises(Refusal, match="not loaded"):
        third.get("a")
    third.close()
    assert not record.exists()


def test_models_that_lie_in_the_directory_are_loaded_at_the_start(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fm.serving.store.log.propagate", True)
    root = tmp_path / "models"
    numbered(REGRESSOR).save(root / "a.safetensors")
    named(CLASSIFIER).save(root / "b" / "model.safetensors")
    write_artifact(numbered(CLASSIFIER), root / "old.tar.gz")
    numbered(REGRESSOR).save(root / "d.a" / "model.safetensors")  # the name of no file
    numbered(REGRESSOR).save(root / "deeper" / "model" / "model.safetensors")  # SageMaker's
    numbered(REGRESSOR).save(root / ".hidden.safetensors")
    (root / "README.md").write_text("no model")
    numbered(REGRESSOR).save(root / "b.safetensors")  # a name twice
    (root / "bad.safetensors").write_bytes(b"nonsense")
    (root / "outside.safetensors").symlink_to(numbered(REGRESSOR).save(tmp_path / "c.safetensors"))
    store, signs = ModelStore(root, record=tmp_path / "record.json"), []
    store.discover()
    with caplog.at_level("INFO", "fm.serving"):
        store.restore(after_each=lambda: signs.append(store.names()))
    assert store.names() == ["a", "b", "d.a", "old"]
    assert len(signs) == 6
    client = create_app(store).test_client()
    assert client.get("/models/a").json == {
        "modelName": "a",
        "modelUrl": str(root / "a.safetensors"),
    }
    scores, _ = scores_of(post(client, to_json(sparse(matrix())), path="/models/a/invoke"))
    np.testing.assert_allclose(scores, numbered(REGRESSOR).scores(matrix()), rtol=1e-6, atol=1e-6)
    text = caplog.text
    assert "b.safetensors is left out" in text and f"{root / 'b'} has the same name" in text
    assert "'bad' cannot be loaded" in text and "outside.safetensors is left out: url" in text
    assert "models loaded: a, b, d.a, old" in text


def test_one_model_has_no_names(client):
    refused(client.post("/models/a/invoke"), 404, "404")


# -- what a server loads -------------------------------------------------------------------------


def test_serving_loads_no_compiler(tmp_path):
    """Whatever is asked: no numba, no scikit-learn, no pandas, no Arrow."""
    for name, model in {"numbered": numbered(CLASSIFIER), "named": named(REGRESSOR)}.items():
        model.save(tmp_path / f"{name}.safetensors")
    kinds = {k: v for k, (k, v) in encodings(matrix()).items()}  # one body of each type
    for i, (content_type, body) in enumerate(kinds.items()):
        (tmp_path / f"{i}").write_bytes(content_type.encode() + b"\n" + body)
    code = f"""
import sys, pathlib
import fm.serving.server
from fm.model.load import load
from fm.serving.application import create_app
folder = pathlib.Path({str(tmp_path)!r})
client = create_app(load(folder / "numbered.safetensors")).test_client()
for i in range({len(kinds)}):
    content_type, _, body = (folder / str(i)).read_bytes().partition(b"\\n")
    for accept in ("application/json", "text/csv", "application/x-recordio-protobuf"):
        response = client.post("/invocations", data=body, content_type=content_type.decode(),
                               headers={{"Accept": accept}})
        assert response.status_code == 200, response.data
client = create_app(load(folder / "named.safetensors")).test_client()
for content_type, body in (("application/json", '{{"instances":[{{"user":"42"}}]}}'),
                           ("text/csv", "user,film,age\\n42,Brazil,7\\n")):
    assert client.post("/invocations", data=body, content_type=content_type).status_code == 200
heavy = {{"numba", "llvmlite", "sklearn", "pandas", "pyarrow", "polars", "tqdm", "boto3"}}
print(*sorted(heavy & sys.modules.keys()))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(bodies.__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


# -- nonsense ------------------------------------------------------------------------------------


def test_mutated_bodies_are_never_a_fault_of_ours(caplog, monkeypatch):
    """The short form of scripts/bench/fuzz_serve.py."""
    monkeypatch.setattr("fm.serving.application.log.propagate", True)
    caplog.set_level("ERROR", "fm.serving")
    rng = random.Random(7)
    seeds = [*encodings(matrix(6)).values()]
    columns = [
        (JSON, to_json([{"user": "42", "film": "Alien (1979)", "age": 3}, {"user": None}])),
        (CSV, b'user,film,age\n42,"Alien (1979)",3\n,,\n'),
    ]
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "bench"))
    try:
        from fuzz_serve import mutated
    finally:
        sys.path.pop(0)
    good = to_json(sparse(matrix()))
    statuses = set()
    for model, bases in ((numbered(CLASSIFIER), seeds), (named(REGRESSOR), columns)):
        client = create_app(model).test_client()
        for i in range(1500):
            content_type, body = mutated(rng, bases)
            response = post(client, body, content_type, Accept=rng.choice(list(ANSWER_TYPES)))
            statuses.add(response.status_code)
            assert response.status_code in (200, 400, 413, 415), (content_type, body, response.data)
            if i % 100 == 0 and model.encoder is None:
                assert len(scores_of(post(client, good))[0]) == 30
    assert statuses >= {200, 400}
    assert caplog.text == ""


def test_content_of_type_is_remembered_only_if_good():
    content_of_type.cache_clear()
    for _ in range(3):
        with pytest.raises(Refusal):
            content_of_type("nonsense")
    assert content_of_type.cache_info().currsize == 0
