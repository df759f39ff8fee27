"""Work beside the event loop, in a thread that nobody waits for when the process ends.

asyncio's own threads are joined before its loop closes: a download, or a pass that hangs, would hold up the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import TypeVar

T = TypeVar("T")

NAME = "aside"


async def aside(work: Callable[[], T]) -> T:
    """Await `work`, which runs in a thread of its own, in the caller's context. Cancelling does not stop it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    threading.Thread(target=_run, args=(copy_context(), work, loop, future), name=NAME, daemon=True).start()
    try:
        return await future
    finally:
        del future  # or an error would hold on, by its traceback, to itself, and to all that failed with it


def _run(context: Context, work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
    try:
        outcome = partial(_settle, future, result=context.run(work))
    except BaseException as error:  # whatever a network's own code raises, the server goes on
        outcome = partial(_settle, future, error=_as_exception(error))
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(outcome)
    del outcome, future  # likewise


def is_any_running() -> bool:
    """Whether such work is under way."""
    return any(thread.name == NAME for thread in threading.enumerate())


def _settle(future: asyncio.Future[T], *, result: T | None = None, error: Exception | None = None) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if error is None:
        future.set_result(result)  # type: ignore[arg-type]  # None only where T is
    else:
        future.set_exception(error)


def _as_exception(error: BaseException) -> Exception:
    """What a future can carry without ending the loop: exit() in somebody's code is their failure, not our end."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
