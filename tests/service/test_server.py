"""Real processes: the load that the product is for, SIGTERM under that load, and how a server starts and ends."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from scoring.embedded import ARTIFACT, SAMPLE
from tests.data import real_data
from tests.metrics import families, total
from tests.processes import COMMAND, RunningServer, offline_scores, running_server
from tests.service.conftest import encode
from tests.service.test_routes import png_header

CLIENTS = 64
JPEG = {"Content-Type": "image/jpeg"}
DEMO = {"model": "efficientnet_lite0"}
BROKEN: list[tuple[str, Callable[[bytes], bytes], int]] = [
    ("truncated", lambda data: data[: len(data) // 2], 422),
    ("not an image", lambda _: b"<html>not an image</html>", 415),
    ("64 megapixels declared", lambda _: png_header(8000, 8000), 422),
    ("zero bytes", lambda _: b"", 400),
]


def post(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/v1/predict?top_k=1", content=data, headers=JPEG)


def check_answer(result: dict, wanted: dict) -> None:
    """The service says of an image what the command says: batches may differ by rounding alone."""
    (best,) = result["predictions"]
    assert (best["index"], best["name"]) == (wanted["class_index"], wanted["class_name"])
    assert best["probability"] == pytest.approx(wanted["probability"], abs=1e-4)
    assert result["ood"]["score"] == pytest.approx(wanted["ood_score"], abs=1e-4)
    if abs(result["ood"]["margin"]) > 1e-4:
        assert result["ood"]["reject"] is wanted["reject"]


def test_64_clients_with_broken_images_among_1000():
    """Every good image gets its own right answer, every broken one its 4xx, none is lost, the metrics add up."""
    paths = sorted(path for path in real_data("imagenet_sample").rglob("*") if path.is_file())
    assert len(paths) == 1000
    broken = dict(zip(range(0, 1000, 50), itertools.cycle(BROKEN), strict=False))
    good = [path for index, path in enumerate(paths) if index not in broken]
    wanted = offline_scores(ARTIFACT, good)
    with running_server("--timeout-s", "300") as server, ThreadPoolExecutor(CLIENTS) as pool:
        with httpx.Client(base_url=server.url, timeout=300, limits=httpx.Limits(max_connections=CLIENTS)) as client:

            def ask(index: int) -> httpx.Response:
                data = paths[index].read_bytes()
                return post(client, broken[index][1](data) if index in broken else data)

            answers = list(pool.map(ask, range(1000)))
        counted = partial(total, families(server.url))
    statuses = Counter(answer.status_code for answer in answers)
    for index, answer in enumerate(answers):
        if index in broken:
            assert answer.status_code == broken[index][2], f"{broken[index][0]}: {answer.text}"
        else:
            assert answer.status_code == 200, answer.text
            check_answer(answer.json()["results"][0], wanted[str(paths[index])])
    assert statuses == {200: 980, 422: 10, 415: 5, 400: 5}
    assert statuses == {
        code: counted("line_ood_requests_total", code=str(code), route="/v1/predict") for code in statuses
    }
    decisions = [
        counted("line_ood_images_total", decision=decision, operating_point="default", **DEMO)
        for decision in ("accept", "reject")
    ]
    rejects = sum(answer.json()["results"][0]["ood"]["reject"] for answer in answers if answer.status_code == 200)
    assert decisions == [980 - rejects, rejects]
    assert counted("line_ood_ood_score_count", **DEMO) == 980
    assert counted("line_ood_image_errors_total") == 20
    assert counted("line_ood_admitted_images", **DEMO) == counted("line_ood_queue_depth", **DEMO) == 0


class Hammer:
    """Clients that post one image after the other until told to stop; one that is refused goes elsewhere."""

    def __init__(self, server: RunningServer, data: bytes) -> None:
        self._server, self._data = server, data
        self._stop = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    outcome = str(post(client, self._data).status_code)
                except httpx.ConnectError:
                    outcome = "refused"
                except httpx.TransportError as error:
                    outcome = f"lost: {error!r}"
                with self._lock:
                    self.outcomes[outcome] += 1
                if outcome != "200":
                    return

    def stop(self) -> None:
        self._stop.set()


def test_sigterm_under_load_loses_nothing():
    """Requests that were accepted are answered, later ones are refused, and the process exits with 0 within 8 s."""
    with running_server("--log-level", "debug") as server, ThreadPoolExecutor(CLIENTS) as pool:
        hammer = Hammer(server, SAMPLE.read_bytes())
        clients = [pool.submit(hammer.run) for _ in range(CLIENTS)]
        time.sleep(5)
        started = time.monotonic()
        code = server.terminate()
        seconds = time.monotonic() - started
        hammer.stop()
        for client in clients:
            client.result()
    assert code == 0
    assert seconds <= 8
    assert set(hammer.outcomes) <= {"200", "503", "refused"}, hammer.outcomes
    assert hammer.outcomes["503"] + hammer.outcomes["refused"] == CLIENTS  # each client's last request came too late
    assert not any("stopped before this image was scored" in line for line in server.log)
    lines = [json.loads(line) for line in server.log]
    statuses = Counter(str(line["status"]) for line in lines if line.get("route") == "/v1/predict")
    assert statuses["200"] == hammer.outcomes["200"] > CLIENTS
    assert statuses["503"] == hammer.outcomes["503"] > 0


def test_an_idle_server_stops(tiny_artifact):
    """SIGTERM without work ends the process with 0, and its log is JSON to the last line."""
    with running_server("--artifact", str(tiny_artifact)) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.terminate() == 0
    assert all("message" in json.loads(line) for line in server.log)


def test_settings_come_from_the_environment(tiny_artifact):
    """A variable does what its flag does, and a flag is stronger."""
    env = {"LINE_OOD_ARTIFACT": str(tiny_artifact), "LINE_OOD_MAX_BODY_BYTES": "10", "LINE_OOD_MAX_IMAGES": "1"}
    with running_server("--max-body-bytes", "100000", env=env) as server:
        assert httpx.post(f"{server.url}/v1/predict", content=encode(), headers=JPEG).status_code == 200
        files = [("f", ("x", encode()))] * 2
        assert httpx.post(f"{server.url}/v1/predict", files=files).status_code == 413


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--artifact", "missing.safetensors"], "missing.safetensors"),
        (["--max-images", "600"], "max_images (600) must not exceed queue_capacity (512)"),
        (["--device", "cuda"], "no GPU can be used here"),
        (["--port", "99999"], "--port (LINE_OOD_PORT)"),
        (["--otlp-endpoint", "collector:4318"], "--otlp-endpoint (LINE_OOD_OTLP_ENDPOINT)"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(flags, message):
    """Exit code 2 and one line on what and where, no traceback."""
    done = subprocess.run([COMMAND, "serve", *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line


def test_a_second_signal_ends_at_once(tiny_artifact):
    """Who cannot wait for the drain sends another signal; the exit code tells that work was lost."""
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    flags = ["--model", "tests.factories.slow:slow", "--max-batch", "1"]
    with running_server("--artifact", str(tiny_artifact), *flags, env=env) as server, ThreadPoolExecutor(1) as pool:
        lost = pool.submit(httpx.post, f"{server.url}/v1/predict", content=encode(), headers=JPEG, timeout=60)
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        started = time.monotonic()
        assert server.terminate() == 1
        assert time.monotonic() - started < 2
        assert isinstance(lost.exception(), httpx.TransportError)


def test_a_body_that_arrives_during_the_drain_is_answered(tiny_artifact):
    """A request whose body was under way at the signal is finished like any other."""
    with running_server("--artifact", str(tiny_artifact)) as server, ThreadPoolExecutor(1) as pool:

        def body():
            data = encode()
            for start in range(0, len(data), 200):
                yield data[start : start + 200]
                time.sleep(0.2)

        slow = pool.submit(httpx.post, f"{server.url}/v1/predict", content=body(), headers=JPEG, timeout=60)
        time.sleep(0.5)
        assert server.terminate() == 0
        assert slow.result().status_code == 200


def test_a_taken_port_is_said(tiny_artifact):
    """Two servers cannot have one port; the second says so."""
    with running_server("--artifact", str(tiny_artifact)) as server:
        port = server.url.rpartition(":")[2]
        done = subprocess.run([COMMAND, "serve", "--port", port], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr


def test_a_forward_pass_that_outlasts_the_drain(tiny_artifact):
    """When the time to drain is over, who still waits gets 503, and the process exits with 0 all the same."""
    flags = ["--model", "tests.factories.slow:slow", "--drain-s", "3", "--max-batch", "1"]
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with (
        running_server("--artifact", str(tiny_artifact), *flags, env=env) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        answers = [
            pool.submit(httpx.post, f"{server.url}/v1/predict", content=encode(), headers=JPEG, timeout=60)
            for _ in range(4)
        ]
        time.sleep(1)
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 8
        assert [answer.result().status_code for answer in answers] == [503] * 4


def test_another_engine_says_what_it_changes():
    """`--engine` serves with another engine than the artifact's, and tells by how much the probes' scores differ."""
    with running_server("--engine", "openvino") as server:
        answer = httpx.post(f"{server.url}/v1/predict", content=SAMPLE.read_bytes(), headers=JPEG, timeout=30)
        assert answer.status_code == 200
        (told,) = [line for line in server.log if "probe images" in line]
        assert "calibrated with eager:float32, served with openvino:float32" in told
        assert float(told.split()[-1]) < 1e-3
        assert server.terminate() == 0
