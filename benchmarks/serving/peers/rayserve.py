"""Ray Serve: one replica a core, each with an engine of one thread and Ray's batching."""

from __future__ import annotations

import asyncio
import os
import tempfile

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.decode import decode
from benchmarks.serving.engines import CORES, MAX_BATCH, PORT_VARIABLE, Answer, engine_of_environment

STORE_BYTES = 200_000_000  # requests travel through Ray's object store only when large


@serve.deployment(num_replicas=CORES, max_ongoing_requests=4 * MAX_BATCH)
class Classifier:
    """The batch is run in a thread, so that the next one can gather meanwhile."""

    def __init__(self) -> None:
        self.engine = engine_of_environment(threads=1)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.001)
    async def classify(self, jpegs: list[bytes]) -> list[Answer]:
        return await asyncio.to_thread(self._run, jpegs)

    async def __call__(self, request: Request) -> Answer:
        return await self.classify(await request.body())

    def _run(self, jpegs: list[bytes]) -> list[Answer]:
        return self.engine.classify([decode(jpeg) for jpeg in jpegs])


if __name__ == "__main__":
    ray.init(
        address="local",
        num_cpus=2 * CORES,  # the proxy and the controller count as well
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        _temp_dir=tempfile.gettempdir(),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ[PORT_VARIABLE])})
    serve.run(Classifier.bind(), blocking=True)
