"""Builds the artifact of the embedded default and measures it: the figures of scoring/embedded/CARD.md.

    python -m benchmarks.embedded DATA

DATA holds imagenet_sample (1000 images, one a class), imagenette_val, ood/textures and ood/streetview_chars. The images
of imagenet_sample are cut into halves: one for masks, settings and the choice of the primary, one for the thresholds.
The second half, and imagenette_val, which neither has seen, are the ID images that the OOD folders are compared with.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.runs import evaluate, line_ood, link
from calibration.dataset import LabelledImages
from scoring.embedded import ARTIFACT, SPEC

CLASSES = 1000


def main(data: Path, bench: Path) -> None:
    """Calibrate, evaluate twice, and put the artifact where it ships."""
    masks, holdout = LabelledImages.read(data / "imagenet_sample", None, CLASSES).split(0.5)
    link(masks, bench / "masks")
    link(holdout, bench / "thresholds")
    line_ood(
        *("calibrate", "--model", SPEC, "--decoder", "turbo", "--data", "masks", "--holdout", "thresholds"),
        *("--tune", "--primary", "auto", "--alpha", "default=0.05", "--alpha", "strict=0.01", "--out", ARTIFACT.name),
        cwd=bench,
    )
    ood = {name: data / "ood" / name for name in ("textures", "streetview_chars")}
    for inside in (bench / "thresholds", data / "imagenette_val"):
        evaluate(bench / ARTIFACT.name, inside, ood, bench / f"{inside.name}_result")
    shutil.copy(bench / ARTIFACT.name, ARTIFACT)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]).resolve(), Path(folder))
