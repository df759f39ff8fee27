"""The tiny network behind libjpeg-turbo instead of Pillow."""

from __future__ import annotations

from scoring.spec import ClassifierParts
from tests.factories.tiny import tiny


def turbo() -> ClassifierParts:
    parts = tiny()
    return parts._replace(preprocess=parts.preprocess.model_copy(update={"decoder": "turbo"}))
