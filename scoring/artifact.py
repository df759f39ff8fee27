"""The artifact: one safetensors file, all that calibration tells serving.

Tensors (names in `TENSORS`) and JSON metadata under the key `line_ood`; docs/artifact.md specifies both.
Small things are stored, large ones derived: thresholds of the weight masks, never the masks.
Written atomically; on loading every field is checked, and an error names field, wanted, found.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from scoring.combination import PREFIX as COMBINATION
from scoring.conformal import FloatArray
from scoring.detector import LineMasks
from scoring.engines.quantised import QuantisedNetwork
from scoring.ensemble import COMBINED
from scoring.errors import ArtifactError, DigestMismatchError, TooFewImagesError
from scoring.files import write_atomically
from scoring.groups import ByClass, ClassGroups, Predicted
from scoring.line import activation_mask
from scoring.metadata import METADATA_KEY, Digests, Metadata, OperatingPoint, parse_metadata
from scoring.methods import METHODS
from scoring.methods.stored import PREFIX as OF_METHODS
from scoring.probes import PROBES
from scoring.types import ClassCounts

CALIBRATION_SCORES = "calibration_scores."  # and the method, of each
PREDICTED = "calibration_predicted"
PROBE_SCORES = "probe_scores."
LEARNT = (f"{OF_METHODS}.", COMBINATION)  # how the names begin of what methods beside LINe, and a merge, have learnt
TENSORS = {
    "contribution": torch.float32,
    "counts": torch.int64,
    "activation_mask": torch.bool,
    "weight_thresholds": torch.float64,
    PREDICTED: torch.int64,
}
NETWORK_TENSORS = ("int8_network.xml", "int8_network.constants")  # uint8; where the precision is int8, and only there
MAX_BYTES = 2**31  # far above any real artifact: 1000 classes and 2048 features take 10 MB, a network in int8 25 MB


@dataclass(frozen=True, eq=False)
class Artifact:
    """A loaded, checked artifact.

    Attributes:
        metadata: see `Metadata`.
        masks: see `LineMasks`.
        counts: images a class that made the masks (class).
        scores: of the held-out ID images, in the order in which they were scored (image), by method.
        predicted: the class that the classifier predicts for each of these images (image).
        probes: scores of the images of `scoring.probes`, by method.
        learnt: what the methods beside LINe have learnt: the tensors of `scoring.methods` and `scoring.combination`.
        quantised: the backbone in int8, where that was calibrated.
        artifact_id: first 16 digits of the file's SHA-256.
    """

    metadata: Metadata
    masks: LineMasks
    counts: ClassCounts
    scores: dict[str, FloatArray]
    predicted: Predicted
    probes: dict[str, FloatArray]
    learnt: dict[str, Tensor] = field(default_factory=dict)
    quantised: QuantisedNetwork | None = None
    artifact_id: str = ""

    def to_bytes(self) -> bytes:
        """The file's content."""
        return save(self._tensors(), {METADATA_KEY: self.metadata.model_dump_json()})

    def save(self, path: Path) -> str:
        """Write the file at once or not at all; return its `artifact_id`."""
        content = self.to_bytes()
        write_atomically(path, content, mode=0o644)  # a server reads it, perhaps as somebody else
        return _identify(content)

    @classmethod
    def load(cls, path: Path) -> Artifact:
        """Read and check a file.

        Raises:
            ArtifactError: the first field that is not as it has to be.
        """
        content = _read(path)
        tensors, metadata_json = _parse(content, path)
        metadata = parse_metadata(metadata_json)
        quantised = _take_network(tensors, metadata)
        learnt = _take_learnt(tensors, metadata)
        _check_tensors(tensors, metadata)
        artifact = cls(
            metadata=metadata,
            masks=LineMasks(
                tensors["contribution"],
                tensors["activation_mask"],
                tensors["weight_thresholds"],
                metadata.method.p_a,
            ),
            counts=tensors["counts"],
            scores={name: tensors[CALIBRATION_SCORES + name].numpy() for name in names_of(metadata)},
            predicted=tensors[PREDICTED].numpy(),
            probes={name: tensors[PROBE_SCORES + name].numpy() for name in names_of(metadata)},
            learnt=learnt,
            quantised=quantised,
            artifact_id=_identify(content),
        )
        _check_values(artifact)
        _check_activation_mask(artifact)
        _check_operating_points(artifact)
        return artifact

    @property
    def calibration_scores(self) -> FloatArray:
        """Those of the primary method."""
        return self.scores[self.metadata.primary]

    @property
    def operating_points(self) -> dict[str, OperatingPoint]:
        """By name; the first one is the default."""
        return {point.name: point for point in self.metadata.operating_points}

    @cached_property
    def groups(self) -> dict[str, ClassGroups]:
        """Whom an image is compared with, by method: with its class's calibration images, or those of the others."""
        count, least = len(self.metadata.classifier.class_names), self.metadata.alone_from
        return {name: ClassGroups(scores, self.predicted, count, least) for name, scores in self.scores.items()}

    def thresholds(self, point: OperatingPoint) -> dict[str, ByClass]:
        """Of every method at this operating point, by predicted class."""
        return {name: point.thresholds_of(groups) for name, groups in self.groups.items()}

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "contribution": self.masks.contribution,
            "counts": self.counts,
            "activation_mask": self.masks.activation_mask,
            "weight_thresholds": self.masks.weight_thresholds,
            **{CALIBRATION_SCORES + name: torch.from_numpy(scores) for name, scores in self.scores.items()},
            PREDICTED: torch.from_numpy(self.predicted),
            **{PROBE_SCORES + name: torch.from_numpy(scores) for name, scores in self.probes.items()},
            **self.learnt,
            **dict(zip(NETWORK_TENSORS, self.quantised or (), strict=False)),
        }

    def check_classifier(self, found: Digests) -> None:
        """Refuse a classifier other than the calibrated one.

        Raises:
            DigestMismatchError: its weights or its preprocessing differ.
        """
        for name, wanted in self.metadata.digests:
            digest = getattr(found, name)
            if wanted != digest:
                raise DigestMismatchError(f"digests.{name}", wanted, f"{digest} in the loaded classifier")


def identify(path: Path) -> str:
    """The `artifact_id` of a file, without looking at what is in it.

    Raises:
        ArtifactError: it cannot be read.
    """
    return _identify(_read(path))


def _read(path: Path) -> bytes:
    """All of the file, read once: who replaces it meanwhile, or writes into it, changes nothing of what was read."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ArtifactError("file", f"at most {MAX_BYTES} bytes", f"{size} bytes in {path}")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError("file", "a readable file", f"{path}: {error.strerror or error}") from error


def _parse(content: bytes, path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ArtifactError("file", "safetensors", f"{path}: {error}") from error
    except KeyError as error:
        raise ArtifactError("tensors", "types that torch has", f"{path}: {error}") from error
    for name, mask in tensors.items():
        is_binary = mask.dtype != torch.bool or not mask.numel() or int(mask.view(torch.uint8).max()) <= 1
        _require(name, "bytes of 0 and 1", is_binary, "others")
    length = int.from_bytes(content[:8], "little")  # of the header, which has been checked by now
    metadata = (json.loads(content[8 : 8 + length]).get("__metadata__") or {}).get(METADATA_KEY)
    if metadata is None:
        raise ArtifactError(f"metadata.{METADATA_KEY}", "JSON", "nothing")
    return tensors, metadata


def _take_network(tensors: dict[str, Tensor], metadata: Metadata) -> QuantisedNetwork | None:
    """Take the tensors of the quantised network out of the others."""
    is_int8, quantisation = metadata.engine.precision == "int8", metadata.quantisation
    found = {name: tensors.pop(name) for name in NETWORK_TENSORS if name in tensors}
    wanted = list(NETWORK_TENSORS) if is_int8 else []
    _require(
        "int8_network", f"tensors {wanted} (precision {metadata.engine.precision})", list(found) == wanted, [*found]
    )
    held = "a group of fields" if is_int8 else "nothing"
    _require(
        "quantisation", f"{held} (precision {metadata.engine.precision})", is_int8 == bool(quantisation), quantisation
    )
    if quantisation is None:
        return None
    for name, tensor in found.items():
        is_bytes = tensor.dtype == torch.uint8 and tensor.ndim == 1
        _require(name, "bytes in a row", is_bytes, f"{tensor.dtype} of shape {tuple(tensor.shape)}")
    network = QuantisedNetwork(*found.values())
    digest = network.digest()
    _require("quantisation.network", f"{digest} (of the tensors)", quantisation.network == digest, quantisation.network)
    return network


def names_of(metadata: Metadata) -> tuple[str, ...]:
    """All methods of an artifact, LINe first."""
    return (metadata.method.name, *metadata.methods, *([COMBINED] if metadata.combined else []))


def _take_learnt(tensors: dict[str, Tensor], metadata: Metadata) -> dict[str, Tensor]:
    """Take the tensors of the methods beside LINe out of the others; `restore_all` knows which it wants."""
    unknown = sorted(set(metadata.methods) - set(METHODS))
    _require("methods", f"some of {', '.join(METHODS)}", not unknown, ", ".join(unknown))
    names = names_of(metadata)
    single = [name for name in names if name != COMBINED]
    is_merge = len(set(metadata.combined)) == len(metadata.combined) != 1 and set(metadata.combined) <= set(single)
    _require("combined", f"none or several of {', '.join(single)}", is_merge, ", ".join(metadata.combined))
    _require("primary", f"one of {', '.join(names)}", metadata.primary in names, metadata.primary)
    return {name: tensors.pop(name) for name in sorted(tensors) if name.startswith(LEARNT)}


def _check_tensors(tensors: dict[str, Tensor], metadata: Metadata) -> None:
    class_count, feature_count = len(metadata.classifier.class_names), metadata.classifier.feature_count
    names = names_of(metadata)
    of_methods = [kind + name for kind in (CALIBRATION_SCORES, PROBE_SCORES) for name in names]
    types = TENSORS | dict.fromkeys(of_methods, torch.float64)
    if set(tensors) != set(types):
        raise ArtifactError("tensors", sorted(types), sorted(tensors))
    shapes = {
        "contribution": (class_count, feature_count),
        "counts": (class_count,),
        "activation_mask": (class_count, feature_count),
        "weight_thresholds": (class_count,),
        PREDICTED: (metadata.data.calibration_images,),
        **{CALIBRATION_SCORES + name: (metadata.data.calibration_images,) for name in names},
        **{PROBE_SCORES + name: (PROBES,) for name in names},
    }
    for name, tensor in tensors.items():
        _require(name, f"shape {shapes[name]}", tuple(tensor.shape) == shapes[name], tuple(tensor.shape))
        _require(name, str(types[name]), tensor.dtype == types[name], tensor.dtype)
    folders = len(metadata.classifier.class_folders)
    _require("classifier.class_folders", f"{class_count} names", folders == class_count, folders)
    digest = metadata.preprocess.digest()
    _require("digests.preprocess", digest, metadata.digests.preprocess == digest, metadata.digests.preprocess)


def _check_values(artifact: Artifact) -> None:
    thresholds = artifact.masks.weight_thresholds
    finite = bool(artifact.masks.contribution.isfinite().all())
    _require("contribution", "finite numbers", finite, "others")
    _require("counts", "numbers >= 0", bool((artifact.counts >= 0).all()), "a negative one")
    total, wanted = int(artifact.counts.sum()), artifact.metadata.data.mask_images
    _require("counts", f"a sum of {wanted} (data.mask_images)", total == wanted, total)
    empty, wanted = int((artifact.counts == 0).sum()), artifact.metadata.data.classes_without_images
    _require("data.classes_without_images", f"{empty} (from the counts)", empty == wanted, wanted)
    usable = bool((thresholds.isfinite() | thresholds.isneginf()).all())
    _require("weight_thresholds", "finite numbers or -inf", usable, "others")
    for name, scores in artifact.scores.items():
        _require(CALIBRATION_SCORES + name, "finite numbers", bool(np.isfinite(scores).all()), "others")
    last = len(artifact.metadata.classifier.class_names) - 1
    known = bool(((artifact.predicted >= 0) & (artifact.predicted <= last)).all())
    _require(PREDICTED, f"classes from 0 to {last}", known, "others")
    for name, scores in artifact.probes.items():
        _require(PROBE_SCORES + name, "finite numbers", bool(np.isfinite(scores).all()), "others")


def _check_activation_mask(artifact: Artifact) -> None:
    masks, p_a = artifact.masks, artifact.metadata.method.p_a
    follows = torch.equal(masks.activation_mask, activation_mask(masks.contribution, p_a))
    _require("activation_mask", "what follows from contribution and method.p_a", follows, "another mask")


def _check_operating_points(artifact: Artifact) -> None:
    points = artifact.metadata.operating_points
    names = [point.name for point in points]
    _require("operating_points", "different names", len(set(names)) == len(names), names)
    promises = {(point.guarantee, point.delta if point.guarantee == "pac" else None) for point in points}
    # So that who is rejected at one alpha is at every larger one, which monitoring rests upon.
    _require("operating_points", "the same guarantee and delta", len(promises) == 1, sorted(map(str, promises)))
    for index, point in enumerate(points):
        try:
            by_class = point.thresholds_of(artifact.groups[artifact.metadata.primary])
        except TooFewImagesError as error:
            one = f"one that {error.found} calibration scores can keep"
            raise ArtifactError(f"operating_points.{index}.alpha", one, point.alpha) from error
        wanted = None if artifact.metadata.alone_from else float(by_class[0])
        why = "by class: alone_from" if artifact.metadata.alone_from else "from the calibration scores"
        field = f"operating_points.{index}.threshold"
        _require(field, f"{wanted!r} ({why})", point.threshold == wanted, point.threshold)


def _require(field: str, wanted: object, holds: bool, found: object) -> None:
    if not holds:
        raise ArtifactError(field, wanted, found)


def _identify(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
