"""Serves the same network with everybody's server, loads each in turn, and compares.

    python -m benchmarks.serving DATA [--only mosec,triton] [--seconds 8] [--rounds 3] [--out DIR]

DATA holds imagenet_sample. Writes results.json, serving.md and serving.png. Everything that is made on the way lies in
.bench, and is used again.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.serving import network, ours, tiny
from benchmarks.serving.contest import Contest, Results
from benchmarks.serving.contestants import NULL, PEERS
from benchmarks.serving.folders import BENCH, NETWORK, make_folders
from benchmarks.serving.load import check_installed
from benchmarks.serving.pictures import originals, padded, tiny_classes, write_list
from benchmarks.serving.processes import DeadServerError
from benchmarks.serving.report import write

NAMES = tuple(contestant.name for contestant in (*PEERS, NULL))
TINY_PICTURES = BENCH / "tiny"
TINY_PER_CLASS = 20
BODY_BYTES = 110_000  # about what the photographs have


def main(arguments: list[str]) -> None:
    """Prepare, play, write."""
    given = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # so that no server is left running
    check_installed()
    make_folders()
    data = given.data.resolve()
    photographs = originals(data)
    network.make(photographs, NETWORK)
    ours.prepare(ours.ARTIFACT, data / "imagenet_sample")
    if "ours_int8" in given.only:
        ours.prepare(ours.INT8_ARTIFACT, data / "imagenet_sample")
    tiny_classes(TINY_PICTURES, tiny.CLASSES, TINY_PER_CLASS, tiny.SIDE)
    ours.prepare(ours.TINY_ARTIFACT, TINY_PICTURES)
    contest = Contest(
        write_list(photographs, BENCH / "photographs.txt"),
        write_list(
            [padded(TINY_PICTURES / tiny.CLASSES[0] / "0.jpg", BODY_BYTES, BENCH / "tiny.jpg")], BENCH / "tiny.txt"
        ),
        given.seconds,
    )
    results = Results()
    try:
        contest.play(given.only, given.rounds, results)
    except DeadServerError as error:
        sys.exit(f"our own server: {error}")
    finally:
        if results.matches or results.absent:  # an hour's measurements outlive what ends them
            write(results, given.out, given.seconds)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("data", type=Path, help="folder that holds imagenet_sample")
    parser.add_argument("--only", type=_names, default=NAMES, help=f"some of {','.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=8, help="length of a run [8]")
    parser.add_argument("--rounds", type=int, default=3, help="how often all of it is repeated [3]")
    parser.add_argument("--out", type=Path, default=BENCH / "results", help="folder for the results [.bench/results]")
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = set(names) - set(NAMES)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(NAMES)}")
    return names


if __name__ == "__main__":
    main(sys.argv[1:])
