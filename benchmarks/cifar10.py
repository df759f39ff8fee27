"""The paper's CIFAR-10 network, calibrated and measured from end to end: the table of docs/benchmarks.md.

    python -m benchmarks.cifar10 DATA

DATA holds cifar10/train, cifar10/test, cifar10/densenet_bc_100_12.pth.tar and the OOD folders below ood/. All training
images make the masks, half of the test images the threshold; the other half is measured against the OOD folders.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.runs import evaluate, line_ood, link
from calibration.dataset import LabelledImages

FACTORY = Path(__file__).parents[1] / "tests" / "factories" / "densenet_bc.py"


def main(data: Path, bench: Path) -> None:
    """Calibrate with the authors' settings, and evaluate."""
    cifar10 = data / "cifar10"
    measured, thresholds = LabelledImages.read(cifar10 / "test", None, 10).split(0.5)
    link(measured, bench / "measured")
    link(thresholds, bench / "thresholds")
    weights = ("--weights", cifar10 / "densenet_bc_100_12.pth.tar")
    line_ood(
        *("calibrate", "--model", f"{FACTORY}:cifar10", *weights, "--preset", "line-cifar10"),
        *("--data", cifar10 / "train", "--holdout", "thresholds", "--out", "cifar10.safetensors"),
        cwd=bench,
    )
    ood = {name: data / "ood" / name for name in ("cifar100_test", "textures", "streetview_chars")}
    evaluate(bench / "cifar10.safetensors", bench / "measured", ood, bench / "result", *weights)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]).resolve(), Path(folder))
