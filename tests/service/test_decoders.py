"""What decodes ahead of the device, and what it says of those who would have to wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from scoring.types import Pixels
from service.decoders import Decoders
from service.mailbox import Mailbox, Promise
from tests.waiting import until

TAKES_S = 0.1
PIXELS = torch.zeros(3, 2, 2, dtype=torch.uint8)


class Work:
    """Images of which each takes a while, or as long as a gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = 0
        self.delivered: list[float] = []  # how long each took since it was given

    def read(self) -> Pixels:
        self.begun += 1
        time.sleep(TAKES_S)
        self.gate.wait()
        return PIXELS

    def deliver(self, pixels: Pixels, seconds: float) -> None:
        self.delivered.append(seconds)


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.gate.set()


def decoding(count: int, check: Callable[[Decoders, Mailbox], None]) -> None:
    """Run a check where promises can be made, in a loop."""

    async def run() -> None:
        decoders = Decoders(count)
        try:
            check(decoders, Mailbox())
        finally:
            decoders.stop()

    asyncio.run(run())


def test_nobody_waits_where_a_thread_is_free(work):
    """Nothing is known at first; what has been slow is no reason to refuse whom a thread would take up at once."""

    def check(decoders: Decoders, mailbox: Mailbox) -> None:
        assert decoders.wait_s(100) == 0
        decoders.submit(work.read, Promise(mailbox), work.deliver)
        assert decoders.wait_s(100) == 0  # the second thread is free
        until(lambda: work.delivered)
        assert decoders.wait_s(100) == 0

    decoding(2, check)


def test_the_wait_is_that_of_all_before(work):
    """By the time that one has taken lately: four images before and two more with two threads take three turns."""

    def check(decoders: Decoders, mailbox: Mailbox) -> None:
        decoders.submit(work.read, Promise(mailbox), work.deliver)
        until(lambda: work.delivered)
        until(lambda: decoders.mean_s)
        work.gate.clear()
        for _ in range(4):
            decoders.submit(work.read, Promise(mailbox), work.deliver)
        assert decoders.wait_s(2) == pytest.approx(3 * decoders.mean_s)
        assert TAKES_S <= decoders.mean_s < 10 * TAKES_S

    decoding(2, check)


def test_what_nobody_wants_delays_nobody_and_is_not_decoded(work):
    """Images whose requests have ended leave the reckoning at once, and are passed over."""

    def check(decoders: Decoders, mailbox: Mailbox) -> None:
        decoders.submit(work.read, Promise(mailbox), work.deliver)
        until(lambda: work.delivered)
        work.gate.clear()
        promises = [Promise(mailbox) for _ in range(5)]
        for promise in promises:
            decoders.submit(work.read, promise, work.deliver)
        until(lambda: work.begun == 2)
        for promise in promises:
            promise.future.cancel()
            decoders.withdraw(promise)
        assert decoders.wait_s(1) == pytest.approx(2 * decoders.mean_s)  # the first is being decoded
        work.gate.set()
        until(lambda: len(work.delivered) == 2)
        time.sleep(2 * TAKES_S)
        assert work.begun == 2

    decoding(1, check)


def test_it_forgets_what_was_slow(work):
    """After one image of long ago the wait nears what images take now."""

    def check(decoders: Decoders, mailbox: Mailbox) -> None:
        decoders.submit(work.read, Promise(mailbox), work.deliver)
        until(lambda: decoders.mean_s)
        slow = decoders.mean_s
        for _ in range(40):
            decoders.submit(lambda: PIXELS, Promise(mailbox), work.deliver)
        until(lambda: len(work.delivered) == 41 and not decoders.wait_s(1))
        assert decoders.mean_s < slow / 20

    decoding(1, check)


def test_the_time_told_holds_the_wait(work):
    """The seconds that come with the image are since it was given, which is what its request sees."""

    def check(decoders: Decoders, mailbox: Mailbox) -> None:
        for _ in range(2):
            decoders.submit(work.read, Promise(mailbox), work.deliver)
        until(lambda: len(work.delivered) == 2)
        assert work.delivered[0] >= TAKES_S
        assert work.delivered[1] >= 2 * TAKES_S

    decoding(1, check)
