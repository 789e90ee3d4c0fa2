"""The names at the top level: what each is, and that the README needs no others."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import fm

ROOT = Path(fm.__file__).parents[1]
README = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("name", fm.__all__)
def test_each_name_has_a_docstring_with_an_example(name):
    found = getattr(fm, name)
    if inspect.isclass(found) and issubclass(found, fm.FMError) and found is not fm.FMError:
        assert inspect.getdoc(found)  # they are caught like the class they are of
    else:
        assert ">>>" in inspect.getdoc(found)
    assert found.__name__ == name


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(fm.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.asname: node.module
        for node in imports
        if node.module.startswith("fm.")
        for alias in node.names
    }
    homes = {name: f"fm.{home}" for name, home in fm._HOME.items()}
    assert seen == {"__version__": "fm.version", **homes}
    assert set(fm.__all__) <= set(dir(fm))


def test_no_name_is_that_of_a_module():
    """Else `import fm.evaluate`, as some tools do, would put the module in the name's place."""
    modules = {path.stem for path in (ROOT / "fm").iterdir()}
    assert not modules & set(fm.__all__)


def test_the_readme_imports_fm_and_nothing_in_it():
    imports = re.findall(r"^(?:from|import) (fm\S*)", "\n".join(README), re.M)
    assert imports and set(imports) == {"fm"}


def test_what_is_handed_back_is_at_the_top_level():
    data = fm.read({"user": [1, 1, 2], "film": ["A", "B", "B"], "rating": [1, 2, 3]})
    epochs = []
    model = fm.fit(data, fm.TrainConfig(num_factors=2), callbacks=[epochs.append])
    handed = [
        data, data.encoder, data.catalogue, epochs[0], model, model.recommender,
        model.recommend(1), model.similar_items("A"), model.explain({"user": 1}),
        model.interactions({"user": [1], "film": ["A"]})[0],
        fm.field_interactions(model, {"user": [1], "film": ["A"]}),
        model.fold_in([{"film": "A"}], [3], "user"),
    ]  # fmt: skip
    for thing in handed:
        assert getattr(fm, type(thing).__name__) is type(thing)
