"""The paper's CIFAR-10 network, calibrated and measured from end to end: the table of docs/benchmarks.md.

    python -m benchmarks.cifar10 DATA

DATA holds cifar10/train, cifar10/test, cifar10/densenet_bc_100_12.pth.tar and the OOD folders below ood/. All training
images make the masks, half of the test images the thresholds; the other half is measured against the OOD folders.
Printed are every method, the combination, and what became of the promised false-reject rate where either LINe or the
combination decides.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.runs import line_ood, link
from calibration.dataset import LabelledImages
from calibration.evaluate import Evaluation, evaluate
from calibration.report import evaluation_tables, table
from scoring import conformal
from scoring.ensemble import COMBINED, LINE
from scoring.scorer import Scorer

FACTORY = Path(__file__).parents[1] / "tests" / "factories" / "densenet_bc.py"
WEIGHTS = "densenet_bc_100_12.pth.tar"
OOD = ("cifar100_test", "textures", "streetview_chars")


def print_rates(result: Evaluation) -> None:
    """ID images above each method's own threshold at the artifact's alpha, in percent: one artifact decides by one."""
    rows = []
    for method in (LINE, COMBINED):
        scores, alpha = result.artifact.scores[method], result.artifact.metadata.operating_points[0].alpha
        realised = (result.inside.scores[method] > conformal.threshold(scores, alpha)).mean()
        low, high = conformal.reject_rate_interval(len(scores), alpha)
        rows.append([method, f"{100 * alpha:.2f}", f"{100 * realised:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"])
    print(table(["decides", "alpha", "ID rejected", "90 % interval"], rows))


def calibrate(data: Path, bench: Path) -> None:
    """Make cifar10.safetensors with the authors' settings, and a folder of the images that are to be measured."""
    cifar10 = data / "cifar10"
    measured, thresholds = LabelledImages.read(cifar10 / "test", None, 10).split(0.5)
    link(measured, bench / "measured")
    link(thresholds, bench / "thresholds")
    line_ood(
        *("calibrate", "--model", f"{FACTORY}:cifar10", "--weights", cifar10 / WEIGHTS, "--preset", "line-cifar10"),
        *("--engine", "openvino:float32", "--data", cifar10 / "train", "--holdout", "thresholds"),
        *("--out", "cifar10.safetensors"),
        cwd=bench,
    )


def main(data: Path, bench: Path) -> None:
    """Calibrate and evaluate."""
    calibrate(data, bench)
    weights = data / "cifar10" / WEIGHTS
    scorer = Scorer.load(bench / "cifar10.safetensors", torch.device("cpu"), weights=weights)
    ood = {name: data / "ood" / name for name in OOD}
    result = evaluate(scorer, bench / "measured", ood)
    print(evaluation_tables(result))
    print_rates(result)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]).resolve(), Path(folder))
