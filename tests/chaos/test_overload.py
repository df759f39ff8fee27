"""Half as much again as the device can do: who is admitted is answered in time, whoever is not is told so at once.

Whoever is admitted finds at most `queue_capacity` images before the answer, so that it comes within queue_capacity /
capacity; both are measured here, and the queue is so long that this and the batches under way are within a second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.chaos.conftest import ENVIRONMENT
from tests.chaos.figures import record
from tests.chaos.scale import IS_LONG, SCALE
from tests.chaos.sender import Picture, Reply, Sender
from tests.factories.paced import IMAGE_S
from tests.metrics import sample
from tests.processes import offline_scores, running_server
from tests.service.conftest import encode
from tests.waiting import until

QUEUE = round(0.8 / IMAGE_S)
OVERLOAD = 1.5
CAPACITY_S = 3
# Of the bound: batches that are under way, and a capacity that was measured on a shared machine, in seconds or minutes.
SLACK = 1.25 if IS_LONG else 2.5
PACED = ("--model", "tests.factories.paced:paced", "--queue-capacity", str(QUEUE), "--max-batch", "8")


def test_half_as_much_again(tiny_artifact, scores):
    """p99 of the admitted is below queue / capacity, the rest get 429 at once; none is wrong, lost or miscounted."""
    pictures = [Picture(encode(seed), score) for seed, score in scores.items()]
    with running_server("--artifact", str(tiny_artifact), *PACED, env=ENVIRONMENT) as server:

        async def measure() -> tuple[float, int, list[Reply]]:
            sender = Sender(server.url, pictures)
            capacity = await sender.capacity(32, CAPACITY_S)
            before = int(sample(server.url, "line_ood_images_total", operating_point="default"))
            replies = await sender.at_rate(OVERLOAD * capacity, SCALE.overload_s)
            after = await sender.at_rate(capacity / 2, 1)
            sender.close()
            return capacity, before, replies + after

        capacity, before, replies = asyncio.run(measure())
        tally = Counter(reply.outcome for reply in replies)
        assert tally.keys() == {"right", "429"}, tally
        until(lambda: sample(server.url, "line_ood_admitted_images") == 0)
        assert sample(server.url, "line_ood_images_total", operating_point="default") - before == tally["right"]
        assert sample(server.url, "line_ood_refused_requests_total", reason="queue_full") == tally["429"]
        assert server.terminate() == 0
    bound = QUEUE / capacity
    admitted, refused = p99(replies, "right"), p99(replies, "429")
    assert admitted < SLACK * bound, (admitted, bound)
    assert refused < SLACK * bound / 5, (refused, bound)
    ended = max(reply.due for reply in replies) - 1
    late = [reply.due + reply.seconds - ended for reply in replies if reply.due > ended and reply.outcome != "right"]
    assert tally["429"] > 0.1 * len(replies)  # a third, but for the second in which the queue fills
    assert max(late, default=0) < SLACK * bound  # until what had been admitted before is done
    record(
        "overload of 150 %",
        len(replies),
        tally,
        max(late, default=0),
        f"{SCALE.overload_s:g} s; capacity {capacity:.0f}/s, queue {QUEUE}: bound {bound:.2f} s; "
        f"p99 of the admitted {admitted:.2f} s, of the refused {1000 * refused:.0f} ms",
    )


class Bottleneck(NamedTuple):
    """What holds up: how it is served, what is sent, and the share of the capacity that has to be left."""

    name: str
    flags: tuple[str, ...]
    pictures: Sequence[Picture]
    left: float


@pytest.fixture
def network(scores: dict[int, float]) -> Bottleneck:
    """A device with a capacity of its own."""
    pictures = [Picture(encode(seed), score) for seed, score in scores.items()]
    return Bottleneck("network", ("--model", "tests.factories.paced:paced", "--max-batch", "8"), pictures, left=0.7)


@pytest.fixture
def decoding(tiny_artifact: Path, tmp_path: Path) -> Bottleneck:
    """Pictures of six million pixels for a network of next to no work, on the cores that send them, too."""
    paths = [tmp_path / f"{seed}.jpg" for seed in range(4)]
    for seed, path in enumerate(paths):
        coarse = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((3000, 2000)).save(path)
    scored = offline_scores(tiny_artifact, paths)
    return Bottleneck(
        "decoding", (), [Picture(path.read_bytes(), scored[str(path)]["ood_score"]) for path in paths], left=0.5
    )


@pytest.mark.parametrize("bottleneck", ["network", "decoding"])
def test_a_queue_that_is_longer_than_the_time(tiny_artifact, bottleneck, request):
    """Where the queue would take longer than a request may, it is told 429, and the server's work is not in vain."""
    held_up: Bottleneck = request.getfixturevalue(bottleneck)
    flags = ("--artifact", str(tiny_artifact), *held_up.flags, "--queue-capacity", str(5 * QUEUE), "--timeout-s", "1")
    with running_server(*flags, env=ENVIRONMENT) as server:

        async def measure() -> tuple[float, list[Reply]]:
            sender = Sender(server.url, held_up.pictures)
            capacity = await sender.capacity(8, CAPACITY_S)
            replies = await sender.at_rate(OVERLOAD * capacity, SCALE.overload_s)
            sender.close()
            return capacity, replies

        capacity, replies = asyncio.run(measure())
        assert server.terminate() == 0
    half = [reply for reply in replies if reply.due - replies[0].due > SCALE.overload_s / 2]
    tally = Counter(reply.outcome for reply in half)
    assert tally.keys() <= {"right", "429", "504"}, tally
    assert tally["429"] > tally["504"]
    assert tally["right"] > held_up.left * capacity * SCALE.overload_s / 2, (capacity, tally)
    note = f"second half of {SCALE.overload_s:g} s; capacity {capacity:.0f}/s"
    record(f"overload of 150 %, queue longer than the timeout, {held_up.name}", len(half), tally, None, note)


def p99(replies: list[Reply], outcome: str) -> float:
    return float(np.quantile([reply.seconds for reply in replies if reply.outcome == outcome], 0.99))
