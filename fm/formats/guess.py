"""guess: the format of a file.

It is told, in this order, by the first bytes (Parquet and RecordIO have a magic number), by the
extension (:data:`EXTENSIONS`; ``.gz`` is removed first), and by the first lines: libsvm if each is
``label index:value ...``, libffm if each is ``label field:index:value ...``. Any other file is a
table with some delimiter.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fm.formats.files import head_of

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


def is_parquet(name: str, head: bytes) -> bool:
    """Return whether the first bytes of a file, or its name, say Parquet."""
    return head.startswith(b"PAR1") or name.lower().endswith((".parquet", ".pq"))
