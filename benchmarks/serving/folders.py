"""Where the benchmark keeps what it makes: environments, network, artifacts, logs. Safe to delete."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCH = ROOT / ".bench"
NETWORK = BENCH / "network"
ARTIFACTS = BENCH / "artifacts"
LOGS = BENCH / "logs"
ENVIRONMENTS = BENCH / "environments"


def make_folders() -> None:
    """Make them, and keep git away from them."""
    for folder in (NETWORK, ARTIFACTS, LOGS, ENVIRONMENTS):
        folder.mkdir(parents=True, exist_ok=True)
    (BENCH / ".gitignore").write_text("*\n")
