"""Scores that need nothing but the logits. Higher = more out-of-distribution, as everywhere."""

from __future__ import annotations

from scoring.line import energy
from scoring.types import Logits, Scores

__all__ = ["energy", "msp"]


def msp(logits: Logits) -> Scores:
    """1 - max softmax (Hendrycks and Gimpel, 2017)."""
    return 1 - logits.softmax(1).amax(1)
