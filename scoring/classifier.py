"""A classifier: backbone (images to features h) and linear head (logits = h Wᵀ + b).

The head is found by running the network, not by its name: it is the last `nn.Linear` whose output is the
network's output. Features are what that layer reads.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Any

import torch
from torch import Tensor, nn

from scoring.errors import HeadNotFoundError, PreprocessError, SpecError
from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts
from scoring.types import Features, Head, Logits, PixelBatch

PROBE_IMAGES = 4


class Classifier:
    """A network in evaluation mode on one device, read at its penultimate features.

    Args:
        module: normalised images to logits.
        preprocess: how it wants its images.
        device: where it runs.

    Raises:
        HeadNotFoundError: the network does not end in a linear layer.
    """

    def __init__(self, module: nn.Module, preprocess: Preprocess, device: torch.device) -> None:
        if device.type == "cuda":
            # float32 has to mean float32: TF32 would round convolutions to 10 bits and move every score.
            torch.backends.cudnn.allow_tf32 = False
        self.module = module.eval().requires_grad_(False).to(device)
        self.preprocess = preprocess
        self.device = device
        self._layer = find_head(self.module, self._noise())

    @property
    def head(self) -> Head:
        """W and b in float32; b is zero where the layer has none."""
        weight = self._layer.weight.float().contiguous()
        return Head(weight, weight.new_zeros(len(weight)) if self._layer.bias is None else self._layer.bias.float())

    @torch.inference_mode()
    def forward(self, pixels: PixelBatch) -> tuple[Features, Logits]:
        """Run a batch of pixels, which may lie on any device.

        Not for several threads at once: the features are caught on their way into the head.
        """
        images = self.preprocess.normalise(pixels.to(self.device, non_blocking=True))
        calls: list[tuple[Tensor, Tensor]] = []

        def catch(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
            calls.append((args[0] if args else kwargs["input"], output))

        hook = self._layer.register_forward_hook(catch, with_kwargs=True)
        try:
            logits = self.module(images)
        finally:
            hook.remove()
        if len(calls) > 1:  # the head ran on other views, too: the features are those of the answer
            calls = [call for call in calls if torch.equal(call[1], logits)]
        return calls[-1][0], logits

    def digest(self) -> str:
        """SHA-256 over name, type, shape and bytes of every parameter and buffer."""
        return digest_tensors(self.module)

    def _noise(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (PROBE_IMAGES, 3, *self.preprocess.crop)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return self.preprocess.normalise(pixels.to(self.device))


def load_classifier(parts: ClassifierParts, device: torch.device, preprocess: Preprocess | None = None) -> Classifier:
    """Bind the parts of a classifier to a device, with another preprocessing than their own where given.

    Raises:
        SpecError: there are more or fewer class names than outputs.
        PreprocessError: nobody says how the images have to be prepared.
        HeadNotFoundError: the network does not end in a linear layer.
    """
    chosen = preprocess or parts.preprocess
    if chosen is None:
        raise PreprocessError(
            "the model does not say how its images are prepared: give --crop, --mean, --std (and --resize)"
        )
    classifier = Classifier(parts.module, chosen, device)
    outputs = len(classifier.head.bias)
    if parts.class_names is not None and len(parts.class_names) != outputs:
        raise SpecError(f"the model comes with {len(parts.class_names)} class names and has {outputs} outputs")
    return classifier


@torch.inference_mode()
def find_head(module: nn.Module, images: Tensor) -> nn.Linear:
    """Find the last `nn.Linear` whose output is the module's output on `images`.

    Several different images, so that a layer behind the head is not overlooked because it changes nothing on one.

    Raises:
        HeadNotFoundError: says what the module returned and which linear layers ran.
        SpecError: the module cannot run on such images.
    """
    ran: list[tuple[str, nn.Linear, Tensor]] = []

    def record(name: str) -> Any:
        return lambda layer, _, output: ran.append((name, layer, output.clone()))  # what follows may be in place

    linears = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(record(name)) for name, layer in linears]
    try:
        logits = module(images)
    except Exception as error:  # the network is its owner's code: whatever it raises, it cannot be used like this
        reason = " ".join(str(error).split())
        raise SpecError(f"the classifier fails on float32 images of shape {tuple(images.shape)}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(logits, Tensor) and logits.ndim == 2:
        for _, layer, output in reversed(ran):
            if output.shape == logits.shape and torch.equal(output, logits):
                return layer
    raise HeadNotFoundError(
        f"the classifier must end in an nn.Linear whose output (batch, class) is its own; "
        f"it returned {_describe(logits)}, and these linear layers ran: "
        f"{', '.join(f'{name} -> {tuple(output.shape)}' for name, _, output in ran) or 'none'}"
    )


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


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return type(output).__name__
