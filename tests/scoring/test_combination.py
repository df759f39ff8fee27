"""The merged score: against a slow oracle, monotone, the same for every batch, and safe to read from a file."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import logistic
from torch import Tensor

from scoring.combination import MAX_KNOTS, PREFIX, Combination
from scoring.errors import ArtifactError, DatasetError

Scores = npt.NDArray[np.float64]


def reference(count: int, seed: int = 0) -> dict[str, Scores]:
    """Three methods that go together, on scales of their own."""
    random = np.random.default_rng(seed)
    common = random.normal(size=count)
    a, b, c = (common + random.normal(size=count) for _ in range(3))
    return {"line": np.exp(a) - 20, "energy": 3 * b, "msp": 1 / (1 + np.exp(4 - c))}


def bell(others: Scores) -> tuple[float, float]:
    """Location and scale of the logistic distribution with the mean and the standard deviation of these."""
    return float(np.mean(others)), float(np.std(others)) * math.sqrt(3) / math.pi


def log_odds(score: float, others: Scores) -> float:
    """log((1 - p) / p) of one of the reference scores: p counted, or of the logistic distribution if more."""
    counted = sum(other >= score for other in others.tolist()) / (len(others) + 1)
    p = max(counted, logistic.sf(score, *bell(others)))
    return math.log((1 - p) / p)


class TestScore:
    @pytest.mark.parametrize("ties", [False, True])
    def test_of_a_reference_image_is_the_log_odds_of_its_smallest_p_value(self, ties: bool) -> None:
        """Against counting, image by image, and scipy's logistic distribution."""
        scores = {name: values.round(1) if ties else values for name, values in reference(300).items()}
        merged = Combination.fit(scores)(scores)
        wanted = [max(log_odds(values[i], values) for values in scores.values()) for i in range(300)]
        np.testing.assert_allclose(merged, wanted, rtol=1e-9, atol=1e-12)

    def test_asks_as_much_of_a_reference_that_ends_early(self) -> None:
        """Uniform scores have their last ranks at a z-score of 1.7, where a logistic distribution has 4 % left."""
        merged = Combination.fit({"a": np.arange(1000.0)})
        location, scale = bell(np.arange(1000.0))
        found = 1 / (1 + np.exp(merged({"a": np.array([970.0, 990.0, 999.0])})))
        np.testing.assert_allclose(found, logistic.sf([970, 990, 999], location, scale), rtol=1e-9)
        assert found[-1] > 0.04

    def test_between_reference_images_is_interpolated(self) -> None:
        """Linearly in the score, as numpy does it."""
        scores = np.sort(reference(300)["line"])
        tested = np.random.default_rng(1).uniform(scores[0], scores[-1], 2000)
        wanted = np.interp(tested, scores, [log_odds(score, scores) for score in scores])
        np.testing.assert_allclose(Combination.fit({"line": scores})({"line": tested}), wanted, rtol=1e-9, atol=1e-12)

    def test_beyond_all_reference_images_goes_on_as_the_outer_tenth(self) -> None:
        """Of 0..99 the last with p above 10 % is 89: the line from there to 99 goes on for ever; below all likewise."""
        merged = Combination.fit({"a": np.arange(100.0)})
        location, scale = bell(np.arange(100.0))
        top, inner = (99 - location) / scale, math.log((101 - 11) / 11)
        assert merged({"a": np.array([99.0, 99 + 1e6])}) == pytest.approx([top, top + 1e6 * (top - inner) / 10])
        bottom, inner = math.log(1 / 100), (15 - location) / scale  # of 15, the first with p below 90 %
        assert merged({"a": np.array([0.0, -1e6])}) == pytest.approx([bottom, bottom - 1e6 * (inner - bottom) / 15])

    def test_of_many_reference_images_keeps_p_values_to_a_few_percent(self) -> None:
        """A thousand knots stand for 50 000 images, and every image keeps its p-value within 2 % in the outer half."""
        scores = reference(50_000)["line"]
        merged = Combination.fit({"line": scores})
        assert merged.tensors()[PREFIX + "line"].shape[1] <= MAX_KNOTS
        tested = np.sort(scores)[25_000:]
        p = np.maximum(np.arange(25_000, 0, -1) / 50_001, logistic.sf(tested, *bell(scores)))
        np.testing.assert_allclose(1 / (1 + np.exp(merged({"line": tested}))), p, rtol=0.02)

    def test_does_not_change_when_a_method_is_given_twice(self) -> None:
        """Nor do methods that were not fitted."""
        scores = reference(300)
        twice = scores | {"again": scores["line"], "on another scale": 2 * scores["energy"] - 1}
        once = Combination.fit(scores)
        np.testing.assert_allclose(Combination.fit(twice)(twice), once(scores), rtol=1e-9, atol=1e-12)
        assert (once(twice) == once(scores)).all()

    def test_of_one_image_is_that_of_its_batch(self) -> None:
        """Bit for bit."""
        merged, scores = Combination.fit(reference(3000)), reference(64, seed=1)
        alone = [merged({name: values[i : i + 1] for name, values in scores.items()})[0] for i in range(64)]
        assert merged(scores).tolist() == alone

    def test_that_is_not_finite_is_not_hidden(self) -> None:
        """NaN of one method is NaN, infinity is as far out as can be."""
        merged = Combination.fit({"a": np.arange(9.0), "b": np.arange(9.0)})
        found = merged({"a": np.array([np.nan, np.inf, -np.inf]), "b": np.array([3.0, 3.0, -np.inf])})
        assert np.isnan(found[0])
        assert found[1:].tolist() == [np.inf, -np.inf]


class TestMonotony:
    @given(
        scores=st.lists(st.integers(-50, 50), min_size=2, max_size=40).filter(lambda found: len(set(found)) > 1),
        tested=st.lists(st.floats(-1000, 1000), min_size=1, max_size=20),
    )
    def test_never_falls_by_rounding(self, scores: list[int], tested: list[float]) -> None:
        """Each score, those of the reference images and the next numbers beside them, in order."""
        found = np.unique([*scores, *tested])
        found = np.unique([*np.nextafter(found, -np.inf), *found, *np.nextafter(found, np.inf)])
        merged = Combination.fit({"a": np.array(scores, np.float64)})({"a": found})
        assert (np.diff(merged) >= 0).all()

    def test_rises_strictly_where_scores_differ(self) -> None:
        """Also among outliers a million times further out than any reference image."""
        scores = reference(20_000)["line"]
        tested = np.concatenate([-np.geomspace(1e6, 30, 500), np.linspace(-20, 20, 5000), np.geomspace(30, 1e6, 500)])
        assert (np.diff(Combination.fit({"line": scores})({"line": tested})) > 0).all()

    def test_holds_in_every_method(self) -> None:
        """A larger score of one method never makes the merged one smaller."""
        merged, scores = Combination.fit(reference(500)), reference(200, seed=1)
        for name in scores:
            assert (merged(scores | {name: scores[name] + 0.1}) >= merged(scores)).all()


class TestFit:
    @pytest.mark.parametrize("scores", [[1.0, 1.0, 1.0], [1.0], [], [0.0, np.nan], [0.0, np.inf], [0.0, 5e-324]])
    def test_refuses_scores_without_an_order(self, scores: list[float]) -> None:
        """The method is named."""
        with pytest.raises(DatasetError, match="'flat'"):
            Combination.fit({"good": np.arange(3.0), "flat": np.array(scores)})


class TestTensors:
    def test_give_the_same_scores_back(self) -> None:
        """Bit for bit, from float64 tensors named after the methods."""
        before, scores = Combination.fit(reference(2000)), reference(500, seed=1)
        tensors = {name: tensor.clone() for name, tensor in before.tensors().items()}
        assert sorted(tensors) == ["combination.energy", "combination.line", "combination.msp"]
        after = Combination.restore(tensors, ["line", "energy", "msp"])
        assert (after(scores) == before(scores)).all()
        assert all(torch.equal(after.tensors()[name], tensor) for name, tensor in tensors.items())

    @pytest.mark.parametrize(
        ("name", "tensor"),
        [
            ("another type", torch.tensor([[0, 1], [0, 1]], dtype=torch.float32)),
            ("one row", torch.tensor([0.0, 1.0], dtype=torch.float64)),
            ("three rows", torch.zeros(3, 4, dtype=torch.float64)),
            ("no knot", torch.zeros(2, 0, dtype=torch.float64)),
            ("one knot", torch.zeros(2, 1, dtype=torch.float64)),
            ("too many knots", torch.arange(2.0 * (MAX_KNOTS + 1), dtype=torch.float64).reshape(2, -1)),
            ("scores that fall", torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)),
            ("scores that stay", torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)),
            ("values that fall", torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)),
            ("values that stay", torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)),
            ("NaN", torch.tensor([[0.0, torch.nan], [0.0, 1.0]], dtype=torch.float64)),
            ("infinity", torch.tensor([[0.0, 1.0], [0.0, torch.inf]], dtype=torch.float64)),
            ("no slope", torch.tensor([[-1e308, 1e308], [0.0, 1.0]], dtype=torch.float64)),
            ("a wall", torch.tensor([[0.0, 5e-324], [0.0, 1.0]], dtype=torch.float64)),
        ],
    )
    def test_that_are_no_such_function_are_refused(self, name: str, tensor: Tensor) -> None:
        """The error names the tensor."""
        good = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
        with pytest.raises(ArtifactError) as caught:
            Combination.restore({"combination.a": good, "combination.b": tensor}, ["a", "b"])
        assert caught.value.field == "combination.b", name

    @pytest.mark.parametrize(
        ("tensors", "methods"), [(["a"], ["a", "b"]), (["a", "b"], ["a"]), ([], ["a"]), ([], []), (["a"], ["b"])]
    )
    def test_of_other_methods_are_refused(self, tensors: list[str], methods: list[str]) -> None:
        """Missing ones, and ones that nobody asked for."""
        good = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
        with pytest.raises(ArtifactError, match="'combination'"):
            Combination.restore({PREFIX + name: good for name in tensors}, methods)
