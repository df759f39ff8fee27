"""`/docs`: Swagger UI, served from here. A vehicle has no internet, and a browser should load no stranger's scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse

from service.routes import problems

ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
PAGES = frozenset({"/docs", "/openapi.json", *(f"/docs/{name}" for name in ASSETS)})

_WAYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_ANYWHERE = problems(
    {
        408: "The headers did not arrive in time.",
        431: "Too many headers, or too many bytes of them.",
        500: "The server failed.",
        503: "Too many connections.",
    }
)
_WITHOUT_KEY = problems({401: "Without a key, or with one that is nobody's."})


def add_documentation(app: FastAPI, *, open_paths: frozenset[str] | None) -> None:
    """Add the page, and what it needs, to an app.

    Args:
        app: made without a documentation of its own.
        open_paths: those that need no key where the others do; None where there are no keys.
    """
    folder = Path(str(files("fastapi_offline") / "static"))  # that package is only where the files come from
    assets = {name: folder / name for name in ASSETS}

    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",  # relative, so that a proxy may put all of this below a path of its own
            title=app.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
            swagger_ui_parameters={"validatorUrl": "none"},  # otherwise it asks a server elsewhere
        )

    async def asset(name: str) -> FileResponse:
        if name not in assets:
            raise HTTPException(404)
        return FileResponse(assets[name])

    app.get("/docs", include_in_schema=False)(docs)
    app.get("/docs/{name}", include_in_schema=False)(asset)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            _tell_problems(schema)
            if open_paths is not None:
                _tell_keys(schema, open_paths)
        assert app.openapi_schema is not None, "FastAPI keeps what it has made"
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation says


def _tell_problems(schema: dict[str, Any]) -> None:
    """What any path may answer; and not FastAPI's own 422, which is a 400 here."""
    for operation in _operations(schema, schema["paths"].keys()):
        responses = operation["responses"]
        if "HTTPValidationError" in str(responses.get("422")):
            del responses["422"]
        for status, problem in _ANYWHERE.items():
            responses.setdefault(str(status), problem)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _tell_keys(schema: dict[str, Any], open_paths: frozenset[str]) -> None:
    schema["components"]["securitySchemes"] = _WAYS
    schema["security"] = [{way: []} for way in _WAYS]
    for operation in _operations(schema, schema["paths"].keys() & open_paths):
        operation["security"] = []
    for operation in _operations(schema, schema["paths"].keys() - open_paths):
        operation["responses"].update({str(status): problem for status, problem in _WITHOUT_KEY.items()})


def _operations(schema: dict[str, Any], paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from schema["paths"][path].values()
