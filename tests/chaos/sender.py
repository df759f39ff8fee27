"""Requests at the times at which they are due, whether earlier ones have been answered or not, over kept connections.

A client that waits for its answer slows down with the server and never sees how long the queue would have been. Times
count from when a request was due.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from tests.chaos.traffic import judge

LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
PATIENCE_S = 60


class Picture(NamedTuple):
    """What is posted, and what is right."""

    data: bytes
    score: float


class Reply(NamedTuple):
    """What became of one request."""

    due: float
    seconds: float
    outcome: str  # `right`, a status, `wrong: ...` or `lost: ...`


class Sender:
    """Posts pictures to `/v1/predict`.

    Args:
        url: of the server.
        pictures: in turn.
    """

    def __init__(self, url: str, pictures: Sequence[Picture]) -> None:
        self._host, _, self._port = url.removeprefix("http://").partition(":")
        self._pictures = pictures
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._count = 0

    async def capacity(self, clients: int, seconds: float) -> float:
        """Right answers a second, where so many clients post one picture after the other."""
        end = time.monotonic() + seconds

        async def client() -> int:
            count = 0
            while time.monotonic() < end:
                reply = await self.post(time.monotonic())
                assert reply.outcome == "right", reply
                count += 1
            return count

        started = time.monotonic()
        counts = await asyncio.gather(*(client() for _ in range(clients)))
        return sum(counts) / (time.monotonic() - started)

    async def at_rate(self, rate: float, seconds: float) -> list[Reply]:
        """So many requests a second in the mean, independent of each other."""
        rng, posts = random.Random(0), []
        due = begun = time.monotonic()
        while due < begun + seconds:
            await asyncio.sleep(due - time.monotonic())
            posts.append(asyncio.create_task(self.post(due)))
            due += rng.expovariate(rate)
        return await asyncio.gather(*posts)

    async def post(self, due: float) -> Reply:
        """One request that was due then."""
        self._count += 1
        identity, picture = f"r{self._count}", self._pictures[self._count % len(self._pictures)]
        try:
            status, body = await asyncio.wait_for(self._exchange(identity, picture.data), PATIENCE_S)
            outcome = judge(status, orjson.loads(body), identity, picture.score)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            outcome = f"lost: {error!r}"
        return Reply(due, time.monotonic() - due, outcome)

    def close(self) -> None:
        """Hang up."""
        for _, writer in self._idle:
            writer.close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # the server ends what has been idle for a minute
        return await asyncio.open_connection(self._host, self._port)

    async def _exchange(self, identity: str, data: bytes) -> tuple[int, bytes]:
        reader, writer = connection = await self._connection()
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nX-Request-ID: {identity}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + data)
            answer = await reader.readuntil(b"\r\n\r\n")
            found = LENGTH.search(answer)
            assert found, answer
            body = await reader.readexactly(int(found[1]))
        except BaseException:
            writer.close()
            raise
        if b"\r\nconnection: close\r\n" in answer.lower():
            writer.close()
        else:
            self._idle.append(connection)
        return int(answer[9:12]), body
