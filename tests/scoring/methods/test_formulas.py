"""Every method, fitted, against its formula in plain Python loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from scoring.methods import METHODS, Sample
from scoring.methods.cadref import cadref, predicted_means
from scoring.methods.dice import sparse_weight
from scoring.methods.fdbd import inverse_distances
from scoring.methods.gen import gen
from scoring.methods.max_softmax import msp
from scoring.methods.shaping import strongest
from scoring.methods.vim import principal_count
from scoring.types import Head
from tests import reference
from tests.scoring.methods import oracles
from tests.scoring.methods.problems import CLIP, P_A, P_W, Problem, make_problem

SEEDS = range(12)
Oracle = Callable[[reference.Vector, Problem], float]


def parts(problem: Problem) -> tuple[reference.Matrix, reference.Vector, reference.Matrix]:
    head, sample = problem.head, problem.sample
    return head.weight.double().tolist(), head.bias.double().tolist(), sample.features.double().tolist()


def of_logits(formula: Callable[[reference.Vector], float]) -> Oracle:
    def run(h: reference.Vector, problem: Problem) -> float:
        weight, bias, _ = parts(problem)
        return formula(reference.linear(h, weight, bias))

    return run


def of_features(formula: Callable[..., float], *settings: float, fitted: bool = True) -> Oracle:
    def run(h: reference.Vector, problem: Problem) -> float:
        weight, bias, sample = parts(problem)
        return formula(h, weight, bias, *([sample] if fitted else []), *settings)

    return run


def cadref_oracle(h: reference.Vector, problem: Problem) -> float:
    return oracles.cadref(h, *parts(problem), problem.sample.labels.tolist())


def line_paper_oracle(h: reference.Vector, problem: Problem) -> float:
    return oracles.line_paper(h, *parts(problem), problem.sample.labels.tolist(), P_A, P_W, CLIP)


ORACLES: dict[str, Oracle] = {
    "line-paper": line_paper_oracle,
    "msp": of_logits(oracles.msp),
    "maxlogit": of_logits(oracles.max_logit),
    "energy": of_logits(reference.energy),
    "gen": of_logits(lambda z: oracles.gen(z, 0.1, 100)),
    "react": of_features(oracles.react, 90),
    "dice": of_features(oracles.dice, 90),
    "ash-s": of_features(oracles.ash_s, 90, fitted=False),
    "scale": of_features(oracles.scale, 85, fitted=False),
    "fdbd": of_features(oracles.fdbd),
    "nci": of_features(oracles.nci, 1e-4),
    "cadref": cadref_oracle,
    "vim": of_features(oracles.vim, 12),
}
HALVES = {"cadref": 1e-3, "vim": 5e-3}  # their tables are kept in float16


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", METHODS)
def test_equals_the_oracle(name: str, seed: int) -> None:
    """Fitted with its defaults, a method answers what its paper says."""
    problem = make_problem(seed)
    found = problem.score(problem.fit(name))
    wanted = [ORACLES[name](h, problem) for h in problem.features.double().tolist()]
    tolerance = HALVES.get(name, 1e-5)
    torch.testing.assert_close(
        found.double(), torch.tensor(wanted, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("name", ["line-paper", "nci", "cadref", "fdbd", "vim"])
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_the_oracle_with_features_of_either_sign(name: str, seed: int) -> None:
    """The methods that ask where features lie do not need a ReLU."""
    problem = make_problem(seed, negative=True)
    found = problem.score(problem.fit(name))
    wanted = [ORACLES[name](h, problem) for h in problem.features.double().tolist()]
    tolerance = HALVES.get(name, 1e-5)
    torch.testing.assert_close(
        found.double(), torch.tensor(wanted, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


class TestSureNetworks:
    """Logits so far apart that softmax in float32 is 1 and 0."""

    @pytest.mark.parametrize("gap", [10.0, 20.0, 40.0, 80.0])
    def test_msp_keeps_its_digits(self, gap: float) -> None:
        """No ties at 0: in float32 as in exact arithmetic."""
        logits = torch.tensor([[0.0, gap, 1.0, gap / 2]])
        wanted = oracles.msp(logits[0].double().tolist())
        assert wanted > 0
        torch.testing.assert_close(msp(logits).double(), torch.tensor([wanted], dtype=torch.float64), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("gap", [10.0, 20.0, 40.0, 80.0])
    def test_gen_keeps_its_digits(self, gap: float) -> None:
        """A power of 0.1 makes 0.13 of a probability of 1e-9: it must not be rounded away."""
        logits = torch.tensor([[0.0, gap, 1.0, gap / 2]])
        wanted = [oracles.gen(logits[0].double().tolist(), 0.1, 3)]
        torch.testing.assert_close(
            gen(logits, 0.1, 3).double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=0
        )

    def test_float64_stays_float64(self) -> None:
        """Callers that want more digits of the logits get them."""
        logits = make_problem(0).logits.double()
        wanted = [oracles.msp(each) for each in logits.tolist()]
        torch.testing.assert_close(msp(logits), torch.tensor(wanted, dtype=torch.float64), rtol=1e-13, atol=0)


class TestPruning:
    def test_ash_keeps_as_many_as_the_authors(self) -> None:
        """D - round(p D / 100), half to even, and one at least."""
        # 22.5 and 4.5 are removed as 22 and 4, 31.5 and 13.5 as 32 and 14.
        wanted = {1: 1, 2: 1, 5: 1, 15: 1, 25: 3, 35: 3, 342: 34, 2048: 205}
        found = {count: strongest(torch.rand(2, count), 90).values.shape[1] for count in wanted}
        assert found == wanted

    def test_ties_leave_the_same_number(self) -> None:
        """Of equal activations at the border as many are kept as fit, not all and not none."""
        features = torch.tensor([[1.0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [2.0, 1, 1, 1, 0, 0, 0, 0, 0, 0]])
        assert strongest(features, 80).values.sort(descending=True).values.tolist() == [[1, 1], [2, 1]]

    def test_dice_removes_what_lies_on_the_percentile(self) -> None:
        """The comparison is strict: with all shares equal nothing is left."""
        assert not sparse_weight(torch.ones(2, 3), torch.ones(3), 50).any()
        found = sparse_weight(torch.tensor([[5.0, 1, 3, 2, 4]]), torch.ones(5), 50)
        assert found.tolist() == [[5, 0, 0, 0, 4]]


def test_equal_weights_have_no_boundary() -> None:
    """FDBD leaves out a class that has the weights of the predicted one, and itself."""
    weight = torch.tensor([[1.0, 2.0], [1.0, 2.0], [4.0, 6.0]])
    wanted = torch.tensor([[0, 0, 0.2], [0, 0, 0.2], [0.2, 0.2, 0]])
    torch.testing.assert_close(inverse_distances(weight), wanted)


class TestClassMeans:
    def problem(self) -> Problem:
        """Class 0 is never predicted, class 1 neither nor labelled."""
        problem = make_problem(3)
        bias = torch.tensor([-1e4, -1e4, 3.0, 3.0, 3.0])
        labels = problem.sample.labels.where(problem.sample.labels != 1, 2)
        return Problem(Head(problem.head.weight, bias), Sample(problem.sample.features, labels), torch.ones(1, 24))

    def test_fall_back_as_the_oracle_says(self) -> None:
        """A class without predicted images takes its labelled ones, or all; never NaN."""
        problem = self.problem()
        weight, bias, features = parts(problem)
        wanted = oracles.predicted_means(features, problem.sample.labels.tolist(), weight, bias)
        found = predicted_means(problem.sample, problem.sample.logits(problem.head).argmax(1), 5)
        torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-7)

    def test_of_predicted_classes_are_not_those_of_labels(self) -> None:
        """The label of a wrongly predicted image does not count."""
        found = predicted_means(Sample(torch.tensor([[1.0], [5.0]]), torch.tensor([1, 0])), torch.tensor([0, 1]), 2)
        assert found.tolist() == [[1], [5]]

    def test_small_energies_keep_the_sign(self) -> None:
        """Divided by a negative energy, what is far out would look near."""
        near = cadref(torch.ones(1, 2), torch.tensor([[-5.0]]), torch.ones(1, 2), torch.zeros(1, 2), 1.0)
        assert near.tolist() == [pytest.approx(1000)]


@pytest.mark.parametrize(
    ("features", "images", "wanted"),
    [
        (2048, 20_000, 1000),
        (768, 20_000, 512),
        (1280, 20_000, 512),
        (342, 20_000, 171),
        (1, 9, 0),
        (1280, 500, 250),
        (64, 1, 0),
    ],
)
def test_principal_directions(features: int, images: int, wanted: int) -> None:
    """ViM's d is the authors' for their networks, and leaves something to measure for all."""
    assert principal_count(features, images) == wanted
