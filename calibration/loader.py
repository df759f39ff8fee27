"""Files to batches of pixels: decoded ahead by a few threads, in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from scoring.cores import usable_cores
from scoring.errors import ImageError
from scoring.preprocess import Preprocess
from scoring.types import PixelBatch, Pixels

CPU_BATCH_SIZE = 8  # larger ones leave the caches, and make the allocator ask for fresh pages in every layer
GPU_BATCH_SIZE = 32
AHEAD = 96  # images decoded or waiting to be: enough to hide a slow file, little enough to forget


@dataclass
class Batch:
    """Consecutive files.

    Attributes:
        indices: which of the files `pixels` holds, in its order.
        pixels: None where no file of the batch could be read.
        unreadable: reason by index of the file.
    """

    indices: list[int]
    pixels: PixelBatch | None
    unreadable: dict[int, str] = field(default_factory=dict)


def batch_size_on(device: torch.device) -> int:
    """How many images to run at once."""
    return CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE


def read_batches(
    paths: Sequence[Path],
    preprocess: Preprocess,
    *,
    start: int = 0,
    batch_size: int = CPU_BATCH_SIZE,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Read files in order, from the `start`-th on.

    One that cannot be read is reported in its batch and costs nobody else anything.
    """
    with ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="decode") as pool:
        waiting: deque[Future[Pixels | str]] = deque()
        rest = islice(paths, start, None)
        try:
            for first in range(start, len(paths), batch_size):
                waiting.extend(
                    pool.submit(_read, path, preprocess) for path in islice(rest, max(AHEAD, batch_size) - len(waiting))
                )
                count = min(batch_size, len(paths) - first)
                yield _gather(first, [waiting.popleft().result() for _ in range(count)])
        finally:
            pool.shutdown(cancel_futures=True)


def _read(path: Path, preprocess: Preprocess) -> Pixels | str:
    try:
        return preprocess.read(path.read_bytes())
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _gather(start: int, read: list[Pixels | str]) -> Batch:
    good = {start + i: item for i, item in enumerate(read) if not isinstance(item, str)}
    bad = {start + i: item for i, item in enumerate(read) if isinstance(item, str)}
    return Batch(list(good), torch.stack(list(good.values())) if good else None, bad)
