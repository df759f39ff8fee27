"""Tests whose tools are not here: skipped at home, failed where the gate runs, which may not pass without them."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """End a test that lacks something which `scripts/install-test-tools` or the machine has to have."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
