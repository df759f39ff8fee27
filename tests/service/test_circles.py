"""What fails is let go at once: no circle of references waits with it for Python's collector, which sees no pixels."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import torch
from PIL.ImageFile import ImageFile

from scoring.errors import LineOodError
from scoring.scorer import Scorer
from tests.service.conftest import encode
from tests.service.test_pressure import white_image
from tests.waiting import until


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> list[object]:
    """Errors that clients are told, and pictures, that something still refers to."""
    return [each for each in gc.get_objects() if issubclass(type(each), (LineOodError, ImageFile))]


@pytest.mark.parametrize("decoder", ["pillow", "turbo"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
@pytest.mark.usefixtures("no_collector")
def test_images_that_cannot_be_decoded(start, scorer, decoder, form):
    """Refused alone, or as one of several: neither the picture, as far as it was decoded, nor the error remains."""
    preprocess = scorer.classifier.preprocess
    scorer.classifier.preprocess = preprocess.model_copy(update={"decoder": decoder})
    app, before = start(scorer), len(alive())
    whole = encode(1, form, (200, 200))
    spoiled = [whole[: len(whole) // 2], whole[:30], b"no image", b""]
    for image in spoiled:
        assert httpx.post(f"{app.url}/v1/predict", content=image).status_code in {400, 415, 422}
    files = [("f", ("x", image)) for image in [whole, *spoiled]]
    assert httpx.post(f"{app.url}/v1/predict", files=files).status_code == 200
    until(lambda: len(alive()) == before)


class Greedy(Scorer):
    """Has memory for one image at a time: what a larger batch had allocated has to be given back first."""

    held: weakref.ref[np.ndarray] | None = None
    failures = 0

    def score(self, pixels, *, alone=True, every=False):
        if bool((pixels == 255).all(dim=(1, 2, 3)).any()):
            assert self.held is None or self.held() is None, "the failed pass still holds its memory"
            activations = np.zeros(10)
            self.held = weakref.ref(activations)
            self.failures += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().score(pixels, alone=alone, every=every)


@pytest.mark.usefixtures("no_collector")
def test_a_pass_that_fails(tiny_artifact, start):
    """When its images are tried one by one nothing of it is held any more, or the device would be full again."""
    scorer = Greedy.load(tiny_artifact, torch.device("cpu"))
    app = start(scorer)
    for _ in range(3):
        files = [("f", ("x", image)) for image in (encode(1), white_image(), white_image())]
        results = httpx.post(f"{app.url}/v1/predict", files=files).json()["results"]
        assert [each.get("error", {}).get("code") for each in results] == [None, *["inference_failed"] * 2]
    assert scorer.failures > 3
