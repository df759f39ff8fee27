"""Single questions to a server: is it there, and does it answer the right thing."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from benchmarks.serving.processes import DeadServerError, last_lines

START_S = 180
TIMEOUT_S = 30
TOGETHER = 8  # so that servers batch, and would mix up their answers if they can


@dataclass(frozen=True)
class Endpoint:
    """Where to post.

    Attributes:
        port: on this machine.
        path: of the endpoint.
        headers: of each request.
    """

    port: int
    path: str
    headers: Mapping[str, str]

    @property
    def url(self) -> str:
        """The address in one."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", self.path, body, dict(self.headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def wait_until_it_answers(endpoint: Endpoint, body: bytes, process: Popen[bytes], log: Path) -> None:
    """Post until the answer is a 200.

    Raises:
        DeadServerError: the process has ended, or takes too long.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise DeadServerError(f"it ended with {process.returncode}:\n{last_lines(log)}")
        try:
            if endpoint.post(body)[0] == http.client.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not yet
        time.sleep(0.2)
    raise DeadServerError(f"no answer within {START_S} s:\n{last_lines(log)}")


def agreement(
    endpoint: Endpoint, jpegs: Sequence[bytes], wanted: Sequence[int], index: Callable[[bytes], int]
) -> float:
    """Share of pictures that get the class they should; rounding in bf16 costs some."""

    def classify(jpeg: bytes) -> int:
        status, answer = endpoint.post(jpeg)
        return index(answer) if status == http.client.OK else -1

    with ThreadPoolExecutor(TOGETHER) as pool:
        found = list(pool.map(classify, jpegs))
    return sum(one == other for one, other in zip(found, wanted, strict=True)) / len(wanted)
