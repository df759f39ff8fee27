"""What was measured beside what is published, in percent.

A mean stands for all of its sets or for nothing: over three sets of four it is another number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.evaluate import Evaluation
from calibration.field.benchmark import Benchmark, Published
from calibration.separation import Separation

HEADER = (
    *("set", "method", "FPR95 ↓", "published FPR95", "AUROC ↑", "published AUROC"),
    *("network of the published", "source", "note"),
)
NOTHING = "-"


@dataclass(frozen=True)
class Row:
    """One method on one OOD set, or on the mean over some.

    Attributes:
        target: one of `Benchmark.targets`.
        fpr95: measured, in percent; None where it was not.
        auroc: likewise.
        published: what it is compared with; None where nothing is.
        note: why the two are not, or not quite, the same thing.
    """

    target: str
    method: str
    fpr95: float | None
    auroc: float | None
    published: Published | None
    note: str

    def cells(self) -> list[str]:
        """The row as text, under `HEADER`."""
        published = self.published
        fpr95, auroc = (None, None) if published is None else (published.fpr95, published.auroc)
        numbers = [_two_digits(value) for value in (self.fpr95, fpr95, self.auroc, auroc)]
        origin = ["", ""] if published is None else [published.network or "not said", published.source]
        return [self.target, self.method, *numbers, *origin, self.note]


def beside(benchmark: Benchmark, evaluation: Evaluation) -> list[Row]:
    """A row for each set and mean, and each method that was measured or published there.

    Args:
        benchmark: what was run.
        evaluation: of its sets, under their names.
    """
    measured = {(row.method, row.ood): row for row in evaluation.separations}
    methods = list(dict.fromkeys(row.method for row in evaluation.separations))
    sizes = {each.name: each.images for each in benchmark.ood}
    rows: list[Row] = []
    for target, sets in benchmark.targets().items():
        present = [each for each in sets if each in evaluation.ood_images]
        note = _note(sets, present, sizes, evaluation.ood_images)
        for method, published in _pairs(benchmark, sets, methods if present else []):
            found = [measured[method, each] for each in present if method in methods]
            complete = len(found) == len(sets)
            reason = note if method in methods else "method not measured"
            rows.append(Row(target, method, *_means(found if complete else []), published, reason))
    return rows


def _pairs(
    benchmark: Benchmark, sets: Sequence[str], measured: Sequence[str]
) -> Iterator[tuple[str, Published | None]]:
    """Methods that were measured, then the others, each with every number that is published for it."""
    published = [row for row in benchmark.published if tuple(row.sets) == tuple(sets)]
    for method in dict.fromkeys([*measured, *(row.method for row in published)]):
        own: list[Published | None] = [row for row in published if row.method == method]
        yield from ((method, row) for row in own or [None])


def _note(sets: Sequence[str], present: Sequence[str], sizes: Mapping[str, int], found: Mapping[str, int]) -> str:
    if not present:
        return "not measured"
    missing = [each for each in sets if each not in present]
    notes = [f"partial, not compared: without {', '.join(missing)}"] if missing else []
    notes += [f"{each}: {found[each]} of {sizes[each]} images" for each in present if found[each] != sizes[each]]
    return "; ".join(notes)


def _means(rows: Sequence[Separation]) -> tuple[float | None, float | None]:
    if not rows:
        return None, None
    return 100 * float(np.mean([row.fpr95 for row in rows])), 100 * float(np.mean([row.auroc for row in rows]))


def _two_digits(percent: float | None) -> str:
    return NOTHING if percent is None else f"{percent:.2f}"
