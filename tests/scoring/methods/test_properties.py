"""What holds for every method: a finite score for every image, whatever its neighbours are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.methods import METHODS, Sample, fit_all, objections
from scoring.types import Head
from tests.scoring.methods.problems import Problem, make_problem

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 9))  # images, classes, features


@pytest.mark.parametrize("name", METHODS)
@given(seed=st.integers(0, 99), order=st.permutations(range(10)), size=st.integers(1, 10))
@settings(max_examples=15)
def test_neighbours_do_not_matter(name: str, seed: int, order: list[int], size: int) -> None:
    """An image scores the same in any batch."""
    problem = make_problem(seed)
    method = METHODS[name].fit(problem.sample, problem.head)
    rows = torch.tensor(order[:size])
    alone = method.score(problem.features[rows], problem.logits[rows])
    torch.testing.assert_close(alone, method.score(problem.features, problem.logits)[rows], rtol=1e-5, atol=1e-5)


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
    scores = METHODS[name].fit(sample, head).score(problem.features, problem.logits)
    assert scores.shape == (6,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all(), scores


@pytest.mark.parametrize("name", METHODS)
def test_the_inputs_stay_as_they_are(name: str) -> None:
    """Other methods score the same tensors."""
    problem = make_problem(1)
    features, logits = problem.features.clone(), problem.logits.clone()
    METHODS[name].fit(problem.sample, problem.head).score(features, logits)
    assert torch.equal(features, problem.features)
    assert torch.equal(logits, problem.logits)


class TestObjections:
    def test_none_after_relu(self) -> None:
        """Features that are never negative suit every method."""
        problem = make_problem(0)
        assert objections(problem.sample, problem.head) == {}

    def test_negative_features(self) -> None:
        """What shapes activations is not for networks without a ReLU, and says so."""
        problem = make_problem(0, negative=True)
        found = objections(problem.sample, problem.head)
        assert set(found) == {"react", "dice", "ash-s", "scale"}
        assert set(found.values()) == {"features can be negative (no ReLU before the head)"}

    def test_features_that_are_mostly_zero(self) -> None:
        """ReAct would clip at 0, and all images would be alike."""
        problem = make_problem(0)
        features = problem.sample.features.clone()
        features[:, 2:] = 0
        found = objections(Sample(features, problem.sample.labels), problem.head)
        assert found == {"react": "97% of the features are zero, so that the clip would be"}

    def test_too_few_images_for_class_means(self) -> None:
        """CADRef needs two images a class, on average."""
        problem = make_problem(0, images=9)
        found = objections(problem.sample, problem.head)
        assert found == {"cadref": "9 images are too few for means of 5 classes: 10 are needed"}
        assert objections(make_problem(0, images=10).sample, problem.head) == {}

    def test_energies_below_zero(self) -> None:
        """CADRef divides by the mean energy."""
        problem = make_problem(0)
        found = objections(problem.sample, Head(problem.head.weight, problem.head.bias - 100))
        assert list(found) == ["cadref"]
        assert found["cadref"].startswith("the mean of logsumexp(logits) is -")


def test_fit_all_fits_the_named_in_their_order() -> None:
    """Methods come as they were asked for, each as if alone."""
    problem = make_problem(2)
    found = fit_all(["vim", "msp"], problem.sample, problem.head)
    assert [(name, method.name) for name, method in found.items()] == [("vim", "vim"), ("msp", "msp")]


@pytest.mark.parametrize("name", ["msp", "gen", "energy", "maxlogit", "fdbd", "cadref", "vim", "scale"])
def test_a_logit_that_is_raised_brings_an_image_in(name: str) -> None:
    """The sign: an image that is nearer to a class scores lower."""
    problem = make_problem(4)
    method = METHODS[name].fit(problem.sample, problem.head)
    logits = problem.logits
    raised = logits.scatter(1, logits.argmax(1, keepdim=True), logits.amax(1, keepdim=True) + 1)
    assert (method.score(problem.features, raised) < method.score(problem.features, logits)).all()
