"""/v1/monitor: what metrics say of every stream, to read, and the way to reset one."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request, Response

from service.models import Models
from service.monitoring.monitor import Monitor
from service.monitoring.report import MonitorReport
from service.monitoring.streams import DEFAULT
from service.problems import UnknownStreamError
from service.routes import problems

router = APIRouter()

_RESET_PROBLEMS = problems(
    {
        400: "A parameter is malformed.",
        401: "Without the admin key.",
        403: "Without the admin key.",
        404: "There is no such stream, or no such model.",
    }
)


@router.get("/v1/monitor", response_model=MonitorReport)
async def report(request: Request) -> Response:
    """Windows, evidence of drift and shifts, by model and stream."""
    monitor: Monitor = request.app.state.monitor
    return Response(orjson.dumps(monitor.report()), media_type="application/json")


@router.post("/v1/monitor/reset", status_code=204, responses=_RESET_PROBLEMS)
async def reset(
    request: Request,
    stream: Annotated[str, Query(description="The stream to begin anew.")] = DEFAULT,
    model: Annotated[str | None, Query(description="Of this model; of all otherwise.")] = None,
) -> None:
    """Forget a stream, its alarm and its place; needs the admin key."""
    request.app.state.keys.check_admin(request.headers)
    monitor: Monitor = request.app.state.monitor
    models: Models = request.app.state.models
    if model is not None:
        models.find(model)
    if not monitor.reset(model, stream):
        raise UnknownStreamError(f"no stream {stream!r}{f' of model {model!r}' if model else ''}")
