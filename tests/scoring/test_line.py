"""LINe against the oracle in plain loops, against autograd, and against the limits of its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scoring import line
from scoring.methods import energy, msp
from scoring.types import Head
from tests import reference

SEEDS = range(8)
SETTINGS = [(10.0, 10.0, 0.8), (90.0, 90.0, 1.0), (10.0, 90.0, None), (0.0, 50.0, 0.5), (33.3, 0.0, 2.0)]


class Problem(NamedTuple):
    """A head with features of labelled images, as tensors."""

    features: Tensor  # (N, D)
    labels: Tensor  # (N,)
    head: Head

    @property
    def oracle_head(self) -> tuple[reference.Matrix, reference.Vector]:
        return self.head.weight.double().tolist(), self.head.bias.double().tolist()

    @property
    def class_means(self) -> Tensor:
        counts = self.labels.bincount(minlength=len(self.head.bias))
        sums = torch.zeros(len(counts), self.features.shape[1], dtype=torch.float64)
        return sums.index_add_(0, self.labels, self.features.double()) / counts[:, None]


def make_problem(
    seed: int, *, images: int = 30, classes: int = 5, features: int = 7, negative: bool = False
) -> Problem:
    """Every class has images; a third of the features are exactly zero, as after ReLU."""
    random = torch.Generator().manual_seed(seed)
    h = torch.randn(images, features, generator=random)
    h = h if negative else h.relu()
    weight = torch.randn(classes, features, generator=random)
    bias = torch.randn(classes, generator=random)
    return Problem(h, torch.arange(images) % classes, Head(weight, bias))


def coarse(problem: Problem) -> Problem:
    """The same with all numbers halves, so that products and percentiles tie all the time."""
    halves = [(2 * each).round() / 2 for each in (problem.features, problem.head.weight, problem.head.bias)]
    return Problem(halves[0], problem.labels, Head(halves[1], halves[2]))


def learn(problem: Problem, p_a: float, p_w: float) -> tuple[Tensor, Tensor, Tensor]:
    """Contribution, activation mask and weight thresholds."""
    contribution = line.signed_contribution(problem.class_means, problem.head.weight)
    thresholds = [line.weight_threshold(row, problem.head.weight, p_w) for row in contribution]
    return contribution, line.activation_mask(contribution, p_a), torch.tensor(thresholds, dtype=torch.float64)


def score(problem: Problem, features: Tensor, p_a: float, p_w: float, delta: float | None) -> Tensor:
    """Calibrate on the problem and score features."""
    contribution, mask, thresholds = learn(problem, p_a, p_w)
    floors = line.weight_floors(contribution, thresholds, mask)
    return line.line(features, problem.head, delta, floors)


def oracle_scores(problem: Problem, features: Tensor, p_a: float, p_w: float, delta: float | None) -> list[float]:
    """The same, by the oracle; its contribution is rounded to float32, as `scoring` promises to do."""
    weight, bias = problem.oracle_head
    contributions = reference.contribution(problem.features.double().tolist(), problem.labels.tolist(), weight)
    rounded = torch.tensor(contributions, dtype=torch.float64).float().double().tolist()
    learnt = reference.masks(rounded, weight, p_a, p_w)
    return [reference.ood_score(h, weight, bias, delta, learnt) for h in features.double().tolist()]


class TestContribution:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_equals_the_oracle(self, seed: int) -> None:
        """Class means times weights are the per-image contributions, averaged."""
        problem = make_problem(seed)
        weight, _ = problem.oracle_head
        wanted = reference.contribution(problem.features.double().tolist(), problem.labels.tolist(), weight)
        found = line.signed_contribution(problem.class_means, problem.head.weight)
        torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_equals_autograd(self, seed: int) -> None:
        """They are h times the gradient of the true class's logit, as the authors compute them."""
        problem = make_problem(seed)
        h = problem.features.double().requires_grad_()
        logits = h @ problem.head.weight.double().T + problem.head.bias.double()
        logits.gather(1, problem.labels[:, None]).sum().backward()
        assert h.grad is not None
        each = (h * h.grad).detach()
        wanted = torch.stack([each[problem.labels == c].mean(0) for c in range(5)])
        found = line.signed_contribution(problem.class_means, problem.head.weight)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_absolute_variant_equals_the_oracle(self, seed: int) -> None:
        """With negative features the mean of |h| times |W| is the mean of each image's |h * W|."""
        problem = make_problem(seed, negative=True)
        weight, _ = problem.oracle_head
        features, labels = problem.features.double().tolist(), problem.labels.tolist()
        wanted = torch.tensor(reference.contribution(features, labels, weight, absolute=True), dtype=torch.float64)
        means = problem._replace(features=problem.features.abs()).class_means
        found = line.absolute_contribution(means, problem.head.weight)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-7)
        assert (found >= 0).all()

    def test_absolute_variant_is_the_size_of_the_signed_one_after_relu(self) -> None:
        """For features that are never negative the two variants differ only in sign."""
        problem = make_problem(3)
        signed = line.signed_contribution(problem.class_means, problem.head.weight)
        assert torch.equal(line.absolute_contribution(problem.class_means, problem.head.weight), signed.abs())
        assert (signed < 0).any()

    @pytest.mark.parametrize("absolute", [False, True])
    def test_class_without_images_equals_the_oracle(self, absolute: bool) -> None:
        """It takes the mean over the classes that have images, whatever its own row holds; never NaN."""
        problem = make_problem(1, negative=absolute)
        seen = problem.labels != 2
        features, labels = problem.features[seen], problem.labels[seen]
        weight, _ = problem.oracle_head
        wanted = reference.contribution(features.double().tolist(), labels.tolist(), weight, absolute=absolute)
        kept = Problem(features.abs() if absolute else features, labels, problem.head)
        assert kept.class_means[2].isnan().all()
        means = line.fill_empty_classes(kept.class_means, labels.bincount(minlength=5))
        take = line.absolute_contribution if absolute else line.signed_contribution
        torch.testing.assert_close(
            take(means, problem.head.weight).double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-7
        )

    def test_classes_with_images_are_left_alone(self) -> None:
        """Filling changes the rows of empty classes only."""
        means = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan], [3.0, 6.0]], dtype=torch.float64)
        filled = line.fill_empty_classes(means, torch.tensor([1, 0, 9]))
        assert filled.tolist() == [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]


class TestActivationMask:
    @pytest.mark.parametrize("p_a", [0.0, 1.0, 10.0, 33.3, 50.0, 90.0, 99.9])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_equals_the_oracle(self, seed: int, p_a: float) -> None:
        """Entry for entry, with and without ties."""
        for problem in (make_problem(seed, features=11), coarse(make_problem(seed, features=11))):
            contribution, mask, _ = learn(problem, p_a, 0.0)
            assert mask.tolist() == reference.activation_mask(contribution.double().tolist(), p_a)

    def test_an_entry_on_the_percentile_is_removed(self) -> None:
        """The comparison is strict."""
        contribution = torch.tensor([[5.0, 1.0, 3.0, 2.0, 4.0]])
        assert line.activation_mask(contribution, 50).tolist() == [[True, False, False, False, True]]

    def test_equal_contributions_are_all_removed(self) -> None:
        """Nothing is above the percentile of a constant, the constant zero included."""
        contribution = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
        assert not line.activation_mask(contribution, 10).any()

    def test_removing_nothing_keeps_even_the_smallest(self) -> None:
        """p_a = 0 keeps all, though the smallest entry is not above the 0th percentile."""
        assert line.activation_mask(torch.tensor([[-1.0, 0.0, 0.0]]), 0).all()

    def test_the_sign_counts(self) -> None:
        """A large negative contribution is the first to be removed."""
        assert line.activation_mask(torch.tensor([[-9.0, 1.0, 2.0]]), 50).tolist() == [[False, False, True]]


class TestWeightMask:
    @pytest.mark.parametrize("p_w", [0.0, 1.0, 10.0, 33.3, 50.0, 90.0, 99.9])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_equals_the_oracle(self, seed: int, p_w: float) -> None:
        """The floors stand for the explicit (class, class, feature) mask, entry for entry, ties included."""
        for problem in (make_problem(seed), coarse(make_problem(seed))):
            contribution, mask, thresholds = learn(problem, 0.0, p_w)
            floors = line.weight_floors(contribution, thresholds, mask)
            weight, _ = problem.oracle_head
            wanted = reference.masks(contribution.double().tolist(), weight, 0.0, p_w).weight
            found = [(problem.head.weight >= floors[c]).tolist() for c in range(5)]
            assert found == wanted

    @pytest.mark.parametrize("p_w", [10.0, 33.3, 90.0])
    def test_threshold_equals_the_oracle(self, p_w: float) -> None:
        """It is the same float64 number, not one near it."""
        problem = make_problem(4)
        contribution, _, thresholds = learn(problem, 0.0, p_w)
        weight, _ = problem.oracle_head
        wanted = [reference.weight_threshold(row, weight, p_w) for row in contribution.double().tolist()]
        assert thresholds.tolist() == wanted

    def test_removing_nothing_is_minus_infinity(self) -> None:
        """p_w = 0 keeps all."""
        assert line.weight_threshold(torch.ones(2), torch.ones(3, 2), 0) == -math.inf


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def kept_by_floor(size: float, weight: float, cut: float) -> bool:
    """One entry of the weight mask, through `weight_floors`."""
    contribution = torch.tensor([[size]], dtype=torch.float32)
    threshold, mask = torch.tensor([cut], dtype=torch.float64), torch.tensor([[True]])
    floor = line.weight_floors(contribution, threshold, mask)
    return bool((torch.tensor([[weight]], dtype=torch.float32) >= floor).item())


def neighbours(value: float) -> list[float]:
    """A float32 with the two next to it."""
    here = torch.tensor(value, dtype=torch.float32)
    return [torch.nextafter(here, torch.tensor(end)).item() for end in (-math.inf, math.inf)] + [here.item()]


class TestWeightFloors:
    """`W >= floor` holds exactly when |C| * W > t in float64."""

    @given(size=FLOAT32, weight=FLOAT32, cut=st.floats(allow_nan=False))
    def test_any_numbers(self, size: float, weight: float, cut: float) -> None:
        """Whatever the float32 contribution and weight, and whatever the float64 threshold."""
        assert kept_by_floor(size, weight, cut) == (abs(size) * weight > cut)

    @given(size=FLOAT32, weight=FLOAT32, other=FLOAT32)
    def test_threshold_on_a_product(self, size: float, weight: float, other: float) -> None:
        """On a tie, and one float32 step to either side of it, the decision is the strict one."""
        for cut in (abs(size) * weight, abs(size) * other):
            for near in neighbours(weight):
                if math.isfinite(near):
                    assert kept_by_floor(size, near, cut) == (abs(size) * near > cut)

    @given(size=FLOAT32, weight=FLOAT32)
    def test_threshold_beside_a_product(self, size: float, weight: float) -> None:
        """One float64 step beside a product decides it, though float32 cannot tell them apart."""
        product = abs(size) * weight
        assert kept_by_floor(size, weight, math.nextafter(product, -math.inf))
        assert not kept_by_floor(size, weight, math.nextafter(product, math.inf))

    @pytest.mark.parametrize("weight", [-3e38, -1.0, -0.0, 0.0, 1e-45, 3e38])
    @pytest.mark.parametrize(("cut", "kept"), [(-1e-300, True), (-math.inf, True), (0.0, False), (1e-300, False)])
    def test_no_contribution(self, weight: float, cut: float, kept: bool) -> None:
        """A contribution of zero makes every product zero: all weights are kept, or none."""
        assert kept_by_floor(0.0, weight, cut) == kept

    @pytest.mark.parametrize("size", [1e-45, 1e-20, 1.0, 3e38])
    @pytest.mark.parametrize("weight", [-3.4e38, -1e-45, 0.0, 1e-45, 3.4e38])
    def test_minus_infinity_keeps_every_weight(self, size: float, weight: float) -> None:
        """The threshold that removes nothing removes nothing, however large the numbers."""
        assert kept_by_floor(size, weight, -math.inf)

    def test_many_at_once(self) -> None:
        """A whole (class, feature) matrix with thresholds taken from its own products, as calibration does."""
        random = torch.Generator().manual_seed(0)
        contribution = torch.randn(20, 30, generator=random) * torch.logspace(-30, 30, 30)
        weight = torch.randn(20, 30, generator=random) * torch.logspace(20, -20, 30)
        products = contribution.double().abs()[:, None] * weight.double()  # (K, K, D)
        thresholds = products.flatten(1).quantile(0.5, dim=1, interpolation="lower")
        floors = line.weight_floors(contribution, thresholds, torch.ones(20, 30, dtype=torch.bool))
        assert torch.equal(weight >= floors[:, None], products > thresholds[:, None, None])

    def test_the_activation_mask_removes_every_weight_of_a_feature(self) -> None:
        """What it removes has a floor that no weight reaches; the other floors are as without it."""
        problem = make_problem(2)
        contribution, mask, thresholds = learn(problem, 40.0, 10.0)
        both = line.weight_floors(contribution, thresholds, mask)
        alone = line.weight_floors(contribution, thresholds, torch.ones_like(mask))
        assert torch.equal(both[mask], alone[mask])
        assert (~mask).any() and (both[~mask] == math.inf).all()


class TestScores:
    @pytest.mark.parametrize(("p_a", "p_w", "delta"), SETTINGS)
    @pytest.mark.parametrize("seed", SEEDS)
    def test_equal_the_oracle(self, seed: int, p_a: float, p_w: float, delta: float | None) -> None:
        """Every image of a batch, to 1e-5."""
        problem = make_problem(seed)
        fresh = 3 * make_problem(seed + 100).features
        found = score(problem, fresh, p_a, p_w, delta)
        torch.testing.assert_close(
            found.double(),
            torch.tensor(oracle_scores(problem, fresh, p_a, p_w, delta), dtype=torch.float64),
            rtol=0,
            atol=1e-5,
        )

    def test_the_settings_tell_images_apart(self) -> None:
        """The comparison above is worth something: each of the settings gives other scores."""
        problem = make_problem(0)
        all_scores = [score(problem, problem.features, *each) for each in SETTINGS]
        assert len({tuple(each.tolist()) for each in all_scores}) == len(SETTINGS)

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 29, 30])
    def test_do_not_depend_on_the_batch(self, size: int) -> None:
        """An image scores the same alone and in company, to float32 rounding."""
        problem = make_problem(5)
        whole = score(problem, problem.features, 10, 10, 0.8)
        parts = torch.cat([score(problem, part, 10, 10, 0.8) for part in problem.features.split(size)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)

    def test_of_an_empty_batch_are_none(self) -> None:
        """Zero images give zero scores."""
        problem = make_problem(5)
        assert score(problem, problem.features[:0], 10, 10, 0.8).shape == (0,)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_one_broken_image_leaves_its_neighbours_alone(self, bad: float) -> None:
        """NaN or infinity in one row changes no other row, not even one of the same routed class."""
        problem = make_problem(6)
        broken = problem.features.clone()
        broken[4, 2] = bad
        before, after = (score(problem, each, 10, 10, None) for each in (problem.features, broken))
        others = torch.arange(len(broken)) != 4
        torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-6)

    def test_of_nan_features_are_nan(self) -> None:
        """A clip does not hide what cannot be scored."""
        problem = make_problem(6)
        assert score(problem, torch.full((1, 7), math.nan), 0, 10, 0.8).isnan().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_take_features_of_any_float_type(self, dtype: torch.dtype) -> None:
        """They are computed in float32 of what the features hold."""
        problem = make_problem(7)
        features = problem.features.to(dtype)
        found = score(problem, features, 10, 10, 0.8)
        assert found.dtype == torch.float32
        assert torch.equal(found, score(problem, features.float(), 10, 10, 0.8))

    def test_leave_the_features_as_they_are(self) -> None:
        """Clipping makes a copy."""
        problem = make_problem(7)
        before = problem.features.clone()
        score(problem, problem.features, 10, 10, 0.01)
        assert torch.equal(problem.features, before)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_without_pruning_are_react(self, seed: int) -> None:
        """p_a = p_w = 0 is the energy of the clipped features under the full head."""
        problem = make_problem(seed)
        react = energy(problem.features.clamp(max=0.7) @ problem.head.weight.T + problem.head.bias)
        torch.testing.assert_close(score(problem, problem.features, 0, 0, 0.7), react, rtol=0, atol=1e-5)
        assert (problem.features > 0.7).any()

    @pytest.mark.parametrize("seed", SEEDS)
    def test_without_pruning_and_clip_are_energy(self, seed: int) -> None:
        """With no clip either, it is the energy of the classifier's own logits."""
        problem = make_problem(seed, negative=True)
        plain = energy(problem.features @ problem.head.weight.T + problem.head.bias)
        torch.testing.assert_close(score(problem, problem.features, 0, 0, None), plain, rtol=0, atol=1e-5)

    def test_the_bias_is_never_pruned(self) -> None:
        """With every weight and every feature removed the logits are the bias."""
        problem = make_problem(8)
        routed = line.routed_class(problem.features, problem.head)
        logits = line.masked_logits(problem.features, routed, problem.head, torch.full((5, 7), torch.inf))
        assert torch.equal(logits, problem.head.bias.expand(30, 5))

    def test_absolute_variant_equals_the_oracle(self) -> None:
        """Negative features: clip from above only, masks from |h| * |W|."""
        problem = make_problem(9, negative=True)
        weight, bias = problem.oracle_head
        features = problem.features.double().tolist()
        contributions = reference.contribution(features, problem.labels.tolist(), weight, absolute=True)
        rounded = torch.tensor(contributions, dtype=torch.float64).float()
        learnt = reference.masks(rounded.double().tolist(), weight, 30, 30)
        wanted = [reference.ood_score(h, weight, bias, 0.5, learnt) for h in features]
        means = problem._replace(features=problem.features.abs()).class_means
        contribution = line.absolute_contribution(means, problem.head.weight)
        cuts = [line.weight_threshold(row, problem.head.weight, 30) for row in contribution]
        mask = line.activation_mask(contribution, 30)
        floors = line.weight_floors(contribution, torch.tensor(cuts, dtype=torch.float64), mask)
        found = line.line(problem.features, problem.head, 0.5, floors)
        torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-5)

    def test_routing_reads_the_clipped_features(self) -> None:
        """The routed class is that of the clipped features, not the prediction."""
        head = Head(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2))
        features = torch.tensor([[9.0, 0.9]])
        assert line.routed_class(features, head).tolist() == [0]
        assert line.routed_class(line.clip(features, 1.0), head).tolist() == [1]


class TestMemory:
    def test_no_temporary_grows_with_batch_times_head(self) -> None:
        """A batch needs a few (class, feature) temporaries, never one an image."""
        classes, features, images = 200, 512, 64
        problem = make_problem(0, images=images, classes=classes, features=features)
        floors = torch.zeros(classes, features)
        one_an_image = images * classes * features * 4

        def largest_allocation(work: Callable[[], Tensor]) -> int:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as trace:
                work()
            return max(event.cpu_memory_usage for event in trace.events())

        wasteful = largest_allocation(lambda: problem.features[:, None] * problem.head.weight)
        assert wasteful >= one_an_image  # the measure sees what it is there to see
        routed = line.routed_class(problem.features, problem.head).unique()
        assert len(routed) > 10
        found = largest_allocation(lambda: line.line(problem.features, problem.head, 1.0, floors))
        assert found < one_an_image / 8


class TestLogitScores:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_energy_equals_the_oracle(self, seed: int) -> None:
        """-logsumexp, safe for large logits."""
        logits = 200 * make_problem(seed).head.weight
        wanted = torch.tensor([reference.energy(row) for row in logits.double().tolist()], dtype=torch.float64)
        torch.testing.assert_close(energy(logits).double(), wanted, rtol=1e-6, atol=1e-5)

    def test_msp(self) -> None:
        """1 - max softmax: 0 for a certain image, 1 - 1/K for one that says nothing."""
        logits = torch.tensor([[100.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
        torch.testing.assert_close(msp(logits), torch.tensor([0.0, 0.75]))
