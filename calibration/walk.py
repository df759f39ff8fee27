"""Files through a classifier: read ahead, run in the engine's lanes, answered in order, under a progress bar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from calibration.loader import Batch, batch_size_on, read_batches
from calibration.outliers import Rule
from scoring.classifier import Classifier
from scoring.errors import DatasetError
from scoring.types import Features, PixelBatch

Answer = TypeVar("Answer")


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
    paths: Sequence[Path],
    classifier: Classifier,
    run: Callable[[Features], Answer],
    title: str,
    record: Pass,
    rules: Sequence[Rule] = (),
) -> Iterator[tuple[list[int], Answer]]:
    """Go through what `record` has left of the files, noting in it what is met.

    Args:
        paths: the files.
        classifier: makes features of their images.
        run: makes an answer of the features of a batch; in another thread, and for several batches side by side.
        title: of the progress bar.
        record: is up to date at each batch, which it includes.
        rules: what makes other images of a batch; `run` then gets the features of these, rule after rule, in place of
            the batch's own. The seed is the index of the batch's first image.

    Returns:
        indices of the files of a batch that are images, and what `run` made of them; never none.

    Raises:
        DatasetError: no image at all could be read.
    """
    with tqdm(total=len(paths), initial=record.done, desc=title, unit="image", disable=None) as progress:
        for batch, answer in _run(paths, classifier, run, record.done, rules):
            count = len(batch.indices) + len(batch.unreadable)
            record.done += count
            record.seen += len(batch.indices)
            record.unreadable |= {paths[index]: reason for index, reason in batch.unreadable.items()}
            if answer is not None:
                yield batch.indices, answer.result()
            progress.update(count)
    if not record.seen:
        path, reason = next(iter(record.unreadable.items()))
        raise DatasetError(f"none of the {len(paths)} files could be read as an image; the first, {path}: {reason}")


def _run(
    paths: Sequence[Path],
    classifier: Classifier,
    run: Callable[[Features], Answer],
    start: int,
    rules: Sequence[Rule],
) -> Iterator[tuple[Batch, Future[Answer] | None]]:
    """Every batch with its answer under way, in order, one batch more than there are lanes at a time."""
    lanes = classifier.engine.lanes

    def answer(pixels: PixelBatch, seed: int) -> Answer:
        made = [rule(pixels, seed) for rule in rules] or [pixels]
        return run(torch.cat([classifier.features(each, alone=lanes == 1) for each in made]))

    with ThreadPoolExecutor(lanes, thread_name_prefix="forward") as pool:
        waiting: deque[tuple[Batch, Future[Answer] | None]] = deque()
        for batch in read_batches(
            paths, classifier.preprocess, start=start, batch_size=batch_size_on(classifier.device)
        ):
            waiting.append(
                (batch, None if batch.pixels is None else pool.submit(answer, batch.pixels, batch.indices[0]))
            )
            if len(waiting) > lanes:
                yield waiting.popleft()
        yield from waiting
