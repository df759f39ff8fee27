"""Which files the server reads, and what it says of settings that it cannot make sense of."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.embedded import ARTIFACT
from scoring.engines.engine import EngineChoice
from scoring.errors import LineOodError
from service.settings import Settings
from service.sources import Source, load_all, read_sources

EAGER = EngineChoice.parse("eager")


def test_without_settings_the_embedded_artifact_is_served():
    """One model, which is called after its SPEC as soon as that is known."""
    assert read_sources(Settings()) == [Source("", ARTIFACT)]


def test_names_and_files():
    """NAME=FILE names a model; what has no name in front of its = is a file."""
    sources = read_sources(Settings(artifact=["day=a b,c.safetensors", "runs/lr=0.1/x.safetensors", "./a=b"]))
    assert [(each.name, each.artifact) for each in sources] == [
        ("day", Path("a b,c.safetensors")),
        ("", Path("runs/lr=0.1/x.safetensors")),
        ("", Path("a=b")),
    ]


def test_a_variable_holds_several(monkeypatch):
    """Commas separate, spaces around them do not count, spaces in paths do."""
    monkeypatch.setenv("LINE_OOD_ARTIFACT", "day=my day.safetensors, night=n.safetensors")
    monkeypatch.setenv("LINE_OOD_SHADOW", "night=next.safetensors")
    day, night = read_sources(Settings())
    assert (day.name, day.artifact, day.shadow) == ("day", Path("my day.safetensors"), None)
    assert (night.name, night.artifact, night.shadow) == ("night", Path("n.safetensors"), Path("next.safetensors"))


def test_overrides_are_for_the_artifact_that_they_name():
    """Each is for one artifact, a plain one for the only artifact; a shadow is loaded with its model's."""
    settings = Settings(artifact=["a=x", "b=y"], weights=["b=w.pt"], engine=["a=eager"], shadow=["b=z"])
    a, b = read_sources(settings)
    assert (a.weights, a.engine, a.of_shadow()) == (None, EAGER, None)
    assert b.of_shadow() == Source("b", Path("z"), weights=Path("w.pt"))
    (only,) = read_sources(Settings(artifact=["x"], model=["torchvision:resnet18"], weights=["w.pt"], shadow=["z"]))
    assert only == Source("", Path("x"), "torchvision:resnet18", Path("w.pt"), shadow=Path("z"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"artifact": ["a=x", "b=y"], "weights": ["w.pt"]}, "--weights w.pt: there are 2 artifacts, wanted NAME=w.pt"),
        ({"artifact": ["a=x"], "engine": ["c=eager"]}, "--engine c=eager: no artifact is called 'c' (a)"),
        ({"artifact": ["x"], "weights": ["c=w.pt"]}, "a file with = in its name is ./c=w.pt"),
        ({"artifact": ["a=x"], "shadow": ["y", "a=z"]}, "--shadow a=z: given twice"),
        ({"artifact": ["a=x", "a=y"]}, "2 artifacts are called 'a'"),
        ({"artifact": ["x"], "engine": ["steam"]}, "engine 'steam'"),
    ],
)
def test_what_does_not_fit_together_is_said(settings, message):
    """Before anything is loaded, with the flag, the value and the names that there are."""
    with pytest.raises(LineOodError) as caught:
        read_sources(Settings(**settings))
    assert message in str(caught.value)


def test_two_models_of_one_name_are_refused(tiny_artifact):
    """Names come from SPECs where none is given, and two plain files may have the same."""
    with pytest.raises(LineOodError, match="2 artifacts are called 'tiny': name them"):
        load_all(read_sources(Settings(artifact=[str(tiny_artifact)] * 2)))


@pytest.mark.parametrize("value", ["", "a,,b"])
def test_an_empty_value_is_refused(value):
    """A variable that ends in a comma is a mistake, not an artifact."""
    with pytest.raises(ValueError, match="an empty value"):
        Settings(artifact=value)
