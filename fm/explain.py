"""``python -m fm.explain``, which is ``fm explain``; see ``fm.cli.explain``."""

import sys

from fm.cli.explain import main
from fm.cli.messages import run

if __name__ == "__main__":
    sys.exit(run(main))
