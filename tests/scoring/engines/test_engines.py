"""Every engine against the reference, on networks of several families."""

from __future__ import annotations

import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torchvision import models

from scoring.backbone import noise
from scoring.classifier import Classifier
from scoring.engines.buckets import bucket_of, buckets, pad
from scoring.engines.engine import EngineChoice
from scoring.errors import EngineError
from scoring.preprocess import Preprocess

CPU = torch.device("cpu")
NETWORKS = ("resnet18", "mobilenet_v3_small", "densenet121", "swin_t")
FLOAT32 = 1e-5  # relative distance of features: rounding, in another order
BFLOAT16 = 0.05  # 8 bits of mantissa, through tens of layers


def classifier_of(name: str) -> Classifier:
    torch.manual_seed(0)
    preprocess = Preprocess(resize=64, crop=(64, 64), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
    return Classifier(models.get_model(name, weights=None, num_classes=7), preprocess, CPU)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


class TestOpenVino:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_reproduces_the_reference(self, name: str) -> None:
        """In float32 to rounding, in bfloat16 to its precision; alone and side by side."""
        classifier = classifier_of(name)
        pixels = noise(classifier.preprocess, 5)
        wanted = classifier.features(pixels)
        for precision, tolerance in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
            classifier.use(EngineChoice(name="openvino", precision=precision))
            for alone in (True, False):
                found = classifier.features(pixels, alone=alone)
                assert found.dtype == torch.float32
                assert distance(found, wanted) < tolerance

    def test_takes_batches_of_any_size(self) -> None:
        """And an image has the same features in each."""
        classifier = classifier_of("resnet18")
        pixels = noise(classifier.preprocess, 9)
        classifier.use(EngineChoice(name="openvino"))
        whole = classifier.features(pixels)
        for count in (1, 2, 3, 7, 8):
            assert distance(classifier.features(pixels[:count]), whole[:count]) < FLOAT32

    def test_runs_on_every_lane_at_once(self) -> None:
        """Threads that call side by side get the features of their own images, which are theirs to keep."""
        classifier = classifier_of("resnet18")
        pixels = noise(classifier.preprocess, 40)
        classifier.use(EngineChoice(name="openvino"))
        wanted = classifier.features(pixels)
        with ThreadPoolExecutor(classifier.engine.lanes + 2) as pool:
            found = list(pool.map(lambda i: classifier.features(pixels[i : i + 1], alone=False), range(40)))
        assert distance(torch.cat(found), wanted) < FLOAT32

    def test_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the package the error says how to get it."""
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(EngineError, match="pip install openvino"):
            classifier_of("resnet18").use(EngineChoice(name="openvino"))

    def test_says_what_it_cannot_read(self) -> None:
        """A network that decides by its pixels cannot be traced faithfully, and nothing is changed by the try."""

        class Untraceable(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3, 2)

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                if torch.jit.is_tracing():
                    raise ValueError("not with me")
                return self.fc(images.mean((2, 3)))

        preprocess = Preprocess(resize=8, crop=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
        classifier = Classifier(Untraceable(), preprocess, CPU)
        before, level = classifier.features(noise(preprocess)), logging.root.level
        with pytest.raises(EngineError, match="OpenVINO cannot read the network"):
            classifier.use(EngineChoice(name="openvino"))
        assert logging.root.level == level  # which the converter changes, for everybody's logs
        assert torch.equal(classifier.features(noise(preprocess)), before)  # the engine in use stays


class TestEager:
    def test_in_bfloat16_is_near_the_reference(self) -> None:
        """Another precision is another engine; the reference network itself is untouched by it."""
        classifier = classifier_of("resnet18")
        pixels, before = noise(classifier.preprocess, 5), classifier.digest()
        wanted = classifier.features(pixels)
        classifier.use(EngineChoice(name="eager", precision="bfloat16"))
        found = classifier.features(pixels)
        assert found.dtype == torch.float32
        assert 0 < distance(found, wanted) < BFLOAT16
        assert classifier.digest() == before
        classifier.use(EngineChoice())
        assert torch.equal(classifier.features(pixels), wanted)


class TestCompiled:
    @pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
    @pytest.mark.filterwarnings("ignore")  # the compiler's own
    def test_reproduces_the_reference_in_every_bucket(self) -> None:
        """Batches that fill their bucket and batches that are filled up have the reference's features."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        preprocess = Preprocess(resize=16, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
        classifier = Classifier(network, preprocess, CPU)
        pixels = noise(preprocess, 4)
        wanted = classifier.features(pixels)
        classifier.use(EngineChoice(name="compiled"))
        for count in (3, 4):
            assert distance(classifier.features(pixels[:count]), wanted[:count]) < FLOAT32

    def test_says_that_it_needs_a_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is none, as in the slim image."""
        monkeypatch.setenv("PATH", "")
        with pytest.raises(EngineError, match="needs a C\\+\\+ compiler at run time"):
            classifier_of("resnet18").use(EngineChoice(name="compiled"))


class TestCudaGraph:
    def test_needs_a_gpu(self) -> None:
        """Said in words where there is none."""
        with pytest.raises(EngineError, match="needs a GPU, the device is cpu"):
            classifier_of("resnet18").use(EngineChoice(name="cudagraph", precision="bfloat16"))

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    @pytest.mark.parametrize("count", [1, 3, 8])
    def test_reproduces_the_reference(self, count: int) -> None:
        """Whatever the bucket held before, and whatever it holds next, features are those of the batch."""
        device = torch.device("cuda")
        preprocess = Preprocess(resize=64, crop=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
        classifier = Classifier(models.resnet18(weights=None), preprocess, device)
        pixels = noise(preprocess, 16)
        wanted = classifier.features(pixels)
        classifier.use(EngineChoice(name="cudagraph"))
        classifier.features(pixels[-count:])
        found = classifier.features(pixels[:count])
        classifier.features(pixels[-count:])
        assert distance(found, wanted[:count]) < 1e-3


class TestBuckets:
    @pytest.mark.parametrize(("count", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (32, 32), (33, 64)])
    def test_are_powers_of_two(self, count: int, bucket: int) -> None:
        """The smallest that holds the batch."""
        assert bucket_of(count) == bucket
        pixels = torch.full((count, 3, 2, 2), 7, dtype=torch.uint8)
        padded = pad(pixels)
        assert len(padded) == bucket
        assert torch.equal(padded[:count], pixels)
        assert not padded[count:].any()


class TestChoice:
    @pytest.mark.parametrize("text", ["openvino:bfloat16", "eager:float32", "cudagraph:bfloat16"])
    def test_is_read_and_written_alike(self, text: str) -> None:
        """NAME:PRECISION, and float32 where none is given."""
        assert str(EngineChoice.parse(text)) == text
        assert str(EngineChoice.parse("compiled")) == "compiled:float32"

    @pytest.mark.parametrize("text", ["", "tensorrt", "eager:int4", "openvino:bfloat16:x"])
    def test_of_nothing_that_exists_is_refused(self, text: str) -> None:
        """The message lists what there is."""
        with pytest.raises(EngineError, match=r"wanted eager, compiled, openvino, cudagraph"):
            EngineChoice.parse(text)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_a_warm_up_meets_every_bucket(largest: int, sizes: list[int]) -> None:
    """The sizes are ascending, none is above the largest, and together they fall into every bucket up to it."""
    assert buckets(largest) == sizes
    assert {bucket_of(size) for size in sizes} == {bucket_of(size) for size in range(1, largest + 1)}
