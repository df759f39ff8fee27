"""`line-ood captured`: a manifest of what a server has kept."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from service.capture.candidate import Candidate
from service.capture.names import SUFFIXES, Name
from service.capture.shelf import kept_of
from service.capture.target import Target
from tests.calibration.command import Call
from tests.service.capture.making import START, candidate, make_unlistable

REASONS = ["reject", "borderline", "random", "reject", "random"]


def keep(target: Target, image: Candidate, sha256: str | None = None) -> str:
    """Put an image as a server does; returns its path without suffix."""
    digest = hashlib.sha256(image.data).hexdigest()
    stem = Name(image.time, image.reason, digest).stem
    record = image.record(sha256 or digest)
    target.put(stem + SUFFIXES[record.content_type], image.data)
    target.put(f"{stem}.json", record.model_dump_json().encode())
    return stem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, of which the last was written first."""
    found = tmp_path / "captures"
    for seed, reason in reversed(list(enumerate(REASONS))):
        keep(Target(str(found)), candidate(seed, reason=reason, request_id=f"r{seed}"))
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_an_image_sorted_by_time(call: Call, folder: Path, tmp_path: Path):
    """A row is the side file, with the image's path in front."""
    done = call("captured", folder, "--out", tmp_path / "m.csv")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"5 images in {tmp_path / 'm.csv'}\n"
    found = rows(tmp_path / "m.csv")
    assert [row["request_id"] for row in found] == ["r0", "r1", "r2", "r3", "r4"]
    for row in found:
        side = json.loads((folder / row["image"]).with_suffix(".json").read_text())
        assert {name: value for name, value in row.items() if name not in ("image", "time")} == {
            name: str(value) for name, value in side.items() if name != "time"
        }
        assert datetime.fromisoformat(row["time"]) == datetime.fromisoformat(side["time"])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--reason", "reject"], "03"),
        (["--reason", "random", "--reason", "borderline"], "124"),
        (["--since", "2026-11-25"], "234"),
        (["--since", "2026-11-24T23:59:59Z"], "1234"),
        (["--since", "2026-11-25T02:00:01+02:00"], "34"),
        (["--since", "2026-11-25", "--reason", "reject"], "3"),
        (["--since", "2027-01-01"], ""),
    ],
)
def test_reasons_and_times_can_be_chosen(call: Call, folder: Path, tmp_path: Path, options: list[str], wanted: str):
    """Reasons add up, a time without a zone is UTC, and the time itself is included."""
    assert call("captured", folder, "--out", tmp_path / "m.csv", *options).code == 0
    assert [row["request_id"] for row in rows(tmp_path / "m.csv")] == [f"r{each}" for each in wanted]


def test_parquet_says_the_same(call: Call, folder: Path, tmp_path: Path):
    """Same rows and columns as the CSV, with types."""
    arrow = pytest.importorskip("pyarrow.parquet")
    for name in ("m.csv", "m.parquet"):
        assert call("captured", folder, "--out", tmp_path / name).code == 0
    table = arrow.read_table(tmp_path / "m.parquet")
    assert table.column("time").to_pylist() == [START + timedelta(seconds=seed) for seed in range(5)]
    typed = [{**row, "time": row["time"].isoformat()} for row in table.to_pylist()]
    assert [{name: str(value) for name, value in row.items()} for row in typed] == rows(tmp_path / "m.csv")
    kinds = {name: str(table.schema.field(name).type) for name in ("time", "class_index", "p_value", "stream_id")}
    assert kinds == {
        "time": "timestamp[us, tz=UTC]",
        "class_index": "int64",
        "p_value": "double",
        "stream_id": "string",
    }


def test_an_empty_parquet_has_its_columns(call: Call, folder: Path, tmp_path: Path):
    """No image is no error, and the file can be read."""
    arrow = pytest.importorskip("pyarrow.parquet")
    done = call("captured", folder, "--out", tmp_path / "m.parquet", "--since", "2027-01-01")
    assert done.out.startswith("0 images")
    table = arrow.read_table(tmp_path / "m.parquet")
    assert (table.num_rows, table.column_names[:3]) == (0, ["image", "schema_version", "time"])


def test_broken_side_files_are_told_and_skipped(call: Call, folder: Path, tmp_path: Path):
    """Each on a line of stderr with its reason; the others make their rows; an image without one is being written."""
    stems = [each.stem for each in sorted(kept_of(Target(str(folder)).sizes()), key=lambda each: each.stem)]
    (folder / f"{stems[0]}.json").write_bytes(b'{"half')
    fields = json.loads((folder / f"{stems[1]}.json").read_text())
    (folder / f"{stems[1]}.json").write_text(json.dumps(fields | {"schema_version": 2, "p_value": "?"}))
    (folder / f"{stems[2]}.png").write_bytes(b"short")
    (folder / f"{stems[3]}.png").unlink()
    keep(Target(str(folder)), candidate(5, request_id="r5"), sha256="0" * 64)
    (folder / Path(stems[4]).with_name("20261125T000009.000000Z-reject-0123456789abcdef.png")).write_bytes(b"new")
    (folder / "labels.json").write_text("of people")
    done = call("captured", folder, "--out", tmp_path / "m.csv")
    assert done.code == 0
    lines = done.err.splitlines()
    assert len(lines) == 5
    for line, said in zip(lines, ["JSON", "schema_version", "found 5", "image is gone", "sha256"], strict=True):
        assert line.startswith("skipped 2026-11-2") and said in line
    assert [row["request_id"] for row in rows(tmp_path / "m.csv")] == ["r4"]


def test_only_broken_side_files_are_bad_input(call: Call, folder: Path, tmp_path: Path):
    """Exit code 2, and no manifest."""
    for path in folder.rglob("*.json"):
        path.write_text("[]")
    done = call("captured", folder, "--out", tmp_path / "m.csv")
    assert done.code == 2
    assert "none of the 5 side files" in done.err
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize("unlistable", [".", "2026-11-25"])
def test_a_folder_that_cannot_be_listed_is_told(call: Call, folder: Path, tmp_path: Path, monkeypatch, unlistable: str):
    """Exit code 2 and its name, not a manifest that lacks its images."""
    make_unlistable(folder / unlistable, monkeypatch)
    refusal = call("captured", folder, "--out", tmp_path / "m.csv").refusal()
    assert "Input/output error" in refusal and str(folder / unlistable) in refusal
    assert not (tmp_path / "m.csv").exists()


def test_a_target_that_is_being_written_to_and_deleted_from(call: Call, folder: Path, tmp_path: Path):
    """Every manifest that is taken meanwhile has whole rows, in order, and nothing to complain of."""
    target, stop = Target(str(folder)), threading.Event()

    def serve() -> None:
        stems = []
        for seed in range(100, 100_000):
            stems.append(keep(target, candidate(seed, data=b"BM" + seed.to_bytes(4, "big"))))
            if len(stems) > 20:
                oldest = stems.pop(0)
                target.delete(f"{oldest}.json")
                target.delete(f"{oldest}.bmp")
            if stop.is_set():
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for _ in range(10):
            done = call("captured", folder, "--out", tmp_path / "m.csv")
            assert (done.code, done.err) == (0, "")
            times = [row["time"] for row in rows(tmp_path / "m.csv")]
            assert len(times) >= 5 and times == sorted(times)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["{folder}", "--out", "{tmp}/m.xlsx"], ".csv or .parquet"),
        (["{folder}", "--out", "{tmp}/nowhere/m.csv"], "there is no folder"),
        (["{folder}", "--out", "{tmp}/m.csv", "--reason", "boring"], "reject, borderline, random"),
        (["{folder}", "--out", "{tmp}/m.csv", "--since", "yesterday"], "'yesterday'"),
        (["{tmp}/nothing", "--out", "{tmp}/m.csv"], "there is nothing"),
        (["nosuch://x", "--out", "{tmp}/m.csv"], "nosuch"),
        (["{folder}"], "--out"),
    ],
)
def test_bad_usage_is_refused(call: Call, folder: Path, tmp_path: Path, options: list[str], said: str):
    """Exit code 2 and one line, before anything is read."""
    refusal = call("captured", *[each.format(folder=folder, tmp=tmp_path) for each in options]).refusal()
    assert said in refusal


def test_parquet_without_pyarrow_says_what_to_install(call: Call, folder: Path, tmp_path: Path, monkeypatch):
    """CSV goes on without it."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refusal = call("captured", folder, "--out", tmp_path / "m.parquet").refusal()
    assert "pip install 'line-ood[parquet]'" in refusal
    assert call("captured", folder, "--out", tmp_path / "m.csv").code == 0
