"""Who may import whom, read from the sources themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import scoring
from tests.data import ROOT

ROOMS = (
    "errors",
    "files",
    "types",
    "arrays",
    "scans",
    "images",
    "preprocess",
    "spec",
    "cores",
    "backbone",
    "engines",
    "classifier",
    "line",
    "kernels",
    "detector",
    "methods",
    "conformal",
    "groups",
    "combination",
    "ensemble",
    "probes",
    "metadata",
    "artifact",
    "scorer",
)
NOT_FOR_SCORING = {
    "asyncio",
    "fastapi",
    "starlette",
    "uvicorn",
    "prometheus_client",
    "pydantic_settings",
    "typer",
    "tqdm",
    "logging",
    "pythonjsonlogger",
    "calibration",
    "service",
}
ALLOWED = {"openvino.py": {"logging"}}  # to undo what its converter does to everybody's logs


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, inside functions and for type checking, too; dotted and absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def rooms(path: Path) -> set[str]:
    """The rooms of scoring that a file imports."""
    parts = [name.split(".") for name in imported(path)]
    return {each[1] for each in parts if each[0] == "scoring" and len(each) > 1 and each[1] in ROOMS}


def test_the_parser_sees_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each way to import is seen, or the tests below would hold anything."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "scoring").mkdir()
    path = tmp_path / "scoring" / "x.py"
    path.write_text("import a.b\nfrom c import d\ndef f():\n    import e as g\nif False:\n    from . import line\n")
    assert set(imported(path)) == {"a.b", "c", "c.d", "e", "scoring", "scoring.line"}
    assert roots(path) == {"a", "c", "e", "scoring"}
    assert rooms(path) == {"line"}


@pytest.mark.parametrize("path", sources("calibration"), ids=lambda path: path.name)
def test_calibration_never_imports_service(path: Path) -> None:
    """Only the artifact travels between the two."""
    assert "service" not in roots(path)


@pytest.mark.parametrize("path", sources("service"), ids=lambda path: path.name)
def test_service_never_imports_calibration(path: Path) -> None:
    """Only the artifact travels between the two."""
    assert "calibration" not in roots(path)


@pytest.mark.parametrize("path", sources("scoring"), ids=lambda path: str(path.relative_to(ROOT)))
class TestScoring:
    def test_imports_neither_side_nor_their_tools(self, path: Path) -> None:
        """No web framework, no event loop, no command line, no logging set-up."""
        assert roots(path) & NOT_FOR_SCORING == ALLOWED.get(path.name, set())

    def test_reads_no_environment(self, path: Path) -> None:
        """What it does is in its arguments; nothing is printed either."""
        tree = ast.parse(path.read_text())
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not (attributes | names) & {"environ", "environb", "getenv", "putenv", "print"}
        assert not {"os.environ", "os.getenv"} & set(imported(path))

    def test_imports_earlier_rooms_only(self, path: Path) -> None:
        """So there are no cycles; the files of a folder may import each other; `embedded` comes last."""
        room = path.relative_to(ROOT / "scoring").parts[0].removesuffix(".py")
        is_folder = (ROOT / "scoring" / room).is_dir()
        place = ROOMS.index(room) + is_folder if room in ROOMS else len(ROOMS) if room == "embedded" else 0
        assert rooms(path) <= set(ROOMS[:place])
        assert "scoring.embedded" not in set(imported(path))


def test_every_room_has_its_place() -> None:
    """The order above, the files, and what the package says of itself are the same."""
    folders = {path.parent.name for path in (ROOT / "scoring").glob("*/__init__.py")} - {"embedded"}
    files = {path.stem for path in (ROOT / "scoring").glob("*.py")} - {"__init__"} | folders
    assert files == set(ROOMS)
    told = " ".join((scoring.__doc__ or "").split()).split("those before it: ")[1].split(".")[0]
    assert tuple(told.split(", ")) == ROOMS
