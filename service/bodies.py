"""From a request's body to encoded images, in three forms, never more than allowed of either."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence

from fastapi import Request
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from scoring.errors import LineOodError, UndecodableError
from service.problems import EmptyImageError, MalformedRequestError, TooLargeError, UnsupportedMediaTypeError
from service.schemas import Instances

Encoded = bytes | LineOodError  # an image, or why there is none: it fails alone

MAX_MARKS = 10_000  # commas and opening brackets in JSON; a request with a thousand images has some two thousand

CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")  # of the names of parts, which nobody reads

FORMS = "image/*, application/octet-stream, multipart/form-data or application/json"


async def read_images(request: Request, *, max_bytes: int, max_images: int) -> Sequence[Encoded]:
    """Read a body of any of the accepted forms.

    Raises:
        TooLargeError: more than `max_bytes` or `max_images`; the rest is not read.
        UnsupportedMediaTypeError: the body is of another form.
        MalformedRequestError: the body is not what its Content-Type says.
    """
    form = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    _check_length(request, max_bytes)
    stream = _limited(request, max_bytes)
    if form.startswith("image/") or form == "application/octet-stream":
        images: Sequence[Encoded] = [present(await _join(stream))]
    elif form == "multipart/form-data":
        images = await _read_multipart(request, stream, max_bytes, max_images)
    elif form == "application/json":
        images = _read_json(await _join(stream), max_images)
    else:
        raise UnsupportedMediaTypeError(f"Content-Type {form!r}: wanted {FORMS}")
    if len(images) > max_images:
        raise TooLargeError(f"the request has {len(images)} images, at most {max_images} are accepted")
    return images


async def read_bytes(request: Request, *, max_bytes: int) -> bytes:
    """Read a body as it is.

    Raises:
        TooLargeError: more than `max_bytes`; the rest is not read.
    """
    _check_length(request, max_bytes)
    return await _join(_limited(request, max_bytes))


def present(image: bytes) -> Encoded:
    """An encoded image, if there is anything of it."""
    return image or EmptyImageError("the image is empty: 0 bytes")


def decode_base64(text: str) -> Encoded:
    """An encoded image that travelled as text."""
    try:
        return present(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):  # the latter for characters beyond ASCII
        return UndecodableError("the image is not valid base64")


def check_marks(content: bytes) -> None:
    """Refuse JSON that would take seconds, and hundreds of megabytes, to parse: millions of small values or lists.

    Raises:
        TooLargeError: it is of that kind.
    """
    marks = content.count(b",") + content.count(b"[") + content.count(b"{")  # there are none in base64
    if marks > MAX_MARKS:
        raise TooLargeError(f"the JSON has {marks} commas and brackets, at most {MAX_MARKS} are accepted")


def _check_length(request: Request, max_bytes: int) -> None:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise TooLargeError(f"the body has {length} bytes, at most {max_bytes} are accepted")


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise TooLargeError(f"the body has more than {max_bytes} bytes")
        yield chunk


async def _join(stream: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in stream])


def _read_json(body: bytes, max_images: int) -> Sequence[Encoded]:
    check_marks(body)
    try:
        parsed = Instances.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "too_long":
            raise TooLargeError(f"the request has more than {max_images} images") from error
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise MalformedRequestError(f'{where}: {first["msg"]}; wanted {{"instances": [{{"b64": "..."}}]}}') from error
    if len(parsed.instances) > max_images:  # before they are decoded
        raise TooLargeError(f"the request has {len(parsed.instances)} images, at most {max_images} are accepted")
    return [decode_base64(instance.b64) for instance in parsed.instances]


class _MemoryParser(MultiPartParser):
    """Keeps parts in memory, which the limit on the body bounds: the root file system may be read-only."""

    def __init__(self, request: Request, stream: AsyncGenerator[bytes, None], max_bytes: int, max_files: int) -> None:
        super().__init__(request.headers, stream, max_files=max_files, max_fields=0)
        self.spool_max_size = max_bytes + 1
        self.has_ended = False

    def on_end(self) -> None:
        """The closing boundary has come."""
        self.has_ended = True

    async def parse(self) -> FormData:
        """Parse the whole body, and only a whole one."""
        form = await super().parse()
        if not self.has_ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("the body ends before its closing boundary")
        return form


def _check_charset(request: Request) -> None:
    """Refuse a charset before it is looked up: Python would remember every name for ever, and look for a module."""
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise MalformedRequestError(f"multipart/form-data: charset {charset[:40]!r}: wanted {', '.join(CHARSETS)}")


async def _read_multipart(
    request: Request, stream: AsyncGenerator[bytes, None], max_bytes: int, max_images: int
) -> Sequence[Encoded]:
    _check_charset(request)
    # One file more than allowed, so that too many of them are told from a malformed body.
    parser = _MemoryParser(request, stream, max_bytes, max_images + 1)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise TooLargeError(f"the request has more than {max_images} images") from error
        raise MalformedRequestError(f"multipart/form-data: {error.message}") from error
    try:
        images = [present(await value.read()) for _, value in form.multi_items() if isinstance(value, UploadFile)]
    finally:
        await form.close()
    if not images:
        raise MalformedRequestError("multipart/form-data: wanted one or more files, found none")
    return images
