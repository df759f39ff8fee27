"""The device fails while clients wait: each failure is that image's alone, and told; the server is well at once after.

Where a thread dies, the server says so and is replaced, as a supervisor would: clients that come again lose nothing.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.chaos.conftest import ENVIRONMENT
from tests.chaos.figures import record
from tests.chaos.scale import SCALE
from tests.chaos.traffic import PNG, Traffic
from tests.factories.faulty import VARIABLE
from tests.metrics import sample
from tests.processes import RunningServer, running_server
from tests.service.test_pressure import white_image
from tests.waiting import until

FAULT_S = 0.3
FAULTY = ("--model", "tests.factories.faulty:faulty")


@contextmanager
def faulty_server(artifact: Path, fault: Path, *flags: str) -> Iterator[RunningServer]:
    with running_server(
        "--artifact", str(artifact), *FAULTY, *flags, env=ENVIRONMENT | {VARIABLE: str(fault)}
    ) as server:
        yield server


@pytest.fixture(scope="module")
def fault(tmp_path_factory) -> Path:
    """The file that says what the device does."""
    return tmp_path_factory.mktemp("fault") / "fault"


@pytest.fixture(scope="module")
def device(tiny_artifact, fault) -> Iterator[RunningServer]:
    with faulty_server(tiny_artifact, fault) as server:
        yield server


def tell(fault: Path, what: str) -> None:
    """At once, so that nobody reads half of it."""
    new = fault.with_suffix(".new")
    new.write_text(what)
    new.replace(fault)


class Before:
    """What a server had counted before a test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._failed, self._batches = self._now()

    def failed(self) -> float:
        """Images since then on which the network has failed."""
        return self._now()[0] - self._failed

    def batches(self) -> float:
        """And passes."""
        return self._now()[1] - self._batches

    def _now(self) -> tuple[float, float]:
        failed = sample(self._url, "line_ood_image_errors_total", reason="inference_failed")
        return failed, sample(self._url, "line_ood_batch_failures_total")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("failing", "engine raises on every batch"), ("out_of_memory", "device out of memory for every batch")],
)
def test_a_device_that_fails_for_a_while(device, fault, scores, kind, name):
    """Whoever comes then is told 500, each alone; nobody is told wrong or left waiting, and then all is as before."""
    traffic, before, longest = Traffic(device.url, scores), Before(device.url), 0.0
    with traffic.running():
        for _ in range(SCALE.rounds):
            tell(fault, kind)
            time.sleep(FAULT_S)
            assert httpx.get(f"{device.url}/readyz").status_code == 200
            fault.unlink()
            ended = time.monotonic()
            traffic.calm()
            longest = max(longest, traffic.recovery_s(ended))
    tally = traffic.tally()
    assert tally.keys() == {"right", "500"}, tally
    assert before.failed() == tally["500"] >= SCALE.rounds
    assert longest < 1
    record(name, SCALE.rounds, tally, longest, f"each {FAULT_S} s; the failed are those sent meanwhile, told 500")


def test_memory_for_one_image_alone(device, fault, scores):
    """Batches that do not fit are scored image by image: everybody is answered."""
    traffic, before = Traffic(device.url, scores), Before(device.url)
    with traffic.running():
        for _ in range(SCALE.rounds):
            split = before.batches()
            tell(fault, "crowded")
            time.sleep(FAULT_S)
            until(lambda split=split: before.batches() > split)  # on a busy machine images may long come one by one
            fault.unlink()
            time.sleep(FAULT_S / 3)
    tally = traffic.tally()
    assert tally.keys() == {"right"}, tally
    assert before.failed() == 0
    record("device has memory for one image only", int(before.batches()), tally, 0, "batches that were split")


def test_images_on_which_the_network_fails(device, scores):
    """They fail, each alone, in whatever batch they are; their neighbours are answered right."""
    traffic, count = Traffic(device.url, scores), 20 * SCALE.rounds
    with traffic.running(), httpx.Client(base_url=device.url, timeout=30) as client:
        statuses = Counter(
            client.post("/v1/predict", content=white_image(), headers=PNG).status_code for _ in range(count)
        )
    tally = traffic.tally()
    assert statuses == {500: count}
    assert tally.keys() == {"right"}, tally
    record("image on which the engine raises", count, tally, 0, "these are told 500")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_thread_that_dies(tiny_artifact, scores, tmp_path):
    """Liveness says so, requests get 503 at once, the process ends with 0; its successor answers who came again."""
    fault, port = tmp_path / "fault", free_port()
    traffic, told, back = Traffic(f"http://127.0.0.1:{port}", scores), [], []
    turn = threading.Barrier(2, timeout=120)

    def supervise() -> None:
        for number in range(SCALE.deaths + 1):
            with faulty_server(tiny_artifact, fault, "--port", str(port)) as server:
                turn.wait()  # it answers
                if number == SCALE.deaths:
                    turn.wait()  # the traffic has ended
                    assert server.terminate() == 0
                    return
                until(lambda: httpx.get(f"{traffic.url}/livez").status_code == 503)
                told.append(time.monotonic())
                assert httpx.get(f"{traffic.url}/readyz").status_code == 503
                assert server.terminate() == 0

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    turn.wait()
    with traffic.running():
        for number in range(SCALE.deaths):
            tell(fault, "deadly")
            killed = time.monotonic()
            turn.wait()
            traffic.calm()
            back.append(traffic.recovery_s(killed))
            assert told[number] - killed < 2
    turn.wait()
    supervisor.join()
    tally = traffic.tally()
    assert tally.keys() <= {"right", "503", "not admitted"}, tally
    assert tally["503"] > 0
    record("inference thread dies", SCALE.deaths, tally, max(back), "with the start of a new process")
