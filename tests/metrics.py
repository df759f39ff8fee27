"""What a running server counts and measures, as Prometheus reads it."""

from __future__ import annotations

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def families(url: str) -> list[Metric]:
    """All metrics, with their samples."""
    return list(text_string_to_metric_families(httpx.get(f"{url}/metrics").text))


def samples(url: str) -> list[Sample]:
    """All samples of all metrics."""
    return [each for family in families(url) for each in family.samples]


def sample(url: str, name: str, **labels: str) -> float:
    """The sum over the labels that are not named: 0 for a metric that has counted nothing, an error for one unknown."""
    return total(families(url), name, **labels)


def total(of: list[Metric], name: str, **labels: str) -> float:
    """The same, of what was read before."""
    (found,) = [family for family in of if family.name in (name, name.rpartition("_")[0])]
    return sum(each.value for each in found.samples if each.name == name and labels.items() <= each.labels.items())
