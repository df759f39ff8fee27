"""The endpoints under /v2. The version of a model is its artifact's id: who names it gets that artifact or a 404."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from scoring.metadata import OperatingPoint
from service.batcher import Answer
from service.bodies import read_bytes
from service.models import Models, Served, pick
from service.open_inference.codec import Call, Output, decode, encode, read_header_length
from service.open_inference.failures import all_scored
from service.open_inference.results import OUTPUTS, columns, metadata
from service.open_inference.schemas import HEADER, InferRequest, InferResponse, ModelMetadata, ServerMetadata
from service.pipeline import Pipeline
from service.problems import NotReadyError, UnknownModelError, UnsupportedMediaTypeError
from service.requests import pick_operating_point, read_in_time, score_images, server_timing, timeout_s, timings_of
from service.routes import PROBLEMS
from service.settings import Settings

open_inference = APIRouter(tags=["Open Inference Protocol v2"])

Extra = dict[str, Any]  # for the OpenAPI document: the endpoints take nothing but the request

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = _NAME | {"name": "version", "description": "The artifact's id."}
_OF_MODEL: Extra = {"parameters": [_NAME]}
_OF_VERSION: Extra = {"parameters": [_NAME, _VERSION]}
_BODY: Extra = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": InferRequest.model_json_schema(ref_template="#/components/schemas/{model}"),
            },
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
            },
        },
    },
}
_UNKNOWN: dict[int | str, Extra] = {404: PROBLEMS[400] | {"description": "No such model, or not in that version."}}
_HEALTH: dict[int | str, Extra] = {503: {"description": "Not so."}}
_INFER: Extra = {
    "response_model": InferResponse,
    "responses": PROBLEMS | _UNKNOWN | {422: PROBLEMS[422] | {"description": "An image cannot be scored; says which."}},
}


def served(request: Request) -> Served:
    """The version that the path names.

    Raises:
        UnknownModelError: no such model is served, or not in the version that the path names.
    """
    found, wanted = pick(request, request.path_params["name"]), request.path_params.get("version")
    if wanted not in (None, found.artifact_id):
        raise UnknownModelError(f"model {found.name!r} is served in version {found.artifact_id!r}, not {wanted!r}")
    return found


@open_inference.get("/v2", response_model=ServerMetadata)
@open_inference.get("/v2/", include_in_schema=False)
async def describe_server(request: Request) -> Response:
    """What the server is and understands."""
    extensions = ["binary_tensor_data", "parameters"]
    return _json(ServerMetadata(name="line-ood", version=request.app.version, extensions=extensions))


@open_inference.get("/v2/health/live", responses=_HEALTH)
async def live(request: Request) -> Response:
    """As /livez."""
    models: Models = request.app.state.models
    if models.is_alive:
        return _json({"live": True})
    return _json({"live": False, "error": "the inference thread is gone or stuck"}, 503)


@open_inference.get("/v2/health/ready", responses=_HEALTH)
async def ready(request: Request) -> Response:
    """As /readyz."""
    return _readiness(request.app.state.models)


@open_inference.get("/v2/models/{name}/ready", responses=_HEALTH | _UNKNOWN, openapi_extra=_OF_MODEL)
@open_inference.get(
    "/v2/models/{name}/versions/{version}/ready", responses=_HEALTH | _UNKNOWN, openapi_extra=_OF_VERSION
)
async def model_ready(request: Request) -> Response:
    """Whether the model takes requests."""
    found = served(request)
    return _readiness(found.pipeline, name=found.name)


@open_inference.get("/v2/models/{name}", response_model=ModelMetadata, responses=_UNKNOWN, openapi_extra=_OF_MODEL)
@open_inference.get(
    "/v2/models/{name}/versions/{version}", response_model=ModelMetadata, responses=_UNKNOWN, openapi_extra=_OF_VERSION
)
async def describe_model(request: Request) -> Response:
    """Inputs and outputs of a model."""
    found = served(request)
    return _json(metadata(found.name, found.artifact_id))


@open_inference.post("/v2/models/{name}/infer", **_INFER, openapi_extra=_OF_MODEL | _BODY)
@open_inference.post("/v2/models/{name}/versions/{version}/infer", **_INFER, openapi_extra=_OF_VERSION | _BODY)
async def infer(request: Request) -> Response:
    """Score encoded images: `/v1/predict` in another form. One that cannot be scored fails the request."""
    started = time.monotonic()
    found = served(request)
    settings: Settings = request.app.state.settings
    pipeline = found.pipeline
    pipeline.check_ready()
    _check_encoding(request)
    header_length = read_header_length(request.headers.get(HEADER))
    longest = timeout_s(request, settings.timeout_s)
    with pipeline.admit(1, started + longest):  # before the body is read: bodies are bounded like images
        body = await read_in_time(read_bytes(request, max_bytes=settings.max_body_bytes), started + longest)
        call = decode(body, header_length, max_images=settings.max_images)
        point = pick_operating_point(pipeline.scorer, call.operating_point)
        deadline = started + min(call.timeout_s or longest, longest)
        with pipeline.admit(len(call.images) - 1, deadline):
            answers = all_scored(await score_images(request, found, deadline, call.images, point))
    timings = timings_of(answers, time.monotonic() - started)
    asyncio.get_running_loop().call_soon(pipeline.metrics.stages, timings)  # once the answer is on its way
    content, json_length = _encode(found, call, point, answers)
    headers = {"Server-Timing": server_timing(timings)}
    if json_length is None:
        return Response(content, media_type="application/json", headers=headers)
    return Response(content, media_type="application/octet-stream", headers=headers | {HEADER: str(json_length)})


def _encode(found: Served, call: Call, point: OperatingPoint, answers: list[Answer]) -> tuple[bytes, int | None]:
    response = InferResponse(
        model_name=found.name,
        model_version=found.artifact_id,
        parameters={"operating_point": point.name, "method": found.scorer.artifact.metadata.primary},
        outputs=[],
    )
    if call.id is not None:
        response["id"] = call.id
    elements = columns(found.scorer, [answer.score for answer in answers], point)
    return encode(response, [Output(own, OUTPUTS[own], elements[own], binary) for own, binary in call.outputs.items()])


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaTypeError(
            f"Content-Encoding {encoding!r}: wanted the body as it is, images are compressed already"
        )


def _readiness(asked: Models | Pipeline, **own: str) -> Response:
    try:
        asked.check_ready()
    except NotReadyError as error:
        return _json(own | {"ready": False, "error": str(error)}, 503)
    return _json(own | {"ready": True})


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
