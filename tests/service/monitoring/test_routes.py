"""Monitoring over HTTP: images in, metrics, JSON and reset out; real servers that stop, die and start again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from scoring.scorer import Scorer
from service.monitoring import keeper
from service.monitoring.collector import GAUGES
from tests.metrics import samples
from tests.processes import RunningServer, running_server
from tests.service.conftest import LiveApp, encode
from tests.service.keys import ADMIN, bearer, key_files
from tests.service.test_routes import check_problem
from tests.waiting import until


@pytest.fixture
def app(start: Callable[..., LiveApp], scorer: Scorer, tmp_path: Path) -> LiveApp:
    return start(scorer, monitor_streams=2, admin_keys=key_files(tmp_path)["admin_keys"])


@pytest.fixture
def client(app: LiveApp) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app.url, timeout=30) as client:
        yield client


def post(client: httpx.Client, stream: str | None = None, seed: int = 0) -> bool:
    """Send an image; whether the default operating point rejects it."""
    headers = {"Content-Type": "image/png"} | ({} if stream is None else {"X-Stream-ID": stream})
    answer = client.post("/v1/predict", content=encode(seed), headers=headers)
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["results"][0]["ood"]["reject"])


def gauges(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Values of monitoring by name and the values of their labels."""
    return {
        (sample.name, *(sample.labels[label] for label in GAUGES[sample.name][1])): sample.value
        for sample in samples(str(client.base_url).rstrip("/"))
        if sample.name in GAUGES
    }


def test_metrics_and_json_say_what_was_answered(client: httpx.Client) -> None:
    """Images of two streams and of none: counts, rejected shares, expectations, by model, stream, point and window."""
    rejected = {name: [post(client, name, seed) for seed in range(6)] for name in ("front", "rear")}
    rejected["default"] = [post(client, None, 7)]
    found = gauges(client)
    assert found["line_ood_streams", "tiny"] == 2
    report = client.get("/v1/monitor").json()
    assert report["models"]["tiny"]["artifact_id"] == client.get("/v1/monitor").headers["x-artifact-id"]
    for stream, decisions in rejected.items():
        told = report["models"]["tiny"]["streams"][stream]
        assert told["images"] == len(decisions)
        for window in ("images", "seconds"):
            share = sum(decisions) / len(decisions)
            assert found["line_ood_window_images", "tiny", stream, window] == len(decisions)
            labels = ("tiny", stream, "default", window)
            assert found["line_ood_window_reject_ratio", *labels] == share
            low, mean, high = (
                found[f"line_ood_window_reject_ratio_{what}", *labels] for what in ("low", "expected", "high")
            )
            assert told["windows"][window]["rejects"]["default"] == {
                "ratio": share,
                "expected": mean,
                "low": low,
                "high": high,
            }
            assert low <= mean <= high
        drift = told["drift"]["strict"]
        assert found["line_ood_drift_log_evidence", "tiny", stream, "strict"] == drift["log_evidence"]
        assert found["line_ood_drift_alarm", "tiny", stream, "strict"] == drift["alarm"] == 0
        assert found["line_ood_score_psi", "tiny", stream] == told["score_shift"]["psi"]
        assert found["line_ood_class_psi_noise", "tiny", stream] == told["class_shift"]["noise"]


def test_series_are_bounded_whatever_clients_send(client: httpx.Client) -> None:
    """A hundred made-up names, and some that are none, are answered like any other, and make one series more."""
    for index in range(100):
        post(client, f"name-{index}")
    for name in ("sp ace", "x" * 100, '"}', "a/../b"):
        post(client, name)
    streams = {labels[2] for labels in gauges(client) if labels[0] == "line_ood_window_images"}
    assert streams == {"default", "name-0", "name-1", "other"}


def test_all_images_of_a_request_belong_to_its_stream(client: httpx.Client) -> None:
    """Those that could not be scored are no images of it."""
    files = [("file", ("a.png", data, "image/png")) for data in (encode(1), b"broken", encode(2))]
    assert client.post("/v1/predict", files=files, headers={"X-Stream-ID": "front"}).status_code == 200
    assert client.get("/v1/monitor").json()["models"]["tiny"]["streams"]["front"]["images"] == 2


def test_reset_needs_the_admin_key(client: httpx.Client, start: Callable[..., LiveApp], scorer: Scorer) -> None:
    """Without admin keys nobody is the operator; with them, others are refused; the right one forgets the stream."""
    check_problem(httpx.post(f"{start(scorer).url}/v1/monitor/reset", headers=bearer(ADMIN)), 403, "forbidden")
    post(client, "front")
    check_problem(client.post("/v1/monitor/reset?stream=front"), 401, "key_missing")
    check_problem(client.post("/v1/monitor/reset?stream=front", headers=bearer("wrong")), 401, "key_unknown")
    assert "front" in client.get("/v1/monitor").json()["models"]["tiny"]["streams"]
    admin = bearer(ADMIN)
    assert client.post("/v1/monitor/reset?stream=front", headers=admin).status_code == 204
    assert "front" not in client.get("/v1/monitor").json()["models"]["tiny"]["streams"]
    problem = check_problem(client.post("/v1/monitor/reset?stream=front", headers=admin), 404, "unknown_stream")
    assert problem["detail"] == "no stream 'front'"
    check_problem(client.post("/v1/monitor/reset?model=none", headers=admin), 404, "unknown_model")
    assert client.post("/v1/monitor/reset", headers=admin).status_code == 204


def test_the_report_is_documented(client: httpx.Client) -> None:
    """OpenAPI has the schema of what /v1/monitor answers."""
    operation = client.get("/openapi.json").json()["paths"]["/v1/monitor"]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/MonitorReport"}


def _images(server: RunningServer, stream: str) -> int:
    streams = httpx.get(f"{server.url}/v1/monitor").json()["models"]["tiny"]["streams"]
    return int(streams.get(stream, {"images": 0})["images"])


def test_state_survives_a_restart_and_a_kill(tiny_artifact: Path, tmp_path: Path) -> None:
    """SIGTERM saves all; SIGKILL leaves the last save, whole; a broken file is told and the server starts."""
    state = tmp_path / "monitor.json"
    flags = ("--artifact", str(tiny_artifact), "--monitor-state", str(state))
    with running_server(*flags) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for seed in range(5):
                post(client, "front", seed)
            assert gauges(client)["line_ood_monitor_saved_timestamp_seconds",] > time.time() - 120
        assert server.terminate() == 0
    with running_server(*flags) as server:
        assert _images(server, "front") == 5
        with httpx.Client(base_url=server.url, timeout=30) as client:
            post(client, "front")
        assert _images(server, "front") == 6
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
    assert json.loads(state.read_bytes())["models"]["tiny"]["streams"]["front"]["images"] == 5
    state.write_bytes(state.read_bytes()[:-100])
    with running_server(*flags) as server:
        assert _images(server, "front") == 0
        assert any("state cannot be read" in line and "begins anew" in line for line in server.log)
        assert server.terminate() == 0


def test_a_state_that_cannot_be_written_fails_no_request(tiny_artifact: Path, tmp_path: Path) -> None:
    """A folder that is not there is told at the start; images are answered, and the server ends as ever."""
    flags = ("--artifact", str(tiny_artifact), "--monitor-state", str(tmp_path / "none" / "monitor.json"))
    with running_server(*flags) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            post(client, "front")
        assert _images(server, "front") == 1
        assert server.terminate() == 0
        lines = [line for line in server.log if "state cannot be saved" in line]
    assert len(lines) == 1
    assert "No such file or directory" in lines[0]


def test_the_state_is_saved_now_and_then(
    start: Callable[..., LiveApp], scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only at the end: the images are in the file while the server runs."""
    monkeypatch.setattr(keeper, "SAVE_EVERY_S", 0.05)
    state = tmp_path / "monitor.json"
    app = start(scorer, monitor_state=state)
    with httpx.Client(base_url=app.url, timeout=30) as client:
        post(client, "front")
    until(lambda: '"front"' in state.read_text())
    assert json.loads(state.read_text())["models"]["tiny"]["streams"]["front"]["images"] == 1
