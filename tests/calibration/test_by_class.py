"""`line-ood calibrate --per-class`: by the real command, into a file, and out of it again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.dataset import LabelledImages
from scoring import conformal
from scoring.artifact import Artifact
from scoring.groups import least_for
from scoring.scorer import Scorer
from tests.calibration.command import Call, Outcome, network, start
from tests.calibration.networks import CLASSES
from tests.calibration.pictures import write_class_folders
from tests.calibration.test_page import Page, numbers
from tests.reference import group_of

ALPHAS = {"usual": 0.2, "strict": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("data"), CLASSES, 40)


def arguments(data: Path, out: Path, *flags: str) -> tuple[str | Path, ...]:
    return ("calibrate", "--model", network("fine"), "--data", data, "--out", out, "--combine", "line,msp", *flags)


@pytest.fixture(scope="module")
def outcome(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """100 held-out images, in a process of its own; classes stand alone from 19 predictions on."""
    out = tmp_path_factory.mktemp("out") / "a.safetensors"
    flags = [flag for name, alpha in ALPHAS.items() for flag in ("--alpha", f"{name}={alpha}")]
    return start(*arguments(data, out, *flags, "--per-class")), out


@pytest.fixture(scope="module")
def artifact(outcome: tuple[Outcome, Path]) -> Artifact:
    return Artifact.load(outcome[1])


def test_every_method_has_thresholds_by_class(artifact: Artifact) -> None:
    """From the images that are predicted alike, or pooled; the merge has its own; no single threshold is kept."""
    assert artifact.metadata.alone_from == least_for(ALPHAS.values()) == 19
    alone = artifact.groups["line"].alone
    assert 1 < alone.sum() < 5
    for point in artifact.metadata.operating_points:
        assert point.threshold is None
        for name, thresholds in artifact.thresholds(point).items():
            images = list(zip(artifact.scores[name].tolist(), artifact.predicted.tolist(), strict=True))
            for c, threshold in enumerate(thresholds.tolist()):
                own = sorted(group_of(np.inf, c, images, 19)[:-1], reverse=True)
                assert threshold == own[int(point.alpha * (len(own) + 1)) - 1]
    assert "combined" in artifact.scores


def test_calibration_images_are_judged_by_their_class(artifact: Artifact, data: Path, call: Call, outcome) -> None:
    """`score` says class, threshold and decision of each held-out image: at most l - 1 of a group are rejected."""
    _, holdout = LabelledImages.read(data, CLASSES, 5).split(0.5)
    lines = call("score", "--artifact", outcome[1], *holdout.paths).lines()
    assert [line["class_index"] for line in lines] == artifact.predicted.tolist()
    np.testing.assert_allclose([line["ood_score"] for line in lines], artifact.calibration_scores, rtol=1e-5)
    thresholds = artifact.thresholds(artifact.metadata.operating_points[0])["line"].tolist()
    assert len(set(thresholds)) > 2
    for line in lines:
        assert line["threshold"] == thresholds[line["class_index"]]
        assert line["reject"] is (line["ood_score"] > line["threshold"]) is (line["p_value"] <= 0.2)
    for c in np.flatnonzero(artifact.groups["line"].alone).tolist():
        own = [line["reject"] for line in lines if line["class_index"] == c]
        assert abs(sum(own) - (conformal.rank(len(own), 0.2) - 1)) <= 1  # one may sit on the threshold, to rounding


def test_summary_and_inspect(outcome: tuple[Outcome, Path], artifact: Artifact, call: Call) -> None:
    """Both say how many classes stand alone, on how many images, and the range of thresholds; no number a class."""
    done, out = outcome
    assert done.code == 0, done.err
    summary, described = json.loads(done.out), json.loads(call("inspect", out).out)
    groups = artifact.groups["line"]
    own, pooled = groups.sizes[groups.alone].tolist(), groups.sizes[~groups.alone].tolist()
    ranges = [artifact.thresholds(point)["line"] for point in artifact.metadata.operating_points]
    wanted = {
        "classes_alone": len(own),
        "images_of_classes_alone": {"least": min(own), "most": max(own)},
        "classes_pooled": len(pooled),
        "images_of_pool": pooled[0],
        "thresholds": {
            name: {"lowest": each.min(), "highest": each.max()} for name, each in zip(ALPHAS, ranges, strict=True)
        },
    }
    assert summary["by_class"] == described["by_class"] == wanted
    assert summary["alone_from"] == described["alone_from"] == 19
    page = Page.read(out.with_name("a.report.html"))
    for row, point in zip(page.tables["operating_points"][1:], summary["operating_points"], strict=True):
        ends = wanted["thresholds"][point["name"]].values()
        assert numbers(row) == [point["alpha"], *ends, *point["realised_rate_90"]]
    assert f"{len(own)} classes have 19 images or more and stand alone" in " ".join(page.text.split())


def test_interval_of_the_realised_rate(outcome: tuple[Outcome, Path], artifact: Artifact) -> None:
    """That of images predicted as the calibration images are, of which each group draws its own Beta; drawn here."""
    groups = artifact.groups["line"]
    random, rates = np.random.default_rng(3), np.zeros(100_000)
    for group in np.unique(groups.group_of).tolist():
        members = groups.group_of == group
        size = int(groups.sizes[members][0])
        place = int(0.1 * (size + 1))
        rates += groups.counts[members].sum() / 100 * random.beta(place, size + 1 - place, len(rates))
    point = json.loads(outcome[0].out)["operating_points"][1]
    assert point["realised_rate_90"] == pytest.approx(np.quantile(rates, [0.05, 0.95]), rel=0.05)


def test_a_report_of_an_evaluation(outcome: tuple[Outcome, Path], call: Call, tmp_path: Path) -> None:
    """Rates of the classes that stand alone and of the pooled ones stand in the JSON, on the page and in the tables."""
    inside = write_class_folders(tmp_path / "id", CLASSES, 12, start=500)
    far = write_class_folders(tmp_path / "far", ["x"], 9)
    done = call("evaluate", "--artifact", outcome[1], "--id", inside, "--ood", f"far={far}", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    page = Page.read(tmp_path / "out" / "report.html")
    parts = [
        (f"{rate['operating_point']}, {name}", rate[key])
        for rate in content["reject_rates"]
        for key, name in (("alone", "stand alone"), ("pooled", "pooled"))
    ]
    assert [(row[0][0], numbers(row)) for row in page.tables["part_rates"][1:]] == [
        (name, [part["images"], part["realised"], *part["interval"]]) for name, part in parts
    ]
    assert [sum(rate[key]["images"] for key in ("alone", "pooled")) for rate in content["reject_rates"]] == [60, 60]
    classes = {row["name"]: row for row in content["classes"]}
    for row in page.tables["class_rows"][1:]:
        found = classes[row[0][0]]
        ends = found["expected_interval"] or []
        assert numbers(row)[-2 - len(ends) :] == [found["threshold"], found["calibration_images"], *ends]
        assert ("pooled" in "".join(row[-1])) is (not ends)
    assert done.out.count("stand alone") == done.out.count("pooled") == 2


def test_too_few_images_a_class(data: Path, call: Call, tmp_path: Path) -> None:
    """Where no class has enough all share their thresholds as without the flag; it is said how many are missing."""
    done = call(*arguments(data, tmp_path / "a", "--per-class", "--alpha", "0.02"))
    assert done.code == 0, done.err
    artifact = Artifact.load(tmp_path / "a")
    most = int(np.bincount(artifact.predicted).max())
    assert (
        f"99 held-out images of a predicted class are needed, and the largest has {most}: {99 - most} more" in done.err
    )
    (threshold,) = set(artifact.thresholds(artifact.metadata.operating_points[0])["line"].tolist())
    assert threshold == conformal.threshold(artifact.calibration_scores, 0.02)


def test_too_few_images_in_all(data: Path, call: Call, tmp_path: Path) -> None:
    """Refused before the work as without the flag, with the number that is missing."""
    said = call(*arguments(data, tmp_path / "a", "--per-class", "--alpha", "0.005")).refusal()
    assert "needs at least 199 held-out images, found 100: give 99 more" in said


def test_without_the_flag_nothing_changes(
    data: Path, call: Call, outcome: tuple[Outcome, Path], tmp_path: Path
) -> None:
    """The same scores and predicted classes, one threshold for all; so the flag can be judged from one artifact."""
    flags = [flag for name, alpha in ALPHAS.items() for flag in ("--alpha", f"{name}={alpha}")]
    assert call(*arguments(data, tmp_path / "a", *flags)).code == 0
    plain, by_class = Artifact.load(tmp_path / "a"), Artifact.load(outcome[1])
    assert plain.metadata.alone_from is None
    assert plain.predicted.tolist() == by_class.predicted.tolist()
    assert plain.calibration_scores.tolist() == by_class.calibration_scores.tolist()
    for point in plain.metadata.operating_points:
        assert point.threshold == conformal.threshold(plain.calibration_scores, point.alpha)


def test_serves_as_it_was_calibrated(outcome: tuple[Outcome, Path], artifact: Artifact, data: Path) -> None:
    """Loaded from the file, the held-out images have the predicted classes and p-values of their own groups."""
    scorer = Scorer.load(outcome[1], torch.device("cpu"))
    _, holdout = LabelledImages.read(data, CLASSES, 5).split(0.5)
    pixels = torch.stack([scorer.classifier.preprocess.read(path.read_bytes()) for path in holdout.paths])
    found = scorer.score(pixels)
    assert [score.predicted for score in found] == artifact.predicted.tolist()
    images = list(zip(artifact.calibration_scores.tolist(), artifact.predicted.tolist(), strict=True))
    for score in found:
        group = group_of(score.ood_score, score.predicted, images, 19)
        assert score.p_value == sum(s >= score.ood_score for s in group) / len(group)
