"""A real Prometheus that scrapes a real server."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from scoring.embedded import ARTIFACT
from tests.processes import RunningServer, running_server

ROOT = Path(__file__).parents[2]
SCRAPE_INTERVAL = "1s"
PATIENCE_S = 60


@dataclass
class Prometheus:
    """One that runs."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return list(answer["data"]["result"])

    def wait_for_scrape(self) -> None:
        """Wait for a scrape that begins after this call."""
        begin, end = time.time(), time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            scrapes = self.query("timestamp(up) and up == 1")
            if scrapes and float(scrapes[0]["value"][1]) > begin:
                return
            time.sleep(0.2)
        raise AssertionError(f"no scrape within {PATIENCE_S} s")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    # One image a pass, so that a request of many images outlives a short deadline on any machine.
    # A shadow, so that there are the metrics of one.
    flags = ["--device", "cpu", "--max-batch", "1", "--shadow", str(ARTIFACT), "--shadow-share", "1"]
    with running_server(*flags) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    command = shutil.which("prometheus")
    if command is None:
        reason = "Debian's package prometheus is not installed: scripts/install-test-tools installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_adapted_config(server.url)))
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [
                command,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stderr=stderr,
        )
    try:
        yield Prometheus(_wait_until_ready(process, log))
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _adapted_config(server_url: str) -> dict[str, Any]:
    """The project's prometheus.yml, but for the interval and the target."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    config["global"]["scrape_interval"] = SCRAPE_INTERVAL
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [server_url.removeprefix("http://")]}]
    return config


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        if found := re.search(r'msg="Listening on" address=(\S+)', log.read_text()):
            url = f"http://{found[1]}"
            if httpx.get(f"{url}/-/ready", timeout=10).status_code == 200:
                return url
        time.sleep(0.1)
    raise AssertionError(f"Prometheus is not ready within {PATIENCE_S} s: {log.read_text()}")


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((320, 240), 80).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
