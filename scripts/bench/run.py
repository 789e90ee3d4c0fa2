"""Print the quality and the speed tables of fm and of the peers that are installed.

    python scripts/bench/run.py FOLDER      FOLDER holds public data sets such as ml-100k/
    python scripts/bench/run.py             speed only

Peers: pip install -e '.[bench]' (modern-fm, vowpalwabbit, river; myfm where it has a wheel).
"""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Run both, each in a process of its own."""
    packages = ("fm", "numpy", "scipy", "numba", "modern-fm", "vowpalwabbit", "river", "myfm")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    print(f"Python {platform.python_version()} on {platform.machine()}: " + ", ".join(versions))
    if len(sys.argv) > 1:
        subprocess.run([sys.executable, HERE / "quality.py", sys.argv[1]], check=True)
    print(flush=True)
    subprocess.run([sys.executable, HERE / "speed.py"], check=True)


if __name__ == "__main__":
    main()
