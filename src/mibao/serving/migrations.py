"""The tables of the gateway's store, and how one version becomes the next.

A version, once released, is never edited: what changes is a step at the end of :data:`STEPS`. A row in
``schema_version`` says how many were taken. A worker that finds more steps taken than it knows stops; steps only add,
so that workers of the version before go on working while the new ones start.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, MetaData, String, Table, inspect, update

from mibao.errors import InputError

_LOCK = 0x6D62_6777
_TYPES = {
    "sqlite": {"blob": "BLOB", "serial": "INTEGER PRIMARY KEY AUTOINCREMENT"},
    "postgresql": {"blob": "BYTEA", "serial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"},
}

_metadata = MetaData()
KEYS = Table(
    "api_keys",
    _metadata,
    Column("key_id", String, primary_key=True),
    Column("kind", String, nullable=False),  # of api_keys.KeyKind
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the secret, or of a certificate
    Column("tenant", String, nullable=False),
    Column("label", String, nullable=False),
    Column("policy", String),
    Column("routes", String),  # JSON; NULL for all
    Column("models", String),
    Column("requests_per_minute", BigInteger),  # NULL for no limit
    Column("tokens_per_day", BigInteger),
    Column("spend_per_month", BigInteger),  # in millionths of the currency of the prices
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)
USAGE = Table(
    "usage",
    _metadata,
    Column("key_id", String, primary_key=True),
    Column("day", Integer, primary_key=True),  # since 1970-01-01, UTC
    Column("model", String, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("spend", BigInteger, nullable=False),
    Column("withheld", BigInteger, nullable=False),
)
REQUEST_SLOTS = Table(
    "request_slots",
    _metadata,
    Column("key_id", String, primary_key=True),
    Column("slot", BigInteger, primary_key=True),  # of quotas.SLOT_MS
    Column("requests", BigInteger, nullable=False),
)
RESERVATIONS = Table(
    "reservations",
    _metadata,
    Column("reservation", LargeBinary, primary_key=True),
    Column("key_id", String, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("spend", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
OUTBOX = Table(
    "ledger_outbox",
    _metadata,
    Column("position", BigInteger, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("events", LargeBinary, nullable=False),  # canonical CBOR, a list of event records
)
LEDGER_STATE = Table(
    "ledger_state",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("origin", String, nullable=False),
    Column("entries", BigInteger, nullable=False),  # of the ledger, when the outbox was last emptied into it
)
VAULT = Table(
    "vault",
    _metadata,
    Column("scope", LargeBinary, primary_key=True),
    Column("placeholder", LargeBinary, primary_key=True),  # a keyed hash
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
WORKERS = Table(
    "worker_metrics",
    _metadata,
    Column("worker", String, primary_key=True),
    Column("host", String, nullable=False),
    Column("counts", LargeBinary, nullable=False),
    Column("written_ms", BigInteger, nullable=False),
)

VERSION = Table("schema_version", _metadata, Column("id", Integer, primary_key=True), Column("version", Integer))

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE api_keys (key_id VARCHAR PRIMARY KEY, kind VARCHAR NOT NULL, digest {blob} NOT NULL, "
        "tenant VARCHAR NOT NULL, label VARCHAR NOT NULL, policy VARCHAR, routes VARCHAR, models VARCHAR, "
        "requests_per_minute BIGINT, tokens_per_day BIGINT, spend_per_month BIGINT, created_ms BIGINT NOT NULL, "
        "expires_ms BIGINT, revoked_ms BIGINT)",
        "CREATE UNIQUE INDEX api_keys_digest ON api_keys (digest)",
    ),
    (
        "CREATE TABLE usage (key_id VARCHAR NOT NULL, day INTEGER NOT NULL, model VARCHAR NOT NULL, "
        "requests BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, "
        "spend BIGINT NOT NULL, withheld BIGINT NOT NULL, PRIMARY KEY (key_id, day, model))",
        "CREATE TABLE request_slots (key_id VARCHAR NOT NULL, slot BIGINT NOT NULL, requests BIGINT NOT NULL, "
        "PRIMARY KEY (key_id, slot))",
        "CREATE TABLE reservations (reservation {blob} NOT NULL PRIMARY KEY, key_id VARCHAR NOT NULL, "
        "tokens BIGINT NOT NULL, spend BIGINT NOT NULL, expires_ms BIGINT NOT NULL)",
        "CREATE INDEX reservations_key ON reservations (key_id)",
    ),
    (
        "CREATE TABLE ledger_outbox (position {serial}, request {blob} NOT NULL UNIQUE, events {blob} NOT NULL)",
        "CREATE TABLE ledger_state (id INTEGER PRIMARY KEY CHECK (id = 0), origin VARCHAR NOT NULL, "
        "entries BIGINT NOT NULL)",
    ),
    (
        "CREATE TABLE vault (scope {blob} NOT NULL, placeholder {blob} NOT NULL, sealed {blob} NOT NULL, "
        "expires_ms BIGINT NOT NULL, PRIMARY KEY (scope, placeholder))",
        "CREATE INDEX vault_expiry ON vault (expires_ms)",
        "CREATE TABLE worker_metrics (worker VARCHAR PRIMARY KEY, host VARCHAR NOT NULL, counts {blob} NOT NULL, "
        "written_ms BIGINT NOT NULL)",
    ),
)


def upgrade(connection: Connection, *, to: int = len(STEPS)) -> int:
    """Take the steps that are missing, in the transaction of ``connection``; the version it had before.

    Raises:
        InputError: the store was made by a newer mibao.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    if not inspect(connection).has_table("schema_version"):
        connection.exec_driver_sql(
            "CREATE TABLE schema_version (id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL)"
        )
        connection.exec_driver_sql("INSERT INTO schema_version (id, version) VALUES (0, 0)")
    found = int(connection.exec_driver_sql("SELECT version FROM schema_version").scalar_one())
    if found > len(STEPS):
        raise InputError(f"store: expected schema version {len(STEPS)} or older, got {found}: made by a newer mibao")
    for number in range(found, to):
        for statement in STEPS[number]:
            connection.exec_driver_sql(statement.format(**_TYPES[dialect]))
    if to > found:
        connection.execute(update(VERSION).values(version=to))
    return found
