"""Hours at 70 % of what the server can do: memory stays, every answer is right, none is lost, counts are equal.

In the long form it is the embedded network and real photographs, for SOAK_S seconds; in the short one a moment of the
tiny network, which finds what is lost or counted wrong, and of memory only what is gross.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from scoring.embedded import ARTIFACT, SAMPLE
from tests.chaos.conftest import ENVIRONMENT
from tests.chaos.figures import record
from tests.chaos.memory import growth
from tests.chaos.scale import IS_LONG, SCALE
from tests.chaos.sender import Picture, Reply, Sender
from tests.data import data_folder
from tests.metrics import sample
from tests.processes import offline_scores, running_server
from tests.service.conftest import encode
from tests.service.test_reload import resident_mb
from tests.waiting import until

LOAD = 0.7
CAPACITY_S = 10 if IS_LONG else 2
MEASUREMENTS = 120
WARM_UP = 0.25  # of the measurements
PHOTOS = 100


class Subject(NamedTuple):
    """What is served, what is sent, and what may grow by chance."""

    flags: tuple[str, ...]
    pictures: Sequence[Picture]
    slack_mb: float


@pytest.fixture
def subject(tiny_artifact: Path, scores: dict[int, float]) -> Subject:
    if not IS_LONG:
        flags = ("--artifact", str(tiny_artifact), "--model", "tests.factories.paced:paced")
        return Subject(flags, [Picture(encode(seed), score) for seed, score in scores.items()], slack_mb=20)
    folder = data_folder() / "imagenet_sample"
    paths = sorted(path for path in folder.rglob("*") if path.is_file())[::10][:PHOTOS] or [SAMPLE]
    scored = offline_scores(ARTIFACT, paths)
    return Subject((), [Picture(path.read_bytes(), scored[str(path)]["ood_score"]) for path in paths], slack_mb=4)


def test_soak(subject: Subject):
    """Every request is answered, and right; the images counted are those sent; no memory is left behind."""
    resident: list[float] = []
    with running_server(*subject.flags, env=ENVIRONMENT) as server:

        async def watch() -> None:
            while True:
                resident.append(resident_mb(server.process.pid))
                await asyncio.sleep(SCALE.soak_s / MEASUREMENTS)

        async def soak() -> tuple[float, int, list[Reply]]:
            sender = Sender(server.url, subject.pictures)
            capacity = await sender.capacity(8, CAPACITY_S)
            before = int(sample(server.url, "line_ood_images_total", operating_point="default"))
            watching = asyncio.create_task(watch())
            replies = await sender.at_rate(LOAD * capacity, SCALE.soak_s)
            watching.cancel()
            sender.close()
            return capacity, before, replies

        capacity, before, replies = asyncio.run(soak())
        tally = Counter(reply.outcome for reply in replies)
        odd = [(each.due - replies[0].due, each.seconds, each.outcome) for each in replies if each.outcome != "right"]
        assert not odd, (capacity, tally, odd[:100])
        until(lambda: sample(server.url, "line_ood_admitted_images") == 0)
        assert sample(server.url, "line_ood_images_total", operating_point="default") - before == len(replies)
        assert sample(server.url, "line_ood_image_errors_total") == 0
        assert sample(server.url, "line_ood_dropped_images_total") == 0
        assert server.terminate() == 0
    grown = growth(resident[int(WARM_UP * len(resident)) :])
    assert grown.mb < 2 * grown.noise_mb + subject.slack_mb, resident
    p50, p99 = np.quantile([reply.seconds for reply in replies], (0.5, 0.99))
    record(
        "soak at 70 %",
        len(replies),
        tally,
        None,
        f"{SCALE.soak_s:g} s, capacity {capacity:.0f}/s; p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms; "
        f"memory {grown} after the first quarter",
    )
