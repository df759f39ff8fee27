"""One process: uvicorn around the app, with an end that loses nothing.

SIGTERM or SIGINT: readiness turns 503, new work is refused, connections are closed after their answer, what has been
admitted is finished, the process exits with 0. A second signal ends it at once. SIGHUP: every model is loaded anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from scoring.errors import LineOodError
from service.models import Models
from service.settings import Settings

log = logging.getLogger(__name__)

# After the last answer, before the door closes: who was answered last comes again, and would be cut off. And after it:
# who has connected before still gets an answer, which says `Connection: close`.
LINGER_S = 0.3
RESERVE_S = 2.5  # kept from `drain_s` for lingering, and for ending connections and threads


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
        self._busy_at = 0.0
        self._closed_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; uvicorn's own way would cut off who has just connected, and end by the signal."""
        if self._signalled_at is not None or not self.started:
            logging.shutdown()
            os._exit(1 if self.started else 0)  # a second signal; or nothing has been taken yet
        self._signalled_at = time.monotonic()
        self._models.drain()
        log.info("draining", extra={"signal": sig, "admitted": self._models.admitted})

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take SIGHUP as soon as there is something to load anew; until then it waits, see `service.cli`."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._models.ask_to_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: finish what was admitted, linger, stop listening, linger, end."""
        if self._signalled_at is not None:
            now = time.monotonic()
            is_over = now - self._signalled_at >= self._drain_s - RESERVE_S
            if is_over:
                self._models.abandon()
            if self._models.admitted or not self._busy_at:
                self._busy_at = now
            if self._closed_at is None and (is_over or now - self._busy_at >= LINGER_S):
                self._closed_at = now
                for listener in self.servers:
                    listener.close()
            self.should_exit = self._closed_at is not None and now - self._closed_at >= LINGER_S
        return await super().on_tick(counter)


def serve(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal comes."""
    models: Models = app.state.models
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
        Server(config, models, settings.drain_s).run(sockets=[listener])
    except SystemExit as error:  # uvicorn's way to say that the app did not start; its log says why
        sys.exit(1 if error.code else 0)
    if not models.has_ended:
        # A forward pass outlasted the drain, or a load. Python would tear the libraries down under its feet and abort.
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
