"""Too much, too late, too soon: what happens to requests when the device does not keep up or goes away."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
import torch
from PIL import Image

from scoring.preprocess import Preprocess
from scoring.scorer import Scorer
from service.app import create_app
from service.pipeline import State
from service.settings import Settings
from tests.metrics import sample
from tests.service.conftest import LiveApp, encode, live, only
from tests.service.test_routes import check_problem
from tests.waiting import until

JPEG = {"Content-Type": "image/jpeg"}
WAIT_S = 20
SLOW_S = 0.6  # of a pass


def post(url: str, headers: dict[str, str] | None = None, seed: int = 0) -> httpx.Response:
    return httpx.post(f"{url}/v1/predict", content=encode(seed), headers=JPEG | (headers or {}), timeout=WAIT_S)


def busy(app: LiveApp, gated, pool: ThreadPoolExecutor) -> Future[httpx.Response]:
    """Close the gate with one image on the device."""
    gated.gate.clear()
    before = len(gated.batch_sizes)
    answer = pool.submit(post, app.url)
    until(lambda: len(gated.batch_sizes) > before)
    return answer


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_a_full_queue_refuses_at_once(start, gated, pool):
    """429 with Retry-After, before anything is decoded; who was admitted is answered, and there is room again."""
    app = start(gated, queue_capacity=4, max_images=4)
    answers = [busy(app, gated, pool)] + [pool.submit(post, app.url) for _ in range(3)]
    until(lambda: sample(app.url, "line_ood_admitted_images") == 4)
    assert sample(app.url, "line_ood_queue_used_ratio") == 1
    refused = post(app.url)
    check_problem(refused, 429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    gated.gate.set()
    assert [answer.result().status_code for answer in answers] == [200] * 4
    assert post(app.url).status_code == 200
    assert sample(app.url, "line_ood_refused_requests_total", reason="queue_full") == 1
    assert sample(app.url, "line_ood_queue_capacity") == 4
    assert sample(app.url, "line_ood_queue_used_ratio") == 0


@pytest.fixture
def stalled(start, gated, pool) -> LiveApp:
    """An idle server of two images a pass, whose last one took SLOW_S."""
    app = start(gated, max_batch=2, max_images=30)
    first = busy(app, gated, pool)
    time.sleep(SLOW_S)
    gated.gate.set()
    assert first.result().status_code == 200
    return app


@pytest.fixture
def slow(stalled, gated, pool) -> Iterator[LiveApp]:
    """The same with two images that wait, and a gate that is closed."""
    waiting = [busy(stalled, gated, pool), pool.submit(post, stalled.url)]
    until(lambda: sample(stalled.url, "line_ood_queue_depth") == 1)
    yield stalled
    gated.gate.set()
    assert [answer.result().status_code for answer in waiting] == [200] * 2


def test_time_fills_the_queue_as_images_do(slow):
    """Two passes of three quarters of ten seconds are more of it than two images of 512: the alert goes by that."""
    assert 2 * SLOW_S / 7.5 < sample(slow.url, "line_ood_queue_used_ratio") < 1


def test_who_could_not_be_answered_in_time_is_refused(slow, gated, pool):
    """By its own time, not the server's alone; who has more time is admitted, and answered."""
    late = post(slow.url, {"X-Request-Timeout-Ms": "1000"})
    check_problem(late, 429, "queue_full")
    assert "would not be done within" in late.json()["detail"]
    patient = pool.submit(post, slow.url, {"X-Request-Timeout-Ms": "10000"})
    until(lambda: sample(slow.url, "line_ood_admitted_images") == 3)
    gated.gate.set()
    assert patient.result().status_code == 200


def test_all_images_of_a_request_count(slow):
    """Thirty need sixteen passes: refused, with a time to come again that is no longer than a request may take."""
    files = [("f", ("x", encode()))] * 30
    refused = httpx.post(f"{slow.url}/v1/predict", files=files, timeout=WAIT_S)
    check_problem(refused, 429, "queue_full")
    assert 1 <= int(refused.headers["retry-after"]) <= 10


def test_a_slow_pass_is_forgotten(slow, gated):
    """After a stall the next passes are let in, and tell how fast they are: the same thirty are answered."""
    gated.gate.set()
    until(lambda: sample(slow.url, "line_ood_admitted_images") == 0)
    files = [("f", ("x", encode()))] * 30
    assert httpx.post(f"{slow.url}/v1/predict", files=files, timeout=WAIT_S).status_code == 200


@pytest.fixture
def unfinished(stalled) -> Iterator[None]:
    """Four requests to it whose bodies never come."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", int(stalled.url.rpartition(":")[2]))))
            client.sendall(head)
        until(lambda: sample(stalled.url, "line_ood_admitted_images") == 4)
        yield


HURRIED = {"X-Request-Timeout-Ms": "2000"}


@pytest.mark.usefixtures("unfinished")
def test_bodies_that_never_end_keep_nobody_out(stalled):
    """They hold room, but no device: the next image is let in, however slow the last pass was."""
    assert post(stalled.url, HURRIED).status_code == 200


@pytest.mark.usefixtures("unfinished")
def test_nor_where_the_device_is_busy(stalled, gated, pool):
    """Who comes into the next pass is let in, whatever else is being sent."""
    answers = [busy(stalled, gated, pool), pool.submit(post, stalled.url, HURRIED)]
    until(lambda: sample(stalled.url, "line_ood_queue_depth") == 1)
    gated.gate.set()
    assert [answer.result().status_code for answer in answers] == [200] * 2


def test_a_body_that_finds_others_before_it(stalled, gated, pool):
    """Who was let in while the server was idle, and whose body then comes too late to be scored in time, is told so."""
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(encode())}\r\n"
        "X-Request-Timeout-Ms: 3000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(stalled.url.rpartition(":")[2]))) as client:
        client.sendall(head.encode())
        until(lambda: sample(stalled.url, "line_ood_admitted_images") == 1)
        before = [busy(stalled, gated, pool), *[pool.submit(post, stalled.url) for _ in range(6)]]
        until(lambda: sample(stalled.url, "line_ood_admitted_images") == 8)
        until(lambda: sample(stalled.url, "line_ood_queue_depth") == 4)  # two more are prepared for the next pass
        client.sendall(encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 429 ")
    gated.gate.set()
    assert [answer.result().status_code for answer in before] == [200] * 7


def test_passes_hold_as_many_images_as_the_warm_up_has_found_useful(start, gated, pool, monkeypatch):
    """What `useful_batch` says is what the device is given."""
    monkeypatch.setattr("service.pipeline.useful_batch", lambda score, images: 3)
    app = start(gated)
    first = busy(app, gated, pool)
    before = len(gated.batch_sizes)
    rest = pool.submit(httpx.post, f"{app.url}/v1/predict", files=[("f", ("x", encode()))] * 7, timeout=WAIT_S)
    until(lambda: sample(app.url, "line_ood_admitted_images") == 8)
    gated.gate.set()
    assert first.result().status_code == rest.result().status_code == 200
    assert sum(gated.batch_sizes[before:]) == 7
    assert max(gated.batch_sizes[before:]) == 3


def test_a_request_is_admitted_whole_or_not_at_all(start, gated, pool):
    """Four images do not fit where three have room, and the three are still there for others."""
    app = start(gated, queue_capacity=4, max_images=4)
    first = busy(app, gated, pool)
    files = [("f", ("x", encode()))] * 4
    check_problem(httpx.post(f"{app.url}/v1/predict", files=files), 429, "queue_full")
    fitting = pool.submit(httpx.post, f"{app.url}/v1/predict", files=files[:3], timeout=WAIT_S)
    until(lambda: sample(app.url, "line_ood_admitted_images") == 4)
    gated.gate.set()
    assert first.result().status_code == fitting.result().status_code == 200


def test_a_deadline_acts_while_the_image_waits(start, gated, pool):
    """504 when the time is over, though the device is stuck; the image leaves the queue and is counted."""
    app = start(gated)
    first = busy(app, gated, pool)
    started = time.monotonic()
    late = post(app.url, {"X-Request-Timeout-Ms": "200"})
    assert 0.2 <= time.monotonic() - started < WAIT_S / 2
    check_problem(late, 504, "deadline_passed")
    assert sample(app.url, "line_ood_queue_depth") == 0
    assert sample(app.url, "line_ood_dropped_images_total", reason="deadline_passed") == 1
    gated.gate.set()
    assert first.result().status_code == 200
    assert gated.batch_sizes[-1] == 1
    assert sum(gated.batch_sizes) - sum_of_warm_up(gated) == 1


def sum_of_warm_up(gated) -> int:
    return sum([1, 2, 4, 8, 8, 16, 16, 32, 32]) + 32  # each size that engines prepare, and some through the queue


def test_the_servers_own_timeout_holds(start, gated, pool):
    """A client cannot ask for more time than the server gives."""
    app = start(gated, timeout_s=0.2)
    busy(app, gated, pool)
    check_problem(post(app.url, {"X-Request-Timeout-Ms": "60000"}), 504, "deadline_passed")


def test_a_body_that_trickles_is_cut_off(start, scorer):
    """The deadline covers the time that the body takes."""
    app = start(scorer, timeout_s=0.3)

    def trickle():
        for _ in range(20):
            yield b"x"
            time.sleep(0.05)

    response = httpx.post(f"{app.url}/v1/predict", content=trickle(), headers=JPEG, timeout=WAIT_S)
    check_problem(response, 504, "deadline_passed")


def send_and_hang_up(app: LiveApp, waits) -> None:
    """Post an image over a bare socket and close it while it waits."""
    data = encode(7)
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
    host, port = app.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + data)
        until(waits)


def test_work_of_a_gone_client_is_dropped(start, gated, pool):
    """The image of a client that hangs up is never computed, and is counted; its neighbours are answered."""
    app = start(gated)
    first = busy(app, gated, pool)
    send_and_hang_up(app, lambda: sample(app.url, "line_ood_queue_depth") == 1)
    until(lambda: sample(app.url, "line_ood_dropped_images_total", reason="client_gone") == 1)
    neighbour = pool.submit(post, app.url)
    until(lambda: sample(app.url, "line_ood_queue_depth") == 1)
    gated.gate.set()
    assert first.result().status_code == neighbour.result().status_code == 200
    assert sum(gated.batch_sizes) - sum_of_warm_up(gated) == 2
    assert sample(app.url, "line_ood_requests_total", route="/v1/predict", code="499") == 1


def test_waiting_images_make_one_batch(start, gated, pool):
    """What arrives while the device works is scored together."""
    app = start(gated)
    answers = [busy(app, gated, pool)]
    answers += [pool.submit(post, app.url, seed=seed) for seed in range(8)]
    until(lambda: sample(app.url, "line_ood_queue_depth") == 8)
    gated.gate.set()
    assert all(answer.result().status_code == 200 for answer in answers)
    assert gated.batch_sizes[-2:] == [1, 8]


class Poisoned(Scorer):
    """Raises on batches that hold a white image, as a device does on a bad input."""

    error: BaseException = RuntimeError("illegal instruction at 0xdeadbeef")

    def score(self, pixels, *, alone=True, every=False):
        if bool((pixels == 255).all(dim=(1, 2, 3)).any()):
            raise self.error
        return super().score(pixels, alone=alone, every=every)


def white_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_failing_image_fails_alone_and_opaquely(tiny_artifact, start, caplog):
    """One image on which the network raises: 500 for it, answers for its neighbours, the reason only in the log."""
    app = start(Poisoned.load(tiny_artifact, torch.device("cpu")))
    files = [("f", ("x", data)) for data in (encode(1), white_image(), encode(2))]
    results = httpx.post(f"{app.url}/v1/predict", files=files).json()["results"]
    assert [result.get("error", {}).get("code") for result in results] == [None, "inference_failed", None]
    alone = httpx.post(f"{app.url}/v1/predict", content=white_image(), headers=JPEG)
    problem = check_problem(alone, 500, "inference_failed")
    assert "deadbeef" not in json.dumps(problem)
    assert "deadbeef" in caplog.text
    assert sample(app.url, "line_ood_image_errors_total", reason="inference_failed") == 2
    assert sample(app.url, "line_ood_batch_failures_total") >= 2


def test_a_server_that_cannot_decode_says_so_of_that_image_alone(scorer, start, caplog):
    """When decoding fails for a reason of the server's own, that image gets a 500, its neighbours their answers."""

    class Starved(Preprocess):
        def read(self, data, *, max_pixels):
            if data == white_image():
                raise MemoryError("cannot allocate 147 MB")
            return super().read(data, max_pixels=max_pixels)

    preprocess = Starved(**scorer.classifier.preprocess.model_dump())
    scorer.classifier.preprocess = preprocess
    app = start(scorer)
    files = [("f", ("x", data)) for data in (encode(1), white_image(), encode(2))]
    results = httpx.post(f"{app.url}/v1/predict", files=files).json()["results"]
    assert [result.get("error", {}).get("code") for result in results] == [None, "decoding_failed", None]
    check_problem(httpx.post(f"{app.url}/v1/predict", content=white_image(), headers=JPEG), 500, "decoding_failed")
    assert "147 MB" in caplog.text
    assert sample(app.url, "line_ood_image_errors_total", reason="decoding_failed") == 2


def test_who_could_not_be_decoded_in_time_is_refused(scorer, start, pool):
    """Where decoding and not the network holds up: 429 for them, answers for who is admitted, 504 for nobody."""

    class Laborious(Preprocess):
        def read(self, data, *, max_pixels):
            time.sleep(0.2)
            return super().read(data, max_pixels=max_pixels)

    scorer.classifier.preprocess = Laborious(**scorer.classifier.preprocess.model_dump())
    app = start(scorer, decode_workers=1, timeout_s=2)
    assert post(app.url).status_code == 200  # and the server knows how long an image takes
    answers = [answer.result() for answer in [pool.submit(post, app.url, seed=seed) for seed in range(16)]]
    tally = Counter(answer.status_code for answer in answers)
    assert tally.keys() == {200, 429}, tally
    assert 4 <= tally[200] <= 8, tally  # three quarters of the two seconds hold seven
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "would not be done within" in check_problem(refused, 429, "queue_full")["detail"]
    assert int(refused.headers["retry-after"]) in (1, 2)
    assert post(app.url).status_code == 200


def test_health_tells_of_a_dead_inference_thread(tiny_artifact, start, caplog):
    """When the thread is gone, liveness and readiness fail and requests get 503, not silence."""
    scorer = Poisoned.load(tiny_artifact, torch.device("cpu"))
    scorer.error = SystemExit("killed")
    app = start(scorer)
    assert httpx.get(f"{app.url}/livez").status_code == 200
    dying = httpx.post(f"{app.url}/v1/predict", content=white_image(), headers=JPEG, timeout=WAIT_S)
    check_problem(dying, 503, "not_ready")
    until(lambda: httpx.get(f"{app.url}/livez").status_code == 503)
    assert httpx.get(f"{app.url}/readyz").status_code == 503
    refused = post(app.url)
    check_problem(refused, 503, "not_ready")
    assert refused.headers["retry-after"] == "1"


def test_draining_finishes_what_was_admitted(start, gated, pool):
    """While draining: not ready, new work refused, connections closed, admitted work answered; alive until the end."""
    app = start(gated)
    answers = [busy(app, gated, pool), pool.submit(post, app.url)]
    until(lambda: sample(app.url, "line_ood_admitted_images") == 2)
    app.app.state.models.drain()
    ready = httpx.get(f"{app.url}/readyz")
    assert (ready.status_code, ready.headers["connection"]) == (503, "close")
    assert "draining" in ready.json()["detail"]
    check_problem(post(app.url), 503, "not_ready")
    assert httpx.get(f"{app.url}/livez").status_code == 200
    assert sample(app.url, "line_ood_ready") == 0
    gated.gate.set()
    assert [answer.result().status_code for answer in answers] == [200, 200]


def test_not_ready_before_the_warm_up(gated):
    """The app takes no work until a batch of each size that engines prepare has been scored."""
    gated.gate.clear()
    app = create_app([only(gated)], Settings(max_batch=3))
    opened = threading.Thread(target=lambda: (time.sleep(0.2), gated.gate.set()))
    assert app.state.models.state is State.STARTING
    opened.start()
    with live(app) as running:
        assert gated.gate.is_set()
        assert gated.batch_sizes[:3] == [1, 2, 3]
        assert sum(gated.batch_sizes[3:]) == 3  # those went through the queue
        assert app.state.models.state is State.READY
        assert sample(running.url, "line_ood_ready") == 1
    opened.join()
    assert not app.state.models.is_alive


def test_a_failed_warm_up_does_not_serve(tiny_artifact, caplog):
    """A server whose network fails on a plain batch does not start."""

    class Broken(Scorer):
        def score(self, pixels, *, alone=True, every=False):
            raise RuntimeError("no kernel image")

    plain = Scorer.load(tiny_artifact, torch.device("cpu"))
    app = create_app([only(Broken(plain.classifier, plain.artifact))], Settings())

    async def start_up() -> None:
        async with app.router.lifespan_context(app):
            raise AssertionError("it started")

    with pytest.raises(RuntimeError, match="no kernel image"):
        asyncio.run(start_up())
    assert not app.state.models.is_alive


def test_counts_add_up(start, scorer):
    """Images by decision and images in error are the images sent; requests by code are the requests sent."""
    app = start(scorer)
    for seed in range(7):
        post(app.url, seed=seed)
    files = [("f", ("x", data)) for data in (encode(), b"no", b"")]
    httpx.post(f"{app.url}/v1/predict", files=files)
    httpx.post(f"{app.url}/v1/predict", content=b"no", headers=JPEG)
    for point in ("default", "strict"):
        decisions = [
            sample(app.url, "line_ood_images_total", decision=decision, operating_point=point)
            for decision in ("accept", "reject")
        ]
        assert sum(decisions) == 8
    assert sample(app.url, "line_ood_ood_score_count") == 8
    assert sample(app.url, "line_ood_image_errors_total", reason="unsupported_format") == 2
    assert sample(app.url, "line_ood_image_errors_total", reason="empty_image") == 1
    assert sample(app.url, "line_ood_requests_total", route="/v1/predict", code="200") == 8
    assert sample(app.url, "line_ood_requests_total", route="/v1/predict", code="415") == 1
    assert sample(app.url, "line_ood_refused_requests_total", reason="unsupported_format") == 1
    names = enumerate(scorer.artifact.metadata.classifier.class_names)
    assert (
        sum(sample(app.url, "line_ood_predicted_class_total", class_index=str(k), class_name=n) for k, n in names) == 8
    )
    assert sample(app.url, "line_ood_stage_duration_seconds_count", stage="inference") == 8
    batches = sample(app.url, "line_ood_batch_size_sum")
    assert batches == 8  # the warm-up is not counted


def test_one_log_line_a_request_with_its_id(start, scorer, caplog):
    """The access log is structured and carries the request's id, route, status and duration; failures stand out."""
    caplog.set_level("DEBUG")
    app = start(scorer)
    post(app.url, {"X-Request-ID": "find-me"})

    def lines():
        return [each for each in caplog.records if each.name == "service.access" and each.route == "/v1/predict"]

    until(lines)  # it is written after the answer is sent
    (record,) = lines()
    assert (record.status, record.method, record.levelname) == (200, "POST", "DEBUG")
    assert record.duration_ms > 0
    httpx.post(f"{app.url}/v1/predict", content=b"no image", headers=JPEG)
    until(lambda: len(lines()) == 2)
    assert (lines()[1].status, lines()[1].levelname) == (415, "INFO")


def test_a_hung_device_fails_liveness(start, gated, pool):
    """When a forward pass does not end, the process has to be restarted, and says so."""
    app = start(gated, timeout_s=0.05)
    busy(app, gated, pool)
    until(lambda: httpx.get(f"{app.url}/livez").status_code == 503)
    assert httpx.get(f"{app.url}/readyz").status_code == 503
    gated.gate.set()
    until(lambda: httpx.get(f"{app.url}/livez").status_code == 200)


def test_bodies_are_admitted_like_images(start, scorer, pool):
    """A body that is still arriving holds a place: uploads cannot fill the memory behind the queue's back."""
    app = start(scorer, queue_capacity=1, max_images=1)
    finish = threading.Event()

    def body():
        yield encode()
        assert finish.wait(WAIT_S)

    slow = pool.submit(httpx.post, f"{app.url}/v1/predict", content=body(), headers=JPEG, timeout=WAIT_S)
    until(lambda: sample(app.url, "line_ood_admitted_images") == 1)
    check_problem(post(app.url), 429, "queue_full")
    finish.set()
    assert slow.result().status_code == 200
