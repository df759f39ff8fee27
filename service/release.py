"""Giving back the memory of a version that answers no more.

Almost all of it goes when the last reference does. What refers to itself in a circle waits for Python's collector,
which `service.server` keeps away from all that was loaded before the server began: a full collection would hold up
every request for 0.3 s. So the collector is asked only where a version is still there, and for as little as will do.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import weakref
from collections.abc import Sequence

from scoring.scorer import Scorer
from service.aside import aside

log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # threads that have just ended still hold on to what they worked with
STEP_S = 0.05

Reference = weakref.ReferenceType[object]


def references(scorer: Scorer) -> list[Reference]:
    """To what is large of a version, without keeping it."""
    return [weakref.ref(scorer), weakref.ref(scorer.classifier), weakref.ref(scorer.classifier.backbone)]


async def release(what: Sequence[Reference]) -> None:
    """See that these are gone, and their memory with them."""
    for _ in range(round(PATIENCE_S / STEP_S)):
        if not _is_there(what):
            break
        await asyncio.sleep(STEP_S)
    else:
        _collect(what)
    await aside(_trim)


async def tidy() -> None:
    """Free what has become garbage since the server began."""
    gc.collect()
    await aside(_trim)


def _collect(what: Sequence[Reference]) -> None:
    gc.collect()  # of what has come since the server began: little
    if _is_there(what) and gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
        gc.freeze()
    if _is_there(what):
        log.warning("the version before is still referred to, its memory is not free: %s", what)


def _is_there(what: Sequence[Reference]) -> bool:
    return any(reference() is not None for reference in what)


def _trim() -> None:
    """Have the C library give free memory back to the system; only glibc has such a call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
