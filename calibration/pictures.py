"""The pictures of the scores: histograms, ROC curves, reliability of the reject rate. PNG bytes from plain numbers.

Higher = more out-of-distribution, to the right; shares in percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from sklearn.metrics import roc_curve

from calibration.canvas import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, YELLOW, panels, to_png
from calibration.names import label
from calibration.rates import Reliability
from scoring.conformal import FloatArray

BINS = 60
TAIL = 0.2  # percent of the images at either end that may lie beyond the axis
COLUMNS = 2
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # percent
STYLED = (  # of the methods that stand out of a ROC picture, the deciding one first
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (YELLOW, (0, (5, 1))),
    (SKY, (0, (3, 1, 1, 1))),
)

Scores = Mapping[str, FloatArray]
Thresholds = Mapping[str, tuple[float, float]]


def histograms(method: str, inside: FloatArray, outside: Scores, thresholds: Thresholds) -> bytes:
    """ID images against each OOD folder, with the thresholds.

    Args:
        method: whose scores.
        inside: of the ID images.
        outside: by folder.
        thresholds: by operating point the lowest and the highest.
    """
    edges = _edges([inside, *outside.values()], thresholds)
    with panels(-(-len(outside) // COLUMNS), min(COLUMNS, len(outside)), 5.6, 3.5) as (figure, axes):
        for axis, (name, scores) in zip(axes, outside.items(), strict=False):
            _bars(axis, inside, edges, f"ID ({len(inside)})", BLUE)
            _bars(axis, scores, edges, f"{label(name)} ({len(scores)})", ORANGE)
            _mark(axis, thresholds)
            axis.set(title=label(name), xlabel=f"ood_score ({method}), higher = more OOD", ylabel="images a bin [%]")
            _explain(axis)
        for axis in axes[len(outside) :]:
            axis.set_visible(False)
        return to_png(figure)


def calibration_histogram(method: str, scores: FloatArray, thresholds: Thresholds) -> bytes:
    """The calibration scores, with the thresholds that they made."""
    with panels(1, 1, 8, 3.6) as (figure, (axis,)):
        _bars(axis, scores, _edges([scores], thresholds), f"calibration images ({len(scores)})", BLUE)
        _mark(axis, thresholds)
        axis.set(xlabel=f"ood_score ({method}), higher = more OOD", ylabel="images a bin [%]")
        _explain(axis)
        return to_png(figure)


def roc(ranked: Sequence[str], inside: Scores, outside: Mapping[str, Scores]) -> bytes:
    """ROC curves of every method, a panel for each OOD folder.

    Args:
        ranked: methods, those that matter most first; the first few have a colour.
        inside: scores of the ID images, by method.
        outside: scores by folder, then by method.
    """
    columns = min(COLUMNS, len(outside))
    rows = -(-len(outside) // columns)
    with panels(rows, columns, 5.4, 5) as (figure, axes):
        for axis, (name, scores) in zip(axes, outside.items(), strict=False):
            drawn = [
                _curve(axis, inside[method], scores[method], place)
                for place, method in reversed(list(enumerate(ranked)))  # the first one on top
            ][::-1]
            axis.axhline(95, color=BLACK, linewidth=0.8, linestyle=":")
            axis.set(title=label(name), xlabel="OOD images accepted [%]", ylabel="ID images accepted [%]")
            axis.set(xlim=(0, 100), ylim=(0, 101))
        for axis in axes[len(outside) :]:
            axis.set_visible(False)
        labels = [label(method) for method in ranked[: len(STYLED)]]
        if len(ranked) > len(STYLED):
            labels.append(f"{len(ranked) - len(STYLED)} others")
        title = "dotted: 95 % of ID images accepted, where FPR95 is read"
        figure.legend(drawn[: len(labels)], labels, loc="outside lower center", ncols=4, title=title)
        return to_png(figure)


def reliability(rows: Sequence[Reliability], images: int) -> bytes:
    """The realised against the promised false-reject rate, both on a logarithmic axis.

    Args:
        rows: at least one.
        images: ID images that were measured.
    """
    alphas, realised = 100 * np.array([row.alpha for row in rows]), 100 * np.array([row.realised for row in rows])
    true = 100 * np.array([row.interval for row in rows])
    seen = 100 * np.array([row.realised_interval for row in rows])
    floor = 0.5 * min(alphas[0], *realised[realised > 0], *true[:, 0])
    with panels(1, 1, 7.2, 5) as (figure, (axis,)):
        share = f"90 %: share of {images} images"
        axis.fill_between(alphas, np.maximum(seen[:, 0], floor), seen[:, 1], color=SKY, alpha=0.3, lw=0, label=share)
        axis.fill_between(alphas, true[:, 0], true[:, 1], color=BLUE, alpha=0.35, lw=0, label="90 %: true rate")
        axis.plot(alphas, alphas, color=BLACK, linestyle="--", linewidth=1, label="as promised")
        axis.plot(alphas, np.maximum(realised, floor), "o-", color=ORANGE, markersize=5, label="realised")
        axis.set(xscale="log", yscale="log", xlabel="promised false-reject rate [%]", ylabel="ID images rejected [%]")
        axis.set_xticks(TICKS, map(str, TICKS), minor=False)
        axis.set_yticks(TICKS, map(str, TICKS), minor=False)
        axis.minorticks_off()
        axis.set(xlim=(0.9 * alphas[0], 1.1 * alphas[-1]), ylim=(floor, 1.2 * max(*seen[:, 1], *realised)))
        axis.legend(loc="upper left")
        return to_png(figure)


def _edges(groups: Sequence[FloatArray], thresholds: Thresholds) -> FloatArray:
    """Bins that hold almost all of every group, and every threshold."""
    marks = [end for ends in thresholds.values() for end in ends]
    low = min([*(float(np.percentile(scores, TAIL)) for scores in groups), *marks])
    high = max([*(float(np.percentile(scores, 100 - TAIL)) for scores in groups), *marks])
    room = 0.02 * (high - low) or max(abs(high), 1) * 1e-3
    edges: FloatArray = np.linspace(low - room, high + room, BINS + 1)
    return edges


def _bars(axis: Axes, scores: FloatArray, edges: FloatArray, text: str, colour: str) -> None:
    weights = np.full(len(scores), 100 / len(scores))
    within = scores.clip(edges[0], edges[-1])  # what lies beyond is counted in the last bin
    axis.hist(within, edges.tolist(), weights=weights, color=colour, alpha=0.4)
    axis.hist(within, edges.tolist(), weights=weights, color=colour, histtype="step", linewidth=1.4, label=text)


def _mark(axis: Axes, thresholds: Thresholds) -> None:
    """A line at the one threshold of an operating point, or at both ends of a band that those of the classes lie in."""
    styles = ("-", "--", ":", "-.")
    for index, (name, (low, high)) in enumerate(thresholds.items()):
        style = styles[index % len(styles)]
        one = f"threshold {label(name)}: {low:.4g}"
        text = one if low == high else f"thresholds {label(name)}: {low:.4g} to {high:.4g}"
        axis.axvline(low, color=BLACK, linestyle=style, linewidth=1.3, label=text)
        if high > low:
            axis.axvline(high, color=BLACK, linestyle=style, linewidth=1.3)
            axis.axvspan(low, high, color=BLACK, alpha=0.06, lw=0)


def _explain(axis: Axes) -> None:
    axis.set_ylim(top=1.35 * axis.get_ylim()[1])  # room for the legend, above the bars
    axis.legend(loc="upper center", ncols=2, fontsize=9, frameon=True, framealpha=1, edgecolor="none")


def _curve(axis: Axes, inside: FloatArray, outside: FloatArray, place: int) -> Line2D:
    is_id = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
    fpr, tpr, _ = roc_curve(is_id, -np.concatenate([inside, outside]))
    colour, style = STYLED[place] if place < len(STYLED) else (GREY, "-")
    width = 2.6 if place == 0 else 1.6 if place < len(STYLED) else 0.8
    (drawn,) = axis.plot(100 * fpr, 100 * tpr, color=colour, linestyle=style, linewidth=width)
    return drawn
