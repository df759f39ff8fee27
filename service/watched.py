"""Files that are read again when they change, by a thread of their own: a disk that hangs holds up no request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scoring.errors import LineOodError

log = logging.getLogger(__name__)

PERIOD_S = 1.0
END_S = 0.1

Stamp = tuple[int, int, int] | None


class Watched:
    """Files that belong together, and what reads them.

    Args:
        paths: the files.
        read: reads them all and puts the result where it is used; changes nothing where it raises.

    Raises:
        LineOodError: at the start they have to be good.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], None]) -> None:
        self._paths = paths
        self._read = read
        self._good = self._look()  # before reading: a change while reading is one to read again
        self._told: list[Stamp] | None = None  # the state that was told to be bad
        read()

    def refresh(self) -> None:
        """Read the files again if they have changed; if they are broken, keep what was read before, and say so once.

        What is broken is tried again each time: a disk comes back, and permissions change without a trace in a stamp.
        """
        stamps = self._look()
        if stamps == self._good:
            return
        fields = {"files": [str(path) for path in self._paths]}
        try:
            self._read()
        except LineOodError as error:
            if stamps != self._told:
                log.error("changed, but not good: what was read before stays (%s)", error, extra=fields)
            self._told = stamps
        else:
            self._good, self._told = stamps, None
            log.info("read again", extra=fields)

    def _look(self) -> list[Stamp]:
        return [_stamp(path) for path in self._paths]


@contextmanager
def watching(*watched: Watched) -> Iterator[None]:
    """Look at the files once a second."""
    if not watched:
        yield
        return
    over = threading.Event()

    def look() -> None:
        while not over.wait(PERIOD_S):
            for each in watched:
                each.refresh()

    thread = threading.Thread(target=look, name="watched-files", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(END_S)  # no longer: a disk that hangs must not hold up the end either


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()  # of what a link points to: Kubernetes changes secrets by changing a link
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
