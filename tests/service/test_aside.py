"""Work in threads that nobody waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from contextvars import ContextVar

import pytest

from service.aside import aside, is_any_running

word: ContextVar[str] = ContextVar("word", default="")


def test_the_loop_goes_on_and_gets_the_result():
    """Other tasks run meanwhile; the work sees its caller's context, which logs take the request's id from."""

    async def main() -> tuple[str, int]:
        word.set("here")
        ticks = 0
        work = asyncio.ensure_future(aside(lambda: (time.sleep(0.2), word.get())[1]))
        while not work.done():
            ticks += 1
            await asyncio.sleep(0.01)
        return work.result(), ticks

    result, ticks = asyncio.run(main())
    assert result == "here"
    assert ticks >= 5


@pytest.mark.parametrize(
    "error", [ValueError("bad"), SystemExit("bad"), StopIteration("bad"), KeyboardInterrupt("bad")]
)
def test_an_error_is_the_callers_whatever_it_is(error):
    """It arrives as an exception that ends neither loop nor process."""

    def fail() -> None:
        raise error

    async def main() -> str:
        with pytest.raises(Exception, match="bad") as caught:  # not BaseException
            await aside(fail)
        return str(caught.value)

    assert "bad" in asyncio.run(main())


FAILURE = """
import asyncio, contextlib, gc, weakref
from service.aside import aside

class Large:
    pass

def fail():
    large = Large()
    references.append(weakref.ref(large))
    raise ValueError("bad")

async def main():
    with contextlib.suppress(ValueError):
        await aside(fail)
    for _ in range(100):
        if references[0]() is None:
            return print("gone")
        await asyncio.sleep(0.01)

references = []
gc.disable()
asyncio.run(main())
"""


def test_a_failure_keeps_nothing_alive():
    """What failed is gone with its error, without the collector's help; in a process that checks no types."""
    done = subprocess.run([sys.executable, "-c", FAILURE], capture_output=True, text=True, check=True)
    assert done.stdout == "gone\n"


def test_the_loop_does_not_wait_for_it_at_its_end():
    """A loop that closes leaves the work alone; whoever ends the process can see that it is there."""
    end = threading.Event()

    async def main() -> None:
        task = asyncio.ensure_future(aside(end.wait))
        await asyncio.sleep(0.05)
        task.cancel()

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 2
    assert is_any_running()
    end.set()
    for _ in range(200):
        if not is_any_running():
            return
        time.sleep(0.01)
    raise AssertionError("it runs on")
