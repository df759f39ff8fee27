"""Candidates, targets, and what lies at them, for the tests of the capture."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from scoring.metadata import OperatingPoint
from service.capture.candidate import Candidate, Origin
from service.capture.counts import Counts
from service.capture.record import Reason
from service.capture.target import Target
from tests.service.conftest import encode

POINT = OperatingPoint(name="default", alpha=0.1, guarantee="marginal", delta=0.05, threshold=1.0)
START = datetime(2026, 11, 24, 23, 59, 58, tzinfo=UTC)


def candidate(
    seed: int = 0, *, reason: Reason = "reject", request_id: str = "r", data: bytes | None = None, days: int = 0
) -> Candidate:
    """An image of its own for each seed, a second after the one before."""
    return Candidate(
        data=encode(seed) if data is None else data,
        reason=reason,
        time=START + timedelta(days=days, seconds=seed),
        origin=Origin(request_id, "camera-1", "tiny", "0123456789abcdef", "line", ["cat", "dog"], POINT, np.ones(2)),
        image_index=0,
        class_index=1,
        probability=0.75,
        ood_score=1.5,
        p_value=0.01,
        threshold=1.0,
    )


def counts() -> tuple[Counts, CollectorRegistry]:
    registry = CollectorRegistry()
    return Counts(registry, ["tiny"]), registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"line_ood_{name}", labels)


def side_files(folder: Path) -> list[dict[str, Any]]:
    """Every side file below a folder, in the order of their names, with the bytes of the image beside it."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        (image,) = set(path.parent.glob(f"{path.stem}.*")) - {path}
        found.append(json.loads(path.read_bytes()) | {"image": image.read_bytes(), "path": path})
    return found


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def make_unlistable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the disk fails where this folder is to be listed."""
    scan = os.scandir

    def fail(path: str | Path) -> Iterator[os.DirEntry[str]]:
        if Path(path) == folder:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail)


class Broken(Target):
    """A target whose steps fail when told to."""

    failing: bool = False

    def put(self, path: str, content: bytes) -> None:
        if self.failing and path.endswith(".json"):
            raise OSError(28, "No space left on device")
        super().put(path, content)
