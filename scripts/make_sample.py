"""Draws scoring/embedded/sample.jpg: a clock on a wall, so that the repository ships no foreign photograph."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SAMPLE = Path(__file__).parents[1] / "scoring" / "embedded" / "sample.jpg"
SIZE = (480, 360)
SCALE = 3  # drawn larger, so that the reduction smooths the edges
CENTRE = (720, 540)
BLACK = (20, 20, 20)


def wall() -> Image.Image:
    """A plaster wall: light from above, and some grain."""
    width, height = SIZE
    light = np.linspace(0, 1, height)[:, None, None]
    colour = np.array((205, 190, 170)) * (1 - light) + np.array((150, 135, 120)) * light  # (H, 1, 3)
    grain = np.random.default_rng(0).normal(0, 5, (height, width, 1))
    pixels = (colour + grain).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((SCALE * width, SCALE * height))


def at(turn: float, radius: float) -> tuple[float, float]:
    """The point on a circle around the centre, `turn` of it clockwise from the top."""
    angle = 2 * math.pi * turn
    return CENTRE[0] + radius * math.sin(angle), CENTRE[1] - radius * math.cos(angle)


def disc(draw: ImageDraw.ImageDraw, radius: int, colour: tuple[int, int, int]) -> None:
    """A filled circle around the centre."""
    x, y = CENTRE
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def clock() -> Image.Image:
    """A clock that shows nine minutes past ten."""
    picture = wall()
    draw = ImageDraw.Draw(picture)
    for radius, colour in ((430, (60, 45, 35)), (405, (95, 70, 50)), (380, (245, 243, 235))):
        disc(draw, radius, colour)
    for minute in range(60):
        inner, width = (340, 6) if minute % 5 else (310, 14)
        draw.line([at(minute / 60, inner), at(minute / 60, 360)], fill=BLACK, width=width)
    font = ImageFont.load_default(70)
    for hour in range(1, 13):
        draw.text(at(hour / 12, 262), str(hour), fill=BLACK, font=font, anchor="mm")
    draw.line([at(10.15 / 12, -30), at(10.15 / 12, 190)], fill=BLACK, width=22)
    draw.line([at(9 / 60, -30), at(9 / 60, 290)], fill=BLACK, width=14)
    draw.line([at(37 / 60, -60), at(37 / 60, 310)], fill=(180, 20, 20), width=6)
    disc(draw, 20, BLACK)
    return picture.resize(SIZE, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    clock().save(SAMPLE, quality=92)
