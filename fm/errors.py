"""The errors of fm: one small tree, so that callers can map a class to a reaction.

::

    FMError
    ├── ConfigError             a hyperparameter or option is wrong             (HTTP 400, exit 2)
    ├── DataError               a file, row, column or value is wrong           (HTTP 400, exit 2)
    ├── UnsupportedFormatError  the format of the input is not one we read      (HTTP 415, exit 2)
    ├── ModelFileError          a model file is damaged or is not a model       (exit 2)
    └── DivergenceError         training left the finite numbers or blew up     (exit 2)

A message says where, what was expected, what was found and what to do, in one line. What to do may
be an :class:`Advice`, which names arguments: they are ``target='stars'`` in Python,
``--target stars`` on the command line and ``target=stars`` among the hyperparameters of a job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any


def as_argument(name: str, value: Any) -> str:
    """Return how Python spells an argument; the value ``...`` stands for any.

    Examples
    --------
    >>> as_argument("multi", ["tags"]), as_argument("target", ...)
    ("multi=['tags']", 'target=...')
    """
    return f"{name}=..." if value is ... else f"{name}={value!r}"


class Advice:
    """What to do about an error: a text in which each front end spells the arguments its own way.

    Parameters
    ----------
    text : str
        The arguments in it are names in braces.
    **values : Any
        The value of each argument; ``...`` stands for any.

    Examples
    --------
    >>> print(Advice("name the column with {target}, or pass {header}", target=..., header=False))
    name the column with target=..., or pass header=False
    """

    def __init__(self, text: str, **values: Any) -> None:
        self.text, self.values = text, values

    def spelled(self, spell: Callable[[str, Any], str]) -> str:
        """Return the text; `spell` makes the spelling of an argument from its name and value."""
        return self.text.format_map({name: spell(name, v) for name, v in self.values.items()})

    def __str__(self) -> str:
        return self.spelled(as_argument)


class _Advised(Exception):  # noqa: N818  (a part of errors and warnings)
    """A message, and advice that is shown after it."""

    def __init__(self, message: str = "", advice: Advice | None = None) -> None:
        super().__init__(message)
        self.message, self.advice = message, advice

    def spelled(self, spell: Callable[[str, Any], str]) -> str:
        """Return the whole text; for `spell` see :meth:`Advice.spelled`."""
        return f"{self.message}; {self.advice.spelled(spell)}" if self.advice else self.message

    def __str__(self) -> str:
        return self.spelled(as_argument)


def spelled_record(record: logging.LogRecord, spell: Callable[[str, Any], str]) -> str:
    """Return the text of a log record, among whose arguments there may be an :class:`Advice`."""
    if not isinstance(record.args, tuple):
        return record.getMessage()
    args = (arg.spelled(spell) if isinstance(arg, Advice) else arg for arg in record.args)
    return str(record.msg) % tuple(args) if record.args else str(record.msg)


class FMWarning(_Advised, UserWarning):
    """A warning with advice."""


class FMError(_Advised):
    """Base class: every error that fm raises on purpose is one of these.

    Examples
    --------
    >>> import fm
    >>> try:
    ...     fm.TrainConfig(epochs=0)
    ... except fm.FMError as err:
    ...     print(type(err).__name__, err)
    ConfigError epochs: expected an integer >= 1, found 0
    """


class ConfigError(FMError, ValueError):
    """A hyperparameter, option or argument has a value that cannot be used."""


class DataError(FMError, ValueError):
    """The data break a rule: the message names the file and the row or byte."""


class UnsupportedFormatError(FMError, ValueError):
    """The input is in a format, or of a type, that fm does not read."""


class ModelFileError(FMError, ValueError):
    """A model file is damaged, truncated, or is not a model file at all."""


class DivergenceError(FMError, ArithmeticError):
    """Training diverged; the message names the likely cause. No model is returned."""
