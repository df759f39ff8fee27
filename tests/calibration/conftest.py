"""One calibration by the real command, shared by all tests that only read what it left behind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from calibration import partial
from tests.calibration.command import Outcome, call, start
from tests.calibration.pictures import NOT_AN_IMAGE, write_class_folders
from tests.factories.tiny import CLASSES

__all__ = ["call"]  # a fixture

ROOT = Path(__file__).parent.parent.parent
TINY = f"{ROOT / 'tests' / 'factories' / 'tiny.py'}:tiny"


@dataclass(frozen=True)
class Calibrated:
    """What one run of `line-ood calibrate` was given and left behind."""

    arguments: tuple[str, ...]
    outcome: Outcome
    artifact: Path
    data: Path
    unreadable: Path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures of each class of the tiny network, in folders named as the classes, and a text among them."""
    folder = write_class_folders(tmp_path_factory.mktemp("data") / "my images", CLASSES, 20)
    (folder / "cat" / "notes.txt").write_bytes(NOT_AN_IMAGE)
    return folder


@pytest.fixture(scope="session")
def calibrated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    """The tiny network, calibrated at two operating points."""
    artifact = tmp_path_factory.mktemp("artifact") / "tiny.safetensors"
    arguments = (
        *("calibrate", "--model", TINY, "--data", str(data), "--out", str(artifact)),
        *("--alpha", "0.05", "--alpha", "strict=0.02", "--p-a", "30", "--p-w", "60", "--clip-quantile", "0.9"),
    )
    return Calibrated(arguments, start(*arguments), artifact, data, data / "cat" / "notes.txt")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partial state is written after every batch."""
    monkeypatch.setattr(partial, "SAVE_EVERY_S", 0)
    monkeypatch.setattr(partial, "LARGEST_SHARE", math.inf)
