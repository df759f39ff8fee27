"""What the long form has measured: a line of JSON a fault, and `python -m tests.chaos.figures` for the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.scale import IS_LONG

FILE = Path(__file__).parents[2] / "build" / "chaos.jsonl"
REFUSALS = ("429", "503", "504", "not admitted")


def record(fault: str, tried: int, tally: Mapping[str, int], recovery_s: float | None, note: str = "") -> None:
    """Keep the figures of a fault, in the long form only.

    Args:
        fault: as the table calls it.
        tried: how often.
        tally: what the other clients were told, see `Traffic.tally`.
        recovery_s: from the end of the fault to the last answer that was not right; None where that means nothing.
        note: what else there is to say.
    """
    if not IS_LONG:
        return
    FILE.parent.mkdir(exist_ok=True)
    row = {"fault": fault, "tried": tried, "tally": dict(tally), "recovery_s": recovery_s, "note": note}
    with FILE.open("a") as file:
        file.write(json.dumps(row) + "\n")


def table() -> str:
    """All figures as Markdown; of a fault that was measured twice the last."""
    rows = {row["fault"]: row for row in map(json.loads, FILE.read_text().splitlines())}
    lines = [
        "| fault | tried | meanwhile right | refused | failed | wrong or lost | recovered after | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_line(row) for row in rows.values()])


def _line(row: dict) -> str:
    tally = row["tally"]
    right, failed, refused = tally.get("right", 0), tally.get("500", 0), sum(tally.get(key, 0) for key in REFUSALS)
    lost = sum(tally.values()) - right - failed - refused
    recovery = "" if row["recovery_s"] is None else f"{row['recovery_s']:.2f} s"
    cells = [row["fault"], row["tried"], right, refused, failed, lost, recovery, row["note"]]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    print(table())  # noqa: T201 - it is a command
