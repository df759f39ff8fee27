"""How much is watched, and how surely: what the settings say of it."""

from __future__ import annotations

from dataclasses import dataclass

from service.settings import Settings


@dataclass(frozen=True)
class Limits:
    """What a monitor is told.

    Attributes:
        window_images: images of one window.
        window_s: seconds of the other.
        streams: how many may have a place of their own.
        false_alarm: bound on the probability that a stream without drift ever raises an alarm.
        spacing_s: seconds between two images that count as evidence.
    """

    window_images: int
    window_s: float
    streams: int
    false_alarm: float
    spacing_s: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those of a server."""
        return cls(
            window_images=settings.monitor_window_images,
            window_s=settings.monitor_window_s,
            streams=settings.monitor_streams,
            false_alarm=settings.monitor_false_alarm,
            spacing_s=settings.monitor_spacing_s,
        )
