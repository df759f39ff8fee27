"""Load over HTTP: wrk, which costs next to nothing beside the server, posts real pictures in turn.

Latencies are wrk's: where a connection had to wait longer than usual it counts the requests that it could not send.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONCURRENCIES = (1, 8, 32)
SCRIPT = Path(__file__).with_name("post.lua")
TIMEOUT_S = 10


@dataclass(frozen=True)
class Target:
    """Where and what to ask.

    Attributes:
        url: of the endpoint.
        headers: of each request.
        pictures: file that lists the pictures, one path a line.
    """

    url: str
    headers: Mapping[str, str]
    pictures: Path


@dataclass(frozen=True)
class Load:
    """What one run of wrk has measured.

    Attributes:
        concurrency: connections, each with one request at a time.
        requests_per_s: answered requests, whatever their status.
        p50_ms: median latency.
        p99_ms: latency of the slowest hundredth.
        bad_statuses: answers with a status of 400 or more.
        socket_errors: connections refused or broken, and requests without an answer in time.
    """

    concurrency: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    bad_statuses: int
    socket_errors: int

    @property
    def errors(self) -> int:
        """Everything that was no answer."""
        return self.bad_statuses + self.socket_errors


def measure(target: Target, concurrency: int, seconds: float) -> Load:
    """A warm-up, which counts for nothing, and a run."""
    _wrk(target, concurrency, max(1, round(seconds / 4)))
    return _wrk(target, concurrency, max(1, round(seconds)))


def check_installed() -> None:
    """Say what to install.

    Raises:
        SystemExit: wrk is missing.
    """
    if shutil.which("wrk") is None:
        raise SystemExit("the load generator wrk is missing: apt-get install wrk")


def _wrk(target: Target, concurrency: int, seconds: int) -> Load:
    command = ["wrk", "--threads", "1", "--connections", str(concurrency), "--duration", f"{seconds}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), target.url, "--", str(target.pictures)]
    command += [f"{name}: {value}" for name, value in target.headers.items()]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured = json.loads(printed.splitlines()[-1])
    return Load(
        concurrency=concurrency,
        requests_per_s=measured["requests"] / measured["seconds"],
        p50_ms=measured["p50_ms"],
        p99_ms=measured["p99_ms"],
        bad_statuses=measured["bad_statuses"],
        socket_errors=measured["socket_errors"],
    )
