"""The application in the process that serves it: what a worker opens for itself."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from mibao.crypto.keys import SignerPrivateKey
from mibao.serving import configuration as configurations
from mibao.serving.configuration import Configuration

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from mibao.serving.app import Kept
    from mibao.serving.storage import Store

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """How to make the application; it travels to the process that serves."""

    configuration: Configuration
    gateway_key: bytes = field(repr=False)
    signer: SignerPrivateKey | None = field(default=None, repr=False)

    def check(self) -> None:
        """Read all that the configuration names. Raises as :meth:`__call__`."""
        configurations.upstreams(self.configuration)
        configurations.policies(self.configuration)

    def __call__(self, _target: str = "") -> Starlette:
        """The application. Raises as :func:`mibao.serving.app.gateway_app`."""
        from mibao.serving.app import gateway_app  # noqa: PLC0415 - the process that starts the others stays small
        from mibao.serving.observed import log_as_json  # noqa: PLC0415

        end_with_parent()
        log_as_json()
        return gateway_app(self.configuration, gateway_key=self.gateway_key, keep=self._keep)

    def _keep(self) -> Kept:
        from mibao.serving.admission import OpenAdmission  # noqa: PLC0415
        from mibao.serving.app import Kept  # noqa: PLC0415
        from mibao.serving.worker_state import WorkerState  # noqa: PLC0415

        if self.configuration.no_auth:
            return Kept(OpenAdmission())
        state = WorkerState.open(self.configuration.state, gateway_key=self.gateway_key, signer=self.signer)
        return Kept(state.admission, state.close, state.vault, ready=partial(_read, state.store))


def end_with_parent() -> None:
    """End this process, asked to as by a terminal, when the one that started it is gone, however that ended.

    Nothing else tells it where the parent was killed, and it would hold the port. On Linux; else, and in a process that
    is no child of another of mibao's, nothing is done. Source: prctl(2).
    """
    parent = multiprocessing.parent_process()
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if not parent.is_alive():  # it went before this was asked for
        os.kill(os.getpid(), signal.SIGTERM)


def _read(store: Store) -> None:
    from sqlalchemy import select  # noqa: PLC0415

    from mibao.serving.migrations import KEYS  # noqa: PLC0415

    with store.reading() as connection:
        connection.execute(select(KEYS).limit(1)).first()
