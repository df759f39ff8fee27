"""A calibration that was stopped and started again makes the artifact of one that was not, and reads less."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from calibration import loader, partial
from calibration.dataset import LabelledImages
from calibration.job import Calibration, Job, calibrate
from calibration.loader import CPU_BATCH_SIZE as BATCH_SIZE
from calibration.partial import Partial, describe, discard
from calibration.settings import LineSettings
from calibration.walk import Pass
from scoring.artifact import Artifact
from scoring.classifier import Classifier, load_classifier
from scoring.engines.engine import EngineChoice
from tests.calibration import networks
from tests.calibration.conftest import TINY
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders
from tests.calibration.stopping import stopped_after
from tests.factories.tiny import CLASSES, tiny

WATCHED = Path(__file__).with_name("watched.py")
BATCHES = 6
COUNT = 45  # files of either pass: five full batches, and one that is not


def tensors_of(artifact: Artifact) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in artifact._tensors().items()}


def metadata_of(artifact: Artifact) -> dict[str, Any]:
    """All but when and by which command."""
    return artifact.metadata.model_dump(exclude={"provenance": {"created", "command"}})


# in real processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many pictures for masks as for thresholds, and a text among them."""
    folder = write_class_folders(tmp_path_factory.mktemp("data"), CLASSES, 2 * COUNT // len(CLASSES))
    (folder / "cat" / "000.png").write_bytes(NOT_AN_IMAGE)
    return folder


def watched(data: Path, folder: Path, saves: int = 0) -> tuple[list[str | Path], Path]:
    """A command that hangs after so many saves, and the file where it notes what it reads."""
    folder.mkdir(exist_ok=True)
    log = folder / f"{saves}.log"
    flags = ("--p-w", "60", "--clip-quantile", "0.9", "--alpha", "0.1", "--out", folder / "a.safetensors")
    return [sys.executable, WATCHED, log, str(saves), "calibrate", "--model", TINY, "--data", data, *flags], log


def finish(command: list[str | Path]) -> str:
    """What it says on stderr."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


def kill_at(command: list[str | Path], log: Path) -> None:
    """Start it, wait until it hangs, and send SIGKILL."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2]) as process:
        while not log.with_suffix(".hangs").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    command, log = watched(data, tmp_path_factory.mktemp("uninterrupted"))
    finish(command)
    assert len(log.read_text().splitlines()) == 2 * COUNT
    return Artifact.load(log.with_name("a.safetensors"))


@pytest.mark.parametrize("batches", [2, BATCHES + 2], ids=["masks", "thresholds"])
def test_killed(data: Path, uninterrupted: Artifact, tmp_path: Path, batches: int) -> None:
    """Killed by SIGKILL in either pass and started again: the same bits, and only the files that were left are read."""
    command, log = watched(data, tmp_path / "out", batches)
    kill_at(command, log)
    assert sorted(path.name for path in (tmp_path / "out" / "a.safetensors.partial").iterdir()) == (
        ["masks.safetensors"] if batches <= BATCHES else ["masks.safetensors", "thresholds.safetensors"]
    )
    command, log = watched(data, tmp_path / "out")
    skipped = finish(command)
    artifact = Artifact.load(tmp_path / "out" / "a.safetensors")
    assert tensors_of(artifact) == tensors_of(uninterrupted)
    assert metadata_of(artifact) == metadata_of(uninterrupted)
    done = min(batches * BATCH_SIZE, COUNT) + max(0, batches - BATCHES) * BATCH_SIZE
    assert len(log.read_text().splitlines()) == 2 * COUNT - done
    assert skipped == f"skipped {data / 'cat' / '000.png'}: the image is none of JPEG, PNG, WebP, BMP\n"
    assert not (tmp_path / "out" / "a.safetensors.partial").exists()


# in this process


@pytest.fixture
def job(tmp_path: Path) -> Job:
    masks, holdout = (
        LabelledImages.read(write_class_folders(tmp_path / name, CLASSES, COUNT // 5, start), CLASSES, 5)
        for name, start in (("masks", 0), ("holdout", 500))
    )
    return Job("spec", masks, holdout, LineSettings(), {"a": 0.1}, "a command", CLASSES)


@pytest.fixture
def classifier() -> Classifier:
    return load_classifier(tiny(), torch.device("cpu"))


Stop = Callable[[Job, int], None]
Count = Callable[[Job], tuple[Calibration, int]]


@pytest.fixture
def stop(classifier: Classifier, tmp_path: Path, always: None) -> Stop:
    """Run a job until so many batches are done."""

    def run(job: Job, batches: int) -> None:
        with stopped_after(batches):
            calibrate(job, classifier, tmp_path / "partial")

    return run


@pytest.fixture
def count(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Count:
    """Run a job to its end, and count the files that it reads."""

    def run(job: Job) -> tuple[Calibration, int]:
        read, paths = loader._read, []
        monkeypatch.setattr(loader, "_read", lambda path, preprocess: paths.append(path) or read(path, preprocess))
        return calibrate(job, classifier, tmp_path / "partial"), len(paths)

    return run


def test_accuracy_and_unreadable_files(job: Job, classifier: Classifier, stop: Stop, count: Count) -> None:
    """What was met before the stop is in the summary of the run that ends it."""
    bad = [job.mask_images.paths[3], job.holdout_images.paths[5]]
    for path in bad:
        path.write_bytes(NOT_AN_IMAGE)
    wanted = calibrate(job, classifier)
    stop(job, BATCHES + 1)
    found, read = count(job)
    assert read == COUNT - BATCH_SIZE
    assert (found.mask_pass, found.holdout_pass) == (wanted.mask_pass, wanted.holdout_pass)
    assert list(found.unreadable) == bad
    assert found.warnings == ()


def test_another_alpha(job: Job, classifier: Classifier, stop: Stop, count: Count) -> None:
    """Promised rates change no score: everything is gone on from."""
    stop(job, BATCHES + 2)
    other = replace(job, alphas={"b": 0.2}, command="another")
    found, read = count(other)
    assert read == COUNT - 2 * BATCH_SIZE
    assert found.warnings == ()
    wanted = calibrate(other, classifier).artifact
    assert tensors_of(found.artifact) == tensors_of(wanted)
    assert metadata_of(found.artifact) == metadata_of(wanted)


def test_other_settings(job: Job, classifier: Classifier, stop: Stop, count: Count, tmp_path: Path) -> None:
    """Other settings make other scores of the same statistics: those are kept, these are begun anew, with a warning."""
    stop(job, BATCHES + 2)
    other = replace(job, settings=LineSettings(p_a=50, p_w=50))
    found, read = count(other)
    assert read == COUNT
    (warning,) = found.warnings
    assert warning.startswith(f"{tmp_path / 'partial' / 'thresholds.safetensors'}: the partial calibration found there")
    assert "other settings" in warning
    assert tensors_of(found.artifact) == tensors_of(calibrate(other, classifier).artifact)


def test_thresholds_by_class(job: Job, tmp_path: Path, always: None) -> None:
    """Predicted classes are kept with the scores, whether thresholds by class were asked for before the stop or not."""
    classifier = load_classifier(networks.fine(), torch.device("cpu"))  # predicts different classes
    with stopped_after(BATCHES + 3):
        calibrate(job, classifier, tmp_path / "partial")
    by_class = replace(job, per_class=True, alphas={"a": 0.3})
    found = calibrate(by_class, classifier, tmp_path / "partial")
    assert found.warnings == ()
    wanted = calibrate(by_class, classifier).artifact
    assert wanted.groups["line"].alone.sum() > 1
    assert tensors_of(found.artifact) == tensors_of(wanted)
    assert metadata_of(found.artifact) == metadata_of(wanted)


def test_another_merge(job: Job, classifier: Classifier, stop: Stop, count: Count) -> None:
    """Scores that another merge has made are not mixed with those of the merge that is asked for now."""
    stop(job, BATCHES + 2)
    other = replace(job, combined=("line", "msp"))
    found, read = count(other)
    assert read == COUNT
    assert tensors_of(found.artifact) == tensors_of(calibrate(other, classifier).artifact)


def changed(job: Job, how: str) -> Job:
    """Another job, in which the first image of the masks was ..."""
    (first, label), *rest = job.mask_images.items
    if how == "left out":
        return replace(job, mask_images=LabelledImages(tuple(rest), CLASSES))
    if how == "given another class":
        return replace(job, mask_images=LabelledImages(((first, label + 1), *rest), CLASSES))
    if how == "touched":
        os.utime(first, ns=(0, first.stat().st_mtime_ns + 1))
    if how == "replaced at its time":
        status = first.stat()
        first.write_bytes(rest[0][0].read_bytes() + b"longer")
        os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    if how == "removed":
        first.unlink()
    return job


@pytest.mark.parametrize(
    "how", ["left out", "given another class", "touched", "replaced at its time", "removed"], ids=str
)
def test_other_images(job: Job, classifier: Classifier, stop: Stop, count: Count, how: str) -> None:
    """A file that is not as it was is another calibration: all is begun anew, with a warning for each pass."""
    stop(job, BATCHES + 1)
    other = changed(job, how)
    found, read = count(other)
    assert read == len(other.mask_images.items) + COUNT
    assert [("of other images" in warning) for warning in found.warnings] == [True, True]
    assert tensors_of(found.artifact) == tensors_of(calibrate(other, classifier).artifact)


@pytest.mark.parametrize("how", ["weights", "preprocessing", "engine"])
def test_another_classifier(
    job: Job, classifier: Classifier, stop: Stop, count: Count, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """So are other weights, another preprocessing, another engine."""
    stop(job, 1)
    if how == "weights":
        classifier.backbone.head.layer.weight.data[0, 0] += 1e-6
    if how == "preprocessing":
        classifier.preprocess = classifier.preprocess.model_copy(update={"std": (0.2, 0.3, 0.41)})
    if how == "engine":
        classifier.choice = EngineChoice(name="compiled")
    found, read = count(job)
    assert read == 2 * COUNT
    (warning,) = found.warnings
    assert "another classifier" in warning


@pytest.mark.parametrize("kind", ["garbage", "cut", "without a key", "empty"])
def test_broken(job: Job, classifier: Classifier, stop: Stop, count: Count, tmp_path: Path, kind: str) -> None:
    """A state that cannot be read is begun anew, with a warning, and never an error."""
    stop(job, 2)
    file = tmp_path / "partial" / "masks.safetensors"
    content = file.read_bytes()
    file.write_bytes({"garbage": b"\xff" * 999, "cut": content[:-9], "empty": b"", "without a key": b""}[kind])
    if kind == "without a key":
        save_file({"sums": torch.zeros(5, 24)}, file)
    found, read = count(job)
    assert read == 2 * COUNT
    (warning,) = found.warnings
    assert "cannot be read" in warning
    assert tensors_of(found.artifact) == tensors_of(calibrate(job, classifier).artifact)


def test_a_folder_that_cannot_be_made(job: Job, stop: Stop, count: Count, tmp_path: Path, always: None) -> None:
    """Where no state can be kept the job is done all the same, with one warning for each pass."""
    (tmp_path / "partial").write_text("a file where the folder should be")
    found, read = count(job)
    assert read == 2 * COUNT
    assert ["could not be saved" in warning for warning in found.warnings] == [True, True]


def test_nothing_is_kept(job: Job, classifier: Classifier, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder no file is asked for its state, and none is written."""
    monkeypatch.setattr(partial, "describe", lambda images: pytest.fail("looked at"))
    before = sorted(job.mask_images.paths[0].parents[2].rglob("*"))
    calibrate(job, classifier)
    assert sorted(job.mask_images.paths[0].parents[2].rglob("*")) == before


# the state of one pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_saved_now_and_then(tmp_path: Path, clock: Clock) -> None:
    """The first state is written after 30 s, the next 30 s later, and none in between."""
    state, written = Partial(tmp_path / "p", "masks", ["key"]), []
    for second in range(100):
        clock.now = second
        state.save_if_due(Pass(done=second), lambda: written.append(clock.now) or {"x": torch.zeros(1)})
    assert written == [30, 60, 90]
    found = Partial(tmp_path / "p", "masks", ["key"]).load()
    assert found is not None
    assert found[0] == Pass(done=90)


def test_a_slow_disk(tmp_path: Path, clock: Clock) -> None:
    """A state that takes 3 s to write is written after 150 s again: one fiftieth of the time."""
    state, written = Partial(tmp_path / "p", "masks", ["key"]), []

    def slow() -> dict[str, torch.Tensor]:
        written.append(clock.now)
        clock.now += 3
        return {"x": torch.zeros(1)}

    while clock.now < 400:
        state.save_if_due(Pass(), slow)
        clock.now += 1
    assert written == [30, 183, 336]


def test_what_is_kept(tmp_path: Path, always: None) -> None:
    """Record and tensors come back as they were, with names of files that are not UTF-8; it is no pickle."""
    record = Pass(64, 61, 40, {Path(os.fsdecode(b"caf\xe9/1.png")): "why ä", Path("b"): "c"})
    tensors = {"x": torch.tensor([1 / 3, -0.0, 1e-310], dtype=torch.float64), "n": torch.tensor([2**62])}
    Partial(tmp_path / "p", "masks", ["key"]).save_if_due(record, lambda: tensors)
    found = Partial(tmp_path / "p", "masks", ["key"]).load()
    assert found is not None
    assert found[0] == record
    assert {name: tensor.numpy().tobytes() for name, tensor in found[1].items()} == {
        name: tensor.numpy().tobytes() for name, tensor in tensors.items()
    }
    with safe_open(tmp_path / "p" / "masks.safetensors", framework="pt") as file:
        assert list(json.loads(file.metadata()["line_ood_partial"])) == ["key", "pass"]


def test_a_full_disk(tmp_path: Path, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written to its end leaves the state of before, no rest of itself, and one warning."""
    state = Partial(tmp_path / "p", "masks", ["key"])
    state.save_if_due(Pass(done=1), dict)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for done in (2, 3):
        state.save_if_due(Pass(done=done), dict)
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["masks.safetensors"]
    found = Partial(tmp_path / "p", "masks", ["key"]).load()
    assert found is not None
    assert found[0].done == 1
    (warning,) = state.warnings
    assert warning.endswith("could not be saved: No space left on device")


def test_discard(tmp_path: Path, always: None) -> None:
    """All that was kept is removed, with what a killed write left; another's file stays, and so does its folder."""
    Partial(tmp_path / "p", "masks", ["key"]).save_if_due(Pass(), dict)
    (tmp_path / "p" / "masks.safetensorsx7f3").write_bytes(b"half of it")
    (tmp_path / "p" / "notes.txt").write_text("mine")
    discard(tmp_path / "p")
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["notes.txt"]
    (tmp_path / "p" / "notes.txt").unlink()
    discard(tmp_path / "p")
    assert not (tmp_path / "p").exists()
    discard(tmp_path / "p")


def test_describe(tmp_path: Path) -> None:
    """A line a file, whatever its name, and for one that is not there, too."""
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png"))
    odd.write_bytes(b"12345")
    os.utime(odd, ns=(0, 77))
    images = LabelledImages(((odd, 3), (tmp_path / "none.png", 4)), CLASSES)
    assert list(describe(images)) == [f"3 5 77 {odd}", f"4 2 {tmp_path / 'none.png'}"]
    assert Partial(tmp_path, "masks", describe(images)).key != Partial(tmp_path, "masks", ["x"]).key


@pytest.mark.parametrize(("batches", "left"), [(BATCHES, COUNT), (2 * BATCHES, 0)])
def test_at_the_end_of_a_pass(
    job: Job, classifier: Classifier, stop: Stop, count: Count, batches: int, left: int
) -> None:
    """Of a pass that was stopped after its last batch nothing is read again."""
    stop(job, batches)
    found, read = count(job)
    assert read == left
    assert tensors_of(found.artifact) == tensors_of(calibrate(job, classifier).artifact)
