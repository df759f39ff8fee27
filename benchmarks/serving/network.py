"""The network of the contest: torchvision's ResNet-50, as weights for us and as one OpenVINO file for the peers.

The weights are random, from a fixed seed, because a bench must not need a download; speed does not depend on them.
They get what training would have given them as far as answers are concerned: batch norm has the statistics of some
of the pictures, and the head is spread around their mean. So pictures differ in their class, and a server that mixes
up its answers is found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import openvino
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torchvision.models import resnet50

from benchmarks.serving.decode import CROP, decode

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SAMPLE = 32  # pictures that batch norm and head are fitted to
HEAD_GAIN = 10  # makes the answers as decided as a trained network's

WEIGHTS = "resnet50.pt"
IR = "resnet50.xml"


class Deployed(nn.Module):
    """Normalisation and network in one: raw pixels in, logits out.

    Args:
        network: reads normalised pictures.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mean = nn.Buffer(torch.tensor(MEAN).reshape(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(STD).reshape(1, 3, 1, 1))

    def forward(self, pixels: UInt8[Tensor, "batch 3 224 224"]) -> Float32[Tensor, "batch 1000"]:
        """Normalise, and run the network."""
        return cast(Tensor, self.network(self.normalise(pixels)))

    def normalise(self, pixels: UInt8[Tensor, "batch 3 224 224"]) -> Float32[Tensor, "batch 3 224 224"]:
        """(pixels / 255 - mean) / std."""
        return (pixels.float() / 255 - self.mean) / self.std


def make(pictures: Sequence[Path], folder: Path) -> None:
    """Write resnet50.pt and resnet50.xml, once."""
    if (folder / IR).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    deployed = _fitted(torch.stack([decode(path.read_bytes()) for path in pictures[:SAMPLE]]))
    torch.save(deployed.network.state_dict(), folder / WEIGHTS)
    example = torch.zeros(1, 3, CROP, CROP, dtype=torch.uint8)
    model = openvino.convert_model(deployed, example_input=example, input=[-1, 3, CROP, CROP])
    openvino.save_model(model, folder / IR, compress_to_fp16=False)


def load(folder: Path) -> Deployed:
    """The torch module with the weights of `make`, for those who serve it eagerly."""
    network = resnet50(weights=None)
    network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    return Deployed(network).eval()


@torch.no_grad()
def _fitted(pixels: UInt8[Tensor, "batch 3 224 224"]) -> Deployed:
    torch.manual_seed(0)
    network = resnet50(weights=None)
    deployed = Deployed(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics are those of the one batch that follows
    deployed.train()(pixels)
    deployed.eval()
    head = network.fc
    head.weight.mul_(HEAD_GAIN)
    head.bias.zero_()
    head.bias.sub_(deployed(pixels).mean(dim=0))
    return deployed
