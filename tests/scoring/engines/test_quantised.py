"""The engine in int8: it runs a network that calibration has quantised, and no other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from scoring.backbone import noise
from scoring.classifier import Classifier, load_classifier
from scoring.engines.engine import EngineChoice
from scoring.engines.openvino import OpenVinoEngine
from scoring.engines.quantised import QuantisedNetwork
from scoring.errors import ArtifactError, EngineError
from tests.factories.tiny import PREPROCESS, tiny
from tests.quantised import INT8, tiny_in_int8, tiny_network

CPU = torch.device("cpu")
INT8_ROUNDING = 0.1  # relative distance of features: 8 bits a layer


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return tiny_in_int8()


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


def test_is_near_the_reference(classifier: Classifier) -> None:
    """And not equal to it: it was rounded; the same alone, side by side, and in batches of any size."""
    pixels = noise(PREPROCESS, 9)
    found = classifier.features(pixels)
    assert found.dtype == torch.float32
    assert 1e-4 < distance(found, load_classifier(tiny(), CPU).features(pixels)) < INT8_ROUNDING
    assert torch.equal(classifier.features(pixels, alone=False), found)
    for count in (1, 2, 8):
        assert torch.equal(classifier.features(pixels[:count]), found[:count])


def test_runs_on_every_lane_at_once(classifier: Classifier) -> None:
    """Threads that call side by side get the features of their own images."""
    pixels = noise(PREPROCESS, 20)
    wanted = classifier.features(pixels)
    with ThreadPoolExecutor(classifier.engine.lanes + 1) as pool:
        found = list(pool.map(lambda i: classifier.features(pixels[i : i + 1], alone=False), range(20)))
    assert torch.equal(torch.cat(found), wanted)


def test_convolutions_are_computed_in_8_bits(classifier: Classifier) -> None:
    """Both ways of compiling: OpenVINO says of what it has built in which type each operation runs."""
    engine = classifier.engine
    assert isinstance(engine, OpenVinoEngine)
    for compiled in (engine._wide, engine._narrow):
        infos = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
        found = [info["runtimePrecision"].value for info in infos if info["layerType"].value == "Convolution"]
        assert len(found) == 2
        assert set(found) <= {"u8", "i8"}


def test_needs_a_network() -> None:
    """Without one the error says how to make it, and the engine in use stays."""
    classifier = load_classifier(tiny(), CPU)
    with pytest.raises(EngineError, match="line-ood calibrate --engine openvino:int8 makes one"):
        classifier.use(INT8)
    assert classifier.choice == EngineChoice()


def test_other_engines_leave_it_alone(classifier: Classifier) -> None:
    """A classifier that runs by another engine has no quantised network, whatever it was given."""
    other = load_classifier(tiny(), CPU, None, EngineChoice(), tiny_network())
    assert other.quantised is None
    assert classifier.quantised is not None


@pytest.mark.parametrize("name", ["eager", "compiled", "cudagraph"])
def test_is_openvinos_alone(name: str) -> None:
    """Said in words, in place of a list of words that are all right."""
    with pytest.raises(EngineError, match=f"^engine {name}:int8: only openvino runs in int8$"):
        EngineChoice.parse(f"{name}:int8")
    assert EngineChoice.parse("openvino:int8") == INT8


Change = Callable[[bytes, bytes], tuple[bytes, bytes]]
BROKEN: dict[str, Change] = {
    "no XML": lambda xml, constants: (b"\xff" * 99, constants),
    "empty": lambda xml, constants: (b"", b""),
    "cut XML": lambda xml, constants: (xml[: len(xml) // 2], constants),
    "cut constants": lambda xml, constants: (xml, constants[: len(constants) // 2]),
    "no constants": lambda xml, constants: (xml, b""),
    "an operation of nobody": lambda xml, constants: (xml.replace(b'"Convolution"', b'"Magic"'), constants),
    "another input": lambda xml, constants: (xml.replace(b'shape="?,16,16,3"', b'shape="?,17,17,3"'), constants),
    "floats in": lambda xml, constants: (xml.replace(b'element_type="u8"', b'element_type="f32"', 1), constants),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_such_network(change: Change) -> None:
    """Whatever OpenVINO makes of it, the error is about the artifact, and says what was wanted."""
    xml, constants = (bytes(part.tolist()) for part in tiny_network())
    broken = change(xml, constants)
    assert broken != (xml, constants)
    with pytest.raises(ArtifactError) as caught:
        load_classifier(tiny(), CPU, None, INT8, QuantisedNetwork.from_bytes(*broken))
    assert caught.value.field == "int8_network"


def test_features_for_another_head() -> None:
    """A network with more features than the head reads is refused."""
    parts = tiny()
    parts.module[2], parts.module[3] = torch.nn.Conv2d(8, 20, 3), torch.nn.BatchNorm2d(20)
    parts.module[7] = torch.nn.Linear(20, 5)
    with pytest.raises(ArtifactError, match=r"\[\?,20\].*\[\?,24\]"):
        load_classifier(parts, CPU, None, INT8, tiny_network())


def test_the_digest_is_of_both_parts() -> None:
    """And of where one ends."""
    digests = {QuantisedNetwork.from_bytes(*parts).digest() for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"ab", b"d"))}
    assert len(digests) == 3
    assert QuantisedNetwork.from_bytes(b"ab", b"c").digest() in digests
