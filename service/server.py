"""One process: uvicorn around the app, with an end that loses nothing.

SIGTERM or SIGINT: readiness turns 503, new work is refused, connections are closed after their answer, what has been
admitted is finished, the process exits with 0. A second signal ends it at once.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from scoring.errors import LineOodError
from service.pipeline import Pipeline
from service.settings import Settings

log = logging.getLogger(__name__)

TICK_S = 0.1  # uvicorn's
LINGER_S = 0.3  # who has connected before the door closed still gets an answer, which says `Connection: close`
RESERVE_S = 2.5  # kept from `drain_s` for lingering, and for ending connections and threads


class Server(uvicorn.Server):
    """uvicorn, but a signal drains first.

    Args:
        config: uvicorn's.
        pipeline: drained on a signal.
        drain_s: time from the signal to the end, at most.
    """

    def __init__(self, config: uvicorn.Config, pipeline: Pipeline, drain_s: float) -> None:
        super().__init__(config)
        self._pipeline = pipeline
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
        self._pipeline.drain()
        log.info("draining", extra={"signal": sig, "admitted": self._pipeline.admitted})

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: finish what was admitted, then stop listening, then linger, then end."""
        is_quiet = self._is_quiet()
        if self._signalled_at is not None:
            now = time.monotonic()
            is_over = now - self._signalled_at >= self._drain_s - RESERVE_S
            if is_over:
                self._pipeline.abandon()
            if self._closed_at is None and (is_over or (self._pipeline.admitted == 0 and is_quiet)):
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


def serve(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal comes."""
    gc.collect()
    gc.freeze()  # a full collection would walk all that torch has loaded, and hold up every request for 0.3 s
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks for the client's address
        timeout_keep_alive=60,  # clients that post now and then keep their connection
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    try:
        Server(config, app.state.pipeline, settings.drain_s).run(sockets=[listener])
    except SystemExit as error:  # uvicorn's way to say that the app did not start; its log says why
        sys.exit(1 if error.code else 0)
    if not app.state.pipeline.has_ended:
        # A forward pass outlasted the drain. Python would tear the libraries down under its feet and abort.
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


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine finds the server."""
    host, port, *_ = listener.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a comparison, not a binding
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
