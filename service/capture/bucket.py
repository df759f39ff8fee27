"""A token bucket: so many images a minute, a few at once."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_S = 10  # so many seconds' images may come at once: a moment of unusual scenes comes in a row


class TokenBucket:
    """Fills evenly, up to `BURST_S` seconds' worth. Belongs to one thread.

    Args:
        per_minute: images a minute.
        clock: seconds that never go back.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(self._per_second * BURST_S, 1.0)
        self._tokens = self._capacity
        self._clock = clock
        self._filled_at = clock()

    def take(self) -> bool:
        """Take a token, if there is one."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._filled_at) * self._per_second, self._capacity)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
