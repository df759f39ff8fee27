"""Several models at once, and change without downtime, in an app of this process; requests go through sockets."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
import pytest

from scoring.artifact import Artifact
from scoring.errors import ArtifactError
from scoring.scorer import Scorer
from service.app import create_app
from service.aside import is_any_running
from service.metrics import LOADS, Metrics
from service.model_metrics import ModelMetrics
from service.settings import Settings
from service.shadow import MAX_IMAGES
from service.shadow_metrics import DIFFERENCES
from service.sources import Loaded, Source, load_all
from tests.metrics import sample, samples
from tests.service.conftest import LiveApp, encode, live, only
from tests.service.keys import KEY, key_files
from tests.service.test_pressure import busy
from tests.service.test_routes import check_problem
from tests.service.versions import CPU, DAMAGES, ask, id_of, load, put, relabelled, score_of, states
from tests.waiting import until

Serve = Callable[..., LiveApp]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start an app with models of one's own, that an admin may load; it stops with the test."""
    keys = key_files(tmp_path)
    with ExitStack() as stack:

        def start(*sources: Source, **settings: object) -> LiveApp:
            app = create_app(load_all(sources), Settings(admin_keys=keys["admin_keys"], **settings))
            return stack.enter_context(live(app))

        yield start


def labels_of(url: str, name: str) -> list[dict[str, str]]:
    return [each.labels for each in samples(url) if each.name == name]


def test_two_models_answer_by_name(serve, tiny_artifact, other_artifact):
    """Each scores with its own artifact, which its answer names; without a name the first one is asked."""
    app = serve(Source("a", tiny_artifact), Source("b", other_artifact))
    for model, name, artifact in (("", "a", tiny_artifact), ("a", "a", tiny_artifact), ("b", "b", other_artifact)):
        answer = ask(app.url, 3, model)
        assert answer.json()["model"] == {"name": name, "artifact_id": id_of(artifact)}
        assert answer.headers["x-artifact-id"] == id_of(artifact)
        (result,) = answer.json()["results"]
        assert result["ood"]["score"] == pytest.approx(score_of(artifact, range(3, 4))[3], abs=1e-4)
    assert score_of(tiny_artifact, range(3, 4))[3] != pytest.approx(score_of(other_artifact, range(3, 4))[3], abs=1e-2)
    until(lambda: sample(app.url, "line_ood_images_total", operating_point="default") == 3)
    assert sample(app.url, "line_ood_images_total", model="a", operating_point="default") == 2
    assert sample(app.url, "line_ood_images_total", model="b", operating_point="lenient") == 1
    assert sample(app.url, "line_ood_ood_score_count", model="b") == 1


def test_the_list_of_models(serve, tiny_artifact, other_artifact):
    """Each with what an operator has to know of it; the default first."""
    app = serve(Source("a", tiny_artifact), Source("b", other_artifact))
    a, b = httpx.get(f"{app.url}/v1/models").json()["models"]
    assert (a["name"], a["default"], b["name"], b["default"]) == ("a", True, "b", False)
    for state, artifact in ((a, tiny_artifact), (b, other_artifact)):
        points = Scorer.load(artifact, CPU).artifact.metadata.operating_points
        assert state["artifact_id"] == id_of(artifact)
        assert (state["state"], state["loading"], state["method"]) == ("ready", False, "line")
        assert [(each["name"], each["alpha"], each["threshold"]) for each in state["operating_points"]] == [
            (point.name, point.alpha, point.threshold) for point in points
        ]
        assert abs(datetime.now().astimezone() - datetime.fromisoformat(state["loaded_at"])).total_seconds() < 600


@pytest.mark.parametrize("path", ["predict", "load", "shadow/load"])
def test_an_unknown_model(serve, tiny_artifact, path):
    """404, with the names that there are."""
    app = serve(Source("a", tiny_artifact), Source("b", tiny_artifact))
    problem = check_problem(load(app.url, "c", path), 404, "unknown_model")
    assert problem["detail"] == "no model 'c': there is a, b"


def test_a_load_switches(serve, place, other_artifact):
    """The file is read anew and answers from then on; metrics and the list of models name it, and it alone."""
    app = serve(Source("a", place))
    before = states(app.url)["a"]
    assert ask(app.url, 2).json()["model"]["artifact_id"] == before["artifact_id"]
    put(other_artifact, place)
    answer = load(app.url, "a")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "name": "a",
        "outcome": "switched",
        "artifact_id": id_of(other_artifact),
        "previous": before["artifact_id"],
    }
    after = states(app.url)["a"]
    assert after["artifact_id"] == id_of(other_artifact) and after["loaded_at"] > before["loaded_at"]
    (result,) = ask(app.url, 2).json()["results"]
    assert result["ood"]["score"] == pytest.approx(score_of(other_artifact, range(2, 3))[2], abs=1e-4)
    info = {"artifact_id": id_of(other_artifact), "model": "a", "method": "line"}
    assert labels_of(app.url, "line_ood_artifact_info") == [info]
    points = {labels["operating_point"] for labels in labels_of(app.url, "line_ood_images_total")}
    assert points == {"default", "lenient"}
    assert sample(app.url, "line_ood_loads_total", model="a", outcome="switched") == 1
    assert sample(app.url, "line_ood_images_total", operating_point="default") == 2  # of both versions
    assert sample(app.url, "line_ood_ood_score_count") == 1  # of the new one, on its scale


def test_loading_what_is_served_changes_nothing(serve, place):
    """The same file: 200, which says so, and the very same version goes on."""
    app = serve(Source("a", place))
    before = app.app.state.models["a"]
    answer = load(app.url, "a")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "unchanged")
    assert app.app.state.models["a"] is before
    assert sample(app.url, "line_ood_loads_total", outcome="unchanged") == 1


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_bad_file_is_refused(serve, place, tiny_artifact, other_artifact, damage, reason):
    """422 that says why; the version before answers as before; a good file afterwards is loaded."""
    app = serve(Source("a", place))
    damage(other_artifact, place)
    problem = check_problem(load(app.url, "a"), 422, "load_refused")
    assert reason in problem["detail"]
    answer = ask(app.url)
    assert (answer.status_code, answer.json()["model"]["artifact_id"]) == (200, id_of(tiny_artifact))
    outcomes = {outcome: sample(app.url, "line_ood_loads_total", outcome=outcome) for outcome in LOADS}
    counted = "self_test_failed" if reason == "self-test" else "refused"
    assert outcomes == dict.fromkeys(LOADS, 0) | {counted: 1}
    put(other_artifact, place)
    assert load(app.url, "a").json()["artifact_id"] == id_of(other_artifact)


@pytest.mark.parametrize("error", [MemoryError("cannot allocate 3 GB"), SystemExit("the network's code says exit")])
def test_a_load_that_fails_leaves_the_server_up(serve, place, other_artifact, monkeypatch, caplog, error):
    """Out of memory, or code of the network that ends the process: 500 with the reason, and nothing else happens."""
    app = serve(Source("a", place))
    put(other_artifact, place)

    def fail(source: Source) -> Scorer:
        raise error

    monkeypatch.setattr(Source, "load", fail)
    problem = check_problem(load(app.url, "a"), 500, "load_failed")
    assert str(error) in problem["detail"] and str(error) in caplog.text
    assert ask(app.url).status_code == 200
    assert sample(app.url, "line_ood_loads_total", outcome="failed") == 1
    assert states(app.url)["a"]["loading"] is False


def test_a_version_that_fails_its_warm_up_is_not_switched_to(serve, place, tiny_artifact, other_artifact, monkeypatch):
    """What cannot score plain batches never answers anybody, and its threads are gone."""

    class Broken(Scorer):
        def score(self, pixels, *, alone=True, every=False):
            raise RuntimeError("no kernel image")

    plain = Scorer.load(other_artifact, CPU)
    app = serve(Source("a", place))
    put(other_artifact, place)
    lanes = [each.name for each in threading.enumerate() if each.name.startswith("lane")]
    monkeypatch.setattr(Source, "load", lambda _: Broken(plain.classifier, plain.artifact))
    assert "no kernel image" in check_problem(load(app.url, "a"), 500, "load_failed")["detail"]
    assert ask(app.url).json()["model"]["artifact_id"] == id_of(tiny_artifact)
    until(lambda: [each.name for each in threading.enumerate() if each.name.startswith("lane")] == lanes)


def test_a_version_that_cannot_be_watched_is_not_switched_to(serve, place, tiny_artifact, other_artifact, monkeypatch):
    """The version before answers, and is watched; the new one's threads are gone, and another attempt succeeds."""

    def fail(*_: object) -> None:
        raise ValueError("math domain error")

    app = serve(Source("a", place))
    put(other_artifact, place)
    lanes = [each.name for each in threading.enumerate() if each.name.startswith("lane")]
    with monkeypatch.context() as patch:
        patch.setattr("service.monitoring.monitor.Baseline", fail)
        assert "math domain error" in check_problem(load(app.url, "a"), 500, "load_failed")["detail"]
    assert ask(app.url).json()["model"]["artifact_id"] == id_of(tiny_artifact)
    watched = httpx.get(f"{app.url}/v1/monitor").json()["models"]["a"]
    assert (watched["artifact_id"], watched["streams"]["default"]["images"]) == (id_of(tiny_artifact), 1)
    until(lambda: [each.name for each in threading.enumerate() if each.name.startswith("lane")] == lanes)
    assert load(app.url, "a").json()["outcome"] == "switched"


def test_a_version_that_warms_up_is_known_of_at_the_end(place, other_artifact, monkeypatch, tmp_path):
    """A pass that hangs in its warm-up when the server stops is a thread at work: Python is not torn down under it."""
    has_begun, may_go_on = threading.Event(), threading.Event()

    class Hanging(Scorer):
        def score(self, pixels, *, alone=True, every=False):
            if threading.current_thread().name.startswith("lane"):
                has_begun.set()
                assert may_go_on.wait(30)
            return super().score(pixels, alone=alone, every=every)

    plain = Scorer.load(other_artifact, CPU)
    app = create_app(load_all([Source("a", place)]), Settings(admin_keys=key_files(tmp_path)["admin_keys"]))
    put(other_artifact, place)
    monkeypatch.setattr(Source, "load", lambda _: Hanging(plain.classifier, plain.artifact))
    with ThreadPoolExecutor(1) as pool:
        with live(app) as running:
            pool.submit(load, running.url, "a")
            assert has_begun.wait(30)
        until(lambda: not is_any_running())
        assert not app.state.models.has_ended
        may_go_on.set()
    until(lambda: app.state.models.has_ended)


def hold_up(monkeypatch: pytest.MonkeyPatch, step: str) -> tuple[threading.Event, threading.Event]:
    """Have this step of a `Source` wait: the first event tells that it has begun, the second lets it go."""
    has_begun, may_go_on = threading.Event(), threading.Event()
    plain = getattr(Source, step)

    def wait(source: Source) -> object:
        has_begun.set()
        assert may_go_on.wait(30)
        return plain(source)

    monkeypatch.setattr(Source, step, wait)
    return has_begun, may_go_on


def test_one_load_of_a_model_at_a_time(serve, place, tiny_artifact, other_artifact, monkeypatch):
    """409 while the model is being loaded; requests are answered meanwhile, by the version before."""
    app = serve(Source("a", place))
    put(other_artifact, place)
    is_loading, may_load = hold_up(monkeypatch, "load")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(load, app.url, "a")
        assert is_loading.wait(30)
        assert states(app.url)["a"]["loading"] is True
        check_problem(load(app.url, "a"), 409, "load_under_way")
        assert ask(app.url).json()["model"]["artifact_id"] == id_of(tiny_artifact)
        may_load.set()
        assert first.result().json()["outcome"] == "switched"


def test_a_load_that_hangs_keeps_no_other_waiting(serve, place, tiny_artifact, monkeypatch, caplog):
    """Another model's load is refused after a while, which says why; the log tells of the load that goes on."""
    monkeypatch.setattr("service.models.TURN_S", 0.3)
    monkeypatch.setattr("service.loads.SLOW_S", 0.1)
    app = serve(Source("a", place), Source("b", tiny_artifact))
    is_loading, may_load = hold_up(monkeypatch, "artifact_id")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(load, app.url, "a")
        assert is_loading.wait(30)
        problem = check_problem(load(app.url, "b"), 409, "load_under_way")
        assert problem["detail"] == "'b' waits for another model that is being loaded"
        assert states(app.url)["b"]["loading"] is False
        until(lambda: any("loading model a still goes on" in message for message in caplog.messages))
        may_load.set()
        assert first.result().json()["outcome"] == "unchanged"
        assert load(app.url, "b").status_code == 200


def test_the_last_images_of_an_old_version_leave_no_series(tiny_artifact):
    """A class that it sees for the first time when the new one answers, and that is called otherwise there."""
    artifact = Artifact.load(tiny_artifact)
    names = [f"new {name}" for name in artifact.metadata.classifier.class_names[:-1]]
    names.append(artifact.metadata.classifier.class_names[-1])
    classifier = artifact.metadata.classifier.model_copy(update={"class_names": names})
    renamed = dataclasses.replace(artifact, metadata=artifact.metadata.model_copy(update={"classifier": classifier}))
    families = Metrics(max_batch=4).of_models
    old, new = (ModelMetrics(families, "m", each) for each in (artifact, renamed))
    old.expose()
    old.image_scored(0.0, 1)
    new.expose(old)
    for index in range(len(names)):
        old.image_scored(0.0, index)
    (family,) = families.classes.collect()
    seen = [each.labels["class_name"] for each in family.samples if each.name.endswith("_total")]
    assert seen == names[-1:]


def test_admitted_images_are_answered_by_the_version_that_admitted_them(place, other_artifact, gated, tmp_path):
    """Who was let in before the switch waits for the old version, later ones do not; then the old one is gone."""
    app = create_app([only(gated, place)], Settings(admin_keys=key_files(tmp_path)["admin_keys"]))
    old_id, old = gated.artifact.artifact_id, weakref.ref(app.state.models.default.pipeline)
    with live(app) as running, ThreadPoolExecutor(4) as pool:
        waiting = [busy(running, gated, pool), pool.submit(ask, running.url)]
        until(lambda: sample(running.url, "line_ood_admitted_images") == 2)
        put(other_artifact, place)
        assert load(running.url, "tiny").json()["outcome"] == "switched"
        assert ask(running.url).json()["model"]["artifact_id"] == id_of(other_artifact)
        assert sample(running.url, "line_ood_admitted_images") == 2
        assert not any(answer.done() for answer in waiting)
        gated.gate.set()
        answers = [answer.result() for answer in waiting]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert {answer.json()["model"]["artifact_id"] for answer in answers} == {old_id}
        assert {answer.headers["x-artifact-id"] for answer in answers} == {old_id}
        until(lambda: old() is None)


def test_loading_needs_the_admin_key(serve, place, other_artifact, tmp_path):
    """Without it nothing is read: a client's is 403, none that is known 401; where there are no admin keys, 403."""
    closed = serve(Source("a", place), shadow_share=1, api_keys=key_files(tmp_path)["api_keys"])
    before = closed.app.state.models["a"]
    put(other_artifact, place)
    for what in ("load", "shadow/load"):
        check_problem(load(closed.url, "a", what, KEY), 403, "forbidden")
        check_problem(load(closed.url, "a", what, "wrong"), 401, "key_unknown")
        check_problem(httpx.post(f"{closed.url}/v1/models/a/{what}"), 401, "key_missing")
    assert closed.app.state.models["a"] is before
    with live(create_app(load_all([Source("a", place)]), Settings())) as open_to_all:
        check_problem(load(open_to_all.url, "a"), 403, "forbidden")


def test_one_model_that_is_not_ready_makes_the_server_not_ready(serve, tiny_artifact):
    """Readiness and liveness are of all models, and say which one is missing."""
    app = serve(Source("a", tiny_artifact), Source("b", tiny_artifact))
    app.app.state.models["b"].pipeline.abandon()
    until(lambda: httpx.get(f"{app.url}/livez").status_code == 503)
    ready = httpx.get(f"{app.url}/readyz")
    assert ready.status_code == 503 and ready.json()["detail"].startswith("b: ")
    assert sample(app.url, "line_ood_ready") == 0
    assert states(app.url)["b"]["state"] == "dead"
    assert ask(app.url, model="a").status_code == 200


def standing(scorer: Scorer, score: float) -> float:
    low, middle, high = np.quantile(scorer.artifact.calibration_scores, (0.05, 0.5, 0.95))
    return (score - middle) / (high - low)


def test_a_shadow_counts_what_both_say(serve, tiny_artifact, other_artifact):
    """Decisions of both, at the operating points that both have, are those of the two artifacts asked one by one."""
    app = serve(Source("a", tiny_artifact, shadow=other_artifact), shadow_share=1)
    seeds = range(40)
    for seed in seeds:
        assert ask(app.url, seed).json()["model"]["artifact_id"] == id_of(tiny_artifact)
    until(lambda: states(app.url)["a"]["shadow"]["scored"] == len(seeds))
    scorers = [Scorer.load(path, CPU) for path in (tiny_artifact, other_artifact)]
    scores = [score_of(path, seeds) for path in (tiny_artifact, other_artifact)]
    thresholds = [scorer.artifact.operating_points["default"].threshold for scorer in scorers]
    names = ("accept", "reject")
    wanted = Counter(tuple(names[scores[i][seed] > thresholds[i]] for i in (0, 1)) for seed in seeds)
    assert len(wanted) > 1, "the two should disagree about some"
    state = states(app.url)["a"]["shadow"]
    assert (state["artifact_id"], state["dropped"], state["failed"]) == (id_of(other_artifact), 0, 0)
    assert {(each["served"], each["shadow"]): each["images"] for each in state["decisions"]} == {
        pair: wanted[pair] for pair in itertools.product(names, names)
    }
    assert {each["operating_point"] for each in state["decisions"]} == {"default"}
    for served, shadow in itertools.product(names, names):
        counted = sample(app.url, "line_ood_shadow_decisions_total", model="a", served=served, shadow=shadow)
        assert counted == wanted[served, shadow]
    assert state["class_disagreements"] == sample(app.url, "line_ood_shadow_class_disagreements_total") == 0
    assert sample(app.url, "line_ood_shadow_images_total", outcome="scored") == len(seeds)
    assert sample(app.url, "line_ood_shadow_score_difference_count") == len(seeds)
    differences = [standing(scorers[1], scores[1][seed]) - standing(scorers[0], scores[0][seed]) for seed in seeds]
    for bound in DIFFERENCES:
        counted = sample(app.url, "line_ood_shadow_score_difference_bucket", le=str(float(bound)))
        assert sum(each <= bound - 1e-3 for each in differences) <= counted  # scores differ by rounding
        assert sum(each <= bound + 1e-3 for each in differences) >= counted
    # What answers is counted as if there were no shadow.
    assert sample(app.url, "line_ood_images_total", operating_point="default") == len(seeds)
    assert sample(app.url, "line_ood_images_total", operating_point="default", decision="reject") == sum(
        count for (served, _), count in wanted.items() if served == "reject"
    )


def test_a_shadow_that_is_behind_delays_nobody(tiny_artifact, gated):
    """Answers come though the shadow hangs; what does not fit into its short queue is dropped, and counted."""
    source = Source("a", tiny_artifact, shadow=tiny_artifact)
    app = create_app([Loaded(source, Scorer.load(tiny_artifact, CPU), gated)], Settings(shadow_share=1))
    with live(app) as running:
        gated.gate.clear()
        sent = MAX_IMAGES + 11
        with httpx.Client(base_url=running.url) as client:
            for seed in range(sent):
                assert client.post("/v1/predict", content=encode(seed)).status_code == 200
        until(lambda: sample(running.url, "line_ood_shadow_images_total", outcome="dropped") == 10)
        gated.gate.set()
        until(lambda: sample(running.url, "line_ood_shadow_images_total", outcome="scored") == sent - 10)


@pytest.mark.parametrize("error", [RuntimeError("no kernel image"), SystemExit("the network's code says exit")])
def test_a_shadow_that_fails_is_counted_and_told_once(tiny_artifact, gated, monkeypatch, caplog, error):
    """On every image: answers are what they would be without it, and the log has one line of it, not one an image."""

    def fail(*_: object, **__: object) -> None:
        raise error

    source, seeds = Source("a", tiny_artifact, shadow=tiny_artifact), range(20)
    app = create_app([Loaded(source, Scorer.load(tiny_artifact, CPU), gated)], Settings(shadow_share=1))
    with live(app) as running:
        monkeypatch.setattr(gated, "score", fail)  # after its warm-up
        for seed, score in score_of(tiny_artifact, seeds).items():
            (result,) = ask(running.url, seed).json()["results"]
            assert result["ood"]["score"] == pytest.approx(score, abs=1e-4)
        until(lambda: sample(running.url, "line_ood_shadow_images_total", outcome="failed") == len(seeds))
        assert [message for message in caplog.messages if "the shadow" in message] == [
            "the shadow of a fails on images"
        ]
        monkeypatch.undo()
        ask(running.url)
        until(lambda: sample(running.url, "line_ood_shadow_images_total", outcome="scored") == 1)


def test_a_shadow_takes_its_share(serve, tiny_artifact):
    """About as many images as asked for, by lot: within five standard deviations."""
    app = serve(Source("a", tiny_artifact, shadow=tiny_artifact), shadow_share=0.25)
    files = [("f", ("x", encode()))] * 50
    with httpx.Client(base_url=app.url) as client:
        for _ in range(8):
            assert client.post("/v1/predict", files=files).status_code == 200
    until(lambda: sample(app.url, "line_ood_images_total", operating_point="default") == 400)
    until(lambda: states(app.url)["a"]["shadow"]["waiting"] == 0)
    offered = sum(states(app.url)["a"]["shadow"][outcome] for outcome in ("scored", "dropped", "failed"))
    assert abs(offered - 100) <= 5 * (400 * 0.25 * 0.75) ** 0.5 + 1  # one may be on the device


def test_a_shadow_is_loaded_anew(serve, place, tiny_artifact, other_artifact):
    """Its comparison begins anew, and what is refused leaves the one before; the model that answers is not touched."""
    app = serve(Source("a", tiny_artifact, shadow=place), shadow_share=1)
    before = app.app.state.models["a"]
    ask(app.url)
    until(lambda: states(app.url)["a"]["shadow"]["scored"] == 1)

    def points() -> set[str]:
        return {labels["operating_point"] for labels in labels_of(app.url, "line_ood_shadow_decisions_total")}

    assert points() == {"default", "strict"}
    put(other_artifact, place)
    answer = load(app.url, "a", "shadow/load").json()
    assert (answer["outcome"], answer["artifact_id"]) == ("switched", id_of(other_artifact))
    assert states(app.url)["a"]["shadow"]["scored"] == 0
    assert points() == {"default"}  # of which both versions have a threshold
    assert [each["artifact_id"] for each in labels_of(app.url, "line_ood_shadow_artifact_info")] == [
        id_of(other_artifact)
    ]
    place.write_bytes(b"no artifact")
    check_problem(load(app.url, "a", "shadow/load"), 422, "load_refused")
    ask(app.url)
    until(lambda: states(app.url)["a"]["shadow"]["scored"] == 1)
    assert app.app.state.models["a"] is before
    assert sample(app.url, "line_ood_shadow_loads_total", outcome="refused") == 1
    assert sample(app.url, "line_ood_loads_total") == 0


def test_a_shadow_follows_the_version_that_answers(serve, place, tiny_artifact, other_artifact):
    """After a switch it is compared with the new version, from zero."""
    app = serve(Source("a", place, shadow=tiny_artifact), shadow_share=1)
    ask(app.url)
    until(lambda: states(app.url)["a"]["shadow"]["scored"] == 1)
    put(other_artifact, place)
    load(app.url, "a")
    assert states(app.url)["a"]["shadow"]["scored"] == 0
    seed = 5
    ask(app.url, seed)
    until(lambda: states(app.url)["a"]["shadow"]["scored"] == 1)
    threshold = Scorer.load(other_artifact, CPU).artifact.operating_points["default"].threshold
    rejected = score_of(other_artifact, range(seed, seed + 1))[seed] > threshold
    (one,) = [each for each in states(app.url)["a"]["shadow"]["decisions"] if each["images"]]
    assert (one["served"] == "reject") is bool(rejected)


def test_a_model_without_a_shadow_has_none_to_load(serve, tiny_artifact):
    """404, and the list of models does not tell of one."""
    app = serve(Source("a", tiny_artifact))
    check_problem(load(app.url, "a", "shadow/load"), 404, "unknown_model")
    assert "shadow" not in states(app.url)["a"]


def test_the_id_is_of_the_bytes_that_were_read(tiny_artifact, other_artifact, tmp_path, monkeypatch):
    """An artifact that is replaced while it is loaded is the old one or the new one, in its scores and in its name."""
    place = tmp_path / "x.safetensors"
    put(tiny_artifact, place)
    read_bytes = Path.read_bytes

    def read_and_replace(path: Path) -> bytes:
        content = read_bytes(path)
        put(other_artifact, place)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_replace)
    scorer = Source("a", place).load()
    monkeypatch.undo()
    assert scorer.artifact.artifact_id == id_of(tiny_artifact)
    assert list(scorer.artifact.operating_points) == ["default", "strict"]
    with pytest.raises(ArtifactError):
        Source("a", tmp_path / "none").artifact_id()


def test_relabelling_changes_the_id_alone(tiny_artifact, tmp_path):
    """What the tests of many loads rely on."""
    twin = relabelled(tiny_artifact, tmp_path / "twin.safetensors")
    assert id_of(twin) != id_of(tiny_artifact)
    assert score_of(twin, range(2)) == score_of(tiny_artifact, range(2))
