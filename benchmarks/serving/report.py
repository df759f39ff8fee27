"""What the contest has shown: results.json with everything, a table, a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.serving.contest import Match, Results
from benchmarks.serving.contestants import NULL, OURS, OURS_NULL, PEERS, Contestant
from benchmarks.serving.load import CONCURRENCIES, Load
from benchmarks.serving.machine import description
from benchmarks.serving.picture import draw

HEAD = [f"c={concurrency}" for concurrency in CONCURRENCIES]
RATIOS = ("share of the ceiling", "requests/s, ours ÷ it", "p99, ours ÷ it")
Runs = Callable[[Match], Callable[[int], Load]]  # of one side of a match, by concurrency


def write(results: Results, folder: Path, seconds: float) -> None:
    """Write all three files, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = {"machine": description(), "seconds": seconds, **asdict(results)}
    (folder / "results.json").write_text(json.dumps(everything, indent=1) + "\n")
    parts = (conditions(results, seconds), peers_table(results), null_table(results), absent(results))
    text = "\n\n".join(part for part in parts if part)
    (folder / "serving.md").write_text(text + "\n")
    print(text)
    contested = [match for match in results.matches if match.ceiling]
    if contested:
        draw(contested, folder / "serving.png")


def conditions(results: Results, seconds: float) -> str:
    """What stands above the tables."""
    here = description()
    others = max((match.busy for match in results.matches), default=0.0)
    return (
        f"{here['cores']} cores of {here['cpu']}; runs of {seconds:g} s; before a match others used at most "
        f"{others:.0%} of the machine. Medians: requests/s (p50 / p99 in ms)."
    )


def peers_table(results: Results) -> str:
    """One line a server; ratios are medians over what was measured within one match."""
    contested = [match for match in results.matches if match.ceiling]
    if not contested:
        return ""
    lines = [_row("server", *HEAD, *(f"{what}, {' / '.join(HEAD)}" for what in RATIOS), "errors"), "|---" * 8 + "|"]
    lines.append(_line(OURS, contested, lambda match: match.ours.at))
    for peer in PEERS:
        matches = [match for match in contested if match.opponent.contestant == peer.name]
        if matches:
            lines.append(_line(peer, matches, lambda match: match.opponent.at))
    ceiling = " / ".join(
        f"{name} {median(match.ceiling[name] for match in contested if match.ceiling):.0f}"
        for name in contested[0].ceiling or ()
    )
    return "\n".join([*lines, "", f"Ceiling, images/s: {ceiling}."])


def absent(results: Results) -> str:
    """Who could not be started, and why."""
    return "\n".join(f"{name} did not take part: {reason.splitlines()[-1]}" for name, reason in results.absent.items())


def null_table(results: Results) -> str:
    """Our server around next to no network, against the bare endpoint; the same body, a tiny picture padded."""
    matches = [match for match in results.matches if match.opponent.contestant == NULL.name]
    if not matches:
        return ""
    ratios = _medians(matches, lambda m, c: _ratio(m.ours.at(c).requests_per_s, m.opponent.at(c).requests_per_s))
    return "\n".join(
        [
            _row("null model", *HEAD),
            "|---" * 4 + "|",
            _row(OURS_NULL.title, *(_cell([match.ours.at(c) for match in matches]) for c in CONCURRENCIES)),
            _row(NULL.title, *(_cell([match.opponent.at(c) for match in matches]) for c in CONCURRENCIES)),
            _row("ratio", *(f"{ratio:.2f}" for ratio in ratios)),
        ]
    )


def _line(who: Contestant, matches: Sequence[Match], runs: Runs) -> str:
    cells = [_cell([runs(match)(c) for match in matches]) for c in CONCURRENCIES]
    share = _medians(matches, lambda match, c: runs(match)(c).requests_per_s / _whole(match))
    faster = _medians(matches, lambda m, c: _ratio(m.ours.at(c).requests_per_s, runs(m)(c).requests_per_s))
    slower = _medians(matches, lambda m, c: _ratio(m.ours.at(c).p99_ms, runs(m)(c).p99_ms))
    compared = ("", "") if who is OURS else (_slashes(faster), _slashes(slower))
    errors = sum(runs(match)(c).errors for match in matches for c in CONCURRENCIES)
    return _row(who.title, *cells, _slashes(share), *compared, str(errors))


def _cell(loads: Sequence[Load]) -> str:
    requests, p50, p99 = (
        median(values)
        for values in zip(*((load.requests_per_s, load.p50_ms, load.p99_ms) for load in loads), strict=True)
    )
    return f"{requests:.0f} ({p50:.1f} / {p99:.1f})"


def _medians(matches: Sequence[Match], value: Callable[[Match, int], float]) -> list[float]:
    """Over the matches, one a concurrency."""
    return [median(value(match, concurrency) for match in matches) for concurrency in CONCURRENCIES]


def _whole(match: Match) -> float:
    assert match.ceiling is not None, "only the match of the null models has no ceiling"
    return match.ceiling["whole"]


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else float("inf")


def _slashes(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
