"""A real server process that is traced, and what a real collector endpoint gets of it."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto

from tests.metrics import families, total
from tests.processes import RunningServer, running_server
from tests.service.conftest import encode
from tests.service.tracing.collector import Collector, Span, collecting
from tests.waiting import until

JPEG = {"Content-Type": "image/jpeg"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100"}  # milliseconds
OWN = {
    "OTEL_RESOURCE_ATTRIBUTES": "vehicle.id=7,service.version=of-the-fleet",
    "OTEL_EXPORTER_OTLP_HEADERS": "x-token=secret",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
}

numbers = itertools.count()


class Traced(NamedTuple):
    """A server and the collector that it sends to."""

    server: RunningServer
    collector: Collector

    def ask(self, path: str = "/v1/predict", **request: Any) -> tuple[httpx.Response, str]:
        """Post something, and the request's id."""
        name = f"test-{next(numbers)}"
        headers = httpx.Headers(request.pop("headers", {} if {"json", "files"} & set(request) else JPEG))
        headers["X-Request-ID"] = name
        given = request if {"json", "files"} & set(request) else {"content": encode()} | request
        return httpx.post(self.server.url + path, headers=headers, timeout=60, **given), name


@pytest.fixture(scope="module")
def traced(tiny_artifact: Path) -> Iterator[Traced]:
    with (
        collecting() as collector,
        running_server(
            *("--artifact", f"m={tiny_artifact}", "--otlp-endpoint", collector.url, "--log-level", "debug"),
            env=QUICK | OWN,
        ) as server,
    ):
        yield Traced(server, collector)


def check_nested(root: Span, below: list[Span]) -> None:
    """Everything below a request is of its trace, lies within it, and none ends before it begins."""
    for span in below:
        assert span.trace == root.trace
        assert root.start <= span.start <= span.end <= root.end


def test_one_image(traced: Traced):
    """A request has one span of each stage, one after the other, with the attributes that the page promises."""
    before = time.time_ns()
    answer, name = traced.ask("/v1/predict?top_k=1")
    after = time.time_ns()
    root, *below = traced.collector.trace_of(name)
    assert [span.name for span in below] == ["decode", "queue", "inference"]
    check_nested(root, below)
    decode, queue, inference = below
    assert before <= root.start < decode.start < decode.end <= queue.start < queue.end == inference.start
    assert inference.start < inference.end < root.end <= after + 10**7  # the answer arrives before its span ends
    timings = answer.json()["timings_ms"]
    assert (inference.end - inference.start) / 1e6 == pytest.approx(timings["inference"], abs=0.002)
    assert (root.end - root.start) / 1e6 > timings["total"]
    model = {"line_ood.model": "m", "line_ood.artifact_id": answer.headers["X-Artifact-ID"]}
    assert root.name == "POST /v1/predict"
    assert (root.parent, root.kind, root.is_error) == ("", Proto.SPAN_KIND_SERVER, False)
    assert root.attributes == model | {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "url.path": "/v1/predict",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "line_ood.request_id": name,
        "line_ood.images": 1,
        "line_ood.operating_point": "default",
        "line_ood.rejects": int(answer.json()["results"][0]["ood"]["reject"]),
    }
    assert decode.attributes == queue.attributes == {"line_ood.image": 0}
    assert inference.attributes == model | {"line_ood.batch_size": 1, "line_ood.images": 1}
    assert {span.kind for span in below} == {Proto.SPAN_KIND_INTERNAL}


def test_several_images_of_which_one_is_broken(traced: Traced):
    """Each image has its own decode and queue span; the broken one says why; rejects are those of the answer."""
    images = [encode(1), b"no image", encode(2), encode(3)]
    answer, name = traced.ask(
        "/v1/predict?operating_point=strict", files=[("file", (str(i), data)) for i, data in enumerate(images)]
    )
    results = answer.json()["results"]
    root, *below = traced.collector.trace_of(name)
    check_nested(root, below)
    assert root.attributes["line_ood.images"] == 4
    assert root.attributes["line_ood.operating_point"] == "strict"
    assert root.attributes["line_ood.rejects"] == sum(each["ood"]["reject"] for each in results if "ood" in each)
    of = {
        name: {span.attributes["line_ood.image"]: span for span in below if span.name == name}
        for name in ("decode", "queue")
    }
    assert set(of["decode"]) == {0, 1, 2, 3}
    assert set(of["queue"]) == {0, 2, 3}
    assert [span.is_error for _, span in sorted(of["decode"].items())] == [False, True, False, False]
    assert of["decode"][1].attributes["error.type"] == results[1]["error"]["code"] == "unsupported_format"
    passes = [span for span in below if span.name == "inference"]
    assert sum(span.attributes["line_ood.images"] for span in passes) == 3
    for index, queue in of["queue"].items():
        assert of["decode"][index].end <= queue.start
        assert queue.end in {span.start for span in passes}


def test_rejects_are_counted(traced: Traced):
    """Over many images both decisions occur, and each span says what its answer says."""
    seen = set()
    for seed in range(40):
        answer, name = traced.ask(content=encode(seed))
        (result,) = answer.json()["results"]
        root, *_ = traced.collector.trace_of(name)
        assert root.attributes["line_ood.rejects"] == int(result["ood"]["reject"])
        seen.add(result["ood"]["reject"])
        if seen == {True, False}:
            return
    raise AssertionError(f"the images are all alike: {seen}")


@pytest.mark.parametrize(
    ("path", "request_", "status", "stages"),
    [
        ("/v1/predict?operating_point=none", {}, 400, []),
        ("/v1/predict", {"content": b"no image"}, 415, ["decode"]),
        ("/v1/models/other/predict", {}, 404, []),
        ("/v1/predict", {"json": {"instances": [{"b64": "%"}]}}, 422, []),
    ],
)
def test_a_clients_fault_is_no_error_of_the_span(traced: Traced, path, request_, status, stages):
    """A 4xx leaves the span's status unset, as the conventions say, and has the stages that were reached."""
    answer, name = traced.ask(path, **request_)
    assert answer.status_code == status
    root, *below = traced.collector.trace_of(name, status)
    assert not root.is_error
    assert "error.type" not in root.attributes
    assert [span.name for span in below] == stages


def test_the_other_ways_to_ask(traced: Traced):
    """A named model and the Open Inference Protocol are traced likewise, under their routes."""
    _, name = traced.ask("/v1/models/m/predict")
    image = base64.b64encode(encode()).decode()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [image]}
    answer, other = traced.ask("/v2/models/m/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    for request, route in [(name, "/v1/models/{name}/predict"), (other, "/v2/models/{name}/infer")]:
        root, *below = traced.collector.trace_of(request)
        assert (root.name, root.attributes["http.route"]) == (f"POST {route}", route)
        assert root.attributes["line_ood.model"] == "m"
        assert [span.name for span in below] == ["decode", "queue", "inference"]


def test_a_valid_traceparent_is_the_parent(traced: Traced):
    """The request's span is the client's child in the client's trace; tracestate stays with all of it."""
    headers = JPEG | {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "fleet=7,other=x"}
    answer, name = traced.ask(headers=headers)
    root, *below = traced.collector.trace_of(name)
    assert (root.trace, root.parent) == (TRACE, PARENT)
    assert {span.state for span in (root, *below)} == {"fleet=7,other=x"}
    check_nested(root, below)
    assert not {"traceparent", "traceresponse", "tracestate"} & set(answer.headers)


def test_a_later_version_is_read_as_far_as_it_is_known(traced: Traced):
    """As the W3C says of versions above 00."""
    _, name = traced.ask(headers=JPEG | {"traceparent": f"cc-{TRACE}-{PARENT}-01-what-the-future-brings"})
    root, *_ = traced.collector.trace_of(name)
    assert (root.trace, root.parent) == (TRACE, PARENT)


@pytest.mark.parametrize(
    "given",
    [
        ["00"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"00-{TRACE[:-1]}-{PARENT}-01"],
        ["\xff"],
        ["0" * 5000],
        [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"],
    ],
)
def test_an_invalid_traceparent_begins_a_new_trace(traced: Traced, given: list[str]):
    """It is ignored, and its tracestate with it."""
    headers = [*JPEG.items(), *[("traceparent", each.encode("latin-1")) for each in given], ("tracestate", "a=b")]
    answer, name = traced.ask(headers=headers)
    assert answer.status_code == 200
    root, *below = traced.collector.trace_of(name)
    assert (root.parent, root.state) == ("", "")
    assert root.trace not in (TRACE, "0" * 32)
    assert len(below) == 3


def test_what_is_not_sampled_leaves_no_span(traced: Traced):
    """Neither a request whose client says so, nor health and metrics; the log names the trace all the same."""
    other = TRACE[::-1]
    for path in ("/livez", "/readyz", "/metrics", "/v1/models"):
        assert httpx.get(traced.server.url + path, headers={"traceparent": f"00-{other}-{PARENT}-01"}).is_success
    answer, silent = traced.ask(headers=JPEG | {"traceparent": f"00-{other}-{PARENT}-00"})
    assert answer.status_code == 200
    _, name = traced.ask()
    traced.collector.trace_of(name)  # what came before it has arrived before it
    assert not [span for span in traced.collector.spans if span.trace == other]
    assert log_line(traced, silent)["trace_id"] == other


def test_the_log_names_the_trace(traced: Traced):
    """A request's lines carry the id of the trace that the collector has; lines outside of requests carry none."""
    _, name = traced.ask(content=b"no image")
    root, *_ = traced.collector.trace_of(name, 415)
    assert log_line(traced, name)["trace_id"] == root.trace
    httpx.get(f"{traced.server.url}/livez", headers={"X-Request-ID": "not-traced"})
    assert "trace_id" not in log_line(traced, "not-traced")


def log_line(traced: Traced, name: str) -> dict:
    lines = until(lambda: [line for line in traced.server.log if f'"{name}"' in line])
    return json.loads(lines[-1])


def test_a_path_as_long_as_a_client_likes(traced: Traced):
    """What a client chooses is cut short before it waits in memory, and makes no span of its own name."""
    _, name = traced.ask(f"/{'a' * 9000}/predict")
    root, *below = traced.collector.trace_of(name, 404)
    assert root.attributes["url.path"] == "/" + "a" * 255
    assert (root.name, below) == ("POST", [])
    assert "http.route" not in root.attributes


def test_opentelemetrys_own_variables_count(traced: Traced):
    """Resource and headers are the environment's, which is stronger than the service's own name and version."""
    _, name = traced.ask()
    root, *_ = traced.collector.trace_of(name)
    assert root.resource["service.name"] == "line-ood"
    assert root.resource["service.version"] == "of-the-fleet"
    assert root.resource["vehicle.id"] == "7"
    assert traced.collector.headers["x-token"] == "secret"
    assert traced.collector.headers["Content-Encoding"] == "gzip"


def test_prometheus_counts_spans(traced: Traced):
    """What was made has arrived, and both numbers say so."""
    _, name = traced.ask()
    traced.collector.trace_of(name)

    def agree() -> bool:
        counted = families(traced.server.url)
        numbers = {total(counted, "line_ood_spans_total"), total(counted, "line_ood_spans_sent_total")}
        return numbers == {len(traced.collector.spans)}

    until(agree)


def test_requests_that_share_a_batch(tiny_artifact: Path):
    """Each has an inference span of its own, of the same times, that says how large the batch was."""
    flags = ("--artifact", str(tiny_artifact), "--max-batch", "2", "--max-delay-ms", "5000")
    with (
        collecting() as collector,
        running_server(*flags, "--otlp-endpoint", collector.url, env=QUICK) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        traced = Traced(server, collector)
        asked = [pool.submit(traced.ask) for _ in range(2)]
        one, other = (collector.trace_of(each.result()[1]) for each in asked)
    assert one[0].trace != other[0].trace
    passes = [next(span for span in spans if span.name == "inference") for spans in (one, other)]
    assert passes[0].start == pytest.approx(passes[1].start, abs=50_000)  # each request has its own view of the clock
    assert passes[0].id != passes[1].id
    for span in passes:
        assert (span.attributes["line_ood.batch_size"], span.attributes["line_ood.images"]) == (2, 1)


def test_a_device_that_hangs(tiny_artifact: Path):
    """429, 504 and 503 are told as they were answered; what never got an answer was waiting to the end."""
    flags = ("--artifact", str(tiny_artifact), "--model", "tests.factories.slow:slow", "--drain-s", "3")
    env = {"PYTHONPATH": str(Path(__file__).parents[3])} | QUICK
    small = ("--queue-capacity", "1", "--max-images", "1", "--max-batch", "1")
    with (
        collecting() as collector,
        running_server(*flags, *small, "--otlp-endpoint", collector.url, env=env) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        traced = Traced(server, collector)
        late = pool.submit(traced.ask, headers=JPEG | {"X-Request-Timeout-Ms": "1500"})
        time.sleep(0.5)
        refused, refused_name = traced.ask()
        assert refused.status_code == 429
        answer, name = late.result()
        assert answer.status_code == 504
        cut_off = pool.submit(traced.ask)
        time.sleep(0.5)
        assert server.terminate() == 0
        answer, cut_name = cut_off.result()
        assert answer.status_code == 503
        root, *below = collector.trace_of(refused_name, 429)
        assert (root.is_error, below) == (False, [])
        assert "line_ood.model" in root.attributes
        root, *below = collector.trace_of(name, 504)
        assert (root.is_error, root.attributes["error.type"]) == (True, "504")
        assert [span.name for span in below] == ["decode", "queue"]
        check_nested(root, below)
        assert below[1].end == root.end
        assert root.end - root.start > 1.4e9
        root, *below = collector.trace_of(cut_name, 503)
        assert root.is_error
        assert below[1].attributes["error.type"] == "not_ready"


def test_lanes_that_decode_for_themselves(tiny_artifact: Path):
    """With openvino an image is decoded by the lane that took it: within its time in the queue."""
    flags = ("--artifact", str(tiny_artifact), "--engine", "openvino:float32")
    with (
        collecting() as collector,
        running_server(*flags, "--otlp-endpoint", collector.url, env=QUICK) as server,
    ):
        _, name = Traced(server, collector).ask()
        root, *below = collector.trace_of(name)
    check_nested(root, below)
    assert [span.name for span in below] == ["queue", "decode", "inference"]
    queue, decode, inference = below
    assert queue.start < decode.start < decode.end < queue.end == inference.start


def test_the_environments_sampler_decides(tiny_artifact: Path):
    """A standard sampler that takes none but what the client wants sampled."""
    with (
        collecting() as collector,
        running_server(
            *("--artifact", str(tiny_artifact), "--otlp-endpoint", collector.url),
            env=QUICK | {"OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_SERVICE_NAME": "camera"},
        ) as server,
    ):
        traced = Traced(server, collector)
        traced.ask()
        _, name = traced.ask(headers=JPEG | {"traceparent": f"00-{TRACE}-{PARENT}-01"})
        root, *_ = collector.trace_of(name)
    assert {span.trace for span in collector.spans} == {TRACE}
    assert root.resource["service.name"] == "camera"
