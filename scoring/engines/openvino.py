"""The backbone through OpenVINO's CPU plug-in.

Compiled twice: `wide` spends all cores on one batch, for when nothing else runs; `narrow` gives each of several
batches its own share of the cores, which wastes nothing on waiting for the slowest core. The two never run together.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from scoring.backbone import Backbone
from scoring.cores import usable_cores
from scoring.engines.engine import Precision
from scoring.engines.quantised import QuantisedNetwork
from scoring.errors import ArtifactError, EngineError
from scoring.types import Features, PixelBatch

MAX_LANES = 8  # each holds activations of its own
# What is computed in floating point; beside int8 that is little, and bfloat16 is no faster there (Swin: slower).
HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVinoEngine:
    """Runs batches of any size, each thread with inference requests of its own.

    Args:
        model: what `convert` or `read` gave.
        precision: what OpenVINO computes in.
        cores: how many to use.
    """

    useful_batch = 8  # on a core; 16 are no faster, and those who wait for them wait twice as long

    def __init__(self, model: Any, precision: Precision, cores: int | None = None) -> None:
        cores = cores or usable_cores()
        self.lanes = min(cores, MAX_LANES)
        compile_model = partial(_openvino().Core().compile_model, model, "CPU")
        hints = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": cores,
            "ENABLE_CPU_PINNING": False,  # the decoders and the event loop need the same cores
        }
        self._wide = compile_model({**hints, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"})
        self._narrow = compile_model({**hints, "NUM_STREAMS": self.lanes, "PERFORMANCE_HINT": "THROUGHPUT"})
        self._own = threading.local()

    def features(self, pixels: PixelBatch, *, alone: bool = True) -> Features:
        """Run a batch."""
        if not hasattr(self._own, "requests"):
            self._own.requests = (self._narrow.create_infer_request(), self._wide.create_infer_request())
        request = self._own.requests[alone]
        channels_last = pixels.permute(0, 2, 3, 1).contiguous().numpy()  # as decoders and the queue leave them
        outputs = request.infer([channels_last], share_inputs=True)  # the output is copied
        return torch.from_numpy(outputs[0])


class _ChannelsLast(nn.Module):
    """Takes pixels as (batch, height, width, 3)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: UInt8[Tensor, "batch height width 3"]) -> Features:
        features: Features = self.backbone(pixels.permute(0, 3, 1, 2))
        return features


def convert(backbone: Backbone, pixels: PixelBatch) -> Any:
    """Make OpenVINO's model of a backbone; it takes pixels as (batch, height, width, 3).

    Args:
        backbone: on the CPU, in float32.
        pixels: two images of the size that will come, to trace the network with.

    Raises:
        EngineError: openvino is not installed, or cannot read the network.
    """
    openvino = _openvino()
    example = pixels.permute(0, 2, 3, 1).contiguous()
    shape = openvino.PartialShape([-1, *example.shape[1:]])
    with warnings.catch_warnings(), _level_of_logs_kept():
        warnings.simplefilter("ignore")  # the tracer's advice to whoever wrote the network
        try:
            return openvino.convert_model(_ChannelsLast(backbone), example_input=example, input=[shape])
        except Exception as error:  # whatever the tracer or the converter raises, the network is not for them
            raise EngineError(f"OpenVINO cannot read the network: {_reason(error)}") from error


@contextlib.contextmanager
def _level_of_logs_kept() -> Iterator[None]:
    """The converter silences the root logger, and leaves it so where it fails: a server would be mute from then on."""
    level = logging.root.level
    try:
        yield
    finally:
        logging.root.setLevel(level)


def read(network: QuantisedNetwork, pixels: PixelBatch, feature_count: int) -> Any:
    """Make OpenVINO's model of a quantised network.

    Args:
        network: from an artifact.
        pixels: images of the size that will come.
        feature_count: of the head that will read its features.

    Raises:
        EngineError: openvino is not installed.
        ArtifactError: it is no network, or takes or gives something else.
    """
    openvino = _openvino()
    try:
        model = openvino.Core().read_model(network.xml.numpy().tobytes(), openvino.Tensor(network.constants.numpy()))
        found = [(port.element_type.to_string(), str(port.partial_shape)) for port in (*model.inputs, *model.outputs)]
    except Exception as error:  # its reader raises what it likes at XML and bytes that do not fit
        raise ArtifactError("int8_network", "a network that OpenVINO can read", _reason(error)) from error
    height, width = pixels.shape[2:]
    wanted = [("u8", f"[?,{height},{width},3]"), ("f32", f"[?,{feature_count}]")]
    if found != wanted:
        raise ArtifactError("int8_network", f"input and output {wanted}", found)
    return model


def _openvino() -> Any:
    try:
        import openvino  # noqa: PLC0415 - optional
    except ImportError as error:
        raise EngineError("the engine 'openvino' needs openvino: pip install openvino") from error
    return openvino


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
