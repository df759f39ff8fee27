"""The rules and configurations, by the tools that read them: promtool and amtool. Each alert fires, and is silent."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import tool
from tests.deploy.rules import ALERTS, PROMETHEUS, RECORDED, ROOT, RULES, metrics_of
from tests.metrics import samples
from tests.processes import RunningServer
from tests.test_docs import rows

ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
TESTS = sorted(PROMETHEUS.glob("tests/*.yml"))
CASES: list[dict[str, Any]] = [
    case
    for path in TESTS
    for test in yaml.safe_load(path.read_text())["tests"]
    for case in test.get("alert_rule_test", [])
]


def run(name: str, *arguments: object) -> str:
    """What a tool says; it has to be content."""
    command = [tool(name), *map(str, arguments)]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration() -> None:
    """prometheus.yml is valid, and it finds all rules, which are valid, too."""
    said = run("promtool", "check", "config", "prometheus.yml")
    found = [int(count) for count in re.findall(r"SUCCESS: (\d+) rules found", said)]
    assert sum(found) == len(RULES)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path) -> None:
    """On series made by hand every alert fires with its texts where it has to, and is silent just below."""
    run("promtool", "test", "rules", path)


def test_every_alert_is_tested_both_ways() -> None:
    """Each alert has a case in which it fires, and one in which it does not."""
    firing = {case["alertname"] for case in CASES if case["exp_alerts"]}
    silent = {case["alertname"] for case in CASES if not case["exp_alerts"]}
    assert firing == silent == ALERTS.keys()


def test_every_wait_is_tested(tmp_path: Path) -> None:
    """If no alert waited, promtool would see each of those that have to fire before its time."""
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
        for path in PROMETHEUS.glob(f"{folder}/*.yml"):
            (tmp_path / folder / path.name).write_text(re.sub(r"\n +for: .*", "", path.read_text()))
    command = [tool("promtool"), "test", "rules", *map(str, tmp_path.glob("tests/*.yml"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    early = set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert early == {name for name, rule in ALERTS.items() if "for" in rule}


def test_rules_use_metrics_that_exist(server: RunningServer) -> None:
    """Every metric that a rule names is one that the server exposes, and every recorded name is used."""
    exposed = {sample.name for sample in samples(server.url)}
    assert set().union(*(metrics_of(rule["expr"]) for rule in RULES)) <= exposed
    dashboard = (ROOT / "deploy/grafana/dashboards/line-ood.json").read_text()
    asked = " ".join([dashboard, *(rule["expr"] for rule in RULES)])
    assert [name for name in RECORDED if name not in asked] == []


def test_rules_are_about_the_job_that_is_scraped() -> None:
    """The rules name the job as prometheus.yml does."""
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    named = {name for rule in RULES for name in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert named == {job["job_name"]}


def test_every_alert_is_explained() -> None:
    """docs/alerts.md lists each alert with its severity, and has the section that the alert's runbook names."""
    text = (ROOT / "docs/alerts.md").read_text()
    listed = {
        re.sub(r"\[(\w+)\].*", r"\1", name): severity for name, severity, _ in rows("docs/alerts.md", "All of them")
    }
    assert listed == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert headings == list(listed)
    for name, rule in ALERTS.items():
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"


def test_alertmanager_takes_its_configuration() -> None:
    """alertmanager.yml is valid; what is critical goes to one receiver, everything else to another."""
    run("amtool", "check-config", ALERTMANAGER)
    severities = {rule["labels"]["severity"] for rule in ALERTS.values()}
    routed = {
        severity: run(
            "amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}"
        ).strip()
        for severity in severities
    }
    assert routed == {"critical": "page", "warning": "ticket"}


def test_what_is_inhibited_exists() -> None:
    """The inhibitions of alertmanager.yml name alerts that there are."""
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    matchers = [matcher for rule in rules for side in ("source", "target") for matcher in rule[f"{side}_matchers"]]
    names = {name for matcher in matchers for name in re.search(r'"(.*)"', matcher)[1].split("|")}
    assert names <= ALERTS.keys()
