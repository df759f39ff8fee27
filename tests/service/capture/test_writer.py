"""The thread that writes: what it keeps, what it deletes, and what it does when it cannot."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.capture.backlog import Backlog
from service.capture.candidate import Candidate
from service.capture.target import Target
from service.capture.writer import Writer
from tests.service.capture.making import (
    Broken,
    bytes_below,
    candidate,
    counts,
    make_unlistable,
    side_files,
    value,
)
from tests.waiting import until


class Running:
    """A writer at work, and what it has counted."""

    def __init__(self, target: Target, max_bytes: int, clock=None) -> None:
        self.counts, self.registry = counts()
        self._backlog = Backlog(2**26)
        clocks = {} if clock is None else {"clock": clock}
        self.writer = Writer(target, self._backlog, self.counts, max_bytes, **clocks)
        self._given = 0

    def write(self, images: Sequence[Candidate]) -> None:
        """Give images, and wait until each has been kept, dropped or failed."""
        for image in images:
            assert self._backlog.put(image)
        self._given += len(images)
        until(lambda: self._done() >= self._given)

    def end(self) -> None:
        self._backlog.close()
        self.writer.join(10)
        assert not self.writer.is_alive

    def _done(self) -> float:
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        )


@contextlib.contextmanager
def writing(target: Target | Path, max_bytes: int = 2**20, clock=None) -> Iterator[Running]:
    running = Running(target if isinstance(target, Target) else Target(str(target)), max_bytes, clock)
    running.writer.start()
    try:
        yield running
    finally:
        running.end()


def kept(registry: CollectorRegistry) -> float | None:
    return value(registry, "captured_images_total", model="tiny", reason="reject")


def test_an_image_is_kept_as_it_was_sent(tmp_path):
    """The bytes are the same; the side file says what is known, and whose bytes it is about."""
    image = candidate(3)
    with writing(tmp_path) as running:
        running.write([image])
        assert kept(running.registry) == 1
        assert value(running.registry, "capture_bytes") == bytes_below(tmp_path)
    (found,) = side_files(tmp_path)
    digest = hashlib.sha256(image.data).hexdigest()
    assert found.pop("image") == image.data
    assert found.pop("path") == tmp_path / f"2026-11-25/20261125T000001.000000Z-reject-{digest[:16]}.json"
    assert found == {
        "schema_version": 1,
        "time": "2026-11-25T00:00:01Z",
        "reason": "reject",
        "model": "tiny",
        "artifact_id": "0123456789abcdef",
        "request_id": "r",
        "image_index": 0,
        "stream_id": "camera-1",
        "class_index": 1,
        "class_name": "dog",
        "probability": 0.75,
        "method": "line",
        "ood_score": 1.5,
        "p_value": 0.01,
        "threshold": 1.0,
        "operating_point": "default",
        "content_type": "image/png",
        "bytes": len(image.data),
        "sha256": digest,
    }


def test_the_cap_holds_and_the_oldest_go_first(tmp_path):
    """Whatever is written, no more than the cap lies there, and what lies there is the newest; empty days go."""
    with writing(tmp_path, max_bytes=12_000) as running:
        for seed in range(30):
            running.write([candidate(seed, days=seed)])
            assert bytes_below(tmp_path) <= 12_000
            assert value(running.registry, "capture_bytes") == bytes_below(tmp_path)
        assert kept(running.registry) == 30
    found = side_files(tmp_path)
    assert 3 < len(found) < 30
    assert [each["image"] for each in found] == [candidate(seed).data for seed in range(30 - len(found), 30)]
    assert len(list(tmp_path.iterdir())) == len(found)


def test_a_new_start_knows_what_lies_there(tmp_path):
    """The cap counts what an earlier server kept, its images are not kept again, and files of others are left alone."""
    with writing(tmp_path) as running:
        running.write([candidate(seed) for seed in range(6)])
    (tmp_path / "labels.csv").write_bytes(b"x" * 50_000)
    ours = bytes_below(tmp_path) - 50_000
    with writing(tmp_path, max_bytes=ours + 10) as running:
        until(lambda: value(running.registry, "capture_bytes") == ours)
        running.write([candidate(0), candidate(5)])
        assert value(running.registry, "capture_dropped_total", reason="duplicate") == 2
        running.write([candidate(6)])
    assert [each["image"] for each in side_files(tmp_path)] == [candidate(seed).data for seed in range(1, 7)]
    assert (tmp_path / "labels.csv").exists()


def test_the_same_image_is_kept_once(tmp_path):
    """However often it is sent; once it has been deleted for the cap it may come again."""
    with writing(tmp_path, max_bytes=5_000) as running:
        running.write([candidate(0), candidate(1, data=candidate(0).data), candidate(2, data=candidate(0).data)])
        assert value(running.registry, "capture_dropped_total", reason="duplicate") == 2
        assert len(side_files(tmp_path)) == 1
        running.write([candidate(seed) for seed in range(3, 6)])
        assert candidate(0).data not in [each["image"] for each in side_files(tmp_path)]
        running.write([candidate(6, data=candidate(0).data)])
    assert side_files(tmp_path)[-1]["image"] == candidate(0).data


def test_an_image_larger_than_the_cap_is_dropped(tmp_path):
    """Nothing is deleted for what will never fit."""
    with writing(tmp_path, max_bytes=5_000) as running:
        running.write([candidate(0), candidate(1, data=b"BM" + bytes(5_000))])
        assert value(running.registry, "capture_dropped_total", reason="too_large") == 1
    assert [each["image"] for each in side_files(tmp_path)] == [candidate(0).data]


def test_a_failure_loses_one_image_and_is_told_once_a_minute(tmp_path, caplog):
    """A full disk: no image without its side file is left, the next one is tried, the log has a line, not a flood."""
    target, now = Broken(str(tmp_path)), 0.0
    with writing(target, clock=lambda: now) as running, caplog.at_level(logging.INFO):
        running.write([candidate(0)])
        target.failing = True
        running.write([candidate(seed) for seed in range(1, 6)])
        assert value(running.registry, "capture_failures_total") == 5
        assert len(caplog.records) == 1 and "No space left" in caplog.records[0].reason
        now = 61.0
        running.write([candidate(6)])
        assert [record.times for record in caplog.records] == [1, 5]
        target.failing = False
        running.write([candidate(7)])
        target.failing = True
        running.write([candidate(8)])
        target.failing = False
        running.write([candidate(9)])
        assert len(caplog.records) == 2  # trouble that comes and goes is no line for each time
        now = 122.0
        running.write([candidate(10)])
        assert value(running.registry, "capture_bytes") == bytes_below(tmp_path)
    assert [each["image"] for each in side_files(tmp_path)] == [candidate(seed).data for seed in (0, 7, 9, 10)]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 8
    assert caplog.records[-1].getMessage().startswith("over: ")
    assert caplog.records[-1].times == 7


def test_nothing_is_kept_while_nobody_knows_what_lies_there(tmp_path, caplog):
    """A day that cannot be listed counts as a failure, and is told; afterwards the cap has its images, too."""
    with writing(tmp_path) as running:
        running.write([candidate(seed) for seed in range(4)])
    size = bytes_below(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        make_unlistable(tmp_path / "2026-11-24", patch)
        with writing(tmp_path, max_bytes=size) as running:
            until(lambda: value(running.registry, "capture_failures_total") == 1)
            running.write([candidate(4), candidate(5)])
            assert value(running.registry, "capture_failures_total") == 3
            assert "Input/output error" in caplog.records[0].reason
            patch.undo()
            running.write([candidate(6)])
    assert bytes_below(tmp_path) <= size
    assert [each["image"] for each in side_files(tmp_path)] == [candidate(seed).data for seed in (1, 2, 3, 6)]


def test_what_people_take_away_is_noticed_before_anything_is_deleted(tmp_path):
    """An image is deleted only if there is too much now, not if there was ten minutes ago."""
    now = 0.0
    with writing(tmp_path, clock=lambda: now) as running:
        running.write([candidate(seed) for seed in range(4)])
    size = bytes_below(tmp_path)
    with writing(tmp_path, max_bytes=size, clock=lambda: now) as running:
        until(lambda: value(running.registry, "capture_bytes") == size)
        for path in (tmp_path / "2026-11-25").iterdir():
            path.unlink()  # the last two
        now = 601.0
        running.write([candidate(4)])
    assert [each["image"] for each in side_files(tmp_path)] == [candidate(seed).data for seed in (0, 1, 4)]


def test_an_image_without_its_side_file_counts_and_may_be_kept_again(tmp_path):
    """As a killed server leaves it: it is in the cap, and no reason to leave out the image."""
    with writing(tmp_path) as running:
        running.write([candidate(0)])
    (side,) = tmp_path.rglob("*.json")
    side.unlink()
    left = bytes_below(tmp_path)
    with writing(tmp_path) as running:
        until(lambda: value(running.registry, "capture_bytes") == left)
        running.write([candidate(1, data=candidate(0).data)])
    assert len(list(tmp_path.rglob("*.json"))) == 1


@pytest.mark.parametrize("url", ["memory://writer", "file://{folder}"])
def test_other_kinds_of_targets_are_written_alike(url, tmp_path):
    """The cap and the names do not depend on the file system."""
    target = Target(url.format(folder=tmp_path))
    with writing(target, max_bytes=6_000) as running:
        running.write([candidate(seed) for seed in range(6)])
        sizes = target.sizes()
        assert value(running.registry, "capture_bytes") == sum(sizes.values()) <= 6_000
    images = sorted(path for path in sizes if path.endswith(".png"))
    assert {path.removesuffix(".png") + ".json" for path in images} == sizes.keys() - set(images)
    assert target.read(images) == [candidate(seed).data for seed in range(6 - len(images), 6)]
