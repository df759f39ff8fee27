"""Several models, thresholds by class, both protocols, monitoring, capture in one app: what they say of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from scoring.scorer import Scorer
from service.app import create_app
from service.settings import Settings
from service.sources import Source, load_all
from tests.service.capture.making import side_files
from tests.service.conftest import LiveApp, live
from tests.service.keys import key_files
from tests.service.open_inference.test_routes import columns, json_body
from tests.service.versions import ask, id_of, load, put
from tests.waiting import until

POINTS = ("default", "strict")


@pytest.fixture
def app(tiny_artifact: Path, by_class: Path, tmp_path: Path) -> Iterator[LiveApp]:
    """A model with one threshold, and one with thresholds by class; every image is kept."""
    sources = [Source("one", tiny_artifact), Source("each", by_class)]
    settings = Settings(capture=str(tmp_path), capture_random=1.0, capture_per_minute=60_000)
    with live(create_app(load_all(sources), settings)) as running:
        yield running


def infer(url: str, model: str, data: list[bytes], stream: str) -> dict[str, list]:
    body = json_body(data, parameters={"operating_point": "strict"})
    answer = httpx.post(f"{url}/v2/models/{model}/infer", json=body, headers={"X-Stream-ID": stream}, timeout=30)
    assert answer.status_code == 200, answer.text
    return columns(answer)


def test_each_model_is_watched_and_kept_by_its_own_thresholds(
    app: LiveApp,
    by_class: Path,
    images: list[bytes],
    tmp_path: Path,
) -> None:
    """Monitor and side files tell, of each model, its name, its artifact, and the decisions that its answers had."""
    scorer = Scorer.load(by_class, torch.device("cpu"))
    found = infer(app.url, "each", images, "front")
    assert ask(app.url, 1).status_code == 200
    decisions = {
        name: [scorer.decide(score, point).reject for score in _scores(scorer, images)]
        for name, point in scorer.artifact.operating_points.items()
    }
    assert found["reject"] == decisions["strict"] != decisions["default"]
    models = httpx.get(f"{app.url}/v1/monitor").json()["models"]
    assert {name: list(model["streams"]) for name, model in models.items()} == {
        "one": ["default"],
        "each": ["default", "front"],
    }
    assert models["each"]["artifact_id"] == id_of(by_class) != models["one"]["artifact_id"]
    window = models["each"]["streams"]["front"]["windows"]["images"]
    for point in POINTS:
        assert window["rejects"][point]["ratio"] == sum(decisions[point]) / len(images)
    kept = until(lambda: len(files := side_files(tmp_path)) == len(images) + 1 and files)
    of_model = sorted((each for each in kept if each["model"] == "each"), key=lambda each: each["image_index"])
    assert [each["image"] for each in of_model] == images
    assert [each["class_index"] for each in of_model] == found["class_index"]
    thresholds = [
        scorer.decide(s, scorer.artifact.operating_points["strict"]).threshold for s in _scores(scorer, images)
    ]
    assert [each["threshold"] for each in of_model] == thresholds
    assert [each["reason"] == "reject" for each in of_model] == decisions["strict"]
    assert {(each["artifact_id"], each["stream_id"]) for each in of_model} == {(id_of(by_class), "front")}


def test_a_switch_is_a_new_start_for_the_monitor_and_a_new_name_for_what_is_kept(
    place: Path, other_artifact: Path, tmp_path: Path
) -> None:
    """Evidence against one calibration is none against the next; side files name the artifact that answered."""
    kept = tmp_path / "kept"
    settings = Settings(
        capture=str(kept), capture_random=1.0, capture_per_minute=60_000, admin_keys=key_files(tmp_path)["admin_keys"]
    )
    old, new = id_of(place), id_of(other_artifact)
    with live(create_app(load_all([Source("tiny", place)]), settings)) as app:
        assert [ask(app.url, seed).status_code for seed in range(3)] == [200] * 3
        put(other_artifact, place)
        assert load(app.url, "tiny").json()["outcome"] == "switched"
        assert [ask(app.url, seed).status_code for seed in range(3, 5)] == [200] * 2
        report = httpx.get(f"{app.url}/v1/monitor").json()["models"]["tiny"]
        assert report["artifact_id"] == new
        assert report["streams"]["default"]["images"] == 2
        assert set(report["streams"]["default"]["drift"]) == {"default", "lenient"}
        files = until(lambda: len(files := side_files(kept)) == 5 and files)
    assert sorted(each["artifact_id"] for each in files) == sorted([old] * 3 + [new] * 2)


def _scores(scorer: Scorer, images: list[bytes]) -> list:
    return [scorer.score(scorer.classifier.preprocess.read(data)[None])[0] for data in images]
