"""``python -m fm.predict``, which is ``fm predict``; see ``fm.cli.predict``."""

import sys

from fm.cli.messages import run
from fm.cli.predict import main

if __name__ == "__main__":
    sys.exit(run(main))
