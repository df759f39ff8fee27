"""docs/method.md lists the methods that there are, with the defaults that they have."""

from __future__ import annotations

import re

from scoring.methods import METHODS
from tests.data import ROOT
from tests.scoring.methods.problems import make_problem


def rows() -> dict[str, list[str]]:
    """Cells by name of the method."""
    blocks = (ROOT / "docs" / "method.md").read_text().split("\n\n")
    table = next(block for block in blocks if block.startswith("| name | formula |"))
    lines = [line.strip("|").split(" | ") for line in table.splitlines()[2:]]
    return {cells[0].strip(" `"): cells[1:] for cells in lines}


def test_every_method_has_its_row() -> None:
    """In the order in which they are fitted and shown."""
    assert list(rows()) == list(METHODS)


def test_defaults_are_the_programs() -> None:
    """Each number that is set stands in the last column."""
    problem = make_problem(0, images=300, classes=120)
    for name in METHODS.keys() - {"vim"}:  # its d follows from the features
        settings = problem.fit(name).settings()
        told = {float(number) for number in re.findall(r"[\d.]*\d", rows()[name][-1])}
        assert set(settings.values()) <= told, name
