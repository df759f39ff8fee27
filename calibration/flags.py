"""What the command line gives, checked and put into the words of the program.

Each error names the flag. Heavy imports stand inside the functions, so that `--help` is quick.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import typer

from calibration.settings import AUTO, PRESETS, LineSettings

if TYPE_CHECKING:
    from scoring.conformal import Guarantee
    from scoring.preprocess import Preprocess
    from scoring.spec import ClassifierParts


def line_settings(
    preset: str | None, p_a: float | None, p_w: float | None, clip: float | None, clip_quantile: float | None
) -> LineSettings:
    """A preset, or the defaults, with what was given instead."""
    if preset is not None and preset not in PRESETS:
        raise typer.BadParameter(f"{preset!r} is none of {', '.join(PRESETS)}", param_hint="--preset")
    if clip is not None and not clip > 0:
        raise typer.BadParameter(f"{clip} is not above 0", param_hint="--clip")
    if clip is not None and clip_quantile is not None:
        raise typer.BadParameter("give --clip or --clip-quantile, not both", param_hint="--clip")
    base = PRESETS[preset] if preset else LineSettings()
    if clip is not None:
        base = LineSettings(base.p_a, base.p_w, None if clip == float("inf") else clip, None)
    if clip_quantile is not None:
        base = LineSettings(base.p_a, base.p_w, None, clip_quantile)
    return LineSettings(
        base.p_a if p_a is None else p_a, base.p_w if p_w is None else p_w, base.clip, base.clip_quantile
    )


def alphas_of(given: list[str]) -> dict[str, float]:
    """Rates, or NAME=RATE, to rates by name, in their order."""
    from scoring.metadata import NAME_PATTERN

    alphas: dict[str, float] = {}
    for each in given:
        name, value = _pair("--alpha", each, "NAME=RATE") if "=" in each else (f"alpha-{each}", each)
        try:
            rate = float(value)
        except ValueError as error:
            raise typer.BadParameter(f"{value!r} is no number", param_hint="--alpha") from error
        if not 0 < rate < 1:
            raise typer.BadParameter(f"{value} is not between 0 and 1", param_hint="--alpha")
        if not re.fullmatch(NAME_PATTERN, name):
            raise typer.BadParameter(f"{name!r}: a name has letters, digits, '.', '_' and '-'", param_hint="--alpha")
        if name in alphas:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--alpha")
        alphas[name] = rate
    return alphas


def methods_of(given: str) -> tuple[str, ...] | None:
    """Names of methods beside LINe; None for all that fit the network."""
    from scoring.methods import METHODS

    if given == "all":
        return None
    return () if given == "none" else _some_of("--methods", given, METHODS)


def combined_of(given: str) -> tuple[str, ...]:
    """Names of methods to merge."""
    from scoring.ensemble import LINE
    from scoring.methods import METHODS

    names = _some_of("--combine", given, (LINE, *METHODS))
    if len(names) < 2:
        raise typer.BadParameter(f"{given!r}: wanted two names at least", param_hint="--combine")
    return names


def check_primary(primary: str, methods: tuple[str, ...] | None, combined: tuple[str, ...]) -> None:
    """Refuse a primary that will not be fitted, before the hours of work."""
    from scoring.ensemble import COMBINED, LINE
    from scoring.methods import METHODS

    fitted = (LINE, *(METHODS if methods is None else methods))
    names = (*fitted, COMBINED, AUTO) if set(combined) <= set(fitted) else (*fitted, AUTO)
    if primary not in names:
        raise typer.BadParameter(f"{primary!r} is none of {', '.join(names)}", param_hint="--primary")


def guarantee_of(given: str) -> Guarantee:
    """What is promised of alpha."""
    from scoring.conformal import Guarantee

    if given not in get_args(Guarantee):
        raise typer.BadParameter(f"{given!r} is none of {', '.join(get_args(Guarantee))}", param_hint="--guarantee")
    return cast("Guarantee", given)


def _some_of(option: str, given: str, known: Collection[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(given.split(",")))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint=option)
    return names


def ood_folders(option: str, given: list[str]) -> dict[str, Path]:
    """NAME=DIR to folders by name."""
    from calibration.separation import MEAN

    folders: dict[str, Path] = {}
    for name, folder in (_pair(option, each, "NAME=DIR") for each in given):
        if name in folders or name == MEAN:
            raise typer.BadParameter(f"the name {name!r} is taken", param_hint=option)
        folders[name] = Path(folder)
    return folders


def validation_folders(given: list[str], *, tune: bool, is_given: bool, primary: str) -> dict[str, Path]:
    """OOD folders by name, for `--tune` and `--primary auto`.

    Args:
        given: NAME=DIR.
        tune: whether LINe's settings are searched for.
        is_given: whether one of them is given.
        primary: whose score decides.
    """
    if tune and is_given:
        raise typer.BadParameter(
            "it finds what --preset, --p-a, --p-w and --clip give: leave them", param_hint="--tune"
        )
    if given and not (tune or primary == AUTO):
        raise typer.BadParameter("goes with --tune or --primary auto", param_hint="--validation-ood")
    return ood_folders("--validation-ood", given)


def _pair(option: str, text: str, wanted: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise typer.BadParameter(f"{text!r}: wanted {wanted}", param_hint=option)
    return name, value


def channels(option: str, text: str | None) -> tuple[float, ...] | None:
    """R,G,B to three numbers."""
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: wanted three numbers, as 0.5,0.5,0.5", param_hint=option) from error
    return red, green, blue


def preprocess_of(parts: ClassifierParts, given: dict[str, Any]) -> Preprocess | None:
    """The classifier's own preprocessing, with what was given on the command line instead."""
    from pydantic import ValidationError

    from scoring.errors import PreprocessError
    from scoring.preprocess import Preprocess

    changes = {name: value for name, value in given.items() if value is not None}
    own = {"resize": None} if parts.preprocess is None else parts.preprocess.model_dump()
    if parts.preprocess is None and not changes:
        return None
    try:
        return Preprocess.model_validate(own | changes)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        reason = " (the model does not say how its images are prepared)" if parts.preprocess is None else ""
        raise PreprocessError(f"{flag}: {first['msg']}{reason}") from error


def check_folder(option: str, folder: Path) -> None:
    """Refuse a folder that could not be made, before the hours of work, not after."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise typer.BadParameter(f"{folder}: {existing} is not a folder", param_hint=option)


def check_writable(out: Path) -> None:
    """Refuse a file that could not be written, before the hours of work, not after."""
    if out.is_dir() or not out.parent.is_dir() or summary_path(out).is_dir():
        raise typer.BadParameter(f"{out}: wanted a file in a folder that exists", param_hint="--out")


def summary_path(out: Path) -> Path:
    """Where the summary of an artifact lies: beside it."""
    return out.with_name(out.name.removesuffix(".safetensors") + ".summary.json")


def partial_folder(out: Path) -> Path:
    """Where a calibration that is under way keeps what it has: beside the artifact."""
    return out.with_name(out.name + ".partial")
