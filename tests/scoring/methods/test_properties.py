"""What holds for every method: a finite score for every image, whatever its neighbours are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.methods import METHODS, Sample
from scoring.types import Head
from tests.scoring.methods.problems import Problem, make_problem

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 9))  # images, classes, features


@pytest.mark.parametrize("name", METHODS)
@given(seed=st.integers(0, 99), order=st.permutations(range(10)), size=st.integers(1, 10))
@settings(max_examples=15)
def test_neighbours_do_not_matter(name: str, seed: int, order: list[int], size: int) -> None:
    """An image scores the same in any batch."""
    problem = make_problem(seed)
    method = problem.fit(name)
    rows = torch.tensor(order[:size])
    alone = problem._replace(features=problem.features[rows]).score(method)
    torch.testing.assert_close(alone, problem.score(method)[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@given(
    shape=SHAPES,
    seed=st.integers(0, 999),
    size=st.sampled_from([0.0, 1e-4, 1.0, 100.0]),
    negative=st.booleans(),
    zero=st.booleans(),
)
@settings(max_examples=60)
def test_finite_images_have_finite_scores(
    name: str, shape: tuple[int, int, int], seed: int, size: float, negative: bool, zero: bool
) -> None:
    """One image, one class, one feature, no activation at all, negative features: there is always a number."""
    images, classes, features = shape
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        values = size * torch.randn(*shape, generator=random)
        return values if negative else values.relu()

    head = Head(torch.randn(classes, features, generator=random), torch.randn(classes, generator=random))
    sample = Sample(draw(images, features), torch.zeros(images, dtype=torch.int64))
    batch = torch.cat([draw(4, features), torch.zeros(1, features), sample.mean[None]])
    problem = Problem(head, sample, torch.zeros_like(batch) if zero else batch)
    scores = problem.score(problem.fit(name))
    assert scores.shape == (6,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all(), scores


@pytest.mark.parametrize("name", METHODS)
def test_the_inputs_stay_as_they_are(name: str) -> None:
    """Other methods score the same tensors."""
    problem = make_problem(1)
    routed = problem.line.route(problem.features)[1]
    given = [each.clone() for each in (problem.features, problem.logits, routed)]
    problem.fit(name).score(*given)
    assert all(map(torch.equal, given, (problem.features, problem.logits, routed)))


class TestObjections:
    def test_none_after_relu(self) -> None:
        """Features that are never negative suit every method."""
        problem = make_problem(0)
        assert problem.objections() == {}

    def test_negative_features(self) -> None:
        """What shapes activations is not for networks without a ReLU, and says so."""
        problem = make_problem(0, negative=True)
        found = problem.objections()
        assert found.pop("line-paper") == "it is what line already is here: the same masks"
        assert set(found) == {"react", "dice", "ash-s", "scale"}
        assert set(found.values()) == {"features can be negative (no ReLU before the head)"}

    def test_features_that_are_mostly_zero(self) -> None:
        """ReAct would clip at 0, and all images would be alike."""
        problem = make_problem(0)
        features = problem.sample.features.clone()
        features[:, 2:] = 0
        found = problem._replace(sample=Sample(features, problem.sample.labels)).objections()
        assert found == {"react": "97% of the features are zero, so that the clip would be"}

    def test_too_few_images_for_class_means(self) -> None:
        """CADRef needs two images a class, on average."""
        problem = make_problem(0, images=9)
        found = problem.objections()
        assert found == {"cadref": "9 images are too few for means of 5 classes: 10 are needed"}
        assert make_problem(0, images=10).objections() == {}

    def test_energies_below_zero(self) -> None:
        """CADRef divides by the mean energy."""
        problem = make_problem(0)
        found = problem._replace(head=Head(problem.head.weight, problem.head.bias - 100)).objections()
        assert list(found) == ["cadref"]
        assert found["cadref"].startswith("the mean of logsumexp(logits) is -")


def test_fit_all_fits_the_named_in_their_order() -> None:
    """Methods come as they were asked for, each as if alone."""
    problem = make_problem(2)
    found = problem.fit_all(["vim", "msp"])
    assert [(name, method.name) for name, method in found.items()] == [("vim", "vim"), ("msp", "msp")]


@pytest.mark.parametrize("name", ["msp", "gen", "energy", "maxlogit", "fdbd", "cadref", "vim", "scale"])
def test_a_logit_that_is_raised_brings_an_image_in(name: str) -> None:
    """The sign: an image that is nearer to a class scores lower."""
    problem = make_problem(4)
    method = problem.fit(name)
    logits, routed = problem.line.route(problem.features)
    raised = logits.scatter(1, logits.argmax(1, keepdim=True), logits.amax(1, keepdim=True) + 1)
    assert (method.score(problem.features, raised, routed) < method.score(problem.features, logits, routed)).all()
