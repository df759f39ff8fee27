"""Names of files, folders and classes, which may hold anything, made fit to be shown."""

from __future__ import annotations

LONGEST = 28  # characters that fit beside an axis


def printable(name: str) -> str:
    """The name, with a question mark for what cannot be shown: bytes that are no text, line ends, ..."""
    return "".join(character if character.isprintable() else "?" for character in name)


def label(name: str) -> str:
    """The same for a picture, where room is short, and a leading underscore would keep it out of the legend."""
    shown = printable(name)
    shortened = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    return " " + shortened if shortened.startswith("_") else shortened
