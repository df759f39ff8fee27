"""LitServe: one worker a core, each with an engine of one thread; bodies come as raw bytes.

No `from __future__ import annotations` here: LitServe hands the annotation of `request` to FastAPI as it is.
"""

import os
from typing import Annotated

import litserve
from fastapi import Body
from torch import Tensor

from benchmarks.serving.decode import decode
from benchmarks.serving.engines import CORES, MAX_BATCH, PORT_VARIABLE, Answer, engine_of_environment


class Classifier(litserve.LitAPI):
    """Each step gets a list of what the step before returned."""

    def setup(self, device: str) -> None:
        self.engine = engine_of_environment(threads=1)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Tensor:
        return decode(request)

    def batch(self, inputs: list[Tensor]) -> list[Tensor]:
        return inputs

    def predict(self, x: list[Tensor]) -> list[Answer]:
        return self.engine.classify(x)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        return output


if __name__ == "__main__":
    # A timeout of 0 would spin on the queue, and take from the network what it needs.
    api = Classifier(max_batch_size=MAX_BATCH, batch_timeout=0.001, api_path="/")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=CORES, fast_queue=True)
    server.run(port=int(os.environ[PORT_VARIABLE]), generate_client_file=False, log_level="warning")
