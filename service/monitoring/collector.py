"""The monitor as Prometheus metrics, made when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.monitoring.psi import Shift
from service.monitoring.report import MonitorReport, StreamReport
from service.monitoring.streams import DEFAULT, OTHER

OF_STREAM = ("model", "stream")
OF_POINT = (*OF_STREAM, "operating_point")
GAUGES: dict[str, tuple[str, Sequence[str]]] = {
    "line_ood_streams": ("Streams with a place of their own.", ("model",)),
    "line_ood_streams_limit": ("Streams that may have one.", ()),
    "line_ood_window_images": ("Images in a window.", (*OF_STREAM, "window")),
    "line_ood_window_reject_ratio": ("Rejected share of a window.", (*OF_POINT, "window")),
    "line_ood_window_reject_ratio_expected": ("Mean of that for in-distribution images.", (*OF_POINT, "window")),
    "line_ood_window_reject_ratio_low": ("Low end of its 95 % interval.", (*OF_POINT, "window")),
    "line_ood_window_reject_ratio_high": ("High end of its 95 % interval.", (*OF_POINT, "window")),
    "line_ood_drift_log_evidence": ("Log of the e-value against the null rate.", OF_POINT),
    "line_ood_drift_log_evidence_limit": ("Where the evidence raises the alarm.", OF_POINT),
    "line_ood_drift_rate_bound": ("Null rate: that of in-distribution images is at most this.", OF_POINT),
    "line_ood_drift_alarm": ("1 from the alarm to the reset.", OF_POINT),
    "line_ood_score_psi": ("Shift of the scores against the calibration's, less noise.", OF_STREAM),
    "line_ood_score_psi_noise": ("What sampling alone adds to that in the mean.", OF_STREAM),
    "line_ood_class_psi": ("Shift of the predicted classes, less noise.", OF_STREAM),
    "line_ood_class_psi_noise": ("What sampling alone adds to that in the mean.", OF_STREAM),
    "line_ood_monitor_saved_timestamp_seconds": ("When the state was last saved.", ()),
}

Sample = tuple[str, Sequence[str], float]


class MonitorCollector(Collector):
    """Register it with a registry.

    Args:
        report: asked once a scrape.
        saved_at: when the state was last saved; None: there is no file.
    """

    def __init__(self, report: Callable[[], MonitorReport], saved_at: Callable[[], float | None]) -> None:
        self._report, self._saved_at = report, saved_at

    def collect(self) -> Iterator[Metric]:
        """All gauges; those without a value, of an empty window, say, have no samples."""
        families = {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in GAUGES.items()}
        for name, labels, value in self._samples():
            families[name].add_metric(labels, value)
        return (family for family in families.values() if family.samples)

    def _samples(self) -> Iterator[Sample]:
        report = self._report()
        yield "line_ood_streams_limit", (), report.streams_limit
        for model, own in report.models.items():
            yield "line_ood_streams", (model,), len(own.streams.keys() - {DEFAULT, OTHER})
            for stream, each in own.streams.items():
                yield from _of_windows((model, stream), each)
                yield from _of_drift((model, stream), each)
                yield from _of_shift("score", (model, stream), each.score_shift)
                yield from _of_shift("class", (model, stream), each.class_shift)
        if (saved_at := self._saved_at()) is not None:
            yield "line_ood_monitor_saved_timestamp_seconds", (), saved_at


def _of_windows(labels: tuple[str, str], stream: StreamReport) -> Iterator[Sample]:
    for window, seen in stream.windows.items():
        yield "line_ood_window_images", (*labels, window), seen.images
        for point, rejects in seen.rejects.items():
            names = (*labels, point, window)
            yield "line_ood_window_reject_ratio", names, rejects.ratio
            yield "line_ood_window_reject_ratio_expected", names, rejects.expected
            yield "line_ood_window_reject_ratio_low", names, rejects.low
            yield "line_ood_window_reject_ratio_high", names, rejects.high


def _of_drift(labels: tuple[str, str], stream: StreamReport) -> Iterator[Sample]:
    for point, drift in stream.drift.items():
        yield "line_ood_drift_log_evidence", (*labels, point), drift.log_evidence
        yield "line_ood_drift_log_evidence_limit", (*labels, point), drift.log_evidence_limit
        yield "line_ood_drift_rate_bound", (*labels, point), drift.rate_bound
        yield "line_ood_drift_alarm", (*labels, point), drift.alarm


def _of_shift(what: str, labels: tuple[str, str], shift: Shift | None) -> Iterator[Sample]:
    if shift is not None:
        yield f"line_ood_{what}_psi", labels, shift.psi
        yield f"line_ood_{what}_psi_noise", labels, shift.noise
