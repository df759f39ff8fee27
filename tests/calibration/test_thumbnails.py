"""Which images a report shows, and what becomes of those that cannot be shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.scored import ScoredFolder
from calibration.thumbnails import SHOWN, extremes, shrink
from tests.calibration.pictures import NOT_AN_IMAGE, write_picture
from tests.reference import group_of, p_value
from tests.scoring.artifacts import build, build_by_class

ARTIFACT = build(["cat", "dog"])
THRESHOLD = ARTIFACT.metadata.operating_points[0].threshold


def scored(paths: Sequence[Path], scores: Sequence[float]) -> ScoredFolder:
    classes = np.arange(len(paths)) % 2
    values = np.array(scores, dtype=np.float64)
    return ScoredFolder({"other": -values, "line": values}, classes, classes, list(paths), {})


@pytest.mark.parametrize("count", [1, 2, 3, 23, 24, 25, 60])
def test_which(tmp_path: Path, count: int) -> None:
    """The highest scores lead the most, the lowest the least, twelve of each at most, and no image is in both."""
    paths = [write_picture(tmp_path / f"{i}.png") for i in range(count)]
    scores = np.random.default_rng(count).permutation(count).astype(float).tolist()
    found = extremes(scored(paths, scores), ARTIFACT)
    ordered = sorted(scores, reverse=True)
    most, least = [each.ood_score for each in found.most], [each.ood_score for each in found.least]
    assert most == ordered[: len(most)]
    assert least == ordered[::-1][: len(least)]
    assert len(most) + len(least) == min(count, 2 * SHOWN)
    assert len(most) - len(least) in (0, 1)
    assert not set(most) & set(least)


def test_what_is_said(tmp_path: Path) -> None:
    """Name, predicted class, score, p-value and decision are those of the image; one on the threshold is accepted."""
    paths = [write_picture(tmp_path / f"{name}.png") for name in "abc"]
    scores = (THRESHOLD, THRESHOLD + 0.5, THRESHOLD - 9)
    found = extremes(scored(paths, scores), ARTIFACT)
    for each, name, score, predicted, reject in zip(
        [*found.most, *found.least],
        "bac",
        (scores[1], scores[0], scores[2]),
        ("dog", "cat", "cat"),
        (True, False, False),
        strict=True,
    ):
        assert each.name == f"{tmp_path.name}/{name}.png"
        assert (each.ood_score, each.predicted, each.reject) == (score, predicted, reject)
        assert each.p_value == p_value(score, ARTIFACT.calibration_scores.tolist())


def test_the_threshold_is_that_of_the_class(tmp_path: Path) -> None:
    """The same score is rejected in one class and accepted in another; so do their p-values differ."""
    artifact = build_by_class()
    low, high = sorted(artifact.thresholds(artifact.metadata.operating_points[0])["line"][:2].tolist())
    middle = (low + high) / 2
    paths = [write_picture(tmp_path / f"{name}.png") for name in "ab"]
    found = extremes(scored(paths, [middle, middle]), artifact)
    both = [*found.most, *found.least]
    assert [each.predicted for each in both] == ["ant", "bee"]
    assert {each.reject for each in both} == {True, False}
    images = list(zip(artifact.calibration_scores.tolist(), artifact.predicted.tolist(), strict=True))
    for predicted, each in enumerate(both):
        group = group_of(middle, predicted, images, 39)
        assert each.p_value == sum(score >= middle for score in group) / len(group)


def test_small_pictures(tmp_path: Path) -> None:
    """A picture becomes a JPEG of 96 pixels along its longer side, upright, that looks as it did; small ones stay."""
    picture = np.zeros((200, 400, 3), np.uint8)
    picture[:, :200, 0] = 255  # red at the left
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    small = decode(shrink(tmp_path / "a.jpg"))
    assert (small.format, small.size) == ("JPEG", (96, 48))
    assert np.abs(np.asarray(small)[24, 80].astype(int) - (255, 0, 0)).max() < 40
    assert np.abs(np.asarray(small)[24, 16].astype(int)).max() < 40
    assert decode(shrink(write_picture(tmp_path / "b.png"))).size == (32, 32)


def decode(uri: str | None) -> Image.Image:
    assert uri is not None
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_files_that_have_changed(tmp_path: Path) -> None:
    """A file that is gone, empty, broken or a folder by now has no picture, and its numbers all the same."""
    paths = [tmp_path / name for name in ("gone.png", "empty.png", "text.png", "half.png", "folder.png")]
    paths[1].write_bytes(b"")
    paths[2].write_bytes(NOT_AN_IMAGE)
    write_picture(paths[3]).write_bytes(paths[3].read_bytes()[:900])
    paths[4].mkdir()
    found = extremes(scored(paths, [5, 4, 3, 2, 1]), ARTIFACT)
    shown = [*found.most, *reversed(found.least)]
    assert [(each.uri, each.ood_score) for each in shown] == [(None, 5), (None, 4), (None, 3), (None, 2), (None, 1)]
