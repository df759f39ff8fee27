"""Keeps a monitor's state in a file: read at the start, written now and then and at the end.

The event loop only copies what is to be written; a thread of its own makes it text and writes it beside its place, so
that a full or hanging disk costs no request, nor the end of the process, more than a moment. Both are told in the
log.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import queue
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from service.monitoring.monitor import Monitor
from service.monitoring.state import StoredState

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0  # what a killed process loses, at most
PATIENCE_S = 1.0  # with the disk, at the end of the process


class Keeper:
    """Owner of one file.

    Args:
        path: the file; its folder has to exist.

    Attributes:
        saved_at: when the file was last written, in seconds since 1970; None: not yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=1)
        self._is_failing = False
        self.saved_at: float | None = None

    def read(self) -> StoredState | None:
        """What the file holds; nothing where there is none, or none that can be used, which is told."""
        try:
            return StoredState.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = str(error) if isinstance(error, OSError) else _first_of(error)
            log.error("the monitor's state cannot be read: monitoring begins anew", extra=self._told(reason))
            return None

    @contextlib.asynccontextmanager
    async def keeping(self, monitor: Monitor) -> AsyncIterator[None]:
        """Save at once, inside the block now and then, and at its end."""
        # A daemon: should the disk hang, the process ends all the same.
        thread = threading.Thread(target=self._work, name="monitor-state", daemon=True)
        thread.start()
        saving = asyncio.create_task(self._save_now_and_then(monitor))
        try:
            yield
        finally:
            saving.cancel()
            await asyncio.to_thread(self._finish, monitor.snapshot(), thread)

    async def _save_now_and_then(self, monitor: Monitor) -> None:
        while True:
            if self._waiting.empty():  # else the disk has not taken the last one yet
                self._waiting.put_nowait(monitor.snapshot())
            await asyncio.sleep(SAVE_EVERY_S)

    def _finish(self, snapshot: dict[str, Any], thread: threading.Thread) -> None:
        try:
            for last in (snapshot, None):
                self._waiting.put(last, timeout=PATIENCE_S / 2)
        except queue.Full:
            log.error("the monitor's state was not saved: the disk does not answer", extra=self._told("timeout"))
        else:
            thread.join(PATIENCE_S / 2)

    def _work(self) -> None:
        while (snapshot := self._waiting.get()) is not None:
            try:
                _write(self._path, as_json(snapshot))
            except OSError as error:
                if not self._is_failing:  # once, not every 30 s for as long as the disk is full
                    log.error("the monitor's state cannot be saved", extra=self._told(str(error)))
                self._is_failing = True
            else:
                if self._is_failing:
                    log.info("the monitor's state can be saved again", extra=self._told(""))
                self._is_failing = False
                self.saved_at = snapshot["saved_at"]

    def _told(self, reason: str) -> dict[str, str]:
        return {"file": str(self._path), "reason": reason}


def as_json(snapshot: dict[str, Any]) -> bytes:
    """What a `StoredState` is read from."""
    return orjson.dumps(snapshot, default=_as_text)


def _as_text(content: object) -> str:
    assert isinstance(content, bytes)
    return base64.b64encode(content).decode()


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
