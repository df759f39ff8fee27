"""Running our own command on folders made of parts of a data set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from calibration.dataset import LabelledImages

COMMAND = Path(sys.executable).with_name("line-ood")


def line_ood(*arguments: object, cwd: Path) -> None:
    """Run a command of ours; its output is the terminal's."""
    subprocess.run([COMMAND, *map(str, arguments)], cwd=cwd, check=True)


def evaluate(artifact: Path, inside: Path, ood: Mapping[str, Path], out: Path, *flags: object) -> None:
    """Run `line-ood evaluate` against several OOD folders."""
    folders = [f"--ood={name}={folder}" for name, folder in ood.items()]
    line_ood("evaluate", "--artifact", artifact, "--id", inside, *folders, "--out", out, *flags, cwd=out.parent)


def link(images: LabelledImages, folder: Path) -> None:
    """Make a folder with one folder a class; classes without images get an empty one."""
    for name in images.class_folders:
        (folder / name).mkdir(parents=True)
    for path, label in images.items:
        (folder / images.class_folders[label] / path.name).symlink_to(path)
