"""Scores that share the pass: everything that features and logits tell of an image, beside LINe. docs/method.md.

Each file is one method: formula, paper, a pure function of tensors, and a class that fits it to a `Sample`, stores it
and restores it. Higher = more out-of-distribution, as everywhere; a finite image has a finite score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from scoring.detector import LineDetector
from scoring.errors import ArtifactError
from scoring.line import energy
from scoring.methods.ash import AshS
from scoring.methods.cadref import CadRef
from scoring.methods.dice import Dice
from scoring.methods.fdbd import FDbd
from scoring.methods.free_energy import Energy
from scoring.methods.gen import Gen
from scoring.methods.line_paper import LinePaper
from scoring.methods.max_logit import MaxLogit
from scoring.methods.max_softmax import Msp, msp
from scoring.methods.method import Method
from scoring.methods.nci import Nci
from scoring.methods.react import ReAct
from scoring.methods.sample import Sample
from scoring.methods.scale import Scale
from scoring.methods.stored import PREFIX, field_of
from scoring.methods.vim import Vim
from scoring.types import Head

__all__ = ["METHODS", "Method", "Sample", "energy", "fit_all", "msp", "objections", "restore_all", "tensors_of"]

_CLASSES: tuple[type[Method], ...] = (
    LinePaper,  # LINe with its other activation mask
    *(Msp, MaxLogit, Energy, Gen),  # from the logits alone
    *(ReAct, Dice, AshS, Scale),  # shaped activations or weights, for features that are never negative
    *(FDbd, Nci, CadRef, Vim),  # where the features lie
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _CLASSES}


def objections(sample: Sample, head: Head, line: LineDetector) -> dict[str, str]:
    """Why a method is not for this network, by name of the methods that are not."""
    found = {name: method.objection(sample, head, line) for name, method in METHODS.items()}
    return {name: reason for name, reason in found.items() if reason}


def fit_all(names: Iterable[str], sample: Sample, head: Head, line: LineDetector) -> dict[str, Method]:
    """Fit methods, by name; what `objections` has against one is for the caller to heed."""
    return {name: METHODS[name].fit(sample, head, line) for name in names}


def tensors_of(methods: Mapping[str, Method]) -> dict[str, Tensor]:
    """What fitting learnt, in one table: `methods.NAME.TENSOR`."""
    return {field_of(name, key): tensor for name, method in methods.items() for key, tensor in method.tensors().items()}


def restore_all(
    head: Head, line: LineDetector, settings: Mapping[str, Mapping[str, float]], tensors: Mapping[str, Tensor]
) -> dict[str, Method]:
    """Methods as they were fitted.

    Args:
        head: of the classifier that they were fitted with.
        line: LINe of that classifier.
        settings: `Method.settings()` by name of the method.
        tensors: the table of `tensors_of`.

    Raises:
        ArtifactError: a method that is not known, a tensor that belongs to none, or what `Method.restore` refuses.
    """
    restored: dict[str, Method] = {}
    taken: set[str] = set()
    for name, own in settings.items():
        if name not in METHODS:
            raise ArtifactError(field_of(name), f"one of {', '.join(METHODS)}", repr(name))
        prefix = field_of(name, "")
        parts = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        taken.update(prefix + key for key in parts)
        restored[name] = METHODS[name].restore(head, line, own, parts)
    if left := sorted(set(tensors) - taken):
        raise ArtifactError(PREFIX, f"tensors of {', '.join(settings) or 'no method'}", left)
    return restored
