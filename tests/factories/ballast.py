"""The tiny network, with 40 MB more: a version that is not given back shows in what a process has resident.

More than 32 MB in one piece, because smaller ones glibc may keep for later, in whichever of its arenas.
"""

from __future__ import annotations

import torch

from scoring.spec import ClassifierParts
from tests.factories.tiny import tiny

BALLAST_MB = 40


def ballast() -> ClassifierParts:
    parts = tiny()
    parts.module[0].register_buffer("ballast", torch.ones(BALLAST_MB * 250_000))
    return parts
