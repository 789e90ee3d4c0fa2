"""Encoder: the columns of a table <-> sparse features. It is part of a model.

Decided here: which feature numbers the columns of a row become, and back. Not decided here: how
bytes become columns (``fm.formats.tables``), what a cell means and when it is missing
(``fm.formats.cells``), which column is the target (``fm.read``): an encoder only remembers it.

Every column is one **field**, and the features of a field are consecutive:

===========  =======================  ============================================================
kind         features                 entries of a row
===========  =======================  ============================================================
categorical  unknown, then one for    one, of value 1
             each value
numeric      the number, unknown,     one: the number (standardised, unless not wanted), or unknown
             then one for each knot   with value 1 where it is missing; with knots three: the number
                                      and its shares of two knots (``fm.encoding.columns``)
multi        unknown, then one for    one of value 1 for each different value of the cell:
             each value               a list, or a text such as ``"Action|Comedy"``
history      as multi                 as multi, but of value 1/sqrt(n), n the entries of the row in
                                      this field: a long history weighs no more than a short one
date         year, unknown, the       those of the year, which is a number, and one of value 1 for
             knots of the year, then  the month and the weekday, and for the hour, if hours differ
             one for each month,      in training (``fm.encoding.dates``)
             weekday and hour
===========  =======================  ============================================================

Values are numbered by falling count, so that the rows of the model which are used most lie
together; equal counts keep the order in which the values first appear.

**Unknown.** Missing values and values that training did not see share the unknown feature of
their field. It is trained by missing values and by values seen in fewer than `min_count` rows. With
the default of 1 and no gaps in the data nothing trains it: it then keeps its initial parameters,
and ``min_count=2`` (what was seen once is unknown) is the way to train it. With `hash_dim` a column
keeps no list of values (``fm.encoding.columns``): then only missing values are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from fm.encoding.choosing import fit_columns
from fm.encoding.columns import MAX_FEATURES, Entries, Numeric
from fm.encoding.names import FeatureNames
from fm.encoding.stored import Column, column_from
from fm.errors import ConfigError, DataError, FMError, ModelFileError
from fm.formats.cells import CellTable, wrong_cell
from fm.formats.files import ragged
from fm.formats.frames import misspelt, no_column
from fm.formats.tables import read_table
from fm.sparse import csr

FORMAT_VERSION = 1
_MOST_CHECKS = 100  # different sets of names in one request, which may be hostile


class Encoder:
    """Turns columns into features and back; :meth:`fit` makes one.

    Parameters
    ----------
    columns : sequence of Categorical, ValueSet, History, Numeric or Date
        In the order of their features.
    target : str, optional
        The column with the targets of the training data.

    Attributes
    ----------
    columns, target
        As given. Encoders are equal if their columns are: the target makes no features.
    num_features : int
        Number of features.
    field_names : tuple of str
        The names of the columns; field i is column i.
    fields : ndarray of int32, shape (num_features,)
        The field of each feature.

    Examples
    --------
    >>> from fm.encoding.encoder import Encoder
    >>> data = {"user": [7, 7, 8], "genres": ["Action|Comedy", "Comedy", None], "age": [.5, 2., 1.]}
    >>> encoder = Encoder.fit(
    ...     data, categorical=["user"], numeric=["age"], multi=["genres"], standardize=False
    ... )
    >>> list(encoder.feature_names)
    ['user=<unknown>', 'user=7', 'user=8', 'genres=<unknown>', 'genres=Comedy', 'genres=Action', \
'age', 'age=<unknown>']
    >>> encoder.encode_rows([{"user": "8", "genres": "Comedy", "age": 3}]).toarray()
    array([[0., 0., 1., 0., 1., 0., 3., 0.]], dtype=float32)
    >>> encoder.feature_index("genres", "Western") == encoder.feature_index("genres", None)
    True
    """

    def __init__(self, columns: Iterable[Column], target: str | None = None) -> None:
        self.columns = tuple(columns)
        self.target = target
        self.field_names = tuple(column.name for column in self.columns)
        widths = [column.width for column in self.columns]
        self._offsets = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
        self.num_features = int(self._offsets[-1])
        if self.num_features > MAX_FEATURES:
            raise ConfigError(
                f"encoder: {self.num_features} features, but at most {MAX_FEATURES} are supported; "
                "raise min_count or set hash_dim"
            )
        placed = zip(self._offsets[:-1].tolist(), self.columns, strict=True)
        self._by_name: dict[str, tuple[int, Column]]
        self._by_name = dict(zip(self.field_names, placed, strict=True))
        if len(self._by_name) < len(self.columns):
            raise ConfigError(f"encoder: a column name occurs twice: {list(self.field_names)}")
        if target in self._by_name:
            raise ConfigError(f"encoder: the target {target!r} is one of the columns, too")

    @cached_property
    def fields(self) -> np.ndarray:
        """The field of each feature, int32."""
        return np.repeat(np.arange(len(self.columns), dtype=np.int32), np.diff(self._offsets))

    @property
    def unknown_features(self) -> np.ndarray:
        """The feature of each column that stands for a missing or new value, int32."""
        within = [column.unknown for column in self.columns]
        return np.array(self._offsets[:-1] + np.array(within, int), np.int32)

    def known_entries(self, X: sp.csr_matrix) -> np.ndarray:
        """Return which entries of rows say something: not those of missing and new values."""
        unknown, padded = np.zeros((2, self.num_features), bool)
        unknown[self.unknown_features] = True
        padded[:] = np.repeat([column.pads for column in self.columns], np.diff(self._offsets))
        known: np.ndarray = ~unknown[X.indices] & ((X.data != 0) | ~padded[X.indices])
        return known

    @property
    def feature_names(self) -> Sequence[str]:
        """The name of each feature; a sequence that makes a name when asked for it."""
        return FeatureNames(self.num_features, self.feature_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoder) and self.columns == other.columns

    def __hash__(self) -> int:
        return hash((self.field_names, self.num_features))

    def __repr__(self) -> str:
        kinds = ", ".join(f"{c.name!r}: {c.about} {c.width}" for c in self.columns)
        return f"<Encoder of {self.num_features} features: {kinds}>"

    # -- fitting ---------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        data: Any,
        *,
        categorical: Any = (),
        numeric: Any = (),
        multi: Any = (),
        history: Any = (),
        date: Any = (),
        ignore: Any = (),
        standardize: bool = True,
        bins: int | Literal["auto"] = "auto",
        min_count: int = 1,
        hash_dim: int | Mapping[str, int] | None = None,
        target: str | int | None = None,
    ) -> Encoder:
        """Return an encoder for a table.

        Columns that are named are used as is said, and no others. If none is named in
        `categorical`, `numeric`, `multi`, `history` and `date`, all are used, except those in
        `ignore`: floats and texts that are all numbers, not all of them integers, as numeric; lists
        as multi; dates, times and texts that are all ISO dates as date; all else as categorical.

        Parameters
        ----------
        data : table, frame, dict of columns, or path
            What :func:`fm.formats.tables.read_table` reads.
        categorical, numeric, date, ignore : name, position, or sequence of them
            Columns of a kind.
        multi, history : name, position, sequence of them, or mapping of name to separator
            Columns with a set of values: lists, or texts cut at the separator (default ``"|"``).
        standardize : bool
            Whether numeric columns get mean 0 and standard deviation 1.
        bins : int or "auto"
            At how many points of a numeric column its effect may bend; 0: the effect is linear.
            "auto": a number that suits the rows (``fm.encoding.choosing``).
        min_count : int
            Values in fewer rows train the unknown feature of the field instead of their own.
        hash_dim : int or mapping of name to int, optional
            Number of buckets, for all columns with values or for those named.
        target : name or position, optional
            The column with the targets: it is left out, and remembered.

        Raises
        ------
        DataError
            If there are no rows, a column does not exist or cannot be of its kind.
        ConfigError
            If an option is wrong, or a column is named twice.
        """
        table = _cell_table(data)
        given = {
            "categorical": categorical, "numeric": numeric, "multi": multi, "history": history,
            "date": date,
        }  # fmt: skip
        (goal,) = table.resolve(target) if target is not None else (None,)
        left_out = table.resolve(ignore) + ([] if goal is None else [goal])
        return cls(
            fit_columns(table, given, left_out, standardize, bins, min_count, hash_dim), goal
        )

    # -- encoding --------------------------------------------------------------------------------

    def transform(self, data: Any, *, columns: Iterable[str] | None = None) -> sp.csr_matrix:
        """Return the rows of a table as features; further columns are ignored.

        Parameters
        ----------
        data : table, frame, dict of columns, or path
            What :func:`fm.formats.tables.read_table` reads.
        columns : iterable of str, optional
            Only these columns, for one side of a row; the default is all.

        Returns
        -------
        csr_matrix of float32, shape (num_rows, num_features)
            int32 column numbers, sorted; each column contributes at least one entry to a row.

        Raises
        ------
        DataError
            If a column is missing or a cell is not of its column's kind.
        """
        table = _cell_table(data)
        parts, offsets = [], []
        for offset, column in self._chosen(columns):
            with table.column(column.name, column.kind) as cells:
                parts.append(column.encode(cells))
            offsets.append(offset)
        return self._csr(table.num_rows, parts, offsets)

    @cached_property
    def raw_numbers(self) -> np.ndarray:
        """Which features hold numbers as they are in the table, in their own unit."""
        raw = np.zeros(self.num_features, bool)
        for first, column in self._by_name.values():
            if isinstance(column, Numeric) and (column.mean, column.std) == (0.0, 1.0):
                raw[first] = True
        return raw

    def check_names(
        self, names: Collection[str], source: str, columns: Iterable[str] | None = None
    ) -> None:
        """Refuse the names of a row or table if they seem to be wrong.

        Names that the encoder does not know are ignored, whether in a table, a dict or a request.
        But a name close to that of a column which is missing is a slip, and so is a row without any
        column that the encoder knows.

        Parameters
        ----------
        names : collection of str
        source : str
            Where they are, for the message: ``"row 1"``.
        columns : iterable of str, optional
            Only these columns are needed; the default is all.

        Raises
        ------
        DataError
        """
        known = {*self.field_names, *(() if self.target is None else (self.target,))}
        if names and known.isdisjoint(names):
            raise no_column(str(next(iter(names))), self.field_names, source)
        wanted = [column.name for _, column in self._chosen(columns)]
        slip = misspelt(names, wanted, known)
        if slip is not None:
            name, meant = slip
            raise DataError(f"{no_column(name, wanted, source, meant)} If not, rename it")

    def _chosen(self, columns: Iterable[str] | None) -> list[tuple[int, Column]]:
        """Return (first feature, column) of the columns with these names, or of all."""
        if columns is None:
            return list(self._by_name.values())
        names = set(columns)
        for name in names - self._by_name.keys():
            raise no_column(name, self.field_names, "columns")
        return [placed for name, placed in self._by_name.items() if name in names]

    def _csr(self, num_rows: int, parts: list[Entries], offsets: list[int]) -> sp.csr_matrix:
        counts = sum(part.counts for part in parts)
        if isinstance(counts, int):
            indptr = np.arange(num_rows + 1) * counts
        else:
            indptr = np.concatenate([[0], np.cumsum(counts)])
        total = int(indptr[-1])
        indices = np.empty(total, np.int32)
        data = np.ones(total, np.float32)
        at = indptr[:-1].copy()  # where the next column's first entry of each row goes
        for part, offset in zip(parts, offsets, strict=True):
            place = _places(at, part.counts)
            indices[place] = part.indices + np.int32(offset)
            if part.values is not None:
                data[place] = part.values
            at += part.counts
        return csr(data, indices, indptr, (num_rows, self.num_features))

    def encode_rows(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        columns: Iterable[str] | None = None,
        known: Callable[[Mapping[str, Any]], Mapping[str, Sequence[tuple[int, float]]]]
        | None = None,
    ) -> sp.csr_matrix:
        """Return rows given as mappings, such as JSON objects, as features.

        The same features as :meth:`transform` of a table with these rows, without Arrow. A column
        that a row does not have is missing in it; further columns are ignored.

        Parameters
        ----------
        rows : iterable of mappings
            Column name to value.
        columns : iterable of str, optional
            Only these columns, for one side of a row; the default is all.
        known : function of a row, optional
            Is asked for rows that leave out columns, and returns the entries (feature, value) of
            columns that are not missing all the same.

        Returns
        -------
        csr_matrix of float32, shape (num_rows, num_features)

        Raises
        ------
        DataError
            If a row has a misspelt name (see :meth:`check_names`), or a value of the wrong kind.
        """
        chosen = self._chosen(columns)
        checked: set[tuple[str, ...]] = set()
        indices: list[int] = []
        values: list[float] = []
        indptr = [0]
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise DataError(
                    f"row {number}: expected an object with the columns "
                    f"{', '.join(self.field_names)}, found {type(row).__name__}"
                )
            if not row.keys() <= self._by_name.keys() and len(checked) < _MOST_CHECKS:
                names = tuple(row)
                if names not in checked:  # as most rows have the same
                    self.check_names(names, f"row {number}", columns)
                    checked.add(names)
            self._encode_row(row, number, chosen, indices, values, known)
            indptr.append(len(indices))
        return csr(
            np.array(values, np.float32),
            np.array(indices, np.int32),
            np.array(indptr, np.int64),
            (len(indptr) - 1, self.num_features),
        )

    def _encode_row(
        self,
        row: Mapping[str, Any],
        number: int,
        chosen: Iterable[tuple[int, Column]],
        indices: list[int],
        values: list[float],
        known: Callable[[Mapping[str, Any]], Mapping[str, Sequence[tuple[int, float]]]]
        | None = None,
    ) -> None:
        complete = self._by_name.keys() <= row.keys()
        told = None if known is None or complete else known(row)
        for offset, column in chosen:
            if told and column.name in told:
                for index, entry in told[column.name]:
                    indices.append(index)
                    values.append(entry)
                continue
            value = row.get(column.name)
            try:
                entries = column.encode_value(value)
            except (ValueError, OverflowError) as err:
                raise wrong_cell(f"row {number}", column.name, column.kind, value) from err
            for index, entry in entries:
                indices.append(index + offset)
                values.append(entry)

    # -- and back --------------------------------------------------------------------------------

    def feature_name(self, index: int) -> str:
        """Return the name of a feature: ``"user=42"``, ``"age"``, ``"age~30"``, a knot of it."""
        offset, column = self._column_of(index)
        return column.feature_name(index - offset)

    def feature_value(self, index: int) -> str | None:
        """Return the value that a feature stands for: ``"42"``; None for unknown and a number."""
        offset, column = self._column_of(index)
        return column.value(index - offset)

    def feature_index(self, column: str, value: Any = None) -> int:
        """Return the feature that a value of a column becomes; that of unknown for new values.

        Parameters
        ----------
        column : str
            Name of the column.
        value : str, number or bool, optional
            One value; None is the unknown feature. For a column of numbers or dates any will do.

        Raises
        ------
        DataError
            If there is no such column.
        """
        if column not in self._by_name:
            raise no_column(column, self.field_names, "encoder")
        offset, found = self._by_name[column]
        try:
            return offset + found.find(value)
        except ValueError as err:
            kind = found.kind if found.kind in ("numeric", "date") else "categorical"
            raise wrong_cell("encoder", column, kind, value) from err

    def decode_row(self, indices: Any, values: Any = None) -> dict[str, Any]:
        """Return the values of the columns that a row of features stands for.

        Parameters
        ----------
        indices : sparse matrix of one row, or sequence of int
            The row, or its feature numbers.
        values : sequence of float, optional
            The values of these features; the default is 1 each.

        Returns
        -------
        dict
            Column name to text, number, or list of texts; None where missing or unknown.

        Raises
        ------
        DataError
            If a feature number is outside the encoder, or there is more than one row.
        """
        if sp.issparse(indices):
            if indices.shape[0] != 1:
                raise DataError(f"decode_row: expected one row, found {indices.shape[0]}")
            row = indices.tocsr()
            indices, values = row.indices, row.data
        indices = np.asarray(indices).tolist()
        values = [1.0] * len(indices) if values is None else np.asarray(values).tolist()
        entries: dict[str, list[tuple[int, float]]] = {name: [] for name in self.field_names}
        for index, value in zip(indices, values, strict=True):
            offset, column = self._column_of(index)
            entries[column.name].append((index - offset, value))
        return {column.name: column.decode(entries[column.name]) for column in self.columns}

    def _column_of(self, index: int) -> tuple[int, Column]:
        if not 0 <= index < self.num_features:
            raise DataError(f"encoder: feature {index} is outside [0, {self.num_features})")
        at = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return int(self._offsets[at]), self.columns[at]

    # -- in a model file -------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as what JSON can hold; :meth:`from_dict` reads it."""
        columns = [column.to_dict() for column in self.columns]
        target = {} if self.target is None else {"target": self.target}
        return {"version": FORMAT_VERSION, "columns": columns, **target}

    @classmethod
    def from_dict(cls, data: Any) -> Encoder:
        """Return the encoder that :meth:`to_dict` wrote; anything else is refused.

        Raises
        ------
        ModelFileError
            If the dict is not an encoder, or of a later version.
        """
        if not isinstance(data, dict) or not isinstance(data.get("columns"), list):
            raise ModelFileError("encoder: expected an object with a list of columns")
        if data.get("version") != FORMAT_VERSION:
            raise ModelFileError(
                f"encoder: expected version {FORMAT_VERSION}, found {data.get('version')!r}; "
                "use the version of fm that wrote the model"
            )
        columns = [column_from(i, column) for i, column in enumerate(data["columns"], 1)]
        target = data.get("target")
        if not isinstance(target, (str, type(None))):
            raise ModelFileError(f"encoder: expected the name of the target, found {target!r}")
        try:
            return cls(columns, target)
        except FMError as err:
            raise ModelFileError(str(err)) from err


def _places(starts: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
    """Return the places of the entries of all rows, of which each has its first at `starts`."""
    if not isinstance(counts, int):
        return ragged(starts, counts)
    return starts if counts == 1 else (starts[:, None] + np.arange(counts)).ravel()


def _cell_table(data: Any) -> CellTable:
    return data if isinstance(data, CellTable) else CellTable(read_table(data))
