"""A real Prometheus with the project's rules, which scrapes a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.absent import absent
from tests.artifacts import calibrate_tiny
from tests.deploy.rules import PROMETHEUS
from tests.processes import RunningServer, running_server
from tests.service.conftest import encode
from tests.waiting import until

INTERVAL = "1s"  # of scrapes and rules
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

    def alerts(self, state: str) -> set[str]:
        """Names of the alerts that are `pending` or `firing`."""
        return {each["metric"]["alertname"] for each in self.query(f'ALERTS{{alertstate="{state}"}}')}

    def wait_for_scrape(self) -> None:
        """Wait for a scrape that begins after this call."""
        begin = time.time()
        until(lambda: self._last_scrape() > begin, PATIENCE_S)

    def _last_scrape(self) -> float:
        scrapes = self.query("timestamp(up) and up == 1")
        return float(scrapes[0]["value"][1]) if scrapes else 0


def tool(name: str) -> str:
    """Where a command of Debian's packages is."""
    command = shutil.which(name)
    if command is None:
        absent(f"{name} is not installed: scripts/install-test-tools installs Debian's packages")
    return command


@contextmanager
def running_tool(folder: Path, *command: str) -> Iterator[str]:
    """Start a server of the Prometheus family on a free port and wait until it is ready; its address."""
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=stderr)
    try:
        yield _wait_until_ready(process, log)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        if found := re.search(r'msg="?Listening on"? address=(\S+)', log.read_text()):
            url = f"http://{found[1]}"
            if httpx.get(f"{url}/-/ready", timeout=10).status_code == 200:
                return url
        time.sleep(0.1)
    raise AssertionError(f"not ready within {PATIENCE_S} s: {log.read_text()}")


@contextmanager
def running_prometheus(
    folder: Path, server_url: str, *, alertmanager_url: str = "", patient: bool = True
) -> Iterator[Prometheus]:
    """The project's Prometheus, but for intervals and targets; impatient, its alerts wait for nothing."""
    command = tool("prometheus")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
    for places, url in [
        (config["scrape_configs"], server_url),
        (config["alerting"]["alertmanagers"], alertmanager_url),
    ]:
        (place,) = places
        del place["dns_sd_configs"]
        place["static_configs"] = [{"targets": [url.removeprefix("http://")]}] if url else []
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules").mkdir()
    for path in PROMETHEUS.glob("rules/*.yml"):
        text = path.read_text()
        (folder / "rules" / path.name).write_text(text if patient else re.sub(r"\n +for: .*", "", text))
    flags = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
    with running_tool(folder, command, *flags) as url:
        yield Prometheus(url)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrate_tiny(tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="session")
def server(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One with everything that has metrics of its own: a shadow, capture, the monitor's file, windows."""
    kept = tmp_path_factory.mktemp("kept")
    nobody = "http://127.0.0.1:9"  # spans are made and lost
    flags = ["--artifact", str(artifact), "--shadow", str(artifact), "--shadow-share", "1", "--otlp-endpoint", nobody]
    with running_server(*flags, "--capture", str(kept), "--monitor-state", str(kept / "monitor.json")) as running:
        assert httpx.post(f"{running.url}/v1/predict", content=encode(), timeout=60).status_code == 200
        yield running
