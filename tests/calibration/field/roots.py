"""Little roots: a folder of pictures for each set of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from calibration.field.benchmark import Benchmark
from tests.calibration.pictures import write_picture

COUNT = 6  # pictures in a set


def write_set(folder: Path, count: int = COUNT) -> Path:
    """Pictures in two folders, as most sets have some."""
    for number in range(count):
        write_picture(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def write_root(root: Path, benchmark: Benchmark, sets: Iterable[str]) -> Path:
    """The ID set and some of the OOD sets, each in the first of its folders."""
    write_set(root / benchmark.inside.folders[0])
    for each in benchmark.ood:
        if each.name in sets:
            write_set(root / each.folders[0])
    return root
