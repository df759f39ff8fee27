"""The Grafana dashboard, asked the way Grafana asks: each of its queries goes to a real Prometheus."""

from __future__ import annotations

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
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.conftest import Prometheus
from tests.processes import RunningServer

DEPLOY = Path(__file__).parents[2] / "deploy"
PROVISIONING = DEPLOY / "grafana/provisioning"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/line-ood.json").read_text())
WINDOWS = {"$__rate_interval": "2m", "$__range": "30m"}  # what Grafana would fill in, and all of the test's traffic
DROPPED = 64  # images in a request whose deadline passes
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def traffic(server: RunningServer, prometheus: Prometheus, jpeg: bytes) -> None:
    """Requests of every kind that the dashboard tells apart; a series needs two scrapes before it has a rate."""
    prometheus.wait_for_scrape()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(3):
            answers = [_post(client, jpeg) for _ in range(2)]
            answers.append(_post(client, b"no image"))
            assert [answer.status_code for answer in answers] == [200, 200, 415]
            _let_a_deadline_pass(client, jpeg)
            prometheus.wait_for_scrape()


def _post(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/v1/predict", content=body, headers={"Content-Type": "image/jpeg"})


def _let_a_deadline_pass(client: httpx.Client, jpeg: bytes) -> None:
    # They arrive sooner, and take longer, than the time allowed.
    files = [("file", ("image.jpg", jpeg, "image/jpeg"))] * DROPPED
    answer = client.post("/v1/predict", files=files, headers={"X-Request-Timeout-Ms": "250"})
    assert answer.status_code == 504


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("query", QUERIES)
def test_every_query_returns_data(prometheus: Prometheus, query: str) -> None:
    """Every query of the dashboard returns numbers, and none of them from its stand-in for missing series."""
    for variable, value in WINDOWS.items():
        query = query.replace(variable, value)
    assert "$" not in query
    result = prometheus.query(query)
    values = [float(series["value"][1]) for series in result]
    assert any(math.isfinite(value) for value in values), result
    assert all(series["metric"].get("reason") != "none" for series in result), result


@pytest.mark.usefixtures("traffic")
def test_numbers_are_those_of_the_traffic(prometheus: Prometheus) -> None:
    """What Prometheus has is what was sent: six images scored, three undecodable, whole requests dropped."""

    def total(metric: str) -> float:
        return float(prometheus.query(f"sum({metric})")[0]["value"][1])

    assert total("line_ood_ood_score_count") == 6
    assert total("line_ood_image_errors_total") == 3
    # On a busy machine a body may itself come too late: then its images are none yet.
    assert total("line_ood_dropped_images_total") in {DROPPED, 2 * DROPPED, 3 * DROPPED}


@pytest.mark.usefixtures("traffic")
def test_names_agree_with_the_server(server: RunningServer) -> None:
    """The dashboard uses no metric that the server lacks, and leaves none of the server's out."""
    families = [
        family
        for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
        if family.name.startswith("line_ood_") and not family.name.endswith("_created")
    ]
    exposed = {family.name: {sample.name for sample in family.samples} for family in families}
    used = {name for parameters in QUERIES for name in re.findall(r"line_ood_\w+", str(parameters.values[0]))}
    assert used <= set().union(*exposed.values())
    assert [family for family, samples in exposed.items() if not samples & used] == []


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
    asked = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
    asked |= {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert asked == {source["uid"]}
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    assert source["url"] == "http://prometheus:9090"
    mounts = dict(volume.split(":")[:2] for volume in compose["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana/dashboards" / Path(home).name).is_file()
    assert Path(home).parent == Path(provider["options"]["path"])
