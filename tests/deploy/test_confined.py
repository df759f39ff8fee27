"""The server as a container confines it, without an engine: nobody, no capabilities, no home, a small TMPDIR alone."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from scoring.embedded import SAMPLE
from tests.absent import absent
from tests.processes import COMMAND, START_S

ROOT = Path(__file__).parents[2]
NOBODY = 65534

# In a mount namespace of its own; OPENING is `opening`'s.
START = """
set -eu
OPENING
for mounted in / /mnt /tmp /dev/shm /run; do
    mount -o remount,bind,ro "$mounted" 2>/dev/null || true
done
mount -t tmpfs -o mode=1777,size=1m tmpfs /media
for folder in / /tmp /var/tmp /dev/shm; do
    if touch "$folder/probe" 2>/dev/null; then echo "$folder is writable" >&2; exit 99; fi
done
cd /
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
    env --ignore-environment "$@"
"""


def closed_folder(path: Path) -> Path | None:
    """The outermost folder on the way to `path` that others may not enter."""
    return next((each for each in [*reversed(path.parents), path] if not each.stat().st_mode & 0o001), None)


def opening(*folders: Path) -> str:
    """Shell lines that show folders, read-only, to others who may not enter them or what is above them."""
    hidden = [folder for folder in folders if closed_folder(folder)]
    lines = ["mount -t tmpfs -o mode=755 tmpfs /mnt"]
    for number, folder in enumerate(hidden):
        lines.append(f"mkdir /mnt/{number}")
        for child in folder.iterdir():
            source, target = shlex.quote(str(child)), shlex.quote(f"/mnt/{number}/{child.name}")
            if child.is_symlink():
                lines.append(f"cp --no-dereference {source} {target}")
            else:
                lines.append(f"{'mkdir' if child.is_dir() else 'touch'} {target}; mount --bind -o ro {source} {target}")
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(closed_folder(folder)))}" for folder in hidden]
    for number, folder in enumerate(hidden):
        place = shlex.quote(str(folder))
        lines.append(f"mkdir -p {place}; mount --rbind /mnt/{number} {place}")
    return "\n".join(lines)


def can_confine() -> bool:
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("unshare", "setpriv")):
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def needs() -> None:
    if not can_confine():
        absent("needs root, unshare and setpriv")


@contextmanager
def confined(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    shown = opening(Path(sys.base_prefix), Path(sys.prefix), ROOT)
    command = ["unshare", "--mount", "sh", "-c", START.replace("OPENING", shown), "sh"]
    variables = ["PATH=/usr/bin:/bin", "TMPDIR=/media", f"PYTHONPATH={ROOT}", "OMP_NUM_THREADS=1"]
    process = subprocess.Popen(
        [*command, *variables, str(COMMAND), "serve", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        while " on http" not in said:
            line = process.stdout.readline()
            assert line, f"it did not start: {said}"
            said += line
        url = said.rpartition(" on ")[2].split()[0]
        end = time.monotonic() + START_S
        while True:
            try:
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, said + process.stdout.read()
            assert time.monotonic() < end, said
            time.sleep(0.1)
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_it_writes_nothing(engine: str) -> None:
    """Torch wants a temporary folder to exist; it makes an empty one there, and nothing else is written."""
    sample = SAMPLE.read_bytes()
    with confined("--engine", engine) as (process, url):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{NOBODY}\t" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        answer = httpx.post(f"{url}/v1/predict?methods=all", content=sample, timeout=60)
        assert answer.json()["results"][0]["predictions"][0]["name"] == "wall clock"
        files = [("file", (f"{index}.jpg", sample, "image/jpeg")) for index in range(20)]
        assert len(httpx.post(f"{url}/v1/predict", files=files, timeout=60).json()["results"]) == 20
        assert httpx.get(f"{url}/docs/swagger-ui.css").status_code == 200
        left = Path(f"/proc/{process.pid}/root/media").rglob("*")
        assert not [path for path in left if not path.is_dir()]
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        log = process.stdout.read().splitlines()
        assert process.wait(15) == 0
    levels = {json.loads(line)["level"] for line in log if line.startswith("{")}
    assert levels <= {"INFO"}
