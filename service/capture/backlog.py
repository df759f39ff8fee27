"""Images on their way from the event loop to the thread that writes them, bounded by their bytes."""

from __future__ import annotations

import threading
from collections import deque

from service.capture.candidate import Candidate

OVERHEAD_BYTES = 2048  # of an image in memory beside its bytes, generously: tiny images are bounded, too


class Backlog:
    """A queue that never makes anybody wait to put something in.

    Args:
        max_bytes: of all images that were put in and not yet released.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._waiting: deque[Candidate] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, candidate: Candidate) -> bool:
        """Add an image; False where it does not fit, or where nobody will take it."""
        size = _size(candidate)
        with self._changed:
            if self._is_closed or self._held + size > self._max_bytes:
                return False
            self._held += size
            self._waiting.append(candidate)
            self._changed.notify()
            return True

    def take(self) -> Candidate | None:
        """Wait for an image; None once the backlog is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting.popleft() if self._waiting else None

    def release(self, candidate: Candidate) -> None:
        """Nobody holds this image any more."""
        with self._changed:
            self._held -= _size(candidate)

    def close(self) -> None:
        """Take no more; what waits can still be taken out."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def clear(self) -> int:
        """Throw away what waits, and say how many images that was."""
        with self._changed:
            count = len(self._waiting)
            self._held -= sum(map(_size, self._waiting))
            self._waiting.clear()
            return count


def _size(candidate: Candidate) -> int:
    return len(candidate.data) + OVERHEAD_BYTES
