"""Keys of clients and of an admin, and the files that let them in."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

KEY, OTHER, ADMIN = "k" * 43, "o" * 43, "a" * 43


def line(name: str, key: str) -> str:
    return f"{name}:{sha256(key.encode()).hexdigest()}\n"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def key_files(folder: Path) -> dict[str, Path]:
    """Settings of a server that KEY and OTHER may ask, and ADMIN may administrate."""
    (folder / "keys").write_text("# who may ask\n\n" + line("camera-7", KEY) + line("camera-8", OTHER))
    (folder / "admins").write_text(line("ops", ADMIN) + "# the end\n")
    return {"api_keys": folder / "keys", "admin_keys": folder / "admins"}
