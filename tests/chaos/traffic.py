"""Steady traffic while something goes wrong: clients that know the right answer to each of their pictures."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from tests.metrics import sample
from tests.service.conftest import encode
from tests.waiting import until

CLIENTS = 4
CALM_S = 120  # a new process has to start, on a machine that is busy with other tests
PAUSE_S = 0.01  # of a client between two requests, so that the machine is busy and not choked
RECONNECT_S = 0.1
PNG = {"Content-Type": "image/png"}
PREDICT = "/v1/predict"


class Heard(NamedTuple):
    """What a client was told, and when."""

    at: float
    outcome: str  # `right`, a status that is a refusal or a failure, `not admitted`, or what must never be: the others


class Traffic:
    """Clients that post one picture after the other and check each answer; told when to come again, they heed it.

    No two requests have the same bytes: their number is behind the end of the picture, where no decoder looks.

    Args:
        url: of the server.
        scores: of the pictures, by seed.
    """

    def __init__(self, url: str, scores: Mapping[int, float]) -> None:
        self.url = url
        self._pictures = [(encode(seed), score) for seed, score in scores.items()]
        self._stop = threading.Event()
        self._heard: list[Heard] = []  # appending is atomic

    @contextmanager
    def running(self) -> Iterator[Traffic]:
        """Post for as long as the block lasts, and a moment before and after it."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._run, number) for number in range(CLIENTS)]
            try:
                self.calm()
                yield self
                self.calm()
            finally:
                self._stop.set()
            for client in clients:
                client.result()

    def calm(self) -> None:
        """Wait until every client has had several right answers in a row."""

        def is_calm() -> bool:
            last = self._heard[-5 * CLIENTS :]
            return len(last) == 5 * CLIENTS and last[0].at > begun and all(each.outcome == "right" for each in last)

        begun = time.monotonic()
        while not is_calm():
            assert time.monotonic() - begun < CALM_S, f"the answers are not right again: {self.tally()}"
            time.sleep(0.01)

    def tally(self) -> Counter[str]:
        """How many requests ended how."""
        return Counter(each.outcome for each in self._heard)

    def recovery_s(self, since: float) -> float:
        """From a moment to the last answer after it that was not right; 0 where there is none."""
        return max([each.at - since for each in self._heard if each.at > since and each.outcome != "right"], default=0)

    def check_counts(self, others: Mapping[str, int] | None = None) -> None:
        """The server has counted the same requests, by status, as clients have had answers.

        Args:
            others: requests of other clients, by status.
        """
        told = Counter({"200" if key == "right" else key: count for key, count in self.tally().items()})
        told.update(others or {})
        statuses = {"200", "429", "500", "503", "504"} | told.keys()

        def counted() -> Counter[str]:
            return Counter({code: int(self._counted(code)) for code in statuses})

        until(lambda: +counted() == +told)  # the last one is counted once its answer has been sent
        images = sum(sample(self.url, "line_ood_images_total", operating_point="default", decision=decision)
                     for decision in ("accept", "reject"))  # fmt: skip
        assert images == told["200"]

    def _counted(self, code: str) -> float:
        return sample(self.url, "line_ood_requests_total", route=PREDICT, code=code)

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            count, pause = 0, PAUSE_S
            while not self._stop.wait(pause):
                count, pause = count + 1, PAUSE_S
                picture, score = self._pictures[count % len(self._pictures)]
                identity = f"{number}-{count}"
                try:
                    answer = client.post(
                        PREDICT,
                        content=picture + struct.pack("II", number, count),
                        headers=PNG | {"X-Request-ID": identity},
                    )
                except httpx.ConnectError:
                    outcome, pause = "not admitted", RECONNECT_S
                except httpx.TransportError as error:
                    outcome = f"lost: {error!r}"
                else:
                    outcome = judge(answer.status_code, answer.json(), identity, score)
                    pause = float(answer.headers.get("Retry-After", PAUSE_S))
                self._heard.append(Heard(time.monotonic(), outcome))


def judge(status: int, body: Mapping[str, Any], identity: str, score: float) -> str:
    """`right`, the status of an answer that is a proper problem, or what is wrong with it."""
    if body["request_id"] != identity:
        return f"wrong: {identity} was given the answer to {body['request_id']}"
    if status != 200:
        return str(status) if body["status"] == status else f"wrong: {body}"
    found = body["results"][0]["ood"]["score"]
    return "right" if abs(found - score) < 1e-4 else f"wrong: {found} instead of {score}"
