"""The real tritonclient, waiting and asynchronous, against a real server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from scoring.scorer import Scorer
from tests.service.conftest import LiveApp, encode

OUTPUTS = {
    "class_index": np.int64,
    "class_name": np.object_,
    "probability": np.float32,
    "ood_score": np.float64,
    "p_value": np.float64,
    "reject": np.bool_,
}


@pytest.fixture
def app(start: Callable[..., LiveApp], scorer: Scorer) -> LiveApp:
    return start(scorer)


@pytest.fixture
def client(app: LiveApp) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(app.url.removeprefix("http://"), concurrency=4) as client:
        yield client


def inputs(images: list[bytes], shape: list[int] | None = None, *, binary: bool = True) -> list[triton.InferInput]:
    shape = shape or [len(images)]
    own = triton.InferInput("image", shape, "BYTES")
    elements = images if binary else [base64.b64encode(image) for image in images]
    own.set_data_from_numpy(np.array(elements, dtype=object).reshape(shape), binary_data=binary)
    return [own]


def predicted(app: LiveApp, images: list[bytes], **query: str) -> list[dict[str, Any]]:
    """What /v1/predict says."""
    files = [("f", ("x", image)) for image in images]
    return httpx.post(f"{app.url}/v1/predict", files=files, params={"top_k": 1, **query}).json()["results"]


def check(result: triton.InferResult, wanted: list[dict[str, Any]], *, binary: bool = True) -> None:
    """Every output is a numpy array of its type and says what /v1/predict says."""
    found = {name: result.as_numpy(name) for name in OUTPUTS}
    for name, dtype in OUTPUTS.items():
        assert found[name].dtype == dtype and found[name].shape == (len(wanted),)
    best = [each["predictions"][0] for each in wanted]
    names = [each.decode() if binary else each for each in found["class_name"].tolist()]
    assert found["class_index"].tolist() == [each["index"] for each in best]
    assert names == [each["name"] for each in best]
    assert found["probability"] == pytest.approx([each["probability"] for each in best], abs=1e-5)
    assert found["ood_score"] == pytest.approx([each["ood"]["score"] for each in wanted], abs=1e-4)
    assert found["p_value"] == pytest.approx([each["ood"]["p_value"] for each in wanted], abs=1e-6)
    assert found["reject"].tolist() == [each["ood"]["reject"] for each in wanted]


def refusal(status: int) -> Any:
    return pytest.raises(InferenceServerException, match=rf"^\[{status}\] ")


def test_health_and_metadata(client, scorer):
    """The client finds the server live and ready, the model ready, and both described."""
    version = scorer.artifact.artifact_id
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("tiny") and client.is_model_ready("tiny", version)
    assert not client.is_model_ready("other") and not client.is_model_ready("tiny", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "parameters"]
    own = client.get_model_metadata("tiny")
    assert own == client.get_model_metadata("tiny", version)
    assert [(each["name"], each["datatype"]) for each in own["inputs"]] == [("image", "BYTES")]
    assert [each["name"] for each in own["outputs"]] == list(OUTPUTS)
    with refusal(404):
        client.get_model_metadata("other")


@pytest.mark.parametrize("count", [1, 8, 64])
@pytest.mark.parametrize("nested", [False, True])
def test_batches_in_binary(client, app, count, nested):
    """What is asked in binary is answered in binary, for [n] and for [n, 1], up to the largest request."""
    images = [encode(seed) for seed in range(count)]
    result = client.infer("tiny", inputs(images, [count, 1] if nested else None), request_id="7")
    check(result, predicted(app, images))
    assert result.get_response()["id"] == "7"
    assert all("binary_data_size" in each["parameters"] for each in result.get_response()["outputs"])


def test_json_both_ways(client, app):
    """Base64 in, numbers and names out, without a byte of binary."""
    images = [encode(seed) for seed in range(3)]
    outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS]
    result = client.infer("tiny", inputs(images, binary=False), outputs=outputs)
    check(result, predicted(app, images), binary=False)
    assert all("data" in each for each in result.get_response()["outputs"])


def test_some_outputs_in_either_form(client, app):
    """Only what was asked for is answered, in that order, each in the form that was asked for."""
    outputs = [
        triton.InferRequestedOutput("reject", binary_data=False),
        triton.InferRequestedOutput("class_name"),
        triton.InferRequestedOutput("ood_score"),
    ]
    images = [encode(seed) for seed in range(5)]
    result = client.infer("tiny", inputs(images), outputs=outputs)
    wanted = predicted(app, images)
    assert [each["name"] for each in result.get_response()["outputs"]] == ["reject", "class_name", "ood_score"]
    assert result.as_numpy("reject").tolist() == [each["ood"]["reject"] for each in wanted]
    names = [each["predictions"][0]["name"].encode() for each in wanted]
    assert result.as_numpy("class_name").tolist() == names
    assert result.as_numpy("ood_score") == pytest.approx([each["ood"]["score"] for each in wanted], abs=1e-4)
    assert result.as_numpy("p_value") is None


def test_parameters_and_version(client, app, scorer):
    """The operating point that the client names decides; the version is the artifact's id."""
    images = [encode(seed) for seed in range(16)]
    for point in scorer.artifact.operating_points:
        result = client.infer(
            "tiny",
            inputs(images),
            model_version=scorer.artifact.artifact_id,
            parameters={"operating_point": point},
            timeout=5_000_000,
        )
        check(result, predicted(app, images, operating_point=point))
        assert result.get_response()["parameters"]["operating_point"] == point


def test_errors_reach_the_client(client):
    """Status and text arrive as the client's own exception."""
    good = encode()
    with refusal(404) as caught:
        client.infer("other", inputs([good]))
    assert "no model 'other': there is tiny" in caught.value.message()
    with refusal(422) as caught:
        client.infer("tiny", inputs([good, b"hello", good]))
    assert caught.value.message().startswith("1 of 3 images could not be scored, so none is answered: image 1: ")
    with refusal(415):
        client.infer("tiny", inputs([b"hello"]))
    with refusal(413):
        client.infer("tiny", inputs([good] * 65))
    with refusal(400) as caught:
        client.infer("tiny", inputs([good]), outputs=[triton.InferRequestedOutput("logits")])
    assert "wanted each once, of class_index" in caught.value.message()
    with refusal(400) as caught:
        client.infer("tiny", inputs([good]), priority=1)
    assert "parameters.priority: no such parameter here" in caught.value.message()
    with refusal(400) as caught:
        client.infer("tiny", inputs([good]), outputs=[triton.InferRequestedOutput("class_name", class_count=3)])
    assert "classification: no such parameter here" in caught.value.message()
    assert client.infer("tiny", inputs([good])).as_numpy("reject").shape == (1,)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client, app, algorithm):
    """A compressed request is a clear 415; a compressed answer may be asked for and is not given."""
    with refusal(415) as caught:
        client.infer("tiny", inputs([encode()]), request_compression_algorithm=algorithm)
    assert f"Content-Encoding '{algorithm}': wanted the body as it is" in caught.value.message()
    result = client.infer("tiny", inputs([encode()]), response_compression_algorithm=algorithm)
    check(result, predicted(app, [encode()]))


def test_requests_side_by_side(client, app):
    """Each of several requests under way gets its own answer."""
    images = [[encode(10 * row + column) for column in range(row + 1)] for row in range(8)]
    pending = [client.async_infer("tiny", inputs(own)) for own in images]
    for own, each in zip(images, pending, strict=True):
        check(each.get_result(), predicted(app, own))


def test_the_asynchronous_client(app, scorer):
    """The same over asyncio: health, metadata, answers, errors, many at once."""
    images = [[encode(10 * row + column) for column in range(row + 1)] for row in range(8)]

    async def ask() -> list[triton.InferResult]:
        async with triton_aio.InferenceServerClient(app.url.removeprefix("http://")) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready("tiny", scorer.artifact.artifact_id)
            assert not await client.is_model_ready("other")
            assert (await client.get_model_metadata("tiny"))["name"] == "tiny"
            with refusal(422) as caught:
                await client.infer("tiny", inputs([b"hello"] * 2))
            assert "2 of 2 images" in caught.value.message()
            with refusal(415):
                await client.infer("tiny", inputs(images[0]), request_compression_algorithm="gzip")
            return await asyncio.gather(*[client.infer("tiny", inputs(own)) for own in images])

    for own, result in zip(images, asyncio.run(ask()), strict=True):
        check(result, predicted(app, own))
