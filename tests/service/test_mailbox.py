"""The way from threads to the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from service.mailbox import Mailbox, Promise
from service.problems import NotReadyError


def test_every_outcome_arrives():
    """Whatever the number of threads that post at once, each promise gets its own outcome, and none is forgotten."""

    async def main() -> None:
        mailbox = Mailbox()
        promises = [Promise(mailbox) for _ in range(5000)]
        outcomes = [NotReadyError(str(number)) for number in range(5000)]
        with ThreadPoolExecutor(8) as pool:
            for promise, outcome in zip(promises, outcomes, strict=True):
                pool.submit(promise.settle, outcome)
            async with asyncio.timeout(20):
                assert [await promise.future for promise in promises] == outcomes

    asyncio.run(main())


def test_many_outcomes_wake_the_loop_once(monkeypatch):
    """Outcomes that are posted before the loop looks are delivered by one call."""

    async def main() -> None:
        loop, woken = asyncio.get_running_loop(), []
        real = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: woken.append(call) or real(*call))
        mailbox = Mailbox()
        promises = [Promise(mailbox) for _ in range(32)]
        for promise in promises:
            promise.settle(NotReadyError("over"))
        await asyncio.gather(*[promise.future for promise in promises])
        assert len(woken) == 1

    asyncio.run(main())


def test_the_first_outcome_counts():
    """Settling twice, or settling what was cancelled, changes nothing and disturbs nobody."""

    async def main() -> None:
        mailbox = Mailbox()
        twice, cancelled, other = (Promise(mailbox) for _ in range(3))
        first = NotReadyError("first")
        cancelled.future.cancel()
        assert not cancelled.claim() and twice.claim()
        for promise, outcome in ((twice, first), (twice, NotReadyError("second")), (cancelled, first), (other, first)):
            promise.settle(outcome)
        assert await twice.future is first
        assert await other.future is first
        assert cancelled.future.cancelled()

    asyncio.run(main())


def test_a_closed_loop_is_no_error():
    """A thread that ends its work after the server has ended is not disturbed."""

    async def main() -> Promise:
        return Promise(Mailbox())

    asyncio.run(main()).settle(NotReadyError("nobody listens"))
