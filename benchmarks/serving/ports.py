"""Ports for servers: free ones that no outgoing connection can take while the server starts."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

LOWEST, HIGHEST = 20_000, 30_000  # Linux gives outgoing connections those from 32768 on


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311 - no secret
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
