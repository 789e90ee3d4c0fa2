"""Pictures: what is in them, and that they are written."""

import sys

import numpy as np
import pytest
from test_explaining import TABLE, model_of

from fm.encoding.encoder import Encoder
from fm.errors import ConfigError
from fm.explaining.interactions import field_interactions
from fm.explaining.terms import explain
from fm.tasks import CLASSIFIER

pytest.importorskip("matplotlib")

ROW = {"user": "ann", "film": "B", "genres": "x|y", "age": 1.0}


def test_a_heat_map_holds_the_figures(tmp_path):
    model = model_of()
    path = tmp_path / "map.png"
    found = field_interactions(model, TABLE)
    figure = found.plot(save=path)
    names, strength, linear = found
    axes, alone = figure.axes[:2]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    lower = np.tril_indices(len(names))
    assert np.allclose(axes.images[0].get_array()[lower], strength[lower])
    assert np.allclose(alone.images[0].get_array()[:, 0], linear)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_bars_add_up_to_the_score(tmp_path):
    model = model_of(CLASSIFIER)
    found = explain(model, ROW)
    figure = found.plot(tmp_path / "bars.svg")
    (axes,) = figure.axes
    added = sum(bar.get_width() for bar in axes.patches)
    assert added + found.bias == pytest.approx(found.score, abs=1e-6)
    largest = max([*found.linear, *((f"{a} x {b}", v) for a, b, v in found.pairs)], key=_size)
    assert axes.get_yticklabels()[0].get_text() == largest[0]
    assert "probability" in axes.get_title()
    assert "<svg" in (tmp_path / "bars.svg").read_text()
    assert len(axes.patches) == 16  # the last one is the sum of all others


def _size(term):
    return abs(term[1])


def test_a_dollar_is_no_formula():
    encoder = Encoder.fit({"pay": ["$1 - $2", "$3"]}, categorical=["pay"])
    figure = explain(model_of(encoder=encoder), {"pay": "$1 - $2"}).plot()
    assert figure.axes[0].get_yticklabels()[0].get_text() == r"pay=\$1 - \$2"
    figure.canvas.draw()


def test_a_format_that_there_is_not(tmp_path):
    with pytest.raises(ConfigError, match="save: .*'docx'"):
        explain(model_of(), ROW).plot(save=tmp_path / "x.docx")


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"run pip install fm\[plots\]"):
        explain(model_of(), ROW).plot()
