"""The endpoints: /v1/predict, health, metrics."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from scoring.errors import LineOodError
from scoring.metadata import OperatingPoint
from scoring.scorer import Scorer
from service.batcher import Answer, Outcome
from service.bodies import Encoded, read_images
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.problems import (
    AllImagesFailedError,
    ClientGoneError,
    DeadlinePassedError,
    InferenceError,
    MalformedRequestError,
    NotReadyError,
    describe,
)
from service.schemas import (
    FailedImage,
    Health,
    ImageErrorDetail,
    ImageResult,
    Instances,
    MethodResult,
    ModelName,
    OodResult,
    PredictedClass,
    PredictResponse,
    ProblemDetail,
    Timings,
)
from service.settings import Settings

T = TypeVar("T")

log = logging.getLogger(__name__)


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
            response: Response = await self.endpoint(request, _read_query(request))
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
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, **_PROBLEM}
    for status, text in {
        400: "The request is malformed, or an image is empty.",
        413: "Too many bytes or images.",
        415: "Not an accepted body or image format.",
        422: "The image, or every one of several, cannot be decoded or has too many pixels.",
        429: "The queue is full; Retry-After says when to come again.",
        500: "The server failed.",
        503: "Not ready, or draining.",
        504: "The request's time was over.",
    }.items()
}


@direct.post(
    "/v1/predict",
    response_model=PredictResponse,
    responses=_PROBLEMS,
    openapi_extra={"requestBody": {"required": True, "content": _BODIES}},
)
async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    """Predict the classes of one or more images, and say whether the classifier should be trusted on each."""
    started = time.monotonic()
    pipeline: Pipeline = request.app.state.pipeline
    settings: Settings = request.app.state.settings
    metrics: Metrics = request.app.state.metrics
    pipeline.check_ready()
    point = _operating_point(pipeline.scorer, query.operating_point)
    deadline = started + _timeout_s(request, settings.timeout_s)
    with pipeline.admit(1):  # before the body is read: bodies are bounded like images
        images = await _read(request, settings, deadline)
        with pipeline.admit(len(images) - 1):
            outcomes = await _score(request, deadline, images, every=query.methods == "all")
    _tell_failures(outcomes)
    later = asyncio.get_running_loop().call_soon  # once the answer is on its way
    later(_count, metrics, outcomes)
    _raise_if_all_failed(outcomes)
    timings = _timings(outcomes, time.monotonic() - started)
    later(metrics.stages, timings)
    answer = PredictResponse(
        request_id=request.state.request_id,
        model=ModelName(name=request.app.state.model_name, artifact_id=pipeline.scorer.artifact.artifact_id),
        results=[_result(outcome, pipeline.scorer, point, query) for outcome in outcomes],
        timings_ms=timings,
    )
    server_timing = ", ".join([f"{stage};dur={ms}" for stage, ms in timings.items()])
    return Response(orjson.dumps(answer), media_type="application/json", headers={"Server-Timing": server_timing})


@router.head("/livez", include_in_schema=False)
@router.get("/livez", responses={503: {"model": Health}})
async def livez(request: Request) -> Response:
    """200 while this process can score images; 503 once it has to be restarted."""
    alive = request.app.state.pipeline.is_alive
    return _health("alive") if alive else _health("dead", "the inference thread is gone or stuck", 503)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Health}})
async def readyz(request: Request) -> Response:
    """200 while requests are taken; 503 before the warm-up, while draining, and without an inference thread."""
    try:
        request.app.state.pipeline.check_ready()
    except NotReadyError as error:
        return _health("not ready", str(error), 503)
    return _health("ready")


@router.get("/metrics")
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


def _operating_point(scorer: Scorer, name: str | None) -> OperatingPoint:
    points = scorer.artifact.operating_points
    if name is None:
        return next(iter(points.values()))
    if name not in points:
        raise MalformedRequestError(f"operating_point {name!r}: the artifact has {', '.join(points)}")
    return points[name]


def _timeout_s(request: Request, longest: float) -> float:
    text = request.headers.get("x-request-timeout-ms")
    if text is None:
        return longest
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) == 0:
        raise MalformedRequestError(f"X-Request-Timeout-Ms {text!r}: wanted a whole number of milliseconds above 0")
    return min(int(text) / 1000, longest)


async def _read(request: Request, settings: Settings, deadline: float) -> list[Encoded]:
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            images = await read_images(request, max_bytes=settings.max_body_bytes, max_images=settings.max_images)
    except TimeoutError as error:
        raise DeadlinePassedError("the body did not arrive in time") from error
    except ClientDisconnect as error:
        raise ClientGoneError("the client went away while sending") from error
    return list(images)


async def _for_client(request: Request, deadline: float, work: Awaitable[T]) -> T:
    """Await `work` as long as somebody waits for it; otherwise cancel it, so that it leaves the queue."""
    task = asyncio.current_task()
    assert task is not None, "a request is answered in a task"
    gone = asyncio.ensure_future(request.receive())  # the body is read: only a disconnect can still come
    gone.add_done_callback(leave := lambda _: task.cancel(ClientGoneError))
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await work
    except TimeoutError as error:
        raise DeadlinePassedError("the time for this request is over") from error
    except asyncio.CancelledError as error:
        if error.args == (ClientGoneError,) and not task.uncancel():
            raise ClientGoneError("the client went away while waiting") from error
        raise
    finally:
        gone.remove_done_callback(leave)
        gone.cancel()


async def _score(request: Request, deadline: float, images: list[Encoded], *, every: bool) -> list[Outcome]:
    pipeline: Pipeline = request.app.state.pipeline
    try:
        return await _for_client(request, deadline, pipeline.score(images, every=every))
    except (ClientGoneError, DeadlinePassedError) as error:
        request.app.state.metrics.images_dropped(describe(error).kind, len(images))
        raise


def _tell_failures(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, InferenceError):  # here the log line has the request's id
            log.error("an image failed: %s", outcome, exc_info=outcome.__cause__)


def _count(metrics: Metrics, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Answer):
            metrics.image_scored(outcome.score.ood_score, int(outcome.score.probabilities.argmax()))
        else:
            metrics.image_failed(describe(outcome).kind)


def _raise_if_all_failed(outcomes: list[Outcome]) -> None:
    errors = [outcome for outcome in outcomes if isinstance(outcome, LineOodError)]
    if len(errors) < len(outcomes):
        return
    statuses = {describe(error).kind.status for error in errors}
    if len(errors) == 1 or statuses & {500, 503}:
        raise max(errors, key=lambda error: describe(error).kind.status)
    raise AllImagesFailedError(f"none of the {len(errors)} images could be scored", [describe(e) for e in errors])


def _timings(outcomes: list[Outcome], total_s: float) -> Timings:
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    return Timings(
        decode=_ms(max([answer.decode_s for answer in answers])),
        queue=_ms(max([answer.queue_s for answer in answers])),
        inference=_ms(max([answer.inference_s for answer in answers])),
        total=_ms(total_s),
    )


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _result(outcome: Outcome, scorer: Scorer, point: OperatingPoint, query: PredictQuery) -> ImageResult | FailedImage:
    if not isinstance(outcome, Answer):
        problem = describe(outcome)
        return FailedImage(
            error=ImageErrorDetail(status=problem.kind.status, code=problem.kind.code, detail=problem.detail)
        )
    score = outcome.score
    decision = score.decide(point)
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
        thresholds = scorer.thresholds[point.name]
        result["methods"] = {
            name: MethodResult(score=own, threshold=thresholds[name], p_value=p_value, reject=own > thresholds[name])
            for name, (own, p_value) in score.methods.items()
        }
    return result
