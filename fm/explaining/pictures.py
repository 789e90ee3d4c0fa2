"""Pictures: bars and heat maps, as ``Explanation.plot`` and ``FieldInteractions.plot`` draw them.

Decided here: what they look like. Not decided here: the figures in them (``fm.explaining.terms``,
``fm.explaining.interactions``). Needs matplotlib: ``pip install fm[plots]``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fm.errors import ConfigError
from fm.formats.storage import atomic_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str] | None


def heat_map(
    names: Sequence[str], strength: np.ndarray, alone: np.ndarray, title: str, save: Path = None
) -> Figure:
    """Draw a symmetric matrix with a column beside it, and return the figure.

    Parameters
    ----------
    names : sequence of str
        Of the rows and columns.
    strength : ndarray, shape (n, n)
        Numbers >= 0.
    alone : ndarray, shape (n,)
        The column beside it, in the same colors.
    title : str
    save : path, optional
        Where to write the picture; its ending is the format: .png, .svg, .pdf.

    Raises
    ------
    ConfigError
        If matplotlib is not installed or does not know the format.
    """
    count = len(names)
    shown = np.where(np.tri(count, dtype=bool), strength, np.nan)  # it is symmetric
    size = 2.5 + 0.45 * count
    figure = _figure((size + 2, size))
    axes, beside = figure.subplots(1, 2, width_ratios=[count, 1], sharey=True)
    top = max(float(strength.max()), float(alone.max()), 1e-12)
    picture = axes.imshow(shown, cmap="viridis", vmin=0, vmax=top)
    beside.imshow(alone[:, None], cmap="viridis", vmin=0, vmax=top)
    labels = list(map(_label, names))
    axes.set_xticks(range(count), labels, rotation=90)
    axes.set_yticks(range(count), labels)
    beside.set_xticks([0], ["alone"], rotation=90)
    if count <= 12:
        for where, values in ((axes, shown), (beside, alone[:, None])):
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    color = "black" if value > 0.6 * top else "white"
                    text = {"ha": "center", "va": "center", "size": 7, "color": color}
                    where.text(column, row, f"{value:.2g}", **text)
    axes.set_title(title)
    figure.colorbar(picture, ax=[axes, beside])
    return _saved(figure, save)


def bars(terms: Sequence[tuple[str, float]], title: str, save: Path = None) -> Figure:
    """Draw a bar for each of some terms (name, value), the first one on top; see `heat_map`."""
    names, values = zip(*(terms or [("nothing", 0.0)]), strict=True)
    figure = _figure((8, 1.2 + 0.3 * len(values)))
    axes = figure.subplots()
    colors = ["tab:blue" if value >= 0 else "tab:orange" for value in values]
    axes.barh(list(map(_label, names)), values, color=colors)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("added to the score")
    axes.set_title(title)
    return _saved(figure, save)


def _label(name: str) -> str:
    return name.replace("$", r"\$")  # which would begin a formula


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ConfigError(
            "plot: matplotlib is not installed; run pip install fm[plots], or pip install "
            "matplotlib"
        ) from err
    return Figure(figsize=size, layout="constrained")  # without a window: nothing to close


def _saved(figure: Figure, path: Path) -> Figure:
    if path is not None:
        try:
            with atomic_output(path) as file:
                ending = os.path.splitext(path)[1].removeprefix(".")
                figure.savefig(file, dpi=150, format=ending or None)
        except ValueError as err:
            raise ConfigError(f"save: {err}") from err
    return figure
