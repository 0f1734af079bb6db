"""The file in which a reader keeps what it opened: read and advanced under a lock, replaced whole."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mibao.errors import InputError, IntegrityError
from mibao.sealed import state
from mibao.sealed.files import SECRET_MODE, StrPath, whole_file
from mibao.sealed.manifest import Manifest
from mibao.sealed.state import Known

FILE_NAME = "sealed-versions"
ELSEWHERE = "keep it in another file (--state), or accept that older versions are not seen (--accept-rollback)"


def default_state_path() -> Path:
    """``mibao/sealed-versions`` in the user's state folder: ``$XDG_STATE_HOME``, or ``~/.local/state``.

    Raises:
        InputError: neither that variable nor a home folder is set.
    """
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():  # the XDG specification: a relative path is to be ignored
        try:
            folder = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise InputError("state: this user has no home folder; say where the file shall stand") from error
    return folder / "mibao" / FILE_NAME


class VersionState:
    """The versions opened before, kept in a file away from the models. Processes may share one.

    Whoever can change or delete the file can make its reader accept an older model again.
    """

    __slots__ = ("_required", "path")
    path: Path

    def __init__(self, path: StrPath | None = None, *, require_known: bool = False) -> None:
        """Nothing is read yet.

        Args:
            path: The file, made when the first model is opened; None is :func:`default_state_path`.
            require_known: Refuse a model of which no version was opened before.

        Raises:
            InputError: no path was given and there is no home folder.
        """
        self.path = default_state_path() if path is None else Path(path)
        self._required = require_known

    def __repr__(self) -> str:
        return f"<VersionState {self.path}>"

    def check(self, manifest: Manifest) -> None:
        """Return if a model with this manifest, its signature verified, may be opened.

        Raises:
            IntegrityError: an older version, another model of the same version, none known where one is required, or
                the file is damaged.
            InputError: the file cannot be read.
        """
        state.check(self._read(), manifest, required=self._required)

    def record(self, manifest: Manifest) -> None:
        """:meth:`check` again, and remember: only for a model whose signature and key commitment were checked.

        Raises:
            IntegrityError: as :meth:`check`; another process may have opened a newer version meanwhile.
            InputError: the file cannot be read or written.
        """
        with self._locked():
            known = self._read()
            state.check(known, manifest, required=self._required)
            after = state.advanced(known, manifest)
            if after != known:
                with whole_file(self.path, mode=SECRET_MODE) as sink:
                    sink.write_at(0, state.encode(after))

    def _read(self) -> Known:
        try:
            with self.path.open("rb") as file:
                data = file.read(state.MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(f"state: {self.path}: {error.strerror}; {ELSEWHERE}") from error
        try:
            return state.decode(data)
        except IntegrityError as error:
            raise IntegrityError(f"{error}: {self.path}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A file of its own: the state's is replaced, and a lock on it would go with it.
        path = self.path.with_name(f"{self.path.name}.lock")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
        except OSError as error:
            raise InputError(f"state: {path}: {error.strerror}; {ELSEWHERE}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
