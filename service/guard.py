"""Before anything is done for a request, its body not yet read: is there room for it, and may its client ask?

With keys every path needs one, whichever routes there are, but these: health, because an orchestrator has no keys; and
the documentation, because a browser sends none and it tells nothing that is secret. `/metrics` needs one, because it
tells what the clients' images are like; Prometheus sends it (`authorization: {credentials_file: ...}`).
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.documentation import PAGES
from service.keys import Keys
from service.metrics import Metrics
from service.problems import ServiceError, TooManyConnectionsError, describe, respond

HEALTH = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
OPEN = HEALTH | PAGES


class Guard:
    """ASGI middleware.

    Args:
        app: what answers those who may ask.
        keys: who that is.
        metrics: told of those who may not.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys, metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._has_keys = bool(keys.watched)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse to."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ServiceError as error:
                await self._refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path, state = scope["path"], scope["state"]
        if "is_surplus" in state and path not in HEALTH:
            raise TooManyConnectionsError("the server has too many connections")
        if self._has_keys and path not in OPEN:
            state["key"] = self._keys.check_client(Headers(scope=scope))

    async def _refuse(self, error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
        problem = describe(error)
        self._metrics.request_refused(problem.kind)
        response = respond(
            problem,
            instance=scope["path"],
            request_id=scope["state"]["request_id"],
            retry_after_s=error.retry_after_s,
            challenge=error.challenge,
        )
        await response(scope, receive, send)
