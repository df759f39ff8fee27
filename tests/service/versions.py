"""What the tests of several models and of their change share: two artifacts of one network, and files that are bad."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import torch

from scoring.artifact import Artifact
from scoring.scorer import Scorer
from tests.service.conftest import encode
from tests.service.keys import ADMIN, bearer

JPEG = {"Content-Type": "image/jpeg"}
CPU = torch.device("cpu")


def put(artifact: Path, place: Path) -> None:
    """Replace a file as an operator does: at once."""
    new = place.with_suffix(".new")
    shutil.copy(artifact, new)
    new.replace(place)


def garbage(good: Path, target: Path) -> None:
    target.write_bytes(bytes(range(256)) * 100)


def torn(good: Path, target: Path) -> None:
    content = good.read_bytes()
    target.write_bytes(content[: len(content) // 2])


def missing(good: Path, target: Path) -> None:
    target.unlink()


def of_other_weights(good: Path, target: Path) -> None:
    artifact = Artifact.load(good)
    digests = artifact.metadata.digests.model_copy(update={"weights": "0" * 64})
    dataclasses.replace(artifact, metadata=artifact.metadata.model_copy(update={"digests": digests})).save(target)


def of_other_scores(good: Path, target: Path) -> None:
    artifact = Artifact.load(good)
    probes = {name: scores + 1e3 for name, scores in artifact.probes.items()}
    dataclasses.replace(artifact, probes=probes).save(target)


Damage = Callable[[Path, Path], None]
DAMAGES: list[tuple[Damage, str]] = [
    (garbage, "safetensors"),
    (torn, "safetensors"),
    (missing, "a readable file"),
    (of_other_weights, "digests.weights"),
    (of_other_scores, "self-test"),
]


def relabelled(good: Path, target: Path) -> Path:
    """The same artifact, but for the command that it names: another file, another id, the same scores."""
    artifact = Artifact.load(good)
    provenance = artifact.metadata.provenance.model_copy(update={"command": "another"})
    dataclasses.replace(artifact, metadata=artifact.metadata.model_copy(update={"provenance": provenance})).save(target)
    return target


def id_of(artifact: Path) -> str:
    return Artifact.load(artifact).artifact_id


def score_of(artifact: Path, seeds: range) -> dict[int, float]:
    """What an artifact says of pictures by their seed, one by one."""
    scorer = Scorer.load(artifact, CPU)
    read = scorer.classifier.preprocess.read
    return {seed: scorer.score(read(encode(seed))[None])[0].ood_score for seed in seeds}


def ask(url: str, seed: int = 0, model: str = "") -> httpx.Response:
    path = f"/v1/models/{model}/predict" if model else "/v1/predict"
    return httpx.post(f"{url}{path}", content=encode(seed), headers=JPEG, timeout=30)


def load(url: str, model: str, what: str = "load", key: str = ADMIN) -> httpx.Response:
    return httpx.post(f"{url}/v1/models/{model}/{what}", headers=bearer(key), timeout=60)


def states(url: str) -> dict[str, dict]:
    return {each["name"]: each for each in httpx.get(f"{url}/v1/models").json()["models"]}
