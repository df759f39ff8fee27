"""The capture as the app knows it: shown every answer, it keeps some of the images."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from prometheus_client import CollectorRegistry

from scoring.scorer import ImageScore
from service.aside import aside
from service.batcher import Answer, Outcome
from service.bodies import Encoded
from service.capture.backlog import Backlog
from service.capture.bucket import TokenBucket
from service.capture.candidate import Candidate, Origin
from service.capture.counts import Counts
from service.capture.record import Reason
from service.capture.selection import Selection
from service.capture.target import Target, TargetError, open_target
from service.capture.writer import Writer
from service.complaint import Complaint
from service.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_S = 10  # with a target that does not answer, at the start
END_S = 0.4  # for what still waits when the last answer has been given; the drain has been time enough


class Capture:
    """Chooses images and hands them to the writer. All methods belong to the event loop's thread.

    Args:
        target: where the images go.
        settings: shares and limits.
        counts: told of everything.
        clock: the time of day.
    """

    def __init__(
        self,
        target: Target,
        settings: Settings,
        counts: Counts,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._counts = counts
        self._clock = clock
        self._selection = Selection(
            {
                "reject": settings.capture_reject,
                "borderline": settings.capture_borderline,
                "random": settings.capture_random,
            }
        )
        self._bucket = TokenBucket(settings.capture_per_minute)
        self._backlog = Backlog(settings.capture_queue_bytes)
        self._writer = Writer(target, self._backlog, counts, settings.capture_max_bytes)
        self._overfull = Complaint(log, "images are dropped: they are not written as fast as they are chosen")

    @classmethod
    def of(cls, settings: Settings, registry: CollectorRegistry, models: Iterable[str]) -> Capture | None:
        """The capture that the settings ask for; None if they do not.

        Raises:
            TargetError: nothing can ever be written at this URL.
        """
        if settings.capture is None:
            return None
        try:
            target, trouble = open_target(settings.capture, PATIENCE_S)
        except TargetError as error:
            raise TargetError(f"--capture: nothing can be written at {error}") from error
        if trouble is not None:  # a server that cannot start because a store is down would be worse
            log.warning("capture does not work yet: %s", target.shown, extra={"reason": repr(trouble)})
        return cls(target, settings, Counts(registry, models))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write inside the block; what still waits afterwards has a moment."""
        self._writer.start()
        try:
            yield
        finally:
            self._backlog.close()
            await aside(partial(self._writer.join, END_S))
            if dropped := self._backlog.clear():
                self._counts.dropped("stopping", dropped)
                log.warning("the server stops before all captured images are written", extra={"dropped": dropped})

    @property
    def has_ended(self) -> bool:
        """Whether nothing is being written, nor will be."""
        return not self._writer.is_alive

    def offer(self, origin: Origin, images: Sequence[Encoded], outcomes: Sequence[Outcome]) -> None:
        """Show what became of the images of one request, once it is answered."""
        for index, (image, outcome) in enumerate(zip(images, outcomes, strict=True)):
            if isinstance(outcome, Answer) and isinstance(image, bytes):
                threshold = origin.thresholds.item(outcome.score.predicted)
                reason = self._selection.reason(outcome.score, threshold, origin.point.alpha)
                if reason is not None:
                    self._take(image, reason, origin, index, outcome.score, threshold)

    def _take(
        self, image: bytes, reason: Reason, origin: Origin, index: int, score: ImageScore, threshold: float
    ) -> None:
        if not self._bucket.take():  # before its bytes are looked at: it bounds what all this may cost
            self._counts.dropped("rate_limit")
            return
        candidate = Candidate(
            data=image,
            reason=reason,
            time=self._clock(),
            origin=origin,
            image_index=index,
            class_index=score.predicted,
            probability=float(score.probabilities[score.predicted]),
            ood_score=score.ood_score,
            p_value=score.p_value,
            threshold=threshold,
        )
        if self._backlog.put(candidate):
            self._overfull.end()
        else:
            self._counts.dropped("queue_full")
            self._overfull.tell()
