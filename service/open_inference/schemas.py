"""The JSON of the Open Inference Protocol: what comes in is validated, what goes out is dictionaries.

A parameter that means nothing here is refused: a misspelt `operating_point` must not get the decision of another one.
Other members are passed over: the protocol's own examples have some.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from service.schemas import MAX_INSTANCES

HEADER = "Inference-Header-Content-Length"  # bytes of the JSON object, where binary data follow it
INPUT = "image"
NAME_LENGTH = 200  # of what is told again where it is wrong
LARGEST = 2**63 - 1

Size = Annotated[int, Field(ge=0, le=LARGEST)]
Name = Annotated[str, Field(max_length=NAME_LENGTH)]


class Strict(BaseModel):
    """No `true` where a number is wanted, no "1" either."""

    model_config = ConfigDict(strict=True)


class Parameters(Strict):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")


class InputParameters(Parameters):
    """Of the input."""

    binary_data_size: Annotated[Size | None, Field(description="Bytes of the tensor behind the JSON object.")] = None


class OutputParameters(Parameters):
    """Of an output that is asked for."""

    binary_data: Annotated[bool | None, Field(description="Behind the JSON object, or in it.")] = None


class RequestParameters(Parameters):
    """Of the whole request."""

    operating_point: Annotated[
        Name | None, Field(description="Which operating point decides; the artifact's first otherwise.")
    ] = None
    binary_data_output: Annotated[bool, Field(description="Outputs behind the JSON object, unless they say.")] = False
    timeout: Annotated[Size, Field(description="Microseconds that the request may take; 0: the server's limit.")] = 0


class RequestInput(Strict):
    """The images."""

    name: Annotated[Name, Field(description=f"`{INPUT}`.")]
    shape: Annotated[list[Size], Field(min_length=1, max_length=8, description="[n] or [n, 1].")]
    datatype: Annotated[Name, Field(description="`BYTES`.")]
    parameters: InputParameters = InputParameters()
    data: Annotated[
        list[str | list[str]] | None,
        Field(max_length=MAX_INSTANCES, description="Encoded images in base64, flat or nested as in `shape`."),
    ] = None


class RequestOutput(Strict):
    """An output that is asked for."""

    name: Name
    parameters: OutputParameters = OutputParameters()


class InferRequest(Strict):
    """The JSON object of a request."""

    id: Annotated[str | None, Field(description="Comes back in the answer.")] = None
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[list[RequestInput], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[RequestOutput], Field(max_length=64, description="All of them where none is named.")] = []


class TensorMetadata(TypedDict):
    """An input or output; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class ServerMetadata(TypedDict):
    """Who answers."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(TypedDict):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ResponseOutput(TypedDict):
    """An output: its data here, or so many bytes behind the JSON object."""

    name: str
    datatype: str
    shape: list[int]
    data: NotRequired[list[Any]]
    parameters: NotRequired[dict[str, int]]


class InferResponse(TypedDict):
    """The JSON object of an answer."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    parameters: dict[str, str]
    outputs: list[ResponseOutput]
