"""One connection: uvicorn's HTTP, with an end to what a client can hold up.

connected ─▶ headers ─▶ body ─▶ answer ─▶ idle ─▶ headers ─▶ ...
      headers_s     request_s   answer_s   keep-alive

httptools bounds neither the size nor the time of headers. Times are looked at once a second for all connections
(`Server.on_tick`), so that a request costs no timers; they are exact to about a second.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.context import new_id
from service.problems import (
    HeadersLateError,
    HeadersTooLargeError,
    Kind,
    MalformedRequestError,
    ServiceError,
    describe,
    respond,
)

log = logging.getLogger(__name__)

Wire = Any  # an asyncio.Transport, but uvloop's are no subclasses of it

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 2**10  # the request line included
SPARE_CONNECTIONS = 100  # beyond the allowed ones: to say 503 to, and for health; further ones are not even read
LINGER_S = 1.0


@dataclass(frozen=True)
class Bounds:
    """What one server's connections may take."""

    max_connections: int
    request_s: float  # from the end of the headers to the end of the body
    refused: Callable[[Kind], None]  # told of problems that are answered here
    ended: Callable[[str], None]  # and of connections that are ended without an answer
    headers_s: float = 10  # from the connection, or a request's first byte, to the end of its headers
    answer_s: float = 30  # for a client to take what has been sent


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()  # a request's first byte
    HEADERS = auto()
    BODY = auto()
    NOTHING = auto()  # the request is whole: the server's turn, and then uvicorn's own timer for idle connections


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, within bounds.

    Args:
        bounds: these.
        config: uvicorn's, as the others are.
        server_state: what the connections of one server share.
        app_state: the lifespan's.
        _loop: the event loop.
    """

    def __init__(
        self,
        bounds: Bounds,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = bounds
        self._phase = Phase.IDLE
        self._since = self.loop.time()
        self._unsent_since: float | None = None
        self._is_mixed = False  # these bytes hold other things, too, than what is counted
        self._counted = 0  # bytes of headers, or of what frames a chunked body, that have not come to their end
        self._is_surplus = False
        self._is_deaf = False  # what still comes is thrown away
        self._refusal: ServiceError | None = None
        self._wire: Wire

    def connection_made(self, transport: Wire) -> None:
        """Take a connection, or not."""
        super().connection_made(transport)
        self._wire = transport
        self.transport = _Gentle(transport, self._close_gently)  # type: ignore[assignment]  # in all that matters
        surplus = len(self.connections) - self._bounds.max_connections
        if surplus > SPARE_CONNECTIONS:
            self._abort("too_many_connections")
        elif surplus > 0:
            self._is_surplus = True
            self.app_state = self.app_state | {"is_surplus": True}

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count what it has of headers, and of what follows a body, that is not complete."""
        if self._is_deaf:
            return
        super().data_received(data)
        if self._phase is Phase.NOTHING or self._is_deaf:
            return
        if self._is_mixed:
            self._is_mixed = False
            return
        self._counted += len(data)
        if self._counted > MAX_HEADER_BYTES:
            what = "trailers" if self._phase is Phase.BODY else "headers"
            self._refuse(HeadersTooLargeError(f"the {what} have more than {MAX_HEADER_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._phase, self._since = Phase.HEADERS, self.loop.time()
        self._count_anew()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one that follows the body is nobody's, and uvicorn would keep it with the others, of any number."""
        if self._phase is Phase.HEADERS:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        super().on_body(body)
        self._count_anew()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if self.transport.is_closing():  # a request behind the last one that is answered
            return
        size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if len(self.headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            self._refusal = HeadersTooLargeError(
                f"{len(self.headers)} headers of {size} bytes: at most {MAX_HEADERS} of {MAX_HEADER_BYTES} are accepted"
            )
            raise self._refusal  # comes back as `send_400_response`
        super().on_headers_complete()
        if self._is_surplus:
            self.cycle.keep_alive = False
        self._phase, self._since = Phase.BODY, self.loop.time()
        self._count_anew()

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        super().on_message_complete()
        self._phase = Phase.NOTHING
        if self.transport.is_closing():
            self._wire.close()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for what is no HTTP."""
        self._refuse(self._refusal or MalformedRequestError(msg))

    def check(self, now: float) -> None:
        """End the connection if its client has held it up for too long."""
        if not self._wire.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > self._bounds.answer_s:
            self._abort("answer_not_taken")
        if self._is_deaf or self.transport.is_closing():
            return
        if self.flow.read_paused:  # the server reads on when it has room: no fault of the client
            self._since = now
        late_s = now - self._since
        if self._phase is Phase.HEADERS and late_s > self._bounds.headers_s:
            self._refuse(HeadersLateError(f"the headers have not arrived within {self._bounds.headers_s:g} s"))
        elif self._phase is Phase.BODY and late_s > self._bounds.request_s:
            self._abort("body_late")
        elif self._phase is Phase.IDLE and late_s > (self.timeout_keep_alive if self.cycle else self._bounds.headers_s):
            self._abort("silent")
        elif self._phase is Phase.NOTHING and self.timeout_keep_alive_task is None and self._is_answered():
            self._phase, self._since = Phase.IDLE, now  # the rest of a body, or line breaks, have stopped that timer

    def shutdown(self) -> None:
        """End as soon as the request that is being answered has its answer; at once if there is none."""
        super().shutdown()
        if self.transport.is_closing():
            self._wire.close()

    def _count_anew(self) -> None:
        self._is_mixed, self._counted = True, 0

    def _is_answered(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete

    def _refuse(self, error: ServiceError) -> None:
        """Answer what never became a request, and end."""
        self._is_deaf = True
        if self.pipeline:  # whose answers come first is the client's riddle
            self._abort("malformed_pipeline")
        elif self.cycle is None or self.cycle.response_complete:
            self._answer(error)
        elif self._phase is Phase.HEADERS:
            self.cycle.keep_alive = False  # the request before still gets its answer, the last one here
        elif self.cycle.response_started:
            self._abort("malformed_body")
        else:
            self.cycle.disconnected = True  # its body is broken: nobody waits for what is being done for it
            self.cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: ServiceError) -> None:
        problem = describe(error)
        self._bounds.refused(problem.kind)
        log.info("refused", extra={"code": problem.kind.code, "detail": problem.detail, "client": self.client})
        response = respond(problem, instance="", request_id=new_id())
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        status = HTTPStatus(problem.kind.status)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(b": ".join(header) for header in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()

    def _abort(self, reason: str) -> None:
        log.info("connection ended", extra={"reason": reason, "client": self.client})
        self._bounds.ended(reason)
        self._is_deaf = True
        self._wire.abort()

    def _close_gently(self) -> None:
        """Close, but let the client finish sending: unread bytes make a close a reset, which takes the answer along."""
        if self._phase in (Phase.IDLE, Phase.NOTHING):
            self._wire.close()
            return
        self.flow.resume_reading()
        if self._wire.can_write_eof():
            self._wire.write_eof()
        self.loop.call_later(LINGER_S, self._wire.close)


class _Gentle:
    """A transport that is closed in another way."""

    def __init__(self, wire: Wire, close: Callable[[], None]) -> None:
        self._wire = wire
        self._close = close
        self._is_closed = False
        self.write = wire.write

    def close(self) -> None:
        """Close once."""
        if not self.is_closing():
            self._is_closed = True
            self._close()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._is_closed or self._wire.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)
