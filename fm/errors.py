"""The errors of fm: one small tree, so that callers can map a class to a reaction.

::

    FMError
    ├── ConfigError             a hyperparameter or option is wrong             (HTTP 400, exit 2)
    ├── DataError               a file, row, column or value is wrong           (HTTP 400, exit 2)
    ├── UnsupportedFormatError  the format of the input is not one we read      (HTTP 415, exit 2)
    ├── ModelFileError          a model file is damaged or is not a model       (exit 2)
    └── DivergenceError         training left the finite numbers or blew up     (exit 2)

A message says where, what was expected, what was found and what to do, in one line.
"""

from __future__ import annotations


class FMError(Exception):
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
