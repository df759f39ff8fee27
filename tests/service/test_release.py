"""What is replaced is given back, wherever Python keeps it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from service import release as module
from service.release import release


class Ring:
    """Refers to itself, as networks with hooks do: only the collector ends it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("is_frozen", [False, True])
def test_rings_are_collected(is_frozen, monkeypatch):
    """Also those from before the freeze, which the collector does not look at by itself; the rest stays frozen."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    gc.disable()
    try:
        ring = Ring()
        if is_frozen:
            gc.freeze()
        reference = weakref.ref(ring)
        del ring
        gc.collect()
        assert (reference() is None) is not is_frozen
        asyncio.run(release([reference]))
        assert reference() is None
        assert (gc.get_freeze_count() > 0) is is_frozen
    finally:
        gc.unfreeze()
        gc.enable()


def test_what_is_still_referred_to_is_told(monkeypatch, caplog):
    """Memory that does not come back is in the log, for whoever wonders where it is."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    kept = Ring()
    asyncio.run(release([weakref.ref(kept)]))
    assert "still referred to" in caplog.text
    del kept.itself
