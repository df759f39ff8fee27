"""The calibration job: one streaming pass over the images of the masks, one over those of the thresholds.

Features, class means, contributions, masks; then held-out scores through the very path that is served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from calibration import partial
from calibration.dataset import LabelledImages
from calibration.ensemble import fit_ensemble
from calibration.grouped import alone_warnings
from calibration.learnt import learn
from calibration.loader import batch_size_on
from calibration.partial import Partial
from calibration.passes import Collected, collect_statistics, score_holdout
from calibration.provenance import describe, versions
from calibration.quality import COMPARED, check_tolerance, measure_quality
from calibration.roster import draw_up
from calibration.search import tune
from calibration.settings import AUTO, INT8_TOLERANCE, LineSettings
from calibration.statistics import FeatureStatistics
from calibration.tuning import Tuning, compare
from calibration.validation import Validation, make_outliers, read_outliers
from calibration.walk import Pass
from scoring import conformal
from scoring.artifact import Artifact
from scoring.classifier import Classifier
from scoring.conformal import DELTA, Guarantee
from scoring.detector import LineDetector
from scoring.engines.engine import EngineChoice
from scoring.ensemble import LINE, Ensemble
from scoring.groups import ClassGroups, least_for
from scoring.metadata import Digests, Method, Quantisation, digests_of
from scoring.probes import probe_pixels

NOTHING = Validation({}, {}, ())
FLOAT32 = EngineChoice(name="openvino")  # what int8 is compared with: to rounding the reference, and faster


@dataclass(frozen=True)
class Job:
    """What to calibrate on and what to keep.

    Attributes:
        spec: the classifier's SPEC, to be recorded.
        mask_images: images that make the masks.
        holdout_images: images that make the thresholds, none of them among `mask_images`.
        settings: LINe's hyper-parameters.
        alphas: target false-reject rate by name of operating point; the first one is the default.
        command: the command line, to be recorded.
        class_names: one a class; the names of the class folders where there are no others.
        int8_tolerance: how far int8 may lower top-1 or raise FPR95.
        methods: which are fitted beside LINe; None for all that fit the network.
        combined: which are merged to one more, if all of them are fitted.
        primary: whose score decides; AUTO for the best of all.
        tune: search for LINe's settings in place of `settings`.
        validation: images by name of an OOD folder, for the search and the choice; none: outliers are made.
        guarantee: what is promised of the alphas.
        delta: share of calibration sets with which `pac` may fail.
        per_class: whether predicted classes with images enough have thresholds of their own.
    """

    spec: str
    mask_images: LabelledImages
    holdout_images: LabelledImages
    settings: LineSettings
    alphas: dict[str, float]
    command: str
    class_names: tuple[str, ...] | None = None
    int8_tolerance: float = INT8_TOLERANCE
    methods: tuple[str, ...] | None = None
    combined: tuple[str, ...] = (LINE, "energy")
    primary: str = LINE
    tune: bool = False
    validation: dict[str, LabelledImages] = field(default_factory=dict)
    guarantee: Guarantee = "marginal"
    delta: float = DELTA
    per_class: bool = False

    @property
    def alone_from(self) -> int | None:
        """Held-out images with which a predicted class has thresholds of its own; None: it never has."""
        return least_for(self.alphas.values(), self.guarantee, self.delta) if self.per_class else None

    @property
    def is_settled_by_data(self) -> bool:
        """Whether settings or primary are to be found."""
        return self.tune or self.primary == AUTO


@dataclass(frozen=True)
class Calibration:
    """The outcome of a job.

    Attributes:
        artifact: to be saved.
        mask_pass: what the pass for the masks has met.
        holdout_pass: likewise, for the thresholds.
        unreadable: reason by file, of all that could not be read.
        tuning: what was compared, where anything was.
        warnings: for whoever relies on it.
    """

    artifact: Artifact
    mask_pass: Pass
    holdout_pass: Pass
    unreadable: dict[Path, str]
    tuning: Tuning | None
    warnings: tuple[str, ...]


def calibrate(job: Job, classifier: Classifier, folder: Path | None = None) -> Calibration:
    """Run a job.

    Args:
        job: what to do.
        classifier: what to calibrate.
        folder: where partial states are kept, for the same job to go on from when it is killed; None keeps none.
            To be removed by `partial.discard` when the artifact is safe.

    Raises:
        TooFewImagesError: the held-out images cannot keep one of the promised rates.
        DatasetError: none of the images can be read, or features are not finite; or too few images to tune on.
        EngineError: int8 costs more than the job tolerates.
    """
    _check_alphas(job)  # before the hours of work, not after
    digests = digests_of(classifier)
    for_masks = Partial(folder, "masks", _masks_depend_on(job, classifier, digests))
    collected = collect_statistics(classifier, job.mask_images, for_masks)
    sample, head = collected.sample, classifier.head
    validation, search, tuning = NOTHING, None, None
    if job.is_settled_by_data:
        validation = _validate(job, classifier, collected, folder, for_masks.key)
    if job.tune:
        search = tune(sample.features, sample.labels, validation.outliers, head)
        job = replace(job, settings=search.best.settings)
    learnt = learn(collected.statistics, head, job.settings)
    roster = draw_up(sample, head, learnt.detector, job.methods, job.combined)
    if job.primary != AUTO:
        roster.check(job.primary, job.combined)
    if job.is_settled_by_data:
        given = None if job.primary == AUTO else job.primary
        tuning = compare(sample, validation.outliers, head, roster, settings=job.settings, search=search, primary=given)
        job = replace(job, primary=tuning.choice.primary)
    quantisation: Quantisation | None = None
    of_float32: list[str] = []
    if classifier.quantised is not None:
        quantisation, of_float32 = _compare(job, classifier, learnt.detector, digests, folder)
        check_tolerance(quantisation, job.int8_tolerance)
    fitted = fit_ensemble(head, learnt, sample, roster)
    for_thresholds = Partial(folder, "thresholds", _thresholds_depend_on(job, for_masks.key))
    scores, predicted, holdout_pass = score_holdout(classifier, fitted.ensemble, job.holdout_images, for_thresholds)
    unreadable = collected.record.unreadable | holdout_pass.unreadable
    counts = collected.statistics.counts
    of_primary = ClassGroups(scores[job.primary], predicted, len(counts), job.alone_from)
    metadata = describe(
        job, classifier, digests, learnt.method, fitted, counts, of_primary, len(unreadable), quantisation
    )
    probes = _score_probes(classifier, fitted.ensemble)
    artifact = Artifact(metadata, learnt.masks, counts, scores, predicted, probes, fitted.tensors, classifier.quantised)
    kept = (*for_masks.warnings, *validation.warnings, *of_float32, *for_thresholds.warnings)
    found = (*_warnings(job, collected.statistics, learnt.method), *roster.warnings, *alone_warnings(artifact))
    warnings = (*kept, *found, *(tuning.warnings if tuning else ()))
    return Calibration(artifact, collected.record, holdout_pass, unreadable | validation.unreadable, tuning, warnings)


def _validate(job: Job, classifier: Classifier, collected: Collected, folder: Path | None, key: str) -> Validation:
    if job.validation:
        return read_outliers(classifier, job.validation, folder, key)
    return make_outliers(classifier, job.mask_images, collected, folder, key)


def _compare(
    job: Job, classifier: Classifier, detector: LineDetector, digests: Digests, folder: Path | None
) -> tuple[Quantisation, list[str]]:
    """Measure the calibration in int8, and the same in float32, which has masks of its own; and what that warns of."""
    network, images = classifier.quantised, job.holdout_images.thin(COMPARED)
    assert network is not None
    int8, count = measure_quality(classifier, detector, images)
    choice = classifier.choice
    classifier.use(FLOAT32)
    partial = Partial(folder, "float32", _masks_depend_on(job, classifier, digests))
    collected = collect_statistics(classifier, job.mask_images, partial)
    reference = learn(collected.statistics, classifier.head, job.settings)
    float32, _ = measure_quality(classifier, reference.detector, images)
    classifier.use(choice, network)
    return Quantisation(network=network.digest(), compared_images=count, float32=float32, int8=int8), partial.warnings


def _check_alphas(job: Job) -> None:
    count = len(job.holdout_images.items)
    for alpha in job.alphas.values():
        conformal.demand_rank(count, alpha, job.guarantee, job.delta)


def _masks_depend_on(job: Job, classifier: Classifier, digests: Digests) -> Iterator[str]:
    device = classifier.device
    yield f"{digests} {classifier.choice} {device.type} {batch_size_on(device)} {versions()}"
    if classifier.quantised is not None:
        yield classifier.quantised.digest()
    yield from partial.describe(job.mask_images)


def _thresholds_depend_on(job: Job, masks_key: str) -> Iterator[str]:
    yield f"{masks_key} {job.settings} {job.methods} {job.combined}"
    yield from partial.describe(job.holdout_images)


def _score_probes(classifier: Classifier, ensemble: Ensemble) -> dict[str, conformal.FloatArray]:
    _, scores = ensemble.score(classifier.features(probe_pixels(classifier.preprocess.crop)), ensemble.names)
    return {name: own.double().cpu().numpy() for name, own in scores.items()}


def _warnings(job: Job, statistics: FeatureStatistics, method: Method) -> Iterator[str]:
    names, folders = job.class_names, job.mask_images.class_folders
    if names is not None and names != folders:
        yield (
            f"the class folders ({_few(folders)}) are not named as the classifier's classes ({_few(names)}): they are "
            "taken as its classes in alphabetical order; if that is wrong, so is the accuracy in the summary"
        )
    if job.holdout_images.class_folders != folders:
        yield (
            f"the held-out class folders ({_few(job.holdout_images.class_folders)}) are not named as the others "
            f"({_few(folders)}): both are taken in alphabetical order"
        )
    if method.variant == "absolute":
        yield (
            "the features can be negative (no ReLU before the head), so the paper's absolute contribution is used; "
            "LINe is weak on such networks: compare with energy and MSP by `line-ood evaluate` before relying on it"
        )
    empty = int((statistics.counts == 0).sum())
    if empty:
        yield (
            f"{empty} of {len(statistics.counts)} classes have no images for their masks "
            "and take the mean over the other classes"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
