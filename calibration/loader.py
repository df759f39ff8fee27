"""Files to batches of pixels: decoded ahead by a few threads, in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from scoring.cores import usable_cores
from scoring.errors import DatasetError, ImageError
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


@dataclass
class Pass:
    """What one pass over files has met so far.

    Attributes:
        done: how many of them, in their order, are behind it: where it would go on.
        seen: images among these.
        correct: images among these that the classifier named rightly, where somebody counts.
        unreadable: reason by file, of the others.
    """

    done: int = 0
    seen: int = 0
    correct: int = 0
    unreadable: dict[Path, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy of the classifier on the images that could be read."""
        return self.correct / self.seen


def walk(
    paths: Sequence[Path], preprocess: Preprocess, title: str, record: Pass
) -> Iterator[tuple[list[int], PixelBatch]]:
    """Go through what `record` has left of the files, under a progress bar, noting in it what is met.

    Returns:
        indices of the files of a batch that are images, and their pixels; never none.

    Raises:
        DatasetError: no image at all could be read.
    """
    with tqdm(total=len(paths), initial=record.done, desc=title, unit="image", disable=None) as progress:
        for batch in read_batches(paths, preprocess, start=record.done):
            count = len(batch.indices) + len(batch.unreadable)
            record.done += count
            record.seen += len(batch.indices)
            record.unreadable |= {paths[index]: reason for index, reason in batch.unreadable.items()}
            if batch.pixels is not None:
                yield batch.indices, batch.pixels
            progress.update(count)
    if not record.seen:
        path, reason = next(iter(record.unreadable.items()))
        raise DatasetError(f"none of the {len(paths)} files could be read as an image; the first, {path}: {reason}")


def read_batches(
    paths: Sequence[Path],
    preprocess: Preprocess,
    *,
    start: int = 0,
    batch_size: int = BATCH_SIZE,
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
