"""What it was measured on, and whether anybody else was using it."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.serving.engines import CORES

LIBRARIES = ("torch", "torchvision", "openvino", "uvicorn", "line-ood")
WATCHED_S = 1.0
IDLE, WAITING = 3, 4  # columns of /proc/stat


def description() -> dict[str, object]:
    """Processor, cores, versions."""
    return {
        "cpu": _cpu(),
        "cores": CORES,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def busy() -> float:
    """Share of all cores in use during a second in which we do nothing: what others take from the measurement."""
    before = _times()
    time.sleep(WATCHED_S)
    spent = [after - first for first, after in zip(before, _times(), strict=True)]
    return 1 - (spent[IDLE] + spent[WAITING]) / max(1, sum(spent))


def _times() -> list[int]:
    total = Path("/proc/stat").read_text().splitlines()[0]
    return [int(column) for column in total.split()[1:9]]  # those after count guests twice


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
