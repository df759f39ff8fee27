"""The endpoints: predictions, health, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field, ValidationError

from scoring.errors import LineOodError
from scoring.metadata import OperatingPoint
from scoring.scorer import Scorer
from service.batcher import Answer, Outcome
from service.bodies import read_images
from service.models import Models, Served, pick
from service.problems import AllImagesFailedError, MalformedRequestError, NotReadyError, describe
from service.requests import pick_operating_point, read_in_time, score_images, server_timing, timeout_s, timings_of
from service.schemas import (
    FailedImage,
    Health,
    ImageResult,
    Instances,
    MethodResult,
    ModelName,
    OodResult,
    PredictedClass,
    PredictResponse,
    ProblemDetail,
)
from service.settings import Settings


class PredictQuery(BaseModel):
    """What a prediction can be asked for beside the images."""

    top_k: Annotated[int, Field(ge=1, le=1000, description="Classes to name, the most probable first.")] = 5
    operating_point: Annotated[
        str | None, Field(description="Which operating point decides; the artifact's first otherwise.")
    ] = None
    methods: Annotated[
        Literal["primary", "all"], Field(description="`all` answers the scores of all fitted methods, too.")
    ] = "primary"


class DirectRoute(APIRoute):
    """A route whose endpoint FastAPI documents but does not call: solving its parameters costs more than answering."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read the query, and leave everything else to the endpoint."""

        async def handle(request: Request) -> Response:
            response: Response = await self.endpoint(request, _read_query(request), **request.path_params)
            return response

        return handle


router = APIRouter()
direct = APIRouter(route_class=DirectRoute)

_NO_QUERY = PredictQuery()

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_BODIES = {
    "image/*": _IMAGE,
    "application/octet-stream": _IMAGE,
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
    "application/json": {"schema": Instances.model_json_schema(ref_template="#/components/schemas/{model}")},
}
_PROBLEM = {"content": {"application/problem+json": {"schema": ProblemDetail.model_json_schema()}}}


def problems(texts: Mapping[int | str, str]) -> dict[int | str, dict[str, Any]]:
    """What the documentation says of statuses that are errors."""
    return {status: {"description": text, **_PROBLEM} for status, text in texts.items()}


PROBLEMS = problems(
    {
        400: "The request is malformed, or an image is empty.",
        413: "Too many bytes or images.",
        415: "Not an accepted body or image format.",
        422: "The image, or every one of several, cannot be decoded or has too many pixels.",
        429: "The queue is full; Retry-After says when to come again.",
        500: "The server failed.",
        503: "Not ready, or draining.",
        504: "The request's time was over.",
    }
)


@direct.post(
    "/v1/predict",
    response_model=PredictResponse,
    responses=PROBLEMS,
    openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    """Predict the classes of one or more images, and say whether the classifier should be trusted on each."""
    return await _predict(request, query, pick(request))


@direct.post(
    "/v1/models/{name}/predict",
    response_model=PredictResponse,
    responses=PROBLEMS | problems({404: "There is no model of that name."}),
    openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
)
async def predict_by(request: Request, query: Annotated[PredictQuery, Query()], name: str) -> Response:
    """The same, by the model of this name."""
    return await _predict(request, query, pick(request, name))


async def _predict(request: Request, query: PredictQuery, served: Served) -> Response:
    started = time.monotonic()
    pipeline = served.pipeline
    settings: Settings = request.app.state.settings
    metrics = pipeline.metrics
    pipeline.check_ready()
    point = pick_operating_point(pipeline.scorer, query.operating_point)
    deadline = started + timeout_s(request, settings.timeout_s)
    with pipeline.admit(1, deadline):  # before the body is read: bodies are bounded like images
        body = read_images(request, max_bytes=settings.max_body_bytes, max_images=settings.max_images)
        images = await read_in_time(body, deadline)
        with pipeline.admit(len(images) - 1, deadline):
            outcomes = await score_images(request, served, deadline, images, point, every=query.methods == "all")
    _raise_if_all_failed(outcomes)
    timings = timings_of(outcomes, time.monotonic() - started)
    asyncio.get_running_loop().call_soon(metrics.stages, timings)  # once the answer is on its way
    answer = PredictResponse(
        request_id=request.state.request_id,
        model=ModelName(name=served.name, artifact_id=served.artifact_id),
        results=[_result(outcome, pipeline.scorer, point, query) for outcome in outcomes],
        timings_ms=timings,
    )
    headers = {"Server-Timing": server_timing(timings)}
    return Response(orjson.dumps(answer), media_type="application/json", headers=headers)


@router.head("/livez", include_in_schema=False)
@router.get("/livez", responses={503: {"model": Health}})
async def livez(request: Request) -> Response:
    """200 while this process can score images; 503 once it has to be restarted."""
    models: Models = request.app.state.models
    alive = models.is_alive
    return _health("alive") if alive else _health("dead", "the inference thread is gone or stuck", 503)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Health}})
async def readyz(request: Request) -> Response:
    """200 while every model takes requests; 503 before the warm-up, while draining, without an inference thread."""
    models: Models = request.app.state.models
    try:
        models.check_ready()
    except NotReadyError as error:
        return _health("not ready", str(error), 503)
    return _health("ready")


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(request.app.state.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _health(status: str, detail: str = "", code: int = 200) -> Response:
    return JSONResponse(Health(status=status, detail=detail).model_dump(), code)


def _read_query(request: Request) -> PredictQuery:
    if not request.scope["query_string"]:
        return _NO_QUERY
    try:
        return PredictQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedRequestError(f"query.{where}: {first['msg']}, found {first['input']!r}") from error


def _raise_if_all_failed(outcomes: list[Outcome]) -> None:
    errors = [outcome for outcome in outcomes if isinstance(outcome, LineOodError)]
    if len(errors) < len(outcomes):
        return
    statuses = {describe(error).kind.status for error in errors}
    if len(errors) == 1 or statuses & {500, 503}:
        raise max(errors, key=lambda error: describe(error).kind.status)
    raise AllImagesFailedError(f"none of the {len(errors)} images could be scored", [describe(e) for e in errors])


def _result(outcome: Outcome, scorer: Scorer, point: OperatingPoint, query: PredictQuery) -> ImageResult | FailedImage:
    if not isinstance(outcome, Answer):
        return FailedImage(error=describe(outcome).of_image())
    score = outcome.score
    decision = scorer.decide(score, point)
    result = ImageResult(
        predictions=[
            PredictedClass(index=each.index, name=each.name, probability=each.probability)
            for each in scorer.predictions(score, query.top_k)
        ],
        ood=OodResult(
            method=scorer.artifact.metadata.primary,
            score=score.ood_score,
            p_value=score.p_value,
            threshold=decision.threshold,
            margin=decision.margin,
            reject=decision.reject,
        ),
    )
    if query.methods == "all":
        decisions = scorer.decide_each(score, point)
        result["methods"] = {
            name: MethodResult(score=own, threshold=by.threshold, p_value=p_value, reject=by.reject)
            for (name, by), (own, p_value) in zip(decisions.items(), score.methods.values(), strict=True)
        }
    return result
