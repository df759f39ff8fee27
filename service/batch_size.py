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

SURE = 8  # images that cost less together than in parts, on every device and for every network
TOLERANCE = 1.15  # times the least time an image: noise of the clock is no reason for smaller batches
PASSES = 2  # of each size; other work on the machine seldom disturbs both


def useful_batch(score: Callable[[PixelBatch], object], images: PixelBatch) -> int:
    """Warm up with every size of batch that engines prepare, and say which is the largest worth while.

    Args:
        score: runs a batch to its end.
        images: as many as a batch may hold.

    Returns:
        Images in a batch, at most as many as were given. Those of larger batches take longer, each.
    """
    seconds: dict[int, float] = {}  # an image
    for size in buckets(len(images)):
        passes = PASSES if size >= SURE else 1
        seconds[size] = min(_time(score, images[:size]) for _ in range(passes)) / size
    least = min(seconds.values())
    return max(size for size in seconds if size <= SURE or seconds[size] <= TOLERANCE * least)


def _time(score: Callable[[PixelBatch], object], images: PixelBatch) -> float:
    started = perf_counter()
    score(images)
    return perf_counter() - started
