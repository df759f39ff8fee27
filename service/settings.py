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
    max_connections: Annotated[
        PositiveInt, Field(description="Connections open at one time; what is more gets 503, but for health.")
    ] = 1000
    api_keys: Annotated[
        Path | None, Field(description="File of the keys that clients need, by digest; none are needed otherwise.")
    ] = None
    admin_keys: Annotated[
        Path | None, Field(description="File of the keys that administration needs; it is refused otherwise.")
    ] = None
    tls_cert: Annotated[Path | None, Field(description="PEM file with the certificate; plain HTTP otherwise.")] = None
    tls_key: Annotated[Path | None, Field(description="PEM file with the certificate's key.")] = None
    tls_client_ca: Annotated[
        Path | None, Field(description="PEM file with who signs clients' certificates; clients need none otherwise.")
    ] = None
    log_level: Annotated[LogLevel, Field(description="debug, info, warning or error.")] = "info"

    @model_validator(mode="after")
    def _fits_the_queue(self) -> Settings:
        if self.max_images > self.queue_capacity:
            raise ValueError(
                f"max_images ({self.max_images}) must not exceed queue_capacity ({self.queue_capacity}): "
                "such a request could never be admitted"
            )
        return self

    @model_validator(mode="after")
    def _has_whole_tls(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key need each other")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        return self
