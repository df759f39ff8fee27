"""The serving path behind HTTP: admission, decoding, batching; started, warmed up and stopped as one thing."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from scoring.errors import ImageError, LineOodError
from scoring.scorer import Scorer
from scoring.types import Pixels
from service.batcher import Answer, Batcher
from service.bodies import Encoded
from service.metrics import Metrics
from service.problems import DecodingError, NotReadyError, QueueFullError
from service.settings import Settings

log = logging.getLogger(__name__)

STUCK_TIMEOUTS = 10  # a forward pass that takes so many times a request's limit will not end

Outcome = Answer | LineOodError  # of one image


class State(enum.Enum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True)
class Scored:
    """What became of the images of one request, in their order, and how long decoding took."""

    outcomes: list[Outcome]
    decode_s: float


class Pipeline:
    """Encoded images to answers, for many requests at once. All methods belong to the event loop's thread.

    Args:
        scorer: classifier and artifact.
        settings: limits and sizes.
        metrics: told of everything.
    """

    def __init__(self, scorer: Scorer, settings: Settings, metrics: Metrics) -> None:
        self.scorer = scorer
        self.state = State.STARTING
        self.admitted = 0
        self._settings = settings
        self._metrics = metrics
        self._batch_seconds = 0.0  # of the latest forward pass
        self._pool = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="decode")
        self._batcher = Batcher(
            scorer.score,
            scorer.classifier.preprocess.crop,
            metrics,
            max_batch=settings.max_batch,
            max_delay_s=settings.max_delay_ms / 1000,
            pin_memory=scorer.classifier.device.type == "cuda",
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start, warm up, and be ready inside the block; afterwards what waits is answered and all threads end."""
        self._batcher.start()
        try:
            await self._warm_up()
            self.state = State.READY
            self._metrics.set_ready(True)
            yield
        finally:
            self.drain()
            await asyncio.to_thread(self._batcher.stop, timeout_s=1)
            self._pool.shutdown(wait=False, cancel_futures=True)

    def drain(self) -> None:
        """Take no more work; what has been admitted is finished."""
        self.state = State.DRAINING
        self._metrics.set_ready(False)

    def abandon(self) -> None:
        """Answer whoever still waits with 503: the time to drain is over."""
        self._batcher.abandon()

    @property
    def is_alive(self) -> bool:
        """Whether images can still be scored by this process: its threads run, and no forward pass hangs."""
        return self._batcher.is_alive and self._batcher.busy_s() < STUCK_TIMEOUTS * self._settings.timeout_s

    @property
    def has_ended(self) -> bool:
        """Whether no forward pass is under way, nor will be."""
        return self._batcher.has_ended

    def check_ready(self) -> None:
        """Let a request in.

        Raises:
            NotReadyError: not now; says why.
        """
        if self.state is not State.READY:
            raise NotReadyError(f"the server is {self.state.value}")
        if not self.is_alive:
            raise NotReadyError("the inference thread is gone or stuck")

    @contextlib.contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Hold room for the images of one request.

        Raises:
            QueueFullError: there is none.
        """
        if self.admitted + count > self._settings.queue_capacity:
            raise self._queue_full(count)
        self._hold(count)
        try:
            yield
        finally:
            self._hold(-count)

    async def score(self, images: Sequence[Encoded]) -> Scored:
        """Decode and score; each image ends in an answer or in its own error. Cancelling drops what waits."""
        started = time.monotonic()
        decoded = await asyncio.gather(*(self._decode(image) for image in images))
        decode_s = time.monotonic() - started
        return Scored(list(await asyncio.gather(*(self._infer(each) for each in decoded))), decode_s)

    async def _decode(self, image: Encoded) -> Pixels | LineOodError:
        if isinstance(image, LineOodError):
            return image
        loop = asyncio.get_running_loop()
        preprocess, limit = self.scorer.classifier.preprocess, self._settings.max_pixels
        try:
            return await loop.run_in_executor(self._pool, lambda: preprocess.read(image, max_pixels=limit))
        except ImageError as error:
            return error
        except Exception:
            log.exception("decoding an image failed")
            return DecodingError("the server failed to decode this image")

    async def _infer(self, decoded: Pixels | LineOodError) -> Outcome:
        if isinstance(decoded, LineOodError):
            return decoded
        try:
            answer = await asyncio.wrap_future(self._batcher.submit(decoded))
        except LineOodError as error:
            return error
        self._batch_seconds = answer.inference_s
        return answer

    async def _warm_up(self) -> None:
        """Score batches of one and of the largest size, of noise in the size that the artifact names."""
        height, width = self.scorer.classifier.preprocess.crop
        for count in (1, self._settings.max_batch):
            noise = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
            futures = [asyncio.wrap_future(self._batcher.submit(image)) for image in noise]
            await asyncio.gather(*futures)
        log.info("warmed up with batches of 1 and %d", self._settings.max_batch)

    def _hold(self, count: int) -> None:
        self.admitted += count
        self._metrics.admitted.set(self.admitted)

    def _queue_full(self, count: int) -> QueueFullError:
        batches = math.ceil(self.admitted / self._settings.max_batch)
        return QueueFullError(
            f"{self.admitted} images are waiting and {count} more do not fit into {self._settings.queue_capacity}",
            retry_after_s=max(math.ceil(batches * self._batch_seconds), 1),
        )
