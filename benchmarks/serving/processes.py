"""Starting a server, and ending it with everything that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "SERVING_RUN"  # variable that every process of one run inherits, whatever group it moves to
END_S = 15
LAST_LINES = 15


class DeadServerError(Exception):
    """A contestant could not be started; says what its log ends with."""


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server; afterwards nothing that it has started is left."""
    mark = uuid.uuid4().hex
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, MARK: mark},
            cwd=environment["TMPDIR"],  # some leave files where they run
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process, f"{MARK}={mark}".encode())


def last_lines(log: Path) -> str:
    """What a server said before it died."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])


def _end(process: subprocess.Popen[bytes], mark: bytes) -> None:
    process.terminate()
    end = time.monotonic() + END_S
    while time.monotonic() < end and (process.poll() is None or _marked(mark)):
        time.sleep(0.1)
    for pid in _marked(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _marked(mark: bytes) -> list[int]:
    """The processes of one run that are alive."""
    found = []
    for folder in Path("/proc").iterdir():
        # One that has just ended, or belongs to somebody else, cannot be read.
        with suppress(OSError):
            if folder.name.isdecimal() and mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found
