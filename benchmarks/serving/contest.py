"""The contest: in each round, against each opponent: we, the ceiling, the opponent, one after the other.

The machine's speed drifts by the minute, so only what was measured within one such match is ever divided.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.asking import Endpoint, agreement, wait_until_it_answers
from benchmarks.serving.contestants import NULL, OURS, OURS_NULL, PEERS, Contestant
from benchmarks.serving.decode import decode
from benchmarks.serving.engines import CORES, OpenVino
from benchmarks.serving.environments import python_of
from benchmarks.serving.folders import LOGS, NETWORK, ROOT
from benchmarks.serving.load import CONCURRENCIES, Load, Target, measure
from benchmarks.serving.machine import busy
from benchmarks.serving.ports import free_port
from benchmarks.serving.processes import DeadServerError, running

CHECKED = 32  # pictures whose class is compared
LEAST_AGREEMENT = 0.25  # bf16 costs a third; answers that are mixed up agree almost never


@dataclass(frozen=True)
class Entry:
    """What one contestant did in one match.

    Attributes:
        contestant: its name.
        agreement: share of pictures that got the right class; None where there is no class.
        loads: one a concurrency.
    """

    contestant: str
    agreement: float | None
    loads: list[Load]

    def at(self, concurrency: int) -> Load:
        """The run at this concurrency."""
        return next(load for load in self.loads if load.concurrency == concurrency)


@dataclass(frozen=True)
class Match:
    """One opponent in one round, with what it is compared to.

    Attributes:
        round: counted from 0.
        ours: our server.
        opponent: a peer, or the bare endpoint.
        ceiling: images/s by kind; None in the match of the null models.
        busy: share of the machine that others used just before.
    """

    round: int
    ours: Entry
    opponent: Entry
    ceiling: Mapping[str, float] | None
    busy: float


@dataclass
class Results:
    """Everything measured.

    Attributes:
        matches: in the order of their time.
        absent: why a contestant did not take part, by name.
    """

    matches: list[Match] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


class Contest:
    """Plays the matches.

    Args:
        photographs: list of the pictures that everybody gets.
        tiny: list with the body of the null models.
        seconds: of each run.
    """

    def __init__(self, photographs: Path, tiny: Path, seconds: float) -> None:
        self._photographs = photographs
        self._tiny = tiny
        self._seconds = seconds
        self._checked = _pictures_of(photographs)[:CHECKED]
        answers = OpenVino(NETWORK, CORES).classify([decode(jpeg) for jpeg in self._checked])
        self._wanted = [answer["index"] for answer in answers]

    def play(self, names: Sequence[str], rounds: int, results: Results) -> None:
        """Play against these opponents, into `results`; one that cannot be started is left out, with the reason.

        Raises:
            DeadServerError: our own server cannot be started.
        """
        opponents = [opponent for opponent in (*PEERS, NULL) if opponent.name in names]
        pythons = {}
        for opponent in opponents:
            with _absent_if_failing(results, opponent):
                pythons[opponent.name] = python_of(_environment_of(opponent), opponent.requirements)
        for number in range(rounds):
            for opponent in opponents:
                if opponent.name not in results.absent:
                    self._match(results, number, opponent, pythons[opponent.name])

    def _match(self, results: Results, number: int, opponent: Contestant, python: Path) -> None:
        others = busy()
        ours = self._entry(OURS_NULL if opponent is NULL else OURS, Path(sys.executable))
        ceiling = None if opponent is NULL else self._ceiling()
        with _absent_if_failing(results, opponent):
            results.matches.append(Match(number, ours, self._entry(opponent, python), ceiling, others))

    def _entry(self, contestant: Contestant, python: Path) -> Entry:
        port = free_port()
        endpoint = Endpoint(port, contestant.path, contestant.headers)
        pictures = self._tiny if contestant.tiny else self._photographs
        log = LOGS / f"{contestant.name}.log"
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            variables = contestant.variables(python, port, temporary)
            with running(contestant.start(python, port), variables, log) as process:
                wait_until_it_answers(endpoint, _pictures_of(pictures)[0], process, log)
                agreed = self._agreement(contestant, endpoint)
                target = Target(endpoint.url, contestant.headers, pictures)
                loads = [measure(target, concurrency, self._seconds) for concurrency in CONCURRENCIES]
        _report(contestant, loads)
        return Entry(contestant.name, agreed, loads)

    def _agreement(self, contestant: Contestant, endpoint: Endpoint) -> float | None:
        if contestant.index is None:
            return None
        agreed = agreement(endpoint, self._checked, self._wanted, contestant.index)
        if agreed < LEAST_AGREEMENT:
            raise DeadServerError(f"only {agreed:.0%} of its answers are right")
        return agreed

    def _ceiling(self) -> dict[str, float]:
        command = [sys.executable, "-m", "benchmarks.serving.ceiling", str(NETWORK), str(self._photographs)]
        command += ["--seconds", str(self._seconds)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        ceiling: dict[str, float] = json.loads(printed)
        print(f"{'ceiling':16}" + "".join(f"{name} {value:.0f}  " for name, value in ceiling.items()), flush=True)
        return ceiling


def _environment_of(contestant: Contestant) -> str:
    """Contestants with the same requirements share an environment."""
    return next(peer.name for peer in (*PEERS, NULL) if peer.requirements == contestant.requirements)


@contextmanager
def _absent_if_failing(results: Results, opponent: Contestant) -> Iterator[None]:
    try:
        yield
    except (DeadServerError, subprocess.CalledProcessError) as error:
        said = f"{error}\n{error.stderr or ''}" if isinstance(error, subprocess.CalledProcessError) else f"{error}"
        results.absent[opponent.name] = said.strip()
        print(f"{opponent.name} is absent: {said.strip()}", flush=True)


def _report(contestant: Contestant, loads: Sequence[Load]) -> None:
    runs = "".join(
        f"c={load.concurrency}: {load.requests_per_s:.0f}/s {load.p50_ms:.1f}/{load.p99_ms:.1f} ms  " for load in loads
    )
    errors = sum(load.errors for load in loads)
    print(f"{contestant.name:16}{runs}{f'{errors} errors' if errors else ''}", flush=True)


def _pictures_of(file: Path) -> list[bytes]:
    return [Path(line).read_bytes() for line in file.read_text().splitlines()]
