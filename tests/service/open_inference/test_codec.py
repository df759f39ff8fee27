"""Bodies to calls and results to bodies, with tritonclient's own encoder and decoder as the oracle."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from scoring.errors import UndecodableError
from service.open_inference.codec import Output, decode, encode, read_header_length
from service.open_inference.results import OUTPUTS
from service.open_inference.tensors import join_elements, split_elements
from service.problems import EmptyImageError, MalformedRequestError, ServiceError, TooLargeError

MAX_IMAGES = 8
PNG = b"\x89PNG and so on"

images = st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=MAX_IMAGES)


def tensor(elements: list[bytes], shape: list[int], *, binary: bool) -> InferInput:
    """As tritonclient makes it."""
    own = InferInput("image", shape, "BYTES")
    own.set_data_from_numpy(np.array(elements, dtype=object).reshape(shape), binary_data=binary)
    return own


def written(elements: list[bytes], shape: list[int], *, binary: bool, **options: Any) -> tuple[bytes, int | None]:
    return InferenceServerClient.generate_request_body([tensor(elements, shape, binary=binary)], **options)


def request(**changes: Any) -> dict[str, Any]:
    """A JSON request for one image, changed."""
    own = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(PNG).decode()]}
    return {"inputs": [own | changes.pop("image", {})]} | changes


def binary_request(tail: bytes, **image: Any) -> tuple[bytes, int]:
    own = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [own | image]}).encode()
    return head + tail, len(head)


def refusal(body: bytes | dict[str, Any], header_length: int | None = None) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        decode(body if isinstance(body, bytes) else json.dumps(body).encode(), header_length, max_images=MAX_IMAGES)
    return caught.value


@given(images, st.booleans(), st.text(min_size=1), st.sampled_from([None, "strict"]))
def test_what_tritonclient_writes_in_binary_is_read(elements, nested, own_id, point):
    """Images, id, parameters and outputs arrive as tritonclient was given them, whatever the bytes."""
    shape = [len(elements), 1] if nested else [len(elements)]
    parameters = {} if point is None else {"operating_point": point}
    call = decode(
        *written(elements, shape, binary=True, request_id=own_id, parameters=parameters, timeout=250_000),
        max_images=MAX_IMAGES,
    )
    assert call.images == elements
    assert (call.id, call.operating_point, call.timeout_s) == (own_id, point, 0.25)
    assert call.outputs == dict.fromkeys(OUTPUTS, True)  # tritonclient's default


@given(images, st.booleans())
def test_what_tritonclient_writes_as_json_is_read(elements, nested):
    """Images in base64 arrive as they were, flat as tritonclient writes them or nested as the shape says."""
    shape = [len(elements), 1] if nested else [len(elements)]
    outputs = [InferRequestedOutput("reject", binary_data=False), InferRequestedOutput("ood_score")]
    body, header_length = written(
        [base64.b64encode(element) for element in elements], shape, binary=False, outputs=outputs
    )
    call = decode(body, header_length, max_images=MAX_IMAGES)
    assert call.images == elements
    assert list(call.outputs.items()) == [("reject", False), ("ood_score", True)]
    if nested:
        parsed = json.loads(body)
        parsed["inputs"][0]["data"] = [[text] for text in parsed["inputs"][0]["data"]]
        assert decode(json.dumps(parsed).encode(), None, max_images=MAX_IMAGES).images == elements


answers = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.text(),
        st.floats(0, 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(0, 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=MAX_IMAGES,
)


@given(answers, st.dictionaries(st.sampled_from(list(OUTPUTS)), st.booleans(), min_size=1))
def test_tritonclient_reads_what_we_write(rows, asked):
    """Every output that was asked for, and no other, has its type, shape and values, in either form."""
    elements = dict(zip(OUTPUTS, map(list, zip(*rows, strict=True)), strict=True))
    outputs = [Output(name, OUTPUTS[name], elements[name], binary) for name, binary in asked.items()]
    head = {"model_name": "m", "model_version": "1", "parameters": {}, "outputs": []}
    body, header_length = encode(head, outputs)
    assert (header_length is None) is not any(asked.values())
    result = InferenceServerClient.parse_response_body(body, header_length=header_length)
    assert [each["name"] for each in result.get_response()["outputs"]] == list(asked)
    for name, binary in asked.items():
        found = result.as_numpy(name)
        assert found.shape == (len(rows),)
        if OUTPUTS[name] == "BYTES":
            texts = [each.decode() if binary else each for each in found.tolist()]
            assert texts == elements[name]
        else:
            wanted = {"INT64": "i8", "FP32": "f4", "FP64": "f8", "BOOL": "?"}[OUTPUTS[name]]
            assert found.dtype == wanted
            assert np.array_equal(found, np.array(elements[name], wanted))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_elements_survive_the_way_there_and_back(elements):
    """Joined and split again, elements are what they were, empty ones too."""
    assert split_elements(join_elements(elements), len(elements)) == elements


@given(st.binary(max_size=200), st.integers(0, 2**63 - 1))
def test_no_bytes_split_into_anything_but_all_of_them(data, count):
    """Whatever the bytes and the count: they are exactly the elements, or refused."""
    try:
        elements = split_elements(data, count)
    except MalformedRequestError:
        return
    assert len(elements) == count and join_elements(elements) == data


@given(st.binary(max_size=300), st.none() | st.integers(0, 400))
def test_no_bytes_crash_the_decoder(body, header_length):
    """Any body with any header gets a refusal of ours."""
    with pytest.raises(ServiceError):
        decode(body, header_length, max_images=MAX_IMAGES)


VALID, VALID_LENGTH = written([PNG, PNG], [2, 1], binary=True, request_id="7", parameters={"operating_point": "p"})


@given(st.integers(0, len(VALID) - 1), st.binary(max_size=6), st.integers(0, 6), st.integers(-3, 3))
def test_no_change_of_a_good_body_crashes_the_decoder(at, inserted, removed, shift):
    """A few bytes exchanged anywhere, and a header that is a little off: an answer or a refusal of ours."""
    body = VALID[:at] + inserted + VALID[at + removed :]
    try:
        call = decode(body, VALID_LENGTH + shift, max_images=MAX_IMAGES)
    except ServiceError:
        return
    assert 1 <= len(call.images) <= MAX_IMAGES


members = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["name", "shape", "datatype", "parameters", "data"]), members)
def test_no_json_in_place_of_the_inputs_members_crashes_the_decoder(member, value):
    """Anything that JSON can say stands in for what is wanted: an answer or a refusal of ours."""
    try:
        call = decode(json.dumps(request(image={member: value})).encode(), None, max_images=MAX_IMAGES)
    except ServiceError:
        return
    assert len(call.images) == 1


@given(st.sampled_from(["id", "parameters", "outputs", "inputs"]), members)
def test_no_json_in_place_of_the_requests_members_crashes_the_decoder(member, value):
    """Likewise for the members of the request."""
    try:
        call = decode(json.dumps(request(**{member: value})).encode(), None, max_images=MAX_IMAGES)
    except ServiceError:
        return
    assert call.images == [PNG]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        ({"inputs": [1]}, "inputs.0: Input should be an object"),
        (request(image={"name": "img"}), "inputs: wanted one, 'image', found 'img'"),
        ({"inputs": request()["inputs"] * 2}, "inputs: wanted one, 'image', found 'image', 'image'"),
        (request(image={"datatype": "UINT8"}), "inputs.0.datatype: wanted 'BYTES', found 'UINT8'"),
        (request(image={"shape": [2]}), "inputs.0.shape: [2], but `data` has 1 elements"),
        (request(image={"shape": [0]}), "wanted [n] or [n, 1] with n above 0, found [0]"),
        (request(image={"shape": [1, 3]}), "wanted [n] or [n, 1] with n above 0, found [1, 3]"),
        (request(image={"shape": [1, 1, 1]}), "found [1, 1, 1]"),
        (request(image={"shape": [True]}), "inputs.0.shape.0: Input should be a valid integer"),
        (request(image={"shape": [-1]}), "inputs.0.shape.0: Input should be greater than or equal to 0"),
        (request(image={"shape": [2**64]}), "inputs.0.shape.0: Input should be less than or equal to"),
        (request(image={"data": [["aa"]]}), "inputs.0.data.0: an array of 1, wanted []"),
        (request(image={"data": [["aa", "aa"]], "shape": [1, 1]}), "inputs.0.data.0: an array of 2, wanted [1]"),
        (request(image={"data": None}), "wanted either `data` or, with binary data, `parameters.binary_data_size`"),
        (request(image={"parameters": {"binary_data_size": 5}}), "wanted either `data` or"),
        (
            request(image={"parameters": {"binary_data_size": 5}, "data": None}),
            "binary_data_size: wanted the header Inference-Header-Content-Length, too",
        ),
        (request(image={"parameters": {"shared_memory_region": "r"}}), "shared_memory_region: no such parameter here"),
        (request(outputs=[{"name": "logits"}]), "outputs.0: 'logits', wanted each once, of class_index, class_name"),
        (request(outputs=[{"name": "reject"}] * 2), "outputs.1: 'reject', wanted each once"),
        (
            request(outputs=[{"name": "reject", "parameters": {"classification": 2}}]),
            "outputs.0.parameters.classification: no such parameter here, wanted binary_data",
        ),
        (
            request(parameters={"operating_piont": "strict"}),
            "parameters.operating_piont: no such parameter here, wanted operating_point or binary_data_output",
        ),
        (request(parameters={"timeout": "1"}), "parameters.timeout: Input should be a valid integer"),
        (request(id=7), "id: Input should be a valid string"),
        (b"\xff\xfe", "the JSON object: Invalid JSON"),
        (b"", "the JSON object: Invalid JSON"),
    ],
)
def test_a_refusal_says_where_and_what_is_wanted(body, told):
    """Each mistake gets a message of its own."""
    error = refusal(body)
    assert isinstance(error, MalformedRequestError)
    assert told in str(error)


@pytest.mark.parametrize(
    ("tail", "image", "told"),
    [
        (b"", {}, "inputs.0.shape: 1 elements cannot be in 0 bytes"),
        (b"\xff\xff\xff\xffab", {}, "inputs.0: element 0 claims 4294967295 bytes, 2 follow"),
        (join_elements([PNG]) + b"x", {}, "1 elements, but 1 more bytes follow them"),
        (join_elements([PNG]), {"shape": [2]}, "element 1 of 2 is missing"),
        (join_elements([PNG]), {"shape": [2**62]}, f"{2**62} elements cannot be in"),
        (join_elements([PNG]), {"parameters": {"binary_data_size": 2**62}}, f"its binary_data_size is {2**62}"),
        (join_elements([PNG]), {"parameters": {"binary_data_size": 1}}, "bytes follow the JSON object"),
        (b"abc", {"parameters": {}, "data": ["aaaa"]}, "3 bytes follow the JSON object, its binary_data_size is None"),
    ],
)
def test_lengths_that_lie(tail, image, told):
    """Whatever a length claims, it is held against what is there."""
    error = refusal(*binary_request(tail, **image))
    assert isinstance(error, MalformedRequestError)
    assert told in str(error)


def test_a_header_that_lies():
    """A JSON object longer than the body, or of no length, or cut in its midst."""
    body, length = binary_request(join_elements([PNG]))
    assert f"{len(body) + 1}: the body has {len(body)} bytes" in str(refusal(body, len(body) + 1))
    assert "/v1/predict takes an image as it is" in str(refusal(body, 0))
    assert "Invalid JSON" in str(refusal(body, length - 1))
    assert decode(body, length, max_images=1).images == [PNG]


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "0x10", "٣", "9" * 19, "1,1"])
def test_a_header_that_is_no_number(text):
    """The header is told as it was found."""
    with pytest.raises(MalformedRequestError, match="Inference-Header-Content-Length"):
        read_header_length(text)


def test_a_header_that_is_a_number():
    """Absent, it says nothing."""
    assert (read_header_length(None), read_header_length("0"), read_header_length("0123")) == (None, 0, 123)


@pytest.mark.parametrize("binary", [True, False])
def test_too_many_images(binary):
    """One more than allowed is refused as such, in either form."""
    elements = [b"aaaa"] * (MAX_IMAGES + 1)
    error = refusal(*written(elements, [len(elements)], binary=binary))
    assert isinstance(error, TooLargeError)
    assert f"{MAX_IMAGES + 1} images, at most {MAX_IMAGES} are accepted" in str(error)


def test_a_bad_element_is_the_images_own_failure():
    """Empty images and what is not base64 are left to the one place that tells of failed images."""
    (empty,) = decode(*binary_request(join_elements([b""])), max_images=1).images
    assert isinstance(empty, EmptyImageError)
    broken = decode(json.dumps(request(image={"data": ["%", "é"], "shape": [2]})).encode(), None, max_images=2).images
    assert [type(each) for each in broken] == [UndecodableError, UndecodableError]


@pytest.mark.parametrize("default", [True, False])
def test_an_output_overrides_the_requests_default(default):
    """Where an output says nothing, `binary_data_output` holds; where it says, that holds, either way."""
    outputs = [{"name": "reject", "parameters": {"binary_data": not default}}, {"name": "p_value"}]
    body = json.dumps(request(outputs=outputs, parameters={"binary_data_output": default})).encode()
    assert decode(body, None, max_images=1).outputs == {"reject": not default, "p_value": default}


MEGABYTES = 10 * 2**20


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MEGABYTES,
        b'{"inputs":' * (MEGABYTES // 10),
        b'{"inputs":[' + b"[]," * (MEGABYTES // 3),
        b'{"more":[' + b"[]," * (MEGABYTES // 3) + b"1]}",  # well-formed: a parser would make an object of each
        b'{"parameters":{' + b'"a":1,' * (MEGABYTES // 6),
        json.dumps(request(image={"data": [""] * (MEGABYTES // 4), "shape": [MEGABYTES // 4]})).encode(),
        b'{"inputs":' + b"9" * MEGABYTES,
        b'{"inputs":"' + b"\\u0000" * (MEGABYTES // 6),
        json.dumps(request(image={"name": "n" * MEGABYTES})).encode(),
        json.dumps(request(parameters={"p" * MEGABYTES: 1})).encode(),
    ],
    ids=[
        "nested",
        "nested objects",
        "empty arrays",
        "well-formed empty arrays",
        "parameters",
        "elements",
        "number",
        "escapes",
        "name",
        "parameter",
    ],
)
def test_ten_hostile_megabytes_are_refused_quickly_and_briefly(body):
    """Less than a second, no memory beyond a few times the body, a message that does not repeat it."""
    tracemalloc.start()
    try:
        started = time.monotonic()
        error = refusal(body)
        seconds = time.monotonic() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 4 * MEGABYTES
    assert len(str(error)) < 1000
