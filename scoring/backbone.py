"""The backbone: uint8 pixels to the features that the head reads. The head is found by running the network.

The head is, whatever its name, the last `nn.Linear` whose output is the network's output.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scoring.errors import HeadNotFoundError, SpecError
from scoring.preprocess import Normalise, Preprocess
from scoring.types import Features, PixelBatch

PROBE_IMAGES = 4


class HeadPlace(NamedTuple):
    """Where in a network the head is.

    Attributes:
        layer: the head.
        call: which of its calls in one forward pass is the answer; some networks look at several views.
    """

    layer: nn.Linear
    call: int


class Backbone(nn.Module):
    """A network read at its head's input; normalises first.

    What engines run, trace and compile. Not for several threads at once: the features are caught in passing.

    Args:
        network: normalised images to logits.
        preprocess: how it wants its images.

    Raises:
        HeadNotFoundError: the network does not end in a linear layer.
        SpecError: it cannot run on such images.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.normalise = Normalise(preprocess)
        self.network = network
        self.dtype = torch.float32
        self.eval().requires_grad_(False)
        self.head = find_head(network, self.normalise(noise(preprocess)))
        self._catcher = _Catcher(self.head.call)
        self.head.layer.register_forward_pre_hook(self._catcher.catch, with_kwargs=True)

    def forward(self, pixels: PixelBatch) -> Features:
        """Features in the network's own precision."""
        self._catcher.calls = 0
        self.network(self.normalise(pixels).to(self.dtype))
        features, self._catcher.features = self._catcher.features, None
        assert features is not None
        return features

    def cast(self, dtype: torch.dtype) -> None:
        """Run the network in another precision from now on; normalising stays in float32."""
        self.dtype = dtype
        self.network.to(dtype)


class _Catcher:
    """Keeps what the head reads. It does not know the backbone, so that network and backbone are no ring in memory.

    Args:
        call: of the head, which one counts.
    """

    def __init__(self, call: int) -> None:
        self.calls = 0
        self.features: Tensor | None = None
        self._call = call

    def catch(self, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        """A hook: the head is being called."""
        if self.calls == self._call:
            self.features = args[0] if args else kwargs["input"]
        self.calls += 1


def noise(preprocess: Preprocess, count: int = PROBE_IMAGES) -> PixelBatch:
    """A batch of different images that any network of this input size can run on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *preprocess.crop), dtype=torch.uint8, generator=generator)


@torch.inference_mode()
def find_head(network: nn.Module, images: Tensor) -> HeadPlace:
    """Find the last `nn.Linear` whose output is the network's output on `images`.

    Several different images, so that a layer behind the head is not overlooked because it changes nothing on one.

    Raises:
        HeadNotFoundError: says what the network returned and which linear layers ran.
        SpecError: the network cannot run on such images.
    """
    ran: list[tuple[str, nn.Linear, Tensor]] = []

    def record(name: str) -> Any:
        return lambda layer, _, output: ran.append((name, layer, output.clone()))  # what follows may be in place

    linears = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(record(name)) for name, layer in linears]
    try:
        logits = network(images)
    except Exception as error:  # the network is its owner's code: whatever it raises, it cannot be used like this
        reason = " ".join(str(error).split())
        raise SpecError(f"the classifier fails on float32 images of shape {tuple(images.shape)}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(logits, Tensor) and logits.ndim == 2:
        for index, (_, layer, output) in reversed(list(enumerate(ran))):
            if output.shape == logits.shape and torch.equal(output, logits):
                return HeadPlace(layer, sum(each is layer for _, each, _ in ran[:index]))
    raise HeadNotFoundError(
        f"the classifier must end in an nn.Linear whose output (batch, class) is its own; "
        f"it returned {_describe(logits)}, and these linear layers ran: "
        f"{', '.join(f'{name} -> {tuple(output.shape)}' for name, _, output in ran) or 'none'}"
    )


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return type(output).__name__
