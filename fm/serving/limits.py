"""What the server may use: sizes that are refused, and what the machine or its container gives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Sizes beyond which a request is refused or has to wait.

    Attributes
    ----------
    body_bytes : int
        The largest body; a larger one is answered with 413. SageMaker sends up to 100 MB.
    wait_bytes : int
        Larger bodies are decoded and scored one at a time in each process. The interpreter runs
        one thread at a time anyway: side by side, they would need more memory and all be late.
    """

    body_bytes: int = 128 << 20
    wait_bytes: int = 1 << 20


def memory() -> int:
    """Return the bytes of memory this process may use: of the machine, or of its container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return min(limits)


def cores() -> int:
    """Return how many processors this process may use: of the machine, or of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return count
