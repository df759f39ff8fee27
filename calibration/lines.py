"""Images to JSON lines: what `line-ood score` writes."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.dataset import list_images
from calibration.loader import batch_size_on, read_batches
from scoring.errors import DatasetError
from scoring.metadata import OperatingPoint
from scoring.scorer import NOT_FINITE, ImageScore, Scorer

LONGEST_NAME = 255  # bytes of a name, in the file systems of this world; asking for more is an error of its own


def expand(arguments: Sequence[str]) -> list[Path]:
    """Files, folders and patterns to files.

    Raises:
        DatasetError: an argument stands for no file.
    """
    return [path for argument in arguments for path in _expand_one(argument)]


def score_lines(scorer: Scorer, paths: Sequence[Path], point: OperatingPoint) -> Iterator[dict[str, object]]:
    """Score files in order; a file that cannot be read gets a line with its `error`."""
    classifier = scorer.classifier
    for batch in read_batches(paths, classifier.preprocess, batch_size=batch_size_on(classifier.device)):
        scores = [] if batch.pixels is None else scorer.score(batch.pixels)
        answers = dict(zip(batch.indices, scores, strict=True)) | batch.unreadable
        yield from (_line(scorer, paths[index], answers[index], point) for index in sorted(answers))


def to_json(line: dict[str, object]) -> str:
    """One line of JSON, in ASCII: file names may be of any bytes."""
    return json.dumps(line, allow_nan=False)


def _expand_one(argument: str) -> list[Path]:
    path = Path(argument)
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise DatasetError(f"{argument}: no such file, folder or pattern")
    if path.is_dir():
        return list_images(path)
    if path.exists():
        return [path]
    matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 - takes absolute patterns too
    files = [path for path in matches if path.is_file()]
    if not files:
        raise DatasetError(f"{argument}: no such file, folder or pattern")
    return files


def _line(scorer: Scorer, path: Path, score: ImageScore | str, point: OperatingPoint) -> dict[str, object]:
    if isinstance(score, str):
        return {"path": str(path), "error": score}
    if not score.is_finite:
        return {"path": str(path), "error": NOT_FINITE}
    (best,) = scorer.predictions(score, top_k=1)
    decision = scorer.decide(score, point)
    return {
        "path": str(path),
        "class_index": best.index,
        "class_name": best.name,
        "probability": best.probability,
        "ood_score": score.ood_score,
        "p_value": score.p_value,
        "threshold": decision.threshold,
        "reject": decision.reject,
    }
