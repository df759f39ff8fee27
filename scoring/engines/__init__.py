"""Engines: ways to run one backbone. Each turns a batch of uint8 pixels into float32 features.

| engine      | device | precisions                   | needs                                                      |
|-------------|--------|------------------------------|------------------------------------------------------------|
| `eager`     | any    | float32, bfloat16            | nothing                                                    |
| `compiled`  | any    | float32, bfloat16            | a C++ compiler at run time (Triton's on a GPU)             |
| `openvino`  | CPU    | float32, bfloat16, int8      | `pip install openvino`; for int8, an artifact with it      |
| `cudagraph` | GPU    | float32, bfloat16            | nothing                                                    |

`build` makes the one that is asked for. `eager` in float32 is the reference: the network as its owner wrote it.
"""
