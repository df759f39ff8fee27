"""What this machine can do at this minute without any HTTP: the ceiling that every server is measured against.

    python -m benchmarks.serving.ceiling NETWORK PICTURES [--seconds 8]

NETWORK is the folder with resnet50.xml, PICTURES a file with one path a line. Prints one line of JSON, images/s:
`whole` decodes and classifies, with one thread a core, each with its own engine and its own batches of 8 from memory;
the others are the bare forward pass over pixels that lie ready.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import openvino
import torch

from benchmarks.serving.decode import CROP, decode
from benchmarks.serving.engines import CORES, MAX_BATCH, OpenVino, compile_network


def whole(folder: Path, jpegs: list[bytes], seconds: float) -> float:
    """Images/s, decoded and classified."""

    def step(engine: OpenVino, number: int) -> object:
        start = number * MAX_BATCH
        batch = [jpegs[position % len(jpegs)] for position in range(start, start + MAX_BATCH)]
        return engine.classify([decode(jpeg) for jpeg in batch])

    steps = [partial(step, OpenVino(folder, threads=1)) for _ in range(CORES)]
    return MAX_BATCH * _steps_per_s(steps, seconds)


def forward(compiled: openvino.CompiledModel, requests: int, batch: int, seconds: float) -> float:
    """Images/s of the network alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, CROP, CROP), dtype=np.uint8)

    def step(request: openvino.InferRequest, _: int) -> object:
        return request.infer([pixels], share_inputs=True)

    steps = [partial(step, compiled.create_infer_request()) for _ in range(requests)]
    return batch * _steps_per_s(steps, seconds)


def measure(folder: Path, jpegs: list[bytes], seconds: float) -> dict[str, float]:
    """All figures. The bare forward passes are short, so that everything stays in the same minute."""
    latency = compile_network(folder, CORES)
    streams = compile_network(folder, CORES, streams=CORES)
    return {
        "whole": whole(folder, jpegs, seconds),
        "forward_1": forward(latency, 1, 1, seconds / 4),
        "forward_8": forward(latency, 1, MAX_BATCH, seconds / 4),
        "forward_streams_8": forward(streams, CORES, MAX_BATCH, seconds / 4),
    }


def _steps_per_s(steps: Sequence[Callable[[int], object]], seconds: float) -> float:
    """Run each step over and over in a thread of its own, after a first time that does not count."""
    for step in steps:
        step(0)
    start = time.perf_counter()

    def repeat(step: Callable[[int], object]) -> float:
        done = next(number for number in count(1) if step(number) and time.perf_counter() - start >= seconds)
        return done / (time.perf_counter() - start)

    with ThreadPoolExecutor(len(steps)) as pool:
        return sum(pool.map(repeat, steps))


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.ceiling")
    parser.add_argument("network", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=8)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    jpegs = [Path(line).read_bytes() for line in given.pictures.read_text().splitlines()]
    print(json.dumps(measure(given.network, jpegs, given.seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
