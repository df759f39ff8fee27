"""The drift alarm of service.monitoring in simulation, and what monitoring costs: the figures of docs/monitoring.md.

    python -m benchmarks.drift alarms   how often streams without drift raise it, of independent images and of scenes
    python -m benchmarks.drift delays   how many images it takes to see the reject rate double
    python -m benchmarks.drift cost     microseconds an image, milliseconds a scrape and a snapshot

`first_alarms` is the rule of `service.monitoring.evidence` for many streams at once; the tests compare the two.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from scoring import conformal
from scoring.artifact import Artifact
from scoring.embedded import ARTIFACT
from scoring.scorer import ImageScore
from service.batcher import Answer
from service.monitoring.collector import MonitorCollector
from service.monitoring.evidence import LOG_ODDS_RATIOS, STAKE_EVERY
from service.monitoring.keeper import as_json
from service.monitoring.limits import Limits
from service.monitoring.monitor import Monitor
from service.monitoring.rates import RejectLaw

Array = npt.NDArray[np.float64]
NEVER = np.iinfo(np.int64).max

FALSE_ALARM = 0.01  # the default of the settings: half of it is delta, half a
ALPHA = 0.05
COUNTS = (200, 500, 1000, 5000)  # calibration images


def first_alarms(
    rates: Array, images: int, bound: float, level: float, random: np.random.Generator, *, scene: int = 1, seen: int = 0
) -> npt.NDArray[np.int64]:
    """The image at which each stream raises its alarm, NEVER where none of them does.

    Args:
        rates: of rejects, by stream (stream), or by image and stream (image stream).
        images: length of the streams.
        bound: q.
        level: a.
        random: draws the rejects.
        scene: images in a row that are rejected or accepted together.
        seen: images that went before; all that was staked on them is taken as lost, which is nearly so without drift.
    """
    odds = bound / (1 - bound) * np.exp(LOG_ODDS_RATIOS)
    on_reject, on_accept = odds / (1 + odds) / bound, 1 / (1 + odds) / (1 - bound)
    streams = rates.shape[-1]
    found = np.full(streams, NEVER)
    still = np.arange(streams)  # without an alarm
    stakes = 1 + seen // STAKE_EVERY
    capital = np.full((streams, len(odds)), stake_of(stakes))
    rejected = np.zeros(streams, bool)
    for image in range(images):
        now = rates[image] if rates.ndim == 2 else rates
        if image % scene == 0:
            rejected = random.random(streams) < now
        capital *= np.where(rejected[still, None], on_reject, on_accept)
        if np.any(is_over := capital.sum(1) + reserve(stakes) >= 1 / level):
            found[still[is_over]] = image + 1
            still, capital = still[~is_over], capital[~is_over]
            if not len(still):
                break
        if (image + 1) % STAKE_EVERY == 0:
            stakes += 1
            capital += stake_of(stakes)
    return found


def reserve(stakes: int) -> float:
    """What is not staked."""
    return 1 / (1 + math.log(1 + stakes))


def stake_of(stakes: int) -> float:
    """What each alternative gets of the next stake."""
    return (reserve(stakes - 1) - reserve(stakes)) / len(LOG_ODDS_RATIOS)


def share(found: npt.NDArray[np.int64]) -> str:
    """Alarms among streams, in percent, with a standard error."""
    rate = float((found < NEVER).mean())
    return f"{100 * rate:.2f} % ± {100 * (rate * (1 - rate) / len(found)) ** 0.5:.2f}"


def alarms(streams: int = 2000, images: int = 50_000) -> None:
    """False alarms of streams at constant rates, and of scenes."""
    level = delta = FALSE_ALARM / 2
    random = np.random.default_rng(0)
    print(f"{streams} streams of {images} images each, alpha {ALPHA}, a = delta = {level}; alarms:")
    for count in COUNTS:
        law = RejectLaw(conformal.rank(count, ALPHA), count)
        bound = law.bound(delta)
        drawn = random.beta(law.rank, count + 1 - law.rank, streams)
        cases = {
            "every rate at the bound": np.full(streams, bound),
            "a calibration set each": drawn,
            "the worst 1 % of sets": np.quantile(drawn, 0.99) * np.ones(streams),
        }
        for name, rates in cases.items():
            print(f"n {count}, bound {bound:.4f}, {name}: {share(first_alarms(rates, images, bound, level, random))}")
    law = RejectLaw(conformal.rank(1000, ALPHA), 1000)
    for scene in (1, 2, 5, 30):
        found = first_alarms(np.full(streams, law.expected), images, law.bound(delta), level, random, scene=scene)
        print(f"n 1000, rate {law.expected:.4f}, scenes of {scene} images that share their fate: {share(found)}")


def delays(streams: int = 1000) -> None:
    """Images from a change of the rate to the alarm: median, and what 90 % of streams need at most."""
    level = delta = FALSE_ALARM / 2
    random = np.random.default_rng(1)
    for alpha, count, before in _cases():
        law = RejectLaw(conformal.rank(count, alpha), count)
        bound = law.bound(delta)
        told = []
        for factor in (2, 4):
            rates = np.full(streams, factor * law.expected)
            found = first_alarms(rates, 60_000, bound, level, random, seen=before)
            median, most = np.quantile(found, (0.5, 0.9), method="higher")
            told.append(f"x{factor} {_number(median)} / {_number(most)}")
        print(f"alpha {alpha}, n {count}, bound {bound:.4f}, after {before:.0e} images: {', '.join(told)}", flush=True)


def _cases() -> Iterator[tuple[float, int, int]]:
    for alpha in (ALPHA, 0.01):
        for count in COUNTS:
            for before in (0, 10**4, 10**6, 10**8):
                if count * alpha >= 5 and (before in {0, 10**6} or count == 1000):
                    yield alpha, count, before


def _number(images: np.int64) -> str:
    return "over 60000" if images == NEVER else str(images)


def cost(images: int = 200_000) -> None:
    """With the embedded default and its two operating points."""
    limits = Limits(window_images=1000, window_s=3600, streams=16, false_alarm=FALSE_ALARM, spacing_s=0)
    artifact, random = Artifact.load(ARTIFACT), np.random.default_rng(0)
    monitor = Monitor(limits)
    monitor.watch("lite0", artifact)
    likely = random.random((100, 1000))  # class probabilities: the largest of them is looked for, too
    for name, shift in (("in-distribution", 0.0), ("all rejected", 1e6)):
        scores = (random.choice(artifact.calibration_scores, images) + shift).tolist()
        answers = [Answer(ImageScore(likely[i % 100], score, 0.5, i % 1000), 0, 0, 0) for i, score in enumerate(scores)]
        started = time.perf_counter()
        for index, answer in enumerate(answers):
            monitor.answered("lite0", artifact.artifact_id, f"camera{index % 16}", [answer])
        print(f"{name}, a request each: {1e6 * (time.perf_counter() - started) / images:.2f} us an image")
    calls: dict[str, Callable[[], object]] = {
        "report": monitor.report,
        "scrape": lambda: list(MonitorCollector(monitor.report, lambda: None).collect()),
        "snapshot": monitor.snapshot,
        "as JSON": lambda: as_json(monitor.snapshot()),
    }
    for what, call in calls.items():
        seconds = []
        for _ in range(20):
            for camera in range(16):  # other counts than at the call before, as between two scrapes
                monitor.answered("lite0", artifact.artifact_id, f"camera{camera}", answers[:1])
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
        print(f"{what} of 17 streams: {1e3 * statistics.median(seconds):.2f} ms")


if __name__ == "__main__":
    {"alarms": alarms, "delays": delays, "cost": cost}[sys.argv[1]]()
