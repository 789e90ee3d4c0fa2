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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from fm.catalogue.filling import fill, may_be_left_out, with_empty
from fm.data.dataset import Dataset
from fm.errors import Advice, ConfigError, DataError
from fm.formats.cells import CellTable
from fm.formats.files import is_file
from fm.formats.frames import Columns, source_of
from fm.formats.guess import guess_format
from fm.formats.tables import BATCH_ROWS, iter_batches, read_table
from fm.reading.numbered import READERS, read_features
from fm.reading.options import Options, column_names
from fm.reading.targets import numbers_of, targets_of

if TYPE_CHECKING:
    import pyarrow as pa

    from fm.catalogue.catalogue import Catalogue
    from fm.encoding.encoder import Encoder

TARGETS = ("rating", "label", "target", "y", "click")

log = logging.getLogger("fm")


def read(
    source: Any,
    *,
    target: str | int | None = None,
    weight: str | int | None = None,
    positive: str | int | float | None = None,
    require_target: bool = False,
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
    user: str | None = None,
    item: str | None = None,
    item_columns: str | Sequence[str] | None = None,
    keep_seen: bool = True,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | Sequence[str] | None = None,
    encoding: str | None = None,
    num_features: int | None = None,
    zero_based: bool | Literal["auto"] = "auto",
    encoder: Encoder | None = None,
    catalogue: Catalogue | None = None,
    labels: tuple[Any, Any] | None = None,
) -> Dataset:
    """Return data as a Dataset.

    Columns of a table that are named in `categorical`, `numeric`, `multi`, `history` or `date` are
    used, and no others; if none is named, all are (see :meth:`fm.encoding.encoder.Encoder.fit`).

    =================  ==========================================================================
    what is predicted  target, weight, positive, require_target
    columns            categorical, numeric, multi, history, date, ignore, standardize,
                       bins, min_count, hash_dim
    recommending       user, item, item_columns, keep_seen
    form of the data   format, delimiter, header, encoding
    numbered features  num_features, zero_based
    rows for a model   encoder, catalogue, labels
    =================  ==========================================================================

    Parameters
    ----------
    source : path, bytes, frame, mapping of columns, array, sparse matrix or tuple
        A file or a directory of files, gzip-compressed or not; a pandas, polars or Arrow frame; a
        dict of columns; a matrix of features; a tuple (matrix or frame, targets[, weights]).
    target, weight : str or int, optional
        Columns, by name or position, with the target and the weight of each row. Without a target,
        see the module. Rows without a weight have a weight of 1.
    positive : str or number, optional
        Which of two labels is the positive one, 1; the default is said in ``fm.data.labels``.
    require_target : bool
        Whether to refuse data without targets.
    categorical, numeric : name, position, or sequence of them
        Columns of a kind.
    multi, history : name, position, sequence of them, or mapping of name to separator
        Columns with a set of values in each row.
    date : name, position, or sequence of them
        Columns with dates or times, which become year, month, weekday and hour: texts in ISO 8601,
        dates of any kind, or numbers, which are seconds since 1970.
    ignore : name, position, or sequence of them
        Columns to leave out when no others are named.
    standardize : bool
        Whether numeric columns get mean 0 and standard deviation 1.
    bins : int or "auto"
        At how many points of a numeric column its effect may bend; 0: the effect is linear.
    min_count : int
        Values in fewer rows share the unknown feature of their column.
    hash_dim : int or mapping of name to int, optional
        Number of features that the values of a column are hashed to.
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
    format : {"libsvm", "libffm", "csv", "tsv", "parquet", "recordio"}, optional
        Format of a file; the default is a guess.
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
    labels : tuple of two, optional
        Those of the same model, the negative one first: the targets must be one of them.

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
    options = Options(
        target, weight, positive, require_target,
        categorical, numeric, multi, history, date, ignore,
        standardize, bins, min_count, hash_dim,
        user, item, item_columns, keep_seen,
        format, delimiter, header, encoding,
        num_features, zero_based,
        encoder, catalogue, labels,
    )  # fmt: skip
    form = _form_of(source, format)
    _check(options, form)
    data: Dataset
    if form == "pair":
        data = _read_pair(source, options)
    elif form == "dataset":
        data = source
    elif form == "array":
        data = Dataset.from_arrays(source, num_features=num_features)
    elif form in READERS:
        data = read_features(
            source,
            form,
            num_features=num_features,
            zero_based=zero_based,
            require_target=require_target,
        )
    else:
        data = _from_table(read_table(source, **_table_options(options, form)), options)
    if require_target and data.y is None:
        raise DataError(f"{data.source}: expected a target in each row, found none")
    if data.y is not None and data.labels is None and (labels or positive is not None):
        data = data.labelled(options.labels, positive)
    sides = options.given("recommending")
    if sides or encoder is None and form != "dataset":
        data = _with_catalogue(data, **sides)
    return data


def _with_catalogue(data: Dataset, **sides: Any) -> Dataset:
    """Return data with a catalogue, if it is known which columns are the items."""
    named = any(sides.get(name) is not None for name in ("user", "item", "item_columns"))
    if not named and data.encoder is None:
        return data  # nothing that a name could be guessed from
    from fm.reading.finding_items import catalogue_of

    made = catalogue_of(data, **sides)
    return data if made is None else dataclasses.replace(data, catalogue=made)


def read_batches(
    source: Any,
    *,
    target: str | int | None = None,
    weight: str | int | None = None,
    require_target: bool = False,
    format: str | None = None,
    delimiter: str | None = None,
    header: bool | Sequence[str] | None = None,
    encoding: str | None = None,
    num_features: int | None = None,
    zero_based: bool | Literal["auto"] = "auto",
    encoder: Encoder | None = None,
    catalogue: Catalogue | None = None,
    labels: tuple[Any, Any] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[Dataset]:
    """Yield data in batches of rows, for prediction; a table may be larger than the memory.

    Features (libsvm, libffm, RecordIO, arrays) are read as a whole, then cut.

    Parameters
    ----------
    source, target, weight, require_target
        As in :func:`read`.
    format, delimiter, header, encoding, num_features, zero_based
        As in :func:`read`.
    encoder : Encoder, optional
        That of the model; a table needs one, because batches must get the same features.
    catalogue, labels
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
    options = Options(
        target, weight, None, require_target,
        format=format, delimiter=delimiter, header=header, encoding=encoding,
        num_features=num_features, zero_based=zero_based, encoder=encoder, catalogue=catalogue,
        labels=labels,
    )  # fmt: skip
    form = _form_of(source, format)
    if form in TABLES and encoder is None:
        raise ConfigError(
            "encoder: a table is read in batches with the encoder of a model, found none"
        )
    _check(options, form)
    if form in TABLES:
        how = _table_options(options, form)
        for table in iter_batches(source, batch_rows=batch_rows, **how):
            yield _from_table(table, options)
        return
    data = read(
        source,
        format=format,
        num_features=num_features,
        zero_based=zero_based,
        require_target=require_target,
        encoder=encoder,
        labels=labels,
    )
    for start in range(0, data.num_rows, batch_rows):
        yield data.take(np.arange(start, min(start + batch_rows, data.num_rows)))


# -- what was asked for ----------------------------------------------------------------------------

_TABLE = ("what is predicted", "columns")
_ANY_FORM = ("positive", "require_target", "format")
_TEXT = ("delimiter", "header", "encoding")


def _check(options: Options, form: str) -> None:
    """Refuse options that do not apply to a form of data, rather than ignore them."""
    table = form in TABLES or form == "pair"
    given = options.given(*_TABLE, "form of the data")
    wrong = [name for name in given if not table and name not in _ANY_FORM]
    if form in TABLES:
        wrong = list(options.given("numbered features"))
    elif form in READERS and form != "libsvm" and options.zero_based != "auto":
        wrong.append("zero_based")
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)}: does not apply to {_FORMS.get(form, form)}",
            Advice(f"leave out {{{'}, {'.join(wrong)}}}", **dict.fromkeys(wrong, ...)),
        )
    if options.encoder is None:
        if options.catalogue is not None:
            raise ConfigError("catalogue: expected encoder= too, that of the same model")
        return
    if not table and form != "dataset":
        raise DataError(
            f"data: expected a table with the columns {', '.join(options.encoder.field_names)}, "
            f"which the model was trained on, found {_FORMS.get(form, form)}"
        )
    if decided := options.given("columns"):
        raise ConfigError(
            f"{', '.join(sorted(decided))}: does not apply, because the encoder that training made "
            "decides about the columns"
        )


def _table_options(options: Options, form: str) -> dict[str, Any]:
    """Return the options of the table reader."""
    encoder = options.encoder
    encoded = () if encoder is None else encoder.field_names
    given = options.given("form of the data")
    how = {name: given[name] for name in _TEXT if name in given}
    # "y" is not expected in a header: it may be somebody's answer in the first row
    names = (*column_names(vars(options)), *encoded, *target_names(encoder))
    how["expect"] = [name for name in names if name != "y"]
    if form != "frame":
        how["format"] = form
    refs = [ref for ref in (options.target, options.weight) if ref is not None]
    by_name = not any(isinstance(ref, int) for ref in refs)
    if encoder is not None and by_name and (options.target or not options.require_target):
        other = [ref for ref in refs if isinstance(ref, str)]
        needed = Columns(dict.fromkeys([*encoded, *other]))  # no need to read others
        needed.optional = frozenset(may_be_left_out(options.catalogue))
        how["columns"] = needed
    return how


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
    table: pa.Table, options: Options, given_y: Any = None, given_weight: Any = None
) -> Dataset:
    from fm.encoding.encoder import Encoder

    if options.encoder is not None and options.catalogue is not None:
        options.encoder.check_names(table.column_names, source_of(table))
    table, missing = with_empty(table, may_be_left_out(options.catalogue))
    cells, encoder = CellTable(table), options.encoder
    used: list[str] = []

    def numbers(ref: str | int | None, what: str, given: Any) -> Any:
        if ref is None:
            return given
        used.extend(cells.resolve(ref))
        return numbers_of(cells, used[-1], what)

    labels, target = None, options.target
    if target is None and given_y is None and (encoder is None or options.require_target):
        target = _default_target(cells, options)
    y = given_y
    if target is not None:
        used.extend(cells.resolve(target))
        y, labels = targets_of(cells, used[-1], options.labels, options.positive)
    weight = numbers(options.weight, "weight", given_weight)
    if encoder is None:
        ignore = [*cells.resolve(options.ignore), *used]
        encoder = Encoder.fit(
            cells, **{**options.given("columns"), "ignore": ignore}, target=target
        )
    X, filled = fill(encoder.transform(cells), missing, encoder, options.catalogue)
    data = Dataset.from_arrays(
        X,
        y,
        weight,
        labels=options.labels if target is None else None,
        positive=options.positive if target is None else None,
        source=source_of(table),
        fields=encoder.fields,
        feature_names=encoder.feature_names,
        field_names=encoder.field_names,
        encoder=encoder,
        filled=filled,
    )
    return data if labels is None else dataclasses.replace(data, labels=labels)


def _read_pair(source: tuple[Any, ...], options: Options) -> Dataset:
    """Read (features or frame, targets) or (features or frame, targets, weights)."""
    X, y, weight = (*source, None)[:3]
    form = _form_of(X, None)
    _check(options, form)
    if form == "array":
        return Dataset.from_arrays(
            X,
            y,
            weight,
            num_features=options.num_features,
            labels=options.labels,
            positive=options.positive,
        )
    if form not in TABLES:
        raise ConfigError(f"source: expected (features or frame, targets), found ({form}, ...)")
    return _from_table(read_table(X, **_table_options(options, form)), options, y, weight)


def _default_target(cells: CellTable, options: Options) -> str | None:
    encoder = options.encoder
    name = usual_target(cells.names, encoder, column_names(vars(options)))
    known = None if encoder is None else encoder.target
    if name is not None and name != known:
        advice = Advice("say {target} to choose another", target=...)
        log.info("%s: the target is column %r; %s", cells.source, name, advice)
    if name is None and options.require_target:
        names = target_names(encoder)
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
