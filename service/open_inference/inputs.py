"""The one input of a request: encoded images as strings of base64 in the JSON object, or binary behind it."""

from __future__ import annotations

from service.bodies import Encoded, decode_base64, present
from service.open_inference.schemas import HEADER, INPUT, InferRequest, RequestInput
from service.open_inference.tensors import split_elements
from service.problems import MalformedRequestError, TooLargeError


def read_images(request: InferRequest, tail: bytes | None, max_images: int) -> list[Encoded]:
    """The images of a request.

    Args:
        request: its JSON object.
        tail: what follows that; None: it is all.
        max_images: at most.

    Raises:
        MalformedRequestError: there is no such input, or it is not as described.
        TooLargeError: too many images.
    """
    own = _only_input(request)
    size = own.parameters.binary_data_size
    if (own.data is None) == (size is None):
        raise MalformedRequestError(
            "inputs.0: wanted either `data` or, with binary data, `parameters.binary_data_size`"
        )
    if size is not None and tail is None:
        raise MalformedRequestError(f"inputs.0.parameters.binary_data_size: wanted the header {HEADER}, too")
    if (size or 0) != len(tail or b""):
        raise MalformedRequestError(f"{len(tail or b'')} bytes follow the JSON object, its binary_data_size is {size}")
    if own.data is None:
        return [present(image) for image in _elements(own, tail or b"", max_images)]
    return [decode_base64(text) for text in _texts(own, own.data, max_images)]


def _only_input(request: InferRequest) -> RequestInput:
    found = [each.name for each in request.inputs]
    if found != [INPUT]:
        raise MalformedRequestError(f"inputs: wanted one, {INPUT!r}, found {', '.join(map(repr, found))}")
    (own,) = request.inputs
    if own.datatype != "BYTES":
        raise MalformedRequestError(f"inputs.0.datatype: wanted 'BYTES', found {own.datatype!r}")
    if own.shape[1:] not in ([], [1]) or own.shape[0] == 0:
        raise MalformedRequestError(f"inputs.0.shape: wanted [n] or [n, 1] with n above 0, found {own.shape}")
    return own


def _elements(own: RequestInput, tail: bytes, max_images: int) -> list[bytes]:
    if max_images < own.shape[0] <= len(tail) // 4:  # more than that is a lie, and told as one
        raise _too_many(own.shape[0], max_images)
    return split_elements(tail, own.shape[0])


def _texts(own: RequestInput, data: list[str | list[str]], max_images: int) -> list[str]:
    if len(data) != own.shape[0]:
        raise MalformedRequestError(f"inputs.0.shape: {own.shape}, but `data` has {len(data)} elements")
    if len(data) > max_images:
        raise _too_many(len(data), max_images)
    texts = []
    for index, row in enumerate(data):
        if isinstance(row, str):
            texts.append(row)
        elif len(own.shape) == 2 and len(row) == 1:
            texts.append(row[0])
        else:
            raise MalformedRequestError(f"inputs.0.data.{index}: an array of {len(row)}, wanted {own.shape[1:]}")
    return texts


def _too_many(count: int, max_images: int) -> TooLargeError:
    return TooLargeError(f"inputs.0.shape: {count} images, at most {max_images} are accepted")
