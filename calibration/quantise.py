"""Post-training quantisation: a backbone to int8, by OpenVINO's NNCF, on calibration images as they are served.

Needed while calibrating, never for serving. The same images make the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from calibration.dataset import LabelledImages
from calibration.loader import read_batches
from scoring.backbone import Backbone
from scoring.engines.openvino import convert
from scoring.engines.quantised import QuantisedNetwork
from scoring.errors import DatasetError, EngineError
from scoring.preprocess import Preprocess
from scoring.types import PixelBatch

IMAGES = 300  # NNCF's own choice for the ranges of activations


def sample(images: LabelledImages, preprocess: Preprocess) -> PixelBatch:
    """Images of all classes, as the network gets them.

    Raises:
        DatasetError: none can be read.
    """
    batches = [batch.pixels for batch in read_batches(images.thin(IMAGES).paths, preprocess)]
    read = [pixels for pixels in batches if pixels is not None]
    if not read:
        raise DatasetError(f"none of {min(IMAGES, len(images.items))} images can be read: nothing to quantise with")
    return torch.cat(read)


def quantise(backbone: Backbone, pixels: PixelBatch) -> QuantisedNetwork:
    """Make int8 of a backbone.

    Args:
        backbone: on the CPU, in float32.
        pixels: images that the ranges of activations are taken from.

    Raises:
        EngineError: nncf is not installed, or cannot quantise the network.
    """
    model = convert(backbone, pixels[:2])
    with _quiet():
        try:
            import nncf  # noqa: PLC0415 - optional, and slow to import
        except ImportError as error:
            raise EngineError("the engine 'openvino:int8' is made by nncf: pip install nncf") from error
        images = [image.permute(1, 2, 0)[None].contiguous().numpy() for image in pixels]
        try:
            quantised = nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))
        except Exception as error:  # whatever it raises, the network is not for it
            raise EngineError(f"nncf cannot quantise the network: {' '.join(str(error).split())[:300]}") from error
    return _to_bytes(quantised)


def _to_bytes(model: Any) -> QuantisedNetwork:
    import openvino  # noqa: PLC0415 - optional

    # Names come from a counter of the process and from variables of the code that was traced. Nothing asks for them;
    # by place they are the same in every run.
    model.set_friendly_name("backbone")
    for place, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(str(place))
        for output in operation.outputs():
            output.get_tensor().set_names(set())
    with tempfile.TemporaryDirectory() as folder:
        xml, constants = Path(folder) / "network.xml", Path(folder) / "network.bin"
        openvino.serialize(model, xml, constants)
        return QuantisedNetwork.from_bytes(xml.read_bytes(), constants.read_bytes())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's words to itself: stdout is for results. Its progress is shown on stderr, if that is a terminal."""
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    logger_class, disabled = logging.getLoggerClass(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(shown):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.setLoggerClass(logger_class)  # which importing nncf has replaced, for everybody
