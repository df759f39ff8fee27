"""A backbone whose calibration has made int8 of it: what an artifact carries for `openvino:int8`.

OpenVINO's own pair of files: XML that says which operations there are, and the bytes of all constants. Nothing else is
needed to run it, neither the images that it was quantised on nor the package that did so.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Bytes = UInt8[Tensor, "bytes"]


class QuantisedNetwork(NamedTuple):
    """Pixels (batch, height, width, 3) to features (batch, feature).

    Attributes:
        xml: the operations.
        constants: weights in int8, and their scales.
    """

    xml: Bytes
    constants: Bytes

    @classmethod
    def from_bytes(cls, xml: bytes, constants: bytes) -> QuantisedNetwork:
        """The content of the two files."""
        return cls(*(torch.from_numpy(np.frombuffer(each, dtype=np.uint8).copy()) for each in (xml, constants)))

    def digest(self) -> str:
        """SHA-256 over both parts and where the first ends."""
        sha = hashlib.sha256(f"{len(self.xml)}\n".encode())
        for part in self:
            sha.update(part.numpy().data)
        return sha.hexdigest()
