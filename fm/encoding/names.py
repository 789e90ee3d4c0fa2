"""The names of all features of an encoder, made when asked for.

Not decided here: what a feature is called (``fm.encoding.columns``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload


class FeatureNames(Sequence[str]):
    """The names of features: how many there are, and what makes one."""

    def __init__(self, count: int, name: Callable[[int], str]) -> None:
        self._count, self._name = count, name

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._name(i) for i in range(*index.indices(len(self)))]
        return self._name(range(len(self))[index])

    def __repr__(self) -> str:
        return f"<names of {len(self)} features>"
