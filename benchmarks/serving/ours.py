"""Our own contestant: how it is calibrated, once, and how it is served."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.serving.folders import ARTIFACTS, NETWORK
from benchmarks.serving.network import WEIGHTS

COMMAND = Path(sys.executable).with_name("line-ood")
MODEL = "torchvision:resnet50.IMAGENET1K_V1"
TINY = f"{Path(__file__).with_name('tiny.py')}:tiny"
ARTIFACT = ARTIFACTS / "resnet50.safetensors"
INT8_ARTIFACT = ARTIFACTS / "resnet50_int8.safetensors"
TINY_ARTIFACT = ARTIFACTS / "tiny.safetensors"

ENGINES = {
    ARTIFACT: ("--engine", "openvino:bfloat16"),
    INT8_ARTIFACT: ("--engine", "openvino:int8", "--int8-tolerance", "1"),  # random weights have no accuracy to lose
}


def calibrate_command(artifact: Path, data: Path) -> list[str]:
    """How the artifact is made."""
    flags = ["--data", str(data), "--out", str(artifact), "--decoder", "turbo"]
    return [str(COMMAND), "calibrate", *_model(artifact), *flags, *ENGINES.get(artifact, ())]


def serve_command(artifact: Path) -> tuple[str, ...]:
    """How it is served; the port is filled in later."""
    return (str(COMMAND), "serve", "--artifact", str(artifact), *_model(artifact), "--port", "{port}")


def prepare(artifact: Path, data: Path) -> None:
    """Calibrate, unless that was done with the same command."""
    command = calibrate_command(artifact, data)
    stamp = artifact.with_suffix(".command")
    if artifact.exists() and stamp.exists() and stamp.read_text() == shlex.join(command):
        return
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)
    stamp.write_text(shlex.join(command))


def _model(artifact: Path) -> list[str]:
    if artifact == TINY_ARTIFACT:
        return ["--model", TINY]
    return ["--model", MODEL, "--weights", str(NETWORK / WEIGHTS)]
