"""``python -m fm`` is the command ``fm``."""

import sys

from fm.cli.main import main

sys.exit(main())
