"""`/docs`: Swagger UI, served from here. A vehicle has no internet, and a browser should load no stranger's scripts."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse

ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
PAGES = frozenset({"/docs", "/openapi.json", *(f"/docs/{name}" for name in ASSETS)})

_WAYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


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
    if open_paths is not None:
        _tell_keys(app, open_paths)


def _tell_keys(app: FastAPI, open_paths: frozenset[str]) -> None:
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        schema["components"]["securitySchemes"] = _WAYS
        schema["security"] = [{way: []} for way in _WAYS]
        for path in schema["paths"].keys() & open_paths:
            for operation in schema["paths"][path].values():
                operation["security"] = []
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation says
