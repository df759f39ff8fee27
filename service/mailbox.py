"""From the threads that score to the event loop: outcomes of single images, many of them for one wake-up.

Waking a loop is a system call, and takes the interpreter from whoever has it; a batch that ends wakes it once.
"""

from __future__ import annotations

import asyncio
from collections import deque

from scoring.errors import ImageError
from service.batcher import Outcome


class Mailbox:
    """Belongs to the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._outcomes: deque[tuple[asyncio.Future[Outcome], Outcome]] = deque()
        self._is_awaited = False  # the loop will look

    def post(self, promise: asyncio.Future[Outcome], outcome: Outcome) -> None:
        """Tell the loop what becomes of a promise; from any thread. What is settled already stays as it is."""
        self._outcomes.append((promise, outcome))
        if not self._is_awaited:
            self._is_awaited = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: a forward pass outlasted the drain, and nobody waits
                return

    def _deliver(self) -> None:
        self._is_awaited = False  # before looking: who posts from now on wakes the loop again
        while self._outcomes:
            promise, outcome = self._outcomes.popleft()
            if not promise.done():
                promise.set_result(outcome)


class Promise:
    """The `Waiter` of one image, for a coroutine.

    Args:
        mailbox: brings the outcome.

    Attributes:
        future: of the outcome; cancelled, it is not wanted any more.
    """

    __slots__ = ("_mailbox", "future")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def claim(self) -> bool:
        """Whether the image is still wanted."""
        return not self.future.cancelled()

    def settle(self, outcome: Outcome) -> None:
        """Take what became of the image."""
        if isinstance(outcome, ImageError):
            _forget_frames(outcome)
        self._mailbox.post(self.future, outcome)


def _forget_frames(error: ImageError) -> None:
    """Let go of where an error came from.

    It refers to the frames that it went through, with the half-decoded picture, and they to the promise, which is to
    hold the error: a circle, and with it up to 200 MB, until Python's collector comes by, which does not see them.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
