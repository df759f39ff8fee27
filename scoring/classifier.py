"""A classifier: backbone (images to features h), run by an engine, and linear head (logits = h Wᵀ + b)."""

from __future__ import annotations

import hashlib
import itertools
import re

import torch
from torch import nn

from scoring.backbone import Backbone, noise
from scoring.engines.build import build
from scoring.engines.engine import EngineChoice
from scoring.engines.quantised import QuantisedNetwork
from scoring.errors import PreprocessError, SpecError
from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts
from scoring.types import Features, Head, Logits, PixelBatch

REFERENCE = EngineChoice()


class Classifier:
    """A network in evaluation mode on one device, read at its penultimate features.

    Args:
        module: normalised images to logits.
        preprocess: how it wants its images.
        device: where it runs.
        choice: which engine runs it.
        quantised: the backbone in int8, for the engine that runs that.

    Attributes:
        head: W and b in float32; b is zero where the layer has none.

    Raises:
        HeadNotFoundError: the network does not end in a linear layer.
        SpecError: it cannot run on images of this size.
        EngineError: the engine cannot run it here.
    """

    def __init__(
        self,
        module: nn.Module,
        preprocess: Preprocess,
        device: torch.device,
        choice: EngineChoice = REFERENCE,
        quantised: QuantisedNetwork | None = None,
    ) -> None:
        if device.type == "cuda":
            # float32 has to mean float32: TF32 would round convolutions to 10 bits and move every score.
            torch.backends.cudnn.allow_tf32 = False
        self.preprocess = preprocess
        self.device = device
        self.backbone = Backbone(module, preprocess).to(device)
        self.head = _copy_head(self.backbone.head.layer)
        self.use(choice, quantised)

    def use(self, choice: EngineChoice, quantised: QuantisedNetwork | None = None) -> None:
        """Run by another engine from now on.

        Raises:
            EngineError: it cannot run this network here; the present one stays.
        """
        self.engine = build(choice, self.backbone, noise(self.preprocess), self.device, quantised)
        self.choice = choice
        self.quantised = quantised if choice.precision == "int8" else None

    def features(self, pixels: PixelBatch, *, alone: bool = True) -> Features:
        """Run a batch of pixels, which may lie on any device; see `Engine.features`."""
        return self.engine.features(pixels, alone=alone)

    @torch.inference_mode()
    def forward(self, pixels: PixelBatch) -> tuple[Features, Logits]:
        """Features and logits of a batch."""
        features = self.features(pixels)
        return features, torch.addmm(self.head.bias, features, self.head.weight.T)

    def digest(self) -> str:
        """SHA-256 over name, type, shape and bytes of every parameter and buffer."""
        return digest_tensors(self.backbone.network)


def load_classifier(
    parts: ClassifierParts,
    device: torch.device,
    preprocess: Preprocess | None = None,
    choice: EngineChoice = REFERENCE,
    quantised: QuantisedNetwork | None = None,
) -> Classifier:
    """Bind the parts of a classifier to a device, with another preprocessing than their own where given.

    Raises:
        SpecError: there are more or fewer class names than outputs.
        PreprocessError: nobody says how the images have to be prepared.
        HeadNotFoundError: the network does not end in a linear layer.
        EngineError: the engine cannot run it here.
    """
    chosen = preprocess or parts.preprocess
    if chosen is None:
        raise PreprocessError(
            "the model does not say how its images are prepared: give --crop, --mean, --std (and --resize)"
        )
    classifier = Classifier(parts.module, chosen, device, choice, quantised)
    outputs = len(classifier.head.bias)
    if parts.class_names is not None and len(parts.class_names) != outputs:
        raise SpecError(f"the model comes with {len(parts.class_names)} class names and has {outputs} outputs")
    return classifier


def digest_tensors(module: nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and buffer, in the order of their names."""
    sha = hashlib.sha256()
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, and the CPU otherwise.

    Raises:
        SpecError: the device was asked for by name and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise SpecError(f"device {name!r}: wanted auto, cpu or cuda")
    if name != "cpu" and not torch.cuda.is_available():
        raise SpecError(f"device {name!r}: no GPU can be used here")
    return torch.device(name)


def _copy_head(layer: nn.Linear) -> Head:
    weight = layer.weight.detach().float().contiguous()
    return Head(weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().float())
