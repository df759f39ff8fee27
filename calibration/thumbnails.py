"""The images that lie farthest out of a folder, and those that lie deepest in, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.grouped import groups_of
from calibration.names import printable
from calibration.rates import Judged
from calibration.scored import ScoredFolder
from scoring.artifact import Artifact
from scoring.errors import ImageError
from scoring.images import open_image, to_rgb

SHOWN = 12  # of either kind
SIDE = 96  # pixels, the longer one


@dataclass(frozen=True)
class Thumbnail:
    """One image.

    Attributes:
        name: of the folder that holds it and its own; any characters, but printable ones.
        uri: the picture as a data URI; None where it can no longer be read.
        predicted: name of the predicted class.
        ood_score: by the method that decides.
        reject: at the artifact's first operating point.
    """

    name: str
    uri: str | None
    predicted: str
    ood_score: float
    p_value: float
    reject: bool


@dataclass(frozen=True)
class Extremes:
    """The most out-of-distribution images of a folder, the first one leading, and the least; none is both."""

    most: list[Thumbnail]
    least: list[Thumbnail]


def extremes(scored: ScoredFolder, artifact: Artifact) -> Extremes:
    """Pick and shrink them."""
    scores = scored.scores[artifact.metadata.primary]
    order = np.argsort(-scores, kind="stable").tolist()  # ties stay in the order of their paths
    most = order[: min(SHOWN, -(-len(order) // 2))]
    least = order[: len(most) - 1 : -1][:SHOWN]
    groups, names = groups_of(artifact), artifact.metadata.classifier.class_names
    p_values = groups.p_values(scores, scored.predicted)
    rejected = Judged(scores, scored.predicted).rejected(artifact.metadata.operating_points[0].thresholds_of(groups))

    def thumbnail(index: int) -> Thumbnail:
        return Thumbnail(
            name=printable("/".join(scored.paths[index].parts[-2:])),
            uri=shrink(scored.paths[index]),
            predicted=names[scored.predicted[index]],
            ood_score=float(scores[index]),
            p_value=float(p_values[index]),
            reject=bool(rejected[index]),
        )

    return Extremes([thumbnail(index) for index in most], [thumbnail(index) for index in least])


def shrink(path: Path) -> str | None:
    """A JPEG of at most `SIDE` pixels a side as a data URI, or None: the file has changed since it was scored."""
    try:
        picture = to_rgb(open_image(path.read_bytes()), exif_transpose=True)
    except (ImageError, OSError):
        return None
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
