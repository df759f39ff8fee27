"""The streams of one model, by the client's `X-Stream-ID`, bounded in number.

Names come from clients, so there may be any number of them. The first `limits.streams` keep their places; the images
of all further ones, and of ids that are not as they have to be, are counted together as `other`, where nothing is
lost and nothing is mixed into a stream that was meant. The least recently used is not put out for a newcomer: whoever
invents names could put out an alarm. A reset gives a place back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from service.monitoring.baseline import Baseline
from service.monitoring.state import StoredStream
from service.monitoring.stream import Stream
from service.stream_id import is_good

log = logging.getLogger(__name__)

DEFAULT, OTHER = "default", "other"


class Streams:
    """Made anew with each artifact.

    Args:
        baseline: what is expected of every stream.
        now: of a clock that never goes back.
    """

    def __init__(self, baseline: Baseline, now: float) -> None:
        self.baseline = baseline
        self._streams = {DEFAULT: Stream(baseline, now)}
        self._is_overfull = False

    def find(self, identity: str, now: float) -> tuple[str, Stream]:
        """The stream that the images of a client's stream are counted in, and its name."""
        stream = self._streams.get(identity)
        return (identity, stream) if stream is not None else self._admit(identity, now)

    def reset(self, identity: str, now: float) -> bool:
        """Forget a stream with its alarm; it begins anew with its next image. Whether there was one."""
        found = self._streams.pop(identity, None) is not None
        if identity == DEFAULT:  # always there, so that its series are
            self._streams[DEFAULT] = Stream(self.baseline, now)
        return found

    def restore(self, stored: Mapping[str, StoredStream], now: float, downtime_s: float) -> list[str]:
        """Go on from snapshots that are `downtime_s` old; returns the streams for which there is no place any more.

        Raises:
            ValueError: they are not of such streams.
        """
        dropped = []
        for identity, each in stored.items():
            name, stream = self.find(identity, now)
            if name == identity:
                stream.restore(each, now, downtime_s)
            else:
                dropped.append(identity)
        return dropped

    def __iter__(self) -> Iterator[tuple[str, Stream]]:
        return iter(self._streams.items())

    @property
    def named(self) -> int:
        """Places that are taken."""
        return len(self._streams) - 1 - (OTHER in self._streams)  # the default is always there

    def _admit(self, identity: str, now: float) -> tuple[str, Stream]:
        name, is_stream = OTHER, is_good(identity)
        if is_stream and self.named < self.baseline.limits.streams:
            name = identity
        elif is_stream:
            self._tell_overfull(identity)
        if name not in self._streams:
            self._streams[name] = Stream(self.baseline, now)
        return name, self._streams[name]

    def _tell_overfull(self, identity: str) -> None:
        if not self._is_overfull:  # once: whoever makes up names is not to fill the log
            told = {"limit": self.baseline.limits.streams, "artifact_id": self.baseline.artifact_id, "stream": identity}
            log.warning("all places of --monitor-streams are taken: further streams are counted as other", extra=told)
        self._is_overfull = True
