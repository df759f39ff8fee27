"""The documents say what the program does."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from line_ood import app
from service.cli import flag_of, variable_of
from service.problems import KINDS
from service.settings import Settings

ROOT = Path(__file__).parents[1]


def rows(document: str, heading: str) -> list[list[str]]:
    """Cells of the first table after a heading, without its head."""
    text = (ROOT / document).read_text().split(f"## {heading}\n", 1)[1]
    lines = [line for line in text.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_settings_table_is_the_programs():
    """README lists every setting with its flag, variable, default and meaning, and none besides."""
    wanted = [
        [
            flag_of(name),
            variable_of(name),
            _default(name, setting.default),
            setting.description,
        ]
        for name, setting in Settings.model_fields.items()
    ]
    assert rows("README.md", "Settings of the server") == wanted


def _default(name: str, default: object) -> str:
    if name == "decode_workers":
        return "cores"
    if isinstance(default, list):
        return "" if not default else "embedded"
    return "" if default is None else str(default)


def test_the_help_lists_every_setting():
    """`line-ood serve --help` names each flag and its variable."""
    text = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "400"}).output
    for name in Settings.model_fields:
        assert flag_of(name) in text
        assert variable_of(name) in text


def test_the_error_table_is_the_programs():
    """docs/api.md lists every code of an error with its status."""
    documented = {
        (int(status), code) for status, codes, _ in rows("docs/api.md", "Errors") for code in re.findall(r"\w+", codes)
    }
    internal = {"bad_image", "client_gone"}  # a base class that is never raised, and one that nobody is left to read
    assert documented == {(kind.status, kind.code) for kind in KINDS.values() if kind.code not in internal}


def test_every_metric_is_documented():
    """A page of docs/ names each metric of the program."""
    sources = (ROOT / "service").rglob("*.py")
    defined = {name for source in sources for name in re.findall(r'"(line_ood_\w+)"', source.read_text())}
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert len(defined) > 15
    assert all(name in text for name in defined)


def test_the_documents_do_not_name_missing_files():
    """Every path and link in README and docs exists."""
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_threat_model_names_tests_that_exist():
    """Every threat in docs/security.md but the last has a test, by file or name, and it is there."""
    tests = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    shown = [shown_by for _, _, shown_by in rows("docs/security.md", "Threats")]
    names = re.findall(r"tests/[\w/]+\.py|[Tt]est\w+", " ".join(shown))
    assert len(names) >= len(shown) - 1
    for name in names:
        assert name in tests or any(re.search(rf"(def|class) {name}\b", text) for text in tests.values()), name
