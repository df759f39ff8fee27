"""Change without downtime, in real processes: under load, by signals, ten times over, and while the server ends."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.artifacts import calibrate_tiny
from tests.factories.ballast import BALLAST_MB
from tests.metrics import sample
from tests.processes import RunningServer, running_server
from tests.service.conftest import encode
from tests.service.versions import ask, id_of, put, relabelled, score_of, states
from tests.waiting import until

ROOT = Path(__file__).parents[2]
CLIENTS = 8
SEEDS = range(6)
SWITCHES = 6
JPEG = {"Content-Type": "image/jpeg"}


class Heard(NamedTuple):
    """What a client was told."""

    seed: int
    status: int
    artifact_id: str
    header: str
    score: float


class Client:
    """Posts one picture after the other until told to stop."""

    def __init__(self, url: str, model: str, stop: threading.Event) -> None:
        self._url, self._stop = f"{url}/v1/models/{model}/predict", stop

    def run(self) -> list[Heard]:
        heard: list[Heard] = []
        pictures = [encode(seed) for seed in SEEDS]
        with httpx.Client(timeout=30) as client:
            for seed in itertools.cycle(SEEDS):
                if self._stop.is_set():
                    return heard
                answer = client.post(self._url, content=pictures[seed], headers=JPEG)
                body = answer.json()
                heard.append(
                    Heard(
                        seed,
                        answer.status_code,
                        body.get("model", {}).get("artifact_id", ""),
                        answer.headers["x-artifact-id"],
                        body["results"][0]["ood"]["score"] if "results" in body else 0.0,
                    )
                )
        raise AssertionError("a cycle ends never")


def reload(server: RunningServer, model: str, artifact: Path, place: Path) -> None:
    """Replace the file of a model, send SIGHUP, and wait until the model is switched."""
    put(artifact, place)
    wanted = id_of(artifact)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: states(server.url)[model]["artifact_id"] == wanted)


def changes(ids: list[str]) -> int:
    return sum(before != after for before, after in itertools.pairwise(ids))


def test_switches_under_load(tiny_artifact, other_artifact, place):
    """No request fails; every answer is whole of one version, which it names; each client sees each switch once.

    Of two models one is switched, the other is never disturbed.
    """
    artifacts = {id_of(path): path for path in (tiny_artifact, other_artifact)}
    scores = {key: score_of(path, SEEDS) for key, path in artifacts.items()}
    flags = ["--artifact", f"changing={place}", "--artifact", f"steady={tiny_artifact}"]
    stop = threading.Event()
    with running_server(*flags) as server, ThreadPoolExecutor(CLIENTS) as pool:
        assert list(states(server.url)) == ["changing", "steady"]
        clients = [
            pool.submit(Client(server.url, "steady" if number % 4 == 0 else "changing", stop).run)
            for number in range(CLIENTS)
        ]
        try:
            for artifact in itertools.islice(itertools.cycle([other_artifact, tiny_artifact]), SWITCHES):
                time.sleep(0.3)
                reload(server, "changing", artifact, place)
            time.sleep(0.3)
        finally:
            stop.set()
        told = [client.result() for client in clients]
        assert sample(server.url, "line_ood_loads_total", model="changing", outcome="switched") == SWITCHES
        assert sample(server.url, "line_ood_loads_total", model="steady", outcome="unchanged") == SWITCHES
        assert sample(server.url, "line_ood_artifact_info") == 2
        assert server.terminate() == 0
    for heard in itertools.chain.from_iterable(told):
        assert heard.status == 200
        assert heard.artifact_id == heard.header
        assert heard.score == pytest.approx(scores[heard.artifact_id][heard.seed], abs=1e-4)
    for number, heard in enumerate(told):
        assert changes([each.artifact_id for each in heard]) == (0 if number % 4 == 0 else SWITCHES)


def test_a_bad_file_and_a_hangup(other_artifact, place):
    """SIGHUP with a file that is torn: the log says why, the old version goes on; a good one is then taken."""
    with running_server("--artifact", str(place)) as server:
        before = states(server.url)["tiny"]["artifact_id"]
        place.write_bytes(place.read_bytes()[:1000])
        server.process.send_signal(signal.SIGHUP)
        until(lambda: sample(server.url, "line_ood_loads_total", outcome="refused") == 1)
        assert any("was refused, the version before goes on" in line for line in server.log)
        assert ask(server.url).json()["model"]["artifact_id"] == before
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        reload(server, "tiny", other_artifact, place)
        assert server.terminate() == 0


def test_ten_loads_leave_no_memory_behind(tmp_path):
    """After ten loads less is resident than two of the ten versions would take."""
    artifact = calibrate_tiny(tmp_path, spec=f"{ROOT / 'tests/factories/ballast.py'}:ballast")
    twin = relabelled(artifact, tmp_path / "twin.safetensors")
    place = tmp_path / "served.safetensors"
    put(artifact, place)
    with running_server("--artifact", f"heavy={place}", env={"PYTHONPATH": str(ROOT)}) as server:
        resident = []
        for each in itertools.islice(itertools.cycle([twin, artifact]), 13):
            reload(server, "heavy", each, place)
            assert ask(server.url).status_code == 200
            time.sleep(0.3)  # for the old version to go
            resident.append(resident_mb(server.process.pid))
        assert min(resident[-3:]) - min(resident[:3]) < 2 * BALLAST_MB, resident
        assert server.terminate() == 0


def resident_mb(process: int) -> float:
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1000


SLOW_FACTORY = """
import os, time
from tests.factories.tiny import tiny

def slow():
    if os.path.exists({flag!r}):
        time.sleep(60)
    return tiny()
"""


def test_the_server_ends_though_it_is_loading(other_artifact, place, tmp_path):
    """SIGTERM while a network takes a minute to be built: the process ends as if it were not, with 0."""
    flag = tmp_path / "slow"
    factory = tmp_path / "factory.py"
    factory.write_text(SLOW_FACTORY.format(flag=str(flag)))
    env = {"PYTHONPATH": str(ROOT)}
    with running_server("--artifact", f"a={place}", "--model", f"a={factory}:slow", env=env) as server:
        flag.touch()
        put(other_artifact, place)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: states(server.url)["a"]["loading"])
        assert ask(server.url).status_code == 200
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 5
