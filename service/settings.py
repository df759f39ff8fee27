"""Every setting of the server: a flag of `line-ood serve`, or an environment variable LINE_OOD_*.

The one owner of names, defaults and descriptions: flags and the README's table are derived from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from scoring.cores import usable_cores
from scoring.embedded import ARTIFACT
from scoring.images import MAX_PIXELS
from service.schemas import MAX_INSTANCES

ENV_PREFIX = "LINE_OOD_"
LogLevel = Literal["debug", "info", "warning", "error"]
Share = Annotated[float, Field(ge=0, le=1)]


def _split(value: object) -> object:
    """A flag is given several times, a variable holds several values with commas between them: paths have spaces."""
    values = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if isinstance(values, list) and "" in values:
        raise ValueError(f"an empty value in {value!r}")
    return values


Several = Annotated[list[str], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Settings of one server process; read from the environment when made, never at import."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    artifact: Annotated[
        Several,
        Field(min_length=1, description="FILE or NAME=FILE to serve, several times for several models."),
    ] = [str(ARTIFACT)]
    model: Annotated[
        Several,
        Field(description="SPEC to load instead of the one in the artifact; the digest still rules. Or NAME=SPEC."),
    ] = []
    weights: Annotated[Several, Field(description="File with the classifier's weights. Or NAME=FILE.")] = []
    engine: Annotated[
        Several,
        Field(
            description="Engine to run instead of the calibrated one: ENGINE or ENGINE:PRECISION; scores may differ. "
            "Or NAME=ENGINE."
        ),
    ] = []
    shadow: Annotated[
        Several,
        Field(description="Artifact that scores a share of the images, too, and is only counted. Or NAME=FILE."),
    ] = []
    shadow_share: Annotated[float, Field(gt=0, le=1, description="Share of the images that a shadow scores.")] = 0.1
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
        PositiveInt, Field(description="Threads that decode, by default one a core; openvino on several has none.")
    ] = usable_cores()
    drain_s: Annotated[
        PositiveFloat,
        Field(ge=3, description="Time from SIGTERM to the end, at most; docker stop allows 10."),
    ] = 8
    monitor_window_images: Annotated[
        PositiveInt, Field(le=100_000, description="Images of a stream that are compared with the calibration.")
    ] = 1000
    monitor_window_s: Annotated[
        PositiveFloat, Field(description="Seconds of a stream over which its reject rate is told, too.")
    ] = 3600
    monitor_streams: Annotated[
        PositiveInt,
        Field(le=256, description="Streams, by X-Stream-ID, that are told apart; further ones are `other`."),
    ] = 16
    monitor_false_alarm: Annotated[
        float, Field(gt=0, lt=1, description="Probability that a stream without drift ever raises an alarm, at most.")
    ] = 0.01
    monitor_spacing_s: Annotated[
        NonNegativeFloat, Field(description="Seconds between images of a stream that count as evidence of drift.")
    ] = 0
    monitor_state: Annotated[
        Path | None, Field(description="File in which windows, evidence and alarms survive a restart.")
    ] = None
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
    otlp_endpoint: Annotated[
        str | None,
        Field(description="URL of the collector that traces go to (docs/tracing.md); none are made otherwise."),
    ] = None
    log_level: Annotated[LogLevel, Field(description="debug, info, warning or error.")] = "info"

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_base_url(cls, value: str | None) -> str | None:
        """What is no collector's would only show when the first spans are lost."""
        if value is None:
            return None
        parts = urlsplit(value)
        is_plain = not (parts.query or parts.fragment or parts.username or "/v1/traces" in parts.path)
        if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
            raise ValueError("wanted a collector's base URL, as http://collector:4318, to which /v1/traces is added")
        return value

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
