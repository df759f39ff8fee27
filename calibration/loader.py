"""Files to batches of pixels: decoded ahead by a few threads, in order, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from scoring.errors import ImageError
from scoring.preprocess import Preprocess
from scoring.types import PixelBatch, Pixels

BATCH_SIZE = 32
AHEAD = 3 * BATCH_SIZE  # images decoded or waiting to be: enough to hide a slow file, little enough to forget


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


def read_batches(
    paths: Sequence[Path], preprocess: Preprocess, *, batch_size: int = BATCH_SIZE, workers: int | None = None
) -> Iterator[Batch]:
    """Read files in order. One that cannot be read is reported in its batch and costs nobody else anything."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Pixels | str]] = deque()
        rest = iter(paths)
        try:
            for start in range(0, len(paths), batch_size):
                waiting.extend(
                    pool.submit(_read, path, preprocess) for path in islice(rest, max(AHEAD, batch_size) - len(waiting))
                )
                count = min(batch_size, len(paths) - start)
                yield _gather(start, [waiting.popleft().result() for _ in range(count)])
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
