"""The disk of the captured images is full: they are not kept, which is counted; no request notices."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.absent import absent
from tests.chaos.conftest import ENVIRONMENT
from tests.chaos.figures import record
from tests.chaos.scale import SCALE
from tests.chaos.traffic import Traffic
from tests.metrics import sample
from tests.processes import running_server
from tests.service.capture.making import bytes_below, side_files
from tests.waiting import until

DISK_BYTES = 64 * 2**20
KEPT = "line_ood_captured_images_total"
FAILED = "line_ood_capture_failures_total"
ALL = ("--capture-random", "1", "--capture-per-minute", "60000")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        absent(f"a small disk needs root, and the right to mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while (free := shutil.disk_usage(disk).free) > 0:
            file.write(bytes(free))
    return filler


def test_a_full_disk(disk, tiny_artifact, scores):
    """Every answer is right; images are kept again as soon as there is room, and what lies there is whole."""
    images = disk / "images"
    flags = ("--artifact", str(tiny_artifact), "--capture", str(images), *ALL)
    longest = 0.0
    with running_server(*flags, "--monitor-state", str(disk / "monitor.json"), env=ENVIRONMENT) as server:
        traffic = Traffic(server.url, scores)
        with traffic.running():
            until(lambda: sample(server.url, KEPT) > 0)
            for _ in range(SCALE.rounds):
                failed = sample(server.url, FAILED)
                filler = fill(disk)
                until(lambda failed=failed: sample(server.url, FAILED) > failed + 10)
                kept = sample(server.url, KEPT)
                filler.unlink()
                emptied = time.monotonic()
                until(lambda kept=kept: sample(server.url, KEPT) > kept)
                longest = max(longest, time.monotonic() - emptied)
        tally, failed = traffic.tally(), int(sample(server.url, FAILED))
        traffic.check_counts()
        assert server.terminate() == 0
    assert tally.keys() == {"right"}, tally
    assert len(side_files(images)) > 0
    assert bytes_below(images) < DISK_BYTES
    record("disk of captured images full", SCALE.rounds, tally, longest, f"{failed} images not kept, and counted")
