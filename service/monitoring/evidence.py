r"""Evidence of drift: a bet against "in-distribution images are rejected at a rate of at most q", in one stream.

x_t = 1 where image t is rejected. For a rate p > q each image multiplies a stake by its likelihood ratio

    L_p(1) = p / q,    L_p(0) = (1 - p) / (1 - q)

Wealth starts at 1 and lies in a reserve. Before image 1 and after every STAKE_EVERY images a part of the reserve is
staked, in equal shares on a grid of p; what is once staked is never moved. With j stakes made, the reserve is W_j = 1
/ (1 + log(1 + j)).

    M_t = W_j + sum over p of A_p,      A_p <- A_p L_p(x_t),  and at a stake  A_p <- A_p + (W_{j-1} - W_j) / |grid|

M is a test supermartingale for every stream with P(x_t = 1 | all before) = r_t <= q, whatever else the r_t do:

    E[L_p(x_t) | all before] = r p / q + (1 - r) (1 - p) / (1 - q)
                             = 1 + (r - q) (p - q) / (q (1 - q))  <=  1      for r <= q < p

so no A_p grows in the mean between stakes; a stake moves wealth at times fixed beforehand and leaves the sum as it
is; and M >= 0, M_0 = 1. By Ville's inequality (1939) P(M ever reaches 1 / a) <= a: over the whole life of a stream,
however often one looks. `log_value` is log M; the alarm is latched where M reaches 1 / a.

q is `RejectLaw.bound(delta)`: given the calibration set, the rate is at most q with probability 1 - delta over the
draw of the set. So a stream of independent images like the calibration's raises its alarm with probability at most a
+ delta.

Why stakes go on being made: wealth that is staked at the start is lost while nothing drifts, and a drift after a year
would have to win back all of it. A drift that begins after j stakes finds some 1 / (j log^2 j) freshly staked, which
costs log(j) + 2 log(log(j)) nats of delay: 20 after 10^8 images, not 10^6. (A mixture over change points; Shiryaev
and Roberts' sum, weighted so that it stays a supermartingale.)

In log space, and accepted images are counted before they are applied: M falls with them, so nothing is missed.
"""

from __future__ import annotations

import math

STAKE_EVERY = 32
# log of odds(p) / odds(q), from 1.2 q to nearly every image. What is won an image grows with its square: of any such
# ratio one of these is within a factor of 1.26, and bets on it win 93 % of what the best would.
LOG_ODDS_RATIOS = tuple(0.2 * 1.6**step for step in range(8))


class Evidence:
    """M of one stream at one operating point.

    Args:
        bound: q.
        level: a.

    Attributes:
        images: how many were seen.
        capital: log A_p of each p, accepted images since the last change not yet applied.
        accepts: how many those are.
        is_alarmed: M has reached 1 / a.
    """

    def __init__(self, bound: float, level: float) -> None:
        odds = [bound / (1 - bound) * math.exp(ratio) for ratio in LOG_ODDS_RATIOS]
        self._on_reject = [math.log(each / (1 + each) / bound) for each in odds]
        self._on_accept = [-math.log1p(each) - math.log1p(-bound) for each in odds]
        self.limit = -math.log(level)
        self.images = 0
        self.accepts = 0
        self.capital = [_log_stake(1)] * len(odds)
        self.is_alarmed = False

    def observe(self, rejected: bool) -> bool:
        """Take in one image; whether it has raised the alarm."""
        self.images += 1
        has_risen = False
        if rejected:
            self._apply_accepts()
            self.capital = [own + gain for own, gain in zip(self.capital, self._on_reject, strict=True)]
            has_risen = not self.is_alarmed and self.log_value >= self.limit
            self.is_alarmed |= has_risen
        else:
            self.accepts += 1
        if self.images % STAKE_EVERY == 0:
            self._stake()
        return has_risen

    @property
    def log_value(self) -> float:
        """Log M: 0 at the start, `limit` and above with an alarm; below 0 while nothing speaks for drift."""
        applied = zip(self.capital, self._on_accept, strict=True)
        parts = [math.log(_reserve(self._stakes)), *(own + self.accepts * loss for own, loss in applied)]
        return _log_sum(parts)

    @property
    def _stakes(self) -> int:
        return 1 + self.images // STAKE_EVERY

    def _apply_accepts(self) -> None:
        if self.accepts:
            applied = zip(self.capital, self._on_accept, strict=True)
            self.capital = [own + self.accepts * loss for own, loss in applied]
            self.accepts = 0

    def _stake(self) -> None:
        self._apply_accepts()
        stake = _log_stake(self._stakes)
        self.capital = [_log_sum([own, stake]) for own in self.capital]


def _reserve(stakes: int) -> float:
    return 1 / (1 + math.log1p(stakes))


def _log_stake(stakes: int) -> float:
    """Log of what one p gets of the stake; W_{j-1} - W_j itself would cancel."""
    step = math.log1p(1 / stakes) * _reserve(stakes - 1) * _reserve(stakes)
    return math.log(step / len(LOG_ODDS_RATIOS))


def _log_sum(parts: list[float]) -> float:
    largest = max(parts)
    return largest + math.log(sum([math.exp(part - largest) for part in parts]))
