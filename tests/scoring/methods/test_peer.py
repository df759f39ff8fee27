"""pytorch-ood's detectors on the same features: the same scores. Where it differs from the papers, that is said."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from scoring.methods import METHODS
from scoring.types import Head
from tests.scoring.methods.problems import Problem, make_problem

SEEDS = range(20)


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    pytest.importorskip("pytorch_ood", reason="pytorch-ood is not installed")
    from pytorch_ood import detector

    return detector  # type: ignore[no-any-return]


def linear(head: Head) -> nn.Linear:
    layer = nn.Linear(head.weight.shape[1], len(head.bias))
    layer.weight.data, layer.bias.data = head.weight.clone(), head.bias.clone()
    return layer.requires_grad_(requires_grad=False)


def maps(features: Tensor) -> Tensor:
    return features[:, :, None, None]


def head_of_maps(head: Head) -> Callable[[Tensor], Tensor]:
    return lambda h: linear(head)(h.flatten(1))


def react(peer: ModuleType, problem: Problem) -> Tensor:
    detector = peer.ReAct(backbone=None, head=head_of_maps(problem.head), percentile=0.9)
    detector.fit_feature_maps(maps(problem.sample.features), problem.sample.labels)
    return detector.predict_feature_maps(maps(problem.features))


def dice(peer: ModuleType, problem: Problem) -> Tensor:
    detector = peer.DICE(None, problem.head.weight, problem.head.bias, p=0.9)
    return detector.fit_features(problem.sample.features, problem.sample.labels).predict_features(problem.features)


def ash_s(peer: ModuleType, problem: Problem) -> Tensor:
    detector = peer.ASH(None, head_of_maps(problem.head), variant="ash-s", percentile=0.9)
    return detector.predict_feature_maps(maps(problem.features))


def scale(peer: ModuleType, problem: Problem) -> Tensor:
    return peer.SCALE(None, head_of_maps(problem.head), percentile=0.85).predict_feature_maps(maps(problem.features))


def fdbd(peer: ModuleType, problem: Problem) -> Tensor:
    detector = peer.fDBD(nn.Identity(), linear(problem.head))
    return detector.fit_features(problem.sample.features).predict_features(problem.features)


def nci(peer: ModuleType, problem: Problem) -> Tensor:
    detector = peer.NCI(nn.Identity(), linear(problem.head), alpha=1e-4)
    return detector.fit_features(problem.sample.features).predict_features(problem.features)


def vim(peer: ModuleType, problem: Problem) -> Tensor:
    detector = peer.ViM(None, problem.features.shape[1] // 2, problem.head.weight, problem.head.bias)
    return detector.fit_features(problem.sample.features, problem.sample.labels).predict_features(problem.features)


PEERS: dict[str, Callable[[ModuleType, Problem], Tensor]] = {
    "msp": lambda peer, problem: 1 + peer.MaxSoftmax.score(problem.logits.double()),  # theirs lacks the 1
    "maxlogit": lambda peer, problem: peer.MaxLogit.score(problem.logits),
    "energy": lambda peer, problem: peer.EnergyBased.score(problem.logits),
    "gen": lambda peer, problem: 5 * peer.GEN.score(problem.logits, gamma=0.1),  # theirs is the mean of K = 5
    "react": react,
    "dice": dice,
    "ash-s": ash_s,
    "scale": scale,
    "fdbd": fdbd,
    "nci": nci,
    "vim": vim,
}
LESS = {"vim": 5e-3}  # the basis is kept in float16


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PEERS)
def test_equals_pytorch_ood(peer: ModuleType, name: str, seed: int) -> None:
    """Same sign, same numbers, on features after a ReLU."""
    problem = make_problem(seed, images=200, features=40)
    if name == "gen":  # theirs cuts probabilities at 1e-7, which softer logits do not reach
        softer = Head(problem.head.weight / 5, problem.head.bias)
        problem = problem._replace(head=softer)
    found = problem.score(problem.fit(name))
    tolerance = LESS.get(name, 2e-5)
    torch.testing.assert_close(found.double(), PEERS[name](peer, problem).double(), rtol=tolerance, atol=tolerance)


def test_ties_are_pruned_alike(peer: ModuleType) -> None:
    """ASH-S keeps the same ones of equal activations as pytorch-ood, and so as the authors' `topk`."""
    problem = make_problem(0, features=40)
    coarse = problem._replace(features=problem.features.round())
    found = coarse.score(coarse.fit("ash-s"))
    torch.testing.assert_close(found, ash_s(peer, coarse), rtol=1e-5, atol=1e-5)


def test_only_these_have_no_peer() -> None:
    """Whoever adds a method is asked for its comparison; pytorch-ood has no LINe."""
    assert set(METHODS) - set(PEERS) == {"line-paper", "cadref"}
