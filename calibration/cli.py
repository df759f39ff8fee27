"""The offline commands: calibrate, evaluate, score, inspect.

Heavy imports stand inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calibration.flags import (
    alphas_of,
    channels,
    check_folder,
    check_primary,
    check_writable,
    combined_of,
    guarantee_of,
    line_settings,
    methods_of,
    ood_folders,
    partial_folder,
    preprocess_of,
    summary_path,
    validation_folders,
)
from calibration.settings import DEFAULT_ALPHA, INT8_TOLERANCE, PRESETS

if TYPE_CHECKING:
    from calibration.dataset import LabelledImages
    from scoring.classifier import Classifier
    from scoring.engines.engine import EngineChoice
    from scoring.scorer import Scorer
    from scoring.spec import ClassifierParts

app = typer.Typer(rich_markup_mode=None)

ArtifactOption = Annotated[Path, typer.Option("--artifact", help="The artifact file.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="SPEC to use instead of the one that the artifact names; the digest still rules."),
]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="File with the classifier's weights.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


@app.command()
def calibrate(
    model: Annotated[str, typer.Option(help="torchvision:NAME, timm:NAME, FILE.py:FACTORY or MODULE:FACTORY.")],
    data: Annotated[Path, typer.Option(help="In-distribution images, one folder a class.")],
    out: Annotated[Path, typer.Option(help="The artifact to write.")],
    weights: WeightsOption = None,
    holdout: Annotated[
        Path | None,
        typer.Option(help="Images for the thresholds, none of them used for training or in --data."),
    ] = None,
    holdout_fraction: Annotated[
        float,
        typer.Option(min=0.01, max=0.99, help="Share of --data kept for the thresholds, without --holdout."),
    ] = 0.5,
    preset: Annotated[str | None, typer.Option(help=f"The authors' settings: {', '.join(PRESETS)}.")] = None,
    p_a: Annotated[float | None, typer.Option(min=0, max=99.99, help="Percentile of neurons removed [10].")] = None,
    p_w: Annotated[float | None, typer.Option(min=0, max=99.99, help="Percentile of weights removed [10].")] = None,
    clip: Annotated[float | None, typer.Option(help="Activation clip δ; inf for none.")] = None,
    clip_quantile: Annotated[
        float | None, typer.Option(min=0.01, max=0.9999, help="δ as a quantile of the features [0.95].")
    ] = None,
    alpha: Annotated[
        list[str] | None,
        typer.Option(help=f"Target false-reject rate, or NAME=RATE; the first is the default. [{DEFAULT_ALPHA}]"),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="Which scores to fit beside LINe: all that fit the network, none, or names after commas."),
    ] = "all",
    combine: Annotated[str, typer.Option(help="Which scores to merge to one more, called combined.")] = "line,energy",
    primary: Annotated[
        str, typer.Option(help="Whose score decides: line, another that is fitted, combined, or auto for the best.")
    ] = "line",
    tune: Annotated[
        bool, typer.Option("--tune", help="Search for --p-a, --p-w and the clip: against made outliers. docs/tuning.md")
    ] = False,
    validation_ood: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR of OOD images for --tune and --primary auto instead of made ones; repeat for more."
        ),
    ] = None,
    guarantee: Annotated[
        str,
        typer.Option(
            help="marginal: the false-reject rate is alpha at most, on average over calibration sets; "
            "pac: with all but a share --delta of them."
        ),
    ] = "marginal",
    delta: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Share of calibration sets that may fail.")] = 0.05,
    per_class: Annotated[
        bool,
        typer.Option(
            "--per-class", help="Thresholds for each predicted class that has images enough, one shared by the others."
        ),
    ] = False,
    resize: Annotated[int | None, typer.Option(min=1, help="Short side after resizing, in pixels.")] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Side of the centre crop, in pixels.")] = None,
    mean: Annotated[str | None, typer.Option(help="R,G,B of pixels in 0..1.")] = None,
    std: Annotated[str | None, typer.Option(help="R,G,B of pixels in 0..1.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="bilinear, bicubic, nearest, lanczos, ...")] = None,
    exif_transpose: Annotated[
        bool | None, typer.Option(help="Turn images as their EXIF orientation says. [no]")
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="What decodes and resizes: pillow; turbo: within 2 grey levels of it, in half the time; "
            "turbo-scaled: large JPEGs decoded small. [pillow]"
        ),
    ] = None,
    device: DeviceOption = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="What runs the network: eager, openvino, compiled or cudagraph, with :bfloat16; openvino:int8; auto."
        ),
    ] = "eager",
    engine_tolerance: Annotated[
        float,
        typer.Option(min=0, help="How far auto lets features be from the reference, relative to their length."),
    ] = 0.01,
    int8_tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="How far openvino:int8 may lower top-1 or raise FPR95; 0.01 is one point."),
    ] = INT8_TOLERANCE,
) -> None:
    """Calibrate a classifier on its in-distribution images and write the artifact.

    What it has is kept in OUT.partial about every 30 seconds: killed and started again, it goes on from there.
    """
    from calibration.job import Job
    from calibration.job import calibrate as run
    from calibration.partial import discard
    from calibration.quality import describe
    from calibration.report import as_text, calibration_summary, choice_table, write_calibration
    from scoring.classifier import load_classifier, pick_device
    from scoring.spec import load_spec

    settings = line_settings(preset, p_a, p_w, clip, clip_quantile)
    is_given = any(given is not None for given in (preset, p_a, p_w, clip, clip_quantile))
    folders = validation_folders(validation_ood or [], tune=tune, is_given=is_given, primary=primary)
    promise = guarantee_of(guarantee)
    fitted, combined = methods_of(methods), combined_of(combine)
    check_primary(primary, fitted, combined)
    alphas = alphas_of(alpha or [str(DEFAULT_ALPHA)])
    check_writable(out)
    parts = load_spec(model, weights)
    given = {
        "resize": resize,
        "crop": None if crop is None else (crop, crop),
        "mean": channels("--mean", mean),
        "std": channels("--std", std),
        "interpolation": interpolation,
        "exif_transpose": exif_transpose,
        "decoder": decoder,
    }
    classifier = load_classifier(parts, pick_device(device), preprocess_of(parts, given))
    mask_images, holdout_images = _images(parts, classifier, data, holdout, holdout_fraction)
    validation = _validation(folders, mask_images, holdout_images)
    _choose_engine(classifier, engine, engine_tolerance, mask_images)
    job = Job(
        spec=model,
        mask_images=mask_images,
        holdout_images=holdout_images,
        settings=settings,
        alphas=alphas,
        command=shlex.join(["line-ood", *sys.argv[1:]]),
        class_names=parts.class_names,
        int8_tolerance=int8_tolerance,
        methods=fitted,
        combined=combined,
        primary=primary,
        tune=tune,
        validation=validation,
        guarantee=promise,
        delta=delta,
        per_class=per_class,
    )
    calibration = run(job, classifier, partial_folder(out))
    artifact_id = calibration.artifact.save(out)
    discard(partial_folder(out))
    summary = as_text(calibration_summary(calibration, artifact_id))
    summary_path(out).write_text(summary + "\n")
    write_calibration(calibration, artifact_id, out)
    typer.echo(summary)
    if calibration.tuning:
        typer.echo(choice_table(calibration.tuning), err=True)
    if quantisation := calibration.artifact.metadata.quantisation:
        typer.echo(describe(quantisation), err=True)
    for path, reason in calibration.unreadable.items():
        typer.echo(f"skipped {path}: {reason}", err=True)
    for warning in calibration.warnings:
        typer.echo(f"warning: {warning}", err=True)


@app.command()
def evaluate(
    artifact: ArtifactOption,
    out: Annotated[
        Path, typer.Option(help="Folder for report.html, its pictures, evaluation.json and evaluation.csv.")
    ],
    id_folder: Annotated[Path | None, typer.Option("--id", help="Held-out in-distribution images.")] = None,
    ood: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR of out-of-distribution images; repeat for more.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="A benchmark of the field instead, published numbers beside: docs/field.md.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that the sets of the benchmark lie in.")] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure FPR95, AUROC and AUPR of every method of the artifact, and the realised reject rate."""
    from calibration.evaluate import evaluate as run
    from calibration.report import evaluation_tables, write_evaluation

    check_folder("--out", out)
    if benchmark is not None:
        if id_folder or ood or root is None:
            raise typer.BadParameter("goes with --root, and without --id and --ood", param_hint="--benchmark")
        _evaluate_field(_load_scorer(artifact, model, weights, device), benchmark, root, out)
        return
    if id_folder is None or not ood or root is not None:
        raise typer.BadParameter("give --id and --ood, or --benchmark and --root", param_hint="--id")
    folders = ood_folders("--ood", ood)
    result = run(_load_scorer(artifact, model, weights, device), id_folder, folders)
    write_evaluation(result, out)
    typer.echo(evaluation_tables(result))
    for path, reason in result.unreadable.items():
        typer.echo(f"skipped {path}: {reason}", err=True)


def _evaluate_field(scorer: Scorer, name: str, root: Path, out: Path) -> None:
    """Evaluate on the sets of a benchmark that are there, and print what is published beside."""
    from calibration.evaluate import evaluate as run
    from calibration.field.benchmark import load
    from calibration.field.comparison import HEADER, beside
    from calibration.field.folders import resolve
    from calibration.field.record import record, warnings
    from calibration.field.selection import select
    from calibration.report import as_text, evaluation_tables, table, write_evaluation

    benchmark = load(name)
    found = resolve(benchmark, root)
    preprocess = scorer.artifact.metadata.preprocess
    for warning in warnings(found, preprocess):
        typer.echo(f"warning: {warning}", err=True)
    with select(found) as folders:
        result = run(scorer, folders.inside, folders.outside)
        write_evaluation(result, out)
    content = record(found, result, scorer.artifact.artifact_id, preprocess)
    (out / "benchmark.json").write_text(as_text(content) + "\n", encoding="utf-8")
    typer.echo(evaluation_tables(result))
    typer.echo(table(list(HEADER), [row.cells() for row in beside(benchmark, result)]))


@app.command()
def score(
    artifact: ArtifactOption,
    paths: Annotated[list[str], typer.Argument(help="Images, folders, or quoted patterns.")],
    operating_point: Annotated[str | None, typer.Option(help="Which one decides; the artifact's first.")] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Score images: one JSON line each, in order; a file that is no image gets an `error`."""
    from calibration.lines import expand, score_lines, to_json

    files = expand(paths)
    scorer = _load_scorer(artifact, model, weights, device)
    points = scorer.artifact.operating_points
    name = operating_point or next(iter(points))
    if name not in points:
        raise typer.BadParameter(f"the artifact has {', '.join(points)}, not {name!r}", param_hint="--operating-point")
    failed = 0
    for line in score_lines(scorer, files, points[name]):
        failed += "error" in line
        try:
            typer.echo(to_json(line))
        except BrokenPipeError:  # `line-ood score ... | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
    if failed == len(files):
        typer.echo(f"line-ood: none of the {failed} files could be scored", err=True)
        raise typer.Exit(2)


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="The artifact file.")]) -> None:
    """Show what is in an artifact."""
    from calibration.report import as_text, describe_artifact
    from scoring.artifact import Artifact

    typer.echo(as_text(describe_artifact(Artifact.load(file))))


def _load_scorer(artifact: Path, model: str | None, weights: Path | None, device: str) -> Scorer:
    from scoring.classifier import pick_device
    from scoring.scorer import Scorer

    return Scorer.load(artifact, pick_device(device), model=model, weights=weights)


def _choose_engine(classifier: Classifier, engine: str, tolerance: float, images: LabelledImages) -> None:
    from calibration.trial import fastest, sample, try_engines
    from scoring.engines.engine import EngineChoice

    if engine != "auto":
        _use(classifier, EngineChoice.parse(engine), images)
        return
    trials = try_engines(classifier, sample(images.paths, classifier.preprocess))
    for trial in trials:
        typer.echo(f"engine {trial}", err=True)
    classifier.use(fastest(trials, tolerance))
    typer.echo(f"engine {classifier.choice}: taken, the fastest within {tolerance:g}", err=True)


def _use(classifier: Classifier, choice: EngineChoice, images: LabelledImages) -> None:
    from calibration.quantise import quantise, sample

    if choice.precision != "int8":
        classifier.use(choice)
        return
    classifier.use(choice.model_copy(update={"precision": "float32"}))  # what forbids it here is said before the work
    classifier.use(choice, quantise(classifier.backbone, sample(images, classifier.preprocess)))


def _validation(folders: dict[str, Path], *others: LabelledImages) -> dict[str, LabelledImages]:
    """The images of OOD folders; a class they have not."""
    from calibration.dataset import LabelledImages, list_images

    known = {path.resolve() for images in others for path in images.paths}
    found = {name: list_images(folder) for name, folder in folders.items()}
    for name, paths in found.items():
        if known & {path.resolve() for path in paths}:
            raise typer.BadParameter(
                f"{name} shares files with the in-distribution images", param_hint="--validation-ood"
            )
    return {name: LabelledImages(tuple((path, -1) for path in paths), ()) for name, paths in found.items()}


def _images(
    parts: ClassifierParts, classifier: Classifier, data: Path, holdout: Path | None, fraction: float
) -> tuple[LabelledImages, LabelledImages]:
    from calibration.dataset import LabelledImages

    class_count = classifier.head.weight.shape[0]
    images = LabelledImages.read(data, parts.class_names, class_count)
    if holdout is None:
        return images.split(fraction)
    held = LabelledImages.read(holdout, images.class_folders, class_count)
    if {path.resolve() for path in images.paths} & {path.resolve() for path in held.paths}:
        raise typer.BadParameter(
            "the images of masks and thresholds must differ: it shares files with --data", param_hint="--holdout"
        )
    return images, held
