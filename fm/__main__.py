"""``python -m fm`` is the command ``fm``."""

import sys

from fm.cli import main

sys.exit(main())
