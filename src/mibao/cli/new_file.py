"""Files that were not there before: written whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from mibao.errors import InputError


def write_new(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write ``text`` to a file that does not exist yet; nothing is left behind when that fails.

    Args:
        mode: Permissions, less the umask; ``0o600`` for a secret.

    Raises:
        InputError: the file exists already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise InputError(
            f"{path} exists already and is not overwritten: choose another name or move it away"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        raise
