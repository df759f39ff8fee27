"""Real server processes that capture, to a folder and to an S3; the command that reads what they kept."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.calibration.command import start as run
from tests.processes import running_server
from tests.service.capture.making import bytes_below, side_files
from tests.service.capture.test_live import kept, measured, post
from tests.service.conftest import encode
from tests.waiting import until

QUICK = ("--capture-per-minute", "60000")


def wanted_reason(answer: dict) -> str | None:
    """What the documentation says of an answer at an alpha of 0.1, where no image is drawn at random."""
    if answer["ood"]["reject"]:
        return "reject"
    return "borderline" if answer["ood"]["p_value"] <= 0.2 else None


def test_a_server_keeps_what_it_rejected_and_what_it_nearly_did(tiny_artifact: Path, tmp_path: Path):
    """Byte for byte and with its answer's own numbers, whatever form it was sent in; a new start keeps the cap."""
    flags = ("--artifact", str(tiny_artifact), "--capture", str(tmp_path), *QUICK)
    images = [encode(seed, form) for seed in range(15) for form in ("JPEG", "PNG", "WEBP", "BMP")]
    hostile = {"X-Request-ID": "../../../../etc/passwd", "X-Stream-ID": "camera:7"}
    with running_server(*flags, "--capture-random", "0") as server:
        bodies = [post(server.url, image, **hostile).json() for image in images[:30]]
        form = [("file", ("x", image)) for image in images[30:]]
        bodies.append(httpx.post(f"{server.url}/v1/predict", files=form, timeout=30).json())
        answers = [(body, index, each) for body in bodies for index, each in enumerate(body["results"])]
        wanted = [
            (image, body, index, answer, wanted_reason(answer))
            for image, (body, index, answer) in zip(images, answers, strict=True)
        ]
        wanted = [each for each in wanted if each[4]]
        assert {each[4] for each in wanted} == {"reject", "borderline"}
        until(lambda: kept(server.url) == len(wanted))
        assert measured(server.url)["capture_bytes"] == bytes_below(tmp_path)
        assert server.terminate() == 0
    found = side_files(tmp_path)
    assert [each["image"] for each in found] == [each[0] for each in wanted]
    for side, (_, body, index, answer, reason) in zip(found, wanted, strict=True):
        best = answer["predictions"][0]
        assert side["probability"] == pytest.approx(best["probability"])
        assert {name: side[name] for name in ("class_index", "class_name", "method", "ood_score", "reason")} == {
            "class_index": best["index"],
            "class_name": best["name"],
            "method": answer["ood"]["method"],
            "ood_score": answer["ood"]["score"],
            "reason": reason,
        }
        assert (side["p_value"], side["threshold"]) == (answer["ood"]["p_value"], answer["ood"]["threshold"])
        assert (side["request_id"], side["image_index"]) == (body["request_id"], index)
        assert side["stream_id"] == ("camera:7" if body["request_id"].startswith("..") else None)
        assert (side["model"], side["artifact_id"]) == (body["model"]["name"], body["model"]["artifact_id"])
        assert side["operating_point"] == "default"
    assert {each["content_type"] for each in found} == {"image/jpeg", "image/png", "image/webp", "image/bmp"}
    cap = bytes_below(tmp_path) // 2
    with running_server(*flags, "--capture-random", "1", "--capture-max-bytes", str(cap)) as server:
        assert post(server.url, new := encode(99)).status_code == 200
        until(lambda: kept(server.url) == 1)
        assert measured(server.url)["capture_bytes"] == bytes_below(tmp_path) <= cap
    left = side_files(tmp_path)
    assert [each["image"] for each in left] == [*[each["image"] for each in found[-len(left) + 1 :]], new]


def test_a_wrong_url_ends_the_start(tiny_artifact: Path):
    """Exit code 2 and one line that names the flag."""
    refusal = run("serve", "--port", "0", "--artifact", tiny_artifact, "--capture", "nosuch://x").refusal()
    assert refusal.startswith("line-ood: --capture: nothing can be written at nosuch://x: ")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3, for this process and its children."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or _answers(url), within_s=60)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.TransportError:
        time.sleep(0.1)
        return False


def _stored(url: str, path: str) -> bytes:
    """An object, by plain HTTP; the S3 believes every signature."""
    scope = "Credential=tests/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none"
    found = httpx.get(f"{url}/fleet/cars/7/{path}", headers={"Authorization": f"AWS4-HMAC-SHA256 {scope}"})
    assert found.status_code == 200
    return found.content


def test_a_server_captures_to_s3(s3: str, tiny_artifact: Path, tmp_path: Path):
    """Images lie there as they were sent, under the cap; `captured` lists them; an absent bucket is refused."""
    pytest.importorskip("s3fs")
    assert httpx.put(f"{s3}/fleet").status_code == 200
    url = "s3://fleet/cars/7"
    flags = ("--artifact", str(tiny_artifact), "--capture", url, "--capture-random", "1", *QUICK)
    images = [encode(seed) for seed in range(12)]
    with running_server(*flags, "--capture-max-bytes", "16000") as server:
        for image in images:
            assert post(server.url, image).status_code == 200
        until(lambda: kept(server.url) == 12, within_s=60)
        lies_there = measured(server.url)["capture_bytes"]
        assert lies_there <= 16_000
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 5
    out = tmp_path / "manifest.csv"
    done = run("captured", url, "--out", out)
    assert done.code == 0, done.err
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert 4 < len(rows) < 12
    stored = [_stored(s3, row["image"]) for row in rows]
    assert stored == images[-len(rows) :]
    sides = [_stored(s3, row["image"].replace(".png", ".json")) for row in rows]
    assert [json.loads(side)["sha256"] for side in sides] == [row["sha256"] for row in rows]
    assert sum(map(len, stored)) + sum(map(len, sides)) == lies_there
    attempt = "from service.capture.target import open_target; open_target('s3://nosuchbucket/cars', 60)"
    failed = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)
    assert failed.stderr.splitlines()[-1].startswith("service.capture.target.TargetError: s3://nosuchbucket/cars: ")
