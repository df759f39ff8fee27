"""What a client can do to a connection, and that it ends: real sockets, real times (shortened where they are long)."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from service import protocol
from service.app import create_app
from service.metrics import ENDS, Metrics
from service.protocol import LINGER_S, MAX_HEADER_BYTES, MAX_HEADERS, SPARE_CONNECTIONS
from service.settings import Settings
from tests.metrics import sample
from tests.service.conftest import GatedScorer, LiveApp, encode, live, only
from tests.waiting import until

SOON_S = 2.5  # the times below are looked at once a second
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def tiny(tiny_artifact):
    import torch

    from scoring.scorer import Scorer

    return Scorer.load(tiny_artifact, torch.device("cpu"))


@pytest.fixture(scope="module")
def running(tiny) -> Iterator[LiveApp]:
    """A server with short times."""
    app = create_app([only(tiny)], Settings(timeout_s=1))

    @app.get("/large")
    async def large() -> str:
        return "x" * 30_000_000

    with live(app, headers_s=0.6, request_s=1.5, answer_s=0.6) as running:
        yield running


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=15)


def read_to_end(connection: socket.socket) -> tuple[bytes, float]:
    """All that comes until the server closes, and how long that took; a reset fails the test."""
    started = time.monotonic()
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data, time.monotonic() - started


def talk(url: str, *sent: bytes) -> tuple[bytes, float]:
    with closing(connect(url)) as connection:
        for each in sent:
            connection.sendall(each)
        return read_to_end(connection)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def problem_of(answer: bytes) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    return json.loads(body)


class TestTime:
    def test_a_silent_connection_is_closed(self, running):
        """Who connects and says nothing, or only line breaks, is not kept."""
        before = sample(running.url, "line_ood_ended_connections_total", reason="silent")
        with ThreadPoolExecutor(2) as pool:
            for answer, seconds in pool.map(lambda said: talk(running.url, said), [b"", b"\r\n\r\n"]):
                assert answer == b""
                assert 0.5 < seconds < SOON_S
        assert sample(running.url, "line_ood_ended_connections_total", reason="silent") == before + 2

    def test_headers_that_trickle_are_408(self, running):
        """A byte now and then keeps no request alive whose headers do not end; nor on a used connection."""

        def trickle(first: bytes) -> tuple[bytes, float]:
            started = time.monotonic()
            with closing(connect(running.url)) as connection:
                connection.sendall(first)
                if first:
                    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
                connection.sendall(GET)
                connection.settimeout(0.1)
                for byte in b"X-Slow: " + b"x" * 100:
                    connection.sendall(bytes([byte]))
                    try:
                        answer = connection.recv(65536)
                    except TimeoutError:
                        continue
                    return answer, time.monotonic() - started
            raise AssertionError("it was not ended")

        with ThreadPoolExecutor(2) as pool:
            for answer, seconds in pool.map(trickle, [b"", GET + b"\r\n"]):
                assert status_of(answer) == 408
                assert problem_of(answer)["code"] == "headers_late"
                assert 0.5 < seconds < SOON_S

    def test_a_body_that_trickles_is_ended(self, running):
        """The route's deadline answers 504; whoever goes on sending after that loses the connection."""
        with closing(connect(running.url)) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            started = time.monotonic()
            data = b""
            try:
                while time.monotonic() - started < 10:
                    connection.sendall(b"x")
                    connection.settimeout(0.1)
                    try:
                        chunk = connection.recv(65536)
                    except TimeoutError:
                        continue
                    if not chunk:
                        break
                    data += chunk
            except (ConnectionResetError, BrokenPipeError):
                pass  # it is still sending
            assert status_of(data) == 504
            assert 1.4 < time.monotonic() - started < 1.5 + SOON_S

    def test_a_refused_body_that_trickles_is_ended(self, running):
        """So does who was refused before the body was read."""
        with closing(connect(running.url)) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
            answer, seconds = read_to_end(connection)
        assert status_of(answer) == 413
        assert seconds < 1.5 + SOON_S

    def test_an_answer_that_nobody_takes_is_thrown_away(self, running):
        """A client that asks for much and does not read loses the connection, and the server its 30 MB."""
        with closing(connect(running.url)) as connection:
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(1 + SOON_S)
            assert sample(running.url, "line_ood_ended_connections_total", reason="answer_not_taken") == 1
            received = 0
            try:
                while chunk := connection.recv(2**20):
                    received += len(chunk)
            except ConnectionResetError:
                pass
            assert 0 < received < 30_000_000

    def test_a_client_that_pauses_between_requests_keeps_its_connection(self, running):
        """The times are for requests under way: an idle connection has a minute."""
        with httpx.Client(base_url=running.url) as client:
            assert client.get("/livez").status_code == 200
            stream = client._transport._pool.connections[0]
            time.sleep(SOON_S)
            assert client.get("/livez").status_code == 200
            assert client._transport._pool.connections == [stream]


class TestSize:
    @pytest.mark.parametrize(
        "request_head",
        [
            GET + b"X: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",
            GET + b"X: x\r\n" * MAX_HEADERS + b"\r\n",
            b"GET /" + b"x" * MAX_HEADER_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
        ids=["bytes", "count", "address"],
    )
    def test_too_many_headers_are_431(self, running, request_head):
        """So are too long ones, and a request line that is too long."""
        answer, _ = talk(running.url, request_head)
        assert status_of(answer) == 431
        assert problem_of(answer)["code"] == "headers_too_large"

    def test_what_is_just_allowed_is_answered(self, running):
        """The bounds are bounds, and not near what clients send."""
        longest = GET + b"X: " + b"x" * (MAX_HEADER_BYTES - 100) + b"\r\n"
        most = GET + b"X: x\r\n" * (MAX_HEADERS - 2)
        for head in (longest, most):
            answer, _ = talk(running.url, head + b"Connection: close\r\n\r\n")
            assert status_of(answer) == 200

    @pytest.mark.parametrize(
        ("begin", "more"),
        [
            (b"GET /", b"x"),
            (GET + b"X: ", b"x"),
            (GET + b"X", b"x"),
            (CHUNKED + b"0\r\n", b"a:b\r\n"),
            (CHUNKED + b"0\r\nX: ", b"x"),
            (CHUNKED + b"4\r\nabcd\r\n4;", b"x"),
        ],
        ids=["address", "value", "name", "trailers", "trailer", "extension of a chunk"],
    )
    def test_endless_headers_end(self, running, begin, more):
        """They are not collected until memory is full: soon after the bound the client is told, and cut off."""
        before = sample(running.url, "line_ood_refused_requests_total", reason="headers_too_large")
        with closing(connect(running.url)) as connection:
            connection.sendall(begin)
            started = time.monotonic()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                while time.monotonic() - started < 10:
                    connection.sendall(more * (65536 // len(more)))
        assert time.monotonic() - started < LINGER_S + 1
        assert sample(running.url, "line_ood_refused_requests_total", reason="headers_too_large") == before + 1

    def test_trailers_are_nobodys(self, running):
        """A chunked body may be followed by some; they are no headers of the request, which is answered."""
        body = b"".join([b"%x\r\n%s\r\n" % (len(part), part) for part in (encode()[:100], encode()[100:])])
        trailers = b"X-Request-ID: mine\r\n" * 3
        head = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        answer, _ = talk(running.url, head + body + b"0\r\n" + trailers + b"\r\n")
        assert status_of(answer) == 200
        assert b"mine" not in answer


class TestFraming:
    @pytest.mark.parametrize(
        "said",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / FTP/1.1\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET /livez HTTP/1.1\nHost: x\n\n",
            b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        ],
        ids=["TLS", "FTP", "two framings", "two lengths", "negative", "bad chunk", "space", "bare LF", "CONNECT"],
    )
    def test_what_is_no_http_is_a_problem(self, running, said):
        """One answer, 400, as a problem; nothing behind it is taken for a request, so none can be smuggled in."""
        answer, _ = talk(running.url, said, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert status_of(answer) == 400
        assert problem_of(answer)["code"] == "malformed_request"

    def test_garbage_behind_a_request_does_not_take_its_answer(self, running):
        """The request before still gets its own answer, and only that."""
        head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(encode())
        answer, _ = talk(running.url, head + encode() + b"\x00\x01 garbage\r\n\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert status_of(answer) == 200

    def test_an_upgrade_is_not_made(self, running):
        """A WebSocket is not spoken: the request is answered as what it is otherwise."""
        with closing(connect(running.url)) as connection:
            connection.sendall(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")

    @pytest.mark.parametrize("path", ["/livez", "/readyz"])
    def test_head_of_health(self, running, path):
        """Some balancers ask with HEAD."""
        answer = httpx.head(running.url + path)
        assert (answer.status_code, answer.content) == (200, b"")


class TestEnd:
    def test_an_answer_arrives_although_the_body_was_not_read(self, running):
        """`Connection: close` and a refused body: no reset takes the 413 away while the client is still sending."""
        for _ in range(5):
            with closing(connect(running.url)) as connection:
                connection.sendall(
                    b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 20000000\r\n\r\n"
                )
                for _ in range(100):
                    connection.sendall(b"x" * 50_000)
                time.sleep(0.1)
                answer, seconds = read_to_end(connection)
            assert status_of(answer) == 413
            assert seconds < 2


class TestCount:
    def test_surplus_connections(self, tiny):
        """Beyond the bound: 503 and closed, health is answered; far beyond: closed unread; then there is room again."""
        app = create_app([only(tiny)], Settings(max_connections=3))
        with live(app) as running:
            kept = [connect(running.url) for _ in range(3)]
            for connection in kept:
                connection.sendall(GET + b"\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            answer, seconds = talk(running.url, b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
            assert status_of(answer) == 503
            assert problem_of(answer)["code"] == "too_many_connections"
            assert b"retry-after: 1" in answer.lower()
            assert seconds < 2
            healthy, _ = talk(running.url, GET + b"\r\n")
            assert status_of(healthy) == 200
            spare = [connect(running.url) for _ in range(SPARE_CONNECTIONS)]
            for connection in spare:
                connection.sendall(b"G")
            time.sleep(0.3)
            with closing(connect(running.url)) as connection, pytest.raises(ConnectionError):
                connection.sendall(GET + b"\r\n")
                assert connection.recv(1) == b""
                raise ConnectionError
            for connection in [*spare, *kept]:
                connection.close()
            time.sleep(0.3)
            assert httpx.get(f"{running.url}/metrics").status_code == 200
            assert sample(running.url, "line_ood_ended_connections_total", reason="too_many_connections") == 1
            assert "line_ood_open_connections 1.0" in httpx.get(f"{running.url}/metrics").text


def test_a_broken_body_stops_its_request(gated: GatedScorer, start: Callable[..., LiveApp]):
    """A body whose chunks are no chunks is answered at once, and what waited for it leaves the queue."""
    running = start(gated)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer, seconds = talk(running.url, head + b"4\r\nabcd\r\n", b"no chunk\r\n")
    assert status_of(answer) == 400
    assert seconds < 1
    until(lambda: sample(running.url, "line_ood_admitted_images") == 0)


def test_every_end_is_counted_from_zero():
    """A reason that a connection ends for has its series from the start: its first event is an increase."""
    source = Path(protocol.__file__).read_text()
    reasons = set(re.findall(r'self\._abort\("(\w+)"\)', source))
    assert reasons == set(ENDS)
    exposed = Metrics(max_batch=1).exposition().decode()
    assert all(f'line_ood_ended_connections_total{{reason="{reason}"}} 0.0\n' in exposed for reason in reasons)
