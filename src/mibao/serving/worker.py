"""The application in the process that serves it: what a worker opens for itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette

from mibao.crypto.keys import SignerPrivateKey
from mibao.serving.admission import OpenAdmission
from mibao.serving.app import Kept, gateway_app
from mibao.serving.configuration import Configuration
from mibao.serving.observed import log_as_json
from mibao.serving.worker_state import StateSettings, WorkerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """How to make the application; it travels to the process that serves."""

    configuration: Configuration
    gateway_key: bytes = field(repr=False)
    folder: Path
    signer: SignerPrivateKey | None = field(default=None, repr=False)

    def __call__(self, _target: str = "") -> Starlette:
        """The application. Raises as :func:`mibao.serving.app.gateway_app`."""
        log_as_json()
        return gateway_app(self.configuration, gateway_key=self.gateway_key, keep=self._keep, folder=self.folder)

    def _keep(self) -> Kept:
        if self.configuration.no_auth:
            return Kept(OpenAdmission(), lambda: None)
        state = WorkerState.open(
            self.configuration.state or StateSettings(), gateway_key=self.gateway_key, signer=self.signer
        )
        return Kept(state.admission, state.close)
