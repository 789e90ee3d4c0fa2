"""``python -m fm.evaluate``, which is ``fm evaluate``; see ``fm.cli.evaluate``."""

import sys

from fm.cli.evaluate import main
from fm.cli.messages import run

if __name__ == "__main__":
    sys.exit(run(main))
