"""What every engine is, and the words that name one."""

from __future__ import annotations

import sys
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from scoring.errors import EngineError
from scoring.types import Features, PixelBatch

EngineName = Literal["eager", "compiled", "openvino", "cudagraph"]
Precision = Literal["float32", "bfloat16", "int8"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ANY = sys.maxsize
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EngineChoice(BaseModel):
    """Which engine, in which precision; recorded in every artifact.

    Attributes:
        name: see `scoring.engines`.
        precision: of the backbone; the head and the score are always computed in float32. `int8` is OpenVINO's alone,
            and runs a network that calibration has quantised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: EngineName = "eager"
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _can_compute(self) -> EngineChoice:
        if self.precision == "int8" and self.name != "openvino":
            raise ValueError(f"{self}: only openvino runs in int8")
        return self

    @classmethod
    def parse(cls, text: str) -> EngineChoice:
        """Read NAME or NAME:PRECISION.

        Raises:
            EngineError: there is no such engine or precision.
        """
        name, _, precision = text.partition(":")
        if name not in ENGINES or (precision or "float32") not in PRECISIONS:
            wanted = f"{', '.join(ENGINES)}, alone or followed by {' or '.join(f':{each}' for each in PRECISIONS)}"
            raise EngineError(f"engine {text!r}: wanted {wanted}")
        try:
            return cls.model_validate({"name": name, "precision": precision or "float32"})
        except ValidationError as error:
            raise EngineError(f"engine {error.errors()[0]['ctx']['error']}") from error

    def __str__(self) -> str:
        return f"{self.name}:{self.precision}"


@runtime_checkable  # the tests check arguments at run time
class Engine(Protocol):
    """Runs one backbone on one device.

    Attributes:
        lanes: how many threads may call `features` side by side and gain by it.
        useful_batch: images in a batch beyond which only the answer gets later; `ANY` where each one helps.
    """

    lanes: int
    useful_batch: int

    def features(self, pixels: PixelBatch, *, alone: bool) -> Features:
        """Run a batch.

        Args:
            pixels: on any device.
            alone: nothing else will run meanwhile, so that the whole machine may be used for this batch.

        Returns:
            float32 features on the engine's device, the caller's to keep.
        """
