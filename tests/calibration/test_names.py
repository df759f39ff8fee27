"""Names that may hold anything."""

from __future__ import annotations

import os

from calibration.names import label, printable


def test_printable() -> None:
    """Bytes that are no text, line ends and characters that turn the line around are shown as question marks."""
    assert printable(os.fsdecode(b"caf\xe9\n.png")) == "caf??.png"
    assert printable("a\u202egnp.exe\ud800") == "a?gnp.exe?"
    assert printable("<script>日本.png") == "<script>日本.png"


def test_label() -> None:
    """In a picture a name has at most 28 characters, and never begins with an underscore."""
    names = ("$x^{$", "_hidden", "a\nb", "long" * 7, "long" * 40, "")
    wanted = ("$x^{$", " _hidden", "a?b", "long" * 7, "longlonglonglonglonglonglon…", "")
    assert tuple(map(label, names)) == wanted
