"""read: data of any kind and place -> Dataset. Floor 1.

Decided here: which reader a source gets, and which column is the target. Not decided here: how
bytes are read (``fm.formats``), what columns become (``fm.encoder``), what a row may hold
(``fm.dataset``).

**Format of a file**, unless given: that of its first bytes (Parquet and RecordIO have a magic
number), else of its extension (:data:`EXTENSIONS`; ``.gz`` is looked through), else of its first
lines: libsvm if each is ``label index:value ...``, libffm if each is ``label
field:index:value ...``; else a table with some delimiter.

**Target of a table**, unless given: the first of :data:`TARGETS` among its columns, in any case of
letters. Not so if the table is read with the encoder of a model: then rows have a target only if
it is named or required.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.dataset import Dataset
from fm.errors import ConfigError, DataError
from fm.formats.files import gunzip
from fm.formats.tables import (
    BATCH_ROWS,
    data_files,
    head_of,
    is_parquet,
    iter_batches,
    place,
    read_table,
    source_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.encoder import CellTable, Encoder

TARGETS = ("rating", "label", "target", "y", "click")

EXTENSIONS = {
    ".libsvm": "libsvm",
    ".svmlight": "libsvm",
    ".svm": "libsvm",
    ".libfm": "libsvm",
    ".libffm": "libffm",
    ".ffm": "libffm",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".recordio": "recordio",
    ".protobuf": "recordio",
    ".pb": "recordio",
    ".rec": "recordio",
}

_RECORDIO = b"\x0a\x23\xd7\xce"
_LABEL = r"[ \t]*[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"
_LIBSVM = re.compile(_LABEL + r"(?:,[-+0-9.eE]+)*(?:[ \t]+(?:qid|[0-9]+):[^\s:]+)*[ \t]*(?:#.*)?")
_LIBFFM = re.compile(_LABEL + r"(?:[ \t]+[0-9]+:[0-9]+:[^\s:]+)*[ \t]*(?:#.*)?")
_LINES = 50  # that are looked at

log = logging.getLogger("fm")


def read(
    source: Any,
    *,
    target: str | int | None = None,
    weight: str | int | None = None,
    format: str | None = None,
    categorical: Any = (),
    numeric: Any = (),
    multi: Any = (),
    history: Any = (),
    ignore: Any = (),
    standardize: bool = False,
    min_count: int = 1,
    hash_dim: int | Mapping[str, int] | None = None,
    delimiter: str | None = None,
    header: bool | Sequence[str] | None = None,
    encoding: str | None = None,
    num_features: int | None = None,
    zero_based: bool | Literal["auto"] = "auto",
    encoder: Encoder | None = None,
    require_target: bool = False,
) -> Dataset:
    """Return data as a Dataset.

    Columns of a table that are named in `categorical`, `numeric`, `multi` or `history` are used,
    and no others; if none is named, all are (see :meth:`fm.encoder.Encoder.fit`).

    Parameters
    ----------
    source : path, bytes, frame, mapping of columns, array, sparse matrix or tuple
        A file or a directory of files, gzip-compressed or not; a pandas, polars or Arrow frame; a
        dict of columns; a matrix of features; a tuple (matrix or frame, targets[, weights]).
    target, weight : str or int, optional
        Columns, by name or position, with the target and the weight of each row. Without a target,
        see the module. Rows without one have a weight of 1.
    format : {"libsvm", "libffm", "csv", "tsv", "parquet", "recordio"}, optional
        Format of a file; the default is a guess.
    categorical, numeric, ignore : name, position, or sequence of them
        Columns of a kind.
    multi, history : name, position, sequence of them, or mapping of name to separator
        Columns with a set of values in each row.
    standardize : bool
        Whether numeric columns get mean 0 and standard deviation 1.
    min_count : int
        Values in fewer rows share the unknown feature of their column.
    hash_dim : int or mapping of name to int, optional
        Number of features that the values of a column are hashed to.
    delimiter : str, optional
        What separates the cells of a text; the default is found out.
    header : bool or sequence of str, optional
        Whether the first row of a text is a header, or the names of columns of a text without one.
    encoding : str, optional
        Encoding of a text table; the default is UTF-8, or latin-1 with a warning.
    num_features : int, optional
        Number of features of what comes as features (not of tables).
    zero_based : bool or "auto"
        Whether a libsvm file calls its first feature 0 (True) or 1 (False); "auto": 1 if no index
        is 0. Say it for test data: a small part may happen to lack its feature 0.
    encoder : Encoder, optional
        That of a model: rows become its features. Columns it does not need are ignored.
    require_target : bool
        Whether to refuse data without targets.

    Raises
    ------
    DataError
        If the data cannot be read or break a rule; the message names file and row.
    UnsupportedFormatError
        If the source is nothing that fm reads.
    ConfigError
        If an option is wrong or does not apply to the source.

    Examples
    --------
    >>> from fm.reading import read
    >>> data = read({"user": ["ann", "bob", "ann"], "film": [7, 7, 9], "rating": [4, 5, 1]})
    >>> data.y.tolist(), data.field_names, data.feature_name(1)
    ([4.0, 5.0, 1.0], ('user', 'film'), 'user=ann')
    """
    asked = _Asked(
        columns=_Columns(
            target=target,
            weight=weight,
            categorical=categorical,
            numeric=numeric,
            multi=multi,
            history=history,
            ignore=ignore,
            standardize=standardize,
            min_count=min_count,
            hash_dim=hash_dim,
        ),
        text=_Text(delimiter, header, encoding),
        sparse=_Sparse(num_features, zero_based),
        encoder=encoder,
        require_target=require_target,
    )
    form = _form_of(source, format)
    asked.check(form)
    if form == "pair":
        return _read_pair(source, asked)
    if form == "dataset":
        data: Dataset = source
    elif form == "array":
        data = Dataset.from_arrays(source, num_features=num_features)
    elif form in READERS:
        data = _read_features(source, form, asked)
    else:
        data = _from_table(read_table(source, **asked.table_options(form)), asked)
    if require_target and data.y is None:
        raise DataError(f"{data.source}: expected a target in each row, found none")
    return data


def read_batches(
    source: Any,
    *,
    encoder: Encoder | None = None,
    target: str | int | None = None,
    weight: str | int | None = None,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | Sequence[str] | None = None,
    encoding: str | None = None,
    num_features: int | None = None,
    zero_based: bool | Literal["auto"] = "auto",
    require_target: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[Dataset]:
    """Yield data in batches of rows, for prediction; a table may be larger than the memory.

    Features (libsvm, libffm, RecordIO, arrays) are read as a whole, then cut.

    Parameters
    ----------
    source, target, weight, format, delimiter, header, encoding, num_features, zero_based
        As in :func:`read`.
    encoder : Encoder, optional
        That of the model; a table needs one, because batches must get the same features.
    require_target : bool
        As in :func:`read`.
    batch_rows : int
        Rows of a batch.

    Raises
    ------
    DataError, UnsupportedFormatError, ConfigError
        As in :func:`read`, when the batch is reached that is wrong.

    Examples
    --------
    >>> from fm.reading import read, read_batches
    >>> encoder = read({"user": ["ann", "bob"], "rating": [4, 5]}).encoder
    >>> [part.X.indices.tolist() for part in
    ...  read_batches({"user": ["bob", "eve", "ann"]}, encoder=encoder, batch_rows=2)]
    [[2, 0], [1]]
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows: expected an integer >= 1, found {batch_rows!r}")
    columns = _Columns(target=target, weight=weight)
    text, sparse = _Text(delimiter, header, encoding), _Sparse(num_features, zero_based)
    asked = _Asked(columns, text, sparse, encoder, require_target)
    form = _form_of(source, format)
    if form in TABLES and encoder is None:
        raise ConfigError(
            "encoder: a table is read in batches with the encoder of a model, found none"
        )
    asked.check(form)
    if form in TABLES:
        options = asked.table_options(form)
        for table in iter_batches(source, batch_rows=batch_rows, **options):
            yield _from_table(table, asked)
        return
    data = read(
        source,
        format=format,
        num_features=num_features,
        zero_based=zero_based,
        require_target=require_target,
        encoder=encoder,
    )
    for start in range(0, data.num_rows, batch_rows):
        yield data.take(np.arange(start, min(start + batch_rows, data.num_rows)))


# -- what was asked for ----------------------------------------------------------------------------


class _Columns(NamedTuple):
    """Options that a table has; the defaults ask for nothing."""

    target: str | int | None = None
    weight: str | int | None = None
    categorical: Any = ()
    numeric: Any = ()
    multi: Any = ()
    history: Any = ()
    ignore: Any = ()
    standardize: bool = False
    min_count: int = 1
    hash_dim: int | Mapping[str, int] | None = None

    def names(self) -> set[str]:
        """Return the names of columns that the caller wrote."""
        refs = [self.target, self.weight]
        for kind in (self.categorical, self.numeric, self.multi, self.history, self.ignore):
            refs += [kind] if isinstance(kind, (str, int)) else list(kind)
        return {ref for ref in refs if isinstance(ref, str)}


class _Text(NamedTuple):
    """Options that a text table has."""

    delimiter: str | None = None
    header: bool | Sequence[str] | None = None
    encoding: str | None = None


class _Sparse(NamedTuple):
    """Options that features have."""

    num_features: int | None = None
    zero_based: bool | Literal["auto"] = "auto"


class _Asked(NamedTuple):
    """What the caller asked for."""

    columns: _Columns
    text: _Text
    sparse: _Sparse
    encoder: Encoder | None
    require_target: bool

    def check(self, form: str) -> None:
        """Refuse options that do not apply to a form of data, rather than ignore them."""
        table = form in TABLES or form == "pair"
        wrong = {} if table else {**_given(self.columns), **_given(self.text)}
        if form in TABLES:
            wrong = _given(self.sparse)
        if wrong:
            raise ConfigError(f"{', '.join(wrong)}: does not apply to {_FORMS.get(form, form)}")
        if self.encoder is None:
            return
        if not table and form != "dataset":
            raise DataError(
                f"data: expected a table with the columns {', '.join(self.encoder.field_names)}, "
                f"which the model was trained on, found {_FORMS.get(form, form)}"
            )
        decided = _given(self.columns).keys() - {"target", "weight"}
        if decided:
            raise ConfigError(
                f"{', '.join(sorted(decided))}: does not apply where encoder= decides about columns"
            )

    def table_options(self, form: str) -> dict[str, Any]:
        """Return what the table reader is told."""
        encoded = () if self.encoder is None else self.encoder.field_names
        options = _given(self.text)
        # "y" is not expected in a header: it may be somebody's answer in the first row
        options["expect"] = [n for n in (*self.columns.names(), *encoded, *TARGETS) if n != "y"]
        if form != "frame":
            options["format"] = form
        refs = [ref for ref in (self.columns.target, self.columns.weight) if ref is not None]
        by_name = not any(isinstance(ref, int) for ref in refs)
        if self.encoder is not None and by_name and (not self.require_target or refs):
            options["columns"] = list(dict.fromkeys([*encoded, *refs]))  # no need to read others
        return options


def _given(options: NamedTuple) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    given = {}
    for name, value in options._asdict().items():
        default = options._field_defaults[name]
        if value is not default and not (value == default or value == []):
            given[name] = value
    return given


# -- which reader ----------------------------------------------------------------------------------

TABLES = ("csv", "tsv", "parquet", "frame")

_FORMS = {
    "array": "an array of features",
    "dataset": "a Dataset",
    "frame": "a frame",
    "csv": "a table",
    "tsv": "a table",
    "parquet": "a table",
}


def _form_of(source: Any, format: str | None) -> str:
    """Return the form of a source: a format of files, or what it is in memory."""
    formats = (*READERS, "csv", "tsv", "parquet")
    if format is not None and format not in formats:
        raise ConfigError(f"format: expected one of {', '.join(formats)}, found {format!r}")
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
        return format or guess_format(source)
    if format is not None:
        raise ConfigError(f"format: does not apply to {type(source).__name__}, only to files")
    if isinstance(source, Dataset):
        return "dataset"
    if isinstance(source, tuple) and len(source) in (2, 3):
        return "pair"
    if sp.issparse(source) or isinstance(source, (np.ndarray, list, tuple)):
        return "array"
    return "frame"


def guess_format(source: Any) -> str:
    """Return the format of a file, or of the first file of a directory (see the module).

    Examples
    --------
    >>> guess_format(b"1 3:1 9:0.5"), guess_format(b"1 0:3:1"), guess_format(b"user,item")
    ('libsvm', 'libffm', 'csv')
    """
    name, head = head_of(source)
    if head.startswith(_RECORDIO):
        return "recordio"
    if is_parquet("", head):
        return "parquet"
    extension = Path(name.lower().removesuffix(".gz")).suffix
    if extension in EXTENSIONS:
        return EXTENSIONS[extension]
    lines = head.decode("latin-1").split("\n")
    lines = [line.strip() for line in (lines[:-1] or lines)[:_LINES] if line.strip()]
    for form, pattern in (("libffm", _LIBFFM), ("libsvm", _LIBSVM)):
        if any(":" in line for line in lines) and all(map(pattern.fullmatch, lines)):
            return form
    return "csv"


# -- features --------------------------------------------------------------------------------------


class _Part(NamedTuple):
    name: str
    X: sp.csr_matrix
    y: np.ndarray | None = None
    fields: np.ndarray | None = None
    zero_based: bool | None = None


def _libsvm(files: list[tuple[str, Any]], asked: _Asked) -> list[_Part]:
    from fm.formats.svmlight import read_libsvm

    n, zero_based = asked.sparse
    if zero_based == "auto":
        # All files decide together: one of several may happen to lack the first feature.
        parts = [
            _Part(name, *read_libsvm(file, zero_based=True, source=name)) for name, file in files
        ]
        lowest = [int(part.X.indices.min()) for part in parts if part.X.nnz]
        zero_based = min(lowest, default=0) == 0
        first = 0 if zero_based else 1
        if n is None or all(part.X.shape[1] - first <= n for part in parts):
            return [part._replace(X=_renumbered(part.X, first, n), zero_based=zero_based)
                    for part in parts]  # fmt: skip
    return [
        _Part(name, *read_libsvm(file, num_features=n, zero_based=zero_based, source=name),
              zero_based=zero_based)
        for name, file in files
    ]  # fmt: skip


def _renumbered(X: sp.csr_matrix, first: int, num_features: int | None) -> sp.csr_matrix:
    """Return X with the column that is called `first` as its first; X is used up."""
    X.indices -= first
    width = X.shape[1] - first if num_features is None else num_features
    return sp.csr_matrix((X.data, X.indices, X.indptr), shape=(X.shape[0], max(width, 0)))


def _libffm(files: list[tuple[str, Any]], asked: _Asked) -> list[_Part]:
    from fm.formats.svmlight import read_libffm

    n = asked.sparse.num_features
    return [_Part(name, *read_libffm(file, num_features=n, source=name)) for name, file in files]


def _recordio(files: list[tuple[str, Any]], asked: _Asked) -> list[_Part]:
    from fm.formats.recordio import read_csr

    n, labels = asked.sparse.num_features, asked.require_target
    return [
        _Part(name, *read_csr(file, num_features=n, source=name, require_label=labels))
        for name, file in files
    ]


READERS: dict[str, Callable[[list[tuple[str, Any]], _Asked], list[_Part]]] = {
    "libsvm": _libsvm,
    "libffm": _libffm,
    "recordio": _recordio,
}


def _read_features(source: Any, form: str, asked: _Asked) -> Dataset:
    files: list[tuple[str, Any]]
    if isinstance(source, (str, os.PathLike)):
        files, name = [(str(path), path) for path in data_files(source)], os.fspath(source)
    else:
        zipped = bytes(source[:2]) == b"\x1f\x8b"
        files, name = [("data", gunzip(source) if zipped else source)], "data"
    parts = READERS[form](files, asked)
    width = asked.sparse.num_features
    if width is None:
        width = max(part.X.shape[1] for part in parts)
    sets = [Dataset.from_arrays(p.X, p.y, num_features=width, source=p.name) for p in parts]
    fields, field_names = _fields(parts, width)
    if len(sets) == 1:
        return dataclasses.replace(
            sets[0],
            fields=fields,
            field_names=field_names,
            zero_based=parts[0].zero_based,
            _cache={},
        )
    lacking = [part.source for part in sets if part.y is None]
    if lacking and len(lacking) < len(sets):
        raise DataError(f"{lacking[0]}: expected targets, as other files have them, found none")
    X = sp.vstack([part.X for part in sets], format="csr")
    y = None if lacking else np.concatenate([part.y for part in sets])
    return Dataset.from_arrays(
        X, y, source=name, fields=fields, field_names=field_names, zero_based=parts[0].zero_based
    )


def _fields(parts: list[_Part], width: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the field of each feature by the first file that says it, and names of the fields."""
    if any(part.fields is None for part in parts):
        return None, ()
    fields = np.full(width, -1, np.int32)
    for part in reversed(parts):
        known = np.flatnonzero(part.fields >= 0)
        fields[known] = part.fields[known]
    names = [str(i) for i in range(int(fields.max(initial=-1)) + 1)]
    if (fields < 0).any():  # features that do not occur are a field of their own
        fields[fields < 0] = len(names)
        names.append("no field")
    return fields, tuple(names)


# -- tables ----------------------------------------------------------------------------------------


def _from_table(
    table: pa.Table, asked: _Asked, given_y: Any = None, given_weight: Any = None
) -> Dataset:
    from fm.encoder import CellTable, Encoder

    cells, encoder, columns = CellTable(table), asked.encoder, asked.columns
    used: list[str] = []

    def numbers(ref: str | int | None, what: str, given: Any) -> Any:
        if ref is None:
            return given
        used.extend(cells.resolve(ref))
        return _numbers(cells, used[-1], what)

    target = columns.target
    if target is None and given_y is None and (encoder is None or asked.require_target):
        target = _default_target(cells, asked)
    y = numbers(target, "target", given_y)
    weight = numbers(columns.weight, "weight", given_weight)
    if encoder is None:
        options = _given(columns._replace(target=None, weight=None))
        ignore = [*cells.resolve(columns.ignore), *used]
        encoder = Encoder.fit(cells, **{**options, "ignore": ignore})
    return Dataset.from_arrays(
        encoder.transform(cells),
        y,
        weight,
        source=source_of(table),
        fields=encoder.fields,
        feature_names=encoder.feature_names,
        field_names=encoder.field_names,
        encoder=encoder,
    )


def _read_pair(source: tuple[Any, ...], asked: _Asked) -> Dataset:
    """Read (features or frame, targets) or (features or frame, targets, weights)."""
    X, y, weight = (*source, None)[:3]
    form = _form_of(X, None)
    asked.check(form)
    if form == "array":
        return Dataset.from_arrays(X, y, weight, num_features=asked.sparse.num_features)
    if form not in TABLES:
        raise ConfigError(f"source: expected (features or frame, targets), found ({form}, ...)")
    return _from_table(read_table(X, **asked.table_options(form)), asked, y, weight)


def _default_target(cells: CellTable, asked: _Asked) -> str | None:
    taken = asked.columns.names()
    if asked.encoder is not None:
        taken = taken.union(asked.encoder.field_names)
    for wanted in TARGETS:
        for name in cells.names:
            if name.lower() == wanted and name not in taken:
                log.info("%s: the target is column %r; say target= to choose", cells.source, name)
                return name
    if asked.require_target:
        raise DataError(
            f"{cells.source}: no column is called {', '.join(TARGETS)}; say which is the target "
            f"with target=; the columns are {', '.join(cells.names)}"
        )
    return None


def _numbers(cells: CellTable, name: str, what: str) -> np.ndarray:
    with cells.column(name, what) as column:
        numbers = column.numbers
    missing = np.isnan(numbers)
    if missing.any():
        where = place(cells.table, int(np.argmax(missing)))
        raise DataError(
            f"{where}, column {name!r}: expected a number as {what}, found none; fill in the cell "
            "or leave out the row"
        )
    return numbers
