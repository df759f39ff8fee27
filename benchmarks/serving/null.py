"""A bare ASGI endpoint: reads the whole body and answers at once with as much JSON as our server does.

What HTTP alone costs in uvicorn, and so the most that a server of its kind can reach.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ANSWER = json.dumps(
    {
        "request_id": "5e0c1b7a9d3f4e62a8b15c7d90e2f431",
        "model": {"name": "tiny", "artifact_id": "8c1a19e608269f32"},
        "results": [
            {
                "predictions": [
                    {"index": index, "name": name, "probability": 0.2057234197854996}
                    for index, name in enumerate(("ant", "bee", "cat", "dog", "eel"))
                ],
                "ood": {
                    "method": "line",
                    "score": -9.902345657348633,
                    "threshold": -8.743453025817871,
                    "p_value": 0.6512345679012346,
                    "margin": 1.1588926315307617,
                    "reject": False,
                },
            }
        ],
        "timings_ms": {"decode": 2.103, "queue": 0.312, "inference": 31.04, "total": 34.21},
    },
    separators=(",", ":"),
).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer whatever is asked."""
    assert scope["type"] == "http", "it is started with --lifespan off"
    body = []
    more = True
    while more:
        message = await receive()
        body.append(message.get("body", b""))
        more = message.get("more_body", False)
    b"".join(body)  # as anybody has to who wants to look at it
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
