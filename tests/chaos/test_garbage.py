"""A model's file is spoiled while it is loaded anew, again and again, under traffic: the version before goes on."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

from tests.chaos.conftest import Common
from tests.chaos.figures import record
from tests.chaos.scale import SCALE
from tests.chaos.traffic import Traffic
from tests.metrics import sample
from tests.service.versions import DAMAGES, id_of, put, relabelled, states
from tests.waiting import until

MODEL = "pillow"
REFUSALS = ("refused", "self_test_failed")


def loads(url: str, *outcomes: str) -> float:
    return sum(sample(url, "line_ood_loads_total", model=MODEL, outcome=outcome) for outcome in outcomes)


def hang_up(common: Common) -> None:
    common.server.process.send_signal(signal.SIGHUP)


def test_garbage_in_place_of_an_artifact(common: Common, tiny_artifact, scores, tmp_path):
    """Each kind of bad file is refused while clients are answered right, by the version before; a good one is taken."""
    traffic, longest = Traffic(common.url, scores), 0.0
    twins = [tiny_artifact, relabelled(tiny_artifact, tmp_path / "twin.safetensors")]
    refused_before = loads(common.url, *REFUSALS)
    rounds = range(max(SCALE.rounds // 2, len(DAMAGES)))
    with traffic.running():
        for number in rounds:
            serving = states(common.url)[MODEL]["artifact_id"]
            put(tiny_artifact, common.place)
            DAMAGES[number % len(DAMAGES)][0](tiny_artifact, common.place)
            hang_up(common)
            until(lambda number=number: loads(common.url, *REFUSALS) - refused_before == number + 1)
            assert states(common.url)[MODEL]["artifact_id"] == serving
            good = next(twin for twin in twins if id_of(twin) != serving)
            put(good, common.place)
            repaired = time.monotonic()
            hang_up(common)
            until(lambda good=good: states(common.url)[MODEL]["artifact_id"] == id_of(good))
            longest = max(longest, time.monotonic() - repaired)
    tally = traffic.tally()
    assert tally.keys() == {"right"}, tally
    record("artifact replaced by garbage, then loaded", len(rounds), tally, longest, "until the next good file answers")


class Vandal(threading.Thread):
    """Writes over a file without end: in place, in pieces, garbage, halves and good ones.

    Args:
        place: the file.
        good: what it may hold.
    """

    def __init__(self, place: Path, good: list[Path]) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._contents = [path.read_bytes() for path in good]
        self.is_over = threading.Event()
        self.times = 0

    def run(self) -> None:
        rng = random.Random(0)
        while not self.is_over.is_set():
            content = rng.choice((*self._contents, self._contents[0][: rng.randrange(20_000)], rng.randbytes(20_000)))
            with self._place.open("wb", buffering=0) as file:
                for start in range(0, len(content), 4096):
                    file.write(content[start : start + 4096])
                    time.sleep(rng.choice((0, 0.001)))
            self.times += 1
            time.sleep(rng.random() / 50)


def test_a_file_that_changes_while_it_is_read(common: Common, tiny_artifact, scores, tmp_path):
    """Whatever a load happens to read, it is whole and right, or refused; the process does not fall over the file."""
    twins = [tiny_artifact, relabelled(tiny_artifact, tmp_path / "twin.safetensors")]
    ends = ("switched", "unchanged", *REFUSALS)
    traffic, vandal = Traffic(common.url, scores), Vandal(common.place, twins)
    before, failed_before = loads(common.url, *ends), loads(common.url, "failed")
    with traffic.running():
        vandal.start()
        for number in range(5 * SCALE.rounds):
            hang_up(common)
            until(lambda number=number: loads(common.url, *ends) - before > number)
        vandal.is_over.set()
        vandal.join()
        put(twins[0], common.place)
        repaired = time.monotonic()
        hang_up(common)
        until(lambda: states(common.url)[MODEL]["artifact_id"] == id_of(twins[0]))
        recovered = time.monotonic() - repaired
    tally = traffic.tally()
    assert tally.keys() == {"right"}, tally
    assert loads(common.url, "failed") == failed_before
    record("artifact written over while it is loaded", 5 * SCALE.rounds, tally, recovered, f"{vandal.times} writes")
