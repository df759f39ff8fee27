"""What is kept of a monitor in a file: JSON, checked like any input when it is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from service.monitoring.evidence import LOG_ODDS_RATIOS, STAKE_EVERY
from service.monitoring.time_window import STEPS

VERSION: Literal[1] = 1
GRID = len(LOG_ODDS_RATIOS)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StoredEvidence(_Part):
    """See `Evidence`."""

    images: NonNegativeInt
    accepts: Annotated[int, Field(ge=0, lt=STAKE_EVERY)]
    capital: Annotated[list[float], Field(min_length=GRID, max_length=GRID)]
    alarmed: bool


class StoredTime(_Part):
    """See `TimeWindow`."""

    width_s: float
    elapsed_s: NonNegativeFloat
    steps: Annotated[list[list[NonNegativeInt]], Field(min_length=STEPS, max_length=STEPS)]

    def aged(self, seconds: float) -> StoredTime:
        """The same so much later, nothing having been seen since."""
        return self.model_copy(update={"elapsed_s": self.elapsed_s + seconds})


class StoredStream(_Part):
    """See `Stream`; cells in base64: unsigned numbers of four bytes in the machine's order, the oldest image first."""

    images: NonNegativeInt
    cells: str
    time: StoredTime
    evidence: dict[str, StoredEvidence]


class StoredModel(_Part):
    """The streams of a model; of use only with the same artifact and the same bound."""

    artifact_id: str
    false_alarm: float
    streams: dict[str, StoredStream]

    def aged(self, seconds: float) -> StoredModel:
        """The same so much later, nothing having been seen since."""
        streams = {
            name: each.model_copy(update={"time": each.time.aged(seconds)}) for name, each in self.streams.items()
        }
        return self.model_copy(update={"streams": streams})


class StoredState(_Part):
    """A whole file; `saved_at` in seconds since 1970."""

    version: Literal[1]
    saved_at: float
    models: dict[str, StoredModel]
