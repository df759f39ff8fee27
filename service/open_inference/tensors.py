"""Elements of tensors and their bytes: little-endian, row-major, without padding.

BOOL is a byte of 0 or 1. An element of BYTES is its length in four bytes, then itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

import numpy as np

from service.problems import MalformedRequestError

DataType = Literal["BOOL", "INT64", "FP32", "FP64", "BYTES"]
Element = TypeVar("Element", bool, int, float, str)

NUMPY = {"BOOL": "?", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}

_LENGTH = struct.Struct("<I")


def split_elements(data: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor.

    Raises:
        MalformedRequestError: `data` is not exactly `count` elements; nothing is allocated that it only claims.
    """
    if count * _LENGTH.size > len(data):
        raise MalformedRequestError(f"inputs.0.shape: {count} elements cannot be in {len(data)} bytes")
    elements, at = [], 0
    for index in range(count):
        if at + _LENGTH.size > len(data):
            raise MalformedRequestError(f"inputs.0: element {index} of {count} is missing, the binary data ends before")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > len(data) - at:
            raise MalformedRequestError(f"inputs.0: element {index} claims {length} bytes, {len(data) - at} follow")
        elements.append(data[at : at + length])
        at += length
    if at != len(data):
        raise MalformedRequestError(f"inputs.0.shape: {count} elements, but {len(data) - at} more bytes follow them")
    return elements


def join_elements(elements: Iterable[bytes]) -> bytes:
    """The bytes of a BYTES tensor."""
    return b"".join([part for element in elements for part in (_LENGTH.pack(len(element)), element)])


def to_bytes(datatype: DataType, elements: Sequence[Element]) -> bytes:
    """The bytes of a tensor."""
    if datatype == "BYTES":
        return join_elements(str(element).encode() for element in elements)
    return np.array(elements, NUMPY[datatype]).tobytes()


def to_json(datatype: DataType, elements: Sequence[Element]) -> list[bool | int | float | str]:
    """The elements as JSON has them: an FP32 is rounded to what its four bytes would say."""
    if datatype == "BYTES":
        return list(elements)
    values: list[bool | int | float | str] = np.array(elements, NUMPY[datatype]).tolist()
    return values
