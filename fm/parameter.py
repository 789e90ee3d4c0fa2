"""One hyperparameter: its type, its range, and how its value is read from text.

Decided here: which texts are true, numbers or nothing, as the various SDKs send them. Not decided
here: which hyperparameters there are (``fm.config``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fm.errors import ConfigError

HUGE = 1e30  # the bound of numbers without another: float32 ends at 3e38


@dataclass(frozen=True)
class Parameter:
    """What is known of one hyperparameter."""

    name: str
    kind: type
    default: Any
    help: str
    group: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False  # None is a value: "let the optimizer's recipe decide" or "off"

    @property
    def range_text(self) -> str:
        """The allowed values in words, for messages and help texts."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "true or false"
        noun = "an integer" if self.kind is int else "a number" if self.kind is float else "a text"
        if self.low is not None and self.high is not None and self.high < HUGE:
            return f"{noun} from {_plain(self.low)} to {_plain(self.high)}"
        return f"{noun} >= {self.low:g}" if self.low is not None and self.low > -HUGE else noun

    def parse(self, value: Any) -> Any:
        """Return `value` as this parameter's type; accept the strings every SageMaker SDK sends.

        Raises
        ------
        ConfigError
            If the value is not of the type or outside the range.
        """
        found = value
        if isinstance(value, str):
            value = bare(value)
            if value in NOT_SET:
                value = None
        if value is None:
            if self.optional:
                return None
            raise self._wrong(found)
        try:
            value = _CONVERT[self.kind](value)
        except (TypeError, ValueError, OverflowError) as err:
            raise self._wrong(found) from err
        if self.choices and value not in self.choices:
            raise self._wrong(found)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(found)
        if self.low is not None and value < self.low or self.high is not None and value > self.high:
            raise self._wrong(found)
        return value

    def _wrong(self, found: Any) -> ConfigError:
        return ConfigError(f"{self.name}: expected {self.range_text}, found {found!r}")


NOT_SET = ("", "None", "null")  # what SDKs make of None


def bare(text: str) -> str:
    """Return text without blanks around it and without one pair of JSON's quotes."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    return text


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _to_bool(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    if value not in (True, False):
        raise ValueError(value)
    return bool(value)


def _to_int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if int(value) != value:
        raise ValueError(value)
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


_CONVERT = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}
