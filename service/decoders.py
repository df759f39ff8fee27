"""Threads that decode images ahead of the device, and how far behind they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from scoring.errors import LineOodError
from scoring.types import Pixels
from service.batcher import Read
from service.mailbox import Promise
from service.problems import DecodingError

log = logging.getLogger(__name__)

NEWS = 0.1  # what the latest image counts in the mean time of all


class Decoders:
    """Decode in the order of asking. All methods belong to the event loop's thread.

    Args:
        count: of threads.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "decode")
        self._count = count
        self._waiting: set[Promise] = set()  # all threads change them: to add and to discard are one step each
        self._begun: set[Promise] = set()
        self.mean_s = 0.0  # an image, in a thread, lately; 0 before the first

    def submit(self, read: Read, promise: Promise, deliver: Callable[[Pixels, float], None]) -> None:
        """Decode one image.

        Args:
            read: decodes, or raises why there is no image.
            promise: settled here where there is none.
            deliver: takes the image otherwise, in the thread, and how long it took since now, in seconds.
        """
        self._waiting.add(promise)
        self._pool.submit(self._decode, read, promise, deliver, time.monotonic())

    def withdraw(self, promise: Promise) -> None:
        """Nobody waits for this image any more: it delays nobody, unless it is being decoded, which has no stop."""
        self._waiting.discard(promise)

    def wait_s(self, count: int) -> float:
        """How long the last of so many more images would wait and be decoded, going by the latest; in seconds.

        0 where a thread is free: what it gets may be quicker than what came before, and tells so.
        """
        before = len(self._waiting) + len(self._begun)
        return (before + count) / self._count * self.mean_s if before >= self._count else 0

    def stop(self) -> None:
        """Take no more; what waits is not decoded."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _decode(
        self, read: Read, promise: Promise, deliver: Callable[[Pixels, float], None], received_at: float
    ) -> None:
        if not promise.claim():  # nobody waits for it any more
            return
        started = time.monotonic()
        self._begun.add(promise)
        self._waiting.discard(promise)
        try:
            pixels = read()
        except LineOodError as error:
            promise.settle(error)
        except Exception:
            log.exception("decoding an image failed")
            promise.settle(DecodingError("the server failed to decode this image"))
        else:
            deliver(pixels, time.monotonic() - received_at)
        finally:
            self._begun.discard(promise)
            seconds = time.monotonic() - started
            self.mean_s += (NEWS if self.mean_s else 1) * (seconds - self.mean_s)
