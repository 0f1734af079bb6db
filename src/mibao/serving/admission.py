"""Who may ask, and what is written down of it.

The gateway calls :meth:`Admission.admit` once a request, before it reads the body, and :meth:`Admission.settle` once
for each that was admitted, when it is over, whatever became of it. What lies behind them (keys, quotas, budgets,
ledger, metrics) is not its concern.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mibao.errors import MibaoError

CLIENT_GONE = 499  # the status of a request that its client left
MODELS_ROUTE = "/v1/models"  # asks no model anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. Never holds the text of a key.

    Args:
        tenant: Whose data it is: two tenants share no placeholder.
        key_id: Which of the tenant's keys: two keys share no placeholder either.
        policy: The policy of this key by name; None for the route's or the gateway's own.
        routes: The routes this key may use, as they stand in the configuration; None for all.
        models: The models this key may ask for, by the names clients use; None for all.
    """

    tenant: str
    key_id: str
    policy: str | None = None
    routes: frozenset[str] | None = None
    models: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one request: counts, never values.

    Args:
        route: The path of the API, one of the gateway's list, never what the client wrote.
        model: The model's name in the configuration, or an empty text where the request named none of them.
        upstream: The upstream's name in the configuration, or an empty text where none was asked.
        status: The HTTP status that the client got; 499 where it went away first.
        findings: How many findings of each type were replaced in the request.
        prompt_tokens: As the upstream counted them; 0 where it did not say.
        completion_tokens: The same of the answer.
        seconds: From the request's first byte to the answer's last.
        withheld: Why the request or its answer was not passed on, one of the gateway's error codes; None if it was.
    """

    route: str
    model: str
    upstream: str
    status: int
    findings: Mapping[str, int]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    withheld: str | None


class Refused(MibaoError):
    """Not admitted: nothing of the request was read or passed on.

    Args:
        message: One line for the client. It names neither the key nor whether there is such a key.
        status: 401 (not known), 403 (known, not allowed) or 429 (too often, too much).
        code: A word for programs, such as ``invalid_api_key``.
        retry_after_s: When to ask again, where waiting helps.
    """

    def __init__(self, message: str, *, status: int, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


@runtime_checkable
class Admission(Protocol):
    """What decides on each request and keeps the record of it."""

    async def admit(
        self, *, authorization: str | None, client_certificate: bytes | None, route: str, model: str | None
    ) -> Caller:
        """Who asks, where they may.

        Args:
            authorization: The request's key: ``Authorization`` as it came, or ``Bearer `` and its ``x-api-key``.
            client_certificate: The client's certificate in DER, where the connection was made with one.
            route: The path of the API.
            model: The model, where the path names it; else None, and the gateway holds the body's against
                :attr:`Caller.models` itself.

        Raises:
            Refused: they may not, or not now.
        """
        ...

    async def settle(self, caller: Caller, outcome: Outcome) -> None:
        """Write down what became of a request: durable when this returns."""
        ...


class OpenAdmission:
    """Everyone may ask, and nothing is written down: ``--no-auth``, for one user on their own machine."""

    async def admit(
        self, *, authorization: str | None, client_certificate: bytes | None, route: str, model: str | None
    ) -> Caller:
        """The tenant ``local``, whoever asks."""
        return _LOCAL

    async def settle(self, caller: Caller, outcome: Outcome) -> None:
        """Nothing is kept."""


_LOCAL = Caller(tenant="local", key_id="none")
