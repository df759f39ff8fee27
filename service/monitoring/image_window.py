"""The last images of a stream, each as the number of the cell that it fell into."""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class ImageWindow:
    """How many of the last `size` images fell into each cell; memory for `size` numbers, and the same work an image.

    Args:
        size: images.
        cells: how many cells there are.

    Attributes:
        counts: by cell.
    """

    def __init__(self, size: int, cells: int) -> None:
        self._size = size
        self._ring = array("I")
        self._oldest = 0
        self.counts = [0] * cells

    def add(self, cell: int) -> None:
        """Take in an image, and let go of the oldest when the window is full."""
        self.counts[cell] += 1
        if len(self._ring) < self._size:
            self._ring.append(cell)
            return
        oldest = self._oldest
        self.counts[self._ring[oldest]] -= 1
        self._ring[oldest] = cell
        self._oldest = (oldest + 1) % self._size

    def oldest_first(self) -> array[int]:
        """The cells of the window's images."""
        return self._ring[self._oldest :] + self._ring[: self._oldest]

    def refill(self, cells: Iterable[int]) -> None:
        """Take in what `oldest_first` gave, of a window of any size."""
        for cell in cells:
            self.add(cell)
