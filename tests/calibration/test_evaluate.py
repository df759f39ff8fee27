"""Whole evaluations of real folders."""

from __future__ import annotations

import csv
import json
import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calibration.dataset import LabelledImages, list_images
from calibration.evaluate import Evaluation, evaluate
from calibration.job import Job, calibrate
from calibration.report import evaluation_tables, write_evaluation
from calibration.scored import score_folder
from calibration.separation import Separation
from calibration.settings import LineSettings
from scoring import conformal
from scoring.classifier import Classifier, load_classifier
from scoring.errors import DatasetError
from scoring.scorer import Scorer
from tests import reference
from tests.calibration import networks
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders, write_picture
from tests.calibration.test_separation import slow_auroc, slow_fpr95


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier(networks.fine(), torch.device("cpu"))


@pytest.fixture(scope="module")
def scorer(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """Calibrated on folders named as the classes."""
    return make_scorer(classifier, tmp_path_factory.mktemp("classes"), networks.CLASSES, networks.CLASSES)


def make_scorer(classifier: Classifier, folder: Path, folders: Sequence[str], names: Sequence[str] | None) -> Scorer:
    images = LabelledImages.read(write_class_folders(folder, folders, 20), names, 5)
    masks, holdout = images.split(0.5)
    settings = LineSettings(p_a=30, p_w=60, clip=None, clip_quantile=0.9)
    alphas = {"usual": 0.1, "strict": 0.02}
    class_names = None if names is None else tuple(names)
    few = {"methods": ("msp", "energy"), "combined": ()}  # those that are told here in plain Python
    job = Job("networks", masks, holdout, settings, alphas, "test", class_names, **few)
    return Scorer(classifier, calibrate(job, classifier).artifact)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Held-out ID images with labels, and two OOD folders, one of them with a text among its images."""
    root = tmp_path_factory.mktemp("folders")
    write_class_folders(root / "id", networks.CLASSES, 9, start=100)
    write_class_folders(root / "near", ["x", "y"], 12)
    for i in range(7):
        write_picture(root / "far" / f"{i}.png")
    (root / "far" / "notes.txt").write_bytes(NOT_AN_IMAGE)
    return {name: root / name for name in ("id", "near", "far")}


@pytest.fixture(scope="module")
def evaluation(scorer: Scorer, folders: dict[str, Path]) -> Evaluation:
    return evaluate(scorer, folders["id"], {"near": folders["near"], "far": folders["far"]})


def one_by_one(scorer: Scorer, path: Path) -> tuple[float, dict[str, float]]:
    """Predicted class and scores of one image, from logits in plain Python."""
    pixels = scorer.classifier.preprocess.read(path.read_bytes())[None]
    (logits,) = scorer.classifier.forward(pixels)[1].double().tolist()
    powers = [math.exp(z - max(logits)) for z in logits]
    (line,) = scorer.score(pixels)
    return logits.index(max(logits)), {
        "msp": 1 - 1 / sum(powers),
        "energy": -(max(logits) + math.log(sum(powers))),
        "line": line.ood_score,
    }


def test_score_folder(scorer: Scorer, folders: dict[str, Path]) -> None:
    """Scores and predictions are those of each image alone, in the order of paths, the unreadable left out."""
    scored = score_folder(scorer, folders["far"], "far")
    assert scored.paths == [path for path in list_images(folders["far"]) if path.suffix == ".png"]
    assert list(scored.unreadable) == [folders["far"] / "notes.txt"]
    for i, path in enumerate(scored.paths):
        predicted, scores = one_by_one(scorer, path)
        assert scored.predicted[i] == predicted
        assert {name: values[i] for name, values in scored.scores.items()} == pytest.approx(scores, rel=1e-5)


def test_separations(scorer: Scorer, folders: dict[str, Path], evaluation: Evaluation) -> None:
    """There is a row for each method and OOD folder, from all images of both, and one for each method's mean."""
    assert [(row.method, row.ood) for row in evaluation.separations] == [
        *((method, ood) for method in ("line", "msp", "energy") for ood in ("near", "far")),
        ("line", "mean"),
        ("msp", "mean"),
        ("energy", "mean"),
    ]
    scores = {name: score_folder(scorer, folder, name).scores for name, folder in folders.items()}
    for row in evaluation.separations:
        if row.ood != "mean":
            inside, outside = scores["id"][row.method], scores[row.ood][row.method]
            assert row.auroc == pytest.approx(slow_auroc(inside, outside))
            assert row.fpr95 == pytest.approx(slow_fpr95(inside, outside))
        else:
            rows = [asdict(each) for each in evaluation.separations if each.method == row.method and each is not row]
            for measure in ("fpr95", "auroc", "aupr_in", "aupr_out"):
                assert asdict(row)[measure] == pytest.approx((rows[0][measure] + rows[1][measure]) / 2)
    assert (evaluation.id_images, evaluation.ood_images) == (45, {"near": 24, "far": 7})


def test_reject_rates(scorer: Scorer, folders: dict[str, Path], evaluation: Evaluation) -> None:
    """Each operating point's share of rejected images is counted from single decisions; its interval holds alpha."""
    assert [rate.operating_point for rate in evaluation.reject_rates] == ["usual", "strict"]
    for rate, point in zip(evaluation.reject_rates, scorer.artifact.metadata.operating_points, strict=True):
        rejected = {
            name: [one_by_one(scorer, path)[1]["line"] > point.threshold for path in score_folder_paths(folder)]
            for name, folder in folders.items()
        }
        assert rate.alpha == point.alpha
        assert rate.realised == np.mean(rejected["id"])
        assert rate.ood == {"near": np.mean(rejected["near"]), "far": np.mean(rejected["far"])}
        assert 0 < rate.interval[0] < point.alpha < rate.interval[1] < 1


def test_agreement(scorer: Scorer, folders: dict[str, Path], evaluation: Evaluation) -> None:
    """Routed and predicted class are compared image by image, the routed one from a plain loop over the features."""
    weight, bias = (tensor.double().tolist() for tensor in scorer.classifier.head)
    clip = scorer.artifact.metadata.method.clip
    for name, folder in folders.items():
        same = []
        for path in score_folder_paths(folder):
            features, logits = scorer.classifier.forward(scorer.classifier.preprocess.read(path.read_bytes())[None])
            routed = reference.routed_class(features[0].double().tolist(), weight, bias, clip)
            same.append(routed == int(logits[0].argmax()))
        found = evaluation.agreement.inside if name == "id" else evaluation.agreement.ood[name]
        assert found == pytest.approx(np.mean(same))


def test_classes(scorer: Scorer, evaluation: Evaluation) -> None:
    """Each class has the images that made its masks, and its rejects at the artifact's first operating point."""
    assert [row.name for row in evaluation.classes] == list(networks.CLASSES)
    assert [row.mask_images for row in evaluation.classes] == scorer.artifact.counts.tolist()
    assert sum(row.rejected for row in evaluation.classes) == round(45 * evaluation.reject_rates[0].realised)
    correct = sum((row.accuracy or 0) * (row.labelled or 0) for row in evaluation.classes)
    assert correct / 45 == pytest.approx(evaluation.accuracy)


def test_a_score_at_the_threshold(scorer: Scorer, folders: dict[str, Path]) -> None:
    """An image whose score is exactly the threshold is accepted, as by the service; one above it is not."""
    scores = np.sort(score_folder(scorer, folders["near"], "near").scores["line"])
    point = scorer.artifact.metadata.operating_points[0]
    place = conformal.rank(len(scorer.artifact.predicted), point.alpha)
    for threshold, rejected in ((scores[-1], 0), (scores[-2], 1)):
        calibration = np.where(np.arange(len(scorer.artifact.predicted)) < place, threshold, threshold - 1)
        moved = replace(scorer.artifact, scores=scorer.artifact.scores | {"line": calibration})
        near = evaluate(Scorer(scorer.classifier, moved), folders["near"], {"near": folders["near"]}).reject_rates[0]
        assert near.realised == near.ood["near"] == rejected / len(scores)


def test_thresholds_by_class(scorer: Scorer, folders: dict[str, Path]) -> None:
    """Every image is judged by the threshold of the class that it is predicted as, wherever rejects are counted."""
    metadata = scorer.artifact.metadata
    point = metadata.operating_points[0].model_copy(update={"threshold": None})
    metadata = metadata.model_copy(update={"alone_from": 11, "operating_points": [point]})
    by_class = Scorer(scorer.classifier, replace(scorer.artifact, metadata=metadata))
    thresholds = by_class.thresholds[point.name]["line"]
    assert len(set(thresholds.tolist())) > 1
    found = evaluate(by_class, folders["id"], {"near": folders["near"]})
    images = [one_by_one(by_class, path) for path in score_folder_paths(folders["id"])]
    rejected = [scores["line"] > thresholds[predicted] for predicted, scores in images]
    (rate,) = found.reject_rates
    assert rate.realised == np.mean(rejected)
    alone = [bool(by_class.artifact.groups["line"].alone[predicted]) for predicted, _ in images]
    assert 0 < sum(alone) < len(alone)
    for part, flag in ((rate.alone, True), (rate.pooled, False)):
        own = [reject for reject, stands in zip(rejected, alone, strict=True) if stands is flag]
        assert part is not None and (part.images, part.realised) == (len(own), np.mean(own))
        assert 0 < part.interval[0] < part.interval[1] < 1
    assert sum(row.rejected for row in found.classes) == sum(rejected)
    assert [row.threshold for row in found.classes] == thresholds.tolist()
    rows = cells(evaluation_tables(found), "operating point | classes")
    assert [row["ID images"] for row in rows] == [str(sum(alone)), str(len(alone) - sum(alone))]


def score_folder_paths(folder: Path) -> list[Path]:
    return [path for path in list_images(folder) if path.suffix == ".png"]


def accuracy_of(scorer: Scorer, folder: Path, labels: dict[str, int]) -> float:
    paths = list_images(folder)
    return sum(one_by_one(scorer, path)[0] == labels[path.parent.name] for path in paths) / len(paths)


def test_accuracy(scorer: Scorer, folders: dict[str, Path], evaluation: Evaluation) -> None:
    """Accuracy is the share of ID images whose predicted class is that of their folder."""
    labels = {name: index for index, name in enumerate(networks.CLASSES)}
    wanted = accuracy_of(scorer, folders["id"], labels)
    assert 0 < wanted < 1  # else it could not tell right labels from wrong ones
    assert evaluation.accuracy == wanted


def test_accuracy_of_some_classes(scorer: Scorer, folders: dict[str, Path], tmp_path: Path) -> None:
    """Folders named as some of the classes are enough: their index is that of the name, not of the order."""
    some = ("bear", "elm")
    write_class_folders(tmp_path, some, 12)
    found = evaluate(scorer, tmp_path, {"near": folders["near"]}).accuracy
    assert found == accuracy_of(scorer, tmp_path, {"bear": 1, "elm": 4})
    assert found != accuracy_of(scorer, tmp_path, {"bear": 0, "elm": 1})


@pytest.mark.parametrize("folder_names", [("n5", "n4", "n3", "n2", "n1"), None])
def test_accuracy_by_folder_or_by_name(
    classifier: Classifier, folders: dict[str, Path], tmp_path: Path, folder_names: Sequence[str] | None
) -> None:
    """Where folders had other names than classes, ID images may lie in folders of either sort."""
    scorer = make_scorer(classifier, tmp_path / "data", ("n1", "n2", "n3", "n4", "n5"), networks.CLASSES)
    assert scorer.artifact.metadata.classifier.class_names == list(networks.CLASSES)
    names = networks.CLASSES if folder_names is None else sorted(folder_names)
    inside = write_class_folders(tmp_path / "id", names, 6, start=50)
    found = evaluate(scorer, inside, {"near": folders["near"]}).accuracy
    assert found == accuracy_of(scorer, inside, {name: index for index, name in enumerate(names)})


@pytest.mark.parametrize("classes", [("apple", "bears"), ("v", "w", "x", "y", "z")])
def test_accuracy_is_unknown(scorer: Scorer, folders: dict[str, Path], tmp_path: Path, classes: Sequence[str]) -> None:
    """Folders that are not the classes', even as many, are no labels: no accuracy, and everything else measured."""
    write_class_folders(tmp_path, classes, 4)
    found = evaluate(scorer, tmp_path, {"near": folders["near"]})
    assert found.accuracy is None
    assert found.id_images == 4 * len(classes)


def test_accuracy_of_a_flat_folder(scorer: Scorer, folders: dict[str, Path]) -> None:
    """ID images without folders, or some of them beside the folders, have no accuracy."""
    assert evaluate(scorer, folders["far"], {"near": folders["near"]}).accuracy is None


def test_folders_that_cannot_be_scored(scorer: Scorer, folders: dict[str, Path], tmp_path: Path) -> None:
    """A missing folder, an empty one and one without any image are refused by name."""
    with pytest.raises(DatasetError, match=r"nowhere: no such folder"):
        evaluate(scorer, tmp_path / "nowhere", {"near": folders["near"]})
    with pytest.raises(DatasetError, match="holds no files"):
        evaluate(scorer, folders["id"], {"near": tmp_path})
    (tmp_path / "a.png").write_bytes(NOT_AN_IMAGE)
    with pytest.raises(DatasetError, match="none of the 1 files could be read as an image"):
        evaluate(scorer, folders["id"], {"near": tmp_path})


def test_scores_that_are_not_finite(tmp_path: Path) -> None:
    """An image that the network answers with NaN is reported like one that cannot be read, never measured."""
    scorer = make_scorer(
        load_classifier(networks.fragile(), torch.device("cpu")), tmp_path / "d", networks.CLASSES, None
    )
    far = write_class_folders(tmp_path / "far", ["x"], 5)
    Image.new("RGB", (32, 32), "white").save(far / "x" / "white.png")
    found = evaluate(scorer, write_class_folders(tmp_path / "id", ["y"], 5), {"far": far})
    assert found.ood_images == {"far": 5}
    assert list(found.unreadable) == [far / "x" / "white.png"]


def cells(text: str, first: str) -> list[dict[str, str]]:
    """The rows of the Markdown table whose header begins with `first`."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    (block,) = [block for block in blocks if re.sub(" +", " ", block[0]).startswith(f"| {first} ")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block)
    return [dict(zip(header, row, strict=True)) for row in rows]


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


def test_tables(evaluation: Evaluation) -> None:
    """The printed tables say in percent what was measured, with every row and column."""
    text = evaluation_tables(evaluation)
    for row, found in zip(evaluation.separations, cells(text, "method"), strict=True):
        assert list(found.values()) == [
            row.method,
            row.ood,
            *(percent(value) for value in (row.fpr95, row.auroc, row.aupr_in, row.aupr_out)),
            f"{percent(row.fpr95_low or 0)} to {percent(row.fpr95_high or 0)}",
            f"{percent(row.auroc_low or 0)} to {percent(row.auroc_high or 0)}",
        ]
    for rate, found in zip(evaluation.reject_rates, cells(text, "operating point | alpha"), strict=True):
        assert found == {
            "operating point": rate.operating_point,
            "alpha": percent(rate.alpha),
            "ID rejected": percent(rate.realised),
            "90 % interval": f"{percent(rate.interval[0])} to {percent(rate.interval[1])}",
            "near": percent(rate.ood["near"]),
            "far": percent(rate.ood["far"]),
        }
    assert text.splitlines()[0] == f"ID images 45, top-1 accuracy {percent(evaluation.accuracy or 0)}, unreadable 1"
    assert len({len(line) for line in text.split("\n\n")[1].splitlines()}) == 1


def test_files(evaluation: Evaluation, tmp_path: Path) -> None:
    """JSON holds all that was measured, CSV the separations, both in full precision; a new folder is made for them."""
    folder = tmp_path / "new" / "folder"
    write_evaluation(evaluation, folder)
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["separations"] == [asdict(row) for row in evaluation.separations]
    assert [row | {"interval": tuple(row["interval"])} for row in content["reject_rates"]] == [
        asdict(rate) for rate in evaluation.reject_rates
    ]
    assert content["accuracy"] == evaluation.accuracy
    assert content["id_images"] == 45
    assert content["ood_images"] == {"near": 24, "far": 7}
    assert content["unreadable"] == {str(path): reason for path, reason in evaluation.unreadable.items()}
    with (folder / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measures = [column.name for column in fields(Separation)][2:]
    assert [
        Separation(row["method"], row["ood"], **{key: float(row[key]) for key in measures}) for row in rows
    ] == evaluation.separations
    assert content["reliability"] == json.loads(json.dumps([asdict(row) for row in evaluation.reliability]))
    assert content["classes"] == json.loads(json.dumps([asdict(row) for row in evaluation.classes]))
    assert content["agreement"] == asdict(evaluation.agreement)
    assert (content["method"], content["artifact_id"]) == ("line", evaluation.artifact.artifact_id)
    assert (
        sum(row["predicted"] for row in content["classes"]) == sum(row["labelled"] for row in content["classes"]) == 45
    )


def test_files_of_any_locale(evaluation: Evaluation, tmp_path: Path) -> None:
    """Names beyond ASCII are written as UTF-8, whatever the process believes that files are written in."""
    rows = [replace(row, ood=row.ood.replace("near", "W\xe4lder")) for row in evaluation.separations]
    forest = replace(evaluation, separations=rows, ood_images={"W\xe4lder": 24, "far": 7})
    (tmp_path / "evaluation.pickle").write_bytes(pickle.dumps(forest))
    script = f"""if True:
        import pickle
        from pathlib import Path
        from calibration.report import write_evaluation
        folder = Path({str(tmp_path)!r})
        write_evaluation(pickle.loads((folder / "evaluation.pickle").read_bytes()), folder)
    """
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", script], env=os.environ | locale, cwd=Path(__file__).parents[2], check=True)
    assert "line,Wälder," in (tmp_path / "evaluation.csv").read_text(encoding="utf-8")
    assert '<th scope="col">Wälder</th>' in (tmp_path / "report.html").read_text(encoding="utf-8")
