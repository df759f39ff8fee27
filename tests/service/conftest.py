"""A real app on a real port, around the tiny network; requests go through sockets."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image

from calibration.settings import LineSettings
from scoring.scorer import Scorer
from service.app import create_app
from service.server import listen, make_server, url_of
from service.settings import Settings
from service.sources import Loaded, Source, name_of
from tests.artifacts import calibrate_tiny

FINE = f"{Path(__file__).parents[1] / 'calibration' / 'networks.py'}:fine"


def only(scorer: Scorer, artifact: Path = Path("nowhere")) -> Loaded:
    """A scorer as the only model, which can be loaded anew where its file is named."""
    return Loaded(Source(name_of(scorer), artifact), scorer)


@dataclass(frozen=True)
class LiveApp:
    """An app that serves in a thread of this process."""

    url: str
    app: FastAPI


@contextmanager
def live(app: FastAPI, **bounds: float) -> Iterator[LiveApp]:
    """Serve as `line-ood serve` does, but for signals; `bounds` are other times than the server's own."""
    listener = listen("127.0.0.1", 0)
    server = make_server(app, app.state.settings, **bounds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the app did not start"
            time.sleep(0.01)
        yield LiveApp(url_of(listener), app)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrate_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def other_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with other masks, other scores and another operating point."""
    folder = tmp_path_factory.mktemp("other")
    return calibrate_tiny(folder, LineSettings(p_a=60, p_w=60, clip_quantile=0.5), {"default": 0.3, "lenient": 0.4})


@pytest.fixture(scope="session")
def by_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose predictions differ, with a class that stands alone from 19 images on."""
    return calibrate_tiny(
        tmp_path_factory.mktemp("by_class"), alphas={"default": 0.2, "strict": 0.1}, spec=FINE, per_class=True
    )


@pytest.fixture
def images(by_class: Path) -> list[bytes]:
    """Some of the images of the calibration, which are predicted as classes alone and pooled, and not all rejected."""
    return [path.read_bytes() for path in sorted((by_class.parent / "images").rglob("*.png"))[::5]]


@pytest.fixture
def place(tiny_artifact: Path, tmp_path: Path) -> Path:
    """A file that holds the tiny artifact, and may be replaced."""
    return Path(shutil.copy(tiny_artifact, tmp_path / "served.safetensors"))


@pytest.fixture
def scorer(tiny_artifact: Path) -> Scorer:
    return Scorer.load(tiny_artifact, torch.device("cpu"))


@pytest.fixture
def start() -> Iterator[Callable[..., LiveApp]]:
    """Start an app with settings of one's own; it stops with the test."""
    with ExitStack() as stack:

        def start_app(scorer: Scorer, **settings: object) -> LiveApp:
            return stack.enter_context(live(create_app([only(scorer)], Settings(**settings))))

        yield start_app


@pytest.fixture
def client(start: Callable[..., LiveApp], scorer: Scorer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=start(scorer).url, timeout=30) as client:
        yield client


def encode(seed: int = 0, form: str = "PNG", size: tuple[int, int] = (20, 24)) -> bytes:
    """A small picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


class GatedScorer(Scorer):
    """Scores only while its gate is open, so that tests decide when the device is free."""

    gate: threading.Event
    batch_sizes: list[int]

    def score(self, pixels, *, alone=True, every=False):
        self.batch_sizes.append(len(pixels))
        assert self.gate.wait(30)
        return super().score(pixels, alone=alone, every=every)


@pytest.fixture
def gated(tiny_artifact: Path) -> Iterator[GatedScorer]:
    plain = Scorer.load(tiny_artifact, torch.device("cpu"))
    gated = GatedScorer(plain.classifier, plain.artifact)
    gated.gate, gated.batch_sizes = threading.Event(), []
    gated.gate.set()
    yield gated
    gated.gate.set()
