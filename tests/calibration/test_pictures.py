"""Pictures of any numbers and names are PNG files of a size that can be read, and show what they are of."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from calibration import pictures
from calibration.canvas import BLACK, BLUE, GREY, ORANGE
from calibration.class_pictures import count_picture, reject_picture
from calibration.grid_picture import grid_picture
from calibration.rates import reliability
from tests.calibration.test_classes import rows_of
from tests.calibration.test_rates import judged, one_group
from tests.calibration.test_search import problem

HOSTILE = ("$x^{$", "_hidden", "日本", "a\nb", "\udcff", "long" * 40, "", "<script>")


def decode(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    picture.load()
    assert picture.format == "PNG"
    return picture.convert("RGB")


def share_of(picture: Image.Image, colour: str) -> float:
    """Share of the picture that is exactly this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.asarray(picture) == wanted).all(2).mean())


def some(shift: float, count: int = 300) -> np.ndarray:
    return np.random.default_rng(count).normal(shift, 1, count)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_panel_for_each_folder(count: int) -> None:
    """Two panels stand side by side, more make the picture taller; both kinds of images and a threshold are drawn."""
    outside = {f"far {i}": some(i) for i in range(count)}
    png = pictures.histograms("line", some(0), outside, {"default": (1.5, 1.5)})
    picture = decode(png)
    assert picture.width == pytest.approx(5.6 * 130 * min(count, 2), abs=2)
    assert picture.height == pytest.approx(3.5 * 130 * -(-count // 2), abs=2)
    assert min(share_of(picture, BLUE), share_of(picture, ORANGE)) > 1e-4
    assert png == pictures.histograms("line", some(0), outside, {"default": (1.5, 1.5)})
    assert png != pictures.histograms("line", some(0), outside, {"default": (0.5, 0.5)})


@pytest.mark.parametrize("scores", [np.zeros(1), np.full(9, -7.5), np.array([0, 1e6]), np.array([1e-300, 2e-300])])
def test_scores_of_any_kind(scores: np.ndarray) -> None:
    """One image, equal scores, and scores far apart are drawn like others."""
    threshold = {"default": (float(scores[0]),) * 2}
    assert decode(pictures.histograms("m", scores, {"far": scores}, threshold)).width > 600
    assert decode(pictures.calibration_histogram("m", scores, threshold)).width > 600
    assert decode(pictures.roc(["m"], {"m": scores}, {"far": {"m": scores}})).width > 600


@pytest.mark.parametrize("count", [1, 3, 6, 7, 14])
def test_methods(count: int) -> None:
    """The first methods of a ROC picture have colours, those beyond are grey."""
    methods = [f"method {i}" for i in range(count)]
    inside, outside = ({method: some(shift) for method in methods} for shift in (0, 1.5))
    outside = {method: scores + 0.3 * i for i, (method, scores) in enumerate(outside.items())}
    picture = decode(pictures.roc(methods, inside, {"far": outside}))
    assert share_of(picture, BLUE) > 1e-4
    assert (share_of(picture, GREY) > 1e-4) == (count > 6)


def test_reliability() -> None:
    """What was realised is drawn over the promise, also where nothing was rejected at all."""
    calibration = np.sort(some(0, 400))
    for inside in (some(0), some(-9), some(9), np.zeros(1)):
        picture = decode(
            pictures.reliability(reliability(one_group(calibration.tolist()), judged(inside.tolist())), len(inside))
        )
        assert picture.size == pytest.approx((7.2 * 130, 5 * 130), abs=2)
        assert share_of(picture, ORANGE) > 1e-4
    assert decode(pictures.reliability(reliability(one_group([0]), judged([0])), 1)).width > 600


@pytest.mark.parametrize("count", [1, 10, 30, 31, 1000])
@pytest.mark.parametrize("share", [0, 0.05, 1])
def test_classes(count: int, share: float) -> None:
    """Few classes have a bar each, as high as needed; many share two panels of one size."""
    generator = np.random.default_rng(count)
    predicted = generator.integers(0, max(1, count - 1), 800)
    rejected = generator.random(800) < share
    names = [f"class {k}" for k in range(count)]
    rows = rows_of(names, np.arange(count), None, predicted, rejected)
    picture = decode(reject_picture(rows, float(rejected.mean())))
    height, width = (1.4 + 0.3 * count, 8) if count <= 30 else (4.2, 11.2)
    assert picture.size == pytest.approx((width * 130, height * 130), abs=2)
    assert share_of(picture, ORANGE) > 1e-5  # the dashes over all images, half beyond the edge where none is rejected
    counts = decode(count_picture(names, list(range(count))))
    assert counts.height == pytest.approx((1.4 + 0.3 * count if count <= 30 else 3.4) * 130, abs=2)


def test_hostile_names() -> None:
    """Names that are formulas, hidden, without a glyph, without end, or no text are drawn, and hurt nothing."""
    outside = {name: some(1) for name in HOSTILE}
    assert decode(pictures.histograms(HOSTILE[0], some(0), outside, dict.fromkeys(HOSTILE, (1.0, 1.0)))).width > 600
    inside = dict.fromkeys(HOSTILE, some(0))
    assert decode(pictures.roc(HOSTILE, inside, dict.fromkeys(HOSTILE, outside))).width > 600
    rows = rows_of(HOSTILE, np.ones(8, np.int64), None, np.arange(8), np.ones(8, bool))
    assert decode(reject_picture(rows, 1)).width > 600
    assert decode(count_picture(HOSTILE, [1] * 8)).width > 600


def test_the_grid_of_a_search() -> None:
    """Four panels side by side, two rows for eight clips; the setting that was chosen has its frame."""
    search = problem(1).search()
    clips = len({row.clip_quantile for row in search.rows})
    picture = decode(grid_picture(search))
    assert picture.width == pytest.approx(3.6 * 130 * min(clips, 4), abs=2)
    assert picture.height == pytest.approx(3.4 * 130 * -(-clips // 4), abs=2)
    assert share_of(picture, ORANGE) > 1e-4


def test_thresholds_of_classes_are_a_band() -> None:
    """Two ends are marked, and between them the picture is darker; a single threshold is one line."""
    one, two = (
        decode(pictures.histograms("m", some(0), {"far": some(9)}, {"default": ends})) for ends in ((4, 4), (3.5, 5))
    )
    assert share_of(one, "#f2f2f2") < 0.001
    assert share_of(two, "#f2f2f2") > 0.02
    assert share_of(two, BLACK) > 1.2 * share_of(one, BLACK)
