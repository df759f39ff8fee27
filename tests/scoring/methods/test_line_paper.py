"""LINe's two variants beside each other: the same but for the activation mask, and the same where that is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scoring import line
from scoring.detector import LineDetector
from scoring.types import Head
from tests import reference
from tests.scoring.methods.problems import CLIP, P_A, P_W, Problem, make_problem

SEEDS = range(8)


def both(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of `line`, and of `line-paper`."""
    return problem.line.score(problem.features)[1], problem.score(problem.fit("line-paper"))


@pytest.mark.parametrize("seed", SEEDS)
def test_without_negative_contributions_it_is_line(seed: int) -> None:
    """To the bit; and an objection says so."""
    problem = make_problem(seed)
    problem = problem._replace(head=Head(problem.head.weight.abs(), problem.head.bias))
    assert torch.equal(*both(problem))
    assert problem.objections() == {"line-paper": "it is what line already is here: the same masks"}


@pytest.mark.parametrize("seed", SEEDS)
def test_with_features_of_either_sign_it_is_line(seed: int) -> None:
    """There `line` takes the paper's contribution, too."""
    assert torch.equal(*both(make_problem(seed, negative=True)))


@pytest.mark.parametrize("seed", SEEDS)
def test_with_negative_contributions_it_is_another_score(seed: int) -> None:
    """Nearly every image has another one, and nothing is objected."""
    problem = make_problem(seed)
    ours, papers = both(problem)
    assert (ours != papers).float().mean() > 0.5
    assert "line-paper" not in problem.objections()


def test_where_no_neuron_is_removed_it_is_line() -> None:
    """p_a = 0: the weight masks, which are the same, are all that there is."""
    problem = make_problem(0)
    masks = replace(problem.line.masks, activation_mask=torch.ones(5, 24, dtype=torch.bool), p_a=0.0)
    detector = LineDetector(problem.head, masks, CLIP)
    assert torch.equal(detector.score(problem.features)[1], detector.paper().score(problem.features)[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_stored_contribution_is_the_papers_but_for_its_sign(seed: int) -> None:
    """|C| is mean|h| ⊙ |W| to the bit, and its weight thresholds are those that are stored: nothing else need be."""
    problem = make_problem(seed)
    masks, weight = problem.line.masks, problem.head.weight
    labels, features = problem.sample.labels, problem.sample.features
    means = torch.stack([features[labels == c].double().mean(0) for c in range(5)])
    papers = masks.paper()
    assert torch.equal(line.signed_contribution(means, weight).abs(), line.absolute_contribution(means, weight))
    assert torch.equal(papers.contribution, masks.contribution.abs())
    thresholds = [line.weight_threshold(row, weight, P_W) for row in papers.contribution]
    assert papers.weight_thresholds.tolist() == thresholds
    wanted = reference.activation_mask(papers.contribution.double().tolist(), P_A)
    assert papers.activation_mask.tolist() == wanted != masks.activation_mask.tolist()


def test_the_routed_class_is_the_one_that_is_given() -> None:
    """It is LINe's, and is not looked for a second time: another one brings another class's masks."""
    problem = make_problem(1)
    weight, bias = problem.head.weight.double().tolist(), problem.head.bias.double().tolist()
    learnt = reference.masks(problem.line.masks.contribution.double().abs().tolist(), weight, P_A, P_W)
    others = (problem.line.route(problem.features)[1] + 1) % 5
    found = problem.fit("line-paper").score(problem.features, problem.logits, others)
    for h, r, score in zip(problem.features.double().tolist(), others.tolist(), found.tolist(), strict=True):
        kept = [min(x, CLIP) if keep else 0.0 for x, keep in zip(h, learnt.activation[r], strict=True)]
        pruned = [
            [w if keep else 0.0 for w, keep in zip(row, mask, strict=True)]
            for row, mask in zip(weight, learnt.weight[r], strict=True)
        ]
        assert score == pytest.approx(reference.energy(reference.linear(kept, pruned, bias)), abs=1e-5)
