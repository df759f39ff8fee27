"""All models of the server, by name; the first one is the default. Started, loaded anew and stopped here.

One load at a time: beside what is served there is room for one more version, not for one of each model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from fastapi import Request

from service.aside import is_any_running
from service.loads import Load, attempt
from service.metrics import Metrics
from service.pipeline import Pipeline, State
from service.problems import LoadUnderWayError, NotReadyError, ServiceError, UnknownModelError
from service.settings import Settings
from service.shadow import Shadow
from service.shadow_metrics import ShadowMetrics
from service.sources import Loaded
from service.versions import Served, Versions, Watch

__all__ = ["Models", "Served", "pick"]

log = logging.getLogger(__name__)

TURN_S = 60.0  # to wait for another load: one may hang, with a file system or a download


class Models(Mapping[str, Served]):
    """From a model's name to the version of it that answers now. All methods belong to the event loop's thread.

    Args:
        loaded: the models, the default first.
        settings: limits and sizes of each.
        metrics: told of everything.
        watch: told of each version that answers from now on: the model's name and the version's artifact.
    """

    def __init__(self, loaded: Sequence[Loaded], settings: Settings, metrics: Metrics, watch: Watch) -> None:
        self._metrics = metrics
        self._settings = settings
        self._shadow_metrics = ShadowMetrics(metrics.registry) if any(each.shadow for each in loaded) else None
        self._versions = {
            each.source.name: Versions(each, settings, metrics, self._shadow_of(each), watch) for each in loaded
        }
        self._turn = asyncio.Lock()
        self._loads: dict[str, asyncio.Task[Load]] = {}
        self._reload_asked = asyncio.Event()
        self.state = State.STARTING
        metrics.expect_loads(self._versions)
        metrics.watch_ready(lambda: self.is_ready)

    def __getitem__(self, name: str) -> Served:
        return self._versions[name].served

    def __iter__(self) -> Iterator[str]:
        return iter(self._versions)

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def default(self) -> Served:
        """The first one."""
        return next(iter(self.values()))

    def find(self, name: str) -> Served:
        """One by name.

        Raises:
            UnknownModelError: there is none; says which there are.
        """
        return self._find(name).served

    def shadow(self, name: str) -> Shadow | None:
        """The shadow of a model, if it has one."""
        return self._find(name).shadow

    def is_loading(self, name: str) -> bool:
        """Whether a next version of a model is being loaded."""
        return name in self._loads

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start and warm up every model, and be ready inside the block; afterwards all threads end."""
        reloading = asyncio.create_task(self._reload_when_asked())
        try:
            for versions in self._versions.values():
                await versions.start()
            self.state = State.READY
            yield
        finally:
            self.drain()
            for task in (reloading, *self._loads.values()):
                task.cancel()
            await asyncio.gather(*(versions.stop() for versions in self._versions.values()))

    def drain(self) -> None:
        """Take no more work; what has been admitted is finished."""
        self.state = State.DRAINING
        for pipeline in self._pipelines():
            pipeline.drain()

    def abandon(self) -> None:
        """Answer whoever still waits with 503: the time to drain is over."""
        for pipeline in self._pipelines():
            pipeline.abandon()

    @property
    def admitted(self) -> int:
        """Images that were admitted and have no answer yet."""
        return sum(pipeline.admitted for pipeline in self._pipelines())

    @property
    def is_alive(self) -> bool:
        """Whether every model can score images."""
        return all(served.pipeline.is_alive for served in self.values())

    @property
    def has_ended(self) -> bool:
        """Whether no thread of ours is at work, nor will be."""
        shadows = [versions.shadow for versions in self._versions.values() if versions.shadow is not None]
        return (
            all(pipeline.has_ended for pipeline in self._pipelines())
            and all(shadow.has_ended for shadow in shadows)
            and not is_any_running()
        )

    @property
    def is_ready(self) -> bool:
        """Whether every model takes requests."""
        try:
            self.check_ready()
        except NotReadyError:
            return False
        return True

    def check_ready(self) -> None:
        """Make sure that every model takes requests.

        Raises:
            NotReadyError: one does not; says which, and why.
        """
        for name, served in self.items():
            try:
                served.pipeline.check_ready()
            except NotReadyError as error:
                raise NotReadyError(str(error) if len(self) == 1 else f"{name}: {error}") from error

    async def load(self, name: str) -> Load:
        """Load a model's file anew and switch to it; goes on though the caller should go away.

        Raises:
            UnknownModelError: there is no such model.
            LoadUnderWayError: it is being loaded.
            LoadRefusedError: the files are not usable; the version before goes on.
            LoadFailedError: the server could not load them; likewise.
        """
        versions = self._find(name)
        return await self._load(name, f"model {name}", versions.load, partial(self._metrics.load_ended, name))

    async def load_shadow(self, name: str) -> Load:
        """The same for the shadow of a model."""
        shadow = self.shadow(name)
        if shadow is None or self._shadow_metrics is None:
            raise UnknownModelError(f"model {name!r} has no shadow")
        count = self._shadow_metrics.loads
        return await self._load(
            name, f"the shadow of {name}", shadow.load, lambda outcome: count.labels(name, outcome).inc()
        )

    def ask_to_reload(self) -> None:
        """Load everything anew, soon; asked once more meanwhile, once more."""
        self._reload_asked.set()

    async def _reload_when_asked(self) -> None:
        while await self._reload_asked.wait():
            self._reload_asked.clear()
            for name, versions in self._versions.items():
                for load in (self.load, *([self.load_shadow] if versions.shadow else [])):
                    await self._wait_and(load, name)

    async def _wait_and(self, load: Callable[[str], Awaitable[Load]], name: str) -> None:
        if name in self._loads:
            await asyncio.wait([self._loads[name]], timeout=TURN_S)
        try:
            await load(name)
        except LoadUnderWayError as error:
            log.error("%s is not loaded: %s", name, error)
        except ServiceError:  # has been logged and counted
            return
        except Exception:
            log.exception("loading %s failed", name)

    async def _load(
        self, name: str, what: str, load: Callable[[], Awaitable[Load]], count: Callable[[str], None]
    ) -> Load:
        if self.state is not State.READY:
            raise NotReadyError(f"the server is {self.state.value}")
        if name in self._loads:
            raise LoadUnderWayError(f"model {name!r} is being loaded")

        async def take_turn() -> Load:
            try:
                await asyncio.wait_for(self._turn.acquire(), TURN_S)
            except TimeoutError as error:
                raise LoadUnderWayError(f"{name!r} waits for another model that is being loaded") from error
            try:
                return await attempt(what, load, count)
            finally:
                self._turn.release()

        def end(task: asyncio.Task[Load]) -> None:
            del self._loads[name]
            if not task.cancelled():
                task.exception()  # whoever asked may be gone, and nobody else wants it

        task = self._loads[name] = asyncio.create_task(take_turn())
        task.add_done_callback(end)
        return await asyncio.shield(task)

    def _find(self, name: str) -> Versions:
        if name not in self._versions:
            raise UnknownModelError(f"no model {name!r}: there is {', '.join(self._versions)}")
        return self._versions[name]

    def _pipelines(self) -> list[Pipeline]:
        return [pipeline for versions in self._versions.values() for pipeline in versions.pipelines]

    def _shadow_of(self, loaded: Loaded) -> Shadow | None:
        source = loaded.source.of_shadow()
        if source is None or loaded.shadow is None or self._shadow_metrics is None:
            return None
        return Shadow(source, loaded.shadow, self._settings, self._shadow_metrics, self._is_idle)

    def _is_idle(self) -> bool:
        return not any(versions.served.pipeline.depth for versions in self._versions.values())


def pick(request: Request, name: str | None = None) -> Served:
    """The version that answers this request, and no other: call it once. Its artifact is named in the answer's header.

    Raises:
        UnknownModelError: there is no model of that name.
    """
    models: Models = request.app.state.models
    served = models.default if name is None else models.find(name)
    state = request.scope["state"]
    state["model"], state["artifact_id"] = served.name, served.artifact_id
    return served
