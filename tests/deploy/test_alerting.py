"""From an image to somebody's pager: a real server, Prometheus, Alertmanager, and a receiver, none of them patient."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy.conftest import PATIENCE_S, running_prometheus, running_tool, tool
from tests.deploy.rules import ROOT
from tests.processes import running_server
from tests.service.conftest import encode
from tests.waiting import until

OOD = {"OodRateHigh5m", "OodRateHigh1h", "DriftAlarm"}


class Receiver(BaseHTTPRequestHandler):
    """Notes which alerts come to which path."""

    got: set[tuple[str, str, str]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in body["alerts"]:
            self.got.add((self.path, alert["labels"]["alertname"], alert["status"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, set[tuple[str, str, str]]]]:
    Receiver.got = set()
    with HTTPServer(("127.0.0.1", 0), Receiver) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", Receiver.got
        listening.shutdown()
        thread.join()


@pytest.fixture
def alertmanager(receiver: tuple[str, set[tuple[str, str, str]]], tmp_path: Path) -> Iterator[str]:
    """The project's, but for its receivers' address and its patience."""
    command = tool("prometheus-alertmanager")
    text = (ROOT / "deploy/alertmanager/alertmanager.yml").read_text().replace("http://webhook.example", receiver[0])
    config = yaml.safe_load(text)
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    flags = (f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}")
    with running_tool(folder, command, *flags, "--cluster.listen-address=") as url:
        yield url


def _states(alertmanager: str, alert: str) -> set[str]:
    alerts = httpx.get(f"{alertmanager}/api/v2/alerts", params={"filter": f'alertname="{alert}"'}).json()
    return {each["status"]["state"] for each in alerts}


def test_out_of_distribution_traffic_reaches_the_pager(
    artifact: Path, receiver: tuple[str, set[tuple[str, str, str]]], alertmanager: str, tmp_path: Path
) -> None:
    """ID images raise nothing; OOD ones a page, which inhibits that of an hour, and a ticket; no server a page."""
    got = receiver[1]
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with running_server("--artifact", str(artifact)) as server, httpx.Client(base_url=server.url) as client:

        def post(image: bytes) -> bool:
            answer = client.post("/v1/predict?operating_point=strict", content=image)
            return bool(answer.json()["results"][0]["ood"]["reject"])

        accepted = [path.read_bytes() for path in sorted((artifact.parent / "images").rglob("*.png"))]
        rejected = next(image for image in map(encode, range(1000)) if post(image))
        with running_prometheus(folder, server.url, alertmanager_url=alertmanager, patient=False) as prometheus:
            prometheus.wait_for_scrape()
            assert sum(map(post, accepted)) < len(accepted) / 10
            for _ in range(3):
                prometheus.wait_for_scrape()
            assert not prometheus.alerts("firing") & OOD
            until(lambda: all(post(rejected) for _ in range(100)) and prometheus.alerts("firing") >= OOD, PATIENCE_S)
            wanted = {("/page", "OodRateHigh5m", "firing"), ("/ticket", "DriftAlarm", "firing")}
            until(lambda: got >= wanted, PATIENCE_S)
            until(lambda: "suppressed" in _states(alertmanager, "OodRateHigh1h"), PATIENCE_S)
            server.terminate()
            until(lambda: ("/page", "ServerDown", "firing") in got, PATIENCE_S)
    told = {name: path for path, name, _ in got}
    assert told["OodRateHigh5m"] == told["ServerDown"] == "/page"
    assert told["DriftAlarm"] == "/ticket"
