"""The data files of this package, by name. Light to import, for the command line's help."""

from __future__ import annotations

from importlib import resources

from scoring.errors import DatasetError

SUFFIX = ".json"


def names() -> tuple[str, ...]:
    """The benchmarks there are, in alphabetical order."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX)))


def read(name: str) -> str:
    """The data of a benchmark, as JSON.

    Raises:
        DatasetError: there is none of that name; says which there are.
    """
    if name not in names():
        raise DatasetError(f"benchmark {name!r}: wanted one of {', '.join(names())}")
    return (resources.files(__package__) / f"{name}{SUFFIX}").read_text(encoding="utf-8")
