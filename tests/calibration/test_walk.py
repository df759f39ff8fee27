"""Files through a classifier: in order whatever the lanes, and the record true at every batch."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from calibration.loader import CPU_BATCH_SIZE as BATCH_SIZE
from calibration.loader import GPU_BATCH_SIZE, batch_size_on
from calibration.walk import Pass, walk
from scoring.classifier import Classifier, load_classifier
from scoring.errors import DatasetError
from scoring.types import Features, PixelBatch
from tests.calibration.pictures import NOT_AN_IMAGE, write_picture
from tests.factories.tiny import tiny


class Lanes:
    """A real engine that takes several batches side by side, the first ones the longest, and remembers how."""

    def __init__(self, classifier: Classifier, lanes: int) -> None:
        self.lanes = lanes
        self.engine = classifier.engine
        self.lock = threading.Lock()
        self.running = self.most = self.calls = 0
        self.alone: set[bool] = set()

    def features(self, pixels: PixelBatch, *, alone: bool) -> Features:
        with self.lock:
            self.alone.add(alone)
            self.running += 1
            self.calls += 1
            self.most = max(self.most, self.running)
            share = 1 / self.calls
        time.sleep(0.1 * share)
        with self.lock:
            self.running -= 1
            return self.engine.features(pixels, alone=alone)


@pytest.fixture
def classifier() -> Classifier:
    return load_classifier(tiny(), torch.device("cpu"))


def pictures(folder: Path, count: int) -> list[Path]:
    return [write_picture(folder / f"{i:03}.png") for i in range(count)]


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_order(tmp_path: Path, classifier: Classifier, lanes: int) -> None:
    """Answers come in the order of the files, each of its own images, with as many batches side by side as lanes."""
    engine = classifier.engine = Lanes(classifier, lanes)
    paths = pictures(tmp_path, 9 * BATCH_SIZE + 3)
    pixels = torch.stack([classifier.preprocess.read(path.read_bytes()) for path in paths])
    wanted = torch.cat([engine.engine.features(some, alone=True) for some in pixels.split(BATCH_SIZE)])
    indices, features = zip(*walk(paths, classifier, lambda features: features, "title", Pass()), strict=True)
    assert [index for some in indices for index in some] == list(range(len(paths)))
    assert torch.equal(torch.cat(features), wanted)
    assert engine.most == lanes
    assert engine.alone == {lanes == 1}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("forward", "decode"))]


def test_the_work_is_not_in_this_thread(tmp_path: Path, classifier: Classifier) -> None:
    """What is made of the features is made where they are, beside the next batch; here is only what is in order."""
    names = {
        name
        for _, name in walk(
            pictures(tmp_path, 3), classifier, lambda _: threading.current_thread().name, "title", Pass()
        )
    }
    assert names == {"forward_0"}


def test_record(tmp_path: Path, classifier: Classifier) -> None:
    """The record says, at each batch, what is behind it, this batch included and those that run ahead left out."""
    classifier.engine = Lanes(classifier, 3)
    paths = pictures(tmp_path, 3 * BATCH_SIZE + 2)
    bad = [paths[1], *paths[BATCH_SIZE : 2 * BATCH_SIZE], paths[-1]]
    for path in bad:
        path.write_bytes(NOT_AN_IMAGE)
    record, met = Pass(), []
    for indices, count in walk(paths, classifier, len, "title", record):
        assert len(indices) == count
        met.append((indices[0], record.done, record.seen, len(record.unreadable)))
    assert met == [
        (0, BATCH_SIZE, BATCH_SIZE - 1, 1),
        (2 * BATCH_SIZE, 3 * BATCH_SIZE, 2 * BATCH_SIZE - 1, BATCH_SIZE + 1),
        (3 * BATCH_SIZE, 3 * BATCH_SIZE + 2, 2 * BATCH_SIZE, BATCH_SIZE + 2),
    ]
    assert list(record.unreadable) == bad


def test_going_on(tmp_path: Path, classifier: Classifier) -> None:
    """A walk with the record of an earlier one begins where that ended, and adds to it."""
    paths = pictures(tmp_path, 2 * BATCH_SIZE)
    paths[-1].write_bytes(NOT_AN_IMAGE)
    record = Pass(done=BATCH_SIZE, seen=BATCH_SIZE - 1, unreadable={paths[0]: "why"})
    ((indices, count),) = walk(paths, classifier, len, "title", record)
    assert indices == list(range(BATCH_SIZE, 2 * BATCH_SIZE - 1))
    assert count == BATCH_SIZE - 1
    assert (record.done, record.seen) == (2 * BATCH_SIZE, 2 * BATCH_SIZE - 2)
    assert list(record.unreadable) == [paths[0], paths[-1]]


def test_nothing_but_texts(tmp_path: Path, classifier: Classifier) -> None:
    """Where no file at all is an image, the walk ends with the number of files, the first one and its reason."""
    paths = pictures(tmp_path, 3)
    for path in paths:
        path.write_bytes(NOT_AN_IMAGE)
    with pytest.raises(DatasetError, match=rf"none of the 3 files .* the first, {paths[0]}: the image is none of JPEG"):
        list(walk(paths, classifier, len, "title", Pass()))


def test_an_error_ends_the_walk(tmp_path: Path, classifier: Classifier) -> None:
    """What goes wrong in a lane is raised here, and no thread stays behind."""

    def fail(features: Features) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(walk(pictures(tmp_path, 3 * BATCH_SIZE), classifier, fail, "title", Pass()))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("forward", "decode"))]


def test_batch_sizes() -> None:
    """Small batches for the caches of a CPU, larger ones for a GPU."""
    assert batch_size_on(torch.device("cpu")) == BATCH_SIZE == 8
    assert batch_size_on(torch.device("cuda:1")) == GPU_BATCH_SIZE == 32
