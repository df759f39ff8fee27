"""The app: everything is handed in, nothing happens at import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from scoring.errors import LineOodError
from service.capture.capture import Capture
from service.context import RequestContext
from service.documentation import add_documentation
from service.guard import HEALTH, Guard
from service.keys import Keys
from service.metrics import Metrics
from service.model_routes import router as model_router
from service.models import Models
from service.monitoring.collector import MonitorCollector
from service.monitoring.keeper import Keeper
from service.monitoring.limits import Limits
from service.monitoring.monitor import Monitor
from service.monitoring.routes import router as monitoring
from service.open_inference.routes import open_inference
from service.pipeline import State
from service.problems import Kind, MalformedRequestError, Problem, ServiceError, describe, respond
from service.routes import direct, router
from service.schemas import ImageErrorDetail
from service.settings import Settings
from service.sources import Loaded
from service.watched import watching

if TYPE_CHECKING:
    from service.tracing.tracing import Tracing


def create_app(loaded: Sequence[Loaded], settings: Settings, tracing: Tracing | None = None) -> FastAPI:
    """Build the app around models, the default first; its lifespan starts and stops the threads."""
    metrics = Metrics(max_batch=settings.max_batch)
    keeper = Keeper(settings.monitor_state) if settings.monitor_state else None
    monitor = Monitor(Limits.of(settings), keeper.read() if keeper else None)
    capture = Capture.of(settings, metrics.registry, [each.source.name for each in loaded])
    models = Models(loaded, settings, metrics, monitor.watch)
    keys = Keys(settings.api_keys, settings.admin_keys)
    metrics.registry.register(MonitorCollector(monitor.report, lambda: keeper.saved_at if keeper else None))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            keeper.keeping(monitor) if keeper else nullcontext(),
            capture.running() if capture else nullcontext(),
            models.running(),
        ):
            with watching(*keys.watched):
                yield

    app = FastAPI(
        title="LINe out-of-distribution scores",
        description="Predictions of an image classifier, and whether to trust each of them.",
        version=version("line-ood"),
        lifespan=lifespan,
        docs_url=None,  # these would load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name whatever host the client claims
    )
    app.state.settings, app.state.metrics = settings, metrics
    app.state.models, app.state.monitor, app.state.capture = models, monitor, capture
    app.state.keys = keys
    app.include_router(direct)
    app.include_router(router)
    app.include_router(model_router)
    app.include_router(monitoring)
    app.include_router(open_inference)
    add_documentation(app, open_paths=HEALTH if keys.protect_clients else None)
    app.add_exception_handler(LineOodError, _tell_error)
    app.add_exception_handler(HTTPException, _tell_http_error)
    app.add_exception_handler(RequestValidationError, _tell_validation_error)
    app.add_middleware(Guard, keys=keys, metrics=metrics)
    app.add_middleware(
        RequestContext,
        metrics=metrics,
        artifact_id=lambda: models.default.artifact_id,
        is_draining=lambda: models.state is State.DRAINING,
    )
    app.state.tracing = tracing
    if tracing is not None:
        _trace(app, tracing, metrics)
    return app


def _trace(app: FastAPI, tracing: Tracing, metrics: Metrics) -> None:
    from service.tracing.middleware import Traced  # noqa: PLC0415 - needs the packages that are there now

    metrics.registry.register(tracing)
    app.add_middleware(Traced, tracing=tracing)  # the last one is the outermost


async def _tell_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        return _respond(request, describe(error))
    return _respond(
        request,
        describe(error),
        retry_after_s=error.retry_after_s,
        challenge=error.challenge,
        errors=error.errors,
    )


async def _tell_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = error.detail.lower().replace(" ", "_")
    response = _respond(request, Problem(Kind(error.status_code, code, error.detail), error.detail))
    response.headers.update(error.headers or {})
    return response


async def _tell_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _respond(request, describe(MalformedRequestError(f"{where}: {first['msg']}, found {first['input']!r}")))


def _respond(
    request: Request,
    problem: Problem,
    *,
    retry_after_s: int | None = None,
    challenge: str | None = None,
    errors: list[ImageErrorDetail] | None = None,
) -> Response:
    metrics: Metrics = request.app.state.metrics
    metrics.request_refused(problem.kind)
    return respond(
        problem,
        instance=request.url.path,
        request_id=request.state.request_id,
        retry_after_s=retry_after_s,
        challenge=challenge,
        errors=errors,
    )
