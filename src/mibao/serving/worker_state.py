"""All that one worker keeps: its store, who is let in, the record, the vault and the counts, opened and closed as one.

    >>> state = WorkerState.open(settings, gateway_key=key, signer=signer)
    >>> app = gateway(admission=state.admission, vault=state.vault, ...)
    >>> state.close()

Each worker process opens its own, after it was started: connections and threads do not survive a fork.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from mibao.crypto.kdf import derive
from mibao.crypto.keys import SignerPrivateKey
from mibao.crypto.rng import random_id
from mibao.errors import InputError
from mibao.serving import api_keys
from mibao.serving.accounts import RESERVED_TOKENS, Accounts, Price, wall_clock_ms
from mibao.serving.admission import Admission
from mibao.serving.api_keys import MAX_LIMIT, Grant, KeyKind, Limits
from mibao.serving.metrics import Metrics, MetricsWriter
from mibao.serving.observed import Observed, OpenTelemetrySpans
from mibao.serving.oidc import Issuer, TokenVerifier
from mibao.serving.recording import Appender
from mibao.serving.storage import Store
from mibao.serving.vault_store import TTL_S, StoredVault

_Limit = Annotated[int, msgspec.Meta(ge=0, le=MAX_LIMIT)]
_Price = Annotated[float, msgspec.Meta(ge=0, lt=1e9)]


class PriceSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a million tokens of one model cost."""

    prompt_per_million: _Price
    completion_per_million: _Price


class IssuerSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One identity provider; see :class:`mibao.serving.oidc.Issuer`."""

    issuer: str
    audience: str
    jwks_url: str
    algorithms: tuple[str, ...] = ("RS256",)
    tenant: str | None = None
    tenant_claim: str | None = None
    policy: str | None = None
    routes: list[str] | None = None
    models: list[str] | None = None
    requests_per_minute: _Limit | None = None
    tokens_per_day: _Limit | None = None
    spend_per_month: _Price | None = None


class StateSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The part of a gateway's configuration that says what is kept.

    ``ledger`` names a file on this host; on the other hosts of one store it is left out, and ``record`` stays true.
    ``origin`` is the ledger's name. ``vault_days`` is how long a conversation's values are kept after their last use.
    """

    store: str = "gateway.db"
    record: bool = True
    ledger: str | None = None
    origin: str = "mibao/gateway"
    reserved_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] = RESERVED_TOKENS
    vault_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = TTL_S // 86_400
    traces: bool = False
    prices: dict[str, PriceSettings] = {}
    issuers: list[IssuerSettings] = []


class WorkerState:
    """What one worker keeps. ``admission`` is ready for the gateway, watched and recorded."""

    def __init__(
        self,
        settings: StateSettings,
        store: Store,
        *,
        gateway_key: bytes,
        signer: SignerPrivateKey | None,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.store, self.metrics = store, Metrics()
        self.vault = StoredVault(
            store,
            key=derive(gateway_key, purpose="serving/vault"),
            clock_ms=clock_ms,
            ttl_s=settings.vault_days * 86_400,
        )
        self.accounts = Accounts(
            store,
            recording_key=derive(gateway_key, purpose="serving/recording") if settings.record else None,
            tokens=TokenVerifier([_issuer(issuer) for issuer in settings.issuers]) if settings.issuers else None,
            prices={model: _price(price) for model, price in settings.prices.items()},
            reserved_tokens=settings.reserved_tokens,
            sweeps=[self.vault.sweep],
            clock_ms=clock_ms,
        )
        spans = OpenTelemetrySpans() if settings.traces else None
        self.admission: Admission = Observed(self.accounts, metrics=self.metrics, spans=spans)
        worker = f"{socket.gethostname()}-{os.getpid()}-{random_id()}"
        self._writer = MetricsWriter(store, self.metrics, worker=worker, clock_ms=clock_ms)
        self._appender: Appender | None = None
        if settings.record and settings.ledger is not None and signer is not None:
            self._appender = Appender(store, Path(settings.ledger), signer=signer, origin=settings.origin)
            self._appender.start()

    @classmethod
    def open(cls, settings: StateSettings, *, gateway_key: bytes, signer: SignerPrivateKey | None) -> WorkerState:
        """Everything that ``settings`` name, opened.

        Args:
            settings: What to keep.
            gateway_key: The gateway's, at least 16 bytes; what is derived from it hides who asked and seals the vault.
            signer: The ledger's Ed25519 key, where a ledger is named.

        Raises:
            InputError: a ledger without its key; an issuer that would be unsafe; a store that cannot be used.
            Unavailable: the database does not answer.
            MissingExtra: something is asked for that is not installed.
        """
        if settings.ledger is not None and signer is None:
            raise InputError("ledger: expected its signer's key (mibao keygen --sign)")
        store = Store.open(settings.store)
        try:
            return cls(settings, store, gateway_key=gateway_key, signer=signer)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Write what waits and let go, off the event loop, after the last request."""
        self.accounts.close()
        if self._appender is not None:
            self._appender.close()
        self._writer.close()
        self.store.close()


def first_key(store: Store, *, clock_ms: Callable[[], int] = wall_clock_ms) -> str | None:
    """The text of a key for everything, made where there was no key for clients at all; else None."""
    with store.writing() as connection:
        if any(record.grant.kind is not KeyKind.ADMIN for record in api_keys.every(connection)):
            return None
        return api_keys.create(connection, Grant(tenant="default", label="first"), now_ms=clock_ms())[0]


def _price(price: PriceSettings) -> Price:
    return Price(prompt_per_million=price.prompt_per_million, completion_per_million=price.completion_per_million)


def _issuer(settings: IssuerSettings) -> Issuer:
    spend = None if settings.spend_per_month is None else round(settings.spend_per_month * 1_000_000)
    return Issuer(
        issuer=settings.issuer,
        audience=settings.audience,
        jwks_url=settings.jwks_url,
        algorithms=settings.algorithms,
        tenant=settings.tenant,
        tenant_claim=settings.tenant_claim,
        policy=settings.policy,
        routes=None if settings.routes is None else frozenset(settings.routes),
        models=None if settings.models is None else frozenset(settings.models),
        limits=Limits(
            requests_per_minute=settings.requests_per_minute,
            tokens_per_day=settings.tokens_per_day,
            spend_per_month=spend,
        ),
    )
