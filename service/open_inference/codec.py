"""Bodies to calls, results to bodies; pure functions.

    body = JSON object [+ binary data of the input]     Inference-Header-Content-Length: bytes of the JSON object

Without that header all of the body is JSON and the images are strings of base64 in it. Nothing is believed: each length
and count that a request claims is held against what is there before anything of that size is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from service.bodies import Encoded, check_marks
from service.open_inference.inputs import read_images
from service.open_inference.results import OUTPUTS
from service.open_inference.schemas import (
    HEADER,
    NAME_LENGTH,
    InferRequest,
    InferResponse,
    InputParameters,
    OutputParameters,
    Parameters,
    RequestParameters,
    ResponseOutput,
)
from service.open_inference.tensors import DataType, to_bytes, to_json
from service.problems import MalformedRequestError, TooLargeError

PARAMETERS: dict[str, type[Parameters]] = {  # by the member of the request that they are of
    "inputs": InputParameters,
    "outputs": OutputParameters,
    "parameters": RequestParameters,
}


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for.

    Attributes:
        images: in their order.
        outputs: names in the order of the answer, and whether each is to be binary.
        operating_point: its name, if one is asked for.
        timeout_s: how long it may take, if it says.
        id: to be echoed.
    """

    images: list[Encoded]
    outputs: dict[str, bool]
    operating_point: str | None
    timeout_s: float | None
    id: str | None


@dataclass(frozen=True, slots=True)
class Output:
    """One output of an answer: an element an image."""

    name: str
    datatype: DataType
    elements: list[Any]
    binary: bool


def read_header_length(text: str | None) -> int | None:
    """The header's value, if there is one.

    Raises:
        MalformedRequestError: it is not a number.
    """
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", text):
        raise MalformedRequestError(f"{HEADER} {text[:NAME_LENGTH]!r}: wanted the number of bytes of the JSON object")
    return int(text)


def decode(body: bytes, header_length: int | None, *, max_images: int) -> Call:
    """Read a request.

    Args:
        body: all of it.
        header_length: bytes of its JSON object; None: there is nothing else.
        max_images: at most.

    Raises:
        MalformedRequestError: it is not as the protocol says, or asks for what is not there.
        TooLargeError: too many images.
    """
    head, tail = _split(body, header_length)
    request = _parse(head)
    return Call(
        images=read_images(request, tail, max_images),
        outputs=_outputs(request),
        operating_point=request.parameters.operating_point,
        timeout_s=request.parameters.timeout / 1e6 or None,
        id=request.id,
    )


def encode(response: InferResponse, outputs: list[Output]) -> tuple[bytes, int | None]:
    """Write an answer: its body, and the bytes of its JSON object if that is not all.

    Args:
        response: all but its outputs.
        outputs: these.
    """
    described, tails = [], []
    for output in outputs:
        own = ResponseOutput(name=output.name, datatype=output.datatype, shape=[len(output.elements)])
        if output.binary:
            tails.append(to_bytes(output.datatype, output.elements))
            own["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            own["data"] = to_json(output.datatype, output.elements)
        described.append(own)
    head = orjson.dumps({**response, "outputs": described})
    return b"".join([head, *tails]), len(head) if tails else None


def _split(body: bytes, header_length: int | None) -> tuple[bytes, bytes | None]:
    if header_length is None:
        return body, None
    if header_length == 0:
        raise MalformedRequestError(f"{HEADER} 0: wanted a JSON object first; /v1/predict takes an image as it is")
    if header_length > len(body):
        raise MalformedRequestError(f"{HEADER} {header_length}: the body has {len(body)} bytes")
    return body[:header_length], body[header_length:]


def _parse(head: bytes) -> InferRequest:
    check_marks(head)
    try:
        return InferRequest.model_validate_json(head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:NAME_LENGTH] or "the JSON object"
        if first["type"] == "extra_forbidden":
            known = " or ".join(PARAMETERS[str(first["loc"][0])].model_fields)
            raise MalformedRequestError(f"{where}: no such parameter here, wanted {known}") from error
        if first["type"] == "too_long" and first["loc"][-1] == "data":
            raise TooLargeError(f"{where}: {first['msg']}") from error
        raise MalformedRequestError(f"{where}: {first['msg']}") from error


def _outputs(request: InferRequest) -> dict[str, bool]:
    default = request.parameters.binary_data_output
    if not request.outputs:
        return dict.fromkeys(OUTPUTS, default)
    asked: dict[str, bool] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in OUTPUTS or output.name in asked:
            raise MalformedRequestError(f"outputs.{index}: {output.name!r}, wanted each once, of {', '.join(OUTPUTS)}")
        own = output.parameters.binary_data
        asked[output.name] = default if own is None else own
    return asked
