"""What a pass has done so far, on disk, so that a calibration that was killed goes on where it was.

One safetensors file a pass, in a folder beside the artifact, written atomically now and then and removed at the end.
It carries a key of all that its numbers depend on (classifier, files, settings, engine, versions) and serves a run with
the same key alone. Sums are float64 and every batch begins at the file where it always begins: the artifact is, bit for
bit, that of a run that was never interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from calibration.dataset import LabelledImages
from calibration.walk import Pass
from scoring.files import write_atomically

SAVE_EVERY_S = 30.0
LARGEST_SHARE = 0.02  # of the time that may go into saving: a slow disk is written to less often
METADATA_KEY = "line_ood_partial"
SUFFIX = ".safetensors"

Tensors = dict[str, Tensor]


class Partial:
    """The partial state of one pass.

    Args:
        folder: where it is kept; None keeps nothing.
        name: of the pass.
        depends_on: all that its numbers depend on; not looked at where nothing is kept.

    Attributes:
        key: the digest of `depends_on`.
        warnings: why a state that was found is not used, or none can be kept.
    """

    def __init__(self, folder: Path | None, name: str, depends_on: Iterable[str]) -> None:
        self._path = None if folder is None else folder / f"{name}{SUFFIX}"
        self.key = "" if folder is None else _digest(depends_on)
        self.warnings: list[str] = []
        self._due = time.monotonic() + SAVE_EVERY_S

    def load(self) -> tuple[Pass, Tensors] | None:
        """What an earlier run with the same key has left, if there is any."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                stored = json.loads((file.metadata() or {})[METADATA_KEY])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
            if stored["key"] == self.key:
                return _from_json(stored["pass"]), tensors
            reason = "of other images, another classifier or engine, other settings or versions"
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            reason = f"cannot be read ({error})"
        self.warnings.append(f"{self._path}: the partial calibration found there is {reason}; it was begun anew")
        return None

    def save_if_due(self, record: Pass, tensors: Callable[[], Tensors]) -> None:
        """Write the state, if it is time. That it cannot be written is a warning: the work itself can go on."""
        started = time.monotonic()
        if self._path is None or started < self._due:
            return
        content = json.dumps({"key": self.key, "pass": _to_json(record)})
        try:
            self._path.parent.mkdir(exist_ok=True)
            write_atomically(self._path, save(tensors(), {METADATA_KEY: content}))
        except OSError as error:
            self.warnings.append(f"{self._path}: the partial calibration could not be saved: {error.strerror or error}")
            self._path = None
        took = time.monotonic() - started
        self._due = started + took + max(SAVE_EVERY_S, took / LARGEST_SHARE)


def discard(folder: Path) -> None:
    """Remove all that was kept, once the artifact is safe; what others have put there stays."""
    for path in folder.glob(f"*{SUFFIX}*"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or not empty
        folder.rmdir()


def describe(images: LabelledImages) -> Iterator[str]:
    """A line for each file: path, class, size and time of its last change."""
    for path, label in images.items:
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError as error:
            state = str(error.errno)
        yield f"{label} {state} {path.absolute()}"


def _digest(parts: Iterable[str]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode(errors="surrogateescape") + b"\0")
    return sha.hexdigest()


def _to_json(record: Pass) -> dict[str, object]:
    return vars(record) | {"unreadable": {str(path): reason for path, reason in record.unreadable.items()}}


def _from_json(stored: dict[str, Any]) -> Pass:
    return Pass(**stored | {"unreadable": {Path(path): reason for path, reason in stored["unreadable"].items()}})
