"""Everything that can go wrong before, inside and after a score, and whose fault it is.

LineOodError                 message fit for whoever caused it; the command line exits with 2
├── SpecError                a SPEC, a module or weights that cannot be loaded
├── HeadNotFoundError        the classifier does not end in a linear layer
├── EngineError              an engine that cannot run here, or not this network
├── PreprocessError          the preprocessing is unknown or does not make sense
├── ArtifactError            a field of an artifact: what was wanted, what was found
│   └── DigestMismatchError  artifact and classifier do not belong together
├── SelfTestError            the probe images do not score as they did when they were calibrated
├── DatasetError             a folder that cannot be calibrated or evaluated on
├── TooFewImagesError        no threshold can keep the promised rate; says how many images can
└── ImageError               one image; always its sender's, never its neighbour's
    ├── UnsupportedFormatError
    ├── TooManyPixelsError
    └── UndecodableError
"""

from __future__ import annotations


class LineOodError(Exception):
    """Base of every error whose message is meant for the person who caused it."""


class SpecError(LineOodError):
    """A SPEC that names nothing, or weights that do not fit what it names."""


class HeadNotFoundError(LineOodError):
    """The classifier's output is not the output of an `nn.Linear`."""


class EngineError(LineOodError):
    """An engine that this machine or this network cannot be used with."""


class PreprocessError(LineOodError):
    """Preprocessing that is not known, and is never guessed, or that is contradictory."""


class ArtifactError(LineOodError):
    """A field of an artifact is not what it has to be.

    Args:
        field: name of the field, dotted from the root of the artifact.
        wanted: what had to be there.
        found: what is there.
    """

    def __init__(self, field: str, wanted: object, found: object) -> None:
        super().__init__(f"artifact field {field!r}: wanted {wanted}, found {found}")
        self.field = field
        self.wanted = wanted
        self.found = found


class DigestMismatchError(ArtifactError):
    """The artifact was calibrated with another classifier than the one that was loaded."""


class SelfTestError(LineOodError):
    """The classifier that was loaded does not score the artifact's probe images as it did when it was calibrated."""


class DatasetError(LineOodError):
    """A folder of images that cannot be used for what was asked."""


class TooFewImagesError(LineOodError):
    """The calibration set is too small for the promised false-reject rate.

    Args:
        alpha: target false-reject rate.
        found: number of calibration images at hand.
        needed: the smallest number with which `alpha` can be kept.
        marginal: the smallest number for the marginal guarantee, where the PAC one was asked for.
    """

    def __init__(self, alpha: float, found: int, needed: int, marginal: int | None = None) -> None:
        instead = "" if marginal is None else f", or take the marginal guarantee, which needs {marginal} images"
        super().__init__(
            f"alpha = {alpha:g} needs at least {needed} held-out images{'' if marginal is None else ' for PAC'}, "
            f"found {found}: give {needed - found} more or a larger alpha{instead}"
        )
        self.alpha = alpha
        self.found = found
        self.needed = needed


class ImageError(LineOodError):
    """One image that cannot be scored."""


class UnsupportedFormatError(ImageError):
    """The bytes are not of an accepted image format."""


class TooManyPixelsError(ImageError):
    """The image declares more pixels than may be decoded."""


class UndecodableError(ImageError):
    """The bytes claim to be an image of an accepted format and are not."""
