"""The pictures of the classes: a bar each while their names can be read, the shape of all of them beyond that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import binom

from calibration.canvas import BLACK, BLUE, GREEN, ORANGE, panels, to_png
from calibration.classes import ClassRow
from calibration.names import label

NAMED = 30  # classes, at most, that have a bar each
FUNNEL = 0.99  # of the classes lie within, where all are rejected alike


def reject_picture(rows: Sequence[ClassRow], overall: float) -> bytes:
    """Reject rate by predicted class.

    Args:
        rows: one a class.
        overall: share of all ID images that are rejected.
    """
    if len(rows) <= NAMED:
        with panels(1, 1, 8, 1.4 + 0.3 * len(rows)) as (figure, (axis,)):
            _bars_of_rates(axis, rows, overall)
            return to_png(figure)
    with panels(1, 2, 5.6, 4.2) as (figure, (left, right)):
        _sorted_rates(left, rows, overall)
        _funnel(right, rows, overall)
        return to_png(figure)


def count_picture(names: Sequence[str], counts: Sequence[int]) -> bytes:
    """Images that made the masks of each class."""
    if len(counts) <= NAMED:
        with panels(1, 1, 8, 1.4 + 0.3 * len(counts)) as (figure, (axis,)):
            axis.barh(range(len(counts)), counts, color=BLUE)
            _name_classes(axis, names)
            axis.set(xlabel="images that made the masks")
            return to_png(figure)
    with panels(1, 1, 8, 3.4) as (figure, (axis,)):
        axis.plot(range(1, len(counts) + 1), sorted(counts, reverse=True), drawstyle="steps-mid", color=BLUE)
        axis.set(xlabel="classes, the best covered first", ylabel="images that made the masks", ylim=(0, None))
        return to_png(figure)


def _bars_of_rates(axis: Axes, rows: Sequence[ClassRow], overall: float) -> None:
    rates = np.array([100 * (row.reject_rate or 0) for row in rows])
    ends = 100 * np.array([row.reject_interval for row in rows]).T
    known = np.array([row.reject_rate is not None for row in rows])
    axis.barh(range(len(rows)), rates, color=BLUE)
    errors = np.abs(ends - rates)[:, known]
    axis.errorbar(rates[known], np.flatnonzero(known), xerr=errors, fmt="none", ecolor=BLACK, capsize=3, lw=1)
    axis.axvline(100 * overall, color=ORANGE, linestyle="--", label=f"all ID images: {100 * overall:.2f} %")
    _name_classes(axis, [row.name for row in rows])
    axis.set(xlabel="images of a predicted class rejected [%], with 95 % interval", xlim=(0, None))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1))


def _sorted_rates(axis: Axes, rows: Sequence[ClassRow], overall: float) -> None:
    rates = sorted((100 * row.reject_rate for row in rows if row.reject_rate is not None), reverse=True)
    axis.plot(range(1, len(rates) + 1), rates, drawstyle="steps-mid", color=BLUE, lw=1.8)
    axis.axhline(100 * overall, color=ORANGE, linestyle="--", label=f"all ID images: {100 * overall:.2f} %")
    axis.set(xlabel="predicted classes, the most rejected first", ylabel="images rejected [%]", ylim=(0, None))
    axis.legend()


def _funnel(axis: Axes, rows: Sequence[ClassRow], overall: float) -> None:
    seen = [row for row in rows if row.reject_rate is not None]
    counts = np.array([row.predicted for row in seen])
    rates = np.array([row.reject_rate for row in seen], dtype=np.float64)
    sizes = np.unique(np.linspace(1, max(counts.max(), 1), 200).round().astype(int))
    low, high = (binom(sizes, overall).ppf(end) / sizes for end in ((1 - FUNNEL) / 2, (1 + FUNNEL) / 2))
    text = f"{100 * FUNNEL:.0f} % of classes, were all alike"
    axis.fill_between(sizes, 100 * low, 100 * high, color=GREEN, alpha=0.2, lw=0, label=text)
    axis.scatter(counts, 100 * rates, s=14, color=BLUE, alpha=0.45, lw=0, label="a class")
    axis.axhline(100 * overall, color=ORANGE, linestyle="--")
    axis.set(xlabel="ID images predicted as the class", ylabel="of them rejected [%]", xlim=(0, None))
    axis.set_ylim(0, min(105, 130 * max(rates.max(), 2 * overall, 0.01)))  # the funnel's wide end is of no interest
    axis.legend()


def _name_classes(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [label(name) for name in names])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
