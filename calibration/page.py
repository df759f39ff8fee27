"""Results as a page: one HTML file that needs no other, no script and no network, in light and in dark.

Whatever comes from outside, names of files and classes above all, is escaped by the template engine; a content security
policy forbids scripts besides. Numbers stand in full in `<data value>`, as in the JSON, and rounded for reading.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from calibration.bootstrap import RESAMPLES
from calibration.classes import worst
from calibration.evaluate import Evaluation
from calibration.grouped import threshold_ranges
from calibration.names import printable
from calibration.separation import MEAN
from calibration.thumbnails import extremes
from calibration.tuning import Tuning

LISTED = 50  # files that could not be read, at most; the JSON has all
WORST = 20  # classes
BETTER = {"fpr95": min, "auroc": max, "aupr_in": max, "aupr_out": max}
EVALUATION_SECTIONS = {
    "separation": "Methods",
    "histograms": "Scores",
    "roc": "ROC",
    "rejects": "Reject rate",
    "classes": "Classes",
    "routing": "Routing",
    "images": "Images",
    "data": "Data and settings",
}
CALIBRATION_SECTIONS = {
    "points": "Operating points",
    "tuning": "Tuning",
    "classes": "Classes",
    "quantisation": "Quantisation",
    "data": "Data and settings",
}

Pictures = Mapping[str, bytes]
Best = dict[tuple[str, str], float]  # by measure and folder


def evaluation_page(evaluation: Evaluation, pictures: Pictures, settings: Mapping[str, Any]) -> str:
    """The report of `evaluate`.

    Args:
        evaluation: what was measured.
        pictures: PNG files by name, see `calibration.album`.
        settings: of the artifact; nested as deep as they like.
    """
    rows = {(row.method, row.ood): asdict(row) for row in evaluation.separations}
    folders = [*evaluation.ood_images, MEAN]
    methods = list(evaluation.inside.scores)
    artifact = evaluation.artifact
    shown = {"ID": evaluation.inside, **{f"OOD {name}": folder for name, folder in evaluation.outside.items()}}
    return _render(
        "evaluation.html",
        title=f"Evaluation of {artifact.metadata.classifier.spec}",
        model=artifact.metadata.classifier.spec,
        artifact_id=artifact.artifact_id,
        evaluation=evaluation,
        sections=EVALUATION_SECTIONS.items(),
        pictures=_embed(pictures),
        rows=rows,
        methods=methods,
        folders=folders,
        best=_best(rows, methods, folders),
        resamples=RESAMPLES,
        thresholds=threshold_ranges(artifact),
        by_class=artifact.metadata.alone_from is not None,
        calibration_images=len(artifact.calibration_scores),
        worst=worst(evaluation.classes, WORST),
        extremes=[(name, extremes(scored, artifact)) for name, scored in shown.items()],
        settings=list(flatten(settings)),
        unreadable=_first(evaluation.unreadable),
    )


def calibration_page(
    summary: Mapping[str, Any],
    tuning: Tuning | None,
    unreadable: Mapping[Path, str],
    pictures: Pictures,
    settings: Mapping[str, Any],
) -> str:
    """The report of `calibrate`.

    Args:
        summary: of `calibration.report.calibration_summary`.
        tuning: what was compared, where anything was.
        unreadable: reason by file.
        pictures: PNG files by name, see `calibration.album`.
        settings: of the artifact; nested as deep as they like.
    """
    has_section = {"quantisation": bool(summary.get("quantisation")), "tuning": tuning is not None}
    return _render(
        "calibration.html",
        title=f"Calibration of {summary['model']}",
        summary={"quantisation": None, "by_class": None, **summary},
        sections=[item for item in CALIBRATION_SECTIONS.items() if has_section.get(item[0], True)],
        pictures=_embed(pictures),
        settings=list(flatten(settings)),
        unreadable=_first(unreadable),
        tuning=tuning,
        **(_compared(tuning) if tuning else {}),
    )


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as rows: a dotted name, and the value in words."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
            yield from flatten({str(index): each for index, each in enumerate(value)}, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, "none" if value is None else str(value)


def _compared(tuning: Tuning) -> dict[str, object]:
    """Methods against kinds of outliers, best first, as the table of an evaluation has them."""
    rows = {(row.method, row.ood): asdict(row) for row in tuning.choice.rows}
    folders = [*tuning.outliers, MEAN]
    methods = tuning.choice.ranked
    return {
        "rows": rows,
        "methods": methods,
        "folders": folders,
        "best": _best(rows, methods, folders),
    }


def _best(rows: Mapping[tuple[str, str], Mapping[str, Any]], methods: Sequence[str], folders: Sequence[str]) -> Best:
    return {
        (measure, folder): choose(rows[method, folder][measure] for method in methods)
        for measure, choose in BETTER.items()
        for folder in folders
    }


def _render(template: str, **content: object) -> str:
    loader = PackageLoader("calibration")
    # `trim_blocks`: a loop's own lines leave no blank ones behind.
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(content)


def _embed(pictures: Pictures) -> dict[str, str]:
    return {name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in pictures.items()}


def _first(unreadable: Mapping[Path, str]) -> list[tuple[str, str]]:
    return [(printable(str(path)), reason) for path, reason in list(unreadable.items())[:LISTED]]
