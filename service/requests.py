"""A request for scores, in whatever protocol it comes: in time, for somebody who waits, and counted.

deadline ─▶ [room for one] ─▶ body ─▶ [room for all] ─▶ outcomes ─▶ failures logged, images counted
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from scoring.metadata import OperatingPoint
from scoring.scorer import Scorer
from service.batcher import Answer, Outcome
from service.bodies import Encoded
from service.capture.origin import origin_of
from service.model_metrics import ModelMetrics
from service.models import Served
from service.monitoring.monitor import Monitor
from service.problems import (
    ClientGoneError,
    DeadlinePassedError,
    InferenceError,
    MalformedRequestError,
    describe,
)
from service.schemas import Timings
from service.stream_id import stream_id_of
from service.tracing.record import Record

T = TypeVar("T")

log = logging.getLogger(__name__)


def timeout_s(request: Request, longest: float) -> float:
    """Seconds that the request may take: what its header asks for, never more than the server allows."""
    text = request.headers.get("x-request-timeout-ms")
    if text is None:
        return longest
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) == 0:
        raise MalformedRequestError(f"X-Request-Timeout-Ms {text!r}: wanted a whole number of milliseconds above 0")
    return min(int(text) / 1000, longest)


def pick_operating_point(scorer: Scorer, name: str | None) -> OperatingPoint:
    """The one of this name; the artifact's first where none is named."""
    points = scorer.artifact.operating_points
    if name is None:
        return next(iter(points.values()))
    if name not in points:
        raise MalformedRequestError(f"operating_point {name!r}: the artifact has {', '.join(points)}")
    return points[name]


async def read_in_time(body: Awaitable[T], deadline: float) -> T:
    """Await a request's body until its time is over."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await body
    except TimeoutError as error:
        raise DeadlinePassedError("the body did not arrive in time") from error
    except ClientDisconnect as error:
        raise ClientGoneError("the client went away while sending") from error


async def score_images(
    request: Request,
    served: Served,
    deadline: float,
    images: Sequence[Encoded],
    point: OperatingPoint,
    *,
    every: bool = False,
) -> list[Outcome]:
    """Score the images of a request whose body has been read, and count them once the answer is on its way.

    Args:
        request: whose client waits.
        served: who answers.
        deadline: of a clock that never goes back.
        images: encoded, or why there is none.
        point: what decides.
        every: by all methods of the artifact.

    Raises:
        ClientGoneError: nobody waits any more; what waited has left the queue.
        DeadlinePassedError: likewise.
    """
    metrics = served.pipeline.metrics
    record: Record | None = request.scope["state"].get("record")  # of a request that is traced
    try:
        outcomes = await _for_client(request, deadline, served.pipeline.score(images, every=every, record=record))
    except (ClientGoneError, DeadlinePassedError) as error:
        metrics.images_dropped(describe(error).kind, len(images))
        raise
    if record is not None:
        record.take(served.scorer, point, outcomes)
    _tell_failures(outcomes)
    later = asyncio.get_running_loop().call_soon
    later(_count, metrics, outcomes)
    later(_tell_monitor, request, served, outcomes)
    if (shadow := request.app.state.models.shadow(served.name)) is not None:
        later(shadow.offer, served.artifact_id, images, outcomes)
    if (capture := request.app.state.capture) is not None:
        later(capture.offer, origin_of(request, served, point), images, outcomes)
    return outcomes


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


def _tell_failures(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, InferenceError):  # here the log line has the request's id
            log.error("an image failed: %s", outcome, exc_info=outcome.__cause__)


def _count(metrics: ModelMetrics, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Answer):
            metrics.image_scored(outcome.score.ood_score, outcome.score.predicted)
        else:
            metrics.image_failed(describe(outcome).kind)


def _tell_monitor(request: Request, served: Served, outcomes: Sequence[Outcome]) -> None:
    monitor: Monitor = request.app.state.monitor
    monitor.answered(served.name, served.artifact_id, stream_id_of(request), outcomes)


def timings_of(outcomes: Sequence[Outcome], total_s: float) -> Timings:
    """Where the time of a request went; some image of it has an answer."""
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    return Timings(
        decode=_ms(max([answer.decode_s for answer in answers])),
        queue=_ms(max([answer.queue_s for answer in answers])),
        inference=_ms(max([answer.inference_s for answer in answers])),
        total=_ms(total_s),
    )


def server_timing(timings: Timings) -> str:
    """The header of that name."""
    return ", ".join([f"{stage};dur={ms}" for stage, ms in timings.items()])


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
