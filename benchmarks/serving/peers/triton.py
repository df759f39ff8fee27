"""NVIDIA Triton with its Python backend, one instance a core, each with an engine of one thread.

The server comes from the wheel of PyTriton; PyTriton itself would put a proxy and a socket between the two.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

from benchmarks.serving.engines import CORES, MAX_BATCH, PORT_VARIABLE

MODEL = "resnet50"
CONFIG = f"""
name: "{MODEL}"
backend: "python"
max_batch_size: {MAX_BATCH}
input {{ name: "jpeg" data_type: TYPE_STRING dims: [1] }}
output {{ name: "index" data_type: TYPE_INT32 dims: [1] }}
output {{ name: "probability" data_type: TYPE_FP32 dims: [1] }}
instance_group {{ count: {CORES} kind: KIND_CPU }}
dynamic_batching {{ }}
"""


def main() -> None:
    """Write what the server reads, and become the server."""
    wheel = pytriton()
    home = wheel / "tritonserver"
    folder = Path(tempfile.mkdtemp())
    write_repository(folder / "models")
    copy_backends(home, folder / "backends")
    libraries = (wheel.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"))
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
    start = [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={os.environ[PORT_VARIABLE]}",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    os.execv(start[0], start)  # noqa: S606 - the wheel has it


def write_repository(models: Path) -> None:
    """Triton's layout: configuration, version, code."""
    version = models / MODEL / "1"
    version.mkdir(parents=True)
    (models / MODEL / "config.pbtxt").write_text(CONFIG)
    shutil.copy(Path(__file__).with_name("triton_model.py"), version / "model.py")


def copy_backends(home: Path, backends: Path) -> None:
    """The wheel has a Python backend for each version of Python; the server wants one in place."""
    shutil.copytree(home / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")


def pytriton() -> Path:
    """Where the wheel is installed; importing it would start more than is needed."""
    spec = find_spec("pytriton")
    assert spec and spec.origin, "nvidia-pytriton is not installed here"
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
