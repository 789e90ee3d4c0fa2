"""``python -m fm.recommend``, which is ``fm recommend``; see ``fm.cli.recommend``."""

import sys

from fm.cli.messages import run
from fm.cli.recommend import main

if __name__ == "__main__":
    sys.exit(run(main))
