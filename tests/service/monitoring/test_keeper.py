"""The state file: what survives, what is told, what never fails."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.artifact import Artifact
from service.monitoring import keeper as keeping
from service.monitoring.keeper import Keeper, as_json
from service.monitoring.limits import Limits
from service.monitoring.monitor import Monitor
from tests.service.monitoring.conftest import CLASSES, Clock, answers

ID = "0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "monitor.json"


def see(monitor: Monitor, clock: Clock, stream: str, seed: int, model: str = "m") -> None:
    """A hundred images of all kinds, and fifty far out."""
    random = np.random.default_rng(seed)
    for score in [*random.uniform(-10, 50, 100), *[1000.0] * 50]:
        clock.now += 1.5
        monitor.answered(model, ID, stream, answers([score], int(random.integers(CLASSES))))


def save(monitor: Monitor, keeper: Keeper | Path) -> None:
    """What a server does that starts and stops."""

    async def run() -> None:
        async with _keeper(keeper).keeping(monitor):
            pass

    asyncio.run(run())


def begin(keeper: Keeper | Path, artifact: Artifact, limits: Limits, clock: Clock) -> Monitor:
    monitor = Monitor(limits, _keeper(keeper).read(), clock=clock, wall=clock)
    monitor.watch("m", artifact)
    return monitor


def _keeper(of: Keeper | Path) -> Keeper:
    return Keeper(of) if isinstance(of, Path) else of


def test_all_survives_a_restart(monitor: Monitor, artifact: Artifact, limits: Limits, clock: Clock, path: Path) -> None:
    """Windows, evidence, alarms and names are the same afterwards, and stay the same with the same images."""
    see(monitor, clock, "front", 0)
    see(monitor, clock, "default", 1)
    save(monitor, path)
    again = begin(path, artifact, limits, clock)
    assert again.report() == monitor.report()
    assert again.report().models["m"].streams["front"].alarm
    for each in (monitor, again):
        now = clock.now
        see(each, clock, "front", 2)
        clock.now = now
    assert again.report() == monitor.report()


def test_the_time_between_counts(
    monitor: Monitor, artifact: Artifact, limits: Limits, clock: Clock, path: Path
) -> None:
    """What leaves the window of seconds while the server is down is gone; a clock that is set back takes nothing."""
    see(monitor, clock, "default", 0)
    images = monitor.report().models["m"].streams["default"].windows["seconds"].images
    save(monitor, path)
    clock.now += 500
    later = begin(path, artifact, limits, clock).report().models["m"].streams["default"]
    assert 0 < later.windows["seconds"].images < images
    assert later.windows["images"].images == 50
    clock.now += 600
    assert begin(path, artifact, limits, clock).report().models["m"].streams["default"].windows["seconds"].images == 0
    clock.now -= 3000
    assert (
        begin(path, artifact, limits, clock).report().models["m"].streams["default"].windows["seconds"].images == images
    )


def test_other_windows_take_over_what_they_can(
    monitor: Monitor, artifact: Artifact, limits: Limits, clock: Clock, path: Path
) -> None:
    """The last images fit into a smaller window; seconds of another length begin anew; evidence stays."""
    see(monitor, clock, "default", 0)
    before = monitor.report().models["m"].streams["default"]
    save(monitor, path)
    other = dataclasses.replace(limits, window_images=20, window_s=100)
    after = begin(path, artifact, other, clock).report().models["m"].streams["default"]
    assert after.windows["images"].images == 20
    assert after.windows["images"].rejects["default"].ratio == 1
    assert after.windows["seconds"].images == 0
    assert after.drift == before.drift


def test_fewer_places_are_told(
    monitor: Monitor, artifact: Artifact, limits: Limits, clock: Clock, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams of the file that find no place are named in the log, and mixed into no other."""
    for name in ("a", "b", "c"):
        see(monitor, clock, name, 0)
    save(monitor, path)
    streams = begin(path, artifact, dataclasses.replace(limits, streams=2), clock).report().models["m"].streams
    assert {name: stream.images for name, stream in streams.items()} == {"default": 0, "a": 150, "b": 150, "other": 0}
    (record,) = [record for record in caplog.records if record.message.startswith("no place")]
    assert record.streams == ["c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda artifact, limits: (dataclasses.replace(artifact, artifact_id="f" * 16), limits), "another artifact"),
        (lambda artifact, limits: (artifact, dataclasses.replace(limits, false_alarm=0.05)), "bound"),
    ],
)
def test_state_of_something_else_begins_anew(
    monitor: Monitor,
    artifact: Artifact,
    limits: Limits,
    clock: Clock,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Artifact, Limits], tuple[Artifact, Limits]],
    message: str,
) -> None:
    """Evidence against one calibration, or for one bound, is none against another."""
    see(monitor, clock, "default", 0)
    save(monitor, path)
    streams = begin(path, *change(artifact, limits), clock).report().models["m"].streams
    assert (streams["default"].images, streams["default"].alarm) == (0, False)
    assert [message in told for told in caplog.messages if "begins anew" in told] == [True]


def test_models_that_are_not_served_keep_their_state(
    monitor: Monitor, artifact: Artifact, limits: Limits, clock: Clock, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A start with one of two models takes nothing from the other, which goes on later; the log names it once."""
    monitor.watch("night", artifact)
    see(monitor, clock, "front", 0, "night")
    save(monitor, path)
    clock.now += 200
    save(begin(path, artifact, limits, clock), path)
    clock.now += 200
    again = begin(path, artifact, limits, clock)
    again.watch("night", artifact)
    night = again.report().models["night"]
    assert night == monitor.report().models["night"]
    assert night.streams["front"].alarm
    assert 0 < night.streams["front"].windows["seconds"].images < 150  # the time without the model has counted
    assert [record.models for record in caplog.records if "not served" in record.message] == [["night"]]


def _edit(content: bytes, *where: str, to: object) -> bytes:
    state = json.loads(content)
    part: Any = state
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = to
    return json.dumps(state).encode()


STREAM = ("models", "m", "streams", "default")
BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "no JSON": lambda _: b"\x00\xff" * 100,
    "another version": lambda content: _edit(content, "version", to=2),
    "a cell that there is not": lambda content: _edit(content, *STREAM, "cells", to="/////w=="),
    "half a cell": lambda content: _edit(content, *STREAM, "cells", to="AAA="),
    "no base64": lambda content: _edit(content, *STREAM, "cells", to="?"),
    "another operating point": lambda content: _edit(content, *STREAM, "evidence", to={}),
    "steps of other bins": lambda content: _edit(content, *STREAM, "time", "steps", to=[[0]] * 60),
    "too few steps": lambda content: _edit(content, *STREAM, "time", "steps", to=[]),
    "time that is no number": lambda content: content.replace(b'"elapsed_s":', b'"elapsed_s":1e999,"was":'),
    "too much capital": lambda content: content.replace(b'"capital":[', b'"capital":[0,'),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_file_is_told_and_not_fatal(
    monitor: Monitor,
    artifact: Artifact,
    limits: Limits,
    clock: Clock,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    """Monitoring begins anew, and the next save makes the file whole; what it was lies beside it."""
    see(monitor, clock, "default", 0)
    before = BROKEN[broken](as_json(monitor.snapshot()))
    path.write_bytes(before)
    keeper = Keeper(path)
    anew = begin(keeper, artifact, limits, clock)
    assert anew.report().models["m"].streams["default"].images == 0
    (told,) = [record for record in caplog.records if "begins anew" in record.message]
    assert told.levelname == "ERROR"
    see(anew, clock, "default", 1)
    save(anew, keeper)
    assert begin(path, artifact, limits, clock).report() == anew.report()
    assert path.with_name("monitor.json.unusable").read_bytes() == before


@pytest.mark.parametrize("trouble", ["a file that is none", "a disk that fails"])
def test_what_cannot_be_read_is_set_aside(
    monitor: Monitor, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """No save takes its place: its bytes lie beside it, where the log says, also those of a second one."""

    def fail(_: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    for name in ("monitor.json.unusable", "monitor.json.unusable1"):
        path.write_bytes(name.encode())
        keeper = Keeper(path)
        with monkeypatch.context() as patch:
            if trouble == "a disk that fails":
                patch.setattr(Path, "read_bytes", fail)
            assert keeper.read() is None
        save(monitor, keeper)
        assert Keeper(path).read() is not None
        assert path.with_name(name).read_bytes() == name.encode()
        assert caplog.records[-1].kept_as == str(path.with_name(name))


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_cannot_be_set_aside_stays(
    monitor: Monitor,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_folder: bool,
) -> None:
    """A disk that takes no new name, or a folder where the file should be: nothing is saved, and that is told."""

    def fail(_: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    if is_folder:
        path.mkdir()
    else:
        path.write_bytes(b"no state")
        monkeypatch.setattr(Path, "rename", fail)
    keeper = Keeper(path)
    assert keeper.read() is None
    save(monitor, keeper)
    assert path.is_dir() if is_folder else path.read_bytes() == b"no state"
    assert list(path.parent.iterdir()) == [path]
    assert caplog.messages.count("the monitor's state cannot be saved") == 1


def test_no_file_is_a_beginning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first start has nothing to complain of."""
    assert Keeper(path).read() is None
    assert caplog.records == []


def test_a_disk_that_is_full_is_told_once(
    monitor: Monitor, clock: Clock, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file from before stays whole, no rest of an attempt lies about; the log says when it begins and ends."""
    caplog.set_level("INFO")
    save(monitor, path)
    before = path.read_bytes()
    monkeypatch.setattr(keeping, "SAVE_EVERY_S", 0.2)
    full = threading.Event()
    full.set()
    fsync = os.fsync

    def write_to_full_disk(descriptor: int) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", write_to_full_disk)

    read = path.read_bytes  # a few bytes: the loop can wait for them

    async def run() -> None:
        keeper = Keeper(path)
        started = keeper.saved_at
        async with keeper.keeping(monitor):
            see(monitor, clock, "default", 0)
            await asyncio.sleep(0.7)
            assert read() == before
            assert keeper.saved_at == started  # so that an alert on its age fires, too
            full.clear()
            await asyncio.sleep(0.7)
            assert keeper.saved_at == clock.now

    asyncio.run(run())
    told = [record.message for record in caplog.records if "saved" in record.message]
    assert told == ["the monitor's state cannot be saved", "the monitor's state can be saved again"]
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() != before


def test_a_disk_that_hangs_holds_up_nothing(
    monitor: Monitor, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop goes on meanwhile, which is told once, and the end waits for a moment only."""
    hangs = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: hangs.wait(30))
    monkeypatch.setattr(keeping, "SAVE_EVERY_S", 0.05)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        async with Keeper(path).keeping(monitor):
            await asyncio.sleep(0.4)
            started = loop.time()
        return loop.time() - started

    try:
        assert asyncio.run(run()) < 2 * keeping.PATIENCE_S
    finally:
        hangs.set()
    assert caplog.messages.count("the monitor's state cannot be saved") == 1
    assert "the monitor's state was not saved: the disk does not answer" in caplog.messages


def test_a_disk_that_hangs_at_the_end_is_told(
    monitor: Monitor, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last state is lost if only its own write hangs: the log says so."""
    hangs = threading.Event()

    async def run() -> None:
        async with Keeper(path).keeping(monitor):
            await asyncio.sleep(0.2)
            monkeypatch.setattr(os, "fsync", lambda _: hangs.wait(30))

    try:
        asyncio.run(run())
    finally:
        hangs.set()
    assert "the monitor's state was not saved: the disk does not answer" in caplog.messages
