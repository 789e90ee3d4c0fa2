"""``python -m fm.convert``, which is ``fm convert``; see ``fm.cli.convert``."""

import sys

from fm.cli.convert import main
from fm.cli.messages import run

if __name__ == "__main__":
    sys.exit(run(main))
