"""Checks of what an artifact says of a method: names, types, shapes, ranges; an error names field, wanted, found."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from scoring.errors import ArtifactError

PREFIX = "methods"

Range = tuple[float, float]  # both ends are allowed
Layout = tuple[torch.dtype, tuple[int, ...]]


def field_of(method: str, *parts: str) -> str:
    """Name of a method's field in the artifact, of its tensors too."""
    return ".".join((PREFIX, method, *parts))


def check_settings(
    method: str, settings: Mapping[str, float], wanted: Mapping[str, Range], *, whole: frozenset[str] = frozenset()
) -> None:
    """Refuse settings other than the wanted ones, out of their range, or not whole where they count something."""
    if set(settings) != set(wanted):
        raise ArtifactError(field_of(method), f"settings {sorted(wanted)}", sorted(settings))
    for name, allowed in wanted.items():
        check_number(method, name, settings[name], allowed, whole=name in whole)


def check_number(method: str, name: str, value: float, allowed: Range, *, whole: bool = False) -> None:
    """Refuse a number out of its range, or not whole where it counts something."""
    low, high = allowed
    if not (low <= value <= high and (value == int(value) or not whole)):
        kind = "a whole number" if whole else "a number"
        raise ArtifactError(field_of(method, name), f"{kind} from {low:g} to {high:g}", repr(value))


def check_tensors(method: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, Layout]) -> None:
    """Refuse tensors other than the wanted ones, of another type or shape, or with entries that are not finite."""
    if set(tensors) != set(wanted):
        raise ArtifactError(field_of(method), f"tensors {sorted(wanted)}", sorted(tensors))
    for name, (dtype, shape) in wanted.items():
        tensor, field = tensors[name], field_of(method, name)
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ArtifactError(field, f"{dtype} of shape {shape}", f"{tensor.dtype} of shape {tuple(tensor.shape)}")
        if not tensor.isfinite().all():
            raise ArtifactError(field, "finite numbers", "others")


def scalar(value: float) -> Tensor:
    """A learnt number as a tensor of one float64."""
    if not math.isfinite(value):
        raise ValueError(f"a learnt number has to be finite, not {value}")
    return torch.tensor([value], dtype=torch.float64)
