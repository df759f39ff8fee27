"""A live app that captures: bounds hold, and no trouble of the target reaches a request."""

from __future__ import annotations

import base64
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import httpx
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from scoring.errors import LineOodError
from scoring.scorer import Scorer
from service.app import create_app
from service.settings import Settings
from tests.absent import absent
from tests.metrics import samples
from tests.service.capture.making import side_files
from tests.service.conftest import LiveApp, encode, live, only
from tests.waiting import until

ALL = {"capture_random": 1.0, "capture_per_minute": 60_000}  # every image is kept, rejected or not
PNG = {"Content-Type": "image/png"}


def post(url: str, data: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/predict", content=data, headers=PNG | headers, timeout=30)


def measured(url: str) -> dict[str, float]:
    """The samples of the capture, by name and the reason they have, if any."""
    return {
        " ".join([each.name.removeprefix("line_ood_"), *filter(None, [each.labels.get("reason")])]): each.value
        for each in samples(url)
        if each.name.startswith("line_ood_captur") and not each.name.endswith("_created")
    }


def kept(url: str) -> float:
    return sum(value for name, value in measured(url).items() if name.startswith("captured_images_total"))


def test_nothing_is_kept_unless_asked(start: Callable[..., LiveApp], scorer: Scorer):
    """Without --capture there is no thread for it, and no metric of it."""
    app = start(scorer)
    assert post(app.url, encode()).status_code == 200
    assert measured(app.url) == {}
    assert "capture" not in {thread.name for thread in threading.enumerate()}


def test_an_image_in_base64_is_kept_as_it_was(start, scorer, tmp_path):
    """Not as it was wrapped."""
    app = start(scorer, capture=str(tmp_path), **ALL)
    body = {"instances": [{"b64": base64.b64encode(encode(3)).decode()}]}
    assert httpx.post(f"{app.url}/v1/predict", json=body, timeout=30).status_code == 200
    until(lambda: kept(app.url) == 1)
    assert [each["image"] for each in side_files(tmp_path)] == [encode(3)]


def test_images_without_a_score_are_not_kept(start, scorer, tmp_path):
    """Of several images those that failed are passed over; a place in the request stays a place."""
    app = start(scorer, capture=str(tmp_path), **ALL)
    form = [("file", ("x", data)) for data in (b"no image", encode(1), encode(2)[:100], encode(3))]
    assert httpx.post(f"{app.url}/v1/predict", files=form, timeout=30).status_code == 200
    until(lambda: kept(app.url) == 2)
    assert [(each["image_index"], each["image"]) for each in side_files(tmp_path)] == [(1, encode(1)), (3, encode(3))]


def test_every_count_begins_at_zero(start, scorer, tmp_path):
    """A rate needs two values: all series are there before anything happens."""
    app = start(scorer, capture=str(tmp_path))
    assert measured(app.url) == {
        **{f"captured_images_total {reason}": 0 for reason in ("reject", "borderline", "random")},
        **{
            f"capture_dropped_total {reason}": 0
            for reason in ("rate_limit", "queue_full", "duplicate", "too_large", "stopping")
        },
        "capture_failures_total": 0,
        "capture_bytes": 0,
    }


def test_the_rate_limit_holds(start, scorer, tmp_path):
    """60 a minute: ten at once and one a second; what is above is dropped and counted, and answered like the others."""
    app = start(scorer, capture=str(tmp_path), capture_random=1.0, capture_per_minute=60)
    started = time.monotonic()
    with httpx.Client(base_url=app.url, timeout=30) as client:
        answers = [client.post("/v1/predict", content=encode(seed), headers=PNG) for seed in range(60)]
        seconds = time.monotonic() - started
    assert {answer.status_code for answer in answers} == {200}
    found = until(lambda: (now := measured(app.url)) and sum(now.values()) - now["capture_bytes"] == 60 and now)
    assert 10 <= len(side_files(tmp_path)) <= 10 + seconds + 1
    assert found["capture_dropped_total rate_limit"] == 60 - len(side_files(tmp_path))


def test_a_target_that_goes_away_and_comes_back(start, scorer, tmp_path):
    """Requests are answered all the while; what failed is counted, and the first image afterwards is kept."""
    folder, aside = tmp_path / "captures", tmp_path / "aside"
    app = start(scorer, capture=str(folder), **ALL)
    assert post(app.url, encode(0)).status_code == 200
    until(lambda: kept(app.url) == 1)
    folder.rename(aside)
    folder.write_text("in the way")
    assert [post(app.url, encode(seed)).status_code for seed in (1, 2, 3)] == [200] * 3
    until(lambda: measured(app.url)["capture_failures_total"] >= 3)
    assert httpx.get(f"{app.url}/readyz").status_code == 200
    folder.unlink()
    aside.rename(folder)
    assert post(app.url, encode(4)).status_code == 200
    until(lambda: kept(app.url) == 2)
    assert [each["image"] for each in side_files(folder)] == [encode(0), encode(4)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        absent("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(start, scorer, small_disk):
    """A cap above what the disk holds: nothing half-written is left, requests are answered, and space is used again."""
    app = start(scorer, capture=str(small_disk), **ALL)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(48 * 1024))
    statuses = [post(app.url, encode(seed)).status_code for seed in range(10)]
    until(lambda: kept(app.url) + measured(app.url)["capture_failures_total"] == 10)
    assert statuses == [200] * 10
    assert 0 < kept(app.url) < 10
    files = [path for path in small_disk.rglob("*") if path.is_file() and path != ballast]
    assert len(files) == 2 * len(side_files(small_disk)) == 2 * kept(app.url)
    before = kept(app.url)
    ballast.unlink()
    assert post(app.url, encode(10)).status_code == 200
    until(lambda: kept(app.url) == before + 1)
    assert side_files(small_disk)[-1]["image"] == encode(10)


class Slow(MemoryFileSystem):
    """Takes a second for each file."""

    protocol = "memory"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        time.sleep(1)
        super().pipe_file(path, value, mode, **kwargs)


def seconds_of_requests(app: LiveApp, count: int) -> list[float]:
    """So long each of them took, with four clients."""
    images = [encode(seed) for seed in range(count)]
    with httpx.Client(base_url=app.url, timeout=30) as client, ThreadPoolExecutor(4) as pool:

        def ask(image: bytes) -> float:
            started = time.monotonic()
            assert client.post("/v1/predict", content=image, headers=PNG).status_code == 200
            return time.monotonic() - started

        return list(pool.map(ask, images))


def test_a_slow_target_slows_no_answer(start, scorer):
    """Far more images are chosen than can be written: they are dropped, the memory is bounded, answers come as fast."""
    fsspec.register_implementation("slow", Slow, clobber=True)
    off = start(scorer)
    on = start(scorer, capture="slow://captures", capture_queue_bytes=20_000, **ALL)
    rounds = [(seconds_of_requests(off, 150), seconds_of_requests(on, 150)) for _ in range(3)]
    ratio = statistics.median(statistics.median(with_) / statistics.median(without) for without, with_ in rounds)
    assert ratio < 2
    found = measured(on.url)
    assert found["capture_dropped_total queue_full"] > 300
    assert found["capture_failures_total"] == 0


def test_a_target_that_hangs_does_not_keep_the_server_from_ending(scorer):
    """What was not written by then is counted as dropped."""
    fsspec.register_implementation("slow", Slow, clobber=True)
    app = create_app([only(scorer)], Settings(capture="slow://hanging", **ALL))
    with live(app) as running:
        assert [post(running.url, encode(seed)).status_code for seed in range(5)] == [200] * 5
        started = time.monotonic()
    assert time.monotonic() - started < 4
    assert app.state.metrics.registry.get_sample_value("line_ood_capture_dropped_total", {"reason": "stopping"}) >= 3
    until(lambda: app.state.capture.has_ended)


def test_a_wrong_url_is_refused_before_anything_is_served(scorer, tmp_path):
    """The message names the flag and what is wrong with it."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LineOodError, match=r"--capture: nothing can be written at .*file"):
        create_app([only(scorer)], Settings(capture=str(tmp_path / "file")))
