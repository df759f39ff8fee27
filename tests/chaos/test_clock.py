"""The clock is set, by years: answers, deadlines and windows do not care, and nothing ends.

By libfaketime, which gives a process another time of day; the clock that only goes forward is left as it is, since
setting the time does not move it. It counts as one of the `scripts/install-test-tools`.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.absent import absent
from tests.chaos.conftest import ENVIRONMENT
from tests.chaos.figures import record
from tests.chaos.scale import SCALE
from tests.chaos.traffic import Traffic
from tests.metrics import sample
from tests.processes import running_server
from tests.service.capture.making import side_files
from tests.waiting import until

JUMPS = ("+3650d", "-9000d", "+3600", "-3600", "+0")  # against the true time
YEARS = {"+3650d": 10, "-9000d": -25}


@pytest.fixture
def faketime() -> str:
    found = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if not found:
        absent("libfaketime is missing: scripts/install-test-tools installs it where it may")
    return found[0]


def test_a_clock_that_jumps(faketime, tiny_artifact, scores, tmp_path):
    """Under traffic, with images captured and watched: every answer is right, and no stream forgets an image."""
    clock, images = tmp_path / "clock", tmp_path / "images"
    clock.write_text("+0")
    fake = {
        "LD_PRELOAD": faketime,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",  # seconds after which it looks at the file again
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    flags = ("--capture", str(images), "--capture-random", "1", "--monitor-state", str(tmp_path / "monitor.json"))
    with running_server("--artifact", str(tiny_artifact), *flags, env=ENVIRONMENT | fake) as server:
        traffic, years = Traffic(server.url, scores), set()
        with traffic.running():
            for number in range(max(len(JUMPS), SCALE.rounds)):
                jump = JUMPS[number % len(JUMPS)]
                set_clock(clock, jump)
                year = datetime.now().year + YEARS.get(jump, 0)
                until(lambda year=year: abs(year_of(server.url) - year) <= 1)
                years.add(year)
                traffic.calm()
                assert httpx.get(f"{server.url}/livez").status_code == 200
        tally = traffic.tally()
        traffic.check_counts()
        window = sample(server.url, "line_ood_window_images", window="seconds")
        assert window == tally["right"]
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 8
    assert tally.keys() == {"right"}, tally
    assert all("message" in json.loads(line) for line in server.log)
    assert len(years) == 3 <= len({each["time"][:4] for each in side_files(images)})
    record("clock set, by 1 hour to 35 years", number + 1, tally, 0)


def set_clock(clock: Path, jump: str) -> None:
    new = clock.with_suffix(".new")
    new.write_text(jump)
    new.replace(clock)


def year_of(url: str) -> int:
    """By the clock of the server."""
    return datetime.fromtimestamp(sample(url, "line_ood_last_forward_timestamp_seconds")).year
