"""What a merge takes for usual: each image scored by what the others teach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calibration.folds import FOLDS, parts_of
from calibration.learnt import Learnt
from calibration.masks import build_masks, choose_method
from calibration.reference import reference_scores
from calibration.settings import LineSettings
from calibration.statistics import FeatureStatistics
from scoring.detector import LineDetector
from scoring.errors import DatasetError
from scoring.methods import METHODS, Sample
from scoring.types import Head
from tests import reference

K, D = 4, 12


def learnt_of(count: int, seed: int) -> tuple[Head, Learnt, Sample]:
    random = torch.Generator().manual_seed(seed)
    head = Head(torch.randn(K, D, generator=random), torch.randn(K, generator=random))
    sample = Sample(torch.rand(count, D, generator=random), torch.arange(count) % K)
    statistics = FeatureStatistics(K, D)
    statistics.update(sample.features, sample.labels)
    method = choose_method(statistics, LineSettings(p_a=30, p_w=30, clip=0.8, clip_quantile=None))
    masks = build_masks(statistics, head.weight, method)
    return head, Learnt(method, masks, LineDetector(head, masks, method.clip)), sample


@pytest.mark.parametrize("count", [2, 7, 23])
def test_each_image_is_scored_by_what_the_other_parts_teach(count: int) -> None:
    """LINe against the plain-Python one, taught by the other parts; Energy, which learns nothing, by its formula."""
    head, learnt, sample = learnt_of(count, seed=count)
    weight, bias = head.weight.tolist(), head.bias.tolist()
    features, labels, parts = (each.tolist() for each in (sample.features, sample.labels, parts_of(sample.labels)))
    line = []
    for h, own in zip(features, parts, strict=True):
        others = [i for i in range(count) if parts[i] != own]
        taught = reference.contribution([features[i] for i in others], [labels[i] for i in others], weight)
        line.append(reference.ood_score(h, weight, bias, 0.8, reference.masks(taught, weight, 30, 30)))
    energy = [-np.logaddexp.reduce(reference.linear(h, weight, bias)) for h in features]
    found = reference_scores(head, learnt, sample, ["line", "energy"])
    order = np.argsort([parts[i] for i in range(count)], kind="stable")
    np.testing.assert_allclose(found["energy"], np.array(energy)[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["line"], np.array(line)[order], rtol=1e-4, atol=1e-5)


def test_methods_that_learn_are_taught_by_the_other_parts() -> None:
    """ViM and the like, fitted here by hand to the rest."""
    head, learnt, sample = learnt_of(40, seed=0)
    features, labels = sample.features, sample.labels
    parts = parts_of(labels)
    found = reference_scores(head, learnt, sample, ["vim", "react", "cadref"])
    assert list(found) == ["vim", "react", "cadref"]
    for name, scores in found.items():
        wanted = []
        for part in range(FOLDS):
            method = METHODS[name].fit(Sample(features[parts != part], labels[parts != part]), head, learnt.detector)
            held = features[parts == part]
            logits = torch.addmm(head.bias, held, head.weight.T).double()
            wanted += method.score(held, logits, logits.argmax(1)).double().tolist()
        np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-4, err_msg=name)


def test_one_image_is_too_few() -> None:
    """There is nobody to learn from."""
    with pytest.raises(DatasetError, match="at least two images"):
        reference_scores(*learnt_of(1, seed=0), ["line", "energy"])
