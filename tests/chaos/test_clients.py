"""Clients that vanish, trickle, or send too much, many at a time: the others are answered as if there were none."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.chaos.conftest import Common
from tests.chaos.figures import record
from tests.chaos.scale import SCALE
from tests.chaos.traffic import Traffic
from tests.metrics import sample
from tests.service.conftest import encode
from tests.service.test_protocol import connect
from tests.waiting import until

AT_A_TIME = 20
TRICKLE_S = 2
ELEVEN_MIB = 11 * 2**20
CHUNK = bytes(2**16)
POST = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"

Misbehave = Callable[[str, int], None]


def head(length: int) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % length


def vanish(url: str, number: int) -> None:
    """In the middle of the headers, of the body, or while the answer is made; with a good-bye or with a reset."""
    data = encode(number)
    whole = head(len(data)) + data
    with closing(connect(url)) as connection:
        if number % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(whole[: (20, len(whole) // 2, len(whole) - 1, len(whole))[number % 4]])
        time.sleep(number % 3 / 200)


def trickle(url: str, number: int) -> None:
    """A byte now and then, of headers or of a body; and then no more."""
    said = head(1000) if number % 2 else b""
    with closing(connect(url)) as connection:
        connection.sendall(said)
        for byte in (POST * 20)[: TRICKLE_S * 20]:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)


def send_eleven_mib(url: str, number: int) -> None:
    """With their length told before, or in chunks: 413 in either case, and nothing is lost to a reset."""
    with closing(connect(url)) as connection:
        if number % 2:
            connection.sendall(head(ELEVEN_MIB))
        else:
            connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(ELEVEN_MIB // len(CHUNK)):
                connection.sendall(CHUNK if number % 2 else b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK))
        except (BrokenPipeError, ConnectionResetError):
            pass  # a client that goes on sending after its answer; what came is still there to be read
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("misbehave", "name"),
    [(vanish, "clients that vanish"), (trickle, "clients that trickle"), (send_eleven_mib, "clients that send 11 MiB")],
)
def test_clients_that_misbehave(common: Common, scores, misbehave: Misbehave, name: str):
    """All answers to the others are right; afterwards no room and no connection is held for those who misbehaved."""
    traffic = Traffic(common.url, scores)
    before = sample(common.url, "line_ood_open_connections")
    with traffic.running():
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(lambda number: misbehave(common.url, number), range(SCALE.clients)))
        ended = time.monotonic()
        traffic.calm()
    tally = traffic.tally()
    assert tally.keys() == {"right"}, tally
    until(lambda: sample(common.url, "line_ood_admitted_images") == sample(common.url, "line_ood_queue_depth") == 0)
    until(lambda: sample(common.url, "line_ood_open_connections") <= before)
    record(name, SCALE.clients, tally, traffic.recovery_s(ended), f"{AT_A_TIME} at a time")
