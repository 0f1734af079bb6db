"""A key's record as people and programs read it."""

from __future__ import annotations

from mibao.serving.api_keys import Grant, KeyRecord

_MILLION = 1_000_000


def to_json(record: KeyRecord, *, now_ms: int) -> dict[str, object]:
    """A record as one JSON object, with neither the key nor its hash."""
    grant, limits = record.grant, record.grant.limits
    return {
        "id": record.key_id,
        "kind": grant.kind.value,
        "tenant": grant.tenant,
        "label": grant.label,
        "state": record.refusal(now_ms) or "open",
        "policy": grant.policy,
        "routes": None if grant.routes is None else sorted(grant.routes),
        "models": None if grant.models is None else sorted(grant.models),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_day": limits.tokens_per_day,
        "spend_per_month": None if limits.spend_per_month is None else limits.spend_per_month / _MILLION,
        "created_ms": record.created_ms,
        "expires_ms": grant.expires_ms,
        "revoked_ms": record.revoked_ms,
    }


def limits_text(grant: Grant) -> str:
    """What a key may do, in a few words."""
    limits, parts = grant.limits, []
    for what, names in (("routes", grant.routes), ("models", grant.models)):
        if names is not None:
            parts.append(f"{what} {', '.join(sorted(names))}")
    if grant.policy is not None:
        parts.append(f"policy {grant.policy}")
    if limits.requests_per_minute is not None:
        parts.append(f"{limits.requests_per_minute} requests/min")
    if limits.tokens_per_day is not None:
        parts.append(f"{limits.tokens_per_day} tokens/day")
    if limits.spend_per_month is not None:
        parts.append(f"{limits.spend_per_month / _MILLION:g} a month")
    return "; ".join(parts) or "everything"
