"""``python -m fm.serve``, which is ``fm serve``; see ``fm.serving.application``."""

import sys

from fm.cli.options import run
from fm.serving.application import main

if __name__ == "__main__":
    sys.exit(run(main))
