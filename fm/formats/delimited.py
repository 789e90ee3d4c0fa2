"""Delimited text: CSV, TSV and their kin -> columns.

Decided here: how text is cut into cells, and what its columns are called. Not decided here: what a
cell means (``fm.formats.cells``). So cells stay texts: what ``007`` means does not depend on the
rest of its column, or on where a batch of rows begins. An empty cell is missing.

**Delimiter**, unless given: the first of ``::``, tab, comma, semicolon, ``|`` and space that cuts
the first row, and nine tenths of the rows at the beginning of the file, into the same number of
cells, at least 2. If none does, it is the one that comes closest, so that the odd rows can be
named; if none comes close, the file has one column. Cells may be quoted (``"a ""quoted"", cell"``,
new lines included), except between ``::``.

**Header**, unless given, by the first of these rules that applies:

1. The first row holds a name that is expected (a column of the encoder, the target, ...): a header.
2. One of its cells is a number: no header.
3. Some column has only numbers below the first row, or digits in each cell below it and none in it:
   a header.
4. Otherwise it is an error that asks for ``header=``.

Columns without a name are called by their position: "0", "1", ...
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fm.errors import Advice, ConfigError, DataError, UnsupportedFormatError
from fm.formats.cells import MISSING_NUMBERS, NUMBER
from fm.formats.files import File, looks_like
from fm.formats.frames import check_names, existing

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = ("::", "\t", ",", ";", "|", " ")

SAMPLE_BYTES = 1 << 18  # bytes from which delimiter, header and encoding are found out
BLOCK_BYTES = 1 << 22  # bytes that are parsed at a time; no row may be longer
_ONE_BYTE = "\x1f"  # stands in for "::", because the parser wants one byte: "unit separator"
_DIGIT = re.compile(r"[0-9]")


class Options(NamedTuple):
    """What the caller has said about the files; see :func:`fm.formats.tables.read_table`."""

    format: str | None
    delimiter: str | None
    header: bool | Sequence[str] | None
    expect: tuple[str, ...]
    encoding: str | None


class Layout(NamedTuple):
    """How a text file is laid out, and all other files of its directory."""

    delimiter: str
    names: tuple[str, ...]
    skip: int  # rows before the first one with data: the header and blank lines
    has_header: bool
    encoding: str


def read_text(
    file: File,
    content: memoryview,
    options: Options,
    first: Layout | None,
    columns: Sequence[str] | None,
) -> tuple[Layout, pa.Table]:
    """Return how a file is laid out, and its rows.

    Parameters
    ----------
    file, content : File, memoryview
        The file, and what is in it, decompressed.
    options : Options
        What the caller has said.
    first : Layout or None
        The layout of the first file of a directory; the others must have the same.
    columns : sequence of str or None
        The columns to return; None: all.

    Raises
    ------
    DataError, ConfigError, UnsupportedFormatError
        As :func:`fm.formats.tables.read_table` does.
    """
    layout = _layout(
        file.name, bytes(content[:SAMPLE_BYTES]), len(content) <= SAMPLE_BYTES, options, first
    )
    try:
        return layout, _parsed(file, content, layout, columns)
    except UnicodeError:
        if options.encoding is not None or layout.encoding != "utf-8":
            raise _bad_encoding(file.name, layout.encoding) from None
    layout = layout._replace(encoding=_fallback(file.name))
    return layout, _parsed(file, content, layout, columns)


def stream_text(
    file: File,
    options: Options,
    first: Layout | None,
    columns: Sequence[str] | None,
    batch_rows: int,
) -> tuple[Layout, Iterator[pa.Table]]:
    """Return how a file is laid out, and its rows in batches; see :func:`read_text`."""
    head = file.head(SAMPLE_BYTES)
    layout = _layout(file.name, head, len(head) < SAMPLE_BYTES, options, first)
    return layout, _batches(file, layout, columns, batch_rows)


def _parsed(
    file: File, content: memoryview, layout: Layout, columns: Sequence[str] | None
) -> pa.Table:
    """Return the rows of a text; UnicodeDecodeError if it is not in the encoding."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    options = _parser_options(layout, existing(columns, layout.names, file.name))
    text = _Utf8(file.name, pa.BufferReader(content), layout)
    with _parse_errors(file, layout):
        table = pacsv.read_csv(text, **options)
    _check_lines(file, layout, text, table.num_rows)
    return table


def _batches(
    file: File, layout: Layout, columns: Sequence[str] | None, batch_rows: int
) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    options = _parser_options(layout, existing(columns, layout.names, file.name))
    rows, waiting, count = 0, [], 0
    try:
        with file.open() as raw, _parse_errors(file, layout):
            text = _Utf8(file.name, raw, layout)
            for batch in pacsv.open_csv(text, **options):
                waiting.append(pa.Table.from_batches([batch]))
                count += batch.num_rows
                rows += batch.num_rows
                if count >= batch_rows:
                    table, done = pa.concat_tables(waiting), count - count % batch_rows
                    for start in range(0, done, batch_rows):
                        yield table.slice(start, batch_rows)
                    waiting, count = [table.slice(done)], count - done
    except UnicodeError:
        raise _bad_encoding(file.name, layout.encoding) from None
    _check_lines(file, layout, text, rows)
    if count:
        yield pa.concat_tables(waiting)


# -- how it is laid out ----------------------------------------------------------------------------


def _layout(name: str, head: bytes, whole: bool, options: Options, first: Layout | None) -> Layout:
    """Find out how a text file is laid out from its head, which may be the whole of it."""
    if not head:
        raise DataError(f"{name}: the file is empty; expected rows of cells")
    encoding = _encoding(name, head, whole, options.encoding)
    lines = _lines(name, head, whole, encoding)
    blank = sum(1 for _ in itertools.takewhile(lambda line: not line.strip("\r\n"), lines))
    delimiter = _delimiter(name, lines, options, first)
    rows = [row for row in _cells(lines, delimiter) if row]
    names, has_header = _names(name, rows, delimiter, options, first)
    check_names(name, names)
    if first and sorted(names) != sorted(first.names):
        raise DataError(
            f"{name}: expected the columns of the first file, {', '.join(first.names)}, found "
            f"{', '.join(names)}"
        )
    return Layout(delimiter, tuple(names), blank + has_header, has_header, encoding)


def _lines(name: str, head: bytes, whole: bool, encoding: str) -> list[str]:
    """Return the lines at the beginning of a file, of which one is not blank."""
    try:
        sample = codecs.getincrementaldecoder(encoding)("replace").decode(head, whole)
    except UnicodeError:  # UTF-16 without its mark, for example
        raise _bad_encoding(name, encoding) from None
    if "\0" in sample:
        raise UnsupportedFormatError(
            f"{name}: expected delimited text, found {looks_like(head)}",
            Advice("say which format it is with {format}", format=...),
        )
    sample = sample.removeprefix("\ufeff")
    lines = list(io.StringIO(sample, newline=""))  # splitlines() knows more ends of lines
    if not whole and len(lines) > 1:
        lines.pop()  # it may be cut off
    if not any(line.strip("\r\n") for line in lines):
        raise DataError(f"{name}: the file has only blank lines; expected rows of cells")
    return lines


def _names(
    name: str, rows: list[list[str]], delimiter: str, options: Options, first: Layout | None
) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the first row holds them."""
    if isinstance(options.header, (str, bytes)):
        raise ConfigError(f"header: expected true, false or names, found {options.header!r}")
    if isinstance(options.header, Sequence):
        names = [str(n) for n in options.header]
        if len(names) != len(rows[0]):
            raise DataError(
                f"{name}: header names {len(names)} columns, but the first row has "
                f"{len(rows[0])} cells separated by {_shown(delimiter)}"
            )
        return names, rows[0] == names
    has_header = first.has_header if first else _has_header(name, rows, options)
    named = rows[0] if has_header else [""] * len(rows[0])
    return [cell or str(i) for i, cell in enumerate(named)], has_header


def _encoding(name: str, head: bytes, whole: bool, given: str | None) -> str:
    if given is not None:
        try:
            "".encode(given)  # which fails for what is no encoding of texts, such as base64
            return codecs.lookup(given).name
        except (LookupError, TypeError) as err:
            raise ConfigError(f"encoding: {given!r} is not known to Python") from err
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, whole)
    except UnicodeDecodeError:
        if b"\0" not in head:
            return _fallback(name)
    return "utf-8"


def _fallback(name: str) -> str:
    warnings.warn(
        f"{name}: not valid UTF-8, read as latin-1; say encoding='latin-1', or the right encoding",
        stacklevel=2,
    )
    return "latin-1"


def _bad_encoding(name: str, encoding: str) -> DataError:
    return DataError(
        f"{name}: expected text in {encoding}, found bytes that are not; pass the right encoding=, "
        "for example encoding='latin-1'"
    )


def _cells(lines: Iterable[str], delimiter: str, strict: bool = False) -> Iterator[list[str]]:
    # A history of ids may well be longer than the 131,072 characters that Python allows a cell.
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 28))
    if delimiter == "::":
        lines = (line.replace("::", _ONE_BYTE) for line in lines)
        return csv.reader(lines, delimiter=_ONE_BYTE, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=strict)


def _delimiter(name: str, lines: list[str], options: Options, first: Layout | None) -> str:
    given = options.delimiter or ("\t" if options.format == "tsv" else None)
    if given is not None:
        if given != "::" and (len(given) != 1 or ord(given) > 127 or given in '"\r\n\0'):
            raise ConfigError(
                f"delimiter: expected one ASCII character or '::', found {options.delimiter!r}"
            )
        return given
    if first:
        return first.delimiter
    best, most = ",", 0.5
    for delimiter in DELIMITERS:
        counts = [len(row) for row in _cells(lines, delimiter) if row]
        usual, times = Counter(counts).most_common(1)[0]
        share = times / len(counts)
        if usual > 1 and counts[0] == usual and share >= 0.9:
            return delimiter
        if usual > 1 and share > most:
            best, most = delimiter, share
    return best


def _has_header(name: str, rows: list[list[str]], options: Options) -> bool:
    """Return whether the first row is a header, by the rules in the module's docstring."""
    if options.header is not None:
        return bool(options.header)
    head, below = rows[0], rows[1:]
    if any(cell in options.expect and not cell.isdigit() for cell in head):
        return True
    if any(NUMBER.fullmatch(cell.strip()) for cell in head):
        return False
    if any(_is_title(title, i, below) for i, title in enumerate(head)):
        return True
    if not below:
        return True  # that there are no rows is reported later
    raise DataError(
        f"{name}: cannot tell whether the first row ({', '.join(head[:4])}"
        f"{', ...' if len(head) > 4 else ''}) is a header, as no column has only numbers below it",
        Advice("say with {header} whether it is", header=...),
    )


def _is_title(title: str, i: int, below: list[list[str]]) -> bool:
    """Whether a cell without a number stands above numbers, or one without digits above digits."""
    cells = [row[i].strip() for row in below if i < len(row)]
    cells = [cell for cell in cells if cell.lower() not in MISSING_NUMBERS]
    if not cells:
        return False
    numbers = all(map(NUMBER.fullmatch, cells))
    return numbers or not _DIGIT.search(title) and all(map(_DIGIT.search, cells))


# -- parsing ---------------------------------------------------------------------------------------


class _Utf8(io.RawIOBase):
    """Bytes of a text file as the parser needs them: UTF-8, cells separated by one byte.

    Also counts lines and remembers quotes, because the parser accepts a quote that is never closed
    and takes all lines behind it for one cell.
    """

    def __init__(self, name: str, raw: Any, layout: Layout) -> None:
        self._name = name
        self.lines = 0
        self.quotes = False
        self._raw = raw
        self._split = layout.delimiter == "::"
        self._rest = b""
        self._decoder = None
        if layout.encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(layout.encoding)()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            raw = self._raw.read(size)
            block: bytes = raw
            if self._decoder:
                block = self._decoder.decode(raw, not raw).encode()
            if self._split:
                block = self._separated(block, not raw)
            if block or not raw:
                self.lines += block.count(b"\n")
                self.quotes = self.quotes or b'"' in block
                return block

    def _separated(self, block: bytes, last: bool) -> bytes:
        if _ONE_BYTE.encode() in block:
            raise DataError(
                f"{self._name}: the text holds the control character 0x1f, which cannot be read "
                "between ::; remove it"
            )
        block = (self._rest + block).replace(b"::", _ONE_BYTE.encode())
        self._rest = b""
        if not last and block.endswith(b":"):  # its other half may begin the next block
            block, self._rest = block[:-1], b":"
        return block


def _parser_options(layout: Layout, columns: Sequence[str] | None) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    split = layout.delimiter == "::"
    return {
        "read_options": pacsv.ReadOptions(
            column_names=layout.names, skip_rows_after_names=layout.skip, block_size=BLOCK_BYTES
        ),
        "parse_options": pacsv.ParseOptions(
            delimiter=_ONE_BYTE if split else layout.delimiter,
            quote_char=False if split else '"',
            newlines_in_values=not split,
        ),
        "convert_options": pacsv.ConvertOptions(
            column_types=dict.fromkeys(layout.names, pa.string()),
            include_columns=columns,
            strings_can_be_null=True,
            null_values=[""],
        ),
    }


@contextmanager
def _parse_errors(file: File, layout: Layout) -> Iterator[None]:
    """Turn the parser's errors into ours, which name the line."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as err:
        if "UTF8" in str(err):
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "invalid") from err
        _check_rows(file, layout)
        raise DataError(f"{file.name}: cannot be read as delimited text ({err})") from err


# -- what is wrong with it -------------------------------------------------------------------------


def _check_lines(file: File, layout: Layout, text: _Utf8, rows: int) -> None:
    if rows == 0:
        if layout.has_header:
            advice = Advice("if the first row is data, pass {header}", header=False)
            raise DataError(f"{file.name}: the file has no rows below the header", advice)
        raise DataError(f"{file.name}: the file has no rows")
    if text.quotes and text.lines - rows - layout.skip not in (-1, 0):
        _check_rows(file, layout)  # some cell has several lines, or a line is blank


def _check_rows(file: File, layout: Layout) -> None:
    """Read a text again, slowly, and raise a DataError for the first line that is wrong."""
    encoding = "utf-8-sig" if layout.encoding == "utf-8" else layout.encoding
    with file.open() as raw, io.TextIOWrapper(raw, encoding, "replace", newline="") as lines:
        rows: Any = _cells(lines, layout.delimiter, strict=True)
        expected, start = len(layout.names), 1
        try:
            for row in rows:
                if row and len(row) != expected:
                    raise DataError(
                        f"{file.name} line {start}: expected {expected} cells separated by "
                        f"{_shown(layout.delimiter)}, found {len(row)}"
                        f"{_other_delimiter(row, layout)}; correct the line"
                    )
                start = rows.line_num + 1
        except csv.Error as err:
            if "field larger" in str(err):
                return  # a limit of Python's, not an error in the file
            raise DataError(
                f"{file.name} line {start}: a quoted cell that begins here is not closed as it "
                f"should be ({err}); close it, or write a quote inside it twice"
            ) from err


def _other_delimiter(row: list[str], layout: Layout) -> str:
    line = layout.delimiter.join(row)
    for other in DELIMITERS:
        if other != layout.delimiter:
            cells = next(_cells([line], other), [])
            if len(cells) == len(layout.names) > 1:
                return f", and {len(cells)} separated by {_shown(other)} (mixed delimiters?)"
    return ""


def _shown(delimiter: str) -> str:
    return {"\t": "tab", " ": "space"}.get(delimiter, repr(delimiter))
