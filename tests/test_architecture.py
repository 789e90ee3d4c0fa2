"""The floors of the design, read from the source: a file imports only from its floor or below."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fm

ROOT = Path(fm.__file__).parents[1]

# Every file has a floor; a new one must be given one here. A folder's name stands for its files.
FLOORS = {
    # 0  pure arrays: no files, no logging, no randomness
    "fm.errors": 0,
    "fm.measures.losses": 0,
    "fm.measures.predictions": 0,
    "fm.kernels.simd": 0,
    "fm.kernels.jit": 0,
    "fm.kernels.optimizers": 0,
    "fm.kernels.rows": 0,
    "fm.kernels.minibatch": 0,
    "fm.kernels.pairs": 0,
    "fm.kernels.negatives": 0,
    "fm.recommending.topk": 0,
    "fm.measures.rankings": 0,
    # 1  data in: bytes <-> arrays, columns <-> CSR, hyperparameters
    "fm.config": 1,
    "fm.data.dataset": 1,
    "fm.formats": 1,
    "fm.encoding.columns": 1,
    "fm.encoding.choosing": 1,
    "fm.encoding.encoder": 1,
    "fm.reading.numbered": 1,
    "fm.reading.read": 1,
    "fm.catalogue.catalogue": 1,
    "fm.catalogue.filling": 1,
    "fm.catalogue.finding": 1,
    "fm.catalogue.item_table": 1,
    "fm.evaluating.splits": 1,
    "fm.datasets": 1,
    # 2  the model and its files
    "fm.model.model": 2,
    "fm.model.builtin": 2,
    "fm.recommending.recommendations": 2,
    "fm.recommending.recommender": 2,
    "fm.recommending.vectors": 2,
    "fm.recommending.folding": 2,
    "fm.recommending.extending": 2,
    "fm.recommending.contexts": 2,
    "fm.explaining.terms": 2,
    "fm.explaining.interactions": 2,
    "fm.evaluating.rankings": 2,
    "fm.evaluating.predictions": 2,
    # 3  training: loop, early stopping, randomness, checkpoints
    "fm.training.progress": 3,
    "fm.training.state": 3,
    "fm.training.fit": 3,
    "fm.training.ranker": 3,
    # 4  what people call
    "fm": 4,
    "fm.__main__": 4,
    "fm.cli.main": 4,
    "fm.cli.options": 4,
    "fm.cli.train": 4,
    "fm.cli.predict": 4,
    "fm.cli.evaluate": 4,
    "fm.cli.convert": 4,
    "fm.serving.application": 4,
    "fm.serving": 4,
    "fm.cli.demo": 4,
    "fm.estimators": 4,
    "fm.cli.recommend": 4,
    "fm.cli.explain": 4,
    "fm.cli.lists": 4,
    "fm.explaining.pictures": 2,
    # 5  SageMaker and Docker
    "container": 5,
}
COMPILED = {
    "fm.kernels.simd",
    "fm.kernels.jit",
    "fm.kernels.optimizers",
    "fm.kernels.rows",
    "fm.kernels.minibatch",
    "fm.kernels.pairs",
    "fm.kernels.negatives",
}
# What a file may import besides the standard library when it is itself imported.
THIRD_PARTY = {
    **dict.fromkeys(FLOORS, {"numpy", "scipy", "orjson"}),
    **dict.fromkeys(COMPILED, {"numpy", "numba", "llvmlite"}),
    "fm.estimators": {"numpy", "scipy", "sklearn"},
    "fm.serving.application": {"orjson", "flask", "werkzeug"},
    "fm.serving.server": {"orjson", "flask", "gunicorn"},
    "fm.serving.worker": {"gunicorn"},
    "container": {"numpy", "scipy", "orjson", "flask", "gunicorn"},
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(path): path
    for folder in ("fm", "container")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}


def entry(name, table):
    """The entry of a module: its own, or that of the folder it is in."""
    while name not in table:
        assert "." in name, f"{name} is in no table of tests/test_architecture.py: give it a floor"
        name = name.rpartition(".")[0]
    return name


def imports(name):
    """All imports of a module: (line, what, at import time?), wherever they stand in the file."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]

    def walk(node, now):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, now) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*above, *([base] if base else [])])
                for alias in child.names:  # "from fm import model" means fm.model.model
                    whole = f"{base}.{alias.name}"
                    yield child.lineno, whole if whole in FILES else base, now
            is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk(child, now and not is_function and not types_only)

    yield from walk(TREES[name], True)


OURS = {
    name: [found for found in imports(name) if found[1].split(".")[0] in ("fm", "container")]
    for name in FILES
}


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name):
    floor = FLOORS[entry(name, FLOORS)]
    for line, target, _ in OURS[name]:
        if target == "fm":
            continue  # the version; see the next test
        above = FLOORS[entry(target, FLOORS)]
        assert above <= floor, f"{name} line {line}: floor {floor} imports {target}, floor {above}"


def test_only_the_version_is_taken_from_the_package_itself():
    """`from fm import Dataset` would lead through the lazy names of the top floor."""
    for name in FILES:
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.ImportFrom) and node.module == "fm" and not node.level:
                taken = {alias.name for alias in node.names if f"fm.{alias.name}" not in FILES}
                if name.split(".")[0] == "fm":
                    assert taken <= {"__version__"}, f"{name} line {node.lineno}: {taken}"


def test_no_circle_at_import_time():
    graph = {
        name: {target for _, target, now in OURS[name] if now and target != "fm"} for name in FILES
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle
    assert set(order) >= set(FILES)


def test_the_library_does_not_know_the_container():
    for name in FILES:
        if name.split(".")[0] == "fm":
            assert not [found for found in OURS[name] if found[1].split(".")[0] == "container"]


@pytest.mark.parametrize("name", FILES)
def test_heavy_packages_are_imported_where_they_are_needed(name):
    allowed = THIRD_PARTY[entry(name, THIRD_PARTY)] | sys.stdlib_module_names | {"fm", "container"}
    for line, target, now in imports(name):
        if now:
            assert target.split(".")[0] in allowed, f"{name} line {line} imports {target}"


def test_only_the_kernels_know_the_compiler():
    for name in FILES:
        for line, target, _ in imports(name):
            if target.split(".")[0] in ("numba", "llvmlite"):
                assert name in COMPILED, f"{name} line {line} imports {target}"


def test_a_change_of_any_compiled_file_renews_the_cache():
    """numba looks at a kernel's own file only; fm.kernels.jit hashes those it is made of."""
    hashed = {
        node.value
        for node in ast.walk(TREES["fm.kernels.jit"])
        if isinstance(node, ast.Constant) and str(node.value).endswith(".py")
    }
    assert hashed == {f"{name.rpartition('.')[2]}.py" for name in COMPILED - {"fm.kernels.jit"}}


@pytest.mark.parametrize("name", FILES)
def test_nothing_executes_data(name):
    """No pickle in any disguise, no eval."""
    modules = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for line, target, _ in imports(name):
        assert target.split(".")[0] not in modules, f"{name} line {line} imports {target}"
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("eval", "exec", "__import__"), f"{name} line {node.lineno}: {called}"
        assert not called.endswith((".read_pickle", ".to_pickle")), f"{name} line {node.lineno}"
        for keyword in node.keywords:
            harmless = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            assert keyword.arg != "allow_pickle" or harmless, f"{name} line {node.lineno}"


HEAVY = ("numba", "llvmlite", "sklearn", "pyarrow", "pandas", "polars", "tqdm", "flask", "boto3")
SERVING = """
import fm
from fm.config import TrainConfig
model = fm.Model(0.5, [1.0, 2.0], [[1.0], [3.0]], TrainConfig(num_factors=1))
assert model.predict([[1, 1]]).tolist() == [6.5]
assert model.score_row([0, 1]) == 6.5
"""


@pytest.mark.parametrize(
    "code",
    ["import fm", "import fm.model.model", "import fm.reading.read", "import fm.cli.main", SERVING],
    ids=["fm", "fm.model.model", "fm.reading.read", "fm.cli.main", "scoring"],
)
def test_a_fresh_process_loads_nothing_heavy(code):
    """In particular, what only serves never loads the compiler."""
    code += f"\nimport sys; print(*sorted(set({HEAVY}) & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
