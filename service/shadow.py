"""A version that answers nobody: it scores a share of a model's images after their answers, and is only counted.

    answered images ─(share)─▶ [short queue] ─▶ one by one, while nobody waits for the device ─▶ comparison

What finds the queue full is dropped and counted. So a shadow takes time from answers in one way only: a pass of one
image that is under way when a request comes shares the processor with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import torch

from scoring.scorer import NOT_FINITE, Scorer
from service.aside import aside
from service.batcher import Answer, Outcome
from service.bodies import Encoded
from service.comparison import Comparison, Judge, Verdict
from service.complaint import Complaint
from service.loads import Load
from service.problems import ImageInferenceError, NotReadyError
from service.release import references, release
from service.schemas import ShadowState
from service.settings import Settings
from service.shadow_metrics import ShadowMetrics
from service.sources import Source

log = logging.getLogger(__name__)

MAX_IMAGES = 64  # that wait
MAX_BYTES = 64 * 2**20  # of them all
LOOK_S = 0.01  # between two looks at whether somebody still waits for the device
STOP_S = 0.5


class Answered(NamedTuple):
    """An image that has been answered."""

    image: bytes
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class _Version:
    scorer: Scorer
    judge: Judge
    loaded_at: datetime


class Shadow:
    """The shadow of one model, and the thread that it runs in.

    Args:
        source: where it is loaded from.
        scorer: its first version.
        settings: share and limits.
        metrics: told of everything.
        is_idle: whether nobody waits for the device.
    """

    def __init__(
        self, source: Source, scorer: Scorer, settings: Settings, metrics: ShadowMetrics, is_idle: Callable[[], bool]
    ) -> None:
        self.source = source
        self._settings = settings
        self._metrics = metrics
        self._is_idle = is_idle
        self._changed = threading.Condition()
        self._waiting: deque[Answered] = deque()
        self._bytes = 0
        self._is_stopping = False
        self._failing = Complaint(log, f"the shadow of {source.name} fails on images")
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._version = _prepare(scorer)
        self._follows = False  # until it does, nobody offers anything
        self._served: Judge
        self._comparison: Comparison
        metrics.start_from_zero(source.name)
        metrics.info.labels(*self._info(self._version)).set(1)

    @property
    def artifact_id(self) -> str:
        """Of its version."""
        return self._version.scorer.artifact.artifact_id

    @property
    def has_ended(self) -> bool:
        """Whether its thread does not run."""
        return not self._thread.is_alive()

    def follow(self, served: Scorer) -> None:
        """Compare with this version from now on."""
        self._begin_anew(Judge(served.artifact), self._version)

    async def start(self) -> None:
        """Warm up, and begin."""
        await aside(partial(_warm_up, self._version.scorer))
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; what waits is dropped."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            await aside(partial(self._thread.join, STOP_S))

    async def load(self) -> Load:
        """Load what the file holds now, and compare with that.

        Raises:
            LineOodError: it is not usable; the version before goes on.
        """
        old = self._version
        previous = self.artifact_id
        if await aside(self.source.artifact_id) == previous:
            return Load("unchanged", previous, previous)
        version = await aside(self._load)
        if self._is_stopping:
            raise NotReadyError("the server is draining")
        self._begin_anew(self._served, version)
        self._metrics.info.remove(*self._info(old))
        self._metrics.info.labels(*self._info(version)).set(1)
        what = references(old.scorer)
        del old
        self._release = asyncio.create_task(release(what))
        return Load("switched", self.artifact_id, previous)

    def state(self) -> ShadowState:
        """What there is to know of it."""
        comparison = self._comparison
        return ShadowState(
            artifact_id=self.artifact_id,
            method=self._version.scorer.artifact.metadata.primary,
            loaded_at=self._version.loaded_at.isoformat(),
            share=self._settings.shadow_share,
            waiting=len(self._waiting),
            scored=comparison.images["scored"],
            dropped=comparison.images["dropped"],
            failed=comparison.images["failed"],
            class_disagreements=comparison.class_disagreements,
            decisions=comparison.decisions(),
        )

    def _load(self) -> _Version:
        version = _prepare(self.source.load())
        _warm_up(version.scorer)
        return version

    def _info(self, version: _Version) -> tuple[str, str, str]:
        artifact = version.scorer.artifact
        return artifact.artifact_id, self.source.name, artifact.metadata.primary

    def _begin_anew(self, served: Judge, version: _Version) -> None:
        comparison = Comparison(self.source.name, served, version.judge, self._metrics)
        with self._changed:
            if self._follows:
                self._comparison.withdraw(comparison)
            self._follows = True
            for _ in self._waiting:  # judged by a version that answers no more
                self._comparison.pass_over("dropped")
            self._waiting.clear()
            self._bytes = 0
            self._served, self._version, self._comparison = served, version, comparison

    def offer(self, artifact_id: str, images: Sequence[Encoded], outcomes: Sequence[Outcome]) -> None:
        """On the event loop: take a share of what the version with this artifact has answered."""
        for image, outcome in zip(images, outcomes, strict=True):
            if isinstance(outcome, Answer) and isinstance(image, bytes) and self._is_drawn():
                if artifact_id == self._served.artifact_id:
                    self._queue(Answered(image, self._served(outcome.score)))
                else:  # a version that answers no more
                    self._comparison.pass_over("dropped")

    def _is_drawn(self) -> bool:
        # By lot, not every tenth: of ten cameras in turn that would be one.
        return random.random() < self._settings.shadow_share  # noqa: S311 # nosec B311

    def _queue(self, answered: Answered) -> None:
        size = len(answered.image)
        with self._changed:
            is_full = len(self._waiting) >= MAX_IMAGES or self._bytes + size > MAX_BYTES
            if is_full or self._is_stopping:
                self._comparison.pass_over("dropped")
                return
            self._waiting.append(answered)
            self._bytes += size
            self._changed.notify()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            answered, version, comparison = taken
            try:
                comparison.count(answered.verdict, self._judge(version, answered.image))
                self._failing.end()
            except BaseException as error:  # it answers nobody: whatever a network's own code raises, this goes on
                comparison.pass_over("failed")
                self._failing.tell(error)
            del taken, answered, version, comparison  # a version that is replaced is not kept by who waits here

    def _take(self) -> tuple[Answered, _Version, Comparison] | None:
        with self._changed:
            while not self._is_stopping:
                if not self._waiting:
                    self._changed.wait()
                elif not self._is_idle():
                    self._changed.wait(LOOK_S)
                else:
                    answered = self._waiting.popleft()
                    self._bytes -= len(answered.image)
                    return answered, self._version, self._comparison
        return None

    def _judge(self, version: _Version, image: bytes) -> Verdict:
        scorer = version.scorer
        pixels = scorer.classifier.preprocess.read(image, max_pixels=self._settings.max_pixels)
        (score,) = scorer.score(pixels[None], alone=False)
        if not score.is_finite:
            raise ImageInferenceError(NOT_FINITE)
        return version.judge(score)


def _prepare(scorer: Scorer) -> _Version:
    return _Version(scorer, Judge(scorer.artifact), datetime.now(UTC))


def _warm_up(scorer: Scorer) -> None:
    height, width = scorer.classifier.preprocess.crop
    scorer.score(torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8), alone=False)
