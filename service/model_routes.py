"""The endpoints about models: which there are, and loading one anew."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.loads import Load
from service.models import Models, Served
from service.routes import problems
from service.schemas import LoadResponse, ModelPoint, ModelsResponse, ModelState

router = APIRouter()

_LOAD_PROBLEMS = problems(
    {
        401: "Without the admin key.",
        403: "Without the admin key.",
        404: "There is no such model, or it has no shadow.",
        409: "It is being loaded already.",
        422: "What the file holds is not usable; the version before goes on.",
        500: "The server could not load it; the version before goes on.",
        503: "Not ready, or draining.",
    }
)


@router.get("/v1/models")
async def list_models(request: Request) -> ModelsResponse:
    """Every model: the version that answers, and what came of comparing it with its shadow."""
    models: Models = request.app.state.models
    return ModelsResponse(models=[_state(models, served) for served in models.values()])


@router.post("/v1/models/{name}/load", responses=_LOAD_PROBLEMS)
async def load(request: Request, name: str) -> LoadResponse:
    """Load the model's file anew, verify it, warm it up and switch to it. Needs the admin key.

    Requests are answered meanwhile; each by one version, which its answer names.
    """
    request.app.state.keys.check_admin(request.headers)
    models: Models = request.app.state.models
    return _answer(name, await models.load(name))


@router.post("/v1/models/{name}/shadow/load", responses=_LOAD_PROBLEMS)
async def load_shadow(request: Request, name: str) -> LoadResponse:
    """The same for the artifact that the model is compared with. Needs the admin key."""
    request.app.state.keys.check_admin(request.headers)
    models: Models = request.app.state.models
    return _answer(name, await models.load_shadow(name))


def _answer(name: str, load: Load) -> LoadResponse:
    return LoadResponse(name=name, outcome=load.outcome, artifact_id=load.artifact_id, previous=load.previous)


def _state(models: Models, served: Served) -> ModelState:
    metadata, pipeline = served.scorer.artifact.metadata, served.pipeline
    state = ModelState(
        name=served.name,
        default=served is models.default,
        state=pipeline.state.value if pipeline.is_alive else "dead",
        loading=models.is_loading(served.name),
        artifact_id=served.artifact_id,
        method=metadata.primary,
        operating_points=[
            ModelPoint(name=point.name, alpha=point.alpha, guarantee=point.guarantee, threshold=point.threshold)
            for point in metadata.operating_points
        ],
        loaded_at=served.loaded_at.isoformat(),
    )
    shadow = models.shadow(served.name)
    if shadow is not None:
        state["shadow"] = shadow.state()
    return state
