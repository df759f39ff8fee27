"""The app: everything is handed in, nothing happens at import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from scoring.errors import LineOodError
from scoring.scorer import Scorer
from service.context import RequestContext
from service.documentation import add_documentation
from service.guard import HEALTH, Guard
from service.keys import Keys
from service.metrics import Metrics
from service.pipeline import Pipeline, State
from service.problems import (
    AllImagesFailedError,
    Kind,
    MalformedRequestError,
    Problem,
    ServiceError,
    describe,
    respond,
)
from service.routes import direct, router
from service.settings import Settings
from service.watched import watching


def create_app(scorer: Scorer, settings: Settings) -> FastAPI:
    """Build the app around a scorer; its lifespan starts and stops the threads."""
    model_name = scorer.artifact.metadata.classifier.spec.rpartition(":")[2]
    metrics = Metrics(
        scorer.artifact,
        model=model_name,
        queue_capacity=settings.queue_capacity,
        max_batch=settings.max_batch,
    )
    pipeline = Pipeline(scorer, settings, metrics)
    keys = Keys(settings.api_keys, settings.admin_keys)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with watching(*keys.watched):
            async with pipeline.running():
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
    app.state.pipeline, app.state.model_name = pipeline, model_name
    app.state.keys = keys
    app.include_router(direct)
    app.include_router(router)
    add_documentation(app, open_paths=HEALTH if keys.protect_clients else None)
    app.add_exception_handler(LineOodError, _tell_error)
    app.add_exception_handler(HTTPException, _tell_http_error)
    app.add_exception_handler(RequestValidationError, _tell_validation_error)
    app.add_middleware(Guard, keys=keys, metrics=metrics)
    app.add_middleware(
        RequestContext,
        metrics=metrics,
        artifact_id=scorer.artifact.artifact_id,
        is_draining=lambda: pipeline.state is State.DRAINING,
    )
    return app


async def _tell_error(request: Request, error: Exception) -> Response:
    errors: list[dict[str, object]] | None = None
    if isinstance(error, AllImagesFailedError):
        errors = [{"status": p.kind.status, "code": p.kind.code, "detail": p.detail} for p in error.problems]
    retry_after_s = error.retry_after_s if isinstance(error, ServiceError) else None
    challenge = error.challenge if isinstance(error, ServiceError) else None
    return _respond(request, describe(error), retry_after_s=retry_after_s, challenge=challenge, errors=errors)


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
    errors: list[dict[str, object]] | None = None,
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
