"""The promises of the reject flag, kept over thousands of calibration sets that are drawn anew.

Where scores are uniform on 0..1, the rate that a threshold t realises is 1 - t exactly; likewise for the laws below. So
each draw of a calibration set gives the exact rate, and what is left to chance is the draw.
A promise that is just kept breaks each bound by chance in one test of a thousand (CHANCE): of counts the bound is the
quantile of their binomial law, of means SIGMAS standard errors. The tests also show what breaks the promises.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, norm

from scoring import conformal
from scoring.combination import Combination
from scoring.conformal import Guarantee
from scoring.groups import ClassGroups

DRAWS = 2000
MANY = 20_000  # enough to tell a rank of PAC from the next one, whose calibration sets fail 6.0 % and not 5 %
CHANCE = 1e-3
SIGMAS = float(norm.isf(CHANCE))  # 3.1
COUNTS = (59, 200, 1000)
ALPHA = DELTA = 0.05

Array = npt.NDArray[np.float64]
Law = Callable[[np.random.Generator, int], Array]

TIES = np.cumsum([0.5, 0.2, 0.15, 0.08, 0.04, 0.02, 0.01])  # chances of the scores 0..6, added up


def uniform(random: np.random.Generator, count: int) -> Array:
    """Scores of which P(S > t) = 1 - t."""
    return random.random(count)


def tied(random: np.random.Generator, count: int) -> Array:
    """Seven different scores only; P(S > t) = 1 - TIES[t]."""
    return TIES.searchsorted(random.random(count), side="right").astype(np.float64)


def rates(count: int, guarantee: Guarantee, law: Law = uniform, draws: int = DRAWS) -> Array:
    """The rate that each calibration set realises."""
    random = np.random.default_rng(count)
    found = [conformal.threshold(law(random, count), ALPHA, guarantee, DELTA) for _ in range(draws)]
    return 1 - np.array(found) if law is uniform else 1 - TIES[np.array(found, np.int64)]


def most(draws: int, chance: float) -> int:
    """As many of `draws` as are exceeded with probability CHANCE."""
    return int(binom.ppf(1 - CHANCE, draws, chance))


def is_marginal(found: Array, alpha: float = ALPHA) -> bool:
    """Whether one image judged by each calibration set, and the mean rate, are rejected at most at alpha."""
    judged = int((np.random.default_rng(0).random(len(found)) < found).sum())
    standard_error = found.std() / len(found) ** 0.5
    return judged <= most(len(found), alpha) and found.mean() <= alpha + SIGMAS * standard_error


def is_pac(found: Array) -> bool:
    """Whether at most DELTA of the calibration sets realise more than ALPHA."""
    return int((found > ALPHA).sum()) <= most(len(found), DELTA)


def one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds one rank too low."""
    rank = conformal.rank
    monkeypatch.setattr(conformal, "rank", lambda *promise: rank(*promise) + 1)


@pytest.mark.parametrize("count", COUNTS)
class TestMarginal:
    def test_rate_is_at_most_alpha(self, count: int) -> None:
        """Over calibration sets and images; and no less than l / (n + 1), which is the most that can be promised."""
        found, wanted = rates(count, "marginal"), conformal.rank(count, ALPHA) / (count + 1)
        assert is_marginal(found)
        assert abs(found.mean() - wanted) <= SIGMAS * found.std() / DRAWS**0.5

    def test_rate_is_at_most_alpha_with_ties(self, count: int) -> None:
        """Scores that are often the same are rejected less, never more."""
        assert is_marginal(rates(count, "marginal", tied))

    def test_one_rank_more_breaks_it(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """So this simulation sees even the smallest mistake there can be."""
        one_more(monkeypatch)
        assert not is_marginal(rates(count, "marginal"))

    def test_rate_falls_into_its_interval(self, count: int) -> None:
        """As often as promised, under either guarantee, and misses both sides alike."""
        for guarantee in ("marginal", "pac"):
            found = rates(count, guarantee)
            low, high = conformal.reject_rate_interval(count, ALPHA, guarantee, DELTA, level=0.9)
            for missed in ((found < low).sum(), (found > high).sum()):
                assert most(DRAWS, 0.05) >= missed >= binom.ppf(CHANCE, DRAWS, 0.05)


@pytest.mark.parametrize("count", COUNTS)
class TestPac:
    def test_at_most_delta_of_the_calibration_sets_fail(self, count: int) -> None:
        """And as many as the binomial law of the rank says: of 1000 images 4.3 %, which is hardly more than needed."""
        found = rates(count, "pac", draws=MANY)
        wanted = binom.cdf(conformal.pac_rank(count, ALPHA, DELTA) - 1, count, ALPHA)
        assert is_pac(found)
        assert most(MANY, wanted) >= (found > ALPHA).sum() >= binom.ppf(CHANCE, MANY, wanted)

    def test_at_most_delta_fail_with_ties(self, count: int) -> None:
        """Scores that are often the same are rejected less, never more."""
        assert is_pac(rates(count, "pac", tied))

    def test_one_rank_more_breaks_it(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """So the rank is the largest that keeps the promise, and this simulation would see a larger one."""
        one_more(monkeypatch)
        assert not is_pac(rates(count, "pac", draws=MANY))

    def test_marginal_thresholds_fail_for_four_calibration_sets_in_ten(self, count: int) -> None:
        """What the other guarantee is for: half of the sets, or nearly, realise more than the mean."""
        assert (rates(count, "marginal") > ALPHA).mean() > 0.4


class TestByClass:
    """Scores of class c are uniform on shifts[c] .. shifts[c] + 1."""

    PRIOR = np.array([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    SHIFTS = np.array([0.0, 0.1, 0.2, 0.0, 0.3, 0.5])
    SETS = 2000

    @classmethod
    def draw(cls, random: np.random.Generator, count: int) -> tuple[Array, npt.NDArray[np.int64]]:
        predicted = random.choice(len(cls.PRIOR), size=count, p=cls.PRIOR)
        return random.random(count) + cls.SHIFTS[predicted], predicted

    @classmethod
    def rates(cls, thresholds: Array) -> Array:
        return np.clip(1 + cls.SHIFTS - thresholds, 0, 1)

    @pytest.mark.parametrize("count", COUNTS)
    def test_rate_is_at_most_alpha_in_each_class_alone_in_the_pool_and_in_all(self, count: int) -> None:
        """Marginal thresholds, from 19 images a class on."""
        random, alone, found = np.random.default_rng(count), [], []
        for _ in range(self.SETS):
            groups = ClassGroups(*self.draw(random, count), len(self.PRIOR), least=19)
            alone.append(groups.alone)
            found.append(self.rates(groups.thresholds(ALPHA)))
        stands, rate = np.array(alone), np.array(found)  # (sets, K)
        for c in np.flatnonzero(stands.sum(0) > 200):  # of fewer the standard error is not known
            assert is_marginal(rate[stands[:, c], c])
        assert is_marginal((self.PRIOR * rate).sum(1))
        assert has_no_excess(np.where(stands, 0, self.PRIOR * (rate - ALPHA)).sum(1))

    def test_at_most_delta_of_the_calibration_sets_fail_a_class_that_stands_alone(self) -> None:
        """PAC thresholds, class by class, of 1000 images and from 59 a class on."""
        random, failed, judged = np.random.default_rng(0), np.zeros(6, np.int64), np.zeros(6, np.int64)
        for _ in range(self.SETS):
            groups = ClassGroups(*self.draw(random, 1000), len(self.PRIOR), least=59)
            failed += groups.alone & (self.rates(groups.thresholds(ALPHA, "pac", DELTA)) > ALPHA)
            judged += groups.alone
        assert (judged[:3] > 0.99 * self.SETS).all()
        for failures, sets in zip(failed, judged, strict=True):
            assert failures <= most(sets, DELTA)

    def test_one_threshold_for_all_breaks_it(self) -> None:
        """It rejects a fifth and more of the classes that are further out than the others."""
        random = np.random.default_rng(0)
        found = [self.rates(np.full(6, conformal.threshold(self.draw(random, 1000)[0], ALPHA))) for _ in range(200)]
        assert np.mean(found, axis=0)[[2, 4, 5]].min() > 0.1
        assert not is_marginal(np.array(found)[:, 4])

    def test_a_mean_of_both_thresholds_breaks_it(self) -> None:
        """Shrinking a class's threshold to that of all, by n / (n + 20), promises nothing."""
        random, found = np.random.default_rng(0), []
        for _ in range(200):
            scores, predicted = self.draw(random, 1000)
            own = scores[predicted == 4]
            share = len(own) / (len(own) + 20)
            mean = share * conformal.threshold(own, ALPHA) + (1 - share) * conformal.threshold(scores, ALPHA)
            found.append(self.rates(np.full(6, mean))[4])
        assert not is_marginal(np.array(found))


class TestPool:
    """Built against the pool: one class nearly large enough to stand alone, further out than many small ones.

    It makes up about ALPHA of the pool. The rest is one large class.
    """

    @staticmethod
    def draw(random: np.random.Generator, prior: Array, count: int) -> tuple[Array, npt.NDArray[np.int64]]:
        predicted = random.choice(len(prior), size=count, p=prior)
        return random.random(count) + (predicted == 0), predicted

    @staticmethod
    def prior(count: int, medium: int, small: int, classes: int) -> Array:
        """Of `count` images `medium` in the first class and `small` in each of the small ones, in the mean."""
        return np.array([medium, *[small] * classes, count - medium - small * classes]) / count

    @staticmethod
    def excess(alone: npt.NDArray[np.bool_], threshold: float, prior: Array) -> float:
        """How much more than ALPHA of all images is rejected in the pool."""
        rate = np.clip((np.arange(len(prior)) == 0) + 1 - threshold, 0, 1)
        return float(np.where(alone, 0, prior * (rate - ALPHA)).sum())

    def test_keeps_the_rate(self) -> None:
        """Of the pooled classes together, though they are pooled because few of their images were drawn."""
        random, prior, found = np.random.default_rng(0), self.prior(1000, 17, 6, 60), []
        for _ in range(DRAWS):
            groups = ClassGroups(*self.draw(random, prior, 1000), len(prior), least=19)
            found.append(self.excess(groups.alone, groups.thresholds(ALPHA)[1], prior))
        assert has_no_excess(np.array(found))

    def test_without_the_classes_just_large_enough_breaks_it(self) -> None:
        """Made of the classes below the limit alone, the pool has too few of the images that it will judge."""
        random, prior, found = np.random.default_rng(0), self.prior(1000, 17, 6, 60), []
        for _ in range(DRAWS):
            scores, predicted = self.draw(random, prior, 1000)
            alone = np.bincount(predicted, minlength=len(prior)) >= 19
            found.append(self.excess(alone, conformal.threshold(scores[~alone[predicted]], ALPHA), prior))
        assert not has_no_excess(np.array(found))

    def test_is_not_promised_pac(self) -> None:
        """The exception in docs/method.md: about a tenth of the calibration sets fail, where DELTA is a twentieth."""
        random, prior, failed = np.random.default_rng(0), self.prior(2000, 70, 5, 266), 0
        for _ in range(500):
            groups = ClassGroups(*self.draw(random, prior, 2000), len(prior), least=59)
            failed += self.excess(groups.alone, groups.thresholds(ALPHA, "pac", DELTA)[1], prior) > 0
        assert most(500, 2 * DELTA) >= failed > most(500, DELTA)


class TestCombination:
    SETS = 2000
    METHODS = ("line", "energy", "msp")

    @classmethod
    def draw(cls, random: np.random.Generator, *shape: int, shift: tuple[float, ...] = (0, 0, 0)) -> dict[str, Array]:
        """Scores of three methods that go together, on scales of their own; the last has ties."""
        common = random.normal(size=shape)
        a, b, c = (common + random.normal(size=shape) + far for far in shift)
        return {"line": np.exp(a) - 20, "energy": 3 * b, "msp": (1 / (1 + np.exp(4 - c))).round(2)}

    @classmethod
    def fitted(cls, familiar: bool = False) -> Combination:
        """On images of the same distribution, or on familiar ones, whose energies end early."""
        scores = cls.draw(np.random.default_rng(5), 300)
        if familiar:
            tenth = np.quantile(scores["energy"], 0.9)
            scores["energy"] -= 0.9 * (scores["energy"] - tenth).clip(min=0)
        return Combination.fit(scores)

    @pytest.mark.parametrize("familiar", [False, True])
    @pytest.mark.parametrize("count", COUNTS)
    @pytest.mark.parametrize("alpha", [0.05, 0.2])
    def test_rate_is_at_most_alpha(self, count: int, alpha: float, familiar: bool) -> None:
        """One image judged by each calibration set, and not rejected less than l / (n + 1) either."""
        random, merge, rejected = np.random.default_rng(count), self.fitted(familiar), 0
        for _ in range(10):
            scores = self.draw(random, self.SETS // 10, count + 1)
            merged = merge({name: values.ravel() for name, values in scores.items()}).reshape(-1, count + 1)
            rejected += sum(row[-1] > conformal.threshold(row[:-1], alpha) for row in merged)
        wanted = conformal.rank(count, alpha) / (count + 1)
        assert most(self.SETS, alpha) >= rejected >= binom.ppf(CHANCE, self.SETS, wanted)

    def test_rejecting_where_one_method_does_breaks_it(self) -> None:
        """Three thresholds at alpha are no threshold at alpha: that is what the merged score has its own for."""
        random, rejected = np.random.default_rng(0), 0
        for _ in range(2000):
            scores = self.draw(random, 201)
            rejected += any(values[-1] > conformal.threshold(values[:-1], ALPHA) for values in scores.values())
        assert rejected > most(2000, ALPHA)

    @pytest.mark.parametrize("familiar", [False, True])
    @pytest.mark.parametrize("shift", [(4, 0, 0), (0, 4, 0), (0, 0, 4)])
    def test_finds_what_one_method_alone_sees(self, shift: tuple[float, ...], familiar: bool) -> None:
        """Nothing is promised of OOD images, but the blind methods do not drown the one that sees."""
        merge, random = self.fitted(familiar), np.random.default_rng(0)
        inside, outside = self.draw(random, 20_000), self.draw(random, 20_000, shift=shift)
        share = {name: (outside[name] > np.quantile(inside[name], 0.95)).mean() for name in self.METHODS}
        seeing, *blind = sorted(share.values(), reverse=True)
        assert max(blind) < 0.06
        assert (merge(outside) > np.quantile(merge(inside), 0.95)).mean() > 0.75 * seeing


def has_no_excess(found: Array) -> bool:
    """Whether the mean over the calibration sets is at most 0."""
    return bool(found.mean() <= SIGMAS * found.std() / len(found) ** 0.5)
