"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(found: Callable[[], T], within_s: float = 20) -> T:
    """Ask again and again until the answer is true, and return it.

    Raises:
        AssertionError: it was not within that time.
    """
    end = time.monotonic() + within_s
    while not (answer := found()):
        assert time.monotonic() < end, f"not so within {within_s:g} s"
        time.sleep(0.01)
    return answer
