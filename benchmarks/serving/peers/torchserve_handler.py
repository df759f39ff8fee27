"""What TorchServe's workers load."""

from __future__ import annotations

from typing import Any

from benchmarks.serving.decode import decode
from benchmarks.serving.engines import Answer, engine_of_environment


class Handler:
    """A batch comes as a list of dictionaries, with the raw body under `body`."""

    def initialize(self, _context: Any) -> None:
        self.engine = engine_of_environment(threads=1)

    def handle(self, data: list[dict[str, bytearray]], _context: Any) -> list[Answer]:
        return self.engine.classify([decode(row["body"]) for row in data])
