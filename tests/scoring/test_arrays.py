"""Resizing, turning and cropping, against torchvision's transforms and Pillow's, and the threads they leave asleep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as transforms

from scoring.arrays import centre_crop, resize, turn

SIDES = st.integers(1, 24)
WITHOUT_THREADS = """
import io, os, torch
torch.set_num_threads(4)
from PIL import Image
from scoring.preprocess import Preprocess
size = dict(resize=256, crop=(224, 288), mean=(0, 0, 0), std=(1, 1, 1))
buffer = io.BytesIO()
Image.linear_gradient("L").resize((500, 375)).convert("RGB").save(buffer, "JPEG")
before = len(os.listdir("/proc/self/task"))
for name in ("turbo", "turbo-scaled"):
    for interpolation in ("bilinear", "bicubic"):
        Preprocess(**size, decoder=name, interpolation=interpolation).read(buffer.getvalue())
print(len(os.listdir("/proc/self/task")) - before)
"""


def noise(width: int, height: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


class TestResize:
    @pytest.mark.parametrize("size", [(500, 375), (301, 457), (64, 64), (97, 31), (20, 30), (1, 1), (3000, 17)])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_is_pillow_s_to_the_rounding(self, interpolation: str, size: tuple[int, int]) -> None:
        """Larger and smaller, of noise, the worst of pictures: 2 grey levels at most, hardly any on average."""
        method = Image.Resampling[interpolation.upper()]
        rows = Image.fromarray(noise(*size)).resize((80, size[1]), method)  # in one go it might begin with the columns
        wanted = np.asarray(rows.resize((80, 60), method))
        off = np.abs(resize(noise(*size), (80, 60), interpolation).astype(int) - wanted)
        assert off.max() <= 2
        assert off.mean() < 0.02

    def test_to_the_same_size_changes_nothing(self) -> None:
        """A picture that already fits keeps its pixels."""
        assert (resize(noise(9, 7), (9, 7), "bicubic") == noise(9, 7)).all()


class TestTurn:
    @pytest.mark.parametrize(
        ("orientation", "wanted"),
        [
            (1, "ab/cd/ef"),
            (2, "ba/dc/fe"),
            (3, "fe/dc/ba"),
            (4, "ef/cd/ab"),
            (5, "ace/bdf"),
            (6, "eca/fdb"),
            (7, "fdb/eca"),
            (8, "bdf/ace"),
        ],
    )
    def test_is_as_exif_says(self, orientation: int, wanted: str) -> None:
        """Two columns, three rows, stored as ab/cd/ef: where each pixel goes."""
        stored = np.array([[[ord(letter)] * 3 for letter in row] for row in ("ab", "cd", "ef")], dtype=np.uint8)
        found = ["".join(map(chr, row)) for row in turn(stored, orientation)[..., 0]]
        assert "/".join(found) == wanted


class TestCentreCrop:
    @given(width=SIDES, height=SIDES, crop=st.tuples(SIDES, SIDES))
    def test_is_torchvision_s(self, width: int, height: int, crop: tuple[int, int]) -> None:
        """Larger or smaller than the picture along each side, odd and even: the same pixels, the same black."""
        picture = noise(width, height)
        wanted = transforms.center_crop(torch.from_numpy(picture).permute(2, 0, 1), list(crop)).permute(1, 2, 0)
        assert (centre_crop(picture, crop) == wanted.numpy()).all()

    def test_keeps_nothing_of_the_picture(self) -> None:
        """What waits in a queue is as large as the network's input, however large the picture was."""
        assert centre_crop(noise(500, 500), (4, 4)).base is None


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512") or not Path("/proc/self/task").exists(),
    reason="torch's single-threaded resize of uint8 needs AVX2; threads are counted in /proc",
)
def test_no_thread_of_torch_s_is_woken() -> None:
    """However many threads torch may use, decoding threads do their work alone."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADS],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.split() == ["0"]
