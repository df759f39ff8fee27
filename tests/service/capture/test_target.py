"""Targets: folders, and what else fsspec knows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.capture.target import Target, TargetError, open_target
from tests.service.capture.making import make_unlistable


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path}/x" if request.param == "memory" else f"{tmp_path}/a folder [1]*"


def test_what_is_put_is_read(url):
    """Files come back as they were put, are listed with their sizes, and can be deleted twice."""
    target = Target(url)
    files = {f"2026-11-2{day}/{name}": os.urandom(size) for day, name, size in [(3, "a", 1), (4, "b", 100_000)]}
    for path, content in files.items():
        target.put(path, content)
    assert target.sizes() == {path: len(content) for path, content in files.items()}
    assert target.read(list(files)) == list(files.values())
    assert target.exists() and target.exists("2026-11-23/a")
    for _ in range(2):
        target.delete("2026-11-23/a")
    assert set(target.sizes()) == {"2026-11-24/b"}
    (missing,) = target.read(["2026-11-23/a"])
    assert isinstance(missing, FileNotFoundError)


def test_a_check_leaves_nothing(url):
    """Trying a target shows whether it can be written, and nothing lies there afterwards."""
    target, trouble = open_target(url, 10)
    assert trouble is None
    assert target.sizes() == {}


def test_a_half_written_file_never_looks_whole(tmp_path, monkeypatch):
    """Up to the rename a folder shows nothing under the name; a failure leaves nothing at all."""
    target = Target(str(tmp_path))
    seen = []

    def fail(descriptor: int) -> None:
        seen.extend(path.name for path in tmp_path.rglob("*") if path.is_file())
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        target.put("day/image.jpg", b"x" * 1000)
    assert seen == [".image.jpg.part"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_was_left_half_written_goes_when_it_is_old(tmp_path):
    """A killed server leaves a hidden file: an hour later it is deleted, but not before: it may be being written."""
    day = tmp_path / "2026-11-24"
    old, fresh, foreign = day / ".a.jpg.part", day / ".b.jpg.part", day / "c.part"
    day.mkdir()
    for path in (old, fresh, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (time.time() - 7200,) * 2)
    Target(str(tmp_path)).sizes()
    assert [old.exists(), fresh.exists(), foreign.exists()] == [True] * 3  # who only reads deletes nothing
    Target(str(tmp_path)).sizes(sweep=True)
    assert [old.exists(), fresh.exists(), foreign.exists()] == [False, True, True]


@pytest.mark.parametrize("unlistable", [".", "2026-11-24"])
def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch, unlistable):
    """The error says which it is, be it the target's own or a day's."""
    target = Target(str(tmp_path))
    target.put("2026-11-24/a", b"x")
    make_unlistable(tmp_path / unlistable, monkeypatch)
    with pytest.raises(OSError, match="Input/output error") as failed:
        target.sizes()
    assert failed.value.filename == str(tmp_path / unlistable)


def test_folders_of_others_are_left_alone(tmp_path, monkeypatch):
    """One that is nobody's to read, as a disk's own `lost+found`, does not stop the capture."""
    target = Target(str(tmp_path))
    target.put("2026-11-24/a", b"x")
    (tmp_path / "lost+found").mkdir()
    make_unlistable(tmp_path / "lost+found", monkeypatch)
    assert target.sizes() == {"2026-11-24/a": 1}


def test_a_check_lists(tmp_path, monkeypatch):
    """A folder that takes files but does not show them keeps no cap: the server says so when it starts."""
    make_unlistable(tmp_path, monkeypatch)
    _, trouble = open_target(str(tmp_path), 10)
    assert isinstance(trouble, OSError) and "Input/output error" in str(trouble)


def test_folders_go_when_they_are_empty(tmp_path):
    """A folder with something in it stays."""
    target = Target(str(tmp_path))
    target.put("day/a", b"x")
    target.delete_folder("day")
    assert (tmp_path / "day").exists()
    target.delete("day/a")
    target.delete_folder("day")
    assert not (tmp_path / "day").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://bucket/x", "nosuch"),
        ("http://127.0.0.1:9/x", "NotImplementedError"),
        ("{file}", "exists|Not a directory"),
        ("{file}/below", "Not a directory"),
        ("/proc/nothing/here", "No such file|Permission"),
    ],
)
def test_a_url_that_can_never_be_written_is_refused(url, said, tmp_path):
    """An unknown kind, one that is read-only, a file where the folder should be."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TargetError, match=said):
        open_target(url.format(file=tmp_path / "file"), 10)


def test_a_password_is_not_shown():
    """What is told of a target in logs and errors has no credentials."""
    with pytest.raises(TargetError) as refused:
        Target("nosuch://user:secret@host/path")
    assert "secret" not in str(refused.value)
    assert str(refused.value).startswith("nosuch://host/path: ")


class Hanging(MemoryFileSystem):
    protocol = "memory"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        time.sleep(3)


def test_a_target_that_does_not_answer_is_no_wrong_one(monkeypatch):
    """The server starts without it: it may come back; the wait for it is bounded."""
    fsspec.register_implementation("hanging", Hanging, clobber=True)
    started = time.monotonic()
    _, trouble = open_target("hanging://x", 0.2)
    assert isinstance(trouble, TimeoutError)
    assert time.monotonic() - started < 2
