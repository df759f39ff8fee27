"""SPEC: a short string that names a classifier, and the loading of what it names.

    torchvision:resnet50                    newest published weights, or --weights FILE
    torchvision:resnet50.IMAGENET1K_V1      these weights, with their own preprocessing and class names
    timm:resnet50.a1_in1k                   needs timm
    path/to/file.py:factory                 a function without arguments
    package.module:factory                  likewise

A factory returns the module, or `ClassifierParts`: the module with its preprocessing and class names.
Loading a SPEC runs its code: an artifact that names one is to be trusted like a program.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from scoring.errors import SpecError
from scoring.preprocess import Preprocess

StateDict = Mapping[str, Tensor]
CHECKPOINT_KEYS = ("state_dict", "model")
FORMS = "torchvision:NAME, timm:NAME, FILE.py:FACTORY or MODULE:FACTORY"


class ClassifierParts(NamedTuple):
    """What a SPEC stands for.

    Attributes:
        module: images (batch, 3, height, width), normalised, to logits (batch, class).
        preprocess: how it wants its images, where that is known.
        class_names: one a logit, where they are known.
    """

    module: nn.Module
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None


def load_spec(spec: str, weights: Path | None = None) -> ClassifierParts:
    """Build the classifier that `spec` names, with the weights in `weights` where given.

    Raises:
        SpecError: says what is wrong with the SPEC, the code behind it or the weights.
    """
    origin, separator, name = spec.rpartition(":")
    if not separator or not origin or not name:
        raise SpecError(f"model {spec!r}: wanted {FORMS}")
    state = None if weights is None else read_state_dict(weights)
    if origin == "torchvision":
        return _from_torchvision(name, state)
    if origin == "timm":
        return _from_timm(name, state)
    return _from_factory(spec, _import_origin(origin, spec), name, state)


def read_state_dict(path: Path) -> StateDict:
    """Read weights: a state dict, or a checkpoint that holds one under `state_dict` or `model`.

    Files ending in `.safetensors` are read as such; all others with `weights_only=True`, so that no code runs.

    Raises:
        SpecError: the file is missing, not readable, or holds no state dict.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a broken file makes the unpickler raise anything from struct.error to IndexError
        raise SpecError(f"weights {path}: {_first_line(error)}") from error
    for key in CHECKPOINT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(map(_is_entry, content.items())):
        raise SpecError(f"weights {path}: wanted a state dict, alone or under one of {CHECKPOINT_KEYS}")
    return content


def _from_torchvision(name: str, state: StateDict | None) -> ClassifierParts:
    architecture, _, version = name.partition(".")
    if architecture.lower() not in torchvision.models.list_models(module=torchvision.models):
        raise SpecError(f"torchvision has no model {architecture!r} among its classifiers")
    try:
        entries = torchvision.models.get_model_weights(architecture)
        entry = entries[version] if version else entries.DEFAULT
    except KeyError as error:
        known = ", ".join(each.name for each in entries)
        raise SpecError(f"torchvision's {architecture} has no weights {version!r}, it has {known}") from error
    build = partial(torchvision.models.get_model, architecture)
    if state is None:
        return _published(_download(f"torchvision:{name}", partial(build, weights=entry)), entry)
    module = _build_for(state, build, f"torchvision:{name}")
    # Without the entry's name the file is one's own, and nobody says how it was trained.
    return _published(module, entry) if version else ClassifierParts(module)


def _published(module: nn.Module, entry: Any) -> ClassifierParts:
    names = tuple(entry.meta["categories"])
    is_own_head = list(module.state_dict().values())[-1].shape[0] != len(names)
    return ClassifierParts(module, Preprocess.from_torchvision(entry.transforms()), None if is_own_head else names)


def _from_timm(name: str, state: StateDict | None) -> ClassifierParts:
    try:
        import timm  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise SpecError(f"model 'timm:{name}' needs the package timm: pip install timm") from error
    if not timm.is_model(name):
        raise SpecError(f"timm has no model {name!r}")
    build = partial(timm.create_model, name)
    if state is None:
        module = _download(f"timm:{name}", partial(build, pretrained=True))
    else:
        module = _build_for(state, build, f"timm:{name}")
    known = state is None or "." in name  # a bare architecture with a file of one's own says nothing of its images
    return ClassifierParts(module, _timm_preprocess(timm.data.resolve_model_data_config(module)) if known else None)


def _timm_preprocess(config: Mapping[str, Any]) -> Preprocess | None:
    _, height, width = config["input_size"]
    if config["crop_mode"] != "center" or height != width:
        return None
    return Preprocess(
        resize=math.floor(height / config["crop_pct"]),
        crop=(height, width),
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
    )


def _from_factory(spec: str, origin: ModuleType, name: str, state: StateDict | None) -> ClassifierParts:
    factory: Callable[[], object] | None = getattr(origin, name, None)
    if not callable(factory):
        raise SpecError(f"model {spec!r}: {origin.__name__} has no function {name!r}")
    made = _run(spec, factory)
    parts = made if isinstance(made, ClassifierParts) else ClassifierParts(made)
    if not isinstance(parts.module, nn.Module):
        raise SpecError(f"model {spec!r}: wanted an nn.Module or ClassifierParts, found {type(made).__name__}")
    if not isinstance(parts.preprocess, Preprocess | None):
        raise SpecError(f"model {spec!r}: wanted a Preprocess, found {type(parts.preprocess).__name__}")
    if (
        isinstance(parts.class_names, str)
        or not isinstance(parts.class_names, Sequence | None)
        or not all(isinstance(n, str) for n in parts.class_names or ())
    ):
        raise SpecError(f"model {spec!r}: wanted a sequence of class names, found {parts.class_names!r}")
    if state is not None:
        _load_state(parts.module, state, spec)
    return parts


def _import_origin(origin: str, spec: str) -> ModuleType:
    importer = (
        partial(_import_file, Path(origin)) if origin.endswith(".py") else partial(importlib.import_module, origin)
    )
    module: ModuleType = _run(spec, importer)
    return module


def _run(spec: str, code: Callable[[], Any]) -> Any:
    """Run code that is not ours; what it raises is told with the place."""
    try:
        return code()
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise SpecError(
            f"model {spec!r}: {type(error).__name__}: {_first_line(error)} ({place.filename}:{place.lineno})"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    # One name a file, so that two factories called model.py do not meet.
    name = f"line_ood_spec_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    description = importlib.util.spec_from_file_location(name, path)
    assert description is not None and description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    description.loader.exec_module(module)
    return module


def _build_for(state: StateDict, build: Callable[..., nn.Module], spec: str) -> nn.Module:
    """Build an architecture with as many classes as a state dict has, and load that."""
    try:
        with torch.device("meta"):
            blank = build()
    except Exception:  # a few constructors read the numbers that they have just made
        blank = _run(spec, build)
    *_, head = blank.state_dict()  # both libraries define the head last; a file may have any order
    found = state.get(head)
    if found is None or not found.shape:
        raise SpecError(f"the weights do not fit {spec}: they have no tensor {head!r}, or a scalar there")
    module: nn.Module = _run(spec, partial(build, num_classes=found.shape[0]))
    _load_state(module, state, spec)
    return module


def _download(spec: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except Exception as error:  # no connection, no such tag, no space: each hub has errors of its own
        raise SpecError(
            f"the weights of {spec} cannot be downloaded, give them with --weights FILE: {_first_line(error)}"
        ) from error


def _is_entry(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _load_state(module: nn.Module, state: StateDict, spec: str) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"the weights do not fit {spec}: {reason[:500]}") from error
