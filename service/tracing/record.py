"""What is noted of a request while it is answered; spans are made of it afterwards. Nothing of OpenTelemetry is here.

Times are `time.monotonic`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from scoring.metadata import OperatingPoint
from scoring.scorer import Scorer
from scoring.types import Pixels
from service.batcher import Answer, Outcome, Read
from service.problems import describe


class TimedRead:
    """One image that is to be read, in whichever thread; says when that was.

    Args:
        read: reads it.

    Attributes:
        asked_at: when its body had arrived.
        begun_at: when a thread began to read it; None if none has.
        ended_at: when it was read, or could not be.
        error: code of why it could not.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self.asked_at = time.monotonic()
        self.begun_at: float | None = None
        self.ended_at: float | None = None
        self.error: str | None = None

    def __call__(self) -> Pixels:
        """Read it."""
        self.begun_at = time.monotonic()
        try:
            return self._read()
        except Exception as error:
            self.error = describe(error).kind.code
            raise
        finally:
            self.ended_at = time.monotonic()


class Record:
    """Of one request.

    Attributes:
        images: that have reached the pipeline.
        outcomes: one an image; none where the client or the deadline was gone.
        point: what decided.
        rejects: images that are rejected.
    """

    def __init__(self) -> None:
        self.images: list[TimedRead] = []
        self.outcomes: Sequence[Outcome] = ()
        self.point: OperatingPoint | None = None
        self._scorer: Scorer | None = None

    def watch(self, reads: Sequence[Read]) -> Sequence[Read]:
        """Take the times of reading these."""
        self.images = [TimedRead(read) for read in reads]
        return self.images

    def take(self, scorer: Scorer, point: OperatingPoint, outcomes: Sequence[Outcome]) -> None:
        """Keep what has become of the images."""
        self._scorer, self.point, self.outcomes = scorer, point, outcomes

    @property
    def rejects(self) -> int:
        """How many images are rejected."""
        if self._scorer is None or self.point is None:
            return 0
        answers = [outcome for outcome in self.outcomes if isinstance(outcome, Answer)]
        return sum([self._scorer.decide(answer.score, self.point).reject for answer in answers])
