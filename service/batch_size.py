"""How many images a forward pass should hold here: for large networks on a CPU, fewer than fit.

A layer's output for 32 photographs leaves the caches, and the allocator takes fresh pages from the system for each: the
embedded network then takes twice as long an image as with 8, so that a server whose queue grows gets slower and slower.
Where a pass costs more than its images, on a GPU or with a tiny network, more are better.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from scoring.engines.buckets import buckets
from scoring.types import PixelBatch

SURE = 8  # with fewer, what a pass costs by itself shows on every device, and is too much for some
TOLERANCE = 1.15  # times the least time an image: noise of the clock is no reason for smaller batches


def useful_batch(score: Callable[[PixelBatch], object], images: PixelBatch) -> int:
    """Warm up with every size of batch that engines prepare, and say which is the largest worth while.

    Args:
        score: runs a batch to its end.
        images: as many as a batch may hold.

    Returns:
        Images in a batch, at most as many as were given. Those of larger batches take longer, each.
    """
    sizes = buckets(len(images))
    seconds = {size: _time(score, images[:size]) / size for size in sizes}
    for size in sizes:  # once more: the first pass compiles, and other work on the machine seldom disturbs both
        if size >= SURE:
            seconds[size] = min(seconds[size], _time(score, images[:size]) / size)
    least = min(seconds.values())
    return max(size for size in seconds if size <= SURE or seconds[size] <= TOLERANCE * least)


def _time(score: Callable[[PixelBatch], object], images: PixelBatch) -> float:
    started = perf_counter()
    score(images)
    return perf_counter() - started
