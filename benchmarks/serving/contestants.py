"""Who takes part. A contestant is a name, how to start it, and how to ask it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.engines import ENGINE_VARIABLE, NETWORK_VARIABLE, PORT_VARIABLE
from benchmarks.serving.folders import NETWORK, ROOT
from benchmarks.serving.ours import ARTIFACT, INT8_ARTIFACT, TINY_ARTIFACT, serve_command

JPEG = {"Content-Type": "image/jpeg"}


def _own_index(answer: bytes) -> int:
    return int(json.loads(answer)["results"][0]["predictions"][0]["index"])


def _peer_index(answer: bytes) -> int:
    return int(json.loads(answer)["index"])


def _triton_index(answer: bytes) -> int:
    """A raw request gets a raw answer: JSON about the tensors, then an int32 and a float32."""
    return int.from_bytes(answer[-8:-4], "little")


@dataclass(frozen=True)
class Contestant:
    """One server of the contest.

    Attributes:
        name: for the command line and the results.
        title: for people.
        command: starts it; {python} is the interpreter of its environment, {bin} the folder of that, {port} the port.
        requirements: its environment; empty for the one that runs the benchmark.
        environment: further variables.
        path: of the endpoint.
        headers: of each request.
        index: finds the class in an answer; None where there is no class to check.
        tiny: it gets a body as long as a photograph that holds a tiny picture.
    """

    name: str
    title: str
    command: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=lambda: JPEG)
    index: Callable[[bytes], int] | None = _peer_index
    tiny: bool = False

    def start(self, python: Path, port: int) -> list[str]:
        """The command, filled in."""
        places = {"python": str(python), "bin": str(python.parent), "port": str(port)}
        return [part.format_map(places) for part in self.command]

    def variables(self, python: Path, port: int, temporary: str) -> dict[str, str]:
        """Its whole environment."""
        return {
            **os.environ,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": temporary,  # some leave files there
            "TMPDIR": temporary,
            NETWORK_VARIABLE: str(NETWORK),
            ENGINE_VARIABLE: "openvino",
            PORT_VARIABLE: str(port),
            **self.environment,
        }


def _peer(name: str, title: str, requirements: tuple[str, ...], *, module: str = "", **more: Any) -> Contestant:
    command = ("{python}", "-m", f"benchmarks.serving.peers.{module or name}")
    return Contestant(name, title, command, requirements, **more)


def _mosec(name: str, title: str, environment: Mapping[str, str]) -> Contestant:
    command = ("{python}", "-m", "benchmarks.serving.peers.mosec", "--port", "{port}")
    return Contestant(name, title, command, ("mosec==0.9.8",), environment, path="/inference")


USUAL = {ENGINE_VARIABLE: "usual"}
FASTAPI = ("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")

OURS = Contestant(
    "ours",
    "line-ood, with its score",
    serve_command(ARTIFACT),
    path="/v1/predict",
    index=_own_index,
)
OURS_INT8 = Contestant(
    "ours_int8",
    "line-ood in int8, with its score",
    serve_command(INT8_ARTIFACT),
    path="/v1/predict",
    index=_own_index,
)
OURS_NULL = Contestant(
    "ours_null",
    "line-ood, next to no network",
    serve_command(TINY_ARTIFACT),
    path="/v1/predict",
    index=None,
    tiny=True,
)
NULL = Contestant(
    "null",
    "bare uvicorn endpoint",
    (
        *("{python}", "-m", "uvicorn", "benchmarks.serving.null:app", "--port", "{port}"),
        *("--http", "httptools", "--loop", "uvloop", "--lifespan", "off", "--no-access-log"),
    ),
    index=None,
    tiny=True,
)
PEERS = (  # in int8 we are one more opponent of ourselves: every match is played against bfloat16
    OURS_INT8,
    _mosec("mosec", "Mosec", {}),
    _peer("fastapi_plain", "plain FastAPI", FASTAPI),
    _peer("litserve", "LitServe", ("litserve==0.2.19",)),
    Contestant(
        "bentoml",
        "BentoML",
        ("{bin}/bentoml", "serve", "benchmarks.serving.peers.bentoml:Classifier", "--port", "{port}"),
        ("bentoml==1.4.39",),
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    _peer("rayserve", "Ray Serve", ("ray[serve]==2.60.0",), environment={"RAY_USAGE_STATS_ENABLED": "0"}),
    _peer(
        "torchserve",
        "TorchServe",
        ("torchserve==0.12.0", "torch-model-archiver==0.12.0"),
        path="/predictions/resnet50",
    ),
    _peer(
        "triton",
        "Triton",
        ("nvidia-pytriton==0.7.0",),
        path="/v2/models/resnet50/infer",
        headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"},
        index=_triton_index,
    ),
    _mosec("mosec_usual", "Mosec, usual set-up", USUAL),
    _peer("fastapi_usual", "plain FastAPI, usual set-up", FASTAPI, module="fastapi_plain", environment=USUAL),
)
