"""TorchServe: packs the handler as a model archive, and becomes the server with one worker a core."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.serving.engines import CORES, MAX_BATCH, PORT_VARIABLE
from benchmarks.serving.ports import free_port

MODEL = "resnet50"
HANDLER = Path(__file__).with_name("torchserve_handler.py")


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    archive = shutil.which("torch-model-archiver")
    server = shutil.which("torchserve")
    assert archive and server, "neither is on the path of this environment"
    subprocess.run(
        [archive, "--model-name", MODEL, "--version", "1.0", "--handler", HANDLER, "--export-path", folder], check=True
    )
    config = folder / "config.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings(folder).items()))
    os.environ |= {"LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder)}
    start = [server, "--start", "--foreground", "--ts-config", str(config), "--model-store", str(folder)]
    os.execv(server, start)  # noqa: S606 - the path of this environment has it


def settings(folder: Path) -> dict[str, object]:
    """TorchServe's configuration."""
    model = {
        "defaultVersion": True,
        "marName": f"{MODEL}.mar",
        "minWorkers": CORES,
        "maxWorkers": CORES,
        "batchSize": MAX_BATCH,
        "maxBatchDelay": 1,
        "responseTimeout": 60,
    }
    return {
        "inference_address": f"http://127.0.0.1:{os.environ[PORT_VARIABLE]}",
        "management_address": f"http://127.0.0.1:{free_port()}",
        "metrics_address": f"http://127.0.0.1:{free_port()}",
        "enable_grpc": "false",
        "disable_token_authorization": "true",
        "disable_system_metrics": "true",
        "load_models": "all",
        "models": json.dumps({MODEL: {"1.0": model}}),
        "vmargs": f"-Xmx1g -XX:-UsePerfData -Djava.io.tmpdir={folder}",
    }


if __name__ == "__main__":
    main()
