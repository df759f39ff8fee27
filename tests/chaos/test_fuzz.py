"""Images that are spoiled in thousands of ways: each gets its 4xx or a score, and the process does not even grow."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.chaos.conftest import Common
from tests.chaos.corpus import corpus
from tests.chaos.figures import record
from tests.chaos.memory import growth
from tests.chaos.mutants import mutant
from tests.chaos.scale import SCALE
from tests.chaos.traffic import Traffic
from tests.service.test_reload import resident_mb
from tests.service.test_routes import check_problem

CLIENTS = 4
MEASUREMENTS = 25
WARM_UP = 5  # measurements that are not looked at
ALLOWED = {200, 400, 413, 415, 422}  # as docs/api.md has them
SEVERAL = 5  # images in some of the requests
LEAK_BYTES = 2000  # an image; of ten thousand that is 20 MB


class Fuzzer:
    """Posts spoiled images, as a body or in a form or in JSON, and counts what becomes of each.

    Args:
        url: of the server.
        model: to ask.
        folder: for images that the server does not stand.
    """

    def __init__(self, url: str, model: str, folder: Path) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, limits=httpx.Limits(max_connections=CLIENTS))
        self._path = f"/v1/models/{model}/predict"
        self._files = corpus()
        self._folder = folder
        self.images: Counter[int] = Counter()

    def post(self, numbers: Sequence[int]) -> None:
        """Several images: sometimes in one request, else one by one."""
        if numbers[0] // SEVERAL % 3:
            for number in numbers:
                self._check([number], content=mutant(self._files, number))
        elif numbers[0] % 2:
            form = [("file", ("x", mutant(self._files, number))) for number in numbers]
            self._check(numbers, files=form)
        else:
            texts = [base64.b64encode(mutant(self._files, number)).decode() for number in numbers]
            self._check(numbers, json={"instances": [{"b64": text} for text in texts]})

    def close(self) -> None:
        self._client.close()

    def _check(self, numbers: Sequence[int], **request: object) -> None:
        try:
            answer = self._client.post(self._path, **request)
            assert answer.status_code in ALLOWED, answer.text
            self.images.update(_statuses(answer, len(numbers)))
        except (AssertionError, httpx.TransportError) as error:
            for number in numbers:
                (self._folder / f"{number}.bin").write_bytes(mutant(self._files, number))
            raise AssertionError(f"images {numbers}, kept in {self._folder}: {error!r}") from error


def _statuses(answer: httpx.Response, count: int) -> list[int]:
    """One an image."""
    if answer.status_code != 200:
        problem = check_problem(answer, answer.status_code, answer.json()["code"])
        statuses = [each["status"] for each in problem.get("errors", [problem])]
    else:
        statuses = [each.get("error", {}).get("status", 200) for each in answer.json()["results"]]
    assert len(statuses) == count and set(statuses) <= ALLOWED, answer.text
    return statuses


@pytest.mark.parametrize("decoder", ["pillow", "turbo"])
def test_spoiled_images(common: Common, scores, tmp_path, decoder):
    """No 5xx, no end of the process, no growth; what is not spoiled meanwhile is answered right."""
    fuzzer, traffic = Fuzzer(common.url, decoder, tmp_path), Traffic(common.url, scores)
    groups = [range(start, start + SEVERAL) for start in range(0, SCALE.fuzzed, SEVERAL)]
    resident, part = [], -(-len(groups) // MEASUREMENTS)
    with traffic.running(), ThreadPoolExecutor(CLIENTS) as pool:
        for start in range(0, len(groups), part):
            list(pool.map(fuzzer.post, groups[start : start + part]))
            resident.append(resident_mb(common.server.process.pid))
    fuzzer.close()
    tally = traffic.tally()
    assert tally.keys() == {"right"}, tally
    assert fuzzer.images.total() == SCALE.fuzzed
    assert fuzzer.images[200] > 0.1 * SCALE.fuzzed < fuzzer.images[422]  # they are neither all good nor all bad
    grown = growth(resident[WARM_UP:])
    assert grown.mb < 3 * grown.noise_mb + LEAK_BYTES * SCALE.fuzzed / 1e6 + 8, resident
    told = ", ".join(f"{count} of {status}" for status, count in sorted(fuzzer.images.items()))
    record(f"spoiled images, {decoder}", SCALE.fuzzed, tally, None, f"{told}; memory {grown}")
