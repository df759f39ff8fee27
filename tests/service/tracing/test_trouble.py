"""What is missing or broken around tracing never costs an answer, and is told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from service.settings import Settings
from tests.metrics import sample
from tests.processes import RunningServer, running_server
from tests.service.conftest import encode
from tests.service.tracing.collector import Collector, collecting
from tests.service.tracing.test_spans import JPEG, QUICK, Traced
from tests.waiting import until

SMALL = QUICK | {"OTEL_BSP_MAX_QUEUE_SIZE": "32", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
NOBODY = "http://127.0.0.1:9"  # the port of a service that nobody runs any more
REQUESTS = 60  # whose spans are several times what may wait


@contextmanager
def serving(artifact: Path, endpoint: str, *flags: str, **env: str) -> Iterator[RunningServer]:
    with running_server("--artifact", str(artifact), "--otlp-endpoint", endpoint, *flags, env=SMALL | env) as server:
        yield server


def ask(server: RunningServer, count: int = 1) -> float:
    """Ask so many times; the slowest, in seconds."""
    slowest = 0.0
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(count):
            started = time.monotonic()
            assert client.post("/v1/predict", content=encode(), headers=JPEG).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
    return slowest


def complaints(server: RunningServer) -> list[dict]:
    return [line for line in map(json.loads, server.log) if "sending spans" in line["message"]]


@contextmanager
def in_trouble(kind: str) -> Iterator[tuple[str, Collector]]:
    with collecting() as collector:
        if kind == "hangs":
            collector.gate.clear()
        if kind == "fails":
            collector.status = 500
        if kind == "is overloaded":
            collector.status = 503
        yield NOBODY if kind == "is down" else collector.url, collector


@pytest.mark.parametrize("kind", ["is down", "hangs", "fails", "is overloaded"])
def test_a_collector_in_trouble_costs_no_answer(tiny_artifact: Path, kind: str):
    """Every request is answered at once; SIGTERM ends the process with 0 within its time; the log stays short."""
    with in_trouble(kind) as (endpoint, collector):
        with serving(tiny_artifact, endpoint, "--drain-s", "3", OTEL_EXPORTER_OTLP_TIMEOUT="1") as server:
            assert ask(server, REQUESTS) < 1
            time.sleep(2.5)  # for two batches to fail
            assert ask(server, REQUESTS) < 1
            assert sample(server.url, "line_ood_spans_total") == 4 * 2 * REQUESTS
            assert sample(server.url, "line_ood_spans_sent_total") == 0
            started = time.monotonic()
            assert server.terminate() == 0
            assert time.monotonic() - started < 3
        assert collector.spans == []
        first, *others = [line for line in map(json.loads, server.log) if line["level"] != "INFO"]
        assert first["message"] == f"sending spans to {endpoint} fails"
        assert first["reason"].startswith("ExportError: ")
        assert [line["message"] for line in others] in ([], ["the server stops before all spans are sent"])


def test_a_collector_that_comes_back(tiny_artifact: Path):
    """Later spans arrive; that all is well is told after a minute: trouble that comes and goes is not to fill a log."""
    with collecting() as collector, serving(tiny_artifact, collector.url) as server:
        collector.status = 500
        ask(server)
        until(lambda: complaints(server))
        collector.status = 200
        _, name = Traced(server, collector).ask()
        collector.trace_of(name)
        assert server.terminate() == 0
    (told,) = complaints(server)
    assert "500" in told["reason"]


def test_what_waits_at_the_end_is_sent(tiny_artifact: Path):
    """A process that is told to stop first sends the spans of the requests that it has answered."""
    with collecting() as collector, serving(tiny_artifact, collector.url, OTEL_BSP_SCHEDULE_DELAY="60000") as server:
        _, name = Traced(server, collector).ask()
        assert collector.spans == []
        assert server.terminate() == 0
        assert len(collector.trace_of(name)) == 4


def test_hostile_headers_do_not_fill_the_log(tiny_artifact: Path):
    """OpenTelemetry would warn of each traceparent and tracestate that is not valid."""
    with collecting() as collector, serving(tiny_artifact, collector.url) as server:
        good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        for headers in ({"traceparent": "0" * 5000}, {"traceparent": good, "tracestate": "=,=" + "x" * 600}):
            assert Traced(server, collector).ask(headers=JPEG | headers)[0].status_code == 200
        lines = list(server.log)
        assert server.terminate() == 0
    assert not [line for line in lines if "opentelemetry" in line]


@pytest.mark.parametrize("module", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_without_the_extra_the_error_names_it(tiny_artifact: Path, module: str):
    """Exit code 2 and one line, before the model is loaded."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = ['line-ood', 'serve', *sys.argv[1:]]; "
        "import line_ood; line_ood.main()"
    )
    flags = ["--artifact", str(tiny_artifact), "--port", "0", "--otlp-endpoint", NOBODY]
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--otlp-endpoint needs OpenTelemetry: pip install 'line-ood[otel]'" in line
    assert done.stdout == ""


def test_without_the_setting_nothing_of_it_is_imported(tiny_artifact: Path):
    """A server that is not traced has imported of OpenTelemetry what FastAPI imports, and no more."""
    told = "import sys, json; print(json.dumps(sorted(m for m in sys.modules if m.startswith('opentelemetry'))))"
    server = (
        "import service.server; from service.app import create_app; from service.settings import Settings; "
        "from service.sources import load_all, read_sources; from service.tracing.start import start_tracing; "
        f"settings = Settings(artifact=[{str(tiny_artifact)!r}]); "
        "create_app(load_all(read_sources(settings)), settings, start_tracing(settings)); "
    )
    ours, fastapis = (
        json.loads(subprocess.run([sys.executable, "-c", code + told], capture_output=True, check=True).stdout)
        for code in (server, "import fastapi; ")
    )
    assert ours == fastapis
    assert "opentelemetry.sdk" not in ours


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "http://", "ftp://collector", "http://c:4318/v1/traces", "http://user:x@c:4318"]
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str):
    """Before spans are lost, and secrets told by a log, the setting says what is wanted."""
    with pytest.raises(ValidationError, match="wanted a collector's base URL"):
        Settings(otlp_endpoint=endpoint)


@pytest.mark.parametrize("endpoint", ["http://collector:4318", "https://c/", "http://[::1]:4318/otlp"])
def test_an_endpoint_may_have_a_path(endpoint: str):
    """What a proxy needs before /v1/traces."""
    assert Settings(otlp_endpoint=endpoint).otlp_endpoint == endpoint
