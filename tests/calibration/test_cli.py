"""The offline commands as their users run them.

`start` runs a real process; `call` runs the same entry point in this process, where only the words differ.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calibration.dataset import LabelledImages
from calibration.evaluate import evaluate
from calibration.settings import PRESETS
from scoring.artifact import Artifact
from scoring.engines.engine import EngineChoice
from scoring.scorer import Scorer
from tests.calibration.command import COMMAND, Call, Outcome, network, start
from tests.calibration.conftest import TINY, Calibrated
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders, write_picture
from tests.factories.tiny import CLASSES, PREPROCESS, tiny

KEYS = ["path", "class_index", "class_name", "probability", "ood_score", "p_value", "threshold", "reject"]
NO_BAR = ("%|", "it/s", "image/s", "\r")


@pytest.fixture(scope="module")
def scorer(calibrated: Calibrated) -> Scorer:
    return Scorer.load(calibrated.artifact, torch.device("cpu"))


def calibration_of(data: Path, out: Path, *flags: str | Path) -> list[str | Path]:
    return ["calibrate", "--model", TINY, "--data", data, "--out", out, *flags]


def same_tensors(one: Artifact, two: Artifact) -> bool:
    return (
        torch.equal(one.masks.contribution, two.masks.contribution)
        and torch.equal(one.masks.activation_mask, two.masks.activation_mask)
        and torch.equal(one.masks.weight_thresholds, two.masks.weight_thresholds)
        and torch.equal(one.counts, two.counts)
        and one.calibration_scores.tolist() == two.calibration_scores.tolist()
        and one.predicted.tolist() == two.predicted.tolist()
        and one.metadata.operating_points == two.metadata.operating_points
    )


# calibrate


def test_calibrate_says_what_it_did(calibrated: Calibrated) -> None:
    """The summary is printed and written beside the artifact; what was skipped is on stderr; there is no bar."""
    outcome = calibrated.outcome
    assert outcome.code == 0, outcome.err
    beside = calibrated.artifact.with_suffix(".summary.json")
    assert outcome.out == beside.read_text()
    assert outcome.err == f"skipped {calibrated.unreadable}: the image is none of JPEG, PNG, WebP, BMP\n"
    summary = json.loads(outcome.out)
    artifact = Artifact.load(calibrated.artifact)
    assert summary["artifact_id"] == artifact.artifact_id
    assert list(summary["unreadable"]) == [str(calibrated.unreadable)]
    assert 0 <= summary["accuracy"]["mask_images"] <= 1
    assert sorted(file.name for file in calibrated.artifact.parent.iterdir()) == [
        "tiny.report.html",
        "tiny.safetensors",
        "tiny.summary.json",
    ]


def test_calibrate_records(calibrated: Calibrated) -> None:
    """The artifact records the command, the versions, the settings, the data and the digests."""
    metadata = Artifact.load(calibrated.artifact).metadata
    assert shlex.split(metadata.provenance.command) == ["line-ood", *calibrated.arguments]
    assert {name: metadata.provenance.versions[name] for name in ("line-ood", "torch", "numpy")} == {
        name: version(name) for name in ("line-ood", "torch", "numpy")
    }
    assert (metadata.method.p_a, metadata.method.p_w, metadata.method.clip_quantile) == (30, 60, 0.9)
    assert [(point.name, point.alpha) for point in metadata.operating_points] == [
        ("alpha-0.05", 0.05),
        ("strict", 0.02),
    ]
    assert metadata.classifier.class_names == list(CLASSES)
    assert metadata.data.mask_images + metadata.data.calibration_images == 100
    assert abs(metadata.data.mask_images - metadata.data.calibration_images) <= 2
    assert metadata.data.unreadable == 1
    assert metadata.preprocess == PREPROCESS
    assert metadata.digests.preprocess == PREPROCESS.digest()


def test_calibrate_again(calibrated: Calibrated, tmp_path: Path) -> None:
    """Another process, in another folder and with other threads, makes the same tensors and thresholds."""
    arguments = list(calibrated.arguments)
    arguments[arguments.index("--out") + 1] = "again.safetensors"
    again = start(*arguments, cwd=tmp_path, env={"PYTHONHASHSEED": "7"})
    assert again.code == 0, again.err
    assert same_tensors(Artifact.load(tmp_path / "again.safetensors"), Artifact.load(calibrated.artifact))


def test_holdout_folder(call: Call, data: Path, tmp_path: Path) -> None:
    """With --holdout all of --data makes the masks, and the other folder the thresholds."""
    holdout = write_class_folders(tmp_path / "holdout", CLASSES, 5, start=500)
    assert call(*calibration_of(data, tmp_path / "a.safetensors", "--holdout", holdout)).code == 0
    found = Artifact.load(tmp_path / "a.safetensors").metadata.data
    assert (found.mask_images, found.calibration_images) == (100, 25)


def test_holdout_fraction(call: Call, data: Path, tmp_path: Path) -> None:
    """--holdout-fraction is the share of images that makes the thresholds, and the split is that of `split`."""
    (masks, holdout) = LabelledImages.read(data, CLASSES, 5).split(0.25)
    assert call(*calibration_of(data, tmp_path / "a.safetensors", "--holdout-fraction", "0.25")).code == 0
    artifact = Artifact.load(tmp_path / "a.safetensors")
    readable = [[label for path, label in side.items if path.suffix == ".png"] for side in (masks, holdout)]
    assert artifact.counts.tolist() == np.bincount(readable[0], minlength=5).tolist()
    assert artifact.metadata.data.calibration_images == len(readable[1])


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ((), (10, 10, None, 0.95)),
        (("--clip", "0.5"), (10, 10, 0.5, None)),
        (("--clip", "inf"), (10, 10, None, None)),
        (("--p-a", "0", "--p-w", "0", "--clip", "inf"), (0, 0, None, None)),
        *((("--preset", name), tuple(vars(preset).values())) for name, preset in PRESETS.items()),
        (("--preset", "line-cifar10", "--p-a", "20"), (20, 90, 1.0, None)),
        (("--preset", "line-cifar100", "--clip-quantile", "0.5"), (10, 90, None, 0.5)),
        (("--preset", "line-imagenet", "--clip", "inf"), (10, 10, None, None)),
    ],
    ids=str,
)
def test_settings(
    call: Call, data: Path, tmp_path: Path, flags: Sequence[str], wanted: tuple[float | None, ...]
) -> None:
    """A preset sets everything, a flag wins over it, and inf is no clip."""
    assert call(*calibration_of(data, tmp_path / "a.safetensors", *flags)).code == 0
    method = Artifact.load(tmp_path / "a.safetensors").metadata.method
    p_a, p_w, clip, quantile = wanted
    assert (method.p_a, method.p_w, method.clip_quantile) == (p_a, p_w, quantile)
    assert quantile is not None or method.clip == clip


def test_preset_of_the_authors() -> None:
    """The presets are the settings of the authors' scripts."""
    assert {name: (preset.p_w, preset.p_a, preset.clip) for name, preset in PRESETS.items()} == {
        "line-cifar10": (90, 90, 1.0),
        "line-cifar100": (90, 10, 1.0),
        "line-imagenet": (10, 10, 0.8),
    }


def test_preprocessing_flags(call: Call, data: Path, tmp_path: Path) -> None:
    """Flags win over the model's own preprocessing, one by one; the artifact records and digests the outcome."""
    flags = ("--resize", "20", "--mean", "0,0.1,0.2", "--interpolation", "bicubic", "--exif-transpose")
    assert call(*calibration_of(data, tmp_path / "a.safetensors", *flags)).code == 0
    artifact = Artifact.load(tmp_path / "a.safetensors")
    changes = {"resize": 20, "mean": (0, 0.1, 0.2), "interpolation": "bicubic", "exif_transpose": True}
    wanted = PREPROCESS.model_copy(update=changes)
    assert artifact.metadata.preprocess == wanted
    assert artifact.metadata.digests.preprocess == wanted.digest() != PREPROCESS.digest()
    (line,) = call("score", "--artifact", tmp_path / "a.safetensors", data / "cat" / "000.png").lines()
    scorer = Scorer.load(tmp_path / "a.safetensors", torch.device("cpu"))
    assert scorer.classifier.preprocess == wanted
    pixels = wanted.read((data / "cat" / "000.png").read_bytes())
    assert line["ood_score"] == scorer.score(pixels[None])[0].ood_score


def test_preprocessing_by_flags_alone(call: Call, data: Path, tmp_path: Path) -> None:
    """A model that does not say how its images are prepared is told by flags; names then come from folders."""
    flags = ("--crop", "24", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    arguments = calibration_of(data, tmp_path / "a.safetensors", *flags)
    arguments[arguments.index("--model") + 1] = network("silent")
    outcome = call(*arguments)
    assert outcome.code == 0, outcome.err
    metadata = Artifact.load(tmp_path / "a.safetensors").metadata
    assert metadata.preprocess.model_dump() == {
        "resize": None,
        "crop": (24, 24),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "interpolation": "bilinear",
        "exif_transpose": False,
        "decoder": "pillow",
    }
    assert metadata.classifier.class_names == sorted(CLASSES)


def test_engine_and_decoder_are_recorded_and_used(
    call: Call, calibrated: Calibrated, data: Path, tmp_path: Path
) -> None:
    """What calibration ran is what the artifact says, and what every later command runs."""
    out = tmp_path / "fast.safetensors"
    flags = ["--engine", "openvino:bfloat16", "--decoder", "turbo"]
    assert call(*calibration_of(data, out, *flags)).code == 0
    metadata = Artifact.load(out).metadata
    assert str(metadata.engine) == "openvino:bfloat16"
    assert metadata.preprocess.decoder == "turbo"
    scorer = Scorer.load(out, torch.device("cpu"))
    assert scorer.classifier.choice == metadata.engine
    assert scorer.probe_deviations().max() == 0
    assert Scorer.load(calibrated.artifact, torch.device("cpu")).classifier.choice == EngineChoice()


def test_engine_auto_says_what_it_measured(call: Call, data: Path, tmp_path: Path) -> None:
    """One line an engine, and one for the choice, which a tolerance of nothing leaves with the reference."""
    out = tmp_path / "auto.safetensors"
    outcome = call(*calibration_of(data, out, "--engine", "auto", "--engine-tolerance", "0"))
    assert outcome.code == 0
    for engine in ("eager:float32", "openvino:bfloat16", "cudagraph:float32"):
        assert f"engine {engine}: " in outcome.err
    assert "taken, the fastest within 0" in outcome.err
    assert Artifact.load(out).metadata.engine.precision == "float32"


def test_weights_file(call: Call, data: Path, tmp_path: Path) -> None:
    """Weights from a file are the ones that are calibrated, and without that file the artifact is refused."""
    state = {name: values + 0.01 for name, values in tiny().module.state_dict().items() if values.is_floating_point()}
    torch.save(tiny().module.state_dict() | state, tmp_path / "w.pt")
    artifact = tmp_path / "a.safetensors"
    assert call(*calibration_of(data, artifact, "--weights", tmp_path / "w.pt")).code == 0
    picture = data / "cat" / "000.png"
    with_weights = call("score", "--artifact", artifact, "--weights", tmp_path / "w.pt", picture)
    assert with_weights.code == 0
    assert "digests.weights" in call("score", "--artifact", artifact, picture).refusal()


def test_warnings_are_told(call: Call, data: Path, tmp_path: Path) -> None:
    """Warnings go to stderr and into the summary, and do not fail the command."""
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "eel")
    outcome = call(*calibration_of(tmp_path / "data", tmp_path / "a.safetensors"))
    assert outcome.code == 0
    (warning,) = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert "1 of 5 classes have no images" in warning
    assert json.loads(outcome.out)["warnings"] == [warning.removeprefix("warning: ")]


def test_two_artifacts_in_a_folder(call: Call, data: Path, tmp_path: Path) -> None:
    """Artifacts of different names have summaries of different names, dots in the names or not."""
    for name in ("net-1.0", "net-1.1"):
        assert call(*calibration_of(data, tmp_path / name)).code == 0
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {summary["artifact_id"] for summary in summaries} == {
        Artifact.load(tmp_path / name).artifact_id for name in ("net-1.0", "net-1.1")
    }


# score


@pytest.fixture(scope="module")
def scored(calibrated: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Outcome]:
    """A file, a folder, a pattern, a file whose name is a pattern, the first file again; and the files meant."""
    folder = tmp_path_factory.mktemp("score me")
    files = [write_picture(folder / name) for name in ("z.png", "f/2.png", "f/10.png", "f/sub/1.png", "g/ä b.png")]
    odd = write_picture(folder / "odd[1]*.png")
    text = folder / "f" / "notes.txt"
    text.write_bytes(NOT_AN_IMAGE)
    meant = [files[0], folder / "f/10.png", folder / "f/2.png", text, folder / "f/sub/1.png", files[4], odd, files[0]]
    # In the order of paths: f/10.png, f/2.png, f/notes.txt, f/sub/1.png
    arguments = (files[0], folder / "f", f"{folder}/**/* b.p?g", odd, files[0])
    return meant, start("score", "--artifact", calibrated.artifact, *arguments)


def test_score_lines(scored: tuple[list[Path], Outcome], scorer: Scorer, calibrated: Calibrated) -> None:
    """Stdout is one JSON line a file in order, each what the image scores alone; a bad file has an `error`."""
    meant, outcome = scored
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    lines = outcome.lines()
    assert [line["path"] for line in lines] == [str(path) for path in meant]
    point = scorer.artifact.metadata.operating_points[0]
    for line, path in zip(lines, meant, strict=True):
        if path.suffix == ".txt":
            assert line == {"path": str(path), "error": "the image is none of JPEG, PNG, WebP, BMP"}
            continue
        assert list(line) == KEYS
        (wanted,) = scorer.score(scorer.classifier.preprocess.read(path.read_bytes())[None])
        assert line["class_index"] == int(np.argmax(wanted.probabilities))
        assert line["class_name"] == CLASSES[line["class_index"]]
        assert line["probability"] == pytest.approx(float(wanted.probabilities.max()), rel=1e-5)
        assert line["ood_score"] == pytest.approx(wanted.ood_score, rel=1e-5)
        assert line["p_value"] == wanted.p_value
        assert line["threshold"] == point.threshold
        assert line["reject"] is (wanted.ood_score > point.threshold)
        assert line["reject"] is (line["p_value"] <= point.alpha)


def test_score_of_calibration_images(call: Call, calibrated: Calibrated, scorer: Scorer, data: Path) -> None:
    """The held-out images, scored by the command, have the scores and the reject rate of the calibration."""
    _, holdout = LabelledImages.read(data, CLASSES, 5).split(0.5)
    files = [path for path, _ in holdout.items if path.suffix == ".png"]
    lines = call("score", "--artifact", calibrated.artifact, *files).lines()
    found = [line["ood_score"] for line in lines]
    np.testing.assert_allclose(found, scorer.artifact.calibration_scores, rtol=1e-5)
    assert sum(line["reject"] for line in lines) <= 0.05 * len(lines) + 1


def test_score_at_an_operating_point(call: Call, calibrated: Calibrated, scorer: Scorer, data: Path) -> None:
    """--operating-point decides; the artifact's first one does where none is named."""
    arguments = ("score", "--artifact", calibrated.artifact, data)
    usual, named, strict = (
        [line.get("reject") for line in call(*arguments, *flags).lines()]
        for flags in ((), ("--operating-point", "alpha-0.05"), ("--operating-point", "strict"))
    )
    assert usual == named
    assert usual.count(True) > strict.count(True)
    refused = call(*arguments, "--operating-point", "lax").refusal()
    assert "--operating-point" in refused
    assert "alpha-0.05, strict" in refused


def test_score_without_any_image(call: Call, calibrated: Calibrated, tmp_path: Path) -> None:
    """Where no file is an image each still has its line, and the command ends with 2 and one line on stderr."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(NOT_AN_IMAGE)
    outcome = call("score", "--artifact", calibrated.artifact, tmp_path)
    assert outcome.code == 2
    assert [list(line) for line in outcome.lines()] == [["path", "error"]] * 2
    assert outcome.err == "line-ood: none of the 2 files could be scored\n"


def test_score_of_an_answer_that_is_not_finite(call: Call, data: Path, tmp_path: Path) -> None:
    """An image that the network answers with NaN has an `error`, its neighbours their scores, and all is valid JSON."""
    arguments = calibration_of(data, tmp_path / "a.safetensors")
    arguments[arguments.index("--model") + 1] = network("fragile")
    shutil.copytree(data, tmp_path / "data")
    for old, new in zip(CLASSES, ("apple", "bear", "chair", "dolphin", "elm"), strict=True):
        (tmp_path / "data" / old).rename(tmp_path / "data" / new)
    arguments[arguments.index("--data") + 1] = tmp_path / "data"
    assert call(*arguments).code == 0
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    near = write_picture(tmp_path / "near.png")
    lines = call("score", "--artifact", tmp_path / "a.safetensors", tmp_path / "white.png", near).lines()
    assert lines[0] == {
        "path": str(tmp_path / "white.png"),
        "error": "the classifier's answer is not a finite number",
    }
    assert list(lines[1]) == KEYS


def test_score_of_a_name_that_is_not_utf_8(calibrated: Calibrated, data: Path, tmp_path: Path) -> None:
    """A file name of other bytes than UTF-8 does not stop the lines of the others."""
    shutil.copy(data / "cat" / "000.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(data / "cat" / "001.png", tmp_path / "z.png")
    # As under a UTF-8 locale, where Python refuses to print such a name.
    outcome = start("score", "--artifact", calibrated.artifact, tmp_path, env={"PYTHONIOENCODING": "utf-8"})
    assert outcome.code == 0, outcome.err
    assert [os.fsencode(line["path"]) for line in outcome.lines()] == [
        os.fsencode(tmp_path) + b"/caf\xe9.png",
        os.fsencode(tmp_path / "z.png"),
    ]


def test_score_into_a_pipe_that_closes(calibrated: Calibrated, data: Path) -> None:
    """`line-ood score ... | head -1` ends quietly and well: a reader that has enough is no defect."""
    command = [COMMAND, "score", "--artifact", calibrated.artifact, *[data] * 20]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert b'"path"' in process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


# inspect


def test_inspect(call: Call, calibrated: Calibrated) -> None:
    """`inspect` prints JSON: all metadata, the counts a class, and the spread of the calibration scores."""
    outcome = call("inspect", calibrated.artifact)
    assert (outcome.code, outcome.err) == (0, "")
    described = json.loads(outcome.out)
    artifact = Artifact.load(calibrated.artifact)
    assert described["artifact_id"] == artifact.artifact_id
    for key in ("method", "operating_points", "preprocess", "engine", "digests", "data", "provenance"):
        assert described[key] == artifact.metadata.model_dump(mode="json")[key]
    assert described["classifier"]["class_names"] == ["ant", "bee", "cat", "... 5 in all"]
    counts = artifact.counts.tolist()
    assert described["images_per_class"] == {"least": min(counts), "most": max(counts)}
    assert described["kept_neurons"] == pytest.approx(float(artifact.masks.activation_mask.double().mean()))
    spread = described["calibration_scores"]
    assert (spread["0%"], spread["100%"]) == (artifact.calibration_scores.min(), artifact.calibration_scores.max())
    assert list(spread.values()) == sorted(spread.values())


# evaluate


def test_evaluate(calibrated: Calibrated, scorer: Scorer, tmp_path: Path) -> None:
    """The table, the JSON and the CSV hold what `evaluate` measures; unreadable files are named on stderr; no bar."""
    inside = write_class_folders(tmp_path / "id", CLASSES, 4, start=300)
    near = write_class_folders(tmp_path / "near", ["x"], 9)
    far = write_class_folders(tmp_path / "far", ["y"], 6)
    (far / "notes.txt").write_bytes(NOT_AN_IMAGE)
    outcome = start(
        *("evaluate", "--artifact", calibrated.artifact, "--id", inside, "--out", tmp_path / "new" / "results"),
        *("--ood", f"near={near}", "--ood", f"far={far}"),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err == f"skipped {far / 'notes.txt'}: the image is none of JPEG, PNG, WebP, BMP\n"
    measured = evaluate(scorer, inside, {"near": near, "far": far})
    content = json.loads((tmp_path / "new" / "results" / "evaluation.json").read_text())
    assert content["accuracy"] == measured.accuracy
    assert content["ood_images"] == {"near": 9, "far": 6}
    with (tmp_path / "new" / "results" / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in row.items()} for row in content["separations"]] == rows
    for row, wanted in zip(content["separations"], measured.separations, strict=True):
        assert (row["method"], row["ood"]) == (wanted.method, wanted.ood)
        assert row["auroc"] == pytest.approx(wanted.auroc, abs=1e-9)
        cells = [f"{100 * row[key]:.2f}" for key in ("fpr95", "auroc", "aupr_in", "aupr_out")]
        assert [row["method"], row["ood"], *cells] in [
            [cell.strip() for cell in line.strip("|").split("|")][:6] for line in outcome.out.splitlines()
        ]


# refused: exit code 2, and one line on what and where


def test_refused_by_a_process(calibrated: Calibrated, data: Path, tmp_path: Path) -> None:
    """A real process ends with 2, an empty stdout and one line on stderr: what, and where."""
    torch.save({name: values * 2 for name, values in tiny().module.state_dict().items()}, tmp_path / "other.pt")
    mismatch = start(
        "score", "--artifact", calibrated.artifact, "--weights", tmp_path / "other.pt", data / "cat" / "000.png"
    ).refusal()
    assert mismatch.startswith("line-ood: artifact field 'digests.weights': wanted ")
    assert Artifact.load(calibrated.artifact).metadata.digests.weights in mismatch


def test_wrong_usage_of_a_process(data: Path, tmp_path: Path) -> None:
    """A flag out of range is refused by a real process like everything else: one line that names it."""
    outcome = start(*calibration_of(data, tmp_path / "a.safetensors", "--alpha", "1.5"), env={"COLUMNS": "40"})
    assert "--alpha" in outcome.refusal()
    assert "1.5" in outcome.err
    assert list(tmp_path.iterdir()) == []


WRONG_FLAGS = {
    "unknown flag": (("--nonsense", "1"), ["--nonsense"]),
    "clip twice": (("--clip", "1", "--clip-quantile", "0.9"), ["--clip", "--clip-quantile"]),
    "clip is a word": (("--clip", "much"), ["--clip"]),
    "clip is nan": (("--clip", "nan"), ["--clip"]),
    "clip is zero": (("--clip", "0"), ["--clip"]),
    "clip is negative": (("--clip", "-1"), ["--clip"]),
    "clip quantile": (("--clip-quantile", "1"), ["--clip-quantile"]),
    "p_a": (("--p-a", "100"), ["--p-a"]),
    "p_w": (("--p-w", "-1"), ["--p-w"]),
    "p_a is nan": (("--p-a", "nan"), ["--p-a"]),
    "preset": (("--preset", "line-mnist"), ["--preset", "line-mnist", "line-cifar10"]),
    "alpha 0": (("--alpha", "0"), ["--alpha"]),
    "alpha 1": (("--alpha", "1"), ["--alpha"]),
    "alpha negative": (("--alpha", "x=-0.1"), ["--alpha", "-0.1"]),
    "alpha is nan": (("--alpha", "nan"), ["--alpha"]),
    "alpha is a word": (("--alpha", "few"), ["--alpha", "few"]),
    "alpha without name": (("--alpha", "=0.1"), ["--alpha", "NAME=RATE"]),
    "alpha without rate": (("--alpha", "few="), ["--alpha", "NAME=RATE"]),
    "alpha twice": (("--alpha", "a=0.1", "--alpha", "a=0.2"), ["--alpha", "'a'"]),
    "name of an alpha": (("--alpha", "my point=0.1"), ["--alpha", "my point"]),
    "holdout fraction": (("--holdout-fraction", "1"), ["--holdout-fraction"]),
    "holdout fraction is nan": (("--holdout-fraction", "nan"), ["--holdout-fraction"]),
    "mean of two": (("--mean", "0.5,0.5"), ["--mean", "0.5,0.5"]),
    "mean of words": (("--mean", "a,b,c"), ["--mean", "a,b,c"]),
    "std of zero": (("--std", "0,1,1"), ["--std"]),
    "crop": (("--crop", "0"), ["--crop"]),
    "interpolation": (("--interpolation", "cubic"), ["--interpolation", "bicubic"]),
    "device": (("--device", "abacus"), ["abacus"]),
    "a device that is not there": (("--device", "mps"), ["mps"]),
}


@pytest.mark.parametrize(("flags", "words"), WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_wrong_flags(call: Call, data: Path, tmp_path: Path, flags: Sequence[str], words: Sequence[str]) -> None:
    """Each wrong flag is refused in one line that names it, and nothing is written."""
    refused = call(*calibration_of(data, tmp_path / "a.safetensors", *flags)).refusal()
    assert all(word in refused for word in words), refused
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu(call: Call, data: Path, tmp_path: Path) -> None:
    """A GPU that was asked for and is not there is an error, never the CPU instead."""
    assert "cuda" in call(*calibration_of(data, tmp_path / "a.safetensors", "--device", "cuda")).refusal()


def test_own_preprocessing_is_not_called_unknown(call: Call, data: Path, tmp_path: Path) -> None:
    """A wrong flag over a model's own preprocessing is not blamed on a model that says nothing of it."""
    refused = call(*calibration_of(data, tmp_path / "a.safetensors", "--interpolation", "cubic")).refusal()
    assert "does not say" not in refused


WRONG_SPECS = {
    "no colon": ("resnet50", ["resnet50", "torchvision:NAME"]),
    "no file": ("no/such/file.py:net", ["no/such/file.py"]),
    "no module": ("no_such_module:net", ["no_such_module"]),
    "a relative module": (".networks:fine", [".networks"]),
    "no factory": (network("no_such_factory"), ["no_such_factory"]),
    "no network": (network("nothing"), ["NoneType"]),
    "a failing factory": (network("raising"), ["raising", "the cupboard is bare"]),
    "no torchvision model": ("torchvision:resnet51", ["resnet51"]),
    "no torchvision weights": ("torchvision:resnet50.V9", ["V9", "IMAGENET1K_V1"]),
    "no head": (network("headless"), ["nn.Linear"]),
    "names for other classes": (network("misnamed"), ["3", "5"]),
}


@pytest.mark.parametrize(("spec", "words"), WRONG_SPECS.values(), ids=WRONG_SPECS)
def test_wrong_model(call: Call, data: Path, tmp_path: Path, spec: str, words: Sequence[str]) -> None:
    """A SPEC that names no usable classifier is refused in one line that says why."""
    arguments = calibration_of(data, tmp_path / "a.safetensors")
    arguments[arguments.index("--model") + 1] = spec
    refused = call(*arguments).refusal()
    assert all(word in refused for word in words), refused
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [((), ["--crop", "--mean", "--std", "--resize"]), (("--crop", "32"), ["--mean"]), (("--resize", "32"), ["--crop"])],
    ids=str,
)
def test_unknown_preprocessing(
    call: Call, data: Path, tmp_path: Path, flags: Sequence[str], words: Sequence[str]
) -> None:
    """Preprocessing that neither the model nor the flags give is never guessed: the line names the missing flags."""
    arguments = calibration_of(data, tmp_path / "a.safetensors", *flags)
    arguments[arguments.index("--model") + 1] = network("silent")
    refused = call(*arguments).refusal()
    assert all(word in refused for word in words), refused
    assert "the model does not say how its images are prepared" in refused


def test_wrong_weights(call: Call, data: Path, tmp_path: Path) -> None:
    """Weights that are missing, no weights, or another network's are refused with the name of the file or network."""
    (tmp_path / "text.pt").write_text("not weights")
    torch.save({"head": torch.zeros(2)}, tmp_path / "other.pt")
    for name, word in (("none.pt", "none.pt"), ("text.pt", "text.pt"), ("other.pt", "do not fit")):
        arguments = calibration_of(data, tmp_path / "a.safetensors", "--weights", tmp_path / name)
        assert word in call(*arguments).refusal()


def test_wrong_data(call: Call, data: Path, tmp_path: Path) -> None:
    """Folders that are missing, empty, flat, of other classes, or without any image are refused by name."""
    for name in ("empty", "flat", "few", "texts"):
        (tmp_path / name).mkdir()
    (tmp_path / "flat" / "0.png").write_bytes(NOT_AN_IMAGE)
    (tmp_path / "few" / "wasp").mkdir()
    for name in CLASSES:
        (tmp_path / "texts" / name).mkdir()
        for i in range(10):
            (tmp_path / "texts" / name / f"{i}.png").write_bytes(NOT_AN_IMAGE)
    for name, word in (
        ("none", "no such folder"),
        ("empty", "found 0 folders"),
        ("flat", "found 0 folders"),
        ("few", "found 1 folders: wasp"),
        ("texts", "none of the 25 files could be read as an image"),
    ):
        refused = call(*calibration_of(tmp_path / name, tmp_path / "a.safetensors")).refusal()
        assert str(tmp_path / name) in refused
        assert word in refused
    refused = call(*calibration_of(data, tmp_path / "a.safetensors", "--holdout", tmp_path / "none")).refusal()
    assert f"{tmp_path / 'none'}: no such folder" in refused


def test_too_few_images(call: Call, tmp_path: Path) -> None:
    """Too few images for alpha are refused with the number needed."""
    data = write_class_folders(tmp_path / "data", CLASSES, 4)
    refused = call(*calibration_of(data, tmp_path / "a.safetensors", "--alpha", "0.05")).refusal()
    assert "needs at least 19 held-out images, found 10" in refused
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("overlap", ["the same", "inside", "around", "by a link"])
def test_holdout_that_overlaps(call: Call, tmp_path: Path, overlap: str) -> None:
    """Images of the masks are never those of the thresholds: folders that overlap are refused, by links too."""
    data = write_class_folders(tmp_path / "all" / "ant", CLASSES, 4)  # --data is itself one folder of a class
    write_class_folders(tmp_path / "all", CLASSES[1:], 4)
    write_class_folders(data / "ant", CLASSES, 4)
    (tmp_path / "link").symlink_to(data, target_is_directory=True)
    holdout = {"the same": data, "inside": data / "ant", "around": tmp_path / "all", "by a link": tmp_path / "link"}
    refused = call(*calibration_of(data, tmp_path / "a", "--holdout", holdout[overlap])).refusal()
    assert "--holdout" in refused
    assert "--data" in refused


def test_holdout_that_shares_files(call: Call, tmp_path: Path) -> None:
    """Two folders that lead to the same files by links overlap, too."""
    data = write_class_folders(tmp_path / "data", CLASSES, 4)
    (tmp_path / "holdout").mkdir()
    for name in CLASSES:
        (tmp_path / "holdout" / name).symlink_to(data / name, target_is_directory=True)
    refused = call(*calibration_of(data, tmp_path / "a", "--holdout", tmp_path / "holdout")).refusal()
    assert "--holdout" in refused


def test_holdout_with_a_similar_name(call: Call, tmp_path: Path) -> None:
    """A folder beside --data whose name begins alike is no overlap."""
    data = write_class_folders(tmp_path / "data", CLASSES, 4)
    holdout = write_class_folders(tmp_path / "data-2", CLASSES, 4, start=50)
    assert call(*calibration_of(data, tmp_path / "a.safetensors", "--holdout", holdout)).code == 0


@pytest.mark.parametrize("out", ["no/folder/a.safetensors", "folder", "file/a.safetensors", "taken.safetensors"])
def test_out_that_cannot_be_written(call: Call, data: Path, tmp_path: Path, out: str) -> None:
    """--out in a missing folder, at a folder, below a file, or whose summary cannot be written is refused."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.summary.json").mkdir()
    (tmp_path / "file").touch()
    refused = call(*calibration_of(data, tmp_path / out)).refusal()
    assert "--out" in refused
    assert str(tmp_path / out) in refused


@pytest.mark.parametrize("out", ["file", "file/results"])
def test_out_of_evaluate_that_cannot_be_written(call: Call, calibrated: Calibrated, tmp_path: Path, out: str) -> None:
    """`evaluate` refuses an --out that is a file, or below one, before the work."""
    (tmp_path / "file").touch()
    far = write_class_folders(tmp_path / "far", ["y"], 3)
    arguments = ("evaluate", "--artifact", calibrated.artifact, "--id", calibrated.data, "--ood", f"far={far}")
    assert "--out" in call(*arguments, "--out", tmp_path / out).refusal()


@pytest.mark.parametrize("command", ["score", "inspect", "evaluate"])
@pytest.mark.parametrize("kind", ["missing", "garbage", "cut", "folder"])
def test_wrong_artifact(
    call: Call, calibrated: Calibrated, data: Path, tmp_path: Path, kind: str, command: str
) -> None:
    """An artifact that is missing or broken is refused by every command, in one line that names the file."""
    file = tmp_path / "a.safetensors"
    if kind == "garbage":
        file.write_bytes(b"\xff" * 5000)
    if kind == "cut":
        file.write_bytes(calibrated.artifact.read_bytes()[:-100])
    if kind == "folder":
        file.mkdir()
    arguments = {
        "score": ("score", "--artifact", file, data),
        "inspect": ("inspect", file),
        "evaluate": ("evaluate", "--artifact", file, "--id", data, "--ood", f"a={data}", "--out", tmp_path / "o"),
    }
    assert str(file) in call(*arguments[command]).refusal()


def test_changed_artifact(call: Call, calibrated: Calibrated, data: Path, tmp_path: Path) -> None:
    """An artifact in which one number was changed is refused with the field, what was wanted and what was found."""
    content = calibrated.artifact.read_bytes()
    assert content.count(b'\\"p_a\\":30.0') == 1
    (tmp_path / "a.safetensors").write_bytes(content.replace(b'\\"p_a\\":30.0', b'\\"p_a\\":-3.0'))
    assert "method.p_a" in call("inspect", tmp_path / "a.safetensors").refusal()


def test_nothing_to_score(call: Call, calibrated: Calibrated, tmp_path: Path) -> None:
    """A path that stands for no file, and an empty folder, are refused by name; so is no path at all."""
    for path in (tmp_path / "none.png", tmp_path / "*.png", tmp_path):
        assert str(path) in call("score", "--artifact", calibrated.artifact, path).refusal()
    assert "paths" in call("score", "--artifact", calibrated.artifact).refusal().lower()


def test_a_name_longer_than_names_can_be(call: Call, calibrated: Calibrated) -> None:
    """A path that no file system could hold is a path that stands for no file."""
    assert "x" * 300 in call("score", "--artifact", calibrated.artifact, "x" * 300).refusal()


def test_wrong_folders_to_evaluate(call: Call, calibrated: Calibrated, data: Path, tmp_path: Path) -> None:
    """--ood without a name, a missing folder, and a missing ID folder are refused."""
    arguments = ("evaluate", "--artifact", calibrated.artifact, "--out", tmp_path / "out")
    assert "NAME=DIR" in call(*arguments, "--id", data, "--ood", data).refusal()
    assert "gone: no such folder" in call(*arguments, "--id", data, "--ood", f"a={tmp_path / 'gone'}").refusal()
    assert "gone: no such folder" in call(*arguments, "--id", tmp_path / "gone", "--ood", f"a={data}").refusal()
    assert "--ood" in call(*arguments, "--id", data).refusal()


@pytest.mark.parametrize("names", [("far", "far"), ("mean", "far")])
def test_names_that_are_taken(call: Call, calibrated: Calibrated, tmp_path: Path, names: Sequence[str]) -> None:
    """Two OOD folders of one name, or one named as the row of means, would hide each other: refused."""
    folders = [write_class_folders(tmp_path / name, ["x"], 3) for name in "ab"]
    ood = [f"{name}={folder}" for name, folder in zip(names, folders, strict=True)]
    arguments = ("evaluate", "--artifact", calibrated.artifact, "--id", calibrated.data, "--out", tmp_path / "out")
    refused = call(*arguments, "--ood", ood[0], "--ood", ood[1]).refusal()
    assert "--ood" in refused
    assert names[0] in refused


def test_help(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is an answer, not an error, and names every promised option in full on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for command, options in {
        "calibrate": (
            "--model",
            "--weights",
            "--data",
            "--holdout",
            "--holdout-fraction",
            "--preset",
            "--p-a",
            "--p-w",
        ),
        "evaluate": ("--artifact", "--id", "--ood", "--out"),
        "score": ("--artifact", "--operating-point"),
        "inspect": (),
    }.items():
        outcome = call(command, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        assert all(option in outcome.out for option in options)
