"""What was run, written down; and what makes its numbers other than the published ones, said before it is run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from calibration.evaluate import Evaluation
from calibration.field.benchmark import Benchmark, ImageSet
from calibration.field.comparison import beside
from calibration.field.folders import Found, FoundSet
from scoring.preprocess import Preprocess

TOLERANCE = 1e-3  # of mean and std: published with three digits or four


def differences(benchmark: Benchmark, preprocess: Preprocess) -> list[str]:
    """How an artifact's preprocessing is not the benchmark's, field by field."""
    wanted, found = benchmark.preprocess.model_dump(), preprocess.model_dump()
    return [
        f"{field}: the benchmark has {wanted[field]}, the artifact {found[field]}"
        for field in wanted
        if not _same(wanted[field], found[field])
    ]


def warnings(found: Found, preprocess: Preprocess) -> list[str]:
    """What a reader of the numbers has to know: sets missing or of other images, other preprocessing."""
    return [
        *(f"{each.name} is skipped: {each.reason}" for each in found.missing),
        *(
            f"{each.name}: {each.folder} has {len(each.images)} images, the benchmark {wanted.images}"
            for wanted, each in _pairs(found)
            if len(each.images) != wanted.images
        ),
        *(f"preprocessing, {difference}" for difference in differences(found.benchmark, preprocess)),
    ]


def record(found: Found, evaluation: Evaluation, artifact_id: str, preprocess: Preprocess) -> dict[str, Any]:
    """What was run, for JSON.

    Args:
        found: the benchmark and its sets.
        evaluation: of these.
        artifact_id: of what was evaluated.
        preprocess: of what was evaluated.
    """
    benchmark = found.benchmark
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "paper": benchmark.paper,
        "root": str(found.root.absolute()),
        "artifact_id": artifact_id,
        "id": _set(benchmark.inside, found.inside, evaluation.id_images),
        "ood": [_set(wanted, each, evaluation.ood_images[each.name]) for wanted, each in _pairs(found)[1:]],
        "missing": [asdict(each) for each in found.missing],
        "preprocessing_differences": differences(benchmark, preprocess),
        "rows": [
            asdict(row) | {"published": row.published and row.published.model_dump()}
            for row in beside(benchmark, evaluation)
        ],
    }


def _pairs(found: Found) -> list[tuple[ImageSet, FoundSet]]:
    """The sets that are there, the ID set first, with what the benchmark says of each."""
    wanted = {each.name: each for each in found.benchmark.ood}
    return [(found.benchmark.inside, found.inside), *((wanted[each.name], each) for each in found.outside)]


def _set(wanted: ImageSet, found: FoundSet, scored: int) -> dict[str, Any]:
    return {
        "name": wanted.name,
        "folder": str(found.folder.absolute()),
        "list": None if found.listed_in is None else str(found.listed_in.absolute()),
        "images": {"benchmark": wanted.images, "found": len(found.images), "scored": scored},
    }


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, tuple) and isinstance(found, tuple):
        return all(abs(one - other) <= TOLERANCE for one, other in zip(wanted, found, strict=True))
    return bool(wanted == found)
