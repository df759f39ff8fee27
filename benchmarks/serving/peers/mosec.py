"""Mosec: one worker a core, each with an engine of one thread that decodes and runs its own batches."""

from __future__ import annotations

from mosec import Server, Worker

from benchmarks.serving.decode import decode
from benchmarks.serving.engines import CORES, MAX_BATCH, Answer, engine_of_environment


class Classifier(Worker):
    """Takes JPEG bytes as they come; answers are JSON, as Mosec does by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = engine_of_environment(threads=1)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[Answer]:
        return self.engine.classify([decode(jpeg) for jpeg in data])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classifier, num=CORES, max_batch_size=MAX_BATCH, max_wait_time=1)
    server.run()
