"""A trouble that lasts, told in the log once a minute, not once an image."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

EVERY_S = 60


class Complaint:
    """One kind of trouble. Belongs to one thread.

    Args:
        log: told.
        message: what is the matter.
        clock: seconds that never go back.
    """

    def __init__(self, log: logging.Logger, message: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._message = message
        self._clock = clock
        self._quiet_until = float("-inf")
        self._untold = 0
        self._count = 0

    def tell(self, error: BaseException | None = None) -> None:
        """It has happened."""
        self._untold += 1
        self._count += 1
        if (now := self._clock()) < self._quiet_until:
            return
        self._quiet_until = now + EVERY_S
        reason = {} if error is None else {"reason": f"{type(error).__name__}: {error}"}
        self._log.warning(self._message, extra={"times": self._untold, **reason})
        self._untold = 0

    def end(self) -> None:
        """It went well. After EVERY_S without trouble that is told; trouble that comes and goes is told as one."""
        if self._count and self._clock() >= self._quiet_until:
            self._log.warning("over: %s", self._message, extra={"times": self._count})
            self._untold = self._count = 0
