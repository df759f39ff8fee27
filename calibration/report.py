"""Results as files and as text: JSON, CSV, and tables for a terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.evaluate import Evaluation
from calibration.grouped import describe_groups, expected_rate
from calibration.job import Calibration
from calibration.separation import MEAN, Separation
from calibration.tuning import Tuning
from scoring.artifact import Artifact

INTERVALS = ("FPR95, 95 % interval", "AUROC, 95 % interval")


def calibration_summary(calibration: Calibration, artifact_id: str) -> dict[str, Any]:
    """What `calibrate` writes beside the artifact."""
    artifact, metadata = calibration.artifact, calibration.artifact.metadata
    return {
        "artifact_id": artifact_id,
        **metadata.model_dump(mode="json", exclude={"operating_points", "classifier"}),
        "model": metadata.classifier.spec,
        "classes": len(metadata.classifier.class_names),
        "features": metadata.classifier.feature_count,
        "operating_points": [
            point.model_dump() | {"realised_rate_90": expected_rate(artifact, point)}
            for point in metadata.operating_points
        ],
        **_by_class(artifact),
        "accuracy": {
            "mask_images": calibration.mask_pass.accuracy,
            "calibration_images": calibration.holdout_pass.accuracy,
        },
        "tuning": None if calibration.tuning is None else tuning_content(calibration.tuning),
        "unreadable": {str(path): reason for path, reason in calibration.unreadable.items()},
        "warnings": calibration.warnings,
    }


def tuning_content(tuning: Tuning) -> dict[str, Any]:
    """What the summary says of a search and a choice; the grid has a file of its own."""
    return {
        "outliers": tuning.outliers,
        "settings": asdict(tuning.settings),
        "searched": 0 if tuning.search is None else len(tuning.search.rows),
        "best": tuning.choice.best,
        "primary": tuning.choice.primary,
        "methods": {
            row.method: {"auroc": row.auroc, "fpr95": row.fpr95} for row in tuning.choice.rows if row.ood == MEAN
        },
    }


def choice_table(tuning: Tuning) -> str:
    """How all scores compare, best first: FPR95 / AUROC in percent, cross-validated, for each kind of outliers."""
    rows = {(row.method, row.ood): row for row in tuning.choice.rows}
    columns = [*tuning.outliers, MEAN]
    cells = [
        [method, *(f"{_percent(rows[method, kind].fpr95)} / {_percent(rows[method, kind].auroc)}" for kind in columns)]
        for method in tuning.choice.ranked
    ]
    return table(["method", *columns], cells)


def write_grid(tuning: Tuning, path: Path) -> None:
    """Write every setting that was searched as CSV: FPR95 and AUROC, cross-validated, by kind of outliers."""
    if tuning.search is None:
        return
    header = ["p_a", "p_w", "clip_quantile", "mean_auroc", "mean_fpr95"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*header, *(f"{measure} {kind}" for kind in tuning.outliers for measure in ("auroc", "fpr95"))])
        for row in tuning.search.rows:
            settings = [row.p_a, row.p_w, row.clip_quantile, row.mean_auroc, row.mean_fpr95]
            writer.writerow([*settings, *(own[kind] for kind in tuning.outliers for own in (row.auroc, row.fpr95))])


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write evaluation.json, evaluation.csv, report.html and its pictures as PNG files."""
    from calibration.album import evaluation_pictures  # noqa: PLC0415 - matplotlib takes half a second
    from calibration.page import evaluation_page  # noqa: PLC0415 - likewise, and `inspect` needs neither

    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(evaluation_content(evaluation), indent=2) + "\n"
    (folder / "evaluation.json").write_text(content, encoding="utf-8")
    with (folder / "evaluation.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Separation)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in evaluation.separations)
    pictures = evaluation_pictures(evaluation)
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    page = evaluation_page(evaluation, pictures, describe_artifact(evaluation.artifact))
    _write_page(page, folder / "report.html")


def write_calibration(calibration: Calibration, artifact_id: str, out: Path) -> Path:
    """Write the report of a calibration and the grid of its search beside the artifact; say where the report is."""
    from calibration.album import calibration_pictures  # noqa: PLC0415 - as above
    from calibration.page import calibration_page  # noqa: PLC0415 - as above

    artifact, tuning = replace(calibration.artifact, artifact_id=artifact_id), calibration.tuning
    summary = calibration_summary(calibration, artifact_id)
    pictures = calibration_pictures(artifact, tuning)
    page = calibration_page(summary, tuning, calibration.unreadable, pictures, describe_artifact(artifact))
    path = out.with_name(out.name.removesuffix(".safetensors") + ".report.html")
    _write_page(page, path)
    if tuning:
        write_grid(tuning, out.with_name(out.name.removesuffix(".safetensors") + ".tuning.csv"))
    return path


def evaluation_content(evaluation: Evaluation) -> dict[str, Any]:
    """What evaluation.json holds: all that was measured but the single scores."""
    return {
        "artifact_id": evaluation.artifact.artifact_id,
        "method": evaluation.method,
        "id_images": evaluation.id_images,
        "accuracy": evaluation.accuracy,
        "separations": [asdict(row) for row in evaluation.separations],
        "reject_rates": [asdict(rate) for rate in evaluation.reject_rates],
        "ood_images": evaluation.ood_images,
        "unreadable": {str(path): reason for path, reason in evaluation.unreadable.items()},
        "reliability": [asdict(row) for row in evaluation.reliability],
        "classes": [asdict(row) for row in evaluation.classes],
        "agreement": asdict(evaluation.agreement),
    }


def evaluation_tables(evaluation: Evaluation) -> str:
    """The tables that `evaluate` prints, in percent."""
    separations = [
        [
            row.method,
            row.ood,
            *(_percent(value) for value in (row.fpr95, row.auroc, row.aupr_in, row.aupr_out)),
            _interval(row.fpr95_low, row.fpr95_high),
            _interval(row.auroc_low, row.auroc_high),
        ]
        for row in evaluation.separations
    ]
    rates = [
        [
            rate.operating_point,
            _percent(rate.alpha),
            _percent(rate.realised),
            _interval(*rate.interval),
            *(_percent(share) for share in rate.ood.values()),
        ]
        for rate in evaluation.reject_rates
    ]
    parts = [
        [rate.operating_point, name, str(part.images), _percent(part.realised), _interval(*part.interval)]
        for rate in evaluation.reject_rates
        for name, part in (("stand alone", rate.alone), ("pooled", rate.pooled))
        if part is not None
    ]
    by_class = ["", table(["operating point", "classes", "ID images", "ID rejected", "90 % interval"], parts)]
    accuracy = (
        "unknown (folders are not the classes')" if evaluation.accuracy is None else _percent(evaluation.accuracy)
    )
    return "\n".join(
        [
            f"ID images {evaluation.id_images}, top-1 accuracy {accuracy}, unreadable {len(evaluation.unreadable)}",
            "",
            table([*("method", "OOD", "FPR95 ↓", "AUROC ↑", "AUPR-in ↑", "AUPR-out ↑"), *INTERVALS], separations),
            "",
            table(["operating point", "alpha", "ID rejected", "90 % interval", *evaluation.ood_images], rates),
            *(by_class if parts else []),
        ]
    )


def describe_artifact(artifact: Artifact) -> dict[str, Any]:
    """What `inspect` prints: everything but the long lists."""
    metadata = artifact.metadata
    described = metadata.model_dump(mode="json")
    described["classifier"] |= {
        "class_names": _shortened(metadata.classifier.class_names),
        "class_folders": _shortened(metadata.classifier.class_folders),
    }
    counts = artifact.counts
    return {
        "artifact_id": artifact.artifact_id,
        **described,
        "images_per_class": {"least": int(counts.min()), "most": int(counts.max())},
        "kept_neurons": float(artifact.masks.activation_mask.float().mean()),
        "calibration_scores": {
            f"{quantile:.0%}": float(np.quantile(artifact.calibration_scores, quantile, method="lower"))
            for quantile in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
        },
        **_by_class(artifact),
    }


def _by_class(artifact: Artifact) -> dict[str, Any]:
    return {} if artifact.metadata.alone_from is None else {"by_class": describe_groups(artifact)}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def as_text(content: Mapping[str, Any]) -> str:
    """JSON for reading."""
    return json.dumps(content, indent=2)


def _shortened(names: Sequence[str]) -> list[str]:
    return [*names[:3], f"... {len(names)} in all"] if len(names) > 4 else list(names)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_percent(low)} to {_percent(high)}"


def _write_page(page: str, path: Path) -> None:
    path.write_text(page, encoding="utf-8", errors="replace")  # a name on the command line may be no text
