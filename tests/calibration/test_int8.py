"""Calibrating in int8, by the command: from images to an artifact that is served as it was calibrated."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from calibration import job as job_module
from calibration.dataset import LabelledImages
from calibration.job import Job, calibrate
from calibration.settings import LineSettings
from scoring.artifact import Artifact
from scoring.detector import LineDetector
from scoring.engines.engine import EngineChoice
from scoring.errors import EngineError
from scoring.metadata import Quality
from scoring.scorer import Scorer
from tests.calibration.command import Call, Outcome, start
from tests.calibration.conftest import TINY, Calibrated
from tests.calibration.pictures import write_class_folders
from tests.calibration.stopping import stopped_after
from tests.calibration.test_partial import tensors_of
from tests.calibration.test_real import DENSENET, some_files
from tests.data import real_data
from tests.factories.tiny import CLASSES
from tests.quantised import INT8, tiny_in_int8, tiny_network

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Int8:
    outcome: Outcome
    artifact: Path
    data: Path


def command(data: Path, out: Path, tolerance: str) -> tuple[str | Path, ...]:
    flags = ("--engine", "openvino:int8", "--int8-tolerance", tolerance)
    return ("calibrate", "--model", TINY, "--data", data, "--out", out, *flags)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Int8:
    folder = tmp_path_factory.mktemp("int8")
    data = write_class_folders(folder / "data", CLASSES, 20)
    artifact = folder / "a.safetensors"
    return Int8(start(*command(data, artifact, "1")), artifact, data)


def test_says_what_it_costs(int8: Int8) -> None:
    """One line on stderr, nothing else from anybody; the same numbers in the summary and in the artifact."""
    assert int8.outcome.code == 0, int8.outcome.err
    (line,) = int8.outcome.err.splitlines()
    assert line.startswith("engine openvino:int8: from float32 to int8 top-1 goes from ")
    metadata = Artifact.load(int8.artifact).metadata
    assert metadata.engine == INT8
    summary = json.loads(int8.outcome.out)
    assert metadata.quantisation is not None
    assert summary["quantisation"] == metadata.quantisation.model_dump()
    assert metadata.quantisation.compared_images == 50
    for quality in (metadata.quantisation.float32, metadata.quantisation.int8):
        assert f"{100 * quality.accuracy:.2f}" in line
        assert f"{100 * quality.fpr95:.2f}" in line
    left = [path.name for path in sorted(int8.artifact.parent.glob("a.*"))]
    assert left == ["a.report.html", "a.safetensors", "a.summary.json"]


def test_float32_is_the_calibration_in_float32(int8: Int8, tmp_path: Path) -> None:
    """What int8 is compared with has masks of its own: it measures, to the last digit, as an artifact of float32."""
    masks, holdout = LabelledImages.read(int8.data, CLASSES, 5).split(0.5)
    classifier = tiny_in_int8()
    classifier.use(EngineChoice(name="openvino"))
    artifact = calibrate(Job("s", masks, holdout, LineSettings(), {"a": 0.1}, "c", CLASSES), classifier).artifact
    detector = LineDetector(classifier.head, artifact.masks, artifact.metadata.method.clip)
    found, _ = job_module.measure_quality(classifier, detector, holdout)
    quantisation = Artifact.load(int8.artifact).metadata.quantisation
    assert quantisation is not None
    assert quantisation.float32 == found


def test_is_served_as_it_was_calibrated(int8: Int8, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file alone, without nncf and without images: to the bit."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    scorer = Scorer.load(int8.artifact, CPU)
    assert scorer.classifier.choice == INT8
    assert scorer.probe_deviations().max() == 0
    _, holdout = LabelledImages.read(int8.data, CLASSES, 5).split(0.5)
    pixels = torch.stack([scorer.classifier.preprocess.read(path.read_bytes()) for path in holdout.paths])
    scores = [score.ood_score for score in scorer.score(pixels, alone=False)]
    assert scores == scorer.artifact.calibration_scores.tolist()


def test_can_be_served_by_another_engine(int8: Int8) -> None:
    """When asked to, with the network as its owner wrote it; the probe images tell that scores differ."""
    scorer = Scorer.load(int8.artifact, CPU, engine=EngineChoice())
    assert scorer.classifier.choice == EngineChoice()
    assert scorer.probe_deviations().max() > 1e-4


def test_cannot_be_served_without_a_network(calibrated: Calibrated) -> None:
    """An artifact that was calibrated with another engine has nothing to run in int8."""
    with pytest.raises(EngineError, match="runs the quantised network of an artifact, and there is none"):
        Scorer.load(calibrated.artifact, CPU, engine=INT8)


def test_costs_too_much(call: Call, int8: Int8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than is tolerated is refused with 2 and both numbers, and no artifact is written."""
    qualities = iter([(Quality(accuracy=0.5, fpr95=0.75), 50), (Quality(accuracy=0.75, fpr95=0.5), 50)])
    monkeypatch.setattr(job_module, "measure_quality", lambda *_: next(qualities))
    refusal = call(*command(int8.data, tmp_path / "a.safetensors", "0.2")).refusal()
    assert "top-1 goes from 75.00 to 50.00 %, FPR95 from 50.00 to 75.00 %" in refusal
    assert "--int8-tolerance allows 20 points" in refusal
    assert not (tmp_path / "a.safetensors").exists()


def test_without_nncf(call: Call, int8: Int8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert "pip install nncf" in call(*command(int8.data, tmp_path / "a", "1")).refusal()


def test_of_another_engine(call: Call, int8: Int8, tmp_path: Path) -> None:
    """Only openvino runs in int8."""
    arguments = ["eager:int8" if each == "openvino:int8" else each for each in command(int8.data, tmp_path / "a", "1")]
    assert "only openvino runs in int8" in call(*arguments).refusal()


# resumed


@pytest.fixture
def job(tmp_path: Path) -> Job:
    masks, holdout = (
        LabelledImages.read(write_class_folders(tmp_path / name, CLASSES, 5, first), CLASSES, 5)
        for name, first in (("masks", 0), ("holdout", 500))
    )
    return Job("spec", masks, holdout, LineSettings(), {"a": 0.1}, "a command", CLASSES, int8_tolerance=1)


def stop(job: Job, folder: Path, batches: int) -> None:
    """Run a job until so many batches are done."""
    with stopped_after(batches):
        calibrate(job, tiny_in_int8(), folder)


@pytest.mark.parametrize(("batches", "files"), [(2, 1), (6, 2), (9, 3)], ids=["masks", "float32", "thresholds"])
def test_goes_on(job: Job, tmp_path: Path, always: None, batches: int, files: int) -> None:
    """Stopped in any of the three passes and started again, it makes the same artifact, network included."""
    wanted = calibrate(job, tiny_in_int8())
    stop(job, tmp_path / "p", batches)
    assert len(list((tmp_path / "p").iterdir())) == files
    found = calibrate(job, tiny_in_int8(), tmp_path / "p")
    assert found.warnings == ()
    assert tensors_of(found.artifact) == tensors_of(wanted.artifact)
    assert found.artifact.metadata.quantisation == wanted.artifact.metadata.quantisation


def test_another_network(job: Job, tmp_path: Path, always: None) -> None:
    """What was made with another quantised network is no beginning of this one; the pass in float32 still is."""
    stop(job, tmp_path / "p", 9)
    classifier = tiny_in_int8()
    classifier.use(INT8, tiny_network(1))
    found = calibrate(job, classifier, tmp_path / "p")
    assert [Path(warning.split(": ")[0]).stem for warning in found.warnings] == ["masks", "thresholds"]
    assert tensors_of(found.artifact) == tensors_of(calibrate(job, classifier).artifact)


def test_tolerance_is_no_part_of_the_state(job: Job, tmp_path: Path, always: None) -> None:
    """Refused, and started again with a larger one: nothing is begun anew."""
    stop(job, tmp_path / "p", 9)
    assert calibrate(replace(job, int8_tolerance=0.99), tiny_in_int8(), tmp_path / "p").warnings == ()


# the network of the paper's CIFAR-10 table


def test_a_real_network(tmp_path: Path) -> None:
    """In int8 it is as right as it was, within what 100 images can tell."""
    weights = real_data("cifar10/densenet_bc_100_12.pth.tar")
    masks = some_files(real_data("cifar10/train"), tmp_path / "masks", 0, 3)
    holdout = some_files(real_data("cifar10/test"), tmp_path / "holdout", 0, 10)
    flags = ("--preset", "line-cifar10", "--alpha", "0.1", "--engine", "openvino:int8", "--int8-tolerance", "0.1")
    out = tmp_path / "a.safetensors"
    outcome = start(
        *("calibrate", "--model", DENSENET, "--weights", weights, "--data", masks, "--holdout", holdout),
        *("--out", out, *flags),
    )
    assert outcome.code == 0, outcome.err
    quantisation = Artifact.load(out).metadata.quantisation
    assert quantisation is not None
    assert quantisation.int8.accuracy > 0.85
    assert Scorer.load(out, CPU, weights=weights).probe_deviations().max() == 0
