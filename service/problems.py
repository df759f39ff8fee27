"""What goes wrong between a request and its answer, and the status that says so (RFC 9457).

bytes ─▶ body ─▶ [admission] ─▶ decode ─▶ [queue] ─▶ batch ─▶ answer
         400 413 415  429         415 422     504 499    500
before all of it: 503 while starting or draining, or for too many connections; 401 403 for keys; 404 for a model that is
not served; and for headers that are too large, too late or no HTTP 431 408 400.

The errors of single images come from `scoring.errors`; their statuses stand in the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi.responses import JSONResponse

from scoring.errors import (
    ImageError,
    LineOodError,
    TooManyPixelsError,
    UndecodableError,
    UnsupportedFormatError,
)
from service.schemas import ImageErrorDetail


class ServiceError(LineOodError):
    """A request that is not answered with results.

    Attributes:
        retry_after_s: when to come again, if that may help.
        errors: why each of several images failed.
    """

    retry_after_s: int | None = None
    errors: list[ImageErrorDetail] | None = None
    challenge: str | None = None  # how to prove who one is, for WWW-Authenticate


class MalformedRequestError(ServiceError):
    """The request is not as the documentation says."""


class EmptyImageError(MalformedRequestError):
    """An image of zero bytes."""


class UnknownModelError(ServiceError):
    """No model of that name, or not in that version, is served."""


class UnknownStreamError(ServiceError):
    """No stream of that name is watched."""


class LoadUnderWayError(ServiceError):
    """The model is being loaded already."""

    retry_after_s = 5


class LoadRefusedError(ServiceError):
    """What the model's files hold now is not served; the version before goes on."""


class LoadFailedError(ServiceError):
    """The server could not load what the model's files hold now; the version before goes on."""


class UnsupportedMediaTypeError(ServiceError):
    """The body is of a type that is not accepted."""


class TooLargeError(ServiceError):
    """Too many bytes, or too many images, in one request."""


class AllImagesFailedError(ServiceError):
    """None of several images could be scored.

    Args:
        message: what happened.
        problems: one an image.
    """

    def __init__(self, message: str, problems: list[Problem]) -> None:
        super().__init__(message)
        self.errors = [problem.of_image() for problem in problems]


class SomeImagesFailedError(ServiceError):
    """Of several images one or more could not be scored, and the protocol has no answer for the others alone."""


class QueueFullError(ServiceError):
    """More images are waiting than the server promises to answer in time."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlinePassedError(ServiceError):
    """The time that the request may take is over."""


class ClientGoneError(ServiceError):
    """Nobody waits for the answer; only the log sees this."""


class NotReadyError(ServiceError):
    """The server is starting, draining, or has lost its inference thread."""

    retry_after_s = 1


class InferenceError(ServiceError):
    """The forward pass failed on this very image; the log has the reason, the client has not."""


class ImageInferenceError(InferenceError):
    """The classifier's answer on this image is NaN or infinite."""


class DecodingError(ServiceError):
    """The server, not the image, is at fault: out of memory, say; the log has the reason."""


class MissingKeyError(ServiceError):
    """The request needs a key and has none."""

    challenge = 'Bearer realm="line-ood"'


class UnknownKeyError(ServiceError):
    """The request's key is nobody's."""

    challenge = 'Bearer realm="line-ood", error="invalid_token"'


class ForbiddenError(ServiceError):
    """The request's key does not open this."""


class HeadersLateError(ServiceError):
    """A request has begun, and its headers do not end."""


class HeadersTooLargeError(ServiceError):
    """Too many headers, or too many bytes of them."""


class TooManyConnectionsError(ServiceError):
    """As many connections as there may be are open already."""

    retry_after_s = 1


@dataclass(frozen=True)
class Kind:
    """How an error is told: HTTP status, machine-readable code, title."""

    status: int
    code: str
    title: str


KINDS: dict[type[BaseException], Kind] = {
    MalformedRequestError: Kind(400, "malformed_request", "Malformed request"),
    EmptyImageError: Kind(400, "empty_image", "Empty image"),
    MissingKeyError: Kind(401, "key_missing", "Key missing"),
    UnknownKeyError: Kind(401, "key_unknown", "Key unknown"),
    ForbiddenError: Kind(403, "forbidden", "Forbidden"),
    HeadersLateError: Kind(408, "headers_late", "Headers late"),
    UnknownModelError: Kind(404, "unknown_model", "Unknown model"),
    UnknownStreamError: Kind(404, "unknown_stream", "Unknown stream"),
    LoadUnderWayError: Kind(409, "load_under_way", "Load under way"),
    TooLargeError: Kind(413, "too_large", "Request too large"),
    UnsupportedMediaTypeError: Kind(415, "unsupported_media_type", "Unsupported media type"),
    UnsupportedFormatError: Kind(415, "unsupported_format", "Unsupported image format"),
    UndecodableError: Kind(422, "undecodable_image", "Image cannot be decoded"),
    TooManyPixelsError: Kind(422, "too_many_pixels", "Too many pixels"),
    ImageError: Kind(422, "bad_image", "Bad image"),
    AllImagesFailedError: Kind(422, "all_images_failed", "No image could be scored"),
    LoadRefusedError: Kind(422, "load_refused", "Load refused"),
    SomeImagesFailedError: Kind(422, "some_images_failed", "Not every image could be scored"),
    QueueFullError: Kind(429, "queue_full", "Queue full"),
    HeadersTooLargeError: Kind(431, "headers_too_large", "Headers too large"),
    ClientGoneError: Kind(499, "client_gone", "Client gone"),
    DecodingError: Kind(500, "decoding_failed", "Decoding failed"),
    InferenceError: Kind(500, "inference_failed", "Inference failed"),
    LoadFailedError: Kind(500, "load_failed", "Load failed"),
    NotReadyError: Kind(503, "not_ready", "Not ready"),
    TooManyConnectionsError: Kind(503, "too_many_connections", "Too many connections"),
    DeadlinePassedError: Kind(504, "deadline_passed", "Deadline passed"),
    Exception: Kind(500, "internal_error", "Internal error"),
}


@dataclass(frozen=True)
class Problem:
    """An error, ready to be told."""

    kind: Kind
    detail: str

    def of_image(self, index: int | None = None) -> ImageErrorDetail:
        """The same as the error of one image; `index` where not every image has one."""
        error = ImageErrorDetail(status=self.kind.status, code=self.kind.code, detail=self.detail)
        return error if index is None else {"index": index, **error}


def describe(error: BaseException) -> Problem:
    """Find an error's kind along its ancestors; what is not meant for clients stays opaque."""
    kind = next(KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in KINDS)
    detail = str(error) if isinstance(error, LineOodError) else "The server failed; its log has the request's id."
    return Problem(kind, detail)


def respond(
    problem: Problem,
    *,
    instance: str,
    request_id: str,
    retry_after_s: int | None = None,
    challenge: str | None = None,
    errors: list[ImageErrorDetail] | None = None,
) -> JSONResponse:
    """A problem+json answer. `error` repeats `detail`: clients of the Open Inference Protocol read it."""
    content: dict[str, object] = {
        "type": f"urn:line-ood:problem:{problem.kind.code}",
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
        "instance": instance,
        "code": problem.kind.code,
        "request_id": request_id,
        "error": problem.detail,
    }
    if errors is not None:
        content["errors"] = errors
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if challenge is not None:
        headers["WWW-Authenticate"] = challenge
    return JSONResponse(content, problem.kind.status, headers, media_type="application/problem+json")
