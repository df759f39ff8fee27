"""The HTTP API over real sockets, around the tiny network."""

from __future__ import annotations

import base64
import encodings
import io
import struct
import zlib

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from scoring import conformal
from scoring.scorer import Scorer
from tests.service.conftest import encode

JPEG = {"Content-Type": "image/jpeg"}


def expected(scorer: Scorer, data: bytes):
    (score,) = scorer.score(scorer.classifier.preprocess.read(data)[None])
    return score


def post(client: httpx.Client, data: bytes, headers: dict[str, str] = JPEG, **options) -> httpx.Response:
    return client.post("/v1/predict", content=data, headers=headers, **options)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares its size and holds no pixels."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 4096) + b"IDAT" + bytes(100)


def check_problem(response: httpx.Response, status: int, code: str) -> dict:
    """Every error is problem+json with the same members."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status and problem["code"] == code
    assert problem["type"] == f"urn:line-ood:problem:{code}"
    assert problem["instance"] == response.url.path
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["error"] == problem["detail"] != ""
    assert problem["title"]
    return problem


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_one_image_as_body(client, scorer, form):
    """The answer holds the classifier's own prediction and the score that the scorer computes, in each format."""
    data = encode(1, form)
    response = post(client, data, {"Content-Type": f"image/{form.lower()}"})
    assert response.status_code == 200, response.text
    body = response.json()
    wanted = expected(scorer, data)
    (result,) = body["results"]
    order = np.argsort(-wanted.probabilities)
    assert [each["index"] for each in result["predictions"]] == order.tolist()
    assert [each["name"] for each in result["predictions"]] == [
        scorer.artifact.metadata.classifier.class_names[k] for k in order
    ]
    assert [each["probability"] for each in result["predictions"]] == pytest.approx(
        wanted.probabilities[order].tolist(), abs=1e-5
    )
    point = scorer.artifact.operating_points["default"]
    ood = result["ood"]
    assert ood["method"] == "line"
    assert ood["score"] == pytest.approx(wanted.ood_score, abs=1e-4)
    assert ood["threshold"] == point.threshold
    assert ood["margin"] == pytest.approx(point.threshold - ood["score"])
    assert ood["p_value"] == pytest.approx(wanted.p_value)
    assert ood["reject"] is (ood["score"] > point.threshold)
    assert body["model"] == {"name": "tiny", "artifact_id": scorer.artifact.artifact_id}
    assert response.headers["x-artifact-id"] == scorer.artifact.artifact_id
    assert set(body["timings_ms"]) == {"decode", "queue", "inference", "total"}
    assert all(f"{stage};dur=" in response.headers["server-timing"] for stage in body["timings_ms"])


def test_octet_stream_and_no_type_are_images(client):
    """The signature of the bytes decides, not their name."""
    assert post(client, encode(), {"Content-Type": "application/octet-stream"}).status_code == 200
    assert post(client, encode(), {}).status_code == 200


def test_multipart_keeps_the_order(client, scorer):
    """Several files in one request are answered in their order."""
    images = [encode(seed) for seed in range(6)]
    response = client.post("/v1/predict", files=[("file", (f"{i}.png", data)) for i, data in enumerate(images)])
    scores = [result["ood"]["score"] for result in response.json()["results"]]
    assert scores == pytest.approx([expected(scorer, data).ood_score for data in images], abs=1e-4)
    assert len(set(scores)) == 6


def test_json_keeps_the_order(client, scorer):
    """Images in base64 are answered in their order."""
    images = [encode(seed) for seed in range(3)]
    body = {"instances": [{"b64": base64.b64encode(data).decode()} for data in images]}
    results = client.post("/v1/predict", json=body).json()["results"]
    scores = [expected(scorer, data).ood_score for data in images]
    assert [result["ood"]["score"] for result in results] == pytest.approx(scores, abs=1e-4)


def test_one_bad_image_of_several_fails_alone(client):
    """Its neighbours are answered, and it is told why it was not."""
    good, bad = encode(), encode(2)[:200]
    files = [("f", good), ("f", bad), ("f", b""), ("f", b"hello"), ("f", png_header(9000, 9000)), ("f", good)]
    response = client.post("/v1/predict", files=[(name, ("x", data)) for name, data in files])
    assert response.status_code == 200
    results = response.json()["results"]
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == [None, "undecodable_image", "empty_image", "unsupported_format", "too_many_pixels", None]
    assert [results[i]["error"]["status"] for i in (1, 2, 3, 4)] == [422, 400, 415, 422]
    assert results[0] == results[5]


def test_all_images_bad(client):
    """Nothing to answer: 422, and the reason of each."""
    response = client.post("/v1/predict", files=[("f", ("x", b"hello")), ("f", ("y", encode()[:100]))])
    problem = check_problem(response, 422, "all_images_failed")
    assert [error["code"] for error in problem["errors"]] == ["unsupported_format", "undecodable_image"]


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty_image"),
        (b"hello", 415, "unsupported_format"),
        (b"GIF89a" + bytes(100), 415, "unsupported_format"),
        (encode()[:150], 422, "undecodable_image"),
        (encode(form="JPEG")[:-100], 422, "undecodable_image"),
        (png_header(8000, 8000), 422, "too_many_pixels"),
        (png_header(40_000_000, 1), 422, "too_many_pixels"),
    ],
)
def test_a_bad_image_alone(client, data, status, code):
    """A single image's error is the request's."""
    check_problem(post(client, data), status, code)


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        (b"{", {"Content-Type": "application/json"}, 400, "malformed_request"),
        (b'{"instances": []}', {"Content-Type": "application/json"}, 400, "malformed_request"),
        (b'{"instances": [{"url": "http://x"}]}', {"Content-Type": "application/json"}, 400, "malformed_request"),
        (b'{"instances": [{"b64": "%%"}]}', {"Content-Type": "application/json"}, 422, "undecodable_image"),
        (b'{"instances": [{"b64": "\xc3\xa9"}]}', {"Content-Type": "application/json"}, 422, "undecodable_image"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "malformed_request"),
        (b"x", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "malformed_request"),
        (b"--b\r\n\r\n", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "malformed_request"),
        (encode(), {**JPEG, "X-Request-Timeout-Ms": "soon"}, 400, "malformed_request"),
        (encode(), {**JPEG, "X-Request-Timeout-Ms": "0"}, 400, "malformed_request"),
    ],
)
def test_a_bad_request(client, content, headers, status, code):
    """A request that is not as documented gets a 4xx that says what was wanted."""
    check_problem(post(client, content, headers), status, code)


@pytest.mark.parametrize("query", ["top_k=0", "top_k=x", "operating_point=none"])
def test_a_bad_query(client, query):
    """The message names the parameter."""
    problem = check_problem(
        client.post(f"/v1/predict?{query}", content=encode(), headers=JPEG), 400, "malformed_request"
    )
    assert query.partition("=")[0] in problem["detail"]


def test_multipart_without_files(client):
    """A form of fields only is malformed."""
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--b--\r\n'
    check_problem(post(client, body, boundary), 400, "malformed_request")


def test_unknown_routes_and_methods(client):
    """What is not there is told in the same form."""
    check_problem(client.get("/nothing"), 404, "not_found")
    response = client.get("/v1/predict")
    check_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_too_many_bytes(start, scorer):
    """The limit holds for a declared length and for a body that does not tell its length."""
    app = start(scorer, max_body_bytes=1000)
    with httpx.Client(base_url=app.url) as client:
        check_problem(post(client, bytes(1001)), 413, "too_large")
        chunks = (bytes(100) for _ in range(11))
        check_problem(client.post("/v1/predict", content=chunks, headers=JPEG), 413, "too_large")
        boundary = {"Content-Type": "multipart/form-data; boundary=b"}
        # Well-formed from its first byte, as the chunks may be parsed one by one or all at once.
        start_of_file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        chunks = (chunk for chunk in (start_of_file, *[bytes(100)] * 11))
        check_problem(post(client, chunks, boundary), 413, "too_large")
        assert post(client, encode(size=(2, 2))).status_code == 200


def test_too_many_images(start, scorer):
    """The limit on images holds for both forms that can carry several."""
    app = start(scorer, max_images=2)
    with httpx.Client(base_url=app.url) as client:
        files = [("f", ("x", encode()))] * 3
        check_problem(client.post("/v1/predict", files=files), 413, "too_large")
        assert client.post("/v1/predict", files=files[:2]).status_code == 200
        instances = [{"b64": base64.b64encode(encode()).decode()}] * 3
        check_problem(client.post("/v1/predict", json={"instances": instances}), 413, "too_large")


def test_top_k(client):
    """As many classes as asked for, the most probable first; all of them when there are fewer."""
    one = client.post("/v1/predict?top_k=1", content=encode(), headers=JPEG).json()["results"][0]["predictions"]
    everything = client.post("/v1/predict?top_k=99", content=encode(), headers=JPEG).json()["results"][0]["predictions"]
    assert len(one) == 1 and one[0] == everything[0]
    assert len(everything) == 5
    probabilities = [each["probability"] for each in everything]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_operating_points(client, scorer):
    """The threshold is the one asked for; the score does not depend on it."""
    answers = {
        name: client.post(f"/v1/predict?operating_point={name}", content=encode(), headers=JPEG).json()["results"][0]
        for name in ("default", "strict")
    }
    for name, answer in answers.items():
        assert answer["ood"]["threshold"] == scorer.artifact.operating_points[name].threshold
    assert answers["default"]["ood"]["score"] == answers["strict"]["ood"]["score"]
    assert answers["default"]["ood"]["threshold"] < answers["strict"]["ood"]["threshold"]


def test_the_request_id_is_the_clients(client):
    """A sound id comes back; one that could break a header or a log is replaced."""
    sound = post(client, encode(), {**JPEG, "X-Request-ID": "abc-123"})
    assert sound.headers["x-request-id"] == sound.json()["request_id"] == "abc-123"
    for bad in ("a b", "x" * 129, ""):
        replaced = post(client, encode(), {**JPEG, "X-Request-ID": bad}).headers["x-request-id"]
        assert replaced != bad and len(replaced) == 32


def test_health(client):
    """Alive and ready once started."""
    assert client.get("/livez").json()["status"] == "alive"
    assert client.get("/readyz").json()["status"] == "ready"


def test_documentation_names_what_the_server_does(client):
    """The OpenAPI document lists the three forms of body and every status of an error; /docs is there."""
    operation = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    bodies = {"image/*", "application/octet-stream", "multipart/form-data", "application/json"}
    assert set(operation["requestBody"]["content"]) == bodies
    assert set(operation["responses"]) == {"200", "400", "408", "413", "415", "422", "429", "431", "500", "503", "504"}
    assert "swagger" in client.get("/docs").text


def test_exif_orientation_is_as_calibrated(client, scorer):
    """The tiny artifact ignores EXIF, so a rotated file scores like its pixels."""
    picture = Image.open(io.BytesIO(encode(3)))
    buffers = []
    for exif in (Image.Exif(), Image.Exif()):
        if buffers:
            exif[0x0112] = 6
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", exif=exif)
        buffers.append(buffer.getvalue())
    plain, rotated = (post(client, data).json()["results"][0]["ood"]["score"] for data in buffers)
    assert plain == rotated
    turned = torch.rot90(scorer.classifier.preprocess.read(buffers[0]), -1, (1, 2))
    assert scorer.score(turned[None])[0].ood_score != pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("entry", [b"1", b"{}", b'{"b64":""}'])
def test_a_json_bomb_is_refused_at_its_first_mistake(client, entry):
    """A million entries cost no more than one: far less than it takes to read them all, four and more seconds."""
    body = b'{"instances": [' + b",".join([entry] * 500_000) + b"]}"
    response = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"}, timeout=3)
    assert response.status_code in (400, 413)


def test_a_truncated_form_is_not_half_an_answer(client):
    """A multipart body without its closing boundary is malformed, whatever has arrived of it."""
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + encode() + b"\r\n"
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    assert post(client, part + b"--b--\r\n", boundary).status_code == 200
    check_problem(post(client, part, boundary), 400, "malformed_request")
    check_problem(post(client, part + part[:-200], boundary), 400, "malformed_request")


@pytest.mark.parametrize("timeout", ["9" * 400, "9" * 5000, "\u0663", "1e3", "-1"])
def test_a_strange_timeout_is_malformed(client, timeout):
    """Not an integer that a clock understands: 400, never 500."""
    headers = [(b"Content-Type", b"image/png"), (b"X-Request-Timeout-Ms", timeout.encode())]
    check_problem(client.post("/v1/predict", content=encode(), headers=headers), 400, "malformed_request")


@pytest.mark.parametrize("charset", ["UTF-8", '"utf-8"', "us-ascii", "ISO-8859-1"])
def test_a_form_that_names_its_charset(client, charset):
    """As some libraries do; the names of its parts may be anything, they are not read."""
    assert post_form(client, charset).status_code == 200


def test_a_form_in_a_charset_of_nonsense(client):
    """It is never looked up: Python would keep what it did not find, and what it finds may be any module's."""
    before = len(vars(encodings)["_cache"])
    for charset in ("undefined", "line_ood_nonsense", "x" * 30_000, "zip", ""):
        problem = check_problem(post_form(client, charset), 400, "malformed_request")
        assert len(problem["detail"]) < 150
    assert len(vars(encodings)["_cache"]) == before


def post_form(client, charset: str) -> httpx.Response:
    headers = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    part = b'--b\r\nContent-Disposition: form-data; name="\xff"; filename="x"\r\n\r\n' + encode() + b"\r\n--b--\r\n"
    return post(client, part, headers)


def test_no_redirects(client):
    """A path with a slash too many is not there."""
    check_problem(client.post("/v1/predict/", content=encode(), headers=JPEG), 404, "not_found")


def test_all_methods_on_request(client, scorer):
    """Each with its own threshold at the operating point that was asked for; otherwise none is told."""
    data = encode(2)
    (plain,) = post(client, data).json()["results"]
    assert "methods" not in plain
    answer = post(client, data, params={"methods": "all", "operating_point": "strict"})
    (result,) = answer.json()["results"]
    assert list(result["methods"]) == list(scorer.ensemble.names)
    point = scorer.artifact.operating_points["strict"]
    (wanted,) = scorer.score(scorer.classifier.preprocess.read(data)[None], every=True)
    for name, found in result["methods"].items():
        score, p_value = wanted.methods[name]
        assert found["score"] == pytest.approx(score, rel=1e-4, abs=1e-4)
        assert found["p_value"] == pytest.approx(p_value)
        assert found["threshold"] == conformal.threshold(scorer.artifact.scores[name], point.alpha)
        assert found["reject"] is (found["score"] > found["threshold"])
    ood = result["ood"]
    assert result["methods"][ood["method"]] == {
        "score": ood["score"],
        "threshold": ood["threshold"],
        "p_value": ood["p_value"],
        "reject": ood["reject"],
    }


def test_methods_are_primary_or_all(client):
    """Anything else is refused, with what was found."""
    problem = check_problem(post(client, encode(), params={"methods": "msp"}), 400, "malformed_request")
    assert "methods" in problem["detail"] and "'msp'" in problem["detail"]
