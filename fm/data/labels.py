"""Two labels in the user's spelling <-> the targets 0 and 1 of a binary classifier.

Decided here: which two values are labels, and which of them is the positive one, 1. Not decided
here: whether a classifier is trained (``fm.training.checks``), how a target is found in a table
(``fm.reading.read``).

**Which is positive**, unless `positive` says it: the only one of the two that is in
:data:`POSITIVE`, in any case of letters; else the one whose opposite is in :data:`NEGATIVE`; else
the larger number, or the text that comes later in the alphabet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fm.errors import Advice, DataError

Labels = tuple[Any, Any]  # negative, positive: texts, numbers or truth values

#: The labels of a classifier that was told of no others.
ZERO_ONE: Labels = (0, 1)
POSITIVE = frozenset(
    "1 +1 yes y true t positive pos click clicked like liked good buy bought spam on".split()
)
NEGATIVE = frozenset("0 -1 no n false f negative neg none bad ham off".split())

_SHOWN = 5  # labels in a message


def from_texts(
    codes: np.ndarray,
    texts: Sequence[str],
    *,
    place: Callable[[int], str],
    labels: Labels | None = None,
    positive: Any = None,
) -> tuple[np.ndarray, Labels]:
    """Return texts as targets 0 and 1, float32, and the two labels.

    Parameters
    ----------
    codes : ndarray of int, shape (num_rows,)
        The text of row i is ``texts[codes[i]]``.
    texts : sequence of str
        Different texts, all of which occur.
    place : callable
        The number of a row, from 0 -> what a message calls it.
    labels : tuple, optional
        Those of a model; not given: the texts, which are two then.
    positive : str or number, optional
        The label that becomes 1.

    Raises
    ------
    DataError
        If there are not two texts, or one is none of the labels.

    Examples
    --------
    >>> from_texts(np.array([0, 1, 0]), ["Yes", "No"], place=str)
    (array([1., 0., 1.], dtype=float32), ('No', 'Yes'))
    """
    first = [int(np.argmax(codes == code)) for code in range(len(texts))]
    if labels is None:
        _check_two(texts, place(first[:3][-1]) if first else "data")
        labels = ordered((texts[0], texts[1]), positive)
    spelled = [_spelled(label) for label in labels]
    for text, row in zip(texts, first, strict=True):
        if text not in spelled:
            raise unknown(place(row), text, labels)
    ones = np.array([text == spelled[1] for text in texts], dtype=np.float32)
    return ones[codes], labels


def from_numbers(y: np.ndarray, labels: Labels, place: Callable[[int], str]) -> np.ndarray:
    """Return numbers that are labels as targets 0 and 1, float32.

    Raises
    ------
    DataError
        If a number is none of the labels.

    Examples
    --------
    >>> from_numbers(np.array([-1, 1, 1]), (-1, 1), str)
    array([0., 1., 1.], dtype=float32)
    """
    numbers = [np.float32(label) if _is_number(label) else np.float32("nan") for label in labels]
    y = np.asarray(y, dtype=np.float32)
    wrong = (y != numbers[0]) & (y != numbers[1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise unknown(place(row), _plain(y[row]), labels)
    return np.asarray(y == numbers[1], dtype=np.float32)


def of_two_numbers(y: np.ndarray, positive: Any = None) -> Labels | None:
    """Return the two labels that targets are; None: they are not just two numbers.

    Examples
    --------
    >>> of_two_numbers(np.array([2.0, 1.0, 2.0])), of_two_numbers(np.array([1.0, 2.0, 3.0]))
    ((1, 2), None)
    """
    if not y.size:
        return None
    low, high = y.min(), y.max()  # np.unique would take as long as an epoch
    if not low < high or not bool(((y == low) | (y == high)).all()):
        return None
    return ordered((_plain(low), _plain(high)), positive)


def ordered(pair: Labels, positive: Any = None) -> Labels:
    """Return two labels with the positive one last (see the module).

    Raises
    ------
    DataError
        If `positive` is neither.

    Examples
    --------
    >>> ordered(("yes", "no")), ordered(("b", "a")), ordered((1, 2), positive="1")
    (('no', 'yes'), ('a', 'b'), (2, 1))
    """
    one, other = pair
    if positive is not None:
        if _same(one, positive):
            return other, one
        if _same(other, positive):
            return one, other
        raise DataError(f"positive: expected one of the labels, {listed(pair)}, found {positive!r}")
    if isinstance(one, str) and isinstance(other, str):
        for words, last in ((POSITIVE, True), (NEGATIVE, False)):
            ones = [text.strip().lower() in words for text in (one, other)]
            if ones[0] != ones[1]:
                return (other, one) if ones[0] is last else (one, other)
    return (one, other) if one < other else (other, one)


def is_zero_one(labels: Labels | None) -> bool:
    """Whether labels are 0 and 1, or the truth values, whose targets are no others."""
    return labels is None or labels == ZERO_ONE


def is_plain(labels: Labels) -> bool:
    """Whether labels are the numbers 0 and 1, which need not be said."""
    return labels == ZERO_ONE and not isinstance(labels[0], bool)


def unknown(place: str, found: Any, labels: Labels) -> DataError:
    """Return the error for a label that a model does not know."""
    return DataError(f"{place}: expected one of the labels {listed(labels)}, found {found!r}")


def listed(labels: Sequence[Any]) -> str:
    """Return labels for a message.

    Examples
    --------
    >>> listed(("no", "yes")), listed(range(9))
    ("'no' and 'yes'", '0, 1, 2, 3, 4 and 4 more')
    """
    shown = [repr(label) for label in labels[:_SHOWN]]
    more = len(labels) - len(shown)
    last = f"{more} more" if more else shown.pop()
    return f"{', '.join(shown)} and {last}" if shown else last


def _check_two(texts: Sequence[str], place: str) -> None:
    if len(texts) != 2:
        what = "one text" if len(texts) == 1 else f"{len(texts)} texts"
        raise DataError(
            f"{place}: expected numbers as targets, or two labels, found {what}: {listed(texts)}",
            Advice("keep rows of two labels, or name another target with {target}", target=...),
        )
    numeric = [_is_number(text) for text in texts]
    if numeric[0] != numeric[1]:
        raise DataError(
            f"{place}: expected numbers as targets, or two labels, found a number and a text: "
            f"{listed(texts)}; correct the one that is wrong"
        )


def _spelled(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except ValueError:
        return False


def _same(label: Any, asked: Any) -> bool:
    if _spelled(label) == _spelled(asked):
        return True
    return _is_number(label) and _is_number(asked) and float(label) == float(asked)


def _plain(number: Any) -> int | float:
    """Return a number of numpy's as Python's, whole ones as integers."""
    value = float(number)
    return int(value) if value.is_integer() else value
