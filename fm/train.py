"""``python -m fm.train``, which is ``fm train``; see ``fm.cli.train``."""

import sys

from fm.cli.messages import run
from fm.cli.train import main

if __name__ == "__main__":
    sys.exit(run(main))
