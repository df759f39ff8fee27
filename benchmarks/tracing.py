"""What tracing costs a request: the figures of docs/tracing.md.

    python -m benchmarks.tracing    the classifier that does next to nothing, asked by one client

Three servers run side by side and are asked in turn: without tracing, with every request sampled, with none. The
collector is a process of its own that takes everything. Latency is the client's; processor time is the server
process's, the thread that sends the spans included.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.serving import ours, tiny
from benchmarks.serving.asking import Endpoint, wait_until_it_answers
from benchmarks.serving.folders import BENCH, LOGS, make_folders
from benchmarks.serving.pictures import tiny_classes
from benchmarks.serving.ports import free_port
from benchmarks.serving.processes import running

ROUNDS, TURN = 60, 50  # requests to one server before the next one's turn
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
HEADERS = {"Content-Type": "image/jpeg"}
PICTURES, PER_CLASS = BENCH / "tiny", 20

SERVERS = {
    "off": {},
    "sampled": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
    "not sampled": {"OTEL_TRACES_SAMPLER": "parentbased_always_off"},
}


class Server:
    """One that runs.

    Args:
        pid: of its process.
        port: where it listens.
        body: what it is asked.
    """

    def __init__(self, pid: int, port: int, body: bytes) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._body = body
        self.seconds: list[float] = []  # of each request
        self.cpu_s = 0.0

    def take_turn(self, count: int) -> None:
        """Ask so many times."""
        before = self._cpu()
        for _ in range(count):
            started = perf_counter()
            self._connection.request("POST", "/v1/predict", self._body, HEADERS)
            response = self._connection.getresponse()
            response.read()
            self.seconds.append(perf_counter() - started)
            assert response.status == http.client.OK
        self.cpu_s += self._cpu() - before

    def _cpu(self) -> float:
        return TICK_S * sum(map(int, self._stat.read_text().rpartition(")")[2].split()[11:13]))


class _Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(http.client.OK)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """It takes what comes."""


def _collect(port: int) -> None:
    HTTPServer(("127.0.0.1", port), _Taker).serve_forever()


@contextmanager
def collecting() -> Iterator[str]:
    """A collector's base URL."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_collect, args=(port,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


def main() -> None:
    """Start all, ask them in turn, print."""
    make_folders()
    tiny_classes(PICTURES, tiny.CLASSES, PER_CLASS, tiny.SIDE)
    ours.prepare(ours.TINY_ARTIFACT, PICTURES)
    body = (PICTURES / tiny.CLASSES[0] / "0.jpg").read_bytes()
    with ExitStack() as stack:
        temporary = stack.enter_context(TemporaryDirectory())
        collector = stack.enter_context(collecting())
        servers = {}
        for name, own in SERVERS.items():
            environment = {**os.environ, **own, "TMPDIR": temporary}
            if own:
                environment["LINE_OOD_OTLP_ENDPOINT"] = collector
            port, log = free_port(), LOGS / f"tracing-{name.replace(' ', '-')}.log"
            command = [part.format(port=port) for part in ours.serve_command(ours.TINY_ARTIFACT)]
            process = stack.enter_context(running(command, environment, log))
            wait_until_it_answers(Endpoint(port, "/v1/predict", HEADERS), body, process, log)
            servers[name] = Server(process.pid, port, body)
        for server in servers.values():
            server.take_turn(TURN)
            server.seconds, server.cpu_s = [], 0.0
        for _ in range(ROUNDS):
            for server in servers.values():
                server.take_turn(TURN)
    _print(servers)


def _print(servers: dict[str, Server]) -> None:
    off = servers["off"]
    base = statistics.median(off.seconds)
    print(f"{len(off.seconds)} requests each      median        ratio    99 %       CPU")
    for name, server in servers.items():
        seconds = server.seconds
        median, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[-1]
        cpu = server.cpu_s / len(seconds)
        print(f"{name:20} {1000 * median:8.3f} ms {median / base:10.3f} {1000 * p99:8.3f} ms {1000 * cpu:6.3f} ms")


if __name__ == "__main__":
    main()
