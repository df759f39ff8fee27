"""Names of captured files: made of time, reason and digest alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.capture.names import SIDE, Name, parse_stem, split_path
from service.capture.record import REASONS
from tests.service.capture.making import candidate

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31), timezones=st.just(UTC))
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.builds(Name, TIMES, st.sampled_from(REASONS), DIGESTS)


@given(NAMES)
def test_a_name_can_be_read_again(name: Name):
    """Time to the microsecond, reason and the first digits come back."""
    assert parse_stem(name.stem) == Name(name.time, name.reason, name.digest[:16])


@given(st.lists(NAMES, max_size=6))
def test_names_sort_by_time(names: list[Name]):
    """Sorting paths as text sorts images by time."""
    by_path = sorted(names, key=lambda name: name.stem)
    assert [name.time for name in by_path] == sorted(name.time for name in names)


@given(NAMES, st.integers(-14, 14))
def test_the_day_is_that_of_utc(name: Name, hours: int):
    """Wherever the server stands, the same moment has the same name."""
    elsewhere = name.time.astimezone(timezone(timedelta(hours=hours)))
    assert Name(elsewhere, name.reason, name.digest).stem == name.stem


@given(st.text(), st.sampled_from(REASONS), TIMES)
def test_nothing_of_a_client_is_in_a_name(text: str, reason, time: datetime):
    """Whatever the request id says, a path has one folder, no special characters, and the same length."""
    record = candidate(request_id=text, reason=reason).record("a" * 64)
    stem = Name(time, record.reason, record.sha256).stem
    assert re.fullmatch(r"[0-9-]{10}/[0-9TZ.]{23}-[a-z]{6,10}-[0-9a-f]{16}", stem)


@pytest.mark.parametrize(
    "path",
    [
        "labels.csv",
        "2026-11-24/notes.json",
        "labelled/2026-11-24/20261124T091545.123456Z-reject-0123456789abcdef.jpg",
        "2026-11-24/20261124T091545.123456Z-reject-0123456789abcdef.txt",
        "2026-11-24/.20261124T091545.123456Z-reject-0123456789abcdef.jpg.part",
        "2026-11-25/20261124T091545.123456Z-reject-0123456789abcdef.jpg",
        "2026-02-31/20260231T091545.123456Z-reject-0123456789abcdef.jpg",
        "2026-11-24/20261124T091545.123456Z-mine-0123456789abcdef.jpg",
    ],
)
def test_other_files_are_not_ours(path: str):
    """What people put there, or moved, is neither counted nor deleted."""
    stem, suffix = split_path(path)
    assert not suffix or parse_stem(stem) is None


def test_a_path_is_split_into_stem_and_suffix():
    """The side file and its image share a stem."""
    stem = "2026-11-24/20261124T091545.123456Z-reject-0123456789abcdef"
    assert split_path(stem + SIDE) == (stem, ".json")
    assert split_path(stem + ".webp") == (stem, ".webp")
