"""docs/field.md says what the data files say, and its lines run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from calibration.field import catalogue
from calibration.field.benchmark import Benchmark, OodSet, Published, load
from tests.data import ROOT

PAGE = (ROOT / "docs" / "field.md").read_text(encoding="utf-8")


def tables(heading: str) -> list[list[list[str]]]:
    """The tables below a heading, as rows of cells without the head."""
    text = re.split(r"\n##+ ", PAGE.split(f" {heading}\n", 1)[1])[0]
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]] for block in blocks
    ]


def set_rows(benchmark: Benchmark) -> Iterator[list[str]]:
    for each in (benchmark.inside, *benchmark.ood):
        md5 = "unknown" if each.source.md5 is None else f"`{each.source.md5}`"
        yield [
            each.name,
            each.kind if isinstance(each, OodSet) else "ID",
            str(each.images),
            " or ".join(f"`{folder}`" for folder in each.folders),
            "" if each.image_list is None else f"`{each.image_list.file}`",
            each.source.get,
            f"`{each.source.file}`, {md5}",
        ]


def published_row(benchmark: Benchmark, row: Published) -> list[str]:
    (title,) = (title for title, sets in benchmark.targets().items() if sets == tuple(row.sets))
    numbers = ["-" if value is None else f"{value:.2f}" for value in (row.fpr95, row.auroc)]
    return [title, row.method, row.network or "not said", *numbers, row.source]


@pytest.mark.parametrize("name", catalogue.names())
def test_tables(name: str) -> None:
    """Each benchmark has a table of its sets and one of its published numbers, and they are the file's."""
    benchmark = load(name)
    sets, *published = tables(name)
    assert sets == list(set_rows(benchmark))
    assert [row for rows in published for row in rows] == [published_row(benchmark, row) for row in benchmark.published]


def test_overviews() -> None:
    """The overview lists the benchmarks with their sets, the other table their preprocessing."""
    overview, _, preprocessing = tables("Benchmarks of the field") + tables("What is printed")
    assert sorted(row[0].strip("`") for row in overview) == list(catalogue.names())
    for name, inside, outside, _ in overview:
        benchmark = load(name.strip("`"))
        assert inside == benchmark.inside.name
        assert re.split(r", |; ", re.sub(r"(near|far): ", "", outside)) == [each.name for each in benchmark.ood]
    for name, *cells in preprocessing:
        wanted = load(name.strip("`")).preprocess
        numbers = [", ".join(map(str, values)) for values in (wanted.mean, wanted.std)]
        assert cells == [str(wanted.resize), str(wanted.crop[0]), *numbers, wanted.interpolation]


def arrays(count: int, names: list[str] | None) -> type:
    """A stand-in for a data set of torchvision: `count` pictures of ten classes, in turn."""

    class Arrays:
        def __init__(self, *_: object, **__: object) -> None:
            if names is not None:
                self.classes = names

        def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
            for index in range(count):
                yield Image.fromarray(np.full((32, 32, 3), index, np.uint8)), index % 10

    return Arrays


def test_the_lines_that_write_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's lines write one folder a class, its first images, losslessly, where the benchmarks look for them."""
    code = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert code is not None
    module = ModuleType("torchvision.datasets")
    names = [f"class {letter}" for letter in "abcdefghij"]
    vars(module).update(CIFAR10=arrays(25, names), CIFAR100=arrays(11, names), SVHN=arrays(45, None))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.chdir(tmp_path)
    exec(code[1].replace("most=1000", "most=3"), {})
    root = tmp_path / "datasets"
    for name, count in (("line-cifar10", 25), ("line-cifar100", 11)):
        folder = root / load(name).inside.folders[0]
        assert len(list(folder.glob("class ?/*.png"))) == count
    svhn = root / next(each.folders[0] for each in load("line-cifar10").ood if each.name == "SVHN")
    found = {
        path.relative_to(svhn).as_posix(): int(np.array(Image.open(path))[0, 0, 0]) for path in svhn.rglob("*.png")
    }
    assert found == {f"{digit}/{number:05}.png": 10 * number + digit for digit in range(10) for number in range(3)}
