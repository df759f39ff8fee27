"""How many images a forward pass should hold, on a clock that only the network moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from service import batch_size
from service.batch_size import useful_batch

Seconds = Callable[[int, int], float]  # of a pass: of so many images, the n-th of that size


class Network:
    """Takes as long as it is told.

    Attributes:
        passes: sizes of the batches that it was given.
        now: what its clock shows.
    """

    def __init__(self, seconds: Seconds) -> None:
        self.passes: list[int] = []
        self.now = 0.0
        self._seconds = seconds

    def score(self, images: torch.Tensor) -> None:
        count = len(images)
        self.now += self._seconds(count, self.passes.count(count))
        self.passes.append(count)


@pytest.fixture
def warm_up(monkeypatch) -> Callable[[Seconds, int], tuple[int, Network]]:
    def run(seconds: Seconds, most: int) -> tuple[int, Network]:
        network = Network(seconds)
        monkeypatch.setattr(batch_size, "perf_counter", lambda: network.now)
        return useful_batch(network.score, torch.zeros(most, 3, 1, 1, dtype=torch.uint8)), network

    return run


@pytest.fixture
def useful(warm_up) -> Callable[[Seconds, int], int]:
    return lambda seconds, most: warm_up(seconds, most)[0]


@pytest.mark.parametrize("most", [1, 3, 8, 12, 32, 64])
def test_as_many_as_fit_where_a_pass_costs_more_than_its_images(useful, most):
    """A GPU or a tiny network: what is allowed is used."""
    assert useful(lambda count, _: 1 + 0.01 * count, most) == most


def test_fewer_where_larger_batches_take_longer_an_image(useful):
    """The embedded network's times on two cores, in ms an image."""
    times = {1: 16.7, 2: 12.5, 4: 11.4, 8: 15.9, 16: 16.8, 32: 26.7}
    assert useful(lambda count, _: count * times[count], 32) == 8
    assert useful(lambda count, _: count * (times | {16: 13.0})[count], 32) == 16


def test_never_fewer_than_are_sure_to_gain(useful):
    """However odd the clock: small batches are never the rule."""
    assert useful(lambda count, _: count**2, 32) == 8
    assert useful(lambda count, _: count**2, 5) == 5


def test_one_slow_pass_is_no_reason_for_smaller_batches(useful):
    """The first one compiles, or something else had the cores: the other one counts."""
    for slow in (0, 1):
        assert useful(lambda count, turn, slow=slow: count * (100 if turn == slow else 1), 32) == 32


def test_every_size_that_engines_prepare_is_met(warm_up):
    """No request has to wait for a size to be compiled."""
    _, network = warm_up(lambda count, _: count, 12)
    assert sorted(set(network.passes)) == [1, 2, 4, 8, 12]
