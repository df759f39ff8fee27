"""docs/capture.md says what the program does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from service.capture.counts import Drop
from service.capture.record import REASONS, Record
from tests.service.capture.making import counts

PAGE = (Path(__file__).parents[3] / "docs" / "capture.md").read_text()


def first_cells(heading: str) -> list[str]:
    """Everything in backquotes in the first cells of the tables below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        each
        for line in section.splitlines()
        if line.startswith("| `")
        for each in re.findall("`(.*?)`", line.split("|")[1])
    ]


def test_every_field_of_a_side_file_is_documented():
    """Each field, and none besides."""
    assert sorted(first_cells("Files")) == sorted(Record.model_fields)


def test_every_metric_is_documented():
    """With its labels; each reason to drop an image is named."""
    _, registry = counts()
    metrics = {
        re.sub("_created$", "_total", sample.name) + (f"{{{','.join(sample.labels)}}}" if sample.labels else "")
        for family in registry.collect()
        for sample in family.samples
    }
    assert set(first_cells("When something fails")) == metrics
    assert all(f"`{reason}`" in PAGE for reason in get_args(Drop))


def test_every_reason_is_documented():
    """What is kept, and which flag says how much of it."""
    assert set(first_cells("What is kept")) == set(REASONS)
    assert all(f"`--capture-{reason}`" in PAGE for reason in REASONS)
