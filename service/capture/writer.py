"""The thread that writes what was chosen: hashes it, makes room for it, puts image and side file where they belong.

A failure loses the image that it happened on, no other: the next one is tried again. What lies at the target is listed
at the start, after failures, and now and then, because people take images away.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from service.capture.backlog import Backlog
from service.capture.candidate import Candidate
from service.capture.counts import Counts
from service.capture.names import SIDE, SUFFIXES, Name
from service.capture.shelf import Kept, Shelf, kept_of
from service.capture.target import Target
from service.complaint import Complaint

log = logging.getLogger(__name__)

LISTED_FOR_S = 3600  # so old may be what is known of the target,
LISTED_BEFORE_DELETING_S = 600  # so old where something is to be deleted for it,
LISTED_AFTER_FAILURE_S = 60  # and so old once something has failed; listing costs, and failures come in a row


class Writer:
    """Owns the target while it runs.

    Args:
        target: where the images go.
        backlog: where they come from.
        counts: told of everything.
        max_bytes: of all that is kept; the oldest goes first.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        target: Target,
        backlog: Backlog,
        counts: Counts,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._backlog = backlog
        self._counts = counts
        self._max_bytes = max_bytes
        self._clock = clock
        self._shelf = Shelf()
        self._listed_at = float("-inf")
        self._is_doubtful = False  # something has failed since
        self._failing = Complaint(log, f"capturing images to {target.shown} fails", clock)
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, which comes once the backlog is closed and empty."""
        self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _work(self) -> None:
        self._attempt(self._list)
        while (candidate := self._backlog.take()) is not None:
            self._attempt(partial(self._keep, candidate))
            self._backlog.release(candidate)
            del candidate  # or its bytes would be held until the next one comes

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # each file system raises what it likes
            self._is_doubtful = True
            self._counts.failed()
            self._failing.tell(error)

    def _keep(self, candidate: Candidate) -> None:
        sha256 = hashlib.sha256(candidate.data).hexdigest()
        self._list_unless_known_for(LISTED_AFTER_FAILURE_S if self._is_doubtful else LISTED_FOR_S)
        if self._shelf.holds(sha256):
            self._counts.dropped("duplicate")
            return
        record = candidate.record(sha256)
        side = record.model_dump_json().encode()
        suffix = SUFFIXES[record.content_type]
        stem = Name(record.time, record.reason, sha256).stem
        kept = Kept(stem, (SIDE, suffix), len(candidate.data) + len(side))
        if kept.bytes > self._max_bytes:
            self._counts.dropped("too_large")
            return
        self._make_room(kept.bytes)
        self._put(stem, suffix, candidate.data, side)
        self._failing.end()
        self._shelf.add(kept)
        self._counts.lies_there(self._shelf.bytes)
        self._counts.kept(record.model, record.reason)

    def _put(self, stem: str, suffix: str, image: bytes, side: bytes) -> None:
        """The image first, so that a side file always has its image."""
        try:
            self._target.put(stem + suffix, image)
            self._target.put(stem + SIDE, side)
        except Exception:
            with contextlib.suppress(Exception):
                self._target.delete(stem + suffix)
            raise

    def _make_room(self, size: int) -> None:
        if self._shelf.bytes + size > self._max_bytes:
            self._list_unless_known_for(LISTED_BEFORE_DELETING_S)
        while self._shelf.bytes + size > self._max_bytes and (oldest := self._shelf.oldest()):
            for path in oldest.paths:
                self._target.delete(path)
            self._shelf.remove(oldest)
            self._counts.lies_there(self._shelf.bytes)
            following = self._shelf.oldest()
            if following is None or following.day != oldest.day:
                self._target.delete_folder(oldest.day)

    def _list_unless_known_for(self, seconds: float) -> None:
        if self._clock() - self._listed_at > seconds:
            self._list()

    def _list(self) -> None:
        self._shelf = Shelf(kept_of(self._target.sizes(sweep=True)))
        self._listed_at, self._is_doubtful = self._clock(), False
        self._counts.lies_there(self._shelf.bytes)
