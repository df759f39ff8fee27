"""A virtual environment a peer, with that peer's own packages only.

torch, torchvision and OpenVINO are gigabytes, and have to be the same for everybody: each environment reads them from
the environment that runs the benchmark. Its own packages come first where both have one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.folders import ENVIRONMENTS, ROOT

SHARED = sysconfig.get_path("purelib")


def python_of(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter that has these requirements; without any, the one that runs this.

    Raises:
        CalledProcessError: pip could not install them; it has said why.
    """
    if not requirements:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {', '.join(requirements)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, symlinks=True)
    (next(folder.glob("lib/python*/site-packages")) / "shared.pth").write_text(f"{SHARED}\n{ROOT}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, *requirements], check=True, capture_output=True, text=True)
    stamp.write_text(wanted)
    return python
