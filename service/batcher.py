"""Single images in, batches through the device, single answers out.

The device runs one or several batches side by side: it has so many lanes. A thread takes what waits, reads it into its
buffer and scores it. There are at least two threads, so that a full batch can be read while the device works; late
arrivals still join a batch that is not full. No timer delays an idle device unless asked.

    submit ─▶ waiting ─(take, read, score)─▶ the waiter of each image

A batch that finds the whole device free and leaves nobody waiting runs alone, on all of it.
An image that is withdrawn while it waits leaves the queue at once. An image that cannot be read fails alone. A batch
that fails is scored again image by image, so that only the culprit fails.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from scoring.errors import LineOodError
from scoring.scorer import NOT_FINITE, ImageScore
from scoring.types import PixelBatch, Pixels
from service.problems import DecodingError, ImageInferenceError, InferenceError, NotReadyError

log = logging.getLogger(__name__)

Read = Callable[[], Pixels]  # one image, from wherever it is
Room = UInt8[Tensor, "room 3 height width"]  # for a batch, of which some is filled


@runtime_checkable
class ScoreBatch(Protocol):
    """Pixels (batch, 3, height, width) to one score an image.

    `alone`: nothing else runs meanwhile. `every`: by all methods, not by the primary alone.
    """

    def __call__(self, pixels: PixelBatch, *, alone: bool, every: bool) -> Sequence[ImageScore]:
        """Score a batch; from as many threads at once as there are lanes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An image's score, and where its time went, in seconds; `queued_at` and `started_at` are of `time.monotonic`."""

    score: ImageScore
    decode_s: float
    queue_s: float
    inference_s: float
    queued_at: float = 0
    started_at: float = 0  # the forward pass
    batch_size: int = 1  # images in it


Outcome = Answer | LineOodError  # of one image


@runtime_checkable  # the tests check arguments at run time
class Waiter(Protocol):
    """Who waits for one image. Both are called from the batcher's threads, `settle` perhaps more than once."""

    def claim(self) -> bool:
        """Whether the image is still wanted; from now on it is being worked on."""

    def settle(self, outcome: Outcome) -> None:
        """Take what became of the image; only the first outcome counts."""


@runtime_checkable
class Observer(Protocol):
    """Who counts what the batcher does."""

    def batch_scored(self, size: int, seconds: float) -> None:
        """A forward pass has ended well."""

    def batch_failed(self, size: int) -> None:
        """A forward pass has raised; its images are tried one by one."""


@dataclass(eq=False, slots=True)
class _Entry:
    read: Read
    waiter: Waiter
    decode_s: float
    every: bool
    queued_at: float = field(default_factory=time.monotonic)
    read_s: float = 0  # of its batch


class Batcher:
    """Owns the queue and the threads around one scorer.

    Args:
        score: see `ScoreBatch`.
        size: (height, width) of every image.
        max_batch: images in one call of `score`, at most; may be set to fewer at any time.
        max_delay_s: how long an idle device waits for a batch to fill.
        lanes: calls of `score` that gain by running side by side.
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
        lanes: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._score = score
        self._observer = observer
        self.max_batch = max_batch
        self.last_pass_s = 0.0  # of one batch, image by image if need be, and with the time to read it where lanes do
        self._max_delay_s = max_delay_s
        self._lanes = lanes
        self._turn = threading.Lock()  # one thread at a time waits for images
        self._changed = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._taken: dict[int, list[_Entry]] = {}  # by thread
        self._free_lanes = lanes
        self._is_ahead = False  # a full batch has been taken, and waits for a lane: nobody may overtake it
        self._running_since: dict[int, float] = {}  # by thread
        self._is_stopping = False
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(_channels_last(max_batch, size, pin_memory),),
                name=f"lane-{number}",
                daemon=True,
            )
            for number in range(max(lanes, 2))
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
            unanswered = [*self._waiting, *itertools.chain.from_iterable(self._taken.values())]
            self._waiting.clear()
            self._changed.notify_all()
        for entry in unanswered:
            entry.waiter.settle(NotReadyError("the server stopped before this image was scored"))

    @property
    def depth(self) -> int:
        """Images that wait."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether all threads run; once false, nothing is scored any more."""
        return all(thread.is_alive() for thread in self._threads)

    def busy_s(self) -> float:
        """How long the oldest of the current forward passes has lasted; 0 while the device is idle."""
        with self._changed:
            return time.monotonic() - min(self._running_since.values()) if self._running_since else 0

    @property
    def has_ended(self) -> bool:
        """Whether no thread runs."""
        return not any(thread.is_alive() for thread in self._threads)

    def submit(self, read: Read, waiter: Waiter, *, decode_s: float = 0, every: bool = False) -> None:
        """Queue one image.

        Args:
            read: gives the image, or raises why there is none; called once, in the thread that scores it.
            waiter: told what became of it, once.
            decode_s: how long the image took to get here, told with the answer.
            every: score it by all methods; its neighbours in the batch then are, too.

        Raises:
            NotReadyError: the threads are gone or about to go.
        """
        with self._changed:
            if self._is_stopping or not self.is_alive:
                raise NotReadyError("the server does not score images any more")
            self._waiting.append(_Entry(read, waiter, decode_s, every))
            self._changed.notify_all()

    def withdraw(self, waiter: Waiter) -> None:
        """Nobody waits for this image any more: if it still waits, it leaves the queue."""
        with self._changed:
            for entry in self._waiting:
                if entry.waiter is waiter:
                    self._waiting.remove(entry)
                    return

    def _work(self, buffer: Room) -> None:
        """Run one thread until there is no more work; if it dies, nobody waits in vain."""
        try:
            while True:
                with self._turn:
                    entries, lanes = self._take()
                if not entries:
                    return
                try:
                    entries, pixels = _read(entries, buffer)
                    lanes = lanes or self._wait_for_lane()
                    if entries:
                        started = time.monotonic()
                        self._answer(entries, pixels, alone=lanes == self._lanes)
                        self.last_pass_s = entries[0].read_s + time.monotonic() - started
                finally:
                    self._vacate(lanes)
        except BaseException:
            log.exception("the thread %s died", threading.current_thread().name)
            self.abandon()

    def _take(self) -> tuple[list[_Entry], int]:
        """Wait for images; take them off the queue, with the lanes that are for them, none where all are busy.

        No images mean that the end has come.
        """
        with self._changed:
            self._taken.pop(threading.get_ident(), None)  # only now: a thread that dies leaves them to be told
            while True:
                while not self._may_take():
                    if self._is_stopping and not self._waiting:
                        return [], 0
                    self._changed.wait(self._patience())
                if entries := self._pop(self._share()):
                    return entries, self._hold(len(entries))

    def _may_take(self) -> bool:
        if not self._waiting or self._is_ahead:
            return False
        if len(self._waiting) >= self.max_batch:
            return True  # no late arrival could join: prepare it while the device works
        return self._free_lanes > 0 and (self._is_stopping or self._delay_left() <= 0)

    def _share(self) -> int:
        """So many images that every free lane gets as many, and never more than a batch."""
        is_for_all = self._free_lanes == self._lanes > len(self._waiting)
        lanes = 1 if is_for_all else max(self._free_lanes, 1)
        return min(math.ceil(len(self._waiting) / lanes), self.max_batch)

    def _patience(self) -> float | None:
        """How long to sleep unless woken; None for as long as nothing changes."""
        return self._delay_left() if self._waiting and self._free_lanes and not self._is_ahead else None

    def _delay_left(self) -> float:
        return self._waiting[0].queued_at + self._max_delay_s - time.monotonic()

    def _pop(self, count: int) -> list[_Entry]:
        entries: list[_Entry] = []
        while self._waiting and len(entries) < count:
            entry = self._waiting.popleft()
            if entry.waiter.claim():
                entries.append(entry)
        self._taken[threading.get_ident()] = entries
        return entries

    def _hold(self, count: int) -> int:
        """One lane; all of them for a batch smaller than their number that finds them free, and nobody waiting."""
        is_small = count < self._lanes and not self._waiting
        lanes = self._lanes if is_small and self._free_lanes == self._lanes else min(self._free_lanes, 1)
        self._free_lanes -= lanes
        self._is_ahead = not lanes
        if lanes:
            self._running_since[threading.get_ident()] = time.monotonic()
        return lanes

    def _wait_for_lane(self) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._free_lanes > 0)
            self._changed.notify_all()
            return self._hold(self._lanes)

    def _vacate(self, lanes: int) -> None:
        with self._changed:
            self._free_lanes += lanes
            self._running_since.pop(threading.get_ident(), None)
            self._changed.notify_all()

    def _answer(self, entries: list[_Entry], pixels: PixelBatch, alone: bool) -> None:
        started = time.monotonic()
        try:
            scores = self._score(pixels, alone=alone, every=any(entry.every for entry in entries))
        except Exception as error:
            log.exception("scoring a batch of %d failed", len(entries))
            traceback.clear_frames(error.__traceback__)  # or what the pass had allocated would still be held
            self._observer.batch_failed(len(entries))
            self._answer_one_by_one(entries, pixels, alone, error)
            return
        seconds = time.monotonic() - started
        self._observer.batch_scored(len(entries), seconds)
        for entry, score in zip(entries, scores, strict=True):
            if score.is_finite:
                queue_s = started - entry.queued_at - entry.read_s
                decode_s = entry.decode_s + entry.read_s
                entry.waiter.settle(Answer(score, decode_s, queue_s, seconds, entry.queued_at, started, len(entries)))
            else:
                entry.waiter.settle(ImageInferenceError(NOT_FINITE))

    def _answer_one_by_one(self, entries: list[_Entry], pixels: PixelBatch, alone: bool, error: Exception) -> None:
        if len(entries) > 1:
            for index, entry in enumerate(entries):
                self._answer([entry], pixels[index : index + 1], alone)
            return
        failure = InferenceError("the classifier failed on this image")
        failure.__cause__ = error
        entries[0].waiter.settle(failure)


def _channels_last(count: int, size: tuple[int, int], pin_memory: bool) -> Room:
    """Room for a batch, laid out in memory as decoders lay out a picture."""
    return torch.empty(count, *size, 3, dtype=torch.uint8, pin_memory=pin_memory).permute(0, 3, 1, 2)


def _read(entries: list[_Entry], buffer: Room) -> tuple[list[_Entry], PixelBatch]:
    """Read images side by side, and answer those that cannot be read.

    Copied by numpy: torch would wake a team of threads, and wait for it on busy cores.
    """
    started = time.monotonic()
    places, good = buffer.numpy(), list[_Entry]()
    for entry in entries:
        try:
            np.copyto(places[len(good)], entry.read().numpy())
        except LineOodError as error:
            entry.waiter.settle(error)
        except Exception:
            log.exception("decoding an image failed")
            entry.waiter.settle(DecodingError("the server failed to decode this image"))
        else:
            good.append(entry)
    for entry in good:
        entry.read_s = time.monotonic() - started
    return good, buffer[: len(good)]
