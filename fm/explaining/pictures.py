"""Pictures: which fields a model combines, and what one score is made of.

Decided here: how they are drawn. Not decided here: the figures (``fm.explaining.interactions``,
``fm.explaining.terms``). Needs matplotlib: ``pip install fm[plots]``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fm.errors import ConfigError
from fm.explaining.interactions import field_interactions
from fm.explaining.terms import Explanation, explain, one_line
from fm.formats.storage import atomic_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fm.scoring.machine import FactorizationMachine

_BARS = 15
_WIDTH = 40  # characters of a name


def heat_map(
    model: FactorizationMachine, data: Any, *, save: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw how much each pair of fields moves the scores of some rows, and return the figure.

    Parameters
    ----------
    model : FactorizationMachine
    data : anything that ``Model.as_dataset`` takes
    save : path, optional
        Where to write the picture; its ending is the format: .png, .svg, .pdf.

    Raises
    ------
    ConfigError
        If matplotlib is not installed or does not know the format, or the model knows no fields.
    """
    names, strength, linear = field_interactions(model, data)
    count = len(names)
    shown = np.where(np.tri(count, dtype=bool), strength, np.nan)  # it is symmetric
    size = 2.5 + 0.45 * count
    figure = _figure((size + 2, size))
    axes, alone = figure.subplots(1, 2, width_ratios=[count, 1], sharey=True)
    top = max(float(strength.max()), float(linear.max()), 1e-12)
    picture = axes.imshow(shown, cmap="viridis", vmin=0, vmax=top)
    alone.imshow(linear[:, None], cmap="viridis", vmin=0, vmax=top)
    labels = [_label(name, _WIDTH) for name in names]
    axes.set_xticks(range(count), labels, rotation=90)
    axes.set_yticks(range(count), labels)
    alone.set_xticks([0], ["alone"], rotation=90)
    if count <= 12:
        for where, values in ((axes, shown), (alone, linear[:, None])):
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    color = "black" if value > 0.6 * top else "white"
                    text = {"ha": "center", "va": "center", "size": 7, "color": color}
                    where.text(column, row, f"{value:.2g}", **text)
    axes.set_title("mean size of what pairs of fields add to a score")
    figure.colorbar(picture, ax=[axes, alone])
    return _saved(figure, save)


def bars(
    model: FactorizationMachine, row: Any, *, save: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw what the score of one row is made of, largest terms first, and return the figure.

    Parameters
    ----------
    model : FactorizationMachine
    row : mapping, (indices, values), or one row; or an Explanation
        See :func:`fm.explaining.terms.explain`.
    save : path, optional
        As in :func:`heat_map`.

    Raises
    ------
    ConfigError
        If matplotlib is not installed, or does not know the format.
    DataError
        If the row does not fit the model.
    """
    found = row if isinstance(row, Explanation) else explain(model, row, pairs=_BARS)
    terms = [(name, value) for name, value in found.linear]
    terms += [(f"{first} x {second}", value) for first, second, value in found.pairs]
    terms.sort(key=lambda term: -abs(term[1]))
    terms = terms[:_BARS]  # without the bias, which would dwarf the others
    rest = found.total - found.bias - sum(value for _, value in terms)
    if abs(rest) > 1e-9 * max(1.0, abs(found.total)):
        terms.append(("all others", rest))
    if not terms:
        terms = [("nothing", 0.0)]
    names, values = zip(*terms, strict=True)
    figure = _figure((8, 1.2 + 0.3 * len(terms)))
    axes = figure.subplots()
    colors = ["tab:blue" if value >= 0 else "tab:orange" for value in values]
    axes.barh([_label(name, 2 * _WIDTH) for name in names], values, color=colors)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("added to the score")
    text = f"score {found.total:.4g}, of which bias {found.bias:.4g}"
    if found.probability is not None:
        text += f", probability {found.probability:.3f}"
    axes.set_title(text)
    return _saved(figure, save)


def _label(name: str, width: int) -> str:
    return one_line(name, width).replace("$", r"\$")  # else a formula begins


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ConfigError(
            "plots: matplotlib is not installed; run pip install fm[plots], or pip install "
            "matplotlib"
        ) from err
    return Figure(figsize=size, layout="constrained")  # it has no window that must be closed


def _saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        try:
            with atomic_output(path) as file:
                ending = os.path.splitext(path)[1].removeprefix(".")
                figure.savefig(file, dpi=150, format=ending or None)
        except ValueError as err:
            raise ConfigError(f"save: {err}") from err
    return figure
