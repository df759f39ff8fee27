"""How much of everything: a short form for every day, and with CHAOS=long the one whose figures are published."""

from __future__ import annotations

import os
from typing import NamedTuple


class Scale(NamedTuple):
    """How often, and for how long."""

    fuzzed: int  # images for each decoder
    rounds: int  # of a fault that comes and goes
    deaths: int  # of the inference thread; each costs a start of the server
    clients: int  # that misbehave, of each kind
    examples: int  # for each operation of the OpenAPI document
    overload_s: float
    soak_s: float


SHORT = Scale(fuzzed=250, rounds=2, deaths=1, clients=20, examples=10, overload_s=5, soak_s=8)
LONG = Scale(
    fuzzed=10_000,
    rounds=50,
    deaths=5,
    clients=500,
    examples=300,
    overload_s=180,
    soak_s=float(os.environ.get("SOAK_S", "3600")),
)
IS_LONG = os.environ.get("CHAOS") == "long"
SCALE = LONG if IS_LONG else SHORT
