"""Spoiled images: number n of a corpus is always the same, so that whatever fails can be had again."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIZES = (0, 1, 2, 7, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 600

Mutator = Callable[[random.Random, bytearray, bytes], bytearray]  # the last one is another image


def mutant(files: Sequence[bytes], number: int) -> bytes:
    """Take an image and spoil it in one to three ways."""
    rng = random.Random(f"mutant {number}")
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATORS)(rng, data, rng.choice(files))
    if data.startswith(PNG_SIGNATURE) and rng.random() < 0.7:
        data = with_right_sums(data)
    return bytes(data)


def _flip_bits(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _truncate(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def _edit_header(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    for _ in range(rng.randint(1, 6) if data else 0):
        data[rng.randrange(min(len(data), HEADER_BYTES))] = rng.randrange(256)
    return data


def _edit_length(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    """One of the fields that say how long or how large something is gets another value, often an extreme one."""
    fields = list(_fields(data))
    if not fields:
        return data
    place, form = rng.choice(fields)
    width = struct.calcsize(form)
    old = struct.unpack_from(form, data, place)[0]
    new = rng.choice((*SIZES, old + 1, old - 1, old * 2, rng.getrandbits(32)))
    struct.pack_into(form, data, place, new & ((1 << 8 * width) - 1))
    return data


def _edit_size(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    """The picture is said to have another width or height, a plausible one: decoders have to run out of data."""
    places = list(_dimensions(data))
    if places:
        place, form = rng.choice(places)
        struct.pack_into(form, data, place, rng.choice((1, 3, 300, 1000, 3000, 6000)))
    return data


def _splice(rng: random.Random, data: bytearray, other: bytes) -> bytearray:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _overwrite(rng: random.Random, data: bytearray, other: bytes) -> bytearray:
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 256, 4096))
    source = rng.randrange(len(other))
    data[start : start + length] = other[source : source + length]
    return data


def _repeat(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    start, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 13, 64, 1024))
    piece = data[start : start + length]
    return data[:start] + piece * rng.choice((2, 3, 50)) + data[start + length :]


def _cut_out(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 5, 100, 3000)) :]


def _blank(rng: random.Random, data: bytearray, _: bytes) -> bytearray:
    start, length = rng.randrange(len(data) + 1), rng.choice((4, 64, 512))
    end = min(start + length, len(data))
    data[start:end] = bytes([rng.choice((0, 0xFF, 0x20))]) * (end - start)
    return data


MUTATORS: list[Mutator] = [
    _flip_bits,
    _truncate,
    _edit_header,
    _edit_length,
    _edit_length,
    _edit_size,
    _splice,
    _overwrite,
    _repeat,
    _cut_out,
    _blank,
]


def _fields(data: bytearray) -> Iterator[tuple[int, str]]:
    """Where lengths and sizes stand, and how they are written."""
    yield from _dimensions(data)
    if data.startswith(PNG_SIGNATURE):
        yield from ((place, ">I") for place in _png_chunks(data))
    elif data.startswith(b"\xff\xd8"):
        yield from ((place, ">H") for place in _jpeg_lengths(data))
    elif data.startswith(b"RIFF"):
        yield from ((place, "<I") for place in (4, 16) if place + 4 <= len(data))
    elif data.startswith(b"BM"):
        yield from ((place, "<I") for place in (2, 10, 14, 28, 30, 34, 46) if place + 4 <= len(data))
    elif data[:2] in (b"II", b"GI"):
        yield from ((place, "<H") for place in range(4, min(len(data), 200) - 2, 2))


def _dimensions(data: bytearray) -> Iterator[tuple[int, str]]:
    if data.startswith(PNG_SIGNATURE) and len(data) > 24:
        yield from ((16, ">I"), (20, ">I"))
    elif data.startswith(b"BM") and len(data) > 26:
        yield from ((18, "<I"), (22, "<I"))
    elif data.startswith(b"RIFF") and len(data) > 30:
        yield from ((24, "<H"), (26, "<H"), (28, "<H"))
    elif data.startswith(b"\xff\xd8"):
        for place in _jpeg_lengths(data):
            if data[place - 1] in (0xC0, 0xC1, 0xC2) and place + 7 <= len(data):
                yield from ((place + 3, ">H"), (place + 5, ">H"))


def _png_chunks(data: bytearray) -> Iterator[int]:
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        yield place
        place += 12 + int.from_bytes(data[place : place + 4], "big")


def _jpeg_lengths(data: bytearray) -> Iterator[int]:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        yield place + 2
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    if place + 4 <= len(data) and data[place : place + 2] == b"\xff\xda":
        yield place + 2


def with_right_sums(data: bytearray) -> bytearray:
    """The checksum of each chunk of a PNG is made right: otherwise it would be all that is ever looked at."""
    for place in _png_chunks(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 <= len(data):
            data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
    return data
