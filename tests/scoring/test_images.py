"""Real files of every accepted format and mode, and what hostile bytes may do: raise `ImageError`, nothing else."""

from __future__ import annotations

import base64
import io
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scoring.errors import ImageError, TooManyPixelsError, UndecodableError, UnsupportedFormatError
from scoring.images import ACCEPTED_FORMATS, MAX_PIXELS, open_image, to_array, to_rgb
from scoring.preprocess import Preprocess
from tests.data import real_data

ORIENTATION = 0x0112
PREPROCESS = Preprocess(resize=8, crop=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), exif_transpose=True)


def picture(mode: str = "RGB", size: tuple[int, int] = (13, 9)) -> Image.Image:
    """A picture of noise in any of Pillow's 8-bit modes."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA") if mode == "RGBA" else Image.fromarray(noise[..., :3]).convert(mode)


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decode(data: bytes, *, exif_transpose: bool = False) -> np.ndarray[Any, Any]:
    rgb = to_rgb(open_image(data), exif_transpose=exif_transpose)
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


def by_pillow(data: bytes) -> np.ndarray[Any, Any]:
    """The oracle, where Pillow is right: everything of 8 bits."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG file by hand: any size may be declared, any data follow."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


FILES = {
    "jpeg": encode(picture(), "JPEG"),
    "jpeg grey": encode(picture("L"), "JPEG"),
    "jpeg cmyk": encode(picture("CMYK"), "JPEG"),
    "jpeg progressive": encode(picture(), "JPEG", progressive=True),
    "png": encode(picture(), "PNG"),
    "png grey": encode(picture("L"), "PNG"),
    "png grey and alpha": encode(picture("LA"), "PNG"),
    "png grey, one value transparent": encode(picture("L"), "PNG", transparency=7),
    "png palette": encode(picture("P"), "PNG"),
    "png palette, one colour transparent": encode(picture("P"), "PNG", transparency=7),
    "png one bit": encode(picture("1"), "PNG"),
    "png alpha": encode(picture("RGBA"), "PNG"),
    "png, one colour transparent": encode(picture(), "PNG", transparency=(1, 2, 3)),
    "webp lossless": encode(picture(), "WEBP", lossless=True),
    "webp lossy": encode(picture(), "WEBP"),
    "webp alpha": encode(picture("RGBA"), "WEBP", lossless=True, exact=True),
    "bmp": encode(picture(), "BMP"),
    "bmp grey": encode(picture("L"), "BMP"),
    "bmp palette": encode(picture("P"), "BMP"),
    "bmp one bit": encode(picture("1"), "BMP"),
}
# Of 13x9 pixels, by cjpeg -arithmetic; the second with -sample 1x4.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wCDEACgAG4AeACMAHgAZACgAIwAggCMALQAqgCgAL4A8AGQAQQA8ADcANwA8AHqAV4BcgEiAZACRAH+AmIC"
    "WAI6Af4CMAImAoAC0AOYAwwCgAKoA2YCsgImAjADIARCAyoDZgO2A9QEBgQQBAYCbAMCBGoEugRgA+gEsAOYA/IEBgPe/9sAgxEAqgC0ALQA8ADS"
    "APAB1gEEAQQB1gPeApQCMAKUA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPe"
    "A94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3gPeA94D3v/JABEIAAkADQMBIgACEQEDEQH/zAAKABAQBQEQEQX/2gAMAwEAAhEDEQA/AGJyleN9"
    "PaUjEjHA/9k="
)
RARE_SUBSAMPLING = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqm"
    "x5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/yQARCAAJAA0D"
    "ARQAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwCIXG+lcya2QOJraCyoepOB/DoGrkfCbJMS/MDtx1hqTubYpTBBmoL8JRbIZfzgT2xa"
    "eAp11SHXuuJnTZjEidJvgYlG9yD2izLu/9k="
)
VALUES_16_BIT = [0, 255, 256, 511, 12345, 32768, 65280, 65535]


class TestDecoding:
    @pytest.mark.parametrize("name", FILES)
    def test_equals_pillow(self, name: str) -> None:
        """Every format and mode of 8 bits becomes the RGB picture that Pillow makes of it."""
        found = decode(FILES[name])
        assert found.shape == (9, 13, 3)
        assert (found == by_pillow(FILES[name])).all()

    @pytest.mark.parametrize("name", ["png", "webp lossless", "bmp"])
    def test_lossless_formats_give_back_every_pixel(self, name: str) -> None:
        """What was encoded is what is decoded."""
        assert (decode(FILES[name]) == np.asarray(picture())).all()

    @pytest.mark.parametrize("name", ["png alpha", "webp alpha"])
    def test_alpha_is_dropped(self, name: str) -> None:
        """The colours below it show, however transparent: nothing is blended."""
        assert (decode(FILES[name]) == np.asarray(picture("RGBA"))[..., :3]).all()

    def test_palette_with_alpha_is_looked_up(self) -> None:
        """A palette with an alpha a colour, as most tools write it, decodes without a warning of Pillow's."""
        data = encode(picture("P"), "PNG", transparency=bytes(range(256)))
        assert (decode(data) == np.asarray(picture("P").convert("RGB"))).all()

    def test_grey_of_16_bits_keeps_its_upper_byte(self) -> None:
        """Known values; Pillow alone would clip them at 255."""
        rows = b"\0" + struct.pack(">8H", *VALUES_16_BIT)
        found = decode(png(8, 1, depth=16, colour=0, data=rows))
        wanted = [value >> 8 for value in VALUES_16_BIT]
        assert [found[0, :, channel].tolist() for channel in range(3)] == [wanted] * 3

    def test_grey_and_alpha_of_16_bits_keeps_its_upper_byte(self) -> None:
        """Likewise with an alpha channel."""
        rows = b"\0" + b"".join(struct.pack(">2H", value, 77) for value in VALUES_16_BIT)
        found = decode(png(8, 1, depth=16, colour=4, data=rows))
        assert found[0, :, 1].tolist() == [value >> 8 for value in VALUES_16_BIT]

    def test_colour_of_16_bits_keeps_its_upper_byte(self) -> None:
        """Likewise in colour, so that grey and colour agree."""
        rows = b"\0" + b"".join(struct.pack(">3H", value, 0, 65535) for value in VALUES_16_BIT)
        found = decode(png(8, 1, depth=16, colour=2, data=rows))
        assert found[0, :, 0].tolist() == [value >> 8 for value in VALUES_16_BIT]
        assert (found[0, :, 2] == 255).all()

    @pytest.mark.parametrize(("depth", "step"), [(1, 255), (2, 85), (4, 17)])
    def test_grey_of_few_bits_is_stretched(self, depth: int, step: int) -> None:
        """The largest value of 1, 2 or 4 bits is white."""
        values = list(range(2**depth))[: 8 // depth]
        packed = sum(value << (8 - depth * (place + 1)) for place, value in enumerate(values))
        found = decode(png(len(values), 1, depth=depth, colour=0, data=bytes([0, packed])))
        assert found[0, :, 0].tolist() == [value * step for value in values]

    def test_an_animation_is_its_first_frame(self) -> None:
        """Of several frames the first is scored."""
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        for file_format in ("WEBP", "PNG"):
            data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
            assert decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it forgives
class TestFastDecoding:
    def check(self, data: bytes, shrink: int = 1) -> bool:
        """Compare with Pillow's draft mode, which at a scale of 1 is its plain one; whether it was the fast way."""
        slow, fast = open_image(data), open_image(data)
        if shrink > 1:
            slow.draft(None, (slow.width // shrink, slow.height // shrink))
        try:
            wanted = np.asarray(to_rgb(slow))
        except UndecodableError as error:
            with pytest.raises(UndecodableError) as caught:
                to_array(fast, data, shrink=shrink)
            assert str(caught.value) == str(error)
            return False
        found = to_array(fast, data, shrink=shrink)
        assert found.flags.writeable
        assert found.shape == wanted.shape
        assert (found == wanted).all()
        return bool(fast.tile)  # Pillow has decoded nothing

    @pytest.mark.parametrize("name", FILES)
    def test_equals_pillow(self, name: str) -> None:
        """Every format and mode; the fast way is for JPEGs in grey and RGB."""
        assert self.check(FILES[name]) == (name in ("jpeg", "jpeg grey", "jpeg progressive"))

    @pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (8, 8), (16, 16), (17, 33), (401, 300)])
    @pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "gray"])
    def test_equals_pillow_in_every_subsampling(self, subsampling: str, size: tuple[int, int]) -> None:
        """However coarse the chroma, with blocks cut by the edges."""
        space = {"colorspace": "gray"} if subsampling == "gray" else {"colorsubsampling": subsampling}
        pixels = np.asarray(picture("L", size))[..., None] if subsampling == "gray" else np.asarray(picture(size=size))
        assert self.check(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), **space))

    @pytest.mark.parametrize(
        "options",
        [
            {"progressive": True, "subsampling": 2},
            {"optimize": True},
            {"restart_marker_blocks": 1},
            {"keep_rgb": True},
            {"quality": 1},
            {"quality": 100, "subsampling": 0},
        ],
        ids=str,
    )
    def test_equals_pillow_in_every_coding(self, options: dict[str, Any]) -> None:
        """Progressive, with its own Huffman tables, with restart markers, not in YCbCr, coarse and fine."""
        assert self.check(encode(picture(size=(70, 51)), "JPEG", **options))

    def test_equals_pillow_in_arithmetic_coding(self) -> None:
        """The coding of the standard that hardly anyone writes."""
        assert self.check(ARITHMETIC)

    def test_leaves_a_rare_subsampling_to_pillow(self) -> None:
        """What the fast library has no name for is read all the same."""
        assert not self.check(RARE_SUBSAMPLING)

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    @pytest.mark.parametrize("shrink", [2, 4, 8])
    def test_shrinks_as_pillow_s_draft_mode(self, shrink: int, mode: str) -> None:
        """Sides are rounded up; CMYK goes the slow way to the same size."""
        for size in ((64, 48), (65, 49), (71, 55), (130, 32)):
            assert self.check(encode(picture(mode, size), "JPEG"), shrink) == (mode != "CMYK")

    def test_only_jpegs_shrink(self) -> None:
        """A PNG has no smaller picture inside."""
        assert not self.check(encode(picture(size=(64, 48)), "PNG"), 2)

    def test_a_header_that_two_parsers_read_differently_is_pillow_s(self) -> None:
        """The limits were checked on Pillow's reading: its size counts, whatever else the bytes say."""
        small, large = encode(picture(), "JPEG"), encode(picture(size=(64, 48)), "JPEG")
        found = to_array(open_image(small), large)
        assert found.shape == (9, 13, 3)

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}], ids=str)
    def test_cut_anywhere_after_the_header(self, options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
        """The library's grey completion is never taken for the picture: refused in Pillow's words, and in silence."""
        data = encode(picture(size=(40, 40)), "JPEG", **options)
        start = data.index(b"\xff\xda") + 20
        fast = [self.check(data[:end]) for end in range(start, len(data), 7)]
        assert not any(fast)
        assert self.check(data)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("shrink", [1, 2])
    def test_bytes_flipped_anywhere_after_the_header(self, shrink: int, capfd: pytest.CaptureFixture[str]) -> None:
        """Read where Pillow reads, to the same pixels, however wrong, and refused where it refuses."""
        data = encode(picture(size=(40, 40)), "JPEG", restart_marker_blocks=4)
        start = data.index(b"\xff\xda") + 20
        for at in range(start, len(data), 3):
            for flip in (0x01, 0x80, 0xFF):
                self.check(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], shrink)
        assert capfd.readouterr() == ("", "")

    def test_bytes_after_the_end_are_ignored(self) -> None:
        """Phones append videos and maps to their photographs."""
        assert self.check(FILES["jpeg"] + b"\0" * 1000 + FILES["jpeg"])

    def test_photographs(self) -> None:
        """JPEGs of cameras and of the web, whole and in a half: Pillow's pixels, nearly all the fast way."""
        files = sorted(real_data("imagenet_sample").rglob("*.[jJ][pP]*"))[::25]
        fast = [self.check(path.read_bytes(), shrink) for path in files for shrink in (1, 2)]
        assert sum(fast) >= 0.9 * len(fast)


class TestOrientation:
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("value", range(1, 9))
    def test_is_followed_where_asked(self, value: int, file_format: str) -> None:
        """All eight EXIF orientations, in each format that can carry one."""
        exif = Image.Exif()
        exif[ORIENTATION] = value
        data = encode(picture(), file_format, exif=exif, **({"lossless": True} if file_format == "WEBP" else {}))
        stored = decode(data)
        turned = {
            1: stored,
            2: stored[:, ::-1],
            3: stored[::-1, ::-1],
            4: stored[::-1],
            5: stored.transpose(1, 0, 2),
            6: stored.transpose(1, 0, 2)[:, ::-1],
            7: stored.transpose(1, 0, 2)[::-1, ::-1],
            8: stored.transpose(1, 0, 2)[::-1],
        }[value]
        found = decode(data, exif_transpose=True)
        assert found.shape == turned.shape
        assert (found == turned).all()

    def test_is_left_alone_otherwise(self) -> None:
        """Without being asked for, the stored pixels count, as in most training pipelines."""
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        assert (decode(encode(picture(), "PNG", exif=exif)) == np.asarray(picture())).all()

    @pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what it skips
    @pytest.mark.parametrize("exif_transpose", [False, True])
    def test_broken_exif_does_not_cost_the_picture(self, exif_transpose: bool) -> None:
        """Metadata of garbage is no reason to refuse good pixels."""
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        good = bytearray(encode(picture(), "JPEG", exif=exif))
        start = good.index(b"Exif") + 6
        for position in range(start, start + 24):
            broken = bytearray(good)
            broken[position] ^= 0xFF
            assert decode(bytes(broken), exif_transpose=exif_transpose).size == 13 * 9 * 3
        garbage = bytes(good[:start]) + b"\xff" * 26 + bytes(good[start + 26 :])
        assert decode(garbage, exif_transpose=exif_transpose).size == 13 * 9 * 3


class TestRefusal:
    def test_nothing_at_all(self) -> None:
        """Zero bytes are named as such."""
        with pytest.raises(UndecodableError, match="0 bytes"):
            open_image(b"")

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(encode(picture("P"), "GIF"), id="gif"),
            pytest.param(encode(picture(), "TIFF"), id="tiff"),
            pytest.param(encode(picture(), "PPM"), id="ppm"),
            pytest.param(encode(picture(), "ICO"), id="ico"),
            pytest.param(b"hello, world", id="text"),
            pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
            pytest.param(b"\0", id="one byte"),
            pytest.param(b"RIFF\x24\0\0\0WAVEfmt ", id="wav"),
            pytest.param(b" " + FILES["png"], id="png after a space"),
        ],
    )
    def test_other_formats(self, data: bytes) -> None:
        """Only the signatures of the accepted formats are opened; the message lists them."""
        with pytest.raises(UnsupportedFormatError, match=", ".join(ACCEPTED_FORMATS)):
            open_image(data)

    @pytest.mark.parametrize("signature", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM"])
    @pytest.mark.parametrize("rest", [b"", b"x", b"not what it says " * 9], ids=["nothing", "one byte", "text"])
    def test_a_signature_alone(self, signature: bytes, rest: bytes) -> None:
        """A file that only begins like an image cannot be read."""
        with pytest.raises(UndecodableError, match="header"):
            open_image(signature + rest)

    @pytest.mark.parametrize("name", ["jpeg", "png", "webp lossless", "bmp"])
    def test_truncated_files(self, name: str) -> None:
        """Cut in the middle of its pixels, an image is refused rather than completed in grey."""
        noise = picture(size=(64, 64))
        options = {"webp lossless": {"lossless": True}}.get(name, {})
        data = encode(noise, {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP"}.get(name, "WEBP"), **options)
        with pytest.raises(UndecodableError):
            decode(data[: len(data) * 2 // 3])

    @pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
    def test_pictures_without_pixels(self, size: tuple[int, int]) -> None:
        """A width or height of zero is a broken header, all the way through the preprocessing."""
        bmp = bytearray(FILES["bmp"])
        struct.pack_into("<ii", bmp, 18, *size)
        for data in (png(*size), bytes(bmp)):
            with pytest.raises(UndecodableError):
                PREPROCESS.read(data)


class TestLimits:
    def test_at_the_limit_is_accepted(self) -> None:
        """The limit itself is allowed; one pixel more is not."""
        assert open_image(png(1000, MAX_PIXELS // 1000)).size == (1000, 50_000)
        with pytest.raises(TooManyPixelsError, match=rf"1x{MAX_PIXELS + 1} pixels, at most {MAX_PIXELS}"):
            open_image(png(1, MAX_PIXELS + 1))

    def test_can_be_lowered(self) -> None:
        """Each caller may set its own."""
        assert open_image(FILES["png"], max_pixels=13 * 9).size == (13, 9)
        with pytest.raises(TooManyPixelsError):
            open_image(FILES["png"], max_pixels=13 * 9 - 1)

    @pytest.mark.parametrize("size", [(65_535, 65_535), (2**31 - 1, 2**31 - 1), (10_000, 5_001)])
    def test_declared_pixels_are_refused_before_any_is_decoded(self, size: tuple[int, int]) -> None:
        """A decompression bomb costs its sender's bytes: no time, no memory."""
        bomb = png(*size, data=b"\0" * 1_000_000)
        tracemalloc.start()
        start = time.perf_counter()
        with pytest.raises(TooManyPixelsError):
            PREPROCESS.read(bomb)
        seconds = time.perf_counter() - start
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < 1
        assert peak < 1_000_000

    @pytest.mark.parametrize("size", [(1, 50_000), (50_000, 1), (3, 3_000_000)])
    def test_a_strip_that_resizing_would_blow_up(self, size: tuple[int, int]) -> None:
        """Few pixels, but gigapixels once its short side is 256: refused before it is decoded."""
        wide = PREPROCESS.model_copy(update={"resize": 256, "crop": (224, 224)})
        with pytest.raises(TooManyPixelsError, match="resized to a short side of 256"):
            wide.read(png(*size))

    def test_a_strip_that_resizing_leaves_small(self) -> None:
        """The limit is about pixels, not about shape."""
        assert PREPROCESS.read(encode(picture(size=(1, 2000)), "PNG")).shape == (3, 8, 8)

    def test_a_strip_is_fine_where_nothing_is_resized(self) -> None:
        """Without `resize` only the declared pixels count."""
        plain = PREPROCESS.model_copy(update={"resize": None})
        assert plain.read(encode(picture(size=(1, 50_000)), "PNG")).shape == (3, 8, 8)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it forgives
class TestHostileBytes:
    @pytest.mark.parametrize("name", FILES)
    @settings(max_examples=60)
    @given(data=st.data())
    def test_mutated_files(self, name: str, data: st.DataObject) -> None:
        """Bytes overwritten, removed, repeated: an input for the network, or `ImageError`."""
        content = bytearray(FILES[name])
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, max(len(content) - 1, 0)))
            length = data.draw(st.integers(0, 8))
            content[at : at + length] = data.draw(st.binary(max_size=8))
        self.read(bytes(content))

    @pytest.mark.parametrize("name", FILES)
    def test_files_cut_anywhere(self, name: str) -> None:
        """Every prefix of a file, or at least two hundred of them."""
        content = FILES[name]
        for end in range(0, len(content), max(len(content) // 200, 1)):
            self.read(content[:end])

    @given(signature=st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b""]), rest=st.binary(max_size=200))
    def test_random_bytes(self, signature: bytes, rest: bytes) -> None:
        """Any bytes, with and without a known signature before them."""
        self.read(signature + rest)

    def read(self, content: bytes) -> None:
        outcomes = [self.outcome(content, name) for name in ("pillow", "turbo", "turbo-scaled")]
        assert len(set(outcomes)) == 1, "all decoders accept and refuse alike"

    def outcome(self, content: bytes, decoder: str) -> str:
        try:
            pixels = PREPROCESS.model_copy(update={"decoder": decoder}).read(content, max_pixels=1_000_000)
        except ImageError as error:
            return f"{type(error).__name__}: {error}"
        assert pixels.shape == (3, 8, 8)
        return "read"


class TestRealImages:
    def test_photographs_decode_as_pillow_decodes_them(self) -> None:
        """JPEGs of cameras and of the web, as they come."""
        files = sorted(real_data("imagenet_sample").rglob("*.[jJ][pP]*"))[::25]
        assert len(files) >= 30
        for path in files:
            data = path.read_bytes()
            assert (decode(data) == by_pillow(data)).all(), path
