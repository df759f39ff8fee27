"""The flags of `calibrate` that choose scores and promises, and `evaluate --benchmark`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from calibration.field.benchmark import load
from calibration.outliers import KINDS
from scoring import conformal
from scoring.artifact import Artifact
from tests.calibration.command import Call
from tests.calibration.conftest import TINY, Calibrated
from tests.calibration.field.roots import write_root
from tests.calibration.pictures import write_class_folders


def arguments(data: Path, out: Path, *flags: str) -> tuple[str | Path, ...]:
    return ("calibrate", "--model", TINY, "--data", data, "--out", out, *flags)


def test_chosen_methods_and_promise(call: Call, data: Path, tmp_path: Path) -> None:
    """The artifact holds what was asked for: methods, merge, primary, guarantee; thresholds are the primary's."""
    flags = ("--methods", "msp,gen", "--combine", "line,gen", "--primary", "combined")
    outcome = call(*arguments(data, tmp_path / "a", *flags, "--guarantee", "pac", "--delta", "0.2", "--alpha", "0.1"))
    assert outcome.code == 0, outcome.err
    artifact = Artifact.load(tmp_path / "a")
    assert list(artifact.scores) == ["line", "msp", "gen", "combined"]
    assert artifact.metadata.combined == ["line", "gen"]
    (point,) = artifact.metadata.operating_points
    assert (point.guarantee, point.delta) == ("pac", 0.2)
    assert point.threshold == conformal.threshold(artifact.scores["combined"], 0.1, "pac", 0.2)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--methods", "msp,guess"), "--methods: 'guess' is none of line-paper, msp"),
        (("--methods", "msp", "--primary", "vim"), "--primary: 'vim' is none of line, msp"),
        (("--methods", "msp", "--primary", "combined"), "--primary: 'combined' is none of line, msp"),
        (("--primary", "best"), "--primary: 'best' is none of line"),
        (("--combine", "line"), "--combine: 'line': wanted two names"),
        (("--guarantee", "surely"), "--guarantee: 'surely' is none of marginal, pac"),
        (("--tune", "--p-a", "20"), "--tune: it finds what --preset, --p-a, --p-w and --clip give"),
        (("--tune", "--preset", "line-imagenet"), "--tune: it finds what --preset"),
        (("--validation-ood", "far=/tmp"), "--validation-ood: goes with --tune or --primary auto"),
        (("--tune", "--validation-ood", "far"), "--validation-ood: 'far': wanted NAME=DIR"),
        (("--tune", "--validation-ood", "mean=/tmp"), "--validation-ood: the name 'mean' is taken"),
        (("--tune", "--validation-ood", "far=/none/such"), "/none/such: no such folder"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    call: Call, data: Path, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    """One line, which names the flag, what was found and what there is."""
    assert said in call(*arguments(data, tmp_path / "a", *flags)).refusal()
    assert list(tmp_path.iterdir()) == []


def test_tuned_against_made_outliers(call: Call, data: Path, tmp_path: Path) -> None:
    """Settings and primary are found, and are the artifact's; the grid, the comparison and the report say how."""
    outcome = call(*arguments(data, tmp_path / "a.safetensors", "--tune", "--primary", "auto"))
    assert outcome.code == 0, outcome.err
    metadata = Artifact.load(tmp_path / "a.safetensors").metadata
    found = json.loads(outcome.out)["tuning"]
    assert found == json.loads((tmp_path / "a.summary.json").read_text())["tuning"]
    assert list(found["outliers"]) == list(KINDS)
    with (tmp_path / "a.tuning.csv").open(newline="") as file:
        grid = list(csv.DictReader(file))
    assert len(grid) == found["searched"]
    best = max(grid, key=lambda row: (float(row["mean_auroc"]), -float(row["mean_fpr95"])))
    assert (metadata.method.p_a, metadata.method.p_w) == (float(best["p_a"]), float(best["p_w"]))
    assert found["settings"]["p_a"] == metadata.method.p_a
    assert found["settings"]["clip_quantile"] == metadata.method.clip_quantile
    assert metadata.primary == found["primary"] in found["methods"]
    assert max(found["methods"], key=lambda name: found["methods"][name]["auroc"]) == found["best"]
    assert f"| {found['best']} " in outcome.err
    assert 'id="tuning"' in (tmp_path / "a.report.html").read_text()
    assert not (tmp_path / "a.safetensors.partial").exists()


def test_chosen_against_a_folder(call: Call, data: Path, tmp_path: Path) -> None:
    """With --validation-ood nothing is made; settings stay as given; the images of the data themselves are refused."""
    far = write_class_folders(tmp_path / "far", ["x"], 30)
    out = tmp_path / "a.safetensors"
    flags = ("--primary", "auto", "--p-a", "20", "--methods", "msp,energy")
    outcome = call(*arguments(data, out, *flags, "--validation-ood", f"far={far}"))
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["tuning"]
    assert found["outliers"] == {"far": 30}
    assert (found["searched"], found["settings"]["p_a"]) == (0, 20)
    assert list(found["methods"]) == ["line", "msp", "energy", "combined"]
    assert Artifact.load(out).metadata.primary == found["primary"]
    assert not (tmp_path / "a.tuning.csv").exists()
    said = call(*arguments(data, tmp_path / "b", *flags, "--validation-ood", f"near={data}")).refusal()
    assert "--validation-ood: near shares files with the in-distribution images" in said


def test_pac_says_how_many_images_are_missing(call: Call, data: Path, tmp_path: Path) -> None:
    """50 held-out images cannot keep 5 % with 95 % of calibration sets: 59 can."""
    said = call(*arguments(data, tmp_path / "a", "--guarantee", "pac")).refusal()
    assert "59 held-out images for PAC" in said and "marginal guarantee, which needs 19" in said


def test_a_benchmark_of_the_field(call: Call, calibrated: Calibrated, tmp_path: Path) -> None:
    """What is there is measured beside what is published; what is missing or prepared otherwise is said and kept."""
    root = write_root(tmp_path / "sets", load("line-imagenet"), ["Textures"])
    out = tmp_path / "out"
    outcome = call(
        *("evaluate", "--artifact", calibrated.artifact, "--benchmark", "line-imagenet", "--root", root, "--out", out)
    )
    assert outcome.code == 0, outcome.err
    assert "iNaturalist is skipped" in outcome.err and "preprocessing, resize" in outcome.err
    record = json.loads((out / "benchmark.json").read_text())
    assert record["artifact_id"] == Artifact.load(calibrated.artifact).artifact_id
    assert [each["name"] for each in record["ood"]] == ["Textures"]
    evaluation = json.loads((out / "evaluation.json").read_text())
    (line,) = [row for row in evaluation["separations"] if (row["method"], row["ood"]) == ("line", "Textures")]
    (row,) = [
        [cell.strip() for cell in text.split("|")[1:-1]]
        for text in outcome.out.splitlines()
        if text.startswith("| Textures") and text.split("|")[2].strip() == "line"
    ]
    assert row[2:6] == [f"{100 * line['fpr95']:.2f}", "22.54", f"{100 * line['auroc']:.2f}", "94.44"]
    assert "partial, not compared" in outcome.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--benchmark", "line-imagenet"), "--benchmark: goes with --root"),
        (("--benchmark", "imagenet", "--root", "."), "line-imagenet"),
        (("--benchmark", "line-imagenet", "--root", "nowhere"), "nowhere: no such folder"),
        (("--benchmark", "line-imagenet", "--root", ".", "--id", "."), "without --id"),
        (("--root", "."), "--id and --ood, or --benchmark and --root"),
        (("--id", "."), "--id and --ood, or --benchmark and --root"),
    ],
)
def test_a_benchmark_that_cannot_be_run_is_refused(
    call: Call, calibrated: Calibrated, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    """One line on what is missing."""
    assert said in call("evaluate", "--artifact", calibrated.artifact, "--out", tmp_path / "out", *flags).refusal()
