"""Admission by keys, tokens and certificates, within limits, with a record of everything.

    >>> with Store.open("gateway.db") as store:
    ...     accounts = Accounts(store, recording_key=key)
    ...     caller = await accounts.admit(authorization="Bearer sk-mibao-...", ...)
    ...     await accounts.settle(caller, outcome)

Whoever is not let in learns the same whether the key is unknown, revoked or expired.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mibao.crypto.rng import random_id
from mibao.errors import InputError, MibaoError
from mibao.serving import quotas, recording
from mibao.serving.admission import CLIENT_GONE, MODELS_ROUTE, Caller, Outcome, Refused
from mibao.serving.api_keys import KeyKind, KeyRecord, Limits
from mibao.serving.group_commit import GroupCommit
from mibao.serving.key_directory import KeyDirectory
from mibao.serving.oidc import NotAccepted, TokenVerifier
from mibao.serving.quotas import Quotas, Reserve, Reserved, Settle
from mibao.serving.storage import Store
from mibao.types import RandomId

RESERVED_TOKENS = 4096
SWEEP_S = 30.0
MAX_AUTHORIZATION_CHARS = 20_000
_SCHEME = "bearer "
_log = logging.getLogger(__name__)


def wall_clock_ms() -> int:
    """Milliseconds since 1970-01-01 UTC by this machine's clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a million tokens of a model cost, in the currency of the budgets."""

    prompt_per_million: float
    completion_per_million: float

    def __post_init__(self) -> None:
        for price in (self.prompt_per_million, self.completion_per_million):
            if not 0 <= price < 1e9:
                raise InputError(f"price: expected 0 or more for a million tokens, got {price}")

    def spend(self, *, prompt_tokens: int, completion_tokens: int) -> int:
        """Millionths of the currency, rounded up."""
        return math.ceil(prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted(Caller):
    """A caller that was let in once: :meth:`Accounts.settle` takes this very one."""

    request: RandomId
    reserved: Reserved | None


class Accounts:
    """What :class:`mibao.serving.admission.Admission` asks for, on a store.

    Args:
        store: Keys, counts and the outbox of the ledger.
        recording_key: Hides in the ledger who asked; 32 bytes derived from the gateway's key. None to keep no ledger.
        tokens: Accepts the tokens of identity providers; None where there are none.
        prices: By the model's name in the configuration. A key with a budget may ask for these models only.
        reserved_tokens: What a request is taken to use until it is known.
        sweeps: What else is to be done now and then.
        clock_ms: The time in UTC.
    """

    def __init__(
        self,
        store: Store,
        *,
        recording_key: bytes | None = None,
        tokens: TokenVerifier | None = None,
        prices: Mapping[str, Price] | None = None,
        reserved_tokens: int = RESERVED_TOKENS,
        sweeps: Sequence[Callable[[], object]] = (),
        clock_ms: Callable[[], int] = wall_clock_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recording_key, self._tokens = recording_key, tokens
        self._prices = dict(prices or {})
        self._reserved_tokens, self._clock_ms = reserved_tokens, clock_ms
        dearest = max((max(p.prompt_per_million, p.completion_per_million) for p in self._prices.values()), default=0)
        self._reserved_spend = math.ceil(reserved_tokens * dearest)
        self._sweeps = tuple(sweeps)
        self._quotas = Quotas(clock_ms)
        self._directory = KeyDirectory(store, monotonic_s=monotonic_s)
        self._commits = GroupCommit(store, self._quotas.apply, durable=quotas.is_durable)
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, args=(store,), name="mibao-sweep", daemon=True)
        self._sweeper.start()

    async def admit(
        self, *, authorization: str | None, client_certificate: bytes | None, route: str, model: str | None
    ) -> Caller:
        """See :meth:`mibao.serving.admission.Admission.admit`. Raises ``Unavailable`` if nothing can be decided."""
        caller, limits = await self._identified(authorization, client_certificate)
        if caller.routes is not None and route not in caller.routes:
            raise Refused("this key may not use this route", status=403, code="route_not_allowed")
        if model is not None and caller.models is not None and model not in caller.models:
            raise Refused("this key may not ask for this model", status=403, code="model_not_allowed")
        request, reserved = random_id(), None
        if not limits.are_none:
            answer = await self._commits.submit(
                Reserve(
                    reservation=request.value,
                    key_id=caller.key_id,
                    limits=limits,
                    tokens=self._reserved_tokens,
                    spend=self._reserved_spend,
                )
            )
            if isinstance(answer, Refused):
                raise answer
            reserved = answer
        return Admitted(
            tenant=caller.tenant,
            key_id=caller.key_id,
            policy=caller.policy,
            routes=caller.routes,
            models=caller.models,
            request=request,
            reserved=reserved,
        )

    async def settle(self, caller: Caller, outcome: Outcome) -> None:
        """See :meth:`mibao.serving.admission.Admission.settle`.

        Where the upstream did not say how many tokens an answer took, the reservation is charged.

        Raises:
            InputError: ``caller`` is not one that :meth:`admit` returned.
            Unavailable: it could not be written down.
        """
        if not isinstance(caller, Admitted):
            raise InputError("settle: expected the caller that admit returned")
        prompt, completion = outcome.prompt_tokens, outcome.completion_tokens
        price = self._prices.get(outcome.model)
        spend = price.spend(prompt_tokens=prompt, completion_tokens=completion) if price else 0
        if caller.reserved is not None and _is_uncounted(outcome):
            completion, spend = caller.reserved.tokens, caller.reserved.spend
        events = b""
        if self._recording_key is not None:
            hashed = recording.caller_hash(caller, key=self._recording_key)
            events = recording.encode(recording.events_of(outcome, request=caller.request, caller=hashed))
        await self._commits.submit(
            Settle(
                request=caller.request.value,
                key_id=caller.key_id,
                reserved=caller.reserved is not None,
                model=outcome.model,
                prompt_tokens=prompt,
                completion_tokens=completion,
                spend=spend,
                withheld=outcome.withheld is not None,
                events=events,
            )
        )

    def close(self) -> None:
        """Write what waits; call it off the event loop, after the last request."""
        self._closing.set()
        self._sweeper.join()
        self._commits.close()
        self._directory.close()

    async def _identified(self, authorization: str | None, certificate: bytes | None) -> tuple[Caller, Limits]:
        if authorization is None:
            if certificate is None:
                raise Refused("expected an API key", status=401, code="missing_api_key")
            return self._of_record(await self._directory.of_certificate(certificate), KeyKind.CERTIFICATE)
        secret = _bearer(authorization)
        if self._tokens is not None and secret.count(".") == 2:
            return await self._of_token(self._tokens, secret)
        return self._of_record(await self._directory.of_key(secret), KeyKind.CLIENT)

    def _of_record(self, record: KeyRecord | None, kind: KeyKind) -> tuple[Caller, Limits]:
        if record is None or record.grant.kind is not kind or record.refusal(self._clock_ms()) is not None:
            raise _not_known()
        grant = record.grant
        return self._caller(
            Caller(
                tenant=grant.tenant, key_id=record.key_id, policy=grant.policy, routes=grant.routes, models=grant.models
            ),
            grant.limits,
        )

    async def _of_token(self, tokens: TokenVerifier, text: str) -> tuple[Caller, Limits]:
        try:
            subject = await tokens.subject(text)
        except NotAccepted as reason:
            _log.info("token: %s", reason)
            raise _not_known() from None
        issuer = subject.issuer
        return self._caller(
            Caller(
                tenant=subject.tenant,
                key_id=subject.key_id,
                policy=issuer.policy,
                routes=issuer.routes,
                models=issuer.models,
            ),
            issuer.limits,
        )

    def _caller(self, caller: Caller, limits: Limits) -> tuple[Caller, Limits]:
        """With a budget, only for models whose price is known."""
        if limits.spend_per_month is None:
            return caller, limits
        priced = frozenset(self._prices)
        models = priced if caller.models is None else caller.models & priced
        narrowed = Caller(
            tenant=caller.tenant, key_id=caller.key_id, policy=caller.policy, routes=caller.routes, models=models
        )
        return narrowed, limits

    def _sweep(self, store: Store) -> None:
        while not self._closing.wait(SWEEP_S):
            try:
                with store.writing(durable=False) as connection:
                    self._quotas.sweep(connection)
                for sweep in self._sweeps:
                    sweep()
            except MibaoError as error:
                _log.warning("store: %s", error)


def _is_uncounted(outcome: Outcome) -> bool:
    """Whether a model answered, as far as is known, and nobody said how much."""
    asked = bool(outcome.upstream) and outcome.route != MODELS_ROUTE
    answered = asked and (outcome.status < 400 or outcome.status == CLIENT_GONE)
    return answered and outcome.prompt_tokens + outcome.completion_tokens == 0


def _bearer(authorization: str) -> str:
    if len(authorization) > MAX_AUTHORIZATION_CHARS or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise _not_known()
    return authorization[len(_SCHEME) :].strip()


def _not_known() -> Refused:
    return Refused("this API key is not valid", status=401, code="invalid_api_key")
