"""Loads of models while they are served: how one ends, told to whoever asked, to the log and to the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scoring.errors import LineOodError, SelfTestError
from service.problems import LoadFailedError, LoadRefusedError, NotReadyError, ServiceError
from service.release import tidy

log = logging.getLogger(__name__)

SLOW_S = 180


@dataclass(frozen=True)
class Load:
    """How a load ended.

    Attributes:
        outcome: `switched`, or `unchanged` where the file holds what is served already.
        artifact_id: what answers from now on.
        previous: what answered before.
    """

    outcome: str
    artifact_id: str
    previous: str


async def attempt(what: str, load: Callable[[], Awaitable[Load]], count: Callable[[str], None]) -> Load:
    """Load; whatever goes wrong, what was served before still is.

    Args:
        what: is loaded, for the log.
        load: does it.
        count: told the outcome.

    Raises:
        LoadRefusedError: the files are not usable.
        LoadFailedError: the server could not load them.
        NotReadyError: the server ends.
    """
    problem: ServiceError
    slow = asyncio.get_running_loop().call_later(SLOW_S, log.error, "loading %s still goes on after %d s", what, SLOW_S)
    try:
        ended = await load()
    except NotReadyError:
        raise
    except LineOodError as error:
        count("self_test_failed" if isinstance(error, SelfTestError) else "refused")
        log.error("loading %s was refused, the version before goes on: %s", what, error)
        problem = LoadRefusedError(f"{error}; the version before goes on")
    except Exception as error:
        count("failed")
        log.exception("loading %s failed, the version before goes on", what)
        problem = LoadFailedError(f"{_first_line(error)}; the version before goes on")
    else:
        count(ended.outcome)
        ids = {"artifact_id": ended.artifact_id, "previous_artifact_id": ended.previous}
        log.info("loading %s: %s", what, ended.outcome, extra=ids)
        return ended
    finally:
        slow.cancel()
    await tidy()  # of what was loaded in vain
    raise problem


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
