"""Rows of a request: instances are checked and collected.

Decided here: what an instance may be, and that every row is checked before anything is computed
with it; a message names the instance (counted from 1) and what is wrong with it. Not decided here:
how instances lie in a body (``fm.serving.bodies``), and what is recommended for those with ``k``
(``fm.serving.lists``).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.filling import encode_rows
from fm.errors import DataError, FMError
from fm.model.model import Model
from fm.serving.lists import Asked, Asking
from fm.serving.media import Refusal
from fm.serving.media import shown as _shown

_ROW = re.compile(r"^(?:row|data row) (\d+)")
NUMBERS, _WHOLE = frozenset((int, float)), frozenset((int,))
_LARGEST = float(np.finfo(np.float32).max)


class Rows(NamedTuple):
    """Rows of features."""

    X: sp.csr_matrix | None  # columns unsorted, duplicates not summed; None: see `one`
    one: tuple[Any, Any] | None  # (indices, values) of a single row, for Model.score_row
    form: str  # of the body, which may be JSON Lines though the request says JSON
    asked: list[Asked] | None = None  # if the rows are contexts: what each asks for


class Batch:
    """Collects the rows of a request; rows of one kind are checked together."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.limit = model.num_features
        self.encoder: Any = model.encoder  # None: there are no named rows
        self.columns = frozenset(() if self.encoder is None else self.encoder.field_names)
        self.count = 0
        self.asking: Asking | None = None
        self.done: list[sp.csr_matrix] = []
        self._start_run("")

    def _start_run(self, kind: str) -> None:
        self.kind = kind
        self.first = self.count + 1  # the number of the run's first row
        self.lengths: list[int] = []
        self.keys: list[int] = []
        self.values: list[float] = []
        self.dense: list[tuple[np.ndarray, np.ndarray]] = []
        self.named: list[dict[str, Any]] = []

    def add(self, instance: Any) -> None:
        """Add an instance in any of the three forms of JSON."""
        if type(instance) is not dict:
            raise self.wrong(f"expected an object, found {_shown(instance)}")
        if "k" in instance and "k" not in self.columns:
            self.add_asking(instance)
            return
        features = self._features(instance)
        if type(features) is list:
            self.add_dense(features)
        elif type(features) is dict:
            keys, values = features.get("keys"), features.get("values")
            if keys is None and values is not None:
                self.add_dense(values)
            else:
                self.add_sparse(keys, values)
        elif self.columns:
            self.add_named(instance)
        else:
            raise self.wrong(
                'expected {"features": [...]} or {"data": {"features": {"keys": [...], '
                f'"values": [...]}}}}}}, found {_shown(instance)}'
            )

    def _features(self, instance: dict[str, Any]) -> Any:
        """Return what an instance says of features; None: it has columns, if anything."""
        features = None if "features" in self.columns else instance.get("features")
        data = None if "data" in self.columns else instance.get("data")
        if features is not None and data is not None:
            raise self.wrong("expected features or data, found both")
        if type(data) is dict:
            features = data.get("features")
        if len(instance) > 1 and type(features) in (list, dict):
            for name in self.columns.intersection(instance):
                raise self.wrong(f"expected features or columns, found {_shown(name)} too")
        return features

    def add_sparse(self, keys: Any, values: Any) -> None:
        """Add a row of features and their values."""
        self._continue("sparse")
        if type(keys) is not list or type(values) is not list or len(keys) != len(values):
            raise self.wrong(
                "expected keys and values, lists of one length, found "
                f"{_length(keys)} and {_length(values)}"
            )
        if not _WHOLE.issuperset(map(type, keys)):
            keys = self._whole(keys)
        if not NUMBERS.issuperset(map(type, values)):
            raise self._no_number(values)
        if keys and (min(keys) < 0 or max(keys) >= self.limit):
            outside = next(key for key in keys if not 0 <= key < self.limit)
            raise self.wrong(
                f"expected keys from 0 to {self.limit - 1}, found {_shown(outside)}; the model has "
                f"{self.limit} features"
            )
        self.keys += keys
        self.values += values
        self.lengths.append(len(keys))
        self.count += 1

    def add_dense(self, values: Any) -> None:
        """Add a row that has a value for each feature."""
        self._continue("dense")
        if type(values) is not list or len(values) != self.limit:
            raise self.wrong(
                f"expected {self.limit} values, one for each feature of the model, found "
                f"{_length(values)}"
            )
        if not NUMBERS.issuperset(map(type, values)):
            raise self._no_number(values)
        row = _as_float32(values)
        if not np.isfinite(row).all():
            raise self._too_large(values[int(np.argmax(~np.isfinite(row)))])
        stored = np.flatnonzero(row).astype(np.int32)
        self.dense.append((stored, row[stored]))
        self.count += 1

    def add_named(self, columns: dict[str, Any]) -> None:
        """Add a row of the model's columns."""
        self._continue("named")
        self.named.append(columns)
        self.count += 1

    def add_asking(self, instance: Any) -> None:
        """Add a context, and keep what it asks for."""
        if type(instance) is not dict:
            raise self.wrong(f"expected an object, found {_shown(instance)}")
        try:
            if self.asking is None:
                self.asking = Asking(self.model, self.columns)
            if self.count != len(self.asking.asked):
                raise self.wrong(
                    "expected a row to score, as before, found one that asks for recommendations; "
                    "send them in two requests"
                )
            context = self.asking.add(instance)
        except DataError as err:
            raise self.wrong(str(err)) from None
        if context or self.columns:
            self.add(context)
        else:
            self.add_sparse([], [])

    def rows(self, form: str) -> Rows:
        """Return what was collected."""
        asked = None
        if self.asking is not None:
            asked = self.asking.asked
            if len(asked) < self.count:
                raise self.wrong(
                    "expected k, as before, found a row to score; send them in two requests",
                    len(asked) + 1,
                )
        elif self.count == 1 and not self.done:
            return Rows(None, self._only_row(), form)
        self.end_run()
        if not self.done:
            return Rows(sp.csr_matrix((0, self.limit), dtype=np.float32), None, form, asked)
        X = self.done[0] if len(self.done) == 1 else sp.vstack(self.done, format="csr")
        return Rows(X, None, form, asked)

    def wrong(self, problem: str, number: int | None = None) -> Refusal:
        """Return the refusal of an instance; by default, of the one that is being added."""
        return Refusal(400, f"instance {number or self.count + 1}: {problem}")

    # -- a run of rows of one kind ---------------------------------------------------------------

    def _continue(self, kind: str) -> None:
        if kind != self.kind:
            self.end_run()
            self.kind = kind

    def end_run(self) -> None:
        """Make a matrix of the rows that are still in lists; it takes a tenth of their memory."""
        if self.named:
            self.done.append(self._encode(self.named))
        elif self.dense:
            lengths = [len(indices) for indices, _ in self.dense]
            parts = (np.concatenate(parts) for parts in zip(*self.dense, strict=True))
            self.done.append(self._csr(lengths, *parts))
        elif self.lengths:
            indices = np.array(self.keys, np.int32)
            values = _as_float32(self.values)
            if not np.isfinite(values).all():
                at = int(np.argmax(~np.isfinite(values)))
                row = int(np.searchsorted(np.cumsum(self.lengths), at, "right"))
                raise self._too_large(self.values[at], self.first + row)
            self.done.append(self._csr(self.lengths, indices, values))
        self._start_run("")

    def _csr(self, lengths: list[int], indices: np.ndarray, values: np.ndarray) -> sp.csr_matrix:
        indptr = np.zeros(len(lengths) + 1, np.int32 if indices.size < 2**31 else np.int64)
        np.cumsum(lengths, out=indptr[1:])
        return sp.csr_matrix((values, indices, indptr), shape=(len(lengths), self.limit))

    def _only_row(self) -> tuple[Any, Any]:
        if self.named:
            return _first_row(self._encode(self.named))
        if self.dense:
            return self.dense[0]
        return self.keys, self.values

    def _encode(self, rows: list[dict[str, Any]]) -> sp.csr_matrix:
        try:
            if self.asking is not None:
                return self.model.recommender.contexts(rows)
            return encode_rows(self.encoder, self.model.catalogue, rows).X
        except DataError as err:
            raise renumbered(err, self.first) from None

    # -- complaints ------------------------------------------------------------------------------

    def _whole(self, keys: list[Any]) -> list[int]:
        """Return whole numbers that were written as 7.0 as integers."""
        if not NUMBERS.issuperset(map(type, keys)) or any(key % 1 for key in keys):
            bad = next(k for k in keys if type(k) not in NUMBERS or k % 1)
            raise self.wrong(f"expected whole numbers as keys, found {_shown(bad)}")
        return [int(key) for key in keys]

    def _no_number(self, values: list[Any]) -> Refusal:
        bad = next(value for value in values if type(value) not in NUMBERS)
        return self.wrong(f"expected numbers as values, found {_shown(bad)}")

    def _too_large(self, value: Any, number: int | None = None) -> Refusal:
        return self.wrong(f"expected values up to {_LARGEST:.3g}, found {_shown(value)}", number)


def _as_float32(values: list[float]) -> np.ndarray:
    with np.errstate(over="ignore"):  # the caller reports what becomes infinite
        return np.array(values, np.float64).astype(np.float32)


def _first_row(X: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    end = X.indptr[1]
    return X.indices[:end], X.data[:end]


def renumbered(err: FMError, first: int) -> Refusal:
    """Return the message of an error with the number of the instance in the request."""
    return Refusal(400, _ROW.sub(lambda m: f"instance {int(m[1]) + first - 1}", str(err)))


def _length(value: Any) -> str:
    return f"{len(value)} of them" if type(value) is list else _shown(value)
