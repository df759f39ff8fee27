"""Keeps a monitor's state in a file: read at the start, written now and then and at the end.

The event loop only copies what is to be written; a thread of its own makes it text and writes it beside its place, so
that a full or hanging disk costs no request, nor the end of the process, more than a moment. Both are told in the
log. No save takes away what it does not replace: a file that is of no use is set aside before the first one, and models
that are not served keep their state in it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from scoring.files import write_atomically
from service.aside import aside
from service.monitoring.monitor import Monitor
from service.monitoring.state import StoredState

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0  # what a killed process loses, at most
PATIENCE_S = 0.5  # with the disk, at the end of the process
UNUSABLE = ".unusable"


class Keeper:
    """Owner of one file.

    Args:
        path: the file; its folder has to exist.

    Attributes:
        saved_at: when the file was last written, in seconds since 1970; until then, when there was a keeper.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=1)
        self._is_unusable = False  # what lies at the path
        self._is_failing = False
        self._is_late = False
        self.saved_at = time.time()

    def read(self) -> StoredState | None:
        """What the file holds; nothing where there is none, or none that can be used, which is told."""
        try:
            return StoredState.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            self._is_unusable = True
            reason = str(error) if isinstance(error, OSError) else _first_of(error)
            log.error("the monitor's state cannot be read: monitoring begins anew", extra=self._told(reason))
            return None

    @contextlib.asynccontextmanager
    async def keeping(self, monitor: Monitor) -> AsyncIterator[None]:
        """Save at once, inside the block now and then, and at its end."""
        self._is_unusable |= monitor.has_misfit
        if monitor.unserved:
            told = {"file": str(self._path), "models": monitor.unserved}
            log.warning("models of the monitor's state are not served: their state is kept", extra=told)
        # A daemon: should the disk hang, the process ends all the same.
        thread = threading.Thread(target=self._work, name="monitor-state", daemon=True)
        thread.start()
        saving = asyncio.create_task(self._save_now_and_then(monitor))
        try:
            yield
        finally:
            saving.cancel()
            await aside(partial(self._finish, monitor.snapshot(), thread))

    async def _save_now_and_then(self, monitor: Monitor) -> None:
        while True:
            if self._waiting.empty():
                self._waiting.put_nowait(monitor.snapshot())
                self._is_late = False
            elif not self._is_late:  # the disk has not taken the last one yet
                log.error("the monitor's state cannot be saved", extra=self._told("the disk does not answer"))
                self._is_late = True
            await asyncio.sleep(SAVE_EVERY_S)

    def _finish(self, snapshot: dict[str, Any], thread: threading.Thread) -> None:
        end = time.monotonic() + PATIENCE_S
        with contextlib.suppress(queue.Full):
            for last in (snapshot, None):
                self._waiting.put(last, timeout=max(end - time.monotonic(), 0))
            thread.join(max(end - time.monotonic(), 0))
        if thread.is_alive():
            log.error("the monitor's state was not saved: the disk does not answer", extra=self._told("timeout"))

    def _work(self) -> None:
        while (snapshot := self._waiting.get()) is not None:
            try:
                self._set_aside_if_unusable()
                write_atomically(self._path, as_json(snapshot))
            except OSError as error:
                if not self._is_failing:  # once, not every 30 s for as long as the disk is full
                    log.error("the monitor's state cannot be saved", extra=self._told(str(error)))
                self._is_failing = True
            else:
                if self._is_failing:
                    log.info("the monitor's state can be saved again", extra=self._told(""))
                self._is_failing = False
                self.saved_at = snapshot["saved_at"]

    def _set_aside_if_unusable(self) -> None:
        if not self._is_unusable or self._path.is_dir():  # a folder is nobody's state, and nothing can replace it
            return
        names = (self._path.with_name(f"{self._path.name}{UNUSABLE}{number or ''}") for number in itertools.count())
        place = next(name for name in names if not os.path.lexists(name))  # a second one is kept beside the first
        with contextlib.suppress(FileNotFoundError):  # somebody has been quicker
            self._path.rename(place)
            told = {"file": str(self._path), "kept_as": str(place)}
            log.warning("the monitor's state that is of no use was set aside", extra=told)
        self._is_unusable = False

    def _told(self, reason: str) -> dict[str, str]:
        return {"file": str(self._path), "reason": reason}


def as_json(snapshot: dict[str, Any]) -> bytes:
    """What a `StoredState` is read from."""
    return orjson.dumps(snapshot, default=_as_plain)


def _as_plain(content: object) -> str | dict[str, Any]:
    if isinstance(content, BaseModel):
        return content.model_dump()
    assert isinstance(content, bytes)
    return base64.b64encode(content).decode()


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"
