"""The rooms of the house, read from the source: a file imports only from its own room and below."""

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fm

ROOT = Path(fm.__file__).parents[1]

# From low to high. A room is a folder or a single file. A file imports from its own room and from
# lower lines; rooms in one line do not import each other. All imports count: those inside functions
# and those for types only, too. CONTRIBUTING.md says what each room is for.
ROOMS = [
    ["fm.errors", "fm.version"],
    ["fm.sparse"],
    ["fm.parameter", "fm.recipes", "fm.measures"],
    ["fm.tasks", "fm.kernels"],
    ["fm.config"],
    ["fm.formats"],
    ["fm.encoding", "fm.datasets"],
    ["fm.catalogue"],
    ["fm.data"],
    ["fm.reading"],
    ["fm.scoring"],
    ["fm.recommending", "fm.explaining"],
    ["fm.model"],
    ["fm.training"],
    ["fm.evaluating"],
    ["fm.serving"],
    ["fm.cli", "fm.estimators", "fm.sagemaker_compat"],
    ["fm", "fm.__main__", "fm.train", "fm.predict", "fm.evaluate", "fm.recommend", "fm.explain",
     "fm.convert", "fm.serve"],
    ["container"],
]  # fmt: skip
LINE = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
# What a file may import besides the standard library when it is itself imported.
THIRD_PARTY = {
    "fm.kernels": {"numpy", "numba", "llvmlite"},
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


COMPILED = {name for name in FILES if name.startswith("fm.kernels.")}


def entry(name, table):
    """Return the entry of a file, or of the folder it is in; None: there is none.

    The entry "fm" is that of the package itself, not of what is in it.
    """
    while name not in table:
        name = name.rpartition(".")[0]
        if name in ("", "fm"):
            return None
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
def test_a_file_imports_from_its_own_room_and_below(name):
    room = entry(name, LINE)
    assert room, f"{name} is in no room: add it to ROOMS, and to the table in CONTRIBUTING.md"
    for line, target, _ in OURS[name]:
        other = entry(target, LINE)
        assert other == room or LINE[other] < LINE[room], f"{name} line {line} imports {target}"


def test_every_room_is_there():
    assert set(LINE) == {entry(name, LINE) for name in FILES}


def test_contributing_says_what_each_room_is_for():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| `(.*?)` \| \w.+ \|$", text.partition("## Rooms")[2], re.M)
    paths = [[ROOT / path for path in row.split("`, `")] for row in rows]
    assert [[module_name(path) for path in row] for row in paths] == ROOMS[::-1]


def test_nobody_imports_the_package_itself():
    """`from fm import Dataset` would lead through the lazy names, which are above all else."""
    for name in FILES:
        for line, target, _ in OURS[name]:
            assert target not in ("fm", "container"), f"{name} line {line} imports {target}"


def test_no_circle_of_files():
    graph = {name: {target for _, target, _ in OURS[name]} for name in FILES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle
    assert set(order) == set(FILES)


def test_the_library_does_not_know_the_container():
    for name in FILES:
        if name.split(".")[0] == "fm":
            assert not [found for found in OURS[name] if found[1].split(".")[0] == "container"]


@pytest.mark.parametrize("name", FILES)
def test_heavy_packages_are_imported_where_they_are_needed(name):
    known = THIRD_PARTY.get(entry(name, THIRD_PARTY), {"numpy", "scipy", "orjson"})
    allowed = known | sys.stdlib_module_names | {"fm", "container"}
    for line, target, now in imports(name):
        if now:
            assert target.split(".")[0] in allowed, f"{name} line {line} imports {target}"


def test_only_the_kernels_know_the_compiler():
    for name in FILES:
        for line, target, _ in imports(name):
            if target.split(".")[0] in ("numba", "llvmlite"):
                assert name in COMPILED, f"{name} line {line} imports {target}"


def test_a_change_of_any_compiled_file_renews_the_cache():
    """numba looks at a kernel's own file only; fm.kernels.jit stamps it with all of these."""
    from fm.kernels import layout
    from fm.kernels.jit import SOURCE_STAMP, SOURCES

    compiled = {FILES[name] for name in (*COMPILED, "fm.kernels")}
    assert set(SOURCES) == {*compiled, FILES["fm.measures.losses"]}
    assert layout.shuffle._cache._cache_file._source_stamp == SOURCE_STAMP


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
