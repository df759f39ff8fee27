"""BentoML: one worker a core, each with an engine of one thread.

Without its batcher: that takes lists only, and a batch gains a CPU little.
"""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.serving.decode import decode
from benchmarks.serving.engines import CORES, Answer, engine_of_environment


@bentoml.service(workers=CORES, threads=1)
class Classifier:
    """`bentoml serve` starts it."""

    def __init__(self) -> None:
        self.engine = engine_of_environment(threads=1)

    @bentoml.api(route="/")
    def classify(self, jpeg: Annotated[Path, ContentType("image/jpeg")], /) -> Answer:
        return self.engine.classify([decode(jpeg.read_bytes())])[0]
