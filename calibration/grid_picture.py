"""What a search has tried, as a picture: a map of p_a and p_w for each clip, its shade the mean AUROC."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.patches import Rectangle

from calibration.canvas import ORANGE, panels, to_png
from calibration.grid import PERCENTILES
from calibration.search import Row, Search

COLUMNS = 4  # panels beside one another
SHADES = "Blues"
BRIGHT = 0.6  # of the scale: from here on the shade is too dark for black letters


def grid_picture(search: Search) -> bytes:
    """Draw; the setting that was chosen has a frame."""
    clips = list(dict.fromkeys(row.clip_quantile for row in search.rows))
    found = {(row.p_a, row.p_w, row.clip_quantile): 100 * row.mean_auroc for row in search.rows}
    scale = (min(found.values()), max(found.values()))
    rows = math.ceil(len(clips) / COLUMNS)
    with panels(rows, min(COLUMNS, len(clips)), 3.6, 3.4) as (figure, axes):
        for axis in axes[len(clips) :]:
            axis.set_visible(False)
        for axis, clip in zip(axes, clips, strict=False):
            values = np.array([[found[p_a, p_w, clip] for p_w in PERCENTILES] for p_a in PERCENTILES])
            axis.imshow(values, cmap=SHADES, vmin=scale[0], vmax=scale[1])
            axis.grid(visible=False)
            axis.set_xticks(range(len(PERCENTILES)), [f"{p:g}" for p in PERCENTILES])
            axis.set_yticks(range(len(PERCENTILES)), [f"{p:g}" for p in PERCENTILES])
            axis.set_xlabel("p_w [%]")
            axis.set_ylabel("p_a [%]")
            axis.set_title("no clip" if clip is None else f"clip at {100 * clip:g} %")
            for (y, x), value in np.ndenumerate(values):
                is_dark = value > scale[0] + BRIGHT * (scale[1] - scale[0])
                colour = "white" if is_dark else "black"
                axis.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7.5, color=colour)
            if clip == search.best.clip_quantile:
                axis.add_patch(_frame(search.best))
        return to_png(figure)


def _frame(row: Row) -> Rectangle:
    x, y = PERCENTILES.index(row.p_w), PERCENTILES.index(row.p_a)
    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5)
