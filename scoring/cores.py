"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """The cores that the scheduler grants, or the container's share of them, whichever is fewer; at least 1."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(granted, _container_share()))


def _container_share() -> int:
    """Whole cores that `docker run --cpus` and Kubernetes limits leave, rounded up."""
    try:
        quota, period = CPU_MAX.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such limit, or none that can be read: "max 100000"
        return os.cpu_count() or 1
