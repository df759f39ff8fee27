"""The picture: throughput and the slowest hundredth, by concurrency, with the ceiling as a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.serving.contestants import OURS, PEERS
from benchmarks.serving.load import CONCURRENCIES, Load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.serving.contest import Match

OURS_COLOUR = "#c8442d"
PEER_COLOUR = "#8c96a3"
CEILING_COLOUR = "#222222"


def draw(matches: Sequence[Match], file: Path) -> None:
    """One column of panels a concurrency; the upper row is throughput, the lower p99."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    bars = _bars(matches)
    figure = Figure(figsize=(11, 1.6 + 0.5 * len(bars)), layout="constrained")
    panels = figure.subplots(2, len(CONCURRENCIES), sharey=True)
    ceiling = median(match.ceiling["whole"] for match in matches if match.ceiling)
    for column, concurrency in enumerate(CONCURRENCIES):
        upper, lower = panels[0][column], panels[1][column]
        upper.set_title(f"{concurrency} at a time" if concurrency > 1 else "one at a time")
        _panel(upper, bars, concurrency, lambda load: load.requests_per_s)
        _panel(lower, bars, concurrency, lambda load: load.p99_ms)
        upper.axvline(ceiling, color=CEILING_COLOUR, linestyle="--", linewidth=1)
        upper.set_xlabel("requests/s (dashed: without HTTP)")
        lower.set_xlabel("p99, ms")
    panels[0][0].invert_yaxis()
    figure.savefig(file, dpi=150)


def _bars(matches: Sequence[Match]) -> dict[str, list[Load]]:
    """All runs by title, we on top."""
    bars = {OURS.title: [load for match in matches for load in match.ours.loads]}
    for peer in PEERS:
        loads = [load for match in matches if match.opponent.contestant == peer.name for load in match.opponent.loads]
        if loads:
            bars[peer.title] = loads
    return bars


def _panel(axes: Axes, bars: dict[str, list[Load]], concurrency: int, value: Callable[[Load], float]) -> None:
    heights = [median(value(load) for load in loads if load.concurrency == concurrency) for loads in bars.values()]
    colours = [OURS_COLOUR if title == OURS.title else PEER_COLOUR for title in bars]
    axes.bar_label(axes.barh(list(bars), heights, color=colours), fmt="%.0f", padding=2)
    axes.margins(x=0.15)
