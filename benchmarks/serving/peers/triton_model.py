"""What Triton's Python backend loads."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as backend

from benchmarks.serving.decode import decode
from benchmarks.serving.engines import engine_of_environment


class TritonPythonModel:
    """Gets the requests that the dynamic batcher has put together; each holds one JPEG."""

    def initialize(self, _args: Any) -> None:
        self.engine = engine_of_environment(threads=1)

    def execute(self, requests: list[Any]) -> list[Any]:
        jpegs = [backend.get_input_tensor_by_name(request, "jpeg").as_numpy().item() for request in requests]
        answers = self.engine.classify([decode(jpeg) for jpeg in jpegs])
        return [
            backend.InferenceResponse(
                [
                    backend.Tensor("index", np.array([[answer["index"]]], np.int32)),
                    backend.Tensor("probability", np.array([[answer["probability"]]], np.float32)),
                ]
            )
            for answer in answers
        ]
