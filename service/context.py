"""Around every request: its id, its log line, its count, and an answer even when the server itself fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.problems import NotReadyError, describe, respond

log = logging.getLogger("service.access")

request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")  # of a request, where tracing is on

_GOOD_ID = re.compile(r"[A-Za-z0-9_.:/+=-]{1,128}")  # what cannot break a log or a header
_PROCESS = secrets.token_hex(8)  # with a number behind it, a request's id: no system call for each
_NUMBERS = itertools.count(1)


class RequestContext:
    """ASGI middleware.

    Args:
        app: what answers.
        metrics: told of every answer.
        artifact_id: sent with every answer that no version of a model has put its own into, see `service.models.pick`.
        is_draining: whether connections are to be closed after their answer.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, artifact_id: Callable[[], str], is_draining: Callable[[], bool]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._artifact_id = artifact_id
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = _choose_id(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = identity
        token = request_id.set(identity)
        started, status = time.monotonic(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._mark(MutableHeaders(scope=message), scope["state"])
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except asyncio.CancelledError:  # the drain is over before the body has arrived
            if not status:
                problem = respond(
                    describe(NotReadyError("the server stopped")), instance=scope["path"], request_id=identity
                )
                await problem(scope, receive, send_marked)
        except Exception as error:
            log.exception("the request failed")
            self._metrics.request_refused(describe(error).kind)
            if not status:
                problem = respond(describe(error), instance=scope["path"], request_id=identity)
                await problem(scope, receive, send_marked)
        finally:
            self._tell(scope, status or 499, time.monotonic() - started)
            request_id.reset(token)

    def _mark(self, headers: MutableHeaders, state: Mapping[str, Any]) -> None:
        headers["X-Request-ID"] = state["request_id"]
        headers["X-Artifact-ID"] = state.get("artifact_id") or self._artifact_id()
        if self._is_draining():
            headers["Connection"] = "close"  # the next request goes elsewhere, and none is cut off

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")  # never the path itself: it is the client's to choose
        self._metrics.request_answered(route, status, seconds)
        level = logging.DEBUG if status < 400 else logging.INFO  # a line for each of millions of answers is no log
        fields = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "duration_ms": round(1000 * seconds, 3),
        }
        if key := scope["state"].get("key"):
            fields["key"] = key  # the name of it
        log.log(level, "request", extra=fields)


def new_id() -> str:
    """An id for a request that has none."""
    return f"{_PROCESS}{next(_NUMBERS):016x}"


def _choose_id(given: str) -> str:
    return given if _GOOD_ID.fullmatch(given) else new_id()
