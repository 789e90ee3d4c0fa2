"""``python -m fm.serve``, which is ``fm serve``; see ``fm.cli.serve``."""

import sys

from fm.cli.messages import run
from fm.cli.serve import main

if __name__ == "__main__":
    sys.exit(run(main))
