"""One process: uvicorn around the app, with an end that loses nothing.

SIGTERM or SIGINT: readiness turns 503, new work is refused, connections are closed after their answer, what has been
admitted is finished, the process exits with 0. A second signal ends it at once. SIGHUP: every model is loaded anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI

from scoring.errors import LineOodError
from service.capture.capture import Capture
from service.metrics import Metrics
from service.models import Models
from service.protocol import SPARE_CONNECTIONS, BoundedProtocol, Bounds
from service.settings import Settings
from service.tls import Tls
from service.watched import watching

if TYPE_CHECKING:
    from service.tracing.tracing import Tracing

log = logging.getLogger(__name__)

LINGER_S = 0.3  # who has connected before the door closed still gets an answer, which says `Connection: close`
TICK_S = 0.1  # uvicorn's
OWN_FILES = 100  # that the process holds open beside connections
ANSWER_HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]  # of every answer
EXIT_S = 0.5  # for Python itself to end
RESERVE_S = 3.0  # kept from `drain_s` for lingering, connections, threads, and what capture and monitor still write


class Server(uvicorn.Server):
    """uvicorn, but a signal drains first.

    Args:
        config: uvicorn's.
        models: drained on a signal.
        drain_s: time from the signal to the end, at most.
    """

    def __init__(self, config: uvicorn.Config, models: Models, drain_s: float) -> None:
        super().__init__(config)
        self._models = models
        self._drain_s = drain_s
        self._signalled_at: float | None = None
        self._closed_at: float | None = None
        self._last_tick = 0.0, 0  # when it was, and how many requests had been answered then

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; uvicorn's own way would cut off who has just connected, and end by the signal."""
        if self._signalled_at is not None or not self.started:
            logging.shutdown()
            os._exit(1 if self.started else 0)  # a second signal; or nothing has been taken yet
        self._signalled_at = time.monotonic()
        self._models.drain()
        log.info("draining", extra={"signal": sig, "admitted": self._models.admitted})

    @property
    def left_s(self) -> float:
        """Seconds until the process has to end; negative if that is over."""
        if self._signalled_at is None:
            return self._drain_s
        return self._signalled_at + self._drain_s - time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take SIGHUP as soon as there is something to load anew; until then it waits, see `service.cli`."""
        await super().startup(sockets)
        if threading.current_thread() is not threading.main_thread():
            return  # signals are the main thread's; uvicorn leaves its own alone there, too
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._models.ask_to_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: finish what was admitted, then stop listening, then linger, then end."""
        if counter % 10 == 0:
            self._check_connections()
        is_quiet = self._is_quiet()
        if self._signalled_at is not None:
            now = time.monotonic()
            is_over = now - self._signalled_at >= self._drain_s - RESERVE_S
            if is_over:
                self._models.abandon()
            if self._closed_at is None and (is_over or (self._models.admitted == 0 and is_quiet)):
                self._closed_at = now
                for listener in self.servers:
                    listener.close()
            has_lingered = self._closed_at is not None and now - self._closed_at >= LINGER_S
            self.should_exit = has_lingered and (is_over or is_quiet)
        return await super().on_tick(counter)

    def _is_quiet(self) -> bool:
        """Whether nothing was answered since the last tick, and that was not long ago: a busy loop may have been deaf.

        Closing the door resets whoever stands before it; the end resets a connection whose request was not read.
        """
        then, answered = self._last_tick
        self._last_tick = now, answered_now = time.monotonic(), self.server_state.total_requests
        return answered_now == answered and now - then < 2 * TICK_S

    def _check_connections(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            assert isinstance(connection, BoundedProtocol), "there is no other protocol in `make_server`"
            connection.check(now)


def make_server(app: FastAPI, settings: Settings, tls: Tls | None = None, **bounds: float) -> Server:
    """The server of an app.

    Args:
        app: what it serves.
        settings: the app's.
        tls: its certificate, if it is to speak TLS.
        bounds: other times than those of `Bounds`.
    """
    metrics: Metrics = app.state.metrics
    protocol: Any = partial(
        BoundedProtocol,
        Bounds(
            max_connections=settings.max_connections,
            request_s=bounds.pop("request_s", settings.timeout_s + 2),  # the route's own deadline comes first
            refused=metrics.request_refused,
            ended=metrics.connection_ended,
            **bounds,
        ),
    )
    config = uvicorn.Config(
        app,
        http=protocol,  # uvicorn only calls it
        ws="none",
        loop="uvloop",
        headers=ANSWER_HEADERS,
        ssl_context_factory=None if tls is None else lambda *_: tls.context,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks for the client's address
        timeout_keep_alive=60,  # clients that post now and then keep their connection
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    server = Server(config, app.state.models, settings.drain_s)
    metrics.watch_connections(lambda: len(server.server_state.connections))
    return server


def serve(app: FastAPI, settings: Settings, listener: socket.socket, tls: Tls | None = None) -> None:
    """Serve until a signal comes."""
    gc.collect()
    gc.freeze()  # a full collection would walk all that torch has loaded, and hold up every request for 0.3 s
    _allow_open_files(settings.max_connections + SPARE_CONNECTIONS + OWN_FILES)
    server = make_server(app, settings, tls)
    try:
        with watching(*[] if tls is None else [tls.watched]):
            server.run(sockets=[listener])
    except SystemExit as error:  # uvicorn's way to say that the app did not start; its log says why
        sys.exit(1 if error.code else 0)
    models: Models = app.state.models
    capture: Capture | None = app.state.capture
    tracing: Tracing | None = app.state.tracing
    has_sent = tracing is None or tracing.stop(server.left_s - EXIT_S)
    if not models.has_ended or not (capture is None or capture.has_ended) or not has_sent:
        # A forward pass outlasted the drain, or a load: Python would tear the libraries down under its feet and abort.
        # Or a target of captured images hangs: Python would wait for the threads that its library may have.
        # Or a collector of traces does.
        logging.shutdown()
        os._exit(0)


def listen(host: str, port: int) -> socket.socket:
    """Take the address before the model is loaded.

    Raises:
        LineOodError: it is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise LineOodError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.set_inheritable(True)
    return listener


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where a client on this machine finds the server."""
    host, port, *_ = listener.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 # nosec B104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _allow_open_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if resource.RLIM_INFINITY != soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("fewer files may be open than max_connections needs", extra={"allowed": hard, "wanted": wanted})
