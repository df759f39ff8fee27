"""Where models come from: the files and overrides that the settings name, read at the start and at every load.

    --artifact NAME=FILE    as often as there are models; a plain FILE is called after the SPEC in it
    --model --weights --engine --shadow    NAME=VALUE, or a plain VALUE where there is one artifact only

Nothing else is ever opened: a client can ask for a load, and cannot say of what.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from scoring.artifact import identify
from scoring.classifier import pick_device
from scoring.engines.engine import EngineChoice
from scoring.errors import LineOodError
from scoring.scorer import Scorer
from service.settings import Settings

NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})=(.+)")  # a name stands in addresses and in metrics


@dataclass(frozen=True)
class Source:
    """How to load one model. The overrides hold for every version of it, its shadow's included.

    Attributes:
        name: what it is called; empty until the SPEC of its artifact is known.
        artifact: the file.
        model: SPEC to load instead of the artifact's.
        weights: file with the classifier's weights.
        engine: another one than the artifact was calibrated with.
        device: where to run.
        shadow: artifact to compare with.
    """

    name: str
    artifact: Path
    model: str | None = None
    weights: Path | None = None
    engine: EngineChoice | None = None
    device: str = "auto"
    shadow: Path | None = None

    def load(self) -> Scorer:
        """Load what the files hold now.

        Raises:
            LineOodError: they are not usable, or do not belong together.
        """
        return Scorer.load(
            self.artifact, pick_device(self.device), model=self.model, weights=self.weights, engine=self.engine
        )

    def artifact_id(self) -> str:
        """Which artifact the file holds now.

        Raises:
            ArtifactError: it cannot be read.
        """
        return identify(self.artifact)

    def of_shadow(self) -> Source | None:
        """How to load its shadow."""
        return None if self.shadow is None else replace(self, artifact=self.shadow, shadow=None)

    def deviation(self, scorer: Scorer) -> str:
        """What another engine changes; empty where it is the calibrated one."""
        calibrated = scorer.artifact.metadata.engine
        if self.engine in (None, calibrated):
            return ""
        return (
            f"calibrated with {calibrated}, served with {self.engine}: "
            f"scores of the probe images differ by up to {scorer.probe_deviations().max():.2g}"
        )


class Loaded(NamedTuple):
    """A model, and its shadow if it has one, ready to be served."""

    source: Source
    scorer: Scorer
    shadow: Scorer | None = None


def read_sources(settings: Settings) -> list[Source]:
    """Read what the settings say.

    Raises:
        LineOodError: a value that belongs to no artifact, or to several.
    """
    artifacts = [_split(text) for text in settings.artifact]
    names = [name for name, _ in artifacts]
    _check_names([name for name in names if name])
    given = {
        flag: _assign(f"--{flag}", getattr(settings, flag), names) for flag in ("model", "weights", "engine", "shadow")
    }
    return [
        Source(
            name=name,
            artifact=Path(file),
            model=given["model"].get(name),
            weights=_path(given["weights"].get(name)),
            engine=None if name not in given["engine"] else EngineChoice.parse(given["engine"][name]),
            device=settings.device,
            shadow=_path(given["shadow"].get(name)),
        )
        for name, file in artifacts
    ]


def load_all(sources: Sequence[Source]) -> list[Loaded]:
    """Load every model, and name those that have no name yet.

    Raises:
        LineOodError: one cannot be loaded, or two have the same name.
    """
    loaded = [_load(source) for source in sources]
    _check_names([each.source.name for each in loaded])
    return loaded


def name_of(scorer: Scorer) -> str:
    """What a model is called that was given no name: after its SPEC."""
    return scorer.artifact.metadata.classifier.spec.rpartition(":")[2]


def _load(source: Source) -> Loaded:
    scorer = source.load()
    of_shadow = source.of_shadow()
    shadow = None if of_shadow is None else of_shadow.load()
    return Loaded(replace(source, name=source.name or name_of(scorer)), scorer, shadow)


def _split(text: str) -> tuple[str, str]:
    found = NAMED.fullmatch(text)
    return (found[1], found[2]) if found else ("", text)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _assign(flag: str, given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The values of a flag, by the artifact that each is for."""
    values: dict[str, str] = {}
    known = ", ".join(filter(None, names)) or "none has a name"
    for text in given:
        name, value = _split(text)
        if not name and len(names) > 1:
            raise LineOodError(f"{flag} {text}: there are {len(names)} artifacts, wanted NAME={text} ({known})")
        name = name or names[0]
        if name not in names:
            raise LineOodError(
                f"{flag} {text}: no artifact is called {name!r} ({known}); a file with = in its name is ./{text}"
            )
        if name in values:
            raise LineOodError(f"{flag} {text}: given twice for one artifact")
        values[name] = value
    return values


def _check_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise LineOodError(f"{count} artifacts are called {name!r}: name them, --artifact NAME=FILE")
