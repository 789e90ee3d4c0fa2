"""``train``: the program of a training job.

    python -m container.train

Reads everything it needs below /opt/ml (see ``container.paths``); takes no arguments. Here are
signals and the exit code; the job itself is in ``container.job``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from container import kernels
from container.failure import EXIT_USER, guarded
from container.stopping import Stop


def main(argv: Sequence[str] | None = None) -> int:
    """Run the training job and return its exit code."""
    if sys.argv[1:] if argv is None else argv:
        sys.stderr.write(
            "train: expected no arguments; hyperparameters are read from "
            "/opt/ml/input/config/hyperparameters.json (fm train --help: training without "
            "SageMaker)\n"
        )
        return EXIT_USER
    stop = Stop()  # before the imports below, which take longer than a signal may wait
    from container.paths import Paths

    paths = Paths.of(os.environ)

    def job() -> int:
        kernels.use(os.environ)
        from container.job import run

        return run(paths, stop)

    return guarded(job, paths.failure)


if __name__ == "__main__":
    sys.exit(main())
