"""Reports as a reader's browser takes them: parsed, with every number compared with the JSON, and names that attack."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from calibration.dataset import LabelledImages
from calibration.evaluate import Evaluation, evaluate
from calibration.job import Calibration, Job, calibrate
from calibration.page import calibration_page, flatten
from calibration.report import calibration_summary, write_calibration, write_evaluation
from calibration.settings import LineSettings
from scoring.classifier import Classifier, load_classifier
from scoring.metadata import Quality, Quantisation
from scoring.scorer import Scorer
from scoring.spec import ClassifierParts
from tests.calibration import networks
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders, write_picture

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = ("<script>alert(1)</script>", "\"onerror='x", "{{ 7*7 }}", "a&amp;b", "elm")
FILE = "<script>.png"


@dataclass
class Page(HTMLParser):
    """A page as parsed: its elements, its tables by id, the text outside of styles, and whether tags are balanced."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: dict[str, list[list[list[str]]]] = field(default_factory=dict)
    text: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def read(cls, path: Path) -> Page:
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        assert page.open == []
        return page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables[found["id"] or ""] = []
        if "table" in self.open:
            rows = list(self.tables.values())[-1]
            if tag == "tr":
                rows.append([])
            if tag in {"td", "th"}:
                rows[-1].append([])
            if tag == "data":
                rows[-1][-1].append(found["value"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
        if self.open and self.open[-1] in {"td", "th"}:
            list(self.tables.values())[-1][-1][-1].append(data.strip())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]


def one_class() -> ClassifierParts:
    """A network with a single output."""
    return ClassifierParts(
        networks.seeded(*networks.body(), nn.Linear(networks.FEATURES, 1)), networks.PREPROCESS, ("all",)
    )


def calibrate_on(folder: Path, classifier: Classifier, names: Sequence[str]) -> Calibration:
    folders = [f"class{i}" for i in range(len(names))]
    images = LabelledImages.read(write_class_folders(folder, folders, 20), None, len(names))
    masks, holdout = images.split(0.5)
    settings = LineSettings(p_a=30, p_w=60, clip=None, clip_quantile=0.9)
    few = {"methods": ("msp", "energy"), "combined": ()}
    job = Job("spec", masks, holdout, settings, {"usual": 0.2, "strict": 0.1}, "line-ood <b>", tuple(names), **few)
    return calibrate(job, classifier)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """Classes with names that attack, and one held-out file that is no image."""
    classifier = load_classifier(networks.fine(), torch.device("cpu"))
    folder = tmp_path_factory.mktemp("calibration")
    write_class_folders(folder, ["class0"], 1, start=99)
    (folder / "class0" / "bad <i>.png").write_bytes(NOT_AN_IMAGE)
    return calibrate_on(folder, classifier, HOSTILE)


@pytest.fixture(scope="module")
def evaluation(calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """ID images with labels, a folder of one image, and one with an image called a script and one that is a text."""
    root = tmp_path_factory.mktemp("folders")
    write_class_folders(root / "id", [f"class{i}" for i in range(5)], 9, start=100)
    write_picture(root / "near" / "only.png")
    for name in (FILE, '"><img src=x onerror=alert(1)>.png', "b.png"):
        write_picture(root / "far" / name)
    (root / "far" / "notes<b>.txt").write_bytes(NOT_AN_IMAGE)
    scorer = Scorer(load_classifier(networks.fine(), torch.device("cpu")), calibration.artifact)
    return evaluate(scorer, root / "id", {"near": root / "near", "<u>far": root / "far"})


@pytest.fixture(scope="module")
def report(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_evaluation(evaluation, folder)
    return folder


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page.read(report / "report.html")


def numbers(row: list[list[str]]) -> list[float]:
    """All numbers of a row in full, the first cell being its name."""
    return [float(value) for cell in row[1:] for value in cell if re.fullmatch(r"-?[\d.]+(e-?\d+)?", value)]


def test_sections(page: Page) -> None:
    """Every part of the report is there, and each link of its contents leads to one."""
    sections = [found["id"] for found in page.attributes("section")]
    assert sections == [
        *("summary", "separation", "histograms", "roc", "rejects", "classes", "routing", "images", "data")
    ]
    assert [found["href"] for found in page.attributes("a")] == [f"#{name}" for name in sections[1:]]
    assert "45 in-distribution" in " ".join(page.text.split())


def test_needs_nothing_else(page: Page, report: Path) -> None:
    """No script, no other file, no address: pictures are inside, and the policy forbids everything else."""
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "u", "i"}
    for tag, found in page.elements:
        assert not any(name.startswith("on") for name in found), (tag, found)
        assert (found.get("src") or "data:image/").startswith("data:image/")
        assert (found.get("href") or "#").startswith("#")
    content = (report / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href|url|@import)\W{1,3}(https?:)?//", content)
    (policy,) = [found["content"] for found in page.attributes("meta") if "http-equiv" in found]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "prefers-color-scheme: dark" in content


def test_pictures(page: Page, report: Path) -> None:
    """The pictures of the page are the PNG files beside it, of a size that can be read, and each has a description."""
    files = {path.name: path.read_bytes() for path in report.glob("*.png")}
    assert set(files) == {f"{name}.png" for name in ("histograms", "roc", "reliability", "classes", "counts")}
    found = [image for image in page.attributes("img") if (image["src"] or "").startswith("data:image/png")]
    assert sorted(base64.b64decode((image["src"] or "").partition(",")[2]) for image in found) == sorted(files.values())
    assert all(len(image["alt"] or "") > 20 for image in found)
    for content in files.values():
        picture = Image.open(io.BytesIO(content))
        picture.load()
        assert picture.width >= 600
        assert picture.height >= 260


@pytest.mark.parametrize("measure", ["fpr95", "auroc", "aupr_in", "aupr_out"])
def test_separations(page: Page, report: Path, measure: str) -> None:
    """Each cell of the tables of methods is the JSON's number with its interval, in full."""
    rows = {
        (row["method"], row["ood"]): row for row in json.loads((report / "evaluation.json").read_text())["separations"]
    }
    head, *body = page.tables[measure]
    folders = [cell[0] for cell in head[1:]]
    assert folders == ["near", "<u>far", "mean"]
    assert [row[0][0] for row in body] == ["line (decides)", "msp", "energy"]
    for row in body:
        for folder, cell in zip(folders, row[1:], strict=True):
            wanted = rows[row[0][0].split()[0], folder]
            values = [wanted[measure], *(wanted.get(f"{measure}_{end}") for end in ("low", "high"))]
            assert [float(value) for value in cell if value not in ("to", "")][::1] == [
                v for v in values if v is not None
            ]


def test_other_tables(page: Page, report: Path, evaluation: Evaluation) -> None:
    """Reject rates, classes and agreement are the JSON's numbers, in full."""
    content = json.loads((report / "evaluation.json").read_text())
    thresholds = evaluation.artifact.operating_points
    for row, rate in zip(page.tables["reject_rates"][1:], content["reject_rates"], strict=True):
        wanted = [rate["alpha"], rate["realised"], *rate["interval"], *rate["ood"].values()]
        assert (row[0], numbers(row)) == (
            [rate["operating_point"]],
            [thresholds[rate["operating_point"]].threshold, *wanted],
        )
    classes = {row["name"]: row for row in content["classes"]}
    assert len(page.tables["class_rows"]) == 1 + len(classes)
    for row in page.tables["class_rows"][1:]:
        found = classes[row[0][0]]
        values = [found[key] for key in ("mask_images", "labelled", "accuracy", "predicted", "rejected", "reject_rate")]
        assert numbers(row) == [value for value in [*values, *found["reject_interval"]] if value is not None]
    agreement = content["agreement"]
    assert [numbers(row) for row in page.tables["agreement"][1:]] == [
        *([share] for share in (agreement["inside"], *agreement["ood"].values()))
    ]


def test_hostile_names(page: Page) -> None:
    """Names of files, classes, folders and commands that attack are shown as they are, and are never elements."""
    for name in ("far/<script>.png", 'far/"><img src=x onerror=alert(1)>.png', *HOSTILE, "<u>far", "notes<b>.txt"):
        assert name in page.text
    assert {row[0][0]: "".join(row[1]) for row in page.tables["settings"]}["provenance.command"] == "line-ood <b>"


def test_images(page: Page, evaluation: Evaluation) -> None:
    """The most and least OOD images of each folder are shown, a folder of one image having no least."""
    headings = re.findall(r"(ID|OOD near|OOD <u>far): (most|least) OOD", page.text)
    assert headings == [
        *(("ID", "most"), ("ID", "least"), ("OOD near", "most"), ("OOD <u>far", "most"), ("OOD <u>far", "least"))
    ]
    thumbnails = [image for image in page.attributes("img") if (image["src"] or "").startswith("data:image/jpeg")]
    assert len(thumbnails) == 24 + 1 + 3


def test_images_that_are_gone(evaluation: Evaluation, tmp_path: Path) -> None:
    """Where the files have been removed meanwhile, the report says so and is written all the same."""
    gone = replace(evaluation.inside, paths=[tmp_path / path.name for path in evaluation.inside.paths])
    write_evaluation(replace(evaluation, inside=gone), tmp_path)
    assert Page.read(tmp_path / "report.html").text.count("cannot be shown") == 24


def test_one_class(tmp_path: Path) -> None:
    """A network of one class, calibrated on few images and evaluated on one, has a report."""
    classifier = load_classifier(one_class(), torch.device("cpu"))
    calibration = calibrate_on(tmp_path / "data", classifier, ["all"])
    write_picture(tmp_path / "id" / "a.png")
    write_picture(tmp_path / "far" / "b.png")
    found = evaluate(Scorer(classifier, calibration.artifact), tmp_path / "id", {"far": tmp_path / "far"})
    write_evaluation(found, tmp_path / "report")
    page = Page.read(tmp_path / "report" / "report.html")
    assert numbers(page.tables["class_rows"][1])[:1] == [10]
    assert "unknown, the folders are not the classes'" in page.text
    assert found.agreement.inside == 1


def test_calibration_report(calibration: Calibration, tmp_path: Path) -> None:
    """The page of a calibration stands beside the artifact and has the numbers of its summary."""
    path = write_calibration(calibration, "0123456789abcdef", tmp_path / "a.safetensors")
    assert path == tmp_path / "a.report.html"
    page = Page.read(path)
    assert [found["id"] for found in page.attributes("section")] == ["summary", "points", "classes", "data"]
    summary = calibration_summary(calibration, "0123456789abcdef")
    for row, point in zip(page.tables["operating_points"][1:], summary["operating_points"], strict=True):
        assert row[0] == [point["name"]]
        assert numbers(row) == [point["alpha"], point["threshold"], *point["realised_rate_90"]]
    assert "0123456789abcdef" in page.text
    assert "bad <i>.png" in page.text
    settings = {row[0][0]: "".join(row[1]) for row in page.tables["settings"]}
    assert settings["method.p_a"] == "30.0"
    assert settings["data.calibration_images"] == str(len(calibration.artifact.calibration_scores))
    assert not {tag for tag, _ in page.elements} & {"script", "link", "i"}
    assert len([image for image in page.attributes("img") if (image["src"] or "").startswith("data:image/png")]) == 2


def test_quantisation() -> None:
    """What int8 has changed is a table of its own, where it was measured."""
    quality = {"float32": Quality(accuracy=0.9, fpr95=0.2), "int8": Quality(accuracy=0.875, fpr95=0.21)}
    quantisation = Quantisation(network="0" * 64, compared_images=77, **quality).model_dump()
    summary: dict[str, Any] = {
        **{"model": "m", "artifact_id": "a", "classes": 2, "warnings": ["odd <names>"], "unreadable": {}},
        "data": {"mask_images": 3, "calibration_images": 4, "classes_without_images": 0},
        "accuracy": {"calibration_images": 0.5},
        "operating_points": [],
        "quantisation": quantisation,
    }
    page = Page()
    page.feed(calibration_page(summary, None, {}, {"calibration": b"", "counts": b""}, {}))
    assert [numbers(row) for row in page.tables["quality"][1:]] == [[0.9, 0.2], [0.875, 0.21]]
    assert "Warning: odd <names>" in page.text


def test_flatten() -> None:
    """Nested settings become dotted names, lists one line, lists of groups numbered groups."""
    nested = {"a": {"b": 1, "c": None}, "d": [1, "x"], "e": [{"f": True}, {"f": 2.5}], "g": []}
    assert list(flatten(nested)) == [
        *(("a.b", "1"), ("a.c", "none"), ("d", "1, x"), ("e.0.f", "True"), ("e.1.f", "2.5"), ("g", ""))
    ]
