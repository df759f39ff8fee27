"""Around a request for predictions, outermost: its span."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.context import trace_id
from service.tracing.tracing import Tracing

ENDS = ("/predict", "/infer")  # of the paths that ask for predictions, whichever model's


class Traced:
    """ASGI middleware.

    Args:
        app: what answers.
        tracing: takes the spans.
    """

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(ENDS):
            await self._app(scope, receive, send)
            return
        span, status = self._tracing.begin(scope), None
        token = trace_id.set(span.trace_id)

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        finally:
            trace_id.reset(token)
            self._tracing.end(span, scope, status)
