"""read: data of any kind and place -> Dataset.

Decided here: which reader a source gets, and which column is the target. Not decided here: what
format a file has (``fm.formats.guess``), how bytes are read (``fm.formats``), what columns become
(``fm.encoding.encoder``), what a row may hold (``fm.data.dataset``).

**Target of a table**, unless given: the first of :data:`TARGETS` among its columns, in any case of
letters. A table that is read with the encoder of a model has a target only if that is named or
required; then the first choice is the column that was the target in training.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from fm.catalogue.filling import fill, may_be_left_out, with_empty
from fm.data.dataset import Dataset
from fm.errors import Advice, ConfigError, DataError
from fm.formats.files import is_file
from fm.formats.frames import Columns, place, source_of
from fm.formats.guess import guess_format
from fm.formats.tables import BATCH_ROWS, iter_batches, read_table
from fm.reading.numbered import READERS, read_features

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.catalogue.catalogue import Catalogue
    from fm.encoding.encoder import Encoder
    from fm.formats.cells import CellTable

TARGETS = ("rating", "label", "target", "y", "click")

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
    catalogue: Catalogue | None = None,
    require_target: bool = False,
    user: str | None = None,
    item: str | None = None,
    item_columns: str | Sequence[str] | None = None,
    keep_seen: bool = True,
) -> Dataset:
    """Return data as a Dataset.

    Columns of a table that are named in `categorical`, `numeric`, `multi` or `history` are used,
    and no others; if none is named, all are (see :meth:`fm.encoding.encoder.Encoder.fit`).

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
    catalogue : Catalogue, optional
        That of the same model, for rows to predict: a table may leave out columns that describe
        users and items, which are as in training where these are known.
    require_target : bool
        Whether to refuse data without targets.
    user, item : str, optional
        The columns of users and items, for recommending: names, or ranges of features such as
        "0:943" and "943:2625". Not given: columns with such names (see
        ``fm.reading.finding_items``).
    item_columns : name or sequence of them, optional
        The columns that describe an item, such as genres. Not given: found in the data.
    keep_seen : bool
        Whether a model made of the data, and its file, remember who met which item. Lists leave out
        what a user has met, and the baselines of ``fm.evaluate_ranking`` need it. False where a
        model goes to people who must not see it.

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
    >>> from fm.reading.read import read
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
        catalogue=catalogue,
        require_target=require_target,
    )
    form = _form_of(source, format)
    asked.check(form)
    data: Dataset
    if form == "pair":
        data = _read_pair(source, asked)
    elif form == "dataset":
        data = source
    elif form == "array":
        data = Dataset.from_arrays(source, num_features=num_features)
    elif form in READERS:
        data = read_features(source, form, **asked.sparse._asdict(), require_target=require_target)
    else:
        data = _from_table(read_table(source, **asked.table_options(form)), asked)
    if require_target and data.y is None:
        raise DataError(f"{data.source}: expected a target in each row, found none")
    named = user is not None or item is not None or item_columns is not None or not keep_seen
    if named or encoder is None and form != "dataset":
        data = _with_catalogue(data, user, item, item_columns, keep_seen)
    return data


def _with_catalogue(data: Dataset, user: Any, item: Any, columns: Any, keep_seen: bool) -> Dataset:
    if user is None and item is None and columns is None and data.encoder is None:
        return data  # nothing that a name could be guessed from
    from fm.reading.finding_items import catalogue_of

    made = catalogue_of(data, item=item, user=user, item_columns=columns, keep_seen=keep_seen)
    return data if made is None else dataclasses.replace(data, catalogue=made)


def read_batches(
    source: Any,
    *,
    encoder: Encoder | None = None,
    catalogue: Catalogue | None = None,
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
    catalogue : Catalogue, optional
        As in :func:`read`.
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
    >>> from fm.reading.read import read, read_batches
    >>> encoder = read({"user": ["ann", "bob"], "rating": [4, 5]}).encoder
    >>> [part.X.indices.tolist() for part in
    ...  read_batches({"user": ["bob", "eve", "ann"]}, encoder=encoder, batch_rows=2)]
    [[2, 0], [1]]
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows: expected an integer >= 1, found {batch_rows!r}")
    columns = _Columns(target=target, weight=weight)
    text, sparse = _Text(delimiter, header, encoding), _Sparse(num_features, zero_based)
    asked = _Asked(columns, text, sparse, encoder, catalogue, require_target)
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
    catalogue: Catalogue | None
    require_target: bool

    def check(self, form: str) -> None:
        """Refuse options that do not apply to a form of data, rather than ignore them."""
        table = form in TABLES or form == "pair"
        wrong = {} if table else {**_given(self.columns), **_given(self.text)}
        if form in TABLES:
            wrong = _given(self.sparse)
        elif form in READERS and form != "libsvm" and self.sparse.zero_based != "auto":
            wrong["zero_based"] = self.sparse.zero_based
        if wrong:
            raise ConfigError(
                f"{', '.join(wrong)}: does not apply to {_FORMS.get(form, form)}",
                Advice(f"leave out {{{'}, {'.join(wrong)}}}", **dict.fromkeys(wrong, ...)),
            )
        if self.encoder is None:
            if self.catalogue is not None:
                raise ConfigError("catalogue: expected encoder= too, that of the same model")
            return
        if not table and form != "dataset":
            raise DataError(
                f"data: expected a table with the columns {', '.join(self.encoder.field_names)}, "
                f"which the model was trained on, found {_FORMS.get(form, form)}"
            )
        decided = _given(self.columns).keys() - {"target", "weight"}
        if decided:
            raise ConfigError(
                f"{', '.join(sorted(decided))}: does not apply, because the encoder that training "
                "made decides about the columns"
            )

    def table_options(self, form: str) -> dict[str, Any]:
        """Return what the table reader is told."""
        encoded = () if self.encoder is None else self.encoder.field_names
        options = _given(self.text)
        # "y" is not expected in a header: it may be somebody's answer in the first row
        names = (*self.columns.names(), *encoded, *target_names(self.encoder))
        options["expect"] = [name for name in names if name != "y"]
        if form != "frame":
            options["format"] = form
        refs = [ref for ref in (self.columns.target, self.columns.weight) if ref is not None]
        by_name = not any(isinstance(ref, int) for ref in refs)
        named = self.columns.target is not None
        if self.encoder is not None and by_name and (named or not self.require_target):
            other = [ref for ref in refs if isinstance(ref, str)]
            needed = Columns(dict.fromkeys([*encoded, *other]))  # no need to read others
            needed.optional = frozenset(may_be_left_out(self.catalogue))
            options["columns"] = needed
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
    if is_file(source):
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


# -- tables ----------------------------------------------------------------------------------------


def _from_table(
    table: pa.Table, asked: _Asked, given_y: Any = None, given_weight: Any = None
) -> Dataset:
    from fm.encoding.encoder import Encoder
    from fm.formats.cells import CellTable

    if asked.encoder is not None and asked.catalogue is not None:
        asked.encoder.check_names(table.column_names, source_of(table))
    table, missing = with_empty(table, may_be_left_out(asked.catalogue))
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
        encoder = Encoder.fit(cells, **{**options, "ignore": ignore}, target=target)
    X, filled = fill(encoder.transform(cells), missing, encoder, asked.catalogue)
    return Dataset.from_arrays(
        X,
        y,
        weight,
        source=source_of(table),
        fields=encoder.fields,
        feature_names=encoder.feature_names,
        field_names=encoder.field_names,
        encoder=encoder,
        filled=filled,
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
    name = usual_target(cells.names, asked.encoder, asked.columns.names())
    known = None if asked.encoder is None else asked.encoder.target
    if name is not None and name != known:
        advice = Advice("say {target} to choose another", target=...)
        log.info("%s: the target is column %r; %s", cells.source, name, advice)
    if name is None and asked.require_target:
        names = target_names(asked.encoder)
        raise DataError(
            f"{cells.source}: no column is called {', '.join(names)}; the columns are "
            f"{', '.join(cells.names)}",
            Advice("say which is the target with {target}", target=...),
        )
    return name


def target_names(encoder: Encoder | None) -> Sequence[str]:
    """Return what a target is called, the first choice first: as in training, or as usual."""
    known = None if encoder is None else encoder.target
    return TARGETS if known is None else list(dict.fromkeys((known, *TARGETS)))


def usual_target(
    names: Sequence[str], encoder: Encoder | None = None, taken: Collection[str] = ()
) -> str | None:
    """Return the column that is the target of a table, unless one is named (see the module).

    Parameters
    ----------
    names : sequence of str
        The columns.
    encoder : Encoder, optional
        That of a model: it may know the target, and its columns are no targets.
    taken : collection of str
        Further columns that are no targets.
    """
    taken = {*taken, *(() if encoder is None else encoder.field_names)}
    free = [name for name in names if name not in taken]
    goals = target_names(encoder)
    return next((name for goal in goals for name in free if goal in (name, name.lower())), None)


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
