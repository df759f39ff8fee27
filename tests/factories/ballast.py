"""The tiny network, with 20 MB more: a version that is not given back shows in what a process has resident."""

from __future__ import annotations

import torch

from scoring.spec import ClassifierParts
from tests.factories.tiny import tiny

BALLAST_MB = 20


def ballast() -> ClassifierParts:
    parts = tiny()
    parts.module[0].register_buffer("ballast", torch.ones(BALLAST_MB * 250_000))
    return parts
