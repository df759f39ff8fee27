"""A benchmark: its sets, its preprocessing, the numbers published for it. Read from a data file of this package."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from calibration.field import catalogue
from calibration.separation import MEAN
from scoring.preprocess import Preprocess

Percent = Annotated[float, Field(ge=0, le=100)]
Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Part):
    """Where somebody else gets a set.

    Attributes:
        get: page, dataset class or script.
        file: the file that comes from there; None where it is unknown.
        md5: of `file`, as those who publish it or a library that downloads it say; None where it is unknown.
    """

    get: Text
    file: Text | None
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None


class ImageList(_Part):
    """A text that names the images of a set, one a line, where its folder holds others, too.

    Attributes:
        file: below the root.
        prefix: what its lines put before the path below the set's folder.
    """

    file: Text
    prefix: Text


class ImageSet(_Part):
    """A set of images.

    Attributes:
        folders: where it may lie below the root; the first one that holds images is taken.
        image_list: names its images; None where they are the whole folder.
        images: how many it has.
    """

    name: Text
    folders: Annotated[list[Text], Field(min_length=1)]
    image_list: Annotated[ImageList | None, Field(alias="list")]
    images: PositiveInt
    source: Source


class OodSet(ImageSet):
    """A set of OOD images; near or far, as the benchmark's authors say."""

    kind: Literal["near", "far"]


class Published(_Part):
    """What somebody has published, in percent.

    Attributes:
        sets: the OOD sets that it is the mean over; one of them, or one of `Benchmark.targets`.
        method: as `calibration.evaluate` names it.
        network: None where it is not said.
        source: how far to trust it.
    """

    sets: Annotated[list[Text], Field(min_length=1)]
    method: Text
    network: Text | None
    fpr95: Percent | None
    auroc: Percent | None
    source: Text


class Benchmark(_Part):
    """One benchmark of the field.

    Attributes:
        preprocess: that of the published numbers.
        inside: the ID set.
        ood: the OOD sets.
    """

    name: Text
    title: Text
    paper: Text
    preprocess: Preprocess
    inside: Annotated[ImageSet, Field(alias="id")]
    ood: Annotated[list[OodSet], Field(min_length=1)]
    published: list[Published]

    def targets(self) -> dict[str, tuple[str, ...]]:
        """What numbers are of: each OOD set, then the means; OOD sets by title.

        Near and far sets are never thrown together, as the field does not.
        """
        kinds = dict.fromkeys(each.kind for each in self.ood)
        means = {kind: tuple(each.name for each in self.ood if each.kind == kind) for kind in kinds}
        single = {each.name: (each.name,) for each in self.ood}
        return single | {MEAN if len(kinds) == 1 else f"{kind} {MEAN}": names for kind, names in means.items()}

    @model_validator(mode="after")
    def _check(self) -> Benchmark:
        names = [each.name for each in self.ood]
        if len(set(names)) != len(names):
            raise ValueError(f"ood: wanted different names, found {names}")
        known = list(self.targets().values())
        for row in self.published:
            if tuple(row.sets) not in known:
                raise ValueError(f"published: wanted sets among {known}, found {row.sets}")
        return self


def load(name: str) -> Benchmark:
    """Read a benchmark.

    Raises:
        DatasetError: there is none of that name; says which there are.
    """
    return Benchmark.model_validate_json(catalogue.read(name))
