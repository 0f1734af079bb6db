"""What a gateway is told, in TOML.

::

    [server]
    host = "127.0.0.1"
    port = 8100

    [[upstreams]]
    name = "openai"
    url = "https://api.openai.com/v1"
    key_env = "OPENAI_API_KEY"              # or key_file

    [[models]]
    name = "fast"                           # what clients ask for
    upstream = "openai"
    model = "gpt-4o-mini"
    fallbacks = ["spare"]

    [privacy]
    policy = "pseudonyms"                   # a ready policy, or one of [policies]
    attachments = "refuse"                  # or "pass"
    tools = ["*"]                           # whose arguments are restored
    report_header = false

    [privacy.routes]
    "/v1/embeddings" = "strict"

    [policies]
    strict = "strict.toml"

    [state]                                 # keys, quotas, ledger: docs/operating.md
    store = "gateway.db"
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from mibao.deid import Policy, parse_policy, ready_policy
from mibao.deid.policies import PSEUDONYMS, READY
from mibao.errors import InputError
from mibao.serving.faults import Dialect
from mibao.serving.upstreams import Upstream
from mibao.serving.worker_state import StateSettings

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Part(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A part of the configuration."""


class ServerSettings(_Part, frozen=True, kw_only=True):
    """Where to listen."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8100
    workers: _Count = 1
    certificate: str | None = None
    certificate_key: str | None = None
    client_authority: str | None = None
    admin_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None


class LimitSettings(_Part, frozen=True, kw_only=True):
    """How much at once."""

    body_bytes: _Count = 10 * 1024 * 1024
    answer_bytes: _Count = 64 * 1024 * 1024
    read_s: _Seconds = 30.0
    detect_s: _Seconds = 20.0
    concurrent: _Count = 256


class UpstreamSettings(_Part, frozen=True, kw_only=True):
    """One model service."""

    name: str
    url: str
    key_env: str | None = None
    key_file: str | None = None
    dialect: Literal["openai", "anthropic"] = "openai"
    forward_authorization: bool = False
    timeout_s: _Seconds = 600.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1


class ModelSettings(_Part, frozen=True, kw_only=True):
    """A name that clients ask for."""

    name: str
    upstream: str
    model: str | None = None
    fallbacks: tuple[str, ...] = ()


class PrivacySettings(_Part, frozen=True, kw_only=True):
    """What is done to texts."""

    policy: str = "pseudonyms"
    detection: bool = True
    attachments: Literal["refuse", "pass"] = "refuse"
    tools: tuple[str, ...] = ("*",)
    report_header: bool = False
    routes: dict[str, str] = {}
    conversation_s: _Seconds = 3600.0


class Configuration(_Part, frozen=True, kw_only=True):
    """All of it."""

    upstreams: tuple[UpstreamSettings, ...]
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    models: tuple[ModelSettings, ...] = ()
    privacy: PrivacySettings = PrivacySettings()
    policies: dict[str, str] = {}
    allow: tuple[str, ...] = ()
    state: StateSettings = StateSettings()
    no_auth: bool = False


def parse(text: str, *, source: str) -> Configuration:
    """The configuration written in ``text``.

    Raises:
        InputError: it is no TOML, a name or value in it is none that there is, or it contradicts itself.
    """
    try:
        configuration = msgspec.toml.decode(text, type=Configuration)
    except msgspec.DecodeError as error:
        raise InputError(f"{source}: {error}") from error
    check(configuration, source=source)
    return configuration


def check(configuration: Configuration, *, source: str) -> None:
    """Raises InputError where ``configuration`` contradicts itself."""
    names = [upstream.name for upstream in configuration.upstreams]
    if not names or len(set(names)) != len(names):
        raise InputError(f"{source}: expected one upstream or more, each with a name of its own")
    for upstream in configuration.upstreams:
        parts = urlsplit(upstream.url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or parts.query
            or parts.fragment
        ):
            raise InputError(f"{source}: upstream {upstream.name}: expected a URL such as https://host/v1")
    for path in configuration.allow:
        if not re.fullmatch(r"/v1/[a-z0-9_/-]{1,100}", path):
            raise InputError(f"{source}: allow: expected paths such as /v1/moderations")
    models = [model.name for model in configuration.models]
    if len(set(models)) != len(models):
        raise InputError(f"{source}: expected each model once")
    for model in configuration.models:
        if model.upstream not in names:
            raise InputError(f"{source}: model {model.name}: there is no upstream {model.upstream}")
        if missing := set(model.fallbacks) - set(models):
            raise InputError(f"{source}: model {model.name}: there is no model {min(missing)} to fall back to")


def located(configuration: Configuration, folder: Path) -> Configuration:
    """``configuration`` with every file in it looked for in ``folder``, where the configuration itself lies."""

    def at(file: str | None) -> str | None:
        return None if file is None else str(folder / file)

    server, state = configuration.server, configuration.state
    certificates = ("certificate", "certificate_key", "client_authority")
    return replace(
        configuration,
        server=replace(server, **{name: at(getattr(server, name)) for name in certificates}),
        upstreams=tuple(replace(each, key_file=at(each.key_file)) for each in configuration.upstreams),
        policies={name: str(folder / file) for name, file in configuration.policies.items()},
        state=replace(
            state, store=state.store if "://" in state.store else str(folder / state.store), ledger=at(state.ledger)
        ),
    )


def upstreams(configuration: Configuration) -> dict[str, Upstream]:
    """Every upstream with its key.

    Raises:
        InputError: a key is not where it was said to be.
    """
    return {each.name: _upstream(each, no_auth=configuration.no_auth) for each in configuration.upstreams}


def policies(configuration: Configuration) -> dict[str, Policy]:
    """Every policy that is named.

    Raises:
        InputError: one cannot be read, or is named and does not exist.
    """
    found = {PSEUDONYMS.name: PSEUDONYMS}
    for name, file in configuration.policies.items():
        try:
            found[name] = parse_policy(Path(file).read_text(encoding="utf-8"), source=file)
        except OSError as error:
            raise InputError(f"policy {name}: cannot read {file}: {error.strerror}") from error
    for name in (configuration.privacy.policy, *configuration.privacy.routes.values()):
        if name not in found:
            if name not in READY:
                raise InputError(f"policy {name}: expected one of {', '.join((*found, *READY))}")
            found[name] = ready_policy(name)
    return found


def _upstream(settings: UpstreamSettings, *, no_auth: bool) -> Upstream:
    key = None
    if settings.key_env is not None:
        key = os.environ.get(settings.key_env)
        if not key:
            raise InputError(f"upstream {settings.name}: expected its key in ${settings.key_env}")
    elif settings.key_file is not None:
        try:
            key = Path(settings.key_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InputError(f"upstream {settings.name}: cannot read its key: {error.strerror}") from error
    return Upstream(
        name=settings.name,
        url=settings.url,
        key=key,
        dialect=Dialect(settings.dialect),
        forward_authorization=settings.forward_authorization or (no_auth and key is None),
        timeout_s=settings.timeout_s,
        retries=settings.retries,
    )
