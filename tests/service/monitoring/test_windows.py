"""Both windows against lists that forget nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.monitoring.image_window import ImageWindow
from service.monitoring.time_window import STEPS, TimeWindow

CELLS = 4


@given(st.integers(1, 7), st.lists(st.integers(0, CELLS - 1), max_size=40))
def test_image_window_counts_the_last_images(size: int, cells: list[int]) -> None:
    """And gives them back in their order."""
    window = ImageWindow(size, CELLS)
    for cell in cells:
        window.add(cell)
    assert window.oldest_first().tolist() == cells[-size:]
    assert window.counts == [cells[-size:].count(cell) for cell in range(CELLS)]


@given(st.integers(1, 7), st.lists(st.integers(0, CELLS - 1), max_size=20))
def test_image_window_of_another_size_takes_over_what_fits(size: int, cells: list[int]) -> None:
    """A window of five images filled into one of `size`."""
    former, window = ImageWindow(5, CELLS), ImageWindow(size, CELLS)
    former.refill(cells)
    window.refill(former.oldest_first())
    assert window.oldest_first().tolist() == cells[-5:][-size:]


# Times are in steps: a window of STEPS seconds has steps of one second.
events = st.lists(st.tuples(st.one_of(st.floats(0, 3), st.floats(0, 200)), st.integers(0, CELLS - 1)), max_size=40)


@given(events, st.floats(0, 200))
def test_time_window_counts_the_last_seconds(events: list[tuple[float, int]], pause: float) -> None:
    """To a step: everything of the last 59 steps and of the present one, and nothing older."""
    window, now, seen = TimeWindow(STEPS, CELLS, 0.0), 0.0, []
    for wait, place in events:
        now += wait
        window.add(place, now)
        seen.append((int(now), place))
    now += pause
    window.advance(now)
    kept = [place for step, place in seen if step > int(now) - STEPS]
    assert window.counts == [kept.count(place) for place in range(CELLS)]


@given(events, st.floats(0, 100))
def test_time_window_goes_on_after_a_pause(events: list[tuple[float, int]], pause: float) -> None:
    """A window refilled from another's steps, on a clock of its own, is what the other would be by now."""
    window, now = TimeWindow(STEPS, CELLS, 0.0), 0.0
    for wait, place in events:
        now += wait
        window.add(place, now)
    steps, elapsed = window.steps, window.elapsed(now)
    later = TimeWindow(STEPS, CELLS, 5000.0)
    later.refill(steps, elapsed + pause, 5000.0)
    window.advance(now + pause)
    assert later.counts == window.counts or abs((now + pause) % 1 - 0.5) > 0.499  # rounding, on the edge of a step
    assert sum(map(sum, later.steps)) == sum(later.counts)
