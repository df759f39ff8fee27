"""A calibration that ends in the middle, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from calibration.partial import Partial


class StoppedError(Exception):
    """Stands for whatever ends a process."""


@contextmanager
def stopped_after(batches: int) -> Iterator[None]:
    """End what runs inside when so many batches are done, their state kept."""
    with pytest.MonkeyPatch.context() as patch:
        save, left = Partial.save_if_due, iter(range(batches - 1, -1, -1))

        def save_and_stop(*args: Any) -> None:
            save(*args)
            if next(left) == 0:
                raise StoppedError

        patch.setattr(Partial, "save_if_due", save_and_stop)
        with pytest.raises(StoppedError):
            yield
