"""Who may ask: API keys for clients, admin keys for those who change the server.

A key file has a line `NAME:DIGEST` a key, DIGEST being the SHA-256 of the key in hexadecimal, and comments after `#`.
So a file that leaks gives no key away. One plain hash is enough because keys are random: nobody can try 2^256 of them.
Several keys may have one name, so that a client can change from its old key to its new one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from scoring.errors import LineOodError
from service.problems import ForbiddenError, MissingKeyError, UnknownKeyError
from service.watched import Watched

Entries = tuple[tuple[str, bytes], ...]  # a key's name and its digest

_ENTRY = re.compile(r"([A-Za-z0-9_.@-]{1,64})\s*:\s*([0-9a-fA-F]{64})")


class Keys:
    """The keys of one server.

    Args:
        api_keys: file with the keys of clients; without it clients need none.
        admin_keys: file with the keys of admins, who may do what clients may, too; without it there are no admins.

    Raises:
        LineOodError: a file cannot be read, or not understood.
    """

    def __init__(self, api_keys: Path | None, admin_keys: Path | None) -> None:
        self._clients = None if api_keys is None else KeyFile(api_keys)
        self._admins = None if admin_keys is None else KeyFile(admin_keys)
        self.watched = [file.watched for file in (self._clients, self._admins) if file is not None]

    @property
    def protect_clients(self) -> bool:
        """Whether a client needs a key."""
        return self._clients is not None

    def check_client(self, headers: Mapping[str, str]) -> str:
        """Whose key these headers have; empty for somebody without one, where none is needed.

        Raises:
            MissingKeyError: there is no key.
            UnknownKeyError: there is one, and it is nobody's.
        """
        digest = _digest_of(headers)
        name = self._name_of(digest)
        if name is None and self._clients is not None:
            raise MissingKeyError(_WANTED) if digest is None else UnknownKeyError("this key is not known")
        return name or ""

    def check_admin(self, headers: Mapping[str, str]) -> str:
        """Whose admin key these headers have.

        Raises:
            ForbiddenError: the key is a client's, or this server has no admins.
            MissingKeyError: there is no key.
            UnknownKeyError: there is one, and it is nobody's.
        """
        if self._admins is None:
            raise ForbiddenError("this server has no admin keys, so nobody may do this")
        digest = _digest_of(headers)
        if digest is None:
            raise MissingKeyError(_WANTED)
        name = self._admins.find(digest)
        if name is not None:
            return name
        if self._name_of(digest) is None:
            raise UnknownKeyError("this key is not known")
        raise ForbiddenError("this takes an admin key")

    def _name_of(self, digest: bytes | None) -> str | None:
        if digest is None:
            return None
        names = [file.find(digest) for file in (self._admins, self._clients) if file is not None]
        return next((name for name in names if name is not None), None)


class KeyFile:
    """One file of keys; read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: Entries = ()
        self.watched = Watched([path], self._read)

    def find(self, digest: bytes) -> str | None:
        """The name of the key with this digest; takes equally long whichever it is, and if it is none."""
        found = None
        for name, own in self._entries:
            if compare_digest(own, digest):
                found = name
        return found

    def _read(self) -> None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise LineOodError(f"keys {self._path}: {reason}") from error
        self._entries = parse(text, str(self._path))


def parse(text: str, source: str) -> Entries:
    """Read the lines of a key file.

    Raises:
        LineOodError: a line is not understood; it is not repeated, because it may be a key.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise LineOodError(f"keys {source}, line {number}: wanted NAME:DIGEST, the SHA-256 of a key in hexadecimal")
        entries.append((match[1], bytes.fromhex(match[2])))
    if not entries:  # a file that is just being written looks like this, too
        raise LineOodError(f"keys {source}: there are none in it")
    if len({digest for _, digest in entries}) < len(entries):
        raise LineOodError(f"keys {source}: a key is there twice")
    return tuple(entries)


_WANTED = "wanted a key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"


def _digest_of(headers: Mapping[str, str]) -> bytes | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":  # some other scheme is for a proxy between
        key = headers.get("x-api-key", "")
    key = key.strip()
    return sha256(key.encode("latin-1", "replace")).digest() if key else None
