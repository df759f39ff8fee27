"""`line-ood` with its partial state kept after every batch, every file it reads noted, and a place where it hangs.

    python watched.py LOG SAVES calibrate ...

LOG gets a line for each file; after SAVES saves (0: never) LOG.hangs appears, and nothing more happens.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import line_ood
from calibration import loader, partial
from scoring.preprocess import Preprocess

log, saves = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
partial.SAVE_EVERY_S, partial.LARGEST_SHARE = 0, math.inf
read, save = loader._read, partial.Partial.save_if_due
left = iter(range(saves - 1, -1, -1))


def note(path: Path, preprocess: Preprocess) -> Any:
    with log.open("a") as file:
        file.write(f"{path}\n")
    return read(path, preprocess)


def save_and_hang(*args: Any) -> None:
    save(*args)
    if next(left, None) == 0:
        log.with_suffix(".hangs").touch()
        time.sleep(600)


loader._read, partial.Partial.save_if_due = note, save_and_hang
line_ood.main()
