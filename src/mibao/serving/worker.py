"""The application in the process that serves it: what a worker opens for itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mibao.crypto.keys import SignerPrivateKey
from mibao.serving import configuration as configurations
from mibao.serving.configuration import Configuration

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from mibao.serving.app import Kept


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

        log_as_json()
        return gateway_app(self.configuration, gateway_key=self.gateway_key, keep=self._keep)

    def _keep(self) -> Kept:
        from mibao.serving.admission import OpenAdmission  # noqa: PLC0415
        from mibao.serving.app import Kept  # noqa: PLC0415
        from mibao.serving.worker_state import WorkerState  # noqa: PLC0415

        if self.configuration.no_auth:
            return Kept(OpenAdmission())
        state = WorkerState.open(self.configuration.state, gateway_key=self.gateway_key, signer=self.signer)
        return Kept(state.admission, state.close, state.vault)
