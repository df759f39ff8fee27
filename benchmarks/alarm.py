"""The drift alarm on real images, asked of a real server: a table of docs/monitoring.md.

    python -m benchmarks.alarm DATA

CIFAR-10 and its DenseNet, calibrated as in `benchmarks.cifar10`. Streams of images that were not used for anything:
first 1000 of CIFAR-10, then a mixture with a share of others; and all 5000 of CIFAR-10 once, without any. They are
posted in requests of 16, after each of which the server is asked whether it alarms.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.cifar10 import OOD, WEIGHTS, calibrate
from benchmarks.runs import COMMAND
from calibration.report import table

BEFORE = 1000  # images without drift
AT_MOST = 4000  # images with it
SHARES = (0.05, 0.1, 0.2, 0.5)
REQUEST = 16


def main(data: Path, bench: Path) -> None:
    """Calibrate, serve, play every stream, print."""
    calibrate(data, bench)
    random = np.random.default_rng(0)
    inside = images(bench / "measured")
    with serving(bench, data / "cifar10" / WEIGHTS) as client:
        clean = play(client, "clean", shuffled(inside, random))
        rows = [["none", *told(client, "clean"), str(clean)]]
        for name in OOD:
            outside = images(data / "ood" / name)
            for share in SHARES:
                stream = f"{name}-{share}"
                before = play(client, stream, shuffled(inside, random)[:BEFORE])
                assert before is None, "an alarm before the drift"
                after = play(client, stream, mixture(inside, outside, share, random))
                rows.append([f"{100 * share:g} % {name}", *told(client, stream), str(after)])
    print(table(["drift", "images", "rejected, last 1000", "score PSI", "images to the alarm"], rows))


def images(folder: Path) -> list[bytes]:
    """Every file of a folder of images."""
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def shuffled(inside: Sequence[bytes], random: np.random.Generator) -> list[bytes]:
    """Each once."""
    return [inside[index] for index in random.permutation(len(inside))]


def mixture(
    inside: Sequence[bytes], outside: Sequence[bytes], share: float, random: np.random.Generator
) -> list[bytes]:
    """AT_MOST images, each from outside with a probability of `share`."""
    sources = (outside if is_out else inside for is_out in random.random(AT_MOST) < share)
    return [source[int(random.integers(len(source)))] for source in sources]


def play(client: httpx.Client, stream: str, sent: Sequence[bytes]) -> int | None:
    """Post images until the stream alarms; how many it took, None if it never does."""
    for begin in range(0, len(sent), REQUEST):
        files = [("file", ("image", data)) for data in sent[begin : begin + REQUEST]]
        answer = client.post("/v1/predict", files=files, headers={"X-Stream-ID": stream})
        assert answer.status_code == 200, answer.text
        if state(client, stream)["alarm"]:
            return begin + len(files)
    return None


def state(client: httpx.Client, stream: str) -> dict[str, Any]:
    """What the monitor says of a stream."""
    (model,) = client.get("/v1/monitor").json()["models"].values()
    found: dict[str, Any] = model["streams"][stream]
    return found


def told(client: httpx.Client, stream: str) -> tuple[str, str, str]:
    """Images, rejected share of the window with its interval, shift of the scores."""
    found = state(client, stream)
    (rate,) = found["windows"]["images"]["rejects"].values()
    shares = f"{100 * rate['ratio']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"
    return str(found["images"]), shares, f"{found['score_shift']['psi']:.2f}"


@contextmanager
def serving(bench: Path, weights: Path) -> Iterator[httpx.Client]:
    """Our server around the calibrated network, on a free port."""
    artifact = bench / "cifar10.safetensors"
    flags = ("--artifact", str(artifact), "--weights", str(weights), "--port", "0", "--monitor-streams", "100")
    process = subprocess.Popen([str(COMMAND), "serve", *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().partition(" on ")[2].split()[0]
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]).resolve(), Path(folder))
