"""Real processes of the real command, for tests that ask over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

COMMAND = Path(sys.executable).with_name("line-ood")
START_S = 120  # importing torch and warming up, on a machine that is busy with other tests


@dataclass
class RunningServer:
    """A `line-ood serve` that answers."""

    url: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    def terminate(self, timeout_s: float = 15) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def running_server(
    *flags: str, env: Mapping[str, str] | None = None, verify: ssl.SSLContext | bool = True
) -> Iterator[RunningServer]:
    """Start `line-ood serve` on a free port and wait until it is ready; `verify` is for its certificate."""
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
    )
    assert process.stdout is not None and process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        first_line = process.stdout.readline()
        assert " on http" in first_line, f"the server did not start: {''.join(log)}"
        url = first_line.partition(" on ")[2].split()[0]
        _wait_until_ready(url, process, log, verify)
        yield RunningServer(url, process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


def offline_scores(artifact: Path, paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What `line-ood score` says of files, by path."""
    command = [COMMAND, "score", "--artifact", artifact, *paths]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {each["path"]: each for each in map(json.loads, lines)}


def _wait_until_ready(url: str, process: subprocess.Popen[str], log: list[str], verify: ssl.SSLContext | bool) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended with {process.returncode}: {''.join(log)}"
        try:
            if httpx.get(f"{url}/readyz", timeout=5, verify=verify).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"not ready within {START_S} s: {''.join(log)}")
