"""docs/open-inference.md runs as it stands, against the real command with its embedded default."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest

from scoring.embedded import SAMPLE
from tests.data import ROOT
from tests.processes import running_server


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "open-inference.md").read_text(), re.DOTALL)
    return code


def test_the_documents_example_says_what_predict_says():
    """Class, score and decision of the sample are printed as /v1/predict answers them."""
    with running_server() as server:
        code = example()
        assert code.count("127.0.0.1:8080") == 1
        code = code.replace("127.0.0.1:8080", server.url.removeprefix("http://"))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        answer = httpx.post(f"{server.url}/v1/predict?top_k=1", content=SAMPLE.read_bytes()).json()["results"][0]
        assert server.terminate() == 0
    (line,) = done.stdout.splitlines()
    name, score, reject = re.fullmatch(r"(.+): ood_score (\S+), reject (True|False)", line).groups()
    assert name == answer["predictions"][0]["name"]
    assert float(score) == pytest.approx(answer["ood"]["score"], abs=0.01)
    assert reject == str(answer["ood"]["reject"])
