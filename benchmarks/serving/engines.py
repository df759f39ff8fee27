"""What runs the network inside the peers: OpenVINO in bf16, or torch as most people have it.

A server learns from its environment what to run; `Contestant` sets these variables.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import openvino
import torch
from jaxtyping import Float32
from torch import Tensor
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from benchmarks.serving import network
from benchmarks.serving.decode import CROP

CORES = len(os.sched_getaffinity(0))
MAX_BATCH = 8  # larger ones gain nothing on a CPU, and cost latency

NETWORK_VARIABLE = "SERVING_NETWORK"  # folder with the weights
ENGINE_VARIABLE = "SERVING_ENGINE"  # openvino or usual
PORT_VARIABLE = "SERVING_PORT"


class Answer(TypedDict):
    """What a peer answers."""

    index: int
    probability: float


class Engine(Protocol):
    """Pixels of some pictures to their answers."""

    def classify(self, pixels: Sequence[Tensor]) -> list[Answer]:
        """Run one batch."""


class OpenVino:
    """OpenVINO on `threads` cores.

    Args:
        folder: what `network.make` has written.
        threads: cores to use, given explicitly because several engines may share the machine.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(1)  # decoding is parallel over pictures; within one, threads would only fight
        self.compiled = compile_network(folder, threads)
        self._request = self.compiled.create_infer_request()
        _warm_up(self)

    def classify(self, pixels: Sequence[Tensor]) -> list[Answer]:
        """Run one batch; one caller at a time."""
        self._request.infer([torch.stack(list(pixels)).numpy()], share_inputs=True)
        return answers(self._request.get_output_tensor().data)


class EagerTorch:
    """The usual set-up at its best: eager torch, bf16, channels last.

    Args:
        folder: as for OpenVINO.
        threads: cores to use.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._deployed = network.load(folder)
        self._deployed.network.to(torch.bfloat16).to(memory_format=torch.channels_last)
        _warm_up(self)

    @torch.inference_mode()
    def classify(self, pixels: Sequence[Tensor]) -> list[Answer]:
        """Run one batch."""
        batch = self._deployed.normalise(torch.stack(list(pixels)))
        batch = batch.to(torch.bfloat16, memory_format=torch.channels_last)
        return answers(self._deployed.network(batch).float().numpy())


def engine_of_environment(threads: int) -> Engine:
    """The engine that the contest has chosen for this server."""
    kinds: dict[str, type[OpenVino | EagerTorch]] = {"openvino": OpenVino, "usual": EagerTorch}
    return kinds[os.environ[ENGINE_VARIABLE]](Path(os.environ[NETWORK_VARIABLE]), threads)


def compile_network(folder: Path, threads: int, streams: int = 1) -> openvino.CompiledModel:
    """Compile for the CPU in bf16.

    Pinning is off: two engines that share the machine would pin their threads to the same cores.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(folder / network.IR, "CPU", settings)


def answers(logits: Float32[np.ndarray, "batch 1000"]) -> list[Answer]:
    """Softmax and its largest, of each picture."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    largest = exponentials.argmax(axis=1)
    probability = 1 / exponentials.sum(axis=1)  # the largest exponential is 1
    return [
        {"index": int(index), "probability": float(value)} for index, value in zip(largest, probability, strict=True)
    ]


def _warm_up(engine: Engine) -> None:
    blank = torch.zeros(3, CROP, CROP, dtype=torch.uint8)
    for size in range(1, MAX_BATCH + 1):
        engine.classify([blank] * size)
