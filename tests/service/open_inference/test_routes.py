"""The endpoints under /v2 over real sockets, asked by hand, where tritonclient would not send such a thing."""

from __future__ import annotations

import base64
import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import httpx
import numpy as np
import pytest
import torch

from service.open_inference.tensors import join_elements
from tests.metrics import sample
from tests.service.conftest import encode
from tests.service.test_pressure import WAIT_S, Poisoned, busy, white_image
from tests.service.test_routes import check_problem, png_header
from tests.waiting import until

INFER = "/v2/models/tiny/infer"
LENGTH = "Inference-Header-Content-Length"


def json_body(images: list[bytes], **members) -> dict:
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}]} | members


def binary_body(images: list[bytes], **members) -> tuple[bytes, dict[str, str]]:
    tail = join_elements(images)
    parameters = {"binary_data_size": len(tail)}
    own = {"name": "image", "shape": [len(images)], "datatype": "BYTES", "parameters": parameters}
    head = json.dumps({"inputs": [own]} | members).encode()
    return head + tail, {LENGTH: str(len(head))}


def ask(client: httpx.Client, images: list[bytes], **members) -> httpx.Response:
    return client.post(INFER, json=json_body(images, **members))


def columns(response: httpx.Response) -> dict[str, list]:
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def test_health(client, start, scorer):
    """Live and ready once started, as /livez and /readyz; while draining the server is live and not ready."""
    for path, member in (("live", "live"), ("ready", "ready")):
        response = client.get(f"/v2/health/{path}")
        assert (response.status_code, response.json()) == (200, {member: True})
    app = start(scorer)
    app.app.state.models.drain()
    assert httpx.get(f"{app.url}/v2/health/live").status_code == 200
    for path, own in (("/v2/health/ready", {}), ("/v2/models/tiny/ready", {"name": "tiny"})):
        response = httpx.get(app.url + path)
        assert response.status_code == 503
        assert response.json() == own | {"ready": False, "error": "the server is draining"}
    refused = httpx.post(app.url + INFER, json=json_body([encode()]))
    check_problem(refused, 503, "not_ready")
    assert refused.headers["retry-after"] == "1"


def test_a_dead_server_is_not_live(client, start, scorer, monkeypatch):
    """Without its inference thread a process says that it has to be restarted."""
    app = start(scorer)
    monkeypatch.setattr(type(app.app.state.models.default.pipeline), "is_alive", property(lambda _: False))
    response = httpx.get(f"{app.url}/v2/health/live")
    assert (response.status_code, response.json()["live"]) == (503, False)
    assert httpx.get(f"{app.url}/v2/health/ready").status_code == 503


def test_the_server_says_what_it_is(client):
    """Name, version, extensions, with and without the slash that the protocol's own OpenAPI document has."""
    wanted = {
        "name": "line-ood",
        "version": version("line-ood"),
        "extensions": ["binary_tensor_data", "parameters"],
    }
    assert client.get("/v2").json() == client.get("/v2/").json() == wanted


def test_the_model_says_what_it_takes_and_gives(client, scorer):
    """Its metadata are those of what `infer` takes and answers, also under its version, the artifact's id."""
    own = client.get("/v2/models/tiny").json()
    artifact_id = scorer.artifact.artifact_id
    assert own == client.get(f"/v2/models/tiny/versions/{artifact_id}").json()
    assert own["versions"] == [artifact_id]
    assert own["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    answered = client.post(f"/v2/models/tiny/versions/{artifact_id}/infer", json=json_body([encode()])).json()
    assert [(o["name"], o["datatype"]) for o in answered["outputs"]] == [
        (o["name"], o["datatype"]) for o in own["outputs"]
    ]
    assert all(o["shape"] == [-1] for o in own["outputs"])
    assert (answered["model_name"], answered["model_version"]) == ("tiny", artifact_id)
    assert client.get(f"/v2/models/tiny/versions/{artifact_id}/ready").json() == {"name": "tiny", "ready": True}


@pytest.mark.parametrize("what", ["", "/ready", "/infer"])
def test_an_unknown_model_or_version(client, what):
    """404, which names what is served."""
    method = "POST" if what == "/infer" else "GET"
    other = check_problem(client.request(method, f"/v2/models/resnet{what}"), 404, "unknown_model")
    assert other["detail"] == "no model 'resnet': there is tiny"
    old = check_problem(client.request(method, f"/v2/models/tiny/versions/1{what}"), 404, "unknown_model")
    assert "not '1'" in old["detail"]


def test_answers_are_those_of_predict(client, scorer):
    """Every output, in JSON and in binary, is what /v1/predict says of the same images."""
    images = [encode(seed) for seed in range(8)]
    files = [("f", ("x", image)) for image in images]
    results = client.post("/v1/predict", files=files, params={"top_k": 1}).json()["results"]
    best = [result["predictions"][0] for result in results]
    found = columns(ask(client, images))
    assert found["class_index"] == [each["index"] for each in best]
    assert found["class_name"] == [each["name"] for each in best]
    assert found["probability"] == pytest.approx([each["probability"] for each in best], abs=1e-5)
    assert found["ood_score"] == pytest.approx([result["ood"]["score"] for result in results], abs=1e-4)
    assert found["p_value"] == pytest.approx([result["ood"]["p_value"] for result in results], abs=1e-6)
    assert found["reject"] == [result["ood"]["reject"] for result in results]
    assert len(set(found["ood_score"])) == 8
    content, headers = binary_body(images, parameters={"binary_data_output": True})
    response = client.post(INFER, content=content, headers=headers)
    head_length = int(response.headers[LENGTH])
    head, tail = json.loads(response.content[:head_length]), response.content[head_length:]
    assert response.headers["content-type"] == "application/octet-stream"
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    assert sum(sizes) == len(tail)
    scores = np.frombuffer(tail, "<f8", 8, offset=sum(sizes[:3]))
    assert head["outputs"][3]["name"] == "ood_score"
    assert scores.tolist() == pytest.approx(found["ood_score"], abs=1e-4)


def test_the_answer_without_images_data(client, scorer):
    """It echoes the id, tells operating point and method, its headers are those of a prediction."""
    response = ask(client, [encode()], id="Zähler-7", outputs=[{"name": "reject"}])
    body = response.json()
    assert body["id"] == "Zähler-7"
    assert body["parameters"] == {"operating_point": "default", "method": "line"}
    assert [(o["name"], o["shape"], o["datatype"]) for o in body["outputs"]] == [("reject", [1], "BOOL")]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-artifact-id"] == scorer.artifact.artifact_id
    assert "inference;dur=" in response.headers["server-timing"]
    assert LENGTH not in response.headers
    assert "id" not in ask(client, [encode()]).json()


def test_the_operating_point_decides(client, scorer):
    """`reject` is by the threshold of the point that was asked for; one that is not there is refused."""
    images = [encode(seed) for seed in range(24)]
    for name, point in scorer.artifact.operating_points.items():
        response = ask(client, images, parameters={"operating_point": name})
        found = columns(response)
        assert found["reject"] == [score > point.threshold for score in found["ood_score"]]
        assert response.json()["parameters"]["operating_point"] == name
    problem = check_problem(ask(client, images[:1], parameters={"operating_point": "x"}), 400, "malformed_request")
    assert problem["detail"] == "operating_point 'x': the artifact has default, strict"


def test_bad_images_of_several_fail_the_request(client):
    """422 that says which images failed and why, in its text and as members."""
    images = [encode(), b"hello", encode(1), encode()[:200], b""]
    problem = check_problem(ask(client, images), 422, "some_images_failed")
    assert problem["error"].startswith("3 of 5 images could not be scored, so none is answered: image 1: ")
    assert "; image 3: " in problem["error"] and "; image 4: " in problem["error"]
    assert [(each["index"], each["status"], each["code"]) for each in problem["errors"]] == [
        (1, 415, "unsupported_format"),
        (3, 422, "undecodable_image"),
        (4, 400, "empty_image"),
    ]


def test_the_text_of_many_failures_stays_short(client):
    """Ten failures are told in the text, all of them as members."""
    problem = check_problem(ask(client, [b"hello"] * 30), 422, "some_images_failed")
    assert "image 9: " in problem["error"] and "image 10: " not in problem["error"]
    assert problem["error"].endswith("; and 20 more")
    assert [each["index"] for each in problem["errors"]] == list(range(30))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", encode()[:150], encode(form="JPEG")[:-100], png_header(8000, 8000)],
    ids=["empty", "no image", "cut", "cut jpeg", "64 megapixels"],
)
def test_a_bad_image_alone_fails_as_in_predict(client, data):
    """Its error is the request's, with the same status, code and text."""
    wanted = client.post("/v1/predict", content=data).json()
    content, headers = binary_body([data])
    problem = check_problem(client.post(INFER, content=content, headers=headers), wanted["status"], wanted["code"])
    assert problem["detail"] == wanted["detail"]


def test_a_failure_of_the_server_is_not_the_images(tiny_artifact, start):
    """An image on which the network raises: 500, which names the image and not the reason."""
    app = start(Poisoned.load(tiny_artifact, torch.device("cpu")))
    with httpx.Client(base_url=app.url) as client:
        problem = check_problem(ask(client, [encode(), white_image()]), 500, "inference_failed")
    assert "image 1: " in problem["error"] and "deadbeef" not in problem["error"]
    assert [each["index"] for each in problem["errors"]] == [1]


@pytest.mark.parametrize("change", [-1, 1, 10**9], ids=["short", "long", "gigabyte"])
def test_a_header_that_lies(client, change):
    """A JSON object of another length than the header says is refused at once."""
    content, headers = binary_body([encode()])
    started = time.monotonic()
    response = client.post(INFER, content=content, headers={LENGTH: str(int(headers[LENGTH]) + change)})
    check_problem(response, 400, "malformed_request")
    assert time.monotonic() - started < 2


def test_a_length_prefix_that_lies(client):
    """An image that claims four gigabytes is refused, with what was found."""
    content, headers = binary_body([encode()])
    at = int(headers[LENGTH])
    content = content[:at] + struct.pack("<I", 2**32 - 1) + content[at + 4 :]
    problem = check_problem(client.post(INFER, content=content, headers=headers), 400, "malformed_request")
    assert "element 0 claims 4294967295 bytes" in problem["error"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate", "br", "gzip, identity"])
def test_a_compressed_body(client, algorithm):
    """415 before it is read, which says why."""
    response = client.post(INFER, content=b"x", headers={"Content-Encoding": algorithm})
    problem = check_problem(response, 415, "unsupported_media_type")
    assert algorithm in problem["error"] and "compressed already" in problem["error"]


def test_limits_of_bytes_and_images(start, scorer):
    """The same as of /v1/predict, for a declared length, for one that is not, and for images."""
    app = start(scorer, max_body_bytes=20_000, max_images=2)
    with httpx.Client(base_url=app.url) as client:
        content, headers = binary_body([bytes(20_000)])
        check_problem(client.post(INFER, content=content, headers=headers), 413, "too_large")
        chunks = (content[at : at + 1000] for at in range(0, len(content), 1000))
        check_problem(client.post(INFER, content=chunks, headers=headers), 413, "too_large")
        check_problem(ask(client, [encode()] * 3), 413, "too_large")
        assert ask(client, [encode()] * 2).status_code == 200


def test_a_full_queue(start, gated):
    """A request whose images do not all fit is refused whole, with when to come again."""
    app = start(gated, queue_capacity=4, max_images=4)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=app.url) as client:
        first = busy(app, gated, pool)
        refused = ask(client, [encode()] * 4)
        check_problem(refused, 429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        gated.gate.set()
        assert first.result().status_code == 200
        assert ask(client, [encode()] * 4).status_code == 200
    assert sample(app.url, "line_ood_admitted_images") == 0


@pytest.mark.parametrize("by", ["header", "parameter", "settings"])
def test_a_deadline(start, gated, by):
    """Of the header, of the parameter in microseconds, of the server: whichever is first."""
    app = start(gated, timeout_s=0.2 if by == "settings" else 10)
    headers = {"X-Request-Timeout-Ms": "200"} if by == "header" else {}
    parameters = {"parameters": {"timeout": 200_000 if by == "parameter" else 60_000_000}}
    with ThreadPoolExecutor(1) as pool:
        first = busy(app, gated, pool)
        started = time.monotonic()
        late = httpx.post(app.url + INFER, json=json_body([encode()] * 2, **parameters), headers=headers)
        assert 0.2 <= time.monotonic() - started < 5
        check_problem(late, 504, "deadline_passed")
        assert sample(app.url, "line_ood_dropped_images_total", reason="deadline_passed") >= 2
        gated.gate.set()
        first.result()


def test_work_of_a_gone_client_is_dropped(start, gated):
    """The images of a client that hangs up are never computed, and are counted."""
    app = start(gated)
    content, headers = binary_body([encode(seed) for seed in range(3)])
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{LENGTH}: {headers[LENGTH]}\r\nContent-Length: {len(content)}\r\n\r\n"
    with ThreadPoolExecutor(1) as pool:
        first = busy(app, gated, pool)
        before = sum(gated.batch_sizes)
        host, port = app.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + content)
            until(lambda: sample(app.url, "line_ood_queue_depth") == 3)
        until(lambda: sample(app.url, "line_ood_dropped_images_total", reason="client_gone") == 3)
        gated.gate.set()
        assert first.result(WAIT_S).status_code == 200
    assert sum(gated.batch_sizes) == before
    assert sample(app.url, "line_ood_requests_total", route="/v2/models/{name}/infer", code="499") == 1


def test_metrics_count_images_and_requests(start, scorer):
    """Images count by decision as those of /v1/predict, requests by their route, never by the client's path."""
    app = start(scorer)
    with httpx.Client(base_url=app.url) as client:
        found = columns(ask(client, [encode(seed) for seed in range(6)]))
        client.post("/v2/models/other/infer")
    rejects = sum(found["reject"])
    for decision, count in (("reject", rejects), ("accept", 6 - rejects)):
        labels = {"decision": decision, "operating_point": "default"}
        assert sample(app.url, "line_ood_images_total", **labels) == count
    for code in ("200", "404"):
        assert sample(app.url, "line_ood_requests_total", route="/v2/models/{name}/infer", code=code) == 1
    assert sample(app.url, "line_ood_refused_requests_total", reason="unknown_model") == 1


def test_documentation_names_the_endpoints(client):
    """The OpenAPI document has each with its parameters, and the body's form."""
    document = client.get("/openapi.json").json()
    of_model = ["/v2/models/{name}", "/v2/models/{name}/versions/{version}"]
    for path in [*of_model, *(path + "/ready" for path in of_model)]:
        operation = document["paths"][path]["get"]
        assert [each["name"] for each in operation["parameters"]] == ["name", "version"][: path.count("{")]
        assert "404" in operation["responses"]
    for path in of_model:
        operation = document["paths"][path + "/infer"]["post"]
        assert set(operation["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
        statuses = "200 400 404 408 413 415 422 429 431 500 503 504"
        assert set(operation["responses"]) == set(statuses.split())
    assert {"/v2", "/v2/health/live", "/v2/health/ready"} < set(document["paths"])
    assert "/v2/" not in document["paths"]
