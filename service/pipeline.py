"""The serving path behind HTTP: admission, decoding, batching; started, warmed up and stopped as one thing."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

import torch

from scoring.backbone import noise
from scoring.errors import LineOodError
from scoring.scorer import Scorer
from scoring.types import Pixels
from service.aside import aside
from service.batch_size import useful_batch
from service.batcher import Batcher, Outcome, Read
from service.bodies import Encoded
from service.decoders import Decoders
from service.mailbox import Mailbox, Promise
from service.model_metrics import ModelMetrics
from service.problems import NotReadyError, QueueFullError
from service.settings import Settings
from service.tracing.record import Record

log = logging.getLogger(__name__)

STOP_S = 0.5  # for a forward pass that is under way when all admitted images are answered, or given up
WAIT_SHARE = 0.75  # of a request's time for the queue and the pass; bodies, decoding and slow passes need some, too
STUCK_TIMEOUTS = 10  # a forward pass that takes so many times a request's limit will not end


class State(enum.Enum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Pipeline:
    """Encoded images to answers, for many requests at once. All methods belong to the event loop's thread.

    Args:
        scorer: classifier and artifact.
        settings: limits and sizes.
        metrics: told of everything.
    """

    def __init__(self, scorer: Scorer, settings: Settings, metrics: ModelMetrics) -> None:
        self.scorer = scorer
        self.metrics = metrics
        self.state = State.STARTING
        self.admitted = 0
        self._arrived = 0  # of them, images whose bodies are here
        self._settings = settings
        engine = scorer.classifier.engine
        # Lanes that have a core each decode for themselves: more threads would only push each other off the cores.
        self._decoders = None if engine.lanes > 1 else Decoders(settings.decode_workers)
        self._batcher = Batcher(
            scorer.score,
            scorer.classifier.preprocess.crop,
            metrics,
            max_batch=min(settings.max_batch, engine.useful_batch),
            max_delay_s=settings.max_delay_ms / 1000,
            lanes=engine.lanes,
            pin_memory=scorer.classifier.device.type == "cuda",
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start, warm up, and be ready inside the block; afterwards what waits is answered and all threads end."""
        self._mailbox = Mailbox()
        self._batcher.start()
        try:
            await self._warm_up()
            self.state = State.READY
            self.metrics.begin()
            yield
        finally:
            self.drain()
            await aside(partial(self._batcher.stop, timeout_s=STOP_S))
            if self._decoders is not None:
                self._decoders.stop()

    def drain(self) -> None:
        """Take no more work; what has been admitted is finished."""
        self.state = State.DRAINING

    def abandon(self) -> None:
        """Answer whoever still waits with 503: the time to drain is over."""
        self._batcher.abandon()

    @property
    def depth(self) -> int:
        """Images that wait for the device."""
        return self._batcher.depth

    @property
    def used(self) -> float:
        """The share of the queue's room, or of the time that an image may wait, that is taken, whichever is more."""
        wait_s = WAIT_SHARE * self._settings.timeout_s
        return max(self.admitted / self._settings.queue_capacity, self._wait_s(1) / wait_s)

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
    def admit(self, count: int, deadline: float) -> Iterator[None]:
        """Hold room for images of one request.

        Args:
            count: how many.
            deadline: when the request has to be answered, of `time.monotonic`.

        Raises:
            QueueFullError: there is none, or it could not be used in time.
        """
        if self.admitted + count > self._settings.queue_capacity:
            raise self._queue_full(f"{count} more do not fit into {self._settings.queue_capacity}")
        within_s, more = deadline - time.monotonic(), max(count, 1)
        if self._wait_s(more) > WAIT_SHARE * within_s:
            raise self._queue_full(f"{more} more would not be done within {within_s:.3g} s")
        self.admitted += count
        try:
            yield
        finally:
            self.admitted -= count

    async def score(
        self, images: Sequence[Encoded], *, every: bool = False, record: Record | None = None
    ) -> list[Outcome]:
        """Decode and score; each image ends in an answer or in its own error. Cancelling drops what waits.

        Args:
            images: encoded, or why there is none.
            every: score by all methods.
            record: takes the times, where the request is traced.
        """
        reads: Sequence[Read] = [partial(self._read, image) for image in images]
        if record is not None:
            reads = record.watch(reads)
        begun = [
            image if isinstance(image, LineOodError) else self._begin(read, every)
            for image, read in zip(images, reads, strict=True)
        ]
        self._arrived += len(images)
        try:
            return [await each.future if isinstance(each, Promise) else each for each in begun]
        except asyncio.CancelledError:
            for each in begun:
                if isinstance(each, Promise):
                    self._withdraw(each)
            raise
        finally:
            self._arrived -= len(images)

    def _begin(self, read: Read, every: bool) -> Promise:
        promise = Promise(self._mailbox)
        if self._decoders is None:
            self._submit(promise, every, read)
        else:
            self._decoders.submit(read, promise, partial(self._submit_pixels, promise, every))
        return promise

    def _withdraw(self, promise: Promise) -> None:
        promise.future.cancel()
        self._batcher.withdraw(promise)
        if self._decoders is not None:
            self._decoders.withdraw(promise)

    def _read(self, image: Encoded) -> Pixels:
        if isinstance(image, LineOodError):
            raise image
        return self.scorer.classifier.preprocess.read(image, max_pixels=self._settings.max_pixels)

    def _submit_pixels(self, promise: Promise, every: bool, pixels: Pixels, decode_s: float) -> None:
        """From the thread that decoded, without a way back through the event loop."""
        self._submit(promise, every, lambda: pixels, decode_s)

    def _submit(self, promise: Promise, every: bool, read: Read, decode_s: float = 0) -> None:
        try:
            self._batcher.submit(read, promise, decode_s=decode_s, every=every)
        except NotReadyError as error:
            promise.settle(error)

    async def _warm_up(self) -> None:
        """Score noise of the wanted size: in batches, which tells how large to make them; then queued."""
        images = noise(self.scorer.classifier.preprocess, self._batcher.max_batch)
        images = images.contiguous(memory_format=torch.channels_last)  # as batches lie, for which engines choose code
        useful = self._batcher.max_batch = await aside(partial(useful_batch, self.scorer.score, images))
        promises = [Promise(self._mailbox) for _ in images]
        for image, promise in zip(images, promises, strict=True):
            self._batcher.submit(partial(torch.clone, image), promise)
        for promise in promises:
            if isinstance(outcome := await promise.future, LineOodError):
                raise outcome
        log.info("warmed up with batches of up to %d, will score up to %d at a time", len(images), useful)

    def _wait_s(self, count: int) -> float:
        """How long the last of so many more images would wait and be scored, going by the latest passes; in seconds.

        A queue that takes longer than its images have serves nobody: each is scored just after its time. Bodies that
        are still being sent do not count: they may never come. 0 for who comes into the next pass, which may be faster
        than the last, and tells so.
        """
        decoding_s = self._decoders.wait_s(count) if self._decoders is not None else 0
        if self._arrived < self._at_a_time:
            return decoding_s
        passes = math.ceil((self._arrived + count) / self._at_a_time)
        return max(decoding_s, passes * self._batcher.last_pass_s)

    @property
    def _at_a_time(self) -> int:
        return self._batcher.max_batch * self.scorer.classifier.engine.lanes

    def _queue_full(self, why: str) -> QueueFullError:
        wait_s = min(self._wait_s(0), self._settings.timeout_s)  # nobody waits longer than that
        return QueueFullError(f"{self.admitted} images are waiting, {why}", retry_after_s=max(math.ceil(wait_s), 1))
