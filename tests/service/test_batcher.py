"""The batcher alone, around a scorer that reads a number back from the pixels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch

from scoring.errors import UndecodableError
from scoring.scorer import ImageScore
from service.batcher import Answer, Batcher, Outcome
from service.problems import DecodingError, ImageInferenceError, InferenceError, NotReadyError
from tests.waiting import until

SIZE = (2, 2)
TAKES_S = 0.03
WAIT_S = 20


def image(number: int) -> torch.Tensor:
    pixels = torch.zeros(3, *SIZE, dtype=torch.uint8)
    pixels[:, 0, 0] = torch.tensor([number // 65536, number // 256 % 256, number % 256])
    return pixels


def number_of(pixels: torch.Tensor) -> int:
    high, middle, low = pixels[:, 0, 0].tolist()
    return high * 65536 + middle * 256 + low


class Device:
    """Answers each image with its own number; slow, failing or closed when told so."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.busy = threading.Event()
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.every: list[bool] = []
        self.poison: dict[int, BaseException] = {}
        self.not_finite: set[int] = set()

    def score(self, pixels: torch.Tensor, *, alone: bool, every: bool) -> list[ImageScore]:
        self.alone.append(alone)
        self.every.append(every)
        self.busy.set()
        assert self.open.wait(WAIT_S)
        numbers = [number_of(each) for each in pixels]  # read late: the buffer must still hold this batch
        self.batches.append(numbers)
        for number in numbers:
            if number in self.poison:
                raise self.poison[number]
        return [
            ImageScore(np.array([1.0], np.float64), np.nan if number in self.not_finite else float(number), 0.5, 0)
            for number in numbers
        ]


class Waiting(Future):
    """A waiter that a thread can wait for."""

    def claim(self) -> bool:
        return self.set_running_or_notify_cancel()

    def settle(self, outcome: Outcome) -> None:
        with suppress(InvalidStateError):  # only the first outcome counts
            if isinstance(outcome, Answer):
                self.set_result(outcome)
            else:
                self.set_exception(outcome)


class Counts:
    def __init__(self) -> None:
        self.scored: list[int] = []
        self.failed: list[int] = []

    def batch_scored(self, size: int, seconds: float) -> None:
        assert seconds >= 0
        self.scored.append(size)

    def batch_failed(self, size: int) -> None:
        self.failed.append(size)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def make(device: Device, counts: Counts) -> Iterator[Callable[..., Batcher]]:
    made: list[Batcher] = []

    def make_batcher(**options: object) -> Batcher:
        made.append(Batcher(device.score, SIZE, counts, **options))
        made[-1].start()
        return made[-1]

    yield make_batcher
    device.open.set()
    for batcher in made:
        batcher.stop(WAIT_S)


def occupy(batcher: Batcher, device: Device, number: int = 999) -> Waiting:
    """Close the device with one image on it."""
    device.open.clear()
    device.busy.clear()
    answer = submit(batcher, image(number))
    assert device.busy.wait(WAIT_S)
    return answer


def submit(batcher: Batcher, pixels: torch.Tensor) -> Waiting:
    answer = Waiting()
    batcher.submit(lambda: pixels, answer)
    return answer


def score_of(answer: Waiting) -> float:
    return answer.result(WAIT_S).score.ood_score


def test_every_image_gets_its_own_answer(make, device):
    """Answers are never mixed, however many threads submit at once."""
    batcher = make(max_batch=7)
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda n: score_of(submit(batcher, image(n))), range(2000)))
    assert scores == list(range(2000))
    assert sorted(number for batch in device.batches for number in batch) == list(range(2000))


def test_max_batch_counts_images(make, device, counts):
    """No batch is larger than asked for, and batches are full when enough images wait."""
    batcher = make(max_batch=4)
    first = occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(10)]
    device.open.set()
    assert [score_of(answer) for answer in answers] == list(range(10))
    assert score_of(first) == 999
    assert counts.scored == [1, 4, 4, 2]


def test_an_idle_device_does_not_wait(make, counts):
    """Without a delay a single image is scored at once, alone."""
    assert score_of(submit(make(max_batch=32), image(5))) == 5
    assert counts.scored == [1]


def test_a_batch_that_was_split_took_all_its_passes(make, device):
    """What the next ones are expected to take is the time of the whole batch, not that of its last image alone."""

    def score(pixels: torch.Tensor, *, alone: bool, every: bool) -> list[ImageScore]:
        time.sleep(TAKES_S)
        if len(pixels) > 1:
            raise RuntimeError("out of memory")
        return device.score(pixels, alone=alone, every=every)

    batcher = make(max_batch=8)
    batcher._score = score
    occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(4)]
    device.open.set()
    assert [score_of(answer) for answer in answers] == [0, 1, 2, 3]
    until(lambda: batcher.last_pass_s >= 5 * TAKES_S)
    assert batcher.last_pass_s < 50 * TAKES_S


def test_late_arrivals_join_while_the_device_works(make, device):
    """What arrives during a forward pass is scored together in the next one."""
    batcher = make(max_batch=32)
    occupy(batcher, device)
    answers = []
    for n in range(5):
        answers.append(submit(batcher, image(n)))
        time.sleep(0.01)
    device.open.set()
    assert [score_of(answer) for answer in answers] == [0, 1, 2, 3, 4]
    assert device.batches == [[999], [0, 1, 2, 3, 4]]


def test_one_full_batch_is_prepared_ahead(make, device, counts):
    """While the device works, one full batch is staged, and only one; an incomplete one stays open."""
    batcher = make(max_batch=2)
    occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(5)]
    until(answers[1].running)
    time.sleep(0.05)
    assert [answer.running() for answer in answers] == [True, True, False, False, False]
    assert batcher.depth == 3
    device.open.set()
    assert [score_of(answer) for answer in answers] == [0, 1, 2, 3, 4]


def test_staging_does_not_touch_the_running_batch(make, device):
    """The batch on the device keeps its pixels while the next one is packed."""
    batcher = make(max_batch=2)
    for turn in range(5):
        running = occupy(batcher, device, 100 + turn)
        staged = [submit(batcher, image(n)) for n in (1, 2)]
        until(staged[1].running)
        device.open.set()
        assert score_of(running) == 100 + turn
        assert [score_of(answer) for answer in staged] == [1, 2]


def test_a_delay_fills_the_batch(make, counts):
    """With a delay an idle device waits for company, but no longer than a full batch needs."""
    batcher = make(max_batch=3, max_delay_s=WAIT_S)
    answers = [submit(batcher, image(n)) for n in range(3)]
    assert [answer.result(WAIT_S / 2).score.ood_score for answer in answers] == [0, 1, 2]
    assert counts.scored == [3]


def test_a_delay_ends(make, counts):
    """An incomplete batch leaves when the delay is over."""
    batcher = make(max_batch=3, max_delay_s=0.05)
    assert score_of(submit(batcher, image(1))) == 1
    assert counts.scored == [1]


def test_a_cancelled_image_leaves_the_queue_at_once(make, device, counts):
    """Nobody computes for a client that has gone, and its place is free."""
    batcher = make(max_batch=8)
    occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(3)]
    assert batcher.depth == 3
    assert answers[1].cancel()
    batcher.withdraw(answers[1])
    assert batcher.depth == 2
    device.open.set()
    assert [score_of(answers[0]), score_of(answers[2])] == [0, 2]
    assert device.batches == [[999], [0, 2]]
    with pytest.raises(CancelledError):
        answers[1].result(WAIT_S)


def test_a_withdrawn_image_that_is_not_there_harms_nobody(make, device):
    """Withdrawing what runs or is done changes nothing."""
    batcher = make(max_batch=8)
    running = occupy(batcher, device)
    batcher.withdraw(running)
    waiting = submit(batcher, image(3))
    device.open.set()
    assert [score_of(running), score_of(waiting)] == [999, 3]
    batcher.withdraw(waiting)
    assert score_of(submit(batcher, image(4))) == 4


def test_a_cancelled_image_that_is_not_withdrawn_is_not_scored(make, device):
    """Whoever cancels is never computed for, even before the queue is told."""
    batcher = make(max_batch=8)
    occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(2)]
    assert answers[0].cancel()
    device.open.set()
    assert score_of(answers[1]) == 1
    assert device.batches == [[999], [1]]


def test_a_cancelled_image_on_the_device_harms_nobody(make, device):
    """What runs already cannot be cancelled, and its neighbours get their answers."""
    batcher = make(max_batch=2)
    running = occupy(batcher, device)
    assert not running.cancel()
    waiting = submit(batcher, image(3))
    device.open.set()
    assert score_of(waiting) == 3


def test_only_the_culprit_of_a_failed_batch_fails(make, device, counts):
    """A batch that raises is scored image by image; one fails, the others are answered."""
    batcher = make(max_batch=8)
    device.poison[2] = RuntimeError("no such kernel")
    occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(4)]
    device.open.set()
    assert [score_of(answers[n]) for n in (0, 1, 3)] == [0, 1, 3]
    with pytest.raises(InferenceError) as caught:
        answers[2].result(WAIT_S)
    assert "no such kernel" not in str(caught.value)
    assert "no such kernel" in str(caught.value.__cause__)
    assert counts.failed == [4, 1]
    assert score_of(submit(batcher, image(7))) == 7


def test_an_answer_that_is_no_number_fails_alone(make, device):
    """NaN never reaches a client as a score, and stays with its image."""
    batcher = make(max_batch=8)
    device.not_finite.add(1)
    occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(3)]
    device.open.set()
    with pytest.raises(ImageInferenceError):
        answers[1].result(WAIT_S)
    assert [score_of(answers[0]), score_of(answers[2])] == [0, 2]


def test_nobody_waits_for_a_dead_thread(make, device, caplog):
    """If an inference thread dies, all who wait are told, liveness fails, and nobody new is let in."""
    batcher = make(max_batch=1)
    device.poison |= {number: SystemExit("killed") for number in (1, 2, 3, 4)}
    occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in (1, 2, 3, 4)]
    assert batcher.is_alive
    device.open.set()
    for answer in answers:
        with pytest.raises(NotReadyError):
            answer.result(WAIT_S)
    until(lambda: not batcher.is_alive)
    with pytest.raises(NotReadyError):
        submit(batcher, image(5))
    assert "the thread lane-" in caplog.text


def test_stopping_answers_what_waits(make, device):
    """Work that was taken is finished; work that comes later is refused."""
    batcher = make(max_batch=2)
    first = occupy(batcher, device)
    answers = [submit(batcher, image(n)) for n in range(5)]
    stopper = threading.Thread(target=batcher.stop, args=(WAIT_S,))
    stopper.start()
    until(lambda: batcher._is_stopping)
    with pytest.raises(NotReadyError):
        submit(batcher, image(9))
    device.open.set()
    stopper.join()
    assert [score_of(answer) for answer in [first, *answers]] == [999, 0, 1, 2, 3, 4]
    assert not batcher.is_alive


def test_stopping_does_not_wait_forever(make, device):
    """A device that hangs does not keep the process; those who wait are told."""
    batcher = make(max_batch=1)
    occupy(batcher, device)
    waiting = [submit(batcher, image(n)) for n in range(3)]
    batcher.stop(timeout_s=0.1)
    for answer in waiting:
        with pytest.raises(NotReadyError):
            answer.result(WAIT_S)


def test_times_are_told(make, device):
    """An answer says how long its image queued and how long the forward pass took."""
    batcher = make(max_batch=1)
    occupy(batcher, device)
    answer = submit(batcher, image(1))
    time.sleep(0.05)
    device.open.set()
    assert answer.result(WAIT_S).queue_s >= 0.05
    assert 0 <= answer.result(WAIT_S).inference_s < WAIT_S


def test_an_image_that_cannot_be_read_fails_alone(make, device, caplog):
    """Its sender is told why; what is not its sender's fault is told to nobody but the log; the others are scored."""

    def broken(error: Exception) -> torch.Tensor:
        raise error

    batcher = make(max_batch=8)
    occupy(batcher, device)
    answers = [Waiting() for _ in range(4)]
    refused = UndecodableError("no image")
    for answer, read in zip(
        answers,
        [lambda: image(1), lambda: broken(refused), lambda: broken(ZeroDivisionError("secret")), lambda: image(4)],
        strict=True,
    ):
        batcher.submit(read, answer)
    device.open.set()
    assert [score_of(answers[0]), score_of(answers[3])] == [1, 4]
    assert answers[1].exception(WAIT_S) is refused
    assert isinstance(answers[2].exception(WAIT_S), DecodingError)
    assert "secret" not in str(answers[2].exception()) and "secret" in caplog.text
    assert device.batches == [[999], [1, 4]]


def test_a_batch_of_nothing_readable_leaves_the_device_free(make, device):
    """What comes after it is scored as ever."""
    batcher = make(max_batch=8)
    answer = Waiting()
    batcher.submit(lambda: 1 / 0, answer)
    assert isinstance(answer.exception(WAIT_S), DecodingError)
    assert score_of(submit(batcher, image(5))) == 5
    assert device.batches == [[5]]


def test_all_methods_are_computed_for_a_batch_where_one_image_wants_them(make, device):
    """Its neighbours are scored by all as well; the next batch is not."""
    batcher = make(max_batch=8)
    occupy(batcher, device)
    answers = [submit(batcher, image(0)), Waiting()]
    batcher.submit(lambda: image(1), answers[1], every=True)
    device.open.set()
    assert [score_of(answer) for answer in answers] == [0, 1]
    assert score_of(submit(batcher, image(2))) == 2
    assert device.every == [False, True, False]


class TestLanes:
    """A device that runs several batches side by side."""

    def test_an_image_that_finds_all_of_them_free_has_all(self, make, device):
        """It runs alone; what comes meanwhile waits for it, and then has lanes of its own."""
        batcher = make(lanes=2, max_batch=8)
        first = occupy(batcher, device, 900)
        assert device.alone == [True]
        second, third = submit(batcher, image(1)), submit(batcher, image(2))
        time.sleep(0.05)
        assert len(device.alone) == 1
        device.open.set()
        assert [score_of(answer) for answer in (first, second, third)] == [900, 1, 2]

    def test_run_side_by_side(self, make, device):
        """Images that come together are scored at the same time, each lane with its share."""
        batcher = make(lanes=2, max_batch=8, max_delay_s=1)
        device.open.clear()
        answers = [submit(batcher, image(n)) for n in range(4)]
        until(lambda: len(device.alone) == 2)  # both are on the device, which is closed
        assert device.alone == [False, False]
        device.open.set()
        assert [score_of(answer) for answer in answers] == [0, 1, 2, 3]
        assert sorted(map(sorted, device.batches)) == [[0, 1], [2, 3]]

    def test_do_not_overwrite_each_other(self, make, device):
        """Every image gets its own answer, however many threads submit and however many lanes score."""
        batcher = make(lanes=3, max_batch=5)
        with ThreadPoolExecutor(8) as pool:
            scores = list(pool.map(lambda n: score_of(submit(batcher, image(n))), range(3000)))
        assert scores == list(range(3000))

    def test_all_end(self, make, device):
        """Stopping finishes what every lane runs, and what waits."""
        batcher = make(lanes=3, max_batch=2)
        device.open.clear()
        answers = [submit(batcher, image(n)) for n in range(20)]
        stopper = threading.Thread(target=batcher.stop, args=(WAIT_S,))
        stopper.start()
        device.open.set()
        stopper.join()
        assert [score_of(answer) for answer in answers] == list(range(20))
        assert batcher.has_ended
