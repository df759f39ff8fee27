"""Every setting of the server: a flag of `line-ood serve`, or an environment variable LINE_OOD_*.

The one owner of names, defaults and descriptions: flags and the README's table are derived from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from scoring.embedded import ARTIFACT
from scoring.images import MAX_PIXELS
from service.schemas import MAX_INSTANCES

ENV_PREFIX = "LINE_OOD_"
LogLevel = Literal["debug", "info", "warning", "error"]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseSettings):
    """Settings of one server process; read from the environment when made, never at import."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    artifact: Annotated[Path, Field(description="Artifact to serve; the embedded default otherwise.")] = ARTIFACT
    model: Annotated[
        str | None,
        Field(description="SPEC to load instead of the one in the artifact; the digest still rules."),
    ] = None
    weights: Annotated[Path | None, Field(description="File with the classifier's weights.")] = None
    engine: Annotated[
        str | None,
        Field(description="Engine to run instead of the calibrated one: NAME or NAME:PRECISION; scores may differ."),
    ] = None
    device: Annotated[str, Field(description="auto, cpu or cuda.")] = "auto"
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8080
    max_batch: Annotated[PositiveInt, Field(description="Images in one forward pass, at most.")] = 32
    max_delay_ms: Annotated[
        NonNegativeFloat, Field(description="How long an idle device waits for a batch to fill.")
    ] = 0
    queue_capacity: Annotated[
        PositiveInt, Field(description="Images admitted and not yet answered; more are refused with 429.")
    ] = 512
    timeout_s: Annotated[PositiveFloat, Field(description="Time a request may take, queueing included.")] = 10
    max_body_bytes: Annotated[PositiveInt, Field(description="Size of a request's body, at most.")] = 10 * 2**20
    max_images: Annotated[PositiveInt, Field(le=MAX_INSTANCES, description="Images in one request, at most.")] = 64
    max_pixels: Annotated[PositiveInt, Field(description="Pixels of an image, checked before it is decoded.")] = (
        MAX_PIXELS
    )
    decode_workers: Annotated[
        PositiveInt, Field(description="Threads that decode, by default one a core; openvino has none.")
    ] = os.cpu_count() or 1
    drain_s: Annotated[
        PositiveFloat,
        Field(ge=3, description="Time from SIGTERM to the end, at most; docker stop allows 10."),
    ] = 8
    capture: Annotated[
        str | None,
        Field(description="Folder or URL to keep images at for labelling (docs/capture.md); none are kept otherwise."),
    ] = None
    capture_reject: Annotated[Share, Field(description="Share of the rejected images that are kept.")] = 1.0
    capture_borderline: Annotated[
        Share, Field(description="Share of the accepted images with a p-value of at most 2 alpha that are kept.")
    ] = 1.0
    capture_random: Annotated[Share, Field(description="Share of all accepted images that are kept.")] = 0.01
    capture_per_minute: Annotated[PositiveFloat, Field(description="Images kept a minute, at most.")] = 60
    capture_max_bytes: Annotated[
        PositiveInt, Field(description="Bytes kept in all, at most; the oldest images are deleted first.")
    ] = 2**30
    capture_queue_bytes: Annotated[
        PositiveInt, Field(description="Memory for images that are to be written; more are dropped.")
    ] = 64 * 2**20
    log_level: Annotated[LogLevel, Field(description="debug, info, warning or error.")] = "info"

    @model_validator(mode="after")
    def _fits_the_queue(self) -> Settings:
        if self.max_images > self.queue_capacity:
            raise ValueError(
                f"max_images ({self.max_images}) must not exceed queue_capacity ({self.queue_capacity}): "
                "such a request could never be admitted"
            )
        return self
