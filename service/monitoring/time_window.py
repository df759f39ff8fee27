"""What was seen in the last seconds, counted in steps, so that memory does not grow with the rate of images."""

from __future__ import annotations

STEPS = 60


class TimeWindow:
    """How many images of the last `seconds` fell into each bin, to a sixtieth: the oldest step leaves as a whole.

    Args:
        seconds: length of the window.
        bins: how many bins there are.
        now: of a clock that never goes back.

    Attributes:
        width: seconds in a step.
        counts: by bin; call `advance` before reading.
        steps: counts by step, the present one last, and by bin.
    """

    def __init__(self, seconds: float, bins: int, now: float) -> None:
        self.width = seconds / STEPS
        self.counts = [0] * bins
        self.steps = [[0] * bins for _ in range(STEPS)]
        self._began = now  # of the present step

    def add(self, place: int, now: float) -> None:
        """Take in an image."""
        if now - self._began >= self.width:
            self.advance(now)
        self.counts[place] += 1
        self.steps[-1][place] += 1

    def advance(self, now: float) -> None:
        """Let go of what is over."""
        passed = int((now - self._began) / self.width)
        if passed <= 0:
            return
        self._began += passed * self.width
        for _ in range(min(passed, STEPS)):
            gone = self.steps.pop(0)
            self.counts = [count - old for count, old in zip(self.counts, gone, strict=True)]
            self.steps.append([0] * len(gone))

    def elapsed(self, now: float) -> float:
        """Seconds since the present step began."""
        return now - self._began

    def refill(self, steps: list[list[int]], elapsed: float, now: float) -> None:
        """Become the window that had these steps, and whose last one began `elapsed` seconds ago."""
        self.steps = [list(step) for step in steps]
        self.counts = [sum(column) for column in zip(*self.steps, strict=True)]
        self._began = now - elapsed
        self.advance(now)
