"""The scores beside LINe: which fit the network, fitted to the sample of the pass, and merged where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from calibration.learnt import Learnt
from calibration.reference import reference_scores
from scoring.classifier import Classifier
from scoring.combination import Combination
from scoring.ensemble import LINE, Ensemble, restore_ensemble
from scoring.errors import DatasetError
from scoring.methods import METHODS, fit_all, objections, tensors_of
from scoring.types import Head


@dataclass(frozen=True, eq=False)
class Fitted:
    """All scores of one calibration.

    Attributes:
        ensemble: restored from what the artifact will hold, and so scoring as it will be served.
        settings: hyper-parameters of the methods beside LINe, by name.
        combined: methods that are merged.
        tensors: what methods and merge have learnt.
        warnings: what is to be said against methods that were asked for by name.
    """

    ensemble: Ensemble
    settings: dict[str, dict[str, float]]
    combined: tuple[str, ...]
    tensors: dict[str, Tensor]
    warnings: tuple[str, ...]


def fit_ensemble(
    classifier: Classifier, learnt: Learnt, methods: Sequence[str] | None, combined: Sequence[str], primary: str
) -> Fitted:
    """Fit.

    Args:
        classifier: whose head.
        learnt: masks and sample, none of whose images makes the thresholds.
        methods: names; None for all that fit the network.
        combined: to be merged, where all of them are fitted.
        primary: has to be among them.

    Raises:
        DatasetError: the primary does not fit the network, or the scores of a method cannot be merged.
    """
    head = Head(*(each.cpu() for each in classifier.head))
    against = objections(learnt.sample, head)
    names = [name for name in METHODS if name not in against] if methods is None else methods
    fitted = fit_all(names, learnt.sample, head)
    settings = {name: method.settings() for name, method in fitted.items()}
    tensors = tensors_of(fitted)
    merged = tuple(combined) if set(combined) <= {LINE, *names} else ()
    if merged:
        tensors |= Combination.fit(reference_scores(classifier.head, learnt, merged)).tensors()
    ensemble = restore_ensemble(classifier.head, learnt.detector, settings, merged, tensors)
    if primary not in ensemble.names:
        reason = against.get(primary, f"it merges {', '.join(combined)}, which are not all fitted")
        raise DatasetError(f"--primary {primary} cannot be had here: {reason}")
    warnings = tuple(f"{name} is not for this network: {against[name]}" for name in names if name in against)
    return Fitted(ensemble, settings, merged, tensors, warnings)
