"""Explaining: what a score is made of.

Decided here: how a score is split. Not decided here: which pairs matter in many rows
(``fm.explaining.interactions``), how it is drawn (``fm.explaining.pictures``), how rows become
features (``fm.encoding.encoder``).

A score is the sum of its terms (Rendle 2010, equation 1): the bias ``w0``, ``w_i x_i`` of each
entry of the row, and ``<v_i, v_j> x_i x_j`` of each pair of entries. :func:`explain` shows the
terms of one row. They add up to the score, in float64; :meth:`fm.Model.scores` rounds
the same sum to float32.

A row of m entries has m (m - 1) / 2 pairs. Their sums are computed without the pairs, from the sums
of the fields' vectors, in O(m k). Only the strongest pairs are listed one by one.
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from fm.data.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.scoring.formula import inner
from fm.sparse import sparse_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fm.scoring.machine import FactorizationMachine

MAX_FIELDS = 200  # more rows and columns nobody reads, and the matrix grows with their square
_BARS = 15  # terms in a picture
_OWN = 2**31  # a feature without a field is a field of its own, of number _OWN + feature
_BLOCK = 2**20  # floats of a temporary matrix: 8 MB

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


# -- one row ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The terms of one score; :func:`explain` makes it.

    Attributes
    ----------
    score : float
        The raw score, in float64: ``bias + by_field.sum()``, or the sum of all terms.
    bias : float
        w0, the part of every score.
    linear : list of (str, float)
        Name and contribution ``w_i x_i`` of each entry of the row, by feature number.
    pairs : list of (str, str, float)
        Names and contribution ``<v_i, v_j> x_i x_j`` of the strongest pairs of entries, the largest
        magnitude first.
    num_pairs : int
        How many pairs the row has.
    features : ndarray of int32, shape (num_entries,)
        The feature numbers of the entries.
    values : ndarray of float64, shape (num_entries,)
        Their values x.
    field_names : tuple of str
        The fields of the row, as rows and columns of `by_field`. A feature without a field is its
        own field, with the feature's name. If there are more than 200, the weakest are summed up
        as "N others".
    by_field : ndarray of float64, shape (num_fields, num_fields)
        The upper triangle holds the sum of the pairs between two fields. The diagonal holds the
        linear terms of a field and the pairs within it. The lower triangle is 0.
    probability : float or None
        Of a classifier: that of label 1, sigmoid(score).
    filled : tuple of str
        The columns that the row left out and that are as the training data describe its user or
        item.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(3.5, [0.5, -0.25], [[2.0], [0.25]], TrainConfig(num_factors=1))
    >>> found = model.explain([[1, 1]])
    >>> found.score, found.terms(2)
    (4.25, [('feature 0', 0.5), ('feature 0 x feature 1', 0.5), ('1 more', -0.25)])
    """

    score: float
    bias: float
    linear: list[tuple[str, float]]
    pairs: list[tuple[str, str, float]]
    num_pairs: int
    features: np.ndarray
    values: np.ndarray
    field_names: tuple[str, ...]
    by_field: np.ndarray
    probability: float | None = None
    filled: tuple[str, ...] = ()

    def terms(self, top: int = 12) -> list[tuple[str, float]]:
        """Return the strongest linear terms and pairs, and the sum of the others.

        Parameters
        ----------
        top : int
            How many terms. Only the pairs in :attr:`pairs` can be among them.

        Returns
        -------
        list of (str, float)
            Largest magnitude first; the last may be ``"N more"``. With the bias they sum to the
            score.
        """
        terms = [*self.linear, *((f"{a} x {b}", value) for a, b, value in self.pairs)]
        terms.sort(key=lambda term: -abs(term[1]))
        shown, more = terms[:top], len(self.linear) + self.num_pairs - len(terms[:top])
        if more:
            rest = self.score - self.bias - math.fsum(value for _, value in shown)
            shown.append((f"{more:,} more", rest))
        return shown

    def plot(self, save: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the strongest terms, without the bias, and return the matplotlib figure.

        Parameters
        ----------
        save : path, optional
            Where to write the picture; its ending says the format: .png, .svg, .pdf.

        Raises
        ------
        ConfigError
            If matplotlib is not installed or does not know the format.
        """
        from fm.explaining.pictures import bars

        title = f"score {self.score:.4g}, of which bias {self.bias:.4g}"
        if self.probability is not None:
            title += f", probability {self.probability:.3f}"
        terms = [(one_line(name, 80), value) for name, value in self.terms(_BARS)]
        return bars(terms, title, save)

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as what JSON can hold."""
        result: dict[str, Any] = {"score": self.score}
        if self.probability is not None:
            result["probability"] = self.probability
        entries = zip(self.linear, self.features.tolist(), self.values.tolist(), strict=True)
        return {
            **result,
            "filled": list(self.filled),
            "bias": self.bias,
            "linear": [
                {"name": name, "feature": feature, "value": value, "contribution": contribution}
                for (name, contribution), feature, value in entries
            ],
            "pairs": [{"names": [a, b], "contribution": value} for a, b, value in self.pairs],
            "num_pairs": self.num_pairs,
            "fields": list(self.field_names),
            "by_field": self.by_field.tolist(),
        }

    def __str__(self) -> str:
        head = f"score {self.score:.6g}"
        if self.probability is not None:
            head += f", probability {self.probability:.6g}"
        lines = [head]
        if self.filled:
            lines.append(f"as in the training data: {one_line(', '.join(self.filled), 90)}")
        rows = [("bias", self.bias), *self.terms()]
        lines += [f"{value:+12.6f}  {one_line(name, 100)}" for name, value in rows]
        if len(self.field_names) < len(self.linear) and len(self.field_names) <= 8:
            names = [one_line(name, 11) for name in self.field_names]
            lines += ["by field", " " * 12 + "".join(f"{name:>12}" for name in names)]
            for i, (name, row) in enumerate(zip(names, self.by_field, strict=True)):
                cells = "".join(f"{value:+12.6f}" for value in row[i:])
                lines.append(f"{name:<12}{' ' * 12 * i}{cells}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Explanation of {self.score:.6g} by {len(self.linear)} entries>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def one_line(name: str, width: int) -> str:
    """Return a name that fits in a table: one line, printable, at most `width` characters.

    Examples
    --------
    >>> one_line("film=The Good, the Bad and the Ugly", 20)
    'film=The Good, the …'
    """
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= width else name[: width - 1] + "…"


def explain(model: FactorizationMachine, row: Any, *, pairs: int = 20) -> Explanation:
    """Return what the score of one row is made of.

    Parameters
    ----------
    model : FactorizationMachine
    row : mapping, (indices, values), or anything of one row that ``Model.as_dataset`` takes
        Columns that a mapping or a table leaves out are filled in as for ``Model.scores``. Values
        may be None: 1 each. A feature that is repeated has the sum of its values.
    pairs : int
        How many of the strongest pairs of entries are listed.

    Raises
    ------
    DataError
        If there is no row or more than one, or it does not fit the model.
    ConfigError
        If `pairs` is not an integer >= 0.

    Examples
    --------
    >>> from fm import Model, TrainConfig
    >>> model = Model(3.5, [0.5, -0.25], [[2.0], [0.25]], TrainConfig(num_factors=1),
    ...               fields=[0, 1], field_names=("user", "film"))
    >>> print(explain(model, ([0, 1], None)))
    score 4.25
       +3.500000  bias
       +0.500000  feature 0
       +0.500000  feature 0 x feature 1
       -0.250000  feature 1
    """
    _check_integer("pairs", pairs, 0)
    data = _one_row(model, row)
    features, values = data.X.indices, data.X.data.astype(np.float64)
    vectors = values[:, None] * model.V[features]
    linear = values * model.w[features]
    names = [model.feature_name(feature) for feature in features.tolist()]
    field_names, by_field = _sums_by_field(model, features, linear, vectors)
    products, first, second = _strongest_pairs(vectors, pairs)
    score = model.w0 + float(by_field.sum())
    probability = None
    if model.task.has_probabilities:
        probability = float(model.task.loss.link(np.array(score)))
    return Explanation(
        score=score,
        bias=model.w0,
        linear=list(zip(names, linear.tolist(), strict=True)),
        pairs=[
            (names[i], names[j], value)
            for value, i, j in zip(products.tolist(), first, second, strict=True)
        ],
        num_pairs=len(names) * (len(names) - 1) // 2,
        features=features,
        values=values,
        field_names=field_names,
        by_field=by_field,
        probability=probability,
        filled=_filled(model, data),
    )


def _one_row(model: FactorizationMachine, row: Any) -> Dataset:
    if isinstance(row, Mapping):
        row = [row]
    elif isinstance(row, tuple) and len(row) == 2:
        expected = "explain: expected (feature numbers, as many values)"
        row = sparse_row(*row, model.num_features, expected=expected)
    data = model.as_dataset(row)
    if data.num_rows != 1:
        raise DataError(f"explain: expected one row, found {data.num_rows}; pass them one by one")
    return data


def _filled(model: FactorizationMachine, data: Dataset) -> tuple[str, ...]:
    """Return the columns that a row left out and that are known of its user or item."""
    if not data.filled or model.encoder is None:
        return ()
    known = data.X.indices[model.encoder.known_entries(data.X)]
    fields = {model.encoder.field_names[field] for field in model.encoder.fields[known].tolist()}
    return tuple(name for name in data.filled if name in fields)


def _field_keys(model: FactorizationMachine, features: np.ndarray) -> np.ndarray:
    """Return the number of each feature's field; _OWN + feature where there is none."""
    own = features.astype(np.int64) + _OWN
    if model.fields is None:
        return own
    fields = model.fields[features]
    return np.where(fields >= 0, fields, own)


def _field_name(model: FactorizationMachine, key: int) -> str:
    if key >= _OWN:
        return model.feature_name(key - _OWN)
    name = model.field_names[key] if key < len(model.field_names) else str(key)
    return f"field {name}" if name.isdigit() else name  # libffm numbers its fields


def _sums_by_field(
    model: FactorizationMachine, features: np.ndarray, linear: np.ndarray, vectors: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names and the matrix of Explanation.by_field."""
    keys, group = np.unique(_field_keys(model, features), return_inverse=True)
    names = [_field_name(model, key) for key in keys[: MAX_FIELDS * 2].tolist()]
    if keys.size > MAX_FIELDS:
        sums = _sum_rows(vectors, group, keys.size)
        weight = np.sqrt(np.square(sums).sum(1)) + np.abs(np.bincount(group, linear))
        kept = np.sort(np.argsort(-weight, kind="stable")[: MAX_FIELDS - 1])
        new = np.full(keys.size, kept.size)
        new[kept] = np.arange(kept.size)
        group = new[group]
        names = [_field_name(model, key) for key in keys[kept].tolist()]
        names.append(f"{keys.size - kept.size:,} others")
    sums = _sum_rows(vectors, group, len(names))
    products = sums @ sums.T
    # the pairs within a field: 1/2 (|sum of z|^2 - sum of |z|^2), see fm.scoring.formula
    alone = linear - 0.5 * inner(vectors, vectors)
    by_field = np.triu(products, 1)
    np.fill_diagonal(
        by_field, 0.5 * products.diagonal() + np.bincount(group, alone, minlength=len(names))
    )
    return tuple(names), by_field


def _sum_rows(rows: np.ndarray, group: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the sum of the rows of each group."""
    places = (np.ones(group.size), (group, np.arange(group.size)))
    return np.asarray(sp.csr_matrix(places, shape=(num_groups, group.size)) @ rows)


def _strongest_pairs(vectors: np.ndarray, count: int) -> Pairs:
    """Return (products, i, j) of the pairs of rows with the largest absolute inner products.

    The rows are taken by falling norm, block by block. A product is at most the product of the
    norms, so once enough pairs are found, most of the others need not be computed.
    """
    norms = np.sqrt(inner(vectors, vectors))
    order = np.argsort(-norms, kind="stable")
    vectors, norms = vectors[order], norms[order]
    best = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    start = 0
    while count and start < norms.size - 1:
        least = np.abs(best[0]).min() * (1 - 1e-12) if best[0].size == count else 0.0
        width = int(np.searchsorted(-norms[start] * norms, -least, side="right")) - start
        if width < 2:
            break
        stop = min(start + max(1, _BLOCK // width), norms.size)
        products = vectors[start:stop] @ vectors[start : start + width].T
        i, j = np.triu_indices(stop - start, 1, width)
        found = products[i, j], i + start, j + start
        best = _largest(count, tuple(np.concatenate(b) for b in zip(best, found, strict=True)))
        start = stop
    first, second = np.sort([order[best[1]], order[best[2]]], axis=0)
    ranks = np.lexsort((second, first, -np.abs(best[0])))
    return best[0][ranks], first[ranks], second[ranks]


def _largest(count: int, columns: Any) -> Any:
    """Return the rows with the largest absolute values in the first column, in any order."""
    if columns[0].size <= count:
        return columns
    kept = np.argpartition(-np.abs(columns[0]), count - 1)[:count]
    return tuple(column[kept] for column in columns)


def _check_integer(name: str, value: Any, low: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{name}: expected an integer >= {low}, found {value!r}")
