"""Files to batches: in order, in bounded memory, with every fault at its file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from calibration.loader import AHEAD, read_batches
from calibration.loader import CPU_BATCH_SIZE as BATCH_SIZE
from scoring.preprocess import Preprocess
from scoring.types import Pixels
from tests.calibration.pictures import NOT_AN_IMAGE, SIDE, write_picture

PREPROCESS = Preprocess(resize=None, crop=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1))


class Counting(Preprocess):
    """A real preprocessing that counts the files it has read."""

    model_config: ClassVar = {"frozen": True}

    def read(self, data: bytes, *, max_pixels: int = 10**6) -> Pixels:
        pixels = super().read(data, max_pixels=max_pixels)
        with LOCK:
            READ.append(len(data))
        return pixels


LOCK = threading.Lock()
READ: list[int] = []


def pictures(folder: Path, count: int) -> list[Path]:
    return [write_picture(folder / f"{i:03}.png") for i in range(count)]


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("count", [1, BATCH_SIZE, BATCH_SIZE + 1, AHEAD + BATCH_SIZE + 5])
def test_order(tmp_path: Path, count: int, workers: int) -> None:
    """Every file comes once, in the order asked for, with its own pixels, in full batches but the last."""
    paths = pictures(tmp_path, count)[::-1]
    batches = list(read_batches(paths, PREPROCESS, workers=workers))
    assert [index for batch in batches for index in batch.indices] == list(range(count))
    assert {len(batch.indices) for batch in batches[:-1]} <= {BATCH_SIZE}
    pixels = torch.cat([batch.pixels for batch in batches if batch.pixels is not None])
    assert torch.equal(pixels, torch.stack([PREPROCESS.read(path.read_bytes()) for path in paths]))


@pytest.mark.parametrize("batch_size", [1, 7, AHEAD + 4])
def test_batch_size(tmp_path: Path, batch_size: int) -> None:
    """A batch is as large as asked for, however far the loader reads ahead."""
    count = AHEAD + 10
    batches = list(read_batches(pictures(tmp_path, count), PREPROCESS, batch_size=batch_size))
    assert [len(batch.indices) for batch in batches] == [
        min(batch_size, count - start) for start in range(0, count, batch_size)
    ]


def test_slow_file(tmp_path: Path) -> None:
    """A file that takes its time does not lose its place."""
    paths = pictures(tmp_path, 5)
    paths[1].unlink()
    os.mkfifo(paths[1])
    writer = threading.Thread(target=lambda: (time.sleep(0.2), paths[1].write_bytes(paths[0].read_bytes())))
    writer.start()
    (batch,) = read_batches(paths, PREPROCESS, workers=4)
    writer.join()
    assert batch.indices == [0, 1, 2, 3, 4]
    assert batch.pixels is not None
    assert torch.equal(batch.pixels[0], batch.pixels[1])


def test_unreadable(tmp_path: Path) -> None:
    """A text, an empty file, a cut image, a folder, a vanished file: each reported with its reason, the rest read."""
    paths = pictures(tmp_path, 7)
    paths[0].write_bytes(NOT_AN_IMAGE)
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths[4].unlink()
    paths[4].mkdir()
    paths[5].unlink()
    (batch,) = read_batches(paths, PREPROCESS)
    assert batch.indices == [3, 6]
    assert batch.pixels is not None
    assert torch.equal(batch.pixels[1], PREPROCESS.read(paths[6].read_bytes()))
    assert set(batch.unreadable) == {0, 1, 2, 4, 5}
    assert "none of JPEG, PNG, WebP, BMP" in batch.unreadable[0]
    assert "0 bytes" in batch.unreadable[1]
    assert "cannot be decoded" in batch.unreadable[2]
    assert batch.unreadable[4] == "Is a directory"
    assert batch.unreadable[5] == "No such file or directory"


def test_nothing_readable(tmp_path: Path) -> None:
    """A batch of which no file could be read has no pixels, and the next one is not harmed."""
    paths = pictures(tmp_path, BATCH_SIZE + 1)
    for path in paths[:-1]:
        path.write_bytes(NOT_AN_IMAGE)
    first, second = read_batches(paths, PREPROCESS)
    assert (first.indices, first.pixels, sorted(first.unreadable)) == ([], None, list(range(BATCH_SIZE)))
    assert second.indices == [BATCH_SIZE]
    assert not second.unreadable


def test_no_files() -> None:
    """No files are no batches."""
    assert list(read_batches([], PREPROCESS)) == []


def test_reads_ahead_and_no_further(tmp_path: Path) -> None:
    """A slow consumer finds files read ahead, and never more of them waiting than the bound, its own batch included."""
    READ.clear()
    counting = Counting(**PREPROCESS.model_dump())
    paths = pictures(tmp_path, AHEAD + 4 * BATCH_SIZE)
    consumed, waiting = 0, []
    for batch in read_batches(paths, counting, workers=4):
        for _ in range(50):  # until the threads rest: nothing new for a while, or all is read
            before = len(READ)
            time.sleep(0.02)
            if len(READ) == before and len(READ) - consumed >= BATCH_SIZE:
                break
        waiting.append(len(READ) - consumed)
        consumed += len(batch.indices)
    assert len(READ) == len(paths)
    assert max(waiting) == AHEAD
    assert waiting[0] == AHEAD


class Slow(Counting):
    """One that also takes its time."""

    def read(self, data: bytes, *, max_pixels: int = 10**6) -> Pixels:
        time.sleep(0.01)
        return super().read(data, max_pixels=max_pixels)


def test_left_early(tmp_path: Path) -> None:
    """A consumer that leaves ends the threads, and what was not begun is not read."""
    READ.clear()
    batches = read_batches(pictures(tmp_path, AHEAD), Slow(**PREPROCESS.model_dump()), workers=1)
    next(batches)
    batches.close()
    assert BATCH_SIZE <= len(READ) < AHEAD - BATCH_SIZE // 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("start", [BATCH_SIZE, 2 * BATCH_SIZE, 2 * BATCH_SIZE + 5])
def test_start(tmp_path: Path, start: int) -> None:
    """Reading from a batch's first file on gives the batches that follow there, and reads nothing before."""
    READ.clear()
    paths = pictures(tmp_path, 2 * BATCH_SIZE + 5)
    paths[-2].write_bytes(NOT_AN_IMAGE)
    wanted = [batch for batch in read_batches(paths, PREPROCESS) if min([*batch.indices, *batch.unreadable]) >= start]
    found = list(read_batches(paths, Counting(**PREPROCESS.model_dump()), start=start))
    assert [(batch.indices, batch.unreadable) for batch in found] == [
        (batch.indices, batch.unreadable) for batch in wanted
    ]
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(found, wanted, strict=True))
    assert len(READ) == sum(len(batch.indices) for batch in wanted)
