"""The versions of one model: the one that answers, the next while it is loaded, old ones until their last answer.

load (a thread) ─▶ verify ─▶ warm up ─▶ switch ─▶ the old one: drain ─▶ stop ─▶ release
   every failure before the switch leaves the old one as it was
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from scoring.artifact import Artifact
from scoring.scorer import Scorer
from service.aside import aside
from service.loads import Load
from service.metrics import Metrics
from service.model_metrics import ModelMetrics
from service.pipeline import Pipeline, State
from service.problems import NotReadyError
from service.release import references, release
from service.settings import Settings
from service.shadow import Shadow
from service.sources import Loaded

log = logging.getLogger(__name__)

Watch = Callable[[str, Artifact], None]

STEP_S = 0.02  # between two looks at whether an old version has given its last answer


@dataclass(frozen=True, eq=False)
class Served:
    """One version of a model. Take it once for a request, and admit the request before you await anything.

    Attributes:
        name: the model's.
        scorer: the version's.
        pipeline: around that scorer.
        loaded_at: when it was loaded.
    """

    name: str
    scorer: Scorer
    pipeline: Pipeline
    loaded_at: datetime

    @property
    def artifact_id(self) -> str:
        """Names the version in answers."""
        return self.scorer.artifact.artifact_id


class Versions:
    """One model. All methods belong to the event loop's thread.

    Args:
        loaded: its first version.
        settings: limits and sizes.
        metrics: told of everything.
        shadow: compared with whichever version answers.
        watch: told of the version that answers.
    """

    def __init__(
        self, loaded: Loaded, settings: Settings, metrics: Metrics, shadow: Shadow | None, watch: Watch
    ) -> None:
        self.source = loaded.source
        self.shadow = shadow
        self._settings = settings
        self._metrics = metrics
        self._watch = watch
        self._ends: dict[Served, contextlib.AsyncExitStack] = {}  # of every version whose threads run
        self._tasks: set[asyncio.Task[None]] = set()
        self.served = self._prepare(loaded.scorer)
        self.served.pipeline.metrics.expose()
        self._follow(self.served)
        metrics.of_models.watch(
            self.source.name,
            capacity=settings.queue_capacity,
            depth=lambda: sum(pipeline.depth for pipeline in self.pipelines),
            admitted=lambda: sum(pipeline.admitted for pipeline in self.pipelines),
            used=lambda: self.served.pipeline.used,
        )

    @property
    def pipelines(self) -> list[Pipeline]:
        """Of the version that answers, of the next while it warms up, and of old ones that are not done."""
        return [each.pipeline for each in {self.served: None, **self._ends}]

    async def start(self) -> None:
        """Warm up the first version; from then on it answers."""
        await self._begin(self.served)
        if self.shadow is not None:
            await self.shadow.start()

    async def stop(self) -> None:
        """End all threads; what was admitted and has no answer yet is told so."""
        for task in self._tasks:
            task.cancel()
        shadows = [] if self.shadow is None else [self.shadow.stop()]
        await asyncio.gather(*shadows, *(self._end(each) for each in self._ends))

    async def load(self) -> Load:
        """Load what the files hold now, beside the version that answers, and switch.

        Raises:
            LineOodError: it is not usable; the version that answers goes on.
        """
        old = self.served
        if await aside(self.source.artifact_id) == old.artifact_id:
            return Load("unchanged", old.artifact_id, old.artifact_id)
        served = await aside(self._load)
        await self._begin(served)
        if old.pipeline.state is State.DRAINING:
            await self._end(served)
            raise NotReadyError("the server is draining")
        try:
            self._switch(old, served)
        except Exception:
            await self._end(served)
            raise
        return Load("switched", served.artifact_id, old.artifact_id)

    def _load(self) -> Served:
        scorer = self.source.load()
        if deviation := self.source.deviation(scorer):
            log.warning(deviation)
        return self._prepare(scorer)

    def _prepare(self, scorer: Scorer) -> Served:
        metrics = ModelMetrics(self._metrics.of_models, self.source.name, scorer.artifact)
        return Served(self.source.name, scorer, Pipeline(scorer, self._settings, metrics), datetime.now(UTC))

    async def _begin(self, served: Served) -> None:
        end = self._ends[served] = contextlib.AsyncExitStack()  # its threads run from now on, whatever comes of it
        try:
            await end.enter_async_context(served.pipeline.running())
        except BaseException:
            self._forget_if_ended(served)
            raise

    def _switch(self, old: Served, new: Served) -> None:
        self._follow(new)
        new.pipeline.metrics.expose(old.pipeline.metrics)
        self.served = new  # from here on requests are the new one's, and nothing can fail any more
        task = asyncio.create_task(self._retire(old))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _follow(self, served: Served) -> None:
        self._watch(self.source.name, served.scorer.artifact)
        if self.shadow is not None:
            self.shadow.follow(served.scorer)

    async def _end(self, served: Served) -> None:
        """End the threads of a version; one that does not end keeps its place, so that the process knows of it."""
        if served in self._ends:  # it may have ended by itself meanwhile: its warm-up was cancelled
            await self._ends[served].aclose()
            self._forget_if_ended(served)

    def _forget_if_ended(self, served: Served) -> None:
        if served.pipeline.has_ended:
            self._ends.pop(served, None)

    async def _retire(self, old: Served) -> None:
        while old.pipeline.admitted:  # noqa: ASYNC110 - a number that every request changes; zero within a timeout
            await asyncio.sleep(STEP_S)
        await self._end(old)
        if old in self._ends:
            log.error("a forward pass of the version before does not end, its memory is not free")
            return
        what = references(old.scorer)
        del old
        await release(what)
