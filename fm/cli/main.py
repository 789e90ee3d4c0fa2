"""``fm VERB ...``: one command for all of them."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from fm.cli.messages import EXIT_WRONG, run
from fm.version import __version__

# verb -> what it does; the verb's module fm.cli.VERB has a function main(argv) -> exit code
VERBS = {
    "train": "learn a model from a file, and save it",
    "predict": "predict each row of a file",
    "evaluate": "measure a model on a file with targets",
    "recommend": "list the best items for users or contexts",
    "explain": "show what the scores of rows are made of",
    "serve": "answer HTTP requests with predictions",
    "convert": "turn a data file or a model into another format",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code."""
    verb, *rest = (list(sys.argv[1:] if argv is None else argv)) or ["--help"]
    if verb in ("--help", "-h", "help"):
        sys.stdout.write(_help())
        return 0
    if verb in ("--version", "-V"):
        sys.stdout.write(f"fm {__version__}\n")
        return 0
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else " (see fm --help)"
        sys.stderr.write(f"fm: error: expected one of {', '.join(VERBS)}, found {verb!r}{meant}\n")
        return EXIT_WRONG
    # Imported here, so that predicting never loads what only training needs.
    return run(importlib.import_module(f"fm.cli.{verb}").main, rest)


def _help() -> str:
    verbs = "".join(f"  {verb:11}{text}\n" for verb, text in VERBS.items())
    return (
        "usage: fm VERB ...\n\nFactorization machines.\n\n"
        f"verbs:\n{verbs}\n"
        "fm VERB --help shows options and examples. python -m fm.VERB is the same as fm VERB.\n"
        "fm --version shows the version.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
