"""Monitor, streams and what they report, against the images themselves."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from scoring.artifact import Artifact
from service.monitoring.limits import Limits
from service.monitoring.monitor import Monitor
from service.monitoring.rates import RejectLaw
from service.monitoring.report import StreamReport
from service.problems import DecodingError
from tests.service.monitoring.conftest import CLASSES, IMAGES, Clock, answers

ID = "0123456789abcdef"
FAR = 1000.0  # a score that every operating point rejects


def told(monitor: Monitor, stream: str = "default", model: str = "m") -> StreamReport:
    return monitor.report().models[model].streams[stream]


def test_report_is_what_the_images_say(monitor: Monitor, artifact: Artifact, clock: Clock) -> None:
    """Shares of both windows, at every operating point, counted again from all images."""
    random = np.random.default_rng(0)
    scores = random.choice(artifact.calibration_scores, 300) + random.normal(size=300)
    times = []
    for score in scores:
        clock.now += float(random.exponential(4))
        times.append(clock.now)
        monitor.answered("m", ID, None, answers([score], int(random.integers(CLASSES))))
    report = told(monitor)
    assert report.images == 300
    step = 600 / 60
    present = int((clock.now - 1000) / step)
    lately = np.array([int((at - 1000) / step) > present - 60 for at in times])
    assert 50 < lately.sum() < 300
    for point in artifact.metadata.operating_points:
        rejected = scores > point.threshold
        law = RejectLaw.of(point, IMAGES)
        for window, seen in (("images", rejected[-50:]), ("seconds", rejected[lately])):
            found = report.windows[window]
            assert found.images == len(seen)
            assert found.rejects[point.name].ratio == seen.mean()
            assert found.rejects[point.name].expected == law.expected
            assert (found.rejects[point.name].low, found.rejects[point.name].high) == law.interval(len(seen))


def test_streams_share_the_bound_between_their_operating_points(monitor: Monitor, artifact: Artifact) -> None:
    """Half of 1 % for two calibrated rates, half for two bets."""
    for point in artifact.metadata.operating_points:
        drift = told(monitor).drift[point.name]
        assert drift.rate_bound == RejectLaw.of(point, IMAGES).bound(0.0025)
        assert drift.log_evidence_limit == pytest.approx(np.log(400))
        assert (drift.log_evidence, drift.alarm) == (pytest.approx(0), False)


def test_drift_raises_one_streams_alarm_and_says_so_once(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    """Images far out in one stream; the other stream, and its windows, know nothing of it."""
    monitor.answered("m", ID, "front", answers([FAR] * 100))
    monitor.answered("m", ID, "rear", answers([-9.0] * 100))
    assert told(monitor, "front").alarm
    assert all(drift.alarm for drift in told(monitor, "front").drift.values())
    assert told(monitor, "front").windows["images"].rejects["default"].ratio == 1
    assert not told(monitor, "rear").alarm
    assert told(monitor, "rear").windows["images"].rejects["default"].ratio == 0
    records = [record for record in caplog.records if record.message == "drift alarm"]
    assert sorted((record.stream, record.model, record.operating_point) for record in records) == [
        ("front", "m", "default"),
        ("front", "m", "strict"),
    ]
    monitor.answered("m", ID, "front", answers([-9.0] * 1000))
    assert told(monitor, "front").alarm


def test_shift_of_scores_and_classes(monitor: Monitor) -> None:
    """Images at one end of the scores and all of one class are a shift of both; without images there is none."""
    assert (told(monitor).score_shift, told(monitor).class_shift) == (None, None)
    monitor.answered("m", ID, None, answers([FAR] * 50, class_index=1))
    report = told(monitor)
    assert report.score_shift is not None and report.score_shift.psi > 1
    assert report.score_shift.noise == pytest.approx(9 * (1 / 50 + 1 / IMAGES))
    assert report.class_shift is not None and report.class_shift.noise > 0


def test_images_without_a_score_count_for_nothing(monitor: Monitor) -> None:
    """Nor do the answers of an artifact or a model that is not watched."""
    monitor.answered("m", ID, None, [DecodingError("no"), *answers([1.0])])
    monitor.answered("m", "another artifact", None, answers([1.0]))
    monitor.answered("another model", ID, None, answers([1.0]))
    assert told(monitor).images == 1


@pytest.mark.parametrize("identity", ["", "a b", "é", "x" * 65, "a\n", '"', "a/b", "other"])
def test_ids_that_are_none_are_counted_as_other(monitor: Monitor, identity: str) -> None:
    """No image is refused for its stream's name, nor mixed into a stream that was meant; no name is the default."""
    monitor.answered("m", ID, identity, answers([1.0]))
    assert set(monitor.report().models["m"].streams) == ({"default", "other"} if identity else {"default"})
    assert told(monitor, "other" if identity else "default").images == 1


def test_streams_are_bounded(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    """The first three keep their places, however many names are made up; all others are one stream, told once."""
    for name in ("no name", "other"):
        monitor.answered("m", ID, name, answers([1.0]))
    assert caplog.records == []
    for index in range(1000):
        monitor.answered("m", ID, f"camera{index}", answers([1.0]))
    monitor.answered("m", ID, "camera0", answers([1.0]))
    streams = monitor.report().models["m"].streams
    assert {name: stream.images for name, stream in streams.items()} == {
        "default": 0,
        "camera0": 2,
        "camera1": 1,
        "camera2": 1,
        "other": 999,
    }
    (told,) = caplog.records
    assert "--monitor-streams" in told.message
    assert (told.limit, told.stream) == (3, "camera3")


def test_reset_forgets_a_stream_and_gives_its_place_back(monitor: Monitor) -> None:
    """The alarm is gone, the next image begins anew, and a newcomer finds room; the default stream stays."""
    for name in ("a", "b", "c", "d"):
        monitor.answered("m", ID, name, answers([FAR] * 100))
    assert monitor.reset(None, "a")
    assert not monitor.reset("m", "a")
    assert not monitor.reset("another model", "b")
    assert set(monitor.report().models["m"].streams) == {"default", "b", "c", "other"}
    monitor.answered("m", ID, "e", answers([1.0]))
    assert told(monitor, "e").images == 1
    monitor.answered("m", ID, None, answers([FAR] * 100))
    assert told(monitor).alarm
    assert monitor.reset("m", "default")
    assert (told(monitor).images, told(monitor).alarm) == (0, False)


def test_another_artifact_begins_anew(monitor: Monitor, artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says so; the same one, loaded again, goes on."""
    monitor.answered("m", ID, "a", answers([1.0]))
    monitor.watch("m", artifact)
    assert told(monitor, "a").images == 1
    monitor.watch("m", dataclasses.replace(artifact, artifact_id="fedcba9876543210"))
    assert set(monitor.report().models["m"].streams) == {"default"}
    assert "another artifact: monitoring begins anew" in caplog.messages
    monitor.answered("m", ID, "a", answers([1.0]))  # scored before the exchange
    assert set(monitor.report().models["m"].streams) == {"default"}


def test_images_in_a_burst_are_one_piece_of_evidence(artifact: Artifact, limits: Limits, clock: Clock) -> None:
    """With a spacing of a second, 30 images a second bet no more often than one; the windows have them all."""
    monitor = Monitor(dataclasses.replace(limits, spacing_s=1), clock=clock, wall=clock)
    monitor.watch("m", artifact)
    plain = Monitor(limits, clock=clock, wall=clock)
    plain.watch("m", artifact)
    for _ in range(5):
        monitor.answered("m", ID, None, answers([FAR] * 30))
        plain.answered("m", ID, None, answers([FAR]))
        clock.now += 1
    assert told(monitor).drift == told(plain).drift
    assert told(monitor).images == 150


def test_memory_does_not_grow(monitor: Monitor, clock: Clock) -> None:
    """The state after many images is as large as after few."""

    def size() -> int:
        return len(repr(monitor.snapshot()))

    logging.disable(logging.CRITICAL)
    for _ in range(20):
        monitor.answered("m", ID, "a", answers([1.0] * 100))
        clock.now += 40
    first = size()
    for _ in range(200):
        monitor.answered("m", ID, "a", answers([1.0] * 100))
        clock.now += 40
    logging.disable(logging.NOTSET)
    assert size() < 1.05 * first
