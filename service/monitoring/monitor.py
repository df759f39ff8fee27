"""The monitor of a server: told of every answered image of every model, asked by metrics, routes and the state file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from scoring.artifact import Artifact
from service.batcher import Answer, Outcome
from service.monitoring.baseline import Baseline
from service.monitoring.limits import Limits
from service.monitoring.report import ModelReport, MonitorReport
from service.monitoring.state import VERSION, StoredModel, StoredState
from service.monitoring.streams import DEFAULT, Streams

log = logging.getLogger(__name__)


class Monitor:
    """All methods belong to the event loop's thread, and none of them waits.

    Args:
        limits: how much to watch.
        stored: state to go on from.
        clock: never goes back.
        wall: seconds since 1970.

    Attributes:
        has_misfit: the state that was stored of a model is of no use, though it is of the model's artifact.
    """

    def __init__(
        self,
        limits: Limits,
        stored: StoredState | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits
        self._stored = {} if stored is None else dict(stored.models)
        self._saved_at = 0.0 if stored is None else stored.saved_at
        self._clock, self._wall = clock, wall
        self._models: dict[str, Streams] = {}
        self.has_misfit = False

    def watch(self, model: str, artifact: Artifact) -> None:
        """Begin to watch a model, from the state that was stored of this very artifact where there is such.

        With the artifact that is watched already nothing changes, with another one everything begins anew.
        """
        watched = self._models.get(model)
        if watched is not None and watched.baseline.artifact_id == artifact.artifact_id:
            return
        self._models[model] = Streams(Baseline(artifact, self._limits), self._clock())
        if watched is not None:
            told = {"model": model, "found": watched.baseline.artifact_id, "wanted": artifact.artifact_id}
            log.warning("another artifact: monitoring begins anew", extra=told)
        elif (stored := self._stored.pop(model, None)) is not None:
            self._go_on(model, stored)

    def answered(self, model: str, artifact_id: str, stream: str | None, outcomes: Sequence[Outcome]) -> None:
        """The images of a request have been answered; those without a score count for nothing here.

        Args:
            model: who has answered.
            artifact_id: with what; an answer from before an exchange of artifacts is not counted.
            stream: the client's X-Stream-ID.
            outcomes: one an image.
        """
        streams = self._models.get(model)
        if streams is None or streams.baseline.artifact_id != artifact_id:
            return
        now = self._clock()
        name, own = streams.find(stream or DEFAULT, now)
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                score = outcome.score
                for point in own.observe(score.ood_score, score.predicted, now):
                    log.warning("drift alarm", extra={"model": model, "stream": name, "operating_point": point})

    def reset(self, model: str | None, stream: str) -> bool:
        """Forget a stream of a model, or of all; whether there was one."""
        chosen = [own for name, own in self._models.items() if model in (None, name)]
        found = [own.reset(stream, self._clock()) for own in chosen]
        if any(found):
            log.warning("monitoring was reset", extra={"model": model or "all", "stream": stream})
        return any(found)

    @property
    def unserved(self) -> list[str]:
        """Models of the stored state that nobody watches: theirs is kept as it is, for a server that serves them."""
        return list(self._stored)

    def report(self) -> MonitorReport:
        """All there is to say."""
        now = self._clock()
        return MonitorReport(
            window_images=self._limits.window_images,
            window_s=self._limits.window_s,
            streams_limit=self._limits.streams,
            false_alarm=self._limits.false_alarm,
            models={
                name: ModelReport(
                    streams.baseline.artifact_id, {identity: own.report(now) for identity, own in streams}
                )
                for name, streams in self._models.items()
            },
        )

    def snapshot(self) -> dict[str, Any]:
        """What a `StoredState` is made of, cheaply: bytes are not yet text, nor what was read from text."""
        now, wall = self._clock(), self._wall()
        return {
            "version": VERSION,
            "saved_at": wall,
            "models": {name: each.aged(self._downtime_s(wall)) for name, each in self._stored.items()}
            | {
                name: {
                    "artifact_id": streams.baseline.artifact_id,
                    "false_alarm": self._limits.false_alarm,
                    "streams": {identity: own.snapshot(now) for identity, own in streams},
                }
                for name, streams in self._models.items()
            },
        }

    def _go_on(self, model: str, stored: StoredModel) -> None:
        streams, now = self._models[model], self._clock()
        found = (stored.artifact_id, stored.false_alarm)
        wanted = (streams.baseline.artifact_id, self._limits.false_alarm)
        if found != wanted:
            told = {"model": model, "found": found, "wanted": wanted}
            log.warning("the monitor's state is of another artifact or bound: monitoring begins anew", extra=told)
            return
        try:
            dropped = streams.restore(stored.streams, now, self._downtime_s(self._wall()))
        except ValueError as error:
            told = {"model": model, "found": str(error)}
            log.error("the monitor's state does not fit: monitoring begins anew", extra=told)
            self._models[model] = Streams(streams.baseline, now)
            self.has_misfit = True
            return
        log.info("monitoring goes on from its state", extra={"model": model, "streams": len(stored.streams)})
        if dropped:
            log.warning("no place for streams of the monitor's state", extra={"model": model, "streams": dropped})

    def _downtime_s(self, wall: float) -> float:
        return max(wall - self._saved_at, 0)  # a clock that was set back takes nothing
