"""The alert and recording rules, as Prometheus reads them, and the metrics that an expression asks for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for path in sorted(PROMETHEUS.glob("rules/*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}


def metrics_of(expression: str) -> set[str]:
    """The server's metrics in an expression, and in those of the recorded names in it."""
    found = set()
    for name in re.findall(r"[a-zA-Z_][\w:]*", re.sub(r'"[^"]*"', '""', expression)):
        if ":" in name:
            found |= metrics_of(RECORDED[name])
        elif name.startswith(("line_ood_", "process_")):
            found.add(name)
    return found
