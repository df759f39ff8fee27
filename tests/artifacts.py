"""A real artifact of a tiny real network, calibrated on generated images: the double of every service test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from calibration.dataset import LabelledImages
from calibration.job import Job, calibrate
from calibration.settings import LineSettings
from scoring.classifier import load_classifier
from scoring.spec import load_spec

TINY_SPEC = f"{Path(__file__).parent / 'factories' / 'tiny.py'}:tiny"
IMAGES_A_CLASS = 40
PLAIN = LineSettings()
ALPHAS = {"default": 0.1, "strict": 0.02}


def write_images(folder: Path, class_count: int, images_a_class: int, seed: int = 0) -> Path:
    """One folder a class, of PNG files with random pixels around a colour of the class."""
    rng = np.random.default_rng(seed)
    for label in range(class_count):
        class_folder = folder / f"class_{label}"
        class_folder.mkdir(parents=True)
        colour = rng.integers(0, 256, 3)
        for index in range(images_a_class):
            pixels = (colour + rng.normal(0, 40, (16, 16, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(class_folder / f"{index:03}.png")
    return folder


def calibrate_tiny(
    folder: Path,
    settings: LineSettings = PLAIN,
    alphas: Mapping[str, float] = ALPHAS,
    spec: str = TINY_SPEC,
    *,
    per_class: bool = False,
) -> Path:
    """Calibrate the tiny network, or another of five classes, on images below `folder` and write the artifact there."""
    parts = load_spec(spec)
    classifier = load_classifier(parts, torch.device("cpu"))
    class_count = len(classifier.head.bias)
    images = LabelledImages.read(write_images(folder / "images", class_count, IMAGES_A_CLASS), None, class_count)
    masks, holdout = images.split(0.5)
    job = Job(spec, masks, holdout, settings, dict(alphas), "tests", parts.class_names, per_class=per_class)
    path = folder / "tiny.safetensors"
    calibrate(job, classifier).artifact.save(path)
    return path
