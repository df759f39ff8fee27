"""Where the real data are: `LINE_OOD_TEST_DATA`, by default `../shared/data` beside the repository.

Tests that want them are skipped where they are absent, so that a bare clone passes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VARIABLE = "LINE_OOD_TEST_DATA"


def data_folder() -> Path:
    """The folder of the real data, there or not; a relative setting counts from the repository root."""
    return (ROOT / os.environ.get(VARIABLE, "../shared/data")).resolve()


def real_data(name: str) -> Path:
    """A file or folder of the real data, or a skip that says what is missing."""
    return _present(data_folder() / name)


def golden_scores() -> Path:
    """What the authors' own code answers on the CIFAR-10 DenseNet, or a skip."""
    return _present(data_folder().parent / "golden" / "cifar10_official_line.json")


def _present(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"real data absent: no {path} (set {VARIABLE})")
    return path
