"""The Grafana dashboard, asked the way Grafana asks: each of its queries goes to a real Prometheus."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from tests.deploy.conftest import Prometheus, running_prometheus
from tests.deploy.rules import ALERTS, metrics_of
from tests.metrics import families
from tests.processes import RunningServer
from tests.service.conftest import encode

DEPLOY = Path(__file__).parents[2] / "deploy"
PROVISIONING = DEPLOY / "grafana/provisioning"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/line-ood.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
WINDOWS = {"$__rate_interval": "2m", "$__range": "30m"}  # what Grafana would fill in, and all of the test's traffic
ROUNDS = 3
GOOD, BAD = 4, 2  # images of a round
OF_PROCESS = {  # what a server that runs for months is watched by
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
}
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
ASKED = set().union(*(metrics_of(target["expr"]) for panel in PANELS for target in panel["targets"]))


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def prometheus(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), server.url) as running:
        yield running


@pytest.fixture(scope="module")
def traffic(server: RunningServer, prometheus: Prometheus) -> None:
    """Requests of every kind that the dashboard tells apart; a series needs two scrapes before it has a rate."""
    prometheus.wait_for_scrape()
    image, slow = encode(), _slow_image()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(ROUNDS):
            answers = [_post(client, image) for _ in range(GOOD)] + [_post(client, b"no image") for _ in range(BAD)]
            assert [answer.status_code for answer in answers] == [200] * GOOD + [415] * BAD
            assert _post(client, slow, {"X-Request-Timeout-Ms": "100"}).status_code == 504
            prometheus.wait_for_scrape()
    prometheus.wait_for_scrape()  # rules are evaluated on what was scraped before


def _slow_image() -> bytes:
    """Few bytes that take longer to decode than a deadline allows."""
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(buffer, "PNG")
    return buffer.getvalue()


def _post(client: httpx.Client, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return client.post("/v1/predict", content=body, headers={"Content-Type": "image/png"} | (headers or {}))


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("query", QUERIES)
def test_every_query_returns_data(prometheus: Prometheus, query: str) -> None:
    """Every query of the dashboard returns numbers, though nothing is wrong but what the test made wrong."""
    for variable, value in WINDOWS.items():
        query = query.replace(variable, value)
    assert "$" not in query
    result = prometheus.query(query)
    values = [float(series["value"][1]) for series in result]
    assert any(math.isfinite(value) for value in values), result


@pytest.mark.usefixtures("traffic")
def test_the_alerts_that_wait_are_shown(prometheus: Prometheus) -> None:
    """A third of unreadable images is on its way to an alert, and the dashboard says which."""
    (panel,) = [panel for panel in PANELS if panel["title"] == "Alerts"]
    (target,) = panel["targets"]
    shown = {(each["metric"]["alertname"], each["metric"]["alertstate"]) for each in prometheus.query(target["expr"])}
    assert ("ImagesUnreadable", "pending") in shown
    assert {name for name, _ in shown} <= ALERTS.keys()


@pytest.mark.usefixtures("traffic")
def test_numbers_are_those_of_the_traffic(prometheus: Prometheus) -> None:
    """What Prometheus has is what was sent: images scored, images undecodable, images dropped."""

    def total(metric: str) -> float:
        return float(prometheus.query(f"sum({metric})")[0]["value"][1])

    assert total("line_ood_ood_score_count") == ROUNDS * GOOD + 1  # with the first one, of the fixture
    assert total("line_ood_image_errors_total") == ROUNDS * BAD
    # On a busy machine a body may itself come too late: then its image is none yet.
    assert 1 <= total("line_ood_dropped_images_total") <= ROUNDS


@pytest.mark.usefixtures("traffic")
def test_every_metric_is_shown(server: RunningServer) -> None:
    """Panels use no metric that the server lacks and leave out none of the program nor what matters of the process."""
    exposed = {
        family.name: {sample.name for sample in family.samples}
        for family in families(server.url)
        if not family.name.endswith("_created")
    }
    assert set().union(*exposed.values()) >= ASKED
    own = {name: samples for name, samples in exposed.items() if name.startswith("line_ood_")}
    assert [name for name, samples in own.items() if not samples & ASKED] == []
    assert OF_PROCESS <= ASKED
    sources = (DEPLOY.parent / "service").rglob("*.py")
    defined = {name for source in sources for name in re.findall(r'"(line_ood_\w+)"', source.read_text())}
    assert defined == own.keys()


def test_panels_stand_in_rows() -> None:
    """The dashboard begins with a row, every row is full to its right end, and ids are unique."""
    assert DASHBOARD["panels"][0]["type"] == "row"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in DASHBOARD["panels"])
    assert cells == 24 * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in DASHBOARD["panels"])


def _panels() -> Iterator[tuple[str, dict[str, int]]]:
    for panel in DASHBOARD["panels"]:
        yield panel["title"], panel["gridPos"]


def test_panels_do_not_overlap() -> None:
    """Every panel has a place of its own within Grafana's 24 columns."""
    taken: dict[tuple[int, int], str] = {}
    for title, place in _panels():
        assert place["x"] + place["w"] <= 24
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert taken.setdefault(cell, title) == title


def test_provisioning_fits_together() -> None:
    """Data source, provider and dashboard name each other, and Grafana knows how often Prometheus scrapes."""
    (source,) = _load(PROVISIONING / "datasources/prometheus.yml")["datasources"]
    (provider,) = _load(PROVISIONING / "dashboards/line-ood.yml")["providers"]
    compose = _load(DEPLOY.parent / "docker-compose.yml")["services"]["grafana"]
    prometheus = _load(DEPLOY / "prometheus/prometheus.yml")
    asked = {panel["datasource"]["uid"] for panel in PANELS}
    asked |= {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert asked == {source["uid"]}
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    assert source["url"] == "http://prometheus:9090"
    mounts = dict(volume.split(":")[:2] for volume in compose["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana/dashboards" / Path(home).name).is_file()
    assert Path(home).parent == Path(provider["options"]["path"])
