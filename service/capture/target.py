"""Where the images go: a folder, or any other place that fsspec has a URL for.

A file is there whole or not at all. An object store puts one so; anywhere else it is written under another name, which
begins with a dot, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from scoring.errors import LineOodError
from service.capture.names import is_day

# Stores where nobody sees an object before its last byte has arrived, and where folders are no more than names.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"})
PARTIAL = ".part"
PARTIAL_ENDS_S = 3600  # a half-written file older than this is nobody's any more
READERS = 16  # files that are read at a time: a store answers each of them late

# What is the fault of the URL, or of what was set up behind it, rather than of the moment.
WRONG = (
    ValueError,
    ImportError,
    TypeError,
    NotImplementedError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)


class TargetError(LineOodError):
    """A URL that images cannot be kept at, or read from."""


class Target:
    """A folder behind a URL; paths are relative to it.

    Args:
        url: of the folder.

    Raises:
        TargetError: the URL is of no kind that is known, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.shown = re.sub(r"(?<=://)[^/@]*@", "", url)  # without a password
        try:
            fs, root = fsspec.url_to_fs(url)
        except Exception as error:  # each kind of URL is parsed by other code
            raise TargetError(f"{self.shown}: {tell(error)}") from error
        self._fs: Any = fs
        self._root: str = root.rstrip("/")
        self._is_local = isinstance(fs, LocalFileSystem)
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._has_folders = not protocols & OBJECT_STORES

    def check(self) -> None:
        """Write a small file and delete it, and list what is there.

        Raises:
            TargetError: it will never do.
            Exception: not now.
        """
        path = f".check-{secrets.token_hex(4)}"
        try:
            self.put(path, b"line-ood")
            self.delete(path)
            self._list("")
        except Exception as error:
            if isinstance(error, WRONG) or getattr(error, "errno", None) == errno.EROFS:
                raise TargetError(f"{self.shown}: {tell(error)}") from error
            raise

    def put(self, path: str, content: bytes) -> None:
        """Write a file, at once or not at all."""
        if self._has_folders:
            self._put_and_rename(path, content)
        else:
            self._fs.pipe_file(self._full(path), content)

    def delete(self, path: str) -> None:
        """Delete a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def delete_folder(self, path: str) -> None:
        """Delete a folder, if it is one and empty."""
        if self._has_folders:
            with contextlib.suppress(OSError):
                self._fs.rmdir(self._full(path))

    def sizes(self, *, sweep: bool = False) -> dict[str, int]:
        """Every file by its path, with its bytes; with `sweep` what was left half-written long ago is deleted.

        Of folders only those of days are looked into: the others may be nobody's to read, as `lost+found` is.

        Raises:
            Exception: a folder cannot be listed, so that nobody takes it for an empty one.
        """
        self._fs.invalidate_cache()
        files = {self._below(path): info for path, info in self._find().items()}
        for path, info in files.items():
            if sweep and self._is_left_behind(path, info):
                self.delete(path)
        return {path: int(info.get("size") or 0) for path, info in files.items()}

    def read(self, paths: Sequence[str]) -> list[bytes | Exception]:
        """Files, or why each of them cannot be read."""

        def read_one(path: str) -> bytes | Exception:
            try:
                return bytes(self._fs.cat_file(self._full(path)))
            except Exception as error:  # each file system raises what it likes
                return error

        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(read_one, paths))

    def exists(self, path: str = "") -> bool:
        """Whether there is such a file or folder, the target itself for one."""
        return bool(self._fs.exists(self._full(path)))

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/") or str(self._fs.root_marker)

    def _below(self, full: str) -> str:
        return full.removeprefix(self._root).strip("/")

    def _find(self) -> dict[str, dict[str, Any]]:
        if not self._has_folders:  # all at once; each store has a `find` of its own, which raises what goes wrong
            found: dict[str, dict[str, Any]] = self._fs.find(self._full(""), detail=True)
            return found
        # The `find` that folders have passes over what cannot be listed.
        top = self._list("")
        days = [path for each in top if each["type"] == "directory" and is_day(path := self._below(each["name"]))]
        listed = [*top, *itertools.chain.from_iterable(map(self._list, days))]
        return {each["name"]: each for each in listed if each["type"] != "directory"}

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._fs.ls(self._full(folder), detail=True))
        except FileNotFoundError:  # deleted meanwhile, or nothing has been put there yet
            return []

    def _is_left_behind(self, path: str, info: Mapping[str, Any]) -> bool:
        name, written_at = path.rpartition("/")[2], info.get("mtime")
        is_partial = self._is_local and name.startswith(".") and name.endswith(PARTIAL)
        return is_partial and isinstance(written_at, float) and time.time() - written_at > PARTIAL_ENDS_S

    def _put_and_rename(self, path: str, content: bytes) -> None:
        full = self._full(path)
        folder, _, name = full.rpartition("/")
        partial = f"{folder}/.{name}{PARTIAL}"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            with self._fs.open(partial, "wb") as file:
                file.write(content)
                if self._is_local:  # or a power failure would leave the name with nothing behind it
                    file.flush()
                    os.fsync(file.fileno())
            self._fs.mv(partial, full)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(partial)
            raise


def open_target(url: str, patience_s: float) -> tuple[Target, Exception | None]:
    """Open a target and try it; why it does not work just now, if it does not.

    Raises:
        TargetError: it will never work.
    """
    target = Target(url)
    outcome: list[Exception | None] = []

    def attempt() -> None:
        try:
            target.check()
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, name="capture-check", daemon=True)
    thread.start()
    thread.join(patience_s)
    found = outcome[0] if outcome else TimeoutError(f"no answer within {patience_s:g} s")
    if isinstance(found, TargetError):
        raise found
    return target, found


def tell(error: Exception) -> str:
    """An error in a line: what some file systems raise says nothing but its name."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
