"""What is told of a stream: once for metrics and routes."""

from __future__ import annotations

from dataclasses import dataclass

from service.monitoring.psi import Shift


@dataclass(frozen=True)
class Rejects:
    """The rejected share of a window, and what it is of in-distribution images: its mean, and a 95 % interval."""

    ratio: float
    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class WindowReport:
    """Images of a window, and what each operating point says of them; nothing of none."""

    images: int
    rejects: dict[str, Rejects]


@dataclass(frozen=True)
class Drift:
    """Evidence at one operating point: log e-value, where it raises the alarm, and over which null rate it was won."""

    log_evidence: float
    log_evidence_limit: float
    rate_bound: float
    alarm: bool


@dataclass(frozen=True)
class StreamReport:
    """One stream.

    Attributes:
        images: since it began, or was reset.
        alarm: whether any operating point has raised it.
        drift: by operating point.
        windows: `images` and `seconds`.
        score_shift: of the scores of the window `images` against the calibration's; none without images.
        class_shift: likewise, of predicted classes.
    """

    images: int
    alarm: bool
    drift: dict[str, Drift]
    windows: dict[str, WindowReport]
    score_shift: Shift | None
    class_shift: Shift | None


@dataclass(frozen=True)
class ModelReport:
    """One model's streams, by id; the first operating point is the default."""

    artifact_id: str
    streams: dict[str, StreamReport]


@dataclass(frozen=True)
class MonitorReport:
    """All models, by name."""

    window_images: int
    window_s: float
    streams_limit: int
    false_alarm: float
    models: dict[str, ModelReport]
