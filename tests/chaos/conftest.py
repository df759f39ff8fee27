"""What every fault meets: tiny networks, the right answers, and a server that clients ask all the while."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.artifacts import calibrate_tiny
from tests.processes import RunningServer, running_server
from tests.service.conftest import tiny_artifact
from tests.service.versions import score_of

__all__ = ["tiny_artifact"]  # a fixture

ROOT = Path(__file__).parents[2]
SEEDS = range(8)
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}  # for factories in `tests`

# The C library keeps what is freed, up to some hundred MB; so told it gives it back, and what grows is what is held.
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


class Common(NamedTuple):
    """A server that several tests use, one after the other: a model for each decoder, the default with Pillow."""

    server: RunningServer
    place: Path  # the file of the default model

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture(scope="session")
def scores(tiny_artifact: Path) -> dict[int, float]:
    """What is right, by the seed of a picture."""
    return score_of(tiny_artifact, SEEDS)


@pytest.fixture(scope="session")
def common(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Common]:
    folder = tmp_path_factory.mktemp("common")
    place = Path(shutil.copy(tiny_artifact, folder / "served.safetensors"))
    turbo = calibrate_tiny(folder, spec=f"{ROOT / 'tests/factories/turbo.py'}:turbo")
    flags = ("--artifact", f"pillow={place}", "--artifact", f"turbo={turbo}")
    with running_server(*flags, env=ENVIRONMENT | RETURNED) as server:
        yield Common(server, place)
        assert server.terminate() == 0
