"""The built-in algorithm's artefact: a real one, every variant of the layout, and hostile ones."""

import gzip
import io
import json
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from fm.config import TrainConfig
from fm.errors import ConfigError, ModelFileError
from fm.formats.mxnet import write_arrays
from fm.model import builtin as builtin_artifact
from fm.model.builtin import read_artifact, write_artifact
from fm.model.load import load
from fm.model.model import Model
from fm.tasks import CLASSIFIER, REGRESSOR

N, K = 5, 3
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
FLOAT32, FLOAT64, FLOAT16, INT64 = 0, 1, 2, 6
KIND = {FLOAT32: "<f4", FLOAT64: "<f8", FLOAT16: "<f2", INT64: "<i8"}


@pytest.fixture
def model(rng):
    return Model(
        w0=0.5,
        w=rng.normal(size=N).astype(np.float16),  # exact in all three float types
        V=rng.normal(size=(N, K)).astype(np.float16),
        config=TrainConfig(optimizer="sagemaker", num_factors=K, feature_dim=N),
    )


def shape(version, *dims):
    if version == "legacy":
        return struct.pack(f"<{len(dims)}I", *dims)  # ndim is the magic number
    return struct.pack(f"<{'i' if version == V3 else 'I'}{len(dims)}q", len(dims), *dims)


def dense(array, version=V2, dtype=FLOAT32):
    """An array of MXNet, written from the layout in the module's docstring."""
    storage = struct.pack("<i", 0) if version in (V2, V3) else b""
    magic = array.ndim if version == "legacy" else version
    return b"".join(
        [
            struct.pack("<I", magic), storage, shape(version, *array.shape),
            struct.pack("<iii", 1, 0, dtype), array.astype(KIND[dtype]).tobytes(),
        ]
    )  # fmt: skip


def row_sparse(array, rows, version=V2, dtype=FLOAT32, row_numbers=None):
    stored = array[rows]
    numbers = np.asarray(rows if row_numbers is None else row_numbers, "<i8")
    return b"".join(
        [
            struct.pack("<Ii", version, 1), shape(version, *stored.shape),
            shape(version, *array.shape), struct.pack("<iii", 1, 0, dtype),
            struct.pack("<i", INT64), shape(version, len(numbers)),
            stored.astype(KIND[dtype]).tobytes(), numbers.tobytes(),
        ]
    )  # fmt: skip


def params(arrays):
    names = [name.encode() for name in arrays]
    return b"".join(
        [
            struct.pack("<QQQ", 0x112, 0, len(arrays)), *arrays.values(),
            struct.pack("<Q", len(names)), *(struct.pack("<Q", len(n)) + n for n in names),
        ]
    )  # fmt: skip


META = {"feature_dim": str(N), "num_factors": str(K), "predictor_type": REGRESSOR}


def algo_zip(arrays, meta=META, **members):
    content = {
        "meta.json": json.dumps({"version": 1, "training_parameters": meta}).encode(),
        "params": arrays if isinstance(arrays, bytes) else params(arrays),
        **{name.replace("_", "."): text for name, text in members.items()},
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return file.getvalue()


def saved(tmp_path, content, name="model_algo-1"):
    path = tmp_path / name
    path.unlink(missing_ok=True)  # some file systems flush a file that is truncated
    path.write_bytes(content)
    return path


def tar_gz(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


# -- the real one --------------------------------------------------------------------------------


def test_the_real_artefact_scores_its_own_test_channel(shared_data):
    from fm.formats.recordio import read_csr

    folder = shared_data / "sagemaker-builtin-fm"
    model = load(folder / "model.tar.gz")
    assert (model.num_features, model.num_factors) == (2625, 64)
    assert model.config == TrainConfig(
        predictor_type=REGRESSOR, num_factors=64, feature_dim=2625, optimizer="sagemaker",
        epochs=50,
        bias_lr=0.1, linear_lr=0.001, factors_lr=0.0001, bias_wd=0.01, linear_wd=0.001,
        factors_wd=0.00001, bias_init_method="normal", bias_init_sigma=0.01,
        linear_init_sigma=0.01, factors_init_sigma=0.001, mini_batch_size=1000,
    )  # fmt: skip
    X, y = read_csr(folder / "u1.test.protobuf.gz", num_features=2625)
    error = model.scores(X, engine="scipy").astype(np.float64) - y
    # what the training job's log says: rmse 1.0002629948968227, absolute_loss 0.7952481262207032
    assert np.sqrt(np.mean(error**2)) == pytest.approx(1.000263, abs=1e-5)
    assert np.mean(np.abs(error)) == pytest.approx(0.795248, abs=1e-5)


# -- round trip ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model_algo-1", "model.tar.gz"])
@pytest.mark.parametrize("task", [REGRESSOR, CLASSIFIER])
def test_what_is_written_is_read(tmp_path, rng, name, task):
    config = TrainConfig(task, K, optimizer="adagrad", use_linear=False, linear_wd=1e-5, seed=3)
    model = Model(rng.normal(), rng.normal(size=N), rng.normal(size=(N, K)), config)
    again = load(write_artifact(model, tmp_path / name))
    for part in ("w0", "w", "V"):
        np.testing.assert_array_equal(getattr(again, part), getattr(model, part))
    assert again.config.to_dict() == {**config.to_dict(), "feature_dim": N}
    assert load(tmp_path).num_features == N  # found in a directory too


def test_the_written_file_is_as_the_built_ins(tmp_path, model):
    path = write_artifact(model, tmp_path / "model.tar.gz")
    first = path.read_bytes()
    assert write_artifact(model, path).read_bytes() == first
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["model_algo-1"]
        inner = archive.extractfile("model_algo-1").read()
    with zipfile.ZipFile(io.BytesIO(inner)) as archive:
        infos = archive.infolist()
        assert [info.filename for info in infos] == ["meta.json", "symbol.json", "params"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        meta, symbol = (json.loads(archive.read(n)) for n in ("meta.json", "symbol.json"))
        found = archive.read("params")
    assert {**META, "optimizer": "sagemaker", "use_bias": "true"}.items() <= meta[
        "training_parameters"
    ].items()
    rows = list(range(N))
    assert found == params(
        {
            "arg:w0_weight": dense(np.array([model.w0])),
            "arg:w1_weight": row_sparse(model.w.reshape(-1, 1), rows),
            "arg:v": row_sparse(model.V, rows),
        }
    )
    assert evaluate(symbol, model) == pytest.approx(model.score_row([0, 3]), rel=1e-5)


def evaluate(symbol, model):
    """Compute the graph in numpy for a row with features 0 and 3."""
    x = np.zeros((1, N))
    x[0, [0, 3]] = 1
    given = {"data": x, "w0_weight": model.w0, "w1_weight": model.w.reshape(-1, 1), "v": model.V}
    operators = {
        "dot": np.dot, "broadcast_add": np.add, "elemwise_add": np.add,
        "elemwise_sub": np.subtract, "square": np.square,
        "_mul_scalar": lambda a: 0.5 * a, "sum": lambda a: a.sum(1, keepdims=True),
        "_square_sum": lambda a: np.square(a).sum(1, keepdims=True),
        "LinearRegressionOutput": lambda score, _: score,
    }  # fmt: skip
    values = []
    for node in symbol["nodes"]:
        inputs = [values[i] for i, _, _ in node["inputs"]]
        values.append(
            given.get(node["name"]) if node["op"] == "null" else operators[node["op"]](*inputs)
        )
    return values[symbol["heads"][0][0]].item()


# -- variants of the layout ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64, FLOAT16])
@pytest.mark.parametrize("version", ["legacy", V1, V2, V3])
def test_dense_arrays_of_every_version(tmp_path, model, version, dtype):
    arrays = {
        "arg:w0_weight": dense(np.array([model.w0]), version, dtype),
        "arg:w1_weight": dense(model.w.reshape(-1, 1), version, dtype),
        "arg:v": dense(model.V, version, dtype),
        "aux:moving": dense(np.zeros(0), version) if version != V3 else dense(np.ones(2)),
    }
    assert load(saved(tmp_path, algo_zip(arrays))) == model


@pytest.mark.parametrize("version", [V2, V3])
def test_rows_that_are_not_stored_are_zero(tmp_path, model, version):
    rows = [0, 2, 4]
    w, V = np.zeros((N, 1)), np.zeros((N, K))
    w[rows], V[rows] = model.w.reshape(-1, 1)[rows], model.V[rows]
    arrays = {
        "arg:w0_weight": dense(np.array([model.w0]), version),
        "arg:w1_weight": row_sparse(w, rows, version, FLOAT64),
        "arg:v": row_sparse(V, rows, version),
    }
    found = load(saved(tmp_path, algo_zip(arrays)))
    np.testing.assert_array_equal(found.V, V)
    np.testing.assert_array_equal(found.w, w[:, 0])


def empty_array(version):
    ndim = struct.pack("<i", -1) if version == V3 else struct.pack("<I", 0)
    return struct.pack("<Ii", version, 0) + ndim


@pytest.mark.parametrize("version", [V2, V3])
def test_arrays_that_were_never_filled_are_passed_over(tmp_path, model, version):
    arrays = {
        "aux:state": empty_array(version),
        "arg:w0_weight": dense(np.array([model.w0])),
        "arg:w1_weight": dense(model.w.reshape(-1, 1)),
        "arg:v": dense(model.V),
    }
    assert load(saved(tmp_path, algo_zip(arrays))) == model


@pytest.mark.parametrize("n", [N, K])
def test_the_dense_network_has_transposed_factors(tmp_path, model, n):
    V, w = model.V[:n], model.w[:n]
    arrays = {
        "arg:Linear_Plus_Bias_weight": dense(w.reshape(1, -1)),
        "arg:Linear_Plus_Bias_bias": dense(np.array([model.w0])),
        "arg:v": dense(V.T),
    }
    meta = {**META, "feature_dim": str(n)}
    found = load(saved(tmp_path, algo_zip(arrays, meta)))
    np.testing.assert_array_equal(found.V, V)
    np.testing.assert_array_equal(found.w, w)
    assert found.w0 == model.w0


def test_square_factors_of_the_sparse_network_stay(tmp_path, model):
    arrays = {"arg:w1_weight": dense(model.w[:K]), "arg:v": dense(model.V[:K])}
    found = load(saved(tmp_path, algo_zip(arrays, {**META, "feature_dim": str(K)})))
    np.testing.assert_array_equal(found.V, model.V[:K])


def test_without_bias_and_weights(tmp_path, model):
    meta = {**META, "use_bias": "false", "use_linear": "false"}
    found = load(saved(tmp_path, algo_zip({"arg:v": dense(model.V)}, meta)))
    assert found.w0 == 0 and not found.w.any() and not found.config.use_linear


@pytest.mark.parametrize(
    ("op", "task"),
    [("LinearRegressionOutput", REGRESSOR), ("LogisticRegressionOutput", CLASSIFIER)],
)
@pytest.mark.parametrize("meta", [None, b"{}"])
def test_the_graph_tells_the_task_where_meta_does_not(tmp_path, model, op, task, meta):
    arrays = {"arg:w1_weight": dense(model.w), "arg:v": dense(model.V)}
    symbol = json.dumps({"nodes": [{"op": "null"}, {"op": op}]}).encode()
    path = saved(tmp_path, algo_zip(arrays, meta_json=meta, symbol_json=symbol))
    assert load(path).config.predictor_type == task


def test_hyperparameters_that_mean_nothing_here_are_left_out(tmp_path, model, caplog):
    meta = {
        **META, "epochs": "many", "_tuning_objective_metric": "", "future": "1",
        "_learning_rate": "0.5", "bias_lr": "0.1", "eps": "None",
    }  # fmt: skip
    config = load(saved(tmp_path, algo_zip({"arg:v": dense(model.V)}, meta))).config
    assert config.optimizer == "sagemaker" and config.bias_lr == 0.05 and config.eps is None
    assert "left out epochs: expected an integer" in caplog.text
    meta = {**META, "bias_init_method": "constant"}  # without its bias_init_value
    config = load(saved(tmp_path, algo_zip({"arg:v": dense(model.V)}, meta))).config
    assert config.num_factors == K and config.bias_init_method is None


# -- containers ----------------------------------------------------------------------------------


def test_archives_with_other_members(tmp_path, model):
    inner = algo_zip({"arg:w1_weight": dense(model.w), "arg:v": dense(model.V)})
    members = {"../evil": b"x", "link": None, "model_algo-1": None, "a/model_algo-2": inner}
    found = load(saved(tmp_path, tar_gz(members), "model.tar.gz"))
    np.testing.assert_array_equal(found.V, model.V)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.tar.gz"]


def test_our_own_file_in_an_archive(tmp_path, model):
    inner = model.save(tmp_path / "x").read_bytes()
    path = saved(tmp_path, tar_gz({"failure": b"", "./model.safetensors": inner}), "model.tar.gz")
    assert load(path) == model
    path = saved(tmp_path, tar_gz({"model.safetensors": inner[:-1]}), "model.tar.gz")
    with pytest.raises(
        ModelFileError, match=r"model\.tar\.gz: model\.safetensors: expected a safe"
    ):
        load(path)


def bad(V=None, **more):
    return algo_zip({"arg:v": dense(np.ones((N, K))) if V is None else V}, **more)


ROWS = np.ones((N, K))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or another file"),
        (b"PK\x03\x04 and no more", "damaged or another file"),
        (gzip.compress(b"not a tar"), "damaged or another file"),
        (gzip.compress(tar_gz({"a": b"1"}))[:40], "damaged or another file"),
        (tar_gz({"weights.pkl": b"1"}), "expected model_algo-1 .*found weights.pkl"),
        (tar_gz({}), "found nothing"),
        (tar_gz({"model_algo-1": b"GIF89a"}), "damaged or another file"),
        (algo_zip(b""), "params: ends at byte 0"),
        (algo_zip(struct.pack("<QQQ", 7, 0, 0)), "expected magic number 0x112, found 0x7"),
        (algo_zip(struct.pack("<QQQ", 0x112, 0, 2**60)), "a handful of arrays, found 1152921504"),
        (algo_zip({}), "expected a matrix v, found nothing"),
        (algo_zip({"arg:v": b""}, params=None), "expected meta.json, symbol.json and params"),
        (bad(meta_json=b"["), "meta.json: expected JSON"),
        (bad(meta_json=b"[]"), "meta.json: expected a JSON object"),
        (bad(meta_json=b'{"training_parameters": 1}'), "expected an object under training_param"),
        (bad(meta={}), "expected predictor_type in meta.json"),
        (bad(meta={**META, "feature_dim": "6"}), "factors and weights of 6 features"),
        (bad(dense(np.ones(N))), "expected a matrix v"),
        (bad(dense(ROWS)[:-1]), "expected 1 names of arrays, found 3602"),
        (algo_zip(params({"arg:v": dense(ROWS)})[:90]), "expected 15 numbers of 4 bytes, found"),
        (algo_zip(params({"arg:v": dense(ROWS)}) + b"0"), "expected the end at byte 145"),
        (bad(struct.pack("<Ii", V2, 2)), r"expected storage 0 \(dense\) or 1 \(rows\), found 2"),
        (bad(struct.pack("<I", 77)), r"not an array of MXNet \(77 dimensions\)"),
        (bad(struct.pack("<IiIqq", V2, 0, 2, -1, 3)), r"expected a shape, found \(-1, 3\)"),
        (bad(dense(ROWS).replace(struct.pack("<iii", 1, 0, 0), struct.pack("<iii", 1, 0, 9))),
         "expected a dtype 0 to 7, found 9"),
        (bad(row_sparse(ROWS, [0, 1], row_numbers=[0, 9])), "row numbers .* not ascending"),
        (bad(row_sparse(ROWS, [0, 1], row_numbers=[-1, 0])), "row numbers .* not ascending"),
        (bad(row_sparse(ROWS, [0, 1], row_numbers=[1, 1])), "row numbers .* not ascending"),
        (bad(row_sparse(ROWS, [0, 1], row_numbers=[1])), "does not fit its stored rows"),
        (algo_zip({"arg:v": dense(ROWS), "arg:w0_weight": dense(np.ones(2))}), "one bias"),
        (algo_zip({"arg:v": dense(ROWS), "arg:w1_weight": dense(np.ones(4))}), "weights of shape"),
    ],
)  # fmt: skip
def test_what_is_not_an_artefact_is_refused(tmp_path, content, message):
    path = saved(tmp_path, content)
    with pytest.raises(ModelFileError, match=rf"model_algo-1: .*({message})"):
        read_artifact(path)


def test_parameters_that_are_not_finite_are_refused(tmp_path):
    for value, found in ((np.nan, "nan"), (1e300, "inf")):
        path = saved(tmp_path, bad(dense(np.full((N, K), value), dtype=FLOAT64)))
        with pytest.raises(ModelFileError, match=rf"model_algo-1: .*V\[0, 0\]: .*{found}"):
            load(path)


def test_an_array_of_zeros_may_not_fill_the_memory(tmp_path):
    huge = struct.pack("<Ii", V2, 1) + shape(V2, 0, K) + shape(V2, 2**40, K)
    huge += struct.pack("<iiii", 1, 0, FLOAT32, INT64) + shape(V2, 0)
    with pytest.raises(ModelFileError, match="unpacks to more than 100 times"):
        read_artifact(saved(tmp_path, bad(huge)))


@pytest.mark.parametrize("where", ["skipped member", "model", "long name"])
def test_bombs_are_not_unpacked(tmp_path, monkeypatch, where):
    monkeypatch.setattr(builtin_artifact, "_most", lambda size: 2 << 20)
    zeros = b"\0" * (8 << 20)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("model_algo-1" if where == "model" else "other")
        if where == "long name":
            entry.pax_headers = {"comment": "x" * len(zeros)}
        else:
            entry.size = len(zeros)
        archive.addfile(entry, io.BytesIO(zeros))
    with pytest.raises(ModelFileError, match="unpacks to"):
        load(saved(tmp_path, file.getvalue(), "model.tar.gz"))


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin_artifact, "_most", lambda size: 1 << 20)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("params", b"\0" * (2 << 20))
    with pytest.raises(ModelFileError, match="params unpacks to more than 100 times"):
        load(saved(tmp_path, file.getvalue()))


@pytest.mark.parametrize("name", ["model_algo-1", "model.tar.gz"])
def test_mutated_files_fail_cleanly_or_change_nothing(tmp_path, rng, model, name):
    path = write_artifact(model, tmp_path / name)
    content = path.read_bytes()
    for _ in range(500):
        mutated = bytearray(content)
        for at in rng.integers(len(content), size=2):
            mutated[at] = rng.integers(256)
        saved(tmp_path, mutated[: rng.integers(1, len(content) * 2)], name)
        try:
            found = load(path)
        except ModelFileError as err:
            assert str(path) in str(err)
        else:
            np.testing.assert_array_equal(found.V, model.V)


def test_mutated_arrays_fail_cleanly(tmp_path, rng, model):
    """As above, but past the checksums of the ZIP: into the reader of the arrays."""
    content = write_arrays({"w1_weight": model.w.reshape(-1, 1), "v": model.V})
    for _ in range(500):
        mutated = bytearray(content)
        for at in rng.integers(len(content), size=2):
            mutated[at] = rng.integers(256)
        try:
            load(saved(tmp_path, algo_zip(bytes(mutated))))
        except ModelFileError as err:
            assert "model_algo-1: " in str(err)


def test_a_ranker_is_nothing_that_the_algorithm_knows(tmp_path):
    model = Model(0, [0.0], [[0.0]], TrainConfig(predictor_type="ranker", num_factors=1))
    with pytest.raises(ConfigError, match="expected regressor or binary_classifier, as the built-"):
        write_artifact(model, tmp_path / "model_algo-1")
    assert not list(tmp_path.iterdir())


# -- recommending ----------------------------------------------------------------------------------


def test_an_artefact_recommends_once_its_items_are_named(tmp_path, monkeypatch, capsys, model):
    """Features 0 and 1 are users, 2 to 4 items, with titles."""
    import fm.cli.main
    from fm.serving.application import create_app

    monkeypatch.chdir(tmp_path)
    write_artifact(model, "model.tar.gz")

    def lines(*argv):
        assert fm.cli.main.main(list(argv)) == 0
        return capsys.readouterr().out.splitlines()

    scores = model.scores(np.eye(N, dtype=np.float32)[[1, 1, 1]] + np.eye(N, dtype=np.float32)[2:])
    best = [str(2 + i) for i in np.argsort(-scores)]
    named = load("model.tar.gz").with_catalogue(item="2:5", user="0:2")
    assert named.recommend(1).ids == named.recommend("1").ids == best
    np.testing.assert_allclose(named.recommend(1).scores, np.sort(scores)[::-1], rtol=1e-5)

    asked = ["--user", "1", "-o", "l.csv"]
    lines("recommend", "model.tar.gz", "--item-column", "2:5", "--user-column", "0:2", *asked)
    found = (tmp_path / "l.csv").read_text()
    assert [row.split(",")[2].strip('"') for row in found.splitlines()[1:]] == best
    lines("convert", "model.tar.gz", "m.safetensors", "--item", "2:5", "--user", "0:2")
    lines("recommend", "m.safetensors", *asked)
    assert (tmp_path / "l.csv").read_text() == found
    (tmp_path / "titles.csv").write_text("item,title\n2,two\n3,three\n4,four\n")
    shown = lines("recommend", "m.safetensors", "--user", "1", "--titles", "titles.csv", "-k", "1")
    assert {"2": "two", "3": "three", "4": "four"}[best[0]] in shown[-1]
    wish = {"data": {"features": {"keys": [1], "values": [1]}}, "k": 3}
    answer = create_app(load("m.safetensors")).test_client().post("/invocations", json=wish)
    assert [one["item"] for one in answer.json["predictions"][0]["items"]] == best


def test_the_rows_it_was_trained_on_tell_who_met_what(tmp_path, model):
    write_artifact(model, tmp_path / "model.tar.gz")
    X = np.zeros((2, N), np.float32)
    X[[0, 0, 1, 1], [1, 2, 0, 4]] = 1  # user 1 met item 2, and user 0 item 4
    named = load(tmp_path / "model.tar.gz").with_catalogue(item="2:5", user="0:2", rows=X)
    assert set(named.recommend(1).ids) == {"3", "4"} and set(named.recommend(0).ids) == {"2", "3"}
    assert set(named.recommend(1, exclude=None).ids) == {"2", "3", "4"}
    named.save(tmp_path / "m")
    assert load(tmp_path / "m").recommend([0, 1]).ids == named.recommend([0, 1]).ids


def test_items_that_cannot_be_named(tmp_path, monkeypatch, capsys, model):
    import fm.cli.main

    monkeypatch.chdir(tmp_path)
    write_artifact(model, "model.tar.gz")
    for wrong in ("2:9", "4:2", "song"):
        with pytest.raises(ConfigError, match=f"item: expected .*found '{wrong}'"):
            load("model.tar.gz").with_catalogue(item=wrong)
    with pytest.raises(ConfigError, match="item: expected the column of the items, or a range"):
        load("model.tar.gz").with_catalogue()

    def fails(message, *argv):
        assert fm.cli.main.main(list(argv)) == 2
        assert message in capsys.readouterr().err

    fails("--user: expected --item too", "convert", "model.tar.gz", "m", "--to", "safetensors",
          "--user", "0:2")  # fmt: skip
    again = ["convert", "model.tar.gz", "again.tar.gz", "--item", "2:5"]
    fails("--item: does not apply, because a model is converted as it is", *again)
    load("model.tar.gz").with_catalogue(item="2:5").save("m.safetensors")
    fails("m.safetensors knows its items (2:5)", "convert", "m.safetensors", "n.safetensors",
          "--item", "2:5")  # fmt: skip


def test_the_real_artefact_recommends(shared_data):
    model = load(shared_data / "sagemaker-builtin-fm" / "model.tar.gz")
    named = model.with_catalogue(item="943:2625", user="0:943")
    best = named.recommend(41, 5)
    rows = np.zeros((5, 2625), np.float32)
    rows[np.arange(5), [int(item) for item in best.ids]] = rows[:, 41] = 1
    np.testing.assert_allclose(best.scores, model.scores(rows), rtol=1e-4)
    assert (np.diff(best.scores) <= 0).all()
