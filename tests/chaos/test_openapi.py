"""The OpenAPI document, taken at its word: schemathesis asks what it allows and what it forbids, with a key or none."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import ENVIRONMENT
from tests.chaos.figures import record
from tests.chaos.scale import SCALE
from tests.processes import RunningServer, running_server

ADMIN = "the-key-of-an-admin"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)


@pytest.fixture(scope="module")
def keyed(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with keys; the model is called `a`, so that names made at random find it."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"admin:{hashlib.sha256(ADMIN.encode()).hexdigest()}\n")
    flags = ("--artifact", f"a={tiny_artifact}", "--api-keys", str(keys), "--admin-keys", str(keys))
    with running_server(*flags, env=ENVIRONMENT) as server:
        yield server
        assert server.terminate() == 0


@pytest.mark.parametrize("key", [ADMIN, None], ids=["an admin", "nobody"])
def test_the_document_is_kept(keyed: RunningServer, tmp_path: Path, key: str | None):
    """No status, type or form of an answer that it does not have, and no 5xx."""
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"{keyed.url}/openapi.json",
        "--phases=coverage,fuzzing",
        f"--checks={','.join(CHECKS)}",
        f"--max-examples={SCALE.examples}",
        "--seed=1",
        "--continue-on-failure",
        "--suppress-health-check=all",
        "--warnings=off",
        "--no-color",
        *(["--header", f"X-API-Key: {key}"] if key else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) generated", done.stdout)
    assert found and int(found[1]) > 19 * SCALE.examples / 2, done.stdout
    record(f"requests made of the OpenAPI document by {'an admin' if key else 'nobody'}", int(found[1]), {}, None)
