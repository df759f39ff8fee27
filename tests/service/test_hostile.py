"""Requests that want more than an answer: files, addresses, tracebacks, scripts from elsewhere, time."""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from scoring.scorer import Scorer
from service.bodies import MAX_MARKS
from service.settings import Settings
from tests.scoring.test_scans import with_scans
from tests.service.conftest import GatedScorer, LiveApp, encode

SECRET = "/etc/line-ood-secret"
JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}


class Watch:
    """What this process opens and connects to, as Python's own audit hook tells it."""

    def __init__(self) -> None:
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_on and event in {"open", "socket.connect", "socket.getaddrinfo", "urllib.Request", "os.listdir"}:
            self.seen.append(f"{event} {arguments}")


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def hostile_requests() -> list[dict]:
    svg = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{SECRET}">]><svg><image href="http://127.0.0.1:9/s"/>&e;</svg>'
    name = {"Content-Disposition": f'form-data; name="file"; filename="{SECRET}"'}
    return [
        {"content": SECRET.encode()},
        {"content": f"file://{SECRET}".encode()},
        {"content": svg.encode(), "headers": {"Content-Type": "image/svg+xml"}},
        {"content": json.dumps({"instances": [{"b64": SECRET}]}), "headers": JSON},
        {"content": json.dumps({"instances": [{"b64": base64.b64encode(SECRET.encode()).decode()}]}), "headers": JSON},
        {"content": json.dumps({"instances": [{"url": f"file://{SECRET}", "path": SECRET}]}), "headers": JSON},
        {"files": [("file", (SECRET, encode()))]},
        {"files": [("file", ("../../x", f"http://127.0.0.1:9{SECRET}".encode(), "image/png"))]},
        {"content": encode(), "headers": name | {"X-Artifact": SECRET, "Referer": f"file://{SECRET}"}},
        {"content": encode(), "params": {"operating_point": SECRET, "artifact": SECRET, "url": f"file://{SECRET}"}},
    ]


def test_nothing_that_a_client_names_is_opened(client: httpx.Client, watch: Watch):
    """Paths and addresses in bodies, file names, headers and queries are text: no file, no connection."""
    client.post("/v1/predict", content=encode())  # what is imported late is imported now
    for path in ("/docs", "/docs/swagger-ui.css", "/openapi.json"):
        client.get(path)
    watch.seen.clear()
    watch.is_on = True
    for request in hostile_requests():
        assert client.post("/v1/predict", **request).status_code in {200, 400, 415, 422}
    for path in (f"/{SECRET}", f"/docs/..%2f..{SECRET}", f"/docs/{SECRET}", "/docs/%2e%2e/core.py", "/docs/core.py"):
        assert client.get(path).status_code == 404
    watch.is_on = False
    assert not watch.seen
    watch.is_on = True  # and it would have been seen
    with pytest.raises(FileNotFoundError):
        Path(SECRET).open().close()
    watch.is_on = False
    assert any(SECRET in event for event in watch.seen)


class Failing(GatedScorer):
    """Fails as no test has foreseen."""

    def score(self, pixels, *, alone=True, every=False):
        if self.gate.is_set():
            return Scorer.score(self, pixels, alone=alone, every=every)
        raise RuntimeError(f"{SECRET} in {__file__}")


def test_a_failure_tells_its_client_nothing(gated: GatedScorer, start: Callable[..., LiveApp]):
    """Neither a traceback nor a path is in a 500, in the scorer, the pipeline, or the app; the request's id is."""
    failing = Failing(gated.classifier, gated.artifact)
    failing.gate, failing.batch_sizes = threading.Event(), []
    failing.gate.set()
    running = start(failing)

    @running.app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(f"{SECRET} in {__file__}")

    failing.gate.clear()
    for answer in (httpx.post(f"{running.url}/v1/predict", content=encode()), httpx.get(f"{running.url}/broken")):
        assert answer.status_code == 500
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
        detail = answer.json()["detail"]
        assert not re.search(r"Traceback|RuntimeError|\.py|/", detail), detail
        assert SECRET not in answer.text


def test_every_answer_has_its_headers(client: httpx.Client):
    """Nothing is to be guessed of an answer's type, nothing kept of it; of what uvicorn answers itself, too."""
    for answer in (
        client.get("/livez"),
        client.get("/docs"),
        client.get("/none"),
        client.post("/v1/predict", content=encode(), headers=PNG),
        client.post("/v1/predict", content=b"", headers=PNG),
        client.get("/livez", headers={"X": "x" * 50_000}),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "server" not in answer.headers


def test_the_documentation_needs_no_internet(client: httpx.Client):
    """All that /docs loads comes from this server, and it asks nobody else; /redoc, a second way, is not there."""
    page = client.get("/docs").text
    assert "//" not in re.sub(r"//.*\n|/\*.*?\*/", "", page.replace("http-equiv", ""))
    found = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sorted(found) == ["docs/favicon.png", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css"]
    types = {path: client.get(f"/{path}").headers["Content-Type"].split(";")[0] for path in found}
    assert types == {
        "docs/favicon.png": "image/png",
        "docs/swagger-ui-bundle.js": "text/javascript",
        "docs/swagger-ui.css": "text/css",
    }
    assert b"SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").content
    assert '"validatorUrl": "none"' in page
    assert client.get("/openapi.json").json()["paths"]["/v1/predict"]
    assert client.get("/redoc").status_code == 404


def test_a_jpeg_that_would_take_hours(client):
    """Scans by the thousand, each over all pixels for a dozen bytes, are refused unseen, alone and among others."""
    bomb = with_scans(2_000)
    alone = client.post("/v1/predict", content=bomb, headers={"Content-Type": "image/jpeg"})
    assert (alone.status_code, alone.json()["code"]) == (422, "undecodable_image")
    several = client.post("/v1/predict", files=[("f", bomb), ("f", encode())])
    assert [result.get("error", {}).get("status", 200) for result in several.json()["results"]] == [422, 200]


class TestBodies:
    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    def test_deep_json(self, client, opening):
        """Thousands of brackets are a 400 after a few hundred of them, a million are not even parsed."""
        started = time.monotonic()
        answer = client.post("/v1/predict", content=opening * 9_000, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert "recursion limit" in answer.json()["detail"]
        answer = client.post("/v1/predict", content=opening * 1_000_000, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert time.monotonic() - started < 1

    def test_wide_json(self, client):
        """Millions of small values are not even parsed: that would hold up the others for half a second."""
        values = "1," * 5_000_000
        started = time.monotonic()
        answer = client.post("/v1/predict", content=f'{{"x": [{values}1], "instances": [{{"b64": ""}}]}}', headers=JSON)
        assert answer.status_code == 413
        assert str(MAX_MARKS) in answer.json()["detail"]
        assert time.monotonic() - started < 1

    @pytest.mark.parametrize(
        ("headers", "count"),
        [(b"X-A: b\r\n" * 8, 1), (b"X-A: " + b"b" * 5000 + b"\r\n", 1), (b"", 65)],
        ids=["headers", "a long header", "parts"],
    )
    def test_multipart(self, client, headers, count):
        """Headers of a part and parts are bounded, whatever the body's size allows."""
        part = b'--bound\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n' + headers + b"\r\n\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=bound"}
        answer = client.post("/v1/predict", content=part * count + b"\r\n--bound--\r\n", headers=kind)
        assert answer.status_code == (413 if count > Settings().max_images else 400)

    def test_a_field_that_is_no_file(self, client):
        """Text fields are not taken: they would be a second way to send bytes."""
        assert client.post("/v1/predict", data={"file": "x"}, files={"f": encode()}).status_code == 400
