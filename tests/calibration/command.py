"""The command `line-ood`: in real processes, and in this one where the start of a process proves nothing more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import line_ood

COMMAND = Path(sys.executable).with_name("line-ood")
NETWORKS = Path(__file__).with_name("networks.py")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """The standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def refusal(self) -> str:
        """The one line of a command that refused what it was given."""
        assert self.code == 2, f"exit code {self.code}: {self.err}"
        assert "Traceback" not in self.err
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"wanted one line on stderr, found {len(lines)}:\n{self.err}"
        return lines[0]


def start(*arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Outcome:
    """Run the command as its users do, in a process of its own."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        env=os.environ | (env or {}),
        cwd=cwd,
        timeout=300,
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command in this process, which has the heavy imports behind it."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["line-ood", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            line_ood.main()
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return run


def network(name: str) -> str:
    """The SPEC of a factory in networks.py."""
    return f"{NETWORKS}:{name}"
