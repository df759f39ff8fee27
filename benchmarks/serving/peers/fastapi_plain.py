"""FastAPI as most people write it: a thread of the pool decodes, and takes its turn at the engine.

The engine has all cores, so that one request alone is as quick as it can be.
"""

from __future__ import annotations

import os
import threading

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from benchmarks.serving.decode import decode
from benchmarks.serving.engines import CORES, PORT_VARIABLE, Answer, engine_of_environment

app = FastAPI()
engine = engine_of_environment(CORES)
turn = threading.Lock()


def classify(jpeg: bytes) -> Answer:
    """Runs in a thread of the pool."""
    pixels = decode(jpeg)
    with turn:
        return engine.classify([pixels])[0]


@app.post("/")
async def predict(request: Request) -> Answer:
    """One JPEG as body."""
    return await run_in_threadpool(classify, await request.body())


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ[PORT_VARIABLE]), loop="uvloop", http="httptools", access_log=False)
