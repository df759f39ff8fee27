"""Single images in, batches through the device, single answers out.

Two threads. The stager forms a batch when the device is free, so that late arrivals still join; only a full
batch is prepared ahead, while another one runs. The runner scores. No timer delays an idle device unless asked.

    submit ─▶ waiting ─(stager: take, pack)─▶ staged ─(runner: score)─▶ future of each image

A future that is cancelled while it waits leaves the queue at once. A batch that fails is scored again image by
image, so that only the culprit fails.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from scoring.scorer import NOT_FINITE, ImageScore
from scoring.types import PixelBatch, Pixels
from service.problems import ImageInferenceError, InferenceError, NotReadyError

log = logging.getLogger(__name__)

ScoreBatch = Callable[[PixelBatch], Sequence[ImageScore]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An image's score, and where its time went, in seconds."""

    score: ImageScore
    queue_s: float
    inference_s: float


@runtime_checkable  # the tests check arguments at run time
class Observer(Protocol):
    """Who counts what the batcher does."""

    def batch_scored(self, size: int, seconds: float) -> None:
        """A forward pass has ended well."""

    def batch_failed(self, size: int) -> None:
        """A forward pass has raised; its images are tried one by one."""

    def queue_changed(self, depth: int) -> None:
        """This many images wait."""


@dataclass(eq=False, slots=True)
class _Entry:
    pixels: Pixels
    queued_at: float
    answer: Future[Answer] = field(default_factory=Future)


@dataclass(slots=True)
class _Batch:
    entries: list[_Entry]
    pixels: PixelBatch


class Batcher:
    """Owns the queue and the threads around one scorer.

    Args:
        score: pixels (batch, 3, height, width) to one score an image; called from one thread only.
        size: (height, width) of every image.
        max_batch: images in one call of `score`, at most.
        max_delay_s: how long an idle device waits for a batch to fill.
        observer: told of every batch.
        pin_memory: stage batches in page-locked memory, for a GPU.
    """

    def __init__(
        self,
        score: ScoreBatch,
        size: tuple[int, int],
        observer: Observer,
        *,
        max_batch: int = 32,
        max_delay_s: float = 0,
        pin_memory: bool = False,
    ) -> None:
        self._score = score
        self._observer = observer
        self._max_batch = max_batch
        self._max_delay_s = max_delay_s
        self._changed = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._unanswered: set[_Entry] = set()
        self._staged: _Batch | None = None
        self._is_staging = True
        self._is_running = False
        self._running_since = 0.0
        self._is_stopping = False
        # Two buffers: one is read by the device while the other one is filled.
        self._buffers = [torch.empty(max_batch, 3, *size, dtype=torch.uint8, pin_memory=pin_memory) for _ in range(2)]
        self._packed = 0
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
            for name, work in (("stager", self._stage_next), ("runner", self._run_next))
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Answer what waits, then end the threads; what is not answered in time is abandoned."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        self.abandon()

    def abandon(self) -> None:
        """Tell everybody who still waits that there will be no answer."""
        with self._changed:
            self._is_stopping = True
            unanswered = list(self._unanswered)
            self._waiting.clear()
            self._observer.queue_changed(0)
            self._changed.notify_all()
        for entry in unanswered:
            _settle(entry, NotReadyError("the server stopped before this image was scored"))

    @property
    def is_alive(self) -> bool:
        """Whether both threads run; once false, nothing is scored any more."""
        return all(thread.is_alive() for thread in self._threads)

    def busy_s(self) -> float:
        """How long the current forward pass has lasted; 0 while the device is idle."""
        with self._changed:
            return time.monotonic() - self._running_since if self._is_running else 0

    @property
    def has_ended(self) -> bool:
        """Whether neither thread runs."""
        return not any(thread.is_alive() for thread in self._threads)

    def submit(self, pixels: Pixels) -> Future[Answer]:
        """Queue one image.

        Raises:
            NotReadyError: the threads are gone or about to go.
        """
        entry = _Entry(pixels, time.monotonic())
        with self._changed:
            if self._is_stopping or not self.is_alive:
                raise NotReadyError("the server does not score images any more")
            self._waiting.append(entry)
            self._unanswered.add(entry)
            self._observer.queue_changed(len(self._waiting))
            self._changed.notify_all()
        entry.answer.add_done_callback(lambda _: self._forget(entry))
        return entry.answer

    def _forget(self, entry: _Entry) -> None:
        with self._changed:
            self._unanswered.discard(entry)
            if entry.answer.cancelled() and entry in self._waiting:  # else the stager has taken it
                self._waiting.remove(entry)
                self._observer.queue_changed(len(self._waiting))

    def _guard(self, work: Callable[[], bool]) -> None:
        """Run one thread until it has no more work; if it dies, nobody waits in vain."""
        try:
            while work():
                pass
        except BaseException:
            log.exception("the thread %s died", threading.current_thread().name)
            with self._changed:
                self._is_staging, self._staged = False, None
            self.abandon()

    def _stage_next(self) -> bool:
        with self._changed:
            while not self._may_form():
                if self._is_stopping and not self._waiting:
                    self._is_staging = False
                    self._changed.notify_all()
                    return False
                self._changed.wait(self._patience())
            entries = self._take()
        if entries:
            batch = self._pack(entries)
            with self._changed:
                self._staged = batch
                self._changed.notify_all()
        return True

    def _may_form(self) -> bool:
        if self._staged is not None or not self._waiting:
            return False
        if len(self._waiting) >= self._max_batch:
            return True  # no late arrival could join: prepare it while the device works
        return not self._is_running and (self._is_stopping or self._delay_left() <= 0)

    def _patience(self) -> float | None:
        """How long the stager may sleep unless woken; None for as long as nothing changes."""
        device_is_busy = self._is_running or self._staged is not None
        return None if device_is_busy or not self._waiting else self._delay_left()

    def _delay_left(self) -> float:
        return self._waiting[0].queued_at + self._max_delay_s - time.monotonic()

    def _pack(self, entries: list[_Entry]) -> _Batch:
        buffer = self._buffers[self._packed % 2][: len(entries)]
        self._packed += 1
        torch.stack([entry.pixels for entry in entries], out=buffer)
        return _Batch(entries, buffer)

    def _take(self) -> list[_Entry]:
        entries: list[_Entry] = []
        while self._waiting and len(entries) < self._max_batch:
            entry = self._waiting.popleft()
            if entry.answer.set_running_or_notify_cancel():
                entries.append(entry)
        self._observer.queue_changed(len(self._waiting))
        return entries

    def _run_next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._staged is not None or not self._is_staging)
            batch, self._staged = self._staged, None
            if batch is None:
                return False
            self._is_running, self._running_since = True, time.monotonic()
            self._changed.notify_all()
        try:
            self._answer(batch.entries, batch.pixels)
        finally:
            with self._changed:
                self._is_running = False
                self._changed.notify_all()
        return True

    def _answer(self, entries: list[_Entry], pixels: PixelBatch) -> None:
        started = time.monotonic()
        try:
            scores = self._score(pixels)
        except Exception as error:
            log.exception("scoring a batch of %d failed", len(entries))
            self._observer.batch_failed(len(entries))
            self._answer_alone(entries, pixels, error)
            return
        seconds = time.monotonic() - started
        self._observer.batch_scored(len(entries), seconds)
        for entry, score in zip(entries, scores, strict=True):
            if score.is_finite:
                _settle(entry, Answer(score, started - entry.queued_at, seconds))
            else:
                _settle(entry, ImageInferenceError(NOT_FINITE))

    def _answer_alone(self, entries: list[_Entry], pixels: PixelBatch, error: Exception) -> None:
        if len(entries) > 1:
            for index, entry in enumerate(entries):
                self._answer([entry], pixels[index : index + 1])
            return
        failure = InferenceError("the classifier failed on this image")
        failure.__cause__ = error
        _settle(entries[0], failure)


def _settle(entry: _Entry, outcome: Answer | Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled or abandoned in the meantime
        if isinstance(outcome, Answer):
            entry.answer.set_result(outcome)
        else:
            entry.answer.set_exception(outcome)
